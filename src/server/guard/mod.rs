//! A strict look at every HTTP/1 request head before hyper sees it.
//!
//! hyper hides from a service what makes requests ambiguous: that Content-Length and
//! Transfer-Encoding both stood there, a bare LF, a second Transfer-Encoding, a `#` in the target.
//! The guard follows the framing of the byte stream (head, body by length or chunks, next head)
//! without changing a byte (one exception: it ends a request line that is too long, so that the
//! refusal is an answer like any other), and where a head breaks a rule it writes the number of that request
//! into the [`Verdict`] and lets nothing through after it: requests before are answered first,
//! `dispatch` refuses this one and the connection closes.
//!
//! * `head`: the rules of one head
//! * `chunks`: where a chunked body ends

mod chunks;
mod head;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::Reason;
use crate::telemetry::handles::Violation;
use chunks::{Chunks, Progress};
use head::{Fault, Framing};

/// Empty lines before a head that are passed over (RFC 9112 2.2 asks for at least one).
const BLANK_BYTES: u8 = 16;

/// What a head may have beside the bytes that hyper counts before the guard stops following it.
const SLACK: usize = 16 << 10;

/// What ends a request line that is too long, in the client's stead.
const ENDING: &[u8] = b" HTTP/1.1\r\n\r\n";

/// Which request of a connection must be refused, and why. Shared with `dispatch`.
#[derive(Debug, Default)]
pub struct Verdict(AtomicU64);

impl Verdict {
    /// What is wrong with a request of this connection, counted from 1. Requests after a bad one
    /// are bad, too: where it ended is in doubt.
    pub fn check(&self, request_ordinal: u64) -> Option<(Violation, Reason)> {
        let written = self.0.load(Relaxed);
        if written == 0 || request_ordinal < written >> 16 {
            return None;
        }
        let (violation, _) = *Violation::ALL.get(usize::from((written >> 8) as u8))?;
        let reason = *Reason::ALL.get(usize::from(written as u8))?;
        Some((violation, reason))
    }

    /// Whether any request must be refused.
    pub fn is_bad(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    fn write(&self, ordinal: u64, fault: Fault) {
        if !self.is_bad() {
            let code = (fault.0 as u64) << 8 | fault.1.index() as u64;
            self.0.store(ordinal << 16 | code, Relaxed);
        }
    }
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Guard {
    state: State,
    verdict: Arc<Verdict>,
    /// The number of heads that were complete.
    heads: u64,
    /// The beginning of a head that came in pieces.
    carry: Vec<u8>,
    blank: u8,
    /// The largest head, as hyper counts it.
    limit: usize,
    /// What is left to pass of [`ENDING`].
    ending: &'static [u8],
}

#[derive(Debug)]
enum State {
    /// At or inside a head.
    Head,
    /// Inside a body with this many bytes left.
    Length(u64),
    /// Inside a chunked body.
    Chunked(Chunks),
    /// A request has passed that asks to leave HTTP; nothing passes until it is answered.
    Leaving,
    /// A bad head has passed; nothing passes after it.
    Held,
    /// A chunked body has turned out to be none; nothing passes after its last good byte.
    Broken,
    /// Framing is lost; hyper must find the fault, and a request it finds instead is refused.
    Lost,
}

impl Guard {
    /// For heads of up to `limit` bytes, of 1024 at least.
    pub fn new(limit: usize) -> Self {
        Guard {
            state: State::Head,
            verdict: Arc::default(),
            heads: 0,
            carry: Vec::new(),
            blank: 0,
            limit,
            ending: &[],
        }
    }

    /// The cell that `dispatch` asks.
    pub fn verdict(&self) -> Arc<Verdict> {
        self.verdict.clone()
    }

    /// Heads seen whole.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a head has begun and not ended. Empty lines after a request begin none: some clients
    /// end a body with one (RFC 9112 2.2) and are idle then.
    pub fn in_head(&self) -> bool {
        let begun = !self.carry.is_empty() || (self.blank > 0 && self.heads == 0);
        matches!(self.state, State::Head) && begun
    }

    /// Whether the last byte seen was the last of a request.
    pub fn between(&self) -> bool {
        matches!(self.state, State::Head | State::Leaving) && self.carry.is_empty()
    }

    /// Whether nothing passes until the last request is answered: what follows it is the next
    /// request, or the first bytes of a tunnel.
    pub fn awaits(&self) -> bool {
        matches!(self.state, State::Leaving)
    }

    /// The request that asked to leave HTTP was answered and has not left: the next one follows.
    pub fn stays(&mut self) {
        if self.awaits() {
            self.state = State::Head;
        }
    }

    /// Whether nothing passes any more.
    pub fn holds(&self) -> bool {
        matches!(self.state, State::Held)
    }

    /// The end of a request line that was cut, up to `room` bytes of it.
    pub fn ending(&mut self, room: usize) -> &'static [u8] {
        let (now, later) = self.ending.split_at(room.min(self.ending.len()));
        self.ending = later;
        now
    }

    /// Whether the body that passes now can never be whole.
    pub fn breaks(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// Looks at the next bytes and says how many of them may pass.
    ///
    /// # Errors
    /// Where a client sends empty lines and no request.
    pub fn inspect(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match &mut self.state {
                State::Head => self.head(rest)?,
                State::Length(left) => {
                    let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Head;
                    }
                    taken
                }
                State::Chunked(chunks) => match chunks.advance(rest) {
                    Progress::More => rest.len(),
                    Progress::Done(taken) => {
                        self.state = State::Head;
                        taken
                    }
                    Progress::Broken(good) => {
                        let fault = (Violation::Body, Reason::BadRequest);
                        self.verdict.write(self.heads + 1, fault);
                        self.state = State::Broken;
                        return Ok(at + good);
                    }
                },
                State::Held | State::Leaving | State::Broken => return Ok(at),
                State::Lost => rest.len(),
            };
        }
        Ok(at)
    }

