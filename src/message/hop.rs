//! What an intermediary takes off a message and puts on it.
//!
//! Hop-by-hop fields go (RFC 9110 7.6.1): those by name, and those that Connection names, save
//! for the ones a client has no business to strip (CVE-2024-45410 and its kin). Forwarding fields
//! are ours: appended to for a trusted peer; what any other says of itself goes before a route can
//! match it. Names with `_` that some
//! backends read as one of these are dropped. Framing is never copied: hyper makes it anew.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// The client address, as appended hop by hop.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields beside `x-forwarded-*`, `x-ssl-client-*` and `x-request-id` that speak of the client, or
/// of its certificate (RFC 9440), and are believed only from a trusted peer.
const IDENTITY: [&str; 6] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "client-cert",
    "client-cert-chain",
];

/// End-to-end fields that Connection cannot strip.
const PROTECTED: [&str; 12] = [
    "host",
    "authorization",
    "cookie",
    "via",
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
    "content-length",
    "content-type",
    "cache-control",
];

/// Hop-by-hop, by name (RFC 9110 7.6.1, RFC 9113 3.1).
pub fn is_hop(name: &str) -> bool {
    matches!(
        name,
        "te" | "trailer"
            | "upgrade"
            | "connection"
            | "keep-alive"
            | "http2-settings"
            | "proxy-connection"
            | "transfer-encoding"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

/// A field in which a peer speaks of the client.
pub fn is_claim(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'x') => {
            name.starts_with("x-forwarded-")
                || name.starts_with("x-ssl-client-")
                || IDENTITY.contains(&name)
        }
        Some(b'f' | b't' | b'c') => IDENTITY.contains(&name),
        _ => false,
    }
}

/// A name that only repeats a field of framing or forwarding with `_` for `-`, or that some
/// program may decode into one: no field in use has a `%`.
pub fn is_look_alike(name: &str) -> bool {
    if !is_odd(name.as_bytes()) {
        return false;
    }
    if name.contains('%') {
        return true;
    }
    let plain = name.replace('_', "-");
    is_claim(&plain) || plain == "transfer-encoding" || PROTECTED.contains(&plain.as_str())
}

/// Whether there is a `_` or a `%`. Eight bytes at once: every field of every message comes by.
fn is_odd(name: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let has = |word: u64, byte: u8| {
        let zero = word ^ (ONES * u64::from(byte));
        zero.wrapping_sub(ONES) & !zero & (ONES << 7) != 0
    };
    let odd = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        has(word, b'_') | has(word, b'%')
    };
    let (words, rest) = name.as_chunks();
    words.iter().any(odd)
        || match name.last_chunk() {
            Some(last) => !rest.is_empty() && odd(last),
            None => rest.iter().any(|byte| matches!(byte, b'_' | b'%')),
        }
}

/// Takes off the fields that Connection names (RFC 9110 7.6.1), save for the protected and for
/// those that [`strip`] takes off by their own names. Done as soon as a request is let in: what
/// the config and we ourselves put on it later is not the client's to name (CVE-2024-45410).
pub fn strip_named(headers: &mut HeaderMap) {
    if names_nothing(headers) {
        return;
    }
    for name in connection_options(headers) {
        headers.remove(name);
    }
}

