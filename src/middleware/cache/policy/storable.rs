//! May this answer be stored (RFC 9111 3)?
use http::{HeaderMap, Method, StatusCode};

use super::range::ContentRange;
use super::{Settings, Stated};

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
    /// The status is not final, or says must-understand and is not known, or is a 304.
    Status,
    /// No freshness is stated, and none may be guessed.
    NoFreshness,
    /// No part of a whole, or one that does not fit its status.
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
    /// One word, for metrics, logs and explain.
    pub fn word(self) -> &'static str {
        unimplemented!()
    }
}

/// Whether an answer may be stored. That it arrived complete is the filler's business.
pub fn storable(_exchanged: &Exchanged<'_>, _settings: &Settings) -> Result<Keep, Refusal> {
    unimplemented!()
}
