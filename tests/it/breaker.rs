//! Circuit breakers through the real gateway: upstreams that fail, hang, trickle, refuse and come
//! back; probes; orders; reloads (M04, M08, M10 of CASES.md).

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::harness::client::{ask, get};
use super::harness::gateway::before;
use super::harness::h2::{H2, RST_STREAM, request};
use super::harness::origin::{echo, ok};
use super::harness::parse::Message;
use super::harness::{Gateway, Origin, Raw, Reply, eventually};

/// Nothing but the breaker decides who is asked.
pub(super) const ALONE: &str = "eject = false\nretry = false\n";

/// An upstream `o` with this breaker and nothing else.
fn guarded(origin: SocketAddr, breaker: &str) -> Gateway {
    Gateway::before(origin, &format!("{ALONE}breaker = {{ {breaker} }}\n"))
}

fn post(to: SocketAddr, target: &str) -> Message {
    let head = "Host: t.test\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    ask(to, &format!("POST {target} HTTP/1.1\r\n{head}"))
}

/// A POST on the admin address.
fn order(gateway: &Gateway, target: &str) -> Message {
    let head = "Host: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    ask(
        gateway.admin(),
        &format!("POST {target} HTTP/1.1\r\n{head}"),
    )
}

fn is_state(gateway: &Gateway, state: &str) -> bool {
    let series = format!("weir_breaker_state{{upstream=\"o\",state=\"{state}\"}}");
    gateway.metric(&series) == 1.0
}

fn transitions(gateway: &Gateway, to: &str) -> f64 {
    gateway.metric(&format!(
        "weir_breaker_transitions_total{{upstream=\"o\",to=\"{to}\"}}"
    ))
}

pub(super) fn refusals(gateway: &Gateway) -> f64 {
    gateway.metric("weir_breaker_refusals_total{upstream=\"o\"}")
}

/// Asks until the answer is the breaker's refusal; how many requests that took.
pub(super) fn until_open(gateway: &Gateway) -> usize {
    for n in 0..200 {
        let answer = Raw::connect(gateway.web())
            .send("GET / HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n\r\n")
            .try_response();
        if answer.is_ok_and(|a| a.status() == 503 && a.text().contains("breaker_open")) {
            return n;
        }
    }
    panic!("it did not open");
}

pub(super) fn bad() -> Reply {
    Reply::Bytes(b"HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n".to_vec())
}

/// Half of its answers are 500 until it is told to be well.
#[test]
fn an_upstream_that_fails_half_its_answers_is_left_alone_probed_and_taken_back() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let origin = Origin::start(move |_, n| match is_well.load(SeqCst) || n % 2 == 1 {
        true => ok("well"),
        false => bad(),
    });
    let breaker = "error_ratio = 0.5, min_requests = 10, window = \"1h\", open_for = \"500ms\"";
    let mut gateway = guarded(origin.address, breaker);
    assert!(is_state(&gateway, "closed"));
    let tries = until_open(&gateway);
    assert!((10..=12).contains(&tries), "{tries}");
    assert_eq!(transitions(&gateway, "open"), 1.0);
    assert!(refusals(&gateway) >= 1.0);
    well.store(true, SeqCst);
    eventually("it closes", || {
        get(gateway.web(), "/").status();
        is_state(&gateway, "closed")
    });
    assert_eq!(transitions(&gateway, "closed"), 1.0);
    assert!((0..20).all(|_| get(gateway.web(), "/").status() == 200));
    let log = gateway.stderr();
    assert!(
        log.contains("breaker opened") && log.contains("tries failed"),
        "{log}"
    );
    gateway.assert_sound();
}

