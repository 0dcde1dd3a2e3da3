//! Where objects stand, bounded by what they weigh: `moka` behind a trait of ours.
//!
//! Its policy is TinyLFU: what is asked for once does not sweep out what is asked for often. For that
//! it counts what it is asked for, in a sketch whose size it settles once, when it is half full, by
//! a quarter of the objects it will have room for. That is too small: it forgets within two or three
//! requests for each object, and keeps hardly more of the right ones than LRU. So, shortly before,
//! it is shown more objects than there are, without weight, and they are taken away again.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use moka::notification::RemovalCause;

use super::Object;
use crate::clock;
use crate::telemetry::cache::{CacheCells, Evicted};

/// Objects without weight that are shown for each object that stands there.
const SHOWN: u64 = 4;
/// More are never shown: they take memory of their own, for a moment.
const MOST_SHOWN: u64 = 1 << 17;

/// Where objects stand: bounded by what they weigh.
pub trait Shelf: Send + Sync {
    /// What stands there, for somebody who wants it.
    fn get(&self, key: u128) -> Option<Arc<Object>>;
    /// Whether something stands there. To ask does not count.
    fn holds(&self, key: u128) -> bool;
    /// Puts it there, if it is worth its place.
    fn put(&self, key: u128, object: Arc<Object>);
    /// Takes it away.
    fn remove(&self, key: u128);
    /// Makes room, as far as that was put off.
    fn tidy(&self);
    /// The keys there are.
    fn keys(&self) -> Vec<u128>;
    /// How many, and what they weigh.
    fn size(&self) -> (u64, u64);
}

/// A key is keyed by chance already: half of it is its hash.
#[derive(Default)]
struct Half(u64);

impl Hasher for Half {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        // Keys are written whole; this is for completeness.
        self.0 = bytes
            .iter()
            .fold(self.0, |hash, b| hash.rotate_left(8) ^ u64::from(*b));
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// What stands under a key, or nothing that weighs something.
#[derive(Clone)]
enum Place {
    Object(Arc<Object>),
    Shown(u32),
}

impl Place {
    fn weight(&self) -> u32 {
        match self {
            Place::Object(object) => u32::try_from(object.weight()).unwrap_or(u32::MAX),
            Place::Shown(weight) => *weight,
        }
    }

    fn object(self) -> Option<Arc<Object>> {
        match self {
            Place::Object(object) => Some(object),
            Place::Shown(_) => None,
        }
    }
}

pub(super) struct Moka {
    cache: moka::sync::Cache<u128, Place, BuildHasherDefault<Half>>,
    memory: u64,
    /// Its sketch has its size.
    settled: AtomicBool,
}

impl Moka {
    pub(super) fn new(memory: u64, cells: Arc<CacheCells>) -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(memory)
            .weigher(|_: &u128, place: &Place| place.weight())
            .eviction_listener(move |_, place: Place, cause| {
                if let (RemovalCause::Size, Some(object)) = (cause, place.object()) {
                    let now = clock::now();
                    let spent = object.count(|entry| entry.head.terms.is_spent(now));
                    let useful = object.entries.len() as u64 - spent;
                    cells.evictions[Evicted::Expired as usize].add(spent);
                    cells.evictions[Evicted::Size as usize].add(useful);
                }
            });
        Moka {
            cache: cache.build_with_hasher(BuildHasherDefault::default()),
            memory,
            settled: AtomicBool::new(false),
        }
    }

    /// Shows it objects without weight, then enough weight to be half full.
    fn settle(&self, objects: u64, weight: u64) {
        let shown = (objects * SHOWN).min(MOST_SHOWN);
        // Numbers from zero on: keys are drawn from so many that none is among them.
        let keys = 0..u128::from(shown);
        for key in keys.clone() {
            self.cache.insert(key, Place::Shown(0));
        }
        let missing = (self.memory / 2 + 1).saturating_sub(weight);
        let heavy = u128::MAX;
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        self.cache.insert(heavy, Place::Shown(missing));
        self.cache.run_pending_tasks();
        keys.chain([heavy])
            .for_each(|key| self.cache.invalidate(&key));
        self.cache.run_pending_tasks();
    }
}

impl Shelf for Moka {
    fn get(&self, key: u128) -> Option<Arc<Object>> {
        self.cache.get(&key)?.object()
    }
    fn holds(&self, key: u128) -> bool {
        self.cache.contains_key(&key)
    }
    fn put(&self, key: u128, object: Arc<Object>) {
        self.cache.insert(key, Place::Object(object));
    }
    fn remove(&self, key: u128) {
        self.cache.invalidate(&key);
    }
    fn tidy(&self) {
        self.cache.run_pending_tasks();
        let (objects, weight) = self.size();
        let nearly_half = weight >= self.memory / 5 * 2;
        if nearly_half && !self.settled.swap(true, Relaxed) {
            self.settle(objects, weight);
        }
    }
    fn keys(&self) -> Vec<u128> {
        self.cache.iter().map(|(key, _)| *key).collect()
    }
    fn size(&self) -> (u64, u64) {
        (self.cache.entry_count(), self.cache.weighted_size())
    }
}
