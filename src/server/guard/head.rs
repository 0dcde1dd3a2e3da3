//! The rules of one HTTP/1 request head that hyper does not keep, and how its body is framed.
//!
//! A pure function of the bytes. What hyper refuses by itself (bad tokens, bad versions, control
//! bytes in values) is left to it: a head that has no method or version has no framing here.

use crate::error::Reason;
use crate::telemetry::handles::Violation;

/// A broken rule and how it is answered.
pub(super) type Fault = (Violation, Reason);

/// How the body of a request is framed (RFC 9112 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    /// No body, and the request asks to leave HTTP: what follows may not be HTTP.
    Leaving,
    Length(u64),
    Chunked,
}

/// One past the empty line that ends a head, looked for from `from` on (which may be inside a
/// line end). Lines may end with LF alone here: [`check`] refuses them, but the head ends there.
pub(super) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &bytes[from..])
        .map(|at| from + at + 1)
        .find_map(|next| match &bytes[next..] {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        })
}

/// What a head says of its body, or the first rule it breaks.
pub(super) fn check(head: &[u8]) -> Result<Framing, Fault> {
    let mut lines = Lines(head);
    let request_line = lines.next().unwrap_or(Err(PARSE))?;
    let http10 = check_request_line(request_line)?;
    let mut seen = Seen::default();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        seen.field(line)?;
    }
    seen.framing(http10)
}

const PARSE: Fault = (Violation::Parse, Reason::BadRequest);
const FRAMING: Fault = (Violation::Framing, Reason::BadRequest);
const FIELDS: Fault = (Violation::Fields, Reason::BadRequest);

/// Lines without their CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = memchr::memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at(at);
        self.0 = &rest[1..];
        Some(line.strip_suffix(b"\r").ok_or(PARSE))
    }
}

/// Looks at the target's bytes; says whether the version is 1.0.
fn check_request_line(line: &[u8]) -> Result<bool, Fault> {
    let (Some(first), Some(last)) = (memchr::memchr(b' ', line), memchr::memrchr(b' ', line))
    else {
        return Ok(false);
    };
    let target = line.get(first + 1..last).unwrap_or_default();
    let bad = |b: &u8| matches!(b, 0..=b' ' | b'#' | 0x7f..);
    if target.iter().any(bad) {
        return Err((Violation::Target, Reason::BadRequest));
    }
    Ok(&line[last + 1..] == b"HTTP/1.0")
}

/// The fields that frame a message, name its host or ask for another protocol.
#[derive(Default)]
struct Seen {
    host: bool,
    upgrade: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Seen {
    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        if matches!(line, [b' ' | b'\t', ..]) {
            return Err(FIELDS);
        }
        let colon = memchr::memchr(b':', line).ok_or(FIELDS)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if matches!(name, [] | [.., b' ' | b'\t']) {
            return Err(FIELDS);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if is(name, b"content", b"length") => self.length(name, trim(value)),
            17 if is(name, b"transfer", b"encoding") => self.coding(name, trim(value)),
            _ => Ok(()),
        }
    }

    fn host(&mut self) -> Result<(), Fault> {
        if std::mem::replace(&mut self.host, true) {
            return Err((Violation::Host, Reason::BadRequest));
        }
        Ok(())
    }

    fn length(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        if name[7] == b'_' || self.length.is_some() || value.is_empty() {
            return Err(FRAMING);
        }
        let length = value.iter().try_fold(0u64, |sum, b| match b {
            b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(b - b'0')),
            _ => None,
        });
        // one that overflows where lengths are signed is as bad as one that does so here
        let signed = |length: &u64| i64::try_from(*length).is_ok();
        self.length = Some(length.filter(signed).ok_or(FRAMING)?);
        Ok(())
    }

    fn coding(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        if name[8] == b'_' || self.chunked {
            return Err(FRAMING);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err((Violation::TransferCoding, Reason::UnsupportedCoding));
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(self, http10: bool) -> Result<Framing, Fault> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(FRAMING),
            (true, None) if http10 => Err(FRAMING),
            (true, None) => Ok(Framing::Chunked),
            (false, None | Some(0)) if self.upgrade => Ok(Framing::Leaving),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::None),
        }
    }
}

/// `first-second` or its look-alike `first_second`, in any case.
fn is(name: &[u8], first: &[u8], second: &[u8]) -> bool {
    let (a, b) = name.split_at(first.len());
    a.eq_ignore_ascii_case(first)
        && matches!(b[0], b'-' | b'_')
        && b[1..].eq_ignore_ascii_case(second)
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|b| !blank(b))
        .map_or(start, |at| at + 1);
    &value[start..end]
}
