//! The caps of one upstream that hold over all workers: connections open, requests waiting.
//!
//! They are shared, and touched only when a connection opens or closes or a request must wait;
//! never by a request that finds an idle connection. A permit belongs to its connection, so that
//! it is given back when the socket is closed and not before. An upstream keeps its caps over
//! reloads: a lower maximum is reached as connections close, and none opens until it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::error::{GatewayError, Reason};

/// The caps, and what is used of them.
#[derive(Debug)]
pub(super) struct Caps {
    max_connections: Mutex<u32>,
    permits: Semaphore,
    /// Permits given out beyond a maximum that was lowered.
    owed: AtomicU32,
    pending: AtomicU32,
    /// Connections that are asked for from other workers.
    wanted: AtomicU32,
    asked: Notify,
}

impl Caps {
    pub(super) fn new(max_connections: u32) -> Self {
        Caps {
            max_connections: Mutex::new(max_connections),
            permits: Semaphore::new(max_connections as usize),
            owed: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            wanted: AtomicU32::new(0),
            asked: Notify::new(),
        }
    }

    /// Takes another maximum into force.
    pub(super) fn resize(&self, to: u32) {
        let mut max = self.max_connections.lock();
        let from = std::mem::replace(&mut *max, to);
        for _ in to..from {
            self.owed.fetch_add(1, Relaxed);
            // Nobody may take a free permit while one is owed.
            if self.permits.forget_permits(1) == 1 {
                self.settle();
            }
        }
        for _ in from..to {
            self.give_back();
        }
    }

    /// More connections are open than may be.
    pub(super) fn owed(&self) -> u32 {
        self.owed.load(Relaxed)
    }

    /// Takes one off what is owed; `false` if nothing is.
    fn settle(&self) -> bool {
        let step = |n: u32| n.checked_sub(1);
        self.owed.fetch_update(Relaxed, Relaxed, step).is_ok()
    }

    fn give_back(&self) {
        if !self.settle() {
            self.permits.add_permits(1);
        }
    }

    /// A permit for one connection, if there is one left.
    pub(super) fn try_open(self: &Arc<Self>) -> Option<Arc<Permit>> {
        self.permits.try_acquire().ok().map(|p| self.permit(p))
    }

    /// A permit for one connection, in turn.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Arc<Permit>, GatewayError> {
        match self.permits.acquire().await {
            Ok(permit) => Ok(self.permit(permit)),
            Err(closed) => Err(GatewayError::caused(Reason::ConnectionLimitReached, closed)),
        }
    }

    fn permit(self: &Arc<Self>, permit: SemaphorePermit<'_>) -> Arc<Permit> {
        permit.forget();
        Arc::new(Permit(Arc::clone(self)))
    }

    /// How many requests, on any worker, wait for a connection.
    pub(super) fn waiting(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    /// Asks every worker to give up an idle connection; one of them will.
    pub(super) fn ask_for_room(&self) {
        self.wanted.fetch_add(1, Relaxed);
        self.asked.notify_waiters();
    }

    /// Is ready once room is asked for after this call.
    pub(super) fn room_asked_for(&self) -> Notified<'_> {
        self.asked.notified()
    }

    /// Takes on what was asked for, if nobody has yet.
    pub(super) fn take_on(&self) -> bool {
        let step = |n: u32| n.checked_sub(1).filter(|_| self.waiting() > 0);
        self.wanted.fetch_update(Relaxed, Relaxed, step).is_ok()
    }

    /// A place among those that wait, or a refusal when `max` wait already.
    pub(super) fn wait(&self, max: u32) -> Result<Place<'_>, GatewayError> {
        let step = |n| (n < max).then_some(n + 1);
        match self.pending.fetch_update(Relaxed, Relaxed, step) {
            Ok(_) => Ok(Place(self)),
            Err(_) => Err(Reason::ConnectionLimitReached.into()),
        }
    }
}

/// One connection's share of the cap: the task of the connection holds it, and whoever has the
/// connection on loan, since an upgraded one outlives its task.
#[derive(Debug)]
pub(super) struct Permit(Arc<Caps>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// A place in the queue; leaves it when dropped.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a Caps);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let others = self.0.pending.fetch_sub(1, Relaxed) > 1;
        if others && self.0.wanted.load(Relaxed) > 0 {
            // What came back for this one may be idle now: others still wait for room.
            self.0.asked.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_cap_is_reached_as_connections_close_and_none_opens_before() {
        let caps = Arc::new(Caps::new(3));
        let mut open: Vec<_> = (0..3).filter_map(|_| caps.try_open()).collect();
        caps.resize(1);
        assert_eq!(caps.owed(), 2);
        for _ in 0..2 {
            open.pop();
            assert!(caps.try_open().is_none());
        }
        assert_eq!(caps.owed(), 0);
        open.pop();
        assert!(caps.try_open().is_some());
    }

    #[test]
    fn any_row_of_sizes_ends_with_as_many_permits_as_the_last() {
        let mut random = crate::upstream::balance::Random::new(7);
        for _ in 0..200 {
            let caps = Arc::new(Caps::new(4));
            let mut open = Vec::new();
            for _ in 0..30 {
                match (random.unit() * 3.0) as u32 {
                    0 => caps.resize((random.unit() * 9.0) as u32),
                    1 => open.extend(caps.try_open()),
                    _ => drop(open.pop()),
                }
                let max = *caps.max_connections.lock() as usize;
                let over = open.len().saturating_sub(max);
                assert_eq!(caps.owed() as usize, over);
            }
            caps.resize(5);
            open.clear();
            open.extend(std::iter::from_fn(|| caps.try_open()));
            assert_eq!(open.len(), 5);
        }
    }
}
