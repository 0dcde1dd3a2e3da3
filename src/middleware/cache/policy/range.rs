//! Parts of a stored answer (RFC 9110 14).
//!
//! Only `bytes`, only for GET, only of a 200. A Range that is written badly, asks for too many
//! pieces, or asks for more than the whole is not there: the whole is sent. Numbers too great are
//! the greatest; nothing overflows.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::date;
use super::etag::ETag;

/// More pieces than this are the whole (RFC 9110 14.2, 17.15).
const MOST_PARTS: usize = 16;

/// Pieces this near to each other cost less as one.
const NEAR: u64 = 80;

/// From the first byte to the last, both in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Counted from 0.
    pub first: u64,
    /// Not before `first`, and below the length.
    pub last: u64,
}

impl Part {
    /// In bytes, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a part is never empty")]
    pub fn len(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
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
    method: &Method,
    asked: &HeaderMap,
    status: StatusCode,
    fields: &HeaderMap,
    len: u64,
    now: SystemTime,
) -> Ranged {
    if *method != Method::GET || status != StatusCode::OK || !unchanged(asked, fields, now) {
        return Ranged::Whole;
    }
    let Some(specs) = specs(asked) else {
        return Ranged::Whole;
    };
    if len == 0 && specs.iter().any(|spec| matches!(spec, Spec::Last(1..))) {
        return Ranged::Whole;
    }
    let parts: Vec<_> = specs.iter().filter_map(|spec| spec.of(len)).collect();
    spread(parts, len)
}

/// What a request asks of a stored part (206): the one range it asks for, if it is all there.
pub fn within(
    method: &Method,
    asked: &HeaderMap,
    fields: &HeaderMap,
    stored: ContentRange,
    now: SystemTime,
) -> Option<Part> {
    if *method != Method::GET || !unchanged(asked, fields, now) {
        return None;
    }
    let [spec] = specs(asked)?[..] else {
        return None;
    };
    let part = match (stored.len, spec) {
        (Some(len), spec) => spec.of(len)?,
        (None, Spec::Between(first, Some(last))) => Part { first, last },
        (None, _) => return None,
    };
    let have = stored.part;
    (have.first <= part.first && part.last <= have.last).then_some(part)
}

/// One range as asked for.
#[derive(Clone, Copy)]
enum Spec {
    /// From, and to or to the end.
    Between(u64, Option<u64>),
    /// The last so many.
    Last(u64),
}

impl Spec {
    /// What there is of it; `None` if there is nothing.
    fn of(self, len: u64) -> Option<Part> {
        let end = len.checked_sub(1)?;
        let (first, last) = match self {
            Spec::Between(first, last) => (first, last.map_or(end, |last| last.min(end))),
            Spec::Last(0) => return None,
            Spec::Last(count) => (len.saturating_sub(count), end),
        };
        (first <= end).then_some(Part { first, last })
    }
}

/// The ranges of a Range that is good as a whole.
fn specs(asked: &HeaderMap) -> Option<Vec<Spec>> {
    let mut lines = asked.get_all(header::RANGE).iter();
    let line = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    let (unit, set) = line.as_bytes().split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let members = set.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let members = members.filter(|member| !member.is_empty());
    let specs: Vec<_> = members
        .take(MOST_PARTS + 1)
        .map(spec)
        .collect::<Option<_>>()?;
    (1..=MOST_PARTS).contains(&specs.len()).then_some(specs)
}

fn spec(text: &[u8]) -> Option<Spec> {
    let dash = text.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&text[..dash], &text[dash + 1..]);
    match (first, last) {
        ([], last) => Some(Spec::Last(number(last)?)),
        (first, []) => Some(Spec::Between(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::Between(first, Some(last)))
        }
    }
}

/// Digits; too many are the most there can be.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let sum = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(text.iter().fold(0, sum))
}

