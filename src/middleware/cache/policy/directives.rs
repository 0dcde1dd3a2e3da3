//! Cache-Control and Pragma, read to the letter (RFC 9111 5.2).
use http::HeaderMap;
use http::header::HeaderName;

/// Seconds as a directive states them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delta {
    /// The directive is not there.
    #[default]
    Absent,
    /// It is, without a number that can be read: to be taken as the strictest (RFC 9111 4.2.1).
    Invalid,
    /// At most 2^31 (RFC 9111 1.2.2).
    Seconds(u32),
}

/// What `no-cache` and `private` are about.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Scope {
    /// Not stated.
    #[default]
    Nothing,
    /// The fields named, no more.
    Fields(Vec<HeaderName>),
    /// The answer.
    All,
}

/// Whose word it is that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Source {
    /// `Cache-Control` (and `Expires`), or nothing.
    #[default]
    CacheControl,
    /// A targeted field: `Cache-Control` and `Expires` do not count (RFC 9213 2.2).
    Targeted,
}

/// What an answer states (RFC 9111 5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Stated {
    /// Whose word it is.
    pub source: Source,
    /// Not to be stored.
    pub no_store: bool,
    /// Not to be used before it was validated.
    pub no_cache: Scope,
    /// Not for a shared cache.
    pub private: Scope,
    /// For everyone.
    pub public: bool,
    /// Never stale without validation.
    pub must_revalidate: bool,
    /// The same, for shared caches.
    pub proxy_revalidate: bool,
    /// Only for caches that know the status.
    pub must_understand: bool,
    /// Not to be transformed.
    pub no_transform: bool,
    /// Does not change while fresh.
    pub immutable: bool,
    /// Freshness for all.
    pub max_age: Delta,
    /// Freshness for shared caches.
    pub s_maxage: Delta,
    /// May be served so long past freshness while it is validated.
    pub stale_while_revalidate: Delta,
    /// May be served so long past freshness when the origin fails.
    pub stale_if_error: Delta,
    /// Some of it could not be read: what permits does not count then.
    pub malformed: bool,
}

impl Stated {
    /// Of an answer's fields: the first targeted field that is valid and not empty, else
    /// Cache-Control.
    pub fn read(_fields: &HeaderMap) -> Self {
        unimplemented!()
    }
}

/// What a client asks (RFC 9111 5.2.1). What cannot be read is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Asked {
    /// Neither store the answer nor the request.
    pub no_store: bool,
    /// Only after validation (also by Pragma, where there is no Cache-Control).
    pub no_cache: bool,
    /// Only a stored answer, else 504.
    pub only_if_cached: bool,
    /// No older, seconds.
    pub max_age: Option<u32>,
    /// Fresh for so long yet, seconds.
    pub min_fresh: Option<u32>,
    /// Stale is welcome, by so many seconds: `u32::MAX` is any.
    pub max_stale: Option<u32>,
    /// Stale is welcome after a failure, by so many seconds (RFC 5861 4).
    pub stale_if_error: Option<u32>,
}

impl Asked {
    /// Of a request's fields. Costs two look-ups where there is nothing.
    pub fn read(_fields: &HeaderMap) -> Self {
        unimplemented!()
    }
}
