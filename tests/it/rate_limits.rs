//! K: rate limits, through the real gateway with two workers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::harness::gateway::before;
use super::harness::parse::Message;
use super::harness::{Gateway, Origin, Raw, Reply, client, eventually, h2c};

/// A route that answers by itself, with these limits.
fn limited(limits: &str) -> String {
    format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\nprotocols = [\"http1\", \"h2\"]\n\
         [[routes]]\nid = \"all\"\nrate_limit = {limits}\nrespond = {{ body = \"hello\" }}\n"
    )
}

fn ask(to: SocketAddr, target: &str, fields: &str) -> Message {
    let head =
        format!("GET {target} HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n{fields}\r\n");
    client::ask(to, &head)
}

/// How many of so many requests, each on a connection of its own, are answered with 200.
fn admitted(to: SocketAddr, times: usize) -> usize {
    let answers = (0..times).map(|_| client::get(to, "/").status());
    answers.filter(|status| *status == 200).count()
}

#[test]
fn k09_who_is_over_gets_429_with_the_wait_and_what_is_left() {
    let mut gateway = Gateway::start(&limited("{ name = \"one\", rate = \"2/h\" }"));
    let web = gateway.web();
    let first = ask(web, "/", "");
    assert_eq!(first.status(), 200);
    assert_eq!(first.get("ratelimit-policy"), Some("\"one\";q=2;w=3600"));
    assert_eq!(first.get("ratelimit"), Some("\"one\";r=1;t=1800"));
    assert_eq!(ask(web, "/", "").status(), 200);
    let refused = ask(web, "/", "Accept: application/json\r\n");
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused
        .get("retry-after")
        .expect("a wait")
        .parse()
        .expect("a number");
    assert!((1790..=2161).contains(&wait), "{wait}");
    assert!(
        refused
            .get("ratelimit")
            .expect("told")
            .starts_with("\"one\";r=0;t=1")
    );
    assert_eq!(
        refused.get("proxy-status"),
        Some("weir; error=http_request_error")
    );
    let problem: serde_json::Value = serde_json::from_slice(&refused.body).expect("JSON");
    assert_eq!(problem["reason"], "rate_limited");
    assert_eq!(problem["violated-policies"], serde_json::json!(["one"]));
    let decisions = |word| {
        gateway.metric(&format!(
            "weir_limiter_decisions_total{{limit=\"one\",decision=\"{word}\"}}"
        ))
    };
    assert_eq!((decisions("allow"), decisions("deny")), (2.0, 1.0));
    assert_eq!(gateway.metric("weir_limiter_keys{limit=\"one\"}"), 1.0);
    gateway.assert_sound();
}

#[test]
fn k01_no_field_of_an_untrusted_peer_moves_its_bucket() {
    let gateway = Gateway::start(&limited("{ rate = \"5/h\" }"));
    let spoofed = |n: usize| {
        let fields = format!(
            "X-Forwarded-For: 10.0.0.{n}\r\nX-Forwarded-For: ::ffff:10.0.1.{n}\r\nX-Real-IP: 10.0.2.{n}\r\n\
             Forwarded: for=\"[2001:db8::{n}]\"\r\nCF-Connecting-IP: 10.0.3.{n}\r\n"
        );
        ask(gateway.web(), "/", &fields).status()
    };
    let admitted = (0..40).filter(|n| spoofed(*n) == 200).count();
    assert_eq!(admitted, 5);
}

#[test]
fn k02_a_trusted_proxy_tells_clients_apart_and_ipv6_counts_by_its_network() {
    let config = limited("{ rate = \"3/h\" }");
    let gateway = Gateway::start_bare(&format!(
        "[server]\nworkers = 2\ntrusted_proxies = [\"127.0.0.1\"]\nrate_limit_headers = \"legacy\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n{config}"
    ));
    let from = |client: &str| {
        ask(
            gateway.web(),
            "/",
            &format!("X-Forwarded-For: {client}\r\n"),
        )
    };
    let statuses = (0..20).map(|n| from(&format!("2001:db8::{n:x}")).status());
    assert_eq!(statuses.filter(|status| *status == 200).count(), 3);
    let other = from("2001:db8:0:1::1");
    assert_eq!(
        (other.status(), other.get("x-ratelimit-remaining")),
        (200, Some("2"))
    );
    assert_eq!(
        (
            other.get("x-ratelimit-limit"),
            other.get("x-ratelimit-reset")
        ),
        (Some("3"), Some("1200"))
    );
    assert_eq!(other.get("ratelimit"), None);
}

