//! Clients that take their answers slowly: what is still on its way out is neither idle nor done.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::h2::{DATA, END_STREAM, H2, WINDOW_UPDATE, request};
use super::harness::{Gateway, SOON, client, eventually};

/// More than the kernel holds between two sockets.
const LARGE: usize = 15_000_000;

/// A gateway with an answer of its own of [`LARGE`] bytes, a small one, and these limits.
fn start(limits: &str) -> Gateway {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("large"), "x".repeat(LARGE)).expect("a file");
    let config = format!(
        "[server]\nworkers = 1\ndrain = {{ delay = \"0s\", timeout = \"20s\" }}\n\
         [admin]\naddress = \"127.0.0.1:0\"\n[log]\naccess = {{ to = \"stdout\" }}\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\nprotocols = [\"http1\", \"h2\"]\n\
         limits = {{ {limits} }}\n\
         [[routes]]\nid = \"large\"\nmatch = {{ path = \"/large\" }}\n\
         respond = {{ body = {{ file = \"large\" }} }}\n\
         [[routes]]\nid = \"small\"\nrespond = {{ body = \"hello\" }}\n"
    );
    std::fs::write(dir.path().join("weir.toml"), config).expect("a config");
    Gateway::run_in(dir)
}

/// A client that has asked for the large answer and has a small buffer.
fn asked(to: SocketAddr) -> TcpStream {
    let raw = client::Raw::connect(to);
    let mut stream = raw.stream().try_clone().expect("a socket");
    let small = socket2::SockRef::from(&stream).set_recv_buffer_size(32 << 10);
    small.expect("a buffer");
    let get = b"GET /large HTTP/1.1\r\nHost: t.test\r\n\r\n";
    std::io::Write::write_all(&mut stream, get).expect("it is taken");
    stream
}

/// Bytes of the rest of an answer, up to its end or the connection's.
fn take(stream: &mut TcpStream) -> usize {
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
fn h06_a_client_that_takes_nothing_of_an_answer_of_ours_is_cut_and_the_log_says_so() {
    let gateway = start("header_timeout = \"1s\", write_timeout = \"300ms\"");
    let stalls = "weir_protocol_violations_total{listener=\"web\",kind=\"stall\"}";
    let held = asked(gateway.web());
    gateway_cuts(&gateway);
    drop(held);
    eventually("the line is written", || {
        gateway.stdout().contains("\"client_gone\"")
    });
    let mut client = with_two_bytes(gateway.web());
    assert!(client.closed_within(SOON), "the window stays as it is");
    eventually("it is counted", || gateway.metric(stalls) >= 1.0);
}

/// The first connection is counted, then gone, though its client holds it.
fn gateway_cuts(gateway: &Gateway) {
    let ever = "weir_connections_total{listener=\"web\",protocol=\"http1\"}";
    eventually("it is open", || gateway.metric(ever) == 1.0);
    gateway.wait_idle();
}
