//! Counts the requests of a connection from head to last byte, around `dispatch`.
//!
//! The body is wrapped, not boxed: its end (or drop) is the end of the request. Where the
//! connection is to close, an HTTP/1 answer says so before hyper closes it. On HTTP/2 hyper is
//! given a body in pieces, since it buffers the last one whole beside the stream's window, and
//! since `streams` measures by them whether a client goes on; the pulse knows how many pieces have
//! not left yet, since the window may be closed when the request has ended.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http::header::{AGE, CONNECTION, CONTENT_LENGTH, ETAG, HeaderValue, LOCATION, SET_COOKIE};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::dispatch::Dispatch;
use super::pulse::{Piece, Pulse};
use super::values::Values;
use super::worker::Worker;
use crate::message::{Body, Interims, Response};
use crate::middleware::request_id::X_REQUEST_ID;

/// The largest piece of a body on HTTP/2: one frame.
const PIECE: usize = 16 << 10;

/// `dispatch`, counted.
pub(super) struct Counted {
    inner: Dispatch,
    pulse: Arc<Pulse>,
    /// What leaves before an answer, on HTTP/1.
    interims: Option<Arc<Interims>>,
}

impl Counted {
    /// `interims`: of an HTTP/1 connection.
    pub(super) fn new(inner: Dispatch, pulse: Arc<Pulse>, interims: Option<Arc<Interims>>) -> Self {
        Counted {
            inner,
            pulse,
            interims,
        }
    }
}

/// An open request.
struct Open(Arc<Pulse>);

impl Open {
    fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.begin();
        Open(pulse.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Service<http::Request<Incoming>> for Counted {
    type Response = http::Response<CountedBody>;
    type Error = <Dispatch as Service<http::Request<Incoming>>>::Error;
    type Future = Answer<<Dispatch as Service<http::Request<Incoming>>>::Future>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        Answer {
            open: Some(Open::new(&self.pulse)),
            interims: self.interims.clone(),
            worker: self.interims.is_none().then(|| self.inner.worker().clone()),
            held: None,
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The answer to one request.
    pub(super) struct Answer<F> {
        open: Option<Open>,
        interims: Option<Arc<Interims>>,
        // on HTTP/2
        worker: Option<Arc<Worker>>,
        // the answer, while interim ones leave
        held: Option<Response>,
        #[pin]
        inner: F,
    }
}

impl<F, E> Answer<F>
where
    F: Future<Output = Result<Response, E>>,
{
    /// The answer, once no interim one is before it. Who writes those wakes us.
    fn final_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let response = match this.held.take() {
            Some(response) => response,
            None => match (this.inner.poll(cx), this.interims.as_ref()) {
                (Poll::Ready(outcome), _) => outcome?,
                (Poll::Pending, interims) => {
                    if let Some(interims) = interims {
                        interims.watch(cx.waker());
                    }
                    return Poll::Pending;
                }
            },
        };
        if this.interims.as_ref().is_some_and(|all| !all.finish()) {
            *this.held = Some(response);
            return Poll::Pending;
        }
        Poll::Ready(Ok(response))
    }
}

impl<F, E> Future for Answer<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = Result<http::Response<CountedBody>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.as_mut().final_answer(cx))?;
        let this = self.project();
        let open = this.open.take();
        let http1 = this.interims.is_some();
        let closing = http1 && open.as_ref().is_some_and(|open| open.0.closing());
        if closing && !response.status().is_informational() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if let Some(worker) = this.worker {
            fit_table(response.headers_mut(), &worker.values);
        }
        let most = if http1 { usize::MAX } else { PIECE };
        Poll::Ready(Ok(response.map(|body| CountedBody {
            body,
            open,
            most,
            rest: Bytes::new(),
        })))
    }
}

/// Makes fields ready for the table in which h2 keeps what may be sent again. A request's id is not
/// sent again: in the table it would crowd out what is, and every later one be compared with it.
/// Some h2 keeps out by itself.
fn fit_table(fields: &mut HeaderMap, values: &Values) {
    for (name, value) in fields {
        if *name == X_REQUEST_ID {
            value.set_sensitive(true);
        } else if !matches!(*name, AGE | CONTENT_LENGTH | ETAG | LOCATION | SET_COOKIE) {
            values.own(value);
        }
    }
}

pin_project! {
    /// A response body that ends its request.
    pub(super) struct CountedBody {
        #[pin]
        body: Body,
        open: Option<Open>,
        most: usize,
        // what is left of a piece that was too large
        rest: Bytes,
    }
}

/// Bytes on their way to the client. Whoever writes them drops it when they are written.
pub(super) struct Chunk {
    bytes: Bytes,
    _hold: Option<Hold>,
}

/// HTTP/2 holds a piece.
struct Hold(Arc<Pulse>);

impl Hold {
    fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.hold();
        Hold(pulse.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

impl HttpBody for CountedBody {
    type Data = Chunk;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Self::Error>>> {
        let this = self.project();
        let outcome = if this.rest.is_empty() {
            this.body.poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.rest)))))
        };
        if let Some(open) = this.open {
            let given = outcome.is_ready();
            open.0
                .note(if given { Piece::Given } else { Piece::Awaited });
        }
        let most = *this.most;
        let holder = this.open.as_ref().filter(|_| most == PIECE);
        outcome.map_ok(|frame| {
            frame.map_data(|data| Chunk {
                bytes: first(data, most, this.rest),
                _hold: holder.map(|open| Hold::new(&open.0)),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// The first of `data`, `most` bytes of it; the others are put into `rest`.
fn first(mut data: Bytes, most: usize, rest: &mut Bytes) -> Bytes {
    if data.len() > most {
        *rest = data.split_off(most);
    }
    data
}
