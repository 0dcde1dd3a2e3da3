//! The end of the stack for a request that no route takes.
//!
//! `server/dispatch` writes the [`Refusal`] on the request and sends it through the `_none` route,
//! so that a refused request is counted, logged and answered on the same path as any other.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{HeaderValue, StatusCode, header};
use tower::Service;

use crate::error::{GatewayError, Reason};
use crate::message::{Request, Response};

/// Why a request goes no further.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The reason; `None` for `OPTIONS *`, which asks about the server itself (RFC 9110 9.3.7)
    /// and is answered.
    pub reason: Option<Reason>,
    /// The methods that would do.
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
        ready(match request.extensions_mut().remove::<Refusal>() {
            None => Err(Reason::NoRoute.into()),
            Some(Refusal {
                reason: Some(reason),
                allow: None,
            }) => Err(reason.into()),
            Some(Refusal {
                reason: Some(reason),
                allow: Some(allow),
            }) => Err(GatewayError::new(reason).with_field(header::ALLOW, allow)),
            Some(Refusal {
                reason: None,
                allow,
            }) => Ok(about_the_server(allow)),
        })
    }
}

fn about_the_server(allow: Option<HeaderValue>) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .extend(allow.map(|allow| (header::ALLOW, allow)));
    response
}
