//! Count and time every answer, to the end of its body; then the access log line.
//!
//! Stands above everything that can answer or fail, so that made-up answers are seen too, and so
//! is a client that leaves early: the count lives in a guard that is dropped with the future or
//! with the body, whichever the request gets to. All labels were resolved when the stack was
//! built: a request costs adds to cells of this worker's own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::exchange::Meter;
use crate::message::sketch::Field;
use crate::message::{Body, Exchange, Request, Response, exchange, map_body};
use crate::telemetry::access::{AccessLog, Record};
use crate::telemetry::handles::{Metrics, RouteCells, RouteMetrics, WorkerCells};
use crate::telemetry::trace::trace_id;

/// The code of a request whose client left before the response headers.
const CLIENT_GONE: u16 = 499;
const DEBUG: HeaderName = HeaderName::from_static("weir-debug");
const OBSERVED: HeaderName = HeaderName::from_static("weir-observed");

/// Where the numbers and lines of one route go, for one worker.
pub struct Observer {
    /// The route's id.
    pub route: Arc<str>,
    /// The route's numbers.
    pub metrics: Arc<RouteMetrics>,
    /// All workers' own numbers.
    pub workers: Arc<Metrics>,
    /// This worker's number.
    pub worker: usize,
    /// The access log, if there is one.
    pub access: Option<AccessLog>,
}

impl Observer {
    fn cells(&self) -> &RouteCells {
        self.metrics.of(self.worker)
    }

    /// The access log, while it is on.
    fn access(&self) -> Option<&AccessLog> {
        self.access.as_ref().filter(|log| log.is_on())
    }

    fn worker_cells(&self) -> &WorkerCells {
        self.workers.worker.of(self.worker)
    }
}

/// Counts and times.
#[derive(Clone)]
pub struct ObserveLayer(Arc<Observer>);

impl ObserveLayer {
    /// For this route and worker, behind an `Arc` of this worker's own.
    pub fn new(observer: Arc<Observer>) -> Self {
        ObserveLayer(observer)
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;
    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            observer: self.0.clone(),
        }
    }
}

/// The service of [`ObserveLayer`].
#[derive(Clone)]
pub struct Observe<S> {
    inner: S,
    observer: Arc<Observer>,
}

impl<S> Service<Request> for Observe<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let watch = exchange::of(&request).cloned().map(|exchange| {
            let cells = self.observer.cells();
            cells.in_flight.inc();
            cells.method(request.method());
            self.observer.worker_cells().requests_in_flight.inc();
            Box::new(Watch {
                observer: self.observer.clone(),
                asked: self.observer.access().map(|_| Asked::of(&request)),
                to_head: request.method() == Method::HEAD,
                asks_observed: asks_observed(&request, &exchange),
                exchange,
                answer: None,
                sent: 0,
                over: false,
                prompt: true,
            })
        });
        ObserveFuture {
            inner: self.inner.call(request),
            watch,
        }
    }
}

/// `Weir-Debug: observe`, by a trusted client.
fn asks_observed(request: &Request, exchange: &Exchange) -> bool {
    exchange.sketch.has(Field::Debug)
        && exchange.conn.trusted
        && request.headers().get(DEBUG).is_some_and(|v| v == "observe")
}

/// What the log line says of the request.
#[derive(Debug)]
struct Asked {
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let field = |name| request.headers().get(name).cloned();
        Asked {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: field(header::HOST),
            user_agent: field(header::USER_AGENT),
            referer: field(header::REFERER),
            traceparent: field(header::HeaderName::from_static("traceparent")),
        }
    }
}

/// One request under watch; its drop is its end.
struct Watch {
    observer: Arc<Observer>,
    /// Kept for the log line, where there is to be one.
    asked: Option<Asked>,
    /// The answer has no body.
    to_head: bool,
    /// A trusted client wants to know what was observed.
    asks_observed: bool,
    exchange: Arc<Exchange>,
    /// Status and time of the response headers.
    answer: Option<(StatusCode, Duration)>,
    /// Bytes of the response body.
    sent: u64,
    /// Nothing is to come any more: the end, when it comes, is a good one.
    over: bool,
    /// Nobody has waited since the headers were there.
    prompt: bool,
}

