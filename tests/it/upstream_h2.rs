//! What upstreams do wrong over HTTP/2 (E22 to E24, M21): frames by hand, by prior knowledge.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::harness::{Gateway, Raw, client};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A literal field, without indexing.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(name.len()).expect("short")];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(u8::try_from(value.len()).expect("short"));
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

const OK: &[u8] = &[0x88];

fn answer(stream: u32, fields: &[u8], body: &str) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &[OK, fields].concat());
    bytes.extend(frame(DATA, END_STREAM, stream, body.as_bytes()));
    bytes
}

/// An upstream that answers each request as `reply` says: by the connection's number, the
/// request's number over all connections, and its stream.
struct Origin {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Origin {
    fn start(reply: impl Fn(usize, usize, u32) -> Vec<u8> + Send + Sync + 'static) -> Origin {
        Origin::with_settings(&[], reply)
    }

    fn with_settings(
        settings: &'static [u8],
        reply: impl Fn(usize, usize, u32) -> Vec<u8> + Send + Sync + 'static,
    ) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (reply, requests) = (Arc::new(reply), Arc::new(AtomicUsize::new(0)));
        let count = requests.clone();
        std::thread::spawn(move || {
            for (nth, stream) in listener.incoming().enumerate() {
                let (reply, count) = (reply.clone(), count.clone());
                let stream = stream.expect("a connection");
                std::thread::spawn(move || {
                    drop(serve(stream, settings, |id| {
                        reply(nth, count.fetch_add(1, SeqCst), id)
                    }));
                });
            }
        });
        Origin { address, requests }
    }
}

fn serve(
    mut stream: TcpStream,
    settings: &[u8],
    reply: impl Fn(u32) -> Vec<u8>,
) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    stream.write_all(&frame(SETTINGS, 0, 0, settings))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        match head[3] {
            SETTINGS if head[4] & 1 == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[]))?,
            HEADERS | DATA if head[4] & END_STREAM != 0 => stream.write_all(&reply(id))?,
            _ => {}
        }
    }
}

const UPSTREAM: &str = "protocol = \"h2\"\neject = false\n\
                        timeouts = { first_byte = \"700ms\", idle = \"400ms\" }\n";

fn send(gateway: &Gateway, method: &str) -> Result<(u16, String), ()> {
    let length = if method == "POST" {
        "Content-Length: 2\r\n"
    } else {
        ""
    };
    let body = if method == "POST" { "hi" } else { "" };
    let request =
        format!("{method} / HTTP/1.1\r\nHost: t.test\r\n{length}Connection: close\r\n\r\n{body}");
    let answer = Raw::connect(gateway.web()).send(request).try_response();
    answer.map(|a| (a.status(), a.text())).map_err(drop)
}

/// What is done with a stream.
type Way = fn(u32) -> Vec<u8>;

