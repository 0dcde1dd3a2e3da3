//! What tells stored answers apart: `key = ["host", "path", "query"]`.
//!
//! The parts of a request are written one after the other, each behind its length, so that no value
//! can run into the next (CASES I05), and hashed to 128 bits under keys drawn at the start, so that
//! nobody outside can aim two requests at one. What was hashed is kept and compared on a hit. Scheme
//! and route always count: two routes never share an answer.
//!
//! A key must not be coarser than what the upstream sees (CASES I04): where parameters of the query
//! are left out or sorted, the request that fills the cache is sent that way too.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Uri, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{Request, key as part, target};
use crate::problem::{Located, Problem, Problems};

/// What of the query counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueryConfig {
    /// Only these parameters; a name may end in `*`. Default: all of them.
    pub include: Vec<Located<String>>,
    /// All but these; a name may end in `*`. Default: none.
    pub exclude: Vec<Located<String>>,
    /// Their order does not count. Default false.
    pub sort: bool,
}

/// The key of a stored answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    hash: u128,
    parts: Vec<u8>,
}

impl Key {
    /// The 128 bits.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The parts that were hashed, each behind its length.
    pub fn parts(&self) -> &[u8] {
        &self.parts
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:032x})", self.hash)
    }
}

/// The two secrets that keys are hashed under: one pair for the process.
#[derive(Debug, Clone, Default)]
pub struct Secrets(RandomState, RandomState);

impl Secrets {
    fn hash(&self, bytes: &[u8]) -> u128 {
        let half = |by: &RandomState| {
            let mut hasher = by.build_hasher();
            hasher.write(bytes);
            u128::from(hasher.finish())
        };
        half(&self.0) << 64 | half(&self.1)
    }

    /// Half as long, for tables of marks.
    pub fn mark(&self, kind: u8, parts: &[&[u8]]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u8(kind);
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish()
    }
}

/// A compiled key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyPlan {
    route: Box<[u8]>,
    parts: Box<[Part]>,
    query: Option<QueryPlan>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Host,
    Path,
    Query,
    Header(HeaderName),
    Cookie(Box<str>),
    Parameter(Box<str>),
}

/// Which parameters of a query count, and whether their order does.
#[derive(Debug, Clone, PartialEq)]
struct QueryPlan {
    /// Those that are listed, or all the others.
    listed: bool,
    names: Box<[Box<str>]>,
    sort: bool,
}

impl KeyPlan {
    /// Compiles the words of a route's key; without words it is host, path and query. Pushes every
    /// problem.
    pub fn compile(
        route: &str,
        words: Option<&Located<Vec<Located<String>>>>,
        query: Option<&QueryConfig>,
        problems: &mut Problems,
    ) -> Option<KeyPlan> {
        let before = problems.len();
        let parts: Vec<Part> = match words {
            None => vec![Part::Host, Part::Path, Part::Query],
            Some(words) => {
                if words.value.is_empty() {
                    let problem = Problem::at(&words.span, "a key of nothing");
                    problems.push(problem.help("leave the key out for host, path and query"));
                }
                let parts = words.value.iter().filter_map(|word| read(word, problems));
                parts.collect()
            }
        };
        let query = query.and_then(|query| QueryPlan::compile(query, problems));
        (problems.len() == before).then(|| KeyPlan {
            route: route.as_bytes().into(),
            parts: parts.into(),
            query,
        })
    }

    /// The key of a request. `target` is its target as the upstream is to see it.
    pub fn of(&self, request: &Request, scheme: &str, secrets: &Secrets) -> Key {
        let mut bytes = Vec::with_capacity(160);
        push(&mut bytes, Some(scheme.as_bytes()));
        push(&mut bytes, Some(&self.route));
        for part in &self.parts {
            match part {
                Part::Host => push(&mut bytes, host(request.headers()).as_deref()),
                Part::Path => push(&mut bytes, Some(request.uri().path().as_bytes())),
                Part::Query => {
                    let query = self.query_of(request.uri());
                    push(&mut bytes, query.as_deref().map(str::as_bytes));
                }
                Part::Header(name) => {
                    push(&mut bytes, part::header_value(request, name).as_deref());
                }
                Part::Cookie(name) => push(&mut bytes, part::cookie(request, name)),
                Part::Parameter(name) => push(&mut bytes, part::query(request, name)),
            }
        }
        let hash = secrets.hash(&bytes);
        Key { hash, parts: bytes }
    }

