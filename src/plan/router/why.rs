//! Why a route does not take a request: for `explain`, never for a request.
//!
//! Each route is judged by itself, with the same parts that the tree is made of; who stands before
//! whom is told by the first of the rules of precedence in which they differ.

use std::cmp::Ordering;
use std::fmt;

use http::{HeaderName, Method};

use super::{Entry, HostKey, Question};
use crate::config::RouteConfig;
use crate::plan::pattern::{Pattern, Segment};
use crate::problem::Problems;

/// What keeps a route from taking a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Another host.
    Host,
    /// Another path.
    Path,
    /// This field is missing, or has another value.
    Header(HeaderName),
    /// This parameter is missing, or has another value.
    Query(String),
    /// Another method.
    Method(Vec<Method>),
    /// It would take it, but the one that does stands before it, by this rule.
    Behind(&'static str),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Host => f.write_str("another host"),
            Why::Path => f.write_str("another path"),
            Why::Header(name) => write!(f, "header {name} is missing or differs"),
            Why::Query(name) => write!(f, "query parameter {name} is missing or differs"),
            Why::Method(methods) => {
                let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
                write!(f, "only for {}", names.join(", "))
            }
            Why::Behind(rule) => write!(f, "would match, but {rule}"),
        }
    }
}

/// For each route but the `winner`: why it does not take the request.
pub fn others(
    routes: &[RouteConfig],
    question: Question<'_>,
    winner: Option<usize>,
) -> Vec<(usize, Why)> {
    let compiled: Vec<Option<(HostKey, Entry)>> = routes
        .iter()
        .enumerate()
        .map(|(route, config)| Entry::compile(route, config, &mut Problems::new()))
        .collect();
    let winner = winner.and_then(|index| compiled[index].as_ref());
    let told = compiled.iter().enumerate().filter_map(|(index, route)| {
        let (host, entry) = route.as_ref()?;
        if winner.is_some_and(|(_, winner)| winner.route == index) {
            return None;
        }
        let why = why_not(host, entry, question)
            .or_else(|| winner.map(|winner| Why::Behind(behind(winner, (host, entry), question))));
        Some((index, why?))
    });
    told.collect()
}

fn why_not(host: &HostKey, entry: &Entry, question: Question<'_>) -> Option<Why> {
    if !host.takes(question.host) {
        return Some(Why::Host);
    }
    if !entry.pattern.takes(question.path) {
        return Some(Why::Path);
    }
    let rules = &entry.rules;
    if let Some((name, _)) = rules
        .headers
        .iter()
        .find(|h| !super::has_header(h, question))
    {
        return Some(Why::Header(name.clone()));
    }
    if let Some((name, _)) = rules
        .query
        .iter()
        .find(|q| !super::has_parameter(q, question))
    {
        return Some(Why::Query(name.clone()));
    }
    (!rules.accept_method(question.method)).then(|| Why::Method(rules.methods.clone()))
}

/// The first rule of precedence by which the winner stands before the other.
fn behind(
    winner: &(HostKey, Entry),
    other: (&HostKey, &Entry),
    question: Question<'_>,
) -> &'static str {
    let (winner_host, winner) = winner;
    let (other_host, other) = other;
    if winner_host.rank(question.host) != other_host.rank(question.host) {
        return "the other's host is more specific";
    }
    if winner.pattern.compare(&other.pattern) != Ordering::Equal {
        return "the other's path is more specific";
    }
    let (a, b) = (&winner.rules, &other.rules);
    if a.methods.is_empty() != b.methods.is_empty() {
        "the other names methods"
    } else if a.headers.len() != b.headers.len() {
        "the other asks for more header fields"
    } else if a.query.len() != b.query.len() {
        "the other asks for more query parameters"
    } else {
        "the other stands before it in the file"
    }
}

impl HostKey {
    fn takes(&self, host: &str) -> bool {
        match self {
            HostKey::Any => true,
            HostKey::Exact(name) => name == host,
            HostKey::Below(suffix) => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| rest.ends_with('.') && rest.len() > 1),
        }
    }

    /// The more specific is the greater.
    fn rank(&self, host: &str) -> usize {
        match self {
            HostKey::Any => 0,
            HostKey::Below(suffix) => suffix.len(),
            HostKey::Exact(_) => host.len() + 1,
        }
    }
}

impl Pattern {
    /// Whether the pattern, by itself, takes a path.
    fn takes(&self, path: &str) -> bool {
        let (segments, open) = self.parts();
        let mut rest = path.strip_prefix('/');
        for segment in segments {
            let Some(text) = rest else { return false };
            let (head, tail) = match text.split_once('/') {
                Some((head, tail)) => (head, Some(tail)),
                None => (text, None),
            };
            let same = match segment {
                Segment::Literal(literal) => literal == head,
                Segment::Any => !head.is_empty(),
            };
            if !same {
                return false;
            }
            rest = tail;
        }
        open || rest.is_none()
    }

    /// Of two patterns that take the same path, the more specific is the less: literal before
    /// parameter, segment by segment, then the longer one, then the one that does not go on.
    fn compare(&self, other: &Pattern) -> Ordering {
        let ((a, a_open), (b, b_open)) = (self.parts(), other.parts());
        for (x, y) in a.iter().zip(b) {
            match (x, y) {
                (Segment::Literal(_), Segment::Any) => return Ordering::Less,
                (Segment::Any, Segment::Literal(_)) => return Ordering::Greater,
                _ => {}
            }
        }
        b.len().cmp(&a.len()).then(a_open.cmp(&b_open))
    }
}
