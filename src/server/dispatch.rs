//! Per request: fresh plan, checks, route, stack.
//!
//! The service that hyper calls, one for each connection. A request that is refused here goes
//! through the `_none` route, so that it is counted, logged and answered like any other. Nothing
//! is awaited here: the future is the stack's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::request::Parts;
use http::{HeaderValue, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use super::admit::{self, Refused};
use super::guard::Verdict;
use super::trust::Trust;
use super::worker::{View, Worker};
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::exchange::BodyIdle;
use crate::message::sketch::{Field, Sketch};
use crate::message::{Body, Conn, Exchange, Response, hop};
use crate::middleware::refuse::Refusal;
use crate::middleware::request_id;
use crate::plan::listener::ListenerPlan;
use crate::plan::router::{Found, Question};
use crate::plan::stack::Answering;

/// What is allowed everywhere that TRACE and CONNECT are not.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Serves the requests of one connection.
pub struct Dispatch {
    worker: Arc<Worker>,
    listener: Arc<ListenerPlan>,
    conn: Trust,
    /// What the guard found in the bytes, on HTTP/1.
    verdict: Option<Arc<Verdict>>,
    /// Requests so far on this connection.
    requests: AtomicU64,
}

/// Where a request goes.
enum Way {
    Route(usize),
    Refused(Refusal),
}

impl Dispatch {
    /// For one client connection.
    pub fn new(
        worker: Arc<Worker>,
        listener: Arc<ListenerPlan>,
        conn: Arc<Conn>,
        verdict: Option<Arc<Verdict>>,
    ) -> Self {
        Dispatch {
            worker,
            listener,
            conn: Trust::new(conn),
            verdict,
            requests: AtomicU64::new(0),
        }
    }

    /// The worker it runs on.
    pub(super) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    fn way(&self, parts: &mut Parts, sketch: Sketch, conn: &Conn, view: &View) -> Way {
        match self
            .check()
            .and_then(|()| admit::admit(parts, sketch, conn, &self.listener))
        {
            Ok(_) if parts.uri.path() == "*" => refused(None, Some(ALLOW)),
            Ok(host) => {
                disbelieve(parts, sketch, conn);
                route(parts, &host, view)
            }
            Err((reason, violation)) => {
                let cells = self.listener.metrics.of(self.worker.index);
                cells.violations[violation as usize].inc();
                let about_methods = reason == Reason::MethodNotAllowed;
                refused(Some(reason), about_methods.then_some(ALLOW))
            }
        }
    }

    /// What the guard says of this request.
    fn check(&self) -> Result<(), Refused> {
        let ordinal = self.requests.load(Relaxed) + 1;
        self.requests.store(ordinal, Relaxed);
        let found = self
            .verdict
            .as_ref()
            .and_then(|verdict| verdict.check(ordinal));
        found.map_or(Ok(()), |(violation, reason)| Err((reason, violation)))
    }

    /// The number of a request that interim answers can be sent to.
    fn turn(&self, parts: &Parts) -> u64 {
        match self.verdict.is_some() && parts.version == Version::HTTP_11 {
            true => self.requests.load(Relaxed),
            false => 0,
        }
    }

    fn exchange(
        &self,
        parts: &Parts,
        sketch: Sketch,
        conn: &Arc<Conn>,
        view: &View,
        way: &Way,
    ) -> Exchange {
        let peer = conn.peer.ip();
        let client = match conn.trusted && sketch.has(Field::Claim) {
            true => hop::client_address(&parts.headers, peer, &view.plan.server.trusted),
            false => peer,
        };
        let kept = conn.trusted && sketch.has(Field::RequestId);
        let chance = &self.worker.chance;
        let now = clock::now();
        let id = request_id::accept_or_mint(&parts.headers, kept, chance, self.worker.date(now));
        let timeout = match way {
            Way::Route(route) => view.plan.routes[*route].timeout,
            Way::Refused(_) => view.plan.none.timeout,
        };
        let exchange = Exchange::new(conn.clone(), now, client, id, sketch, timeout);
        exchange.in_turn(self.turn(parts))
    }
}

/// Takes off what this client has no say in, before a route or a policy looks at it.
fn disbelieve(parts: &mut Parts, sketch: Sketch, conn: &Conn) {
    if sketch.has(Field::Hop) {
        hop::strip_named(&mut parts.headers);
        hop::drop_look_alikes(&mut parts.headers);
    }
    if sketch.has(Field::Claim) && !conn.trusted {
        hop::drop_claims(&mut parts.headers);
    }
}

fn refused(reason: Option<Reason>, allow: Option<HeaderValue>) -> Way {
    Way::Refused(Refusal { reason, allow })
}

fn route(parts: &Parts, host: &str, view: &View) -> Way {
    let question = Question {
        host,
        path: parts.uri.path(),
        query: parts.uri.query(),
        method: &parts.method,
        headers: &parts.headers,
    };
    match view.plan.router.find(question) {
        Found::Route(route) => Way::Route(route),
        Found::Nothing => refused(Some(Reason::NoRoute), None),
        Found::Methods(methods) => {
            let mut names: Vec<&str> = methods.iter().map(|m| m.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let allow = HeaderValue::from_str(&names.join(", ")).ok();
            refused(Some(Reason::MethodNotAllowed), allow)
        }
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Dispatch {
    type Response = Response;
    type Error = GatewayError;
    type Future = Answering;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let view = self.worker.view();
        let (mut parts, body) = request.into_parts();
        let sketch = Sketch::of(&parts.headers);
        let conn = self.conn.under(&view.plan);
        let way = self.way(&mut parts, sketch, conn, &view);
        let exchange = self.exchange(&parts, sketch, conn, &view, &way);
        parts.extensions.insert(Arc::new(exchange));
        if !body.is_end_stream() {
            parts
                .extensions
                .insert(BodyIdle(self.listener.limits.body_idle_timeout));
        }
        let stack = match way {
            Way::Route(route) => self.worker.stack(&view, route),
            Way::Refused(refusal) => {
                parts.extensions.insert(refusal);
                self.worker.refusal(&view)
            }
        };
        let request = http::Request::from_parts(parts, Body::from_client(body));
        stack.answer(Box::new(request))
    }
}
