//! Text to a tree whose spans point into the one virtual text of all files.
//!
//! The parser recovers from faults, so that all faults of syntax are reported, not the first. Every
//! node is rebuilt with its span moved by the file's base: after that, trees of several files can
//! be merged and a span still names its file. The parser bounds the depth, which bounds every
//! recursion over the tree.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::path::Node;
use crate::problem::{Problem, Problems, Span};

/// A config file as a tree; keys and values carry their spans.
pub(super) type Tree<'t> = DeTable<'t>;

/// Faults reported for one file; a file with more is not worth listing them all.
const MOST_FAULTS: usize = 50;

/// A tree without keys.
pub(super) fn empty() -> Tree<'static> {
    DeTable::new()
}

/// The tree as one node.
pub(super) fn root(tree: Tree<'_>) -> Node<'_> {
    Spanned::new(0..0, DeValue::Table(tree))
}

/// Parses `text`, whose first byte is at `base`; pushes every fault of syntax.
pub(super) fn parse<'t>(text: &'t str, base: usize, problems: &mut Problems) -> Tree<'t> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let tree = tree.into_inner();
    for error in errors.iter().take(MOST_FAULTS) {
        let local = error.span().unwrap_or(0..0);
        let span = place(&local, base);
        let mut problem = Problem::at(&span, error.message());
        if error.message() == "duplicate key"
            && let Some(first) = first_of(text, &tree, &local)
        {
            let name = text.get(local).unwrap_or_default();
            problem.message = format!("\"{name}\" stands here twice");
            problem = problem.also(&place(&first, base), "first here");
        }
        problems.push(problem);
    }
    if errors.len() > MOST_FAULTS {
        let message = format!("{} more faults of syntax", errors.len() - MOST_FAULTS);
        problems.push(Problem::general(message));
    }
    shift_table(tree, base)
}

/// The place in the virtual text, at least one byte wide: an empty span would mean "no place".
fn place(span: &Range<usize>, base: usize) -> Span {
    base + span.start..base + span.end.max(span.start + 1)
}

fn shift<T>(span: Range<usize>, base: usize, value: T) -> Spanned<T> {
    Spanned::new(base + span.start..base + span.end, value)
}

fn shift_table(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    let entries = table.into_iter().map(|(key, value)| {
        let key = shift(key.span(), base, key.into_inner());
        (key, shift_value(value, base))
    });
    entries.collect()
}

fn shift_value(value: Spanned<DeValue<'_>>, base: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shift_table(table, base)),
        DeValue::Array(array) => {
            let mut shifted = DeArray::new();
            for element in array {
                shifted.push(shift_value(element, base));
            }
            DeValue::Array(shifted)
        }
        scalar => scalar,
    };
    shift(span, base, value)
}

/// Where the key whose second place is `again` stood first.
fn first_of(text: &str, tree: &DeTable<'_>, again: &Range<usize>) -> Option<Range<usize>> {
    let line_start = text.get(..again.start)?.rfind('\n').map_or(0, |i| i + 1);
    let header = header(text.get(line_start..)?.lines().next()?);
    match header {
        Some(header) => first_header(text.get(..line_start)?, header),
        None => {
            let name = text.get(again.clone())?;
            let section = last_header(text.get(..line_start)?);
            let mut found = Vec::new();
            candidates(text, tree, name, again.start, &mut found);
            let in_section = found.into_iter().filter(|span| span.start >= section);
            in_section.max_by_key(|span| span.start)
        }
    }
}

/// What stands in `[brackets]` if the line is a header.
fn header(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let end = line.find(']')?;
    line.starts_with('[').then(|| &line[..=end])
}

fn first_header(before: &str, wanted: &str) -> Option<Range<usize>> {
    let mut at = 0;
    for line in before.split_inclusive('\n') {
        if header(line) == Some(wanted) {
            let start = at + line.len() - line.trim_start().len();
            return Some(start..start + wanted.len());
        }
        at += line.len();
    }
    None
}

fn last_header(before: &str) -> usize {
    let mut last = 0;
    let mut at = 0;
    for line in before.split_inclusive('\n') {
        if header(line).is_some() {
            last = at;
        }
        at += line.len();
    }
    last
}

/// Keys of this name before `at`, in the tables that may be the one `at` stands in.
fn candidates(
    text: &str,
    table: &DeTable<'_>,
    name: &str,
    at: usize,
    found: &mut Vec<Range<usize>>,
) {
    for (key, value) in table {
        if key.get_ref() == name && key.span().start < at {
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
            if !inline || span.contains(&at) {
                candidates(text, inner, name, at, found);
            }
        }
    }
}
