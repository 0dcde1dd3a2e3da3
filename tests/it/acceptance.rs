//! What the gateway is for: reloads under load, broken configs, a drain under load, large bodies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::parse::{Message, Reader};
use super::harness::{Gateway, Origin, Raw, Reply, SOON, client, eventually, h2c, origin};

/// A flag that threads look at.
#[derive(Clone, Default)]
struct Flag(Arc<AtomicBool>);

impl Flag {
    fn raise(&self) {
        self.0.store(true, SeqCst);
    }

    fn up(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// Answers as `echo`; `/drip` gives a byte every 20 ms until the flag is up, `/ws` leaves HTTP.
fn town(stop: Flag) -> Origin {
    Origin::start(move |request, _| match request.target() {
        "/drip" => Reply::Act(drip(stop.clone())),
        "/ws" => Reply::Act(Box::new(talk)),
        _ => origin::echo(request),
    })
}

fn drip(stop: Flag) -> Box<dyn FnOnce(&mut TcpStream) -> bool + Send> {
    Box::new(move |stream| {
        let mut go = |bytes: &[u8]| stream.write_all(bytes).is_ok();
        let mut on = go(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while on && !stop.up() {
            on = go(b"1\r\n.\r\n");
            std::thread::sleep(Duration::from_millis(20));
        }
        on && go(b"3\r\nend\r\n0\r\n\r\n")
    })
}

/// Gives back what comes, without HTTP.
fn talk(stream: &mut TcpStream) -> bool {
    let head =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut buffer = [0; 4096];
    let mut on = stream.write_all(head).is_ok();
    while on {
        on = match stream.read(&mut buffer) {
            Ok(n @ 1..) => stream.write_all(&buffer[..n]).is_ok(),
            _ => false,
        };
    }
    false
}

const WS: &str = "GET /ws HTTP/1.1\r\nHost: t.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Messages there and back over one tunnel until the flag is up; how many.
fn chat(web: SocketAddr, stop: Flag) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut raw = Raw::connect(web);
        assert_eq!(raw.send(WS).response().status(), 101);
        let mut count = 0_u64;
        while !stop.up() {
            let message = format!("message {count:020}");
            raw.send(&message);
            let mut back = vec![0; message.len()];
            raw.stream()
                .read_exact(&mut back)
                .expect("the tunnel holds");
            assert_eq!(back, message.as_bytes());
            count += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        count
    })
}

/// Requests on one kept connection until the flag is up; how many.
fn browse(web: SocketAddr, stop: Flag, pause: Duration) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut raw = Raw::connect(web);
        let mut count = 0_u64;
        while !stop.up() {
            let body = if count.is_multiple_of(2) { "" } else { "hello" };
            let (method, length) = (if body.is_empty() { "GET" } else { "POST" }, body.len());
            raw.send(format!(
                "{method} /n HTTP/1.1\r\nHost: t.test\r\nX-Nonce: {count}\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            let answer = raw.response();
            assert_eq!(answer.status(), 200, "{}", answer.text());
            assert_eq!(answer.get("x-nonce"), Some(count.to_string().as_str()));
            assert_eq!(answer.text(), format!("{method} /n {length}"));
            count += 1;
            std::thread::sleep(pause);
        }
        count
    })
}

/// One download that lasts until the origin ends it.
fn download(web: SocketAddr) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut raw = Raw::connect(web);
        let answer = raw
            .send("GET /drip HTTP/1.1\r\nHost: t.test\r\n\r\n")
            .response();
        assert_eq!(answer.status(), 200);
        assert!(answer.body.ends_with(b".end"), "{}", answer.body.len());
        answer.body.len() as u64
    })
}

/// One upload that lasts until the flag is up.
fn upload(web: SocketAddr, stop: Flag) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut raw = Raw::connect(web);
        raw.send("POST /up HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut sent = 0;
        while !stop.up() {
            raw.send("a\r\n0123456789\r\n");
            sent += 10;
            std::thread::sleep(Duration::from_millis(20));
        }
        let answer = raw.send("0\r\n\r\n").response();
        assert_eq!(answer.text(), format!("POST /up {sent}"));
        sent
    })
}

