//! Which fields are stored, and what a later answer changes in them (RFC 9111 3.1, 3.2).
//!
//! What is of one connection, of one proxy or of one client is for nobody else. What tells of the
//! stored body stays with that body, whatever news comes.

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::etag::ETag;
use super::{SetCookie, Settings, Stated, Vary};

/// Takes off what is not to be stored: hop by hop, named in Connection, for this proxy alone,
/// named in `private` or `no-cache`, cookies by config. Age stays: it is read once, by
/// [`super::Terms::new`], and written anew with each use.
pub fn strip(fields: &mut HeaderMap, stated: &Stated, settings: &Settings) {
    for name in nominated(fields) {
        fields.remove(name);
    }
    for name in NEVER_STORED {
        fields.remove(name);
    }
    remove_named(fields, stated);
    if settings.set_cookie != SetCookie::Keep {
        fields.remove(header::SET_COOKIE);
    }
}

/// The fields that `private` and `no-cache` name (RFC 9111 5.2.2.4, 5.2.2.7).
fn remove_named(fields: &mut HeaderMap, stated: &Stated) {
    let (private, no_cache) = (stated.private.fields(), stated.no_cache.fields());
    for name in private.iter().chain(no_cache) {
        fields.remove(name);
    }
}

/// Of one connection (RFC 9110 7.6.1), of one proxy (RFC 9111 3.1), or of one client's limits.
const NEVER_STORED: [&str; 16] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "ratelimit",
    "ratelimit-policy",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];

/// The fields that Connection names, but for those by which an answer is understood: without them it
/// would be taken for another.
fn nominated(fields: &HeaderMap) -> Vec<HeaderName> {
    let lines = fields.get_all(header::CONNECTION).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    members
        .filter_map(|member| HeaderName::from_bytes(member.trim_ascii()).ok())
        .filter(|name| !UNDERSTOOD_BY.contains(name))
        .collect()
}

const UNDERSTOOD_BY: [HeaderName; 10] = [
    header::AGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::VARY,
];

/// What belongs to the body that is kept, and not to the news of it (RFC 9111 3.2).
const OF_THE_BODY: [HeaderName; 3] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
];

/// Takes into a stored answer's fields what a 304 or an answer to HEAD says anew (RFC 9111 3.2).
/// Never what belongs to the body that is kept (Content-Length, Content-Encoding, Content-Range).
///
/// Two fields are not simply replaced: an ETag that is weakly the stored one stays as it is
/// (compression has weakened it), and Vary only grows (compression has added to it, and the variant
/// was chosen by it). The old Age goes, and without a new Date the answer is of `came`.
///
/// Whoever updates an answer asks [`super::storable()`] anew, and makes its [`super::Terms`] anew.
pub fn update(
    fields: &mut HeaderMap,
    new: &HeaderMap,
    stated: &Stated,
    settings: &Settings,
    came: SystemTime,
) {
    let mut new = new.clone();
    strip(&mut new, stated, settings);
    for name in OF_THE_BODY {
        new.remove(name);
    }
    if let (Some(old), Some(tag)) = (ETag::read(fields), ETag::read(&new))
        && old.weak_eq(tag)
    {
        new.remove(header::ETAG);
    }
    if let Some(vary) = grown(fields, &new) {
        new.insert(header::VARY, vary);
    }
    for name in [header::AGE, header::DATE] {
        fields.remove(name);
    }
    remove_named(fields, stated);
    for name in new.keys() {
        fields.remove(name);
    }
    for (name, value) in &new {
        fields.append(name.clone(), value.clone());
    }
    if !fields.contains_key(header::DATE) {
        let date = HeaderValue::try_from(httpdate::fmt_http_date(came));
        fields.insert(header::DATE, date.expect("a date is ASCII"));
    }
}

/// The old and the new Vary together, if there is a new one.
fn grown(fields: &HeaderMap, new: &HeaderMap) -> Option<HeaderValue> {
    if !new.contains_key(header::VARY) {
        return None;
    }
    let (Vary::On(mut names), Vary::On(more)) = (Vary::read(fields), Vary::read(new)) else {
        return Some(HeaderValue::from_static("*"));
    };
    names.extend(more);
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", ")).ok()
}
