//! What a request touches besides: metrics, a line of the access log, reading cache directives,
//! the cache key and a look-up that finds nothing.
//!
//!     cargo bench --bench ground

mod common;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, fields};
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use weir::middleware::cache::key::KeyPlan;
use weir::middleware::cache::policy::directives::{Asked, Stated};
use weir::middleware::cache::store::Store;
use weir::problem::Problems;
use weir::telemetry::access::{self, Record, Settings};

fn metrics(c: &mut Criterion) {
    let bench = Bench::new("[[routes]]\nid = \"all\"\nrespond = {}\n");
    let route = bench.metrics.route("all");
    let cells = route.of(0);
    c.bench_function("metrics of a request", |b| {
        b.iter(|| {
            cells.method(black_box(&Method::GET));
            cells.codes.inc(black_box(StatusCode::OK));
            cells
                .duration
                .observe(black_box(Duration::from_micros(730)));
        });
    });
}

fn access_log(c: &mut Criterion) {
    let settings = Settings::new("/dev/null", Path::new("."), 1.0);
    let (logs, writer, _control) = access::open(&settings, 1).expect("it opens");
    weir::server::beside("access-log", move || writer.run()).expect("a thread");
    let address = "192.0.2.1:4711".parse().expect("an address");
    let record = Record {
        route: "all",
        method: "GET",
        scheme: "https",
        host: b"www.example.com",
        path: b"/v1/item",
        query: Some(b"id=4711"),
        status: 200,
        reason: None,
        observed: &[],
        degraded: None,
        duration: Duration::from_micros(730),
        first_byte: Some(Duration::from_micros(700)),
        upstream: Some("app"),
        endpoint: Some(address),
        tries: 1,
        waited: Duration::from_micros(600),
        bytes_in: 0,
        bytes_out: 5120,
        client: address.ip(),
        peer: address,
        protocol: Version::HTTP_11,
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        referer: None,
        client_subject: None,
        request_id: b"0af7651916cd43dd8448eb211c80319c",
        trace_id: None,
    };
    c.bench_function("a line of the access log", |b| {
        b.iter(|| logs[0].log(black_box(&record)))
    });
}

fn policy(c: &mut Criterion) {
    let mut answer = HeaderMap::new();
    for (name, value) in [
        (
            "cache-control",
            "public, max-age=300, s-maxage=600, stale-while-revalidate=30",
        ),
        ("date", "Wed, 25 Nov 2026 12:00:00 GMT"),
        ("last-modified", "Mon, 23 Nov 2026 08:15:00 GMT"),
        ("etag", "\"5e8-61b3\""),
        ("vary", "accept-encoding"),
    ] {
        answer.insert(name, HeaderValue::from_static(value));
    }
    c.bench_function("the cache directives of an answer", |b| {
        b.iter(|| Stated::read(black_box(&answer)));
    });
    let asked = fields();
    c.bench_function("the cache directives of a request", |b| {
        b.iter(|| Asked::read(black_box(&asked)));
    });
}

fn cache(c: &mut Criterion) {
    let bench = Bench::new("[[routes]]\nid = \"all\"\nrespond = {}\n");
    let store = Arc::new(Store::new(64 << 20, Arc::default()));
    let plan = KeyPlan::compile("all", None, None, &mut Problems::new()).expect("a plan");
    let request = bench.request("/v1/item?id=4711");
    c.bench_function("the cache key of a request", |b| {
        b.iter(|| plan.of(black_box(&request), "https", &store.secrets));
    });
    let key = plan.of(&request, "https", &store.secrets);
    c.bench_function("a look-up in the cache that finds nothing", |b| {
        b.iter(|| {
            store
                .find(black_box(&key), request.headers())
                .entry
                .is_none()
        });
    });
}

criterion_group!(benches, metrics, access_log, policy, cache);
criterion_main!(benches);
