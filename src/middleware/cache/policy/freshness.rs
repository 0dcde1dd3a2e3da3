//! How old a stored answer is, and how long it is good for (RFC 9111 4.2).
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode};

use super::{Settings, Stated};

/// When an answer was asked for and came.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// The request went out.
    pub asked: Instant,
    /// The head of the answer was here.
    pub came: Instant,
    /// The same by the calendar.
    pub wall: SystemTime,
}

/// What a stored answer is good for, worked out when it is stored and again after each 304. A hit
/// does arithmetic and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When `age` was so.
    pub since: Instant,
    /// At `since` (RFC 9111 4.2.3: the corrected initial age).
    pub age: Duration,
    /// From age zero on.
    pub lifetime: Duration,
    /// Nobody stated the lifetime.
    pub heuristic: bool,
    /// Not to be used before it was validated (`no-cache`).
    pub validate: bool,
    /// Never stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub never_stale: bool,
    /// Does not change while fresh (RFC 8246).
    pub immutable: bool,
    /// Past the lifetime, while it is validated.
    pub while_revalidate: Duration,
    /// Past the lifetime, when the origin fails.
    pub if_error: Duration,
}

impl Terms {
    /// Of an answer that is to be stored.
    pub fn new(
        _status: StatusCode,
        _fields: &HeaderMap,
        _stated: &Stated,
        _received: Received,
        _settings: &Settings,
    ) -> Self {
        unimplemented!()
    }

    /// How old it is now (RFC 9111 4.2.3).
    pub fn age_at(&self, now: Instant) -> Duration {
        self.age
            .saturating_add(now.saturating_duration_since(self.since))
    }

    /// Whole seconds, for the Age field.
    pub fn age_secs(&self, now: Instant) -> u64 {
        self.age_at(now).as_secs()
    }

    /// How long it is fresh yet; zero when it is stale.
    pub fn fresh_for(&self, now: Instant) -> Duration {
        self.lifetime.saturating_sub(self.age_at(now))
    }

    /// How long it has been stale; zero while it is fresh.
    pub fn stale_for(&self, now: Instant) -> Duration {
        self.age_at(now).saturating_sub(self.lifetime)
    }

    /// Seconds of freshness left, negative when stale: `ttl` of Cache-Status (RFC 9211 2.4).
    pub fn ttl(&self, _now: Instant) -> i64 {
        unimplemented!()
    }
}
