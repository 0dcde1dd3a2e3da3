//! The caps of one upstream that hold over all workers: connections open, requests waiting.
//!
//! They are shared, and touched only when a connection opens or closes or a request must wait;
//! never by a request that finds an idle connection. A permit belongs to its connection's task,
//! so that it is given back when the socket is closed and not before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{GatewayError, Reason};

/// The caps, and what is used of them.
#[derive(Debug)]
pub(super) struct Caps {
    pub(super) max_connections: u32,
    permits: Arc<Semaphore>,
    pending: AtomicU32,
}

impl Caps {
    pub(super) fn new(max_connections: u32) -> Self {
        Caps {
            max_connections,
            permits: Arc::new(Semaphore::new(max_connections as usize)),
            pending: AtomicU32::new(0),
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

    /// Some request, on any worker, waits for a connection.
    pub(super) fn is_awaited(&self) -> bool {
        self.pending.load(Relaxed) > 0
    }

    /// A place among those that wait, or a refusal when `max` wait already.
    pub(super) fn wait(&self, max: u32) -> Result<Place<'_>, GatewayError> {
        let step = |n| (n < max).then_some(n + 1);
        match self.pending.fetch_update(Relaxed, Relaxed, step) {
            Ok(_) => Ok(Place(&self.pending)),
            Err(_) => Err(Reason::ConnectionLimitReached.into()),
        }
    }
}

/// A place in the queue; leaves it when dropped.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
