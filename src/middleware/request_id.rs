//! X-Request-Id: kept from trusted peers, else minted; sent upstream, logged, returned.
//!
//! Stands first, so that everything below can name the request. A minted id is a UUIDv7
//! (RFC 9562 5.7) from the wall clock and the worker's own chance. Trace context is passed on
//! where it is valid and dropped where it is not (W3C Trace Context 4.3): a broken traceparent
//! takes its tracestate along.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::chance::Chance;
use crate::error::GatewayError;
use crate::message::sketch::Field;
use crate::message::{Request, Response, exchange};
use crate::telemetry::trace;

/// The field.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// The id of a request: the one a trusted peer sent, if it is 8 to 128 of `[A-Za-z0-9_-]`, else
/// a new one.
pub fn accept_or_mint(
    headers: &HeaderMap,
    trusted: bool,
    chance: &Chance,
    wall: SystemTime,
) -> HeaderValue {
    match headers.get(X_REQUEST_ID) {
        Some(id) if trusted && is_id(id.as_bytes()) => id.clone(),
        _ => mint(chance, wall),
    }
}

fn is_id(id: &[u8]) -> bool {
    (8..=128).contains(&id.len())
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// A UUIDv7: 48 bits of Unix milliseconds, version, 74 bits of chance.
fn mint(chance: &Chance, wall: SystemTime) -> HeaderValue {
    let millis = wall.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let random = (u128::from(chance.next()) << 64) | u128::from(chance.next());
    let mut bits = (millis << 80) | (random & ((1 << 80) - 1));
    bits = (bits & !(0xf << 76)) | (0x7 << 76);
    bits = (bits & !(0x3 << 62)) | (0x2 << 62);
    let mut text = [b'-'; 36];
    // Where each byte's two digits stand, around the four hyphens.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, at) in bits.to_be_bytes().into_iter().zip(PLACES) {
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 0xf)];
    }
    HeaderValue::from_bytes(&text).expect("hex and hyphens are visible ASCII")
}

/// Drops trace context that is not valid, and baggage over its limits.
fn keep_valid_context(headers: &mut HeaderMap) {
    let bytes = |headers: &HeaderMap, name| -> Vec<Vec<u8>> {
        headers
            .get_all(name)
            .iter()
            .map(|v: &HeaderValue| v.as_bytes().to_vec())
            .collect()
    };
    if headers.contains_key(TRACEPARENT) || headers.contains_key(TRACESTATE) {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let valid = match (parents.next(), parents.next()) {
            (Some(parent), None) => trace::valid(parent.as_bytes()),
            _ => false,
        };
        let state = bytes(headers, TRACESTATE);
        if !valid {
            headers.remove(TRACEPARENT);
        }
        if !valid || !trace::tracestate_fits(state.iter().map(Vec::as_slice)) {
            headers.remove(TRACESTATE);
        }
    }
    if headers.contains_key(BAGGAGE) {
        let baggage = bytes(headers, BAGGAGE);
        if !trace::baggage_fits(baggage.iter().map(Vec::as_slice)) {
            headers.remove(BAGGAGE);
        }
    }
}

/// Puts the exchange's id on the request and on its answer.
#[derive(Debug, Clone, Copy)]
pub struct RequestIdLayer;

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestId<S>;
    fn layer(&self, inner: S) -> RequestId<S> {
        RequestId { inner }
    }
}

/// The service of [`RequestIdLayer`].
#[derive(Debug, Clone)]
pub struct RequestId<S> {
    inner: S,
}

impl<S> Service<Request> for RequestId<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = RequestIdFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let exchange = exchange::of(&request);
        let traced = exchange.is_none_or(|e| e.sketch.has(Field::Trace));
        let id = exchange.map(|e| e.id.clone());
        if let Some(id) = &id {
            request.headers_mut().insert(X_REQUEST_ID, id.clone());
        }
        if traced {
            keep_valid_context(request.headers_mut());
        }
        RequestIdFuture {
            inner: self.inner.call(request),
            id,
        }
    }
}

pin_project! {
    /// Puts the id on the answer.
    pub struct RequestIdFuture<F> {
        #[pin]
        inner: F,
        id: Option<HeaderValue>,
    }
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for RequestIdFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(id) = this.id.take() {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_minted_id_is_a_version_7_uuid_in_order_of_time() {
        let chance = Chance::seeded(1);
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let first = mint(&chance, at(0x0123_4567_89ab));
        let text = first.to_str().expect("ASCII");
        assert!(text.starts_with("01234567-89ab-7"), "{text}");
        assert!(
            matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
            "{text}"
        );
        assert!(mint(&chance, at(0x0123_4567_89ac)).as_bytes() > first.as_bytes());
        assert_ne!(mint(&chance, at(0)), mint(&chance, at(0)));
    }

    #[test]
    fn a_broken_traceparent_takes_its_tracestate_along() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static("00-zz"));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.insert(BAGGAGE, HeaderValue::from_static("b=2"));
        keep_valid_context(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), [&BAGGAGE]);
    }

    #[test]
    fn only_a_trusted_peer_may_name_its_request() {
        let id = |value: &'static str, trusted| {
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static(value))]);
            accept_or_mint(&headers, trusted, &Chance::seeded(1), UNIX_EPOCH)
        };
        assert_eq!(id("abcdefgh-1", true), "abcdefgh-1");
        assert_ne!(id("abcdefgh-1", false), "abcdefgh-1");
        assert_ne!(id("short", true), "short");
        assert_ne!(id("with space in it", true), "with space in it");
    }
}
