//! Gates under a plain model, under threads and under a clock that stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn settings(max: u32, queue: u32, order: Order) -> Settings {
    Settings {
        max,
        min: 1,
        adaptive: false,
        rules: Rules { queue, order },
    }
}

fn standing(gate: &Gate) -> (u32, u32) {
    let now = gate.standing();
    (now.in_flight, now.waiting)
}

/// Lets one in, now or in turn.
async fn wait(gate: &Gate, timeout: Duration) -> bool {
    match gate.queue() {
        Queued::In => true,
        Queued::Full => false,
        Queued::Waits(waiting) => waiting.turn(timeout).await,
    }
}

/// Starts a wait and lets it get into the queue.
async fn waits(gate: &Arc<Gate>, timeout: Duration) -> tokio::task::JoinHandle<bool> {
    let gate = gate.clone();
    let task = tokio::spawn(async move { wait(&gate, timeout).await });
    tokio::task::yield_now().await;
    task
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_in_the_order_of_arrival() {
    let gate = Arc::new(Gate::new(&settings(1, 3, Order::Fifo)));
    assert!(gate.enter(0));
    let mut line = Vec::new();
    for _ in 0..3 {
        line.push(waits(&gate, LONG).await);
    }
    assert!(!wait(&gate, LONG).await, "the queue is full");
    assert!(!gate.enter(0), "nobody comes before those who wait");
    for next in line {
        gate.leave();
        assert!(next.await.expect("no panic"));
        assert_eq!(gate.standing().in_flight, 1);
    }
    gate.leave();
    assert_eq!(standing(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn in_a_long_queue_the_newest_come_first_and_the_oldest_are_turned_away() {
    let gate = Arc::new(Gate::new(&settings(1, 4, Order::NewestFirst)));
    assert!(gate.enter(0));
    let mut line = Vec::new();
    for _ in 0..5 {
        line.push(waits(&gate, LONG).await);
    }
    let served = |task: &tokio::task::JoinHandle<bool>| task.is_finished();
    tokio::task::yield_now().await;
    assert!(served(&line[0]), "the oldest was turned away by the fifth");
    assert_eq!(standing(&gate), (1, 4));
    let mut order = Vec::new();
    for _ in 0..4 {
        gate.leave();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let done = (1..5).find(|n| served(&line[*n]) && !order.contains(n));
        order.push(done.expect("one was served"));
    }
    assert_eq!(order, [4, 3, 1, 2], "newest first only while it is long");
    assert!(!line.remove(0).await.expect("no panic"));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_timeout_and_leaves_no_trace() {
    let gate = Arc::new(Gate::new(&settings(1, 2, Order::Fifo)));
    assert!(gate.enter(0));
    let (impatient, cancelled) = (
        waits(&gate, Duration::from_millis(10)).await,
        waits(&gate, LONG).await,
    );
    assert_eq!(standing(&gate), (1, 2));
    assert!(!impatient.await.expect("no panic"));
    cancelled.abort();
    assert!(cancelled.await.is_err());
    assert_eq!(standing(&gate), (1, 0));
    gate.leave();
    assert_eq!(standing(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_lets_in_who_waits_and_a_lower_one_is_reached_as_they_leave() {
    let gate = Arc::new(Gate::new(&settings(1, 3, Order::Fifo)));
    assert!(gate.enter(0));
    let line = [waits(&gate, LONG).await, waits(&gate, LONG).await];
    gate.put_in_force(&settings(3, 3, Order::Fifo));
    for task in line {
        assert!(task.await.expect("no panic"));
    }
    assert_eq!(standing(&gate), (3, 0));
    gate.put_in_force(&settings(1, 3, Order::Fifo));
    let last = waits(&gate, LONG).await;
    gate.leave();
    gate.leave();
    assert_eq!(standing(&gate), (1, 1), "nobody comes in beyond the limit");
    gate.leave();
    assert!(last.await.expect("no panic"));
    assert_eq!(standing(&gate), (1, 0));
}

#[test]
fn beyond_the_limit_is_only_who_is_allowed_to_be() {
    let gate = Gate::new(&settings(2, 0, Order::Fifo));
    assert!(gate.enter(0) && gate.enter(0) && !gate.enter(0));
    assert!(gate.enter(1) && !gate.enter(1));
}

#[test]
fn an_adaptive_limit_moves_within_its_bounds_and_its_state_survives_other_bounds() {
    let adaptive = Settings {
        adaptive: true,
        min: 2,
        ..settings(100, 0, Order::Fifo)
    };
    let gate = Gate::new(&adaptive);
    let first = gate.standing().limit;
    let mut now = crate::clock::now();
    for _ in 0..first {
        assert!(gate.enter(0));
    }
    for _ in 0..2_000 {
        now += Duration::from_millis(10);
        gate.learn(Ended::Answered(Duration::from_millis(5)), now);
    }
    let grown = gate.standing().limit;
    assert!(grown > first, "{first} to {grown}");
    gate.put_in_force(&Settings {
        max: 90,
        ..adaptive
    });
    assert_eq!(gate.standing().limit, grown.min(90));
    gate.put_in_force(&settings(7, 0, Order::Fifo));
    assert_eq!(gate.standing().limit, 7);
}

/// What may be done to a gate.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Come,
    Leave,
    /// The nth of those who wait goes away.
    Cancel(usize),
    Resize(u32),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => Just(Deed::Come),
        3 => Just(Deed::Leave),
        1 => (0..8usize).prop_map(Deed::Cancel),
        1 => (1..5u32).prop_map(Deed::Resize),
    ]
}

/// Tells one who waits by taking their number down.
#[derive(Debug, Clone, Copy)]
struct Named;

impl Turn for Named {
    fn take(self) -> bool {
        true
    }
}

proptest! {
    #[test]
    fn the_counts_are_those_of_a_plain_model(deeds in prop::collection::vec(deed(), 0..200)) {
        let rules = Rules { queue: 4, order: Order::Fifo };
        let queue = Queue::new(2, rules);
        let (mut limit, mut inside, mut line) = (2, 0u32, std::collections::VecDeque::new());
        for deed in deeds {
            match deed {
                Deed::Come if queue.enter(0) => {
                    prop_assert!(inside < limit && line.is_empty());
                    inside += 1;
                }
                Deed::Come => match queue.ask(Named).0 {
                    Asked::In => prop_assert!(false, "it was full a moment ago"),
                    Asked::Full => prop_assert_eq!(line.len(), 4),
                    Asked::Waits(number) => line.push_back(number),
                },
                Deed::Leave if inside > 0 => {
                    queue.leave();
                    inside -= 1;
                    if inside < limit && line.pop_front().is_some() {
                        inside += 1;
                    }
                }
                Deed::Leave => {}
                Deed::Cancel(at) => {
                    if let Some(number) = line.remove(at) {
                        queue.forget(number);
                    }
                }
                Deed::Resize(to) => {
                    limit = to;
                    queue.resize(to, None);
                    while inside < limit && line.pop_front().is_some() {
                        inside += 1;
                    }
                }
            }
            let counts = queue.counts();
            prop_assert_eq!((counts.inside, counts.waiting), (inside, line.len() as u32));
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "threads of a test")]
fn over_threads_the_cap_is_exact_and_nothing_is_left_at_the_end() {
    const CAP: u32 = 3;
    let gate = Arc::new(Gate::new(&settings(CAP, 4, Order::NewestFirst)));
    let (inside, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let threads = (0..4).map(|seed| {
        let (gate, inside, most) = (gate.clone(), inside.clone(), most.clone());
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().build().expect("a runtime");
            let chance = crate::chance::Chance::seeded(seed);
            let visit = async |patience: Duration| {
                if gate.enter(0) || wait(&gate, patience).await {
                    most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, SeqCst);
                    gate.leave();
                }
            };
            runtime.block_on(async {
                for _ in 0..3_000 {
                    let patience = Duration::from_micros(chance.below(3) * 500);
                    let (a, b) = (visit(LONG), visit(patience));
                    tokio::join!(a, b, visit(patience));
                }
            });
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("no panic");
    }
    assert_eq!(most.load(SeqCst), CAP);
    assert_eq!(standing(&gate), (0, 0));
}
