//! The end of the stack for a request that no route takes.
//!
//! `server/dispatch` writes the [`Refusal`] on the request and sends it through the `_none` route,
//! so that a refused request is counted, logged and answered on the same path as any other.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::HeaderValue;
use tower::Service;

use crate::error::{GatewayError, Reason};
use crate::message::{Request, Response};

/// Why a request goes no further.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// The methods that would do, with `method_not_allowed`.
    pub allow: Option<HeaderValue>,
}

/// Refuses every request: as its [`Refusal`] says, else for want of a route.
#[derive(Debug, Clone, Copy)]
pub struct Refuse;

impl Service<Request> for Refuse {
    type Response = Response;
    type Error = GatewayError;
    type Future = Ready<Result<Response, GatewayError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let refusal = request.extensions_mut().remove::<Refusal>();
        ready(Err(match refusal {
            None => Reason::NoRoute.into(),
            Some(Refusal {
                reason,
                allow: None,
            }) => reason.into(),
            Some(Refusal {
                reason,
                allow: Some(allow),
            }) => GatewayError::new(reason).with_allow(allow),
        }))
    }
}
