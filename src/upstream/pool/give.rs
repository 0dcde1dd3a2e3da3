//! Room for other workers: an idle connection here may be the one that a request there waits for.
//!
//! One task an upstream and worker sleeps until a request that found neither a connection nor
//! room for one asks; then the first worker that has an idle connection closes one.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::{Pools, evict, has_idle};
use crate::upstream::caps::Caps;

/// The tasks of one worker, by upstream. They end with it.
#[derive(Default)]
pub(super) struct Givers(Mutex<HashMap<Arc<str>, Giver>>);

struct Giver {
    caps: Weak<Caps>,
    task: AbortHandle,
}

impl Givers {
    /// Sees to it that this worker listens to those who wait under these caps.
    pub(super) fn begin(&self, upstream: &Arc<str>, caps: &Arc<Caps>, pools: &Arc<Pools>) {
        let mut givers = self.0.lock();
        let known = givers.get(upstream);
        if known.is_some_and(|giver| giver.caps.as_ptr() == Arc::as_ptr(caps)) {
            return;
        }
        let give = give(
            Arc::clone(upstream),
            Arc::clone(caps),
            Arc::downgrade(pools),
        );
        let giver = Giver {
            caps: Arc::downgrade(caps),
            task: tokio::spawn(give).abort_handle(),
        };
        givers.insert(Arc::clone(upstream), giver);
    }

    /// Ends the tasks of upstreams that `keep` does not know.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.0.lock().retain(|upstream, _| keep(upstream));
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn give(upstream: Arc<str>, caps: Arc<Caps>, pools: Weak<Pools>) {
    loop {
        let asked = caps.room_asked_for();
        let Some(pools) = pools.upgrade() else {
            return;
        };
        // Only who has one takes it on, or another worker would look in vain meanwhile.
        while has_idle(&pools, &upstream) && caps.take_on() {
            evict(&pools, &upstream);
        }
        drop(pools);
        asked.await;
    }
}
