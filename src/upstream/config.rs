//! `[upstreams.NAME]`: the sections as written. What they mean is in the rooms beside this file.
//! Defaults and ranges are in the field docs, which are the manual.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::breaker::BreakerConfig;
use crate::files::FileRef;
use crate::gate::config::ConcurrencyConfig;
use crate::problem::Located;
use crate::switch::Switch;
use crate::units::Time;

/// A named set of endpoints and how they are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Where it is: `"host:port"`, or a table with weight, priority and zone. At least one.
    pub endpoints: Located<Vec<EndpointConfig>>,
    /// What is spoken to it. Default `"http1"`.
    #[serde(default)]
    pub protocol: Protocol,
    /// How an endpoint is chosen: `"p2c"` (default), `"round_robin"`, `"hash:client_ip"`,
    /// `"hash:header:NAME"` or `"hash:cookie:NAME"`.
    #[serde(default)]
    pub balance: Located<BalanceConfig>,
    /// How long each stage may take.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// Connections kept and caps on them.
    #[serde(default)]
    pub pool: PoolConfig,
    /// A cap on requests at the upstream, over all workers and endpoints; none if absent.
    #[serde(default)]
    pub concurrency: Option<ConcurrencyConfig>,
    /// Active health checks; none if absent.
    #[serde(default)]
    pub health: Option<HealthConfig>,
    /// Passive ejection of a failing endpoint. On by default; `eject = false` turns it off.
    #[serde(default)]
    pub eject: Switch<EjectConfig>,
    /// Stops asking the upstream while it fails, and finds out by a few probes when to ask again.
    /// Default: none.
    #[serde(default)]
    pub breaker: Option<BreakerConfig>,
    /// The same for each endpoint: the others are asked meanwhile. Default: none.
    #[serde(default)]
    pub endpoint_breaker: Option<BreakerConfig>,
    /// When fewer than this percentage of the endpoints is usable, all are used. Default 50;
    /// 0 turns it off (then requests fail fast with 503).
    #[serde(default = "fifty")]
    pub panic_threshold: Located<u8>,
    /// Over what time a new or recovered endpoint is given its full share. Default: at once.
    #[serde(default)]
    pub slow_start: Option<Time>,
    /// How often names among the endpoints are resolved again. Default `"10s"`, at least `"1s"`.
    #[serde(default = "ten_seconds")]
    pub resolve_interval: Located<Time>,
    /// Further tries. On by default; `retry = false` turns it off.
    #[serde(default)]
    pub retry: Switch<RetryConfig>,
    /// TLS towards the endpoints; cleartext if absent.
    #[serde(default)]
    pub tls: Option<UpstreamTlsConfig>,
}

impl UpstreamConfig {
    /// Both breakers, those there are.
    pub(crate) fn breakers(&self) -> impl Iterator<Item = &BreakerConfig> {
        self.breaker.iter().chain(&self.endpoint_breaker)
    }
}

fn fifty() -> Located<u8> {
    Located::unstated(50)
}

fn ten_seconds() -> Located<Time> {
    Located::unstated(Time::secs(10))
}

/// One entry of `endpoints`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointConfig {
    /// `host:port`, `1.2.3.4:port` or `[v6]:port`.
    pub address: Located<String>,
    /// Its share beside the others, 1 to 1000. Default 1.
    pub weight: Located<u16>,
    /// 0 is used first; 1 when 0 has no usable endpoint, and so on. Default 0.
    pub priority: u8,
    /// Where it stands; one of `server.zone` is preferred among equals.
    pub zone: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EndpointTable")]
struct EndpointTable {
    /// `host:port`.
    address: Located<String>,
    /// Its share beside the others, 1 to 1000.
    #[serde(default = "one")]
    weight: Located<u16>,
    /// 0 is used first; 1 when 0 has no usable endpoint, and so on.
    #[serde(default)]
    priority: u8,
    /// Where it stands; one of `server.zone` is preferred among equals.
    #[serde(default)]
    zone: Option<String>,
}

fn one() -> Located<u16> {
    Located::unstated(1)
}

