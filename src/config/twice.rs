//! The two places of a key or a table that stands twice in one file.
//!
//! The parser names only the second one, so the first is looked for: a table by its header, a key
//! by its name within the section. Where it cannot be found, the second place alone is told: this
//! never decides whether something is wrong.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::syntax::Tree;

/// The message of the parser for a key or a table that stands twice.
pub(super) const TWICE: &str = "duplicate key";

/// Where the headers begin whose table stood before.
pub(super) fn repeated_headers(text: &str, errors: &[toml::de::Error]) -> Vec<usize> {
    let twice = errors.iter().filter(|error| error.message() == TWICE);
    let twice = twice.map(|error| Twice::new(text, &error.span().unwrap_or(0..0)));
    let headers = twice.filter(|twice| twice.header.is_some());
    headers.map(|twice| twice.line).collect()
}

/// The second place of a key or a table.
pub(super) struct Twice<'t> {
    /// The key, without quotes.
    pub(super) name: &'t str,
    at: usize,
    /// Where its line begins.
    line: usize,
    /// The header it stands in, if it is a table.
    pub(super) header: Option<&'t str>,
    /// Where the header above it begins.
    pub(super) section: usize,
}

impl<'t> Twice<'t> {
    /// From the place that the parser names.
    pub(super) fn new(text: &'t str, again: &Range<usize>) -> Self {
        let before = text.get(..again.start).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |i| i + 1);
        let (above, from_line) = text.split_at(line);
        Twice {
            name: text
                .get(again.clone())
                .unwrap_or_default()
                .trim_matches(['"', '\'']),
            at: again.start,
            line,
            header: from_line.lines().next().and_then(header),
            section: headers(above).last().map_or(0, |(at, _)| at),
        }
    }

    /// Where it stood before; the nearest place, since tables of an array share their headers.
    pub(super) fn first(&self, text: &str, tree: &Tree<'_>) -> Option<Range<usize>> {
        if let Some(wanted) = self.header {
            let same = headers(text.get(..self.line)?).filter(|(_, header)| *header == wanted);
            return same.last().map(|(at, header)| at..at + header.len());
        }
        let mut found = Vec::new();
        self.candidates(text, tree, &mut found);
        let in_section = found.into_iter().filter(|span| span.start >= self.section);
        in_section.max_by_key(|span| span.start)
    }

    /// Keys of this name further up, in the tables that may be the one it stands in.
    fn candidates(&self, text: &str, table: &DeTable<'_>, found: &mut Vec<Range<usize>>) {
        for (key, value) in table {
            if key.get_ref() == self.name && key.span().start < self.at {
                found.push(key.span());
            }
            let elements = match value.get_ref() {
                DeValue::Array(array) => array.as_ref(),
                _ => std::slice::from_ref(value),
            };
            for element in elements {
                let DeValue::Table(inner) = element.get_ref() else {
                    continue;
                };
                let span = element.span();
                let inline = text.get(span.clone()).is_some_and(|t| t.starts_with('{'));
                if !inline || span.contains(&self.at) {
                    self.candidates(text, inner, found);
                }
            }
        }
    }
}

/// The headers of a text with the place of each.
fn headers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    let lines = text.split_inclusive('\n').map(move |line| {
        let start = at + line.len() - line.trim_start().len();
        at += line.len();
        (start, header(line))
    });
    lines.filter_map(|(start, header)| Some((start, header?)))
}

/// What stands in `[brackets]` if the line is a header.
fn header(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let end = line.find(']')?;
    line.starts_with('[').then(|| &line[..=end])
}
