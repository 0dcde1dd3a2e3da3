//! What a pool lends out, and what coming back means.
//!
//! Each of these undoes by its drop what lending did, so that a cancelled request leaks neither a
//! connection nor a count. A lent HTTP/1 connection that is not given back is closed: whoever
//! dropped it did not see the end of its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use tokio::task::AbortHandle;
use tokio::time::{Sleep, sleep_until};

use super::{EndpointPool, Idle, Life, Permit, SenderH1, Shared};
use crate::message::Body;
use crate::telemetry::handles::PoolClose;

/// An HTTP/1 connection, with what ends and counts it.
pub(super) struct Line {
    pub(super) sender: SenderH1,
    pub(super) task: AbortHandle,
    permit: Arc<Permit>,
    pub(super) life: Life,
    /// Over the wait for an answer; one for all requests, since resetting it is cheap.
    timer: Pin<Box<Sleep>>,
}

impl Line {
    pub(super) fn new(
        sender: SenderH1,
        task: AbortHandle,
        permit: Arc<Permit>,
        life: Life,
    ) -> Box<Self> {
        Box::new(Line {
            sender,
            task,
            permit,
            life,
            timer: Box::pin(sleep_until(life.retire_at.into())),
        })
    }
}

/// An HTTP/1 connection, lent for one request. Dropped, it is closed; given back, it is kept.
pub(in crate::upstream) struct LentH1 {
    /// There until the connection is kept or released.
    pub(super) line: Option<Box<Line>>,
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
    pub(super) fn new(
        line: Box<Line>,
        idle_since: Option<Instant>,
        pool: Arc<EndpointPool>,
    ) -> Self {
        pool.cells().pool_active.inc();
        LentH1 {
            line: Some(line),
            idle_since,
            pool,
        }
    }

    /// Gives the connection back for the next request.
    pub(in crate::upstream) fn keep(mut self, keep: Keep, now: Instant) {
        let Some(mut line) = self.line.take_if(|line| !line.sender.is_closed()) else {
            return;
        };
        if line.sender.is_ready() {
            self.pool.keep(Idle { line, since: now }, keep);
            return;
        }
        // hyper has yet to see the end of the request or of the answer: rare, and soon over.
        tokio::spawn(async move {
            let ready = tokio::time::timeout(Duration::from_secs(1), line.sender.ready());
            if matches!(ready.await, Ok(Ok(()))) {
                let since = crate::clock::now();
                self.pool.keep(Idle { line, since }, keep);
            } else {
                line.task.abort();
                self.pool.closed(PoolClose::Error);
            }
        });
    }

    /// What sends on it.
    pub(in crate::upstream) fn sender(&mut self) -> &mut SenderH1 {
        &mut self.line().sender
    }

    /// The timer over the wait for its answer.
    pub(in crate::upstream) fn timer(&mut self) -> Pin<&mut Sleep> {
        self.line().timer.as_mut()
    }

    fn line(&mut self) -> &mut Line {
        let line = self.line.as_mut();
        line.expect("a lent connection has its line")
    }

    /// Lets the connection go on by itself: it has been upgraded. What this gives counts it until
    /// it is dropped.
    pub(in crate::upstream) fn release(mut self, flight: InFlight) -> Upgraded {
        self.pool.cells().pool_active.inc();
        Upgraded {
            flight,
            _permit: self.line.take().map(|line| line.permit),
        }
    }
}

/// An upgraded connection in the counts.
pub(in crate::upstream) struct Upgraded {
    flight: InFlight,
    _permit: Option<Arc<Permit>>,
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.flight.0.cells().pool_active.dec();
    }
}

impl Drop for LentH1 {
    fn drop(&mut self) {
        self.pool.cells().pool_active.dec();
        if let Some(line) = &self.line {
            let by_peer = line.sender.is_closed();
            self.pool.closed(if by_peer {
                PoolClose::Peer
            } else {
                PoolClose::Error
            });
            line.task.abort();
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
