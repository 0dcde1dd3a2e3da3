//! What upstreams do wrong, over HTTP/1 (group E of CASES.md). Whatever one answers, the client
//! gets a whole answer, an error of ours or a cut; and the next client gets its own answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::harness::origin::{echo, ok};
use super::harness::parse::{Message, Stop};
use super::harness::{Gateway, Origin, Raw, Reply, client, eventually};

/// Fast to fail, one connection, one try: what is left on a connection meets the next request.
const STRICT: &str = "retry = false\neject = false\npool = { max_connections = 1 }\n\
                      timeouts = { connect = \"1s\", first_byte = \"400ms\", idle = \"400ms\" }\n";

/// What a client may see.
enum Seen {
    /// An error of ours.
    Bad(u16),
    /// A whole answer with this status and body.
    Whole(u16, &'static str),
    /// No whole answer: the connection ends before its end.
    Cut,
    /// A 502, or a whole answer with this body.
    BadOr(&'static str),
}
use Seen::{Bad, BadOr, Cut, Whole};

struct Case {
    id: &'static str,
    bytes: Vec<u8>,
    /// How the origin ends: stay, FIN, RST.
    end: End,
    seen: Seen,
    /// The connection may serve the next request too.
    keeps: bool,
}

#[derive(Clone, Copy)]
enum End {
    Stay,
    Fin,
    Rst,
}
use End::{Fin, Rst, Stay};

fn case(id: &'static str, bytes: impl AsRef<[u8]>, end: End, seen: Seen) -> Case {
    let bytes = bytes.as_ref().to_vec();
    Case {
        id,
        bytes,
        end,
        seen,
        keeps: false,
    }
}

fn cases() -> Vec<Case> {
    let ok = "HTTP/1.1 200 OK\r\n";
    let with = |rest: &str| format!("{ok}{rest}");
    let text = |field: &[u8]| [ok.as_bytes(), field, b"\r\nContent-Length: 0\r\n\r\n"].concat();
    let line = |start: &[u8]| [start, b"\r\nContent-Length: 2\r\n\r\nok"].concat();
    let mut cases = vec![
        case("E01", with("Content-Length: 10\r\n\r\nhello"), Fin, Cut),
        case(
            "E02 no end",
            with("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
            Fin,
            Cut,
        ),
        case(
            "E02 garbage",
            with("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"),
            Stay,
            Cut,
        ),
        case(
            "E02 in a chunk",
            with("Transfer-Encoding: chunked\r\n\r\nff\r\nhello"),
            Fin,
            Cut,
        ),
        case(
            "E02 size too large",
            with("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello"),
            Stay,
            Cut,
        ),
        case("E03 before", "", Rst, Bad(502)),
        case("E03 before, FIN", "", Fin, Bad(502)),
        case(
            "E03 in the head",
            "HTTP/1.1 200 OK\r\nContent-",
            Rst,
            Bad(502),
        ),
        case(
            "E03 after the head",
            with("Content-Length: 10\r\n\r\n"),
            Rst,
            Cut,
        ),
        case(
            "E03 in the body",
            with("Content-Length: 10\r\n\r\nhello"),
            Rst,
            Cut,
        ),
        case(
            "E04",
            with(
                "Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            ),
            Stay,
            Whole(200, "hello"),
        ),
        case(
            "E06",
            with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            Stay,
            Whole(200, "hello"),
        ),
        case(
            "E06 turned",
            with("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            Stay,
            Whole(200, "hello"),
        ),
        case(
            "E07 two",
            with("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
            Stay,
            Bad(502),
        ),
        case(
            "E07 list",
            with("Content-Length: 5, 6\r\n\r\nhello!"),
            Stay,
            Bad(502),
        ),
        case(
            "E07 negative",
            with("Content-Length: -5\r\n\r\nhello"),
            Stay,
            Bad(502),
        ),
        case(
            "E07 plus",
            with("Content-Length: +5\r\n\r\nhello"),
            Stay,
            Bad(502),
        ),
        case(
            "E07 huge",
            with("Content-Length: 99999999999999999999999\r\n\r\nhello"),
            Stay,
            Bad(502),
        ),
        case(
            "E08 gzip",
            with("Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            Stay,
            Bad(502),
        ),
        case(
            "E08 twice",
            with(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ),
            Stay,
            Bad(502),
        ),
        case(
            "E08 foo",
            with("Transfer-Encoding: foo\r\n\r\nhello"),
            Fin,
            Bad(502),
        ),
        case(
            "E09",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Fin,
            BadOr("hello"),
        ),
        case(
            "E10 204",
            "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison",
            Stay,
            Whole(204, ""),
        ),
        case(
            "E10 304",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
            Stay,
            Whole(304, ""),
        ),
        case(
            "E10 205",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 6\r\n\r\npoison",
            Stay,
            Whole(205, ""),
        ),
        case(
            "E10 205, chunked",
            "HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
            Stay,
            Whole(205, ""),
        ),
        case(
            "E11",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Stay,
            Whole(204, ""),
        ),
        case("E12 0.9", "<html>hello</html>", Fin, Bad(502)),
        case("E12 ICY", line(b"ICY 200 OK"), Stay, Bad(502)),
        case("E12 9.9", line(b"HTTP/9.9 200 OK"), Stay, Bad(502)),
        case("E12 99", line(b"HTTP/1.1 99 OK"), Stay, Bad(502)),
        case("E12 099", line(b"HTTP/1.1 099 OK"), Stay, Bad(502)),
        case("E12 1000", line(b"HTTP/1.1 1000 OK"), Stay, Bad(502)),
        case("E12 2 0", line(b"HTTP/1.1 2 0 OK"), Stay, Bad(502)),
        case(
            "E12 long reason",
            line(format!("HTTP/1.1 200 {}", "r".repeat(65536)).as_bytes()),
            Stay,
            BadOr("ok"),
        ),
        case(
            "E13 CR in a value",
            text(b"X: a\rSet-Cookie: b=c"),
            Stay,
            Bad(502),
        ),
        case("E13 NUL in a value", text(b"X: a\0b"), Stay, Bad(502)),
        case(
            "E13 CR in the reason",
            line(b"HTTP/1.1 200 O\rSet-Cookie: a=b"),
            Stay,
            BadOr("ok"),
        ),
        case("E14", text(b"X: a\r\n b"), Stay, Bad(502)),
        case(
            "E15 1 MiB",
            text(format!("X: {}", "x".repeat(1 << 20)).as_bytes()),
            Stay,
            Bad(502),
        ),
        case(
            "E15 10,000",
            text("X: y\r\n".repeat(10_000).trim_end().as_bytes()),
            Stay,
            Bad(502),
        ),
        case(
            "E15 no end",
            format!("{ok}X: {}", "x".repeat(1 << 20)),
            Stay,
            Bad(502),
        ),
        case(
            "E16 silence in the body",
            with("Content-Length: 10\r\n\r\nhello"),
            Stay,
            Cut,
        ),
        case(
            "101 nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            Stay,
            Bad(502),
        ),
    ];
    cases.extend([
        Case {
            keeps: true,
            ..case(
                "E12 empty reason",
                line(b"HTTP/1.1 200 "),
                Stay,
                Whole(200, "ok"),
            )
        },
        Case {
            keeps: true,
            ..case(
                "E12 0xff in the reason",
                line(b"HTTP/1.1 200 \xff"),
                Stay,
                BadOr("ok"),
            )
        },
    ]);
    cases
}

fn check(case: &Case, answer: Result<Message, Stop>) {
    let id = case.id;
    match (&case.seen, answer) {
        (Bad(status), Ok(answer)) => assert_eq!(answer.status(), *status, "{id}: {answer:?}"),
        (Whole(status, body), Ok(answer)) => {
            assert_eq!(
                (answer.status(), answer.text().as_str()),
                (*status, *body),
                "{id}"
            );
            assert_eq!(answer.get("set-cookie"), None, "{id}");
        }
        (BadOr(body), Ok(answer)) => {
            let whole = answer.status() == 200 && answer.text() == *body;
            assert!(whole || answer.status() == 502, "{id}: {answer:?}");
            assert_eq!(answer.get("set-cookie"), None, "{id}");
        }
        (Cut, Err(Stop::Cut(_) | Stop::End)) => {}
        (_, other) => panic!("{id}: {other:?}"),
    }
}

#[test]
fn e01_to_e16_a_hostile_answer_is_whole_refused_or_cut_and_poisons_nobody() {
    let cases = Arc::new(cases());
    let script = cases.clone();
    let origin = Origin::start(move |request, _| {
        let Some(nth) = request.target().strip_prefix("/case/") else {
            return echo(request);
        };
        let case = &script[nth.parse::<usize>().expect("a number")];
        match case.end {
            Stay => Reply::Bytes(case.bytes.clone()),
            Fin => Reply::Close(case.bytes.clone()),
            Rst => Reply::Reset(case.bytes.clone()),
        }
    });
    let mut gateway = Gateway::before(origin.address, STRICT);
    client::get(gateway.web(), "/warm");
    for (nth, case) in cases.iter().enumerate() {
        let before = origin.connections();
        let request = format!("GET /case/{nth} HTTP/1.1\r\nHost: t.test\r\n\r\n");
        check(
            case,
            Raw::connect(gateway.web()).send(request).try_response(),
        );
        let victim = format!(
            "GET /victim HTTP/1.1\r\nHost: t.test\r\nX-Nonce: n{nth}\r\nConnection: close\r\n\r\n"
        );
        let answer = client::ask(gateway.web(), &victim);
        assert_eq!(answer.status(), 200, "after {}: {}", case.id, answer.text());
        let nonce = format!("n{nth}");
        assert_eq!(
            answer.get("x-nonce"),
            Some(nonce.as_str()),
            "after {}",
            case.id
        );
        if !case.keeps {
            assert!(origin.connections() > before, "{}: used again", case.id);
        }
    }
    assert_eq!(origin.requests().len(), 1 + 2 * cases.len());
    assert!(origin.bad().is_empty(), "{:?}", origin.bad());
    for reason in [
        "http_response_incomplete",
        "connection_read_timeout",
        "http_protocol_error",
    ] {
        let series = format!("weir_upstream_attempts_total{{upstream=\"o\",result=\"{reason}\"}}");
        assert!(
            gateway.metric(&series) > 0.0,
            "{reason}: {:?}",
            gateway.metrics()
        );
    }
    let tries = gateway.metric_sum("weir_upstream_attempts_total{");
    assert_eq!(
        tries as usize,
        1 + 2 * cases.len(),
        "each try is counted once"
    );
    gateway.assert_sound();
}

#[test]
fn e05_bytes_that_nobody_asked_for_end_an_idle_connection() {
    let origin = Origin::start(|request, count| {
        let Reply::Bytes(bytes) = echo(request) else {
            unreachable!("echo is bytes")
        };
        if count > 0 {
            return Reply::Bytes(bytes);
        }
        Reply::Act(Box::new(move |stream| {
            stream.write_all(&bytes).expect("it is open");
            let mut stream = stream.try_clone().expect("a clone");
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"));
            });
            true
        }))
    });
    let mut gateway = Gateway::before(origin.address, STRICT);
    client::get(gateway.web(), "/first");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        client::get(gateway.web(), "/second").text(),
        "GET /second 0"
    );
    assert_eq!(origin.connections(), 2);
    gateway.assert_sound();
}

#[test]
fn e10_an_answer_to_head_has_no_body_and_one_that_came_reaches_nobody() {
    let origin = Origin::start(|request, _| match request.method() {
        "HEAD" => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison".to_vec()),
        _ => echo(request),
    });
    let mut gateway = Gateway::before(origin.address, STRICT);
    for _ in 0..5 {
        let mut raw = Raw::connect(gateway.web());
        raw.send("HEAD / HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n\r\n");
        let head = raw.response_to_head();
        assert_eq!(
            (head.status(), head.get("content-length")),
            (200, Some("6"))
        );
        assert!(raw.rest(Duration::from_millis(300)).is_empty());
        assert_eq!(client::get(gateway.web(), "/v").text(), "GET /v 0");
    }
    gateway.assert_sound();
}

/// A listener whose connections a function serves, each with its number.
fn raw_origin(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (nth, stream) in listener.incoming().enumerate() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.expect("a connection"), nth));
        }
    });
    address
}

