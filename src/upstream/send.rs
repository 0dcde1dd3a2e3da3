//! The innermost service: one try. Choose an endpoint, get a connection, send, wait for the
//! response headers. `record` counts how it went, up to the end of the answer.
//!
//! A request that an idle connection hands back unwritten goes out again at once on a fresh one;
//! that is no retry, since nobody has seen it. Everything else that fails is an error for `retry`
//! to judge. The endpoint asked is written into the exchange's notes. Failures that the client
//! caused count against nobody.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::Either;
use http_body::Body as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep_until};
use tower::Service;

use super::admit::{self, Tickets, Wish};
use super::answer::{self, Ending};
use super::checkout::{Checkout, Lent, Wanted};
use super::choose::{Slot, View};
use super::pool::WorkerPools;
use super::record::Record;
use super::upload::{self, Upload, Waits};
use super::wire::Sent;
use super::{Upstream, framing};
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::exchange::Lease;
use crate::message::{Body, Exchange, Request, Response, map_body};

/// What a further try is told: an extension that `retry` puts on the request.
#[derive(Debug, Clone, Default)]
pub(super) struct Further {
    /// Endpoints asked before: others come first.
    pub(super) tried: Vec<SocketAddr>,
    /// Over a connection that was never used: the last one broke.
    pub(super) fresh: bool,
}

/// A connection that was used before ended without an answer: it may have been closed while idle.
#[derive(Debug)]
pub(super) struct Stale(hyper::Error);

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reused connection ended before the answer")
    }
}

impl StdError for Stale {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// A try's time was up while the client was still sending: no failure of the endpoint's.
#[derive(Debug)]
pub(super) struct ClientLate;

impl fmt::Display for ClientLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client was still sending")
    }
}

impl StdError for ClientLate {}

/// Sends requests to one upstream over one worker's connections.
#[derive(Clone)]
pub struct Send(Arc<Sender>);

pub(super) struct Sender {
    pub(super) upstream: Arc<Upstream>,
    /// The upstream's name, this worker's own copy.
    name: Arc<str>,
    pub(super) pools: Arc<WorkerPools>,
    /// Shared with the worker's other stacks.
    view: Arc<Mutex<View>>,
    per_try: Option<Duration>,
}

impl Send {
    /// For one stack on one worker.
    pub fn new(upstream: Arc<Upstream>, pools: Arc<WorkerPools>) -> Self {
        let per_try = upstream.retry().and_then(|r| r.per_try_timeout.as_ref());
        Send(Arc::new(Sender {
            per_try: per_try.map(|t| t.value.0),
            view: pools.views.of(&upstream, pools.worker),
            name: Arc::from(&*upstream.name),
            upstream,
            pools,
        }))
    }
}

impl Service<Request> for Send {
    type Response = Response;
    type Error = GatewayError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, GatewayError>> + std::marker::Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let sender = Arc::clone(&self.0);
        Box::pin(sender.attempt(request))
    }
}

impl Sender {
    async fn attempt(self: Arc<Self>, mut request: Request) -> Result<Response, GatewayError> {
        let extensions = request.extensions_mut();
        let exchange = extensions.remove::<Arc<Exchange>>();
        let exchange = exchange.as_ref();
        let further = extensions.remove::<Further>();
        let started = match exchange {
            Some(exchange) if further.is_none() => exchange.as_of(),
            _ => clock::now(),
        };
        let further = further.unwrap_or_default();
        // What is ours ends here; the empty map is of use to `pass_interims`.
        extensions.clear();
        let (slot, tickets) = self.slot(
            &Wish {
                hash: self.upstream.key.of(&request, exchange),
                exchange,
                avoid: &further.tried,
                safe: admit::is_safe(&request),
                worker: self.pools.worker,
            },
            started,
        )?;
        if let Some(exchange) = exchange {
            exchange.note(|notes| {
                notes.upstream = Some(Arc::clone(&self.name));
                notes.endpoint = Some(slot.endpoint.address);
                notes.tries += 1;
            });
        }
        let limits = Limits {
            per_try: self.per_try.map(|limit| started + limit),
            exchange,
        };
        let idle = self.upstream.config.timeouts.idle.value.0;
        let mut record = Record::begin(self, slot, tickets, started);
        let (sender, slot) = (&record.sender, &record.slot);
        let asked = sender.exchange(request, slot, further.fresh, limits, started);
        let result = asked.await;
        let took = record.headers(&result);
        if let Some(exchange) = exchange {
            exchange.add_wait(took);
        }
        let (response, ending) = result?;
        let Some(ending) = ending else {
            return Ok(response);
        };
        Ok(map_body(response, |body| {
            answer::watch(body, ending, record, idle)
        }))
    }

