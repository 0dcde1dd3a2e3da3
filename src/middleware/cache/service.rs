//! The way of a request through the cache.
//!
//! A hit is answered at once: no task, no box. Everything else is slow already: it boards the flight
//! for its answer, or goes by itself where the answer is the client's own affair (an unsafe method, a
//! body, a range that nothing stored can serve).

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::Either;
use http::header;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;
use tower::{Layer, Service};

use super::answer::{self, Moment, Wish};
use super::entry::{Entry, Object};
use super::flight::{Flight, Stage};
use super::key::Key;
use super::policy::reuse::{self, Cause};
use super::policy::{self, Asked, Reuse, conditional};
use super::status::{self, Detail, Did, Forward};
use super::store::{Found, Store};
use super::{CachePlan, RouteCache, tags};
use crate::chance::Chance;
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::sketch::Field;
use crate::message::spare::SpareHead;
use crate::message::{Body, Exchange, Request, Response, exchange};
use crate::telemetry::cache::{Refreshed, Used};
use crate::telemetry::handles::{RouteCells, RouteMetrics};

mod aboard;
mod slow;
mod unsafely;

/// What a worker needs to serve a route from its cache.
pub struct Desk {
    /// Where it stores.
    pub store: Arc<Store>,
    /// What applies.
    pub plan: Arc<CachePlan>,
    /// Our name, in Cache-Status.
    pub identity: Arc<str>,
    /// The route's numbers.
    pub metrics: Arc<RouteMetrics>,
    /// The worker's number.
    pub worker: usize,
    /// The worker's chance.
    pub chance: Arc<Chance>,
}

impl Desk {
    /// For a route, on a worker.
    pub fn new(
        cache: &RouteCache,
        identity: &str,
        metrics: Arc<RouteMetrics>,
        worker: usize,
        chance: Arc<Chance>,
    ) -> Self {
        Desk {
            store: Arc::clone(&cache.store),
            plan: Arc::clone(&cache.plan),
            identity: identity.into(),
            metrics,
            worker,
            chance,
        }
    }

    /// This worker's numbers of the route.
    pub fn cells(&self) -> &RouteCells {
        self.metrics.of(self.worker)
    }

    /// How long a failing origin is left alone, with a fifth more by chance, so that keys that failed
    /// together are not asked for together.
    pub fn cool_down(&self) -> Duration {
        let millis = u64::try_from(self.plan.cool_down.as_millis()).unwrap_or(u64::MAX);
        self.plan.cool_down + Duration::from_millis(self.chance.below(millis / 5 + 1))
    }

    /// Says and counts what the cache did.
    fn tell(&self, response: &mut Response, did: Did, used: Used) {
        let member = did.member(&self.identity);
        response.headers_mut().append(status::NAME, member);
        self.cells().cache[used as usize].inc();
    }

    /// A stored answer as it stands.
    fn hit(&self, entry: &Entry, wish: Wish<'_>, at: Moment, did: Did, used: Used) -> Response {
        let mut response = answer::of(entry, wish, at, self.chance.next());
        self.tell(&mut response, did, used);
        self.cells()
            .cache_age
            .observe(entry.head.terms.age_at(at.now));
        response
    }

    /// The stored answer, although it is stale.
    fn stale(&self, entry: &Entry, wish: Wish<'_>, at: Moment, detail: Option<Detail>) -> Response {
        let did = Did::Hit(entry.head.terms.ttl(at.now), detail);
        self.hit(entry, wish, at, did, Used::Stale)
    }

    fn is_cooling(&self, object: Option<&Arc<Object>>, now: Instant) -> bool {
        object.is_some_and(|object| object.pulse.is_cooling(self.store.start, now))
    }

    /// Ends a flight for which nothing is asked of the origin: who waits for it goes alone.
    fn ground(&self, key: &Key, flight: &Arc<Flight>) {
        self.store.flights.leave(key, flight);
        flight.reach(Stage::Alone(StatusCode::SERVICE_UNAVAILABLE));
    }
}

