//! HTTP/2 as RFC 9113 has it, and its way down to HTTP/1 (group F).

use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::harness::h2::{
    DATA, END_HEADERS, END_STREAM, End, FLOW_CONTROL_ERROR, H2, HEADERS, PADDED, PING, PREFACE,
    PROTOCOL_ERROR, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, request, settings,
};
use super::harness::origin::echo;
use super::harness::parse::Message;
use super::harness::{Gateway, Origin, Raw, Reply, SOON, eventually, gateway, hpack};

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// One worker and one upstream connection, which a victim shares.
fn shared(origin: &Origin) -> Gateway {
    let start = "[server]\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n";
    let config = gateway::before(origin.address, "pool = { max_connections = 1 }");
    Gateway::start_bare(&format!("{start}{config}"))
}

fn pseudo<'a>(fields: &[(&'a str, &'a str)]) -> Fields<'a> {
    let all = fields.iter();
    all.map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect()
}

fn with<'a>(name: &'a [u8], value: &'a [u8]) -> Fields<'a> {
    let mut fields = request("GET", "/poison", &[]);
    fields.push((name, value));
    fields
}

/// O1 to O4: the upstream has seen nothing of it, and the victim gets its own answer.
fn assert_clean(origin: &Origin, gateway: &mut Gateway) {
    let mut victim = H2::connect(gateway.web());
    let nonce = [("x-nonce", "mine")];
    let End::Answer(answer) = victim.ask(&request("GET", "/victim", &nonce)) else {
        panic!("the victim is not served");
    };
    assert_eq!(answer.get("x-nonce"), Some("mine"));
    assert_eq!(answer.text(), "GET /victim 0");
    assert!(origin.bad().is_empty(), "{:?}", origin.bad());
    let seen = origin.requests();
    let poison = seen.iter().find(|r| r.target().contains("poison"));
    assert!(poison.is_none(), "{poison:?}");
    gateway.assert_sound();
}

/// Each of these is refused as malformed, and none is seen upstream.
fn assert_refused(cases: Vec<(&str, Fields)>) {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    for (name, fields) in cases {
        let mut client = H2::connect(gateway.web());
        let end = client.ask(&fields);
        assert!(end.is_refusal(), "{name}: {end:?}");
        if matches!(end, End::Reset(_) | End::Answer(_)) {
            assert_eq!(
                client.get("/still").status(),
                200,
                "{name}: the connection stays"
            );
        }
    }
    assert_clean(&origin, &mut gateway);
}

#[test]
fn f01_f03_f04_f05_fields_that_http1_cannot_carry_are_malformed() {
    assert_refused(vec![
        ("CRLF", with(b"x", b"x\r\nTransfer-Encoding: chunked")),
        ("LF", with(b"x", b"a\nb")),
        ("CR", with(b"x", b"a\rb")),
        ("NUL", with(b"x", b"a\0b")),
        ("colon in name", with(b"x:y", b"1")),
        ("space in name", with(b"x y", b"1")),
        ("CR in name", with(b"x\r", b"1")),
        ("LF in name", with(b"x\ny", b"1")),
        ("NUL in name", with(b"x\0", b"1")),
        ("empty name", with(b"", b"1")),
        ("upper case", with(b"X-Upper", b"1")),
        ("transfer-encoding", with(b"transfer-encoding", b"chunked")),
        ("connection", with(b"connection", b"close")),
        ("keep-alive", with(b"keep-alive", b"timeout=5")),
        ("proxy-connection", with(b"proxy-connection", b"keep-alive")),
        ("upgrade", with(b"upgrade", b"websocket")),
        ("te: gzip", with(b"te", b"gzip")),
    ]);
}

#[test]
fn f02_space_around_a_value_is_trimmed_or_malformed() {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    for value in [&b" a"[..], b"a ", b"\ta", b"a\t", b" "] {
        let mut client = H2::connect(gateway.web());
        let mut fields = request("GET", "/space", &[]);
        fields.push((b"x-space", value));
        let end = client.ask(&fields);
        assert!(
            end.is_refusal() || end.status() == 200,
            "{value:?}: {end:?}"
        );
    }
    assert_clean(&origin, &mut gateway);
}

#[test]
fn f06_te_may_say_trailers_and_nothing_else() {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    let mut client = H2::connect(gateway.web());
    assert_eq!(
        client
            .ask(&request("GET", "/te", &[("te", "trailers")]))
            .status(),
        200
    );
    let two = [("te", "trailers"), ("te", "gzip")];
    let end = client.ask(&request("GET", "/poison", &two));
    assert!(end.is_refusal(), "{end:?}");
    assert_clean(&origin, &mut gateway);
}

