//! What of a request is kept for the steps of a ladder, and for which requests.
//!
//! A step that asks somebody else needs the request as it was before the first upstream got it. It
//! is asked only where that is safe: nobody has seen the request, or it may be repeated.

use std::sync::Arc;

use http::{Method, StatusCode, header};

use crate::error::{Again, GatewayError, Side};
use crate::message::replay::{Replay, is_idempotent};
use crate::message::spare::SpareHead;
use crate::message::{Body, Exchange, Request, Response};

/// A request, kept.
pub(super) struct Kept {
    head: SpareHead,
    exchange: Arc<Exchange>,
    body: Replay,
}

/// What came of it below.
pub(super) type Outcome = Result<Response, GatewayError>;

/// No upstream can have processed the request.
fn is_unseen(outcome: &Outcome) -> bool {
    let Err(error) = outcome else {
        return false;
    };
    // The 503s are refusals: no connection, no endpoint, an open breaker.
    let refused = error.reason().status() == Some(StatusCode::SERVICE_UNAVAILABLE);
    refused || error.reason().side() == Side::Gateway || error.again() == Again::Always
}

impl Kept {
    /// Keeps a request, whose body is put behind what can read it again.
    pub(super) fn of(request: &mut Request, exchange: &Arc<Exchange>) -> Self {
        let body = Replay::of(request);
        Kept {
            head: SpareHead::of(request),
            exchange: Arc::clone(exchange),
            body,
        }
    }

    /// The request for a look among stored answers; `None` where a stored answer is none for it.
    pub(super) fn question(&self) -> Option<Request> {
        matches!(*self.head.method(), Method::GET | Method::HEAD)
            .then(|| self.request(Body::empty()))
    }

    /// The request for another upstream; `None` where it may have been processed already and must
    /// not be repeated, or where part of its body is gone.
    pub(super) fn again(&self, failure: &Outcome) -> Option<Request> {
        if !is_idempotent(self.head.method()) && !is_unseen(failure) {
            return None;
        }
        self.body.again().map(|body| self.request(body))
    }

    /// As a plain request: only the first upstream may have been asked to leave HTTP.
    fn request(&self, body: Body) -> Request {
        let mut request = self.head.request(body);
        request.headers_mut().remove(header::UPGRADE);
        request.extensions_mut().insert(Arc::clone(&self.exchange));
        request
    }
}
