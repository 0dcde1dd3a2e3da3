//! The guard sees what it must in heads and chunks, however the bytes are cut.

use proptest::prelude::*;

use super::*;

fn guard() -> Guard {
    Guard::new(32 << 10)
}

/// The verdict on the first request of a stream, shown whole and byte by byte.
fn first(input: &str) -> Option<(Violation, Reason)> {
    let input = input.replace('\u{80}', "\u{0}");
    let mut bytes = input.into_bytes();
    for byte in &mut bytes {
        // a stand-in for a byte that no UTF-8 string has alone
        if *byte == 0 {
            *byte = 0x85;
        }
    }
    let mut whole = guard();
    whole.inspect(&bytes).expect("no flood of empty lines");
    let mut pieces = guard();
    for byte in &bytes {
        pieces.inspect(&[*byte]).expect("no flood of empty lines");
    }
    let verdict = whole.verdict().check(1);
    assert_eq!(pieces.verdict().check(1), verdict);
    assert_eq!(pieces.heads(), whole.heads());
    verdict
}

fn with(fields: &str) -> Option<(Violation, Reason)> {
    first(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"))
}

const FRAMING: Option<(Violation, Reason)> = Some((Violation::Framing, Reason::BadRequest));
const FIELDS: Option<(Violation, Reason)> = Some((Violation::Fields, Reason::BadRequest));
const CODING: Option<(Violation, Reason)> =
    Some((Violation::TransferCoding, Reason::UnsupportedCoding));

#[test]
fn a01_a02_both_framings_are_refused_in_any_order() {
    assert_eq!(
        with("Content-Length: 6\r\nTransfer-Encoding: chunked"),
        FRAMING
    );
    assert_eq!(
        with("transfer-encoding: chunked\r\ncontent-length: 4"),
        FRAMING
    );
}

#[test]
fn a03_to_a11_a_length_is_digits_once() {
    assert_eq!(with("Content-Length: 5\r\nContent-Length: 10"), FRAMING);
    assert_eq!(with("Content-Length: 5\r\nContent-Length: 5"), FRAMING);
    for value in [
        "5, 5",
        "+5",
        "-5",
        "-0",
        "0x5",
        "0o5",
        "5e0",
        "5.0",
        "1_0",
        "1 0",
        "5;",
        "5Z",
        "",
        "18446744073709551616",
        "99999999999999999999999999999999999",
    ] {
        assert_eq!(
            with(&format!("Content-Length: {value}")),
            FRAMING,
            "{value}"
        );
    }
    for value in ["0", "5", "005", " \t5 ", "9223372036854775807"] {
        assert_eq!(with(&format!("Content-Length: {value}")), None, "{value}");
    }
}

#[test]
fn a14_a28_look_alikes_do_not_pass() {
    for field in [
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "TRANSFER_ENCODING: x",
    ] {
        assert_eq!(with(field), FRAMING, "{field}");
    }
    assert_eq!(with("Transfer Encoding: chunked"), None, "hyper refuses it");
}

#[test]
fn a15_a17_a29_space_before_colon_and_folding_are_refused() {
    for fields in [
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Transfer-Encoding : chunked",
        "Foo: bar\r\n\tTransfer-Encoding: chunked",
        ": x",
        "no colon",
    ] {
        assert_eq!(with(fields), FIELDS, "{fields}");
    }
    // the empty coding before the fold is refused first
    assert_eq!(with("Transfer-Encoding:\r\n chunked"), CODING);
}

#[test]
fn a18_to_a27_a_coding_is_chunked_once_and_nothing_else() {
    for value in [
        "xchunked",
        ",chunked",
        "chunked,",
        "chunked, identity",
        "gzip, chunked",
        "chunked, chunked",
        "identity",
        "",
        "\u{b}chunked",
        "chunked\u{80}",
        "\"chunked\"",
        "chunked;a=b",
    ] {
        assert_eq!(
            with(&format!("Transfer-Encoding: {value}")),
            CODING,
            "{value}"
        );
    }
    assert_eq!(
        with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        FRAMING
    );
    assert_eq!(
        with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        FRAMING
    );
    assert_eq!(with("Transfer-Encoding: \tChunked "), None);
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(first(old), FRAMING);
}

#[test]
fn empty_lines_begin_the_first_head_and_no_later_one() {
    let mut guard = guard();
    guard.inspect(b"\r\n").expect("one is allowed");
    assert!(guard.in_head());
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    guard.inspect(post).expect("a request");
    guard
        .inspect(b"\r\n")
        .expect("an old client ends a body so");
    assert!(!guard.in_head() && guard.between(), "it is idle");
    guard.inspect(b"G").expect("the next one");
    assert!(guard.in_head());
}

#[test]
fn b02_two_hosts_are_refused() {
    let expected = Some((Violation::Host, Reason::BadRequest));
    assert_eq!(with("host: a"), expected);
}

#[test]
fn b08_b09_bytes_that_a_target_cannot_have_are_refused() {
    let expected = Some((Violation::Target, Reason::BadRequest));
    for target in [
        "/#frag", "/x#@evil", "/a b", "/\u{80}", "/a\tb", "/\u{1}", "/\u{7f}",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(first(&head), expected, "{target:?}");
    }
    assert_eq!(
        first("GET /a?b=%23&c={d} HTTP/1.1\r\nHost: a\r\n\r\n"),
        None
    );
}

#[test]
fn a_line_of_the_head_that_ends_in_lf_alone_is_refused() {
    let expected = Some((Violation::Parse, Reason::BadRequest));
    for head in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\n\n",
    ] {
        assert_eq!(first(head), expected, "{head:?}");
    }
}