/// Answers from the store, and fills it.
#[derive(Clone)]
pub struct CacheLayer(Arc<Desk>);

impl CacheLayer {
    /// At this desk, behind an `Arc` of this worker's own.
    pub fn new(desk: Arc<Desk>) -> Self {
        CacheLayer(desk)
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = Cache<S>;
    fn layer(&self, inner: S) -> Cache<S> {
        Cache {
            inner,
            desk: Arc::clone(&self.0),
        }
    }
}

/// The service of [`CacheLayer`].
#[derive(Clone)]
pub struct Cache<S> {
    inner: S,
    desk: Arc<Desk>,
}

/// An answer that is not there yet.
type Slow = Pin<Box<dyn Future<Output = Result<Response, GatewayError>> + Send>>;

/// What the cache has to do with a request.
enum Business {
    /// GET or HEAD: look for it.
    Find(Arc<Exchange>),
    /// It makes stored answers untrue.
    Unsafe(Arc<Exchange>),
    /// Nothing.
    None(Forward),
}

fn business(request: &Request) -> Business {
    let Some(exchange) = exchange::of(request) else {
        return Business::None(Forward::Bypass);
    };
    match *request.method() {
        Method::GET | Method::HEAD => {
            // A body may change the answer, and is not in the key (CASES I12).
            let plain =
                request.body().is_end_stream() && !request.headers().contains_key(header::UPGRADE);
            match plain {
                true => Business::Find(Arc::clone(exchange)),
                false => Business::None(Forward::Bypass),
            }
        }
        Method::OPTIONS | Method::TRACE => Business::None(Forward::Method),
        _ => Business::Unsafe(Arc::clone(exchange)),
    }
}

/// A look-up, as far as it went.
struct Look {
    key: Key,
    found: Found,
    asked: Asked,
    /// It may have conditions, a range or directives.
    special: bool,
    now: Instant,
    why: Forward,
}

impl<S> Cache<S>
where
    S: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// The answer that is there, or what the look-up has found.
    fn look(&self, request: &Request, exchange: &Exchange) -> Result<Response, Box<Look>> {
        let desk = &*self.desk;
        let now = clock::now();
        let headers = request.headers();
        let special = exchange.sketch.has(Field::Cache);
        let asked = if special {
            Asked::read(headers)
        } else {
            Asked::default()
        };
        let scheme = exchange.conn.scheme();
        let key = desk.plan.key.of(request, scheme, &desk.store.secrets);
        let found = desk.store.find(&key, headers);
        let mut look = Look {
            key,
            found,
            asked,
            special,
            now,
            why: Forward::UriMiss,
        };
        let Some(entry) = &look.found.entry else {
            if look.found.object.is_some() {
                look.why = Forward::VaryMiss;
            }
            return Err(Box::new(look));
        };
        let wish = Wish {
            method: request.method(),
            headers,
            special,
        };
        let terms = &entry.head.terms;
        match policy::reuse(terms, &asked, now) {
            Reuse::Fresh => {
                let at = self.moment(now);
                let did = Did::Hit(terms.ttl(now), None);
                Ok(desk.hit(entry, wish, at, did, Used::Hit))
            }
            Reuse::Stale(reuse::Stale::Accepted) => {
                Ok(desk.stale(entry, wish, self.moment(now), None))
            }
            Reuse::Stale(reuse::Stale::WhileRevalidate) => {
                self.refresh(request, exchange, &look);
                let detail = Some(Detail::WhileRevalidate);
                Ok(desk.stale(entry, wish, self.moment(now), detail))
            }
            Reuse::Validate(cause) => {
                let cooling = desk.is_cooling(look.found.object.as_ref(), now);
                if cause == Cause::Stale && cooling && reuse::after_failure(terms, &asked, now) {
                    return Ok(desk.stale(entry, wish, self.moment(now), Some(Detail::IfError)));
                }
                look.why = match cause {
                    Cause::Request => Forward::Request,
                    Cause::Stale | Cause::NoCache => Forward::Stale,
                };
                Err(Box::new(look))
            }
        }
    }

