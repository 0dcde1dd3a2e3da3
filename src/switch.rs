//! Whether a policy is on, `eject = false`, `eject = true`, `eject = { ... }`, and whether it acts,
//! `mode = "observe"`.
//!
//! On the ground, since every room may have one. The key left out, and `true`, mean the policy's
//! own defaults.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A policy that is on by default: `false` turns it off, a table sets it, `true` is its default.
#[derive(Debug, Clone, PartialEq)]
pub enum Switch<T> {
    /// `false`.
    Off,
    /// A table, `true`, or the key left out.
    On(T),
}

impl<T: Default> Default for Switch<T> {
    fn default() -> Self {
        Switch::On(T::default())
    }
}

impl<T> Switch<T> {
    /// The settings, if it is on.
    pub fn on(&self) -> Option<&T> {
        match self {
            Switch::Off => None,
            Switch::On(settings) => Some(settings),
        }
    }
}

impl<T: Serialize> Serialize for Switch<T> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Switch::Off => s.serialize_bool(false),
            Switch::On(settings) => settings.serialize(s),
        }
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct BoolOrTable<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for BoolOrTable<T> {
            type Value = Switch<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a table")
            }
            fn visit_bool<E>(self, on: bool) -> Result<Switch<T>, E> {
                Ok(if on { Switch::default() } else { Switch::Off })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Switch<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Switch::On)
            }
        }
        d.deserialize_any(BoolOrTable(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Switch<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("SwitchOf{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, table] })
    }
}

/// Whether a policy acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It acts. The default.
    #[default]
    Enforce,
    /// It counts and logs what it would have done (`weir_observed_total`), and lets everything
    /// pass.
    Observe,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Policy {
        most: u8,
    }

    #[derive(Debug, Deserialize)]
    struct Section {
        #[serde(default)]
        policy: Switch<Policy>,
    }

    fn read(text: &str) -> Option<Switch<Policy>> {
        toml::from_str::<Section>(text)
            .ok()
            .map(|section| section.policy)
    }

    #[test]
    fn a_policy_is_on_unless_it_is_turned_off() {
        assert_eq!(read(""), Some(Switch::On(Policy::default())));
        assert_eq!(read("policy = true"), Some(Switch::On(Policy::default())));
        assert_eq!(read("policy = false"), Some(Switch::Off));
        assert_eq!(
            read("policy = { most = 3 }"),
            Some(Switch::On(Policy { most: 3 }))
        );
        assert_eq!(read("policy = { most = 3, least = 1 }"), None);
        assert_eq!(read("policy = 3"), None);
    }
}