    /// The query as it counts; borrowed where nothing is changed.
    fn query_of<'r>(&self, uri: &'r Uri) -> Option<Cow<'r, str>> {
        let query = uri.query()?;
        match &self.query {
            None => Some(query.into()),
            Some(plan) => plan.apply(query),
        }
    }

    /// The target with the query as it counts; `None` where that is the one it has.
    pub fn target(&self, uri: &Uri) -> Option<Uri> {
        self.query.as_ref()?;
        let query = self.query_of(uri);
        if query.as_deref() == uri.query() {
            return None;
        }
        let text = match query {
            Some(query) => format!("{}?{query}", uri.path()),
            None => uri.path().to_owned(),
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// The same for every request with the same host and target, whatever its fields.
    pub fn is_by_url(&self) -> bool {
        let plain = |part: &Part| !matches!(part, Part::Header(_) | Part::Cookie(_));
        self.parts.iter().all(plain)
    }

    /// The fields that count, beside the target.
    pub fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts.iter().filter_map(|part| match part {
            Part::Header(name) => Some(name),
            Part::Cookie(_) => Some(&header::COOKIE),
            Part::Host | Part::Path | Part::Query | Part::Parameter(_) => None,
        })
    }

    /// As an operator is shown it: `host=a.test path=/x query=(none)`.
    pub fn shown(&self, request: &Request) -> String {
        let text = |value: Option<Cow<'_, [u8]>>| {
            value.map_or_else(
                || "(none)".to_owned(),
                |v| String::from_utf8_lossy(&v).into_owned(),
            )
        };
        let parts = self.parts.iter().map(|part| match part {
            Part::Host => format!("host={}", text(host(request.headers()))),
            Part::Path => format!("path={}", request.uri().path()),
            Part::Query => {
                let query = self.query_of(request.uri());
                format!("query={}", query.as_deref().unwrap_or("(none)"))
            }
            Part::Header(name) => {
                format!("header:{name}={}", text(part::header_value(request, name)))
            }
            Part::Cookie(name) => {
                let value = part::cookie(request, name).map(Cow::Borrowed);
                format!("cookie:{name}={}", text(value))
            }
            Part::Parameter(name) => {
                let value = part::query(request, name).map(Cow::Borrowed);
                format!("query:{name}={}", text(value))
            }
        });
        parts.collect::<Vec<_>>().join(" ")
    }
}

/// Host in the form routing saw, with its port where one is named.
pub fn host(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let text = headers.get(header::HOST)?.to_str().ok()?;
    let host = target::host(text)?;
    Some(match (host.name, host.port) {
        (Cow::Borrowed(name), None) => Cow::Borrowed(name.as_bytes()),
        (Cow::Owned(name), None) => Cow::Owned(name.into_bytes()),
        (name, Some(port)) => Cow::Owned(format!("{name}:{port}").into_bytes()),
    })
}

fn push(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    let length = value.map_or(u32::MAX, |v| u32::try_from(v.len()).unwrap_or(u32::MAX - 1));
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(value.unwrap_or_default());
}

fn read(word: &Located<String>, problems: &mut Problems) -> Option<Part> {
    let (kind, name) = word.value.split_once(':').unwrap_or((&word.value, ""));
    let part = match (kind, name) {
        ("host", "") => Some(Part::Host),
        ("path", "") => Some(Part::Path),
        ("query", "") => Some(Part::Query),
        ("header", name) => HeaderName::try_from(name).ok().map(Part::Header),
        ("cookie", name) if part::is_name(name) => Some(Part::Cookie(name.into())),
        ("query", name) if part::is_name(name) => Some(Part::Parameter(name.into())),
        _ => None,
    };
    if part.is_none() {
        let message = format!("\"{}\" is nothing to tell answers apart by", word.value);
        let help = "one of host, path, query, header:NAME, cookie:NAME, query:NAME";
        problems.push(Problem::at(&word.span, message).help(help));
    }
    part
}

impl QueryPlan {
    fn compile(config: &QueryConfig, problems: &mut Problems) -> Option<QueryPlan> {
        if let (Some(include), Some(exclude)) = (config.include.first(), config.exclude.first()) {
            let problem = Problem::at(&exclude.span, "include and exclude at once");
            problems.push(
                problem
                    .also(&include.span, "include")
                    .help("give one of them"),
            );
        }
        let listed = !config.include.is_empty();
        let names = config.include.iter().chain(&config.exclude);
        for name in names.clone() {
            if !part::is_name(name.trim_end_matches('*')) && name.value != "*" {
                let message = format!("\"{}\" cannot name a parameter", name.value);
                problems.push(Problem::at(&name.span, message));
            }
        }
        let names: Box<[Box<str>]> = names.map(|name| name.value.as_str().into()).collect();
        (listed || config.sort || !names.is_empty()).then_some(QueryPlan {
            listed,
            names,
            sort: config.sort,
        })
    }

