//! What happens to a request whose upstream fails, is slow, full or gone (group M of CASES.md).

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::harness::origin::{echo, ok};
use super::harness::{Gateway, Origin, Raw, Reply, client, eventually};

/// One listener, one route, one upstream `o` over these endpoints.
fn config(endpoints: &[SocketAddr], more: &str) -> String {
    let list: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n[upstreams.o]\nendpoints = [{}]\n{more}\n\
         [[routes]]\nid = \"all\"\nupstream = \"o\"\ntimeout = \"5s\"\n",
        list.join(", ")
    )
}

/// An address that refuses.
fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

fn status(web: SocketAddr, method: &str, target: &str) -> u16 {
    let length = if matches!(method, "POST" | "PATCH" | "PUT") {
        "Content-Length: 2\r\n"
    } else {
        ""
    };
    let body = if length.is_empty() { "" } else { "hi" };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: t.test\r\n{length}Connection: close\r\n\r\n{body}"
    );
    client::ask(web, &request).status()
}

#[test]
fn m01_m02_m07_only_what_is_safe_is_sent_again_and_elsewhere() {
    let bad = Origin::start(|_, _| Reply::Reset(Vec::new()));
    let good = Origin::echo();
    // In turn, so that every second request begins at the bad one.
    let more = "balance = \"round_robin\"\neject = false\nretry = { budget = 1.0 }\n";
    let mut gateway = Gateway::start(&config(&[bad.address, good.address], more));
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        for n in 0..6 {
            assert_eq!(
                status(gateway.web(), method, &format!("/{method}/{n}")),
                200
            );
        }
    }
    let at_bad = bad.requests().len();
    assert!(at_bad >= 8, "{at_bad}");
    for method in ["POST", "PATCH"] {
        let all: Vec<u16> = (0..8)
            .map(|n| status(gateway.web(), method, &format!("/{method}/{n}")))
            .collect();
        assert!(
            all.contains(&502) && all.contains(&200),
            "{method}: {all:?}"
        );
    }
    let mut seen: Vec<String> = bad
        .requests()
        .iter()
        .chain(&good.requests())
        .map(|r| r.start.clone())
        .collect();
    seen.sort();
    let posts = |s: &&String| s.starts_with("POST") || s.starts_with("PATCH");
    let mut once: Vec<&String> = seen.iter().filter(posts).collect();
    let all = once.len();
    once.dedup();
    assert_eq!((all, once.len()), (16, 16), "a POST was delivered twice");
    for start in seen.iter().filter(|s| !posts(s)) {
        let times = seen.iter().filter(|s| *s == start).count();
        assert!(times <= 2, "{start}: {times}");
    }
    gateway.assert_sound();
}

#[test]
fn m01_m03_an_answer_that_has_begun_and_a_body_that_is_gone_are_not_tried_again() {
    let bad = Origin::start(|request, _| {
        if request.method() == "GET" {
            Reply::Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec())
        } else {
            Reply::Reset(Vec::new())
        }
    });
    let good = Origin::echo();
    let more = "balance = \"round_robin\"\neject = false\nretry = { budget = 1.0 }\n";
    let mut gateway = Gateway::start(&config(&[bad.address, good.address], more));
    let mut cut = 0;
    for _ in 0..6 {
        let request = "GET / HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n\r\n";
        match Raw::connect(gateway.web()).send(request).try_response() {
            Ok(answer) => assert_eq!(answer.text(), "GET / 0"),
            Err(_) => cut += 1,
        }
    }
    assert_eq!(
        (cut, bad.requests().len(), good.requests().len()),
        (3, 3, 3)
    );
    let denied = "weir_retries_denied_total{upstream=\"o\",reason=\"answered\"}";
    assert_eq!(gateway.metric(denied), 3.0);
    // A large PUT is streamed and cannot be sent again; a small one can.
    for (size, lost) in [(1_000_000, true), (10_000, false)] {
        let mut all = Vec::new();
        for _ in 0..4 {
            let mut raw = Raw::connect(gateway.web());
            raw.send(format!("PUT / HTTP/1.1\r\nHost: t.test\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"));
            raw.send(vec![b'x'; size]);
            all.push(raw.response().status());
        }
        assert_eq!(all.contains(&502), lost, "{size}: {all:?}");
    }
    gateway.assert_sound();
}

