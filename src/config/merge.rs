//! Several files to one tree: named sections join, routes follow in order, the rest stands once.
//!
//! Only the top file includes, so there are no cycles and the order is plain. A name that stands
//! in two files is a problem that shows both places; the first one is kept so that what refers to
//! it is not complained about too.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::syntax::Tree;
use crate::problem::{Located, Problem, Problems};

/// The patterns of the top file's `include`; what is not a string is left to `decode`.
pub(super) fn includes(top: &Tree<'_>) -> Vec<Located<String>> {
    let patterns = top.get("include").map(Spanned::get_ref);
    let patterns = patterns.and_then(DeValue::as_array);
    let strings = patterns.into_iter().flat_map(|array| array.iter());
    let strings = strings.filter_map(|pattern| {
        let value = pattern.get_ref().as_str()?.to_owned();
        let span = pattern.span();
        Some(Located { value, span })
    });
    strings.collect()
}

/// Adds the sections of `others` to `top`.
pub(super) fn merge<'t>(
    mut top: Tree<'t>,
    others: Vec<Tree<'t>>,
    problems: &mut Problems,
) -> Tree<'t> {
    for tree in others {
        for (key, value) in tree {
            add(&mut top, key, value, problems);
        }
    }
    top
}

type Key<'t> = Spanned<DeString<'t>>;
type Value<'t> = Spanned<DeValue<'t>>;

/// Adds one section of an included file.
fn add<'t>(top: &mut Tree<'t>, key: Key<'t>, value: Value<'t>, problems: &mut Problems) {
    let name = key.get_ref().clone();
    if name == "include" {
        let problem = Problem::at(&key.span(), "an included file cannot include others");
        problems.push(problem.help("list its patterns in the top file"));
        return;
    }
    let span = value.span();
    let Some(present) = top.get_mut(name.as_ref()) else {
        top.insert(key, value);
        return;
    };
    match (name.as_ref(), present.get_mut(), value.into_inner()) {
        ("listeners" | "upstreams", DeValue::Table(present), DeValue::Table(more)) => {
            join(name.trim_end_matches('s'), present, more, problems);
        }
        ("routes", DeValue::Array(present), DeValue::Array(more)) => {
            more.into_iter().for_each(|route| present.push(route));
        }
        _ => {
            let place = if span.is_empty() { key.span() } else { span };
            let first = present.span();
            let message = format!("[{name}] stands in two files");
            problems.push(Problem::at(&place, message).also(&first, "first here"));
        }
    }
}

/// Adds named sections; a name that is there already is a problem.
fn join<'t>(kind: &str, present: &mut DeTable<'t>, more: DeTable<'t>, problems: &mut Problems) {
    for (key, value) in more {
        let first = present
            .get_key_value(key.get_ref().as_ref())
            .map(|(k, _)| k.span());
        match first {
            None => {
                present.insert(key, value);
            }
            Some(first) => {
                let message = format!("{kind} \"{}\" is defined twice", key.get_ref());
                problems.push(Problem::at(&key.span(), message).also(&first, "first here"));
            }
        }
    }
}
