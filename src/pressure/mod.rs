//! How short the process is of memory, descriptors and time, and how much it sheds for it.
//!
//! A shortage has a *level* from 0 to 3: below 1 it is the share of low-priority requests that is
//! shed, from 1 to 2 that of normal ones beside all low ones, above 2 that of high ones. Levels
//! rise at once and fall slowly, so that what is shed does not swing. For memory and descriptors
//! the level says where between the threshold and the end the use is; high priority is shed at the
//! very end alone. Lag has no end: while a worker is late its level climbs, the faster the later it
//! is, and never to high priority, which would then wait for nobody. Low priority, which a config
//! names, is shed from a small part of the lag on that normal priority is shed for. What counts is
//! the least of the last few looks: work that stands and waits, and not a moment in which the thread
//! did not run. The level at which a worker became late is its *brink*: about there it falls very
//! slowly, since below it the worker would be late again.
//!
//! [`Valve`] is pure: what was measured and the time that has passed are arguments. [`Pressure`]
//! is what the threads share: the control thread writes what holds for the process, each worker
//! what holds for itself, and a request reads one word of its own worker's.
//!
//! * `config`: the section `server.shed`, and `priority`
//! * `probe`: memory and descriptors, as the kernel sees them

pub mod config;
pub mod probe;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use config::{Priority, Rules};

/// What the process is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Memory, against what the cgroup or the machine grants.
    Memory,
    /// File descriptors, against the limit.
    Descriptors,
    /// A worker's time: its loop comes round late.
    Lag,
}

impl Cause {
    /// All causes and their words, in the order of their discriminants.
    pub const ALL: &'static [(Cause, &'static str)] = &[
        (Cause::Memory, "memory"),
        (Cause::Descriptors, "descriptors"),
        (Cause::Lag, "lag"),
    ];

    /// The word for metrics and `/status`.
    pub fn as_str(self) -> &'static str {
        Cause::ALL[self as usize].1
    }
}

/// A level where all of this priority and those below are shed.
const FULL: f64 = 3.0;
/// No lag sheds high priority.
const MOST_FOR_LAG: f64 = 2.0;
/// A level begins to fall below this share of its threshold.
const RELEASE: f64 = 0.95;
/// So much a level falls in a second: ten seconds for each priority.
const FALL: f64 = 0.1;
/// And so much about the brink.
const SLOW_FALL: f64 = 0.005;
/// What is about the brink: so much above it, and so much below.
const ABOUT: (f64, f64) = (0.1, 0.1);
/// So much the level of lag rises in a second for each threshold that a worker is late, that of the
/// priority which is shed next.
const RISE: f64 = 1.0;
/// But at most this much.
const FASTEST: f64 = 10.0;
/// Low priority is shed from this part of the threshold on,
const LOW: u32 = 10;
/// or from this, where that is more: timers are no finer than a millisecond.
const LEAST: Duration = Duration::from_millis(5);
/// However long a look was put off, it counts for no more than this: one stall sheds few.
const ONE_LOOK: Duration = Duration::from_millis(50);
/// A worker counts as late if it was at each of so many looks. One that was not running for a while
/// is late once; one that has more work than time is late again and again.
const LOOKS: usize = 6;

/// One level, with its memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Valve {
    level: f64,
    /// The level at which there was too much again.
    brink: f64,
    rises: bool,
}

impl Valve {
    /// The level.
    pub fn level(&self) -> f64 {
        self.level
    }

    /// Of something that has an end: `used` is a share of it, and is to stay below `threshold`.
    pub fn fill(&mut self, used: f64, threshold: f64, passed: Duration) {
        let room = (1.0 - threshold).max(f64::EPSILON);
        let wanted = ((used - threshold) / room * FULL).clamp(0.0, FULL);
        if wanted >= self.level {
            self.level = wanted;
        } else if used < threshold * RELEASE || wanted > 0.0 {
            self.fall(wanted, passed);
        }
    }

    /// Of a worker that is this late.
    pub fn late(&mut self, lag: Duration, threshold: Duration, passed: Duration) {
        let passed = passed.min(ONE_LOOK);
        let low = (threshold / LOW).max(LEAST).min(threshold);
        let (next, most) = match (self.level < 1.0, lag >= threshold) {
            (true, false) => (low, 1.0),
            (true, true) => (low, MOST_FOR_LAG),
            (false, true) => (threshold, MOST_FOR_LAG),
            (false, false) => (threshold, self.level),
        };
        if lag >= low {
            let ratio = lag.as_secs_f64() / next.as_secs_f64().max(f64::EPSILON);
            self.rise(ratio, most, passed);
        } else if lag < low / 2 {
            self.release(passed);
        }
    }

    fn rise(&mut self, ratio: f64, most: f64, passed: Duration) {
        if !self.rises {
            (self.brink, self.rises) = (self.level, true);
        }
        let speed = (RISE * ratio).min(FASTEST);
        self.level = (self.level + speed * passed.as_secs_f64()).min(most);
    }

    fn release(&mut self, passed: Duration) {
        self.rises = false;
        let (above, below) = (self.brink + ABOUT.0, self.brink - ABOUT.1);
        if self.level > above || self.level < below {
            // not past the upper end in one step
            let end = if self.level > above { above } else { 0.0 };
            self.fall(end, passed);
        } else {
            self.level = (self.level - SLOW_FALL * passed.as_secs_f64()).max(0.0);
        }
    }

    fn fall(&mut self, to: f64, passed: Duration) {
        self.level = (self.level - FALL * passed.as_secs_f64()).max(to);
    }
}

