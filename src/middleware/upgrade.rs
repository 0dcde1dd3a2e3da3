//! Who may leave HTTP: `upgrade = ["websocket"]`.
//!
//! A request is let out only over HTTP/1.1, without a body, with Connection and Upgrade that say
//! so, and to a protocol its route allows; any other passes as a plain request, its Upgrade taken
//! off (so `h2c` is never smuggled through). Nothing is piped before the upstream's 101
//! (CVE-2026-2833): until then the client's bytes stay in hyper. Joining both ends is the
//! server's, handed in as [`Tunnels`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::error::{GatewayError, Reason};
use crate::message::exchange::{Lease, Upgrading};
use crate::message::{Exchange, Request, Response, exchange, hop};

/// Joins the two ends of an upgraded connection and keeps count of it.
pub trait Tunnels: std::fmt::Debug + Send + Sync {
    /// Pipes bytes both ways until both ends are done.
    fn join(
        &self,
        client: OnUpgrade,
        upstream: OnUpgrade,
        exchange: Arc<Exchange>,
        lease: Option<Lease>,
    );
}

/// What a route lets through.
#[derive(Debug)]
pub struct Gate {
    /// Protocols, lower case.
    pub protocols: Vec<String>,
    /// Who joins.
    pub tunnels: Arc<dyn Tunnels>,
}

/// Lets requests out of HTTP.
#[derive(Debug, Clone)]
pub struct UpgradeLayer(Arc<Gate>);

impl UpgradeLayer {
    /// Through this gate, behind an `Arc` of this worker's own.
    pub fn new(gate: Arc<Gate>) -> Self {
        UpgradeLayer(gate)
    }
}

impl<S> Layer<S> for UpgradeLayer {
    type Service = Upgrade<S>;
    fn layer(&self, inner: S) -> Upgrade<S> {
        Upgrade {
            inner,
            gate: self.0.clone(),
        }
    }
}

/// The service of [`UpgradeLayer`].
#[derive(Debug, Clone)]
pub struct Upgrade<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl Gate {
    /// The protocol the request asks for, if it may have it.
    fn wanted(&self, request: &Request) -> Option<HeaderValue> {
        let protocol = request.headers().get(header::UPGRADE)?;
        let allowed = protocol.to_str().is_ok_and(|protocol| {
            self.protocols
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(protocol))
        });
        let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        let asks = request.version() == Version::HTTP_11
            && hop::connection_has(request.headers(), "upgrade")
            && (!websocket || is_websocket(request));
        (allowed && asks).then(|| protocol.clone())
    }
}

/// A handshake as RFC 6455 4.1 has it, as far as a way through is concerned.
fn is_websocket(request: &Request) -> bool {
    let version = request.headers().get(header::SEC_WEBSOCKET_VERSION);
    request.method() == Method::GET && version.is_some_and(|v| v == "13")
}

impl<S> Service<Request> for Upgrade<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future =
        Either<UpgradeFuture<S::Future>, std::future::Ready<Result<Response, GatewayError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let Some(protocol) = self.gate.wanted(&request) else {
            return Either::Left(UpgradeFuture {
                inner: self.inner.call(request),
                leaving: None,
            });
        };
        if !request.body().is_end_stream() {
            return Either::Right(std::future::ready(Err(Reason::BadRequest.into())));
        }
        let leaving = exchange::of(&request).cloned().map(|exchange| {
            let client = hyper::upgrade::on(&mut *request);
            Leaving {
                client,
                exchange,
                tunnels: self.gate.tunnels.clone(),
            }
        });
        request.extensions_mut().insert(Upgrading(protocol));
        Either::Left(UpgradeFuture {
            inner: self.inner.call(request),
            leaving,
        })
    }
}

/// A request on its way out of HTTP.
struct Leaving {
    client: OnUpgrade,
    exchange: Arc<Exchange>,
    tunnels: Arc<dyn Tunnels>,
}

pin_project! {
    /// The answer; after a 101 both ends are joined.
    pub struct UpgradeFuture<F> {
        #[pin]
        inner: F,
        leaving: Option<Leaving>,
    }
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for UpgradeFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Ok(response));
        }
        let Some(Leaving {
            client,
            exchange,
            tunnels,
        }) = this.leaving.take()
        else {
            return Poll::Ready(Err(Reason::HttpUpgradeFailed.into()));
        };
        let lease = response.extensions_mut().remove::<Lease>();
        let upstream = hyper::upgrade::on(&mut *response);
        tunnels.join(client, upstream, exchange, lease);
        Poll::Ready(Ok(response))
    }
}
