//! The word of a breaker that all workers share, and every step that is taken on it.
//!
//! A step is worked out on what was read and taken only if nothing came between. A verdict on a try
//! names the epoch of its ticket: once the state has changed, by whomever, it is void. So of several
//! workers that find out the same, one turns the word, and an order of the operator stands.
//!
//! Made of what `super::sync` says, so that the tests can run this very file under a model checker.

use std::time::Duration;

use super::sync::{AtomicU64, Ordering};
use super::word::{Pass, Word};
use super::{Rule, State};

/// The word.
#[derive(Debug)]
pub(super) struct Shared(AtomicU64);

impl Shared {
    pub(super) fn new() -> Self {
        Shared(AtomicU64::new(Word::NEW.pack()))
    }

    pub(super) fn read(&self) -> Word {
        Word::unpack(self.0.load(Ordering::Acquire))
    }

    /// A request asks to pass: the word before and after it, and what is said.
    pub(super) fn ask(&self, rule: &Rule, safe: bool, at: u64) -> (Word, Word, Pass) {
        loop {
            let before = self.read();
            let (after, pass) = before.ask(rule, safe, at);
            if after == before || self.swap(before, after) {
                return (before, after, pass);
            }
        }
    }

    /// A try of this epoch was one bad one too many.
    pub(super) fn trip(
        &self,
        rule: &Rule,
        epoch: u8,
        at: u64,
        least: Duration,
    ) -> Option<(Word, Word)> {
        let fresh = |w: &Word| w.state == State::Closed && !w.forced && w.epoch == epoch;
        let trip = |word: Word| word.trip(rule, at, least);
        self.step(|word| Some(word).filter(fresh).map(trip))
    }

    /// A probe of this epoch has said something.
    pub(super) fn probed(
        &self,
        epoch: u8,
        step: impl Fn(Word) -> Option<Word>,
    ) -> Option<(Word, Word)> {
        let fresh = |w: &Word| w.state == State::HalfOpen && w.epoch == epoch;
        self.step(|word| Some(word).filter(fresh).and_then(&step))
    }

    /// An operator takes hold of it, or lets it go.
    pub(super) fn force(&self, to: Option<State>, at: u64) -> (Word, Word) {
        loop {
            let before = self.read();
            let after = before.force(to, at);
            if self.swap(before, after) {
                return (before, after);
            }
        }
    }

    /// Takes a step, unless another worker's steps have made it void. Gives both words.
    fn step(&self, step: impl Fn(Word) -> Option<Word>) -> Option<(Word, Word)> {
        loop {
            let before = self.read();
            let after = step(before)?;
            if self.swap(before, after) {
                return Some((before, after));
            }
        }
    }

    fn swap(&self, before: Word, after: Word) -> bool {
        let (from, to) = (before.pack(), after.pack());
        let swapped = self
            .0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        swapped.is_ok()
    }
}