/// A GOAWAY whose last stream is `last`.
fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(
        GOAWAY,
        0,
        0,
        &[last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

#[test]
fn e22_a_stream_that_was_never_processed_is_sent_again_whatever_its_method() {
    let refused = |id: u32| frame(RST_STREAM, 0, id, &7u32.to_be_bytes());
    let left = |_| goaway(0, 0);
    let ways: [(&str, Way); 2] = [("refused", refused), ("goaway", left)];
    for (what, way) in ways {
        let origin = Origin::start(move |_, nth, id| match nth % 2 {
            0 => way(id),
            _ => answer(id, &[], "ok"),
        });
        let mut gateway = Gateway::before(origin.address, UPSTREAM);
        for method in ["GET", "POST", "GET", "POST"] {
            let seen = send(&gateway, method);
            assert_eq!(seen, Ok((200, "ok".into())), "{what} {method}");
        }
        assert_eq!(origin.requests.load(SeqCst), 8, "{what}");
        gateway.assert_sound();
    }
}

#[test]
fn e22_a_stream_that_may_have_been_processed_is_sent_again_only_if_idempotent() {
    let internal = |id: u32| frame(RST_STREAM, 0, id, &2u32.to_be_bytes());
    let processed = |id: u32| goaway(id, 2);
    let nothing = |_| frame(WINDOW_UPDATE, 0, 0, &[0; 4]);
    let invalid = |id: u32| frame(DATA, 0, id, b"data before headers");
    let ways: [(&str, Way); 4] = [
        ("reset", internal),
        ("goaway with an error", processed),
        ("window update by nothing", nothing),
        ("an invalid frame", invalid),
    ];
    for (what, way) in ways {
        let origin = Origin::start(move |_, _, id| way(id));
        let mut gateway = Gateway::before(origin.address, UPSTREAM);
        let started = Instant::now();
        let seen = send(&gateway, "POST");
        assert!(matches!(seen, Ok((502 | 504, _))), "{what}: {seen:?}");
        assert_eq!(
            origin.requests.load(SeqCst),
            1,
            "{what}: a POST was sent twice"
        );
        assert!(started.elapsed() < Duration::from_secs(2), "{what}");
        gateway.assert_sound();
    }
}

#[test]
fn e22_a_reset_within_the_body_cuts_and_the_connection_serves_on() {
    let origin = Origin::start(|_, nth, id| {
        if nth > 0 {
            return answer(id, &[], "ok");
        }
        let mut bytes = frame(
            HEADERS,
            END_HEADERS,
            id,
            &[OK, &field("content-length", "9")].concat(),
        );
        bytes.extend(frame(DATA, 0, id, b"part"));
        bytes.extend(frame(RST_STREAM, 0, id, &2u32.to_be_bytes()));
        bytes
    });
    let mut gateway = Gateway::before(origin.address, UPSTREAM);
    assert!(!matches!(send(&gateway, "GET"), Ok((200, _))));
    assert_eq!(send(&gateway, "GET"), Ok((200, "ok".into())));
    gateway.assert_sound();
}

#[test]
fn e22_no_stream_allowed_is_an_error_in_time_and_no_hang() {
    let origin = Origin::with_settings(&[0, 3, 0, 0, 0, 0], |_, _, id| answer(id, &[], "ok"));
    let mut gateway = Gateway::before(origin.address, UPSTREAM);
    let started = Instant::now();
    let seen = send(&gateway, "GET");
    assert!(matches!(seen, Ok((502..=504, _))), "{seen:?}");
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    gateway.assert_sound();
}

#[test]
fn e23_e24_a_malformed_answer_is_refused_or_cut_and_poisons_nobody() {
    let headers = |flags: u8, id: u32, block: &[u8]| frame(HEADERS, END_HEADERS | flags, id, block);
    let long = field("content-length", "9");
    let with = |extra: Vec<u8>| [OK, &extra].concat();
    let cases: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
        (
            "longer than it says",
            [
                headers(0, 1, &with(field("content-length", "2"))),
                frame(DATA, END_STREAM, 1, b"poison"),
            ]
            .concat(),
            None,
        ),
        (
            "shorter than it says",
            [
                headers(0, 1, &with(long.clone())),
                frame(DATA, END_STREAM, 1, b"part"),
            ]
            .concat(),
            None,
        ),
        (
            "nothing where it says 9",
            headers(END_STREAM, 1, &with(long)),
            None,
        ),
        (
            "no status",
            [
                headers(0, 1, &field("x", "y")),
                frame(DATA, END_STREAM, 1, b"poison"),
            ]
            .concat(),
            None,
        ),
        (
            "an upper-case field",
            [
                headers(0, 1, &with(field("X-Bad", "y"))),
                frame(DATA, END_STREAM, 1, b"poison"),
            ]
            .concat(),
            None,
        ),
        (
            "no HPACK",
            headers(END_STREAM, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            None,
        ),
        (
            "connection",
            [
                headers(0, 1, &with(field("connection", "close"))),
                frame(DATA, END_STREAM, 1, b"ok"),
            ]
            .concat(),
            Some("ok"),
        ),
        (
            "transfer-encoding",
            [
                headers(0, 1, &with(field("transfer-encoding", "chunked"))),
                frame(DATA, END_STREAM, 1, b"ok"),
            ]
            .concat(),
            Some("ok"),
        ),
        (
            "101",
            headers(END_STREAM, 1, &[&[0x08, 3][..], b"101"].concat()),
            None,
        ),
    ];
    for (what, bytes, may) in cases {
        let first = bytes.clone();
        let origin = Origin::start(move |connection, _, id| {
            if connection == 0 && id == 1 {
                first.clone()
            } else {
                answer(id, &[], "victim")
            }
        });
        let more = format!("{UPSTREAM}retry = false\n");
        let mut gateway = Gateway::before(origin.address, &more);
        match send(&gateway, "GET") {
            Ok((200, body)) => assert_eq!(Some(body.as_str()), may, "{what}"),
            Ok((status, _)) => assert!((502..=504).contains(&status), "{what}: {status}"),
            Err(()) => {}
        }
        assert_eq!(client::get(gateway.web(), "/").text(), "victim", "{what}");
        gateway.assert_sound();
    }
}

#[test]
fn m21_streams_beyond_the_limit_get_another_connection_or_wait() {
    // One stream a connection, and each answer takes a while.
    let origin = Origin::with_settings(&[0, 3, 0, 0, 0, 1], |_, _, id| {
        std::thread::sleep(Duration::from_millis(30));
        answer(id, &[], "ok")
    });
    let more = format!("{UPSTREAM}pool = {{ max_connections = 3, pending_timeout = \"3s\" }}\n");
    let mut gateway = Gateway::before(origin.address, &more);
    let web = gateway.web();
    let many: Vec<_> = (0..24)
        .map(|_| std::thread::spawn(move || client::get(web, "/").status()))
        .collect();
    let all: Vec<u16> = many
        .into_iter()
        .map(|one| one.join().expect("no panic"))
        .collect();
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
    gateway.assert_sound();
}
