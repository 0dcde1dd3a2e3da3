//! `${NAME}` and `${NAME:-default}` in string values, from the environment; `$$` is a `$`.
//!
//! Expansion is one pass: a value that the environment gives is taken as it is, so it cannot name
//! further variables. A missing name is an error and never an empty string, which would let a
//! secret vanish silently; a name that is set to nothing is set. Keys are not expanded.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use toml::de::{DeString, DeValue};

use super::load::Env;
use super::path::Node;
use crate::filled::{Filled, Filling};
use crate::problem::Span;

/// Expands every string value of the tree; gives the places that could not be, and why. What the
/// environment put in is kept in `filled`, and fed to `hasher`: a changed variable is a changed
/// config.
pub(super) fn expand_all(
    root: &mut Node<'_>,
    env: Env<'_>,
    filled: &mut Filled,
    hasher: &mut impl Hasher,
) -> Vec<(Span, String)> {
    let mut faults = Vec::new();
    walk(
        root,
        "",
        &mut |text, span, pointer| match expand(text, env) {
            Ok(Expanded { value, parts }) => {
                value.hash(hasher);
                filled.fill(&span, pointer.to_owned(), parts);
                *text = Cow::Owned(value);
            }
            Err(why) => faults.push((span, why)),
        },
    );
    faults
}

/// Hands every string with a `$` in it to `change`, with its place and its JSON pointer.
fn walk<'t>(
    node: &mut Node<'t>,
    pointer: &str,
    change: &mut impl FnMut(&mut DeString<'t>, Span, &str),
) {
    let span = node.span();
    match node.get_mut() {
        DeValue::String(text) if text.contains('$') => change(text, span, pointer),
        DeValue::Table(table) => {
            for (key, value) in table {
                let key = key.get_ref().replace('~', "~0").replace('/', "~1");
                walk(value, &format!("{pointer}/{key}"), change);
            }
        }
        DeValue::Array(array) => {
            for (index, value) in array.iter_mut().enumerate() {
                walk(value, &format!("{pointer}/{index}"), change);
            }
        }
        _ => {}
    }
}

/// What a string came to; and by which parts: the whole of it, then each variable.
pub(super) struct Expanded {
    pub(super) value: String,
    pub(super) parts: Vec<Filling>,
}

/// Expands one string.
///
/// # Errors
/// Says which variable is missing, or what is wrong with the text.
pub(super) fn expand(text: &str, env: Env<'_>) -> Result<Expanded, String> {
    let mut out = String::with_capacity(text.len());
    let mut variables = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = inner.find('}').ok_or("\"${\" has no \"}\"")?;
            let value = variable(&inner[..end], env)?;
            out.push_str(&value);
            let written = format!("${{{}}}", &inner[..end]);
            variables.push(Filling { written, value });
            rest = &inner[end + 1..];
        } else {
            return Err("a \"$\" is written \"$$\"; a variable is written \"${NAME}\"".to_owned());
        }
    }
    out.push_str(rest);
    let whole = Filling {
        written: text.to_owned(),
        value: out.clone(),
    };
    let parts = std::iter::once(whole).chain(variables).collect();
    Ok(Expanded { value: out, parts })
}

/// What stands between the braces: `NAME`, or `NAME:-default`.
fn variable(inner: &str, env: Env<'_>) -> Result<String, String> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(word)
    {
        return Err(format!("\"{name}\" is not the name of a variable"));
    }
    let value = env(name).or_else(|| default.map(str::to_owned));
    value.ok_or_else(|| {
        format!("the environment has no {name}; \"${{{name}:-...}}\" would give a default")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("app.internal".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn a_variable_is_filled_in_and_a_default_where_it_is_missing() {
        let cases = [
            ("${HOST}:80", "app.internal:80"),
            ("${NONE:-x}${HOST}", "xapp.internal"),
            ("${HOST:-x}", "app.internal"),
            ("${EMPTY:-x}", ""),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("$$5 and $${HOST}", "$5 and ${HOST}"),
            ("${TRICK}", "${HOST}"),
            ("plain", "plain"),
        ];
        for (text, wanted) in cases {
            let expanded = expand(text, &with).map(|expanded| expanded.value);
            assert_eq!(expanded.as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn a_missing_variable_or_a_broken_text_is_refused() {
        for text in [
            "${NONE}", "${HOST", "$HOST", "${}", "${1A}", "${a b}", "$", "${:-x}",
        ] {
            assert!(expand(text, &with).is_err(), "{text}");
        }
    }
}