/// Reads up to the end of a head.
fn read_head(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        seen.push(byte[0]);
    }
}

#[test]
fn e16_e28_silence_a_trickle_and_endless_hints_end_in_504_in_time() {
    let silent = raw_origin(|_stream, _| std::thread::sleep(Duration::from_secs(5)));
    let trickle = raw_origin(|mut stream, _| {
        read_head(&mut stream);
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: 1234567890123456789" {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let hints = raw_origin(|mut stream, _| {
        read_head(&mut stream);
        let hint = format!(
            "HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n",
            "x".repeat(1000)
        );
        while stream.write_all(hint.as_bytes()).is_ok() {}
    });
    for (what, address) in [("silence", silent), ("trickle", trickle), ("hints", hints)] {
        let mut gateway = Gateway::before(address, STRICT);
        // The first request brings code and stacks into memory.
        client::get(gateway.web(), "/");
        let before = gateway.rss();
        let started = Instant::now();
        let answer = client::get(gateway.web(), "/");
        assert!(
            matches!(answer.status(), 502 | 504),
            "{what}: {} {:?}",
            answer.start,
            started.elapsed()
        );
        assert!(
            started.elapsed() < Duration::from_millis(3000),
            "{what}: {:?}",
            started.elapsed()
        );
        assert!(
            gateway.rss() < before + 16_384,
            "{what}: {} {before}",
            gateway.rss()
        );
        gateway.assert_sound();
    }
}

