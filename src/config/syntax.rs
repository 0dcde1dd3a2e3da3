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
use super::twice::{self, TWICE, Twice};
use crate::problem::{Problem, Problems, Span};

/// A config file as a tree; keys and values carry their spans.
pub(super) type Tree<'t> = DeTable<'t>;

/// Faults reported for one file; a file with more is not worth listing them all.
const MOST_FAULTS: usize = 50;
/// Bytes of a text above which only the first fault of syntax is told.
const LONG: usize = 256 << 10;

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
    let (tree, errors) = recover(text);
    let told = &errors[..errors.len().min(MOST_FAULTS)];
    let repeated = twice::repeated_headers(text, told);
    for error in told {
        let local = error.span().unwrap_or(0..0);
        let mut problem = Problem::at(&place(text, &local, base), error.message());
        if error.message() == TWICE {
            let twice = Twice::new(text, &local);
            // the keys of a table that stands twice are not the fault
            if twice.header.is_none() && repeated.contains(&twice.section) {
                continue;
            }
            problem.message = format!("\"{}\" stands here twice", twice.name);
            if let Some(first) = twice.first(text, &tree) {
                problem = problem.also(&place(text, &first, base), "first here");
            }
        }
        problems.push(problem);
    }
    if errors.len() > MOST_FAULTS {
        let message = format!("{} more faults of syntax", errors.len() - MOST_FAULTS);
        problems.push(Problem::general(message));
    }
    shift_table(tree, base)
}

/// The tree as far as it can be made out, and all faults; of a long text the first one alone, since
/// each fault takes memory and junk has millions.
fn recover(text: &str) -> (Tree<'_>, Vec<toml::de::Error>) {
    if text.len() <= LONG {
        let (tree, errors) = DeTable::parse_recoverable(text);
        return (tree.into_inner(), errors);
    }
    match DeTable::parse(text) {
        Ok(tree) => (tree.into_inner(), Vec::new()),
        Err(error) => (empty(), vec![error]),
    }
}

/// The place in the virtual text, at least one byte wide: an empty span would mean "no place". The
/// end of a line is shown at its last character.
fn place(text: &str, span: &Range<usize>, base: usize) -> Span {
    let before = text.get(..span.start).and_then(|t| t.chars().next_back());
    let at_line_end = text
        .get(span.start..)
        .is_some_and(|t| t.starts_with(['\n', '\r']));
    match before {
        Some(last) if at_line_end && last != '\n' => {
            base + span.start - last.len_utf8()..base + span.start
        }
        _ => base + span.start..base + span.end.max(span.start + 1),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Sources;

    fn faults(text: &str) -> String {
        let mut sources = Sources::default();
        let base = sources.add("x.toml".into(), text.to_owned());
        let mut problems = Problems::new();
        parse(text, base, &mut problems);
        problems.render(&sources, false)
    }

    #[test]
    fn the_spans_of_a_second_file_point_behind_the_first() {
        let mut problems = Problems::new();
        let tree = parse("a = { b = [1] }", 100, &mut problems);
        let (key, value) = tree.get_key_value("a").expect("the key is there");
        assert_eq!((key.span(), value.span()), (100..101, 104..115));
        let one = value.get_ref().get("b").and_then(|b| b.get_ref().get(0));
        assert_eq!(one.map(Spanned::span), Some(111..112));
    }

    #[test]
    fn no_depth_overflows_the_stack_and_each_is_refused() {
        let depth = 100_000;
        let nested = [
            format!("a = {}", "[".repeat(depth)),
            format!("a = {}", "{a=".repeat(depth)),
            format!("{}a = 1", "a.".repeat(depth)),
            format!("[{}a]", "a.".repeat(depth)),
            format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)),
        ];
        for text in nested {
            let shown = faults(&text);
            assert!(shown.contains("x.toml:1:"), "{shown}");
        }
    }

    #[test]
    fn what_stands_twice_is_shown_at_both_places() {
        let texts = [
            "a = 1\na = 2\n",
            "\"a\" = 1\na = 2\n",
            "t = { a = 1, b = 2, a = 3 }\n",
            "[t]\nx = { a = 1 }\na = 1\n[[r]]\na = 1\na = 2\n",
            "[[r]]\n[r.m]\n[[r]]\n[r.m]\n[r.m]\n",
            "[t.u]\na = 1\n[u]\n[t.u]\na = 2\n",
        ];
        for text in texts {
            let shown = faults(text);
            assert!(shown.contains("stands here twice"), "{shown}");
            assert!(shown.contains("first here"), "{shown}");
            assert!(shown.ends_with("\n1 problem\n"), "{shown}");
        }
        // where the first place is not found, the fault is still told
        let dotted = faults("a.b = 1\na.b = 2\n[ q ]\n[q]\n");
        assert!(dotted.ends_with("\n2 problems\n"), "{dotted}");
    }
}
