//! Caps over a mock service.

use std::time::Duration;

use tower::ServiceExt;

use super::*;
use crate::gate::config::RouteConcurrency;
use crate::problem::Problems;
use crate::telemetry::handles::Metrics;

/// A layer by this section, and its caps.
fn layer(text: &str) -> (ConcurrencyLayer, Caps, Arc<RouteMetrics>) {
    #[derive(serde::Deserialize)]
    struct Section {
        concurrency: RouteConcurrency,
    }
    let section: Section = toml::from_str(&format!("concurrency = {text}")).expect("a section");
    let mut problems = Problems::new();
    section.concurrency.check(&mut problems);
    let caps = Caps::compile("r", section.concurrency.caps(), None, &mut problems);
    assert!(problems.is_empty());
    let metrics = Metrics::new(1).route("r");
    (
        ConcurrencyLayer::of_route(&caps, metrics.clone(), 0),
        caps,
        metrics,
    )
}

fn inside(caps: &Caps) -> u64 {
    caps.standing().iter().map(|cap| cap.in_flight).sum()
}

fn request() -> Request {
    Box::new(http::Request::new(Body::empty()))
}

/// A body that does not end by itself.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = GatewayError;
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        Poll::Pending
    }
}

async fn endless(_: Request) -> Result<Response, GatewayError> {
    Ok(Box::new(http::Response::new(Body::wrap(Endless))))
}

#[tokio::test(start_paused = true)]
async fn a_place_lasts_as_long_as_the_body_and_the_next_is_refused_by_name() {
    let (layer, caps, _) = layer("{ max = 1 }");
    let service = layer.layer(tower::service_fn(endless));
    let first = service.clone().oneshot(request()).await.expect("let in");
    assert_eq!(inside(&caps), 1);
    let refused = service.clone().oneshot(request()).await.expect_err("full");
    assert_eq!(refused.reason(), Reason::QueueFull);
    assert_eq!(&*refused.policies()[0], "r.concurrency");
    drop(first);
    assert_eq!(inside(&caps), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_an_empty_body_and_a_dropped_future_give_the_place_back() {
    let (layer, caps, _) = layer("{ max = 1 }");
    let fails = tower::service_fn(|_: Request| async {
        Err::<Response, GatewayError>(Reason::ConnectionRefused.into())
    });
    let error = layer.clone().layer(fails).oneshot(request()).await;
    assert_eq!(
        error.expect_err("passed on").reason(),
        Reason::ConnectionRefused
    );
    assert_eq!(inside(&caps), 0);
    let empty =
        tower::service_fn(|_: Request| async { Ok(Box::new(http::Response::new(Body::empty()))) });
    let answer = layer.clone().layer(empty).oneshot(request()).await;
    assert_eq!(inside(&caps), 0);
    drop(answer);
    let never = tower::service_fn(|_: Request| std::future::pending());
    let mut never = layer.layer(never);
    let pending: ConcurrencyFuture<std::future::Pending<_>> = never.call(request());
    assert_eq!(inside(&caps), 1);
    drop(pending);
    assert_eq!(inside(&caps), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_counted_and_goes_in_when_a_place_is_given_back() {
    let (layer, caps, metrics) = layer("{ max = 1, queue = 1, queue_timeout = '1s' }");
    let service = layer.layer(tower::service_fn(endless));
    let first = service.clone().oneshot(request()).await.expect("let in");
    let second = tokio::spawn(service.clone().oneshot(request()));
    tokio::task::yield_now().await;
    let cells = metrics.of(0);
    assert_eq!(cells.queue_waiting.get(), 1);
    assert!(
        service.clone().oneshot(request()).await.is_err(),
        "the queue is full"
    );
    tokio::time::advance(Duration::from_millis(500)).await;
    drop(first);
    let second = second.await.expect("no panic").expect("in turn");
    assert_eq!((cells.queue_waiting.get(), inside(&caps)), (0, 1));
    assert_eq!(cells.queue_wait.counts().sum::<u64>(), 1);
    let late = service
        .oneshot(request())
        .await
        .expect_err("a second passed");
    assert_eq!(late.reason(), Reason::QueueFull);
    drop(second);
    assert_eq!(inside(&caps), 0);
}
