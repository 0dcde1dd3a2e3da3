//! Whether a request is one: the checks of a head that hyper leaves to us, before anything else
//! looks at it.
//!
//! Pure: a head and a few facts in, a canonical request or a refusal out. After this the target is
//! in origin form with a canonical path, Host is one valid authority that agrees with it, and no
//! field is left that two programs may frame differently. What stands in the bytes and hyper hides
//! (a fragment, a bare LF) is the guard's to find.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Version};

use crate::error::Reason;
use crate::message::sketch::{Field, Sketch};
use crate::message::{Conn, target};
use crate::plan::listener::ListenerPlan;
use crate::telemetry::handles::Violation;

/// A request that goes no further: why for the client, and which rule for the operator.
pub type Refused = (Reason, Violation);

/// The longest method that is passed on.
const LONGEST_METHOD: usize = 32;

/// Checks a head and brings it into canonical form. Gives the host it is for: lower case, without
/// port; empty for an HTTP/1.0 request that names none.
pub fn admit(
    parts: &mut Parts,
    sketch: Sketch,
    conn: &Conn,
    listener: &ListenerPlan,
) -> Result<String, Refused> {
    if trace_has_content(parts) {
        return Err((Reason::BadRequest, Violation::Method));
    }
    method(&parts.method)?;
    if sketch.has(Field::TransferEncoding) {
        transfer_coding(&parts.headers, parts.version)?;
    }
    if sketch.has(Field::Expect) {
        expectation(&parts.headers)?;
    }
    if sketch.has(Field::Length) {
        length(&parts.headers)?;
    }
    if sketch.has(Field::Cookie) {
        cookies(&mut parts.headers);
    }
    let host = host(parts, conn)?;
    if let Some(name) = conn.tls.as_ref().and_then(|tls| tls.server_name.as_deref())
        && let Some(tls) = &listener.tls
        && name != host
        && !tls.covers(name, &host)
    {
        return Err((Reason::Misdirected, Violation::Misdirected));
    }
    path(parts)?;
    Ok(host)
}

/// RFC 9110 9.3.8; a client that sends some has another reading of it than we have.
fn trace_has_content(parts: &Parts) -> bool {
    let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    parts.method == Method::TRACE && framing.iter().any(|f| parts.headers.contains_key(f))
}

fn method(method: &Method) -> Result<(), Refused> {
    let text = method.as_str();
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return Err((Reason::MethodNotAllowed, Violation::Method));
    }
    if text.len() > LONGEST_METHOD || !text.bytes().all(plain) || text == "PRI" {
        return Err((Reason::BadRequest, Violation::Method));
    }
    Ok(())
}

/// Exactly `chunked`, once (RFC 9112 6.1); hyper lets lists pass that only end in it.
fn transfer_coding(headers: &HeaderMap, version: Version) -> Result<(), Refused> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(value) = values.next() else {
        return Ok(());
    };
    if values.next().is_some() || version != Version::HTTP_11 {
        return Err((Reason::BadRequest, Violation::TransferCoding));
    }
    let text = value.to_str().unwrap_or("");
    let mut codings = text.split(',').map(str::trim);
    let last = codings.next_back().unwrap_or("");
    let foreign = |coding: &str| !coding.is_empty() && !coding.eq_ignore_ascii_case("chunked");
    match codings.next() {
        None if last.eq_ignore_ascii_case("chunked") => Ok(()),
        Some(first) if foreign(first) && last.eq_ignore_ascii_case("chunked") => {
            Err((Reason::UnsupportedCoding, Violation::TransferCoding))
        }
        _ => Err((Reason::BadRequest, Violation::TransferCoding)),
    }
}

/// Digits (RFC 9110 8.6). What else is wrong with a length hyper refuses; over HTTP/2 it takes an
/// empty one for none.
fn length(headers: &HeaderMap) -> Result<(), Refused> {
    let digits = |v: &HeaderValue| !v.is_empty() && v.as_bytes().iter().all(u8::is_ascii_digit);
    if headers.get_all(header::CONTENT_LENGTH).iter().all(digits) {
        Ok(())
    } else {
        Err((Reason::BadRequest, Violation::Framing))
    }
}

/// Cookies in one line: HTTP/2 lets a client send each by itself, HTTP/1 does not (RFC 9113 8.2.3).
fn cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else {
        return;
    };
    let mut line = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(lines) {
        line.extend_from_slice(b"; ");
        line.extend_from_slice(crumb.as_bytes());
    }
    let line = HeaderValue::from_bytes(&line).expect("joined from values");
    headers.insert(header::COOKIE, line);
}

