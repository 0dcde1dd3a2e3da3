//! Caps on what is in flight, by the front door.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::harness::gateway::before;
use super::harness::{Gateway, Origin, Raw, Reply, SOON, client, eventually, h2c, origin};

/// An origin that answers when it is told, and knows what it was asked and how much at once.
struct Held {
    origin: Origin,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Paths in the order of arrival.
    asked: Mutex<Vec<String>>,
    /// How many may still be answered.
    let_go: Mutex<usize>,
    told: Condvar,
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Held {
    fn start() -> Held {
        let state = Arc::new(State::default());
        let shared = state.clone();
        let origin = Origin::start(move |request, _| {
            let now = shared.inside.fetch_add(1, SeqCst) + 1;
            shared.most.fetch_max(now, SeqCst);
            shared
                .asked
                .lock()
                .expect("whole")
                .push(request.target().to_owned());
            let answers = shared.let_go.lock().expect("whole");
            let wait = shared
                .told
                .wait_timeout_while(answers, SOON * 3, |n| *n == 0);
            let (mut answers, _) = wait.expect("whole");
            *answers = answers.saturating_sub(1);
            shared.inside.fetch_sub(1, SeqCst);
            origin::ok("done")
        });
        Held { origin, state }
    }

    fn answer(&self, count: usize) {
        *self.state.let_go.lock().expect("whole") += count;
        self.state.told.notify_all();
    }

    fn asked(&self) -> Vec<String> {
        self.state.asked.lock().expect("whole").clone()
    }

    fn waits_for(&self, count: usize) {
        eventually("the origin is asked", || self.asked().len() == count);
    }
}

fn config(origin: SocketAddr, concurrency: &str) -> String {
    before(origin, "retry = false") + &format!("concurrency = {concurrency}\n")
}

/// A GET under way on a connection of its own.
fn ask(gateway: &Gateway, target: &str) -> Raw {
    let mut client = Raw::connect(gateway.web());
    client.send(format!("GET {target} HTTP/1.1\r\nHost: t.test\r\n\r\n"));
    client
}

/// The client is gone, and says so: an end alone may be the end of what it sends.
fn reset(client: Raw) {
    let socket = socket2::SockRef::from(client.stream());
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
}

fn in_flight(gateway: &Gateway) -> u64 {
    let status = gateway.ask_admin("/status");
    let status: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
    let of = |kind: &str| status[kind][0]["concurrency"][0]["in_flight"].as_u64();
    of("routes").or(of("upstreams")).expect("a cap")
}

const WAITING: &str = "weir_queue_waiting{route=\"all\"}";

#[test]
fn a_cap_is_exact_over_two_workers_and_the_rest_is_refused() {
    let held = Held::start();
    let gateway = Gateway::start(&config(held.origin.address, "{ max = 3 }"));
    let mut clients: Vec<Raw> = (0..20).map(|_| ask(&gateway, "/")).collect();
    held.waits_for(3);
    let refusals =
        "weir_request_errors_total{route=\"all\",side=\"gateway\",reason=\"queue_full\"}";
    eventually("the others are refused", || {
        gateway.metric(refusals) == 17.0
    });
    assert_eq!(in_flight(&gateway), 3);
    held.answer(3);
    let mut statuses: Vec<u16> = Vec::new();
    for client in &mut clients {
        let answer = client.response();
        if answer.status() == 503 {
            assert!(answer.get("retry-after").is_some());
            assert!(
                answer
                    .get("proxy-status")
                    .is_some_and(|v| v.contains("proxy_internal_response"))
            );
        }
        statuses.push(answer.status());
    }
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 3);
    assert_eq!(statuses.iter().filter(|s| **s == 503).count(), 17);
    assert_eq!(in_flight(&gateway), 0);
    assert_eq!(held.state.most.load(SeqCst), 3);
}

/// Lets one in and puts four behind it, `/1` to `/4`, each known to stand in the queue.
fn queue_of_four(gateway: &Gateway, held: &Held) -> Vec<Raw> {
    let mut line = vec![ask(gateway, "/0")];
    held.waits_for(1);
    for n in 1..=4 {
        line.push(ask(gateway, &format!("/{n}")));
        eventually("it stands in the queue", || {
            gateway.metric(WAITING) == f64::from(n)
        });
    }
    line
}

/// Answers one after the other; the order in which the origin saw them.
fn order(held: &Held, count: usize) -> Vec<String> {
    for n in 1..count {
        held.answer(1);
        held.waits_for(n + 1);
    }
    held.answer(1);
    held.asked()
}

