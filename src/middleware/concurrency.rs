//! A cap on what is in flight: `concurrency = { max = 500, queue = 100, queue_timeout = "500ms" }`.
//!
//! Refuses with `queue_full` (503) when there is no place, none in the queue, or none in time.
//! Stands on a route below the rate limits, so that a client over its limit takes no place, and
//! above what does the work; and around each upstream, above its retries, so that one request
//! holds one place however often it is tried. A place is held to the end of the response body, or
//! of the tunnel; whatever is dropped on the way gives it back. What counts is shared
//! ([`crate::gate`]); each worker has the rules in an `Arc` of its own, and takes a place by one
//! atomic step.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::Either;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::clock;
use crate::error::{Cause, GatewayError, Reason};
use crate::gate::caps::{Caps, ClientCap, WholeCap};
use crate::gate::{Ended, Queued};
use crate::message::exchange::Lease;
use crate::message::sketch::Field;
use crate::message::{Body, Exchange, Request, Response, exchange, map_body};
use crate::switch::Mode;
use crate::telemetry::handles::{RouteCells, RouteMetrics};

/// Caps what goes through.
#[derive(Debug, Clone)]
pub struct ConcurrencyLayer(Arc<Door>);

/// The caps as one worker has them.
#[derive(Debug)]
struct Door {
    caps: Caps,
    /// Where a route's queue is counted, and by whom.
    numbers: Option<(Arc<RouteMetrics>, usize)>,
}

impl ConcurrencyLayer {
    /// The caps of a route, whose queue has metrics, for one worker.
    pub fn of_route(caps: &Caps, metrics: Arc<RouteMetrics>, worker: usize) -> Self {
        ConcurrencyLayer(Arc::new(Door {
            caps: caps.clone(),
            numbers: Some((metrics, worker)),
        }))
    }

    /// The cap of an upstream, for one worker.
    pub fn of_upstream(caps: &Caps) -> Self {
        ConcurrencyLayer(Arc::new(Door {
            caps: caps.clone(),
            numbers: None,
        }))
    }
}

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Concurrency<S>;
    fn layer(&self, inner: S) -> Concurrency<S> {
        Concurrency {
            inner,
            door: self.0.clone(),
        }
    }
}

/// The service of [`ConcurrencyLayer`].
#[derive(Debug, Clone)]
pub struct Concurrency<S> {
    inner: S,
    door: Arc<Door>,
}

/// What became of asking for a place without waiting.
enum Place {
    /// It is there, or none is needed.
    In,
    /// There is one in the queue, perhaps.
    MayWait,
    /// There is none.
    Refused(GatewayError),
}

impl WholeCap {
    fn refuse(&self) -> GatewayError {
        GatewayError::new(Reason::QueueFull).with_policy(self.policy.clone())
    }
}

impl ClientCap {
    fn refuse(&self) -> GatewayError {
        GatewayError::new(Reason::QueueFull).with_policy(self.policy.clone())
    }
}

/// The places that one request holds; given back when dropped.
struct Places {
    door: Arc<Door>,
    /// The client's key for each of the first caps for clients, where it holds a place.
    clients: Vec<Option<u64>>,
    whole: bool,
}

impl Places {
    fn none(door: Arc<Door>) -> Self {
        Places {
            door,
            clients: Vec::new(),
            whole: false,
        }
    }

    /// Takes all that can be had without waiting.
    fn take(&mut self, request: &Request) -> Place {
        let exchange = exchange::of(request);
        if let Some(exchange) = exchange
            && let Err(refused) = self.take_as_client(request, exchange)
        {
            return Place::Refused(refused);
        }
        let Some(cap) = &self.door.caps.whole else {
            return Place::In;
        };
        let queue = cap.settings.rules.queue;
        match cap.mode {
            Mode::Enforce => {
                self.whole = cap.gate.enter(0);
                match self.whole {
                    true => Place::In,
                    false if queue > 0 => Place::MayWait,
                    false => Place::Refused(cap.refuse()),
                }
            }
            Mode::Observe => {
                // who would wait is taken for one who is let in
                self.whole = cap.gate.enter(queue);
                if !self.whole
                    && let Some(exchange) = exchange
                {
                    exchange.observe(Reason::QueueFull);
                }
                Place::In
            }
        }
    }

    fn take_as_client(
        &mut self,
        request: &Request,
        exchange: &Exchange,
    ) -> Result<(), GatewayError> {
        for cap in &self.door.caps.clients {
            let key = cap.key.hash(request, exchange, &cap.counts.by);
            let is_in = cap.counts.enter(key, cap.max);
            self.clients.push(is_in.then_some(key));
            match cap.mode {
                _ if is_in => {}
                Mode::Enforce => return Err(cap.refuse()),
                Mode::Observe => exchange.observe(Reason::QueueFull),
            }
        }
        Ok(())
    }

