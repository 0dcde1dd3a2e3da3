//! `rate_limit` as written: one limit, or a list of them.
//!
//! What a limit is called where the config says nothing, and which change of it makes what was
//! counted useless, are decided here. Ranges and names over several routes are `config/check`'s.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::message::key::KeyConfig;
use crate::problem::Located;
use crate::switch::Mode;
use crate::units::Rate;

/// How often a client may come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitConfig {
    /// The label in metrics and RateLimit fields, unique over all routes. Default: the route's id,
    /// a dot and the position among its limits, from 0.
    #[serde(default)]
    pub name: Option<Located<String>>,
    /// How many a second, minute, hour or day: `"100/s"`, `"5000/m"`, `"10/h"`, `"1/d"`. At most
    /// a million a second. Changed by a reload, what clients have used keeps its share.
    pub rate: Located<Rate>,
    /// How many at once, by a client that stayed away long enough. Default: the number in `rate`.
    #[serde(default)]
    pub burst: Option<Located<u32>>,
    /// What clients are told apart by. Default `"client_ip"`; `"route"`: all are one.
    #[serde(default)]
    pub key: KeyConfig,
    /// What counts. Default `"all"`.
    #[serde(default)]
    pub count: Count,
    /// Whether it acts. Default `"enforce"`.
    #[serde(default)]
    pub mode: Mode,
    /// How many keys it remembers, at 28 bytes each. When that many are over their rate, new ones
    /// share one bucket. Default 100000, at most 100000000.
    #[serde(default = "keys")]
    pub keys: Located<u32>,
    /// How many bits of an IPv6 address are one client. Default 64.
    #[serde(default = "ipv6_prefix")]
    pub ipv6_prefix: Located<u8>,
}

fn keys() -> Located<u32> {
    Located::unstated(100_000)
}

fn ipv6_prefix() -> Located<u8> {
    Located::unstated(64)
}

impl LimitConfig {
    /// Its name, as limit `position` of `route`.
    pub fn name(&self, route: &str, position: usize) -> String {
        match &self.name {
            Some(name) => name.value.clone(),
            None => format!("{route}.{position}"),
        }
    }

    /// How many at once.
    pub fn burst(&self) -> u32 {
        self.burst.as_ref().map_or(self.rate.count(), |b| b.value)
    }

    /// Whether what `other` has counted is of use to this one: it tells the same clients apart and
    /// counts the same.
    pub fn counts_as(&self, other: &LimitConfig) -> bool {
        self.key == other.key
            && self.count == other.count
            && self.keys == other.keys
            && self.ipv6_prefix == other.ipv6_prefix
    }
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Count {
    /// Every request.
    #[default]
    All,
    /// Requests that are not answered from the cache.
    Misses,
    /// Requests that are answered with 400 or above, or fail; not those that Weir itself refuses.
    Failures,
}

/// How clients are told what is left of their limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitHeaders {
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    #[default]
    Draft,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, of the limit with the least left.
    Legacy,
    /// Not at all.
    Off,
}

/// The limits of a route: one table, or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LimitsConfig(pub Vec<LimitConfig>);

impl<'de> Deserialize<'de> for LimitsConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct OneOrList;
        impl<'de> Visitor<'de> for OneOrList {
            type Value = LimitsConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table, or a list of them")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LimitsConfig, A::Error> {
                let one = LimitConfig::deserialize(MapAccessDeserializer::new(map))?;
                Ok(LimitsConfig(vec![one]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<LimitsConfig, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(LimitsConfig)
            }
        }
        d.deserialize_any(OneOrList)
    }
}

impl JsonSchema for LimitsConfig {
    fn schema_name() -> Cow<'static, str> {
        "RateLimits".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<LimitConfig>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