    /// The endpoint to ask, with the leave of the breakers.
    fn slot(&self, wish: &Wish<'_>, now: Instant) -> Result<(Arc<Slot>, Tickets), GatewayError> {
        let upstream = self.upstream.admit(wish, now)?;
        let chosen = self
            .view
            .lock()
            .choose(&self.upstream, &self.pools, wish, now);
        match chosen {
            Ok((slot, endpoint)) => Ok((slot, Tickets { upstream, endpoint })),
            Err(error) => {
                self.upstream.take_back(upstream, wish.worker, now);
                Err(error)
            }
        }
    }

    /// One try up to the response headers, and what is let go at the end of the body.
    async fn exchange(
        &self,
        mut request: Request,
        slot: &Slot,
        fresh: bool,
        limits: Limits<'_>,
        started: Instant,
    ) -> Result<(Response, Option<Ending>), GatewayError> {
        let flight = slot.pool.begin();
        let upload = upload::watch(request.body_mut(), started);
        let upgrade = request.headers().contains_key(http::header::UPGRADE);
        let mut wanted = Wanted {
            fresh: fresh || upgrade,
            upgrade,
        };
        loop {
            let (mut lent, sent) = self.connection(slot, wanted, limits, started).await?;
            framing::prepare(&mut request, matches!(lent, Lent::H2(_)), &slot.endpoint)?;
            if let (Lent::H1(_), Some(exchange)) = (&lent, limits.exchange) {
                pass_interims(&mut request, exchange);
            }
            let reused = lent.was_used();
            let method_is_head = request.method() == http::Method::HEAD;
            let answer = lent.send(request, limits.exchange.is_some_and(|e| e.is_one_of_many()));
            let wait = self.head(answer, lent.timer(), upload.as_deref(), limits, sent);
            match wait.await? {
                Ok(response) => {
                    let ending = Ending {
                        lent,
                        flight,
                        upload,
                        reusable: !upgrade,
                        keep: answer::keep(&self.upstream),
                    };
                    return answered(response, ending, upgrade, method_is_head);
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unwritten) if reused && !wanted.fresh => {
                        request = Box::new(unwritten);
                        wanted.fresh = true;
                    }
                    unwritten => {
                        let error = failure(failed.into_error(), reused);
                        let unsent = unwritten.is_some();
                        return Err(if unsent { error.never_sent() } else { error });
                    }
                },
            }
        }
    }

    /// A connection, and the time at which it was there.
    async fn connection(
        &self,
        slot: &Slot,
        wanted: Wanted,
        limits: Limits<'_>,
        started: Instant,
    ) -> Result<(Lent, Instant), GatewayError> {
        let checkout = Checkout {
            upstream: &self.upstream,
            endpoint: &slot.endpoint,
            pool: &slot.pool,
            pools: &self.pools,
            wanted,
            due: limits.first(),
        };
        // The usual way needs no timer.
        if let Some(lent) = checkout.at_hand(started) {
            return Ok((lent, started));
        }
        let lent = Box::pin(async move { checkout.get().await });
        Ok((lent.await?, clock::now()))
    }

    /// Waits for the response headers, for as long as is due. `timer`: the connection's, if it has
    /// one.
    async fn head<T>(
        &self,
        answer: impl Future<Output = T>,
        timer: Option<Pin<&mut Sleep>>,
        upload: Option<&Upload>,
        limits: Limits<'_>,
        sent: Instant,
    ) -> Result<T, GatewayError> {
        let timeouts = &self.upstream.config.timeouts;
        let (first_byte, idle) = (timeouts.first_byte.value.0, timeouts.idle.value.0);
        let mut now = sent;
        let mut own = pin!(timer.is_none().then(|| sleep_until(sent.into())));
        let own = own.as_mut().as_pin_mut();
        let mut timer = timer.or(own).expect("the connection's, or our own");
        tokio::pin!(answer);
        loop {
            let (mut due, mut why) = due(upload, sent, first_byte, idle);
            if let Some(limit) = limits.first().filter(|limit| limit.0 < due) {
                (due, why) = limit;
            }
            if due <= now {
                let waits_for_client = upload.is_some_and(|u| u.waits() == Waits::ForClient);
                return Err(match waits_for_client && why == Reason::PerTryTimeout {
                    true => GatewayError::caused(why, ClientLate),
                    false => why.into(),
                });
            }
            // An upload changes what is due: look again when it ends, and now and then.
            let look = upload.map_or(due, |_| due.min(now + first_byte.min(idle) / 8));
            timer.as_mut().reset(look.into());
            tokio::select! {
                biased;
                answered = &mut answer => return Ok(answered),
                () = upload::ended(upload) => {}
                () = timer.as_mut() => {}
            }
            now = clock::now();
        }
    }
}

/// Interim answers to this request go to the client at once (RFC 9110 15.2).
fn pass_interims(request: &mut Request, exchange: &Arc<Exchange>) {
    if exchange.takes_interims() {
        let exchange = Arc::clone(exchange);
        hyper::ext::on_informational(request, move |interim| {
            exchange.interim(interim.status(), interim.headers());
        });
    }
}