/// `100-continue`, once, or nothing (RFC 9110 10.1.1).
fn expectation(headers: &HeaderMap) -> Result<(), Refused> {
    let mut values = headers.get_all(header::EXPECT).iter();
    let known = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"100-continue");
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if known(value) => Ok(()),
        _ => Err((Reason::ExpectationFailed, Violation::Expect)),
    }
}

/// The one authority of a request: of the target where it has one (RFC 9112 3.2.2), else Host.
/// Afterwards Host is the only place where it stands.
fn host(parts: &mut Parts, conn: &Conn) -> Result<String, Refused> {
    let bad = (Reason::BadRequest, Violation::Host);
    let mut lines = parts.headers.get_all(header::HOST).iter();
    let (line, more) = (lines.next().cloned(), lines.next().is_some());
    if more {
        return Err(bad);
    }
    let authority = match parts.uri.authority() {
        None => None,
        Some(_) if parts.uri.scheme().is_none() => {
            return Err((Reason::BadRequest, Violation::Target));
        }
        Some(authority) => {
            scheme(&parts.uri, conn)?;
            let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| bad)?;
            let http2 = parts.version == Version::HTTP_2;
            let differs =
                |line: &HeaderValue| !line.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
            if http2 && line.as_ref().is_some_and(differs) {
                return Err((Reason::BadRequest, Violation::Authority));
            }
            Some(authority)
        }
    };
    let rewritten = authority.is_some();
    let Some(value) = authority.or(line) else {
        return if parts.version == Version::HTTP_10 {
            Ok(String::new())
        } else {
            Err(bad)
        };
    };
    let name = value
        .to_str()
        .ok()
        .and_then(target::host)
        .ok_or(bad)?
        .name
        .into_owned();
    if rewritten {
        parts.headers.insert(header::HOST, value);
    }
    Ok(name)
}

/// The scheme of the target is that of the connection, unless a trusted proxy ended the TLS.
fn scheme(uri: &Uri, conn: &Conn) -> Result<(), Refused> {
    let scheme = uri.scheme_str().unwrap_or("");
    let behind_tls = conn.trusted && scheme == "https";
    if scheme == conn.scheme() || behind_tls {
        Ok(())
    } else {
        Err((Reason::BadRequest, Violation::Target))
    }
}

