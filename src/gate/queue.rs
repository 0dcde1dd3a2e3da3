//! Places and the queue for them: who is in, who waits, who is next.
//!
//! How many are in and how many wait is one word of memory, so that a request that finds a place,
//! and one that leaves while nobody waits, take one atomic step and no lock. Only the lock of the
//! queue lets the number of those who wait change, and while somebody waits only its holder may
//! change the number of those who are in: so a place that is given back reaches the next who
//! waits, and is never lost between two steps. A place is *handed over*, not offered: one who has
//! gone meanwhile refuses it, and it goes to the next.
//!
//! Generic over how a waiter is told, and over the atomics and the lock (`super::sync`), so that
//! the tests can run this very file under a model checker.

use std::collections::VecDeque;

use super::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use super::{Order, Rules};

/// How one who waits is told that a place is theirs.
pub(super) trait Turn {
    /// Hands the place over; `false` if they have gone, and the place is still the caller's.
    fn take(self) -> bool;
}

/// What came of asking for a place that was not free at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There is one after all.
    In,
    /// In the queue, under this number.
    Waits(u64),
    /// The queue is full.
    Full,
}

/// Places, and the queue for them.
#[derive(Debug)]
pub(super) struct Queue<W> {
    /// Who is in, and who waits: see [`Counts`].
    counts: AtomicU64,
    limit: AtomicU32,
    line: Mutex<Line<W>>,
}

#[derive(Debug)]
struct Line<W> {
    waiting: VecDeque<(u64, W)>,
    next: u64,
    rules: Rules,
}

/// The two numbers of the one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// Who has a place.
    pub(super) inside: u32,
    /// Who waits for one.
    pub(super) waiting: u32,
}

impl Counts {
    fn of(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        Counts {
            inside: u32::from_le_bytes([a, b, c, d]),
            waiting: u32::from_le_bytes([e, f, g, h]),
        }
    }

    fn word(self) -> u64 {
        u64::from(self.inside) | u64::from(self.waiting) << 32
    }
}

impl<W: Turn> Queue<W> {
    pub(super) fn new(limit: u32, rules: Rules) -> Self {
        Queue {
            counts: AtomicU64::new(0),
            limit: AtomicU32::new(limit.max(1)),
            line: Mutex::new(Line {
                waiting: VecDeque::new(),
                next: 0,
                rules,
            }),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts::of(self.counts.load(Ordering::Acquire))
    }

    /// How many may be in.
    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// One step of the counts; `None` from `to` leaves them. Whether the step was taken.
    fn step(&self, to: impl Fn(Counts) -> Option<Counts>) -> bool {
        let mut word = self.counts.load(Ordering::Acquire);
        while let Some(next) = to(Counts::of(word)) {
            let (from, to) = (word, next.word());
            let taken =
                self.counts
                    .compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Acquire);
            match taken {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// A place, if one is free and nobody waits for it; `beyond` more than the limit may be in.
    pub(super) fn enter(&self, beyond: u32) -> bool {
        let limit = self.limit().saturating_add(beyond);
        self.step(|now| {
            let free = now.waiting == 0 && now.inside < limit;
            free.then(|| Counts {
                inside: now.inside + 1,
                ..now
            })
        })
    }

    /// A place, or one in the queue. Gives the one that a full queue turns away, to be told.
    pub(super) fn ask(&self, turn: W) -> (Asked, Option<W>) {
        let mut line = self.line.lock();
        let Rules { queue, order } = line.rules;
        let newest_first = order == Order::NewestFirst && queue > 0;
        loop {
            if self.enter(0) {
                return (Asked::In, None);
            }
            let full = line.waiting.len() >= queue as usize;
            if full && !newest_first {
                return (Asked::Full, None);
            }
            let turned_away = if full { line.waiting.pop_front() } else { None };
            // One comes for one that goes; else whoever leaves just now may have left a place.
            if turned_away.is_some() || self.one_more_waits() {
                let turned_away = turned_away.map(|(_, turn)| turn);
                return (Asked::Waits(line.push(turn)), turned_away);
            }
        }
    }

    /// With the lock of the queue held; `false` if there is a place.
    fn one_more_waits(&self) -> bool {
        let limit = self.limit();
        self.step(|now| {
            let free = now.waiting == 0 && now.inside < limit;
            (!free).then(|| Counts {
                waiting: now.waiting + 1,
                ..now
            })
        })
    }

    /// Takes one out of the queue who waits no more.
    pub(super) fn forget(&self, number: u64) {
        let mut line = self.line.lock();
        let found = line.waiting.binary_search_by_key(&number, |(n, _)| *n);
        if let Ok(at) = found {
            line.waiting.remove(at);
            self.one_waits_no_more();
        }
    }

    /// With the lock of the queue held.
    fn one_waits_no_more(&self) {
        self.step(|now| {
            let waiting = now.waiting - 1;
            Some(Counts { waiting, ..now })
        });
    }

    /// With the lock of the queue held, or while nobody waits.
    fn one_goes_out(&self, unless: impl Fn(Counts) -> bool) -> bool {
        self.step(|now| {
            (!unless(now)).then(|| Counts {
                inside: now.inside - 1,
                ..now
            })
        })
    }

    /// Gives a place back: to the next who waits, if anybody does.
    pub(super) fn leave(&self) {
        while !self.one_goes_out(|now| now.waiting > 0) {
            // One who has gone leaves the place for us to give.
            if self.next().is_none_or(Turn::take) {
                return;
            }
        }
    }

    /// Who gets the caller's place; `None`: nobody, and it has been given up.
    fn next(&self) -> Option<W> {
        let mut line = self.line.lock();
        let limit = self.limit();
        // The limit was lowered meanwhile: this place is not there any more.
        if self.one_goes_out(|now| now.waiting > 0 && now.inside <= limit) {
            return None;
        }
        let next = line.pop();
        if next.is_some() {
            self.one_waits_no_more();
        }
        next
    }

    /// Takes other rules into force. Those who are in beyond a lower limit stay until they leave;
    /// a higher one lets in who waits.
    pub(super) fn resize(&self, limit: u32, rules: Option<Rules>) {
        let limit = limit.max(1);
        let mut line = self.line.lock();
        self.limit.store(limit, Ordering::Relaxed);
        line.rules = rules.unwrap_or(line.rules);
        let mut let_in = Vec::new();
        // With the lock held and somebody waiting, nobody else changes who is in.
        while self.counts().inside < limit
            && let Some(turn) = line.pop()
        {
            self.step(|now| {
                Some(Counts {
                    inside: now.inside + 1,
                    waiting: now.waiting - 1,
                })
            });
            let_in.push(turn);
        }
        drop(line);
        for turn in let_in {
            if !turn.take() {
                self.leave();
            }
        }
    }
}

impl<W> Line<W> {
    /// Puts one at the end, and gives them a number.
    fn push(&mut self, turn: W) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.push_back((number, turn));
        number
    }

    /// Takes out who is next.
    fn pop(&mut self) -> Option<W> {
        let Rules { queue, order } = self.rules;
        let long = self.waiting.len() > (queue / 2) as usize;
        let next = match order {
            Order::NewestFirst if long => self.waiting.pop_back(),
            Order::Fifo | Order::NewestFirst => self.waiting.pop_front(),
        };
        next.map(|(_, turn)| turn)
    }
}
