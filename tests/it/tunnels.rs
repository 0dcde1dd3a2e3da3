//! Group P, first part: WebSockets and other tunnels.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tungstenite::{Message, handshake::derive_accept_key};

use super::harness::{Gateway, Raw, SOON, eventually, gateway};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The handshake of a client.
fn handshake() -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: t.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: chat\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    )
}

/// The answer of a server.
fn switching() -> String {
    let accept = derive_accept_key(KEY.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
}

/// A masked frame of a client; `first` is FIN, RSV and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x0a, 0x0d, 0x00, 0xff];
    let mut bytes = vec![first];
    match payload.len() {
        n @ 0..=125 => bytes.push(0x80 | n as u8),
        n @ 126..=65535 => {
            bytes.push(0xfe);
            bytes.extend((n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0xff);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

/// Does as `serve` says with every connection.
fn origin(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_nodelay(true).expect("no delay");
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads a request head byte by byte, so that nothing behind it is taken.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// An origin that grants every upgrade and then does as `tunnel` says.
fn granting(tunnel: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    origin(move |mut stream| {
        head(&mut stream);
        if stream.write_all(switching().as_bytes()).is_ok() {
            tunnel(stream);
        }
    })
}

/// An echo by a WebSocket server that others wrote.
fn echo() -> SocketAddr {
    origin(|stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        while let Ok(message) = socket.read() {
            if matches!(message, Message::Text(_) | Message::Binary(_))
                && socket.send(message).is_err()
            {
                break;
            }
        }
    })
}

fn before(origin: SocketAddr, more: &str) -> Gateway {
    let config = gateway::before(origin, "");
    Gateway::start(&format!("{config}upgrade = [\"websocket\"]\n{more}"))
}

/// A client that has been let out.
fn leave(to: SocketAddr) -> Raw {
    let mut raw = Raw::connect(to);
    raw.send(handshake());
    let answer = raw.response();
    assert_eq!(answer.status(), 101, "{answer:?}");
    let upgrade = answer.get("upgrade").unwrap_or_default();
    assert!(upgrade.eq_ignore_ascii_case("websocket"));
    let connection = answer.get("connection").unwrap_or_default();
    assert!(connection.eq_ignore_ascii_case("upgrade"));
    let accept = derive_accept_key(KEY.as_bytes());
    assert_eq!(answer.get("sec-websocket-accept"), Some(accept.as_str()));
    raw
}

fn tunnels(gateway: &Gateway) -> f64 {
    gateway.metric("weir_connections_total{listener=\"web\",protocol=\"tunnel\"}")
}

#[test]
fn a_tunnel_of_a_listener_that_a_reload_removed_does_not_bring_back_its_numbers() {
    let granted = Arc::new(AtomicBool::new(false));
    let asked = granted.clone();
    let origin = origin(move |mut stream| {
        head(&mut stream);
        while !asked.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(stream.write_all(switching().as_bytes()));
        drop(stream.read(&mut [0; 16]));
    });
    let gateway = before(origin, "");
    let mut raw = Raw::connect(gateway.web());
    raw.send(handshake());
    eventually("it is under way", || {
        gateway.metric("weir_upstream_in_flight{upstream=\"o\"}") == 1.0
    });
    let config = gateway::before(origin, "").replace("listeners.web", "listeners.other");
    gateway.write_config(&format!("{config}upgrade = [\"websocket\"]\n"));
    assert_eq!(gateway.reload().0, 200);
    granted.store(true, Relaxed);
    assert_eq!(raw.response().status(), 101);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(
        gateway.metric("weir_drain_aborted_total{kind=\"tunnel\"}"),
        0.0
    );
    let metrics = gateway.metrics();
    let mut names = metrics.keys();
    assert!(
        !names.any(|name| name.contains("listener=\"web\"")),
        "{metrics:?}"
    );
}

/// What a client says in one conversation.
fn conversations() -> Vec<(&'static str, Vec<u8>)> {
    let close = |code: u16| frame(0x88, &code.to_be_bytes());
    let end = close(1000);
    let big = |n: usize| [frame(0x82, &vec![7; n]), close(1000)].concat();
    let mut all = vec![
        ("text", [frame(0x81, b"hello"), end.clone()].concat()),
        (
            "line ends",
            [frame(0x82, b"\n\n\r\n\r\n"), end.clone()].concat(),
        ),
        ("ping", [frame(0x89, b"?"), end.clone()].concat()),
        ("pong unasked", [frame(0x8a, b"!"), end.clone()].concat()),
        (
            "fragments with a ping between",
            [
                frame(0x01, b"he"),
                frame(0x00, b"ll"),
                frame(0x89, b"?"),
                frame(0x80, b"o"),
                end.clone(),
            ]
            .concat(),
        ),
        ("close without a code", frame(0x88, b"")),
        ("close of one byte", frame(0x88, b"1")),
        ("close with a reason", frame(0x88, b"\x03\xe8goodbye")),
        ("invalid UTF-8", frame(0x81, b"\xff\xfe")),
        ("RSV1 without extension", frame(0xc1, b"hello")),
        ("reserved opcode", frame(0x83, b"hello")),
        ("reserved control opcode", frame(0x8b, b"hello")),
        ("fragmented ping", frame(0x09, b"?")),
        ("long ping", frame(0x89, &[7; 126])),
        ("continuation of nothing", frame(0x80, b"hello")),
        ("no mask", b"\x81\x05hello".to_vec()),
        ("half a frame", b"\x81\x85ab".to_vec()),
    ];
    for code in [
        1000, 1001, 1003, 1005, 1007, 1009, 1011, 3000, 4999, 999, 65535,
    ] {
        all.push(("close with a code", close(code)));
    }
    for size in [0, 1, 125, 126, 65535, 65536, 1 << 20, 16 << 20] {
        all.push(("size", big(size)));
    }
    all
}

/// All that comes back in one conversation.
fn converse(to: SocketAddr, says: &[u8]) -> Vec<u8> {
    let mut raw = leave(to);
    let mut writer = raw.stream().try_clone().expect("a second handle");
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            drop(writer.write_all(says));
            drop(writer.shutdown(Shutdown::Write));
        });
        answers = raw.rest(SOON);
    });
    answers
}

