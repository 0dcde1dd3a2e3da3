//! The fields of an answer whose coding changes, and of the requests that ask about it later.
//!
//! An encoded body is another representation: its strong validator becomes a weak one (RFC 9110
//! 8.8.1), and what counts or sums up its bytes goes. A client later asks with the weak validator;
//! an upstream that compares letter by letter must find its own in the list.

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_NONE_MATCH, VARY,
};

use crate::message::coding::Coding;

/// What sums up the bytes of a body: RFC 9530 and what came before it.
const SUMS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// The body is now in `coding`, or plain.
pub(super) fn recode(headers: &mut HeaderMap, coding: Option<Coding>) {
    match coding {
        Some(coding) => {
            let value = HeaderValue::from_static(coding.token());
            headers.insert(CONTENT_ENCODING, value);
        }
        None => {
            headers.remove(CONTENT_ENCODING);
        }
    }
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    for name in SUMS {
        headers.remove(name);
    }
    weaken(headers);
}

/// `"x"` becomes `W/"x"`; what is no entity tag goes.
pub(super) fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG) else {
        return;
    };
    let weak = match tag.as_bytes() {
        [b'W', b'/', b'"', .., b'"'] => return,
        [b'"', .., b'"'] => HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok(),
        _ => None,
    };
    match weak {
        Some(weak) => headers.insert(ETAG, weak),
        None => headers.remove(ETAG),
    };
}

/// Says that the answer depends on Accept-Encoding, if it does not say so already.
pub(super) fn vary(headers: &mut HeaderMap) {
    let says = |line: &HeaderValue| {
        let mut members = line
            .as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii);
        members.any(|m| m == b"*" || m.eq_ignore_ascii_case(b"accept-encoding"))
    };
    if !headers.get_all(VARY).iter().any(says) {
        headers.append(VARY, HeaderValue::from(ACCEPT_ENCODING));
    }
}

/// Adds to If-None-Match the strong form of each weak tag. Gives what the client sent, if it sent
/// a weak one.
pub(super) fn map_back(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(IF_NONE_MATCH).iter();
    let asked = match (lines.next(), lines.next()) {
        (Some(line), None) => line.clone(),
        _ => return None,
    };
    let tags = asked.as_bytes();
    if !tags.windows(3).any(|start| start == b"W/\"") {
        return None;
    }
    let mut all = tags.to_vec();
    for tag in weak_tags(tags) {
        all.extend_from_slice(b", ");
        all.extend_from_slice(tag);
    }
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(IF_NONE_MATCH, value);
    }
    Some(asked)
}

/// In a 304: the client knows this tag as a weak one.
pub(super) fn known_as_weak(asked: &HeaderValue, headers: &HeaderMap) -> bool {
    let tag = headers.get(ETAG).map(HeaderValue::as_bytes);
    let mut weak = weak_tags(asked.as_bytes());
    tag.is_some_and(|tag| weak.any(|known| known == tag))
}

/// The opaque part, with its quotes, of each weak tag in a list. Tags may hold commas.
fn weak_tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        loop {
            let open = rest.iter().position(|b| *b == b'"')?;
            let length = rest[open + 1..].iter().position(|b| *b == b'"')?;
            let close = open + 1 + length;
            let (tag, weak) = (&rest[open..=close], rest[..open].ends_with(b"W/"));
            rest = &rest[close + 1..];
            if weak {
                return Some(tag);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        fields.iter().map(field).collect()
    }

    /// CASES J03, RFC 9110 8.8.1.
    #[test]
    fn a_strong_tag_is_weakened_and_a_bad_one_goes() {
        for (tag, expected) in [
            ("\"x\"", Some("W/\"x\"")),
            ("W/\"x\"", Some("W/\"x\"")),
            ("\"\"", Some("W/\"\"")),
            ("x", None),
            ("\"", None),
            ("w/\"x\"", None),
        ] {
            let mut headers = headers(&[("etag", tag)]);
            weaken(&mut headers);
            let found = headers.get(ETAG).and_then(|v| v.to_str().ok());
            assert_eq!(found, expected, "{tag}");
        }
    }

    /// CASES J08.
    #[test]
    fn what_counts_or_sums_up_the_bytes_goes() {
        let mut headers = headers(&[
            ("content-length", "9"),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("digest", "x"),
            ("repr-digest", "x"),
            ("content-digest", "x"),
            ("x-other", "stays"),
        ]);
        recode(&mut headers, Some(Coding::Br));
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[CONTENT_ENCODING], "br");
        recode(&mut headers, None);
        assert_eq!(headers.len(), 1);
    }

    /// CASES J09.
    #[test]
    fn vary_says_it_once() {
        for (lines, count) in [
            (&[][..], 1),
            (&[("vary", "Origin")], 2),
            (&[("vary", "origin, ACCEPT-encoding")], 1),
            (&[("vary", "*")], 1),
            (&[("vary", "Accept-Encoding-X")], 2),
        ] {
            let mut headers = headers(lines);
            vary(&mut headers);
            vary(&mut headers);
            assert_eq!(headers.get_all(VARY).iter().count(), count, "{lines:?}");
        }
    }

    /// CASES J03.
    #[test]
    fn a_weak_tag_is_asked_for_in_both_forms() {
        for (list, expected) in [
            ("W/\"x\"", "W/\"x\", \"x\""),
            (
                "\"a\", W/\"b,c\" , W/\"d\"",
                "\"a\", W/\"b,c\" , W/\"d\", \"b,c\", \"d\"",
            ),
            ("\"a\"", "\"a\""),
            ("*", "*"),
            ("W/\"", "W/\""),
        ] {
            let mut headers = headers(&[("if-none-match", list)]);
            map_back(&mut headers);
            assert_eq!(headers[IF_NONE_MATCH], expected, "{list}");
        }
    }

    #[test]
    fn a_304_gets_the_form_that_the_client_knows() {
        let asked = HeaderValue::from_static("\"a\", W/\"b\"");
        assert!(known_as_weak(&asked, &headers(&[("etag", "\"b\"")])));
        assert!(!known_as_weak(&asked, &headers(&[("etag", "\"a\"")])));
        assert!(!known_as_weak(&asked, &headers(&[])));
    }
}