#[test]
fn who_waits_is_served_in_the_order_of_arrival() {
    let held = Held::start();
    let cap = "{ max = 1, queue = 4, queue_timeout = \"20s\" }";
    let gateway = Gateway::start(&config(held.origin.address, cap));
    let mut line = queue_of_four(&gateway, &held);
    assert_eq!(
        client::get(gateway.web(), "/5").status(),
        503,
        "the queue is full"
    );
    assert_eq!(order(&held, 5), ["/0", "/1", "/2", "/3", "/4"]);
    assert!(line.iter_mut().all(|c| c.response().status() == 200));
    assert_eq!(
        gateway.metric("weir_queue_wait_seconds_count{route=\"all\"}"),
        4.0
    );
    assert_eq!(gateway.metric(WAITING), 0.0);
}

#[test]
fn under_overload_the_newest_are_served_first_where_it_is_so_configured() {
    let held = Held::start();
    let cap = "{ max = 1, queue = 4, queue_timeout = \"20s\", order = \"newest_first\" }";
    let gateway = Gateway::start(&config(held.origin.address, cap));
    let mut line = queue_of_four(&gateway, &held);
    let mut fifth = ask(&gateway, "/5");
    let turned_away = line[1].response();
    assert_eq!(
        turned_away.status(),
        503,
        "a full queue turns away its oldest"
    );
    assert_eq!(order(&held, 5), ["/0", "/5", "/4", "/2", "/3"]);
    assert_eq!(fifth.response().status(), 200);
}

#[test]
fn a_wait_ends_at_its_timeout_with_503() {
    let held = Held::start();
    let cap = "{ max = 1, queue = 4, queue_timeout = \"100ms\" }";
    let gateway = Gateway::start(&config(held.origin.address, cap));
    let mut first = ask(&gateway, "/0");
    held.waits_for(1);
    let begun = Instant::now();
    assert_eq!(client::get(gateway.web(), "/1").status(), 503);
    assert!(begun.elapsed() >= Duration::from_millis(100));
    held.answer(1);
    assert_eq!(first.response().status(), 200);
    assert_eq!((in_flight(&gateway), held.asked().len()), (0, 1));
}

#[test]
fn a_client_that_gives_up_in_the_queue_leaves_no_trace() {
    let held = Held::start();
    let cap = "{ max = 1, queue = 4, queue_timeout = \"20s\" }";
    let gateway = Gateway::start(&config(held.origin.address, cap));
    let mut first = ask(&gateway, "/0");
    held.waits_for(1);
    // Over HTTP/2 a client can give up one request and keep the others.
    h2c::converse(gateway.web(), async |mut send| {
        let mut line = Vec::new();
        for n in 1..=4 {
            send = send.ready().await.expect("it takes more");
            let asked = send.send_request(h2c::get(&format!("/{n}")), true);
            line.push(asked.expect("it goes out"));
            tokio::task::yield_now().await;
        }
        let waiting = |count| {
            let gateway = &gateway;
            async move {
                let end = Instant::now() + SOON;
                while gateway.metric(WAITING) != count {
                    assert!(Instant::now() < end, "{count} are to wait");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        waiting(4.0).await;
        let (last, _) = line.pop().expect("four");
        for (_, mut stream) in line {
            stream.send_reset(::h2::Reason::CANCEL);
        }
        waiting(1.0).await;
        held.answer(2);
        assert_eq!(last.await.expect("an answer").status(), 200);
    });
    assert_eq!(first.response().status(), 200);
    assert_eq!(held.asked(), ["/0", "/4"]);
    eventually("nothing is left", || in_flight(&gateway) == 0);
}

#[test]
fn each_client_has_a_cap_of_its_own_and_a_spoofed_address_is_no_other_client() {
    let held = Held::start();
    let caps = "[{ max = 2, key = \"header:x-user\" }, { max = 4, key = \"client_ip\" }]";
    let gateway = Gateway::start(&config(held.origin.address, caps));
    let from = |user: &str, more: &str| {
        let mut client = Raw::connect(gateway.web());
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: t.test\r\nX-User: {user}\r\n{more}\r\n"
        ));
        client
    };
    let mut inside = vec![from("a", ""), from("a", ""), from("b", "")];
    held.waits_for(3);
    assert_eq!(from("a", "").response().status(), 503, "a has two");
    inside.push(from("b", ""));
    held.waits_for(4);
    let spoofed = "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n";
    assert_eq!(
        from("c", spoofed).response().status(),
        503,
        "the address has four"
    );
    held.answer(4);
    assert!(inside.iter_mut().all(|c| c.response().status() == 200));
    eventually("nothing is left", || in_flight(&gateway) == 0);
    held.answer(1);
    assert_eq!(from("a", "").response().status(), 200);
}

#[test]
fn a_place_is_held_to_the_last_byte_of_the_body() {
    let origin = Origin::start(|_, _| {
        Reply::Act(Box::new(|stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
            stream.write_all(head.as_bytes()).expect("it takes it");
            // The rest comes when the other side says so, by another connection.
            std::thread::sleep(Duration::from_millis(300));
            stream.write_all(b"world").is_ok()
        }))
    });
    let gateway = Gateway::start(&config(origin.address, "{ max = 1 }"));
    let mut first = ask(&gateway, "/");
    eventually("it has begun", || in_flight(&gateway) == 1);
    let begun = first
        .reader()
        .get_mut()
        .read(&mut [0; 10])
        .expect("a piece");
    assert!(begun > 0);
    assert_eq!(client::get(gateway.web(), "/").status(), 503);
    eventually("it has ended", || in_flight(&gateway) == 0);
}

