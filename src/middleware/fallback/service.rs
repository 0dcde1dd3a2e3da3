//! The way down the ladder.
//!
//! An answer that is good costs a look at its status. Anything else is boxed: it is rare, and slow
//! already. A panic below is a failure like another, so that it too gets a lesser answer.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::kept::{Kept, Outcome};
use super::{Ladder, Way};
use crate::error::{Cause, GatewayError, Reason, Side};
use crate::message::exchange::Step;
use crate::message::{Exchange, Request, Response, exchange, proxy_status};

const DEGRADED: HeaderName = HeaderName::from_static("weir-degraded");

/// Stored answers past their freshness.
pub trait Stale: Send + Sync {
    /// The copy for this request, if there is one that is stale by no more than `limit`.
    fn find(&self, request: &Request, limit: Duration) -> Option<Response>;
}

/// A ladder as one worker goes down it.
pub struct Guide<U> {
    /// The steps.
    pub ladder: Ladder<U>,
    /// Stored answers, where the route has a cache.
    pub stale: Option<Arc<dyn Stale>>,
    /// Our name, in Proxy-Status.
    pub identity: Arc<str>,
}

/// Gives lesser answers.
pub struct FallbackLayer<U>(Arc<Guide<U>>);

impl<U> FallbackLayer<U> {
    /// By this guide, behind an `Arc` of this worker's own.
    pub fn new(guide: Guide<U>) -> Self {
        FallbackLayer(Arc::new(guide))
    }
}

impl<S, U> Layer<S> for FallbackLayer<U> {
    type Service = Fallback<S, U>;
    fn layer(&self, inner: S) -> Fallback<S, U> {
        Fallback {
            inner,
            guide: Arc::clone(&self.0),
        }
    }
}

/// The service of [`FallbackLayer`].
pub struct Fallback<S, U> {
    inner: S,
    guide: Arc<Guide<U>>,
}

impl<S: Clone, U> Clone for Fallback<S, U> {
    fn clone(&self) -> Self {
        Fallback {
            inner: self.inner.clone(),
            guide: Arc::clone(&self.guide),
        }
    }
}

impl<S, U> Service<Request> for Fallback<S, U>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
    U: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + Sync + 'static,
    U::Future: Send,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = FallbackFuture<S::Future, U>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let exchange = exchange::of(&request).cloned();
        let needed = self.guide.ladder.needs_request();
        let kept = exchange.as_ref().filter(|_| needed);
        let kept = kept.map(|exchange| Box::new(Kept::of(&mut request, exchange)));
        let inner = catch_unwind(AssertUnwindSafe(|| self.inner.call(request))).ok();
        FallbackFuture {
            inner,
            asked: Some(Asked { exchange, kept }),
            guide: Arc::clone(&self.guide),
            descent: None,
        }
    }
}

/// What the steps know of the request.
struct Asked {
    exchange: Option<Arc<Exchange>>,
    kept: Option<Box<Kept>>,
}

type Descent = Pin<Box<dyn Future<Output = Result<Response, GatewayError>> + Send>>;

pin_project! {
    /// The answer, or a lesser one.
    pub struct FallbackFuture<F, U> {
        #[pin]
        inner: Option<F>,
        asked: Option<Asked>,
        guide: Arc<Guide<U>>,
        descent: Option<Descent>,
    }
}

impl<F, U> Future for FallbackFuture<F, U>
where
    F: Future<Output = Result<Response, GatewayError>>,
    U: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + Sync + 'static,
    U::Future: Send,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let Some(descent) = this.descent {
            return descent.as_mut().poll(cx);
        }
        let outcome = match this.inner.as_mut().as_pin_mut() {
            None => Err(Reason::Panic.into()),
            Some(inner) => match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
                Ok(polled) => ready!(polled),
                Err(_) => Err(Reason::Panic.into()),
            },
        };
        this.inner.set(None);
        let Some(asked) = this.asked.take() else {
            return Poll::Ready(outcome);
        };
        let serves = this.guide.ladder.serves;
        let Some(cause) = cause(&outcome, &asked).filter(|cause| serves.has(*cause)) else {
            return Poll::Ready(outcome);
        };
        let descent = descend(Arc::clone(this.guide), asked, outcome, cause);
        this.descent.insert(Box::pin(descent)).as_mut().poll(cx)
    }
}

