//! Each step alone, in its order, and what it must never do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize as _;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::*;
use crate::error::{GatewayError, Reason};
use crate::message::sketch::Sketch;
use crate::message::{Body, Conn, Exchange, Request, Response};

type Way = BoxCloneSyncService<Request, Response, GatewayError>;

fn compile(text: &str, stores: bool) -> (Option<Ladder<String>>, Vec<String>) {
    #[derive(serde::Deserialize)]
    struct Section {
        fallback: Located<Vec<FallbackConfig>>,
    }
    let section = Section::deserialize(toml::Deserializer::parse(text).expect("TOML"));
    let section = section.expect("a section");
    let mut problems = Problems::new();
    let upstream = |name: &Located<String>| Some(name.value.clone());
    let files = Files::default();
    let ladder = Ladder::compile(&section.fallback, stores, upstream, &files, &mut problems);
    let messages = problems.into_iter().map(|p| p.message).collect();
    (ladder, messages)
}

fn request(method: Method, body: Body) -> Request {
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let conn = Arc::new(Conn::new("web".into(), peer, peer, false, None));
    let id = HeaderValue::from_static("id");
    let (now, timeout) = (crate::clock::now(), Duration::from_secs(1));
    let exchange = Exchange::new(conn, now, peer.ip(), id, Sketch::default(), timeout);
    let mut request = Box::new(http::Request::new(body));
    *request.method_mut() = method;
    request.extensions_mut().insert(Arc::new(exchange));
    request
}

/// Asks through a ladder, above a service that fails as `fail` says; every other upstream answers
/// with the body it was sent, or 500 if it is named "bad".
async fn ask(
    ladder: &str,
    request: Request,
    fail: impl Fn() -> Result<Response, GatewayError> + Clone + Send + Sync + 'static,
) -> Result<Response, GatewayError> {
    let (ladder, problems) = compile(&format!("fallback = {ladder}"), true);
    assert_eq!(problems, [] as [String; 0]);
    let ladder = ladder.expect("compiles").map(|name| -> Way {
        let status = if name == "bad" { 500 } else { 200 };
        Way::new(service_fn(move |request: Request| async move {
            let mut response = Box::new(http::Response::new(request.into_body()));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            Ok(response)
        }))
    });
    let guide = Guide {
        ladder,
        stale: None,
        identity: "weir".into(),
    };
    let inner = service_fn(move |request: Request| {
        let fail = fail.clone();
        async move {
            if let Some(exchange) = crate::message::exchange::of(&request) {
                exchange.note(|notes| notes.upstream = Some("app".into()));
                exchange.note(|notes| notes.endpoint = Some(([127, 0, 0, 1], 9).into()));
            }
            #[allow(clippy::disallowed_methods, reason = "a body of our own making")]
            drop(request.into_body().collect().await);
            fail()
        }
    });
    FallbackLayer::new(guide)
        .layer(inner)
        .oneshot(request)
        .await
}

