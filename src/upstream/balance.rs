//! Choosing an endpoint: pure functions of how the endpoints stand, their load and a number.
//!
//! Two steps. [`eligible`] names the endpoints that may be asked at all: the lowest priority with
//! a usable endpoint, near ones before far ones, all of that priority when too few are usable. It
//! looks at every endpoint and runs only when something changed. A [`Picker`] then picks among
//! them for each request in O(log n): the better of two random ones, or in turn by weight;
//! [`Ring`] picks by hash. Nothing here asks the time or makes a random number.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// What is known of one endpoint when the eligible ones are named.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Neither unhealthy nor ejected nor barred.
    pub usable: bool,
    /// Never to be asked, not even when too few are usable: its breaker is not closed.
    pub barred: bool,
    /// 0 is used first.
    pub priority: u8,
    /// Stands in our zone.
    pub near: bool,
    /// Its share, slow start included, above 0.
    pub weight: f64,
}

/// The endpoints that may be asked, by index.
#[derive(Debug, Default, PartialEq)]
pub struct Eligible {
    /// Ascending.
    pub indices: Vec<usize>,
    /// Too few were usable: all of their priority are used.
    pub panic: bool,
}

/// Names the endpoints that may be asked. `threshold`, in percent: below that share of usable
/// ones all of the priority are used; 0 turns this off, and then there may be none.
pub fn eligible(seen: &[Seen], threshold: u8) -> Eligible {
    let usable_tier = seen.iter().filter(|s| s.usable).map(|s| s.priority).min();
    let first_tier = seen.iter().filter(|s| !s.barred).map(|s| s.priority).min();
    let Some(tier) = usable_tier.or(first_tier) else {
        return Eligible::default();
    };
    let of_tier = || seen.iter().enumerate().filter(|(_, s)| s.priority == tier);
    let usable = of_tier().filter(|(_, s)| s.usable).count();
    if usable * 100 < of_tier().count() * usize::from(threshold) {
        let open = of_tier().filter(|(_, s)| !s.barred);
        let indices = open.map(|(i, _)| i).collect();
        return Eligible {
            indices,
            panic: true,
        };
    }
    let near = of_tier().any(|(_, s)| s.usable && s.near);
    let indices = of_tier()
        .filter(|(_, s)| s.usable && (s.near || !near))
        .map(|(i, _)| i)
        .collect();
    Eligible {
        indices,
        panic: false,
    }
}

/// How busy an endpoint is, as one worker sees it.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests under way.
    pub in_flight: u32,
    /// Smoothed latency in nanoseconds, failures made slow; `None` before the first answer.
    pub latency: Option<f64>,
}

/// How much better the second choice must be. Without it two endpoints that differ by noise
/// would not keep to their weights.
const CLEARLY: f64 = 0.75;

/// Whether `b` is clearly the better choice.
fn is_better(b: (Load, f64), a: (Load, f64)) -> bool {
    let busy = |(load, weight): (Load, f64)| 1.0 + f64::from(load.in_flight) / weight;
    match (a.0.latency, b.0.latency) {
        (Some(la), Some(lb)) => lb * busy(b) < CLEARLY * la * busy(a),
        _ => busy(b) < CLEARLY * busy(a),
    }
}

/// Picks among the eligible endpoints.
#[derive(Debug, Default)]
pub struct Picker {
    indices: Vec<usize>,
    weights: Vec<f64>,
    /// Running sum of the weights.
    upto: Vec<f64>,
    turns: BinaryHeap<Reverse<Turn>>,
    /// All of a priority are used because too few are usable.
    pub panic: bool,
}

impl Picker {
    /// Among `eligible`, with the weights of `seen`. `random` spreads where turns begin, so that
    /// workers do not march in step.
    pub fn new(eligible: Eligible, seen: &[Seen], random: &mut Random) -> Self {
        let Eligible { indices, panic } = eligible;
        let largest = indices.iter().map(|i| seen[*i].weight).fold(0.0, f64::max);
        let weights: Vec<f64> = indices.iter().map(|i| seen[*i].weight / largest).collect();
        let upto = weights
            .iter()
            .scan(0.0, |sum, w| {
                *sum += w;
                Some(*sum)
            })
            .collect();
        let turns = weights
            .iter()
            .enumerate()
            .map(|(at, w)| Reverse(Turn::new(random.unit() / w, at)))
            .collect();
        Picker {
            indices,
            weights,
            upto,
            turns,
            panic,
        }
    }

