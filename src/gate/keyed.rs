//! A cap for each client: how much each key has in flight, over all workers.
//!
//! An entry is there while its client has something in flight, and goes with the last of it: so
//! the table is bounded by what is in flight, and cannot be filled by inventing keys. There is no
//! queue: a client that is at its cap is refused. Keys are hashes (`message::key`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::RandomState;

use foldhash::fast::RandomState as Fast;
use parking_lot::Mutex;

/// A power of two.
const SHARDS: usize = 64;
/// A shard without clients keeps room for this many.
const KEPT: usize = 64;

/// What each client has in flight.
pub struct Clients {
    /// By what keys are hashed; the same as long as anything is counted.
    pub by: RandomState,
    shards: Box<[Shard]>,
}

/// Shards stand on cache lines of their own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<HashMap<u64, u32, Fast>>);

impl Default for Clients {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default());
        Clients {
            by: RandomState::new(),
            shards: shards.collect(),
        }
    }
}

impl Clients {
    fn shard(&self, key: u64) -> &Shard {
        // Any bits do: the hash is as good in one place as in another.
        &self.shards[usize::try_from(key >> 32).unwrap_or(0) % SHARDS]
    }

    /// Lets one more of this client in, unless it has `max`.
    pub fn enter(&self, key: u64, max: u32) -> bool {
        let mut shard = self.shard(key).0.lock();
        match shard.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(1);
                true
            }
            Entry::Occupied(mut entry) if *entry.get() < max => {
                *entry.get_mut() += 1;
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// One of this client that was let in has gone.
    pub fn leave(&self, key: u64) {
        let mut shard = self.shard(key).0.lock();
        let Entry::Occupied(mut entry) = shard.entry(key) else {
            return;
        };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
            if shard.is_empty() && shard.capacity() > KEPT {
                shard.shrink_to(KEPT);
            }
        }
    }

    /// How much this client has in flight.
    pub fn of(&self, key: u64) -> u32 {
        let shard = self.shard(key).0.lock();
        shard.get(&key).copied().unwrap_or(0)
    }

    /// How many clients have something in flight, and how much all of them have.
    pub fn count(&self) -> (usize, u64) {
        let shards = self.shards.iter().map(|shard| {
            let shard = shard.0.lock();
            (shard.len(), shard.values().map(|n| u64::from(*n)).sum())
        });
        shards.fold((0, 0), |sum, of: (usize, u64)| (sum.0 + of.0, sum.1 + of.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    #[test]
    fn no_client_has_more_than_the_cap_and_nothing_is_left_of_one_that_has_gone() {
        let (clients, chance) = (Clients::default(), Chance::seeded(11));
        let mut inside: Vec<u64> = Vec::new();
        for _ in 0..20_000 {
            let key = chance.below(50) << 30;
            let has = inside.iter().filter(|k| **k == key).count();
            if chance.below(2) == 0 {
                assert_eq!(clients.enter(key, 3), has < 3);
                if has < 3 {
                    inside.push(key);
                }
            } else if !inside.is_empty() {
                let at = usize::try_from(chance.below(inside.len() as u64)).expect("an index");
                clients.leave(inside.swap_remove(at));
            }
            assert_eq!(clients.count().1, inside.len() as u64);
        }
        inside.drain(..).for_each(|key| clients.leave(key));
        assert_eq!(clients.count(), (0, 0));
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_no_memory_behind() {
        let clients = Clients::default();
        let keys = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        assert!((0..100_000).all(|n| clients.enter(keys(n), 1)));
        (0..100_000).for_each(|n| clients.leave(keys(n)));
        let room = |shard: &Shard| shard.0.lock().capacity();
        assert!(clients.shards.iter().all(|shard| room(shard) <= 4 * KEPT));
    }
}