/// In the order asked for, unless some overlap or almost touch: those are put together.
fn spread(parts: Vec<Part>, len: u64) -> Ranged {
    let mut sorted = parts.clone();
    sorted.sort_unstable_by_key(|part| part.first);
    let mut joined: Vec<Part> = Vec::with_capacity(sorted.len());
    for part in sorted {
        match joined.last_mut() {
            Some(before) if part.first <= before.last.saturating_add(NEAR) => {
                before.last = before.last.max(part.last);
            }
            _ => joined.push(part),
        }
    }
    let parts = if joined.len() == parts.len() {
        parts
    } else {
        joined
    };
    match parts[..] {
        [] => Ranged::Unsatisfiable,
        [part] => Ranged::One(part),
        _ if parts.iter().map(|part| part.len()).sum::<u64>() >= len => Ranged::Whole,
        _ => Ranged::Many(parts),
    }
}

/// Whether If-Range, if there is one, still holds (RFC 9110 13.1.5): the same strong tag, or the
/// same date where a date is strong (8.8.2.2).
fn unchanged(asked: &HeaderMap, fields: &HeaderMap, now: SystemTime) -> bool {
    let mut lines = asked.get_all(header::IF_RANGE).iter();
    let Some(line) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    match ETag::parse(line.as_bytes()) {
        Some(tag) => ETag::read(fields).is_some_and(|stored| stored.strong_eq(tag)),
        None => same_date(line, fields, now),
    }
}

fn same_date(line: &HeaderValue, fields: &HeaderMap, now: SystemTime) -> bool {
    let read = |value: Option<&HeaderValue>| date::parse(value?.as_bytes(), now);
    let (asked, modified) = (read(Some(line)), read(fields.get(header::LAST_MODIFIED)));
    let (Some(modified), Some(made)) = (modified, read(fields.get(header::DATE))) else {
        return false;
    };
    let strong = made
        .duration_since(modified)
        .is_ok_and(|gap| gap >= Duration::from_secs(1));
    strong && asked == Some(modified)
}

/// `bytes 0-4/10`.
pub fn content_range(part: Part, len: u64) -> HeaderValue {
    ascii(format!("bytes {}-{}/{len}", part.first, part.last))
}

/// `bytes */10`, for 416.
pub fn unsatisfied(len: u64) -> HeaderValue {
    ascii(format!("bytes */{len}"))
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits and ASCII letters")
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

/// Lays out several parts. `boundary` is a number by chance, so that it is in no body.
pub fn multipart(parts: &[Part], fields: &HeaderMap, len: u64, boundary: u64) -> Multipart {
    let boundary = format!("{boundary:016x}");
    let kind = fields.get(header::CONTENT_TYPE);
    let head = |(index, part): (usize, &Part)| {
        let mut head = if index == 0 {
            Vec::new()
        } else {
            b"\r\n".to_vec()
        };
        head.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        if let Some(kind) = kind {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(kind.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"Content-Range: ");
        head.extend_from_slice(content_range(*part, len).as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        (Bytes::from(head), *part)
    };
    let parts: Vec<_> = parts.iter().enumerate().map(head).collect();
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let sum = parts.iter().map(|(head, part)| size(head) + part.len());
    Multipart {
        content_type: ascii(format!("multipart/byteranges; boundary={boundary}")),
        len: sum.sum::<u64>() + size(&end),
        parts,
        end,
    }
}

fn size(bytes: &Bytes) -> u64 {
    bytes.len() as u64
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
    pub fn read(fields: &HeaderMap) -> Option<Self> {
        let mut lines = fields.get_all(header::CONTENT_RANGE).iter();
        let line = lines.next()?.to_str().ok()?;
        if lines.next().is_some() {
            return None;
        }
        let (unit, rest) = line.split_once(' ')?;
        let (range, len) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let part = Part {
            first: number(first.as_bytes())?,
            last: number(last.as_bytes())?,
        };
        let len = match len {
            "*" => None,
            len => Some(number(len.as_bytes())?),
        };
        let fits = part.first <= part.last && len.is_none_or(|len| part.last < len);
        (unit.eq_ignore_ascii_case("bytes") && fits).then_some(ContentRange { part, len })
    }
}
