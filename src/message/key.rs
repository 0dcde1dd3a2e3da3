//! What a policy tells clients apart by: `key = "client_ip"`, `key = ["client_ip", "path"]`.
//!
//! A key is read from a request and hashed at once; nothing of it is kept. The hash is keyed by
//! chance, so that nobody outside can aim two clients at one. What a request lacks (a header, a
//! cookie) is a value of its own: all who lack it share it. An address is the peer's unless a
//! trusted proxy says otherwise (`server/dispatch` decides), and an IPv6 one counts by its network,
//! since one client has all of that. Host and path are in the form routing saw.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use http::{HeaderName, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::{Exchange, Request, target};
use crate::problem::{Located, Problem, Problems};

/// A key as written: one word, or a list of them.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyConfig(Vec<Located<String>>);

impl Default for KeyConfig {
    /// The client's address.
    fn default() -> Self {
        KeyConfig(vec![Located::unstated("client_ip".to_owned())])
    }
}

impl KeyConfig {
    /// The words as written.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|word| word.as_str())
    }

    /// Where the first word stands.
    pub fn first(&self) -> Option<&Located<String>> {
        self.0.first()
    }

    /// Compiles it; addresses of IPv6 count by their first `network` bits. Pushes every problem.
    pub fn compile(&self, network: u8, problems: &mut Problems) -> Option<Key> {
        let before = problems.len();
        let parts = self.0.iter().filter_map(|w| part(w, network, problems));
        let parts: Box<[Part]> = parts.collect();
        (problems.len() == before && !parts.is_empty()).then_some(Key { parts })
    }
}

fn part(word: &Located<String>, network: u8, problems: &mut Problems) -> Option<Part> {
    let (kind, name) = word.value.split_once(':').unwrap_or((&word.value, ""));
    let part = match (kind, name) {
        ("client_ip", "") => Some(Part::Client { network }),
        ("host", "") => Some(Part::Host),
        ("path", "") => Some(Part::Path),
        ("route", "") => Some(Part::Route),
        ("header", name) => HeaderName::try_from(name).ok().map(Part::Header),
        ("cookie", name) if is_name(name) => Some(Part::Cookie(name.into())),
        ("query", name) if is_name(name) => Some(Part::Query(name.into())),
        _ => None,
    };
    if part.is_none() {
        let message = format!("\"{}\" is nothing to tell clients apart by", word.value);
        let help = "one of client_ip, host, path, route, header:NAME, cookie:NAME, query:NAME";
        problems.push(Problem::at(&word.span, message).help(help));
    }
    part
}

/// A name that can stand in a cookie or a query as it is.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"=;,&\"".contains(&b))
}

/// What clients are told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Client { network: u8 },
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    Host,
    Path,
    Route,
}

impl Key {
    /// It is the same for every request: there is one bucket.
    pub fn is_one(&self) -> bool {
        self.parts.iter().all(|part| *part == Part::Route)
    }

    /// The hash for a request. Two lists of values have one hash only by chance, 1 in 2^64.
    pub fn hash(&self, request: &Request, exchange: &Exchange, by: &RandomState) -> u64 {
        let mut hasher = by.build_hasher();
        for part in &self.parts {
            if let Part::Client { network } = part {
                match address(exchange.client, *network) {
                    IpAddr::V4(ip) => hasher.write(&ip.octets()),
                    IpAddr::V6(ip) => hasher.write(&ip.octets()),
                }
                continue;
            }
            match part.value(request, exchange) {
                Some(value) => {
                    hasher.write_usize(value.len());
                    hasher.write(&value);
                }
                None => hasher.write_usize(usize::MAX),
            }
        }
        hasher.finish()
    }

    /// The values for a request, as they are shown to an operator.
    pub fn shown(&self, request: &Request, exchange: &Exchange) -> Vec<String> {
        let parts = self.parts.iter().map(|part| {
            if let Part::Client { network } = part {
                return address(exchange.client, *network).to_string();
            }
            let value = part.value(request, exchange);
            value.map_or_else(
                || "(none)".to_owned(),
                |v| String::from_utf8_lossy(&v).into_owned(),
            )
        });
        parts.collect()
    }
}

impl Part {
    fn value<'r>(&self, request: &'r Request, exchange: &Exchange) -> Option<Cow<'r, [u8]>> {
        match self {
            Part::Client { network } => Some(match address(exchange.client, *network) {
                IpAddr::V4(ip) => ip.octets().to_vec().into(),
                IpAddr::V6(ip) => ip.octets().to_vec().into(),
            }),
            Part::Header(name) => header_value(request, name),
            Part::Cookie(name) => cookie(request, name).map(Cow::Borrowed),
            Part::Query(name) => query(request, name).map(Cow::Borrowed),
            Part::Host => host(request),
            Part::Path => Some(request.uri().path().as_bytes().into()),
            Part::Route => Some(Cow::Borrowed(b"")),
        }
    }
}

/// The address, or the network that an IPv6 client has to itself.
fn address(client: IpAddr, network: u8) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(network.min(128)))
                .unwrap_or(0);
            std::net::Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

/// All values of a field, joined: a second one cannot make it another client's.
pub fn header_value<'r>(request: &'r Request, name: &HeaderName) -> Option<Cow<'r, [u8]>> {
    let mut values = request.headers().get_all(name).iter();
    let first = values.next()?.as_bytes();
    let mut all: Cow<'r, [u8]> = first.into();
    for value in values {
        let all = all.to_mut();
        all.extend_from_slice(b", ");
        all.extend_from_slice(value.as_bytes());
    }
    Some(all)
}

