//! The caps of one upstream that hold over all workers: connections open, requests waiting.
//!
//! They are shared, and touched only when a connection opens or closes or a request must wait;
//! never by a request that finds an idle connection. A permit belongs to its connection's task,
//! so that it is given back when the socket is closed and not before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::error::{GatewayError, Reason};

/// The caps, and what is used of them.
#[derive(Debug)]
pub(super) struct Caps {
    pub(super) max_connections: u32,
    permits: Arc<Semaphore>,
    pending: AtomicU32,
    /// Connections that are asked for from other workers.
    wanted: AtomicU32,
    asked: Notify,
}

impl Caps {
    pub(super) fn new(max_connections: u32) -> Self {
        Caps {
            max_connections,
            permits: Arc::new(Semaphore::new(max_connections as usize)),
            pending: AtomicU32::new(0),
            wanted: AtomicU32::new(0),
            asked: Notify::new(),
        }
    }

    /// A permit for one connection, if there is one left.
    pub(super) fn try_open(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// A permit for one connection, in turn.
    pub(super) async fn open(&self) -> Result<OwnedSemaphorePermit, GatewayError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.map_err(|closed| GatewayError::caused(Reason::ConnectionLimitReached, closed))
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