    /// Takes from `bytes` up to the end of the head, all of them where it does not end in them.
    fn head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.carry.is_empty() {
            let blank = bytes
                .iter()
                .take_while(|b| matches!(b, b'\r' | b'\n'))
                .count();
            if blank > 0 {
                return self.blank(blank);
            }
            if self.line_is_too_long(bytes) {
                return Ok(self.cut(0));
            }
            if let Some(end) = head::end(bytes, 0) {
                self.judge(head::check(&bytes[..end]));
                return Ok(end);
            }
            self.carry.extend_from_slice(bytes);
        } else {
            let before = self.carry.len();
            self.carry.extend_from_slice(bytes);
            if self.line_is_too_long(&self.carry) {
                return Ok(self.cut(before));
            }
            if let Some(end) = head::end(&self.carry, before.saturating_sub(3)) {
                let carry = std::mem::take(&mut self.carry);
                self.judge(head::check(&carry[..end]));
                return Ok(end - before);
            }
        }
        if self.carry.len() > self.limit + SLACK {
            self.carry = Vec::new();
            self.lose((Violation::FieldSize, Reason::HeaderTooLarge));
        }
        Ok(bytes.len())
    }

    /// How much of a request line may pass, so that a head with its ending keeps to the limit.
    fn room(&self) -> usize {
        self.limit.saturating_sub(ENDING.len())
    }

    fn line_is_too_long(&self, head: &[u8]) -> bool {
        let room = self.room();
        head.len() > room && memchr::memchr(b'\n', &head[..=room]).is_none()
    }

    /// Refuses a request within its first line, of which `passed` bytes have passed. Says how
    /// many more may.
    fn cut(&mut self, passed: usize) -> usize {
        self.carry = Vec::new();
        self.heads += 1;
        let fault = (Violation::Target, Reason::UriTooLong);
        self.verdict.write(self.heads, fault);
        self.state = State::Held;
        self.ending = ENDING;
        self.room() - passed
    }

    fn blank(&mut self, count: usize) -> io::Result<usize> {
        let seen = usize::from(self.blank) + count;
        self.blank = u8::try_from(seen).unwrap_or(u8::MAX);
        if self.blank > BLANK_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "empty lines and no request",
            ));
        }
        Ok(count)
    }

    fn judge(&mut self, outcome: Result<Framing, Fault>) {
        self.heads += 1;
        self.blank = 0;
        self.state = match outcome {
            Ok(Framing::None | Framing::Length(0)) => State::Head,
            Ok(Framing::Leaving) => State::Leaving,
            Ok(Framing::Length(length)) => State::Length(length),
            Ok(Framing::Chunked) => State::Chunked(Chunks::default()),
            Err(fault) => {
                self.verdict.write(self.heads, fault);
                State::Held
            }
        };
    }

    /// From here on hyper decides alone, and whatever it takes for a further request is refused.
    fn lose(&mut self, fault: Fault) {
        self.verdict.write(self.heads + 1, fault);
        self.state = State::Lost;
    }
}
