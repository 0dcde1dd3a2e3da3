//! Group A: request bodies. Chunks that two programs could read differently break the request
//! off, and what stands in a body is never read as a request.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::harness::bench::{BAD, Bench, ended, name};
use super::harness::{Gateway, Origin, Raw, SOON, eventually, gateway, h2c, origin};

const POISON: &str = "GET /poison HTTP/1.1\r\nHost: t.test\r\n\r\n";
/// No chunk, no terminator, and what the terminators of A37 to A40 are.
const ENDS: [&str; 4] = ["\n", "\r", "\rX", "\r\r"];
const SHORT: &str = "limits = { header_timeout = \"1s\", body_idle_timeout = \"1s\" }";

fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

fn with_length(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {target} HTTP/1.1\r\nHost: t.test\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn a34_a35_a36_chunk_sizes_and_ends_that_are_none_break_the_request_off() {
    let mut bench = Bench::new();
    let zeros = "0".repeat(1 << 20);
    let sizes = [
        "0x5",
        "+5",
        "-5",
        "5_0",
        " 5",
        "\t5",
        "",
        "g",
        "5g",
        "\"5\"",
        "5,",
        "5\0",
        "5\u{b}",
        "FFFFFFFFFFFFFFFF",
        "10000000000000000",
        "ffffffffffffffffffffffffffffffffffffffff",
        "00000000000000000000000000000000000000005",
    ];
    for size in sizes {
        bench.broken(
            chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n{POISON}")),
            BAD,
        );
    }
    bench.broken(
        chunked(&format!("{zeros}5\r\nhello\r\n0\r\n\r\n{POISON}")),
        BAD,
    );
    for body in [
        "5\r\nhelloXX",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello world\r\n",
        "5\r\nhello\n\n",
    ] {
        bench.broken(chunked(&format!("{body}0\r\n\r\n{POISON}")), BAD);
    }
    for size in ["5 ", "5\t", "005", "5  \t"] {
        let seen = bench.passes(chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")), true);
        assert_eq!(seen.body, b"hello", "{size:?}");
    }
    let broken = "weir_protocol_violations_total{listener=\"web\",kind=\"body\"}";
    let count = || bench.gateway.metric(broken);
    eventually("each is counted", || (count() - 22.0).abs() < 0.5);
    bench.end();
}

#[test]
fn a37_to_a42_chunks_whose_lines_do_not_end_in_crlf_break_the_request_off() {
    let mut bench = Bench::new();
    let mut bodies = vec![
        "5\nhello\r\n0\r\n\r\n".to_owned(),
        "5\r\nhello\r\n0\n\r\n".to_owned(),
        "5\r\nhello\r\n0\r\n\n".to_owned(),
        "2\r\r;a\r\n02\r\n41\r\n0\r\n\r\n".to_owned(),
    ];
    for end in ENDS {
        bodies.push(format!(
            "2;{end}XX\r\n10\r\n1f\r\nAAAABBBBCCCC\r\n0\r\n\r\n"
        ));
        bodies.push(format!("2;{end}XX\r\n22\r\nc\r\nAAAABBBBCCCC\r\n0\r\n\r\n"));
    }
    for end in ENDS.into_iter().chain(["", "XX", "\n\r", "\r\n\r\n"]) {
        bodies.push(format!(
            "5\r\nAAAAA{end}c\r\n17\r\nAAAABBBB\r\n1a\r\n0\r\n\r\n"
        ));
        bodies.push(format!("5\r\nAAAAA{end}1a\r\n8\r\nAAAABBBB\r\n0\r\n\r\n"));
    }
    // the end of a chunk taken for one byte, none, or two
    for data in [
        "5\r\nAAAAA\r0\r\n\r\n",
        "5\r\nAAAAA0\r\n\r\n",
        "5\r\nAAAAA\r\n\r0\r\n\r\n",
    ] {
        bodies.push(data.to_owned());
    }
    for body in bodies {
        bench.broken(chunked(&format!("{body}{POISON}")), BAD);
    }
    bench.end();
}

#[test]
fn a43_a44_extensions_are_dropped_and_bounded() {
    let mut bench = Bench::new();
    for extension in [
        ";a=b",
        ";a=\"b;c\"",
        ";",
        ";=x",
        ";a=\"",
        ";a\u{1}",
        ";a\0",
        ";;;",
        " ; a",
    ] {
        let case = chunked(&format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n"));
        let mut raw = bench.connect();
        raw.send(&case);
        let answer = raw.response();
        let seen = bench.seen(&name(case.as_bytes()));
        if answer.status() == 200 {
            assert_eq!((seen.len(), seen[0].body.as_slice()), (1, &b"hello"[..]));
            assert!(bench.origin.bad().is_empty());
        } else {
            assert_eq!(answer.status(), 400, "{extension:?}");
            assert!(raw.closed_within(SOON), "{extension:?}");
            assert!(seen.is_empty(), "{extension:?}: {seen:?}");
        }
    }
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 << 10));
    bench.broken(chunked(&long), BAD);
    let many = format!("1;{}\r\nx\r\n", "y".repeat(100)).repeat(100_000);
    let mut raw = bench.connect();
    // refused long before the end, so that not all of it is taken
    drop(raw.try_send(chunked(&many)));
    let answer = raw.try_response();
    match &answer {
        Ok(answer) => assert_eq!(answer.status(), 400),
        Err(_) => assert!(ended(&answer), "{answer:?}"),
    }
    drop(raw);
    bench.nothing_whole("many extensions");
    bench.end();
}

#[test]
fn a45_a_body_in_chunks_of_one_byte_arrives_whole() {
    let mut bench = Bench::new();
    let length = 32 << 10;
    let seen = bench.passes(chunked(&("1\r\nx\r\n".repeat(length) + "0\r\n\r\n")), true);
    assert_eq!(seen.body.len(), length);
    bench.end();
}

#[test]
fn a46_a47_trailers_pass_save_for_those_that_would_be_believed() {
    let mut bench = Bench::new();
    let seen = bench.passes(chunked("2\r\nab\r\n0\r\nTrailer-A: 1\r\n\r\n"), true);
    assert_eq!(seen.body, b"ab");
    let trailers = [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: evil",
        "Authorization: x",
        "X-Forwarded-For: 1",
        "Connection: close",
        "Cookie: a=b",
        "X-Real-Ip: 1.2.3.4",
        "Content_Length: 5",
        "Forwarded: for=1.2.3.4",
        "TE: trailers",
        "Content-Encoding: gzip",
        "Set-Cookie: a=b",
        "Upgrade: websocket",
        "X_Forwarded_For: 1",
    ];
    for trailer in trailers {
        let case = chunked(&format!("2\r\nab\r\n0\r\n{trailer}\r\n\r\n"));
        let seen = bench.passes(&case, true);
        assert!(seen.trailers.is_empty(), "{trailer}: {:?}", seen.trailers);
        let (field, value) = trailer.split_once(": ").expect("a field");
        if field == "Transfer-Encoding" {
            continue; // the request's own
        }
        assert!(
            !seen.all(field).contains(&value),
            "{trailer}: {:?}",
            seen.fields
        );
    }
    bench.end();
}

#[test]
fn a48_a_trailer_section_is_bounded_in_size_and_time() {
    let mut bench = Bench::with(SHORT);
    let large = format!("0\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = "X: y\r\n".repeat(10_000);
    for body in [large, format!("0\r\n{many}\r\n")] {
        let mut raw = bench.connect();
        drop(raw.try_send(chunked(&body)));
        let answer = raw.try_response();
        match &answer {
            Ok(answer) => assert!(matches!(answer.status(), 400 | 431), "{}", answer.start),
            Err(_) => assert!(ended(&answer), "{answer:?}"),
        }
        drop(raw);
        bench.nothing_whole("large trailers");
    }
    let mut raw = bench.connect();
    raw.send(chunked("0\r\nX: "));
    let begun = Instant::now();
    let stream = raw.stream().try_clone().expect("a socket");
    let drip = std::thread::spawn(move || {
        let mut stream = stream;
        while begun.elapsed() < SOON && stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let answer = raw.response();
    assert_eq!(answer.status(), 408, "{}", answer.start);
    assert!(begun.elapsed() < Duration::from_secs(3), "it never ends");
    drop(raw);
    drip.join().expect("no panic");
    bench.nothing_whole("endless trailers");
    bench.end();
}

#[test]
fn a49_what_follows_the_last_chunk_is_trailers_and_an_empty_line() {
    let mut bench = Bench::new();
    for body in [
        "0\r\nX\r\n\r\n",
        "0\r\nXX",
        "0\r\n\rX",
        "0\r\n: x\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
    ] {
        bench.broken(chunked(&format!("{body}{POISON}")), BAD);
    }
    let mut raw = bench.connect();
    raw.send(chunked("0\r\nX")).finish();
    bench.refused_or_ended(&mut raw, "0\\r\\nX and the end");
    bench.nothing_whole("0\\r\\nX and the end");
    bench.end();
}

#[test]
fn a12_a13_a56_a_body_that_does_not_come_breaks_the_request_off() {
    let mut bench = Bench::with(SHORT);
    let head = |length: u64| {
        format!("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: {length}\r\n\r\n")
    };
    for (case, length, body) in [("none of it", 999_999_999, ""), ("a part", 20, "hello")] {
        let mut raw = bench.connect();
        raw.send(head(length) + body);
        let begun = Instant::now();
        let answer = raw.response();
        assert_eq!(answer.status(), 408, "{case}: {}", answer.start);
        assert!(begun.elapsed() < Duration::from_secs(3), "{case}");
        // what comes afterwards is no new request
        drop(raw.try_send(POISON));
        assert!(raw.closed_within(SOON), "{case}: it stays open");
        bench.nothing_whole(case);
    }
    let connections = bench.origin.connections();
    let mut raw = bench.connect();
    raw.send(head(10) + "hello").finish();
    bench.refused_or_ended(&mut raw, "half of it and FIN");
    bench.nothing_whole("half of it and FIN");
    assert!(
        bench.origin.connections() > connections,
        "a used connection was used again"
    );
    bench.end();
}

#[test]
fn a51_a52_requests_in_one_segment_are_answered_in_order() {
    let mut bench = Bench::new();
    let get = |n: usize| format!("GET /{n} HTTP/1.1\r\nHost: t.test\r\nX-Nonce: {n}\r\n\r\n");
    for bad in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: x\r\n\r\n",
    ] {
        let mut raw = bench.connect();
        raw.send(get(0) + bad + POISON);
        assert_eq!(raw.response().get("x-nonce"), Some("0"), "{bad:?}");
        bench.expect_refusal(&mut raw, bad, BAD);
        assert_eq!(bench.seen(bad).len(), 1);
    }
    let mut raw = bench.connect();
    let all: String = (0..100).map(get).collect();
    raw.send(all);
    for n in 0..100 {
        assert_eq!(raw.response().get("x-nonce"), Some(&*n.to_string()));
    }
    drop(raw);
    assert_eq!(bench.seen("100 requests").len(), 100);
    bench.end();
}

#[test]
fn a53_a54_what_stands_in_the_body_of_any_method_is_a_body() {
    let mut bench = Bench::new();
    for method in ["GET", "OPTIONS", "DELETE", "PATCH", "PROPFIND"] {
        let seen = bench.passes(with_length(method, "/", POISON), true);
        assert_eq!((seen.method(), seen.text().as_str()), (method, POISON));
    }
    for method in ["GET", "DELETE"] {
        let case = chunked(&format!("{:x}\r\n{POISON}\r\n0\r\n\r\n", POISON.len()));
        let seen = bench.passes(case.replace("POST", method), true);
        assert_eq!((seen.method(), seen.text().as_str()), (method, POISON));
    }
    bench.refused(with_length("TRACE", "/", POISON), BAD);
    bench.refused(
        chunked(&format!("0\r\n\r\n{POISON}")).replace("POST", "TRACE"),
        BAD,
    );
    let head = Origin::start(|request, _| match request.method() {
        "HEAD" => origin::Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()),
        _ => origin::echo(request),
    });
    let mut bench = Bench::before(head, "");
    let mut raw = bench.connect();
    raw.send(with_length("HEAD", "/", POISON));
    assert_eq!(raw.response_to_head().status(), 200);
    raw.send("GET /clean HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert!(raw.response().text().starts_with("GET /clean"));
    drop(raw);
    let seen = bench.seen("HEAD");
    assert_eq!((seen.len(), seen[0].text().as_str()), (2, POISON));
    bench.end();
}

#[test]
fn the_refusal_of_a_large_body_reaches_a_client_that_first_sends_it_all() {
    let origin = Origin::echo();
    let config = gateway::before(origin.address, "");
    let mut gateway = Gateway::start(&format!("{config}max_body = \"8B\"\n"));
    let mut raw = Raw::connect(gateway.web());
    let length = 20 << 20;
    raw.send(format!(
        "POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: {length}\r\n\r\n"
    ));
    let sent = raw.try_send(vec![b'x'; length]);
    assert!(sent.is_ok(), "{sent:?}");
    assert_eq!(raw.response().status(), 413);
    gateway.assert_sound();
}

#[test]
fn a55_the_body_of_a_request_that_is_answered_here_is_never_a_request() {
    let origin = Origin::echo();
    let gateway = Gateway::start(&format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n[upstreams.o]\nendpoints = [\"{}\"]\n\
         [[routes]]\nid = \"fixed\"\nmatch = {{ path = \"/fixed\" }}\nrespond = {{ status = 403, body = \"no\" }}\n\
         [[routes]]\nid = \"moved\"\nmatch = {{ path = \"/moved\" }}\nredirect = {{ to = \"/clean\" }}\n\
         [[routes]]\nid = \"get\"\nmatch = {{ path = \"/get\", methods = [\"GET\"] }}\nupstream = \"o\"\n\
         [[routes]]\nid = \"small\"\nmatch = {{ path = \"/small\" }}\nupstream = \"o\"\nmax_body = \"8B\"\n\
         [[routes]]\nid = \"clean\"\nmatch = {{ path = \"/clean\" }}\nupstream = \"o\"\n",
        origin.address
    ));
    let mut gateway = gateway;
    let clean = "GET /clean HTTP/1.1\r\nHost: t.test\r\n\r\n";
    let codings = |target: &str| {
        let head = format!("POST {target} HTTP/1.1\r\nHost: t.test\r\n");
        let (length, chunk) = (POISON.len(), POISON.len());
        [
            (
                format!("{head}Content-Length: {length}\r\n\r\n"),
                POISON.to_owned(),
            ),
            (
                format!("{head}Transfer-Encoding: chunked\r\n\r\n"),
                format!("{chunk:x}\r\n{POISON}\r\n0\r\n\r\n"),
            ),
        ]
    };
    let routes = [
        ("/fixed", 403),
        ("/moved", 308),
        ("/get", 405),
        ("/small", 413),
        ("/nothing", 404),
        ("/a%2fb", 400),
        ("/fixed\r\nExpect: x", 400),
    ];
    for (target, status) in routes {
        for (head, body) in codings(target) {
            for pause in [false, true] {
                let name = format!("{target}, pause {pause}");
                let mut raw = Raw::connect(gateway.web());
                if pause {
                    raw.send(&head);
                } else {
                    raw.send(head.clone() + &body + clean);
                }
                if pause {
                    std::thread::sleep(Duration::from_millis(20));
                    drop(raw.try_send(body.clone() + clean));
                }
                let answer = raw.response();
                assert_eq!(answer.status(), status, "{name}");
                match raw.try_response() {
                    Ok(next) => assert!(next.text().starts_with("GET /clean"), "{name}: {next:?}"),
                    outcome => assert!(ended(&outcome), "{name}: {outcome:?}"),
                }
                drop(raw);
            }
        }
    }
    let seen = origin.requests();
    assert!(seen.iter().all(|r| r.target() == "/clean"), "{seen:?}");
    gateway.assert_sound();
}

#[test]
fn a57_an_answer_before_the_body_is_whole_is_the_last_on_both_sides() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let upstream = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the gateway connects");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        while !seen.ends_with(b"\r\n\r\nhello") {
            let n = stream.read(&mut piece).expect("a head");
            assert!(n > 0, "it ended");
            seen.extend_from_slice(&piece[..n]);
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
        stream.write_all(answer).expect("it is taken");
        seen.clear();
        drop(stream.read_to_end(&mut seen));
        seen
    });
    let mut gateway = Gateway::start(&gateway::before(address, ""));
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET /con HTTP/1.1\r\nHost: t.test\r\nContent-Length: 60\r\n\r\nhello");
    assert_eq!(raw.response().text(), "early");
    let mut next = raw.stream().try_clone().expect("a socket");
    drop(next.write_all(POISON.as_bytes()));
    assert!(raw.closed_within(SOON), "it stays open");
    let rest = upstream.join().expect("no panic");
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("HTTP/1.1\r\nhost"), "{rest}");
    let odd =
        "GET /con HTTP/1.1\r\nHost: t.test\r\nContent-Length: 40\r\nExpect: x 100-continue\r\n\r\n";
    let mut raw = Raw::connect(gateway.web());
    raw.send(odd);
    assert_eq!(raw.response().status(), 417);
    drop(raw.try_send(POISON));
    assert!(raw.closed_within(SOON), "it stays open");
    gateway.assert_sound();
}

