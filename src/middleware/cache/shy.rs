//! Keys whose last answer was for one client alone: nobody waits for anybody there.
//!
//! A small table of marks with an end. A key that is forgotten, because another one fell into its
//! place, costs one wait.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::key::Key;

const PLACES: usize = 1 << 13;
/// How long a key is remembered.
const FOR: Duration = Duration::from_secs(30);

/// The marks: a piece of the key above, the second at which it ends below.
#[derive(Debug)]
pub struct Shy(Box<[AtomicU64]>);

impl Default for Shy {
    fn default() -> Self {
        Shy((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Shy {
    /// The key's answer was for one client alone; `now` counts from any fixed moment.
    pub fn remember(&self, key: &Key, now: Duration) {
        let until = (now + FOR).as_secs() & u64::from(u32::MAX);
        self.place(key).store(piece(key) << 32 | until, Relaxed);
    }

    /// The key's answer was for all.
    pub fn forget(&self, key: &Key) {
        let place = self.place(key);
        if place.load(Relaxed) >> 32 == piece(key) {
            place.store(0, Relaxed);
        }
    }

    /// Whether the key is remembered.
    pub fn knows(&self, key: &Key, now: Duration) -> bool {
        let mark = self.place(key).load(Relaxed);
        mark >> 32 == piece(key) && now.as_secs() < mark & u64::from(u32::MAX)
    }

    fn place(&self, key: &Key) -> &AtomicU64 {
        let at = usize::try_from(key.hash() % PLACES as u128).unwrap_or(0);
        &self.0[at]
    }
}

/// Bits of the key that do not choose its place; never 0.
fn piece(key: &Key) -> u64 {
    let bits = (key.hash() >> 64) as u64 & u64::from(u32::MAX);
    bits | 1
}