impl Watch {
    fn answered(&mut self, response: &Response) {
        let first_byte = clock::now() - self.exchange.started;
        let cells = self.observer.cells();
        cells.codes.inc(response.status());
        cells.first_byte.observe(first_byte);
        let waited = self.exchange.waited();
        cells.overhead.observe(first_byte.saturating_sub(waited));
        self.answer = Some((response.status(), first_byte));
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.exchange.meter(self.tunnel_meter());
        }
        let bodiless = self.to_head
            || matches!(
                response.status(),
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            )
            || response.status().is_informational();
        self.over = bodiless || response.body().is_end_stream();
    }

    /// What policies in observe mode would have done, for a trusted client that asks.
    fn tell_observed(&self, headers: &mut HeaderMap) {
        if !self.asks_observed {
            return;
        }
        let observed = self.exchange.noted(|notes| notes.observed.clone());
        let words: Vec<&str> = observed.iter().map(|reason| reason.as_str()).collect();
        if let Ok(value) = HeaderValue::from_str(&words.join(", "))
            && !words.is_empty()
        {
            headers.insert(OBSERVED, value);
        }
    }

    /// The bytes of a tunnel are the route's, as those of bodies are. They come after the request
    /// has ended, so they are counted as they pass.
    fn tunnel_meter(&self) -> Meter {
        let (metrics, worker) = (self.observer.metrics.clone(), self.observer.worker);
        Meter(Box::new(move |up, down| {
            let cells = metrics.of(worker);
            cells.request_bytes.add(up);
            cells.response_bytes.add(down);
        }))
    }

    fn failed(&self, reason: Reason) {
        self.exchange.note(|notes| notes.reason = Some(reason));
    }

    /// Counts the reason, if there is one: what Weir itself failed or refused, or a client that
    /// left before the end.
    fn settle(&mut self) -> Option<Reason> {
        let cells = self.observer.cells();
        let noted = self.exchange.noted(|notes| {
            for would_be in &notes.observed {
                cells.observed.inc(*would_be);
            }
            if let Some((cause, step)) = notes.degraded {
                cells.degraded[cause as usize][step as usize].inc();
            }
            notes.reason
        });
        let reason = noted.or((!self.over).then_some(Reason::ClientGone));
        if let Some(reason) = reason {
            cells.errors.inc(reason);
        }
        if self.answer.is_none() {
            cells.codes.inc_code(CLIENT_GONE);
        }
        reason
    }

    fn log(&self, reason: Option<Reason>, duration: Duration) {
        let (Some(log), Some(asked)) = (self.observer.access(), &self.asked) else {
            return;
        };
        let notes = self.exchange.notes();
        let conn = &self.exchange.conn;
        log.log(&Record {
            route: &self.observer.route,
            method: asked.method.as_str(),
            scheme: conn.scheme(),
            host: asked.host.as_ref().map_or(b"", HeaderValue::as_bytes),
            path: asked.uri.path().as_bytes(),
            query: asked.uri.query().map(str::as_bytes),
            protocol: asked.version,
            status: self.answer.map_or(CLIENT_GONE, |a| a.0.as_u16()),
            reason,
            observed: &notes.observed,
            degraded: notes.degraded,
            duration,
            first_byte: self.answer.map(|a| a.1),
            upstream: notes.upstream.as_deref(),
            endpoint: notes.endpoint,
            tries: notes.tries,
            waited: self.exchange.waited(),
            bytes_in: self.exchange.received(),
            bytes_out: self.sent,
            client: self.exchange.client,
            peer: conn.peer,
            user_agent: asked.user_agent.as_ref().map(HeaderValue::as_bytes),
            referer: asked.referer.as_ref().map(HeaderValue::as_bytes),
            client_subject: conn
                .tls
                .as_ref()
                .and_then(|tls| tls.client_subject.as_deref()),
            request_id: self.exchange.id.as_bytes(),
            trace_id: asked
                .traceparent
                .as_ref()
                .and_then(|t| trace_id(t.as_bytes())),
        });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let reason = self.settle();
        let at_once = self.answer.filter(|_| self.over && self.prompt);
        let duration = match at_once {
            Some((_, first_byte)) => first_byte,
            None => clock::now() - self.exchange.started,
        };
        let cells = self.observer.cells();
        cells.in_flight.dec();
        cells.duration.observe(duration);
        cells.request_bytes.add(self.exchange.received());
        cells.response_bytes.add(self.sent);
        self.observer.worker_cells().requests_in_flight.dec();
        self.log(reason, duration);
    }
}

pin_project! {
    /// The answer, watched to its last byte.
    pub struct ObserveFuture<F> {
        #[pin]
        inner: F,
        watch: Option<Box<Watch>>,
    }
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for ObserveFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let outcome = ready!(this.inner.poll(cx));
        let Some(mut watch) = this.watch.take() else {
            return Poll::Ready(outcome);
        };
        Poll::Ready(match outcome {
            Ok(mut response) => {
                watch.answered(&response);
                watch.tell_observed(response.headers_mut());
                Ok(map_body(response, |inner| {
                    Body::wrap(Watched { inner, watch })
                }))
            }
            Err(error) => {
                watch.failed(error.reason());
                Err(error)
            }
        })
    }
}

pin_project! {
    struct Watched {
        #[pin]
        inner: Body,
        watch: Box<Watch>,
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let mut this = self.project();
        let polled = this.inner.as_mut().poll_frame(cx);
        // one piece may come with the headers
        this.watch.prompt &= polled.is_ready() && this.watch.sent == 0;
        let frame = ready!(polled);
        match &frame {
            Some(Ok(frame)) => {
                this.watch.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.watch.over = this.inner.is_end_stream();
            }
            Some(Err(error)) => this.watch.failed(error.reason()),
            None => this.watch.over = true,
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
