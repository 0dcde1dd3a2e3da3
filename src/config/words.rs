//! What the deserializer says, in the words of the config.
//!
//! Its messages name Rust types ("expected u16", "expected struct X"); an operator knows keys,
//! tables and numbers. What is not recognised passes as it is, so a new kind of message is never
//! lost, only plainer.

use super::path::{self, Step};
use crate::problem::{Problem, Span, nearest};

/// The complaint about one error at the node `steps`.
pub(super) fn problem(error: &toml::de::Error, span: &Span, steps: &[Step]) -> Problem {
    let message = error.message();
    if let Some((key, known)) = unlike(message, "unknown field `") {
        let problem = Problem::at(span, format!("unknown key \"{key}\""));
        return problem.help(did_you_mean(key, &known));
    }
    if let Some((value, known)) = unlike(message, "unknown variant `") {
        let problem = Problem::at(span, format!("unknown value \"{value}\""));
        return problem.help(known_here(&known));
    }
    if let Some(key) = missing_key(message) {
        let place = path::words(steps);
        return Problem::at(span, format!("{place} has no \"{key}\""));
    }
    Problem::at(span, plain(message))
}

/// The key that an error says is missing.
pub(super) fn missing_key(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// The key that an unknown one was meant to be, if it is near enough to one.
pub(super) fn meant_key(message: &str) -> Option<&str> {
    let (key, known) = unlike(message, "unknown field `")?;
    nearest(key, known)
}

/// The word that is not known, and those that are.
fn unlike<'m>(message: &'m str, prefix: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let (word, rest) = message.strip_prefix(prefix)?.split_once("`, ")?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((word, known))
}

fn did_you_mean(word: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(word, known.iter().copied()) {
        return format!("did you mean \"{near}\"?");
    }
    known_here(known)
}

fn known_here(known: &[&str]) -> String {
    let list: Vec<String> = known.iter().map(|k| format!("\"{k}\"")).collect();
    match list.as_slice() {
        [] => "nothing may stand here".to_owned(),
        [one] => format!("it can only be {one}"),
        _ => format!("known here: {}", list.join(", ")),
    }
}

/// A message about a type or a value; any other one as it is.
pub(super) fn plain(message: &str) -> String {
    if message == "wanted string or table" {
        return "a string is wanted here".to_owned();
    }
    let kind = ["invalid type: ", "invalid value: "];
    let parts = kind.iter().find_map(|kind| message.strip_prefix(kind));
    if let Some((found, expected)) = parts.and_then(|rest| rest.split_once(", expected ")) {
        return format!(
            "expected {}, found {}",
            self::expected(expected),
            self::found(found)
        );
    }
    message.to_owned()
}

fn found(what: &str) -> String {
    let (kind, value) = what.split_once(' ').unwrap_or((what, ""));
    let value = value.trim_start_matches("point ").trim_matches('`');
    match kind {
        "integer" | "floating" => format!("the number {value}"),
        "boolean" => value.to_owned(),
        "string" => format!("the string {value}"),
        "map" => "a table".to_owned(),
        "sequence" => "an array".to_owned(),
        _ => what.to_owned(),
    }
}

fn expected(what: &str) -> String {
    match what {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "a table".to_owned(),
        _ if what.starts_with("struct ") => "a table".to_owned(),
        _ => what.to_owned(),
    }
}