/// Takes the hop-by-hop fields off a request. `TE: trailers` stays, since gRPC needs it.
pub fn strip(headers: &mut HeaderMap) {
    let trailers = headers.get_all(header::TE).iter().any(accepts_trailers);
    strip_hop(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes off an answer what concerns only the connection it came on.
pub fn strip_answer(headers: &mut HeaderMap) {
    strip_named(headers);
    strip_hop(headers);
}

/// Only Weir says what Weir did.
pub fn is_ours(name: &str) -> bool {
    name == "weir-degraded" || name == "weir-observed"
}

/// Takes off what is hop-by-hop, or looks like it, or is ours alone to say, by its name.
fn strip_hop(headers: &mut HeaderMap) {
    let usual_names = [&header::CONNECTION, &KEEP_ALIVE, &header::TRANSFER_ENCODING];
    let gone = |name: &HeaderName| {
        let name = name.as_str();
        is_hop(name) || is_look_alike(name) || is_ours(name)
    };
    let (mut usual, mut odd) = ([false; 3], false);
    for name in headers.keys() {
        match usual_names.iter().position(|usual| *usual == name) {
            Some(at) => usual[at] = true,
            None => odd |= gone(name),
        }
    }
    for (name, _) in usual_names.iter().zip(usual).filter(|(_, found)| *found) {
        headers.remove(*name);
    }
    if odd {
        let drop: Vec<HeaderName> = headers.keys().filter(|name| gone(name)).cloned().collect();
        for name in drop {
            headers.remove(name);
        }
    }
}

/// Connection speaks of the connection alone, as it mostly does.
fn names_nothing(headers: &HeaderMap) -> bool {
    let alone = |v: &HeaderValue| {
        [&b"keep-alive"[..], b"close"]
            .iter()
            .any(|word| v.as_bytes().eq_ignore_ascii_case(word))
    };
    headers.get_all(header::CONNECTION).iter().all(alone)
}

fn accepts_trailers(te: &HeaderValue) -> bool {
    te.to_str().is_ok_and(|te| {
        te.split(',')
            .any(|c| c.trim().eq_ignore_ascii_case("trailers"))
    })
}

/// The fields that Connection names and that may be stripped at its word.
fn connection_options(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    let tokens = values.flat_map(|v| v.as_bytes().split(|b| *b == b','));
    let strippable = |name: &HeaderName| {
        let name = name.as_str();
        !is_hop(name) && !PROTECTED.contains(&name) && !name.starts_with("x-forwarded-")
    };
    tokens
        .filter_map(|t| HeaderName::from_bytes(t.trim_ascii()).ok())
        .filter(strippable)
        .collect()
}

/// Whether Connection holds this option, in any case.
pub fn connection_has(headers: &HeaderMap, option: &str) -> bool {
    let values = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok());
    values
        .flat_map(|v| v.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case(option))
}

/// Drops from a trailer section what must not come there (RFC 9110 6.5.1): framing, routing,
/// authentication and forwarding.
pub fn scrub_trailers(trailers: &mut HeaderMap) {
    let bad = |name: &HeaderName| {
        let text = name.as_str();
        is_hop(text)
            || is_look_alike(text)
            || is_claim(text)
            || PROTECTED.contains(&text)
            || matches!(
                *name,
                header::CONTENT_ENCODING
                    | header::CONTENT_RANGE
                    | header::SET_COOKIE
                    | header::EXPECT
                    | header::MAX_FORWARDS
                    | header::RANGE
                    | header::DATE
                    | header::LOCATION
                    | header::AGE
                    | header::EXPIRES
                    | header::VARY
                    | header::WWW_AUTHENTICATE
            )
    };
    let drop: Vec<HeaderName> = trailers.keys().filter(|name| bad(name)).cloned().collect();
    for name in drop {
        trailers.remove(name);
    }
}

/// What is said of the client to the upstream.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// Who sent us this request.
    pub peer: SocketAddr,
    /// The same, as a field value; made once a connection.
    pub peer_text: &'a HeaderValue,
    /// The peer's own forwarding fields are believed.
    pub trusted: bool,
    /// `"http"` or `"https"`.
    pub scheme: &'static str,
    /// The Host that the client sent, where the request has another by now.
    pub host: Option<&'a HeaderValue>,
}

/// Writes X-Forwarded-For, -Proto, -Host and Forwarded (RFC 7239) in our name. `claims`: whether
/// the request came with such fields. Those of a peer that is not trusted are gone by then, so an
/// X-Forwarded-Proto that is there is a trusted peer's or the config's.
pub fn set_forwarded(headers: &mut HeaderMap, hop: Hop<'_>, claims: bool) {
    let host = hop.host.or(headers.get(header::HOST)).cloned();
    let value = forwarded(hop, host.as_ref());
    let scheme = HeaderValue::from_static(hop.scheme);
    if claims && hop.trusted {
        append(headers, &X_FORWARDED_FOR, hop.peer_text);
        if !is_whole(headers, &header::FORWARDED) {
            headers.remove(header::FORWARDED);
        }
        append(headers, &header::FORWARDED, &value);
        headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
        host.map(|host| headers.entry(X_FORWARDED_HOST).or_insert(host).len());
    } else {
        headers.insert(X_FORWARDED_FOR, hop.peer_text.clone());
        headers.insert(header::FORWARDED, value);
        headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
        host.map(|host| headers.insert(X_FORWARDED_HOST, host));
    }
}

