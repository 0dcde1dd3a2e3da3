//! What a worker does about its connections once a second, of its own accord.
//!
//! It holds up all that is under way on the worker: each pool is looked at once, and each upstream's
//! endpoints are gathered once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use foldhash::fast::FixedState;

use super::{Upstream, WorkerPools};
use crate::telemetry::handles::PoolClose;

impl WorkerPools {
    /// Closes idle and aged connections, and those to endpoints that are in no upstream any more.
    /// Called about once a second by the worker.
    pub fn housekeep(&self, now: Instant, upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>) {
        self.givers.retain(|name| upstreams.contains_key(name));
        self.views.tidy();
        let mut known: HashMap<&str, HashSet<_, FixedState>, FixedState> = HashMap::default();
        self.pools.lock().retain(|key, pool| {
            if pool.is_busy() {
                let upstream = upstreams.get_key_value(&key.upstream);
                let in_use = upstream.filter(|(name, upstream)| {
                    let endpoints = known.entry(name).or_insert_with(|| upstream.endpoints());
                    endpoints.contains(&(key.address, key.identity))
                });
                pool.left.store(in_use.is_none(), Relaxed);
                match in_use {
                    Some((_, upstream)) => pool.shrink(upstream.config.pool.max_idle as usize, now),
                    None => pool.close_idle(PoolClose::Drain),
                }
            }
            pool.expire(now);
            let wanted = pool.caps.owed().max(pool.caps.waiting().min(1));
            (0..wanted).take_while(|_| pool.evict()).for_each(drop);
            // A pool that no stack and no lease holds and that is empty is forgotten.
            Arc::strong_count(pool) > 1 || !pool.is_empty()
        });
    }
}