#[test]
fn m04_m05_retries_add_a_fifth_to_the_load_and_no_storm() {
    const REQUESTS: usize = 300;
    let origin = Origin::start(|_, _| {
        Reply::Bytes(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let more = "eject = false\nretry = { attempts = 3, budget = 0.2, on = [\"503\"] }\n";
    let inner = Gateway::start(&config(&[origin.address], more));
    let offer = |to: SocketAddr| {
        let mut raw = Raw::connect(to);
        for _ in 0..REQUESTS {
            raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
            assert_eq!(raw.response().status(), 503);
        }
    };
    offer(inner.web());
    let load = origin.requests().len();
    assert!(load <= REQUESTS * 12 / 10 + 10, "{load}");
    assert!(load > REQUESTS, "{load}");
    let denied = "weir_retries_denied_total{upstream=\"o\",reason=\"budget\"}";
    assert!(inner.metric(denied) > 0.0);
    drop(inner);
    let inner = Gateway::start(&config(&[origin.address], more));
    let outer = Gateway::start(&config(&[inner.web()], more));
    origin.clear();
    offer(outer.web());
    let load = origin.requests().len();
    assert!(load <= REQUESTS * 15 / 10 + 10, "{load}");
}

#[test]
fn m06_a_try_that_takes_too_long_is_let_go_and_the_route_keeps_its_time() {
    let origin =
        Origin::start(|_, _| Reply::After(Duration::from_millis(1200), Box::new(ok("late"))));
    let more = "eject = false\nretry = { attempts = 2, on = [\"timeout\"], per_try_timeout = \"200ms\" }\n";
    let mut gateway =
        Gateway::start(&config(&[origin.address], more).replace("\"5s\"", "\"500ms\""));
    let started = Instant::now();
    assert_eq!(status(gateway.web(), "GET", "/"), 504);
    assert!(
        started.elapsed() < Duration::from_millis(1100),
        "{:?}",
        started.elapsed()
    );
    assert!((2..=3).contains(&origin.requests().len()));
    eventually("every try lets its connection go", || {
        gateway.metric_sum("weir_pool_connections{") == 0.0 && origin.open() == 0
    });
    gateway.assert_sound();
}

#[test]
fn m10_what_clients_do_wrong_ejects_nobody() {
    let origin = Origin::start(|request, _| match request.target() {
        "/slow" => Reply::After(Duration::from_millis(50), Box::new(ok("x"))),
        _ => Reply::Bytes(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec()),
    });
    let other = Origin::echo();
    let more = "balance = \"round_robin\"\neject = { consecutive = 2 }\n";
    let gateway = Gateway::start(&config(&[origin.address, other.address], more));
    for _ in 0..10 {
        status(gateway.web(), "GET", "/none");
        let mut raw = Raw::connect(gateway.web());
        raw.send("GET /slow HTTP/1.1\r\nHost: t.test\r\n\r\n");
        drop(raw);
        let mut raw = Raw::connect(gateway.web());
        raw.send("POST /part HTTP/1.1\r\nHost: t.test\r\nContent-Length: 100\r\n\r\npart");
        drop(raw);
    }
    eventually("all have ended", || {
        gateway.metric("weir_upstream_in_flight{upstream=\"o\"}") == 0.0
    });
    assert_eq!(
        gateway.metric("weir_upstream_ejections_total{upstream=\"o\"}"),
        0.0
    );
}

#[test]
fn m11_m12_m20_a_bad_check_takes_an_endpoint_out_and_good_ones_bring_it_back() {
    let mode = Arc::new(AtomicUsize::new(0));
    let now = mode.clone();
    let origin = Origin::start(move |request, _| {
        if request.target() != "/health" {
            return echo(request);
        }
        match now.load(SeqCst) {
            0 => ok("fine"),
            1 => Reply::Bytes(
                b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_vec(),
            ),
            2 => Reply::Close(b"HTTP/1.1 200".to_vec()),
            3 => Reply::Bytes(b"garbage\r\n\r\n".to_vec()),
            4 => Reply::After(Duration::from_millis(400), Box::new(ok("late"))),
            _ => Reply::Act(Box::new(|stream: &mut TcpStream| {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
                while stream.write_all(&[b'x'; 65536]).is_ok() {}
                false
            })),
        }
    });
    let health = "health = { path = \"/health\", interval = \"100ms\", timeout = \"150ms\", rise = 1, fall = 1 }\n";
    let mut gateway = Gateway::start(&config(
        &[origin.address],
        &format!("panic_threshold = 0\n{health}"),
    ));
    let healthy = |gateway: &Gateway, count: f64| {
        eventually("the check tells", || {
            gateway.metric("weir_upstream_endpoints{upstream=\"o\",state=\"healthy\"}") == count
        });
    };
    for bad in 1..=4 {
        mode.store(bad, SeqCst);
        healthy(&gateway, 0.0);
        eventually("workers know", || status(gateway.web(), "GET", "/") == 503);
        let mut fastest = Duration::MAX;
        for _ in 0..10 {
            let started = Instant::now();
            let answer = client::get(gateway.web(), "/");
            fastest = fastest.min(started.elapsed());
            assert!(answer.get("retry-after").is_some());
        }
        assert!(fastest < Duration::from_millis(20), "{fastest:?}");
        mode.store(0, SeqCst);
        healthy(&gateway, 1.0);
        assert_eq!(
            status(gateway.web(), "GET", "/"),
            200,
            "back at once after {bad}"
        );
    }
    // A body without end is not read: the head says enough.
    let before = gateway.rss();
    mode.store(5, SeqCst);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(status(gateway.web(), "GET", "/"), 200);
    assert!(gateway.rss() < before + 4096);
    gateway.assert_sound();
    // By default all are asked when none is healthy.
    mode.store(1, SeqCst);
    let gateway = Gateway::start(&config(&[origin.address], health));
    healthy(&gateway, 0.0);
    assert_eq!(status(gateway.web(), "GET", "/"), 200);
}

#[test]
fn m13_a_good_check_does_not_hide_that_requests_fail() {
    let bad = Origin::start(|request, _| match request.target() {
        "/health" => ok("fine"),
        _ => Reply::Bytes(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec()),
    });
    let good = Origin::echo();
    let more = "balance = \"round_robin\"\neject = { consecutive = 3, base = \"30s\" }\n\
                health = { path = \"/health\", interval = \"100ms\", timeout = \"500ms\" }\n";
    let gateway = Gateway::start(&config(&[bad.address, good.address], more));
    for _ in 0..20 {
        status(gateway.web(), "GET", "/");
    }
    assert!((0..10).all(|_| status(gateway.web(), "GET", "/") == 200));
}

/// Requests from several clients, each on one connection, until `stop`; what was not 200.
fn load(
    web: SocketAddr,
    clients: usize,
    stop: &Arc<AtomicBool>,
) -> Vec<std::thread::JoinHandle<Vec<u16>>> {
    let one = |_| {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let (mut raw, mut bad) = (Raw::connect(web), Vec::new());
            while !stop.load(SeqCst) {
                raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
                let answer = raw.response();
                if answer.status() != 200 {
                    bad.push(answer.status());
                }
                if answer
                    .get("connection")
                    .is_some_and(|c| c.eq_ignore_ascii_case("close"))
                {
                    raw = Raw::connect(web);
                }
            }
            bad
        })
    };
    (0..clients).map(one).collect()
}

#[test]
fn m14_a_slow_endpoint_is_asked_less() {
    let slow = Origin::start(|_, _| Reply::After(Duration::from_millis(200), Box::new(ok("x"))));
    let fast = || Origin::start(|_, _| Reply::After(Duration::from_millis(20), Box::new(ok("x"))));
    let (b, c) = (fast(), fast());
    let gateway = Gateway::start(&config(&[slow.address, b.address, c.address], ""));
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(gateway.web(), 6, &stop);
    std::thread::sleep(Duration::from_millis(2000));
    let before = [&slow, &b, &c].map(|o| o.requests().len());
    std::thread::sleep(Duration::from_millis(1000));
    let after = [&slow, &b, &c].map(|o| o.requests().len());
    stop.store(true, SeqCst);
    for client in clients {
        assert!(client.join().expect("no panic").is_empty());
    }
    let asked: Vec<usize> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    let all: usize = asked.iter().sum();
    // Its third, less four fifths of it.
    assert!(asked[0] * 15 <= all, "{asked:?}");
}

#[test]
fn m15_endpoints_come_and_go_by_reload_without_an_error() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::echo()).collect();
    let at: Vec<SocketAddr> = origins.iter().map(|o| o.address).collect();
    let gateway = Gateway::start(&config(&at, ""));
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(gateway.web(), 4, &stop);
    for round in 0..6 {
        let some = if round % 2 == 0 { &at[..2] } else { &at[..] };
        gateway.write_config(&config(some, ""));
        assert_eq!(gateway.reload().0, 200);
        std::thread::sleep(Duration::from_millis(60));
    }
    gateway.write_config(&config(&at[..2], ""));
    assert_eq!(gateway.reload().0, 200);
    eventually("the third is let go", || origins[2].open() == 0);
    let third = origins[2].requests().len();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(origins[2].requests().len(), third);
    stop.store(true, SeqCst);
    for client in clients {
        assert_eq!(client.join().expect("no panic"), [0; 0]);
    }
}

