//! What RFC 9111 says to a shared cache, as pure functions of header fields, config and time.
//!
//! Nothing here does I/O, asks the time, keeps state or knows the store. Whatever an origin writes
//! badly is read the safe way (not stored, or stale); whatever a client writes badly is as if it
//! were not there. The dates of messages are [`SystemTime`](std::time::SystemTime); how long a
//! stored answer has lain is measured by [`Instant`](std::time::Instant), so that a clock that
//! jumps ages nothing.
//!
//! The way of a miss: [`storable()`] decides on a final answer, [`fields::strip`] takes off what is
//! never stored, [`Terms::new`] works out once how long it is good for. The way of a hit:
//! [`Vary`] finds the variant, [`reuse()`] says what may be done with it, [`conditional::answer`] and
//! [`range::select`] what of it is sent. Around them: [`conditional::ask`] and
//! [`fields::update`] to validate it, [`invalidate`] for what an unsafe request makes untrue.
//!
//! * `directives`: Cache-Control and Pragma, to the letter
//! * `lexer`, `dictionary`: the two grammars of directives
//! * `targeted`: Weir-Cache-Control and CDN-Cache-Control (RFC 9213)
//! * `date`: the three forms of a date
//! * `storable`: may this answer be kept, and if not, why
//! * `freshness`: how old it is and how long it is good for
//! * `reuse`: what a request may be given of it
//! * `vary`: which requests it is for
//! * `conditional`: 304, to clients and from the origin
//! * `etag`: entity tags and their two comparisons
//! * `range`: parts of a whole
//! * `invalidate`: what is no longer true after an unsafe request
//! * `fields`: which fields are kept, and what a 304 changes

use std::time::Duration;

pub mod conditional;
pub mod date;
mod dictionary;
pub mod directives;
pub mod etag;
pub mod fields;
pub mod freshness;
pub mod invalidate;
mod lexer;
pub mod range;
pub mod reuse;
pub mod storable;
pub mod targeted;
pub mod vary;

pub use directives::{Asked, Scope, Stated};
pub use freshness::{Received, Terms};
pub use reuse::{Reuse, Stale, reuse};
pub use storable::{Keep, Refusal, storable};
pub use vary::{Selected, Vary};

/// What the config says of freshness. The default is RFC 9111 and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Freshness of an answer that states none, if its status may be kept without being told so
    /// (200, 203, 204, 300, 301, 308; not of errors). `None`: a tenth of the time since it was last
    /// modified, at most a day (RFC 9111 4.2.2).
    pub ttl: Option<Duration>,
    /// The same for 404, 405, 410, 414 and 501.
    pub negative_ttl: Option<Duration>,
    /// What the origin states stands. If false, `ttl` overrules it, though never `no-store`,
    /// `private`, `no-cache` or the rule of Authorization.
    pub respect_origin: bool,
    /// Where the origin states none (RFC 5861 3).
    pub stale_while_revalidate: Duration,
    /// Where the origin states none (RFC 5861 4).
    pub stale_if_error: Duration,
    /// How stale an answer may be sent when the origin cannot be reached at all, where
    /// `stale_if_error` is shorter: RFC 9111 4.2.4 lets a disconnected cache do so.
    pub disconnected: Duration,
    /// How stale the ladder's `stale` step may ask for; zero if there is none. Such answers are kept
    /// even if nothing else could be done with them.
    pub stale_step: Duration,
    /// What to do with an answer that sets a cookie.
    pub set_cookie: SetCookie,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            ttl: None,
            negative_ttl: None,
            respect_origin: true,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            disconnected: Duration::from_secs(10),
            stale_step: Duration::ZERO,
            set_cookie: SetCookie::Refuse,
        }
    }
}

/// What to do with an answer that sets a cookie: RFC 9111 7.3 lets it be stored, but one client's
/// cookie is rarely meant for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SetCookie {
    /// Not stored.
    #[default]
    Refuse,
    /// Stored without the cookie.
    Strip,
    /// Stored with it, as the RFC allows.
    Keep,
}

#[cfg(test)]
mod play_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod suite_tests;
#[cfg(test)]
mod tests;
