//! What a worker has for encoding: memory for encoders and no more, and a seat aside for long work.
//!
//! Encoders that can be used again are kept, a few of each kind. Long work (brotli of a large
//! body, the highest levels) is done by threads beside the workers, which whoever starts threads
//! hands in; while none of them has a seat, it is done here at a lower level.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::encoder::{Encoder, Failed, Make};
use super::turns::{Place, Turns};

/// What the streams that one worker encodes at once may take, in bytes: 128 in gzip or zstd, 25 in
/// br. What is encoded aside has its bound in the number of seats. Beside it stand the [`KEPT`] idle.
const MEMORY: usize = 32 << 20;

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
    /// What those in use may take, in bytes.
    lent: AtomicUsize,
    idle: Mutex<Vec<Encoder>>,
    aside: Option<Arc<dyn Aside>>,
    turns: Arc<Turns>,
}

impl Encoders {
    /// None in use, with threads for long work, if there are any.
    pub fn new(aside: Option<Arc<dyn Aside>>) -> Self {
        Encoders {
            lent: AtomicUsize::new(0),
            idle: Mutex::default(),
            aside,
            turns: Arc::default(),
        }
    }

    /// Hands out turns at encoding, for as long as the worker runs: without it a body is encoded up
    /// to the first turn's end and no further.
    pub async fn hand_out_turns(&self) {
        self.turns.hand_out().await;
    }

    /// Where a stream takes its turns.
    pub(super) fn place(&self) -> Place {
        Place::new(&self.turns)
    }

    /// Waits for a turn at encoding: how long that takes is how late the worker is for whoever
    /// encodes.
    pub async fn turn(&self) {
        self.turns.wait().await;
    }

    /// An encoder for a body of this length, unless those in use take too much.
    pub(super) fn take(
        self: &Arc<Self>,
        make: Make,
        length: Option<u64>,
    ) -> Result<Option<Lent>, Failed> {
        let weight = if make.aside { 0 } else { make.weight() };
        if self.lent.load(Relaxed) + weight > MEMORY {
            return Ok(None);
        }
        let kept = {
            let mut idle = self.idle.lock();
            let at = idle.iter().rposition(|e| e.make == make);
            at.map(|at| idle.swap_remove(at))
        };
        let mut encoder = match kept {
            Some(kept) => kept,
            None => Encoder::new(make)?,
        };
        if let Some(length) = length {
            encoder.expect(length)?;
        }
        self.lent.fetch_add(weight, Relaxed);
        Ok(Some(Lent {
            encoder: Some(encoder),
            weight,
            home: Arc::clone(self),
        }))
    }

    /// A seat aside, if one is free.
    pub(super) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let aside = self.aside.as_ref()?;
        aside.sit().then(|| Seat(Arc::clone(self)))
    }

    /// What encoders in use may take.
    #[cfg(test)]
    pub(super) fn lent(&self) -> usize {
        self.lent.load(Relaxed)
    }
}

/// An encoder in use; goes home when dropped.
pub(super) struct Lent {
    /// Not there while it is aside, and not after it has failed.
    pub(super) encoder: Option<Encoder>,
    weight: usize,
    home: Arc<Encoders>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.lent.fetch_sub(self.weight, Relaxed);
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
