//! What is no longer true after an unsafe request (RFC 9111 4.4).
use http::{HeaderMap, Method, StatusCode};

/// Whether what is stored for the target is to be thrown away: any method not known to be safe,
/// and an answer of 2xx or 3xx.
pub fn invalidates(_method: &Method, _status: StatusCode) -> bool {
    unimplemented!()
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
pub fn others(_target: Target<'_>, _fields: &HeaderMap) -> Vec<String> {
    unimplemented!()
}