#[test]
fn f07_f08_bodies_that_are_not_as_long_as_stated_are_resets_and_cost_a_connection() {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    let cases: [(&str, &str, &[&[u8]]); 6] = [
        ("short", "10", &[b"12345"]),
        ("long", "10", &[b"1234567890", b"12345"]),
        ("long at once", "10", &[b"123456789012345"]),
        ("none stated", "0", &[b"12345"]),
        ("stand-alone end", "10", &[b""]),
        ("short, then the end alone", "10", &[b"12345", b""]),
    ];
    for (name, length, pieces) in cases {
        let mut client = H2::connect(gateway.web());
        let fields = request("POST", "/poison", &[("content-length", length)]);
        let stream = client.open(&fields, false);
        let last = pieces.len() - 1;
        for (at, piece) in pieces.iter().enumerate() {
            let flags = if at == last { END_STREAM } else { 0 };
            client.frame(DATA, flags, stream, piece);
        }
        let end = client.end_of(stream);
        assert!(end.is_refusal(), "{name}: {end:?}");
        let mut victim = H2::connect(gateway.web());
        let asked = victim.ask(&request("GET", "/v", &[("x-nonce", name)]));
        let End::Answer(answer) = asked else {
            panic!("{name}: the victim waits: {asked:?}");
        };
        assert_eq!(answer.get("x-nonce"), Some(name));
    }
    // All that was stated may have gone on before more came; a part of it is no request.
    let whole = |r: &Message| {
        let stated = r.get("content-length").map(str::to_owned);
        r.target() == "/v" || stated == Some(r.body.len().to_string())
    };
    let seen = origin.requests();
    assert!(seen.iter().all(whole), "{seen:?}");
    eventually("broken uploads are gone", || origin.open() <= 1);
    gateway.assert_sound();
}

#[test]
fn f08_headers_that_end_a_stream_short_of_its_length_are_malformed() {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    let mut client = H2::connect(gateway.web());
    let end = client.ask(&request("POST", "/poison", &[("content-length", "10")]));
    assert!(end.is_refusal(), "{end:?}");
    assert_clean(&origin, &mut gateway);
}

#[test]
fn f09_lengths_that_are_none_are_malformed() {
    let length = |value: &'static str| request("POST", "/poison", &[("content-length", value)]);
    let two = [("content-length", "5"), ("content-length", "6")];
    assert_refused(vec![
        ("plus", length("+5")),
        ("list", length("5,5")),
        ("empty", length("")),
        ("word", length("five")),
        ("two", request("POST", "/poison", &two)),
        ("too large", length("99999999999999999999999")),
    ]);
}

#[test]
fn f10_a_get_with_a_body_of_no_stated_length_keeps_it() {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    for method in ["GET", "DELETE", "POST"] {
        let mut client = H2::connect(gateway.web());
        let stream = client.open(&request(method, "/body", &[]), false);
        client.frame(DATA, END_STREAM, stream, b"hello");
        match client.end_of(stream) {
            End::Answer(answer) => assert_eq!(answer.text(), format!("{method} /body 5")),
            other => panic!("{method}: {other:?}"),
        }
    }
    let seen = origin.requests();
    assert!(seen.iter().all(|r| r.chunked && r.body == b"hello"));
    assert_clean(&origin, &mut gateway);
}

fn line<'a>(method: &'a str, scheme: &'a str, path: &'a str, authority: &'a str) -> Fields<'a> {
    let (m, s) = ((":method", method), (":scheme", scheme));
    pseudo(&[m, s, (":path", path), (":authority", authority)])
}