#[test]
fn m15_an_endpoint_that_is_gone_drains_until_its_requests_have_ended() {
    let slow = Origin::start(|_, _| Reply::After(Duration::from_secs(3), Box::new(ok("late"))));
    let other = Origin::echo();
    let gateway = Gateway::start(&config(&[slow.address], ""));
    let states = || {
        ["healthy", "draining"].map(|state| {
            let series = format!("weir_upstream_endpoints{{upstream=\"o\",state=\"{state}\"}}");
            gateway.metric(&series)
        })
    };
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    eventually("it is under way", || slow.requests().len() == 1);
    assert_eq!(states(), [1.0, 0.0]);
    gateway.write_config(&config(&[other.address], ""));
    assert_eq!(gateway.reload().0, 200);
    eventually("it drains", || states() == [1.0, 1.0]);
    let status = gateway.ask_admin("/status").text();
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let leaving = &status["upstreams"][0]["endpoints"][1];
    assert_eq!(leaving["address"], slow.address.to_string());
    assert_eq!(leaving["state"], "draining");
    assert_eq!(raw.response().text(), "late");
    eventually("it is gone", || states() == [1.0, 0.0]);
}

#[test]
fn m15_a_name_without_an_address_is_counted() {
    let gateway = Gateway::start(
        &config(&[closed()], "").replace("endpoints = [", "endpoints = [\"nobody.invalid:1\", "),
    );
    for (state, count) in [("healthy", 1.0), ("unresolved", 1.0), ("draining", 0.0)] {
        let series = format!("weir_upstream_endpoints{{upstream=\"o\",state=\"{state}\"}}");
        assert_eq!(gateway.metric(&series), count, "{state}");
    }
}

