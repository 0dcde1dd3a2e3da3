//! Group P, second part: gRPC, event streams, both ways at once.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::harness::rpc::{self, Rpc};
use super::harness::{Gateway, Origin, Raw, Reply, client, eventually, gateway, origin};

fn before(rpc: &Rpc, route: &str) -> Gateway {
    let config = gateway::before(
        rpc.address,
        "protocol = \"h2\"\nretry = false\neject = false",
    );
    Gateway::start(&format!("{config}{route}\n"))
}

#[test]
fn p08_websocket_over_http2_is_not_offered() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let to = gateway.web();
    rpc::runtime().block_on(async {
        let mut sender = rpc::connect(to).await;
        let answer = sender.send_request(rpc::call("/x").body(()).expect("a head"), true);
        rpc::read(answer.expect("sent").0).await.expect("an answer");
        assert!(!sender.is_extended_connect_protocol_enabled());
        // Plain CONNECT is not served either (D12).
        let connect = http::Request::connect("evil:443").body(()).expect("a head");
        let (answer, _) = sender.send_request(connect, false).expect("sent");
        match rpc::read(answer).await {
            Ok(answer) => assert_eq!(answer.head.status, 405),
            Err(error) => assert!(error.is_reset(), "{error}"),
        }
    });
    assert_eq!(origin.requests().len(), 1);
    gateway.assert_sound();
}

#[test]
fn p10_grpc_passes_with_its_trailers() {
    let rpc = Rpc::start();
    let mut gateway = before(&rpc, "");
    let to = gateway.web();
    rpc::runtime().block_on(async {
        let large = "m".repeat(8_000);
        let head = rpc::call("/pkg.Service/Unary")
            .header("grpc-timeout", "99999999H")
            .header("x-meta-bin", &large);
        let answer = rpc::unary(to, head, b"\0\0\0\0\x05hello")
            .await
            .expect("an answer");
        assert_eq!(answer.head.status, 200);
        assert_eq!(answer.head.headers["content-type"], "application/grpc");
        assert_eq!(answer.body, b"\0\0\0\0\x05hello");
        let trailers = answer.trailers.expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["grpc-message"], "fine");
        assert_eq!(trailers["x-detail-bin"], "AAECAw==");
        let seen = &rpc.seen().heads[0];
        assert_eq!(seen.headers["te"], "trailers");
        assert_eq!(seen.headers["grpc-timeout"], "99999999H");
        assert_eq!(seen.headers["x-meta-bin"], large.as_str());

        let answer = rpc::unary(to, rpc::call("/trailers-only"), b"")
            .await
            .expect("an answer");
        assert_eq!(answer.head.headers["grpc-status"], "5");
        assert!(answer.head_only && answer.trailers.is_none());

        // Both ways, in turn: each message comes back before the next is sent.
        let mut sender = rpc::connect(to).await;
        let head = rpc::call("/pkg.Service/Bidi").body(()).expect("a head");
        let (answer, mut send) = sender.send_request(head, false).expect("sent");
        let (head, mut body) = answer
            .await
            .expect("an answer before the first message")
            .into_parts();
        assert_eq!(head.status, 200);
        for n in 0..100u8 {
            send.send_data(Bytes::from(vec![n; 10]), false)
                .expect("sent");
            let echo = body.data().await.expect("a message").expect("whole");
            assert_eq!(echo, vec![n; 10]);
            drop(body.flow_control().release_capacity(echo.len()));
        }
        send.send_data(Bytes::new(), true).expect("sent");
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.expect("no error").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
    });
    gateway.assert_sound();
}

