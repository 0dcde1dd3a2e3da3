//! Compression from both sides of the gateway: group J of the hostile cases.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::harness::parse::Message;
use super::harness::{Gateway, Origin, Raw, Reply, client, eventually, gateway};

const CHROME: &str = "Accept-Encoding: gzip, deflate, br, zstd\r\n";

fn before(origin: &Origin) -> Gateway {
    let config = gateway::before(origin.address, "");
    Gateway::start(&format!("[defaults]\ncompress = true\n{config}"))
}

fn get(gateway: &Gateway, fields: &str) -> Message {
    ask(gateway, "GET", fields)
}

fn ask(gateway: &Gateway, method: &str, fields: &str) -> Message {
    let request =
        format!("{method} /x HTTP/1.1\r\nHost: t.test\r\n{fields}Connection: close\r\n\r\n");
    client::ask(gateway.web(), &request)
}

/// 200 with these fields and this body.
fn answer(fields: &str, body: &[u8]) -> Reply {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    Reply::Bytes([head.as_bytes(), body].concat())
}

fn page() -> String {
    let line = |n: u32| format!("<p>line {n} of {}</p>\n", n.wrapping_mul(2_654_435_761));
    (0..2000).map(line).collect()
}

fn decoded(coding: &str, bytes: &[u8]) -> String {
    let mut text = String::new();
    let read = match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text),
        "zstd" => zstd::stream::read::Decoder::new(bytes)
            .and_then(|mut decoder| decoder.read_to_string(&mut text)),
        other => panic!("no such coding: {other}"),
    };
    read.expect("what was encoded can be decoded");
    text
}

fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(9));
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn j03_j05_j08_j09_a_page_leaves_in_the_coding_that_its_client_prefers() {
    let fields = "Content-Type: text/html\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\n";
    let origin = Origin::start(move |_, _| answer(fields, page().as_bytes()));
    let mut gateway = before(&origin);
    for (accept, coding) in [
        (CHROME, "br"),
        ("Accept-Encoding: gzip, zstd\r\n", "zstd"),
        ("Accept-Encoding: br;q=0.1, gzip;q=0.5\r\n", "gzip"),
        (
            "Accept-Encoding: identity;q=0\r\nAccept-Encoding: gzip\r\n",
            "gzip",
        ),
    ] {
        let message = get(&gateway, accept);
        assert_eq!(message.get("content-encoding"), Some(coding));
        assert_eq!(message.get("etag"), Some("W/\"v1\""));
        assert_eq!(message.get("vary"), Some("accept-encoding"));
        assert_eq!(message.get("content-length"), None);
        assert_eq!(message.get("accept-ranges"), None);
        assert_eq!(decoded(coding, &message.body), page());
        assert!(message.body.len() < page().len() / 2);
    }
    for accept in ["", "Accept-Encoding: gzip;q=0, *;q=0\r\n"] {
        let message = get(&gateway, accept);
        assert_eq!(message.get("content-encoding"), None);
        assert_eq!(message.get("etag"), Some("\"v1\""));
        assert_eq!(message.get("vary"), Some("accept-encoding"));
        assert_eq!(message.text(), page());
    }
    let long = format!("Accept-Encoding: {}gzip\r\n", "gzip;q=0.5, ".repeat(850));
    assert_eq!(get(&gateway, &long).get("content-encoding"), None);
    let responses = "weir_compression_responses_total{coding=\"br\"}";
    assert_eq!(gateway.metric(responses), 1.0);
    assert!(gateway.metric("weir_compression_bytes_total{coding=\"gzip\",direction=\"in\"}") > 0.0);
    assert!(gateway.metric("weir_compression_seconds_total{coding=\"zstd\"}") > 0.0);
    let skipped = "weir_compression_skipped_total{reason=\"not_accepted\"}";
    assert_eq!(gateway.metric(skipped), 3.0);
    gateway.assert_sound();
}

#[test]
fn j03_a_weak_tag_gets_its_304() {
    let origin = Origin::start(|request, _| {
        let known = request.get("if-none-match").unwrap_or_default();
        if known.split(", ").any(|tag| tag == "\"v1\"") {
            Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".to_vec())
        } else {
            answer(
                "Content-Type: text/html\r\nETag: \"v1\"\r\n",
                page().as_bytes(),
            )
        }
    });
    let gateway = before(&origin);
    let first = get(&gateway, CHROME);
    let tag = first.get("etag").expect("a tag");
    let again = get(&gateway, &format!("{CHROME}If-None-Match: {tag}\r\n"));
    assert_eq!((again.status(), again.get("etag")), (304, Some(tag)));
    let other = get(&gateway, &format!("{CHROME}If-None-Match: W/\"v0\"\r\n"));
    assert_eq!(other.status(), 200);
}

