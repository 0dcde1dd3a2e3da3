//! May this answer be stored (RFC 9111 3)?
//!
//! All of the RFC's conditions in its order, then those of good sense. What refuses is named, for
//! explain and the metrics.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode, header};

use super::directives::Delta;
use super::freshness::{self, guessable, states_lifetime};
use super::invalidate::{self, Target};
use super::range::ContentRange;
use super::{Asked, Scope, SetCookie, Settings, Stated, Vary};

/// A request and its final answer, as far as storing is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged<'a> {
    /// As the client asked.
    pub method: &'a Method,
    /// Of the request.
    pub asked: &'a HeaderMap,
    /// Of the answer.
    pub status: StatusCode,
    /// Of the answer.
    pub fields: &'a HeaderMap,
    /// What they state.
    pub stated: &'a Stated,
}

/// What is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The answer.
    Whole,
    /// A part, which is never to be used as the whole (RFC 9111 3.3): whoever cannot combine parts
    /// stores none.
    Part(ContentRange),
}

/// Why an answer is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Only GET fills the cache.
    Method,
    /// The request says no-store.
    RequestNoStore,
    /// The answer says no-store.
    NoStore,
    /// The answer says private.
    Private,
    /// The request was authorized, and the answer does not say that it is for others too.
    Authorization,
    /// The status is not final, or says must-understand and is not known, or is about the request
    /// and not about the resource (304, 412, 416).
    Status,
    /// No freshness is stated, and none may be guessed.
    NoFreshness,
    /// A part without a good Content-Range, or one that was not asked for.
    Partial,
    /// Vary: *, or one that cannot be read.
    Vary,
    /// It sets a cookie.
    SetCookie,
    /// It could never be used: stale or no-cache from the start, and nothing to validate it by.
    Useless,
    /// Its Cache-Control ends inside a quoted string: what else it says is not known.
    Malformed,
}

impl Refusal {
    /// All there are.
    pub const ALL: [Refusal; 12] = [
        Refusal::Method,
        Refusal::RequestNoStore,
        Refusal::NoStore,
        Refusal::Private,
        Refusal::Authorization,
        Refusal::Status,
        Refusal::NoFreshness,
        Refusal::Partial,
        Refusal::Vary,
        Refusal::SetCookie,
        Refusal::Useless,
        Refusal::Malformed,
    ];

    /// One word, for metrics, logs and explain.
    pub fn word(self) -> &'static str {
        match self {
            Refusal::Method => "method",
            Refusal::RequestNoStore => "request_no_store",
            Refusal::NoStore => "no_store",
            Refusal::Private => "private",
            Refusal::Authorization => "authorization",
            Refusal::Status => "status",
            Refusal::NoFreshness => "no_freshness",
            Refusal::Partial => "partial",
            Refusal::Vary => "vary",
            Refusal::SetCookie => "set_cookie",
            Refusal::Useless => "useless",
            Refusal::Malformed => "malformed",
        }
    }
}

/// Whether an answer may be stored. That it arrived complete is the filler's business.
pub fn storable(exchanged: &Exchanged<'_>, settings: &Settings) -> Result<Keep, Refusal> {
    check(exchanged.method == Method::GET, Refusal::Method)?;
    whoever_asked(exchanged, settings)
}

/// Whether an answer to POST may be stored for later GETs: it says for how long it is fresh, and
/// that it is what is at `target` (RFC 9110 9.3.3).
pub fn storable_post(
    exchanged: &Exchanged<'_>,
    target: Target<'_>,
    settings: &Settings,
) -> Result<Keep, Refusal> {
    let Exchanged { fields, stated, .. } = exchanged;
    let good = exchanged.method == Method::POST
        && exchanged.status == StatusCode::OK
        && invalidate::is_target(target, fields.get(header::CONTENT_LOCATION));
    check(good, Refusal::Method)?;
    check(states_lifetime(fields, stated), Refusal::NoFreshness)?;
    whoever_asked(exchanged, settings)
}