/// Origin form, canonical.
fn path(parts: &mut Parts) -> Result<(), Refused> {
    let bad = (Reason::BadRequest, Violation::Path);
    if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
        parts.uri = Uri::from_static("*");
        return Ok(());
    }
    let clean = target::path(parts.uri.path()).ok_or(bad)?;
    let query = parts.uri.query();
    let visible = |q: &str| {
        q.bytes()
            .all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\')
    };
    if !query.is_none_or(visible) {
        return Err((Reason::BadRequest, Violation::Target));
    }
    let origin_form = parts.uri.authority().is_none();
    let same = matches!(clean, Cow::Borrowed(_));
    if same && origin_form {
        return Ok(());
    }
    // it is the target's own but where that has an empty path
    let own = |rest: &&PathAndQuery| same && rest.as_str().starts_with('/') && rest.as_str() != "/";
    if let Some(rest) = parts.uri.path_and_query().filter(own).cloned() {
        parts.uri = Uri::from(rest);
        return Ok(());
    }
    let text = match query {
        Some(query) => format!("{clean}?{query}"),
        None => clean.into_owned(),
    };
    parts.uri = PathAndQuery::try_from(text)
        .map(Uri::from)
        .map_err(|_| bad)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn check(request: http::request::Builder) -> Result<(String, String), Refused> {
        let address = "127.0.0.1:80".parse().expect("an address");
        let conn = Conn::new(Arc::from("web"), address, address, false, None);
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        method(&parts.method)?;
        transfer_coding(&parts.headers, parts.version)?;
        expectation(&parts.headers)?;
        let name = host(&mut parts, &conn)?;
        path(&mut parts)?;
        Ok((name, parts.uri.to_string()))
    }

    fn get(uri: &str) -> http::request::Builder {
        http::Request::get(uri)
    }

    #[test]
    fn the_target_becomes_origin_form_with_a_canonical_path() {
        let request = get("http://T.test:80/a/../b?c=%2f").header("host", "other");
        assert_eq!(check(request), Ok(("t.test".into(), "/b?c=%2f".into())));
        for (target, origin_form) in [
            ("http://t.test", "/"),
            ("http://t.test/", "/"),
            ("http://t.test?a", "/?a"),
            ("http://t.test/?a", "/?a"),
            ("http://t.test/b/c?a=%2f", "/b/c?a=%2f"),
        ] {
            let request = get(target).header("host", "t.test");
            let admitted = ("t.test".into(), origin_form.into());
            assert_eq!(check(request), Ok(admitted), "{target}");
        }
        assert_eq!(
            check(get("/x").header("host", "T.test.")),
            Ok(("t.test".into(), "/x".into()))
        );
    }

    #[test]
    fn an_asterisk_is_only_for_options() {
        let star = |method| check(get("*").method(method).header("host", "a")).map(|r| r.1);
        assert_eq!(star("OPTIONS"), Ok("*".into()));
        assert_eq!(star("GET"), Err((Reason::BadRequest, Violation::Path)));
    }

    #[test]
    fn a_host_that_is_missing_doubled_or_none_is_refused() {
        let bad = Err((Reason::BadRequest, Violation::Host));
        assert_eq!(check(get("/")), bad);
        assert_eq!(check(get("/").header("host", "a").header("host", "a")), bad);
        assert_eq!(check(get("/").header("host", "u@a")), bad);
        let old = get("/").version(Version::HTTP_10);
        assert_eq!(check(old), Ok((String::new(), "/".into())));
    }

    #[test]
    fn over_http2_authority_and_host_agree() {
        let request = |host| {
            get("http://a.test/")
                .version(Version::HTTP_2)
                .header("host", host)
        };
        assert!(check(request("A.test")).is_ok());
        assert_eq!(
            check(request("b.test")),
            Err((Reason::BadRequest, Violation::Authority))
        );
    }

    #[test]
    fn another_scheme_than_the_connections_is_refused() {
        for uri in ["https://a.test/", "ftp://a.test/"] {
            let request = get(uri).header("host", "a.test");
            assert_eq!(check(request), Err((Reason::BadRequest, Violation::Target)));
        }
    }

    #[test]
    fn only_chunked_alone_is_a_transfer_coding() {
        let coding = |value: &str| {
            check(
                get("/")
                    .header("host", "a")
                    .header("transfer-encoding", value),
            )
            .err()
        };
        assert_eq!(coding("chunked"), None);
        assert_eq!(coding("Chunked"), None);
        for value in [
            ",chunked",
            "chunked,",
            "chunked, chunked",
            "chunked, identity",
            "",
            "xchunked",
        ] {
            assert_eq!(
                coding(value),
                Some((Reason::BadRequest, Violation::TransferCoding)),
                "{value}"
            );
        }
        for value in ["gzip, chunked", "identity, chunked", "cow,chunked"] {
            let expected = Some((Reason::UnsupportedCoding, Violation::TransferCoding));
            assert_eq!(coding(value), expected, "{value}");
        }
    }

    #[test]
    fn methods_and_expectations_that_are_not_passed_on_are_refused() {
        let method = |m: &str| {
            check(get("/").method(m).header("host", "a"))
                .err()
                .map(|e| e.0)
        };
        assert_eq!(method("TRACE"), Some(Reason::MethodNotAllowed));
        assert_eq!(method("CONNECT"), Some(Reason::MethodNotAllowed));
        assert_eq!(method("PROPFIND"), None);
        for odd in ["get", "GET_EVIL", "PRI", &"A".repeat(33)] {
            assert_eq!(method(odd), Some(Reason::BadRequest), "{odd}");
        }
        let expect = |e: &str| check(get("/").header("host", "a").header("expect", e)).is_ok();
        assert!(expect("100-continue") && expect("100-Continue"));
        assert!(!expect("x 100-continue") && !expect("100-continue, foo") && !expect(""));
    }

    #[test]
    fn f18_cookies_are_joined_in_their_order_and_lengths_are_digits() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            headers.append(header::COOKIE, HeaderValue::from_static(crumb));
        }
        cookies(&mut headers);
        let lines: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(lines, ["a=1; b=2; c=3"]);
        for (value, good) in [("5", true), ("", false), ("+5", false)] {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static(value));
            assert_eq!(length(&headers).is_ok(), good, "{value}");
        }
    }
}
