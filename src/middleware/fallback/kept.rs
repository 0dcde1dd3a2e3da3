//! What of a request is kept for the steps of a ladder, and for which requests.
//!
//! A step that asks somebody else needs the request as it was before the first upstream got it. It
//! is asked only where that is safe: nobody has seen the request, or it may be repeated.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

use crate::error::{Again, GatewayError, Side};
use crate::message::replay::Replay;
use crate::message::{Body, Exchange, Request, Response};

/// A request, kept.
pub(super) struct Kept {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    exchange: Arc<Exchange>,
    body: Replay,
}

/// What went wrong below.
pub(super) enum Failure {
    /// It failed, or was refused.
    Error(GatewayError),
    /// An upstream answered with 5xx.
    Answer(Response),
}

impl From<Result<Response, GatewayError>> for Failure {
    fn from(outcome: Result<Response, GatewayError>) -> Self {
        match outcome {
            Ok(response) => Failure::Answer(response),
            Err(error) => Failure::Error(error),
        }
    }
}

impl Failure {
    /// As it would have been without a ladder.
    pub(super) fn outcome(self) -> Result<Response, GatewayError> {
        match self {
            Failure::Error(error) => Err(error),
            Failure::Answer(response) => Ok(response),
        }
    }

    /// The status of the upstream's answer, if there was one.
    pub(super) fn received(&self) -> Option<StatusCode> {
        match self {
            Failure::Error(_) => None,
            Failure::Answer(response) => Some(response.status()),
        }
    }

    /// No upstream can have processed the request.
    fn is_unseen(&self) -> bool {
        match self {
            Failure::Answer(_) => false,
            Failure::Error(error) => {
                let status = error.reason().status();
                // The 503s are refusals: no connection, no endpoint, an open breaker.
                let refused = status == Some(StatusCode::SERVICE_UNAVAILABLE);
                refused || error.reason().side() == Side::Gateway || error.again() == Again::Always
            }
        }
    }
}

fn plain(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(header::UPGRADE);
    headers
}

impl Kept {
    /// Keeps a request, whose body is put behind what can read it again.
    pub(super) fn of(request: &mut Request, exchange: &Arc<Exchange>) -> Self {
        let (body, replay) = Replay::split(std::mem::take(request.body_mut()));
        *request.body_mut() = body;
        Kept {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: plain(request.headers()),
            exchange: Arc::clone(exchange),
            body: replay,
        }
    }

    /// The request for a look among stored answers; `None` where a stored answer is none for it.
    pub(super) fn question(&self) -> Option<Request> {
        matches!(self.method, Method::GET | Method::HEAD).then(|| self.request(Body::empty()))
    }

    /// The request for another upstream; `None` where it may have been processed already and must
    /// not be repeated, or where part of its body is gone.
    pub(super) fn again(&self, failure: &Failure) -> Option<Request> {
        let repeatable = matches!(
            self.method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::TRACE
                | Method::PUT
                | Method::DELETE
        );
        if !repeatable && !failure.is_unseen() {
            return None;
        }
        self.body.again().map(|body| self.request(body))
    }

    /// As a plain request: only the first upstream may have been asked to leave HTTP.
    fn request(&self, body: Body) -> Request {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        request.extensions_mut().insert(Arc::clone(&self.exchange));
        request
    }
}
