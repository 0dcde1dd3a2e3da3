//! What a worker has for encoding: a number of encoders and no more, and a seat aside for long
//! work.
//!
//! Encoders that can be used again are kept, a few of each kind. Long work (brotli of a large
//! body, the highest levels) is done by threads beside the workers, which whoever starts threads
//! hands in; while none of them has a seat, it is done here at a lower level.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::encoder::{Encoder, Failed};
use crate::message::coding::Coding;

/// Streams that one worker encodes at once. Each holds about 350 KiB in gzip, 700 in zstd and 2.5 MiB
/// in br, once it has seen that much of its body; br takes more for one that is many MiB long.
const MOST: usize = 128;

/// Idle encoders that are kept, over all kinds.
const KEPT: usize = 16;

/// A piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads beside the workers.
pub trait Aside: Send + Sync {
    /// Takes a seat for one stream; false: none is free. Whoever has one has at most one job
    /// waiting, and leaves.
    fn sit(&self) -> bool;
    /// Gives the seat back.
    fn leave(&self);
    /// Does a job, after those before it.
    fn work(&self, job: Job);
}

/// A worker's encoders.
pub struct Encoders {
    lent: AtomicUsize,
    idle: Mutex<Vec<Encoder>>,
    aside: Option<Arc<dyn Aside>>,
}

impl Encoders {
    /// None in use, with threads for long work, if there are any.
    pub fn new(aside: Option<Arc<dyn Aside>>) -> Self {
        Encoders {
            lent: AtomicUsize::new(0),
            idle: Mutex::default(),
            aside,
        }
    }

    /// An encoder for a body of this length, unless too many are in use.
    pub(super) fn take(
        self: &Arc<Self>,
        coding: Coding,
        level: u8,
        length: Option<u64>,
    ) -> Result<Option<Lent>, Failed> {
        if self.lent.load(Relaxed) >= MOST {
            return Ok(None);
        }
        let kept = {
            let mut idle = self.idle.lock();
            let fits = |e: &Encoder| e.coding == coding && e.level == level;
            let at = idle.iter().rposition(fits);
            at.map(|at| idle.swap_remove(at))
        };
        let mut encoder = match kept {
            Some(kept) => kept,
            None => Encoder::new(coding, level)?,
        };
        if let Some(length) = length {
            encoder.expect(length)?;
        }
        self.lent.fetch_add(1, Relaxed);
        Ok(Some(Lent {
            encoder: Some(encoder),
            home: Arc::clone(self),
        }))
    }

    /// A seat aside, if one is free.
    pub(super) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let aside = self.aside.as_ref()?;
        aside.sit().then(|| Seat(Arc::clone(self)))
    }

    /// Encoders in use.
    #[cfg(test)]
    pub(super) fn lent(&self) -> usize {
        self.lent.load(Relaxed)
    }
}

/// An encoder in use; goes home when dropped.
pub(super) struct Lent {
    /// Not there while it is aside, and not after it has failed.
    pub(super) encoder: Option<Encoder>,
    home: Arc<Encoders>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.lent.fetch_sub(1, Relaxed);
        let Some(mut encoder) = self.encoder.take() else {
            return;
        };
        if encoder.renew() {
            let mut idle = self.home.idle.lock();
            if idle.len() == KEPT {
                idle.remove(0);
            }
            idle.push(encoder);
        }
    }
}

/// A seat aside; free again when dropped.
pub(super) struct Seat(Arc<Encoders>);

impl Seat {
    /// Does a job aside.
    pub(super) fn work(&self, job: Job) {
        if let Some(aside) = &self.0.aside {
            aside.work(job);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(aside) = &self.0.aside {
            aside.leave();
        }
    }
}
