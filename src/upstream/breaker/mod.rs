//! Circuit breakers: closed passes, open refuses, half-open probes.
//!
//! One breaker is shared by all workers and outlives reloads. Its state is one atomic word (`word`,
//! pure), read by every request and written only when something changes. Counts are each worker's
//! own (`window`): a good answer touches nothing that another worker writes, and only a bad or slow
//! one sums over all workers. Two workers that fail at once may both find the verdict; the word
//! turns once. The settings (`config`) are the plan's, not the breaker's, so that a reload changes
//! them without forgetting anything.
//!
//! Nothing here asks for the time, logs or counts: a [`Change`] is for the caller to tell.

mod config;
mod shared;
mod window;
mod word;

#[cfg(test)]
mod loom_tests;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

pub use config::BreakerConfig;
use shared::Shared;
use window::{Counts, Window};
pub use word::State;
use word::{Pass, SHORTLY, Word, millis};

/// What `shared` is made of.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

/// The settings of one breaker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Opens at this share of failures.
    pub error_ratio: Option<f64>,
    /// Shares are taken of at least this many.
    pub min_requests: u64,
    /// Over what time.
    pub window: Duration,
    /// The first opening; each further one in a row is twice as long, up to eight times.
    pub open_for: Duration,
    /// Probes at once, and good ones until it closes: 1 to 100.
    pub half_open: u8,
    /// Opens after this many failures in a row.
    pub consecutive: Option<u32>,
    /// Opens at a share of slow ones.
    pub slow: Option<Slow>,
    /// It refuses nobody.
    pub observes: bool,
}

impl Rule {
    /// The longest an upstream may ask us to stay away.
    pub fn longest(&self) -> Duration {
        let most = Duration::from_mins(5);
        self.open_for.saturating_mul(10).min(most)
    }

    fn is_slow(&self, took: Duration) -> bool {
        self.slow.is_some_and(|slow| took > slow.over)
    }
}

/// What is slow, and how many may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slow {
    /// The share at which it opens.
    pub ratio: f64,
    /// An answer that took longer is slow.
    pub over: Duration,
}

/// What is known of a try. One that was answered counts at once, so that long answers weigh as much
/// as short ones; its end is told too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Good response headers, which took so long. The end is to come.
    Answered(Duration),
    /// The answer has come to its end, or the client wants no more of it.
    Whole,
    /// The answer broke off.
    Broken,
    /// No answer, or a bad one; it may have asked not to be asked again for so long.
    Bad(Duration),
    /// Nothing was found out: the client left, or it was our own doing.
    Nothing,
}

/// The right to make one try, to be given back with its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    epoch: u8,
    probe: bool,
}

/// What is said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It may be made.
    Granted(Ticket),
    /// It may not; when to come again.
    Refused(Duration),
}

/// A breaker that changed its state, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// To what.
    pub to: State,
    /// Why.
    pub why: Why,
}

/// Why a breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "each is said in words by `Display`")]
pub enum Why {
    Failures { failed: u64, of: u64 },
    Row(u32),
    Slow { slow: u64, of: u64 },
    ProbeFailed,
    ProbesPassed,
    Over,
    Forced,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Failures { failed, of } => write!(f, "{failed} of {of} tries failed"),
            Why::Row(run) => write!(f, "{run} tries failed in a row"),
            Why::Slow { slow, of } => write!(f, "{slow} of {of} tries were slow"),
            Why::ProbeFailed => f.write_str("a probe failed"),
            Why::ProbesPassed => f.write_str("its probes were good"),
            Why::Over => f.write_str("its time is over"),
            Why::Forced => f.write_str("by order"),
        }
    }
}

