//! The queue of this very folder under a model checker: every interleaving of a few threads.

use std::sync::Arc;

#[allow(
    clippy::duplicate_mod,
    reason = "this very file, made of other atomics"
)]
#[path = "queue.rs"]
mod queue;

/// What the queue is made of, as the model sees it.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    /// With the face of the lock that is used otherwise.
    #[derive(Debug)]
    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("nobody panics with the lock")
        }
    }
}

use super::{Order, Rules};
use loom::sync::atomic::{
    AtomicU8,
    Ordering::{AcqRel, Acquire},
};
use queue::{Asked, Counts, Queue, Turn};

const WAITS: u8 = 0;
const SERVED: u8 = 1;
const GONE: u8 = 2;

/// One who waits, as a word of memory.
#[derive(Debug, Clone)]
struct Slot(Arc<AtomicU8>);

impl Slot {
    fn turn(&self, to: u8) -> bool {
        let turned = self.0.compare_exchange(WAITS, to, AcqRel, Acquire);
        turned.is_ok()
    }
}

impl Turn for Slot {
    fn take(self) -> bool {
        self.turn(SERVED)
    }
}

const RULES: Rules = Rules {
    queue: 1,
    order: Order::Fifo,
};

/// Comes, waits if it must, may lose patience, and leaves: as `Gate::wait` does.
fn visit(queue: &Queue<Slot>, patient: bool) {
    if queue.enter(0) {
        queue.leave();
        return;
    }
    let slot = Slot(Arc::new(AtomicU8::new(WAITS)));
    match queue.ask(slot.clone()).0 {
        Asked::Full => {}
        Asked::In => queue.leave(),
        Asked::Waits(_) if patient => {
            while slot.0.load(Acquire) == WAITS {
                loom::thread::yield_now();
            }
            queue.leave();
        }
        Asked::Waits(number) => {
            if slot.turn(GONE) {
                queue.forget(number);
            } else {
                queue.leave();
            }
        }
    }
}

/// Runs these visitors beside each other over one place, in every order; it is empty at the end.
fn model(visitors: &'static [bool], beside: impl Fn(&Queue<Slot>) + Send + Sync + 'static) {
    let beside = Arc::new(beside);
    let mut builder = loom::model::Builder::new();
    // More switches than this between three threads take hours, and find what fewer find.
    builder.preemption_bound = Some(if visitors.len() > 2 { 2 } else { 3 });
    builder.check(move || {
        let queue = Arc::new(Queue::new(1, RULES));
        let others = visitors[1..].iter().map(|patient| {
            let queue = queue.clone();
            loom::thread::spawn(move || visit(&queue, *patient))
        });
        let others: Vec<_> = others.collect();
        visit(&queue, visitors[0]);
        beside(&queue);
        for other in others {
            other.join().expect("no panic");
        }
        let nobody = Counts {
            inside: 0,
            waiting: 0,
        };
        assert_eq!(queue.counts(), nobody);
        assert!(queue.enter(0), "the place is there again");
    });
}

#[test]
fn a_place_is_never_lost_between_two_who_wait_patiently() {
    model(&[true, true], |_| ());
}

#[test]
fn one_who_loses_patience_just_as_the_place_comes_leaves_it_to_others() {
    model(&[true, false, true], |_| ());
}

#[test]
fn a_limit_that_rises_meanwhile_lets_in_who_waits() {
    model(&[true, true], |queue| queue.resize(2, None));
}
