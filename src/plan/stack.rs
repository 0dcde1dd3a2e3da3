//! THE ORDER OF THE LAYERS: the way of a request through a route, outermost first.
//!
//! Code decides the order and not config, since the order is what makes the answers right. A
//! stack is made by each worker for itself, at a route's first request, from the shared
//! [`RoutePlan`] and the worker's own [`Kit`]: whatever a layer holds behind an `Arc` is of this
//! worker, so that a request touches no cache line of another thread. The stack is boxed once, at
//! the top, and called in place: a clone for each request would be one of every layer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tower::util::{Either, option_layer};
use tower::{Layer, Service, ServiceBuilder};

use crate::chance::Chance;
use crate::error::GatewayError;
use crate::message::{Request, Response};
use crate::middleware::cache::{CacheLayer, Desk, Shelved};
use crate::middleware::compress::{CompressLayer, Encoders};
use crate::middleware::concurrency::{Concurrency, ConcurrencyLayer};
use crate::middleware::fallback::{FallbackLayer, Guide, Stale};
use crate::middleware::forward::{ForwardLayer, Signature};
use crate::middleware::headers::HeadersLayer;
use crate::middleware::intake::IntakeLayer;
use crate::middleware::load_shed::{LoadShedLayer, Shedder};
use crate::middleware::observe::{ObserveLayer, Observer};
use crate::middleware::rate_limit::RateLimitLayer;
use crate::middleware::refuse::Refuse;
use crate::middleware::request_id::RequestIdLayer;
use crate::middleware::rescue::{RescueLayer, Voice};
use crate::middleware::rewrite::RewriteLayer;
use crate::middleware::split::Split;
use crate::middleware::upgrade::{Gate, Tunnels, UpgradeLayer};
use crate::telemetry::access::AccessLog;
use crate::telemetry::handles::Metrics;
use crate::upstream::{Upstream, WorkerPools, client};

use super::route::{Action, RoutePlan};

/// A route's layers, bound to one worker, whose thread alone takes the lock.
#[derive(Clone)]
pub struct Stack(Arc<Mutex<dyn Answer>>);

/// The answer to come.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response, GatewayError>> + Send>>;

trait Answer: Send {
    fn begin(&mut self, request: Request) -> Answering;
}

impl<S> Answer for S
where
    S: Service<Request, Response = Response, Error = GatewayError> + Send,
    S::Future: Send + 'static,
{
    /// A stack waits inside `call` and never before it: every room passes `poll_ready` on, and the
    /// innermost is always ready. So it need not be asked.
    fn begin(&mut self, request: Request) -> Answering {
        Box::pin(self.call(request))
    }
}

impl Stack {
    fn new<S>(service: S) -> Self
    where
        S: Service<Request, Response = Response, Error = GatewayError> + Send + 'static,
        S::Future: Send + 'static,
    {
        Stack(Arc::new(Mutex::new(service)))
    }

    /// Answers a request.
    pub fn answer(&self, request: Request) -> Answering {
        self.0.lock().begin(request)
    }
}

/// As a step of a ladder: the way to another upstream.
impl Service<Request> for Stack {
    type Response = Response;
    type Error = GatewayError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answering {
        self.answer(request)
    }
}

/// What a worker lends to its stacks.
pub struct Kit {
    /// The worker's number: the block of cells it writes.
    pub worker: usize,
    /// All numbers.
    pub metrics: Arc<Metrics>,
    /// Its connections to upstreams.
    pub pools: Arc<WorkerPools>,
    /// Its chance.
    pub chance: Arc<Chance>,
    /// Its encoders.
    pub encoders: Arc<Encoders>,
    /// Its access log.
    pub access: Option<AccessLog>,
    /// Who joins upgraded connections.
    pub tunnels: Arc<dyn Tunnels>,
}

/// The stack of a route, for one worker.
pub fn build(route: &RoutePlan, kit: &Kit) -> Stack {
    match &route.action {
        Action::Respond(respond) => around(route, kit, respond.local()),
        Action::Redirect(redirect) => around(route, kit, redirect.local()),
        Action::Forward(shares) => around(route, kit, way_out(route, kit, shares)),
        Action::Refuse => around(route, kit, Refuse),
    }
}

/// What every route has, around the one who answers.
fn around<S>(route: &RoutePlan, kit: &Kit, answerer: S) -> Stack
where
    S: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let stack = ServiceBuilder::new()
        // everything below can name the request
        .layer(RequestIdLayer)
        // sees every answer, also made-up ones, to the last byte
        .layer(ObserveLayer::new(observer(route, kit)))
        // request edits are seen by every policy below, response edits reach answers of our own
        .option_layer(route.headers.as_ref().map(HeadersLayer::local))
        // below here failure is an error; above, it is a response
        .layer(RescueLayer::new(voice(route, kit)))
        // a body is capped and watched before anybody reads it
        .layer(IntakeLayer {
            max_body: route.max_body,
        })
        // the last word when anything below refused or failed
        .option_layer(ladder(route, kit))
        // refuse cheaply, before any other policy, while the process is short of something
        .option_layer(load_shed(route, kit))
        // refuse fairly, before work: whatever a client asks for counts
        .option_layer(RateLimitLayer::above_cache(
            &route.limits,
            route.limit_headers,
            kit.worker,
        ))
        // cap what is in flight: below the limits on rates, above all that does work
        .option_layer(concurrency(route, kit))
        // a hit skips everything below; what is stored is encoded already
        .option_layer(desk(route, kit).map(CacheLayer::new))
        // all that is fetched passes here
        .option_layer(compression(route, kit))
        // what is answered from the cache is free
        .option_layer(RateLimitLayer::below_cache(
            &route.limits,
            route.limit_headers,
            kit.worker,
        ))
        .service(answerer);
    Stack::new(stack)
}