#[test]
fn a_tunnel_holds_its_places_on_the_route_and_at_the_upstream() {
    let origin = Origin::start(|_, _| {
        Reply::Act(Box::new(|stream| {
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\n\r\n";
            stream.write_all(head.as_bytes()).expect("it takes it");
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|n| n > 0) {}
            false
        }))
    });
    let config = before(origin.address, "concurrency = { max = 3 }")
        + "concurrency = { max = 2 }\nupgrade = [\"websocket\"]\n";
    let gateway = Gateway::start(&config);
    let upgrade = "GET / HTTP/1.1\r\nHost: t.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let tunnels: Vec<Raw> = (0..2)
        .map(|_| {
            let mut client = Raw::connect(gateway.web());
            client.send(upgrade);
            let head = client.reader().response_head().expect("an answer");
            assert_eq!(head.status(), 101);
            client
        })
        .collect();
    assert_eq!(in_flight(&gateway), 2);
    assert_eq!(client::get(gateway.web(), "/").status(), 503);
    let at_upstream = || {
        let status = gateway.ask_admin("/status");
        let status: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
        status["upstreams"][0]["concurrency"][0]["in_flight"].as_u64()
    };
    assert_eq!(at_upstream(), Some(2));
    drop(tunnels);
    eventually("both are free again", || {
        in_flight(&gateway) == 0 && at_upstream() == Some(0)
    });
}

