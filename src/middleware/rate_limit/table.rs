//! Where a limit keeps what each client has used: bounded, shared by all workers, exact.
//!
//! A cell is 16 bytes: the key's hash (its fingerprint) and its theoretical arrival time (*tat*)
//! in the limit's own time. A key may stand in one of two buckets of eight, each two lines of the
//! cache; where it can it stands in the one line where every look begins, so that a decision waits
//! for memory once, however many keys there are. What is there is found and charged without a lock;
//! a new key enters under one of 64 stripes, with another look, so that it never has two cells. A
//! cell is free that nobody had, or whose time is past: it says nothing that a new cell would not.
//! Where none is, the key is judged by one that all such keys share. So nobody gets a second burst
//! by pushing others out.
//!
//! The order within a cell: its tat is swapped for [`TAKEN`], then the fingerprint is written,
//! then the new tat, which is above every tat the cell had. Who read the old tat cannot swap it
//! any more. Memory is zeroed by the system and costs nothing until it is touched.

use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use parking_lot::Mutex;

use super::pace::UNIT;

/// The tat of a cell that is changing hands.
const TAKEN: u64 = u64::MAX;
/// The tat of a cell that nobody had yet.
const EMPTY: u64 = 0;
/// Words in a line of the cache.
const LINE: usize = 8;
/// A bucket with fewer free cells than this sends new keys to their other one, if that has more.
const SPARE: usize = 3;
/// Locks for keys that enter.
const STRIPES: usize = 64;

/// A word that threads share; a model checker has its own.
pub(super) trait Word: Send + Sync + Sized {
    /// So many of them, 0.
    fn zeroed(count: usize) -> Box<[Self]>;
    /// Acquire.
    fn load(&self) -> u64;
    /// Release.
    fn store(&self, value: u64);
    /// Whether it was `from`, and is `to` now.
    fn swap(&self, from: u64, to: u64) -> bool;
}

impl Word for AtomicU64 {
    fn zeroed(count: usize) -> Box<[Self]> {
        bytemuck::zeroed_slice_box(count)
    }

    #[inline]
    fn load(&self) -> u64 {
        AtomicU64::load(self, Acquire)
    }

    #[inline]
    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Release);
    }

    #[inline]
    fn swap(&self, from: u64, to: u64) -> bool {
        self.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }
}

/// A lock for keys that enter.
pub(super) trait Stripe: Send + Sync + Sized {
    /// So many of them.
    fn several(count: usize) -> Box<[Self]>;
    /// Does it while nobody else does.
    fn hold<T>(&self, work: impl FnOnce() -> T) -> T;
}

impl Stripe for Mutex<()> {
    fn several(count: usize) -> Box<[Self]> {
        (0..count).map(|_| Mutex::default()).collect()
    }

    fn hold<T>(&self, work: impl FnOnce() -> T) -> T {
        let _held = self.lock();
        work()
    }
}

/// Which cell a key was judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its own, or one that was empty.
    Own,
    /// One that another key needed no more.
    Evicted,
    /// The one that all share who found no room.
    Overflow,
}

/// A judgement: what the judge said, by which cell, and the tat of the cell after it.
pub(super) struct Judged<T, E> {
    pub(super) said: Result<T, E>,
    pub(super) place: Place,
    pub(super) tat: u64,
}

/// The cells of one limit, `N` in a bucket; a cell is its fingerprint, then its tat.
pub(super) struct Table<W = AtomicU64, L = Mutex<()>, const N: usize = 8> {
    words: Box<[W]>,
    stripes: Box<[L]>,
    overflow: Box<[W]>,
    /// Words before the first bucket, so that four cells are one line of the cache.
    lead: usize,
    buckets: usize,
}

/// A bucket that a key may stand in, by its first word, and whether its second line comes first.
#[derive(Clone, Copy)]
struct Home {
    bucket: usize,
    second: bool,
}

/// A cell, by its first word.
#[derive(Clone, Copy)]
struct Cell(usize);

