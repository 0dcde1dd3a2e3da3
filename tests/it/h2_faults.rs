//! The error code and the scope of each fault in frames, as RFC 9113 and RFC 7541 have them.

use std::time::Duration;

use super::harness::h2::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, End, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, GOAWAY, H2, HEADERS, PADDED, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE,
    RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, frame, request, settings,
};
use super::harness::origin::echo;
use super::harness::{Gateway, Origin, Reply, hpack};

/// What comes of frames after the preface: the error, on stream 1 or on the connection.
struct Fault {
    name: &'static str,
    /// Of a request on stream 1 that is open (`POST`) or half-closed (`GET`); or none.
    before: Option<&'static str>,
    bytes: Vec<u8>,
    code: u32,
    /// The connection ends; else stream 1 alone, or the connection if the RFC lets it.
    connection: bool,
}

fn fault(name: &'static str, bytes: Vec<u8>, code: u32) -> Fault {
    Fault {
        name,
        before: None,
        bytes,
        code,
        connection: true,
    }
}

fn on(before: &'static str, name: &'static str, bytes: Vec<u8>, code: u32, all: bool) -> Fault {
    Fault {
        name,
        before: Some(before),
        bytes,
        code,
        connection: all,
    }
}

fn faults() -> Vec<Fault> {
    let block = hpack::block(&request("GET", "/poison", &[]));
    let whole = END_HEADERS | END_STREAM;
    let most = 0x7fff_ffffu32.to_be_bytes();
    let get = |stream, flags| frame(HEADERS, flags, stream, &block);
    let broken = |bytes: &[u8]| frame(HEADERS, whole, 1, bytes);
    let p = PROTOCOL_ERROR;
    let size = FRAME_SIZE_ERROR;
    let flow = FLOW_CONTROL_ERROR;
    vec![
        fault("HEADERS on stream 0", get(0, whole), p),
        fault("HEADERS on an even stream", get(2, whole), p),
        fault("DATA on stream 0", frame(DATA, 0, 0, b"x"), p),
        fault("DATA on an idle stream", frame(DATA, 0, 1, b"x"), p),
        fault(
            "RST_STREAM on stream 0",
            frame(RST_STREAM, 0, 0, &[0; 4]),
            p,
        ),
        fault(
            "RST_STREAM on an idle stream",
            frame(RST_STREAM, 0, 1, &[0; 4]),
            p,
        ),
        fault(
            "RST_STREAM of 3 bytes",
            frame(RST_STREAM, 0, 1, &[0; 3]),
            size,
        ),
        fault(
            "WINDOW_UPDATE on an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            p,
        ),
        fault("WINDOW_UPDATE by 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), p),
        fault(
            "WINDOW_UPDATE of 3 bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            size,
        ),
        fault(
            "window of the connection over",
            frame(WINDOW_UPDATE, 0, 0, &most),
            flow,
        ),
        fault("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), p),
        fault("GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, &[0; 7]), size),
        fault(
            "PUSH_PROMISE",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            p,
        ),
        fault("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), size),
        fault("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), p),
        fault(
            "SETTINGS ACK with a payload",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            size,
        ),
        fault(
            "ENABLE_PUSH of 2",
            frame(SETTINGS, 0, 0, &settings(&[(2, 2)])),
            p,
        ),
        fault(
            "a window of 2^31",
            frame(SETTINGS, 0, 0, &settings(&[(4, 1 << 31)])),
            flow,
        ),
        fault(
            "a frame size of 100",
            frame(SETTINGS, 0, 0, &settings(&[(5, 100)])),
            p,
        ),
        fault(
            "a frame size of 2^24",
            frame(SETTINGS, 0, 0, &settings(&[(5, 1 << 24)])),
            p,
        ),
        fault("PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), size),
        fault("PING on a stream", frame(PING, 0, 1, &[0; 8]), p),
        fault("PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), p),
        fault(
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &block),
            p,
        ),
        fault("too large", frame(DATA, 0, 1, &[0; 16_385]), size),
        fault(
            "a frame within a block",
            [get(1, END_STREAM), frame(PING, 0, 0, &[0; 8])].concat(),
            p,
        ),
        fault(
            "another stream within a block",
            [get(1, END_STREAM), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            p,
        ),
        fault(
            "HEADERS padded to its end",
            frame(HEADERS, whole | PADDED, 1, &[9, 1, 2, 3]),
            p,
        ),
        fault("index 0", broken(&[0x80]), COMPRESSION_ERROR),
        fault(
            "an index that is not there",
            broken(&[0x80 | 100]),
            COMPRESSION_ERROR,
        ),
        fault(
            "a size update within",
            broken(&[0x82, 0x20]),
            COMPRESSION_ERROR,
        ),
        fault(
            "a table of 2^20",
            broken(&[0x3f, 0xff, 0xff, 0x3f]),
            COMPRESSION_ERROR,
        ),
        fault(
            "a block that breaks off",
            broken(&[0, 5, b'x']),
            COMPRESSION_ERROR,
        ),
        fault(
            "a number without end",
            broken(&[0xff; 12]),
            COMPRESSION_ERROR,
        ),
        fault(
            "EOS in a string",
            broken(&[0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'a']),
            COMPRESSION_ERROR,
        ),
        fault("a lower stream", [get(5, whole), get(3, whole)].concat(), p),
        on(
            "POST",
            "DATA padded to its end",
            frame(DATA, PADDED, 1, &[3, 1, 2]),
            p,
            true,
        ),
        on(
            "POST",
            "window of the stream over",
            frame(WINDOW_UPDATE, 0, 1, &most),
            flow,
            false,
        ),
        on(
            "POST",
            "WINDOW_UPDATE by 0 on it",
            frame(WINDOW_UPDATE, 0, 1, &[0; 4]),
            p,
            false,
        ),
        on(
            "POST",
            "PRIORITY of 4 bytes",
            frame(PRIORITY, 0, 1, &[0; 4]),
            size,
            false,
        ),
        on(
            "GET",
            "DATA after the end",
            frame(DATA, 0, 1, b"x"),
            STREAM_CLOSED,
            false,
        ),
        on(
            "GET",
            "HEADERS after the end",
            get(1, whole),
            STREAM_CLOSED,
            false,
        ),
    ]
}

#[test]
fn f20_f21_f22_f26_every_fault_has_the_code_and_the_scope_of_the_rfc() {
    let origin = Origin::start(|request, _| match request.target() {
        "/open" => Reply::After(Duration::from_millis(400), Box::new(echo(request))),
        _ => echo(request),
    });
    let mut gateway = Gateway::before(origin.address, "");
    let mut wrong = Vec::new();
    for fault in faults() {
        let mut client = H2::connect(gateway.web());
        if let Some(method) = fault.before {
            client.open(&request(method, "/open", &[]), method == "GET");
        }
        client.send(&fault.bytes);
        let end = if fault.connection {
            client.end_of_connection(Duration::from_secs(2))
        } else {
            client.end_of(1)
        };
        // h2 has one code for what it finds while it decodes; the scope is not its choice
        let named = |code| code == fault.code || code == PROTOCOL_ERROR;
        let right = match end {
            End::GoAway(code) => named(code),
            End::Reset(code) => !fault.connection && named(code),
            _ => false,
        };
        if !right {
            wrong.push(format!("{}: {end:?}, not {}", fault.name, fault.code));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut victim = H2::connect(gateway.web());
    assert_eq!(victim.get("/victim").text(), "GET /victim 0");
    let seen = origin.requests();
    assert!(seen.iter().all(|r| r.target() != "/poison"), "{seen:?}");
    gateway.assert_sound();
}