    fn keeps(&self, pair: &str) -> bool {
        let name = pair.split('=').next().unwrap_or(pair);
        let found = self
            .names
            .iter()
            .any(|known| match known.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == &**known,
            });
        found == self.listed
    }

    /// `None` where nothing is left.
    fn apply<'q>(&self, query: &'q str) -> Option<Cow<'q, str>> {
        let mut pairs: Vec<&str> = query.split('&').filter(|p| self.keeps(p)).collect();
        if self.sort {
            // The sort is stable: of one name, the order of values stays.
            pairs.sort_by_key(|pair| pair.split('=').next());
        }
        (!pairs.is_empty()).then(|| Cow::Owned(pairs.join("&")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::message::Body;

    fn plan(section: &str) -> Option<KeyPlan> {
        #[derive(Deserialize)]
        struct Section {
            key: Option<Located<Vec<Located<String>>>>,
            query: Option<QueryConfig>,
        }
        let section: Section = toml::from_str(section).expect("a section");
        let (key, query) = (section.key.as_ref(), section.query.as_ref());
        KeyPlan::compile("r", key, query, &mut Problems::new())
    }

    fn request(host: &str, target: &str) -> Request {
        let mut request = Box::new(http::Request::new(Body::empty()));
        *request.uri_mut() = target.parse().expect("a target");
        let host = http::HeaderValue::from_str(host).expect("a host");
        request.headers_mut().insert(header::HOST, host);
        request
    }

    #[test]
    fn i01_i04_what_an_upstream_sees_differently_has_another_key() {
        let (plan, secrets) = (plan("").expect("a plan"), Secrets::default());
        let mut seen = HashMap::new();
        for scheme in ["http", "https"] {
            for host in ["a.test", "b.test", "a.test:81"] {
                for target in [
                    "/",
                    "/?",
                    "/a",
                    "/A",
                    "/a/",
                    "/a?x",
                    "/a?x=",
                    "/a?x=1",
                    "/a?x=1&x=2",
                    "/a?x=2&x=1",
                    "/a;x=1",
                    "/a%3Fx=1",
                    "/a?x=%31",
                ] {
                    let key = plan.of(&request(host, target), scheme, &secrets);
                    let said = format!("{scheme} {host} {target}");
                    if let Some(other) = seen.insert(key.hash(), said.clone()) {
                        panic!("{said} and {other} share a key");
                    }
                }
            }
        }
        let one = plan.of(&request("a.test", "/"), "http", &secrets);
        let same = plan.of(&request("A.Test.", "/"), "http", &secrets);
        assert_eq!(one, same);
    }

    #[test]
    fn a_query_is_cut_and_sorted_for_the_key_and_for_the_upstream_alike() {
        let secrets = Secrets::default();
        for (section, query, expected) in [
            (
                "query = { exclude = ['utm_*', 'x'] }",
                "a=1&utm_a=2&x&b",
                "a=1&b",
            ),
            ("query = { include = ['a'] }", "b=1&a=2&a=1", "a=2&a=1"),
            ("query = { sort = true }", "b=1&a=2&a=1", "a=2&a=1&b=1"),
            ("query = { include = ['a'] }", "b=1", ""),
        ] {
            let plan = plan(section).expect("a plan");
            let uri: Uri = format!("/p?{query}").parse().expect("a target");
            let seen = plan.target(&uri).expect("it is changed");
            assert_eq!(seen.query().unwrap_or(""), expected, "{section}");
            assert_eq!(plan.target(&seen), None, "{section}");
            let key = |uri: &Uri| plan.of(&request("a", &uri.to_string()), "http", &secrets);
            assert_eq!(key(&uri), key(&seen), "{section}");
        }
        assert_eq!(
            plan("")
                .expect("a plan")
                .target(&"/p?b&a".parse().expect("a target")),
            None
        );
    }

    #[test]
    fn a_key_that_names_nothing_is_none() {
        for section in [
            "key = []",
            "key = ['ip']",
            "key = ['header:']",
            "key = ['cookie:a b']",
            "query = { include = ['a'], exclude = ['b'] }",
            "query = { exclude = ['a&b'] }",
        ] {
            assert_eq!(plan(section), None, "{section}");
        }
        assert!(plan("key = ['path', 'header:x', 'cookie:c', 'query:q']").is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// CASES I05.
        #[test]
        fn i05_two_lists_of_values_never_share_a_key(
            a in prop::collection::vec("[ -~]{0,6}", 2),
            b in prop::collection::vec("[ -~]{0,6}", 2),
        ) {
            let plan = plan("key = ['header:a', 'header:b']").expect("a plan");
            let secrets = Secrets::default();
            let key = |values: &[String]| {
                let mut request = request("h", "/");
                for (name, value) in ["a", "b"].into_iter().zip(values) {
                    let value = http::HeaderValue::from_str(value).expect("a value");
                    request.headers_mut().insert(name, value);
                }
                plan.of(&request, "http", &secrets)
            };
            prop_assert_eq!(a == b, key(&a).hash() == key(&b).hash());
        }
    }
}