/// One breaker, for all workers.
#[derive(Debug)]
pub struct Breaker {
    born: Instant,
    word: Shared,
    /// Failures in a row.
    run: AtomicU32,
    /// When it last changed its state, in milliseconds since it was born.
    since: AtomicU64,
    windows: Box<[Aligned]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned(Mutex<Window>);

/// How a breaker stands, for people.
#[derive(Debug, Clone, Serialize)]
pub struct BreakerStatus {
    /// `closed`, `half_open` or `open`.
    pub state: &'static str,
    /// Seconds since it last changed its state.
    pub since: u64,
    /// Seconds until it will probe.
    pub probes_in: u64,
    /// The share of tries in the window that failed.
    pub error_ratio: f64,
    /// Tries in the window.
    pub requests: u64,
    /// An operator holds it so.
    pub forced: bool,
    /// It only observes.
    pub observes: bool,
}

impl fmt::Display for BreakerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = if self.forced { " by order" } else { "" };
        write!(f, "breaker {}{held} for {} s", self.state, self.since)?;
        let percent = self.error_ratio * 100.0;
        if self.state == State::Closed.as_str() {
            write!(f, ", {percent:.0} % of {} tries failed", self.requests)?;
        }
        if self.probes_in > 0 {
            write!(f, ", probes in {} s", self.probes_in)?;
        }
        if self.observes {
            f.write_str(", observes")?;
        }
        Ok(())
    }
}

impl Breaker {
    /// Closed, for this many workers.
    pub fn new(workers: usize, now: Instant) -> Self {
        Breaker {
            born: now,
            word: Shared::new(),
            run: AtomicU32::new(0),
            since: AtomicU64::new(0),
            windows: (0..workers.max(1)).map(|_| Aligned::default()).collect(),
        }
    }

    fn at(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.born))
    }

    /// Whether a request may pass. `safe`: it may be a probe. Half-open begins here.
    pub fn ask(&self, rule: &Rule, safe: bool, now: Instant) -> (Asked, Option<Change>) {
        let at = self.at(now);
        let (before, after, pass) = self.word.ask(rule, safe, at);
        let ticket = |probe| {
            let epoch = after.epoch;
            Asked::Granted(Ticket { epoch, probe })
        };
        let asked = match pass {
            Pass::Free => ticket(false),
            Pass::Probe => ticket(true),
            Pass::No(left) => Asked::Refused(left),
        };
        (asked, self.changed(before, after, Why::Over, at))
    }

    /// What became of the try of a ticket.
    pub fn tell(
        &self,
        rule: &Rule,
        ticket: Ticket,
        outcome: Outcome,
        worker: usize,
        now: Instant,
    ) -> Option<Change> {
        let at = self.at(now);
        if ticket.probe {
            return self.probed(rule, ticket, outcome, at);
        }
        if self.word.read().epoch != ticket.epoch {
            return None;
        }
        let counts = count(rule, outcome)?;
        let run = self.run(outcome);
        if counts == Counts::default() {
            return None;
        }
        let length = millis(rule.window);
        let window = &self.windows[worker % self.windows.len()].0;
        window.lock().add(counts, length, at);
        if counts.failed + counts.slow == 0 {
            return None;
        }
        let why = verdict(rule, self.sum(length, at), run)?;
        let (before, after) = self.word.trip(rule, ticket.epoch, at, least(outcome))?;
        self.changed(before, after, why, at)
    }

    /// Counts failures in a row.
    fn run(&self, outcome: Outcome) -> u32 {
        match outcome {
            Outcome::Bad(_) | Outcome::Broken => {
                return self.run.fetch_add(1, Relaxed).saturating_add(1);
            }
            Outcome::Whole if self.run.load(Relaxed) != 0 => self.run.store(0, Relaxed),
            Outcome::Whole | Outcome::Answered(_) | Outcome::Nothing => {}
        }
        0
    }

    fn probed(&self, rule: &Rule, ticket: Ticket, outcome: Outcome, at: u64) -> Option<Change> {
        let step = |word: Word| match outcome {
            Outcome::Answered(took) if !rule.is_slow(took) => None,
            Outcome::Whole => Some(word.good(rule, at)),
            Outcome::Nothing => Some(word.back()),
            Outcome::Answered(_) | Outcome::Broken | Outcome::Bad(_) => {
                Some(word.bad(rule, at, least(outcome)))
            }
        };
        let (before, after) = self.word.probed(ticket.epoch, step)?;
        let why = match after.state {
            State::Closed => Why::ProbesPassed,
            State::HalfOpen | State::Open => Why::ProbeFailed,
        };
        self.changed(before, after, why, at)
    }

    /// An operator takes hold of it, or lets it go.
    pub fn force(&self, to: Option<State>, now: Instant) -> Option<Change> {
        let at = self.at(now);
        let (before, after) = self.word.force(to, at);
        self.changed(before, after, Why::Forced, at)
    }

    /// What goes with a change of state; nothing of what was counted before holds after it.
    fn changed(&self, before: Word, after: Word, why: Why, at: u64) -> Option<Change> {
        if before.epoch == after.epoch {
            return None;
        }
        self.since.store(at, Release);
        self.run.store(0, Relaxed);
        self.windows.iter().for_each(|w| w.0.lock().clear());
        let to = after.state;
        (before.state != to).then_some(Change { to, why })
    }

    fn sum(&self, length: u64, at: u64) -> Counts {
        let each = self.windows.iter().map(|w| w.0.lock().sum(length, at));
        each.fold(Counts::default(), Counts::plus)
    }

    /// For how long it keeps the many away, as far as that is known; `None` while it is closed.
    pub fn refuses(&self, rule: &Rule, now: Instant) -> Option<Duration> {
        let (word, at) = (self.word.read(), self.at(now));
        match word.state_at(at) {
            State::Closed => None,
            State::HalfOpen => Some(SHORTLY),
            State::Open => Some(word.left(rule, at)),
        }
    }

    /// Its state at `now`.
    pub fn state(&self, now: Instant) -> State {
        self.word.read().state_at(self.at(now))
    }

    /// How it stands.
    pub fn status(&self, rule: &Rule, now: Instant) -> BreakerStatus {
        let (word, at) = (self.word.read(), self.at(now));
        let counts = self.sum(millis(rule.window), at);
        BreakerStatus {
            state: word.state_at(at).as_str(),
            since: at.saturating_sub(self.since.load(Acquire)) / 1000,
            probes_in: match word.forced {
                true => 0,
                false => word.left(rule, at).as_secs_f64().ceil() as u64,
            },
            error_ratio: counts.error_ratio(),
            requests: counts.total,
            forced: word.forced,
            observes: rule.observes,
        }
    }
}

