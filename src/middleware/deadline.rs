//! Time to the response headers: the route's `timeout`, over all tries.
//!
//! Counted from the last byte of the request, so that a slow upload is not cut here (the body's
//! own timeout watches it), to the response headers, so that a long download or an event stream
//! is not cut either. The timer is armed when the answer is not there at once; if the body ended
//! meanwhile it is set again. Refuses with `http_response_timeout`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::{Layer, Service};

use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::{Exchange, Request, Response, exchange};

/// Enforces the exchange's timeout.
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;
    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

/// The service of [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
}

impl<S> Service<Request> for Deadline<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let exchange = exchange::of(&request).cloned();
        DeadlineFuture {
            inner: self.inner.call(request),
            exchange,
            timer: None,
        }
    }
}

pin_project! {
    /// The answer, or the end of the wait for it.
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        exchange: Option<Arc<Exchange>>,
        #[pin]
        timer: Option<Sleep>,
    }
}

/// When to look again: when the answer is due, or a whole timeout later while the body comes.
fn next_look(exchange: &Exchange) -> Instant {
    exchange
        .due()
        .unwrap_or_else(|| clock::now() + exchange.timeout)
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for DeadlineFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let Poll::Ready(answer) = this.inner.poll(cx) {
            return Poll::Ready(answer);
        }
        let Some(exchange) = this.exchange else {
            return Poll::Pending;
        };
        if this.timer.is_none() {
            this.timer
                .set(Some(tokio::time::sleep_until(next_look(exchange).into())));
        }
        while let Some(mut timer) = this.timer.as_mut().as_pin_mut() {
            ready!(timer.as_mut().poll(cx));
            let next = next_look(exchange);
            if next <= timer.deadline().into_std() {
                return Poll::Ready(Err(Reason::HttpResponseTimeout.into()));
            }
            timer.reset(next.into());
        }
        Poll::Pending
    }
}
