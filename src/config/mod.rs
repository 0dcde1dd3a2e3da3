//! The file as written: what an operator may say, section by section.
//!
//! A section that belongs to a room (`middleware/*`, `upstream`) has its type there; listeners,
//! routes, admin and log have theirs here, because their users stand above. Every key has a
//! reader; an unknown key is an error. The field docs are the manual: `weir schema` prints them.
//!
//! * `load`: files to a [`Config`], by way of `read` (bytes to text), `syntax` (text to a tree,
//!   `twice` for what stands there twice), `merge` (includes), `expand` (environment) and `decode`
//!   (tree to sections, `path` to find a place in it, `words` to say what is wrong)
//! * `log`: the sections of diagnostics and the access log
//! * `check`: rules that span sections
//! * `diff`: what a reload changes

pub mod check;
mod decode;
pub mod describe;
pub mod diff;
mod expand;
pub mod load;
pub mod log;
mod merge;
mod path;
mod read;
mod syntax;
mod twice;
mod words;
mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::log::{AccessConfig, LogConfig, LogFormat, LogLevel};
use crate::files::{FileRef, Files};
use crate::gate::config::RouteConcurrency;
use crate::message::fixed::FixedConfig;
use crate::middleware::cache::{CacheConfig, MemoryConfig};
use crate::middleware::compress::CompressConfig;
use crate::middleware::fallback::FallbackConfig;
use crate::middleware::headers::HeadersConfig;
use crate::middleware::rate_limit::{LimitsConfig as RateLimitsConfig, RateLimitHeaders};
use crate::middleware::redirect::RedirectConfig;
use crate::middleware::rewrite::RewriteConfig;
use crate::pressure::config::{Priority, ShedConfig};
use crate::problem::{Located, Sources};
use crate::switch::Switch;
use crate::units::{Size, Time};
use crate::upstream::config::UpstreamConfig;

/// A config that was read, with all that `plan/compile` needs: it does no I/O.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The sections.
    pub config: Config,
    /// The content of every file they name.
    pub files: Files,
    /// The folder of the config file: relative paths start from it.
    pub dir: PathBuf,
    /// The files the sections stand in, for problems and `explain`.
    pub sources: Sources,
    /// The hash of all of it: equal hashes mean nothing changed.
    pub hash: u64,
}

impl Loaded {
    /// The config as people are shown it: what the environment filled in as the file says it.
    pub fn shown(&self) -> serde_json::Value {
        let mut config = serde_json::to_value(&self.config).unwrap_or_default();
        self.sources.filled.show_in(&mut config);
        config
    }
}

/// The whole config.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Weir configuration")]
pub struct Config {
    /// Further files, as glob patterns relative to this file: their sections are added.
    pub include: Vec<Located<String>>,
    /// The process.
    pub server: ServerConfig,
    /// The operator's address.
    pub admin: AdminConfig,
    /// Diagnostics and the access log.
    pub log: LogConfig,
    /// What routes inherit.
    pub defaults: DefaultsConfig,
    /// Where clients connect, by name.
    pub listeners: BTreeMap<Located<String>, ListenerConfig>,
    /// Where requests go, by name.
    pub upstreams: BTreeMap<Located<String>, UpstreamConfig>,
    /// The memory of the response cache.
    pub cache: MemoryConfig,
    /// What matches, and what applies.
    pub routes: Vec<RouteConfig>,
}

/// The JSON Schema of the config, for editors and for `weir schema`.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

impl Config {
    /// Every file that a section names.
    pub fn files(&self) -> Vec<&FileRef> {
        let listeners = self.listeners.values().filter_map(|l| l.tls.as_ref());
        let upstreams = self.upstreams.values().filter_map(|u| u.tls.as_ref());
        let routes = self.routes.iter();
        let headers = routes.clone().filter_map(|r| r.headers.as_ref());
        let headers = headers.chain(self.defaults.headers.as_ref());
        listeners
            .flat_map(ListenerTlsConfig::files)
            .chain(upstreams.flat_map(|u| u.files()))
            .chain(headers.flat_map(HeadersConfig::files))
            .chain(
                routes
                    .clone()
                    .filter_map(|r| r.respond.as_ref())
                    .flat_map(FixedConfig::files),
            )
            .chain(
                routes
                    .flat_map(RouteConfig::steps)
                    .flat_map(FallbackConfig::file),
            )
            .collect()
    }
}