/// Requests over many connections, so by both workers, at once.
#[test]
fn k08_two_workers_admit_exactly_the_burst() {
    let gateway = Gateway::start(&limited("{ rate = \"1/h\", burst = 100, key = \"route\" }"));
    let (web, count) = (gateway.web(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| count.fetch_add(admitted(web, 40), SeqCst));
        }
    });
    assert_eq!(count.load(SeqCst), 100);
    let worked = gateway.metrics();
    let worked = worked
        .iter()
        .filter(|(name, n)| name.starts_with("weir_worker_accepts_total") && **n > 0.0);
    assert_eq!(worked.count(), 2, "both workers had a part in it");
}

#[test]
fn k05_k06_streams_and_pipelined_requests_count_one_by_one() {
    let gateway = Gateway::start(&limited("{ rate = \"20/h\" }"));
    let web = gateway.web();
    let one = "GET / HTTP/1.1\r\nHost: t.test\r\n\r\n";
    let mut raw = Raw::connect(web);
    raw.send(one.repeat(8));
    let statuses: Vec<u16> = (0..8).map(|_| raw.response().status()).collect();
    assert_eq!(statuses, [200; 8]);
    let admitted = h2c::converse(web, async |mut send| {
        let mut admitted = 0;
        for _ in 0..50 {
            send = send.ready().await.expect("ready");
            let (answer, _) = send.send_request(h2c::get("/"), true).expect("sent");
            admitted += usize::from(answer.await.expect("an answer").status() == 200);
        }
        admitted
    });
    assert_eq!(admitted, 12, "what HTTP/1 left");
    assert_eq!(client::get(web, "/").status(), 429);
}

#[test]
fn k10_no_way_to_write_a_path_has_a_bucket_of_its_own() {
    let gateway = Gateway::start(&limited(
        "{ rate = \"2/h\", key = [\"client_ip\", \"path\"] }",
    ));
    let ways = [
        "/a/b",
        "/a/./b",
        "/a/c/../b",
        "/a//b",
        "/%61/b",
        "/a/%62",
        "/a/b?x=1",
        "/a/b#x",
    ];
    let statuses: Vec<u16> = ways
        .iter()
        .map(|way| ask(gateway.web(), way, "").status())
        .collect();
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    assert!(admitted <= 2, "{statuses:?}");
    assert_eq!(
        ask(gateway.web(), "/A/b", "").status(),
        200,
        "case tells paths apart (RFC 3986)"
    );
}

#[test]
fn k07_reloads_keep_what_was_used_and_say_what_begins_anew() {
    let gateway = Gateway::start(&limited("{ name = \"l\", rate = \"5/h\" }"));
    assert_eq!(admitted(gateway.web(), 9), 5);
    for burst in [7, 5, 8] {
        gateway.write_config(&limited(&format!(
            "{{ name = \"l\", rate = \"5/h\", burst = {burst} }}"
        )));
        assert_eq!(gateway.reload().0, 200);
    }
    assert_eq!(
        admitted(gateway.web(), 9),
        3,
        "a burst of 8 where 5 are used"
    );
    gateway.write_config(&limited("{ name = \"l\", rate = \"5/h\", key = \"host\" }"));
    let (_, report) = gateway.reload();
    assert!(
        report.to_string().contains("limit l begins anew"),
        "{report}"
    );
    assert_eq!(admitted(gateway.web(), 9), 5);
}

