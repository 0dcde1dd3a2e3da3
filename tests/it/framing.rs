//! Group A: how an HTTP/1 request is framed. What two programs could frame differently is refused
//! or framed anew, and never reaches an upstream as it came.

use super::harness::bench::{BAD, Bench, CODING};

/// A POST with these fields beside Host, and what follows its head.
fn post(fields: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: t.test\r\n{fields}\r\n\r\n{rest}")
}

const POISON: &str = "GET /poison HTTP/1.1\r\nHost: t.test\r\n\r\n";

#[test]
fn a01_a02_a19_two_framings_on_one_request_are_refused() {
    let mut bench = Bench::new();
    let gpost = format!("5c\r\nG{POISON}\r\n0\r\n\r\n");
    for (fields, rest) in [
        (
            "Content-Length: 6\r\nTransfer-Encoding: chunked",
            "0\r\n\r\nG",
        ),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", &gpost),
        ("Content-Length: 4\r\nTransfer-Encoding: chunked ", &gpost),
        ("Content-Length: 4\r\nTransfer-Encoding: \tchunked", &gpost),
        ("Content-Length: 4\r\nTransfer-Encoding:   chunked", &gpost),
    ] {
        bench.refused(post(fields, rest), BAD);
    }
    for value in ["chunked ", "\tchunked", "  chunked", "Chunked"] {
        let fields = format!("Transfer-Encoding: {value}");
        let seen = bench.passes(post(&fields, "2\r\nab\r\n0\r\n\r\n"), true);
        assert_eq!((seen.body.as_slice(), seen.chunked), (&b"ab"[..], true));
    }
    bench.end();
}

#[test]
fn a03_to_a11_a_length_that_is_not_one_number_is_refused() {
    let mut bench = Bench::new();
    let digits = "9".repeat(200);
    let two = |a: &str, b: &str| format!("Content-Length: {a}\r\nContent-Length: {b}");
    let mut cases = vec![two("5", "10"), two("5", "5"), two("", "43"), two("5", "")];
    for value in [
        "5, 5",
        "5, 10",
        "5,5,5",
        "+5",
        "-5",
        "-0",
        "-48",
        "0x5",
        "0o5",
        "5e0",
        "5.0",
        "1_0",
        "1 0",
        "5;",
        "5Z",
        "",
        " ",
        "18446744073709551616",
        "9223372036854775808",
        &digits,
        "\u{b}5",
        "\"5\"",
        "5\t5",
        "５",
    ] {
        cases.push(format!("Content-Length: {value}"));
    }
    for fields in cases {
        bench.refused(post(&fields, &format!("hello{POISON}")), BAD);
    }
    bench.end();
}

#[test]
fn a09_a_length_with_zeros_before_it_goes_on_without_them() {
    let mut bench = Bench::new();
    let long = "x".repeat(200);
    for (length, body) in [
        ("005", "hello"),
        ("0200", &*long),
        ("00", ""),
        ("00000000000000000005", "hello"),
    ] {
        let seen = bench.passes(post(&format!("Content-Length: {length}"), body), true);
        assert_eq!(seen.body, body.as_bytes(), "{length}");
        let sent = seen.get("content-length").unwrap_or("0").to_owned();
        assert_eq!(sent, body.len().to_string(), "{length}");
    }
    bench.end();
}

#[test]
fn a14_to_a17_a28_names_that_look_like_framing_do_not_frame() {
    let mut bench = Bench::new();
    for field in [
        "Content_Length: 5",
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Transfer-Encoding : chunked",
        "Transfer_Encoding: chunked",
        "Transfer Encoding: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding",
        "Transfer-Encoding\0: chunked",
    ] {
        bench.refused(post(field, POISON), BAD);
    }
    for name in [
        &b"Content-Length\x85"[..],
        b"Content-Length\xa0",
        b"Transf\x82r-Encoding",
        b"Transfer-Encoding\xff",
    ] {
        let mut case = b"POST / HTTP/1.1\r\nHost: t.test\r\n".to_vec();
        case.extend_from_slice(name);
        case.extend_from_slice(b": 10\r\n\r\n");
        case.extend_from_slice(POISON.as_bytes());
        bench.refused(case, BAD);
    }
    for name in [
        "Transfer-%45ncoding",
        "Content%2DLength",
        "Transfer--Encoding",
    ] {
        let case = post(&format!("{name}: chunked"), "");
        let seen = bench.passes(case, true);
        let same = |field: &(String, String)| field.0.contains('%');
        assert!(!seen.fields.iter().any(same), "{:?}", seen.fields);
        assert!(seen.body.is_empty() && !seen.chunked);
    }
    bench.end();
}

