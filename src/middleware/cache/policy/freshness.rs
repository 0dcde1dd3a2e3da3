//! How old a stored answer is, and how long it is good for (RFC 9111 4.2).
//!
//! Both are worked out once, when the answer comes; from then on only the monotonic clock counts.

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode, header};

use super::directives::{Delta, Source};
use super::{Scope, Settings, Stated, date, directives};

/// No answer is guessed to be fresh for longer.
const LONGEST_GUESS: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// Past the lifetime, when the origin cannot be reached (RFC 9111 4.2.4).
    pub disconnected: Duration,
    /// Past the lifetime, until nothing can be done with it any more; `None`: it can always be
    /// validated.
    pub of_use: Option<Duration>,
}

impl Terms {
    /// Of an answer that is to be stored.
    pub fn new(
        status: StatusCode,
        fields: &HeaderMap,
        stated: &Stated,
        received: Received,
        settings: &Settings,
    ) -> Self {
        let (lifetime, heuristic) = lifetime(status, fields, stated, settings, received.wall);
        let if_error = or(stated.stale_if_error, settings.stale_if_error);
        let while_revalidate = or(
            stated.stale_while_revalidate,
            settings.stale_while_revalidate,
        );
        let disconnected = if_error.max(settings.disconnected);
        let longest = while_revalidate.max(disconnected).max(settings.stale_step);
        let by_itself = match never_stale(stated) {
            true => Duration::ZERO,
            false => longest,
        };
        Terms {
            since: received.came,
            age: initial_age(fields, received),
            lifetime,
            heuristic,
            validate: stated.no_cache == Scope::All,
            never_stale: never_stale(stated),
            immutable: stated.immutable,
            while_revalidate,
            if_error,
            disconnected,
            of_use: (!has_validator(fields)).then_some(by_itself),
        }
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

    /// Whether its lifetime exceeds its age (RFC 9111 4.2).
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.lifetime > self.age_at(now)
    }

    /// Whether nothing can be done with it any more: too stale for whatever may be sent stale without
    /// the client's own word (max-stale), and nothing to validate it by.
    pub fn is_spent(&self, now: Instant) -> bool {
        let too_stale = |most| !self.is_fresh(now) && self.stale_for(now) > most;
        self.of_use.is_some_and(too_stale)
    }

    /// Seconds of freshness left, negative when stale: `ttl` of Cache-Status (RFC 9211 2.4).
    pub fn ttl(&self, now: Instant) -> i64 {
        let secs = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        secs(self.fresh_for(now)) - secs(self.stale_for(now))
    }
}

/// What forbids to serve an answer stale (RFC 9111 4.2.4, 5.2.2.10: s-maxage is proxy-revalidate).
pub(super) fn never_stale(stated: &Stated) -> bool {
    stated.must_revalidate || stated.proxy_revalidate || stated.s_maxage != Delta::Absent
}

/// Whether the origin can be asked if it still stands.
pub(super) fn has_validator(fields: &HeaderMap) -> bool {
    fields.contains_key(header::ETAG) || fields.contains_key(header::LAST_MODIFIED)
}

/// What is stated, else what the config says. What cannot be read is none.
pub(super) fn or(stated: Delta, config: Duration) -> Duration {
    let stated = stated.number();
    stated.map_or(config, |secs| Duration::from_secs(secs.into()))
}

/// How long an answer is fresh from age zero on, and whether that is a guess (RFC 9111 4.2.1,
/// 4.2.2).
pub(super) fn lifetime(
    status: StatusCode,
    fields: &HeaderMap,
    stated: &Stated,
    settings: &Settings,
    wall: SystemTime,
) -> (Duration, bool) {
    let config = configured(status, settings);
    if let (false, Some(ttl)) = (settings.respect_origin, config) {
        return (ttl, false);
    }
    if let Some(explicit) = explicit(fields, stated, wall) {
        return (explicit, false);
    }
    if stated.malformed {
        return (Duration::ZERO, true);
    }
    if let Some(ttl) = config {
        return (ttl, false);
    }
    let may_guess = guessable(status) || stated.public;
    let guess = may_guess.then(|| guess(fields, wall)).flatten();
    (guess.unwrap_or_default(), true)
}

/// What the origin states. The directives of the source that counts, then Expires.
fn explicit(fields: &HeaderMap, stated: &Stated, wall: SystemTime) -> Option<Duration> {
    let secs = stated.s_maxage.number().or(stated.max_age.number());
    if let Some(secs) = secs {
        return Some(Duration::from_secs(secs.into()));
    }
    let expires = fields.get(header::EXPIRES)?;
    if stated.source == Source::Targeted {
        return None;
    }
    let end = date::parse(expires.as_bytes(), wall).unwrap_or(SystemTime::UNIX_EPOCH);
    let start = made(fields, wall);
    Some(end.duration_since(start).unwrap_or_default())
}

/// Whether the origin says for how long the answer is fresh, however badly.
pub(super) fn states_lifetime(fields: &HeaderMap, stated: &Stated) -> bool {
    stated.s_maxage != Delta::Absent
        || stated.max_age != Delta::Absent
        || stated.source == Source::CacheControl && fields.contains_key(header::EXPIRES)
}

/// A tenth of the time since it was last modified.
fn guess(fields: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let modified = fields.get(header::LAST_MODIFIED)?;
    let modified = date::parse(modified.as_bytes(), wall)?;
    let rested = made(fields, wall).duration_since(modified).ok()?;
    Some((rested / 10).min(LONGEST_GUESS))
}

/// When the answer was made: its Date, else when it came.
fn made(fields: &HeaderMap, wall: SystemTime) -> SystemTime {
    let date = fields.get(header::DATE);
    date.and_then(|date| date::parse(date.as_bytes(), wall))
        .unwrap_or(wall)
}

/// The config's word for this status.
fn configured(status: StatusCode, settings: &Settings) -> Option<Duration> {
    match status.as_u16() {
        200 | 203 | 204 | 300 | 301 | 308 => settings.ttl,
        404 | 405 | 410 | 414 | 501 => settings.negative_ttl,
        _ => None,
    }
}

/// Statuses that may be stored without being told so (RFC 9110 15.1). Parts (206) are not among
/// them here: nobody guesses about a part.
pub(super) fn guessable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// RFC 9111 4.2.3, to the letter.
fn initial_age(fields: &HeaderMap, received: Received) -> Duration {
    let apparent = received.wall.duration_since(made(fields, received.wall));
    let delay = received.came.saturating_duration_since(received.asked);
    let corrected = age_value(fields) + delay;
    apparent.unwrap_or_default().max(corrected)
}

/// Of a list the first member; what is no number is not there (RFC 9111 5.1).
fn age_value(fields: &HeaderMap) -> Duration {
    let line = fields
        .get(header::AGE)
        .map_or(&b""[..], |line| line.as_bytes());
    let first = line.split(|&byte| byte == b',').next().unwrap_or_default();
    let secs = directives::seconds(first.trim_ascii());
    Duration::from_secs(secs.unwrap_or_default().into())
}
