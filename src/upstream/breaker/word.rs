//! The state machine of a breaker, pure: a word of 64 bits, and the word that follows it.
//!
//! Closed passes, open refuses, half-open lets a bounded number of probes through. Every change of
//! state begins a new epoch; a verdict on a try of an earlier epoch is worth nothing any more, so
//! that what was asked before an opening cannot undo what was found out since. Times are
//! milliseconds since the breaker was made, and always arguments.

use std::time::Duration;

use super::Rule;

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Passes all.
    Closed,
    /// Lets a few probes through.
    HalfOpen,
    /// Refuses all.
    Open,
}

impl State {
    /// All states and their words, in the order of their discriminants.
    pub const ALL: &'static [(State, &'static str)] = &[
        (State::Closed, "closed"),
        (State::HalfOpen, "half_open"),
        (State::Open, "open"),
    ];

    /// The word for metrics, logs and `/status`.
    pub fn as_str(self) -> &'static str {
        State::ALL[self as usize].1
    }
}

/// All that a breaker knows of itself but its counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) state: State,
    /// An operator holds it in this state.
    pub(super) forced: bool,
    /// Rises by one with every change of state, modulo 64.
    pub(super) epoch: u8,
    /// Openings in a row without a calm between them, up to [`MOST_OPENINGS`].
    pub(super) openings: u8,
    /// Half-open: probes under way.
    pub(super) out: u8,
    /// Half-open: probes that were good.
    pub(super) good: u8,
    /// Closed: since when. Open: until when. Half-open: when a probe last left or came back.
    pub(super) at: u64,
}

/// What is thought of a request that asks to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// It passes, as one of many.
    Free,
    /// It passes, as a probe.
    Probe,
    /// It does not; the time until there is a point in asking again.
    No(Duration),
}

/// The openings after which they no longer grow longer: eight times the first.
const MOST_OPENINGS: u8 = 4;
/// When to ask again while probes are under way.
pub(super) const SHORTLY: Duration = Duration::from_secs(1);

const TIME_BITS: u32 = 38;

impl Word {
    /// Closed, and never opened.
    pub(super) const NEW: Word = Word {
        state: State::Closed,
        forced: false,
        epoch: 0,
        openings: 0,
        out: 0,
        good: 0,
        at: 0,
    };

    /// As one number.
    pub(super) fn pack(self) -> u64 {
        let at = self.at.min((1 << TIME_BITS) - 1);
        let parts = [
            (self.state as u64, 2),
            (u64::from(self.forced), 1),
            (u64::from(self.epoch), 6),
            (u64::from(self.openings), 3),
            (u64::from(self.out), 7),
            (u64::from(self.good), 7),
            // which leaves 38 bits for milliseconds: eight years
        ];
        parts.iter().fold(at, |word, (part, bits)| {
            debug_assert!(*part < 1 << bits);
            word << bits | part
        })
    }

    /// From the number.
    pub(super) fn unpack(mut word: u64) -> Word {
        let mut take = |bits: u32| {
            let part = word & ((1 << bits) - 1);
            word >>= bits;
            part as u8
        };
        let (good, out, openings, epoch) = (take(7), take(7), take(3), take(6));
        let (forced, state) = (take(1) == 1, take(2));
        Word {
            state: State::ALL[usize::from(state.min(2))].0,
            forced,
            epoch,
            openings,
            out,
            good,
            at: word,
        }
    }

    fn turn(self, state: State, at: u64) -> Word {
        Word {
            state,
            epoch: (self.epoch + 1) % 64,
            out: 0,
            good: 0,
            at,
            ..self
        }
    }

    /// The state as it would be found at `now`: an opening that is over is half-open, whether or
    /// not a request has come to see it.
    pub(super) fn state_at(self, now: u64) -> State {
        match self.state {
            State::Open if !self.forced && now >= self.at => State::HalfOpen,
            state => state,
        }
    }

    /// How long it refuses everything yet.
    pub(super) fn left(self, rule: &Rule, now: u64) -> Duration {
        match (self.state, self.forced) {
            (State::Open, true) => rule.open_for,
            (State::Open, false) => Duration::from_millis(self.at.saturating_sub(now)),
            (State::Closed | State::HalfOpen, _) => Duration::ZERO,
        }
    }

    /// A request asks to pass. `safe`: it may be a probe, since repeating it would harm nobody.
    ///
    /// Half-open, a place is free while fewer than `half_open` probes are good or under way. When
    /// no probe has left or come back for a whole `open_for`, one request of any kind takes a
    /// place, and those out lose theirs (but not their say): nobody waits for ever.
    pub(super) fn ask(self, rule: &Rule, safe: bool, now: u64) -> (Word, Pass) {
        match self.state {
            State::Closed => (self, Pass::Free),
            State::Open if self.forced || now < self.at => (self, Pass::No(self.left(rule, now))),
            State::Open => self.turn(State::HalfOpen, now).ask(rule, safe, now),
            State::HalfOpen => {
                let quiet = now >= self.at.saturating_add(millis(rule.open_for));
                let free = self.out + self.good < rule.half_open;
                let out = match (quiet, free && safe) {
                    (true, _) => 1,
                    (false, true) => self.out + 1,
                    (false, false) => return (self, Pass::No(SHORTLY)),
                };
                (
                    Word {
                        out,
                        at: now,
                        ..self
                    },
                    Pass::Probe,
                )
            }
        }
    }

    /// A try of the closed state was one bad one too many. It opens for at least `least`.
    pub(super) fn trip(self, rule: &Rule, now: u64, least: Duration) -> Word {
        let calm = rule.window.max(length(rule, self.openings));
        let is_calm = now >= self.at.saturating_add(millis(calm));
        let openings = if is_calm { 0 } else { self.openings };
        Word { openings, ..self }.open(rule, now, least)
    }

    fn open(self, rule: &Rule, now: u64, least: Duration) -> Word {
        let openings = (self.openings + 1).min(MOST_OPENINGS);
        let length = length(rule, openings).max(least.min(rule.longest()));
        let until = now.saturating_add(millis(length));
        Word { openings, ..self }.turn(State::Open, until)
    }

    /// A probe of this epoch was good: the last one needed closes.
    pub(super) fn good(self, rule: &Rule, now: u64) -> Word {
        let good = self.good + 1;
        if good >= rule.half_open {
            return self.turn(State::Closed, now);
        }
        Word {
            out: self.out.saturating_sub(1),
            good,
            at: now,
            ..self
        }
    }

    /// A probe of this epoch was bad: it opens again, for longer.
    pub(super) fn bad(self, rule: &Rule, now: u64, least: Duration) -> Word {
        self.open(rule, now, least)
    }

    /// A probe of this epoch came to nothing: its place is free again.
    pub(super) fn back(self) -> Word {
        Word {
            out: self.out.saturating_sub(1),
            ..self
        }
    }

    /// An operator takes hold of it, or lets it go. What was held open probes at once; what was
    /// held closed stays so until it has a reason of its own.
    pub(super) fn force(self, to: Option<State>, now: u64) -> Word {
        match to {
            Some(state) => Word {
                forced: true,
                openings: 0,
                ..self.turn(state, now)
            },
            None if self.forced => Word {
                forced: false,
                at: now,
                ..self
            },
            None => self,
        }
    }
}

/// How long the opening of this number in a row lasts.
fn length(rule: &Rule, openings: u8) -> Duration {
    let doublings = openings.clamp(1, MOST_OPENINGS) - 1;
    rule.open_for.saturating_mul(1 << doublings)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
