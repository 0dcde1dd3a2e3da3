//! Endpoints that are gone from the config, or from the answer for their name, and still have
//! requests or connections on this worker: the state `draining`. Told to the control thread by the
//! cells of the upstream; connections that were upgraded are no longer the pool's and not counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{EndpointPool, Upstream, WorkerPools};

impl WorkerPools {
    /// Says of every upstream which addresses still have something here and are no endpoints any
    /// more. Called about once a second by the worker, after [`WorkerPools::housekeep`].
    pub fn tell_leaving(&self, upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>) {
        let mut busy: BTreeMap<Arc<str>, BTreeSet<SocketAddr>> = BTreeMap::new();
        for (key, pool) in self.pools.lock().iter() {
            if pool.left.load(Relaxed) && pool.is_busy() {
                let name = Arc::clone(&key.upstream);
                busy.entry(name).or_default().insert(key.address);
            }
        }
        for (name, upstream) in upstreams {
            let mut leaving = busy.remove(name).unwrap_or_default();
            if !leaving.is_empty() {
                let set = upstream.live.set();
                set.endpoints.iter().for_each(|e| {
                    leaving.remove(&e.address);
                });
            }
            *upstream.metrics.of(self.worker).leaving.lock() = leaving;
        }
    }
}

impl EndpointPool {
    /// It serves a request, or has a connection for the next one.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) > 0 || !self.is_empty()
    }
}