/// One of eight configs that differ in routes, fields, times and the order of endpoints.
fn variant(number: usize, origins: [SocketAddr; 2]) -> String {
    let [a, b] = origins;
    let endpoints = if number & 1 == 0 {
        format!("\"{a}\", \"{b}\"")
    } else {
        format!("\"{b}\", \"{a}\"")
    };
    let extra = match number % 3 {
        0 => "",
        1 => {
            "[[routes]]\nid = \"extra\"\nmatch = { path = \"/extra\" }\nrespond = { body = \"x\" }\n"
        }
        _ => {
            "[[routes]]\nid = \"gone\"\nmatch = { path = \"/gone/*\" }\nredirect = { to = \"/n/*\" }\n"
        }
    };
    format!(
        "[log]\naccess = {{ to = \"off\" }}\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\n\
         [upstreams.o]\nendpoints = [{endpoints}]\n\
         timeouts = {{ first_byte = \"{first}s\", idle = \"60s\" }}\n\
         pool = {{ idle_timeout = \"{idle}s\" }}\n{extra}\
         [[routes]]\nid = \"ws\"\nmatch = {{ path = \"/ws\" }}\nupstream = \"o\"\nupgrade = [\"websocket\"]\n\
         [[routes]]\nid = \"all\"\nupstream = \"o\"\ntimeout = \"{timeout}s\"\n\
         headers = {{ response = {{ set = {{ x-variant = \"{number}\" }} }} }}\n",
        first = 40 + number % 4,
        idle = 2 + number % 2,
        timeout = 60 + number % 5,
    )
}

#[test]
fn n07_n11_three_hundred_reloads_under_load_fail_no_request_and_drop_no_stream() {
    let stop = Flag::default();
    let origins = [town(stop.clone()), town(stop.clone())];
    let addresses = [origins[0].address, origins[1].address];
    let mut gateway = Gateway::start(&variant(0, addresses));
    let (web, idle) = (gateway.web(), gateway.descriptors());
    let load: Vec<JoinHandle<u64>> = (0..4)
        .map(|_| browse(web, stop.clone(), Duration::from_millis(5)))
        .chain((0..4).map(|_| chat(web, stop.clone())))
        .chain([download(web), upload(web, stop.clone())])
        .collect();
    let mut warm = 0;
    for number in 1..=300 {
        gateway.write_config(&variant(number, addresses));
        let (status, report) = gateway.reload();
        assert_eq!(status, 200, "{report}");
        // the watch may have been there first
        let outcome = report["outcome"].as_str();
        assert!(matches!(outcome, Some("applied" | "unchanged")), "{report}");
        let broken = load.iter().position(JoinHandle::is_finished);
        assert_eq!(broken, None, "at reload {number}");
        std::thread::sleep(Duration::from_millis(25));
        if number == 60 {
            warm = gateway.rss();
        }
    }
    let grown = gateway.rss().saturating_sub(warm);
    assert_eq!(gateway.metric("weir_config_generation"), 301.0);
    let answer = client::get(web, "/n");
    assert_eq!(answer.get("x-variant"), Some("300"));
    stop.raise();
    for (at, one) in load.into_iter().enumerate() {
        let count = one.join().expect("no request failed");
        assert!(count > 50, "client {at} was served {count} times only");
    }
    assert!(grown <= 8 << 10, "resident memory grew by {grown} KiB");
    for origin in &origins {
        assert_eq!(origin.bad(), Vec::<String>::new());
    }
    eventually("old plans are gone", || {
        drop(gateway.reload());
        gateway.metric("weir_config_plans") <= 2.0
    });
    gateway.wait_idle();
    eventually("descriptors are given back", || {
        gateway.descriptors() <= idle + 4
    });
    assert_eq!(gateway.metric_sum("weir_request_errors_total"), 0.0);
    gateway.assert_sound();
}

/// A config that uses most of the keys, to be broken in many ways.
fn rich(origin: SocketAddr) -> String {
    format!(
        r#"[log]
level = "warn"
access = {{ to = "off", sample = 0.5 }}
[defaults]
timeout = "30s"
max_body = "1GiB"
[listeners.web]
address = "127.0.0.1:0"
protocols = ["http1", "h2"]
proxy_protocol = false
max_connections = 2000
[listeners.web.limits]
headers = 100
header_bytes = "32KiB"
header_timeout = "10s"
idle_timeout = "60s"
body_idle_timeout = "30s"
write_timeout = "30s"
streams = 100
[upstreams.o]
endpoints = ["{origin}", {{ address = "127.0.0.1:9", priority = 1 }}]
protocol = "http1"
balance = "p2c"
panic_threshold = 50
slow_start = "30s"
resolve_interval = "10s"
[upstreams.o.timeouts]
connect = "1s"
first_byte = "15s"
idle = "60s"
[upstreams.o.pool]
max_connections = 64
max_idle = 16
idle_timeout = "55s"
max_age = "1h"
max_pending = 256
pending_timeout = "1s"
[upstreams.o.eject]
consecutive = 5
base = "10s"
max_percent = 50
[upstreams.o.retry]
attempts = 2
budget = 0.2
on = ["connect", "reset", "502"]
per_try_timeout = "5s"
[[routes]]
id = "api"
match = {{ host = "api.example.com", path = "/v1/*", methods = ["GET", "POST"] }}
upstream = "o"
timeout = "10s"
[[routes]]
id = "shop"
split = [{{ upstream = "o", weight = 95 }}]
match = {{ path = "/shop/{{id}}/image", query = {{ v = "2" }} }}
rewrite = {{ prefix = "/shop", with = "/store" }}
[[routes]]
id = "old"
match = {{ path = "/old/*" }}
redirect = {{ to = "/new/*", status = 308 }}
[[routes]]
id = "ping"
match = {{ path = "/ping" }}
respond = {{ status = 200, body = "pong" }}
[[routes]]
id = "all"
upstream = "o"
"#
    )
}