impl<'de> Deserialize<'de> for EndpointConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct AddressOrTable;
        struct Any(EndpointTable);
        impl<'de> Visitor<'de> for AddressOrTable {
            type Value = Any;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"host:port\", or { address = \"host:port\", weight = 2 }")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Any, E> {
                let address = Located::unstated(text.to_owned());
                Ok(Any(EndpointTable {
                    address,
                    weight: one(),
                    priority: 0,
                    zone: None,
                }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Any, A::Error> {
                EndpointTable::deserialize(MapAccessDeserializer::new(map)).map(Any)
            }
        }
        impl<'de> Deserialize<'de> for Any {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(AddressOrTable)
            }
        }
        let Located {
            value: Any(table),
            span,
        } = Located::<Any>::deserialize(d)?;
        let EndpointTable {
            mut address,
            weight,
            priority,
            zone,
        } = table;
        if address.span.is_empty() {
            address.span = span;
        }
        Ok(EndpointConfig {
            address,
            weight,
            priority,
            zone,
        })
    }
}

impl JsonSchema for EndpointConfig {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<EndpointTable>();
        json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without.
    H2,
    /// What ALPN agrees on; HTTP/1.1 without TLS.
    Auto,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BalanceConfig {
    /// The better of two random ones, by in-flight requests and latency.
    #[default]
    P2c,
    /// In turn, by weight.
    RoundRobin,
    /// By the client's address.
    HashClientIp,
    /// By a request header; without it, at random.
    HashHeader(String),
    /// By a cookie; without it, at random.
    HashCookie(String),
}

const BALANCE: &str = "one of \"p2c\", \"round_robin\", \"hash:client_ip\", \"hash:header:NAME\", \"hash:cookie:NAME\"";

impl<'de> Deserialize<'de> for BalanceConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Ok(match text.as_str() {
            "p2c" => BalanceConfig::P2c,
            "round_robin" => BalanceConfig::RoundRobin,
            "hash:client_ip" => BalanceConfig::HashClientIp,
            other => match other.split_once(':').map(|(_, rest)| rest.split_once(':')) {
                Some(Some(("header", name))) if other.starts_with("hash:") && !name.is_empty() => {
                    BalanceConfig::HashHeader(name.to_ascii_lowercase())
                }
                Some(Some(("cookie", name))) if other.starts_with("hash:") && !name.is_empty() => {
                    BalanceConfig::HashCookie(name.to_owned())
                }
                _ => {
                    let message = format!("unknown balance \"{other}\": expected {BALANCE}");
                    return Err(serde::de::Error::custom(message));
                }
            },
        })
    }
}

impl fmt::Display for BalanceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BalanceConfig::P2c => f.write_str("p2c"),
            BalanceConfig::RoundRobin => f.write_str("round_robin"),
            BalanceConfig::HashClientIp => f.write_str("hash:client_ip"),
            BalanceConfig::HashHeader(name) => write!(f, "hash:header:{name}"),
            BalanceConfig::HashCookie(name) => write!(f, "hash:cookie:{name}"),
        }
    }
}

impl Serialize for BalanceConfig {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl JsonSchema for BalanceConfig {
    fn schema_name() -> Cow<'static, str> {
        "Balance".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(p2c|round_robin|hash:client_ip|hash:header:.+|hash:cookie:.+)$",
        })
    }
}

/// How long each stage towards an upstream may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TimeoutsConfig {
    /// TCP and TLS together. Default `"1s"`.
    pub connect: Located<Time>,
    /// Request sent to response headers. Default `"15s"`.
    pub first_byte: Located<Time>,
    /// Between two pieces of a body, either way. Default `"60s"`.
    pub idle: Located<Time>,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        TimeoutsConfig {
            connect: Located::unstated(Time::secs(1)),
            first_byte: Located::unstated(Time::secs(15)),
            idle: Located::unstated(Time::secs(60)),
        }
    }
}

/// Connections to the endpoints of one upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Connections open at once, over all workers and endpoints. Default 1024.
    pub max_connections: Located<u32>,
    /// Idle ones kept for each endpoint and worker, once a burst is over for a second. Default 128;
    /// 0 keeps none.
    pub max_idle: u32,
    /// Idle ones are closed after this; keep it below the upstream's own. Default `"55s"`.
    pub idle_timeout: Located<Time>,
    /// A connection is retired at this age. Default `"1h"`.
    pub max_age: Located<Time>,
    /// Requests that may wait for a connection, over all workers. Default 256; 0: none waits.
    pub max_pending: u32,
    /// How long one may wait. Default `"1s"`.
    pub pending_timeout: Located<Time>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            max_connections: Located::unstated(1024),
            max_idle: 128,
            idle_timeout: Located::unstated(Time::secs(55)),
            max_age: Located::unstated(Time::secs(3600)),
            max_pending: 256,
            pending_timeout: Located::unstated(Time::secs(1)),
        }
    }
}