#[test]
fn a58_every_request_of_a_connection_is_checked_like_the_first() {
    let origin = Origin::echo();
    let config = gateway::before(origin.address, "").replace(
        "id = \"all\"\n",
        "id = \"all\"\nmatch = { host = \"good.test\" }\n",
    );
    let mut gateway = Gateway::start(&config);
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut raw = Raw::connect(gateway.web());
    raw.send(get("evil.test"));
    let first = raw.response();
    let mut raw = Raw::connect(gateway.web());
    raw.send(get("good.test"));
    assert_eq!(raw.response().status(), 200);
    raw.send(get("evil.test"));
    let second = raw.response();
    assert_eq!((first.status(), second.status()), (404, 404));
    assert_eq!(origin.requests().len(), 1);
    gateway.assert_sound();
}

#[test]
fn a59_a60_another_protocol_on_a_port_ends_at_once() {
    let origin = Origin::echo();
    let made = rcgen::generate_simple_self_signed(["t.test".to_owned()]).expect("a certificate");
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text);
    write("c.crt", made.cert.pem()).expect("written");
    write("c.key", made.signing_key.serialize_pem()).expect("written");
    let config = gateway::before(origin.address, "").replace("[\"http1\", \"h2\"]", "[\"http1\"]");
    let server = "[server]\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n";
    let secure = "[listeners.secure]\naddress = \"127.0.0.1:0\"\n\
                  tls = { certificates = [{ cert = \"c.crt\", key = \"c.key\" }] }\n";
    write("weir.toml", format!("{server}{secure}{config}")).expect("written");
    let mut gateway = Gateway::run_in(dir);
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 501]].concat();
    let cases: [(&str, &[u8]); 3] = [
        ("web", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("web", &hello),
        ("secure", POISON.as_bytes()),
    ];
    for (listener, bytes) in cases {
        let mut raw = Raw::connect(gateway.addr(listener));
        raw.send(bytes);
        let begun = Instant::now();
        let said = raw.rest(SOON);
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{listener}: it hangs"
        );
        let text = String::from_utf8_lossy(&said);
        let refused = ["HTTP/1.1 400", "HTTP/1.1 505"]
            .iter()
            .any(|s| text.starts_with(s));
        assert!(
            said.is_empty() || refused || said[0] == 0x15,
            "{listener}: {text}"
        );
    }
    assert!(origin.requests().is_empty());
    gateway.assert_sound();
}