#[test]
fn e28_hints_are_not_mistaken_for_the_answer() {
    let hint = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n",
        "x".repeat(30_000)
    );
    let origin = Origin::start(move |_, _| {
        Reply::Bytes(format!("{hint}{hint}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").into())
    });
    let gateway = Gateway::before(origin.address, STRICT);
    for _ in 0..2 {
        assert_eq!(client::get(gateway.web(), "/").text(), "ok");
    }
}

#[test]
fn e17_an_upstream_that_reads_nothing_holds_the_client_back_and_times_out() {
    let address = raw_origin(|_stream, _| std::thread::sleep(Duration::from_secs(8)));
    let mut gateway = Gateway::before(address, STRICT);
    let before = gateway.rss();
    let mut raw = Raw::connect(gateway.web());
    raw.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 1073741824\r\n\r\n");
    raw.stream().set_nonblocking(true).expect("set");
    let (piece, mut sent, mut most) = (vec![0; 1 << 20], 0, before);
    let end = Instant::now() + Duration::from_millis(350);
    while Instant::now() < end {
        match (&mut raw.stream()).write(&piece) {
            Ok(n) => sent += n,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        most = most.max(gateway.rss());
    }
    raw.stream().set_nonblocking(false).expect("set");
    assert!(sent < 64 << 20, "{sent}");
    assert!(most < before + 16_384, "{before} {most}");
    let status = raw.try_response().map(|a| a.status());
    assert!(matches!(status, Ok(504) | Err(_)), "{status:?}");
    let series = "weir_upstream_attempts_total{upstream=\"o\",result=\"connection_write_timeout\"}";
    eventually("it is counted", || gateway.metric(series) == 1.0);
    gateway.assert_sound();
}

#[test]
fn e18_an_endless_answer_waits_for_its_client_in_bounded_memory_and_then_ends() {
    let ended = Arc::new(AtomicUsize::new(0));
    let seen = ended.clone();
    let address = raw_origin(move |mut stream, _| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("open");
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
        seen.fetch_add(1, SeqCst);
    });
    let limits = "limits = { write_timeout = \"500ms\" }";
    let config = super::harness::gateway::before(address, STRICT);
    let config = config.replacen("protocols", &format!("{limits}\nprotocols"), 1);
    let mut gateway = Gateway::start(&config);
    let before = gateway.rss();
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    let mut most = before;
    eventually("the upstream is let go", || {
        most = most.max(gateway.rss());
        ended.load(SeqCst) == 1
    });
    assert!(most < before + 16_384, "{before} {most}");
    gateway.assert_sound();
}

