//! The admin address over real sockets: what it answers, and whom it does not wait for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::status::*;
use super::*;
use crate::middleware::cache::purge::Wanted;

#[derive(Default)]
struct Fake {
    unready: AtomicBool,
    draining: AtomicBool,
    rejects: AtomicBool,
    broken: AtomicBool,
    reloads: AtomicUsize,
}

impl Context for Fake {
    fn metrics_text(&self, openmetrics: bool) -> Vec<u8> {
        assert!(!self.broken.load(Relaxed), "a broken context");
        format!("openmetrics {openmetrics}\n").into_bytes()
    }
    fn ready(&self) -> Result<(), String> {
        match self.unready.load(Relaxed) {
            true => Err("not bound".into()),
            false => Ok(()),
        }
    }
    fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
    fn status(&self) -> Status {
        sample()
    }
    fn config_json(&self) -> serde_json::Value {
        json!({ "server": { "identity": "weir" } })
    }
    fn explain(&self, asked: &Asked) -> Explanation {
        Explanation {
            request: format!(
                "{} {}{} for {}",
                asked.method, asked.host, asked.uri, asked.client
            ),
            route: None,
            refused: Some("404 no_route".into()),
            others: Vec::new(),
        }
    }
    fn force_breaker(&self, upstream: &str, to: Option<State>) -> Option<BreakerStatus> {
        let held = BreakerStatus {
            state: to.unwrap_or(State::Closed).as_str(),
            since: 0,
            probes_in: 0,
            error_ratio: 0.0,
            requests: 0,
            forced: to.is_some(),
            observes: false,
        };
        (upstream == "app").then_some(held)
    }

    fn purge(&self, wanted: &Wanted) -> bool {
        *wanted != Wanted::Tag("none".to_owned())
    }
    fn reload(&self) -> Pin<Box<dyn Future<Output = ReloadReport> + Send>> {
        self.reloads.fetch_add(1, Relaxed);
        let outcome = match self.rejects.load(Relaxed) {
            true => ReloadOutcome::Rejected,
            false => ReloadOutcome::Applied,
        };
        Box::pin(async move {
            ReloadReport {
                outcome,
                message: "as told".into(),
                changes: vec!["route api: timeout 5s -> 10s".into()],
            }
        })
    }
}

fn sample() -> Status {
    let endpoint = |address: &str, state: &str| Endpoint {
        address: address.into(),
        state: state.into(),
        weight: 1,
        ..Endpoint::default()
    };
    Status {
        version: "0.1.0".into(),
        state: "ready".into(),
        uptime_seconds: 93_784,
        generation: 4,
        config_hash: "9f2c41d07be83a15".into(),
        plans: 1,
        last_reload: Some(LastReload {
            at: 1_790_000_000,
            outcome: "applied".into(),
            message: "generation 4 is in force".into(),
            changes: vec!["route api: timeout 5s -> 10s".into()],
        }),
        routes: vec![Route {
            id: "<script>alert('x')</script>".into(),
            matches: "api.example.com \"/v1/*\" & more".into(),
            target: "app".into(),
            requests: 1_204_311,
            server_errors: 12,
            ..Route::default()
        }],
        upstreams: vec![Upstream {
            name: "app".into(),
            protocol: "http1".into(),
            balance: "p2c".into(),
            retry_budget: Some(0.98),
            endpoints: vec![
                endpoint("127.0.0.1:9001", "healthy"),
                endpoint("127.0.0.1:9002", "ejected"),
            ],
            ..Upstream::default()
        }],
        workers: vec![Worker::default()],
        ..Status::default()
    }
}

async fn start(scope: Scope) -> (SocketAddr, Arc<Fake>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let fake = Arc::new(Fake::default());
    tokio::spawn(serve(listener, scope, fake.clone()));
    (address, fake)
}

/// Sends a head and gives all that comes back.
async fn ask(address: SocketAddr, line: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\r\n",
        fields
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |a| a.1)
}

