//! The only source of chance: a small generator for each worker.
//!
//! Chance decides between equals (an endpoint, a share of a split, a sampled log line); nothing
//! secret comes from here. Pure cores take the number as an argument. One writer, so a relaxed
//! load and store; two writers would only repeat a number.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A sequence of numbers (splitmix64).
#[derive(Debug)]
pub struct Chance(AtomicU64);

impl Default for Chance {
    /// From a random beginning.
    fn default() -> Self {
        Chance::seeded(RandomState::new().hash_one(0))
    }
}

impl Chance {
    /// From a known beginning, for tests.
    pub fn seeded(seed: u64) -> Self {
        Chance(AtomicU64::new(seed))
    }

    /// The next number.
    #[inline]
    pub fn next(&self) -> u64 {
        let state = self.0.load(Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.store(state, Relaxed);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where the bound is 0.
    #[inline]
    pub fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_the_bound_comes_about_as_often() {
        let chance = Chance::seeded(7);
        let mut seen = [0u32; 5];
        for _ in 0..10_000 {
            seen[usize::try_from(chance.below(5)).expect("below five")] += 1;
        }
        assert!(seen.iter().all(|n| (1_800..2_200).contains(n)), "{seen:?}");
    }
}