#[test]
fn e19_an_answer_before_the_end_of_the_upload_is_passed_on_at_once() {
    let address = raw_origin(|mut stream, _| {
        read_head(&mut stream);
        drop(stream.write_all(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"));
        let mut rest = [0; 65536];
        while matches!(stream.read(&mut rest), Ok(1..)) {}
    });
    let mut gateway = Gateway::before(address, STRICT);
    for _ in 0..3 {
        let mut raw = Raw::connect(gateway.web());
        raw.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 1000000\r\n\r\nsome");
        let started = Instant::now();
        let answer = raw.response();
        assert_eq!((answer.status(), answer.text().as_str()), (413, "no"));
        assert!(started.elapsed() < Duration::from_millis(1000));
        assert!(raw.closed_within(Duration::from_secs(3)));
    }
    eventually("no connection is kept", || {
        gateway.metric_sum("weir_pool_connections{") == 0.0
    });
    gateway.assert_sound();
}

#[test]
fn e20_plain_bytes_where_tls_is_due_are_never_an_answer() {
    let address = raw_origin(|mut stream, _| {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"));
        std::thread::sleep(Duration::from_millis(200));
    });
    let ca = rcgen::generate_simple_self_signed(["t.test".to_owned()]).expect("a certificate");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, ca.cert.pem()).expect("written");
    let tls = format!(
        "tls = {{ ca = \"{}\", server_name = \"t.test\" }}\n",
        path.display()
    );
    let mut gateway = Gateway::before(address, &format!("{STRICT}{tls}"));
    let answer = client::get(gateway.web(), "/");
    assert_eq!(answer.status(), 502);
    assert!(!answer.text().contains("poison"));
    gateway.assert_sound();
}

#[test]
fn e25_a_connection_closed_while_idle_costs_no_request_and_no_post_is_sent_twice() {
    const TRIES: usize = 2400;
    let posts = Arc::new(Mutex::new(Vec::new()));
    let seen = posts.clone();
    let origin = Origin::start(move |request, count| {
        if request.method() == "POST" {
            seen.lock()
                .expect("no panic")
                .push(request.target().to_owned());
        }
        let Reply::Bytes(bytes) = ok("x") else {
            unreachable!("ok is bytes")
        };
        // Closes 0 to 3 ms after the answer, just when the next request may be on its way.
        Reply::Act(Box::new(move |stream| {
            stream.write_all(&bytes).expect("it is open");
            std::thread::sleep(Duration::from_micros(count as u64 * 37 % 3000));
            false
        }))
    });
    let gateway = Gateway::before(origin.address, "eject = false\n");
    let web = gateway.web();
    let clients = (0..4).map(|n| {
        std::thread::spawn(move || {
            let mut raw = Raw::connect(web);
            let mut failed = 0;
            for i in 0..TRIES / 4 {
                let method = ["GET", "PUT", "DELETE", "POST"][i % 4];
                let length = if method == "GET" || method == "DELETE" {
                    ""
                } else {
                    "Content-Length: 0\r\n"
                };
                raw.send(format!(
                    "{method} /{n}/{i} HTTP/1.1\r\nHost: t.test\r\n{length}\r\n"
                ));
                let answer = raw.response();
                match (method, answer.status()) {
                    (_, 200) => {}
                    ("POST", 502) => failed += 1,
                    (method, status) => panic!("{method}: {status} {}", answer.text()),
                }
                std::thread::sleep(Duration::from_micros((i as u64 * 53) % 1500));
            }
            failed
        })
    });
    let clients: Vec<_> = clients.collect();
    let failed: usize = clients
        .into_iter()
        .map(|c| c.join().expect("no panic"))
        .sum();
    let mut posts = posts.lock().expect("no panic").clone();
    let all = posts.len();
    posts.sort();
    posts.dedup();
    assert_eq!(all, posts.len(), "a POST was delivered twice");
    assert_eq!(
        all + failed,
        TRIES / 4,
        "a POST is answered, or reported as failed"
    );
}

#[test]
fn e26_names_are_found_and_dead_ones_fail_fast() {
    let origin = Origin::echo();
    let port = origin.address.port();
    let config = format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n\
         [upstreams.good]\nendpoints = [\"localhost:{port}\"]\n\
         [upstreams.dead]\nendpoints = [\"none.invalid:80\"]\n\
         [upstreams.many]\nendpoints = [{}]\n\
         [[routes]]\nid = \"dead\"\nmatch = {{ path = \"/dead\" }}\nupstream = \"dead\"\n\
         [[routes]]\nid = \"many\"\nmatch = {{ path = \"/many\" }}\nupstream = \"many\"\n\
         [[routes]]\nid = \"good\"\nupstream = \"good\"\n",
        (0..40)
            .map(|n| format!("\"n{n}.invalid:80\""))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let started = Instant::now();
    let mut gateway = Gateway::start(&config);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(client::get(gateway.web(), "/a").text(), "GET /a 0");
    for path in ["/dead", "/many"] {
        let started = Instant::now();
        assert!(matches!(
            client::get(gateway.web(), path).status(),
            502 | 503
        ));
        assert!(started.elapsed() < Duration::from_millis(1500), "{path}");
    }
    gateway.assert_sound();
}

#[test]
fn e27_every_line_of_a_field_arrives_in_its_order() {
    let cookies: Vec<String> = (0..50).map(|n| format!("c{n}={n}")).collect();
    let lines: String = cookies
        .iter()
        .map(|c| format!("Set-Cookie: {c}\r\n"))
        .collect();
    let origin = Origin::start(move |_, _| {
        Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{lines}Content-Type: a/b\r\nContent-Type: c/d\r\nLocation: /1\r\nLocation: /2\r\nContent-Length: 0\r\n\r\n").into())
    });
    let gateway = Gateway::before(origin.address, "");
    let answer = client::get(gateway.web(), "/");
    assert_eq!(answer.all("set-cookie"), cookies);
    assert_eq!(answer.all("content-type"), ["a/b", "c/d"]);
    assert_eq!(answer.all("location"), ["/1", "/2"]);
    assert!(
        answer.get("date").is_some(),
        "a Date where the upstream has none"
    );
}

#[test]
fn e01_an_endpoint_that_breaks_off_its_bodies_is_ejected() {
    let broken = Origin::start(|_, _| {
        Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello".to_vec())
    });
    let good = Origin::echo();
    let (a, b) = (broken.address, good.address);
    let gateway = Gateway::start(&format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n[upstreams.o]\nendpoints = [\"{a}\", \"{b}\"]\n\
         balance = \"round_robin\"\neject = {{ consecutive = 3, base = \"30s\" }}\n\
         [[routes]]\nid = \"all\"\nupstream = \"o\"\n"
    ));
    for _ in 0..40 {
        let request = "GET / HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n\r\n";
        drop(Raw::connect(gateway.web()).send(request).try_response());
    }
    assert_eq!(
        gateway.metric("weir_upstream_ejections_total{upstream=\"o\"}"),
        1.0
    );
    assert!(broken.requests().len() < 10, "{}", broken.requests().len());
}

#[test]
fn e16_a_routes_timeout_counts_from_the_end_of_the_body_and_is_not_late() {
    let silent = Origin::start(|_, _| Reply::After(Duration::from_secs(30), Box::new(ok(""))));
    let patient = "timeouts = { first_byte = \"1h\", idle = \"1h\" }\nretry = false";
    let config = super::harness::gateway::before(silent.address, patient);
    let gateway = Gateway::start(&format!("{config}timeout = \"300ms\"\n"));
    let mut raw = Raw::connect(gateway.web());
    raw.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 4\r\n\r\nha");
    std::thread::sleep(Duration::from_millis(500));
    raw.send("lf");
    assert_eq!(raw.response().status(), 504);
}