/// Active health checks: a GET that must answer 2xx.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    /// The path asked for.
    pub path: Located<String>,
    /// The Host sent. Default: the endpoint's address as written.
    #[serde(default)]
    pub host: Option<Located<String>>,
    /// Time between two checks. Default `"5s"`.
    #[serde(default = "five_seconds")]
    pub interval: Located<Time>,
    /// How long one may take. Default `"1s"`.
    #[serde(default = "one_second")]
    pub timeout: Located<Time>,
    /// Good ones in a row until an endpoint is used again. Default 2.
    #[serde(default = "two")]
    pub rise: Located<u32>,
    /// Bad ones in a row until an endpoint is not used. Default 3.
    #[serde(default = "three")]
    pub fall: Located<u32>,
}

fn five_seconds() -> Located<Time> {
    Located::unstated(Time::secs(5))
}

fn one_second() -> Located<Time> {
    Located::unstated(Time::secs(1))
}

fn two() -> Located<u32> {
    Located::unstated(2)
}

fn three() -> Located<u32> {
    Located::unstated(3)
}

/// Passive ejection: an endpoint that fails again and again gets no traffic for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EjectConfig {
    /// Failures in a row (no answer, or 5xx) until an endpoint is ejected. Default 5.
    pub consecutive: Located<u32>,
    /// For how long; doubled at each further ejection, up to ten times this. Default `"10s"`.
    pub base: Located<Time>,
    /// At most this share of the endpoints is ejected at once. Default 50.
    pub max_percent: Located<u8>,
}

impl Default for EjectConfig {
    fn default() -> Self {
        EjectConfig {
            consecutive: Located::unstated(5),
            base: Located::unstated(Time::secs(10)),
            max_percent: Located::unstated(50),
        }
    }
}

/// Further tries after a failed one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Further tries for one request, 1 to 10. Default 2.
    pub attempts: Located<u8>,
    /// Retries as a share of requests over ten seconds, 0 to 1, above a floor of ten. Default 0.2.
    pub budget: Located<f64>,
    /// What is tried again: `"connect"`, `"reset"`, `"timeout"`, or a 5xx status. Default
    /// `["connect", "reset"]`. Statuses and timeouts only for idempotent methods.
    pub on: Vec<Located<RetryOn>>,
    /// How long one try may take to its response headers. Default: no limit of its own.
    pub per_try_timeout: Option<Located<Time>>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        let on = [RetryOn::Connect, RetryOn::Reset];
        RetryConfig {
            attempts: Located::unstated(2),
            budget: Located::unstated(0.2),
            on: on.into_iter().map(Located::unstated).collect(),
            per_try_timeout: None,
        }
    }
}

/// What may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection could be made.
    Connect,
    /// The connection ended before the response headers.
    Reset,
    /// No response headers in time.
    Timeout,
    /// This status, 500 to 599.
    Status(u16),
}

impl<'de> Deserialize<'de> for RetryOn {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match text.as_str() {
            "connect" => Ok(RetryOn::Connect),
            "reset" => Ok(RetryOn::Reset),
            "timeout" => Ok(RetryOn::Timeout),
            other => match other.parse() {
                Ok(status @ 500..=599) => Ok(RetryOn::Status(status)),
                _ => Err(serde::de::Error::custom(format!(
                    "\"{other}\" is nothing to retry on: expected \"connect\", \"reset\", \
                     \"timeout\" or a status from \"500\" to \"599\""
                ))),
            },
        }
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetryOn::Connect => f.write_str("connect"),
            RetryOn::Reset => f.write_str("reset"),
            RetryOn::Timeout => f.write_str("timeout"),
            RetryOn::Status(status) => status.fmt(f),
        }
    }
}

impl Serialize for RetryOn {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl JsonSchema for RetryOn {
    fn schema_name() -> Cow<'static, str> {
        "RetryOn".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(connect|reset|timeout|5[0-9][0-9])$" })
    }
}

/// TLS towards the endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTlsConfig {
    /// The name asked for and checked. Default: the host of the endpoint as written.
    pub server_name: Option<Located<String>>,
    /// PEM file with the roots that are trusted. Default: the system's.
    pub ca: Option<FileRef>,
    /// PEM file with our client certificate.
    pub cert: Option<FileRef>,
    /// PEM file with its key.
    pub key: Option<FileRef>,
}

impl UpstreamTlsConfig {
    /// The files this section names.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        [&self.ca, &self.cert, &self.key].into_iter().flatten()
    }
}
