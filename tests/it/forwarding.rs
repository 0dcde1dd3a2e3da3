//! What passes through, and how.

use super::harness::{Gateway, Origin, Raw, client};

#[test]
fn a_request_is_forwarded_with_what_a_proxy_says_and_its_answer_comes_back() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let answer = client::get(gateway.web(), "/a/../b?c=1");
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (200, "GET /b?c=1 0")
    );
    assert!(answer.get("x-request-id").is_some());
    let seen = &origin.requests()[0];
    assert_eq!(seen.get("host"), Some("t.test"));
    assert_eq!(seen.get("via"), Some("1.1 weir"));
    assert_eq!(seen.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.get("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.get("x-forwarded-host"), Some("t.test"));
    assert_eq!(
        seen.get("forwarded"),
        Some("for=127.0.0.1;proto=http;host=t.test")
    );
    assert_eq!(seen.get("connection"), None);
    gateway.assert_sound();
}

#[test]
fn bodies_are_framed_anew_and_a_connection_serves_many_requests() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let mut raw = Raw::connect(gateway.web());
    raw.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 005\r\n\r\nhello");
    assert_eq!(raw.response().text(), "POST / 5");
    raw.send(
        "POST / HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    );
    assert_eq!(raw.response().text(), "POST / 2");
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(raw.response().text(), "GET / 0");
    assert!(origin.bad().is_empty(), "{:?}", origin.bad());
    assert_eq!(
        gateway.metric("weir_requests_total{route=\"all\",code=\"200\"}"),
        3.0
    );
    gateway.assert_sound();
}
