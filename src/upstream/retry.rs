//! Further tries: which failures, which requests, and how many.
//!
//! A failure is tried again when the config names it, the method is idempotent (RFC 9110 9.2.2)
//! or the upstream provably has not seen the request, the body can be sent again, the route's
//! deadline has not passed, and the budget has one left. An answer is passed on as it is once no
//! further try is allowed; nothing is retried after response headers went on. A reused connection
//! that ended without an answer is no sign of an overloaded upstream: the first time that happens
//! to an idempotent request costs no budget.

use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tower::Service;

use super::Upstream;
use super::budget::Budget;
use super::config::{RetryConfig, RetryOn};
use super::send::{Further, Stale};
use crate::clock;
use crate::error::{Again, GatewayError, Reason};
use crate::message::exchange::Upgrading;
use crate::message::replay::{Replay, is_idempotent};
use crate::message::spare::SpareHead;
use crate::message::{Body, Exchange, Request, Response};
use crate::telemetry::handles::{RetryDenied, UpstreamCells, UpstreamMetrics};

/// Tries again over an inner service that makes one try.
#[derive(Clone)]
pub struct Retry<S> {
    inner: S,
    again: Option<Arc<Tries<S>>>,
}

/// What further tries need: one reference for each request, and not one for each layer below.
struct Tries<S> {
    policy: Policy,
    inner: S,
}

struct Policy {
    attempts: u32,
    ratio: f64,
    on: Vec<RetryOn>,
    budget: Arc<Budget>,
    metrics: Arc<UpstreamMetrics>,
    worker: usize,
}

impl<S: Clone> Retry<S> {
    /// With the upstream's `retry` section, for one worker.
    pub fn new(inner: S, upstream: &Upstream, worker: usize) -> Self {
        let again = upstream.retry().map(|config| {
            let policy = Policy {
                attempts: config.attempts.value.into(),
                ratio: config.budget.value,
                on: on(config),
                budget: Arc::clone(&upstream.budget),
                metrics: Arc::clone(&upstream.metrics),
                worker,
            };
            let inner = inner.clone();
            Arc::new(Tries { policy, inner })
        });
        Retry { inner, again }
    }
}

fn on(config: &RetryConfig) -> Vec<RetryOn> {
    config.on.iter().map(|on| on.value).collect()
}

impl<S> Service<Request> for Retry<S>
where
    S: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, GatewayError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let Some(again) = &self.again else {
            return Box::pin(self.inner.call(request));
        };
        let kept = Kept::of(&mut request);
        again.policy.begin(&kept);
        let again = Arc::clone(again);
        let first = self.inner.call(request);
        Box::pin(again.run(first, kept))
    }
}

/// A request for further tries.
struct Kept {
    head: SpareHead,
    body: Replay,
    exchange: Option<Arc<Exchange>>,
    upgrading: Option<Upgrading>,
    idempotent: bool,
}

impl Kept {
    /// Keeps a request, whose body is put behind what can read it again.
    fn of(request: &mut Request) -> Self {
        let body = Replay::of(request);
        let extensions = request.extensions();
        Kept {
            exchange: extensions.get::<Arc<Exchange>>().cloned(),
            upgrading: extensions.get::<Upgrading>().cloned(),
            idempotent: is_idempotent(request.method()),
            head: SpareHead::of(request),
            body,
        }
    }

    fn request(&self, body: Body, further: Further) -> Request {
        let mut request = self.head.request(body);
        let extensions = request.extensions_mut();
        if let Some(exchange) = &self.exchange {
            extensions.insert(Arc::clone(exchange));
        }
        if let Some(upgrading) = &self.upgrading {
            extensions.insert(upgrading.clone());
        }
        extensions.insert(further);
        request
    }

    /// When the request came.
    fn begun(&self) -> Instant {
        self.exchange
            .as_ref()
            .map_or_else(clock::now, |exchange| exchange.started)
    }

    /// When the route's timeout ends the request.
    fn due(&self) -> Option<Instant> {
        self.exchange.as_ref().and_then(|exchange| exchange.due())
    }

    /// The endpoint that the last try asked.
    fn asked(&self) -> Option<SocketAddr> {
        self.exchange.as_ref().and_then(|e| e.notes().endpoint)
    }
}

/// What is thought of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It stands.
    Final,
    /// It would be tried again but for the method.
    Unsafe,
    /// To be tried again, at the cost of the budget.
    Again,
    /// To be tried again: the connection was stale.
    Stale,
}

