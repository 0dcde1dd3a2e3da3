//! The ladder of lesser answers, from the client's side.

use std::time::Duration;

use super::harness::origin::ok;
use super::harness::{Gateway, Origin, Raw, Reply, client, eventually, gateway};

fn status(code: u16) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 {code} X\r\nContent-Length: 3\r\n\r\nbad").into_bytes())
}

/// An upstream "o" with a ladder before it; `backup` is another upstream.
fn before(origin: &Origin, backup: &Origin, more: &str, ladder: &str) -> Gateway {
    let config = gateway::before(origin.address, more);
    let backup = format!("[upstreams.backup]\nendpoints = [\"{}\"]\n", backup.address);
    let config = config.replace("[upstreams.o]", &format!("{backup}[upstreams.o]"));
    Gateway::start(&format!("{config}fallback = {ladder}\n"))
}

fn nowhere() -> Origin {
    Origin::start(|_, _| Reply::Reset(Vec::new()))
}

const SORRY: &str =
    "[{ respond = { status = 200, body = \"sorry\", headers = { x-lesser = \"1\" } } }]";

#[test]
fn a_failing_upstream_behind_a_ladder_is_seen_by_nobody() {
    let (origin, backup) = (
        Origin::start(|_, n| status(500 + (n % 4) as u16)),
        nowhere(),
    );
    let mut gateway = before(&origin, &backup, "", SORRY);
    for _ in 0..20 {
        let answer = client::get(gateway.web(), "/");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "sorry"));
        assert_eq!(
            answer.get("weir-degraded"),
            Some("reason=error; step=respond")
        );
        assert_eq!(answer.get("x-lesser"), Some("1"));
        let told = answer.get("proxy-status").unwrap_or_default();
        assert!(told.starts_with("weir; received-status=50"), "{told}");
        assert!(told.ends_with("; next-hop=o"), "{told}");
    }
    let series = "weir_degraded_total{route=\"all\",reason=\"error\",step=\"respond\"}";
    assert_eq!(gateway.metric(series), 20.0);
    eventually("it is logged", || gateway.stdout().lines().count() == 20);
    let log = gateway.stdout();
    assert!(
        log.contains("\"degraded\":\"error\",\"step\":\"respond\""),
        "{log}"
    );
    gateway.assert_sound();
}

#[test]
fn another_upstream_answers_what_may_be_repeated_and_nothing_else() {
    let origin = Origin::start(|_, _| status(503));
    let backup =
        Origin::start(|request, _| ok(&format!("{} {}", request.method(), request.text())));
    let gateway = before(
        &origin,
        &backup,
        "retry = false",
        "[{ upstream = \"backup\" }]",
    );
    let put = "PUT /x HTTP/1.1\r\nHost: t.test\r\nContent-Length: 4\r\n\r\nbody";
    let answer = client::ask(gateway.web(), put);
    assert_eq!((answer.status(), answer.text().as_str()), (200, "PUT body"));
    assert_eq!(
        answer.get("weir-degraded"),
        Some("reason=error; step=upstream")
    );
    let answer = client::ask(gateway.web(), &put.replace("PUT", "POST"));
    assert_eq!((answer.status(), answer.text().as_str()), (503, "bad"));
    assert_eq!(answer.get("weir-degraded"), None);
    assert_eq!((origin.requests().len(), backup.requests().len()), (2, 1));
}

#[test]
fn a_post_that_nobody_has_seen_goes_to_another_upstream_with_its_body() {
    let backup = Origin::start(|request, _| ok(&request.text()));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = closed.local_addr().expect("bound");
    drop(closed);
    let config = gateway::before(address, "retry = false");
    let backups = format!("[upstreams.backup]\nendpoints = [\"{}\"]\n", backup.address);
    let config = config.replace("[upstreams.o]", &format!("{backups}[upstreams.o]"));
    let gateway = Gateway::start(&format!(
        "{config}fallback = [{{ upstream = \"backup\" }}]\n"
    ));
    let post = "POST / HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\nhello\r\n6\r\n there!\r\n0\r\n\r\n";
    let answer = client::ask(gateway.web(), &post.replace("6\r\n there!", "7\r\n there!"));
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (200, "hello there!")
    );
    let told = answer.get("proxy-status").unwrap_or_default();
    assert!(
        told.contains("error=connection_refused; next-hop=o"),
        "{told}"
    );
}

#[test]
fn after_a_timeout_another_upstream_has_the_routes_time_anew() {
    let origin = Origin::start(|_, _| Reply::After(Duration::from_secs(20), Box::new(ok("late"))));
    let backup =
        Origin::start(|_, _| Reply::After(Duration::from_millis(150), Box::new(ok("here"))));
    let ladder = "[{ upstream = \"backup\", on = [\"timeout\"] }]\ntimeout = \"2s\"";
    let gateway = before(&origin, &backup, "retry = false", ladder);
    let answer = client::get(gateway.web(), "/");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "here"));
    assert_eq!(
        answer.get("weir-degraded"),
        Some("reason=timeout; step=upstream")
    );
}

#[test]
fn an_answer_that_has_begun_is_cut_and_never_mended() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it".to_vec();
    let origin = Origin::start(move |_, _| Reply::Close(half.clone()));
    let gateway = before(&origin, &nowhere(), "retry = false", SORRY);
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    let rest = String::from_utf8_lossy(&raw.rest(Duration::from_secs(5))).into_owned();
    assert!(rest.ends_with("half of it"), "{rest}");
    assert!(
        !rest.contains("weir-degraded") && !rest.contains("sorry"),
        "{rest}"
    );
}

#[test]
fn only_weir_says_that_an_answer_is_a_lesser_one() {
    let lying = b"HTTP/1.1 200 OK\r\nWeir-Degraded: reason=open; step=stale\r\n\
                  Weir-Observed: shed\r\nContent-Length: 2\r\n\r\nok"
        .to_vec();
    let origin = Origin::start(move |_, _| Reply::Bytes(lying.clone()));
    let gateway = before(&origin, &nowhere(), "", SORRY);
    let answer = client::get(gateway.web(), "/");
    assert_eq!(answer.text(), "ok");
    assert_eq!(
        (answer.get("weir-degraded"), answer.get("weir-observed")),
        (None, None)
    );
}

#[test]
fn head_gets_the_head_of_a_lesser_answer_and_the_connection_goes_on() {
    let origin = Origin::start(|_, _| status(502));
    let gateway = before(&origin, &nowhere(), "", SORRY);
    let mut raw = Raw::connect(gateway.web());
    raw.send("HEAD / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    let head = raw.response_to_head();
    assert_eq!(
        (head.status(), head.get("content-length")),
        (200, Some("5"))
    );
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(raw.response().text(), "sorry");
}
