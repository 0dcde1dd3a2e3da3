//! Below here a failure is an error; above, it is a response.
//!
//! Turns a [`GatewayError`] into an answer: status, Proxy-Status (RFC 9209), a short body as
//! problem+json (RFC 9457) or text by Accept, in gRPC's own words for a gRPC client. A panic
//! below becomes `panic`, so that one request's bug hurts nobody else. The cause is logged here
//! once and never shown: clients get reason and request id, no versions, no addresses.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::chance::Chance;
use crate::error::{GatewayError, Reason, Side};
use crate::message::sketch::Field;
use crate::message::{Body, Exchange, Request, Response, exchange, proxy_status};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How long a client is asked to stay away from a 503 whose refuser does not know.
const COME_BACK: Duration = Duration::from_secs(1);

/// What answers of our own say about us.
#[derive(Debug)]
pub struct Voice {
    /// Our name, in Proxy-Status.
    pub identity: Arc<str>,
    /// Our name, as the Server field.
    pub server: HeaderValue,
    /// Spreads the clients that come back.
    pub chance: Arc<Chance>,
}

/// Turns errors into answers.
#[derive(Debug, Clone)]
pub struct RescueLayer(Arc<Voice>);

impl RescueLayer {
    /// Answers in this voice, behind an `Arc` of this worker's own.
    pub fn new(voice: Arc<Voice>) -> Self {
        RescueLayer(voice)
    }
}

impl<S> Layer<S> for RescueLayer {
    type Service = Rescue<S>;
    fn layer(&self, inner: S) -> Rescue<S> {
        Rescue {
            inner,
            voice: self.0.clone(),
        }
    }
}

/// The service of [`RescueLayer`].
#[derive(Debug, Clone)]
pub struct Rescue<S> {
    inner: S,
    voice: Arc<Voice>,
}

impl<S> Service<Request> for Rescue<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = RescueFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let asked = Asked::of(&request);
        let inner = catch_unwind(AssertUnwindSafe(|| self.inner.call(request))).ok();
        RescueFuture {
            inner,
            asked,
            voice: self.voice.clone(),
        }
    }
}

/// What of the request shapes an answer of ours.
#[derive(Debug)]
struct Asked {
    exchange: Option<Arc<Exchange>>,
    form: Form,
    http1: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Problem,
    Grpc,
}

impl Form {
    fn of(request: &Request) -> Self {
        let holds = |name: &HeaderName, what: &str| {
            let mut values = request.headers().get_all(name).iter();
            values.any(|v| v.to_str().is_ok_and(|v| v.contains(what)))
        };
        if holds(&header::CONTENT_TYPE, "application/grpc") {
            Form::Grpc
        } else if holds(&header::ACCEPT, "json") {
            Form::Problem
        } else {
            Form::Text
        }
    }
}

impl Asked {
    fn of(request: &Request) -> Self {
        let exchange = exchange::of(request).cloned();
        let told = exchange.as_ref().is_none_or(|e| e.sketch.has(Field::Form));
        let form = if told { Form::of(request) } else { Form::Text };
        let http1 = request.version() <= Version::HTTP_11;
        Asked {
            exchange,
            form,
            http1,
        }
    }
}

pin_project! {
    /// The answer, whatever happens below.
    pub struct RescueFuture<F> {
        #[pin]
        inner: Option<F>,
        asked: Asked,
        voice: Arc<Voice>,
    }
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for RescueFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let outcome = match this.inner.as_mut().as_pin_mut() {
            None => Err(()),
            Some(inner) => catch_unwind(AssertUnwindSafe(|| inner.poll(cx))).map_err(|_| ()),
        };
        let error = match outcome {
            Ok(poll) => match ready!(poll) {
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(error) => error,
            },
            Err(()) => {
                this.inner.set(None);
                GatewayError::new(Reason::Panic)
            }
        };
        Poll::Ready(answer(error, this.asked, this.voice))
    }
}

/// The answer for an error, or the error where nobody is left to answer.
fn answer(error: GatewayError, asked: &Asked, voice: &Voice) -> Result<Response, GatewayError> {
    let reason = error.reason();
    let upstream = asked.exchange.as_ref().and_then(|exchange| {
        exchange.note(|notes| notes.reason = Some(reason));
        exchange.notes().upstream
    });
    tracing::debug!(reason = reason.as_str(), upstream = upstream.as_deref(), cause = ?error);
    let Some(status) = reason.status() else {
        return Err(error);
    };
    let mut response = match asked.form {
        Form::Grpc => grpc(reason),
        Form::Problem => written(
            status,
            "application/problem+json",
            problem(status, asked, &error),
        ),
        Form::Text => written(
            status,
            "text/plain; charset=utf-8",
            text(status, asked, reason),
        ),
    };
    let headers = response.headers_mut();
    headers.insert(header::SERVER, voice.server.clone());
    let blamed = upstream
        .as_deref()
        .filter(|_| reason.side() == Side::Upstream);
    if let Some(value) = proxy_status::failed(&voice.identity, reason, blamed) {
        headers.insert(proxy_status::NAME, value);
    }
    headers.extend(error.fields().iter().cloned());
    if matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        headers.insert(
            header::RETRY_AFTER,
            retry_after(&error, &voice.chance).into(),
        );
    }
    if asked.http1 && leaves_framing_in_doubt(reason) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// After these the next bytes on the connection may not be a request.
