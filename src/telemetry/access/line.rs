//! How an access-log line looks: one JSON object, whatever a client sent.
//!
//! Written by hand into the worker's buffer, without a tree of values in between. Text of
//! clients is escaped as RFC 8259 7 asks and beyond: control characters, the bidirectional and
//! invisible ones that make a terminal or an editor show something else, and line separators are
//! `\u` escapes; bytes that are no UTF-8 become U+FFFD. A newline ends a line and stands nowhere
//! else.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Version;

use crate::error::{Cause, Reason};
use crate::message::exchange::Step;

/// One request, as it is logged. Everything is borrowed; bytes are as the client sent them.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The route's id, or `_none`.
    pub route: &'a str,
    /// The method.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host asked for.
    pub host: &'a [u8],
    /// The path, without query.
    pub path: &'a [u8],
    /// The query, without `?`.
    pub query: Option<&'a [u8]>,
    /// The status of the answer; 499 if the client left before it.
    pub status: u16,
    /// What Weir itself failed or refused.
    pub reason: Option<Reason>,
    /// What policies in observe mode would have refused.
    pub observed: &'a [Reason],
    /// The lesser answer that was given: for what, and by which step.
    pub degraded: Option<(Cause, Step)>,
    /// From headers read to the last body byte sent.
    pub duration: Duration,
    /// From headers read to response headers ready.
    pub first_byte: Option<Duration>,
    /// The upstream asked last.
    pub upstream: Option<&'a str>,
    /// The endpoint asked last.
    pub endpoint: Option<SocketAddr>,
    /// Tries made at upstreams.
    pub tries: u32,
    /// Time spent waiting for upstreams.
    pub waited: Duration,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the response body.
    pub bytes_out: u64,
    /// The client, as trusted proxies say.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The protocol the client spoke.
    pub protocol: Version,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`.
    pub referer: Option<&'a [u8]>,
    /// The subject of the verified client certificate.
    pub client_subject: Option<&'a str>,
    /// The request id.
    pub request_id: &'a [u8],
    /// The trace-id of a valid `traceparent`.
    pub trace_id: Option<&'a str>,
}

impl Record<'_> {
    /// A 5xx that Weir made: always logged.
    pub(super) fn failed_by_us(&self) -> bool {
        self.status >= 500 && self.reason.is_some()
    }
}

/// Appends one line; `stamp` is the time, see [`Stamp`].
pub(super) fn write(out: &mut Vec<u8>, record: &Record<'_>, stamp: &[u8]) {
    let mut line = Line { out };
    line.out.extend_from_slice(b"{\"ts\":\"");
    line.out.extend_from_slice(stamp);
    line.out.push(b'"');
    request(&mut line, record);
    answer(&mut line, record);
    who(&mut line, record);
    line.out.extend_from_slice(b"}\n");
}

fn request(line: &mut Line<'_>, record: &Record<'_>) {
    line.text("route", record.route.as_bytes());
    line.text("method", record.method.as_bytes());
    line.text("scheme", record.scheme.as_bytes());
    line.text("host", record.host);
    line.text("path", record.path);
    line.maybe("query", record.query);
}

fn answer(line: &mut Line<'_>, record: &Record<'_>) {
    line.number("status", u64::from(record.status));
    line.maybe("reason", record.reason.map(|r| r.as_str().as_bytes()));
    if let Some((cause, step)) = record.degraded {
        line.text("degraded", cause.as_str().as_bytes());
        line.text("step", step.as_str().as_bytes());
    }
    if !record.observed.is_empty() {
        let words: Vec<&str> = record.observed.iter().map(|r| r.as_str()).collect();
        line.text("observed", words.join(" ").as_bytes());
    }
    line.millis("duration_ms", record.duration);
    if let Some(first_byte) = record.first_byte {
        line.millis("first_byte_ms", first_byte);
    }
    if let Some(upstream) = record.upstream {
        line.text("upstream", upstream.as_bytes());
        if let Some(endpoint) = record.endpoint {
            line.shown("endpoint", &endpoint);
        }
        line.number("tries", u64::from(record.tries));
        line.millis("upstream_ms", record.waited);
    }
    line.number("bytes_in", record.bytes_in);
    line.number("bytes_out", record.bytes_out);
}

fn who(line: &mut Line<'_>, record: &Record<'_>) {
    line.shown("client", &record.client);
    line.shown("peer", &record.peer);
    line.text("protocol", protocol(record.protocol));
    line.maybe("user_agent", record.user_agent);
    line.maybe("referer", record.referer);
    line.maybe("client_subject", record.client_subject.map(str::as_bytes));
    line.text("request_id", record.request_id);
    line.maybe("trace_id", record.trace_id.map(str::as_bytes));
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2",
        Version::HTTP_3 => b"HTTP/3",
        _ => b"HTTP/1.1",
    }
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    /// `,"key":` (the first field, `ts`, is written apart).
    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, key: &str, text: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        escape(self.out, text);
        self.out.push(b'"');
    }

    fn maybe(&mut self, key: &str, text: Option<&[u8]>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        self.display(&number);
    }

    /// Milliseconds with three decimals.
    fn millis(&mut self, key: &str, time: Duration) {
        self.key(key);
        let micros = time.as_micros();
        self.display(&format_args!("{}.{:03}", micros / 1_000, micros % 1_000));
    }

    /// An address: nothing in it needs escaping.
    fn shown(&mut self, key: &str, value: &dyn std::fmt::Display) {
        self.key(key);
        self.display(&format_args!("\"{value}\""));
    }

    fn display(&mut self, value: &dyn std::fmt::Display) {
        write!(self.out, "{value}").expect("writing to memory cannot fail");
    }
}

/// Appends text between quotes of JSON.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let plain = |b: &u8| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    let Some(first) = text.iter().position(|b| !plain(b)) else {
        return out.extend_from_slice(text);
    };
    let (before, rest) = text.split_at(first);
    out.extend_from_slice(before);
    for chunk in rest.utf8_chunks() {
        chunk.valid().chars().for_each(|c| escape_char(out, c));
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn escape_char(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // all of these are in the basic plane: one escape each
        c if deceives(c) => {
            write!(out, "\\u{:04x}", c as u32).expect("writing to memory cannot fail")
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Characters that are not seen as what they are: controls (C0, DEL, C1), bidirectional marks and
/// overrides, zero-width ones, line and paragraph separators, the byte order mark.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The time as RFC 3339 in UTC with milliseconds; all but those are made once a second.
#[derive(Debug)]
pub(super) struct Stamp {
    second: Option<u64>,
    text: [u8; 24],
}

impl Default for Stamp {
    fn default() -> Self {
        Stamp {
            second: None,
            text: *b"1970-01-01T00:00:00.000Z",
        }
    }
}

impl Stamp {
    /// `now`, as text. Times before 1970 are shown as 1970.
    pub(super) fn at(&mut self, now: SystemTime) -> &[u8] {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.date(since.as_secs());
        }
        digits(&mut self.text[20..23], u64::from(since.subsec_millis()));
        &self.text
    }

    fn date(&mut self, seconds: u64) {
        let (year, month, day) = civil(seconds / 86_400);
        let of_day = seconds % 86_400;
        digits(&mut self.text[0..4], year);
        digits(&mut self.text[5..7], month);
        digits(&mut self.text[8..10], day);
        digits(&mut self.text[11..13], of_day / 3_600);
        digits(&mut self.text[14..16], of_day / 60 % 60);
        digits(&mut self.text[17..19], of_day % 60);
    }
}

fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
fn civil(mut day: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}