impl<W: Word, L: Stripe, const N: usize> Table<W, L, N> {
    /// With room for `keys`: three quarters as many cells again, so that a bucket is hardly ever full
    /// before, and nine keys of ten stand where a look begins.
    pub(super) fn new(keys: u32) -> Self {
        let cells = keys as usize + keys as usize / 4 * 3;
        let buckets = cells.div_ceil(N).max(1);
        let words = W::zeroed(buckets * N * 2 + LINE);
        let lead = words.as_ptr().align_offset(64);
        Table {
            words,
            lead: if lead < LINE { lead } else { 0 },
            stripes: L::several(STRIPES),
            overflow: W::zeroed(1),
            buckets,
        }
    }

    /// Cells there are.
    pub(super) fn cells(&self) -> usize {
        self.buckets * N
    }

    /// Cells that say something at `now`. Looks at all of them: for a scrape.
    pub(super) fn used(&self, now: u64) -> usize {
        let tats = self.words[self.lead..].chunks_exact(2).map(|cell| &cell[1]);
        tats.take(self.cells())
            .map(W::load)
            .filter(|tat| *tat > now && *tat != TAKEN)
            .count()
    }

    /// Judges a key and charges it as the judge says: `judge` gets its tat (`None`: it is new) and
    /// gives the next one. It may be asked several times.
    pub(super) fn judge<T, E>(
        &self,
        key: u64,
        now: u64,
        judge: impl Fn(Option<u64>) -> Result<(T, u64), E>,
    ) -> Judged<T, E> {
        let key = fingerprint(key);
        self.known(key, &judge).unwrap_or_else(|| {
            let stripe = &self.stripes[key as usize % STRIPES];
            stripe.hold(|| self.enter(key, now, &judge))
        })
    }

    /// The tat a key would be judged by; `None`: it is new, and there is room.
    pub(super) fn peek(&self, key: u64, now: u64) -> Option<u64> {
        let key = fingerprint(key);
        for cell in self.matching(key) {
            let tat = self.tat(cell).load();
            if tat != TAKEN && self.print(cell).load() == key {
                return Some(tat);
            }
        }
        if self.homes(key).any(|home| self.free(home, now) > 0) {
            return None;
        }
        Some(self.overflow[0].load()).filter(|tat| *tat != EMPTY)
    }

    /// Takes one admission back, from where it was charged.
    pub(super) fn refund(&self, key: u64, place: Place) {
        let key = fingerprint(key);
        let less = |tat: Option<u64>| -> Result<((), u64), Infallible> {
            Ok(((), tat.unwrap_or(EMPTY).saturating_sub(UNIT)))
        };
        match place {
            Place::Overflow => drop(turn(&self.overflow[0], || true, &less)),
            Place::Own | Place::Evicted => drop(self.known(key, &less)),
        }
    }

    /// Judges by the key's own cell, if it has one.
    fn known<T, E>(
        &self,
        key: u64,
        judge: &impl Fn(Option<u64>) -> Result<(T, u64), E>,
    ) -> Option<Judged<T, E>> {
        let by = |cell| {
            let mine = || self.print(cell).load() == key;
            let said = turn(self.tat(cell), mine, judge)?;
            Some(judged(said, Place::Own))
        };
        let near = self.near(key).and_then(by);
        // a cell may have changed hands in between, while the key has got another
        near.or_else(|| self.matching(key).find_map(by))
    }

    /// The cell of the key's own line that has its fingerprint. Which of them it is, is not a
    /// branch: that would be guessed wrong most times, and known only once memory has answered.
    #[inline]
    fn near(&self, key: u64) -> Option<Cell> {
        let [home, _] = self.pair(key);
        let [line, _] = Self::lines(home);
        let cells = self.words[line..line + N].chunks_exact(2).enumerate();
        let found = cells.fold(N, |found, (at, cell)| match cell[0].load() == key {
            true => at * 2,
            false => found,
        });
        (found < N).then(|| Cell(line + found))
    }

    /// Judges a key that had no cell a moment ago. Nobody else enters this key meanwhile.
    fn enter<T, E>(
        &self,
        key: u64,
        now: u64,
        judge: &impl Fn(Option<u64>) -> Result<(T, u64), E>,
    ) -> Judged<T, E> {
        if let Some(judged) = self.known(key, judge) {
            return judged;
        }
        let (said, tat) = match judge(None) {
            Ok(first) => first,
            Err(error) => return judged(Err((error, EMPTY)), Place::Own),
        };
        if let Some((cell, place)) = self.claim(key, now) {
            self.print(cell).store(key);
            self.tat(cell).store(tat);
            return judged(Ok((said, tat)), place);
        }
        let said = turn(&self.overflow[0], || true, judge).expect("nobody takes it away");
        judged(said, Place::Overflow)
    }