    /// The endpoints that may be asked.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The better of two different random ones, drawn by weight.
    pub fn p2c(&self, random: &mut Random, load: impl Fn(usize) -> Load) -> Option<usize> {
        let first = self.draw(random)?;
        if self.indices.len() == 1 {
            return Some(self.indices[first]);
        }
        let second = self.draw_other(first, random)?;
        let of = |at: usize| (load(self.indices[at]), self.weights[at]);
        let at = if is_better(of(second), of(first)) {
            second
        } else {
            first
        };
        Some(self.indices[at])
    }

    fn draw(&self, random: &mut Random) -> Option<usize> {
        let last = self.upto.len().checked_sub(1)?;
        let at = random.unit() * self.upto[last];
        Some(self.upto.partition_point(|sum| *sum <= at).min(last))
    }

    /// A draw by weight that leaves `first` out: its stretch is cut from the line.
    fn draw_other(&self, first: usize, random: &mut Random) -> Option<usize> {
        let last = self.upto.len().checked_sub(1)?;
        let at = random.unit() * (self.upto[last] - self.weights[first]);
        let before = self.upto[first] - self.weights[first];
        let at = if at < before {
            at
        } else {
            at + self.weights[first]
        };
        let found = self.upto.partition_point(|sum| *sum <= at).min(last);
        match found {
            same if same == first => Some(if first == 0 { 1 } else { first - 1 }),
            other => Some(other),
        }
    }

    /// The next in turn: the one whose due time is earliest; it is due again a step of one over
    /// its weight later. Smooth, and exact over every round.
    pub fn in_turn(&mut self) -> Option<usize> {
        let Reverse(turn) = self.turns.pop()?;
        let due = turn.due + 1.0 / self.weights[turn.at];
        self.turns.push(Reverse(Turn::new(due, turn.at)));
        Some(self.indices[turn.at])
    }

    /// The endpoints that may be asked, beginning at a random one.
    pub fn turned(&self, random: &mut Random) -> impl Iterator<Item = usize> {
        let start = self.draw(random).unwrap_or_default();
        let turned = self.indices[start..].iter().chain(&self.indices[..start]);
        turned.copied()
    }

    /// Any eligible endpoint that `other` accepts, beginning at a random one.
    pub fn another(&self, random: &mut Random, other: impl Fn(usize) -> bool) -> Option<usize> {
        self.turned(random).find(|i| other(*i))
    }
}

#[derive(Debug, PartialEq)]
struct Turn {
    due: f64,
    at: usize,
}

impl Turn {
    fn new(due: f64, at: usize) -> Self {
        Turn { due, at }
    }
}

impl Eq for Turn {}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        self.due.total_cmp(&other.due).then(self.at.cmp(&other.at))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Points on the ring for an endpoint of the largest weight: spread even to a few percent.
const POINTS: f64 = 160.0;
/// Points on the ring altogether, so that thousands of endpoints stay small.
const MOST_POINTS: f64 = 400_000.0;

/// Consistent hashing: an endpoint that comes or goes moves only the keys next to its points.
#[derive(Debug, Default)]
pub struct Ring(Vec<(u64, u32)>);

impl Ring {
    /// Of these endpoints: a name that stays the same from plan to plan, and a weight.
    pub fn new<'a>(endpoints: impl ExactSizeIterator<Item = (&'a [u8], u16)> + Clone) -> Self {
        let largest = endpoints.clone().map(|(_, w)| w).max().unwrap_or(1).max(1);
        let each = POINTS.min(MOST_POINTS / endpoints.len().max(1) as f64);
        let mut points = Vec::new();
        for (index, (name, weight)) in endpoints.enumerate() {
            let count = (each * f64::from(weight) / f64::from(largest))
                .ceil()
                .max(1.0) as u64;
            let base = hash(name);
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            points.extend((0..count).map(|n| (mix(base ^ mix(n)), index)));
        }
        points.sort_unstable();
        Ring(points)
    }

    /// Endpoints in the order in which a key prefers them, with repetitions.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.0.partition_point(|(at, _)| *at < key);
        let turned = self.0[start..].iter().chain(&self.0[..start]);
        turned.map(|(_, index)| *index as usize)
    }
}

/// A stable hash, the same in every process: which endpoint a key has must not depend on which
/// gateway is asked. FNV-1a with a finalizer.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A small stream of numbers from a seed; for spreading load, never for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number from 0 up to but not 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
