//! One fetch for each missing answer, over all workers.
//!
//! Who misses first leads: its task asks the origin, and everyone who comes for the same while it is
//! under way waits for its head and then reads the body as it comes. An answer that is not for
//! others lets all of them go at once. A flight whose body is complete stays findable until its
//! answer is in the store, so that between the two nobody asks again.
//!
//! The table is locked for a look-up and never across an await.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use foldhash::fast::FixedState;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::broadcast::Broadcast;
use super::entry::{Entry, Head};
use super::key::Key;
use super::stamps::About;
use crate::error::{GatewayError, Reason};
use crate::message::exchange::Notes;

/// How far a flight is.
#[derive(Debug, Clone)]
pub enum Stage {
    /// The origin was asked.
    Asking,
    /// An answer that others may have too.
    Shared(Arc<Shared>),
    /// The whole answer.
    Landed(Arc<Entry>, Source),
    /// An answer that is for the one who asked: everyone goes alone.
    Alone(StatusCode),
    /// There is no answer.
    Failed(Failed),
}

/// Where a whole answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It was fetched.
    Fetched,
    /// It was stored, and the origin says that it still stands.
    Confirmed,
}

/// An answer, its body still coming.
#[derive(Debug)]
pub struct Shared {
    /// The head.
    pub head: Arc<Head>,
    /// The body.
    pub body: Arc<Broadcast>,
    /// How long the body will be, if the head says.
    pub length: Option<u64>,
    /// It will be stored.
    pub stored: bool,
    /// Who gave it.
    pub origin: Origin,
}

/// Who was asked, for the notes of those who did not ask.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    notes: Notes,
}

impl Origin {
    /// As noted by who asked.
    pub fn of(notes: &Notes) -> Self {
        let (upstream, endpoint) = (notes.upstream.clone(), notes.endpoint);
        Origin {
            notes: Notes {
                upstream,
                endpoint,
                ..Notes::default()
            },
        }
    }

    /// Notes it for who did not.
    pub fn note(&self, notes: &mut Notes) {
        notes.upstream.clone_from(&self.notes.upstream);
        notes.endpoint = self.notes.endpoint;
    }
}

/// A failure that is told to many.
#[derive(Debug, Clone)]
pub struct Failed {
    reason: Reason,
    retry_after: Option<std::time::Duration>,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// Who failed.
    pub origin: Origin,
}

impl Failed {
    /// What of an error is told to others.
    pub fn of(error: &GatewayError, origin: Origin) -> Self {
        Failed {
            reason: error.reason(),
            retry_after: error.retry_after(),
            fields: error.fields().to_vec(),
            origin,
        }
    }

    /// The one word.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// As an error again.
    pub fn error(&self) -> GatewayError {
        let mut error = GatewayError::new(self.reason);
        if let Some(after) = self.retry_after {
            error = error.with_retry_after(after);
        }
        let fields = self.fields.iter().cloned();
        fields.fold(error, |error, (name, value)| error.with_field(name, value))
    }
}

/// A fetch under way.
#[derive(Debug)]
pub struct Flight {
    stage: watch::Sender<Stage>,
    /// What it fetches, and since when.
    pub about: About,
    variant: u64,
}