/// What ends a try before the upstream's own timeouts do.
#[derive(Clone, Copy)]
struct Limits<'a> {
    /// `retry.per_try_timeout`.
    per_try: Option<Instant>,
    /// The route's `timeout`, over all tries; not while the request body is still coming.
    exchange: Option<&'a Arc<Exchange>>,
}

impl Limits<'_> {
    /// The earlier one, and what it is called.
    fn first(&self) -> Option<(Instant, Reason)> {
        let route = self.exchange.and_then(|exchange| exchange.due());
        let route = route.map(|due| (due, Reason::HttpResponseTimeout));
        let per_try = self.per_try.map(|due| (due, Reason::PerTryTimeout));
        route.into_iter().chain(per_try).min_by_key(|limit| limit.0)
    }
}

/// Judges an answer whose headers are there; a connection that was upgraded has no ending.
fn answered(
    mut response: http::Response<Incoming>,
    mut ending: Ending,
    upgrade: bool,
    to_head: bool,
) -> Result<(Response, Option<Ending>), GatewayError> {
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        return match ending.lent {
            Lent::H1(lent) if upgrade => {
                let upgraded = Arc::new(lent.release(ending.flight));
                response.extensions_mut().insert(Lease(upgraded));
                Ok((Box::new(response.map(|_| Body::empty())), None))
            }
            Lent::H1(_) | Lent::H2(_) => Err(Reason::HttpUpgradeFailed.into()),
        };
    }
    ending.reusable &= framing::judge(&mut response, to_head)?;
    let response = Box::new(response.map(Body::from_upstream));
    if response.status() == http::StatusCode::RESET_CONTENT && !response.body().is_end_stream() {
        // It has no content (RFC 9110 15.3.6): what came goes with its connection.
        ending.reusable = false;
        return Ok((framing::without_body(response), Some(ending)));
    }
    Ok((response, Some(ending)))
}

/// When a wait for headers ends, and what it is called then.
fn due(
    upload: Option<&Upload>,
    sent: Instant,
    first_byte: Duration,
    idle: Duration,
) -> (Instant, Reason) {
    let Some(upload) = upload else {
        return (sent + first_byte, Reason::FirstByteTimeout);
    };
    match upload.waits() {
        Waits::ForNobody => (
            upload.moved().max(sent) + first_byte,
            Reason::FirstByteTimeout,
        ),
        Waits::ForUpstream => (
            upload.moved().max(sent) + idle,
            Reason::ConnectionWriteTimeout,
        ),
        // The client's own timeouts are over it.
        Waits::ForClient => (clock::now() + idle, Reason::RequestTimeout),
    }
}

impl Lent {
    /// It has served another request before.
    fn was_used(&self) -> bool {
        match self {
            Lent::H1(lent) => lent.idle_since.is_some(),
            Lent::H2(_) => true,
        }
    }

    /// The timer of a connection that serves one request at a time.
    fn timer(&mut self) -> Option<Pin<&mut Sleep>> {
        match self {
            Lent::H1(lent) => Some(lent.timer()),
            Lent::H2(_) => None,
        }
    }

    /// Hands the request over at once; the future is only the wait for its answer.
    fn send(&mut self, request: Request, at_once: bool) -> impl Future<Output = Sent> + use<> {
        match self {
            Lent::H1(lent) => Either::Left(lent.sender().send(*request, at_once)),
            Lent::H2(lent) => Either::Right(lent.sender.try_send_request(*request)),
        }
    }
}

/// What a failed exchange means.
fn failure(error: hyper::Error, reused: bool) -> GatewayError {
    let mut source = error.source();
    let mut h2 = None;
    while let Some(cause) = source {
        if let Some(ours) = cause.downcast_ref::<GatewayError>() {
            // The request's own body broke: the client's doing.
            return GatewayError::caused(ours.reason(), error);
        }
        h2 = h2.or_else(|| cause.downcast_ref::<h2::Error>());
        source = cause.source();
    }
    if let Some(h2) = h2 {
        let unseen = h2.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR) && h2.is_remote());
        let library = h2.is_library();
        return match (unseen, library) {
            (true, _) => GatewayError::caused(Reason::ConnectionTerminated, error).never_sent(),
            (_, true) => GatewayError::caused(Reason::HttpProtocolError, error),
            _ => GatewayError::caused(Reason::ConnectionTerminated, error),
        };
    }
    if error.is_parse_too_large() {
        GatewayError::caused(Reason::HttpResponseHeaderSectionSize, error)
    } else if error.is_parse() {
        GatewayError::caused(Reason::HttpProtocolError, error)
    } else if reused {
        GatewayError::caused(Reason::ConnectionTerminated, Stale(error))
    } else {
        GatewayError::caused(Reason::ConnectionTerminated, error)
    }
}
