//! One worker's client against raw sockets: pool, send and retry together.

mod kept;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::config::UpstreamConfig;
use super::*;
use crate::error::GatewayError;
use crate::error::Reason;
use crate::files::Files;
use crate::message::{Body, Conn, Exchange};
use crate::message::{Request, Response};
use crate::problem::{Located, Problems};
use crate::telemetry::handles::{Metrics, RetryDenied};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What an origin does with its `n`th connection, counted from 0.
type Script = fn(usize, TcpStream, Arc<AtomicUsize>) -> tokio::task::JoinHandle<io::Result<()>>;

struct Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

async fn origin(script: Script) -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (connections, requests) = (Arc::default(), Arc::default());
    let (count, seen): (Arc<AtomicUsize>, _) = (Arc::clone(&connections), Arc::clone(&requests));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            script(count.fetch_add(1, SeqCst), socket, Arc::clone(&seen));
        }
    });
    Origin {
        address,
        connections,
        requests,
    }
}

/// Reads to the end of a request's head; `false` at the end of the stream.
async fn head(socket: &mut TcpStream) -> io::Result<bool> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if socket.read(&mut byte).await? == 0 {
            return Ok(false);
        }
        seen.push(byte[0]);
    }
    Ok(true)
}

fn answer_always(
    _: usize,
    mut socket: TcpStream,
    seen: Arc<AtomicUsize>,
) -> tokio::task::JoinHandle<io::Result<()>> {
    tokio::spawn(async move {
        while head(&mut socket).await? {
            seen.fetch_add(1, SeqCst);
            socket.write_all(OK).await?;
        }
        Ok(())
    })
}

/// Answers the first request of each connection and closes at the second.
fn close_at_the_second(
    _: usize,
    mut socket: TcpStream,
    seen: Arc<AtomicUsize>,
) -> tokio::task::JoinHandle<io::Result<()>> {
    tokio::spawn(async move {
        head(&mut socket).await?;
        seen.fetch_add(1, SeqCst);
        socket.write_all(OK).await?;
        head(&mut socket).await?;
        seen.fetch_add(1, SeqCst);
        Ok(())
    })
}

fn answer_with(
    socket: TcpStream,
    answer: &'static [u8],
) -> tokio::task::JoinHandle<io::Result<()>> {
    let mut socket = socket;
    tokio::spawn(async move {
        while head(&mut socket).await? {
            socket.write_all(answer).await?;
        }
        Ok(())
    })
}

struct Bench {
    client: BoxCloneSyncService<Request, Response, GatewayError>,
    upstream: Arc<Upstream>,
    pools: Arc<WorkerPools>,
    metrics: Arc<UpstreamMetrics>,
}

fn bench(addresses: &[SocketAddr], more: &str) -> Bench {
    let metrics = Metrics::new(1).upstream("app");
    let upstream = compiled(addresses, more, &metrics, None).expect("compiles");
    Bench::new(upstream, Arc::new(WorkerPools::new(0)), metrics)
}

fn compiled(
    addresses: &[SocketAddr],
    more: &str,
    metrics: &Arc<UpstreamMetrics>,
    previous: Option<&Arc<Upstream>>,
) -> Option<Upstream> {
    let list: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
    let text = format!("endpoints = [{}]\n{more}", list.join(", "));
    let config: UpstreamConfig = toml::from_str(&text).expect("a section");
    let name = Located::unstated("app".to_owned());
    let (files, metrics) = (Files::default(), Arc::clone(metrics));
    let mut problems = Problems::new();
    Upstream::compile(
        &name,
        &config,
        None,
        &files,
        metrics,
        previous,
        &mut problems,
    )
}

fn exchange() -> Arc<Exchange> {
    let anyone = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    let conn = Arc::new(Conn::new("test".into(), anyone, anyone, false, None));
    let id = HeaderValue::from_static("test");
    let (now, timeout) = (crate::clock::now(), std::time::Duration::from_secs(30));
    let sketch = crate::message::sketch::Sketch::default();
    Arc::new(Exchange::new(conn, now, anyone.ip(), id, sketch, timeout))
}

