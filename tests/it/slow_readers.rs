//! Clients that take their answers slowly: what is still on its way out is neither idle nor done.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::h2::{DATA, END_STREAM, H2, WINDOW_UPDATE, request};
use super::harness::secure::{self, Tls};
use super::harness::{Gateway, SOON, client, eventually};

/// More than the kernel holds between two sockets.
const LARGE: usize = 15_000_000;

/// A gateway with an answer of its own of [`LARGE`] bytes, a small one, and these limits.
fn start(limits: &str) -> Gateway {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("large"), "x".repeat(LARGE)).expect("a file");
    secure::pair(&["t.test"]).write(dir.path(), "a");
    let config = format!(
        "[server]\nworkers = 1\ndrain = {{ delay = \"0s\", timeout = \"20s\" }}\n\
         [admin]\naddress = \"127.0.0.1:0\"\n[log]\naccess = {{ to = \"stdout\" }}\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\nprotocols = [\"http1\", \"h2\"]\n\
         limits = {{ {limits} }}\n\
         [listeners.tls]\naddress = \"127.0.0.1:0\"\nlimits = {{ {limits} }}\n\
         tls = {{ certificates = [{{ cert = \"a.crt\", key = \"a.key\" }}] }}\n\
         [[routes]]\nid = \"large\"\nmatch = {{ path = \"/large\" }}\n\
         respond = {{ body = {{ file = \"large\" }} }}\n\
         [[routes]]\nid = \"small\"\nrespond = {{ body = \"hello\" }}\n"
    );
    std::fs::write(dir.path().join("weir.toml"), config).expect("a config");
    Gateway::run_in(dir)
}

const GET: &[u8] = b"GET /large HTTP/1.1\r\nHost: t.test\r\n\r\n";

fn small_buffer(stream: &TcpStream) {
    let set = socket2::SockRef::from(stream).set_recv_buffer_size(32 << 10);
    set.expect("a buffer");
}

/// A client that has asked for the large answer and has a small buffer.
fn asked(to: SocketAddr) -> TcpStream {
    let raw = client::Raw::connect(to);
    let mut stream = raw.stream().try_clone().expect("a socket");
    small_buffer(&stream);
    stream.write_all(GET).expect("it is taken");
    stream
}

/// As [`asked`], over TLS.
fn asked_secretly(to: SocketAddr) -> Tls {
    let config = secure::config(&["http/1.1"], None);
    let mut stream = secure::connect(to, "t.test", &config).expect("TLS");
    small_buffer(&stream.sock);
    stream.write_all(GET).expect("it is taken");
    stream
}

/// Takes up to two hundred thousand bytes a second for four seconds, then the rest at once; all of
/// them.
fn take_slowly(mut stream: impl Read) -> usize {
    let mut piece = [0; 10_000];
    let mut taken = 0;
    for _ in 0..80 {
        std::thread::sleep(Duration::from_millis(50));
        taken += stream.read(&mut piece).unwrap_or(0);
    }
    taken + take(&mut stream)
}

/// Bytes of the rest of an answer, up to its end or the connection's.
fn take(stream: &mut impl Read) -> usize {
    let mut piece = vec![0; 64 << 10];
    let mut taken = 0;
    while taken < LARGE {
        match stream.read(&mut piece) {
            Ok(n @ 1..) => taken += n,
            _ => break,
        }
    }
    taken
}

/// An HTTP/2 client that asks for the small answer and has a window for two bytes of it.
fn with_two_bytes(to: SocketAddr) -> H2 {
    let mut client = H2::with_settings(to, &[(4, 2)]);
    client.open(&request("GET", "/", &[]), true);
    client
}

/// What comes of a body until `until`, or to its end.
fn data(client: &mut H2, until: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(frame) = client.next(until.saturating_duration_since(Instant::now())) {
        if frame.kind == DATA {
            body.extend_from_slice(&frame.payload);
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    body
}

#[test]
fn an_answer_that_is_still_being_written_is_not_idle() {
    let gateway = start("idle_timeout = \"200ms\"");
    let mut http1 = asked(gateway.web());
    let mut h2 = with_two_bytes(gateway.web());
    let until = Instant::now() + Duration::from_millis(2_700);
    let mut body = data(&mut h2, until);
    assert_eq!(body, b"he");
    h2.frame(WINDOW_UPDATE, 0, 1, &100u32.to_be_bytes());
    body.extend(data(&mut h2, Instant::now() + SOON));
    assert_eq!(body, b"hello");
    assert!(take(&mut http1) >= LARGE, "it was cut");
    assert!(h2.closed_within(SOON), "now it is idle");
    gateway.wait_idle();
}

#[test]
fn an_answer_that_is_still_being_written_is_not_cut_by_a_drain_that_has_time() {
    let mut gateway = start("");
    let mut stream = asked(gateway.web());
    gateway.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(3_500));
    assert!(take(&mut stream) >= LARGE, "it was cut");
    assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
}

#[test]
fn h06_a_client_that_is_steady_and_slow_is_not_stalled() {
    let gateway = start("write_timeout = \"2s\", idle_timeout = \"300ms\"");
    let http1 = asked(gateway.web());
    let plain = std::thread::spawn(move || take_slowly(http1));
    let tls = take_slowly(asked_secretly(gateway.addr("tls")));
    let plain = plain.join().expect("it reads");
    assert!(plain >= LARGE, "it was cut after {plain}");
    assert!(tls >= LARGE, "it was cut after {tls}, over TLS");
}

#[test]
fn h06_a_client_that_takes_nothing_of_an_answer_of_ours_is_cut_and_the_log_says_so() {
    let gateway = start("header_timeout = \"1s\", write_timeout = \"300ms\"");
    let stalls = "weir_protocol_violations_total{listener=\"web\",kind=\"stall\"}";
    let held = asked(gateway.web());
    gateway_cuts(&gateway);
    assert_eq!(gateway.metric(stalls), 1.0);
    drop(held);
    eventually("the line is written", || {
        gateway.stdout().contains("\"client_gone\"")
    });
    let mut client = with_two_bytes(gateway.web());
    assert!(client.closed_within(SOON), "the window stays as it is");
    eventually("it is counted", || gateway.metric(stalls) >= 2.0);
}

/// The first connection is counted, then gone, though its client holds it.
fn gateway_cuts(gateway: &Gateway) {
    let ever = "weir_connections_total{listener=\"web\",protocol=\"http1\"}";
    eventually("it is open", || gateway.metric(ever) == 1.0);
    gateway.wait_idle();
}