#[test]
fn b13_a_few_empty_lines_pass_and_an_endless_row_of_them_ends_the_connection() {
    let mut guard = guard();
    let input = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(guard.inspect(input).ok(), Some(input.len()));
    assert_eq!(guard.heads(), 1);
    let survived = (0..1000)
        .take_while(|_| guard.inspect(b"\r\n").is_ok())
        .count();
    assert_eq!(survived, 8);
}

#[test]
fn a51_requests_before_a_bad_one_are_untouched_and_nothing_passes_after_it() {
    let good = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let bad = "GET /3# HTTP/1.1\r\nHost: a\r\n\r\n";
    let input = format!("{good}{bad}GET /poison HTTP/1.1\r\n\r\n");
    let mut guard = guard();
    let pass = guard.inspect(input.as_bytes()).ok();
    assert_eq!(pass, Some(good.len() + bad.len()));
    let verdict = guard.verdict();
    assert_eq!((verdict.check(1), verdict.check(2)), (None, None));
    assert!(verdict.check(3).is_some() && verdict.check(4).is_some());
    assert!(guard.holds());
    assert_eq!(guard.inspect(b"more").ok(), Some(0));
}

#[test]
fn a_chunked_body_that_is_broken_makes_whatever_follows_a_bad_request() {
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "g\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "ffffffffffffffff\r\n",
        "00000000000000000\r\n\r\n",
        "0\r\n\n",
    ] {
        let mut guard = guard();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        guard
            .inspect(format!("{head}{body}").as_bytes())
            .expect("no empty lines");
        let verdict = guard.verdict();
        assert_eq!(verdict.check(1), None);
        assert_eq!(
            verdict.check(2),
            Some((Violation::Body, Reason::BadRequest)),
            "{body:?}"
        );
        assert!(
            guard.breaks() && guard.inspect(b"x").ok() == Some(0),
            "{body:?}"
        );
    }
}

#[test]
fn a_head_beyond_the_limit_is_no_longer_kept() {
    let mut guard = guard();
    let mut line = b"GET / HTTP/1.1\r\nX: ".to_vec();
    line.resize(50 << 10, b'a');
    assert_eq!(guard.inspect(&line).ok(), Some(line.len()));
    assert!(!guard.in_head());
    assert!(guard.verdict().check(1).is_some());
}

#[test]
fn b17_a_request_line_beyond_the_limit_is_cut_and_ended_over_any_split() {
    let mut line = b"GET /".to_vec();
    line.resize(100 << 10, b'a');
    for piece in [100 << 10, 8 << 10, 1000, 13] {
        let mut guard = guard();
        let passed: usize = line
            .chunks(piece)
            .map(|bytes| guard.inspect(bytes).expect("no empty lines"))
            .sum();
        let (first, rest) = (guard.ending(4), guard.ending(100));
        assert_eq!([first, rest].concat(), b" HTTP/1.1\r\n\r\n");
        assert_eq!(passed + first.len() + rest.len(), 32 << 10);
        assert!(guard.holds() && guard.ending(100).is_empty());
        let expected = Some((Violation::Target, Reason::UriTooLong));
        assert_eq!(guard.verdict().check(1), expected);
    }
}

#[derive(Debug, Clone)]
enum Request {
    Bare,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, bool),
}

impl Request {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Request::Bare => out.extend(b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"),
            Request::Length(body) => {
                let head = format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                out.extend(head.bytes());
                out.extend(body);
            }
            Request::Chunked(chunks, trailers) => {
                out.extend(b"PUT /c HTTP/1.1\r\nhost:a\r\ntransfer-encoding:chunked\r\n\r\n");
                for chunk in chunks.iter().filter(|c| !c.is_empty()) {
                    out.extend(format!("{:X};x=\"y\"\r\n", chunk.len()).bytes());
                    out.extend(chunk);
                    out.extend(b"\r\n");
                }
                let end: &[u8] = if *trailers {
                    b"0\r\nt: v\r\n\r\n"
                } else {
                    b"0\r\n\r\n"
                };
                out.extend(end);
            }
        }
    }
}

fn request() -> impl Strategy<Value = Request> {
    let bytes = || {
        let byte = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), any::<u8>()];
        proptest::collection::vec(byte, 0..40)
    };
    prop_oneof![
        Just(Request::Bare),
        bytes().prop_map(Request::Length),
        (proptest::collection::vec(bytes(), 0..4), any::<bool>())
            .prop_map(|(chunks, trailers)| Request::Chunked(chunks, trailers)),
    ]
}

proptest! {
    #[test]
    fn good_requests_pass_whole_over_any_split(
        requests in proptest::collection::vec(request(), 1..8),
        cuts in proptest::collection::vec(1usize..60, 1..60),
    ) {
        let mut bytes = Vec::new();
        for request in &requests {
            request.write(&mut bytes);
        }
        let mut guard = guard();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, later) = rest.split_at((*cut).min(rest.len()));
            prop_assert_eq!(guard.inspect(piece).ok(), Some(piece.len()));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(!guard.verdict().is_bad());
        prop_assert_eq!(guard.heads(), requests.len() as u64);
        prop_assert!(guard.between() && !guard.in_head());
    }

    #[test]
    fn no_bytes_make_it_panic_or_pass_more_than_there_are(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20),
    ) {
        let mut guard = guard();
        for piece in pieces {
            match guard.inspect(&piece) {
                Ok(pass) => prop_assert!(pass <= piece.len()),
                Err(_) => break,
            }
        }
    }
}