/// The value of a cookie: of the first one of this name.
pub fn cookie<'r>(request: &'r Request, name: &str) -> Option<&'r [u8]> {
    let lines = request.headers().get_all(header::COOKIE).into_iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    pairs.find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}

/// The value of a parameter of the query: of the first one of this name.
pub fn query<'r>(request: &'r Request, name: &str) -> Option<&'r [u8]> {
    let mut pairs = request.uri().query()?.split('&');
    pairs.find_map(|pair| match pair.split_once('=') {
        Some((found, value)) => (found == name).then_some(value.as_bytes()),
        None => (pair == name).then_some(&b""[..]),
    })
}

fn host(request: &Request) -> Option<Cow<'_, [u8]>> {
    let text = request.headers().get(header::HOST)?.to_str().ok()?;
    Some(match target::host(text)?.name {
        Cow::Borrowed(name) => Cow::Borrowed(name.as_bytes()),
        Cow::Owned(name) => Cow::Owned(name.into_bytes()),
    })
}

impl Serialize for KeyConfig {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            [one] => one.serialize(s),
            several => several.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for KeyConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct WordOrList;
        struct Words(Vec<Located<String>>);
        impl<'de> Visitor<'de> for WordOrList {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word such as \"client_ip\", or a list of them")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Words, E> {
                Ok(Words(vec![Located::unstated(word.to_owned())]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Words, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Words)
            }
        }
        impl<'de> Deserialize<'de> for Words {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(WordOrList)
            }
        }
        let Located { value, span } = Located::<Words>::deserialize(d)?;
        let Words(mut words) = value;
        if let [one] = words.as_mut_slice()
            && one.span.is_empty()
        {
            one.span = span;
        }
        Ok(KeyConfig(words))
    }
}

impl JsonSchema for KeyConfig {
    fn schema_name() -> Cow<'static, str> {
        "Key".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let word = json_schema!({
            "type": "string",
            "pattern": "^(client_ip|host|path|route|header:.+|cookie:.+|query:.+)$"
        });
        json_schema!({ "anyOf": [word, { "type": "array", "items": word, "minItems": 1 }] })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;
    use crate::message::{Body, Conn, sketch::Sketch};

    fn key(text: &str) -> Option<Key> {
        #[derive(Deserialize)]
        struct Section {
            key: KeyConfig,
        }
        let section: Section = toml::from_str(&format!("key = {text}")).expect("a key");
        section.key.compile(64, &mut Problems::new())
    }

    fn exchange(client: &str) -> Exchange {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let conn = Arc::new(Conn::new("web".into(), peer, peer, false, None));
        let client = client.parse().expect("an address");
        let id = HeaderValue::from_static("id");
        let now = crate::clock::now();
        Exchange::new(conn, now, client, id, Sketch::default(), Duration::MAX)
    }

    fn request(path: &str, fields: &[(&'static str, &'static str)]) -> Request {
        let mut request = Box::new(http::Request::new(Body::empty()));
        *request.uri_mut() = path.parse().expect("a path");
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(*name, value);
        }
        request
    }

    #[test]
    fn clients_of_one_ipv6_network_are_one_and_ipv4_in_ipv6_is_ipv4() {
        let (key, by) = (key("\"client_ip\"").expect("a key"), RandomState::new());
        let hash = |client| key.hash(&Request::default(), &exchange(client), &by);
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:2"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_eq!(hash("192.0.2.1"), hash("::ffff:192.0.2.1"));
        assert_ne!(hash("192.0.2.1"), hash("192.0.2.2"));
    }

    #[test]
    fn parts_do_not_run_into_each_other_and_what_is_missing_is_not_empty() {
        let by = RandomState::new();
        let key = key("[\"header:a\", \"header:b\"]").expect("a key");
        let hash = |fields: &[(&'static str, &'static str)]| {
            key.hash(&request("/", fields), &exchange("::1"), &by)
        };
        assert_ne!(
            hash(&[("a", "xy"), ("b", "z")]),
            hash(&[("a", "x"), ("b", "yz")])
        );
        assert_ne!(hash(&[("a", "x"), ("b", "")]), hash(&[("a", "x")]));
        assert_ne!(hash(&[("a", "x"), ("a", "y")]), hash(&[("a", "x")]));
    }

    #[test]
    fn each_part_is_read_from_its_place() {
        let request = request(
            "/p?q=1&r&q=2",
            &[
                ("host", "Shop.Example.:80"),
                ("cookie", "a=1; sid=x"),
                ("cookie", "b=2"),
            ],
        );
        let shown = |text| key(text).map(|k| k.shown(&request, &exchange("2001:db8::1")));
        let list = "[\"client_ip\", \"host\", \"path\", \"query:q\", \"query:r\", \"cookie:sid\", \"cookie:c\"]";
        let values = ["2001:db8::", "shop.example", "/p", "1", "", "x", "(none)"];
        assert_eq!(shown(list), Some(values.map(str::to_owned).to_vec()));
        assert!(key("\"route\"").is_some_and(|k| k.is_one()));
    }

    #[test]
    fn a_key_that_names_nothing_is_a_problem() {
        for text in [
            "\"ip\"",
            "\"header:\"",
            "\"header:a b\"",
            "\"cookie:\"",
            "\"client_ip:x\"",
            "[]",
        ] {
            assert_eq!(key(text), None, "{text}");
        }
    }
}
