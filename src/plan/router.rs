//! Host and path to a route.
//!
//! Precedence is that of the Kubernetes Gateway API: exact host before wildcard (the longer one
//! first) before any; then the more specific path; then method, number of headers, number of
//! query parameters, file order. A request that a more specific route does not take (by method,
//! header or query) falls to the next. Two routes that would take the same requests are a problem
//! that shows both. Look-up is a hash of the host and a walk down a tree of path segments, literal
//! before parameter before rest: it does not grow with the number of routes. The tree is our own,
//! since matchit refuses `/shop/{id}/image` beside `/shop/*`. Pure: no clock, no chance.

pub mod why;

use std::cmp::Reverse;
use std::collections::HashMap;

use foldhash::fast::FixedState;
use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method};

use super::pattern::{Pattern, Segment};
use crate::config::{MatchConfig, RouteConfig};
use crate::message::target;
use crate::problem::{Located, Problem, Problems, Span};

/// Finds the route of a request.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Paths, FixedState>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Paths, FixedState>,
    any: Paths,
}

/// The routes of one host, as a tree of path segments.
#[derive(Debug, Default)]
struct Paths {
    literal: HashMap<String, Paths, FixedState>,
    any: Option<Box<Paths>>,
    /// Routes whose pattern ends here, the first choice first.
    end: Vec<Candidate>,
    /// Routes whose pattern goes on with anything from here.
    open: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    route: usize,
    rules: Rules,
}

/// In canonical order, so that equal rules are equal however they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
    query: Vec<(String, Option<String>)>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// This route takes the request.
    Route(usize),
    /// Routes match host and path, but none this method: the methods that would do.
    Methods(Vec<Method>),
    /// No route.
    Nothing,
}

/// What of a request decides.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Canonical host, without port.
    pub host: &'a str,
    /// Canonical path.
    pub path: &'a str,
    /// The query, if any.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The fields.
    pub headers: &'a HeaderMap,
}

impl Router {
    /// Compiles the `match` of every route. Pushes every problem.
    pub fn compile(routes: &[RouteConfig], problems: &mut Problems) -> Router {
        let mut hosts: HashMap<HostKey, Vec<Entry>, FixedState> = HashMap::default();
        for (route, config) in routes.iter().enumerate() {
            let Some((host, entry)) = Entry::compile(route, config, problems) else {
                continue;
            };
            hosts.entry(host).or_default().push(entry);
        }
        let mut router = Router::default();
        for (host, entries) in hosts {
            let paths = Paths::compile(entries, problems);
            match host {
                HostKey::Any => router.any = paths,
                HostKey::Exact(name) => drop(router.exact.insert(name, paths)),
                HostKey::Below(suffix) => drop(router.wildcard.insert(suffix, paths)),
            }
        }
        router
    }

    /// The route of a request.
    pub fn find(&self, question: Question<'_>) -> Found {
        let mut methods = Vec::new();
        for paths in self.hosts(question.host) {
            if let Some(route) = paths.find(question.path.strip_prefix('/'), question, &mut methods)
            {
                return Found::Route(route);
            }
        }
        if methods.is_empty() {
            Found::Nothing
        } else {
            Found::Methods(methods)
        }
    }

    /// The exact host, then ever shorter wildcards, then any.
    fn hosts<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Paths> {
        let exact = (!self.exact.is_empty())
            .then(|| self.exact.get(host))
            .flatten();
        let below = (!self.wildcard.is_empty()).then(|| {
            let suffixes = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
            suffixes.filter_map(|suffix| self.wildcard.get(suffix))
        });
        exact
            .into_iter()
            .chain(below.into_iter().flatten())
            .chain([&self.any])
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum HostKey {
    Exact(String),
    Below(String),
    Any,
}

/// A route's `match`, compiled but not yet placed.
struct Entry {
    route: usize,
    id: Located<String>,
    span: Span,
    pattern: Pattern,
    rules: Rules,
}

impl Entry {
    fn compile(
        route: usize,
        config: &RouteConfig,
        problems: &mut Problems,
    ) -> Option<(HostKey, Entry)> {
        let matches = &config.matches;
        let host = host_key(matches.host.as_ref(), problems);
        let pattern = match &matches.path {
            Some(path) => Pattern::parse(path, problems),
            None => Some(Pattern::everything()),
        };
        let rules = Rules::compile(matches, problems);
        let id = config.id.clone();
        Some((
            host?,
            Entry {
                route,
                id,
                span: matches.span.clone(),
                pattern: pattern?,
                rules,
            },
        ))
    }

    /// The better choice is the smaller.
    fn rank(&self) -> (bool, Reverse<usize>, Reverse<usize>, usize) {
        let rules = &self.rules;
        (
            rules.methods.is_empty(),
            Reverse(rules.headers.len()),
            Reverse(rules.query.len()),
            self.route,
        )
    }
}

fn host_key(host: Option<&Located<String>>, problems: &mut Problems) -> Option<HostKey> {
    let Some(host) = host else {
        return Some(HostKey::Any);
    };
    let (name, below) = match host.value.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (host.value.as_str(), false),
    };
    match target::host(name) {
        Some(target::Host { name, port: None }) if below => Some(HostKey::Below(name.into_owned())),
        Some(target::Host { name, port: None }) => Some(HostKey::Exact(name.into_owned())),
        Some(_) => {
            let problem = Problem::at(&host.span, "a host is matched without its port");
            problems.push(problem);
            None
        }
        None => {
            let problem = Problem::at(&host.span, format!("\"{}\" is no host", host.value));
            problems.push(problem.help("such as \"api.example.com\" or \"*.example.com\""));
            None
        }
    }
}

impl Rules {
    fn compile(config: &MatchConfig, problems: &mut Problems) -> Rules {
        let any = |value: &Located<String>| (value.value != "*").then(|| value.value.clone());
        let methods = config.methods.iter();
        let mut methods: Vec<Method> = methods
            .filter_map(|m| Method::from_bytes(m.value.as_bytes()).ok())
            .collect();
        if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
            methods.push(Method::HEAD);
        }
        methods.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        let headers = config.headers.iter().filter_map(|(name, value)| {
            let parsed = HeaderName::from_bytes(name.value.as_bytes());
            let value = any(value).map(|v| HeaderValue::from_str(&v)).transpose();
            match (parsed, value) {
                (Ok(header), Ok(value)) => Some((name, header, value)),
                _ => {
                    let message = format!("\"{}\" is not a header that can be matched", name.value);
                    problems.push(Problem::at(&name.span, message));
                    None
                }
            }
        });
        let mut headers: Vec<_> = headers.collect();
        headers.sort_by(|(_, a, _), (_, b, _)| a.as_str().cmp(b.as_str()));
        for twice in headers.windows(2).filter(|two| two[0].1 == two[1].1) {
            let message = format!("the header \"{}\" is matched twice", twice[1].1);
            let problem = Problem::at(&twice[1].0.span, message);
            problems.push(problem.also(&twice[0].0.span, "also here"));
        }
        let headers = headers
            .into_iter()
            .map(|(_, name, value)| (name, value))
            .collect();
        let query = config
            .query
            .iter()
            .map(|(name, v)| (name.value.clone(), any(v)))
            .collect();
        Rules {
            methods,
            headers,
            query,
        }
    }