#[test]
fn an_upstream_that_hangs_is_left_alone() {
    let origin = Origin::start(|_, _| Reply::After(Duration::from_secs(2), Box::new(ok("late"))));
    let more = "timeouts = { first_byte = \"50ms\" }\nbreaker = { consecutive = 3 }\n";
    let gateway = Gateway::before(origin.address, &format!("{ALONE}{more}"));
    assert_eq!(until_open(&gateway), 3);
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn an_upstream_that_trickles_is_left_alone() {
    let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome".to_vec();
    let origin = Origin::start(move |_, _| Reply::Bytes(begun.clone()));
    let more = "timeouts = { idle = \"100ms\" }\nbreaker = { consecutive = 3 }\n";
    let gateway = Gateway::before(origin.address, &format!("{ALONE}{more}"));
    assert_eq!(until_open(&gateway), 3);
}

#[test]
fn an_upstream_that_is_slow_is_left_alone() {
    let late = Duration::from_millis(60);
    let origin = Origin::start(move |_, _| Reply::After(late, Box::new(ok("late"))));
    let slow = "slow_ratio = 0.5, slow_over = \"50ms\", min_requests = 4, error_ratio = 0";
    let gateway = guarded(origin.address, slow);
    assert_eq!(until_open(&gateway), 4);
}

/// What clients offer to a dead upstream is nearly all that reaches it, retries included, and on a
/// route with a ladder they see nothing of it.
#[test]
fn m04_a_dead_upstream_gets_no_more_than_was_offered_and_clients_see_only_2xx() {
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port");
    let refusing = dead.local_addr().expect("bound");
    drop(dead);
    let failing = Origin::start(|_, _| {
        Reply::Bytes(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    for address in [refusing, failing.address] {
        let more = "retry = { attempts = 3, on = [\"connect\", \"reset\", \"503\"] }\n\
                    breaker = { min_requests = 10, open_for = \"200ms\" }\n";
        let ladder = "fallback = [{ respond = { status = 203 } }]\n";
        let config = format!("{}{ladder}", before(address, more));
        let gateway = Gateway::start(&config);
        let offered = 400;
        for n in 0..offered {
            let answer = get(gateway.web(), "/");
            assert_eq!(answer.status(), 203, "{n}: {}", answer.text());
        }
        let made = gateway.metric_sum("weir_upstream_attempts_total{upstream=\"o\"");
        assert!(made <= f64::from(offered) * 1.2, "{made}");
        assert!(made <= 100.0, "it is open nearly all the time: {made}");
        assert!(refusals(&gateway) >= 300.0);
        let open = "weir_degraded_total{route=\"all\",reason=\"open\",step=\"respond\"}";
        assert!(gateway.metric(open) >= 300.0);
    }
}

#[test]
fn m08_of_all_that_wait_only_the_probes_reach_the_upstream() {
    let gate = Arc::new(AtomicBool::new(false));
    let opens = gate.clone();
    let origin = Origin::start(move |_, _| {
        eventually("the test lets the probes be answered", || {
            opens.load(SeqCst)
        });
        ok("well")
    });
    let gateway = guarded(origin.address, "open_for = \"1h\", half_open = 3");
    order(&gateway, "/breakers/o/open");
    assert_eq!(order(&gateway, "/breakers/o/auto").status(), 200);
    let request = "GET / HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n\r\n";
    let mut clients: Vec<Raw> = (0..300).map(|_| Raw::connect(gateway.web())).collect();
    clients.iter_mut().for_each(|c| _ = c.send(request));
    eventually("all others are refused", || refusals(&gateway) == 297.0);
    gate.store(true, SeqCst);
    let answers: Vec<u16> = clients.iter_mut().map(|c| c.response().status()).collect();
    assert_eq!(answers.iter().filter(|s| **s == 200).count(), 3);
    assert_eq!(answers.iter().filter(|s| **s == 503).count(), 297);
    assert_eq!(origin.requests().len(), 3);
    eventually("it is closed", || is_state(&gateway, "closed"));
}

#[test]
fn a_probe_that_its_client_leaves_gives_its_place_back() {
    let first = AtomicUsize::new(0);
    let origin = Origin::start(move |_, _| match first.fetch_add(1, SeqCst) {
        0 => Reply::After(Duration::from_secs(5), Box::new(ok("late"))),
        _ => ok("well"),
    });
    let gateway = guarded(origin.address, "open_for = \"1h\", half_open = 1");
    order(&gateway, "/breakers/o/open");
    order(&gateway, "/breakers/o/auto");
    let mut client = H2::connect(gateway.web());
    let probe = client.open(&request("GET", "/", &[]), true);
    eventually("it is under way", || origin.requests().len() == 1);
    assert_eq!(get(gateway.web(), "/").status(), 503);
    client.frame(RST_STREAM, 0, probe, &[0, 0, 0, 8]);
    eventually("another one probes", || {
        get(gateway.web(), "/").status() == 200
    });
    assert!(is_state(&gateway, "closed"));
}

#[test]
fn a_post_does_not_probe_until_nothing_else_has_for_a_while() {
    let origin = Origin::echo();
    let gateway = guarded(origin.address, "open_for = \"1h\", half_open = 1");
    order(&gateway, "/breakers/o/open");
    order(&gateway, "/breakers/o/auto");
    assert!((0..20).all(|_| post(gateway.web(), "/").status() == 503));
    assert!(origin.requests().is_empty());
    assert_eq!(get(gateway.web(), "/").status(), 200);
    assert_eq!(post(gateway.web(), "/").status(), 200);

    let gateway = guarded(origin.address, "open_for = \"100ms\", half_open = 2");
    order(&gateway, "/breakers/o/open");
    order(&gateway, "/breakers/o/auto");
    eventually("an upstream that only gets POST recovers", || {
        post(gateway.web(), "/");
        is_state(&gateway, "closed")
    });
}

#[test]
fn orders_hold_a_breaker_over_reloads_and_are_for_the_operator_alone() {
    let origin = Origin::start(|_, _| bad());
    let config = |breaker: &str| {
        before(
            origin.address,
            &format!("{ALONE}breaker = {{ {breaker} }}\n"),
        )
    };
    let gateway = Gateway::start(&config("consecutive = 3"));
    let held = order(&gateway, "/breakers/o/close");
    assert_eq!(held.status(), 200);
    assert!(held.text().contains("\"forced\": true"), "{}", held.text());
    assert!((0..50).all(|_| get(gateway.web(), "/").status() == 500));

    assert_eq!(order(&gateway, "/breakers/o/open").status(), 200);
    assert_eq!(get(gateway.web(), "/").status(), 503);
    gateway.write_config(&config(
        "consecutive = 4, half_open = 1, open_for = \"100ms\"",
    ));
    assert_eq!(gateway.reload().1["outcome"], "applied");
    assert_eq!(get(gateway.web(), "/").status(), 503);
    let status = gateway.ask_admin("/status");
    let status: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
    let breaker = &status["upstreams"][0]["breaker"];
    assert_eq!(
        (&breaker["state"], &breaker["forced"]),
        (&"open".into(), &true.into())
    );

    order(&gateway, "/breakers/o/auto");
    assert_eq!(get(gateway.web(), "/").status(), 500, "a probe");
    assert_eq!(get(gateway.web(), "/").status(), 503, "a bad one");

    assert_eq!(order(&gateway, "/breakers/nobody/open").status(), 404);
    assert_eq!(order(&gateway, "/breakers/o/ajar").status(), 404);
    assert_eq!(order(&gateway, "/breakers/o").status(), 404);
    assert_eq!(gateway.ask_admin("/breakers/o/close").status(), 405);
    let foreign = "POST /breakers/o/close HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.test\r\n\
                   Content-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(gateway.admin(), foreign).status(), 403);
}

#[test]
fn an_open_breaker_stays_open_over_a_reload_and_is_forgotten_with_its_section() {
    let origin = Origin::start(|_, _| bad());
    let config = |more: &str| before(origin.address, &format!("{ALONE}{more}\n"));
    let gateway = Gateway::start(&config("breaker = { consecutive = 3, open_for = \"1h\" }"));
    until_open(&gateway);
    gateway.write_config(&config("breaker = { consecutive = 9, open_for = \"30m\" }"));
    assert_eq!(gateway.reload().1["outcome"], "applied");
    assert_eq!(get(gateway.web(), "/").status(), 503);
    gateway.write_config(&config(""));
    let report = gateway.reload().1;
    assert_eq!(report["outcome"], "applied");
    assert!(report.to_string().contains("forgotten"), "{report}");
    assert_eq!(get(gateway.web(), "/").status(), 500);
}

#[test]
fn an_upstream_that_asks_to_be_left_alone_is_left_alone() {
    let origin = Origin::start(|_, _| {
        let head = "HTTP/1.1 429 Slow Down\r\nRetry-After: 40\r\nContent-Length: 0\r\n\r\n";
        Reply::Bytes(head.into())
    });
    let gateway = guarded(origin.address, "consecutive = 3, open_for = \"5s\"");
    assert!((0..3).all(|_| get(gateway.web(), "/").status() == 429));
    let refused = get(gateway.web(), "/");
    assert_eq!(refused.status(), 503);
    let after = refused
        .get("retry-after")
        .and_then(|v| v.parse::<u64>().ok());
    let after = after.expect("a time to come again");
    assert!((20..=60).contains(&after), "{after}");
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn a_breaker_that_observes_refuses_nobody_and_says_what_it_would_have_done() {
    let origin = Origin::start(|_, _| bad());
    let gateway = guarded(
        origin.address,
        "consecutive = 3, open_for = \"1h\", mode = \"observe\"",
    );
    assert!((0..20).all(|_| get(gateway.web(), "/").status() == 500));
    assert_eq!(origin.requests().len(), 20);
    assert!(is_state(&gateway, "open"));
    let observed = "weir_observed_total{route=\"all\",reason=\"breaker_open\"}";
    assert_eq!(gateway.metric(observed), 17.0);
    assert_eq!(refusals(&gateway), 0.0);
}

#[test]
fn m10_what_clients_break_never_opens_a_breaker() {
    let origin = Origin::start(|request, _| match request.target() {
        "/missing" => Reply::Bytes(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec()),
        "/limited" => Reply::Bytes(b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n".to_vec()),
        "/slow" => Reply::After(Duration::from_secs(5), Box::new(ok("late"))),
        _ => echo(request),
    });
    let breaker = "consecutive = 1, error_ratio = 0.01, min_requests = 1";
    let gateway = guarded(origin.address, breaker);
    assert_eq!(get(gateway.web(), "/missing").status(), 404);
    assert_eq!(get(gateway.web(), "/limited").status(), 429);
    let cancelled = "weir_upstream_attempts_total{upstream=\"o\",result=\"cancelled\"}";
    let mut client = H2::connect(gateway.web());
    let slow = request("GET", "/slow", &[]);
    let streams: Vec<u32> = (0..3).map(|_| client.open(&slow, true)).collect();
    eventually("they are asked", || {
        let asked = origin.requests();
        asked.iter().filter(|r| r.target() == "/slow").count() == 3
    });
    for stream in streams {
        client.frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    }
    eventually("it is noticed", || gateway.metric(cancelled) == 3.0);
    let mut breaks = Raw::connect(gateway.web());
    breaks.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 100\r\n\r\nhi");
    eventually("half a request is there", || origin.open() >= 1);
    drop(breaks);
    eventually("it is over", || {
        gateway.metric("weir_upstream_in_flight{upstream=\"o\"}") == 0.0
    });
    assert!(is_state(&gateway, "closed"));
    assert_eq!(transitions(&gateway, "open"), 0.0);
}

#[test]
fn m10_a_client_that_sends_too_slowly_for_a_try_is_no_failure_of_the_upstreams() {
    let origin = Origin::echo();
    let more = "eject = false\nretry = { per_try_timeout = \"50ms\" }\n\
                breaker = { consecutive = 1 }\n";
    let gateway = Gateway::before(origin.address, more);
    let mut slow = Raw::connect(gateway.web());
    slow.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 100\r\n\r\nhi");
    assert_eq!(slow.response().status(), 504);
    assert!(is_state(&gateway, "closed"));
    assert_eq!(get(gateway.web(), "/").status(), 200);
}

/// While the first choice is open or on trial, the standby has what is not a probe; when it is
/// well the first has all again, and no probe ever goes where nothing would.
#[test]
fn a_standby_takes_over_while_the_first_is_open_or_on_trial() {
    let ill = Arc::new(AtomicBool::new(true));
    let is_ill = ill.clone();
    let first = Origin::start(move |_, _| match is_ill.load(SeqCst) {
        true => bad(),
        false => ok("first"),
    });
    let standby = Origin::start(|_, _| ok("standby"));
    let more = format!(
        "{ALONE}endpoint_breaker = {{ consecutive = 3, open_for = \"200ms\", half_open = 2 }}"
    );
    let config = before(first.address, &more);
    let written = format!("\"{}\"", first.address);
    let both = format!(
        "{written}, {{ address = \"{}\", priority = 1 }}",
        standby.address
    );
    let gateway = Gateway::start(&config.replace(&written, &both));
    let statuses: Vec<u16> = (0..100).map(|_| get(gateway.web(), "/").status()).collect();
    assert!(
        statuses.iter().all(|s| [200, 500].contains(s)),
        "{statuses:?}"
    );
    let failed = statuses.iter().filter(|s| **s == 500).count();
    assert_eq!(failed, first.requests().len());
    assert!((3..=12).contains(&failed), "{failed}");
    // On trial, a POST is no probe and goes to the standby.
    let posts: Vec<u16> = (0..50).map(|_| post(gateway.web(), "/").status()).collect();
    assert!(
        posts.iter().filter(|s| **s != 200).count() <= 10,
        "{posts:?}"
    );
    ill.store(false, SeqCst);
    eventually("the first is back", || {
        get(gateway.web(), "/").text() == "first"
    });
    eventually("for good", || {
        (0..5).all(|_| post(gateway.web(), "/").text() == "first")
    });
}

/// M09 in small: up and down several times a second, and few changes of state.
#[test]
fn m09_a_flapping_upstream_does_not_flap_its_breaker() {
    let origin = Origin::start(|_, n| if (n / 5) % 2 == 0 { bad() } else { ok("well") });
    let breaker = "consecutive = 4, open_for = \"200ms\", half_open = 2, window = \"10s\"";
    let gateway = guarded(origin.address, breaker);
    let end = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < end {
        get(gateway.web(), "/");
    }
    // 0.2 + 0.4 + 0.8 + 1.6 s: the fifth opening, at most, is under way.
    let opened = transitions(&gateway, "open");
    assert!((1.0..=5.0).contains(&opened), "{opened}");
}
