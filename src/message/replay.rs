//! Which requests may be sent again, and a body that can be.
//!
//! A body in memory is simply cloned. A stream is kept back as it passes, up to a cap, and a
//! further try reads what was kept and then goes on with the stream; a stream of which nothing
//! was taken can be sent again whatever its size. Only one try reads at a time: an older one
//! that still holds its body gets an error.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Method;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use super::{Body, Request};
use crate::error::{GatewayError, Reason};

/// Methods that may be repeated without harm (RFC 9110 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Bytes of a stream that are kept for a further try.
const CAP: u64 = 64 * 1024;

/// What a further try sends.
pub enum Replay {
    /// It is in memory.
    Whole(Body),
    /// It comes from the client.
    Stream(Arc<Mutex<Stream>>),
}

/// The stream behind all tries.
pub struct Stream {
    body: Body,
    kept: Vec<Frame<Bytes>>,
    keeps: bool,
    lost: bool,
    reader: u32,
}

impl Replay {
    /// What makes the body of a request again; the request keeps the one for the first try.
    pub fn of(request: &mut Request) -> Replay {
        let (first, replay) = Replay::split(std::mem::take(request.body_mut()));
        *request.body_mut() = first;
        replay
    }

    /// The body for the first try, and what makes the others. Pieces of a small stream are kept,
    /// whatever the method: an upstream may have taken the body of a POST and then say that it
    /// has not processed it (RFC 9113 8.7). A large one can be sent again only while nothing was
    /// taken of it.
    pub fn split(body: Body) -> (Body, Replay) {
        if let Some(again) = body.replay() {
            return (body, Replay::Whole(again));
        }
        if body.is_end_stream() {
            return (Body::empty(), Replay::Whole(Body::empty()));
        }
        let small = body.size_hint().exact().is_some_and(|n| n <= CAP);
        let stream = Arc::new(Mutex::new(Stream {
            body,
            kept: Vec::new(),
            keeps: small,
            lost: false,
            reader: 0,
        }));
        let first = Body::wrap(Reader::new(&stream, 0));
        (first, Replay::Stream(stream))
    }

    /// The body once more; `None` when part of it is gone.
    pub fn again(&self) -> Option<Body> {
        match self {
            Replay::Whole(body) => body.replay(),
            Replay::Stream(stream) => {
                let reader = {
                    let mut shared = stream.lock();
                    if shared.lost {
                        return None;
                    }
                    shared.reader += 1;
                    shared.reader
                };
                Some(Body::wrap(Reader::new(stream, reader)))
            }
        }
    }
}

struct Reader {
    stream: Arc<Mutex<Stream>>,
    number: u32,
    at: usize,
    hint: SizeHint,
    ended: bool,
}

impl Reader {
    fn new(stream: &Arc<Mutex<Stream>>, number: u32) -> Self {
        let hint = {
            let shared = stream.lock();
            let mut hint = shared.body.size_hint();
            let kept = shared.kept.iter().filter_map(Frame::data_ref);
            let kept: usize = kept.map(Bytes::len).sum();
            if let Some(rest) = hint.exact() {
                hint.set_exact(rest + kept as u64);
            }
            hint
        };
        Reader {
            stream: Arc::clone(stream),
            number,
            at: 0,
            hint,
            ended: false,
        }
    }
}

/// Frames are not `Clone`; their content is.
fn copy(frame: &Frame<Bytes>) -> Option<Frame<Bytes>> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Some(Frame::data(data.clone())),
        (None, Some(trailers)) => Some(Frame::trailers(trailers.clone())),
        (None, None) => None,
    }
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let this = self.get_mut();
        let mut shared = this.stream.lock();
        if shared.reader != this.number {
            return Poll::Ready(Some(Err(Reason::ClientGone.into())));
        }
        if let Some(kept) = shared.kept.get(this.at).and_then(copy) {
            this.at += 1;
            return Poll::Ready(Some(Ok(kept)));
        }
        let polled = Pin::new(&mut shared.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                match copy(frame).filter(|_| shared.keeps) {
                    Some(kept) => shared.kept.push(kept),
                    None => shared.lost = true,
                }
                this.at += 1;
                this.ended = shared.body.is_end_stream();
            }
            Poll::Ready(Some(Err(_))) => shared.lost = true,
            Poll::Ready(None) => this.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
