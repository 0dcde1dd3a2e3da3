//! Conditional requests: to us, and of ours (RFC 9110 13, RFC 9111 4.3).
use std::time::SystemTime;

use http::{HeaderMap, Method, StatusCode};

/// Whether a request must go to the origin because of preconditions that a cache does not judge:
/// If-Match and If-Unmodified-Since (RFC 9111 4.3.2).
pub fn for_origin(_asked: &HeaderMap) -> bool {
    unimplemented!()
}

/// Whether the client has it already, by its If-None-Match, else If-Modified-Since: then
/// [`not_modified`] is the answer and not the stored one. Only for GET and HEAD, and only where
/// the stored status is 200 (RFC 9111 4.3.2). `came` is when the stored answer was received.
pub fn answer(
    _method: &Method,
    _asked: &HeaderMap,
    _status: StatusCode,
    _fields: &HeaderMap,
    _came: SystemTime,
    _now: SystemTime,
) -> bool {
    unimplemented!()
}

/// The fields of a 304 made from a stored answer (RFC 9110 15.4.5).
pub fn not_modified(_fields: &HeaderMap) -> HeaderMap {
    unimplemented!()
}

/// Makes a request ask the origin whether the stored answer still stands: the client's own
/// conditions and Range go, ours come (RFC 9111 4.3.1). False if there is nothing to ask by, the
/// request then being unconditional.
pub fn ask(_request: &mut HeaderMap, _fields: &HeaderMap) -> bool {
    unimplemented!()
}

/// Whether a 304 is about this stored answer (RFC 9111 4.3.4); `only` if no other is stored.
pub fn confirms(_fields: &HeaderMap, _not_modified: &HeaderMap, _only: bool) -> bool {
    unimplemented!()
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
pub fn head(_status: StatusCode, _head: &HeaderMap, _fields: &HeaderMap, _len: u64) -> Head {
    unimplemented!()
}