#[test]
fn k11_aborts_at_every_stage_leak_no_place() {
    let origin = Origin::start(|request, n| match n % 3 {
        0 => Reply::Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel".to_vec()),
        1 => Reply::Close(Vec::new()),
        _ => origin::echo(request),
    });
    let caps =
        "[{ max = 8, queue = 8, queue_timeout = \"50ms\" }, { max = 12, key = \"client_ip\" }]";
    let config = before(
        origin.address,
        "concurrency = { max = 6, queue = 2, queue_timeout = \"20ms\" }",
    ) + &format!("concurrency = {caps}\n");
    let mut gateway = Gateway::start(&config);
    let web = gateway.web();
    let threads: Vec<_> = (0..4u64)
        .map(|seed| {
            std::thread::spawn(move || {
                for n in 0..250u64 {
                    let mut client = Raw::connect(web);
                    let kind = (seed * 250 + n) % 4;
                    let body = "POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 9\r\n\r\nhal";
                    let get = "GET / HTTP/1.1\r\nHost: t.test\r\n\r\n";
                    client.send(if kind == 0 { body } else { get });
                    if kind == 1 {
                        drop(client.try_response());
                    }
                    if kind == 2 {
                        reset(client);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    gateway.wait_idle();
    eventually("no place is taken", || {
        let status = gateway.ask_admin("/status");
        let status: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
        let route = status["routes"][0]["concurrency"].as_array().expect("caps");
        let upstream = status["upstreams"][0]["concurrency"]
            .as_array()
            .expect("a cap");
        let mut all = route.iter().chain(upstream);
        all.all(|cap| {
            cap["in_flight"] == 0
                && cap["waiting"] == 0
                && cap["clients"].as_u64().unwrap_or(0) == 0
        })
    });
    gateway.assert_sound();
}

#[test]
fn a_reload_changes_the_cap_and_loses_no_count() {
    let held = Held::start();
    let with = |cap: &str| config(held.origin.address, cap);
    let gateway = Gateway::start(&with("{ max = 1, queue = 3, queue_timeout = \"20s\" }"));
    let reload = |cap: &str| {
        gateway.write_config(&with(cap));
        assert_eq!(gateway.reload().0, 200);
    };
    let mut line = queue_of_four_less_one(&gateway, &held);
    reload("{ max = 3, queue = 3, queue_timeout = \"20s\" }");
    held.waits_for(3);
    eventually("one still waits", || gateway.metric(WAITING) == 1.0);
    assert_eq!(in_flight(&gateway), 3);
    reload("{ max = 2 }");
    assert_eq!(
        client::get(gateway.web(), "/no").status(),
        503,
        "three are in, two may be"
    );
    held.answer(1);
    eventually("one has left", || in_flight(&gateway) == 2);
    held.answer(3);
    assert!(line.iter_mut().all(|c| c.response().status() == 200));
    assert_eq!(in_flight(&gateway), 0);
    assert_eq!(held.state.most.load(SeqCst), 3);
}

fn queue_of_four_less_one(gateway: &Gateway, held: &Held) -> Vec<Raw> {
    let mut line = vec![ask(gateway, "/0")];
    held.waits_for(1);
    for n in 1..=3 {
        line.push(ask(gateway, &format!("/{n}")));
        eventually("it stands in the queue", || {
            gateway.metric(WAITING) == f64::from(n)
        });
    }
    line
}

#[test]
fn a_cap_that_observes_counts_and_says_so_and_refuses_nobody() {
    let held = Held::start();
    let config = config(held.origin.address, "{ max = 1, mode = \"observe\" }");
    let config = config
        .replace("[listeners.web]", "[listeners.web]\n")
        .to_owned();
    let preamble = "[server]\nworkers = 2\ntrusted_proxies = [\"127.0.0.1\"]\n\
                    drain = { delay = \"0s\", timeout = \"10s\" }\n[admin]\naddress = \"127.0.0.1:0\"\n";
    let gateway = Gateway::start_bare(&format!("{preamble}{config}"));
    let mut first = ask(&gateway, "/");
    held.waits_for(1);
    let mut second = Raw::connect(gateway.web());
    second.send("GET / HTTP/1.1\r\nHost: t.test\r\nWeir-Debug: observe\r\n\r\n");
    held.waits_for(2);
    held.answer(2);
    assert_eq!(first.response().status(), 200);
    let told = second.response();
    assert_eq!(
        (told.status(), told.get("weir-observed")),
        (200, Some("queue_full"))
    );
    let observed = "weir_observed_total{route=\"all\",reason=\"queue_full\"}";
    eventually("it is counted", || gateway.metric(observed) == 1.0);
    assert_eq!(in_flight(&gateway), 0);
}

#[test]
fn an_upstream_has_a_cap_for_all_of_its_routes_and_shows_it() {
    let held = Held::start();
    let upstream = "retry = false\nconcurrency = { max = 2 }";
    let config = before(held.origin.address, upstream)
        .replace("id = \"all\"", "id = \"a\"\nmatch = { path = \"/a\" }")
        + "[[routes]]\nid = \"b\"\nmatch = { path = \"/b\" }\nupstream = \"o\"\n";
    let gateway = Gateway::start(&config);
    assert_eq!(
        gateway.metric("weir_concurrency_limit{upstream=\"o\"}"),
        2.0
    );
    let mut inside = [ask(&gateway, "/a"), ask(&gateway, "/b")];
    held.waits_for(2);
    assert_eq!(client::get(gateway.web(), "/a").status(), 503);
    assert_eq!(client::get(gateway.web(), "/b").status(), 503);
    held.answer(2);
    assert!(inside.iter_mut().all(|c| c.response().status() == 200));
}

#[test]
fn an_adaptive_cap_is_lowered_by_an_upstream_that_makes_requests_wait() {
    // Two at a time, 5 ms each: whoever comes beyond that waits.
    let room = Arc::new((Mutex::new(2usize), Condvar::new()));
    let origin = Origin::start(move |_, _| {
        let (free, told) = &*room;
        let wait = told.wait_while(free.lock().expect("whole"), |free| *free == 0);
        *wait.expect("whole") -= 1;
        std::thread::sleep(Duration::from_millis(5));
        *free.lock().expect("whole") += 1;
        told.notify_one();
        origin::ok("done")
    });
    let cap = "{ max = 100, min = 2, adaptive = true, queue = 100, queue_timeout = \"5s\" }";
    let gateway = Gateway::start(&before(origin.address, &format!("concurrency = {cap}")));
    let limit = || gateway.metric("weir_concurrency_limit{upstream=\"o\"}");
    assert_eq!(limit(), 20.0);
    let (web, stop) = (gateway.web(), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..24)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut client = Raw::connect(web);
                while stop.load(SeqCst) == 0 {
                    client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
                    assert_eq!(client.response().status(), 200);
                }
            })
        })
        .collect();
    let end = Instant::now() + SOON;
    while limit() > 12.0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = limit();
    stop.store(1, SeqCst);
    for client in clients {
        client.join().expect("no panic");
    }
    assert!((2.0..=12.0).contains(&found), "{found}");
}