#[test]
fn a61_connection_cannot_take_the_framing_off() {
    let mut bench = Bench::new();
    let chunks = format!("{:x}\r\n{POISON}\r\n0\r\n\r\n", POISON.len());
    let length = POISON.len();
    let cases = [
        (format!("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")),
        (format!("Connection: Content-Length\r\nContent-Length: {length}\r\n\r\n{POISON}")),
        (format!(
            "Connection: content-length, keep-alive\r\nContent-Length: {length}\r\n\r\n{POISON}"
        )),
    ];
    for case in cases {
        let seen = bench.passes(format!("POST / HTTP/1.1\r\nHost: t.test\r\n{case}"), true);
        assert_eq!(seen.text(), POISON);
        assert!(seen.all("connection").is_empty());
    }
    bench.end();
}

#[test]
fn the_longest_times_serve_as_well_as_others() {
    let origin = Origin::echo();
    // A listener's may be 24 hours at most; more than 24 days is more than the kernel takes.
    let limits = "limits = { write_timeout = \"24h\", idle_timeout = \"24h\", body_idle_timeout = \"24h\" }\n";
    let config = gateway::before(
        origin.address,
        "timeouts = { connect = \"60d\", first_byte = \"60d\", idle = \"60d\" }",
    )
    .replace("[upstreams.o]", &format!("{limits}[upstreams.o]"));
    let mut gateway = Gateway::start(&format!("{config}timeout = \"60d\"\n"));
    let mut raw = Raw::connect(gateway.web());
    for _ in 0..2 {
        raw.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 5\r\n\r\nhello");
        let answer = raw.response();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "POST / 5"));
    }
    assert_eq!(h2c::download(gateway.web(), "/"), 7);
    gateway.assert_sound();
}
