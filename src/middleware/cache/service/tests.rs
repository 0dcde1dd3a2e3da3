//! The way of a request, over an origin that is a function: what no real one can be made to do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::Notify;
use tower::ServiceExt as _;

use super::*;
use crate::message::{Conn, sketch::Sketch};
use crate::middleware::cache::CacheConfig;
use crate::problem::Problems;
use crate::telemetry::handles::Metrics;

/// A desk before nothing yet, over a store that somebody looks after.
fn desk(section: &str) -> Arc<Desk> {
    let config: CacheConfig = toml::from_str(section).expect("a section");
    let plan = config.compile("r", Duration::ZERO, &mut Problems::new());
    let (metrics, chance) = (Metrics::new(1), Arc::new(Chance::seeded(1)));
    let store = Arc::new(Store::new(64 << 20, metrics.cache.clone()));
    tokio::spawn(Arc::clone(&store).housekeeping());
    let cache = RouteCache {
        plan: Arc::new(plan.expect("a plan")),
        store,
    };
    Arc::new(Desk::new(&cache, "weir", metrics.route("r"), 0, chance))
}

fn request() -> Request {
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let conn = Arc::new(Conn::new("web".into(), peer, peer, false, None));
    let (id, now) = (HeaderValue::from_static("id"), clock::now());
    let exchange = Exchange::new(conn, now, peer.ip(), id, Sketch::default(), Duration::MAX);
    let mut request = Box::new(http::Request::new(Body::empty()));
    *request.uri_mut() = "/".parse().expect("a target");
    let host = HeaderValue::from_static("t.test");
    request.headers_mut().insert(header::HOST, host);
    request.extensions_mut().insert(Arc::new(exchange));
    request
}

fn good(body: &'static str) -> Response {
    let mut response = Box::new(http::Response::new(Body::from(body.to_owned())));
    let fresh = HeaderValue::from_static("max-age=60");
    response.headers_mut().insert(header::CACHE_CONTROL, fresh);
    response
}