/// The process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Threads: `"auto"` (the CPUs that affinity and the cgroup grant) or a number from 1 to 256,
    /// as a number or a string. A change needs a restart.
    pub workers: Located<Workers>,
    /// Client connections over all listeners; beyond it, accepting pauses. Default 50000.
    pub max_connections: Located<u32>,
    /// Peers whose X-Forwarded-*, Forwarded and PROXY headers are believed. Default: none.
    pub trusted_proxies: Vec<Located<String>>,
    /// Our name in Via, Proxy-Status and Server. Default `"weir"`.
    pub identity: Located<String>,
    /// How clients are told what is left of their limits. Default `"draft"`.
    pub rate_limit_headers: RateLimitHeaders,
    /// Our zone: among endpoints of one priority, those of this zone are used first.
    pub zone: Option<String>,
    /// Shedding while the process is short of something. On by default; `shed = false` turns it
    /// off.
    pub shed: Switch<ShedConfig>,
    /// How the process ends.
    pub drain: DrainConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            workers: Located::unstated(Workers::Auto),
            max_connections: Located::unstated(50_000),
            trusted_proxies: Vec::new(),
            identity: Located::unstated("weir".to_owned()),
            rate_limit_headers: RateLimitHeaders::default(),
            zone: None,
            shed: Switch::default(),
            drain: DrainConfig::default(),
        }
    }
}

/// A number of threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Workers {
    /// As many as there are CPUs for us.
    #[default]
    Auto,
    /// This many.
    Count(u16),
}

/// SIGTERM: unready at once, `delay`, then close, then give up after `timeout`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// How long to go on accepting while load balancers learn. Default `"5s"`.
    pub delay: Time,
    /// How long requests may then take to finish. Default `"30s"`.
    pub timeout: Time,
}

impl Default for DrainConfig {
    fn default() -> Self {
        DrainConfig {
            delay: Time::secs(5),
            timeout: Time::secs(30),
        }
    }
}

/// The operator's addresses. A change needs a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Everything: metrics, health, status, reload. Default `"127.0.0.1:9901"`.
    pub address: Located<String>,
    /// /metrics, /healthz and /readyz alone, for the pod network. Default: none.
    pub scrape_address: Option<Located<String>>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        let address = Located::unstated("127.0.0.1:9901".to_owned());
        AdminConfig {
            address,
            scrape_address: None,
        }
    }
}

/// What every route inherits that does not set the same key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultsConfig {
    /// As on a route.
    pub timeout: Option<Located<Time>>,
    /// As on a route.
    pub max_body: Option<Size>,
    /// As on a route.
    pub headers: Option<HeadersConfig>,
    /// As on a route.
    pub priority: Option<Located<Priority>>,
    /// As on a route. Each route counts for itself.
    pub concurrency: Option<RouteConcurrency>,
    /// As on a route.
    pub compress: Option<Located<Switch<CompressConfig>>>,
    /// As on a route.
    pub cache: Option<Located<Switch<CacheConfig>>>,
}

/// An address where clients connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// `ip:port`. Port 0 takes any free one.
    pub address: Located<String>,
    /// What is spoken. With TLS chosen by ALPN; without, `"h2"` is prior knowledge.
    /// Default both with TLS, `["http1"]` without.
    #[serde(default)]
    pub protocols: Option<Located<Vec<ListenerProtocol>>>,
    /// A PROXY header (v1 or v2) must come first, and only from `trusted_proxies`. Default false.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Client connections of this listener; beyond it, accepting pauses. Default: no own cap.
    #[serde(default)]
    pub max_connections: Option<Located<u32>>,
    /// TLS; cleartext if absent.
    #[serde(default)]
    pub tls: Option<ListenerTlsConfig>,
    /// What one client may take.
    #[serde(default)]
    pub limits: LimitsConfig,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/1.0.
    Http1,
    /// HTTP/2.
    H2,
}

/// Certificates by SNI, read again when the files change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTlsConfig {
    /// At least one; the first serves clients that name no host or an unknown one.
    pub certificates: Located<Vec<CertificateConfig>>,
    /// Client certificates.
    #[serde(default)]
    pub client_auth: Option<ClientAuthConfig>,
}

impl ListenerTlsConfig {
    /// The files this section names.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        let certificates = self.certificates.iter().flat_map(|c| [&c.cert, &c.key]);
        certificates.chain(self.client_auth.as_ref().map(|c| &c.ca))
    }
}

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// The chain, leaf first.
    pub cert: FileRef,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: FileRef,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuthConfig {
    /// PEM file with the roots that client certificates are checked against.
    pub ca: FileRef,
    /// Default `"required"`.
    #[serde(default)]
    pub mode: ClientAuthMode,
}

/// Whether a client without a certificate is let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthMode {
    /// No.
    #[default]
    Required,
    /// Yes; a certificate that is shown must still be good.
    Optional,
}

