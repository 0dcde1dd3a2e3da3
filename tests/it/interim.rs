//! Interim answers (1xx) of upstreams, on their way to clients. RFC 9110 15.2; CASES D05, D06, I34.

use std::io::Write;
use std::time::Duration;

use super::harness::parse::Message;
use super::harness::{Gateway, Origin, Raw, Reply, gateway};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\
                     Connection: X-Own\r\nX-Own: 1\r\n\r\n";

fn last(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// An origin that sends these before each answer, all in one piece.
fn before_each(interims: &'static str) -> (Origin, Gateway) {
    let origin = Origin::start(move |request, _| {
        let body = request.target().to_owned();
        Reply::Bytes(format!("{interims}{}", last(&body)).into_bytes())
    });
    let gateway = Gateway::before(origin.address, "retry = false");
    (origin, gateway)
}

fn head(raw: &mut Raw) -> Message {
    raw.reader().response_head().expect("a head")
}

#[test]
fn d05_a_103_is_with_the_client_before_the_final_answer_is_made() {
    let origin = Origin::start(|_, _| {
        Reply::Act(Box::new(|stream| {
            stream.write_all(HINTS.as_bytes()).expect("it is read");
            std::thread::sleep(Duration::from_millis(300));
            stream.write_all(last("end").as_bytes()).is_ok()
        }))
    });
    let gateway = Gateway::before(origin.address, "retry = false");
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    let early = head(&mut raw);
    assert_eq!(early.status(), 103);
    assert_eq!(early.get("link"), Some("</s.css>; rel=preload"));
    assert_eq!((early.get("x-own"), early.get("connection")), (None, None));
    let answer = raw.response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "end"));
    assert_eq!(answer.get("link"), None);
}

#[test]
fn d05_interim_answers_stand_before_their_own_answer_however_requests_come() {
    let (_origin, gateway) = before_each(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nA: b\r\n\r\n",
    );
    let mut raw = Raw::connect(gateway.web());
    let requests: String = (0..50)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: t.test\r\n\r\n"))
        .collect();
    raw.send(requests);
    for n in 0..50 {
        assert_eq!(head(&mut raw).status(), 102, "of {n}");
        assert_eq!(head(&mut raw).status(), 103, "of {n}");
        let answer = head(&mut raw);
        let answer = raw.reader().response_body(answer, false).expect("a body");
        assert_eq!((answer.status(), answer.text()), (200, format!("/{n}")));
    }
}

#[test]
fn d05_interim_answers_come_also_on_a_connection_that_has_rested() {
    let (_origin, gateway) = before_each(HINTS);
    let mut raw = Raw::connect(gateway.web());
    for pause in [0, 1_500] {
        std::thread::sleep(Duration::from_millis(pause));
        raw.send("GET /a HTTP/1.1\r\nHost: t.test\r\n\r\n");
        assert_eq!(head(&mut raw).status(), 103);
        assert_eq!(raw.response().text(), "/a");
    }
}

#[test]
fn d05_a_client_of_http_1_0_gets_no_interim_answer() {
    let (_origin, gateway) = before_each(HINTS);
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.0\r\nHost: t.test\r\n\r\n");
    assert_eq!(head(&mut raw).status(), 200);
}

#[test]
fn d06_a_client_gets_eight_interim_answers_and_then_the_final_one() {
    let many = "HTTP/1.1 102 Processing\r\n\r\n".repeat(200);
    let (_origin, gateway) = before_each(Box::leak(many.into_boxed_str()));
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    let heads: Vec<u16> = (0..9).map(|_| head(&mut raw).status()).collect();
    assert_eq!(heads, [[102; 8].as_slice(), &[200]].concat());
}

#[test]
fn i34_an_interim_answer_is_passed_through_the_cache_and_not_stored() {
    let origin = Origin::start(|_, _| Reply::Bytes(format!("{HINTS}{}", last("x")).into_bytes()));
    let config = gateway::before(origin.address, "retry = false");
    let gateway = Gateway::start(&format!("{config}cache = {{}}\n"));
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(head(&mut raw).status(), 103);
    assert_eq!(raw.response().text(), "x");
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    let hit = head(&mut raw);
    assert_eq!((hit.status(), hit.get("link")), (200, None));
    assert_eq!(origin.requests().len(), 1);
}
