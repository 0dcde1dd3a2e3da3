//! The section `concurrency`, of a route and of an upstream.
//!
//! On a route one table, or a list of them: one for the whole route, and one for each kind of key.
//! On an upstream one table, where the cap may find itself. What can be wrong with it is said
//! here, so that both report it alike.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::caps::NETWORK;
use super::{Order, Rules, Settings};
use crate::message::key::KeyConfig;
use crate::problem::{Located, Problem, Problems, Span};
use crate::switch::Mode;
use crate::units::Time;

/// The largest cap, and the longest queue.
const MOST: u32 = 1_000_000;

/// A cap on what is in flight, over all workers: from its start to the last byte of its answer, or
/// to the end of its tunnel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConcurrencyConfig {
    /// The most at once, 1 to 1000000.
    pub max: Located<u32>,
    /// How many more may wait for a place, 0 to 1000000; the next is refused with 503. Default 0.
    #[serde(default = "none")]
    pub queue: Located<u32>,
    /// How long one may wait; needed with `queue`.
    #[serde(default)]
    pub queue_timeout: Option<Located<Time>>,
    /// Who is served first. Default `"fifo"`.
    #[serde(default)]
    pub order: OrderConfig,
    /// On a route: the cap is for each client by this key, such as `"client_ip"`, or a list of
    /// keys. Without a queue. Default: one cap for all.
    #[serde(default)]
    pub key: Option<KeyConfig>,
    /// On an upstream: the cap finds itself from latency, between `min` and `max`. Default false.
    #[serde(default)]
    pub adaptive: bool,
    /// The lower bound of an adaptive cap, 1 to `max`. Default 1.
    #[serde(default)]
    pub min: Option<Located<u32>>,
    /// `"observe"`: count what would be refused, and refuse nothing. Default `"enforce"`.
    #[serde(default)]
    pub mode: Mode,
}

fn none() -> Located<u32> {
    Located::unstated(0)
}

/// Who of a queue is served first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderConfig {
    /// Who came first.
    #[default]
    Fifo,
    /// Who came last, while more than half of the queue is taken; a full queue turns away its
    /// oldest. Under overload the newest are those whose clients still wait.
    NewestFirst,
}

impl ConcurrencyConfig {
    /// What a gate is made with.
    pub fn settings(&self) -> Settings {
        Settings {
            max: self.max.value,
            min: self.min.as_ref().map_or(1, |min| min.value),
            adaptive: self.adaptive,
            rules: Rules {
                queue: self.queue.value,
                order: match self.order {
                    OrderConfig::Fifo => Order::Fifo,
                    OrderConfig::NewestFirst => Order::NewestFirst,
                },
            },
        }
    }

    /// The key as it is written, for people.
    pub fn key_text(&self) -> Option<String> {
        let words = self.key.as_ref()?.words();
        Some(words.collect::<Vec<_>>().join(", "))
    }

    /// What is wrong with it on an upstream.
    pub fn check_upstream(&self, problems: &mut Problems) {
        self.check(problems);
        if let Some(key) = self.key.as_ref().and_then(KeyConfig::first) {
            let problem = Problem::at(&key.span, "a cap on an upstream has no key");
            problems.push(problem.help("cap each client on the route"));
        }
    }

    fn check(&self, problems: &mut Problems) {
        let max = &self.max;
        within("max", max, 1, MOST, problems);
        within("queue", &self.queue, 0, MOST, problems);
        if let Some(min) = &self.min {
            if self.adaptive {
                within("min", min, 1, max.value.clamp(1, MOST), problems);
            } else {
                let problem = Problem::at(&min.span, "min is the lower bound of an adaptive cap");
                problems.push(problem.help("add adaptive = true"));
            }
        }
        if let Some(key) = &self.key {
            key.compile(NETWORK, problems);
            if key.first().is_none() {
                let problem = Problem::at(&max.span, "the key of this cap names nothing");
                problems.push(problem.help("leave it out for one cap for all"));
            }
        }
        self.check_queue(problems);
    }

    fn check_queue(&self, problems: &mut Problems) {
        let queues = self.queue.value > 0;
        match &self.queue_timeout {
            Some(timeout) if timeout.0.is_zero() => {
                problems.push(Problem::at(&timeout.span, "queue_timeout must be above 0"));
            }
            Some(timeout) if !queues => {
                let problem = Problem::at(&timeout.span, "queue_timeout without a queue");
                problems.push(problem.help("add queue = 100"));
            }
            None if queues => {
                let problem = Problem::at(&self.queue.span, "a queue needs a queue_timeout");
                problems.push(problem.help("add queue_timeout = \"500ms\""));
            }
            Some(_) | None => {}
        }
        if self.key.is_some() && queues {
            let problem = Problem::at(&self.queue.span, "a cap with a key has no queue");
            let help = "a client at its cap is refused; let the whole route wait instead";
            problems.push(problem.help(help));
        }
    }
}

fn within(key: &str, number: &Located<u32>, least: u32, most: u32, problems: &mut Problems) {
    if !(least..=most).contains(&number.value) {
        let message = format!("{key} must be from {least} to {most}");
        problems.push(Problem::at(&number.span, message));
    }
}

/// `concurrency` of a route: one table, or a list of them.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConcurrency(Vec<ConcurrencyConfig>);

impl RouteConcurrency {
    /// The caps.
    pub fn caps(&self) -> &[ConcurrencyConfig] {
        &self.0
    }

    /// The cap for the whole route, if there is one.
    pub fn whole(&self) -> Option<&ConcurrencyConfig> {
        self.0.iter().find(|cap| cap.key.is_none())
    }

    /// What is wrong with it.
    pub fn check(&self, problems: &mut Problems) {
        let mut seen: Vec<(&ConcurrencyConfig, &Span)> = Vec::new();
        for cap in &self.0 {
            cap.check(problems);
            if cap.adaptive {
                let problem = Problem::at(&cap.max.span, "only the cap of an upstream is adaptive");
                problems.push(problem.help("move it to the upstream's own concurrency"));
            }
            let same = seen.iter().find(|(other, _)| other.key == cap.key);
            if let Some((_, first)) = same {
                let problem = Problem::at(&cap.max.span, "two caps count the same");
                problems.push(problem.also(first, "first here"));
            }
            seen.push((cap, &cap.max.span));
        }
    }
}

impl Serialize for RouteConcurrency {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            [one] => one.serialize(s),
            several => several.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for RouteConcurrency {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct TableOrList;
        impl<'de> Visitor<'de> for TableOrList {
            type Value = RouteConcurrency;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table such as { max = 100 }, or a list of them")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteConcurrency, A::Error> {
                let one = ConcurrencyConfig::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RouteConcurrency(vec![one]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RouteConcurrency, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(RouteConcurrency)
            }
        }
        d.deserialize_any(TableOrList)
    }
}

impl JsonSchema for RouteConcurrency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RouteConcurrency".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<ConcurrencyConfig>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