#[test]
fn a18_a20_to_a27_a_transfer_coding_that_is_not_chunked_once_is_refused() {
    let mut bench = Bench::new();
    let chunks = format!("0\r\n\r\n{POISON}");
    for value in [
        "xchunked",
        ",chunked",
        "chunked,",
        ", chunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "cow, chunked",
        "chunked, chunked",
        "identity",
        "",
        " ",
        "\"chunked\"",
        "'chunked'",
        "chunk",
        "=?UTF-8?B?Y2h1bmtlZA==?=",
        "chunked;a=b",
        "\u{b}chunked",
        "\u{c}chunked",
        "chunked\0",
        "chunked\u{b}",
        "chun ked",
        "chunked chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding:",
    ] {
        let coding = format!("Transfer-Encoding: {value}");
        bench.refused(post(&coding, &chunks), CODING);
        let with = format!("Content-Length: 5\r\n{coding}");
        bench.refused(post(&with, &chunks), CODING);
    }
    for value in [&b"\xa0chunked\xa0"[..], b"\x85chunked", b"\xffchunked\xff"] {
        let mut case = b"POST / HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: ".to_vec();
        case.extend_from_slice(value);
        case.extend_from_slice(b"\r\n\r\n");
        case.extend_from_slice(chunks.as_bytes());
        bench.refused(case, CODING);
    }
    bench.end();
}

#[test]
fn a29_a30_a50_line_ends_that_are_no_crlf_and_folded_lines_are_refused() {
    let mut bench = Bench::new();
    for fields in [
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding:\r\n\tchunked",
        "Foo: bar\r\n Transfer-Encoding: chunked",
        "Foo: bar\r\n\tTransfer-Encoding: chunked",
        "Transfer-Encoding:\n chunked",
        "X: y\nTransfer-Encoding: chunked",
        "Foo: bar\rTransfer-Encoding: chunked",
        "Transfer\r-Encoding: chunked",
        "Transfer\n-Encoding: chunked",
        "Foo: bar\r\r\nTransfer-Encoding: chunked",
    ] {
        bench.refused(post(fields, &format!("0\r\n\r\n{POISON}")), BAD);
    }
    for case in [
        "GET / HTTP/1.1\r\nHost: t.test\r\n\rZGET /poison: x\r\n\r\n",
        "GET / HTTP/1.1\nHost: t.test\n\n",
        "GET / HTTP/1.1\r\nHost: t.test\n\r\n",
        "GET / HTTP/1.1\r\nHost: t.test\r\n\n",
        "GET / HTTP/1.1\rHost: t.test\r\r",
    ] {
        bench.refused(format!("{case}{POISON}"), BAD);
    }
    bench.end();
}

#[test]
fn a31_every_byte_around_a_transfer_encoding_line_is_refused_with_a_length_beside_it() {
    let mut bench = Bench::new();
    let chunk = "GET /poison HTTP/1.1\r\nHost: t.test\r\nX: ";
    let size = chunk.len();
    let bodies = [
        (6, format!("0\r\n\r\n{POISON}")),
        (4, format!("{size:x}\r\n{chunk}\r\n0\r\n\r\n")),
    ];
    let mut cases = 0;
    for byte in (0x01..=0x1f).chain(0x7f..=0xffu8) {
        for place in 0..4 {
            for (length, body) in &bodies {
                let mut line = vec![];
                for (at, part) in ["Transfer-Encoding", ":", "chunked"].iter().enumerate() {
                    if at == place {
                        line.push(byte);
                    }
                    line.extend_from_slice(part.as_bytes());
                }
                if place == 3 {
                    line.push(byte);
                }
                let mut case =
                    format!("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: {length}\r\n")
                        .into_bytes();
                case.extend_from_slice(&line);
                case.extend_from_slice(b"\r\n\r\n");
                case.extend_from_slice(body.as_bytes());
                let name = super::harness::bench::name(&case);
                let mut raw = bench.connect();
                raw.send(&case);
                bench.expect_refusal(&mut raw, &name, CODING);
                cases += 1;
            }
        }
        let seen = bench.seen(&format!("byte {byte:#x}"));
        assert!(seen.is_empty(), "byte {byte:#x}: {seen:?}");
    }
    assert_eq!(cases, 1280);
    assert!(bench.origin.bad().is_empty(), "{:?}", bench.origin.bad());
    bench.end();
}

#[test]
fn a32_a33_http_1_0_has_no_transfer_coding_and_no_body_without_a_length() {
    let mut bench = Bench::new();
    let case = "POST / HTTP/1.0\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    bench.refused(case, CODING);
    let case = "POST / HTTP/1.0\r\nHost: t.test\r\nConnection: keep-alive\r\n\
                Transfer-Encoding: identity, chunked\r\nContent-Length: 29\r\n\r\n\
                0\r\n\r\nGET /poison HTTP/1.1\r\nX:";
    bench.refused(case, CODING);
    let case = format!("POST / HTTP/1.0\r\nHost: t.test\r\n\r\n{POISON}");
    let seen = bench.passes(case, false);
    assert!(seen.body.is_empty());
    bench.end();
}
