//! One limit: what is shared of it, and the judge that each worker has of its own.
//!
//! A [`Limit`] is immutable but for its table, and outlives a reload by its name: unchanged it is
//! the same object; with another rate or burst it keeps the table and the clock goes on. The
//! decision is governor's GCRA, over our table and a clock whose hand the caller sets: a worker's
//! [`Judge`] has one limiter that charges and one that only looks.

use std::cell::Cell;
use std::hash::{Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use super::config::{Count, LimitConfig};
use super::pace::{Pace, Standing, UNIT};
use super::table::{Place, Table};
use crate::message::key::Key;
use crate::message::{Exchange, Request};
use crate::problem::Problems;
use crate::switch::Mode;
use crate::telemetry::handles::{LimiterCells, LimiterMetrics};
use crate::units::Rate;

/// One limit, shared by all workers.
pub struct Limit {
    /// Its name: the label in metrics and fields.
    pub name: Arc<str>,
    /// Its numbers.
    pub metrics: Arc<LimiterMetrics>,
    config: LimitConfig,
    key: Key,
    store: Arc<Store>,
    /// Set when the plan is put in force, or by the first request.
    pace: OnceLock<Pace>,
    before: Option<Pace>,
}

/// What clients have used, and the secret of their hashes.
struct Store {
    table: Table,
    hashes: RandomState,
}

/// What a limit says of a request, without charging it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The limit's name.
    pub name: Arc<str>,
    /// The rate, as written.
    pub rate: String,
    /// How many at once.
    pub burst: u32,
    /// What the request's client is told apart by: a value for each part of the key.
    pub key: Vec<String>,
    /// How many more are admitted at once; 0: the next is refused.
    pub left: u32,
    /// Until one more is.
    pub next: Duration,
}

impl Limit {
    /// Compiles a section, with what it can take over from the limit of that name before it.
    /// Pushes every problem.
    pub fn compile(
        name: &str,
        config: &LimitConfig,
        before: Option<&Arc<Limit>>,
        metrics: Arc<LimiterMetrics>,
        problems: &mut Problems,
    ) -> Option<Arc<Limit>> {
        let key = config.key.compile(config.ipv6_prefix.value, problems)?;
        if let Some(same) = before.filter(|before| before.config == *config) {
            return Some(same.clone());
        }
        let kept = before.filter(|before| config.counts_as(&before.config));
        let keys = if key.is_one() { 1 } else { config.keys.value };
        let new = || {
            let (table, hashes) = (Table::new(keys), RandomState::new());
            Arc::new(Store { table, hashes })
        };
        Some(Arc::new(Limit {
            name: name.into(),
            metrics,
            config: config.clone(),
            key,
            store: kept.map_or_else(new, |before| before.store.clone()),
            pace: OnceLock::new(),
            before: kept.and_then(|before| before.pace.get().copied()),
        }))
    }

    /// From now on its rate holds: the clock of the limit before it goes on at this one's rate.
    pub fn put_in_force(&self, now: Instant) {
        self.pace(now);
    }

    /// The rate.
    pub fn rate(&self) -> Rate {
        self.config.rate.value
    }

    /// How many at once.
    pub fn burst(&self) -> u32 {
        self.config.burst()
    }

    /// The words of its key, as written.
    pub fn key(&self) -> String {
        self.config.key.words().collect::<Vec<_>>().join(", ")
    }

    /// What it counts.
    pub fn count(&self) -> Count {
        self.config.count
    }

    /// Whether it acts.
    pub fn mode(&self) -> Mode {
        self.config.mode
    }

    /// Keys that have used something of their burst, and cells there are. Looks at all cells.
    pub fn keys(&self, now: Instant) -> (usize, usize) {
        let table = &self.store.table;
        (table.used(self.pace(now).at(now)), table.cells())
    }

    /// What it would say of a request.
    pub fn look(&self, request: &Request, exchange: &Exchange, now: Instant) -> Look {
        let pace = self.pace(now);
        let at = pace.at(now);
        let tat = self.store.table.peek(self.hash(request, exchange), at);
        let standing = Standing::of(tat.unwrap_or(0), at, self.burst());
        Look {
            name: self.name.clone(),
            rate: self.rate().to_string(),
            burst: self.burst(),
            key: self.key.shown(request, exchange),
            left: standing.left,
            next: pace.until(standing.next),
        }
    }

    /// What a request's client is known by here.
    pub fn hash(&self, request: &Request, exchange: &Exchange) -> u64 {
        self.key.hash(request, exchange, &self.store.hashes)
    }

    pub(super) fn pace(&self, now: Instant) -> &Pace {
        self.pace.get_or_init(|| match self.before {
            Some(before) => before.turned(self.rate(), now),
            None => Pace::new(self.rate(), now),
        })
    }
}