    /// Waits for the place of the cap for all.
    async fn wait(&mut self) -> Result<(), GatewayError> {
        let Some(cap) = &self.door.caps.whole else {
            return Ok(());
        };
        self.whole = match cap.gate.queue() {
            Queued::In => true,
            Queued::Full => false,
            Queued::Waits(waiting) => {
                let _counted = InLine::new(&self.door);
                waiting.turn(cap.timeout).await
            }
        };
        if self.whole {
            Ok(())
        } else {
            Err(cap.refuse())
        }
    }

    /// The gate whose limit finds itself, if this holds a place there.
    fn learner(&self) -> Option<&WholeCap> {
        let cap = self.door.caps.whole.as_ref()?;
        (self.whole && cap.settings.adaptive).then_some(cap)
    }

    fn learn(&self, outcome: &Result<Response, GatewayError>, began: Option<Instant>) {
        let Some((cap, began)) = self.learner().zip(began) else {
            return;
        };
        let now = clock::now();
        let ended = match outcome {
            // A failure that comes fast says nothing of how long the work takes.
            Ok(response) if response.status().is_server_error() => return,
            Ok(_) => Ended::Answered(now.saturating_duration_since(began)),
            Err(error) if error.reason().cause() == Some(Cause::Timeout) => Ended::TimedOut,
            Err(_) => return,
        };
        cap.gate.learn(ended, now);
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let caps = &self.door.caps;
        if let Some(cap) = caps.whole.as_ref().filter(|_| self.whole) {
            cap.gate.leave();
        }
        for (cap, key) in caps.clients.iter().zip(&self.clients) {
            if let Some(key) = key {
                cap.counts.leave(*key);
            }
        }
    }
}

/// One who waits in a route's queue, counted.
struct InLine<'d> {
    cells: Option<&'d RouteCells>,
    since: Instant,
}

impl<'d> InLine<'d> {
    fn new(door: &'d Door) -> Self {
        let numbers = door.numbers.as_ref();
        let cells = numbers.map(|(metrics, worker)| metrics.of(*worker));
        cells.inspect(|cells| cells.queue_waiting.inc());
        let since = clock::now();
        InLine { cells, since }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if let Some(cells) = self.cells {
            cells.queue_waiting.dec();
            cells.queue_wait.observe(clock::now() - self.since);
        }
    }
}

impl<S> Service<Request> for Concurrency<S>
where
    S: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = ConcurrencyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut places = Places::none(self.door.clone());
        match places.take(&request) {
            Place::In => Either::Left(Inside::begin(&mut self.inner, request, places)),
            Place::Refused(error) => Either::Right(Either::Right(ready(Err(error)))),
            Place::MayWait => {
                // the innermost is always ready, and so is its clone
                let mut inner = self.inner.clone();
                Either::Right(Either::Left(Box::pin(async move {
                    places.wait().await?;
                    if let Some(exchange) = exchange::of(&request) {
                        exchange.look();
                    }
                    Inside::begin(&mut inner, request, places).await
                })))
            }
        }
    }
}

/// The answer of one who was let in, had to wait, or was refused.
pub type ConcurrencyFuture<F> = Either<Inside<F>, Either<Waiting, Ready<Outcome>>>;
type Outcome = Result<Response, GatewayError>;
type Waiting = Pin<Box<dyn Future<Output = Outcome> + Send>>;

pin_project! {
    /// The answer of one who was let in.
    pub struct Inside<F> {
        #[pin]
        inner: F,
        places: Option<Places>,
        // of a request that may become a tunnel
        exchange: Option<Arc<Exchange>>,
        began: Option<Instant>,
    }
}

impl<F> Inside<F> {
    fn begin<S>(inner: &mut S, request: Request, places: Places) -> Self
    where
        S: Service<Request, Future = F>,
    {
        Inside {
            began: places.learner().map(|_| clock::now()),
            exchange: exchange::of(&request)
                .filter(|e| e.sketch.has(Field::Upgrade))
                .cloned(),
            inner: inner.call(request),
            places: Some(places),
        }
    }
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for Inside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let outcome = task::ready!(this.inner.poll(cx));
        let Some(places) = this.places.take() else {
            return Poll::Ready(outcome);
        };
        places.learn(&outcome, *this.began);
        Poll::Ready(outcome.map(|response| keep(response, places, this.exchange.take())))
    }
}

/// Ties the places to what is still to come.
fn keep(response: Response, places: Places, exchange: Option<Arc<Exchange>>) -> Response {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if let Some(exchange) = exchange {
            exchange.hold(Lease(Arc::new(places)));
        }
        return response;
    }
    if response.body().is_end_stream() {
        return response;
    }
    map_body(response, |inner| {
        let places = Some(places);
        Body::wrap(Held { inner, places })
    })
}

pin_project! {
    /// A body that holds places to its end.
    struct Held {
        #[pin]
        inner: Body,
        places: Option<Places>,
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let this = self.project();
        let frame = task::ready!(this.inner.poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            *this.places = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
