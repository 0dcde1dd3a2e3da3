//! Streams beside a hyper that does as it is told.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::*;
use crate::plan::listener::Limits;

#[derive(Default)]
struct Count(AtomicU32);

impl Count {
    fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// What hyper is in these tests: counts its polls, and ends when it is told.
#[derive(Default)]
struct Hyper {
    polls: Count,
    waker: Mutex<Option<Waker>>,
    restless: AtomicBool,
    ends: AtomicBool,
}

impl Hyper {
    fn wake(&self) {
        let waker = self.waker.lock().clone();
        waker.expect("it was polled").wake();
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.polls.0.fetch_add(1, Relaxed);
        *self.waker.lock() = Some(cx.waker().clone());
        if self.restless.load(Relaxed) {
            cx.waker().wake_by_ref();
        }
        match self.ends.load(Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// A connection, what it is polled with, and a hand on both ends.
struct Scene<C> {
    hyper: Arc<Hyper>,
    begun: Arc<Begun>,
    woken: Arc<Count>,
    connection: Pin<Box<Multiplex<C>>>,
}

fn scene() -> Scene<impl Future<Output = ()>> {
    let limits = Limits {
        headers: 1,
        header_bytes: 1,
        header_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        body_idle_timeout: Duration::from_secs(1),
        write_timeout: Duration::from_secs(1),
        streams: 1,
    };
    let (hyper, begun) = (Arc::new(Hyper::default()), Arc::new(Begun::default()));
    let polled = hyper.clone();
    let connection = Multiplex::new(
        poll_fn(move |cx| polled.poll(cx)),
        begun.clone(),
        Arc::new(Pulse::new(&limits, true)),
    );
    Scene {
        hyper,
        begun,
        woken: Arc::default(),
        connection: Box::pin(connection),
    }
}

impl<C: Future<Output = ()>> Scene<C> {
    fn poll(&mut self) -> Poll<()> {
        let waker = Waker::from(self.woken.clone());
        let mut context = Context::from_waker(&waker);
        self.connection.as_mut().poll(&mut context)
    }

    /// A stream that waits for a word, and then has hyper write.
    fn stream(&self) -> (oneshot::Sender<()>, Arc<Count>) {
        let (word, mut heard) = oneshot::channel::<()>();
        let (hyper, polls) = (self.hyper.clone(), Arc::new(Count::default()));
        let counted = polls.clone();
        self.begun.push(Box::pin(poll_fn(move |cx| {
            counted.0.fetch_add(1, Relaxed);
            let polled = Pin::new(&mut heard).poll(cx).map(drop);
            if polled.is_ready() {
                hyper.wake();
            }
            polled
        })));
        (word, polls)
    }
}

#[test]
fn only_what_was_woken_is_polled_and_hyper_writes_in_the_same_turn() {
    let mut scene = scene();
    let (word, first) = scene.stream();
    let (other, second) = scene.stream();
    assert!(scene.poll().is_pending());
    assert_eq!(
        (scene.hyper.polls.get(), first.get(), second.get()),
        (1, 1, 1)
    );
    assert_eq!(scene.woken.get(), 0);
    word.send(()).expect("it waits");
    assert_eq!(scene.woken.get(), 1);
    assert!(scene.poll().is_pending());
    assert_eq!(
        (scene.hyper.polls.get(), first.get(), second.get()),
        (2, 2, 1)
    );
    assert!(scene.poll().is_pending());
    assert_eq!(
        (scene.hyper.polls.get(), first.get(), second.get()),
        (2, 2, 1)
    );
    assert_eq!(scene.woken.get(), 1, "nothing is left to do");
    drop(other);
    assert_eq!(scene.woken.get(), 2);
}

#[test]
fn streams_begin_in_the_order_in_which_they_were_asked_for() {
    let mut scene = scene();
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..5 {
        let order = order.clone();
        scene
            .begun
            .push(Box::pin(async move { order.lock().push(number) }));
    }
    assert!(scene.poll().is_pending());
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_stream_that_panics_takes_no_other_with_it() {
    let mut scene = scene();
    scene
        .begun
        .push(Box::pin(async { panic!("as a test wants") }));
    let (word, polls) = scene.stream();
    assert!(scene.poll().is_pending());
    word.send(()).expect("it waits still");
    assert!(scene.poll().is_pending());
    assert_eq!(polls.get(), 2);
}

#[test]
fn streams_end_with_hyper_even_those_that_never_began() {
    let mut scene = scene();
    let (running, _) = scene.stream();
    assert!(scene.poll().is_pending());
    scene.hyper.ends.store(true, Relaxed);
    scene.hyper.wake();
    assert!(scene.poll().is_ready());
    let (late, _) = scene.stream();
    drop(scene.connection);
    assert!(running.is_closed() && late.is_closed());
}

#[test]
fn whoever_wakes_itself_for_ever_leaves_other_tasks_their_turn() {
    let mut scene = scene();
    scene.hyper.restless.store(true, Relaxed);
    assert!(scene.poll().is_pending());
    assert_eq!(scene.hyper.polls.get(), ROUNDS as u32);
    assert_eq!(scene.woken.get(), 1, "it is to be polled again");
}

#[test]
fn the_places_of_a_burst_are_given_back_and_a_late_wake_finds_nobody() {
    let mut scene = scene();
    let wakers = Arc::new(Mutex::new(Vec::new()));
    let words: Vec<_> = (0..100)
        .map(|_| {
            let (word, mut heard) = oneshot::channel::<()>();
            let wakers = wakers.clone();
            scene.begun.push(Box::pin(poll_fn(move |cx| {
                wakers.lock().push(cx.waker().clone());
                Pin::new(&mut heard).poll(cx).map(drop)
            })));
            word
        })
        .collect();
    assert!(scene.poll().is_pending());
    assert_eq!(scene.connection.places.len(), 100);
    drop(words);
    assert!(scene.poll().is_pending());
    assert_eq!(
        (scene.connection.places.len(), scene.connection.free.len()),
        (KEPT, KEPT)
    );
    for waker in wakers.lock().drain(..) {
        waker.wake();
    }
    assert!(scene.poll().is_pending());
    let (word, polls) = scene.stream();
    scene.hyper.wake();
    assert!(scene.poll().is_pending());
    word.send(()).expect("it has a place");
    assert!(scene.poll().is_pending());
    assert_eq!(polls.get(), 2);
}
