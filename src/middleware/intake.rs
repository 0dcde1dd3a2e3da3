//! The request body on its way in: its cap (`max_body`), its idle timeout, its count.
//!
//! A body whose Content-Length is over the cap is refused before anything is sent upstream; one
//! that grows past it fails the upload there, with 413 where no answer has begun. Bodies stream:
//! nothing is held here. A request without a body passes untouched.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::{Layer, Service};

use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::exchange::BodyIdle;
use crate::message::{Body, Exchange, Request, Response, exchange};

/// Watches over request bodies.
#[derive(Debug, Clone, Copy)]
pub struct IntakeLayer {
    /// The largest body; `None`: any.
    pub max_body: Option<u64>,
}

impl<S> Layer<S> for IntakeLayer {
    type Service = Intake<S>;
    fn layer(&self, inner: S) -> Intake<S> {
        Intake {
            inner,
            max_body: self.max_body,
        }
    }
}

/// The service of [`IntakeLayer`].
#[derive(Debug, Clone)]
pub struct Intake<S> {
    inner: S,
    max_body: Option<u64>,
}

impl<S> Service<Request> for Intake<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = Either<S::Future, std::future::Ready<Result<Response, GatewayError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.body().is_end_stream() {
            return Either::Left(self.inner.call(request));
        }
        if self
            .max_body
            .is_some_and(|cap| request.body().size_hint().lower() > cap)
        {
            return Either::Right(std::future::ready(Err(Reason::BodyTooLarge.into())));
        }
        let Some(exchange) = exchange::of(&request).cloned() else {
            return Either::Left(self.inner.call(request));
        };
        let idle = request.extensions().get::<BodyIdle>().map(|idle| idle.0);
        exchange.upload_begins();
        let room = self.max_body;
        let watch = |inner| {
            Body::wrap(Watched {
                inner,
                exchange,
                room,
                idle,
                timer: None,
            })
        };
        Either::Left(self.inner.call(request.map(watch)))
    }
}

pin_project! {
    struct Watched {
        #[pin]
        inner: Body,
        exchange: Arc<Exchange>,
        room: Option<u64>,
        idle: Option<Duration>,
        #[pin]
        timer: Option<Sleep>,
    }

    impl PinnedDrop for Watched {
        fn drop(this: Pin<&mut Self>) {
            this.exchange.upload_ends(clock::now());
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let mut this = self.project();
        match this.inner.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.timer.set(None);
                if let Some(data) = frame.data_ref() {
                    let length = data.len() as u64;
                    this.exchange.upload_grows(length);
                    if let Some(room) = this.room {
                        match room.checked_sub(length) {
                            Some(left) => *room = left,
                            None => return Poll::Ready(Some(Err(Reason::BodyTooLarge.into()))),
                        }
                    }
                }
                if this.inner.is_end_stream() {
                    this.exchange.upload_ends(clock::now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(last) => {
                this.exchange.upload_ends(clock::now());
                Poll::Ready(last)
            }
            Poll::Pending => {
                let Some(idle) = *this.idle else {
                    return Poll::Pending;
                };
                if this.timer.is_none() {
                    this.timer.set(Some(tokio::time::sleep(idle)));
                }
                let timer = this.timer.as_pin_mut();
                if timer.is_some_and(|timer| timer.poll(cx).is_ready()) {
                    return Poll::Ready(Some(Err(Reason::RequestTimeout.into())));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
