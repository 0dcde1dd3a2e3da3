//! What the micro-benchmarks share: a plan from a config, a worker, and requests as they come.

// each benchmark uses what it needs of this
#![allow(dead_code)]

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use weir::chance::Chance;
use weir::config::load;
use weir::message::sketch::Sketch;
use weir::message::{Body, Conn, Exchange, Request};
use weir::middleware::compress::Encoders;
use weir::plan::stack::Kit;
use weir::plan::{Plan, SharedPlan, compile};
use weir::server::drain;
use weir::server::tunnels::LocalTunnels;
use weir::server::worker::Worker;
use weir::telemetry::handles::Metrics;
use weir::upstream::WorkerPools;

/// A config in force on one worker.
pub(crate) struct Bench {
    pub(crate) plan: Arc<Plan>,
    pub(crate) worker: Worker,
    pub(crate) metrics: Arc<Metrics>,
    conn: Arc<Conn>,
    listener: Arc<str>,
}

impl Bench {
    /// Of routes alone, as a config has them.
    pub(crate) fn new(routes: &str) -> Bench {
        let text = format!("[listeners.web]\naddress = \"127.0.0.1:0\"\n{routes}");
        let metrics = Arc::new(Metrics::new(1));
        let loaded = load::load_text("weir.toml", &text, Path::new("."), &|_| None);
        let loaded = loaded.unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
        let plan = compile::compile(Arc::new(loaded), None, &metrics);
        let plan = Arc::new(plan.unwrap_or_else(|_| panic!("the config compiles")));
        let (_, drain) = drain::channel();
        let kit = Kit {
            worker: 0,
            metrics: metrics.clone(),
            pools: Arc::new(WorkerPools::new(0)),
            chance: Arc::new(Chance::seeded(1)),
            encoders: Arc::new(Encoders::new(None)),
            access: None,
            tunnels: Arc::new(LocalTunnels::new(0, metrics.clone(), drain)),
        };
        let worker = Worker::new(kit, SharedPlan::new(plan.clone()));
        let here = "127.0.0.1:80".parse().expect("an address");
        let peer = "192.0.2.1:4711".parse().expect("an address");
        let listener: Arc<str> = Arc::from("web");
        let conn = Arc::new(Conn::new(listener.clone(), peer, here, false, None));
        Bench {
            plan,
            worker,
            metrics,
            conn,
            listener,
        }
    }

    /// A request as `dispatch` hands it to a stack.
    pub(crate) fn request(&self, target: &str) -> Request {
        let mut request = Box::new(http::Request::new(Body::empty()));
        *request.uri_mut() = target.parse().expect("a target");
        *request.headers_mut() = fields();
        let exchange = Exchange::new(
            self.conn.clone(),
            weir::clock::now(),
            self.conn.peer.ip(),
            HeaderValue::from_static("0af7651916cd43dd8448eb211c80319c"),
            Sketch::of(request.headers()),
            Duration::from_secs(60),
        );
        request.extensions_mut().insert(Arc::new(exchange));
        request
    }
}

/// What a browser sends.
pub(crate) fn fields() -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("host", "www.example.com"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        ),
        (
            "accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("accept-language", "en-GB,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("cookie", "session=0123456789abcdef; theme=dark"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    fields
}

/// So many routes over a hundred hosts, as a large site has them.
pub(crate) fn many_routes(count: usize) -> String {
    let mut routes = String::new();
    for at in 0..count {
        let (host, path) = (at % 100, at / 100);
        let kind = if at % 3 == 0 { "/*" } else { "" };
        writeln!(
            routes,
            "[[routes]]\nid = \"r{at}\"\n\
             match = {{ host = \"h{host}.example.com\", path = \"/v1/part{path}/item{kind}\" }}\n\
             respond = {{ body = \"ok\" }}"
        )
        .expect("a string takes all");
    }
    routes
}