/// Ways to break the line `key = value` at `at`; each makes the whole invalid.
fn broken(lines: &[&str], at: usize) -> Vec<String> {
    let Some((key, value)) = lines[at].split_once(" = ") else {
        let line = lines[at];
        let other = [
            format!("{line}]"),
            line[1..].to_owned(),
            line[..line.len() - 1].to_owned(),
            format!("{line}\n{line} {line}"),
            line.replace(']', ".nonsense]"),
        ];
        return with(lines, at, &other);
    };
    let wrong = if value.starts_with('"') || value.starts_with('[') {
        "17"
    } else {
        "\"wrong\""
    };
    let other = [
        format!("{key}x = {value}"),
        format!("{key} = {wrong}"),
        format!("{key} = "),
        format!("{key} {value}"),
        format!("{key} = {value}\n{key} = {value}"),
        format!("{key} = \"${{NO_SUCH_VARIABLE}}\""),
        format!("{key} = \"unclosed"),
        format!("{key} = [[1, {{ a = 2 }}]"),
        format!("{key} = {value} \u{1}"),
        format!("{key} = -1e400"),
    ];
    with(lines, at, &other)
}

/// The whole with another line at `at`.
fn with(lines: &[&str], at: usize, other: &[String]) -> Vec<String> {
    let before = lines[..at].join("\n");
    let after = lines[at + 1..].join("\n");
    let whole = |line: &String| format!("{before}\n{line}\n{after}\n");
    other.iter().map(whole).collect()
}

#[test]
fn n16_five_hundred_broken_configs_are_refused_with_a_place_and_none_takes_effect() {
    let origin = Origin::echo();
    let good = rich(origin.address);
    let mut gateway = Gateway::start(&good);
    let hash = gateway.ask_admin("/status").text();
    let hash: serde_json::Value = serde_json::from_str(&hash).expect("JSON");
    let stop = Flag::default();
    let load = browse(gateway.web(), stop.clone(), Duration::from_millis(10));
    let lines: Vec<&str> = good.lines().collect();
    let all: Vec<String> = (0..lines.len()).flat_map(|at| broken(&lines, at)).collect();
    assert!(all.len() >= 500, "{}", all.len());
    for text in &all[..500] {
        gateway.write_config(text);
        let (status, report) = gateway.reload();
        assert_eq!(
            (status, &report["outcome"]),
            (422, &"rejected".into()),
            "{text}"
        );
        let message = report["message"].as_str().expect("a message");
        let place = message
            .lines()
            .find_map(|line| line.trim().strip_prefix("--> "));
        let place = place.unwrap_or_else(|| panic!("no place in {message}"));
        let numbers: Vec<&str> = place.rsplit(':').take(2).collect();
        assert!(place.contains("weir.toml:"), "{message}");
        assert!(
            numbers.iter().all(|n| n.parse::<u32>().is_ok()),
            "{message}"
        );
        assert!(message.contains('^'), "{message}");
    }
    assert_eq!(gateway.metric("weir_config_generation"), 1.0);
    assert_eq!(gateway.metric("weir_config_last_reload_success"), 0.0);
    let now: serde_json::Value =
        serde_json::from_str(&gateway.ask_admin("/status").text()).expect("JSON");
    assert_eq!(now["config_hash"], hash["config_hash"]);
    stop.raise();
    assert!(load.join().expect("no request failed") > 20);
    gateway.assert_sound();
}

/// What a client of a gateway that ends has seen.
#[derive(Debug, Default)]
struct Seen {
    served: u64,
    failed: Vec<String>,
}

/// Requests on kept connections until connecting is refused after a `Connection: close`.
fn faithful(web: SocketAddr, each_anew: bool) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        let mut seen = Seen::default();
        while let Ok(stream) = TcpStream::connect(web) {
            drop(stream.set_read_timeout(Some(SOON)));
            let mut reader = Reader::new(stream);
            loop {
                let close = if each_anew {
                    "Connection: close\r\n"
                } else {
                    ""
                };
                let request = format!("GET /n HTTP/1.1\r\nHost: t.test\r\n{close}\r\n");
                let sent = reader.get_mut().write_all(request.as_bytes());
                let answer = reader.response(false);
                match (sent, answer) {
                    (Ok(()), Ok(answer)) if answer.status() == 200 => {
                        seen.served += 1;
                        if closes(&answer) {
                            break;
                        }
                    }
                    other => {
                        seen.failed.push(format!("{other:?}"));
                        return seen;
                    }
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        seen
    })
}

