//! Group D: Expect, interim answers, and requests that ask to leave HTTP.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::harness::{Gateway, Origin, Raw, Reply, client, gateway, origin};

/// One connection to the upstream, so that what one client leaves behind meets the next (with one
/// worker, since an idle connection stays with the worker that made it).
const ONE: &str = "pool = { max_connections = 1 }";

const POST: &str = "POST /up HTTP/1.1\r\nHost: t.test\r\nExpect: 100-continue\r\n\
                    Content-Length: 5\r\n\r\n";

/// A gateway whose one route lets websockets out.
fn leaving(origin: &Origin, more: &str) -> Gateway {
    let config = gateway::before(origin.address, more);
    one_worker(&format!("{config}upgrade = [\"websocket\"]\n"))
}

/// The harness's preamble, with one worker.
fn one_worker(config: &str) -> Gateway {
    Gateway::start_bare(&format!(
        "[server]\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{config}"
    ))
}

fn plain(origin: std::net::SocketAddr, more: &str) -> Gateway {
    one_worker(&gateway::before(origin, more))
}

/// Another client gets its own answer over the same pool.
fn assert_unhurt(gateway: &Gateway, nonce: &str) {
    let request = format!(
        "GET /victim HTTP/1.1\r\nHost: t.test\r\nX-Nonce: {nonce}\r\nConnection: close\r\n\r\n"
    );
    let answer = client::ask(gateway.web(), &request);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.get("x-nonce"), Some(nonce));
    assert_eq!(answer.text(), "GET /victim 0");
}

#[test]
fn d01_d03_an_expected_100_is_given_once_and_a_body_that_comes_unasked_is_no_request() {
    let origin = Origin::echo();
    let mut gateway = plain(origin.address, ONE);
    let mut raw = Raw::connect(gateway.web());
    raw.send(POST);
    let interim = raw.reader().response_head().expect("an interim answer");
    assert_eq!(interim.status(), 100);
    raw.send("hello");
    let answer = raw.reader().response_head().expect("the answer");
    assert_eq!(answer.status(), 200);
    let answer = raw.reader().response_body(answer, false).expect("its body");
    assert_eq!(answer.text(), "POST /up 5");
    // The body at once, and the next request behind it.
    raw.send(format!(
        "{POST}helloGET /next HTTP/1.1\r\nHost: t.test\r\n\r\n"
    ));
    assert_eq!(raw.response().text(), "POST /up 5");
    assert_eq!(raw.response().text(), "GET /next 0");
    assert_unhurt(&gateway, "n1");
    let requests = origin.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|r| r.get("expect").is_none()));
    assert!(origin.bad().is_empty(), "{:?}", origin.bad());
    gateway.assert_sound();
}

#[test]
fn d02_an_answer_before_the_body_is_delivered_and_the_rest_of_the_body_is_never_a_request() {
    for (status, close) in [(200, false), (401, false), (417, true)] {
        let origin = HeadOrigin::start(status, close);
        let mut gateway = plain(origin.address, ONE);
        let mut raw = Raw::connect(gateway.web());
        raw.send(
            "POST /early HTTP/1.1\r\nHost: t.test\r\nExpect: 100-continue\r\n\
             Content-Length: 50\r\n\r\n",
        );
        let answer = raw.response();
        assert_eq!(answer.status(), status);
        // What was announced as a body and looks like a request.
        drop(raw.try_send("GET /poison HTTP/1.1\r\nHost: t.test\r\nX: 12345\r\n\r\n"));
        let after = raw.rest(Duration::from_secs(3));
        assert!(
            after.is_empty(),
            "{status}: {}",
            String::from_utf8_lossy(&after)
        );
        assert_unhurt(&gateway, "n2");
        let seen = origin.heads();
        assert!(!seen.contains("/poison"), "{seen}");
        assert_eq!(seen.matches("HTTP/1.1\r\n").count(), 2, "{seen}");
        gateway.assert_sound();
    }
}

/// An origin that answers `/early` at its head and leaves the body unread.
struct HeadOrigin {
    address: std::net::SocketAddr,
    heads: std::sync::Arc<std::sync::Mutex<String>>,
}