/// The share of this priority that is shed at a level, in thousandths.
fn share(thousandths: u32, priority: Priority) -> u32 {
    thousandths.saturating_sub(priority as u32 * 1000).min(1000)
}

/// What the threads share.
#[derive(Debug)]
pub struct Pressure {
    /// Of the process: see [`pack`].
    process: AtomicU32,
    workers: Box<[Worker]>,
    /// Shares of what there is, as bits of an `f64`: for the gauges.
    used: [AtomicU64; 2],
}

/// What one worker reads at each request. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Worker {
    level: AtomicU32,
    /// How late against the threshold, as bits of an `f64`.
    late: AtomicU64,
}

/// A level in thousandths, with its cause in the upper bits.
fn pack(level: f64, cause: Cause) -> u32 {
    // Bounded by FULL.
    (level * 1000.0).round() as u32 | (cause as u32) << 16
}

fn unpack(word: u32) -> (u32, Cause) {
    let cause = match word >> 16 {
        0 => Cause::Memory,
        1 => Cause::Descriptors,
        _ => Cause::Lag,
    };
    (word & 0xffff, cause)
}

impl Pressure {
    /// None, for this many workers.
    pub fn new(workers: usize) -> Self {
        Pressure {
            process: AtomicU32::new(0),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            used: Default::default(),
        }
    }

    /// What the control thread has found.
    pub fn set_process(&self, memory: (f64, f64), descriptors: (f64, f64)) {
        let ((used, level), (open, more)) = (memory, descriptors);
        self.used[0].store(used.to_bits(), Relaxed);
        self.used[1].store(open.to_bits(), Relaxed);
        let word = if level >= more {
            pack(level, Cause::Memory)
        } else {
            pack(more, Cause::Descriptors)
        };
        self.process.store(word, Relaxed);
    }

    /// What a worker has found of itself: its level, and how late it is against the threshold.
    pub fn set_worker(&self, index: usize, level: f64, late: f64) {
        let Some(worker) = self.workers.get(index) else {
            return;
        };
        let process = self.process.load(Relaxed);
        let own = pack(level, Cause::Lag);
        let worst = if unpack(own).0 > unpack(process).0 {
            own
        } else {
            process
        };
        worker.level.store(worst, Relaxed);
        worker.late.store(late.to_bits(), Relaxed);
    }

    /// Why a request of this priority is shed on this worker, if it is; `chance` below 1000.
    #[inline]
    pub fn sheds(
        &self,
        worker: usize,
        priority: Priority,
        chance: impl FnOnce() -> u64,
    ) -> Option<Cause> {
        let word = self.workers.get(worker)?.level.load(Relaxed);
        if word & 0xffff == 0 {
            return None;
        }
        let (level, cause) = unpack(word);
        let share = share(level, priority);
        let sheds = share >= 1000 || (share > 0 && chance() < u64::from(share));
        sheds.then_some(cause)
    }

    /// How much there is of each shortage, 0 to 1, the worst worker for lag: for autoscalers.
    pub fn ratios(&self) -> [(&'static str, f64); 3] {
        let late = self
            .workers
            .iter()
            .map(|w| f64::from_bits(w.late.load(Relaxed)));
        let of = |at: usize| f64::from_bits(self.used[at].load(Relaxed));
        let ratios = [of(0), of(1), late.fold(0.0, f64::max)];
        let named = Cause::ALL.iter().zip(ratios);
        let named = named.map(|((_, word), ratio)| (*word, ratio.clamp(0.0, 1.0)));
        let mut out = [("", 0.0); 3];
        out.iter_mut().zip(named).for_each(|(out, one)| *out = one);
        out
    }

    /// The level of each worker, 0 to 3, and what it is for.
    pub fn levels(&self) -> impl Iterator<Item = (f64, Cause)> {
        self.workers.iter().map(|worker| {
            let (level, cause) = unpack(worker.level.load(Relaxed));
            (f64::from(level) / 1000.0, cause)
        })
    }
}

/// The levels of what holds for the process.
#[derive(Debug, Default)]
pub struct Process {
    memory: Valve,
    descriptors: Valve,
}

impl Process {
    /// Takes what was measured; shares of what there is, 0 to 1.
    pub fn step(
        &mut self,
        used: probe::Used,
        rules: Option<&Rules>,
        passed: Duration,
        pressure: &Pressure,
    ) {
        match rules {
            Some(rules) => {
                self.memory.fill(used.memory, rules.memory, passed);
                self.descriptors
                    .fill(used.descriptors, rules.descriptors, passed);
            }
            None => *self = Process::default(),
        }
        pressure.set_process(
            (used.memory, self.memory.level()),
            (used.descriptors, self.descriptors.level()),
        );
    }
}

/// The level of what holds for one worker.
#[derive(Debug, Default)]
pub struct Own {
    lag: Valve,
    /// How late it was at its last looks.
    looks: [Duration; LOOKS],
    next: usize,
}

impl Own {
    /// Takes how late the loop came round.
    pub fn step(
        &mut self,
        lag: Duration,
        rules: Option<&Rules>,
        passed: Duration,
        to: (&Pressure, usize),
    ) {
        self.looks[self.next % LOOKS] = lag;
        self.next = self.next.wrapping_add(1);
        let standing = self.looks.iter().min().copied().unwrap_or_default();
        let late = match rules {
            Some(rules) => {
                self.lag.late(standing, rules.lag, passed);
                standing.as_secs_f64() / rules.lag.as_secs_f64()
            }
            None => {
                *self = Own::default();
                0.0
            }
        };
        let (pressure, index) = to;
        pressure.set_worker(index, self.lag.level(), late);
    }
}