#[allow(clippy::disallowed_methods, reason = "a body of our own making")]
async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.expect("a body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

#[tokio::test]
async fn a_panic_in_a_fetch_is_the_leaders_alone_and_who_waits_goes_alone() {
    let (desk, calls) = (desk(""), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    let origin = tower::service_fn(move |_| {
        let call = counted.fetch_add(1, SeqCst);
        async move {
            tokio::task::yield_now().await;
            assert!(call > 0, "a bug");
            Ok(good("well"))
        }
    });
    let cache = CacheLayer::new(desk).layer(origin);
    let leader = tokio::spawn(cache.clone().oneshot(request()));
    let waiter = tokio::spawn(cache.clone().oneshot(request()));
    let failed = leader.await.expect("contained").expect_err("no answer");
    assert_eq!(failed.reason(), Reason::Panic);
    let answer = waiter.await.expect("contained").expect("an answer");
    assert_eq!(
        answer.headers()["cache-status"],
        "weir; fwd=uri-miss; collapsed=?0"
    );
    assert_eq!(text(answer).await, "well");
    let again = cache.oneshot(request()).await.expect("an answer");
    assert_eq!(text(again).await, "well");
    assert_eq!(calls.load(SeqCst), 3);
}

#[tokio::test]
async fn a_hit_is_there_at_once_and_is_not_the_origins() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let origin = tower::service_fn(move |_| {
        counted.fetch_add(1, SeqCst);
        std::future::ready(Ok(good("stored")))
    });
    let mut cache = CacheLayer::new(desk("")).layer(origin);
    let first = cache.call(request()).await.expect("an answer");
    assert_eq!(text(first).await, "stored");
    let Either::Left(hit) = cache.call(request()) else {
        panic!("it takes its time");
    };
    let hit = hit.await.expect("an answer");
    assert_eq!(hit.headers()["age"], "0");
    assert_eq!(
        (text(hit).await.as_str(), calls.load(SeqCst)),
        ("stored", 1)
    );
}

#[tokio::test(start_paused = true)]
async fn i27_a_failing_origin_is_asked_once_in_a_cool_down() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let origin = tower::service_fn(move |_| {
        let mut response = good("good");
        if counted.fetch_add(1, SeqCst) > 0 {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().clear();
        }
        std::future::ready(Ok(response))
    });
    let section = "error_cool_down = '10s'\nstale_if_error = '1d'";
    let cache = CacheLayer::new(desk(section)).layer(origin);
    let ask = || async { text(cache.clone().oneshot(request()).await.expect("an answer")).await };
    assert_eq!(ask().await, "good");
    tokio::time::advance(Duration::from_secs(61)).await;
    // A hundred seconds of failure, ten requests in each: 10, 20, 40 and then 80 seconds of peace.
    for _ in 0..1_000 {
        assert_eq!(ask().await, "good");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let probes = calls.load(SeqCst) - 1;
    assert!((3..=5).contains(&probes), "{probes} probes");
}

#[tokio::test]
async fn i28_a_body_that_is_too_large_at_once_still_reaches_who_asked_first() {
    let origin = tower::service_fn(|_| {
        let pieces = (0..64).map(|_| {
            Ok(http_body::Frame::data(bytes::Bytes::from_static(
                b"0123456789",
            )))
        });
        let body = http_body_util::StreamBody::new(Pieces(pieces.collect()));
        std::future::ready(Ok(crate::message::map_body(good(""), |_| Body::wrap(body))))
    });
    let cache = CacheLayer::new(desk("max_object = '64B'")).layer(origin);
    for _ in 0..2 {
        let answer = cache.clone().oneshot(request()).await.expect("an answer");
        assert_eq!(text(answer).await, "0123456789".repeat(64));
    }
}

type Piece = Result<http_body::Frame<bytes::Bytes>, GatewayError>;

/// Pieces that are all there.
struct Pieces(std::collections::VecDeque<Piece>);

impl futures_util::Stream for Pieces {
    type Item = Piece;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Piece>> {
        Poll::Ready(self.0.pop_front())
    }
}

/// An answer to POST that is what is at this place now, for a minute.
fn posted(at: &'static str, body: &'static str) -> Response {
    let mut response = good(body);
    let at = HeaderValue::from_static(at);
    response.headers_mut().insert(header::CONTENT_LOCATION, at);
    response
}

fn post() -> Request {
    let mut request = request();
    *request.method_mut() = Method::POST;
    request
}

type Origin = tower::util::BoxCloneSyncService<Request, Response, GatewayError>;

/// Answers POST so, and everything else with "got".
fn origin(to_post: fn() -> Response) -> Origin {
    Origin::new(tower::service_fn(move |request: Request| async move {
        Ok(match *request.method() {
            Method::POST => to_post(),
            _ => good("got"),
        })
    }))
}

async fn sent(cache: &Cache<Origin>, request: Request) -> (String, String) {
    let answer = cache.clone().oneshot(request).await.expect("an answer");
    let status = answer.headers()["cache-status"].to_str().expect("text");
    (status.to_owned(), text(answer).await)
}

#[tokio::test]
async fn rfc9110_9_3_3_a_posted_answer_that_is_at_the_target_is_stored_for_get() {
    let ways: [fn() -> Response; 3] = [
        || posted("/", "posted"),
        || posted("http://t.test/", "posted"),
        || posted("", "posted"),
    ];
    for way in ways {
        let cache = CacheLayer::new(desk("")).layer(origin(way));
        let (status, body) = sent(&cache, post()).await;
        assert_eq!(status, "weir; fwd=method; stored");
        assert_eq!(body, "posted");
        let (status, body) = sent(&cache, request()).await;
        assert!(status.starts_with("weir; hit"), "{status}");
        assert_eq!(body, "posted");
    }
}

#[tokio::test]
async fn rfc9110_9_3_3_a_posted_answer_replaces_what_was_stored_before() {
    let cache = CacheLayer::new(desk("")).layer(origin(|| posted("/", "posted")));
    assert_eq!(sent(&cache, request()).await.1, "got");
    sent(&cache, post()).await;
    assert_eq!(sent(&cache, request()).await.1, "posted");
}

#[tokio::test]
async fn rfc9110_9_3_3_no_other_posted_answer_is_stored() {
    fn bare(name: &str) -> Response {
        let mut response = posted("/", "posted");
        response.headers_mut().remove(name);
        response
    }
    let answers: [fn() -> Response; 5] = [
        || posted("/other", "posted"),
        || posted("http://else.test/", "posted"),
        || bare("content-location"),
        || bare("cache-control"),
        || {
            let mut response = posted("/", "posted");
            *response.status_mut() = StatusCode::CREATED;
            response
        },
    ];
    for answer in answers {
        let cache = CacheLayer::new(desk("")).layer(origin(answer));
        let (status, body) = sent(&cache, post()).await;
        assert_eq!((&*status, &*body), ("weir; fwd=method", "posted"));
        assert_eq!(sent(&cache, request()).await.1, "got");
    }
}

#[tokio::test]
async fn a_posted_answer_is_not_stored_where_the_target_was_changed_while_it_was_under_way() {
    let (go, wait) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (gate, begun) = (Arc::clone(&go), Arc::clone(&wait));
    let slow = tower::service_fn(move |request: Request| {
        let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
        async move {
            if *request.method() == Method::POST {
                begun.notify_one();
                gate.notified().await;
                return Ok(posted("/", "posted"));
            }
            Ok(good("got"))
        }
    });
    let cache = CacheLayer::new(desk("")).layer(Origin::new(slow));
    let first = tokio::spawn({
        let cache = cache.clone();
        async move { sent(&cache, post()).await }
    });
    wait.notified().await;
    let mut delete = request();
    *delete.method_mut() = Method::DELETE;
    sent(&cache, delete).await;
    go.notify_one();
    let (status, body) = first.await.expect("a task");
    assert_eq!((&*status, &*body), ("weir; fwd=method", "posted"));
    assert_eq!(sent(&cache, request()).await.1, "got");
}