fn leaves_framing_in_doubt(reason: Reason) -> bool {
    reason.side() == Side::Client
}

fn written(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Box::new(http::Response::new(Body::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn id(asked: &Asked) -> &str {
    asked
        .exchange
        .as_ref()
        .and_then(|e| e.id.to_str().ok())
        .unwrap_or("")
}

/// RFC 9457. Nothing in it needs escaping: words of ours, names of the config and an id, all of
/// closed alphabets.
fn problem(status: StatusCode, asked: &Asked, error: &GatewayError) -> String {
    let mut text = format!(
        "{{\"type\":\"{}\",\"title\":\"{}\",\"status\":{},\"reason\":\"{}\",\
         \"request_id\":\"{}\"",
        problem_type(error.reason()),
        status.canonical_reason().unwrap_or(""),
        status.as_u16(),
        error.reason().as_str(),
        id(asked)
    );
    if !error.policies().is_empty() {
        text.push_str(",\"violated-policies\":[\"");
        text.push_str(&error.policies().join("\",\""));
        text.push_str("\"]");
    }
    text.push_str("}\n");
    text
}

/// The problem types of draft-ietf-httpapi-ratelimit-headers, where one says what happened.
fn problem_type(reason: Reason) -> &'static str {
    match reason {
        Reason::RateLimited => "https://iana.org/assignments/http-problem-types#quota-exceeded",
        Reason::Shed | Reason::QueueFull => {
            "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
        }
        _ => "about:blank",
    }
}

fn text(status: StatusCode, asked: &Asked, reason: Reason) -> String {
    let title = status.canonical_reason().unwrap_or("");
    format!(
        "{} {title}\nreason: {}\nrequest: {}\n",
        status.as_u16(),
        reason.as_str(),
        id(asked)
    )
}

/// A trailers-only answer (gRPC over HTTP/2, "Responses"): 200, the status in the head.
fn grpc(reason: Reason) -> Response {
    let code = match reason.status().unwrap_or(StatusCode::BAD_GATEWAY) {
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => 4,
        StatusCode::FORBIDDEN => 7,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => 8,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => 12,
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_REQUEST => 13,
        _ => 14,
    };
    let mut response = Box::new(http::Response::new(Body::empty()));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(GRPC_STATUS, code.into());
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(reason.as_str()));
    response
}

/// Whole seconds, rounded up, with up to 20 % more by chance, so that clients do not return
/// together.
fn retry_after(error: &GatewayError, chance: &Chance) -> u64 {
    let after = error.retry_after().unwrap_or(COME_BACK);
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    seconds + chance.below(seconds / 5 + 1)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt;

    use super::*;

    fn voice() -> Arc<Voice> {
        let server = HeaderValue::from_static("weir");
        Arc::new(Voice {
            identity: "weir".into(),
            server,
            chance: Arc::new(Chance::seeded(1)),
        })
    }

    async fn rescued(request: Request, error: fn() -> GatewayError) -> Response {
        let inner = tower::service_fn(move |_| async move { Err(error()) });
        let service = RescueLayer::new(voice()).layer(inner);
        service.oneshot(request).await.expect("an answer")
    }

    async fn body(response: Response) -> String {
        #[allow(clippy::disallowed_methods, reason = "a body of our own making")]
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn a_failure_becomes_an_answer_with_its_reason() {
        let error = || GatewayError::caused(Reason::ConnectionRefused, "10.0.0.1:80 says no");
        let response = rescued(Request::default(), error).await;
        assert_eq!(response.status(), 502);
        assert_eq!(
            response.headers()["proxy-status"],
            "weir; error=connection_refused"
        );
        let text = body(response).await;
        assert!(
            text.contains("connection_refused") && !text.contains("10.0.0.1"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_client_that_takes_json_gets_a_problem() {
        let request = http::Request::builder().header("accept", "application/json");
        let request = request
            .body(Body::empty())
            .map(Box::new)
            .expect("a request");
        let response = rescued(request, || Reason::NoEndpoint.into()).await;
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(response.headers()["retry-after"], "1");
        let json: serde_json::Value = serde_json::from_str(&body(response).await).expect("JSON");
        assert_eq!(json["reason"], "no_endpoint");
    }

    #[tokio::test]
    async fn a_grpc_client_gets_trailers_only() {
        let request = http::Request::builder().header("content-type", "application/grpc+proto");
        let request = request
            .body(Body::empty())
            .map(Box::new)
            .expect("a request");
        let response = rescued(request, || Reason::HttpResponseTimeout.into()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
    }

    #[tokio::test]
    async fn a_panic_below_is_answered_with_500() {
        let inner = tower::service_fn(|_: Request| async {
            if true {
                panic!("a bug");
            }
            Ok(Response::default())
        });
        let service = RescueLayer::new(voice()).layer(inner);
        let response = service
            .oneshot(Request::default())
            .await
            .expect("an answer");
        assert_eq!(response.status(), 500);
    }

    #[tokio::test]
    async fn nobody_is_answered_who_has_left() {
        let inner = tower::service_fn(|_: Request| async { Err(Reason::ClientGone.into()) });
        let service = RescueLayer::new(voice()).layer(inner);
        let error = service
            .oneshot(Request::default())
            .await
            .expect_err("no answer");
        assert_eq!(error.reason(), Reason::ClientGone);
    }
}