#[test]
fn p01_a_conversation_is_the_same_with_and_without_the_gateway() {
    let origin = echo();
    let mut gateway = before(origin, "");
    for (what, says) in conversations() {
        let (direct, through) = (converse(origin, &says), converse(gateway.web(), &says));
        assert!(
            direct == through,
            "{what}: {} and {} bytes",
            direct.len(),
            through.len()
        );
    }
    gateway.assert_sound();
}

#[test]
fn p01_a_client_that_others_wrote_talks_through() {
    let mut gateway = before(echo(), "");
    let stream = TcpStream::connect(gateway.web()).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let (mut socket, answer) =
        tungstenite::client("ws://t.test/chat?room=1", stream).expect("a handshake");
    assert_eq!(answer.status(), 101);
    for message in [
        Message::text("grüße"),
        Message::binary(vec![1; 70_000]),
        Message::text(""),
    ] {
        socket.send(message.clone()).expect("sent");
        assert_eq!(socket.read().expect("an echo"), message);
    }
    socket.close(None).expect("a close frame");
    while socket.read().is_ok() {}
    drop(socket);
    eventually("the tunnel is over", || {
        gateway.metric_sum("weir_connections{") == 0.0
    });
    assert_eq!(tunnels(&gateway), 1.0);
    gateway.assert_sound();
}

#[test]
fn p01_extensions_and_compressed_frames_pass_byte_for_byte() {
    let compressed = frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    let expected = compressed.clone();
    let origin = granting(move |mut stream| {
        let mut seen = vec![0; expected.len()];
        stream.read_exact(&mut seen).expect("a frame");
        stream.write_all(&seen).expect("sent back");
    });
    let gateway = before(origin, "");
    let mut raw = Raw::connect(gateway.web());
    raw.send(handshake());
    let answer = raw.response();
    assert_eq!(
        answer.get("sec-websocket-extensions"),
        Some("permessage-deflate")
    );
    assert_eq!(answer.get("sec-websocket-protocol"), Some("chat"));
    raw.send(&compressed);
    assert_eq!(raw.rest(SOON), compressed);
}

