//! The response cache: what can be answered without the origin is, as RFC 9111 says to a shared cache.
//!
//! Stands above compression, so that an answer is kept as it is sent and never encoded twice, and
//! below everything that refuses. What is stored is shared by all routes and workers and bounded by
//! `[cache] memory`; what may be stored, and what a stored answer is good for, is decided by pure
//! functions (`policy`). An answer is whole or it is not stored.
//!
//! ```toml
//! cache = {}                             # RFC 9111, nothing else
//! cache = { ttl = "10m", stale_while_revalidate = "1m", stale_if_error = "1d" }
//! ```
//!
//! * `policy`: RFC 9111 as functions of header fields, config and time
//! * `key`: what tells answers apart; `tags`, `stamps`: what purges them
//! * `entry`: a stored answer; `store`: all of them; `shy`: keys that are not worth waiting for
//! * `flight`: one fetch for each missing answer; `broadcast`: a body that many read as it comes, `budget`: their memory
//! * `fill`: a fetch, and what becomes of its answer
//! * `service`: the way of a request; `answer`, `status`: what a client gets
//! * `purge`: what an operator wants gone; `explain`: what would become of a request

pub mod answer;
pub mod broadcast;
pub mod budget;
pub mod entry;
mod explain;
pub mod fill;
pub mod flight;
pub mod key;
pub mod policy;
pub mod purge;
pub mod service;
pub mod shy;
pub mod stamps;
pub mod status;
pub mod store;
pub mod tags;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::{Located, Problem, Problems};
use crate::units::{Size, Time};
use key::{KeyPlan, QueryConfig};
use policy::{SetCookie, Settings};
pub use service::{CacheLayer, Desk, Shelved};
pub use store::Store;

/// The largest `max_object`.
const LARGEST: u64 = 1 << 30;

/// What is stored of a route's answers, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Freshness of an answer that states none. Default: a tenth of the time since it was last
    /// modified, at most a day (RFC 9111 4.2.2).
    pub ttl: Option<Located<Time>>,
    /// The same for 404, 405, 410, 414 and 501. Default: as `ttl` is by default.
    pub negative_ttl: Option<Located<Time>>,
    /// What the origin states stands. With false, `ttl` overrules it, though never `no-store`,
    /// `private` or `no-cache`. Default true.
    pub respect_origin: Located<bool>,
    /// A larger body is passed on and not stored. Default `"8MiB"`.
    pub max_object: Located<Size>,
    /// How long past its freshness an answer may be given while a new one is fetched behind it,
    /// where the origin states nothing (RFC 5861). Default: not.
    pub stale_while_revalidate: Option<Time>,
    /// How long past its freshness an answer may be given when the origin fails, where the origin
    /// states nothing (RFC 5861). Default: not.
    pub stale_if_error: Option<Time>,
    /// After a failure, an origin is not asked again for this long where a stale answer may be
    /// given; doubled with each further failure, up to eight times. Default `"1s"`.
    pub error_cool_down: Located<Time>,
    /// What tells answers apart, beside scheme and route: `"host"`, `"path"`, `"query"`,
    /// `"header:NAME"`, `"cookie:NAME"`, `"query:NAME"`. Default host, path and query. What Vary
    /// names counts too.
    pub key: Option<Located<Vec<Located<String>>>>,
    /// What of the query counts. Default: all of it, in its order. The origin is sent the query as
    /// it counts.
    pub query: Option<QueryConfig>,
    /// An answer that sets a cookie: `"refuse"` does not store it (the default), `"strip"` stores it
    /// without the cookie, `"keep"` with it.
    pub set_cookie: Cookies,
    /// How long a request waits for the head of an answer that another one has asked for, before it
    /// goes by itself. Default `"5s"`.
    pub lock_timeout: Located<Time>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        CacheConfig {
            ttl: None,
            negative_ttl: None,
            respect_origin: Located::unstated(true),
            max_object: Located::unstated(Size(8 << 20)),
            stale_while_revalidate: None,
            stale_if_error: None,
            error_cool_down: Located::unstated(Time::secs(1)),
            key: None,
            query: None,
            set_cookie: Cookies::Refuse,
            lock_timeout: Located::unstated(Time::secs(5)),
        }
    }
}

/// What becomes of an answer that sets a cookie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cookies {
    /// It is not stored.
    #[default]
    Refuse,
    /// It is stored without the cookie.
    Strip,
    /// It is stored with the cookie, for everyone.
    Keep,
}

/// The memory of all that is stored. A change empties the cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// Bodies and fields, weighed in bytes, at least `"1MiB"`. Default `"512MiB"`.
    pub memory: Located<Size>,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig {
            memory: Located::unstated(Size(512 << 20)),
        }
    }
}

/// A route's cache, compiled. Shared by the workers, and the same as long as its section is.
#[derive(Debug, PartialEq)]
pub struct CachePlan {
    /// What tells answers apart.
    pub key: KeyPlan,
    /// What the config says of freshness.
    pub settings: Settings,
    /// The largest body that is stored.
    pub max_object: u64,
    /// How long a failing origin is left alone.
    pub cool_down: Duration,
    /// How long a request waits for another one's answer.
    pub lock_timeout: Duration,
}

impl CacheConfig {
    /// Compiles it, for the route of this name, whose ladder takes answers that are stale by
    /// `stale_step`. Pushes every problem.
    pub fn compile(
        &self,
        route: &str,
        stale_step: Duration,
        problems: &mut Problems,
    ) -> Option<CachePlan> {
        let before = problems.len();
        let key = KeyPlan::compile(route, self.key.as_ref(), self.query.as_ref(), problems);
        let largest = &self.max_object;
        if !(1..=LARGEST).contains(&largest.value.0) {
            let problem = Problem::at(&largest.span, "max_object is out of range");
            problems.push(problem.help("\"1B\" to \"1GiB\""));
        }
        if !self.respect_origin.value && self.ttl.is_none() {
            let message = "respect_origin = false without ttl: nothing says how long";
            problems.push(Problem::at(&self.respect_origin.span, message).help("give a ttl"));
        }
        for (name, time) in [
            ("error_cool_down", &self.error_cool_down),
            ("lock_timeout", &self.lock_timeout),
        ] {
            if time.value.0.is_zero() {
                problems.push(Problem::at(&time.span, format!("{name} must be above 0")));
            }
        }
        let time = |time: &Option<Time>| time.map_or(Duration::ZERO, |time| time.0);
        let plan = CachePlan {
            key: key?,
            settings: Settings {
                ttl: self.ttl.as_ref().map(|ttl| ttl.value.0),
                negative_ttl: self.negative_ttl.as_ref().map(|ttl| ttl.value.0),
                respect_origin: self.respect_origin.value,
                stale_while_revalidate: time(&self.stale_while_revalidate),
                stale_if_error: time(&self.stale_if_error),
                set_cookie: match self.set_cookie {
                    Cookies::Refuse => SetCookie::Refuse,
                    Cookies::Strip => SetCookie::Strip,
                    Cookies::Keep => SetCookie::Keep,
                },
                stale_step,
                ..Settings::default()
            },
            max_object: largest.value.0,
            cool_down: self.error_cool_down.value.0,
            lock_timeout: self.lock_timeout.value.0,
        };
        (problems.len() == before).then_some(plan)
    }
}

/// A route's cache and where it stores.
#[derive(Clone)]
pub struct RouteCache {
    /// What applies.
    pub plan: Arc<CachePlan>,
    /// Where it stores.
    pub store: Arc<Store>,
}