/// What the ladder takes an outcome for; `None`: it stands.
fn cause(outcome: &Result<Response, GatewayError>, asked: &Asked) -> Option<Cause> {
    match outcome {
        Ok(response) if response.status().is_server_error() => {
            // A fixed answer of the route's own is what the operator wants it to be.
            let exchange = asked.exchange.as_ref()?;
            let by_upstream = exchange.noted(|notes| notes.endpoint.is_some());
            by_upstream.then_some(Cause::Error)
        }
        Ok(_) => None,
        Err(error) => error.reason().cause(),
    }
}

/// Down the ladder: the first step that can, answers.
async fn descend<U>(
    guide: Arc<Guide<U>>,
    asked: Asked,
    failure: Outcome,
    cause: Cause,
) -> Result<Response, GatewayError>
where
    U: Service<Request, Response = Response, Error = GatewayError> + Clone,
{
    let first = asked.first_upstream();
    for rung in guide.ladder.rungs.iter().filter(|r| r.serves.has(cause)) {
        let (step, answer) = match &rung.step {
            Way::Stale(limit) => (Step::Stale, asked.stale(guide.stale.as_deref(), *limit)),
            Way::Upstream(other) => {
                let request = asked.kept.as_ref().and_then(|kept| kept.again(&failure));
                let answer = ask(other.clone(), request, asked.exchange.clone());
                (Step::Upstream, answer.await)
            }
            Way::Respond(fixed) => (Step::Respond, Some(uncached(fixed.response()))),
        };
        if let Some(mut response) = answer {
            asked.note(&failure, cause, step);
            let told = proxy_status_of(&failure, &guide.identity, first.as_deref());
            mark(&mut response, &failure, cause, step, told);
            return Ok(response);
        }
    }
    failure
}

impl Asked {
    /// The upstream that failed first, before other steps ask others.
    fn first_upstream(&self) -> Option<Arc<str>> {
        self.exchange
            .as_ref()
            .and_then(|exchange| exchange.noted(|notes| notes.upstream.clone()))
    }

    fn stale(&self, stored: Option<&dyn Stale>, limit: Duration) -> Option<Response> {
        let question = self.kept.as_ref()?.question()?;
        stored?.find(&question, limit)
    }

    fn note(&self, failure: &Outcome, cause: Cause, step: Step) {
        let Some(exchange) = &self.exchange else {
            return;
        };
        exchange.note(|notes| {
            notes.degraded = Some((cause, step));
            if let Err(error) = failure {
                notes.reason = Some(error.reason());
            }
        });
        if let Err(error) = failure {
            tracing::debug!(reason = error.reason().as_str(), step = step.as_str(), cause = ?error);
        }
    }
}

/// What another upstream answers, if it can be asked and does better.
async fn ask<U>(
    mut other: U,
    request: Option<Request>,
    exchange: Option<Arc<Exchange>>,
) -> Option<Response>
where
    U: Service<Request, Response = Response, Error = GatewayError>,
{
    let request = request?;
    if let Some(exchange) = exchange {
        exchange.begin_anew(exchange.look());
    }
    let answer = other.call(request).await.ok()?;
    (!answer.status().is_server_error()).then_some(answer)
}

/// A stand-in is nobody's to keep: the real answer may be there again in a moment.
fn uncached(mut response: Response) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    response
}

/// Says what the answer is, and what of the failure is worth knowing.
fn mark(
    response: &mut Response,
    failure: &Outcome,
    cause: Cause,
    step: Step,
    told: Option<HeaderValue>,
) {
    let headers = response.headers_mut();
    let degraded = format!("reason={}; step={}", cause.as_str(), step.as_str());
    if let Ok(value) = HeaderValue::from_str(&degraded) {
        headers.insert(DEGRADED, value);
    }
    if let Some(value) = told {
        headers.append(proxy_status::NAME, value);
    }
    if let Err(error) = failure {
        headers.extend(error.fields().iter().cloned());
    }
}

fn proxy_status_of(failure: &Outcome, identity: &str, first: Option<&str>) -> Option<HeaderValue> {
    match failure {
        Err(error) => {
            let blamed = first.filter(|_| error.reason().side() == Side::Upstream);
            proxy_status::failed(identity, error.reason(), blamed)
        }
        Ok(response) => proxy_status::received(identity, response.status(), first),
    }
}