#[test]
fn p02_a_tunnel_outlives_the_idle_timeouts_of_http() {
    let limits = "limits = { idle_timeout = \"200ms\", header_timeout = \"200ms\" }\n";
    let config = gateway::before(
        echo(),
        "timeouts = { first_byte = \"200ms\", idle = \"200ms\" }",
    )
    .replace("[upstreams.o]", &format!("{limits}[upstreams.o]"));
    let mut gateway = Gateway::start(&format!(
        "{config}upgrade = [\"websocket\"]\ntimeout = \"200ms\"\n"
    ));
    let mut raw = leave(gateway.web());
    // Longer than all of them, in silence.
    assert!(!raw.closed_within(Duration::from_millis(900)));
    raw.send(frame(0x89, b"?"));
    let mut pong = [0; 3];
    raw.reader()
        .get_mut()
        .read_exact(&mut pong)
        .expect("a pong");
    assert_eq!(&pong, b"\x8a\x01?");
    gateway.assert_sound();
}

#[test]
fn p03_after_a_half_close_the_rest_is_delivered_and_then_the_end() {
    const LENGTH: usize = 10 << 20;
    let origin = granting(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("up to the end");
        assert_eq!(all, b"that is all");
        drop(stream.write_all(&vec![7; LENGTH]));
    });
    let mut gateway = before(origin, "");
    let mut raw = leave(gateway.web());
    raw.send("that is all").finish();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(raw.rest(SOON).len(), LENGTH);
    eventually("the tunnel is over", || {
        gateway.metric_sum("weir_connections{") == 0.0
    });
    gateway.assert_sound();
}

#[test]
fn p04_bytes_in_the_segment_of_the_101_are_delivered() {
    let origin = origin(|mut stream| {
        head(&mut stream);
        let both = [switching().as_bytes(), b"\x81\x05first"].concat();
        drop(stream.write_all(&both));
        drop(stream.read(&mut [0]));
    });
    let mut gateway = before(origin, "");
    let mut raw = leave(gateway.web());
    raw.finish();
    assert_eq!(raw.rest(SOON), b"\x81\x05first");
    gateway.assert_sound();
}

#[test]
fn p05_frames_sent_before_the_101_wait_for_it() {
    let early = [
        frame(0x82, b"\n\n early \r\n\r\n"),
        frame(0x82, b"GET /poison HTTP/1.1\r\nHost: t\r\n\r\n"),
        frame(0x82, &[b'\n'; 300]),
        b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n".to_vec(),
        frame(0x82, &[b'x'; 100_000]),
    ];
    for split in [false, true] {
        for early in &early {
            let length = early.len();
            let origin = origin(move |mut stream| {
                head(&mut stream);
                stream
                    .set_read_timeout(Some(Duration::from_millis(100)))
                    .expect("a timeout");
                let before = stream.read(&mut [0]);
                assert!(before.is_err(), "nothing may come before the 101");
                stream.set_read_timeout(Some(SOON)).expect("a timeout");
                stream.write_all(switching().as_bytes()).expect("granted");
                let mut seen = vec![0; length];
                stream.read_exact(&mut seen).expect("what was sent early");
                stream.write_all(&seen).expect("sent back");
            });
            let gateway = before(origin, "");
            let mut raw = Raw::connect(gateway.web());
            if split {
                raw.send(handshake());
                std::thread::sleep(Duration::from_millis(20));
                raw.send(early);
            } else {
                raw.send([handshake().as_bytes(), early].concat());
            }
            assert_eq!(raw.response().status(), 101);
            assert!(raw.rest(SOON) == *early, "{length} bytes, split: {split}");
        }
    }
}

#[test]
fn p06_a_side_that_does_not_read_stops_the_other() {
    const LENGTH: usize = 100 << 20;
    const STALLED: usize = 8;
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = written.clone();
    let origin = granting(move |mut stream| {
        let piece = vec![7; 64 << 10];
        for _ in 0..LENGTH / piece.len() {
            if stream.write_all(&piece).is_err() {
                return;
            }
            count.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst);
        }
    });
    let mut gateway = before(origin, "");
    drop(leave(gateway.web()));
    gateway.wait_idle();
    let before = gateway.rss();
    let mut stalled: Vec<Raw> = (0..STALLED).map(|_| leave(gateway.web())).collect();
    let mut last = 0;
    eventually("the writers are stopped", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = written.load(std::sync::atomic::Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now && now > 0
    });
    assert!(last < STALLED * LENGTH / 2, "{last} bytes went nowhere");
    // Two directions of 128 KiB each, and what the allocator takes at once on two workers.
    let grown = gateway.rss().saturating_sub(before);
    let most = STALLED as u64 * 256 + 4096;
    assert!(
        grown < most,
        "{grown} KiB held for clients that do not read"
    );
    let mut raw = stalled.pop().expect("one of them");
    drop(stalled);
    raw.finish();
    let mut received = 0;
    let mut piece = vec![0; 1 << 20];
    while let Ok(n @ 1..) = raw.reader().get_mut().read(&mut piece) {
        received += n;
    }
    assert_eq!(received + raw.reader().buffer.len(), LENGTH);
    gateway.assert_sound();
}