async fn text(response: Response) -> String {
    #[allow(clippy::disallowed_methods, reason = "a body of our own making")]
    let body = response.into_body().collect().await.expect("a body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

fn degraded(response: &Response) -> &str {
    let value = response.headers().get("weir-degraded");
    value.and_then(|v| v.to_str().ok()).unwrap_or("")
}

const FIXED: &str = "{ respond = { status = 203, body = 'sorry' } }";

#[tokio::test]
async fn a_good_answer_and_what_the_client_did_pass_untouched() {
    let ladder = format!("[{FIXED}]");
    let get = || request(Method::GET, Body::empty());
    let good = ask(&ladder, get(), || Ok(Response::default())).await;
    assert_eq!(degraded(&good.expect("an answer")), "");
    let bad = ask(&ladder, get(), || Err(Reason::BadRequest.into())).await;
    assert_eq!(bad.expect_err("no answer").reason(), Reason::BadRequest);
    let cut = ask(&ladder, get(), || Err(Reason::ClientGone.into())).await;
    assert_eq!(cut.expect_err("no answer").reason(), Reason::ClientGone);
}

#[tokio::test]
async fn every_cause_gets_its_step_and_says_so() {
    for (reason, word, blamed) in [
        (Reason::RateLimited, "limited", "http_request_error"),
        (Reason::QueueFull, "shed", "proxy_internal_response"),
        (
            Reason::BreakerOpen,
            "open",
            "destination_unavailable; next-hop=app",
        ),
        (
            Reason::FirstByteTimeout,
            "timeout",
            "connection_read_timeout; next-hop=app",
        ),
        (
            Reason::ConnectionRefused,
            "error",
            "connection_refused; next-hop=app",
        ),
        (Reason::Panic, "error", "proxy_internal_error"),
    ] {
        let other = "{ respond = { body = 'other' }, on = [";
        let all = ["limited", "shed", "open", "timeout", "error"];
        let others = all
            .iter()
            .filter(|w| **w != word)
            .map(|w| format!("\"{w}\""));
        let others = others.collect::<Vec<_>>().join(", ");
        let ladder = format!("[{other}{others}] }}, {FIXED}]");
        let answer = ask(&ladder, request(Method::GET, Body::empty()), move || {
            Err(reason.into())
        });
        let answer = answer.await.expect("a lesser answer");
        assert_eq!(answer.status(), 203, "{word}");
        assert_eq!(degraded(&answer), format!("reason={word}; step=respond"));
        let proxy_status = answer.headers()["proxy-status"].to_str().expect("text");
        assert_eq!(proxy_status, format!("weir; error={blamed}"));
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(text(answer).await, "sorry");
    }
}

#[tokio::test]
async fn an_upstreams_5xx_is_replaced_and_left_as_it_is_where_no_step_can() {
    let unavailable = || {
        let mut response = Box::new(http::Response::new(Body::from("theirs".to_owned())));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok(response)
    };
    let get = || request(Method::GET, Body::empty());
    let answer = ask(&format!("[{FIXED}]"), get(), unavailable)
        .await
        .expect("an answer");
    assert_eq!(
        answer.headers()["proxy-status"],
        "weir; received-status=503; next-hop=app"
    );
    assert_eq!(text(answer).await, "sorry");
    for ladder in [
        "[{ upstream = 'bad' }]",
        "[{ stale = '1h' }]",
        "[{ respond = {}, on = ['open'] }]",
    ] {
        let answer = ask(ladder, get(), unavailable).await.expect("an answer");
        assert_eq!(
            (answer.status(), degraded(&answer)),
            (StatusCode::SERVICE_UNAVAILABLE, "")
        );
        assert_eq!(text(answer).await, "theirs");
    }
}

#[tokio::test]
async fn another_upstream_gets_the_whole_request_and_only_where_that_is_safe() {
    let ladder = "[{ upstream = 'backup' }]";
    let post = || request(Method::POST, Body::from("all of it".to_owned()));
    let refused = ask(ladder, post(), || Err(Reason::BreakerOpen.into())).await;
    let answer = refused.expect("nobody has seen it");
    assert_eq!(degraded(&answer), "reason=open; step=upstream");
    assert_eq!(text(answer).await, "all of it");
    let timeout = || Err(Reason::FirstByteTimeout.into());
    let error = ask(ladder, post(), timeout)
        .await
        .expect_err("it may have run");
    assert_eq!(error.reason(), Reason::FirstByteTimeout);
    let unsent = || Err(GatewayError::new(Reason::PerTryTimeout).never_sent());
    ask(ladder, post(), unsent)
        .await
        .expect("it cannot have run");
    let put = request(Method::PUT, Body::from("again".to_owned()));
    assert_eq!(
        text(ask(ladder, put, timeout).await.expect("repeatable")).await,
        "again"
    );
}

#[tokio::test]
async fn the_next_step_answers_when_one_cannot() {
    let ladder = format!("[{{ stale = '1h' }}, {{ upstream = 'bad' }}, {FIXED}]");
    let get = request(Method::GET, Body::empty());
    let answer = ask(&ladder, get, || Err(Reason::NoEndpoint.into())).await;
    assert_eq!(
        degraded(&answer.expect("the last step")),
        "reason=open; step=respond"
    );
}

#[tokio::test]
async fn a_panic_below_gets_a_lesser_answer() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let (ladder, get) = (format!("[{FIXED}]"), request(Method::GET, Body::empty()));
    let answer = ask(&ladder, get, move || {
        counted.fetch_add(1, SeqCst);
        panic!("a bug")
    });
    assert_eq!(answer.await.expect("an answer").status(), 203);
    assert_eq!(calls.load(SeqCst), 1);
}

#[tokio::test]
async fn the_fields_of_a_refusal_are_on_the_lesser_answer_too() {
    let limited = || {
        let left = HeaderValue::from_static("\"a\";r=0;t=1");
        let field = http::HeaderName::from_static("ratelimit");
        Err(GatewayError::new(Reason::RateLimited).with_field(field, left))
    };
    let answer = ask(
        &format!("[{FIXED}]"),
        request(Method::GET, Body::empty()),
        limited,
    )
    .await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.headers()["ratelimit"], "\"a\";r=0;t=1");
    assert!(!answer.headers().contains_key("retry-after"));
}

#[test]
fn a_ladder_that_cannot_answer_or_a_step_that_is_never_reached_is_a_problem() {
    for (text, stores, message) in [
        ("fallback = []", true, "a ladder that cannot answer"),
        (
            "fallback = [{ stale = '1h' }]",
            false,
            "a ladder that cannot answer",
        ),
        (
            "fallback = [{ on = ['open'] }]",
            true,
            "a step is exactly one of",
        ),
        (
            "fallback = [{ stale = '1h', upstream = 'b' }]",
            true,
            "a step is exactly one of",
        ),
        (
            "fallback = [{ upstream = 'b', on = [] }]",
            true,
            "a step that serves nothing",
        ),
        (
            "fallback = [{ respond = {} }, { upstream = 'b' }]",
            true,
            "never reached",
        ),
        (
            "fallback = [{ respond = {}, on = ['open'] }, { upstream = 'b', on = ['open'] }]",
            true,
            "never reached",
        ),
        (
            "fallback = [{ respond = { status = 99 } }]",
            true,
            "not a status",
        ),
    ] {
        let (_, problems) = compile(text, stores);
        assert!(
            problems.iter().any(|p| p.contains(message)),
            "{text}: {problems:?}"
        );
    }
    let (ladder, problems) = compile(
        "fallback = [{ respond = {}, on = ['open'] }, { upstream = 'b' }]",
        true,
    );
    assert!(ladder.is_some(), "{problems:?}");
}