#[test]
fn f11_f12_f13_f14_f15_pseudo_fields_that_make_no_request_line_are_refused() {
    let method = |method| line(method, "http", "/poison", "t.test");
    let path = |path| line("GET", "http", path, "t.test");
    let scheme = |scheme| line("GET", scheme, "/poison", "t.test");
    let authority = |authority| line("GET", "http", "/poison", authority);
    let more = |name, value| {
        let mut fields = line("GET", "http", "/poison", "t.test");
        fields.push(pseudo(&[(name, value)])[0]);
        fields
    };
    let late = [
        ("x", "1"),
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/poison"),
    ];
    assert_refused(vec![
        ("a line as method", method("GET /poison HTTP/1.1\r\nX:")),
        ("space in method", method("GET ?")),
        ("lower case", method("get")),
        ("no method", method("")),
        ("relative", path("poison")),
        ("empty path", path("")),
        ("asterisk", path("*")),
        ("space", path("/a b/poison")),
        ("version", path("/poison HTTP/1.1")),
        ("NUL", path("/poison\0")),
        ("CRLF", path("/poison\r\nX: y")),
        ("tab", path("/poison\t")),
        ("a URL as scheme", scheme("http://t.test/poison?")),
        ("a URL as scheme, secure", scheme("https://evil/")),
        ("gopher", scheme("gopher")),
        ("https in the clear", scheme("https")),
        ("empty scheme", scheme("")),
        ("CRLF in authority", authority("t.test:443\r\nX: y")),
        ("userinfo", authority("u@t.test")),
        ("space in authority", authority("a b")),
        ("path in authority", authority("t.test/poison")),
        ("another host", more("host", "other.test")),
        ("two paths", more(":path", "/other")),
        ("two methods", more(":method", "GET")),
        ("two authorities", more(":authority", "t.test")),
        ("unknown", more(":what", "1")),
        ("status", more(":status", "200")),
        ("transfer-encoding", more(":transfer-encoding", "chunked")),
        ("protocol", more(":protocol", "websocket")),
        ("late", pseudo(&late)),
        (
            "no scheme",
            pseudo(&[
                (":method", "GET"),
                (":path", "/poison"),
                (":authority", "t.test"),
            ]),
        ),
        (
            "no path",
            pseudo(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "t.test"),
            ]),
        ),
        (
            "no authority, no host",
            pseudo(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/poison"),
            ]),
        ),
    ]);
}

#[test]
fn f12_f14_what_is_legal_passes() {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    let mut client = H2::connect(gateway.web());
    let host = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/h"),
        ("host", "t.test"),
    ];
    assert_eq!(client.ask(&pseudo(&host)).status(), 200, "only host");
    let mut both = request("GET", "/b", &[]);
    both.push((b"host", b"t.test"));
    assert_eq!(client.ask(&both).status(), 200, "the same twice");
    // `//` is merged, and never read as an authority
    let End::Answer(answer) = client.ask(&line("GET", "http", "//evil/x", "t.test")) else {
        panic!("no answer");
    };
    assert_eq!(answer.text(), "GET /evil/x 0");
    let end = client.ask(&line("GET", "http", "http://evil/", "t.test"));
    assert!(end.is_refusal(), "{end:?}");
    let seen = origin.requests();
    assert!(seen.iter().all(|r| r.all("host") == ["t.test"]));
    assert_clean(&origin, &mut gateway);
}

#[test]
fn f15_f17_trailers_carry_no_pseudo_fields_and_end_the_stream() {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    let mut client = H2::connect(gateway.web());
    let stream = client.open(&request("POST", "/trailed", &[]), false);
    client.frame(DATA, 0, stream, b"body");
    let trailer = hpack::block(&pseudo(&[(":path", "/poison")]));
    client.frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailer);
    // the library drops them unseen
    let end = client.end_of(stream);
    assert!(end.is_refusal() || end.status() == 200, "{end:?}");
    assert!(origin.requests().iter().all(|r| r.trailers.is_empty()));
    let stream = client.open(&request("POST", "/poison", &[]), false);
    client.frame(DATA, 0, stream, b"body");
    let trailer = hpack::block(&pseudo(&[("x-sum", "1")]));
    client.frame(HEADERS, END_HEADERS, stream, &trailer);
    let end = client.end_of(stream);
    assert!(end.is_refusal(), "{end:?}");
    assert_no_poison(&origin, &mut gateway);
}

/// As [`assert_clean`], where an upload was broken off upstream.
fn assert_no_poison(origin: &Origin, gateway: &mut Gateway) {
    let mut victim = H2::connect(gateway.web());
    assert_eq!(victim.get("/victim").text(), "GET /victim 0");
    let seen = origin.requests();
    assert!(seen.iter().all(|r| r.target() != "/poison"), "{seen:?}");
    gateway.assert_sound();
}

