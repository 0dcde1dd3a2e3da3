//! Counts the requests of a connection from head to last byte, around `dispatch`.
//!
//! The body is wrapped, not boxed: its end (or drop) is the end of the request. Where the
//! connection is to close, an HTTP/1 answer says so before hyper closes it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::dispatch::Dispatch;
use super::pulse::{Piece, Pulse};
use crate::message::Body;

/// `dispatch`, counted.
pub(super) struct Counted {
    inner: Dispatch,
    pulse: Arc<Pulse>,
    /// Whether an answer may carry `Connection: close`.
    http1: bool,
}

impl Counted {
    pub(super) fn new(inner: Dispatch, pulse: Arc<Pulse>, http1: bool) -> Self {
        Counted {
            inner,
            pulse,
            http1,
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
            http1: self.http1,
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The answer to one request.
    pub(super) struct Answer<F> {
        open: Option<Open>,
        http1: bool,
        #[pin]
        inner: F,
    }
}

impl<F, E> Future for Answer<F>
where
    F: Future<Output = Result<http::Response<Body>, E>>,
{
    type Output = Result<http::Response<CountedBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let open = this.open.take();
        let closing = *this.http1 && open.as_ref().is_some_and(|open| open.0.closing());
        if closing && !response.status().is_informational() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        Poll::Ready(Ok(response.map(|body| CountedBody { body, open })))
    }
}

pin_project! {
    /// A response body that ends its request.
    pub(super) struct CountedBody {
        #[pin]
        body: Body,
        open: Option<Open>,
    }
}

impl HttpBody for CountedBody {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let outcome = this.body.poll_frame(cx);
        if let Some(open) = this.open {
            let given = outcome.is_ready();
            open.0.note(if given { Piece::Given } else { Piece::Awaited });
        }
        outcome
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
