//! What a request may be given of a stored answer (RFC 9111 4).
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
    /// The client wants it (no-cache, max-age, min-fresh): `fwd=request`.
    Request,
}

/// What may be done with a stored answer that matches the request (method, key, Vary). With
/// `asked.only_if_cached` a [`Reuse::Validate`] becomes a 504, as does a miss.
pub fn reuse(_terms: &Terms, _asked: &Asked, _now: Instant) -> Reuse {
    unimplemented!()
}

/// Whether it may be sent because the origin failed: no answer, or 500, 502, 503, 504
/// (RFC 5861 4, RFC 9111 4.2.4).
pub fn after_failure(_terms: &Terms, _asked: &Asked, _now: Instant) -> bool {
    unimplemented!()
}

/// Whether it may be sent as a lesser answer, stale by no more than `limit`: never against
/// no-cache, must-revalidate, proxy-revalidate and s-maxage.
pub fn within(_terms: &Terms, _limit: Duration, _now: Instant) -> bool {
    unimplemented!()
}