#[test]
fn p07_when_the_upstream_dies_all_its_tunnels_end_and_nothing_is_left() {
    const TUNNELS: usize = 200;
    let held = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = held.clone();
    let origin = granting(move |stream| keep.lock().expect("no panic").push(stream));
    let mut gateway = before(origin, "");
    // Once through, so that all that is opened at first use is open.
    drop(leave(gateway.web()));
    eventually("the first stands", || {
        held.lock().expect("no panic").pop().is_some()
    });
    gateway.wait_idle();
    let descriptors = gateway.descriptors();
    let mut clients: Vec<Raw> = (0..TUNNELS).map(|_| leave(gateway.web())).collect();
    eventually("all stand", || {
        held.lock().expect("no panic").len() == TUNNELS
    });
    let begun = Instant::now();
    for (nth, stream) in held.lock().expect("no panic").drain(..).enumerate() {
        if nth % 2 == 0 {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).expect("linger");
        }
    }
    for client in &mut clients {
        assert!(client.closed_within(Duration::from_secs(1)));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    drop(clients);
    gateway.wait_idle();
    eventually("descriptors are freed", || {
        gateway.descriptors() <= descriptors + 2
    });
    gateway.assert_sound();
}

#[test]
fn p09_an_upstream_that_fails_after_the_101_causes_no_second_answer() {
    let origin = granting(|stream| {
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).expect("linger");
    });
    let mut gateway = before(origin, "");
    for _ in 0..20 {
        let mut raw = Raw::connect(gateway.web());
        raw.send([handshake().as_bytes(), &frame(0x81, b"hello")].concat());
        // The 101 may have been lost to the reset; no other answer may come.
        let all = raw.rest(SOON);
        let text = String::from_utf8_lossy(&all);
        assert!(text.matches("HTTP/1.1 ").count() <= 1, "{text}");
    }
    gateway.wait_idle();
    gateway.assert_sound();
}

#[test]
fn p_an_upgraded_connection_counts_under_the_cap_until_it_is_closed() {
    let origin = echo();
    let cap = "[upstreams.o]\npool = { max_connections = 1, max_pending = 0 }";
    let config = gateway::before(origin, "").replace("[upstreams.o]", cap);
    let gateway = Gateway::start(&format!("{config}upgrade = [\"websocket\"]\n"));
    let first = leave(gateway.web());
    let active = "weir_pool_connections{upstream=\"o\",state=\"active\"}";
    let requests = "weir_upstream_in_flight{upstream=\"o\"}";
    assert_eq!(gateway.metric(active), 1.0);
    assert_eq!(gateway.metric(requests), 1.0);
    let mut second = Raw::connect(gateway.web());
    second.send(handshake());
    assert_eq!(second.response().status(), 503);
    drop(first);
    eventually("the tunnel has ended", || gateway.metric(active) == 0.0);
    assert_eq!(gateway.metric(requests), 0.0);
    leave(gateway.web());
}

#[test]
fn p10_the_bytes_of_a_tunnel_are_counted_as_they_pass() {
    let gateway = before(echo(), "");
    let moved = || {
        ["request", "response"].map(|way| {
            let series = format!("weir_{way}_body_bytes_total{{route=\"all\"}}");
            gateway.metric(&series)
        })
    };
    let mut raw = leave(gateway.web());
    assert_eq!(moved(), [0.0, 0.0]);
    raw.send(frame(0x81, &[b'x'; 1000]));
    // A frame of ours has a mask of 4 bytes; both have a head of 4.
    let mut back = [0; 1004];
    let read = raw.reader().get_mut().read_exact(&mut back);
    read.expect("it comes back");
    eventually("they are counted", || moved() == [1008.0, 1004.0]);
    drop(raw);
    gateway.wait_idle();
    eventually("the end adds what the closing took", || {
        let [up, down] = moved();
        up >= 1008.0 && down >= 1004.0
    });
}