fn whoever_asked(exchanged: &Exchanged<'_>, settings: &Settings) -> Result<Keep, Refusal> {
    let Exchanged { fields, stated, .. } = exchanged;
    let keep = whole_or_part(exchanged)?;
    permitted(exchanged)?;
    check(Vary::read(fields) != Vary::Never, Refusal::Vary)?;
    let keeps_cookies = settings.set_cookie != SetCookie::Refuse;
    check(
        keeps_cookies || !sets_cookie(fields, stated),
        Refusal::SetCookie,
    )?;
    check(useful(exchanged, settings), Refusal::Useless)?;
    Ok(keep)
}

fn check(holds: bool, refusal: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

fn whole_or_part(exchanged: &Exchanged<'_>) -> Result<Keep, Refusal> {
    match exchanged.status.as_u16() {
        ..200 | 304 | 412 | 416 => Err(Refusal::Status),
        206 if exchanged.asked.contains_key(header::RANGE) => {
            let range = ContentRange::read(exchanged.fields);
            range.map(Keep::Part).ok_or(Refusal::Partial)
        }
        206 => Err(Refusal::Partial),
        _ => Ok(Keep::Whole),
    }
}

/// The conditions of RFC 9111 3 and 3.5.
fn permitted(exchanged: &Exchanged<'_>) -> Result<(), Refusal> {
    let Exchanged { fields, stated, .. } = exchanged;
    let known = understood(exchanged.status);
    let instead = stated.must_understand && !stated.malformed;
    let authorized = exchanged.asked.contains_key(header::AUTHORIZATION);
    let reusable = guessable(exchanged.status) || stated.public || states_lifetime(fields, stated);
    check(
        !Asked::read(exchanged.asked).no_store,
        Refusal::RequestNoStore,
    )?;
    check(!stated.cut, Refusal::Malformed)?;
    check(known || !stated.must_understand, Refusal::Status)?;
    check(!stated.no_store || instead, Refusal::NoStore)?;
    check(stated.private != Scope::All, Refusal::Private)?;
    check(!authorized || for_others(stated), Refusal::Authorization)?;
    check(reusable, Refusal::NoFreshness)
}

/// Whether the answer to an authorized request is for others too (RFC 9111 3.5).
fn for_others(stated: &Stated) -> bool {
    let said = matches!(stated.s_maxage, Delta::Seconds(_));
    !stated.malformed && (stated.public || stated.must_revalidate || said)
}

/// Statuses whose rules of caching are kept here (RFC 9111 5.2.2.3).
fn understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206 | 300..=303 | 307 | 308 | 400..=411 | 413..=415 | 417 | 421 | 422 | 426 | 428
            | 429 | 431 | 451 | 500..=505 | 511
    )
}

/// A cookie in a field that is not stored anyway does not count.
fn sets_cookie(fields: &HeaderMap, stated: &Stated) -> bool {
    let named = |scope: &Scope| scope.fields().contains(&header::SET_COOKIE);
    fields.contains_key(header::SET_COOKIE) && !named(&stated.private) && !named(&stated.no_cache)
}

/// Whether there is any way in which it could be sent later.
fn useful(exchanged: &Exchanged<'_>, settings: &Settings) -> bool {
    let Exchanged { fields, stated, .. } = exchanged;
    if freshness::has_validator(fields) {
        return true;
    }
    if stated.no_cache == Scope::All {
        return false;
    }
    let fresh = || {
        let (lifetime, _) =
            freshness::lifetime(exchanged.status, fields, stated, settings, long_ago());
        !lifetime.is_zero()
    };
    let stale = || {
        let stale_while = freshness::or(
            stated.stale_while_revalidate,
            settings.stale_while_revalidate,
        );
        let stale_if = freshness::or(stated.stale_if_error, settings.stale_if_error);
        let longest = stale_while.max(stale_if).max(settings.stale_step);
        !freshness::never_stale(stated) && !longest.is_zero()
    };
    fresh() || stale()
}

/// Before any answer came: an Expires that is earlier has passed, without asking what time it is.
fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}