impl<S> Tries<S>
where
    S: Service<Request, Response = Response, Error = GatewayError> + Clone,
{
    /// Waits for the first try, and makes what others are due.
    async fn run(self: Arc<Self>, first: S::Future, kept: Kept) -> Result<Response, GatewayError> {
        let mut result = first.await;
        let mut tried = Vec::new();
        let mut free = true;
        for tries in 0.. {
            let Some(body) = self.policy.again(tries, &result, &mut free, &kept) else {
                return result;
            };
            tried.extend(kept.asked());
            let further = Further {
                tried: tried.clone(),
                fresh: result.is_err(),
            };
            let mut inner = self.inner.clone();
            std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
            result = inner.call(kept.request(body, further)).await;
        }
        unreachable!("attempts are bounded by the policy")
    }
}

impl Policy {
    /// A request begins.
    fn begin(&self, kept: &Kept) {
        self.budget.request(self.worker, kept.begun());
    }

    /// What a further try sends, if there is to be one after this result. `free`: a stale
    /// connection has cost nothing yet.
    fn again(
        &self,
        tries: u32,
        result: &Result<Response, GatewayError>,
        free: &mut bool,
        kept: &Kept,
    ) -> Option<Body> {
        self.count(tries, result);
        let verdict = self.judge(result, kept.idempotent);
        let free_now = verdict == Verdict::Stale && std::mem::take(free);
        if verdict == Verdict::Final {
            return None;
        }
        if let Err(why) = self.allow(verdict, tries, free_now, kept) {
            self.deny(why);
            return None;
        }
        let body = kept.body.again();
        if body.is_none() {
            self.deny(RetryDenied::Body);
        }
        body
    }

    fn allow(
        &self,
        verdict: Verdict,
        tries: u32,
        free: bool,
        kept: &Kept,
    ) -> Result<(), RetryDenied> {
        let now = clock::now();
        if verdict == Verdict::Unsafe {
            Err(RetryDenied::Method)
        } else if tries >= self.attempts {
            Err(RetryDenied::Attempts)
        } else if kept.due().is_some_and(|due| now >= due) {
            Err(RetryDenied::Deadline)
        } else if !free && !self.budget.take(self.worker, self.ratio, now) {
            Err(RetryDenied::Budget)
        } else {
            Ok(())
        }
    }

    fn judge(&self, result: &Result<Response, GatewayError>, idempotent: bool) -> Verdict {
        let error = match result {
            Ok(response) => {
                let status = RetryOn::Status(response.status().as_u16());
                return match self.on.contains(&status) {
                    false => Verdict::Final,
                    true if idempotent => Verdict::Again,
                    true => Verdict::Unsafe,
                };
            }
            Err(error) => error,
        };
        let stale = error.source().is_some_and(|s| s.is::<Stale>());
        match error.again() {
            Again::No => Verdict::Final,
            _ if !kind(error.reason()).is_some_and(|k| self.on.contains(&k)) => Verdict::Final,
            Again::Always => Verdict::Again,
            Again::Idempotent if !idempotent => Verdict::Unsafe,
            Again::Idempotent if stale => Verdict::Stale,
            Again::Idempotent => Verdict::Again,
        }
    }

    fn cells(&self) -> &UpstreamCells {
        self.metrics.of(self.worker)
    }

    fn deny(&self, why: RetryDenied) {
        self.cells().retries_denied[why as usize].inc();
    }

    fn count(&self, tries: u32, result: &Result<Response, GatewayError>) {
        if tries == 0 {
            return;
        }
        match result {
            Ok(response) if !response.status().is_server_error() => {
                self.cells().retries_success.inc();
            }
            Ok(_) | Err(_) => self.cells().retries_failure.inc(),
        }
    }
}

/// Counts a try that broke off after its answer had gone on: but for that, it might be made again.
pub(super) fn answered(upstream: &Upstream, cells: &UpstreamCells, why: Reason) {
    let on = upstream.retry().map(|retry| &retry.on);
    if kind(why).is_some_and(|k| on.is_some_and(|on| on.iter().any(|on| on.value == k))) {
        cells.retries_denied[RetryDenied::Answered as usize].inc();
    }
}

/// The word of `retry.on` for a failure.
fn kind(reason: Reason) -> Option<RetryOn> {
    match reason {
        Reason::DnsError
        | Reason::DnsTimeout
        | Reason::ConnectionRefused
        | Reason::DestinationIpUnroutable
        | Reason::ConnectionTimeout
        | Reason::TlsProtocolError
        | Reason::TlsCertificateError
        | Reason::TlsAlertReceived => Some(RetryOn::Connect),
        Reason::ConnectionTerminated | Reason::HttpResponseIncomplete => Some(RetryOn::Reset),
        Reason::ConnectionWriteTimeout
        | Reason::FirstByteTimeout
        | Reason::PerTryTimeout
        | Reason::ConnectionReadTimeout => Some(RetryOn::Timeout),
        _ => None,
    }
}
