//! What a request may be given of a stored answer (RFC 9111 4).
//!
//! The answer's own word comes first (no-cache, must-revalidate and their kin), then the client's,
//! then what is allowed past freshness (RFC 5861). Key, method and Vary were matched before.

use std::time::{Duration, Instant};

use super::{Asked, Terms};

/// What may be done with a stored answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Send it.
    Fresh,
    /// Send it, though it is stale.
    Stale(Stale),
    /// Ask the origin first.
    Validate(Cause),
}

/// Why a stale answer may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// While it is validated behind the client's back (RFC 5861 3).
    WhileRevalidate,
    /// The client asked for it (max-stale).
    Accepted,
}

/// Why the origin has to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is stale: `fwd=stale`.
    Stale,
    /// It says no-cache: `fwd=stale`.
    NoCache,
    /// It is fresh, but the client wants another (no-cache, max-age, min-fresh): `fwd=request`.
    Request,
}

/// What may be done with a stored answer that matches the request (method, key, Vary). With
/// `asked.only_if_cached` a [`Reuse::Validate`] becomes a 504, as does a miss.
pub fn reuse(terms: &Terms, asked: &Asked, now: Instant) -> Reuse {
    if terms.validate {
        return Reuse::Validate(Cause::NoCache);
    }
    if terms.is_fresh(now) {
        return match unwanted(terms, asked, now) {
            true => Reuse::Validate(Cause::Request),
            false => Reuse::Fresh,
        };
    }
    let stale_for = terms.stale_for(now);
    if terms.never_stale || asked.no_cache || asked.min_fresh.is_some_and(|min| min > 0) {
        Reuse::Validate(Cause::Stale)
    } else if let Some(max) = asked.max_stale {
        accepted(terms, asked, accepts(max, stale_for), now)
    } else if asked.max_age.is_none() && reaches(terms.while_revalidate, stale_for) {
        Reuse::Stale(Stale::WhileRevalidate)
    } else {
        Reuse::Validate(Cause::Stale)
    }
}

/// What max-stale makes of a stale answer. A client that names a max-age without max-stale takes
/// none (RFC 9111 5.2.1.1), not even while it is validated.
fn accepted(terms: &Terms, asked: &Asked, accepts: bool, now: Instant) -> Reuse {
    let too_old = asked.max_age.is_some_and(|max| too_old(terms, max, now));
    if !too_old && reaches(terms.while_revalidate, terms.stale_for(now)) {
        Reuse::Stale(Stale::WhileRevalidate)
    } else if !too_old && accepts {
        Reuse::Stale(Stale::Accepted)
    } else {
        Reuse::Validate(Cause::Stale)
    }
}

/// Whether the client wants another answer than this fresh one (RFC 9111 5.2.1). One that is
/// immutable is only validated for no-cache, which is more than a reload's max-age=0 (RFC 8246 2).
fn unwanted(terms: &Terms, asked: &Asked, now: Instant) -> bool {
    let old = asked.max_age.is_some_and(|max| too_old(terms, max, now));
    let short = asked
        .min_fresh
        .is_some_and(|min| terms.fresh_for(now) < secs(min));
    asked.no_cache || old && !terms.immutable || short
}

/// An answer of this very second is too old for a client that says 0.
fn too_old(terms: &Terms, max: u32, now: Instant) -> bool {
    max == 0 || terms.age_secs(now) > u64::from(max)
}

/// Whether it may be sent because the origin answered 500, 502, 503 or 504, or not at all
/// (RFC 5861 4).
pub fn after_failure(terms: &Terms, asked: &Asked, now: Instant) -> bool {
    let window = terms
        .if_error
        .max(asked.stale_if_error.map_or(Duration::ZERO, secs));
    stands_in(terms, window, now)
}

/// Whether it may be sent because the origin could not be reached, or fell silent: the cache is
/// disconnected (RFC 9111 4.2.4), which is more than [`after_failure`].
pub fn disconnected(terms: &Terms, asked: &Asked, now: Instant) -> bool {
    after_failure(terms, asked, now) || stands_in(terms, terms.disconnected, now)
}

/// Whether it may be sent as a lesser answer, stale by no more than `limit`: never against
/// no-cache, must-revalidate, proxy-revalidate and s-maxage.
pub fn within(terms: &Terms, limit: Duration, now: Instant) -> bool {
    !terms.validate && terms.is_fresh(now) || stands_in(terms, limit, now)
}

/// What forbids stale answers does not forbid one that is fresh yet, and only was not wanted.
fn stands_in(terms: &Terms, window: Duration, now: Instant) -> bool {
    let forbidden = terms.validate || terms.never_stale && !terms.is_fresh(now);
    !forbidden && reaches(window, terms.stale_for(now))
}

fn reaches(window: Duration, stale_for: Duration) -> bool {
    !window.is_zero() && stale_for <= window
}

fn accepts(max: u32, stale_for: Duration) -> bool {
    max == u32::MAX || stale_for <= secs(max)
}

fn secs(secs: u32) -> Duration {
    Duration::from_secs(secs.into())
}
