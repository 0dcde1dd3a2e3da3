//! The response's body on its way back: idle timeout, and what its end means.
//!
//! At the end of a whole answer the connection goes back to its pool and the request is no longer
//! in flight. A body that breaks, stalls or is dropped early closes its connection (HTTP/1) or
//! resets its stream (HTTP/2); nothing is reused when framing is in doubt. The timer exists only
//! once the upstream has kept us waiting, so that a fast answer never arms one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::Upstream;
use super::checkout::Lent;
use super::pool::{InFlight, Keep};
use super::record::Record;
use super::upload::{Upload, Waits};
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::Body;

/// What is let go when an answer has ended.
pub(super) struct Ending {
    pub(super) lent: Lent,
    pub(super) flight: InFlight,
    pub(super) upload: Option<Arc<Upload>>,
    /// The answer leaves no doubt about where it ends.
    pub(super) reusable: bool,
    pub(super) keep: Keep,
}

impl Ending {
    /// The answer is whole, as of `now`.
    fn whole(self, now: Instant) {
        let sent = self.upload.is_none_or(|u| u.waits() == Waits::ForNobody);
        drop(self.flight);
        if let Lent::H1(lent) = self.lent
            && self.reusable
            && sent
        {
            lent.keep(self.keep, now);
        }
    }
}

/// How connections of an upstream are kept, as of now.
pub(super) fn keep(upstream: &Upstream) -> Keep {
    Keep {
        max_idle: upstream.config.pool.max_idle as usize,
        awaited: upstream.caps.waiting(),
    }
}

/// Watches an answer's body.
pub(super) fn watch(body: Body, ending: Ending, record: Record, idle: Duration) -> Body {
    if body.is_end_stream() {
        let now = record.came;
        ending.whole(now);
        record.whole(now);
        return body;
    }
    Body::wrap(Answer {
        body,
        ending: Some((ending, record)),
        idle,
        timer: None,
        armed: false,
        prompt: true,
    })
}

struct Answer {
    body: Body,
    ending: Option<(Ending, Record)>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
    /// Nobody has waited since the headers came: a small body is there with them.
    prompt: bool,
}

impl Answer {
    fn whole(&mut self) {
        if let Some((ending, record)) = self.ending.take() {
            let now = if self.prompt {
                record.came
            } else {
                clock::now()
            };
            ending.whole(now);
            record.whole(now);
        }
    }

    fn broken(&mut self, why: Reason) {
        let Some((ending, record)) = self.ending.take() else {
            return;
        };
        // Where the client broke its own body off, the connection had to go with it.
        if !ending.upload.is_some_and(|u| u.is_broken()) {
            record.broken(why);
        }
    }

    /// Whether the upstream has kept us waiting too long.
    fn is_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        self.prompt = false;
        let due = (clock::now() + self.idle).into();
        let timer = match &mut self.timer {
            Some(timer) => {
                if !self.armed {
                    timer.as_mut().reset(due);
                }
                timer
            }
            None => self.timer.insert(Box::pin(tokio::time::sleep_until(due))),
        };
        self.armed = true;
        while timer.as_mut().poll(cx).is_ready() {
            let upload = self.ending.as_ref().and_then(|(e, _)| e.upload.as_ref());
            // Bytes that still go the other way keep a two-way stream alive.
            let moved = upload.map(|u| u.moved() + self.idle);
            match moved.filter(|due| *due > clock::now()) {
                Some(due) => timer.as_mut().reset(due.into()),
                None => return true,
            }
        }
        false
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.armed = false;
                if this.body.is_end_stream() {
                    this.whole();
                }
                this.prompt = false;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.broken(error.reason());
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.whole();
                Poll::Ready(None)
            }
            Poll::Pending if this.is_stalled(cx) => {
                this.broken(Reason::ConnectionReadTimeout);
                this.body = Body::empty();
                Poll::Ready(Some(Err(Reason::ConnectionReadTimeout.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.ending.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
