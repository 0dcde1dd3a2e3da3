//! Which stored answers have been purged: a stamp for each purge, and none for each answer.
//!
//! Every purge raises the epoch by one and marks what it is about with it: all, a URL, a tag, a
//! prefix. An answer remembers the epoch at which its fetch began and is dead once something it is
//! about has a later mark. So a purge costs the same at a million objects as at one, and an answer
//! that was being fetched when the purge came is dead on arrival (CASES I30). URLs and tags share a
//! table of fixed size: two that fall into one place only mean that an answer is fetched once more.
//!
//! Marks are set before the epoch is raised, under a lock: who sees the new epoch sees the mark.

use std::sync::atomic::{
    AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

use parking_lot::{Mutex, RwLock};

/// Places for URLs and tags: half a megabyte.
const PLACES: usize = 1 << 16;
/// More prefixes than this at once purge everything.
const MOST_PREFIXES: usize = 256;

/// All purges so far.
pub struct Stamps {
    epoch: AtomicU64,
    all: AtomicU64,
    places: Box<[AtomicU64]>,
    /// How many prefixes there are.
    waiting: AtomicUsize,
    prefixes: RwLock<Vec<Prefix>>,
    purging: Mutex<()>,
}

struct Prefix {
    text: Box<str>,
    stamp: u64,
}

/// What a purge is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// Everything.
    All,
    /// A URL or a tag, by its mark.
    Mark(u64),
    /// Every URL that begins so: `host/path`.
    Prefix(Box<str>),
}

/// What an answer is about.
#[derive(Debug)]
pub struct About {
    /// `host/path?query`.
    pub url: Box<str>,
    /// The marks of its URL and its tags.
    pub marks: Box<[u64]>,
    /// The epoch at which its fetch began.
    pub born: u64,
    /// The last epoch at which it was found alive.
    checked: AtomicU64,
}

impl About {
    /// An answer whose fetch began at `born`.
    pub fn new(url: Box<str>, marks: Box<[u64]>, born: u64) -> Self {
        About {
            url,
            marks,
            born,
            checked: AtomicU64::new(born),
        }
    }
}

impl Default for Stamps {
    fn default() -> Self {
        Stamps {
            epoch: AtomicU64::new(1),
            all: AtomicU64::new(0),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            waiting: AtomicUsize::new(0),
            prefixes: RwLock::default(),
            purging: Mutex::default(),
        }
    }
}

impl Stamps {
    /// The epoch: what a fetch that begins now is born at.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// From now on, nothing that was born before is served if it is about this.
    pub fn purge(&self, what: Purge) {
        let _one = self.purging.lock();
        self.mark(what);
    }

    /// Purges the URL of what was `sent` at the epoch it was born at, in one step with the question
    /// whether something else has purged that since. If not: the epoch from which on its answer holds.
    pub fn supersede(&self, sent: &About) -> Option<u64> {
        let _one = self.purging.lock();
        let untouched = self.is_alive(sent);
        for mark in &sent.marks {
            self.mark(Purge::Mark(*mark));
        }
        untouched.then(|| self.epoch())
    }

    /// Under the lock.
    fn mark(&self, what: Purge) {
        let stamp = self.epoch.load(Relaxed) + 1;
        match what {
            Purge::All => self.all.store(stamp, Relaxed),
            Purge::Mark(mark) => self.place(mark).store(stamp, Relaxed),
            Purge::Prefix(text) => {
                let mut prefixes = self.prefixes.write();
                if prefixes.len() >= MOST_PREFIXES {
                    prefixes.clear();
                    self.all.store(stamp, Relaxed);
                } else {
                    prefixes.push(Prefix { text, stamp });
                }
                self.waiting.store(prefixes.len(), Relaxed);
            }
        }
        self.epoch.store(stamp, Release);
    }

    /// Whether an answer has not been purged since its fetch began.
    pub fn is_alive(&self, about: &About) -> bool {
        let epoch = self.epoch();
        if about.checked.load(Relaxed) == epoch {
            return true;
        }
        let alive = self.all.load(Relaxed) <= about.born
            && about
                .marks
                .iter()
                .all(|m| self.place(*m).load(Relaxed) <= about.born)
            && !self.under_prefix(about);
        if alive {
            about.checked.store(epoch, Relaxed);
        }
        alive
    }

    /// Everything that was stored before `epoch` has been looked at and the dead removed: prefixes
    /// up to then have done their work. Answers still being fetched keep theirs: `oldest` is the
    /// epoch at which the oldest of them was born.
    pub fn swept(&self, epoch: u64, oldest: u64) {
        let mut prefixes = self.prefixes.write();
        prefixes.retain(|prefix| prefix.stamp > epoch || prefix.stamp > oldest);
        self.waiting.store(prefixes.len(), Relaxed);
    }

    fn under_prefix(&self, about: &About) -> bool {
        if self.waiting.load(Relaxed) == 0 {
            return false;
        }
        let prefixes = self.prefixes.read();
        let mut later = prefixes.iter().filter(|prefix| prefix.stamp > about.born);
        later.any(|prefix| about.url.starts_with(&*prefix.text))
    }

    fn place(&self, mark: u64) -> &AtomicU64 {
        let at = usize::try_from(mark % PLACES as u64).unwrap_or(0);
        &self.places[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(stamps: &Stamps, url: &str, marks: &[u64]) -> About {
        About::new(url.into(), marks.into(), stamps.epoch())
    }

    #[test]
    fn a_purge_kills_what_it_is_about_and_nothing_else() {
        let stamps = Stamps::default();
        let a = about(&stamps, "h/a/1", &[1, 10]);
        let b = about(&stamps, "h/b/1", &[2, 10]);
        let c = about(&stamps, "h/b/2", &[3, 11]);
        let alive = |stamps: &Stamps| [&a, &b, &c].map(|about| stamps.is_alive(about));
        assert_eq!(alive(&stamps), [true; 3]);
        stamps.purge(Purge::Mark(1));
        assert_eq!(alive(&stamps), [false, true, true]);
        stamps.purge(Purge::Mark(10));
        assert_eq!(alive(&stamps), [false, false, true]);
        stamps.purge(Purge::Prefix("h/b/".into()));
        assert_eq!(alive(&stamps), [false; 3]);
        let d = about(&stamps, "h/b/2", &[1, 10]);
        assert!(stamps.is_alive(&d));
        stamps.purge(Purge::All);
        assert!(!stamps.is_alive(&d));
    }

    #[test]
    fn i30_what_was_being_fetched_when_the_purge_came_is_dead_on_arrival() {
        let stamps = Stamps::default();
        for what in [Purge::All, Purge::Mark(7), Purge::Prefix("h/".into())] {
            let born = stamps.epoch();
            stamps.purge(what);
            let arrived = About::new("h/x".into(), [7].into(), born);
            assert!(!stamps.is_alive(&arrived));
        }
    }

    #[test]
    fn prefixes_go_once_everything_was_looked_at_and_too_many_are_everything() {
        let stamps = Stamps::default();
        let old = about(&stamps, "h/a", &[]);
        stamps.purge(Purge::Prefix("h/".into()));
        stamps.swept(stamps.epoch(), old.born);
        assert!(!stamps.is_alive(&old), "its fetch is not over");
        stamps.swept(stamps.epoch(), stamps.epoch());
        assert_eq!(stamps.waiting.load(Relaxed), 0);
        let other = about(&stamps, "elsewhere", &[]);
        for _ in 0..=MOST_PREFIXES {
            stamps.purge(Purge::Prefix("h/".into()));
        }
        assert!(!stamps.is_alive(&other));
    }
}