/// Whether every quoted string in a field ends on its line: an open one would swallow what is
/// appended to it.
fn is_whole(headers: &HeaderMap, name: &HeaderName) -> bool {
    let ends = |value: &HeaderValue| {
        let mut bytes = value.as_bytes().iter();
        let mut quoted = false;
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => quoted = !quoted,
                b'\\' if quoted => drop(bytes.next()),
                _ => {}
            }
        }
        !quoted
    };
    headers.get_all(name).iter().all(ends)
}

/// Takes off what an untrusted peer says about itself. Done as soon as a request is let in: what
/// the config puts on later under such a name is the operator's word.
pub fn drop_claims(headers: &mut HeaderMap) {
    drop_where(headers, is_claim);
}

/// Takes off the names that some program may read as a field of framing or forwarding.
pub fn drop_look_alikes(headers: &mut HeaderMap) {
    drop_where(headers, is_look_alike);
}

fn drop_where(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| goes(name.as_str())).cloned() {
        headers.remove(name);
    }
}

/// Appends to the list in a field, keeping one line.
fn append(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    let joined = join(headers, name, value);
    headers.insert(name.clone(), joined.unwrap_or_else(|| value.clone()));
}

/// The members of all lines of a field and one more; `None` where there were none.
fn join(headers: &HeaderMap, name: &HeaderName, last: &HeaderValue) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    let mut joined = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        joined.extend_from_slice(line.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(last.as_bytes());
    HeaderValue::from_bytes(&joined).ok()
}

/// `for=192.0.2.1;proto=https;host=example.com`; IPv6 and ports in quotes (RFC 7239 6).
fn forwarded(hop: Hop<'_>, host: Option<&HeaderValue>) -> HeaderValue {
    let mut value = Vec::with_capacity(96);
    value.extend_from_slice(b"for=");
    match hop.peer.ip() {
        IpAddr::V4(_) => value.extend_from_slice(hop.peer_text.as_bytes()),
        IpAddr::V6(_) => {
            value.extend_from_slice(b"\"[");
            value.extend_from_slice(hop.peer_text.as_bytes());
            value.extend_from_slice(b"]\"");
        }
    }
    value.extend_from_slice(b";proto=");
    value.extend_from_slice(hop.scheme.as_bytes());
    if let Some(host) = host {
        let quote = host.as_bytes().iter().any(|b| matches!(b, b':' | b'['));
        value.extend_from_slice(if quote { b";host=\"" } else { b";host=" });
        value.extend_from_slice(host.as_bytes());
        value.extend_from_slice(if quote { b"\"" } else { b"" });
    }
    HeaderValue::from_bytes(&value).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

/// How often our own name stands in Via; 8 times is a loop.
pub fn via_count(headers: &HeaderMap, identity: &str) -> usize {
    let values = headers
        .get_all(header::VIA)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let members = values.flat_map(|v| v.split(','));
    members
        .filter(|m| m.split_ascii_whitespace().nth(1) == Some(identity))
        .count()
}

/// The most addresses of X-Forwarded-For that are looked at, from the right.
const MOST_HOPS: usize = 64;

/// The client's address: the rightmost one that is not a trusted proxy's. An entry that is no
/// address, in whatever bytes, ends the search, since nothing to its left can be believed.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let mut client = peer;
    let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    let lines = lines.iter().rev().map(|line| line.as_bytes());
    let entries = lines.flat_map(|line| line.rsplit(|b| *b == b','));
    let entries = entries.map(<[u8]>::trim_ascii).filter(|e| !e.is_empty());
    for entry in entries.take(MOST_HOPS) {
        if !is_trusted(client) {
            break;
        }
        match std::str::from_utf8(entry).ok().and_then(address) {
            Some(ip) => client = ip,
            None => break,
        }
    }
    client
}

/// An address with or without brackets, port and zone. IPv4 inside IPv6 is IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let ip = match text.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => {
            let bare = text
                .strip_prefix('[')
                .and_then(|t| t.split_once(']'))
                .map(|t| t.0);
            let bare = bare.or_else(|| {
                text.rsplit_once(':')
                    .filter(|(host, _)| !host.contains(':'))
                    .map(|t| t.0)
            });
            bare.unwrap_or(text).split('%').next()?.parse().ok()?
        }
    };
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests;