/// governor's decision over a store, in the limit's own time.
type Gcra<S> = RateLimiter<Ask, S, Hand, NoOpMiddleware<Nanos>>;

/// One worker's way to decide by a limit.
pub struct Judge {
    /// The shared part.
    pub(super) limit: Arc<Limit>,
    /// Its name, in an `Arc` of this worker's own.
    pub(super) name: Arc<str>,
    worker: usize,
    burst: u32,
    charges: Gcra<Charging>,
    looks: Gcra<Looking>,
}

/// What a judge said of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// It may pass.
    pub admits: bool,
    /// What is left after it, and when one more is.
    pub(super) standing: Standing,
    place: Place,
}

impl Judge {
    /// Of this worker.
    pub fn new(limit: &Arc<Limit>, worker: usize) -> Self {
        let burst = limit.burst();
        let one = Duration::from_nanos(UNIT);
        let quota = Quota::with_period(one).expect("it is above 0");
        let quota = quota.allow_burst(burst.try_into().expect("config/check admits no burst of 0"));
        let store = || limit.store.clone();
        Judge {
            name: Arc::from(&*limit.name),
            worker,
            burst,
            charges: RateLimiter::new(quota, Charging(store()), Hand::default()),
            looks: RateLimiter::new(quota, Looking(store()), Hand::default()),
            limit: limit.clone(),
        }
    }

    /// This worker's numbers.
    pub(super) fn cells(&self) -> &LimiterCells {
        self.limit.metrics.of(self.worker)
    }

    /// Charges the key, if it may pass.
    pub fn charge(&self, key: u64, now: Instant) -> Verdict {
        let ask = Ask::new(key, self.limit.pace(now).at(now));
        self.charges.clock().set(ask.now);
        let verdict = self.verdict(&ask, self.charges.check_key(&ask).is_ok());
        match verdict.place {
            Place::Own => {}
            Place::Evicted => self.cells().evictions.inc(),
            Place::Overflow => self.cells().overflow.inc(),
        }
        verdict
    }

    /// Whether the key may pass; charges nothing.
    pub(super) fn look(&self, key: u64, now: Instant) -> Verdict {
        let ask = Ask::new(key, self.limit.pace(now).at(now));
        self.looks.clock().set(ask.now);
        self.verdict(&ask, self.looks.check_key(&ask).is_ok())
    }

    /// Takes back what [`Judge::charge`] charged.
    pub(super) fn refund(&self, key: u64, charged: Verdict) {
        self.limit.store.table.refund(key, charged.place);
    }

    /// How long the wait is, in whole seconds.
    pub(super) fn wait(&self, standing: Standing, now: Instant) -> Duration {
        self.limit.pace(now).until(standing.next)
    }

    fn verdict(&self, ask: &Ask, admits: bool) -> Verdict {
        Verdict {
            admits,
            standing: Standing::of(ask.tat.get(), ask.now, self.burst),
            place: ask.place.get(),
        }
    }
}

/// A question to a store, and what it noted beside the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ask {
    key: u64,
    now: u64,
    tat: Cell<u64>,
    place: Cell<Place>,
}

impl Hash for Ask {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl Ask {
    fn new(key: u64, now: u64) -> Self {
        Ask {
            key,
            now,
            tat: Cell::new(0),
            place: Cell::new(Place::Own),
        }
    }
}

/// A clock that shows what it is set to; each worker's judge has its own. It begins at 0, which
/// makes governor's times those of the limit.
#[derive(Default)]
struct Hand(AtomicU64);

impl Hand {
    fn set(&self, now: u64) {
        self.0.store(now, Relaxed);
    }
}

impl Clock for Hand {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Relaxed))
    }
}

/// The table, to be charged.
struct Charging(Arc<Store>);

impl StateStore for Charging {
    type Key = Ask;

    fn measure_and_replace<T, F, E>(&self, ask: &Ask, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let judge = |tat: Option<u64>| f(tat.map(Nanos::new)).map(|(t, tat)| (t, tat.as_u64()));
        let judged = self.0.table.judge(ask.key, ask.now, judge);
        ask.tat.set(judged.tat);
        ask.place.set(judged.place);
        judged.said
    }
}

/// The table, to be looked at.
struct Looking(Arc<Store>);

impl StateStore for Looking {
    type Key = Ask;

    fn measure_and_replace<T, F, E>(&self, ask: &Ask, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let tat = self.0.table.peek(ask.key, ask.now);
        ask.tat.set(tat.unwrap_or(0));
        f(tat.map(Nanos::new)).map(|(t, _)| t)
    }
}