#[tokio::test]
async fn metrics_are_prometheus_text_unless_openmetrics_is_preferred() {
    let (address, _) = start(Scope::Full).await;
    let prometheus = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n";
    for (fields, openmetrics, kind) in [
        ("", false, "text/plain; version=0.0.4"),
        ("Accept: */*\r\n", false, "text/plain; version=0.0.4"),
        (
            prometheus,
            true,
            "application/openmetrics-text; version=1.0.0",
        ),
        (
            "Accept: application/openmetrics-text;q=0\r\n",
            false,
            "text/plain; version=0.0.4",
        ),
        (
            "Accept: application/openmetrics-text;q=0.1, text/plain\r\n",
            false,
            "text/plain; version=0.0.4",
        ),
    ] {
        let answer = ask(address, "GET /metrics", fields).await;
        assert_eq!(
            body(&answer),
            format!("openmetrics {openmetrics}\n"),
            "{fields}"
        );
        assert!(
            answer.contains(&format!("content-type: {kind}")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn alive_is_not_ready() {
    let (address, fake) = start(Scope::Full).await;
    assert_eq!(status(&ask(address, "GET /readyz", "").await), "200");
    fake.unready.store(true, Relaxed);
    let answer = ask(address, "GET /readyz", "").await;
    assert_eq!((status(&answer), body(&answer)), ("503", "not bound\n"));
    assert_eq!(status(&ask(address, "GET /healthz", "").await), "200");
}

#[tokio::test]
async fn status_is_a_page_for_people_and_json_for_programs() {
    let (address, _) = start(Scope::Full).await;
    let page = ask(address, "GET /status", "Accept: text/html,*/*;q=0.8\r\n").await;
    assert!(page.contains("content-type: text/html"));
    let json = ask(address, "GET /status", "Accept: application/json\r\n").await;
    let value: serde_json::Value = serde_json::from_str(body(&json)).expect("JSON");
    assert_eq!(value["upstreams"][0]["endpoints"][1]["state"], "ejected");
    let config = ask(address, "GET /config", "").await;
    assert!(config.contains("content-type: application/json"));
    assert!(body(&config).contains("\"identity\": \"weir\""));
}

#[test]
fn the_page_escapes_all_it_shows_and_fetches_nothing() {
    let page = page::render(&sample());
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"));
    assert!(page.contains("api.example.com &quot;/v1/*&quot; &amp; more"));
    assert!(page.contains("1d 2h"));
    assert!(page.contains("1\u{202f}204\u{202f}311"));
    for foreign in ["<script", "http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[tokio::test]
async fn a_reload_says_how_it_went() {
    let (address, fake) = start(Scope::Full).await;
    let answer = ask(address, "POST /reload", "").await;
    let said: serde_json::Value = serde_json::from_str(body(&answer)).expect("JSON");
    assert_eq!(
        (status(&answer), &said["outcome"]),
        ("200", &json!("applied"))
    );
    assert_eq!(said["changes"][0], "route api: timeout 5s -> 10s");
    fake.rejects.store(true, Relaxed);
    assert_eq!(status(&ask(address, "POST /reload", "").await), "422");
    fake.draining.store(true, Relaxed);
    assert_eq!(status(&ask(address, "POST /reload", "").await), "409");
    assert_eq!(fake.reloads.load(Relaxed), 2);
}

#[tokio::test]
async fn only_a_post_of_this_site_or_of_a_tool_changes_anything() {
    let (address, fake) = start(Scope::Full).await;
    let get = ask(address, "GET /reload", "").await;
    assert_eq!(status(&get), "405");
    assert!(get.contains("allow: POST\r\n"));
    for foreign in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        assert_eq!(
            status(&ask(address, "POST /reload", foreign).await),
            "403",
            "{foreign}"
        );
    }
    assert_eq!(fake.reloads.load(Relaxed), 0);
    let own = format!("Origin: http://{address}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(status(&ask(address, "POST /reload", &own).await), "200");
    let post = ask(address, "POST /status", "").await;
    assert!(status(&post) == "405" && post.contains("allow: GET, HEAD\r\n"));
}

#[tokio::test]
async fn a_foreign_name_does_not_lead_to_a_loopback_address() {
    let (address, _) = start(Scope::Full).await;
    let mut stream = TcpStream::connect(address).await.expect("listening");
    let head = "GET /config HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert_eq!(status(&answer), "421");
}

#[tokio::test]
async fn head_is_a_get_without_its_body() {
    let (address, _) = start(Scope::Full).await;
    let answer = ask(address, "HEAD /healthz", "").await;
    assert_eq!((status(&answer), body(&answer)), ("200", ""));
    assert!(answer.contains("content-length: 3\r\n"));
}

#[tokio::test]
async fn what_is_not_there_is_answered_with_what_is() {
    let (full, _) = start(Scope::Full).await;
    let (scrape, _) = start(Scope::ScrapeOnly).await;
    let answer = ask(full, "GET /", "").await;
    assert!(status(&answer) == "404" && body(&answer).contains("/config"));
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(
            status(&ask(scrape, &format!("GET {path}"), "").await),
            "200"
        );
    }
    for line in ["GET /status", "GET /config", "POST /reload"] {
        let answer = ask(scrape, line, "").await;
        assert!(
            status(&answer) == "404" && !body(&answer).contains("/config"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_panic_costs_one_answer() {
    let (address, fake) = start(Scope::Full).await;
    fake.broken.store(true, Relaxed);
    assert_eq!(status(&ask(address, "GET /metrics", "").await), "500");
    assert_eq!(status(&ask(address, "GET /healthz", "").await), "200");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let (address, fake) = start(Scope::Full).await;
    let answer = ask(address, "POST /reload", "Content-Length: 10000000\r\n").await;
    assert_eq!(status(&answer), "413");
    assert_eq!(fake.reloads.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn silent_clients_are_cut_and_hold_up_nobody() {
    let (address, _) = start(Scope::Full).await;
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(address).await.expect("listening"));
    }
    let begun = crate::clock::now();
    assert_eq!(status(&ask(address, "GET /readyz", "").await), "200");
    assert!(crate::clock::now() - begun < Duration::from_secs(30));
}

#[tokio::test]
async fn healthcheck_asks_readyz() {
    let (address, fake) = start(Scope::ScrapeOnly).await;
    let check = move || healthcheck(address, Duration::from_secs(5));
    let ask = || tokio::task::spawn_blocking(check);
    assert_eq!(ask().await.expect("joined"), Ok(()));
    fake.unready.store(true, Relaxed);
    let said = ask().await.expect("joined");
    assert_eq!(said, Err("not ready (503): not bound".into()));
}

#[test]
fn healthcheck_of_nobody_and_of_a_silent_one_is_an_error_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound");
    let said = healthcheck(address, Duration::from_millis(20));
    assert!(said.is_err_and(|e| e.contains("does not answer")));
    drop(silent);
    assert!(healthcheck(address, Duration::from_secs(1)).is_err());
}

#[tokio::test]
async fn a_purge_says_what_it_did_or_why_not() {
    let (address, _) = start(Scope::Full).await;
    for (query, expected) in [
        ("?url=http://a.test/x&tag=y", "200"),
        ("?all", "200"),
        ("?prefix=a.test/im", "200"),
        ("?tag=none", "404"),
        ("", "400"),
        ("?url=/x", "400"),
        ("?everything", "400"),
    ] {
        let answer = ask(address, &format!("POST /cache/purge{query}"), "").await;
        assert_eq!(status(&answer), expected, "{query}: {answer}");
    }
    let get = ask(address, "GET /cache/purge?all", "").await;
    assert_eq!(status(&get), "405");
    let foreign = ask(
        address,
        "POST /cache/purge?all",
        "Origin: http://evil.test\r\n",
    )
    .await;
    assert_eq!(status(&foreign), "403");
}
