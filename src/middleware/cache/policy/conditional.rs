//! Conditional requests: to us, and of ours (RFC 9110 13, RFC 9111 4.3).
//!
//! Whether a client has it already is judged here from what is stored. What is meant for the origin
//! (If-Match, If-Unmodified-Since) is left to it.

use std::time::SystemTime;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::date;
use super::etag::ETag;

/// Whether a request must go to the origin because of preconditions that a cache does not judge:
/// If-Match and If-Unmodified-Since (RFC 9111 4.3.2).
pub fn for_origin(asked: &HeaderMap) -> bool {
    asked.contains_key(header::IF_MATCH) || asked.contains_key(header::IF_UNMODIFIED_SINCE)
}

/// Whether the client has it already, by its If-None-Match, else If-Modified-Since: then
/// [`not_modified`] is the answer and not the stored one. Only for GET and HEAD, and only where
/// the stored status is 200 (RFC 9111 4.3.2). `came` is when the stored answer was received.
pub fn answer(
    method: &Method,
    asked: &HeaderMap,
    status: StatusCode,
    fields: &HeaderMap,
    came: SystemTime,
    now: SystemTime,
) -> bool {
    if !matches!(*method, Method::GET | Method::HEAD) || status != StatusCode::OK {
        return false;
    }
    if asked.contains_key(header::IF_NONE_MATCH) {
        return has_tag(asked, fields);
    }
    let mut lines = asked.get_all(header::IF_MODIFIED_SINCE).iter();
    match (lines.next(), lines.next()) {
        (Some(since), None) => has_date(since, fields, came, now),
        _ => false,
    }
}

/// `*`, or a list with a tag that is weakly the stored one (RFC 9110 13.1.2).
fn has_tag(asked: &HeaderMap, fields: &HeaderMap) -> bool {
    let stored = ETag::read(fields);
    let lines = asked.get_all(header::IF_NONE_MATCH).iter();
    lines.map(HeaderValue::as_bytes).any(|line| {
        line.trim_ascii() == b"*"
            || stored.is_some_and(|stored| tags(line).any(|tag| tag.weak_eq(stored)))
    })
}

/// The tags of a list, up to what is none.
fn tags(line: &[u8]) -> impl Iterator<Item = ETag<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', more @ ..] = rest {
            rest = more;
        }
        let (tag, more) = ETag::first(rest)?;
        let next = more.trim_ascii_start();
        rest = if matches!(next, [] | [b',', ..]) {
            next
        } else {
            &[]
        };
        Some(tag)
    })
}

/// Not changed since: by Last-Modified, else Date, else when it came (RFC 9111 4.3.2). What is no
/// date is not there (RFC 9110 13.1.3).
fn has_date(since: &HeaderValue, fields: &HeaderMap, came: SystemTime, now: SystemTime) -> bool {
    let read = |value: &HeaderValue| date::parse(value.as_bytes(), now);
    let changed = match (fields.get(header::LAST_MODIFIED), fields.get(header::DATE)) {
        (Some(modified), _) => read(modified),
        (None, Some(made)) => read(made).or(Some(came)),
        (None, None) => Some(came),
    };
    let since = read(since);
    changed.is_some_and(|changed| since.is_some_and(|since| changed <= since))
}

/// The fields of a 304 made from a stored answer (RFC 9110 15.4.5): all but those that only tell
/// of the body, Last-Modified being one where there is an ETag. Others stay, since for the browser
/// a 304 renews what it has (CORS, policies, cookies it may keep).
pub fn not_modified(fields: &HeaderMap) -> HeaderMap {
    let tagged = fields.contains_key(header::ETAG);
    let kept =
        |name: &HeaderName| !(tells_of_body(name) || tagged && name == header::LAST_MODIFIED);
    let kept = fields.iter().filter(|(name, _)| kept(name));
    let mut fields = HeaderMap::new();
    for (name, value) in kept {
        fields.append(name.clone(), value.clone());
    }
    fields
}

fn tells_of_body(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-length"
            | "content-type"
            | "content-encoding"
            | "content-language"
            | "content-range"
            | "content-disposition"
            | "content-digest"
            | "content-md5"
            | "repr-digest"
            | "digest"
            | "transfer-encoding"
    )
}

/// Makes a request ask the origin whether the stored answer still stands: the client's own
/// conditions and Range go, ours come (RFC 9111 4.3.1). False if there is nothing to ask by, the
/// request then being unconditional.
pub fn ask(request: &mut HeaderMap, fields: &HeaderMap) -> bool {
    for name in [header::RANGE, header::IF_RANGE] {
        request.remove(name);
    }
    let tag = ETag::read(fields).and_then(|_| fields.get(header::ETAG));
    let modified = fields.get(header::LAST_MODIFIED);
    let modified = modified.filter(|date| is_date(date));
    set(request, header::IF_NONE_MATCH, tag);
    set(request, header::IF_MODIFIED_SINCE, modified);
    tag.is_some() || modified.is_some()
}

fn set(request: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    match value {
        Some(value) => drop(request.insert(name, value.clone())),
        None => drop(request.remove(name)),
    }
}

/// For one that is only sent back, the century does not matter.
fn is_date(value: &HeaderValue) -> bool {
    date::parse(value.as_bytes(), SystemTime::UNIX_EPOCH).is_some()
}

/// Whether a 304 is about this stored answer (RFC 9111 4.3.4); `only` if no other is stored for
/// the request. If not, it changes nothing, and the origin is asked again without conditions. By its
/// ETag where it has one; weakly, since we have asked by a weak one where compression has made it so.
pub fn confirms(fields: &HeaderMap, not_modified: &HeaderMap, only: bool) -> bool {
    if not_modified.contains_key(header::ETAG) {
        let (stored, new) = (ETag::read(fields), ETag::read(not_modified));
        return stored.is_some_and(|stored| new.is_some_and(|new| stored.weak_eq(new)));
    }
    match not_modified.get(header::LAST_MODIFIED) {
        Some(modified) => fields.get(header::LAST_MODIFIED) == Some(modified),
        None => only,
    }
}

/// What a 200 to HEAD says of the stored answer to GET (RFC 9111 4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It is the same: [`super::fields::update`] it.
    Freshens,
    /// It is another: the stored one is stale from now on.
    Outdates,
    /// It says nothing.
    Nothing,
}

/// What an answer to HEAD says of the stored answer to GET, whose body has `len` bytes.
pub fn head(status: StatusCode, head: &HeaderMap, fields: &HeaderMap, len: u64) -> Head {
    if status != StatusCode::OK {
        return Head::Nothing;
    }
    let same = |name: HeaderName| {
        head.get(&name)
            .is_none_or(|new| fields.get(&name) == Some(new))
    };
    let length = head.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    let fits = length.is_none_or(|length| length == len.to_string().as_bytes());
    if same(header::ETAG) && same(header::LAST_MODIFIED) && fits {
        Head::Freshens
    } else {
        Head::Outdates
    }
}
