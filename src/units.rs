//! Values with units as they stand in the config: `"250ms"`, `"64KiB"`, `"100/s"`.
//!
//! A bare number is an error, and so is a unit that two programs read differently (`M`, `k`):
//! the units are `ms s m h d`, `B KiB MiB GiB` and `/s /m /h /d`, nothing else. Each type writes itself back in
//! the form it is read in.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A length of time, at least one millisecond fine: `"250ms" "10s" "5m" "1h" "1d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Duration);

/// A number of bytes: `"512B" "64KiB" "10MiB" "1GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// How many in how long: `"100/s" "5000/m" "10/h" "1/d"`; above 0, at most 1000000 a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    per: Per,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Per {
    Second,
    Minute,
    Hour,
    Day,
}

const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZES: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

impl Time {
    /// From whole milliseconds.
    pub const fn millis(ms: u64) -> Self {
        Time(Duration::from_millis(ms))
    }

    /// From whole seconds.
    pub const fn secs(s: u64) -> Self {
        Time(Duration::from_secs(s))
    }

    /// Reads `"250ms"`; the error says what is wrong and which units there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text, &TIMES, "a duration", "10s").map(Time::millis)
    }
}

impl Size {
    /// Reads `"64KiB"`; the error says what is wrong and which units there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text, &SIZES, "a size", "64KiB").map(Size)
    }

    /// As a length in memory; saturates on a 32-bit machine.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const RATES: [(&str, Per); 4] = [
    ("/s", Per::Second),
    ("/m", Per::Minute),
    ("/h", Per::Hour),
    ("/d", Per::Day),
];

impl Rate {
    /// The largest rate, a second.
    const MOST: u64 = 1_000_000;

    /// Reads `"100/s"`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let split = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        if number.is_empty() {
            return Err(format!(
                "expected a rate such as \"100/s\", found \"{text}\""
            ));
        }
        let Some((_, per)) = RATES.iter().find(|(word, _)| *word == unit) else {
            let names = RATES.map(|(word, _)| word).join(", ");
            return Err(if unit.is_empty() {
                format!("a rate needs a time: one of {names}")
            } else {
                format!("unknown time \"{unit}\" of a rate: use one of {names}")
            });
        };
        let rate = number.parse::<u32>().map(|count| Rate { count, per: *per });
        match rate {
            Ok(rate) if rate.count == 0 => Err("a rate must be above 0".to_owned()),
            Ok(rate) if u64::from(rate.count) <= Self::MOST * rate.period().as_secs() => Ok(rate),
            _ => Err(format!(
                "\"{text}\" is too large: at most 1000000/s, and 4294967295 in all"
            )),
        }
    }

    /// How many.
    pub fn count(self) -> u32 {
        self.count
    }

    /// In how long.
    pub fn period(self) -> Duration {
        Duration::from_secs(match self.per {
            Per::Second => 1,
            Per::Minute => 60,
            Per::Hour => 3_600,
            Per::Day => 86_400,
        })
    }
}

/// Number, then unit, in the smallest unit. Decimals are allowed where they come out whole.
fn parse(text: &str, units: &[(&str, u64)], what: &str, sample: &str) -> Result<u64, String> {
    let names = || units.iter().map(|u| u.0).collect::<Vec<_>>().join(", ");
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    if number.is_empty() {
        return Err(format!(
            "expected {what} such as \"{sample}\", found \"{text}\""
        ));
    }
    let Some(scale) = units.iter().find(|u| u.0 == unit.trim_start()).map(|u| u.1) else {
        return Err(if unit.is_empty() {
            format!("{what} needs a unit: one of {}", names())
        } else {
            format!("unknown unit \"{}\": use one of {}", unit.trim(), names())
        });
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let too_large = || format!("\"{text}\" is too large");
    let mut value = whole
        .parse::<u64>()
        .map_err(|_| format!("\"{number}\" is not a number that fits"))?
        .checked_mul(scale)
        .ok_or_else(too_large)?;
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).ok().filter(|n| *n <= 9);
        let tens = digits.map(|n| 10u64.pow(n));
        let part = fraction
            .parse::<u64>()
            .ok()
            .and_then(|f| f.checked_mul(scale));
        match (part, tens) {
            (Some(part), Some(tens)) if part % tens == 0 => {
                value = value.checked_add(part / tens).ok_or_else(too_large)?;
            }
            _ => return Err(format!("\"{text}\" is finer than the smallest unit")),
        }
    }
    Ok(value)
}

/// The largest unit that divides the value.
fn write(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = units
        .iter()
        .rev()
        .find(|u| value > 0 && value.is_multiple_of(u.1));
    let (unit, scale) = fits.copied().unwrap_or(units[0]);
    write!(f, "{}{unit}", value / scale)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(
            f,
            u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX),
            &TIMES,
        )
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, &SIZES)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, RATES[self.per as usize].0)
    }
}

macro_rules! unit {
    ($type:ident, $what:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).map_err(E::custom)
                    }
                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$type, E> {
                        Err(E::custom(format!("{number} has no unit: expected {}", $what)))
                    }
                }
                d.deserialize_any(Text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $what })
            }
        }
    };
}

unit!(
    Time,
    "a duration with a unit, such as \"250ms\", \"10s\" or \"5m\"",
    r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
);
unit!(
    Size,
    "a size with a unit, such as \"64KiB\" or \"10MiB\"",
    r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB)$"
);
unit!(
    Rate,
    "a rate, such as \"100/s\", \"5000/m\" or \"10/h\"",
    r"^[0-9]+/(s|m|h|d)$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_and_written_back_and_is_never_nothing() {
        for text in [
            "100/s",
            "5000/m",
            "10/h",
            "1/d",
            "1000000/s",
            "4294967295/d",
        ] {
            let rate = Rate::parse(text);
            assert_eq!(rate.map(|r| r.to_string()), Ok(text.to_owned()));
        }
        let day = Rate::parse("7/d").map(|r| (r.count(), r.period()));
        assert_eq!(day, Ok((7, Duration::from_secs(86_400))));
        let wrong = [
            "",
            "100",
            "/s",
            "0/s",
            "0/d",
            "-1/s",
            "1.5/s",
            "100/w",
            "100 / s",
            "100/ms",
            "1000001/s",
            "60000001/m",
            "4294967296/d",
            "99999999999999999999/s",
        ];
        for text in wrong {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_with_its_unit_is_read_and_written_back() {
        for text in ["250ms", "10s", "5m", "36h", "1d", "1500ms"] {
            assert_eq!(
                Time::parse(text).map(|t| t.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in ["0B", "512B", "64KiB", "10MiB", "3GiB"] {
            assert_eq!(
                Size::parse(text).map(|t| t.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!(Time::parse("1.5s"), Ok(Time::millis(1500)));
    }

    #[test]
    fn a_bare_number_or_a_foreign_unit_is_refused() {
        for text in [
            "10",
            "",
            "s",
            "2M",
            "1w",
            "-1s",
            "1e3s",
            "0.5ms",
            "99999999999999999d",
        ] {
            assert!(Time::parse(text).is_err(), "{text}");
        }
        for text in ["64", "64k", "64KB", "64kib", "1.0001B", "99999999999GiB"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }
}
