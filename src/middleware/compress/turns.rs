//! Turns at long work on one worker: a slice of it between two looks at the sockets.
//!
//! Streams that encode are always ready to go on. Were each to wake itself, the row of tasks would
//! never be empty, and the runtime looks at its sockets once in 61 tasks: a request that encodes
//! nothing would wait for as many slices. So the streams of a worker take turns in the order in
//! which they came, and the next ones come after the runtime has looked. An answer waits for its
//! first turn before its head is sent: a crowd of answers that come at once is as much work as a
//! few long ones. Whoever has a turn and does not use it, since its client takes nothing, holds
//! nobody up.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Input between two looks, in bytes.
pub(super) const TURN: usize = 8 * 1024;

/// The turns of one worker.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    /// Some of a turn was used.
    used: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Input since the last look.
    spent: usize,
    /// Places handed out.
    places: u64,
    /// By place, which is the order in which they came.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    /// Input that it will encode.
    cost: usize,
    waker: Waker,
}

impl Turns {
    /// Hands out turns for as long as the worker runs.
    pub(super) async fn hand_out(&self) {
        loop {
            self.used.notified().await;
            loop {
                // comes back when the runtime has looked at its sockets
                tokio::task::yield_now().await;
                if !self.next() {
                    break;
                }
            }
        }
    }

    /// The runtime has looked: those who come next have their turn. `false`: nobody waited.
    fn next(&self) -> bool {
        let mut state = self.state.lock();
        state.spent = 0;
        let mut granted = 0;
        let waited = !state.waiting.is_empty();
        while granted < TURN
            && let Some(next) = state.waiting.pop_front()
        {
            granted += next.cost;
            next.waker.wake();
        }
        waited
    }

    /// Waits for a turn, as a stream does that has just come, and does nothing with it.
    pub(super) async fn wait(self: &Arc<Self>) {
        let mut place = Place::new(self);
        poll_fn(|cx| place.poll(0, cx)).await;
    }
}

/// A stream's place in the row.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<Turns>,
    /// While it waits, and until it has used its turn.
    number: Option<u64>,
}

impl Place {
    pub(super) fn new(turns: &Arc<Turns>) -> Self {
        Place {
            turns: Arc::clone(turns),
            number: None,
        }
    }

    /// Ready when so much input may be encoded; what is, is to be [spent](Self::spend).
    pub(super) fn poll(&mut self, cost: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.turns.state.lock();
        let first = state.waiting.front().map(|first| first.number);
        let may = match self.number {
            // It was woken, and those who came later are not before it.
            Some(number) => first.is_none_or(|first| number < first),
            None => first.is_none() && state.spent < TURN,
        };
        if !may {
            state.wait(&mut self.number, cost, cx.waker());
            return Poll::Pending;
        }
        self.number = None;
        Poll::Ready(())
    }

    /// So much input is encoded now.
    pub(super) fn spend(&self, cost: usize) {
        let mut state = self.turns.state.lock();
        let begins = state.spent == 0 && cost > 0;
        state.spent += cost;
        drop(state);
        if begins {
            self.turns.used.notify_one();
        }
    }
}

impl State {
    fn wait(&mut self, number: &mut Option<u64>, cost: usize, waker: &Waker) {
        let Some(number) = number else {
            *number = Some(self.places);
            self.waiting.push_back(Waiting {
                number: self.places,
                cost,
                waker: waker.clone(),
            });
            self.places += 1;
            return;
        };
        let at = self.waiting.binary_search_by_key(number, |w| w.number);
        if let Ok(at) = at
            && !self.waiting[at].waker.will_wake(waker)
        {
            self.waiting[at].waker = waker.clone();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.turns.state.lock();
            state.waiting.retain(|other| other.number != number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    fn handed_out() -> Arc<Turns> {
        let turns = Arc::new(Turns::default());
        let these = Arc::clone(&turns);
        tokio::spawn(async move { these.hand_out().await });
        turns
    }

    #[tokio::test]
    async fn between_two_slices_the_runtime_looks_at_its_sockets() {
        let turns = handed_out();
        let slices = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let (turns, slices) = (turns.clone(), slices.clone());
            tokio::spawn(async move {
                let mut place = Place::new(&turns);
                loop {
                    poll_fn(|cx| place.poll(TURN, cx)).await;
                    place.spend(TURN);
                    slices.fetch_add(1, Relaxed);
                }
            });
        }
        // each of these is one look
        for _ in 0..1000 {
            let before = slices.load(Relaxed);
            tokio::task::yield_now().await;
            assert!(slices.load(Relaxed) <= before + 1);
        }
        assert!(slices.load(Relaxed) >= 900, "{slices:?}");
    }

    #[tokio::test]
    async fn turns_come_round_and_small_work_shares_one() {
        let turns = handed_out();
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..4)
            .map(|name| {
                let (turns, order) = (turns.clone(), order.clone());
                tokio::spawn(async move {
                    let mut place = Place::new(&turns);
                    for _ in 0..3 {
                        poll_fn(|cx| place.poll(TURN, cx)).await;
                        place.spend(TURN);
                        order.lock().push(name);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("it ends");
        }
        assert_eq!(*order.lock(), [0, 0, 1, 2, 3, 0, 1, 2, 3, 1, 2, 3]);
        let mut waker = Context::from_waker(Waker::noop());
        turns.wait().await;
        tokio::task::yield_now().await;
        let mut small = Place::new(&turns);
        for _ in 0..4 {
            assert!(small.poll(TURN / 4, &mut waker).is_ready());
            small.spend(TURN / 4);
        }
        assert!(small.poll(TURN / 4, &mut waker).is_pending());
    }

    #[tokio::test]
    async fn one_that_does_not_use_its_turn_or_goes_holds_nobody_up() {
        let turns = handed_out();
        let mut idle = Context::from_waker(Waker::noop());
        let mut places: Vec<_> = (0..4).map(|_| Place::new(&turns)).collect();
        assert!(places[0].poll(TURN, &mut idle).is_ready());
        places[0].spend(TURN);
        for place in &mut places[1..] {
            assert!(place.poll(TURN, &mut idle).is_pending());
        }
        // the second goes, the third never comes back
        places.remove(1);
        let last = places.last_mut().expect("the fourth");
        poll_fn(|cx| last.poll(TURN, cx)).await;
        turns.wait().await;
    }
}
