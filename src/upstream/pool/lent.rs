//! What a pool lends out, and what coming back means.
//!
//! Each of these undoes by its drop what lending did, so that a cancelled request leaks neither a
//! connection nor a count. A lent HTTP/1 connection that is not given back is closed: whoever
//! dropped it did not see the end of its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use tokio::task::AbortHandle;

use super::{EndpointPool, Idle, Life, Permit, Shared};
use crate::message::Body;
use crate::telemetry::handles::PoolClose;

/// An HTTP/1 connection, lent for one request. Dropped, it is closed; given back, it is kept.
pub(in crate::upstream) struct LentH1 {
    /// There until the connection is kept or released.
    pub(in crate::upstream) sender: Option<http1::SendRequest<Body>>,
    pub(super) task: AbortHandle,
    pub(super) permit: Arc<Permit>,
    pub(super) life: Life,
    /// When it came back from the request before, if there was one.
    pub(in crate::upstream) idle_since: Option<Instant>,
    pub(super) pool: Arc<EndpointPool>,
}

/// A stream's place on a shared HTTP/2 connection.
pub(in crate::upstream) struct LentH2 {
    pub(in crate::upstream) sender: http2::SendRequest<Body>,
    pub(super) streams: Arc<AtomicU32>,
    pub(super) pool: Arc<EndpointPool>,
}

/// Whether a connection that comes back is kept.
#[derive(Debug, Clone, Copy)]
pub(in crate::upstream) struct Keep {
    pub(in crate::upstream) max_idle: usize,
    /// Requests that wait for a connection, of any endpoint and worker.
    pub(in crate::upstream) awaited: u32,
}

impl LentH1 {
    pub(super) fn new(idle: Idle, pool: Arc<EndpointPool>) -> Self {
        pool.cells().pool_active.inc();
        LentH1 {
            sender: Some(idle.sender),
            task: idle.task,
            permit: idle.permit,
            life: idle.life,
            idle_since: Some(idle.since),
            pool,
        }
    }

    /// Gives the connection back for the next request.
    pub(in crate::upstream) fn keep(mut self, keep: Keep, now: Instant) {
        let Some(mut sender) = self.sender.take_if(|s| !s.is_closed()) else {
            return;
        };
        if sender.is_ready() {
            self.store(sender, keep, now);
            return;
        }
        // hyper has yet to see the end of the request or of the answer: rare, and soon over.
        tokio::spawn(async move {
            let ready = tokio::time::timeout(Duration::from_secs(1), sender.ready());
            if matches!(ready.await, Ok(Ok(()))) {
                self.store(sender, keep, crate::clock::now());
            } else {
                self.task.abort();
                self.pool.closed(PoolClose::Error);
            }
        });
    }

    fn store(&self, sender: http1::SendRequest<Body>, keep: Keep, now: Instant) {
        let idle = Idle {
            sender,
            task: self.task.clone(),
            permit: Arc::clone(&self.permit),
            since: now,
            life: self.life,
        };
        self.pool.keep(idle, keep);
    }

    /// Lets the connection go on by itself: it has been upgraded. What this gives counts it until
    /// it is dropped.
    pub(in crate::upstream) fn release(mut self, flight: InFlight) -> Upgraded {
        self.sender = None;
        self.pool.cells().pool_active.inc();
        Upgraded {
            flight,
            _permit: Arc::clone(&self.permit),
        }
    }
}

/// An upgraded connection in the counts.
pub(in crate::upstream) struct Upgraded {
    flight: InFlight,
    _permit: Arc<Permit>,
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.flight.0.cells().pool_active.dec();
    }
}

impl Drop for LentH1 {
    fn drop(&mut self) {
        self.pool.cells().pool_active.dec();
        if let Some(sender) = &self.sender {
            let by_peer = sender.is_closed();
            self.pool.closed(if by_peer {
                PoolClose::Peer
            } else {
                PoolClose::Error
            });
            self.task.abort();
        }
    }
}

impl LentH2 {
    pub(super) fn new(shared: &Shared, pool: Arc<EndpointPool>) -> Self {
        if shared.streams.fetch_add(1, Relaxed) == 0 {
            pool.cells().pool_idle.dec();
            pool.cells().pool_active.inc();
        }
        LentH2 {
            sender: shared.sender.clone(),
            streams: Arc::clone(&shared.streams),
            pool,
        }
    }
}

impl Drop for LentH2 {
    fn drop(&mut self) {
        if self.streams.fetch_sub(1, Relaxed) == 1 {
            self.pool.cells().pool_active.dec();
            self.pool.cells().pool_idle.inc();
        }
        if self.pool.waiting.load(Relaxed) > 0 {
            self.pool.returned.notify_one();
        }
    }
}

/// A request under way at an endpoint.
pub(in crate::upstream) struct InFlight(pub(super) Arc<EndpointPool>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let count = self.0.in_flight.load(Relaxed);
        self.0.in_flight.store(count.saturating_sub(1), Relaxed);
        self.0.cells().in_flight.dec();
    }
}

/// A request waiting for a connection.
pub(in crate::upstream) struct Waiting<'a>(pub(super) &'a EndpointPool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
        self.0.cells().pool_waiting.dec();
    }
}