fn request(method: Method, body: Body) -> Request {
    let mut request = Box::new(http::Request::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = "/".parse().expect("a path");
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("app"));
    request.extensions_mut().insert(exchange());
    request
}

impl Bench {
    fn new(upstream: Upstream, pools: Arc<WorkerPools>, metrics: Arc<UpstreamMetrics>) -> Self {
        let upstream = Arc::new(upstream);
        Bench {
            client: BoxCloneSyncService::new(client(&upstream, &pools, |send| send)),
            upstream,
            pools,
            metrics,
        }
    }

    async fn send(&self, request: Request) -> Result<Response, GatewayError> {
        self.client.clone().oneshot(request).await
    }

    async fn get(&self) -> Result<(StatusCode, Bytes), GatewayError> {
        let response = self.send(request(Method::GET, Body::empty())).await?;
        let status = response.status();
        let body = response.into_body().collect().await?;
        Ok((status, body.to_bytes()))
    }
}

/// A stream of unknown length; `ends`: false, it stays open.
struct Pieces {
    left: std::collections::VecDeque<Bytes>,
    ends: bool,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, GatewayError>>> {
        match self.left.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(http_body::Frame::data(piece)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn stream(piece: &'static [u8], ends: bool) -> Body {
    let left = [Bytes::from_static(piece)].into();
    Body::wrap(Pieces { left, ends })
}

/// An address where nothing listens.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound")
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let origin = origin(answer_always).await;
    let bench = bench(&[origin.address], "");
    for _ in 0..50 {
        let (status, body) = bench.get().await.expect("an answer");
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"ok"[..]));
    }
    assert_eq!(origin.connections.load(SeqCst), 1);
    assert_eq!(bench.metrics.of(0).checkouts_idle.get(), 49);
    assert_eq!(bench.metrics.of(0).in_flight.get(), 0);
    assert_eq!(bench.metrics.of(0).pool_idle.get(), 1);
    assert_eq!(bench.metrics.of(0).pool_active.get(), 0);
}

#[tokio::test]
async fn e25_a_get_on_a_connection_that_closes_goes_out_again_on_a_fresh_one() {
    let origin = origin(close_at_the_second).await;
    let bench = bench(&[origin.address], "");
    for _ in 0..40 {
        assert_eq!(bench.get().await.expect("an answer").0, StatusCode::OK);
    }
    assert!(bench.metrics.of(0).retries_success.get() >= 35);
    assert_eq!(bench.metrics.of(0).ejections.get(), 0);
}

#[tokio::test]
async fn m02_a_post_that_may_have_been_seen_is_never_sent_twice() {
    let origin = origin(close_at_the_second).await;
    let bench = bench(&[origin.address], "");
    bench.get().await.expect("an answer");
    let sent = bench
        .send(request(Method::POST, stream(b"once", true)))
        .await;
    assert_eq!(
        sent.expect_err("closed").reason(),
        Reason::ConnectionTerminated
    );
    assert_eq!(origin.requests.load(SeqCst), 2);
    let denied = &bench.metrics.of(0).retries_denied;
    assert_eq!(denied[RetryDenied::Method as usize].get(), 1);
}