#[test]
fn m16_a_great_many_endpoints_are_no_burden() {
    // 127.0.0.0/8 is all this machine: one socket answers for every address of it.
    let listener = on_all_of_loopback();
    let port = listener.local_addr().expect("bound").port();
    let _origin = Origin::at(listener, |request, _| echo(request));
    let many: Vec<SocketAddr> = (0..10_000u32)
        .map(|n| SocketAddr::from(([127, 1, (n / 250) as u8, (n % 250 + 1) as u8], port)))
        .collect();
    let gateway = Gateway::start(&config(&many, ""));
    status(gateway.web(), "GET", "/");
    let started = Instant::now();
    let mut raw = Raw::connect(gateway.web());
    for _ in 0..100 {
        raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
        assert_eq!(raw.response().status(), 200);
    }
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    // Hardly ever the same one twice.
    let new = gateway.metric("weir_pool_checkouts_total{upstream=\"o\",source=\"new\"}");
    assert!(new > 90.0, "{new}");
}

/// A socket for every loopback address, and for no other where the kernel lets us say so.
fn on_all_of_loopback() -> TcpListener {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    drop(socket.bind_device(Some(b"lo")));
    let any: SocketAddr = "0.0.0.0:0".parse().expect("an address");
    socket.bind(&any.into()).expect("bound");
    socket.listen(128).expect("listens");
    socket.into()
}