    fn moment(&self, now: Instant) -> Moment {
        let wall = clock::wall();
        Moment { now, wall }
    }

    /// Fetches a new answer behind the client's back, unless somebody does already.
    fn refresh(&self, request: &Request, exchange: &Exchange, look: &Look) {
        let desk = &self.desk;
        if desk.is_cooling(look.found.object.as_ref(), look.now) {
            desk.store.cells.refreshes[Refreshed::Cooling as usize].inc();
            return;
        }
        aboard::refresh(desk, &self.inner, request, exchange, look);
    }
}

impl<S> Service<Request> for Cache<S>
where
    S: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = Either<Ready<Result<Response, GatewayError>>, Slow>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let desk = || Arc::clone(&self.desk);
        let exchange = match business(&request) {
            Business::Find(exchange) => exchange,
            Business::Unsafe(exchange) => {
                return Either::Right(Box::pin(unsafely::pass(
                    desk(),
                    self.inner.clone(),
                    request,
                    exchange,
                )));
            }
            Business::None(why) => {
                return Either::Right(Box::pin(slow::pass(
                    desk(),
                    self.inner.clone(),
                    request,
                    why,
                )));
            }
        };
        if exchange.sketch.has(Field::Cache) && conditional::for_origin(request.headers()) {
            let passed = slow::pass(desk(), self.inner.clone(), request, Forward::Request);
            return Either::Right(Box::pin(passed));
        }
        match self.look(&request, &exchange) {
            Ok(response) => Either::Left(ready(Ok(response))),
            Err(look) if look.asked.only_if_cached => {
                Either::Left(ready(Err(Reason::OnlyIfCached.into())))
            }
            Err(look) => {
                let inner = self.inner.clone();
                Either::Right(Box::pin(slow::fetch(
                    desk(),
                    inner,
                    request,
                    exchange,
                    look,
                )))
            }
        }
    }
}

/// A route's stored answers, for those who know how stale an answer may be.
#[derive(Clone)]
pub struct Shelved(Arc<Desk>);

impl Shelved {
    /// Those at this desk.
    pub fn new(desk: Arc<Desk>) -> Self {
        Shelved(desk)
    }

    /// The answer for this request, if there is one that is stale by no more than `limit` and may be
    /// given.
    pub fn find(&self, request: &Request, limit: Duration) -> Option<Response> {
        let desk = &*self.0;
        let exchange = exchange::of(request)?;
        let key = desk
            .plan
            .key
            .of(request, exchange.conn.scheme(), &desk.store.secrets);
        let entry = desk.store.find(&key, request.headers()).entry?;
        let at = Moment {
            now: clock::now(),
            wall: clock::wall(),
        };
        if !reuse::within(&entry.head.terms, limit, at.now) {
            return None;
        }
        let wish = Wish {
            method: request.method(),
            headers: request.headers(),
            special: true,
        };
        let ttl = entry.head.terms.ttl(at.now);
        let (detail, used) = match entry.head.terms.is_fresh(at.now) {
            true => (None, Used::Hit),
            false => (Some(Detail::IfError), Used::Stale),
        };
        Some(desk.hit(&entry, wish, at, Did::Hit(ttl, detail), used))
    }
}

/// Takes off what no client is to see of an answer that was not stored.
fn strip(fields: &mut HeaderMap) {
    tags::strip(fields);
    fields.remove(policy::targeted::WEIR_CACHE_CONTROL);
}

/// A request without a body, to be asked once more.
fn again(request: &Request) -> Request {
    let mut again = SpareHead::of(request).request(Body::empty());
    *again.extensions_mut() = request.extensions().clone();
    again
}

#[cfg(test)]
mod tests;