/// As much as the rate says while the config is reloaded all the time, by both workers.
#[test]
fn fifty_reloads_do_not_change_what_is_admitted() {
    let config = |n: usize| {
        let limits = limited("{ rate = \"100/s\", burst = 100, key = \"route\" }");
        format!("{limits}max_body = \"{}KiB\"\n", n + 1)
    };
    let gateway = Gateway::start(&config(0));
    let (web, done) = (gateway.web(), AtomicBool::new(false));
    let begun = Instant::now();
    let count: usize = std::thread::scope(|scope| {
        let client = || {
            let (mut raw, mut count) = (Raw::connect(web), 0);
            while !done.load(SeqCst) {
                raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
                count += usize::from(raw.response().status() == 200);
                std::thread::sleep(Duration::from_millis(1));
            }
            count
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        for n in 1..=50 {
            gateway.write_config(&config(n));
            assert_eq!(gateway.reload().0, 200);
            std::thread::sleep(Duration::from_millis(40));
        }
        done.store(true, SeqCst);
        clients
            .into_iter()
            .map(|c| c.join().expect("no panic"))
            .sum()
    });
    let most = 100.0 + 100.0 * begun.elapsed().as_secs_f64();
    let count = count as f64;
    // the clock runs a little longer than the clients
    assert!(
        count <= most + 1.0 && count >= most * 0.97 - 10.0,
        "{count} of {most}"
    );
}

#[test]
fn what_fails_is_charged_and_a_refusal_of_ours_is_not() {
    let origin = Origin::start(|request, _| {
        let status = if request.target() == "/no" {
            "403 Forbidden"
        } else {
            "200 OK"
        };
        Reply::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    });
    let limit = "rate_limit = { rate = \"3/h\", count = \"failures\" }\n";
    let gateway = Gateway::start(&format!("{}{limit}", before(origin.address, "")));
    let web = gateway.web();
    assert_eq!(admitted(web, 10), 10);
    let statuses: Vec<u16> = (0..5).map(|_| client::get(web, "/no").status()).collect();
    assert_eq!(statuses, [403, 403, 403, 429, 429]);
    assert_eq!(
        client::get(web, "/").status(),
        429,
        "whatever it asks for now"
    );
}

#[test]
fn a_limit_that_observes_lets_pass_and_is_seen() {
    let gateway = Gateway::start(&limited(
        "{ name = \"try\", rate = \"2/h\", mode = \"observe\" }",
    ));
    assert_eq!(admitted(gateway.web(), 7), 7);
    let observed = "weir_limiter_decisions_total{limit=\"try\",decision=\"observed\"}";
    assert_eq!(gateway.metric(observed), 5.0);
    eventually("the route counts it", || {
        gateway.metric("weir_observed_total{route=\"all\",reason=\"rate_limited\"}") == 5.0
    });
    assert_eq!(client::get(gateway.web(), "/").get("ratelimit"), None);
}

#[test]
fn a_refused_client_gets_a_lesser_answer_where_there_is_one() {
    let config = limited("{ rate = \"1/h\" }");
    let gateway = Gateway::start(&format!(
        "{config}fallback = [{{ respond = {{ status = 203, body = \"less\" }}, on = [\"limited\"] }}]\n"
    ));
    assert_eq!(client::get(gateway.web(), "/").status(), 200);
    let lesser = client::get(gateway.web(), "/");
    assert_eq!((lesser.status(), lesser.text().as_str()), (203, "less"));
    assert_eq!(
        lesser.get("weir-degraded"),
        Some("reason=limited; step=respond")
    );
    assert!(lesser.get("ratelimit").expect("told").contains(";r=0;"));
}

/// More clients than it remembers: they share a bucket, and memory stays where it is.
#[test]
fn k03_clients_without_end_share_a_bucket_and_no_memory_is_taken() {
    let limit = "{ name = \"l\", rate = \"1/h\", burst = 1, key = \"header:x-key\", keys = 1000 }";
    let gateway = Gateway::start(&limited(limit));
    let mut raw = Raw::connect(gateway.web());
    let mut ask = |n: usize| {
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: t.test\r\nX-Key: {n}\r\n\r\n"
        ));
        raw.response().status() == 200
    };
    let first = (0..1_000).filter(|n| ask(*n)).count();
    assert_eq!(first, 1_000, "as many as it has room for");
    let resident = gateway.rss();
    let more = (1_000..5_000).filter(|n| ask(*n)).count();
    assert!(
        more <= 752 + 1,
        "{more}: the spare cells, and one from the shared bucket"
    );
    let again = (0..1_000).filter(|n| ask(*n)).count();
    assert_eq!(again, 0, "nobody was forgotten");
    assert!(
        gateway.rss() < resident + 4_096,
        "{} KiB after {resident}",
        gateway.rss()
    );
    assert!(gateway.metric("weir_limiter_overflow_total{limit=\"l\"}") > 3_000.0);
    assert_eq!(
        gateway.metric("weir_limiter_evictions_total{limit=\"l\"}"),
        0.0
    );
    let capacity = gateway.metric("weir_limiter_capacity{limit=\"l\"}");
    assert_eq!(gateway.metric("weir_limiter_keys{limit=\"l\"}"), capacity);
}