#[test]
fn j01_j02_j04_what_must_not_change_passes_byte_for_byte() {
    let coded = gzipped(page().as_bytes());
    let body = coded.clone();
    let origin = Origin::start(move |request, _| {
        let fields = request
            .get("x-answer")
            .unwrap_or_default()
            .replace('|', "\r\n");
        let body = if fields.contains("Encoding") {
            body.clone()
        } else {
            page().into_bytes()
        };
        if fields.contains("Content-Range") {
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\n{fields}Content-Length: {}\r\n\r\n",
                body.len()
            );
            return Reply::Bytes([head.as_bytes(), &body].concat());
        }
        answer(&fields, &body)
    });
    let mut gateway = before(&origin);
    for (fields, body) in [
        (
            "Content-Type: text/html|Content-Encoding: gzip|",
            &coded[..],
        ),
        ("Content-Type: text/html|Content-Encoding: x-own|", &coded),
        (
            "Content-Type: text/html|Cache-Control: no-transform|",
            page().as_bytes(),
        ),
        ("Content-Type: image/png|", page().as_bytes()),
        (
            "Content-Type: text/html|Content-Range: bytes 0-9/10|",
            page().as_bytes(),
        ),
        ("Content-Type: text/event-stream|", page().as_bytes()),
    ] {
        let asked = format!("{CHROME}X-Answer: {fields}\r\n");
        let message = get(&gateway, &asked);
        assert_eq!(message.body, body, "{fields}");
        let length = message.get("content-length").map(str::to_owned);
        assert_eq!(length, Some(body.len().to_string()), "{fields}");
    }
    let asked = format!("{CHROME}Range: bytes=0-9\r\nX-Answer: Content-Type: text/html|\r\n");
    assert_eq!(get(&gateway, &asked).get("content-encoding"), None);
    gateway.assert_sound();
}

#[test]
fn j06_an_event_a_second_is_not_held_back() {
    let origin = Origin::start(|_, _| {
        Reply::Act(Box::new(|stream| {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
            drop(stream.write_all(head.as_bytes()));
            for event in ["first", "then", "last"] {
                drop(stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()));
                std::thread::sleep(Duration::from_millis(300));
            }
            stream.write_all(b"0\r\n\r\n").is_ok()
        }))
    });
    let gateway = before(&origin);
    let mut raw = Raw::connect(gateway.web());
    raw.send(format!("GET /x HTTP/1.1\r\nHost: t.test\r\n{CHROME}\r\n"));
    let begun = std::time::Instant::now();
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !seen.windows(4).any(|end| end == b"\r\n\r\n") || seen.ends_with(b"\r\n\r\n") {
        let n = raw.reader().get_mut().read(&mut piece).expect("bytes");
        seen.extend_from_slice(&piece[..n]);
    }
    assert!(
        begun.elapsed() < Duration::from_millis(250),
        "{:?}",
        begun.elapsed()
    );
    assert!(String::from_utf8_lossy(&seen).contains("content-encoding: br"));
}

#[test]
fn j07_a_head_has_the_fields_of_its_get_and_a_204_stays_what_it_is() {
    let origin = Origin::start(|request, _| match request.method() {
        "HEAD" => Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5000\r\n\r\n".to_vec(),
        ),
        "DELETE" => {
            Reply::Bytes(b"HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\n\r\n".to_vec())
        }
        _ => answer("Content-Type: text/html\r\n", b"short"),
    });
    let gateway = before(&origin);
    let mut raw = Raw::connect(gateway.web());
    raw.send(format!("HEAD /x HTTP/1.1\r\nHost: t.test\r\n{CHROME}\r\n"));
    let head = raw.response_to_head();
    assert_eq!(head.get("content-encoding"), Some("br"));
    assert_eq!(head.get("content-length"), None);
    let none = ask(&gateway, "DELETE", CHROME);
    assert_eq!((none.status(), none.get("content-encoding")), (204, None));
    let short = get(&gateway, CHROME);
    assert_eq!(
        (short.get("content-encoding"), short.get("content-length")),
        (None, Some("5"))
    );
}

