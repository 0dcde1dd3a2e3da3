//! What the environment filled in, and how it was written.
//!
//! `"${NAME}"` may stand for a secret. The config that runs has what it stands for; whoever shows
//! the config to people (problems, `/config`, `/status`, the lines of a reload) shows what the
//! file says instead. Kept by the place of the string, which every [`Located`] remembers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::problem::{Located, Span};

/// A text of the config, and what it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filling {
    /// As it stands in the file.
    pub written: String,
    /// What is used.
    pub value: String,
}

/// Every string with a variable in it.
#[derive(Debug, Clone, Default)]
pub struct Filled(BTreeMap<usize, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    pointer: String,
    parts: Vec<Filling>,
}

/// A value this short tells nothing where it is part of a longer word.
const SHORT: usize = 4;

impl Filled {
    /// Keeps one string: where it stands, the JSON pointer (RFC 6901) to it, and its parts: the
    /// whole of it, then each variable.
    pub fn fill(&mut self, at: &Span, pointer: String, parts: Vec<Filling>) {
        self.0.insert(at.start, Entry { pointer, parts });
    }

    /// A value as it is shown.
    pub fn shown<'a>(&'a self, text: &'a Located<String>) -> &'a str {
        let entry = self.0.get(&text.span.start);
        let whole = entry.and_then(|entry| entry.parts.first());
        whole.map_or(&text.value, |whole| &whole.written)
    }

    /// Puts into a config what is shown of it.
    pub fn show_in(&self, config: &mut Value) {
        for entry in self.0.values() {
            let place = config.pointer_mut(&entry.pointer);
            if let Some((place, whole)) = place.zip(entry.parts.first()) {
                *place = Value::String(whole.written.clone());
            }
        }
    }

    /// Words about these places, with what the file says in the place of what it came to.
    pub fn cover<'t>(&self, places: &[&Span], words: &'t str) -> Cow<'t, str> {
        let within = places.iter().flat_map(|at| self.0.range((*at).clone()));
        let parts: Vec<&Filling> = within.flat_map(|(_, entry)| &entry.parts).collect();
        if parts.is_empty() {
            return Cow::Borrowed(words);
        }
        let mut spellings: Vec<Filling> = parts.iter().flat_map(|p| p.spellings()).collect();
        spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.value.len()));
        Cow::Owned(cover(words, &spellings, &parts))
    }
}

impl Filling {
    /// How the value may stand in a sentence: as it is, or as Rust quotes it.
    fn spellings(&self) -> Vec<Filling> {
        let spelling = |written: &str, value: &str| Filling {
            written: written.to_owned(),
            value: value.to_owned(),
        };
        let quoted = format!("{:?}", self.value);
        if self.value.len() < SHORT {
            return vec![spelling(&format!("\"{}\"", self.written), &quoted)];
        }
        let escaped = &quoted[1..quoted.len() - 1];
        [&*self.value, escaped]
            .map(|v| spelling(&self.written, v))
            .into()
    }
}

/// Covers every spelling, and what is left of a value where only a piece of it is quoted.
fn cover(words: &str, spellings: &[Filling], parts: &[&Filling]) -> String {
    let mut out = String::new();
    let (mut plain, mut at) = (0, 0);
    while let Some(next) = words[at..].chars().next() {
        let begins = |spelling: &&Filling| {
            let head = words.get(at..at + spelling.value.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(&spelling.value))
        };
        let Some(found) = spellings.iter().find(begins) else {
            at += next.len_utf8();
            continue;
        };
        out.push_str(&cover_pieces(&words[plain..at], parts));
        out.push_str(&found.written);
        at += found.value.len();
        plain = at;
    }
    out + &cover_pieces(&words[plain..], parts)
}

fn cover_pieces(words: &str, parts: &[&Filling]) -> String {
    let cover = |piece: &str| {
        let lower = piece.to_ascii_lowercase();
        let is_of = |part: &&&Filling| part.value.to_ascii_lowercase().contains(&lower);
        let part = parts.iter().find(is_of).filter(|_| lower.len() >= SHORT);
        part.map_or(piece.to_owned(), |part| part.written.clone())
    };
    let pieces: Vec<String> = words.split('"').map(cover).collect();
    pieces.join("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(written: &str, value: &str) -> Filled {
        let (written, value) = (written.to_owned(), value.to_owned());
        let mut filled = Filled::default();
        filled.fill(&(10..20), "/a".to_owned(), vec![Filling { written, value }]);
        filled
    }

    #[test]
    fn words_about_a_place_say_what_stands_there() {
        let cases = [
            ("\"s3cr3t\" is no host", "\"${A}\" is no host"),
            (
                "did you mean \"0.0.0.0:S3CR3T\"?",
                "did you mean \"0.0.0.0:${A}\"?",
            ),
            ("unknown unit \"cr3t\"", "unknown unit \"${A}\""),
            ("a s3cr3t here", "a ${A} here"),
            ("from 1 to 3", "from 1 to 3"),
        ];
        for (words, wanted) in cases {
            assert_eq!(one("${A}", "s3cr3t").cover(&[&(5..30)], words), wanted);
            assert_eq!(one("${A}", "s3cr3t").cover(&[&(11..30)], words), words);
        }
    }

    #[test]
    fn a_short_value_is_covered_only_where_it_stands_alone() {
        let filled = one("${A}", "1");
        let words = filled.cover(&[&(10..20)], "\"1\" is not from 1 to 10");
        assert_eq!(words, "\"${A}\" is not from 1 to 10");
    }
}