fn closes(answer: &Message) -> bool {
    answer.all("connection").contains(&"close")
}

#[test]
fn o01_o02_no_request_fails_while_the_gateway_drains() {
    let origin = Origin::start(|request, _| {
        Reply::After(Duration::from_millis(2), Box::new(origin::echo(request)))
    });
    let mut gateway = Gateway::before(origin.address, "");
    let web = gateway.web();
    let kept: Vec<_> = (0..5).map(|_| faithful(web, false)).collect();
    let anew = faithful(web, true);
    let streams: Vec<_> = (0..2).map(|_| h2c::until_goaway(web, 4)).collect();
    eventually("load is on", || {
        gateway.metric("weir_requests_total{route=\"all\",code=\"200\"}") > 200.0
    });
    gateway.signal(Signal::TERM);
    for one in kept.into_iter().chain([anew]) {
        let seen = one.join().expect("it ends");
        assert!(seen.served > 5 && seen.failed.is_empty(), "{seen:?}");
    }
    for one in streams {
        let served = one
            .join()
            .expect("it ends")
            .expect("every stream was answered");
        assert!(served > 20, "{served}");
    }
    assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
    assert_eq!(origin.bad(), Vec::<String>::new());
}

const LARGE: u64 = 256 << 20;

/// Takes any upload and counts it; gives [`LARGE`] bytes to a GET. Keeps nothing.
fn bulk() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve_bulk(stream));
        }
    });
    address
}

fn serve_bulk(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    if head.starts_with(b"GET") {
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {LARGE}\r\n\r\n");
        drop(stream.write_all(head.as_bytes()));
        pour(&mut stream);
        return;
    }
    let mut left = LARGE;
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        match stream.read(&mut buffer) {
            Ok(n @ 1..) => left = left.saturating_sub(n as u64),
            _ => return,
        }
    }
    drop(
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ndone"),
    );
}

/// [`LARGE`] bytes, as fast as they are taken.
fn pour(stream: &mut TcpStream) {
    let piece = vec![b'x'; 256 << 10];
    for _ in 0..LARGE / piece.len() as u64 {
        if stream.write_all(&piece).is_err() {
            return;
        }
    }
}

/// The most resident memory while `work` runs, in KiB.
fn peak(gateway: &Gateway, work: impl FnOnce() + Send) -> u64 {
    let most = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        while !work.is_finished() {
            most.fetch_max(gateway.rss(), SeqCst);
            std::thread::sleep(Duration::from_millis(5));
        }
        work.join().expect("all of it passed");
    });
    most.into_inner()
}

/// Reads a response of [`LARGE`] bytes without keeping it.
fn drink(web: SocketAddr) {
    let mut raw = Raw::connect(web);
    raw.send("GET /large HTTP/1.1\r\nHost: t.test\r\n\r\n");
    let head = raw.reader().response_head().expect("a head");
    assert_eq!(head.status(), 200);
    let mut left = LARGE - raw.reader().buffer.len() as u64;
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let n = raw.stream().read(&mut buffer).expect("it goes on");
        assert!(n > 0, "{left} bytes are missing");
        left -= n as u64;
    }
}

fn fill(web: SocketAddr) {
    let mut raw = Raw::connect(web);
    raw.send(format!(
        "POST /large HTTP/1.1\r\nHost: t.test\r\nContent-Length: {LARGE}\r\n\r\n"
    ));
    let mut stream = raw.stream().try_clone().expect("a descriptor");
    pour(&mut stream);
    assert_eq!(raw.response().text(), "done");
}

#[test]
fn large_bodies_pass_both_ways_in_bounded_memory() {
    let mut gateway = Gateway::before(bulk(), "");
    let web = gateway.web();
    let idle = gateway.rss();
    let begun = Instant::now();
    type Work = fn(SocketAddr);
    let works: [(&str, Work); 3] = [
        ("upload", fill),
        ("download", drink),
        ("download over HTTP/2", |web| {
            assert_eq!(h2c::download(web, "/large"), LARGE);
        }),
    ];
    for (name, work) in works {
        let grown = peak(&gateway, move || work(web)).saturating_sub(idle);
        assert!(grown < 64 << 10, "{name}: {grown} KiB");
    }
    assert!(begun.elapsed() < Duration::from_secs(100));
    gateway.assert_sound();
}