#[test]
fn j10_j11_what_the_client_does_not_take_is_decoded_or_broken_off() {
    let good = gzipped(page().as_bytes());
    let bomb = gzipped(&vec![0; 16 << 20]);
    let origin = Origin::start(move |request, _| {
        let body = match request.get("x-kind") {
            Some("cut") => &good[..good.len() / 2],
            Some("garbage") => b"no gzip",
            Some("bomb") => &bomb[..],
            _ => &good[..],
        };
        answer(
            "Content-Type: text/html\r\nContent-Encoding: gzip\r\n",
            body,
        )
    });
    let mut gateway = before(&origin);
    let plain = "Accept-Encoding: identity\r\n";
    let message = get(&gateway, plain);
    assert_eq!(
        (message.get("content-encoding"), message.text()),
        (None, page())
    );
    assert_eq!(
        origin.requests()[0].get("accept-encoding"),
        Some("identity")
    );
    for kind in ["cut", "garbage", "bomb"] {
        let mut raw = Raw::connect(gateway.web());
        raw.send(format!(
            "GET /x HTTP/1.1\r\nHost: t.test\r\n{plain}X-Kind: {kind}\r\n\r\n"
        ));
        assert!(raw.try_response().is_err(), "{kind} was taken for whole");
    }
    let decoded = "weir_compression_decoded_total{coding=\"gzip\"}";
    assert_eq!(gateway.metric(decoded), 4.0);
    gateway.assert_sound();
}

#[test]
fn j12_a_page_that_another_site_asks_for_with_credentials_is_plain() {
    let origin = Origin::start(|_, _| answer("Content-Type: text/html\r\n", page().as_bytes()));
    let gateway = before(&origin);
    let cross = format!("{CHROME}Cookie: sid=1\r\nSec-Fetch-Site: cross-site\r\n");
    assert_eq!(get(&gateway, &cross).get("content-encoding"), None);
    let own = format!("{CHROME}Cookie: sid=1\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(get(&gateway, &own).get("content-encoding"), Some("br"));
    let skipped = "weir_compression_skipped_total{reason=\"cross_site\"}";
    assert_eq!(gateway.metric(skipped), 1.0);
}

/// What a long body is made of: 24 MB.
const PIECES: usize = 400;
const PIECE: usize = 60_000;

#[test]
fn j13_j14_a_long_stream_costs_little_memory_and_leaves_nothing_behind() {
    let origin = Origin::start(|_, _| {
        Reply::Act(Box::new(|stream| {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
            drop(stream.write_all(head.as_bytes()));
            let mut noise = 1u64;
            for _ in 0..PIECES {
                let mut piece = String::new();
                while piece.len() < PIECE {
                    noise = noise
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    piece += &format!("{:x} ", noise >> 20);
                }
                piece.truncate(PIECE);
                let chunk = format!("{PIECE:x}\r\n{piece}\r\n");
                drop(stream.write_all(chunk.as_bytes()));
            }
            // A little more now and then, until the client has gone.
            while stream.write_all(b"1\r\n.\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
            false
        }))
    });
    for coding in ["gzip", "zstd", "br"] {
        let mut gateway = before(&origin);
        let idle = gateway.rss();
        let client = reading(&gateway, coding);
        let all = (PIECES * PIECE) as f64;
        let taken = format!("weir_compression_bytes_total{{coding=\"{coding}\",direction=\"in\"}}");
        eventually("all has passed", || gateway.metric(&taken) >= all);
        let grown = gateway.rss() - idle;
        // 24 MB passed: what is held of them has a bound, whatever the allocator keeps back.
        assert!(grown < 18 * 1024, "{coding}: {grown} KiB");
        drop(client.stream().shutdown(std::net::Shutdown::Both));
        eventually("nothing is in flight", || {
            gateway.metric("weir_requests_in_flight{route=\"all\"}") == 0.0
        });
        eventually("the origin is let go", || origin.open() == 0);
        gateway.assert_sound();
    }
}

/// A client that reads whatever comes.
fn reading(gateway: &Gateway, coding: &str) -> Raw {
    let mut raw = Raw::connect(gateway.web());
    let accept = format!("Accept-Encoding: {coding}\r\n");
    raw.send(format!("GET /x HTTP/1.1\r\nHost: t.test\r\n{accept}\r\n"));
    let mut stream = raw.stream().try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        let mut piece = [0; 65536];
        while stream.read(&mut piece).is_ok_and(|n| n > 0) {}
    });
    raw
}
