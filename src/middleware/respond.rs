//! A fixed answer: `respond = { status = 200, body = "pong" }`.
//!
//! The end of a route that needs no upstream. Never fails.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use crate::error::GatewayError;
use crate::message::fixed::Fixed;
use crate::message::{Request, Response};

/// Gives the same answer to every request.
#[derive(Debug, Clone)]
pub struct Respond(Arc<Fixed>);

impl Respond {
    /// Gives this one.
    pub fn new(answer: Fixed) -> Self {
        Respond(Arc::new(answer))
    }

    /// The same answer behind an `Arc` of this worker's own.
    #[must_use]
    pub fn local(&self) -> Self {
        Respond(Arc::new(Fixed::clone(&self.0)))
    }
}

impl Service<Request> for Respond {
    type Response = Response;
    type Error = GatewayError;
    type Future = Ready<Result<Response, GatewayError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        ready(Ok(self.0.response()))
    }
}
