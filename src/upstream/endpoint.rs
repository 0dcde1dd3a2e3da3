//! One address and how it stands: healthy or not, ejected or not, and since when.
//!
//! An [`Endpoint`] is shared by all workers; its [`Standing`] outlives a reload and a DNS answer
//! by address. The atomics are written only when something changes (a check turns, a run of
//! failures begins or ends), so that a healthy upstream costs its workers no shared write. Times
//! are milliseconds since the standing was made. In-flight requests and latency are not here:
//! they are each worker's own view, in `pool`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;

use super::breaker::Breaker;
use super::eject::{self, Ejection};

/// One resolved address of an upstream.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// `host:port` as written in the config.
    pub written: Arc<str>,
    /// The name TLS asks for and checks.
    pub server_name: Option<ServerName<'static>>,
    /// Its share, 1 to 1000.
    pub weight: u16,
    /// 0 is used first.
    pub priority: u8,
    /// The zone as written.
    pub zone: Option<Arc<str>>,
    /// It stands in `server.zone`, or no zone is at stake.
    pub near: bool,
    /// How it stands; shared with the endpoint of this address in earlier plans.
    pub standing: Arc<Standing>,
    /// Its breaker, if endpoints have one; shared likewise.
    pub breaker: Option<Arc<Breaker>>,
}

/// How an endpoint stands, for all workers.
#[derive(Debug)]
pub struct Standing {
    born: Instant,
    unhealthy: AtomicBool,
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until: AtomicU64,
    back_since: AtomicU64,
}

impl Standing {
    /// A new endpoint: trusted until it fails, and subject to slow start from `now`. One that
    /// was there when the process started (`warm`) has its full share at once.
    pub fn new(now: Instant, warm: bool) -> Self {
        let ago = if warm {
            Duration::from_hours(24)
        } else {
            Duration::ZERO
        };
        Standing {
            born: now.checked_sub(ago).unwrap_or(now),
            unhealthy: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            back_since: AtomicU64::new(0),
        }
    }

    fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.born).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Active checks find it unhealthy.
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Relaxed)
    }

    /// It is ejected at `now`.
    pub fn is_ejected(&self, now: Instant) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until != 0 && self.at(now) < until
    }

    /// It may be sent requests at `now`.
    pub fn is_usable(&self, now: Instant) -> bool {
        !self.is_unhealthy() && !self.is_ejected(now)
    }

    /// What active checks found; `true` when that is news.
    pub fn set_unhealthy(&self, unhealthy: bool, now: Instant) -> bool {
        if self.unhealthy.swap(unhealthy, Relaxed) == unhealthy {
            return false;
        }
        if !unhealthy {
            self.back_since.store(self.at(now), Relaxed);
            self.failures.store(0, Relaxed);
        }
        true
    }

    /// A request was answered well: a run of failures is over.
    pub fn succeeded(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// A request failed. `Some` when the run is long enough that it should be ejected now. The
    /// run is not reset by an ejection: the first failure after one ejects again.
    pub fn failed(&self, now: Instant, rule: &eject::Rule) -> Option<Ejection> {
        let run = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if run < rule.consecutive || self.is_ejected(now) {
            return None;
        }
        let last_end = self.ejected_until.load(Relaxed);
        let calm = Duration::from_millis(self.at(now).saturating_sub(last_end));
        Some(eject::next(rule, self.ejections.load(Relaxed), calm))
    }

    /// Takes it out of traffic.
    pub fn eject(&self, now: Instant, ejection: &Ejection) {
        let length = u64::try_from(ejection.length.as_millis()).unwrap_or(u64::MAX);
        let until = self.at(now).saturating_add(length).max(1);
        self.ejections.store(ejection.nth, Relaxed);
        self.ejected_until.store(until, Relaxed);
        self.back_since.store(until, Relaxed);
    }

    /// How much of its weight it is given at `now`: from 0.1 up to 1 over `slow_start`.
    pub fn share(&self, now: Instant, slow_start: Option<Duration>) -> f64 {
        let Some(over) = slow_start.filter(|s| !s.is_zero()) else {
            return 1.0;
        };
        let back = self.at(now).saturating_sub(self.back_since.load(Relaxed));
        (back as f64 / over.as_millis().max(1) as f64).clamp(0.1, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> eject::Rule {
        eject::Rule {
            consecutive: 3,
            base: Duration::from_secs(10),
            max_percent: 50,
        }
    }

    #[test]
    fn a_run_of_failures_ejects_and_the_first_failure_after_that_ejects_for_longer() {
        let start = crate::clock::now();
        let standing = Standing::new(start, true);
        assert!(standing.failed(start, &rule()).is_none());
        assert!(standing.failed(start, &rule()).is_none());
        let first = standing.failed(start, &rule()).expect("third in a row");
        standing.eject(start, &first);
        assert!(standing.is_ejected(start));
        assert!(standing.failed(start, &rule()).is_none(), "already out");
        let later = start + Duration::from_secs(11);
        assert!(standing.is_usable(later));
        let second = standing.failed(later, &rule()).expect("still failing");
        assert_eq!(second.length, Duration::from_secs(20));
    }

    #[test]
    fn one_success_ends_a_run_of_failures() {
        let now = crate::clock::now();
        let standing = Standing::new(now, true);
        for _ in 0..10 {
            assert!(standing.failed(now, &rule()).is_none());
            assert!(standing.failed(now, &rule()).is_none());
            standing.succeeded();
        }
    }

    #[test]
    fn a_new_endpoint_gets_its_share_slowly_and_a_first_one_at_once() {
        let now = crate::clock::now();
        let slow = Some(Duration::from_secs(10));
        let new = Standing::new(now, false);
        assert_eq!(new.share(now, slow), 0.1);
        assert_eq!(new.share(now + Duration::from_secs(5), slow), 0.5);
        assert_eq!(new.share(now + Duration::from_secs(50), slow), 1.0);
        assert_eq!(new.share(now, None), 1.0);
        assert_eq!(Standing::new(now, true).share(now, slow), 1.0);
    }
}
