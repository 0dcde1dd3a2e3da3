//! The path patterns of `match.path`, as text and as segments.
//!
//! `/exact`, `/prefix/*` and `{name}` for one whole segment. Two patterns that differ only in the
//! names of their parameters are one. No I/O, no state; the order of precedence is the router's.

use crate::message::target;
use crate::problem::{Located, Problem, Problems};

/// A compiled path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// The pattern ends in `/*`.
    open: bool,
}

/// One part of a pattern, between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This text.
    Literal(String),
    /// Any text but none.
    Any,
}

impl Pattern {
    /// `/*`: every path.
    pub fn everything() -> Self {
        Pattern {
            segments: Vec::new(),
            open: true,
        }
    }

    /// Reads a pattern; what is wrong with it is a problem at its place.
    pub fn parse(text: &Located<String>, problems: &mut Problems) -> Option<Self> {
        let mut refuse = |message: &str, help: &str| {
            problems.push(Problem::at(&text.span, message).help(help));
        };
        let (body, open) = match text.value.strip_suffix("/*") {
            Some(body) => (body, true),
            None => (text.value.as_str(), false),
        };
        if body.contains('*') {
            refuse(
                "a \"*\" stands only at the end, after a \"/\"",
                "such as \"/v1/*\"",
            );
            return None;
        }
        if !(body.starts_with('/') || (open && body.is_empty())) {
            refuse("a path begins with \"/\"", "such as \"/v1/*\"");
            return None;
        }
        let mut segments = Vec::new();
        for segment in body.split('/').skip(1) {
            let name = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
            let is_name = |n: &str| n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            match name {
                Some(name) if !name.is_empty() && is_name(name) => segments.push(Segment::Any),
                None if !segment.contains(['{', '}']) => {
                    segments.push(Segment::Literal(segment.to_owned()));
                }
                _ => {
                    refuse(
                        "a parameter is one whole segment",
                        "such as \"/shop/{id}/image\"",
                    );
                    return None;
                }
            }
        }
        let plain = body.replace(['{', '}'], "");
        if !plain.is_empty() && target::path(&plain).as_deref() != Some(plain.as_str()) {
            let help = "without \"//\", dot segments and needless percent-encodings";
            refuse("a path is written in its canonical form", help);
            return None;
        }
        Some(Pattern { segments, open })
    }

    /// What stands before the `*`, for a pattern without parameters that ends in one.
    pub fn prefix(&self) -> Option<String> {
        let literal = self.segments.iter().map(|s| match s {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Any => None,
        });
        let parts: Option<Vec<&str>> = literal.collect();
        let parts = parts.filter(|_| self.open)?;
        Some(
            parts
                .iter()
                .fold(String::from("/"), |path, part| path + part + "/"),
        )
    }

    /// The segments, and whether anything may follow them.
    pub fn parts(&self) -> (&[Segment], bool) {
        (&self.segments, self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        let mut problems = Problems::new();
        let located = Located {
            value: text.to_owned(),
            span: 1..2,
        };
        Pattern::parse(&located, &mut problems).unwrap_or_else(|| panic!("{text} does not parse"))
    }

    #[test]
    fn a_pattern_is_its_segments_and_what_may_follow() {
        let literal = |text: &str| Segment::Literal(text.to_owned());
        let cases = [
            ("/*", vec![], true),
            ("/", vec![literal("")], false),
            ("/v1/*", vec![literal("v1")], true),
            ("/a/", vec![literal("a"), literal("")], false),
            (
                "/shop/{id}/image",
                vec![literal("shop"), Segment::Any, literal("image")],
                false,
            ),
        ];
        for (text, segments, open) in cases {
            assert_eq!(pattern(text).parts(), (segments.as_slice(), open), "{text}");
        }
        assert_eq!(pattern("/v1/*").prefix().as_deref(), Some("/v1/"));
        assert_eq!(pattern("/*").prefix().as_deref(), Some("/"));
        assert_eq!(pattern("/v1/{x}/*").prefix(), None);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "", "a", "*", "/a*", "/*/b", "/{}", "/a{x}", "/{a-b}", "/a//b", "/../a", "/a b",
        ] {
            let mut problems = Problems::new();
            let located = Located {
                value: text.to_owned(),
                span: 1..2,
            };
            assert!(Pattern::parse(&located, &mut problems).is_none(), "{text}");
            assert_eq!(problems.len(), 1, "{text}");
        }
    }
}
