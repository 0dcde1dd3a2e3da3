//! What comes off a message and goes on it, by example.

use proptest::prelude::*;

use super::*;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .collect()
}

#[test]
fn what_connection_names_goes_but_not_what_a_client_may_not_strip() {
    let mut headers = map(&[
        (
            "connection",
            "close, X-Foo, x-forwarded-for, Authorization, host",
        ),
        ("x-foo", "1"),
        ("x-forwarded-for", "9.9.9.9"),
        ("authorization", "secret"),
        ("host", "a"),
        ("keep-alive", "5"),
        ("te", "gzip, trailers"),
        ("x_forwarded_for", "1"),
        ("content_length", "5"),
        ("content%2dlength", "5"),
        ("my_field", "kept"),
    ]);
    strip_named(&mut headers);
    strip(&mut headers);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["authorization", "host", "my_field", "te", "x-forwarded-for"]
    );
    assert_eq!(headers["te"], "trailers");
}

fn hop(trusted: bool, peer: &str, text: &HeaderValue, headers: &mut HeaderMap) {
    let peer = SocketAddr::new(peer.parse().expect("an address"), 4711);
    set_forwarded(
        headers,
        Hop {
            peer,
            peer_text: text,
            trusted,
            scheme: "https",
            host: None,
        },
        true,
    );
}

#[test]
fn an_untrusted_peer_cannot_say_who_it_is() {
    let mut headers = map(&[
        ("host", "a.test:8443"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-forwarded-port", "1"),
        ("forwarded", "for=9.9.9.9"),
        ("x-real-ip", "9.9.9.9"),
    ]);
    drop_claims(&mut headers);
    hop(
        false,
        "192.0.2.1",
        &HeaderValue::from_static("192.0.2.1"),
        &mut headers,
    );
    assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-host"], "a.test:8443");
    assert_eq!(
        headers["forwarded"],
        "for=192.0.2.1;proto=https;host=\"a.test:8443\""
    );
    assert!(!headers.contains_key("x-real-ip") && !headers.contains_key("x-forwarded-port"));
}

#[test]
fn a_trusted_peer_is_appended_to() {
    let mut headers = map(&[
        ("host", "a.test"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "for=9.9.9.9"),
    ]);
    hop(
        true,
        "2001:db8::1",
        &HeaderValue::from_static("2001:db8::1"),
        &mut headers,
    );
    assert_eq!(headers["x-forwarded-for"], "9.9.9.9, 2001:db8::1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    let forwarded = "for=9.9.9.9, for=\"[2001:db8::1]\";proto=https;host=a.test";
    assert_eq!(headers["forwarded"], forwarded);
}

#[test]
fn a_field_put_on_later_is_not_the_clients_to_name() {
    let mut headers = map(&[("connection", "x-secret, te"), ("te", "trailers")]);
    strip_named(&mut headers);
    headers.insert("x-secret", HeaderValue::from_static("ours"));
    strip(&mut headers);
    assert_eq!(headers["x-secret"], "ours");
    assert_eq!(headers["te"], "trailers");
    assert!(!headers.contains_key("connection"));
}

#[test]
fn the_client_is_the_rightmost_address_that_is_not_trusted() {
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a net")];
    let peer: IpAddr = "10.0.0.1".parse().expect("an address");
    let client = |xff: &'static str| {
        client_address(&map(&[("x-forwarded-for", xff)]), peer, &trusted).to_string()
    };
    assert_eq!(client("1.1.1.1, 2.2.2.2, 10.0.0.2"), "2.2.2.2");
    assert_eq!(client("1.1.1.1, 2.2.2.2:99 ,, 10.0.0.2"), "2.2.2.2");
    assert_eq!(client("[2001:db8::9]:80"), "2001:db8::9");
    assert_eq!(client("fe80::1%eth0"), "fe80::1");
    assert_eq!(client("::ffff:7.7.7.7"), "7.7.7.7");
    assert_eq!(client("1.1.1.1, unknown"), "10.0.0.1");
    let outsider = "3.3.3.3".parse().expect("an address");
    let headers = map(&[("x-forwarded-for", "9.9.9.9")]);
    assert_eq!(client_address(&headers, outsider, &trusted), outsider);
    for (right, expected) in [
        (&b"\xff, 7.7.7.7"[..], "7.7.7.7"),
        (b"\xff, 10.0.0.2", "10.0.0.2"),
        (b"7.7.7.7, \xff", "10.0.0.1"),
    ] {
        let mut headers = map(&[("x-forwarded-for", "6.6.6.6")]);
        let right = HeaderValue::from_bytes(right).expect("a field value");
        headers.append(X_FORWARDED_FOR, right);
        let client = client_address(&headers, peer, &trusted).to_string();
        assert_eq!(client, expected, "what is no text ends the search");
    }
}

#[test]
fn our_own_name_in_via_is_counted() {
    let headers = map(&[
        ("via", "1.1 weir, 2 other"),
        ("via", "1.1 weir (x), 1.1 weirdo"),
    ]);
    assert_eq!(via_count(&headers, "weir"), 2);
}

proptest! {
    #[test]
    fn an_odd_byte_is_found_wherever_it_stands(
        name in "[a-z0-9-]{0,30}",
        at in 0usize..31,
        byte in prop::sample::select(vec![b'_', b'%', b'^', b'&', b'$', 0x80 | b'_', b'a']),
    ) {
        let mut name = name.into_bytes();
        prop_assert!(!is_odd(&name));
        name.insert(at.min(name.len()), byte);
        prop_assert_eq!(is_odd(&name), matches!(byte, b'_' | b'%'));
    }
}