/// What one client may take of us.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Header fields of one request. Default 100.
    pub headers: Located<u16>,
    /// Bytes of a request head: target, names and values. Default `"32KiB"`, `"1KiB"` to `"1MiB"`.
    pub header_bytes: Located<Size>,
    /// First byte to the end of the request head; TLS handshake and PROXY header too. `"10s"`.
    pub header_timeout: Located<Time>,
    /// A connection without a request in progress is closed after this. Default `"60s"`.
    pub idle_timeout: Located<Time>,
    /// Between two pieces of a request body. Default `"30s"`.
    pub body_idle_timeout: Located<Time>,
    /// A client that takes nothing of its answer for this long is cut. Default `"30s"`.
    pub write_timeout: Located<Time>,
    /// Requests at once on one HTTP/2 connection. Default 100.
    pub streams: Located<u32>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            headers: Located::unstated(100),
            header_bytes: Located::unstated(Size(32 << 10)),
            header_timeout: Located::unstated(Time::secs(10)),
            idle_timeout: Located::unstated(Time::secs(60)),
            body_idle_timeout: Located::unstated(Time::secs(30)),
            write_timeout: Located::unstated(Time::secs(30)),
            streams: Located::unstated(100),
        }
    }
}

/// What matches, and what applies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Its name: the label in metrics and logs.
    pub id: Located<String>,
    /// Which requests; all of them if absent.
    #[serde(default, rename = "match")]
    pub matches: Located<MatchConfig>,
    /// Where they go. Exactly one of `upstream`, `split`, `redirect`, `respond` stands here.
    #[serde(default)]
    pub upstream: Option<Located<String>>,
    /// Where they go, by weight.
    #[serde(default)]
    pub split: Option<Located<Vec<SplitConfig>>>,
    /// Send the client elsewhere.
    #[serde(default)]
    pub redirect: Option<RedirectConfig>,
    /// Answer at once.
    #[serde(default)]
    pub respond: Option<FixedConfig>,
    /// From the request's last byte to the response headers, over all tries. Default `"30s"`.
    #[serde(default)]
    pub timeout: Option<Located<Time>>,
    /// The ladder of lesser answers: the first step that serves what went wrong and can answer,
    /// answers. Default: none.
    #[serde(default)]
    pub fallback: Option<Located<Vec<FallbackConfig>>>,
    /// The response cache; `true` and `{}` are RFC 9111 and nothing else. Default: none.
    #[serde(default)]
    pub cache: Option<Located<Switch<CacheConfig>>>,
    /// The largest request body; larger ones get 413. Default: no limit.
    #[serde(default)]
    pub max_body: Option<Size>,
    /// How often clients may come: one limit, or a list that must all admit a request.
    #[serde(default)]
    pub rate_limit: RateLimitsConfig,
    /// What is changed in path and host before the upstream sees them.
    #[serde(default)]
    pub rewrite: Option<Located<RewriteConfig>>,
    /// What is changed in the fields.
    #[serde(default)]
    pub headers: Option<HeadersConfig>,
    /// Who is shed last while the process is short of something (`server.shed`). Default
    /// `"normal"`.
    #[serde(default)]
    pub priority: Option<Located<Priority>>,
    /// How much may be in flight at once, over all workers: one table, or a list of them with a key
    /// each. Default: no cap.
    #[serde(default)]
    pub concurrency: Option<RouteConcurrency>,
    /// Whether and how answers are encoded. Default: `defaults.compress`, and off without that.
    #[serde(default)]
    pub compress: Option<Located<Switch<CompressConfig>>>,
    /// The protocols a connection may be upgraded to, such as `"websocket"`. Default: none. Such a
    /// connection is closed when nothing has moved either way for an hour.
    #[serde(default)]
    pub upgrade: Vec<Located<String>>,
}

impl RouteConfig {
    /// Its cache, own or inherited; only what an upstream answers is stored.
    pub fn caches<'c>(
        &'c self,
        defaults: &'c DefaultsConfig,
    ) -> Option<&'c Located<Switch<CacheConfig>>> {
        let forwards = self.upstream.is_some() || self.split.is_some();
        let cache = self.cache.as_ref().or(defaults.cache.as_ref());
        cache.filter(|cache| forwards && cache.value.on().is_some())
    }

    /// The steps of its ladder, if it has one.
    pub fn steps(&self) -> impl Iterator<Item = &FallbackConfig> {
        self.fallback.iter().flat_map(|steps| &steps.value)
    }
}

/// Which requests a route takes. Each key that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MatchConfig {
    /// `"api.example.com"`, or `"*.example.com"` for every host below it. Default: any.
    pub host: Option<Located<String>>,
    /// `"/exact"`, `"/prefix/*"`, with `{name}` for one segment. Default `"/*"`.
    pub path: Option<Located<String>>,
    /// Methods; empty: any. GET admits HEAD.
    pub methods: Vec<Located<String>>,
    /// Header fields: an exact value, or `"*"` for any.
    pub headers: BTreeMap<Located<String>, Located<String>>,
    /// Query parameters: an exact value, or `"*"` for any.
    pub query: BTreeMap<Located<String>, Located<String>>,
}

/// A share of a route's requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// The upstream that gets it.
    pub upstream: Located<String>,
    /// Its share beside the others, 0 to 1000000.
    pub weight: Located<u32>,
}
