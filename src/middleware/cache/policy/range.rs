//! Parts of a stored answer (RFC 9110 14).
use std::time::SystemTime;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Method, StatusCode};

/// From the first byte to the last, both in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Counted from 0.
    pub first: u64,
    /// Not before `first`, and below the length.
    pub last: u64,
}

/// What is sent of a stored answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranged {
    /// All of it: 200.
    Whole,
    /// 206 with [`content_range`].
    One(Part),
    /// 206 as [`Multipart`].
    Many(Vec<Part>),
    /// 416 with [`unsatisfied`].
    Unsatisfiable,
}

/// What a request's Range and If-Range ask of a stored answer to GET with `len` bytes of body.
/// Anything that is not a good `bytes` range for GET on 200 is [`Ranged::Whole`].
pub fn select(
    _method: &Method,
    _asked: &HeaderMap,
    _status: StatusCode,
    _fields: &HeaderMap,
    _len: u64,
    _now: SystemTime,
) -> Ranged {
    unimplemented!()
}

/// `bytes 0-4/10`.
pub fn content_range(_part: Part, _len: u64) -> HeaderValue {
    unimplemented!()
}

/// `bytes */10`, for 416.
pub fn unsatisfied(_len: u64) -> HeaderValue {
    unimplemented!()
}

/// Several parts in one body (RFC 9110 14.6).
#[derive(Clone, Debug)]
pub struct Multipart {
    /// `multipart/byteranges; boundary=...`
    pub content_type: HeaderValue,
    /// What stands before each part, and the part.
    pub parts: Vec<(Bytes, Part)>,
    /// What stands after the last.
    pub end: Bytes,
    /// Of the whole body, for Content-Length.
    pub len: u64,
}

/// Lays out several parts. `boundary`: letters and digits that are not in the body by chance.
pub fn multipart(_parts: &[Part], _fields: &HeaderMap, _len: u64, _boundary: u64) -> Multipart {
    unimplemented!()
}

/// What a Content-Range says of the body it comes with (RFC 9110 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// What is there.
    pub part: Part,
    /// Of so many bytes, if known.
    pub len: Option<u64>,
}

impl ContentRange {
    /// Of an answer's fields; `None` unless it is one good `bytes` range.
    pub fn read(_fields: &HeaderMap) -> Option<Self> {
        unimplemented!()
    }
}