#[test]
fn f16_trailers_that_frame_route_or_authenticate_are_dropped() {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    let mut client = H2::connect(gateway.web());
    let stream = client.open(&request("POST", "/t", &[]), false);
    client.frame(DATA, 0, stream, b"body");
    let names = [
        "content-length",
        "host",
        "cookie",
        "x-forwarded-for",
        "authorization",
    ];
    let mut trailers: Vec<(&str, &str)> = names.iter().map(|name| (*name, "4")).collect();
    trailers.push(("x-sum", "1"));
    let block = hpack::block(&pseudo(&trailers));
    client.frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    assert_eq!(client.end_of(stream).status(), 200);
    let seen = &origin.requests()[0];
    assert_eq!(seen.body, b"body");
    let left = |t: &(String, String)| !t.0.eq_ignore_ascii_case("x-sum");
    assert!(!seen.trailers.iter().any(left), "{:?}", seen.trailers);
    assert_clean(&origin, &mut gateway);
}

#[test]
fn f18_crumbs_of_cookies_are_one_line_upstream() {
    let origin = Origin::echo();
    let mut gateway = shared(&origin);
    let mut client = H2::connect(gateway.web());
    let crumbs: Vec<String> = (0..50).map(|n| format!("c{n}={n}")).collect();
    let more: Vec<(&str, &str)> = crumbs.iter().map(|c| ("cookie", c.as_str())).collect();
    assert_eq!(client.ask(&request("GET", "/c", &more)).status(), 200);
    assert_eq!(
        origin.requests()[0].get("cookie"),
        Some(crumbs.join("; ").as_str())
    );
    assert_clean(&origin, &mut gateway);
}

#[test]
fn f19_fields_of_an_http1_connection_do_not_reach_an_http2_client() {
    let origin = Origin::start(|request, _| {
        match request.target() {
        "/victim" => echo(request),
        _ => Reply::Close(
            b"HTTP/1.1 200 OK\r\nConnection: close, x-hop\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n\
              X-Hop: 1\r\nProxy-Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_vec(),
        ),
    }
    });
    let mut gateway = shared(&origin);
    let mut client = H2::connect(gateway.web());
    let answer = client.get("/hop");
    for name in [
        "connection",
        "keep-alive",
        "te",
        "x-hop",
        "proxy-connection",
        "transfer-encoding",
    ] {
        assert_eq!(answer.get(name), None, "{name}");
    }
    assert_eq!(client.get("/hop").status(), 200);
    assert_clean(&origin, &mut gateway);
}

#[test]
fn f22_windows_change_while_an_answer_is_under_way() {
    let origin = Origin::start(|_, _| super::harness::origin::ok(&"x".repeat(300_000)));
    let mut gateway = Gateway::before(origin.address, "");
    let mut client = H2::with_settings(gateway.web(), &[(4, 10_000)]);
    client.frame(WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes());
    let stream = client.open(&request("GET", "/", &[]), true);
    let mut got = 0;
    while got < 10_000 {
        got += client
            .next(SOON)
            .map_or(0, |f| if f.kind == DATA { f.payload.len() } else { 0 });
    }
    assert_eq!(got, 10_000, "not a byte more");
    // down to nothing: the stream is 10,000 in debt, which has to be paid first
    client.frame(SETTINGS, 0, 0, &settings(&[(4, 0)]));
    client.frame(WINDOW_UPDATE, 0, stream, &10_000u32.to_be_bytes());
    let quiet = client.end_within(stream, Duration::from_millis(200));
    assert_eq!(quiet, End::Silence);
    client.frame(SETTINGS, 0, 0, &settings(&[(4, 0x7fff_ffff)]));
    let End::Answer(answer) = client.end_of(stream) else {
        panic!("no answer");
    };
    assert_eq!(got + answer.body.len(), 300_000);
    // one more byte is too much for a window that is full
    let stream = client.open(&request("POST", "/", &[]), false);
    client.frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]);
    let end = client.end_of(stream);
    assert!(matches!(
        end,
        End::Reset(FLOW_CONTROL_ERROR) | End::GoAway(FLOW_CONTROL_ERROR)
    ));
    gateway.assert_sound();
}

#[test]
fn f23_a_cancelled_stream_frees_its_upstream_at_once() {
    let origin = Origin::start(|request, _| match request.target() {
        "/slow" => Reply::Act(Box::new(|stream| {
            use std::io::Read;
            // until the gateway leaves
            while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
            false
        })),
        _ => echo(request),
    });
    let mut gateway = Gateway::before(origin.address, "");
    let mut client = H2::connect(gateway.web());
    let stream = client.open(&request("GET", "/slow", &[]), true);
    eventually("it is asked", || origin.requests().len() == 1);
    client.frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let begun = std::time::Instant::now();
    eventually("the upstream is free", || origin.open() == 0);
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!(client.get("/after").status(), 200);
    gateway.assert_sound();
}