/// What an outcome adds to the counts; nothing for no outcome. An answer that breaks off has been
/// counted as an answer already.
fn count(rule: &Rule, outcome: Outcome) -> Option<Counts> {
    let (total, failed, slow) = match outcome {
        Outcome::Answered(took) => (1, 0, rule.is_slow(took).into()),
        Outcome::Bad(_) => (1, 1, 0),
        Outcome::Broken => (0, 1, 0),
        Outcome::Whole => (0, 0, 0),
        Outcome::Nothing => return None,
    };
    Some(Counts {
        total,
        failed,
        slow,
    })
}

/// For how long the upstream asks to be left alone.
fn least(outcome: Outcome) -> Duration {
    match outcome {
        Outcome::Bad(least) => least,
        _ => Duration::ZERO,
    }
}

/// Whether these counts, and this many failures in a row, open a breaker.
fn verdict(rule: &Rule, counts: Counts, run: u32) -> Option<Why> {
    let of = counts.total;
    if rule.consecutive.is_some_and(|most| run >= most) {
        return Some(Why::Row(run));
    }
    if of < rule.min_requests {
        return None;
    }
    let failed = counts.failed;
    if failed > 0 && rule.error_ratio.is_some_and(|r| counts.error_ratio() >= r) {
        return Some(Why::Failures { failed, of });
    }
    let slow = counts.slow;
    let too_slow = rule
        .slow
        .is_some_and(|rule| counts.slow_ratio() >= rule.ratio);
    too_slow.then_some(Why::Slow { slow, of })
}

#[cfg(test)]
mod tests;