#[test]
fn p11_a_cancelled_call_is_cancelled_upstream_at_once() {
    let rpc = Rpc::start();
    let mut gateway = before(&rpc, "");
    let to = gateway.web();
    for (nth, path) in ["/silent", "/endless"].into_iter().enumerate() {
        let cancelled = rpc::runtime().block_on(async {
            let mut sender = rpc::connect(to).await;
            let head = rpc::call(path).body(()).expect("a head");
            let (answer, mut send) = sender.send_request(head, false).expect("sent");
            let mut held = None;
            if path == "/endless" {
                let mut body = answer.await.expect("an answer").into_body();
                body.data().await.expect("a piece").expect("whole");
                held = Some(body);
            } else {
                while rpc.seen().heads.len() <= nth {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            let now = Instant::now();
            send.send_reset(h2::Reason::CANCEL);
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(held);
            now
        });
        eventually("the reset arrives", || rpc.seen().resets.len() == nth + 1);
        let (at, _) = rpc.seen().resets[nth];
        assert!(
            at - cancelled < Duration::from_millis(50),
            "{path}: {:?}",
            at - cancelled
        );
    }
    gateway.assert_sound();
}

#[test]
fn p12_an_upstream_that_dies_in_a_call_is_never_a_silent_ok() {
    let rpc = Rpc::start();
    let mut gateway = before(&rpc, "");
    let to = gateway.web();
    let result = rpc::runtime().block_on(rpc::unary(to, rpc::call("/die"), b"x"));
    assert!(
        result.as_ref().is_err_and(h2::Error::is_reset),
        "{result:?}"
    );
    gateway.assert_sound();
    // Nobody there at all: UNAVAILABLE, in gRPC's words.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = gone.local_addr().expect("bound");
    drop(gone);
    let config = gateway::before(address, "protocol = \"h2\"\nretry = false");
    let mut gateway = Gateway::start(&config);
    let to = gateway.web();
    let answer = rpc::runtime().block_on(rpc::unary(to, rpc::call("/x"), b"x"));
    let answer = answer.expect("an answer");
    assert_eq!(answer.head.status, 200);
    assert_eq!(answer.head.headers["grpc-status"], "14");
    gateway.assert_sound();
}

#[test]
fn p13_the_route_timeout_is_deadline_exceeded_for_grpc() {
    let rpc = Rpc::start();
    let mut gateway = before(&rpc, "timeout = \"150ms\"");
    let to = gateway.web();
    let answer = rpc::runtime().block_on(rpc::unary(to, rpc::call("/silent"), b"x"));
    let answer = answer.expect("an answer");
    assert_eq!(answer.head.status, 200);
    assert_eq!(answer.head.headers["content-type"], "application/grpc");
    assert_eq!(answer.head.headers["grpc-status"], "4");
    assert!(answer.head_only);
    eventually("the upstream is told", || rpc.seen().resets.len() == 1);
    gateway.assert_sound();
}

#[test]
fn p14_ten_thousand_small_messages_on_one_stream_are_no_attack() {
    let rpc = Rpc::start();
    let mut gateway = before(&rpc, "");
    let to = gateway.web();
    rpc::runtime().block_on(async {
        let mut sender = rpc::connect(to).await;
        let head = rpc::call("/many").body(()).expect("a head");
        let (answer, _) = sender.send_request(head, true).expect("sent");
        let answer = rpc::read(answer).await.expect("an answer");
        assert_eq!(answer.body.len(), 50_000);
        assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");

        // The other way, with no more than a thousand of them under way.
        let head = rpc::call("/echo").body(()).expect("a head");
        let (answer, mut send) = sender.send_request(head, false).expect("sent");
        let mut body = answer.await.expect("an answer").into_body();
        let (mut sent, mut received) = (0, 0);
        while received < 50_000 {
            while sent < 50_000 && sent < received + 5_000 {
                sent += 5;
                let message = Bytes::from_static(b"12345");
                send.send_data(message, sent == 50_000).expect("sent");
            }
            received += body.data().await.expect("more").expect("whole").len();
        }
        let trailers = body.trailers().await.expect("no error").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
    });
    gateway.assert_sound();
}

#[test]
fn p06_clients_that_do_not_read_stop_nobody_else_on_the_shared_connection() {
    let rpc = Rpc::start();
    let mut gateway = before(&rpc, "");
    let to = gateway.web();
    rpc::runtime().block_on(async {
        let mut stalled = Vec::new();
        for _ in 0..16 {
            let mut sender = rpc::connect(to).await;
            let head = rpc::call("/large").body(()).expect("a head");
            let (answer, _) = sender.send_request(head, true).expect("sent");
            let answer = answer.await.expect("a head");
            stalled.push((sender, answer));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = rpc::unary(to, rpc::call("/echo"), b"hello").await;
        assert_eq!(answer.expect("an answer").body, b"hello");
    });
    gateway.assert_sound();
}

#[test]
fn p15_grpc_to_a_server_of_http1_fails_fast_and_says_so() {
    let origin = Origin::echo();
    let config = gateway::before(origin.address, "protocol = \"h2\"\nretry = false");
    let mut gateway = Gateway::start(&config);
    let to = gateway.web();
    let begun = Instant::now();
    let answer = rpc::runtime().block_on(rpc::unary(to, rpc::call("/x"), b"x"));
    let answer = answer.expect("an answer");
    assert_eq!(answer.head.headers["grpc-status"], "14");
    assert!(answer.head.headers.contains_key("proxy-status"));
    assert!(begun.elapsed() < Duration::from_secs(2));
    gateway.assert_sound();
    // Where the config says http1, the answer is the server's own, whatever it is.
    let origin = Origin::start(|_, _| {
        Reply::Bytes(b"HTTP/1.1 415 No\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let mut gateway = Gateway::before(origin.address, "");
    let to = gateway.web();
    let answer = rpc::runtime().block_on(rpc::unary(to, rpc::call("/x"), b"x"));
    assert_eq!(answer.expect("an answer").head.status, 415);
    gateway.assert_sound();
}

#[test]
fn p16_events_come_as_they_are_sent_and_outlive_the_route_timeout() {
    const EVENTS: usize = 6;
    let origin = Origin::start(|_, _| {
        Reply::Act(Box::new(|stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            drop(stream.write_all(head.as_bytes()));
            for _ in 0..EVENTS {
                drop(stream.write_all(b"9\r\ndata: 1\n\n\r\n"));
                std::thread::sleep(Duration::from_millis(150));
            }
            stream.write_all(b"0\r\n\r\n").is_ok()
        }))
    });
    let config = gateway::before(origin.address, "timeouts = { first_byte = \"200ms\" }");
    let mut gateway = Gateway::start(&format!("{config}timeout = \"200ms\"\n"));
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET /events HTTP/1.1\r\nHost: t.test\r\nAccept: text/event-stream\r\n\r\n");
    let head = raw.reader().response_head().expect("a head at once");
    let begun = Instant::now();
    let mut buffer = std::mem::take(&mut raw.reader().buffer);
    let mut arrivals = Vec::new();
    while arrivals.len() < EVENTS {
        let events = buffer.windows(9).filter(|w| w == b"data: 1\n\n").count();
        arrivals.resize(events, begun.elapsed());
        if events < EVENTS {
            let mut piece = [0; 1024];
            let n = raw.reader().get_mut().read(&mut piece).expect("more");
            assert!(n > 0, "the stream was cut after {events} events");
            buffer.extend_from_slice(&piece[..n]);
        }
    }
    assert_eq!(head.get("content-type"), Some("text/event-stream"));
    assert!(arrivals[0] < Duration::from_millis(140), "{arrivals:?}");
    assert!(
        arrivals[EVENTS - 1] > Duration::from_millis(500),
        "{arrivals:?}"
    );
    for pair in arrivals.windows(2) {
        assert!(
            pair[1] - pair[0] > Duration::from_millis(50),
            "held back: {arrivals:?}"
        );
    }
    gateway.assert_sound();
}

#[test]
fn p17_an_answer_streams_while_the_body_is_still_coming() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n";
        stream.write_all(answer).expect("sent");
        let mut piece = [0; 10];
        for _ in 0..50 {
            stream.read_exact(&mut piece).expect("a piece");
            stream.write_all(&piece).expect("sent");
        }
    });
    let mut gateway = Gateway::before(address, "");
    let mut raw = Raw::connect(gateway.web());
    raw.send("POST /duplex HTTP/1.1\r\nHost: t.test\r\nContent-Length: 500\r\n\r\n");
    let head = raw
        .reader()
        .response_head()
        .expect("a head before the body");
    assert_eq!(head.status(), 200);
    for n in 0..50u8 {
        raw.send([b'a' + n % 26; 10]);
        let mut piece = [0; 10];
        let buffered = std::mem::take(&mut raw.reader().buffer);
        piece[..buffered.len()].copy_from_slice(&buffered);
        let rest = raw
            .reader()
            .get_mut()
            .read_exact(&mut piece[buffered.len()..]);
        rest.expect("it comes back at once");
        assert_eq!(piece, [b'a' + n % 26; 10]);
    }
    server.join().expect("no panic");
    gateway.assert_sound();
    // Large both ways at once: neither waits for the other.
    let origin = Origin::start(|request, _| origin::ok(&"y".repeat(request.body.len())));
    let mut gateway = Gateway::before(origin.address, "");
    let size = 4 << 20;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n{}",
        "x".repeat(size)
    );
    assert_eq!(client::ask(gateway.web(), &request).body.len(), size);
    gateway.assert_sound();
}