fn compression(route: &RoutePlan, kit: &Kit) -> Option<CompressLayer> {
    let compress = route.compress.as_ref()?;
    Some(compress.layer(&kit.encoders, &kit.metrics, kit.worker))
}

/// The ladder of a route, with this worker's ways to its other upstreams.
fn ladder(route: &RoutePlan, kit: &Kit) -> Option<FallbackLayer<Stack>> {
    let ladder = route.ladder.as_ref()?;
    Some(FallbackLayer::new(Guide {
        ladder: ladder.map(|other| {
            let other = way_out(route, kit, &[(1, other.clone())]);
            let encoded = ServiceBuilder::new().option_layer(compression(route, kit));
            Stack::new(encoded.service(other))
        }),
        stale: desk(route, kit).map(|desk| Arc::new(Copies(Shelved::new(desk))) as Arc<dyn Stale>),
        identity: Arc::from(&*route.identity),
    }))
}

/// The stored answers of a route, as a step of its ladder.
struct Copies(Shelved);

impl Stale for Copies {
    fn find(&self, request: &Request, limit: Duration) -> Option<Response> {
        self.0.find(request, limit)
    }
}

/// Where stored answers are asked for; an answer of our own needs none.
fn desk(route: &RoutePlan, kit: &Kit) -> Option<Arc<Desk>> {
    let forwards = matches!(route.action, Action::Forward(_));
    let cache = route.cache.as_ref().filter(|_| forwards)?;
    let metrics = route.metrics.clone();
    let desk = Desk::new(
        cache,
        &route.identity,
        metrics,
        kit.worker,
        kit.chance.clone(),
    );
    Some(Arc::new(desk))
}

/// The way to an upstream.
fn way_out(
    route: &RoutePlan,
    kit: &Kit,
    shares: &[(u32, Arc<Upstream>)],
) -> impl Service<Request, Response = Response, Error = GatewayError, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static {
    // below the retries, which keep the smaller request, and made anew for each try
    let forward = ForwardLayer::new(signature(route));
    let tried = |send| forward.layer(send);
    let clients = shares
        .iter()
        .map(|(weight, up)| (*weight, capped(up, client(up, &kit.pools, tried))));
    ServiceBuilder::new()
        // sees the client's own Connection and Upgrade, before they are taken off
        .option_layer(gate(route, kit).map(UpgradeLayer::new))
        // routing and policies saw the client's path; only the upstream sees another
        .option_layer(route.rewrite.as_ref().map(RewriteLayer::local))
        // a request stays with its upstream; retries and the choice of an endpoint are inside
        .service(Split::new(clients, kit.chance.clone()))
}

/// The way to an upstream under the upstream's own cap: above its retries, so that one request
/// holds one place however often it is tried.
fn capped<S>(upstream: &Upstream, client: S) -> Either<Concurrency<S>, S> {
    let cap = upstream.concurrency().map(ConcurrencyLayer::of_upstream);
    option_layer(cap).layer(client)
}

fn load_shed(route: &RoutePlan, kit: &Kit) -> Option<LoadShedLayer> {
    let (priority, mode) = route.shed?;
    Some(LoadShedLayer::new(Shedder {
        metrics: kit.metrics.clone(),
        worker: kit.worker,
        priority,
        mode,
        chance: kit.chance.clone(),
    }))
}

fn concurrency(route: &RoutePlan, kit: &Kit) -> Option<ConcurrencyLayer> {
    let caps = route.concurrency.as_ref()?;
    let metrics = route.metrics.clone();
    Some(ConcurrencyLayer::of_route(caps, metrics, kit.worker))
}

fn observer(route: &RoutePlan, kit: &Kit) -> Arc<Observer> {
    Arc::new(Observer {
        route: route.id.clone(),
        metrics: route.metrics.clone(),
        workers: kit.metrics.clone(),
        worker: kit.worker,
        access: kit.access.clone(),
    })
}

fn voice(route: &RoutePlan, kit: &Kit) -> Arc<Voice> {
    let server = HeaderValue::from_str(&route.identity);
    Arc::new(Voice {
        identity: route.identity.clone(),
        server: server.expect("config/check admits only tokens as identity"),
        chance: kit.chance.clone(),
    })
}

fn signature(route: &RoutePlan) -> Arc<Signature> {
    let signature = Signature::new(route.identity.clone());
    Arc::new(signature.expect("config/check admits only tokens as identity"))
}

fn gate(route: &RoutePlan, kit: &Kit) -> Option<Arc<Gate>> {
    let protocols = route.upgrade.clone();
    let tunnels = kit.tunnels.clone();
    (!protocols.is_empty()).then(|| Arc::new(Gate { protocols, tunnels }))
}