    /// Every value is looked at by itself, never the join of several lines.
    fn accept(&self, question: Question<'_>) -> bool {
        self.headers.iter().all(|rule| has_header(rule, question))
            && self.query.iter().all(|rule| has_parameter(rule, question))
    }

    fn accept_method(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }
}

fn has_header((name, wanted): &(HeaderName, Option<HeaderValue>), question: Question<'_>) -> bool {
    let mut values = question.headers.get_all(name).iter();
    match wanted {
        None => values.next().is_some(),
        Some(wanted) => values.any(|value| value == wanted),
    }
}

fn has_parameter((name, wanted): &(String, Option<String>), question: Question<'_>) -> bool {
    parameters(question.query.unwrap_or(""))
        .any(|(key, value)| key == name && wanted.as_ref().is_none_or(|wanted| wanted == value))
}

/// The parameters of a query as they are written: nothing is decoded.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

impl Paths {
    fn compile(mut entries: Vec<Entry>, problems: &mut Problems) -> Paths {
        entries.sort_by_key(Entry::rank);
        report_twins(&entries, problems);
        let mut paths = Paths::default();
        for Entry {
            route,
            pattern,
            rules,
            ..
        } in entries
        {
            let (segments, open) = pattern.parts();
            let place = segments
                .iter()
                .fold(&mut paths, |at, segment| match segment {
                    Segment::Literal(text) => at.literal.entry(text.clone()).or_default(),
                    Segment::Any => at.any.get_or_insert_default(),
                });
            let list = if open {
                &mut place.open
            } else {
                &mut place.end
            };
            list.push(Candidate { route, rules });
        }
        paths
    }

    /// Goes down while `rest`, what follows a slash, has segments, the more specific way first. As
    /// deep as the patterns go, whatever the path.
    fn find(
        &self,
        rest: Option<&str>,
        question: Question<'_>,
        methods: &mut Vec<Method>,
    ) -> Option<usize> {
        let here = match rest {
            None => choose(&self.end, question, methods),
            Some(rest) => {
                let (segment, rest) = match rest.split_once('/') {
                    Some((segment, rest)) => (segment, Some(rest)),
                    None => (rest, None),
                };
                let literal = self.literal.get(segment);
                let any = self.any.as_deref().filter(|_| !segment.is_empty());
                literal
                    .and_then(|paths| paths.find(rest, question, methods))
                    .or_else(|| any.and_then(|paths| paths.find(rest, question, methods)))
            }
        };
        here.or_else(|| choose(&self.open, question, methods))
    }
}

/// The first of these that takes the request; the methods of those that only lack that.
fn choose(
    candidates: &[Candidate],
    question: Question<'_>,
    methods: &mut Vec<Method>,
) -> Option<usize> {
    for Candidate { route, rules } in candidates {
        if rules.accept(question) {
            if rules.accept_method(question.method) {
                return Some(*route);
            }
            methods.extend(rules.methods.iter().cloned());
        }
    }
    None
}

/// Two routes with the same pattern and the same rules: only file order would decide.
fn report_twins(entries: &[Entry], problems: &mut Problems) {
    let mut seen: HashMap<String, &Entry, FixedState> = HashMap::default();
    for entry in entries {
        let key = format!("{:?} {:?}", entry.pattern, entry.rules);
        if let Some(first) = seen.insert(key, entry) {
            let (first, second) = if first.route < entry.route {
                (first, entry)
            } else {
                (entry, first)
            };
            let message = format!(
                "routes \"{}\" and \"{}\" match the same requests",
                first.id.value, second.id.value
            );
            let place = |e: &Entry| {
                if e.span.is_empty() {
                    e.id.span.clone()
                } else {
                    e.span.clone()
                }
            };
            let problem = Problem::at(&place(second), message).also(&place(first), "also here");
            problems.push(problem.help("tell them apart by host, path, method, header or query"));
        }
    }
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
