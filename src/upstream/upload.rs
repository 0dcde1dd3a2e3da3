//! The request's body on its way out, watched.
//!
//! hyper takes the next piece only when there is room for it, so an upstream that does not read
//! is seen as a body that is not asked for more. [`Upload`] says who is waited for: the client,
//! whose own timeouts apply, or the upstream, whose `idle` timeout does.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;

use crate::clock;
use crate::error::GatewayError;
use crate::message::Body;

/// How far a request's body has come.
#[derive(Debug)]
pub(super) struct Upload {
    start: Instant,
    moved: AtomicU64,
    state: AtomicU8,
    broken: AtomicBool,
    ended: Notify,
}

/// Who is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(clippy::enum_variant_names, reason = "read as `waits() == ForNobody`")]
pub(super) enum Waits {
    /// The client has yet to send more.
    ForClient = 0,
    /// The upstream has yet to take what is there.
    ForUpstream = 1,
    /// All of it has been handed over.
    ForNobody = 2,
}

impl Upload {
    /// Whom it waits for.
    pub(super) fn waits(&self) -> Waits {
        match self.state.load(Relaxed) {
            0 => Waits::ForClient,
            1 => Waits::ForUpstream,
            _ => Waits::ForNobody,
        }
    }

    /// The client broke it off.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// When it last moved.
    pub(super) fn moved(&self) -> Instant {
        self.start + Duration::from_millis(self.moved.load(Relaxed))
    }

    fn now(&self, waits: Waits, moved: bool) {
        self.state.store(waits as u8, Relaxed);
        if moved {
            let at = clock::now().saturating_duration_since(self.start);
            let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
            self.moved.store(at, Relaxed);
        }
        if waits == Waits::ForNobody {
            self.ended.notify_one();
        }
    }
}

/// Is ready once, when all of the body has been handed over; never where there is none.
pub(super) async fn ended(upload: Option<&Upload>) {
    match upload {
        Some(upload) => upload.ended.notified().await,
        None => std::future::pending().await,
    }
}

/// Watches a body; one that is empty needs no watching.
pub(super) fn watch(body: &mut Body, now: Instant) -> Option<Arc<Upload>> {
    if body.is_end_stream() {
        return None;
    }
    let upload = Arc::new(Upload {
        start: now,
        moved: AtomicU64::new(0),
        state: AtomicU8::new(Waits::ForUpstream as u8),
        broken: AtomicBool::new(false),
        ended: Notify::new(),
    });
    let watched = Watched {
        left: body.size_hint().exact(),
        body: std::mem::take(body),
        upload: Arc::clone(&upload),
    };
    *body = Body::wrap(watched);
    Some(upload)
}

struct Watched {
    body: Body,
    /// Bytes to come, where that is known: hyper does not ask for more once it has them.
    left: Option<u64>,
    upload: Arc<Upload>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.left = self.left.map(|left| left.saturating_sub(length));
        }
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.upload.broken.store(true, Relaxed);
        }
        let all = self.left == Some(0) || self.body.is_end_stream();
        match &polled {
            Poll::Pending => self.upload.now(Waits::ForClient, false),
            Poll::Ready(Some(Ok(_))) if !all => {
                self.upload.now(Waits::ForUpstream, true);
            }
            Poll::Ready(_) => self.upload.now(Waits::ForNobody, true),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