#[tokio::test]
async fn m19_a_refused_connection_means_the_next_endpoint_also_for_a_streamed_post() {
    let origin = origin(answer_always).await;
    let bench = bench(
        &[nowhere().await, origin.address],
        "balance = \"round_robin\"",
    );
    for _ in 0..6 {
        let post = request(Method::POST, stream(b"once", true));
        let response = bench.send(post).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert!(bench.metrics.of(0).failed.get(Reason::ConnectionRefused) > 0);
}

#[tokio::test]
async fn a_refused_connection_everywhere_is_an_error() {
    let bench = bench(&[nowhere().await], "");
    let error = bench.get().await.expect_err("refused");
    assert_eq!(error.reason(), Reason::ConnectionRefused);
    let denied = &bench.metrics.of(0).retries_denied;
    assert_eq!(denied[RetryDenied::Attempts as usize].get(), 1);
}

#[tokio::test]
async fn e01_a_truncated_answer_is_an_error_and_its_connection_is_gone() {
    let origin = origin(|_, mut socket, _| {
        tokio::spawn(async move {
            head(&mut socket).await?;
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
                .await
        })
    })
    .await;
    let bench = bench(&[origin.address], "");
    let error = bench.get().await.expect_err("truncated");
    assert_eq!(error.reason(), Reason::HttpResponseIncomplete);
    assert_eq!(bench.metrics.of(0).pool_idle.get(), 0);
}

#[tokio::test]
async fn e04_bytes_after_an_answer_never_reach_the_next_request() {
    let origin = origin(|_, socket, _| {
        answer_with(
            socket,
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        )
    })
    .await;
    let bench = bench(&[origin.address], "");
    for _ in 0..5 {
        assert_eq!(&bench.get().await.expect("an answer").1[..], b"ok");
    }
    assert_eq!(origin.connections.load(SeqCst), 5);
}

#[tokio::test]
async fn e06_length_and_chunks_together_are_read_as_chunks_and_the_connection_ends() {
    let origin = origin(|_, socket, _| {
        answer_with(
            socket,
            b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        )
    })
    .await;
    let bench = bench(&[origin.address], "");
    for _ in 0..2 {
        let response = bench.send(request(Method::GET, Body::empty())).await;
        let response = response.expect("an answer");
        assert!(!response.headers().contains_key("content-length"));
        let body = response.into_body().collect().await.expect("whole");
        assert_eq!(&body.to_bytes()[..], b"ok");
    }
    assert_eq!(origin.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn answers_that_break_the_rules_are_refused_by_their_reason() {
    let cases: [(Script, Reason); 3] = [
        (
            |_, socket, _| {
                answer_with(
                    socket,
                    b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                )
            },
            Reason::HttpProtocolError,
        ),
        (
            |_, socket, _| {
                answer_with(
                    socket,
                    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
                )
            },
            Reason::HttpUpgradeFailed,
        ),
        (
            |_, socket, _| answer_with(socket, b"ICY 200 OK\r\n\r\n"),
            Reason::HttpProtocolError,
        ),
    ];
    for (script, reason) in cases {
        let origin = origin(script).await;
        let error = bench(&[origin.address], "")
            .get()
            .await
            .expect_err("refused");
        assert_eq!(error.reason(), reason);
    }
}

#[tokio::test]
async fn e19_an_early_answer_is_passed_on_and_its_connection_is_not_used_again() {
    let origin = origin(answer_always).await;
    let bench = bench(&[origin.address], "");
    let post = request(Method::POST, stream(b"a beginning", false));
    let response = bench.send(post).await.expect("an early answer");
    response.into_body().collect().await.expect("whole");
    assert_eq!(bench.metrics.of(0).pool_idle.get(), 0);
    bench.get().await.expect("an answer");
    assert_eq!(origin.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn m17_above_the_caps_a_request_is_refused_at_once_or_waits_for_its_turn() {
    let origin = origin(answer_always).await;
    let none = "pool = { max_connections = 1, max_pending = 0 }";
    let refusing = bench(&[origin.address], none);
    let held = refusing.send(request(Method::GET, Body::empty())).await;
    let held = held.expect("an answer");
    let error = refusing.get().await.expect_err("no place");
    assert_eq!(error.reason(), Reason::ConnectionLimitReached);
    drop(held);

    let one = "pool = { max_connections = 1, max_pending = 1 }";
    let waiting = bench(&[origin.address], one);
    let held = waiting.send(request(Method::GET, Body::empty())).await;
    let held = held.expect("an answer").into_body();
    let (next, _) = tokio::join!(waiting.get(), async {
        tokio::task::yield_now().await;
        held.collect().await
    });
    assert_eq!(next.expect("its turn").0, StatusCode::OK);
}

#[tokio::test]
async fn a_status_that_the_config_names_is_tried_elsewhere_and_only_for_safe_methods() {
    let bad =
        origin(|_, socket, _| answer_with(socket, b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"))
            .await;
    let good = origin(answer_always).await;
    let more = "balance = \"round_robin\"\neject = false\nretry = { on = [\"503\"] }";
    let bench = bench(&[bad.address, good.address], more);
    for _ in 0..8 {
        assert_eq!(bench.get().await.expect("an answer").0, StatusCode::OK);
    }
    let mut refused = 0;
    for _ in 0..4 {
        let post = request(Method::POST, Body::empty());
        let response = bench.send(post).await.expect("an answer");
        refused += usize::from(response.status() == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(refused >= 1, "a POST is answered as it was");
}

#[tokio::test]
async fn e16_silence_before_the_headers_is_a_first_byte_timeout() {
    let origin = origin(|_, mut socket, _| {
        tokio::spawn(async move {
            while head(&mut socket).await? {}
            Ok(())
        })
    })
    .await;
    let bench = bench(&[origin.address], "timeouts = { first_byte = \"20ms\" }");
    let error = bench.get().await.expect_err("silence");
    assert_eq!(error.reason(), Reason::FirstByteTimeout);
}

#[tokio::test]
async fn e16_silence_within_a_body_is_a_read_timeout() {
    let origin = origin(|_, socket, _| {
        answer_with(socket, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    })
    .await;
    let bench = bench(&[origin.address], "timeouts = { idle = \"20ms\" }");
    let error = bench.get().await.expect_err("silence");
    assert_eq!(error.reason(), Reason::ConnectionReadTimeout);
}

#[tokio::test]
async fn an_endpoint_that_fails_in_a_row_is_ejected_and_others_are_asked() {
    let good = origin(answer_always).await;
    let more = "balance = \"round_robin\"\neject = { consecutive = 2 }";
    let bench = bench(&[nowhere().await, good.address], more);
    for _ in 0..12 {
        bench.get().await.expect("an answer");
    }
    assert_eq!(bench.metrics.of(0).ejections.get(), 1);
    assert_eq!(bench.metrics.of(0).failed.get(Reason::ConnectionRefused), 2);
    let status = bench.upstream.status(crate::clock::now());
    let states: Vec<_> = status.endpoints.iter().map(|e| e.state).collect();
    assert_eq!(states, ["ejected", "healthy"]);
}

#[tokio::test]
async fn a_reload_keeps_standings_and_connections_of_what_did_not_change() {
    let origin = origin(answer_always).await;
    let old = bench(&[origin.address], "");
    old.get().await.expect("an answer");
    let now = crate::clock::now();
    let set = old.upstream.live.set();
    set.endpoints[0].standing.set_unhealthy(true, now);
    let more = "timeouts = { connect = \"2s\" }";
    let new = compiled(&[origin.address], more, &old.metrics, Some(&old.upstream));
    let new = Bench::new(new.expect("compiles"), old.pools, old.metrics);
    assert!(new.upstream.live.set().endpoints[0].standing.is_unhealthy());
    new.get().await.expect("panic mode still asks it");
    assert_eq!(origin.connections.load(SeqCst), 1);
    new.pools.housekeep(now, &BTreeMap::new());
    assert_eq!(new.metrics.of(0).pool_idle.get(), 0);
}

#[tokio::test]
async fn a_hash_by_header_keeps_to_one_endpoint() {
    let (one, two) = (origin(answer_always).await, origin(answer_always).await);
    let bench = bench(
        &[one.address, two.address],
        "balance = \"hash:header:x-user\"",
    );
    for _ in 0..20 {
        let mut get = request(Method::GET, Body::empty());
        let user = HeaderValue::from_static("ann");
        get.headers_mut().insert("x-user", user);
        let response = bench.send(get).await.expect("an answer");
        response.into_body().collect().await.expect("whole");
    }
    let (a, b) = (one.requests.load(SeqCst), two.requests.load(SeqCst));
    assert_eq!((a.min(b), a.max(b)), (0, 20));
}

fn serve_h2(
    _: usize,
    socket: TcpStream,
    _: Arc<AtomicUsize>,
) -> tokio::task::JoinHandle<io::Result<()>> {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    tokio::spawn(async move {
        let service = hyper::service::service_fn(|request: http::Request<_>| async move {
            let authority = request.uri().authority().map(ToString::to_string);
            drop::<hyper::body::Incoming>(request.into_body());
            let body = Body::from(authority.unwrap_or_default());
            Ok::<_, GatewayError>(http::Response::new(body))
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(1)
            .serve_connection(TokioIo::new(socket), service)
            .await
            .map_err(io::Error::other)
    })
}

#[tokio::test]
async fn m21_h2_shares_a_connection_and_opens_another_when_its_streams_are_used_up() {
    let origin = origin(serve_h2).await;
    let bench = bench(&[origin.address], "protocol = \"h2\"");
    for _ in 0..5 {
        assert_eq!(&bench.get().await.expect("an answer").1[..], b"app");
    }
    assert_eq!(origin.connections.load(SeqCst), 1);
    let held = bench.send(request(Method::GET, Body::empty())).await;
    let held = held.expect("an answer");
    bench.get().await.expect("on another connection");
    assert_eq!(origin.connections.load(SeqCst), 2);
    drop(held);
}

#[test]
fn every_problem_of_a_section_is_reported() {
    let text = "endpoints = [{ address = \"a:1\", weight = 0 }]\n\
        panic_threshold = 101\nresolve_interval = \"10ms\"\n\
        retry = { attempts = 11, budget = 2.0 }\npool = { max_connections = 0 }";
    let config: UpstreamConfig = toml::from_str(text).expect("a section");
    let name = Located::unstated("app".to_owned());
    let metrics = Metrics::new(1).upstream("app");
    let mut problems = Problems::new();
    let files = Files::default();
    let none = Upstream::compile(&name, &config, None, &files, metrics, None, &mut problems);
    assert!(none.is_none());
    assert_eq!(problems.len(), 6, "{problems:?}");
}

#[tokio::test]
async fn many_h2_requests_at_once_share_what_is_being_opened_and_none_hangs() {
    let origin = origin(serve_h2).await;
    let bench = Arc::new(bench(&[origin.address], "protocol = \"h2\""));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let bench = Arc::clone(&bench);
        tasks.spawn(async move { bench.get().await.expect("an answer").0 });
    }
    assert!(tasks.join_all().await.iter().all(|s| *s == StatusCode::OK));
    assert!(origin.connections.load(SeqCst) <= 40);
    let cells = bench.metrics.of(0);
    assert_eq!((cells.in_flight.get(), cells.pool_waiting.get()), (0, 0));
    assert_eq!(
        (cells.pool_active.get(), cells.pool_connecting.get()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_failing_check_takes_an_endpoint_out_and_a_good_one_brings_it_back() {
    let origin = origin(|n, socket, _| {
        let bad: &[u8] = b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n";
        answer_with(socket, if n < 1 { bad } else { OK })
    })
    .await;
    let health = "health = { path = \"/\", interval = \"100ms\", rise = 1, fall = 1 }";
    let bench = bench(&[origin.address], health);
    let checks = tokio::spawn(bench.upstream.housekeeping());
    let standing = Arc::clone(&bench.upstream.live.set().endpoints[0].standing);
    for wanted in [true, false] {
        while standing.is_unhealthy() != wanted {
            tokio::task::yield_now().await;
        }
    }
    checks.abort();
    assert!(bench.metrics.control().checks_pass.get() >= 1);
}

#[tokio::test]
async fn a_name_is_resolved_and_unknown_ones_have_no_endpoint_until_then() {
    let text = "endpoints = [\"localhost:80\"]";
    let config: UpstreamConfig = toml::from_str(text).expect("a section");
    let name = Located::unstated("app".to_owned());
    let metrics = Metrics::new(1).upstream("app");
    let (files, mut problems) = (Files::default(), Problems::new());
    let upstream = Upstream::compile(&name, &config, None, &files, metrics, None, &mut problems);
    let upstream = upstream.expect("compiles");
    let state = || upstream.status(crate::clock::now()).endpoints[0].state;
    assert_eq!(state(), "unresolved");
    upstream.resolve_once().await;
    assert_eq!(state(), "healthy");
}

#[tokio::test]
async fn e25_connections_that_close_right_after_an_answer_cost_no_get_its_answer() {
    let origin = origin(|_, mut socket, _| {
        tokio::spawn(async move {
            head(&mut socket).await?;
            socket.write_all(OK).await
        })
    })
    .await;
    let bench = bench(&[origin.address], "retry = { budget = 0.0 }");
    for _ in 0..500 {
        assert_eq!(bench.get().await.expect("an answer").0, StatusCode::OK);
    }
}