impl HeadOrigin {
    fn start(status: u16, close: bool) -> HeadOrigin {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let heads = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let seen = heads.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || {
                    while let Some(head) = read_head(&mut stream) {
                        seen.lock().expect("no panic").push_str(&head);
                        let early = head.contains("/early");
                        let answer = if early {
                            format!("HTTP/1.1 {status} Early\r\nContent-Length: 2\r\n\r\nno")
                        } else {
                            let nonce = head.split("x-nonce: ").nth(1);
                            let nonce = nonce.and_then(|n| n.split('\r').next()).unwrap_or("-");
                            format!(
                                "HTTP/1.1 200 OK\r\nX-Nonce: {nonce}\r\nContent-Length: 13\r\n\r\n\
                                 GET /victim 0"
                            )
                        };
                        if stream.write_all(answer.as_bytes()).is_err() || early && close {
                            break;
                        }
                    }
                });
            }
        });
        HeadOrigin { address, heads }
    }

    fn heads(&self) -> String {
        self.heads.lock().expect("no panic").clone()
    }
}

/// Bytes up to an empty line.
fn read_head(stream: &mut std::net::TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

#[test]
fn d04_an_expectation_is_100_continue_or_refused_and_never_goes_on() {
    let origin = Origin::echo();
    let mut gateway = plain(origin.address, ONE);
    let refused: [(&str, &[u16]); 7] = [
        ("Expect: x 100-continue", &[417, 400]),
        ("Expect: 100-continue, foo", &[417, 400]),
        ("Expect:\r\n 100-continue", &[400]),
        ("Expect: 100-continue\r\nExpect: 100-continue", &[417, 400]),
        ("Expect: 200-ok", &[417]),
        ("Expect: 100-continue;q=1", &[417]),
        ("Expect:", &[417, 400]),
    ];
    for (field, statuses) in refused {
        let mut raw = Raw::connect(gateway.web());
        raw.send(format!(
            "POST / HTTP/1.1\r\nHost: t.test\r\n{field}\r\nContent-Length: 5\r\n\r\n"
        ));
        let answer = raw.response();
        assert!(
            statuses.contains(&answer.status()),
            "{field}: {}",
            answer.start
        );
        assert_eq!(answer.get("connection"), Some("close"), "{field}");
        drop(raw.try_send("hello"));
        assert!(raw.rest(Duration::from_secs(3)).is_empty(), "{field}");
    }
    assert!(origin.requests().is_empty());
    let passed = [
        "OPTIONS / HTTP/1.1\r\nHost: t.test\r\nExpect: 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: t.test\r\nexpect: 100-Continue\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: t.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    ];
    for request in passed {
        let mut raw = Raw::connect(gateway.web());
        let head = raw
            .send(request)
            .reader()
            .response_head()
            .expect("an answer");
        assert_eq!(head.status(), 200, "no interim answer is due: {request}");
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), passed.len());
    assert!(requests.iter().all(|r| r.get("expect").is_none()));
    assert_unhurt(&gateway, "n4");
    assert!(origin.bad().is_empty());
    gateway.assert_sound();
}

#[test]
fn d05_interim_answers_nobody_asked_for_do_not_disturb_the_final_one() {
    let interim = [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: 2\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nX: 3\r\n\r\n",
    ];
    let origin = Origin::start(move |request, count| {
        let Reply::Bytes(last) = origin::echo(request) else {
            unreachable!("an echo is bytes");
        };
        let mut bytes = interim[count % interim.len()].as_bytes().to_vec();
        bytes.extend(last);
        Reply::Bytes(bytes)
    });
    let mut gateway = plain(origin.address, ONE);
    let mut raw = Raw::connect(gateway.web());
    for nonce in 0..interim.len() {
        raw.send(format!(
            "GET /v HTTP/1.1\r\nHost: t.test\r\nX-Nonce: {nonce}\r\n\r\n"
        ));
        let answer = raw.response();
        assert_eq!(answer.get("x-nonce"), Some(nonce.to_string().as_str()));
        assert_eq!(answer.get("link"), None);
        assert_eq!(answer.text(), "GET /v 0");
    }
    for _ in 0..interim.len() {
        let mut raw = Raw::connect(gateway.web());
        raw.send("GET /old HTTP/1.0\r\nHost: t.test\r\n\r\n");
        let head = raw.reader().response_head().expect("an answer");
        assert_eq!(
            head.status(),
            200,
            "an HTTP/1.0 client is told nothing interim"
        );
    }
    assert_eq!(origin.connections(), 1);
    gateway.assert_sound();
}

#[test]
fn d06_interim_answers_without_end_are_cut_when_the_answer_is_due() {
    let origin = Origin::start(|request, _| {
        if request.target() == "/victim" {
            return origin::echo(request);
        }
        let pause = Duration::from_millis(if request.target() == "/slow" { 100 } else { 1 });
        Reply::Act(Box::new(move |stream| {
            let end = Instant::now() + Duration::from_secs(8);
            while Instant::now() < end {
                let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
                if stream.write_all(interim).is_err() {
                    break;
                }
                std::thread::sleep(pause);
            }
            false
        }))
    });
    let mut gateway = plain(
        origin.address,
        "timeouts = { first_byte = \"250ms\" }\nretry = false\neject = false",
    );
    client::get(gateway.web(), "/fast");
    let before = gateway.rss();
    for target in ["/fast", "/slow", "/fast"] {
        let begun = Instant::now();
        let answer = client::get(gateway.web(), target);
        assert!(matches!(answer.status(), 502 | 504), "{}", answer.start);
        assert!(begun.elapsed() < Duration::from_secs(2), "{target}");
    }
    assert_unhurt(&gateway, "n6");
    let grown = gateway.rss().saturating_sub(before);
    assert!(grown < 4096, "memory grew by {grown} KiB");
    super::harness::eventually("the upstream's connections are closed", || {
        origin.open() <= 1
    });
    gateway.assert_sound();
}

#[test]
fn d07_a_101_nobody_asked_for_is_no_tunnel() {
    let origin = Origin::start(|request, _| {
        match request.target() {
        "/victim" => origin::echo(request),
        _ => Reply::Bytes(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\
              HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
                .to_vec(),
        ),
    }
    });
    let mut gateway = leaving(&origin, &format!("{ONE}\nretry = false\neject = false"));
    let mut raw = Raw::connect(gateway.web());
    for target in ["/a", "/b"] {
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: t.test\r\n\r\n"));
        let answer = raw.response();
        assert_eq!(answer.status(), 502);
        assert!(answer.all("upgrade").is_empty());
        assert!(
            answer.text().contains("http_upgrade_failed"),
            "{}",
            answer.text()
        );
    }
    // What follows is HTTP still.
    raw.send("GET /victim HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(raw.response().text(), "GET /victim 0");
    assert_unhurt(&gateway, "n7");
    super::harness::eventually("the broken connections are closed", || origin.open() <= 1);
    assert_eq!(
        gateway.metric("weir_connections_total{listener=\"web\",protocol=\"tunnel\"}"),
        0.0
    );
    gateway.assert_sound();
}

#[test]
fn d08_what_follows_an_upgrade_that_is_not_granted_is_a_request_like_any_other() {
    let origin = Origin::echo();
    let one = format!("{ONE}\nretry = false");
    let config = gateway::before(origin.address, &one).replace(
        "upstream = \"o\"\n",
        "upstream = \"o\"\nupgrade = [\"websocket\"]\nmatch = { path = \"/pub\" }\n\
         [[routes]]\nid = \"victim\"\nupstream = \"o\"\nmatch = { path = \"/victim\" }\n",
    );
    let mut gateway = one_worker(&config);
    for protocol in ["foo", "websocket", "h2c", "TLS/1.3", "websocket, foo"] {
        let mut raw = Raw::connect(gateway.web());
        raw.send(format!(
            "GET /pub HTTP/1.1\r\nHost: t.test\r\nUpgrade: {protocol}\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
             GET /poison HTTP/1.1\r\nHost: t.test\r\n\r\n"
        ));
        assert_eq!(raw.response().text(), "GET /pub 0", "{protocol}");
        // Under the policy of the gateway: no route leads there.
        assert_eq!(raw.response().status(), 404, "{protocol}");
        assert_unhurt(&gateway, protocol);
        // In pieces, and as bytes that are no HTTP.
        let mut raw = Raw::connect(gateway.web());
        raw.send(format!(
            "GET /pub HTTP/1.1\r\nHost: t.test\r\nUpgrade: {protocol}\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        drop(raw.try_send(b"\x81\x85abcd\n\n\r\n\r\nGET /poison HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!(raw.response().text(), "GET /pub 0", "{protocol}");
        let rest = raw.rest(Duration::from_secs(3));
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "),
            "{protocol}"
        );
    }
    let requests = origin.requests();
    assert!(requests.iter().all(|r| r.target() != "/poison"));
    assert!(origin.bad().is_empty(), "{:?}", origin.bad());
    gateway.assert_sound();
}

#[test]
fn d09_an_upgrade_with_a_body_is_refused_or_a_plain_request() {
    let origin = Origin::start(|request, _| match request.get("upgrade") {
        Some(_) => Reply::Close(b"HTTP/1.1 101 No\r\nConnection: upgrade\r\n\r\n".to_vec()),
        None => origin::echo(request),
    });
    let mut gateway = leaving(&origin, ONE);
    let asks = "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n";
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut raw = Raw::connect(gateway.web());
        raw.send(format!("GET /ws HTTP/1.1\r\nHost: t.test\r\n{asks}{body}"));
        let answer = raw.response();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.get("connection"), Some("close"));
        assert!(raw.closed_within(Duration::from_secs(3)));
        // Another protocol, or another method, is never let out: a plain request.
        let mut raw = Raw::connect(gateway.web());
        raw.send(format!(
            "POST /p HTTP/1.1\r\nHost: t.test\r\nUpgrade: foo\r\nConnection: upgrade\r\n{body}"
        ));
        assert_eq!(raw.response().text(), "POST /p 5");
        raw.send(format!("POST /q HTTP/1.1\r\nHost: t.test\r\n{asks}{body}"));
        assert_eq!(raw.response().text(), "POST /q 5");
    }
    assert!(origin.requests().iter().all(|r| r.get("upgrade").is_none()));
    assert!(origin.bad().is_empty());
    gateway.assert_sound();
}

#[test]
fn d10_h2c_is_not_smuggled_through() {
    let origin = Origin::echo();
    let mut gateway = leaving(&origin, ONE);
    let mut raw = Raw::connect(gateway.web());
    for connection in ["Upgrade, HTTP2-Settings", "Upgrade", "HTTP2-Settings"] {
        raw.send(format!(
            "GET /h HTTP/1.1\r\nHost: t.test\r\nUpgrade: h2c\r\nConnection: {connection}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        ));
        assert_eq!(raw.response().text(), "GET /h 0");
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), 3);
    for name in ["upgrade", "http2-settings", "connection"] {
        assert!(requests.iter().all(|r| r.all(name).is_empty()), "{name}");
    }
    assert!(origin.bad().is_empty());
    gateway.assert_sound();
}

#[test]
fn d11_what_is_no_websocket_handshake_is_not_let_out() {
    let origin = Origin::echo();
    let mut gateway = leaving(&origin, ONE);
    let both = "Upgrade: websocket\r\nConnection: upgrade\r\n";
    let asks = [
        "GET /w HTTP/1.1\r\nHost: t.test\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
            .to_owned(),
        format!("POST /w HTTP/1.1\r\nHost: t.test\r\n{both}Sec-WebSocket-Version: 13\r\n\r\n"),
        format!("GET /w HTTP/1.0\r\nHost: t.test\r\n{both}Sec-WebSocket-Version: 13\r\n\r\n"),
        format!("GET /w HTTP/1.1\r\nHost: t.test\r\n{both}Sec-WebSocket-Version: 12\r\n\r\n"),
        format!("GET /w HTTP/1.1\r\nHost: t.test\r\n{both}\r\n"),
    ];
    for ask in &asks {
        let answer = client::ask(gateway.web(), ask);
        assert!(
            matches!(answer.status(), 200 | 400 | 426),
            "{ask}: {}",
            answer.start
        );
    }
    let requests = origin.requests();
    assert!(
        requests.iter().all(|r| r.all("upgrade").is_empty()),
        "{requests:?}"
    );
    assert!(origin.bad().is_empty());
    gateway.assert_sound();
}

#[test]
fn d12_d14_connect_and_trace_are_not_served() {
    let origin = Origin::echo();
    let mut gateway = plain(origin.address, ONE);
    let requests = [
        "CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n",
        "CONNECT t.test HTTP/1.1\r\nHost: t.test\r\n\r\n",
        "CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\nContent-Length: 5\r\n\r\nhello",
        "TRACE / HTTP/1.1\r\nHost: t.test\r\nCookie: secret\r\nAuthorization: secret\r\n\r\n",
    ];
    for request in requests {
        let answer = client::ask(gateway.web(), request);
        assert!(
            matches!(answer.status(), 400 | 405 | 501),
            "{request}: {}",
            answer.start
        );
        assert!(!answer.text().contains("secret"), "{request}");
    }
    // What a client believes to be its tunnel is never one.
    let mut raw = Raw::connect(gateway.web());
    raw.send("CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n\x16\x03\x01 hello \x00");
    assert_eq!(raw.response().status(), 405);
    let rest = raw.rest(Duration::from_secs(3));
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "));
    assert!(origin.requests().is_empty());
    assert_unhurt(&gateway, "n12");
    gateway.assert_sound();
}