/// A gateway that speaks both over TLS for `a.test`, and its certificate.
fn secure(origin: &Origin) -> (Gateway, Vec<u8>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["a.test".to_owned()]).expect("a certificate");
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("a.crt"), cert.pem()).expect("written");
    std::fs::write(dir.path().join("a.key"), signing_key.serialize_pem()).expect("written");
    let tls =
        "[[listeners.web.tls.certificates]]\ncert = \"a.crt\"\nkey = \"a.key\"\n[upstreams.o]";
    let config = gateway::before(origin.address, "").replace("[upstreams.o]", tls);
    let start = "[server]\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(dir.path().join("weir.toml"), format!("{start}{config}")).expect("written");
    (Gateway::run_in(dir), cert.der().to_vec())
}

#[test]
fn f13_f24_f25_over_tls_scheme_and_name_are_the_connections() {
    let origin = Origin::echo();
    let (mut gateway, root) = secure(&origin);
    let mut client = H2::tls(gateway.web(), "a.test", &root);
    assert_eq!(
        client.ask(&line("GET", "https", "/", "a.test")).status(),
        200
    );
    assert_eq!(
        client
            .ask(&line("GET", "http", "/poison", "a.test"))
            .status(),
        400
    );
    assert_eq!(
        client
            .ask(&line("GET", "https", "/poison", "b.test"))
            .status(),
        421
    );
    assert_eq!(
        client.ask(&line("GET", "https", "/", "a.test")).status(),
        200
    );
    // h2 was agreed upon, and HTTP/1 is spoken
    let mut confused = H2::tls_silent(gateway.web(), "a.test", &root);
    confused.send("GET /poison HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(confused.closed_within(Duration::from_secs(5)));
    let seen = origin.requests();
    assert!(seen.iter().all(|r| r.target() == "/"), "{seen:?}");
    gateway.assert_sound();
}

#[test]
fn f25_in_the_clear_the_preface_decides_and_half_of_one_is_an_end() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let mut slow = H2::silent(gateway.web());
    for byte in [PREFACE, &frame(SETTINGS, 0, 0, &settings(&[(1, 0)]))].concat() {
        slow.send([byte]);
    }
    assert_eq!(slow.get("/slow").status(), 200);
    let mut wrong = Raw::connect(gateway.web());
    wrong.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    wrong.rest(Duration::from_secs(2));
    let mut wrong = H2::silent(gateway.web());
    wrong.send(PREFACE).send(frame(PING, 0, 0, &[0; 8]));
    let end = wrong.end_of_connection(SOON);
    assert!(
        matches!(end, End::GoAway(PROTOCOL_ERROR) | End::Closed),
        "{end:?}"
    );
    assert_clean(&origin, &mut gateway);
}

#[test]
fn f27_padding_and_resets_do_not_leak_the_window_of_the_connection() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let mut client = H2::connect(gateway.web());
    let fields = request("POST", "/padded", &[]);
    let padded = [&[255, b'x'][..], &[0; 255]].concat();
    for n in 0..400 {
        let stream = client.open(&fields, false);
        for _ in 0..16 {
            client.frame(DATA, PADDED, stream, &padded);
        }
        // a few are reset, within the budget; all others end
        if n % 5 == 0 {
            client.frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        } else {
            client.frame(DATA, PADDED | END_STREAM, stream, &padded);
            assert_eq!(client.end_of(stream).status(), 200, "stream {stream}");
        }
    }
    let stream = client.open(&request("POST", "/upload", &[]), false);
    // Only the stream's window is heeded: had the connection's leaked, this would overrun it.
    let (mut sent, mut window) = (0, 65_535);
    while sent < 10_000_000 {
        if window < 16_384 {
            let update = client.next(SOON).expect("the window opens again");
            if (update.kind, update.stream) == (WINDOW_UPDATE, stream) {
                let more = update.payload.as_slice().try_into().expect("4 bytes");
                window += u32::from_be_bytes(more) as usize;
            }
            continue;
        }
        client.frame(DATA, 0, stream, &[0; 16_384]);
        (sent, window) = (sent + 16_384, window - 16_384);
    }
    client.frame(DATA, END_STREAM, stream, &[]);
    let End::Answer(answer) = client.end_of(stream) else {
        panic!("no answer");
    };
    assert_eq!(answer.text(), format!("POST /upload {sent}"));
    gateway.assert_sound();
}
