//! A request leaves as a proxy's, and its answer comes back as a proxy's.
//!
//! Takes off what is hop-by-hop, both ways, and puts on what an intermediary says of itself: Via
//! (RFC 9110 7.6.3), X-Forwarded-*, Forwarded (RFC 7239). Stands between the retries and the
//! choice of an endpoint: a retry keeps the request as it came, and each try is made anew. Refuses
//! a loop, and an answer whose framing two programs may read differently (CASES E06, E08).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, Version};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::error::{GatewayError, Reason};
use crate::message::exchange::Upgrading;
use crate::message::sketch::Field;
use crate::message::{Request, Response, exchange, hop};

/// How often our name may stand in Via.
const MOST_VIA: usize = 8;

/// How many fields a request gets here.
const ADDED: usize = 5;

/// What stands in Via, made once.
#[derive(Debug)]
pub struct Signature {
    /// Our name.
    pub identity: Arc<str>,
    /// `1.1 weir`.
    pub http1: HeaderValue,
    /// `2 weir`.
    pub h2: HeaderValue,
}

impl Signature {
    /// For a name that is a token; `None` for any other.
    pub fn new(identity: Arc<str>) -> Option<Self> {
        let http1 = HeaderValue::from_str(&format!("1.1 {identity}")).ok()?;
        let h2 = HeaderValue::from_str(&format!("2 {identity}")).ok()?;
        Some(Signature {
            identity,
            http1,
            h2,
        })
    }
}

/// Makes a request fit to be sent on.
#[derive(Debug, Clone)]
pub struct ForwardLayer(Arc<Signature>);

impl ForwardLayer {
    /// In this name, behind an `Arc` of this worker's own.
    pub fn new(signature: Arc<Signature>) -> Self {
        ForwardLayer(signature)
    }
}

impl<S> Layer<S> for ForwardLayer {
    type Service = Forward<S>;
    fn layer(&self, inner: S) -> Forward<S> {
        Forward {
            inner,
            signature: self.0.clone(),
        }
    }
}

/// The service of [`ForwardLayer`].
#[derive(Debug, Clone)]
pub struct Forward<S> {
    inner: S,
    signature: Arc<Signature>,
}

impl<S> Forward<S> {
    fn prepare(&self, request: &mut Request) -> Result<(), Reason> {
        let via = match request.version() {
            Version::HTTP_2 => &self.signature.h2,
            _ => &self.signature.http1,
        };
        // out of the request while its exchange is read
        let mut headers = std::mem::take(request.headers_mut());
        self.sign(&mut headers, via, request)?;
        *request.headers_mut() = headers;
        Ok(())
    }

    fn sign(
        &self,
        headers: &mut HeaderMap,
        via: &HeaderValue,
        request: &Request,
    ) -> Result<(), Reason> {
        let exchange = exchange::of(request);
        let has = |field| exchange.is_none_or(|e| e.sketch.has(field));
        let passed = if has(Field::Via) {
            hop::via_count(headers, &self.signature.identity)
        } else {
            0
        };
        if passed >= MOST_VIA {
            return Err(Reason::Loop);
        }
        if has(Field::Hop) {
            hop::strip(headers);
        }
        if has(Field::Expect) {
            headers.remove(header::EXPECT);
        }
        headers.reserve(ADDED);
        headers.append(header::VIA, via.clone());
        if let Some(exchange) = exchange {
            let conn = &exchange.conn;
            let (peer, peer_text, trusted) = (conn.peer, &conn.peer_text, conn.trusted);
            let hop = hop::Hop {
                peer,
                peer_text,
                trusted,
                scheme: conn.scheme(),
                host: exchange.asked_host(),
            };
            hop::set_forwarded(headers, hop, has(Field::Claim));
        }
        if let Some(Upgrading(protocol)) = request.extensions().get() {
            upgrade(headers, protocol.clone());
        }
        Ok(())
    }
}

fn upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

impl<S> Service<Request> for Forward<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future =
        Either<ForwardFuture<S::Future>, std::future::Ready<Result<Response, GatewayError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.prepare(&mut request) {
            Ok(()) => Either::Left(ForwardFuture {
                inner: self.inner.call(request),
            }),
            Err(reason) => Either::Right(std::future::ready(Err(reason.into()))),
        }
    }
}

pin_project! {
    /// Makes the answer fit to be sent on.
    pub struct ForwardFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for ForwardFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut response = ready!(self.project().inner.poll(cx))?;
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        let protocol = headers.get(header::UPGRADE).cloned().filter(|_| switching);
        settle_framing(headers)?;
        hop::strip_answer(headers);
        if let Some(protocol) = protocol {
            upgrade(headers, protocol);
        }
        Poll::Ready(Ok(response))
    }
}

/// An answer is chunked, or has a length, or ends with its connection: never two of them
/// (RFC 9112 6.3). With both, chunked was read and the length is dropped; a coding that is not
/// chunked alone is refused, since its end cannot be told from a cut.
fn settle_framing(headers: &mut HeaderMap) -> Result<(), Reason> {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = codings
        .next()
        .is_some_and(|c| c.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !chunked || codings.next().is_some() {
        return Err(Reason::HttpProtocolError);
    }
    headers.remove(header::CONTENT_LENGTH);
    Ok(())
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;
    use crate::message::Body;

    fn layer() -> ForwardLayer {
        ForwardLayer::new(Arc::new(Signature::new("weir".into()).expect("a token")))
    }

    fn answering(fields: &'static [(&'static str, &'static str)]) -> Forward<impl Upstream> {
        layer().layer(tower::service_fn(move |request: Request| async move {
            let mut response = http::Response::builder();
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            let seen = request.headers().get("via").cloned();
            let response = response.header("seen-via", seen.expect("a Via"));
            Ok(Box::new(response.body(Body::empty()).expect("a response")))
        }))
    }

    trait Upstream: Service<Request, Response = Response, Error = GatewayError> {}
    impl<S: Service<Request, Response = Response, Error = GatewayError>> Upstream for S {}

    #[tokio::test]
    async fn an_answer_with_both_framings_loses_its_length() {
        let fields = &[
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("x", "1"),
        ];
        let response = answering(fields)
            .oneshot(Request::default())
            .await
            .expect("an answer");
        assert!(!response.headers().contains_key("content-length"));
        assert!(!response.headers().contains_key("transfer-encoding"));
        assert_eq!(response.headers()["seen-via"], "1.1 weir");
    }

    #[tokio::test]
    async fn an_answer_in_another_coding_is_refused() {
        let answer = answering(&[("transfer-encoding", "gzip, chunked")]);
        let error = answer
            .oneshot(Request::default())
            .await
            .expect_err("refused");
        assert_eq!(error.reason(), Reason::HttpProtocolError);
    }

    #[tokio::test]
    async fn a_request_that_passed_here_eight_times_is_a_loop() {
        let request = http::Request::builder().header("via", ["1.1 weir"; 8].join(", "));
        let request = request
            .body(Body::empty())
            .map(Box::new)
            .expect("a request");
        let error = answering(&[]).oneshot(request).await.expect_err("a loop");
        assert_eq!(error.reason(), Reason::Loop);
    }
}
