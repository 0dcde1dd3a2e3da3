//! What is no longer true after an unsafe request (RFC 9111 4.4).
//!
//! A method that is not known to be safe may have changed its target, and what its answer names as
//! Location and Content-Location. Another origin's answers are never touched: nobody could throw
//! away what is not theirs.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

/// Whether what is stored for the target is to be thrown away: any method not known to be safe,
/// and an answer of 2xx or 3xx.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    let known_safe = matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY"
    );
    !known_safe && (status.is_success() || status.is_redirection())
}

/// Where a request went, as the client wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host, with its port if one was written.
    pub authority: &'a str,
    /// Path and query.
    pub path: &'a str,
}

/// The other paths (with query) of the same origin that the answer names in Location and
/// Content-Location. Never one of another origin.
pub fn others(target: Target<'_>, fields: &HeaderMap) -> Vec<String> {
    let names = [header::LOCATION, header::CONTENT_LOCATION];
    let named = names
        .iter()
        .filter_map(|name| resolve(target, fields.get(name)?));
    named.filter(|path| path != target.path).collect()
}

/// Whether this reference is to the target itself.
pub(super) fn is_target(target: Target<'_>, reference: Option<&HeaderValue>) -> bool {
    reference.is_some_and(|value| resolve(target, value).as_deref() == Some(target.path))
}

/// Path and query of a reference (RFC 3986 5.2), if it is of the target's origin.
fn resolve(target: Target<'_>, reference: &HeaderValue) -> Option<String> {
    let text = reference.to_str().ok()?;
    let text = text.split('#').next()?;
    let Target {
        scheme,
        authority,
        path,
    } = target;
    let (base, query) = cut(path);
    let local = match text.split_once(':') {
        Some((named, rest)) if is_scheme(named) => {
            named.eq_ignore_ascii_case(scheme).then_some(())?;
            rest.starts_with("//").then_some(rest)?
        }
        _ => text,
    };
    if let Some(rest) = local.strip_prefix("//") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        same_authority(scheme, host, authority).then_some(())?;
        return Some(match path.starts_with('/') {
            true => dotless(path),
            false => format!("/{path}"),
        });
    }
    Some(match local.bytes().next() {
        None => format!("{base}{query}"),
        Some(b'/') => dotless(local),
        Some(b'?') => format!("{base}{local}"),
        Some(_) => {
            let folder = base.rfind('/').map_or("/", |at| &base[..=at]);
            dotless(&format!("{folder}{local}"))
        }
    })
}

/// A path and its query, with the `?`.
fn cut(path: &str) -> (&str, &str) {
    path.split_at(path.find('?').unwrap_or(path.len()))
}

fn is_scheme(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(known)
}

/// Host in any case, the scheme's own port written or not.
fn same_authority(scheme: &str, one: &str, other: &str) -> bool {
    let port = match scheme {
        "https" => ":443",
        _ => ":80",
    };
    let bare = |text: &str| {
        let text = text.strip_suffix(port).unwrap_or(text);
        text.to_ascii_lowercase()
    };
    !one.contains('@') && bare(one) == bare(other)
}

/// Without `.` and `..` (RFC 3986 5.2.4).
fn dotless(path: &str) -> String {
    let (path, query) = cut(path);
    let mut out: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." => {}
            ".." => drop(out.pop()),
            part => {
                out.push(part);
                continue;
            }
        }
        if last {
            out.push("");
        }
    }
    format!("/{}{query}", out.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: Target<'_> = Target {
        scheme: "https",
        authority: "Example.com",
        path: "/a/b?c",
    };

    fn other(location: &'static str) -> Option<String> {
        let mut fields = HeaderMap::new();
        fields.insert(header::LOCATION, HeaderValue::from_static(location));
        others(AT, &fields).pop()
    }

    #[test]
    fn rfc9111_4_4_methods_not_known_to_be_safe_with_an_answer_that_is_no_error() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "X", "get"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert!(invalidates(&method, StatusCode::OK), "{method}");
            assert!(invalidates(&method, StatusCode::SEE_OTHER), "{method}");
            assert!(!invalidates(&method, StatusCode::NOT_FOUND), "{method}");
            assert!(
                !invalidates(&method, StatusCode::INTERNAL_SERVER_ERROR),
                "{method}"
            );
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
            assert!(!invalidates(&method, StatusCode::OK), "{method}");
        }
    }

    #[test]
    fn rfc9111_4_4_what_the_answer_names_of_the_same_origin() {
        for (location, path) in [
            ("/x?y", "/x?y"),
            ("x", "/a/x"),
            ("../x/./y", "/x/y"),
            ("..", "/"),
            ("?d", "/a/b?d"),
            ("https://example.COM/x#f", "/x"),
            ("https://example.com:443/x", "/x"),
            ("https://example.com", "/"),
            ("https://example.com?q", "/?q"),
            ("//example.com/../x", "/x"),
            ("x/a:b", "/a/x/a:b"),
        ] {
            assert_eq!(other(location).as_deref(), Some(path), "{location}");
        }
    }

    #[test]
    fn rfc9111_4_4_another_origin_must_not_be_touched() {
        for location in [
            "http://example.com/x",
            "https://example.com:8443/x",
            "https://example.org/x",
            "//evil.com/x",
            "https://example.com@evil.com/x",
            "https://u@example.com/x",
            "mailto:x",
            "https:x",
            "",
            "/a/b?c",
        ] {
            assert_eq!(other(location), None, "{location}");
        }
    }

    #[test]
    fn both_fields_count() {
        let mut fields = HeaderMap::new();
        fields.insert(header::LOCATION, HeaderValue::from_static("/1"));
        fields.insert(header::CONTENT_LOCATION, HeaderValue::from_static("/2"));
        assert_eq!(others(AT, &fields), ["/1", "/2"]);
    }

    proptest! {
        #[test]
        fn whatever_is_named_it_is_a_path(location in "[!-~]{0,30}") {
            let value = HeaderValue::from_str(&location).expect("text");
            let path = resolve(AT, &value);
            prop_assert!(path.is_none_or(|path| path.starts_with('/')));
        }
    }
}
