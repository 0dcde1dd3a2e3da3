//! Interim answers (1xx, RFC 9110 15.2) on their way from an upstream to an HTTP/1.1 client.
//!
//! hyper tells of those that come from an upstream and has no way to send any to a client. So they
//! are written by the client's connection itself, between two answers: what is here leaves when
//! hyper has nothing more to write, and the final answer is held back until it has left. Where the
//! two meet is the [`Interims`] of a connection. 100 is not passed on, since hyper sends it where it
//! is due, nor is 101, which is final. What comes after the final answer, or is too much, is dropped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Waker;

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::hop;

/// Of one request, at most.
const MOST: u8 = 8;
/// Bytes of one request's, at most.
const MOST_BYTES: usize = 16 << 10;

/// The interim answers of one client connection. Both sides run on the connection's worker; most
/// requests have none, and take no lock.
#[derive(Debug, Default)]
pub struct Interims {
    /// Some have not left.
    any: AtomicBool,
    /// Requests answered so far: the final answer is on its way.
    answered: AtomicU64,
    /// Who is to know of the next one has said so.
    watched: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What has not left, and that some of it is leaving.
    bytes: Vec<u8>,
    leaving: bool,
    /// How many this request has had.
    passed: (u64, u8),
    waker: Option<Waker>,
}

impl Interims {
    /// An interim answer to the request with this number, counted from 1.
    pub fn pass(&self, request: u64, status: StatusCode, fields: &HeaderMap) {
        if matches!(status.as_u16(), 100 | 101) || !status.is_informational() {
            return;
        }
        let head = head(status, fields);
        let waker = {
            let mut inner = self.inner.lock();
            if inner.passed.0 != request {
                inner.passed = (request, 0);
            }
            let fits = inner.passed.1 < MOST && inner.bytes.len() + head.len() <= MOST_BYTES;
            if request != self.answered.load(Relaxed) + 1 || !fits {
                return;
            }
            inner.passed.1 += 1;
            inner.bytes.extend_from_slice(&head);
            self.any.store(true, Relaxed);
            self.watched.store(false, Relaxed);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whoever waits for the final answer wants to know of interim ones: the connection's task,
    /// which stays the same.
    pub fn watch(&self, waker: &Waker) {
        if !self.watched.load(Relaxed) {
            self.inner.lock().waker = Some(waker.clone());
            self.watched.store(true, Relaxed);
        }
    }

    /// The final answer is here: whether it may go now, since no interim one waits before it.
    pub fn finish(&self) -> bool {
        let clear = !self.any();
        if clear {
            let answered = self.answered.load(Relaxed) + 1;
            self.answered.store(answered, Relaxed);
        }
        clear
    }

    /// Whether there is anything to write, or to have been written.
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// What is to be written next; `None` once all has left.
    pub fn next(&self) -> Option<Vec<u8>> {
        let mut inner = self.inner.lock();
        let next = std::mem::take(&mut inner.bytes);
        inner.leaving = !next.is_empty();
        self.any.store(inner.leaving, Relaxed);
        inner.leaving.then_some(next)
    }
}

/// As it is sent: without what concerns only the connection it came on, and without a body, which
/// it cannot have.
fn head(status: StatusCode, fields: &HeaderMap) -> Vec<u8> {
    let mut fields = fields.clone();
    hop::strip_answer(&mut fields);
    let mut head = b"HTTP/1.1 ".to_vec();
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    let reason = status.canonical_reason().unwrap_or_default();
    head.extend_from_slice(reason.as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in &fields {
        if name == http::header::CONTENT_LENGTH {
            continue;
        }
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let named = |(name, value): &(&'static str, &'static str)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        lines.iter().map(named).collect()
    }

    #[test]
    fn rfc9110_15_2_an_interim_answer_leaves_before_the_final_one() {
        let interims = Interims::default();
        assert!(!interims.any() && interims.next().is_none());
        let early = fields(&[("link", "</a>"), ("connection", "x"), ("x", "1")]);
        interims.pass(1, StatusCode::EARLY_HINTS, &early);
        assert!(interims.any() && !interims.finish());
        let written = interims.next().expect("one");
        assert_eq!(written, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        assert!(!interims.finish(), "it has not left yet");
        assert!(interims.next().is_none());
        assert!(interims.finish());
    }

    #[test]
    fn what_comes_after_the_final_answer_or_for_another_request_is_dropped() {
        let interims = Interims::default();
        interims.pass(0, StatusCode::PROCESSING, &fields(&[]));
        interims.pass(2, StatusCode::PROCESSING, &fields(&[]));
        assert!(interims.finish());
        interims.pass(1, StatusCode::PROCESSING, &fields(&[]));
        assert!(!interims.any());
        interims.pass(2, StatusCode::PROCESSING, &fields(&[]));
        assert!(interims.any());
    }

    #[test]
    fn d05_d06_neither_100_nor_101_nor_too_many_are_passed() {
        let interims = Interims::default();
        for status in [100, 101, 200] {
            let status = StatusCode::from_u16(status).expect("a status");
            interims.pass(1, status, &fields(&[]));
        }
        assert!(!interims.any());
        for _ in 0..20 {
            interims.pass(1, StatusCode::PROCESSING, &fields(&[]));
        }
        let written = interims.next().expect("some");
        assert_eq!(written.len(), 8 * b"HTTP/1.1 102 Processing\r\n\r\n".len());
        assert!(interims.next().is_none() && interims.finish());
        interims.pass(2, StatusCode::PROCESSING, &fields(&[]));
        assert!(interims.any(), "the next request has its own");
    }
}