impl Flight {
    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// It has come so far.
    pub fn reach(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Whether this is the answer it has come to.
    fn has_landed(&self, found: Option<&Arc<Entry>>) -> bool {
        match (&*self.stage.borrow(), found) {
            (Stage::Landed(entry, _), Some(found)) => Arc::ptr_eq(entry, found),
            _ => false,
        }
    }

    /// Whether nothing has made untrue what it fetches, nor the answer it has come to: that has tags
    /// of its own, and may be outdated.
    fn is_true(&self, is_alive: impl Fn(&About) -> bool) -> bool {
        let answer = match &*self.stage.borrow() {
            Stage::Landed(entry, _) => !entry.outdated.load(Relaxed) && is_alive(&entry.head.about),
            Stage::Shared(shared) => is_alive(&shared.head.about),
            Stage::Asking | Stage::Alone(_) | Stage::Failed(_) => true,
        };
        answer && is_alive(&self.about)
    }

    /// Waits for more than that the origin was asked.
    pub async fn answered(&self) -> Stage {
        let mut stages = self.stage.subscribe();
        let stage = stages
            .wait_for(|stage| !matches!(stage, Stage::Asking))
            .await;
        // The sender is in this very flight: it cannot be gone.
        stage.map_or_else(|_| self.stage(), |stage| stage.clone())
    }
}

/// Who one is on a flight.
#[derive(Debug)]
pub enum Seat {
    /// The one who has to ask the origin.
    Leader(Arc<Flight>),
    /// One of those who wait.
    Waiter(Arc<Flight>),
}

/// All fetches under way.
#[derive(Debug)]
pub struct Flights {
    shards: Box<[Mutex<Shard>]>,
    /// Flights whose answer is complete and not in the store yet.
    landing: AtomicUsize,
}

type Shard = HashMap<u128, Vec<Arc<Flight>>, FixedState>;

const SHARDS: usize = 64;

impl Default for Flights {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Flights {
            shards,
            landing: AtomicUsize::new(0),
        }
    }
}

impl Flights {
    // The hash of a key is keyed by chance already: any of its bits will do.
    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        let at = usize::try_from(key.hash() % SHARDS as u128).unwrap_or(0);
        &self.shards[at]
    }

    /// A seat on the flight for this key and variant that is not purged yet, and whose answer is not
    /// the one that was `found` already; on a new one `about` this if there is none.
    pub fn board(
        &self,
        key: &Key,
        variant: u64,
        found: Option<&Arc<Entry>>,
        is_alive: impl Fn(&About) -> bool,
        about: impl FnOnce() -> About,
    ) -> Seat {
        let mut shard = self.shard(key).lock();
        let flights = shard.entry(key.hash()).or_default();
        let mut same = flights.iter().filter(|f| f.variant == variant);
        if let Some(flight) = same.find(|f| f.is_true(&is_alive) && !f.has_landed(found)) {
            return Seat::Waiter(Arc::clone(flight));
        }
        let flight = Arc::new(Flight {
            stage: watch::Sender::new(Stage::Asking),
            about: about(),
            variant,
        });
        flights.push(Arc::clone(&flight));
        Seat::Leader(flight)
    }

    /// The complete answer for a request with these fields that is on its way to the store.
    pub fn landed(&self, key: &Key, asked: &HeaderMap) -> Option<Arc<Entry>> {
        if self.landing.load(Relaxed) == 0 {
            return None;
        }
        let shard = self.shard(key).lock();
        let flights = shard.get(&key.hash())?.iter().rev();
        flights
            .into_iter()
            .find_map(|flight| match &*flight.stage.borrow() {
                Stage::Landed(entry, _) if entry.head.suits(asked) => Some(Arc::clone(entry)),
                _ => None,
            })
    }

    /// Whether anything is under way for this key.
    pub fn any(&self, key: &Key) -> bool {
        self.shard(key).lock().contains_key(&key.hash())
    }

    /// The answer is complete and goes to the store.
    pub fn land(&self, flight: &Flight, entry: Arc<Entry>, source: Source) {
        self.landing.fetch_add(1, Relaxed);
        flight.reach(Stage::Landed(entry, source));
    }

    /// The flight is over: nobody boards it any more.
    pub fn leave(&self, key: &Key, flight: &Arc<Flight>) {
        let mut shard = self.shard(key).lock();
        let Some(flights) = shard.get_mut(&key.hash()) else {
            return;
        };
        let before = flights.len();
        flights.retain(|other| !Arc::ptr_eq(other, flight));
        if flights.len() < before && matches!(*flight.stage.borrow(), Stage::Landed(..)) {
            self.landing.fetch_sub(1, Relaxed);
        }
        if flights.is_empty() {
            shard.remove(&key.hash());
        }
    }

    /// When the oldest fetch under way was born.
    pub fn oldest(&self) -> Option<u64> {
        let oldest = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard
                .values()
                .flatten()
                .map(|flight| flight.about.born)
                .min()
        };
        self.shards.iter().filter_map(oldest).min()
    }
}