#[test]
fn m17_a_full_queue_refuses_at_once() {
    let origin = Origin::start(|_, _| Reply::After(Duration::from_millis(600), Box::new(ok("x"))));
    let more = "pool = { max_connections = 1, max_pending = 1, pending_timeout = \"5s\" }\n";
    let mut gateway = Gateway::start(&config(&[origin.address], more));
    let web = gateway.web();
    let held: Vec<_> = (0..2)
        .map(|_| std::thread::spawn(move || status(web, "GET", "/")))
        .collect();
    eventually("one waits", || {
        gateway.metric("weir_pool_waiting{upstream=\"o\"}") == 1.0
    });
    let mut raw = Raw::connect(web);
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        let started = Instant::now();
        raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
        let answer = raw.response();
        fastest = fastest.min(started.elapsed());
        assert_eq!(answer.status(), 503);
        assert!(answer.get("retry-after").is_some());
    }
    assert!(fastest < Duration::from_millis(5), "{fastest:?}");
    for one in held {
        assert_eq!(one.join().expect("no panic"), 200);
    }
    gateway.assert_sound();
}

#[test]
fn m17_a_request_that_waits_gets_the_idle_connection_of_another_worker() {
    let origin = Origin::echo();
    let more = "pool = { max_connections = 1, pending_timeout = \"300ms\" }\n";
    let mut gateway = Gateway::start(&config(&[origin.address], more));
    // Connections are spread over the workers: each holds one client, and they take turns.
    let mut clients: Vec<Raw> = (0..6).map(|_| Raw::connect(gateway.web())).collect();
    for _ in 0..30 {
        for raw in &mut clients {
            raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
            assert_eq!(raw.response().status(), 200);
        }
    }
    // And all at once: no worker keeps the one connection to itself.
    for _ in 0..30 {
        for raw in &mut clients {
            raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
        }
        for raw in &mut clients {
            assert_eq!(raw.response().status(), 200);
        }
    }
    assert!(origin.open() <= 2);
    gateway.assert_sound();
}

#[test]
fn m18_m19_an_endpoint_that_cannot_be_reached_costs_a_moment_and_no_request() {
    let good = Origin::echo();
    // Nobody accepts here, and the backlog is full: the kernel drops every further SYN.
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("bound");
    socket.listen(0).expect("listens");
    let full = socket
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("IPv4");
    let fill: Vec<_> = (0..4)
        .map(|_| TcpStream::connect_timeout(&full, Duration::from_millis(100)))
        .collect();
    assert!(fill.iter().any(Result::is_err), "the backlog is full");
    let cases = [
        (full, Duration::from_millis(1500)),
        (closed(), Duration::from_millis(290)),
    ];
    for (bad, most) in cases {
        let more = "balance = \"round_robin\"\neject = false\nretry = { budget = 1.0 }\ntimeouts = { connect = \"300ms\" }\n";
        let gateway = Gateway::start(&config(&[bad, good.address], more));
        for method in ["GET", "POST", "GET", "POST"] {
            let started = Instant::now();
            assert_eq!(status(gateway.web(), method, "/"), 200);
            assert!(started.elapsed() < most, "{:?}", started.elapsed());
        }
        assert!(gateway.metric("weir_retries_total{upstream=\"o\",outcome=\"success\"}") > 0.0);
    }
}

#[test]
fn m20_upstreams_that_come_back_are_used_at_once_and_within_the_cap() {
    let address = closed();
    let more = "pool = { max_connections = 3, max_pending = 100, pending_timeout = \"3s\" }\n\
                eject = { consecutive = 1, base = \"60s\" }\n";
    let mut gateway = Gateway::start(&config(&[address], more));
    for _ in 0..20 {
        assert_eq!(status(gateway.web(), "GET", "/"), 502);
    }
    let busy = Arc::new(Mutex::new((0usize, 0usize)));
    let count = busy.clone();
    let listener = TcpListener::bind(address).expect("the port is still free");
    let _origin = Origin::at(listener, move |_, _| {
        {
            let mut now = count.lock().expect("no panic");
            now.0 += 1;
            now.1 = now.1.max(now.0);
        }
        std::thread::sleep(Duration::from_millis(5));
        count.lock().expect("no panic").0 -= 1;
        ok("x")
    });
    let web = gateway.web();
    let many: Vec<_> = (0..40)
        .map(|_| std::thread::spawn(move || status(web, "GET", "/")))
        .collect();
    for one in many {
        assert_eq!(one.join().expect("no panic"), 200);
    }
    assert!(busy.lock().expect("no panic").1 <= 3);
    gateway.assert_sound();
}
