//! How `server.workers` is read: `"auto"`, `4` or `"4"`.
//! A string is admitted so that `"${WEIR_WORKERS:-auto}"` can stand there.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::Workers;

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct AutoOrNumber;
        impl Visitor<'_> for AutoOrNumber {
            type Value = Workers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number from 1 to 256")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Workers, E> {
                match (text, text.parse::<i64>()) {
                    ("auto", _) => Ok(Workers::Auto),
                    (_, Ok(number)) => self.visit_i64(number),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Workers, E> {
                match u16::try_from(number) {
                    Ok(count @ 1..=256) => Ok(Workers::Count(count)),
                    _ => Err(E::invalid_value(
                        serde::de::Unexpected::Signed(number),
                        &self,
                    )),
                }
            }
        }
        d.deserialize_any(AutoOrNumber)
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Workers::Auto => s.serialize_str("auto"),
            Workers::Count(count) => s.serialize_u16(*count),
        }
    }
}

impl JsonSchema for Workers {
    fn schema_name() -> Cow<'static, str> {
        "Workers".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "pattern": "^(auto|[0-9]+)$" },
            { "type": "integer", "minimum": 1, "maximum": 256 },
        ] })
    }
}