    /// Takes a free cell, of the first bucket while it has some to spare, since that is where a look
    /// begins; else of the one that has more. Of a line, one that nobody had before any other.
    fn claim(&self, key: u64, now: u64) -> Option<(Cell, Place)> {
        let [first, second] = self.pair(key);
        let (here, there) = (self.free(first, now), self.free(second, now));
        let order = match here < SPARE && there > here {
            true => [second, first],
            false => [first, second],
        };
        let mut lines = order.into_iter().flat_map(Self::lines);
        lines.find_map(|line| {
            let empty = |cell: &Cell| self.tat(*cell).swap(EMPTY, TAKEN);
            let past = |cell: &Cell| {
                let old = self.tat(*cell).load();
                old < now && self.tat(*cell).swap(old, TAKEN)
            };
            let unused = Self::cells_of(line).find(empty);
            let unused = unused.map(|cell| (cell, Place::Own));
            unused.or_else(|| Some((Self::cells_of(line).find(past)?, Place::Evicted)))
        })
    }

    /// Cells of a bucket that a new key could have.
    fn free(&self, home: Home, now: u64) -> usize {
        let cells = Self::lines(home).into_iter().flat_map(Self::cells_of);
        cells.filter(|cell| self.tat(*cell).load() < now).count()
    }

    /// The cells that have the key's fingerprint.
    #[inline]
    fn matching(&self, key: u64) -> impl Iterator<Item = Cell> {
        let lines = self.homes(key).flat_map(Self::lines);
        lines.flat_map(move |line| {
            let cells = self.words[line..line + N].chunks_exact(2).enumerate();
            cells
                .filter(move |(_, cell)| cell[0].load() == key)
                .map(move |(at, _)| Cell(line + at * 2))
        })
    }

    /// The buckets a key may stand in: one if both are the same.
    fn homes(&self, key: u64) -> impl Iterator<Item = Home> {
        let [first, second] = self.pair(key);
        let other = (second.bucket != first.bucket).then_some(second);
        std::iter::once(first).chain(other)
    }

    fn pair(&self, key: u64) -> [Home; 2] {
        let spread = |hash: u64| ((u128::from(hash) * self.buckets as u128) >> 64) as usize;
        // the second by other bits: an odd number close to 2^64 / golden ratio mixes them upwards
        let other = key.swap_bytes().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [key, other].map(|hash| Home {
            bucket: self.lead + spread(hash) * N * 2,
            second: key % 2 == 1,
        })
    }

    /// The lines of a bucket, the key's own first.
    fn lines(home: Home) -> [usize; 2] {
        let (one, two) = (home.bucket, home.bucket + N);
        if home.second { [two, one] } else { [one, two] }
    }

    fn cells_of(line: usize) -> impl Iterator<Item = Cell> {
        (line..line + N).step_by(2).map(Cell)
    }

    fn print(&self, cell: Cell) -> &W {
        &self.words[cell.0]
    }

    fn tat(&self, cell: Cell) -> &W {
        &self.words[cell.0 + 1]
    }
}

/// 0 is no fingerprint.
fn fingerprint(key: u64) -> u64 {
    key.max(1)
}

/// Judges by one tat until nobody else came between; `None`: it is not `mine` any more.
fn turn<W: Word, T, E>(
    word: &W,
    mine: impl Fn() -> bool,
    judge: &impl Fn(Option<u64>) -> Result<(T, u64), E>,
) -> Option<Result<(T, u64), (E, u64)>> {
    loop {
        let old = word.load();
        if old == TAKEN || !mine() {
            return None;
        }
        match judge(Some(old).filter(|tat| *tat != EMPTY)) {
            Err(error) => return Some(Err((error, old))),
            Ok((said, new)) if word.swap(old, new) => return Some(Ok((said, new))),
            Ok(_) => {}
        }
    }
}

fn judged<T, E>(said: Result<(T, u64), (E, u64)>, place: Place) -> Judged<T, E> {
    let (said, tat) = match said {
        Ok((said, tat)) => (Ok(said), tat),
        Err((error, tat)) => (Err(error), tat),
    };
    Judged { said, place, tat }
}

#[cfg(test)]
mod tests;
