//! A shared connection being made: those who would share it wait, and fail as it fails.
//!
//! Without this each of them would try in turn, and the last would learn of a dead endpoint after
//! as many connect timeouts as there are requests.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::EndpointPool;
use crate::error::Reason;

/// The shared connections of one pool that are being made.
#[derive(Debug, Default)]
pub(super) struct Openings {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: u32,
    /// How many have begun so far.
    begun: u64,
    /// The one that failed last, and why.
    failed: Option<(u64, Reason)>,
}

impl EndpointPool {
    /// Waits for a shared connection that is being made: gives `None` at once when there is none,
    /// and the reason if it could not be made.
    pub(in crate::upstream) async fn opened(&self) -> Option<Result<(), Reason>> {
        let ended = self.openings.ended.notified();
        let awaited = {
            let state = self.openings.state.lock();
            (state.under_way > 0).then_some(state.begun)?
        };
        let _waiting = self.wait();
        ended.await;
        let failed = self.openings.state.lock().failed;
        Some(match failed {
            Some((nth, reason)) if nth >= awaited => Err(reason),
            Some(_) | None => Ok(()),
        })
    }
}

/// A connection being made. Dropped, it is there or has failed.
pub(in crate::upstream) struct Connecting<'a> {
    pool: &'a EndpointPool,
    /// Its number, if it is to be shared.
    shared: Option<u64>,
}

impl<'a> Connecting<'a> {
    pub(in crate::upstream) fn begin(pool: &'a EndpointPool, shared: bool) -> Self {
        pool.cells().pool_connecting.inc();
        let shared = shared.then(|| {
            let mut state = pool.openings.state.lock();
            state.under_way += 1;
            state.begun += 1;
            state.begun
        });
        Connecting { pool, shared }
    }

    /// It could not be made.
    pub(in crate::upstream) fn failed(&self, reason: Reason) {
        if let Some(nth) = self.shared {
            self.pool.openings.state.lock().failed = Some((nth, reason));
        }
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.pool.cells().pool_connecting.dec();
        if self.shared.is_some() {
            self.pool.openings.state.lock().under_way -= 1;
            self.pool.openings.ended.notify_waiters();
        }
    }
}