#[test]
fn the_operator_sees_the_limits_and_what_is_left_of_them() {
    let gateway = Gateway::start(&limited(
        "[{ name = \"l\", rate = \"5/h\" }, { rate = \"9/s\", key = \"route\" }]",
    ));
    assert_eq!(admitted(gateway.web(), 2), 2);
    let status: serde_json::Value =
        serde_json::from_slice(&gateway.ask_admin("/status").body).expect("JSON");
    let limit = &status["limits"][0];
    assert_eq!(
        (&limit["name"], &limit["rate"], &limit["key"]),
        (&"l".into(), &"5/h".into(), &"client_ip".into())
    );
    assert_eq!(
        (&limit["allowed"], &limit["keys"], &limit["mode"]),
        (&2.into(), &1.into(), &"enforce".into())
    );
    let page = client::ask(
        gateway.admin(),
        "GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    );
    assert!(page.text().contains("<h2>Limits</h2>"));
    let explained = gateway
        .ask_admin("/explain?request=GET%20http://t.test/")
        .text();
    assert!(
        explained.contains("l: 5/h, 5 at once, by client_ip; 127.0.0.1: 3 left"),
        "{explained}"
    );
}

#[test]
fn a_trusted_client_that_asks_is_told_what_a_limit_that_observes_would_have_done() {
    let limited = limited("{ rate = \"1/h\", mode = \"observe\" }");
    let preamble = "[server]\nworkers = 2\ntrusted_proxies = [\"127.0.0.1\"]\n\
                    drain = { delay = \"0s\", timeout = \"10s\" }\n[admin]\naddress = \"127.0.0.1:0\"\n";
    let gateway = Gateway::start_bare(&format!("{preamble}{limited}"));
    let told = |fields: &str| {
        let answer = ask(gateway.web(), "/", fields);
        assert_eq!(answer.status(), 200);
        answer.get("weir-observed").map(str::to_owned)
    };
    let asks = "Weir-Debug: observe\r\n";
    assert_eq!(told(asks), None, "it would have passed");
    assert_eq!(told(asks), Some("rate_limited".to_owned()));
    assert_eq!(told(""), None, "it did not ask");
    let stranger = Gateway::start(&limited);
    for _ in 0..2 {
        let answer = ask(stranger.web(), "/", asks);
        assert_eq!((answer.status(), answer.get("weir-observed")), (200, None));
    }
}

/// The wait of a client that has used all says where its bucket stands: twice the rate, half the
/// wait, and neither a new burst nor a full wait.
#[test]
fn k07_a_reload_that_changes_the_rate_alone_scales_a_bucket_and_does_not_reset_it() {
    let rate = |rate: &str| limited(&format!("{{ name = \"l\", rate = \"{rate}\", burst = 4 }}"));
    let gateway = Gateway::start(&rate("4/h"));
    assert_eq!(admitted(gateway.web(), 6), 4);
    let wait = || {
        let refused = client::get(gateway.web(), "/");
        assert_eq!(refused.status(), 429);
        let told = refused.get("ratelimit").expect("told").to_owned();
        let (_, wait) = told.split_once(";t=").expect("a time");
        wait.parse::<u64>().expect("seconds")
    };
    // an hour's quarter, less what has passed since
    let first = wait();
    assert!((780..=900).contains(&first), "{first}");
    for (faster, least, most) in [("8/h", 390, 450), ("1/h", 3_120, 3_600)] {
        gateway.write_config(&rate(faster));
        let (status, report) = gateway.reload();
        assert_eq!(status, 200);
        assert!(!report.to_string().contains("begins anew"), "{report}");
        let scaled = wait();
        assert!((least..=most).contains(&scaled), "{faster}: {scaled}");
    }
}
