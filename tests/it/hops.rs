//! Group C: what a hop takes off, puts on, believes and drops.

use std::net::SocketAddr;
use std::time::Duration;

use super::harness::{Gateway, Origin, Raw, client, gateway, origin};

/// A config whose peers are believed.
fn trusting(more: &str) -> String {
    format!(
        "[server]\nworkers = 1\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n\
         [admin]\naddress = \"127.0.0.1:0\"\n{more}"
    )
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: t.test\r\n{fields}\r\n")
}

#[test]
fn c01_connection_strips_no_field_of_the_gateways_and_none_from_end_to_end() {
    let origin = Origin::echo();
    let edits = "headers = { request = { set = { x-from-config = \"secret\" } } }";
    let config = format!("{}{edits}\n", gateway::before(origin.address, ""));
    let mut gateway = Gateway::start(&config);
    let named = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "Forwarded",
        "Host",
        "Via",
        "Authorization",
        "Cookie",
        "X-Request-Id",
        "traceparent",
        "Content-Type",
        "x-from-config",
    ];
    let kept = "Authorization: a\r\nCookie: c=1\r\nContent-Type: text/plain\r\n\
                traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let mut raw = Raw::connect(gateway.web());
    for name in named.iter().copied().chain(["all"]) {
        let list = match name {
            "all" => named.join(", "),
            name => name.to_owned(),
        };
        raw.send(get(&format!("Connection: keep-alive, {list}\r\n{kept}")));
        assert_eq!(raw.response().status(), 200, "{name}");
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), named.len() + 1);
    for seen in requests {
        assert_eq!(seen.get("connection"), None);
        for name in named {
            assert!(seen.get(name).is_some(), "{name} was stripped: {seen:?}");
        }
        assert_eq!(seen.get("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.get("x-from-config"), Some("secret"));
    }
    assert!(origin.bad().is_empty());
    gateway.assert_sound();
}

#[test]
fn c02_c03_hop_by_hop_fields_and_those_connection_names_end_here() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let mut raw = Raw::connect(gateway.web());
    raw.send(get(
        "Connection: X-Foo, x-bar\r\nConnection: ,, X-Third ,\r\nX-Foo: 1\r\nX-Bar: 2\r\n\
         X-Third: 3\r\nX-Stays: 4\r\n",
    ));
    raw.response();
    let hops = "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\
                Trailer: x-t\r\nUpgrade: h2c\r\nProxy-Authorization: Basic eA==\r\n\
                Proxy-Authenticate: Basic\r\n";
    raw.send(get(hops));
    raw.response();
    raw.send(get("Connection: TE\r\nTE: deflate, trailers\r\n"));
    raw.response();
    let requests = origin.requests();
    assert_eq!(requests.len(), 3);
    for name in ["connection", "x-foo", "x-bar", "x-third"] {
        assert!(requests[0].all(name).is_empty(), "{name} went on");
    }
    assert_eq!(requests[0].get("x-stays"), Some("4"));
    for line in hops.lines() {
        let name = line.split(':').next().expect("a name");
        assert!(requests[1].all(name).is_empty(), "{name} went on");
    }
    assert_eq!(requests[2].get("te"), Some("trailers"));
    assert!(requests[2].all("connection").is_empty());
    assert!(origin.bad().is_empty());
    gateway.assert_sound();
}

#[test]
fn c04_hop_by_hop_fields_of_an_answer_end_here() {
    let fields = "Connection: X-Foo\r\nX-Foo: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n\
                  Proxy-Connection: keep-alive\r\nTrailer: x-t\r\nUpgrade: h2c\r\n\
                  Proxy-Authenticate: Basic\r\nProxy-Authorization: x\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}X-Stays: 1\r\nContent-Length: 2\r\n\r\nhi");
    let origin = Origin::start(move |_, _| origin::Reply::Bytes(answer.clone().into_bytes()));
    let mut gateway = Gateway::before(origin.address, "");
    let mut raw = Raw::connect(gateway.web());
    let answer = raw.send(get("")).response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hi"));
    assert_eq!(answer.get("x-stays"), Some("1"));
    for line in fields.lines() {
        let name = line.split(':').next().expect("a name");
        assert!(answer.all(name).is_empty(), "{name} went on: {answer:?}");
    }
    gateway.assert_sound();
}

#[test]
fn c05_what_a_stranger_says_of_itself_is_replaced() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    client::ask(
        gateway.web(),
        &get(
            "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\n\
              X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 9.9.9.9\r\n\
              Forwarded: for=9.9.9.9\r\nX-Client-IP: 9.9.9.9\r\nX-Request-Id: chosen-by-me\r\n",
        ),
    );
    let seen = &origin.requests()[0];
    assert_eq!(seen.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.get("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.get("x-forwarded-host"), Some("t.test"));
    assert_eq!(
        seen.get("forwarded"),
        Some("for=127.0.0.1;proto=http;host=t.test")
    );
    for name in ["x-forwarded-port", "x-real-ip", "x-client-ip"] {
        assert_eq!(seen.get(name), None, "{name}");
    }
    assert_ne!(seen.get("x-request-id"), Some("chosen-by-me"));
    gateway.assert_sound();
}

#[test]
fn c05_a_trusted_proxy_is_believed_up_to_the_first_stranger_from_the_right() {
    let origin = Origin::echo();
    let mut gateway = Gateway::start_bare(&trusting(&gateway::before(origin.address, "")));
    let hops = [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 9.9.9.9\r\n", "9.9.9.9"),
        ("X-Forwarded-For: 1.1.1.1, 9.9.9.9, 10.0.0.1\r\n", "9.9.9.9"),
        (
            "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 9.9.9.9, 10.0.0.1\r\n",
            "9.9.9.9",
        ),
        (
            "X-Forwarded-For: 1.1.1.1, unknown, 10.0.0.1\r\n",
            "10.0.0.1",
        ),
    ];
    for (fields, _) in hops {
        client::ask(
            gateway.web(),
            &get(&format!("{fields}Connection: close\r\n")),
        );
    }
    let seen: Vec<String> = origin
        .requests()
        .iter()
        .map(|r| r.get("x-forwarded-for").expect("one line").to_owned())
        .collect();
    assert_eq!(
        seen,
        [
            "127.0.0.1",
            "9.9.9.9, 127.0.0.1",
            "1.1.1.1, 9.9.9.9, 10.0.0.1, 127.0.0.1",
            "1.1.1.1, 9.9.9.9, 10.0.0.1, 127.0.0.1",
            "1.1.1.1, unknown, 10.0.0.1, 127.0.0.1",
        ]
    );
    super::harness::eventually("the log is written", || {
        gateway.stdout().lines().count() == hops.len()
    });
    let log = gateway.stdout();
    for (line, (fields, client)) in log.lines().zip(hops) {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["client"], client, "{fields}");
    }
    gateway.assert_sound();
}

#[test]
fn c06_odd_forwarded_for_lists_harm_nobody_and_stay_in_order() {
    let origin = Origin::echo();
    let mut gateway = Gateway::start_bare(&trusting(&gateway::before(origin.address, "")));
    let many = vec!["10.1.1.1"; 2_000].join(",");
    let lists: [&[&str]; 8] = [
        &[&many],
        &[",, ,9.9.9.9,,"],
        &["9.9.9.9:4711"],
        &["unknown, _hidden"],
        &["[2001:db8::1]:80, \"[2001:db8::2]\""],
        &["fe80::1%eth0"],
        &["1.1.1.1", "2.2.2.2", "3.3.3.3"],
        &[""],
    ];
    let mut raw = Raw::connect(gateway.web());
    for lines in lists {
        let fields: String = lines
            .iter()
            .map(|l| format!("X-Forwarded-For: {l}\r\n"))
            .collect();
        assert_eq!(raw.send(get(&fields)).response().status(), 200, "{lines:?}");
        let requests = origin.requests();
        let seen = requests.last().expect("it came").get("x-forwarded-for");
        let mut joined: Vec<&str> = lines
            .iter()
            .map(|l| l.trim())
            .filter(|l| !l.is_empty())
            .collect();
        joined.push("127.0.0.1");
        assert_eq!(seen, Some(joined.join(", ").as_str()), "{lines:?}");
    }
    let endless = vec!["10.1.1.1"; 10_000].join(",");
    raw.send(get(&format!("X-Forwarded-For: {endless}\r\n")));
    assert_eq!(raw.response().status(), 431);
    assert_eq!(origin.requests().len(), lists.len());
    assert!(origin.bad().is_empty());
    gateway.assert_sound();
}

#[test]
fn c07_look_alikes_of_forwarding_and_framing_fields_are_dropped() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let names = [
        "X_Forwarded_For",
        "X-Forwarded_For",
        "x_forwarded-proto",
        "X_Real_IP",
        "X_Request_Id",
    ];
    let fields: String = names.iter().map(|n| format!("{n}: 9.9.9.9\r\n")).collect();
    let answer = client::ask(gateway.web(), &get(&format!("{fields}x_other: 1\r\n")));
    assert_eq!(answer.status(), 200);
    let seen = &origin.requests()[0];
    for name in names {
        assert!(seen.all(name).is_empty(), "{name} went on");
    }
    assert_eq!(seen.get("x_other"), Some("1"));
    assert_eq!(seen.get("x-forwarded-for"), Some("127.0.0.1"));
    gateway.assert_sound();
}

#[test]
fn c08_a_gateway_that_is_its_own_upstream_ends_the_loop() {
    // A port that nobody is given who asks for any: below the range of those.
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (first..32_000).find(free).expect("a free port");
    let port = SocketAddr::from(([127, 0, 0, 1], port));
    let config = gateway::before(port, "").replacen("127.0.0.1:0", &port.to_string(), 1);
    let mut gateway = Gateway::start(&config);
    let answer = client::get(gateway.web(), "/");
    assert_eq!(answer.status(), 502);
    let says = answer.all("proxy-status").join(", ");
    assert!(says.contains("proxy_loop_detected"), "{says}");
    let rounds = gateway.metric("weir_requests_total{route=\"all\",code=\"502\"}");
    assert_eq!(rounds, 9.0, "eight passed, the ninth was refused");
    gateway.assert_sound();
}

#[test]
fn c09_a_broken_forwarded_field_swallows_nothing_of_ours() {
    let origin = Origin::echo();
    let mut gateway = Gateway::start_bare(&trusting(&gateway::before(origin.address, "")));
    let own = "for=127.0.0.1;proto=http;host=t.test";
    let cases = [
        ("for=\"x", own.to_owned()),
        ("for=\"x\\", own.to_owned()),
        ("for=\"a\\\"b", own.to_owned()),
        ("for=9.9.9.9", format!("for=9.9.9.9, {own}")),
        (
            "for=\"[2001:db8::1]:47\\\"11\"",
            format!("for=\"[2001:db8::1]:47\\\"11\", {own}"),
        ),
    ];
    let mut raw = Raw::connect(gateway.web());
    for (value, expected) in &cases {
        raw.send(get(&format!("Forwarded: {value}\r\n")));
        assert_eq!(raw.response().status(), 200);
        let requests = origin.requests();
        let seen = requests.last().expect("it came").get("forwarded");
        assert_eq!(seen, Some(expected.as_str()), "{value}");
    }
    // The bytes of a line end within a value are the end of a line and nothing else.
    raw.send(get("Forwarded: for=\"x\r\nX-Smuggled: 1\"\r\n"));
    assert_eq!(raw.response().status(), 200);
    assert!(origin.bad().is_empty());
    gateway.assert_sound();
}

#[test]
fn c10_a_proxy_header_is_taken_from_trusted_peers_and_whole_or_not_at_all() {
    let origin = Origin::echo();
    let listener = "[listeners.web]\nproxy_protocol = true\n\
                    limits = { header_timeout = \"500ms\" }\n";
    let before = gateway::before(origin.address, "").replacen("[listeners.web]\n", listener, 1);
    let mut gateway = Gateway::start_bare(&trusting(&before));
    let request = get("Connection: close\r\n");
    let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend([192, 0, 2, 8, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb]);
    for (header, client) in [(&v1, "192.0.2.7"), (&v2, "192.0.2.8")] {
        let mut raw = Raw::connect(gateway.web());
        raw.send(header).send(&request);
        assert_eq!(raw.response().status(), 200);
        let requests = origin.requests();
        let seen = requests.last().expect("it came").get("x-forwarded-for");
        assert_eq!(seen, Some(client));
        for cut in 0..header.len() {
            let mut raw = Raw::connect(gateway.web());
            raw.send(&header[..cut]).finish();
            assert!(raw.closed_within(Duration::from_secs(2)), "cut at {cut}");
        }
    }
    let mut long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
    long.extend(vec![0; 70_000]);
    let mut garbage = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x14".to_vec();
    garbage.extend([192, 0, 2, 9, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb]);
    garbage.extend([0xee, 0xff, 0xff, 1, 2, 3, 4, 5]);
    for (what, bytes) in [
        ("65535 bytes", long),
        ("no header", request.clone().into_bytes()),
    ] {
        let mut raw = Raw::connect(gateway.web());
        drop(raw.try_send(&bytes));
        assert!(raw.rest(Duration::from_secs(2)).is_empty(), "{what}");
    }
    // Broken TLVs are either refused or passed over; the process stands.
    let mut raw = Raw::connect(gateway.web());
    drop(raw.try_send(&garbage));
    drop(raw.try_send(&request));
    drop(raw.try_response());
    // Silence is no header either.
    let mut raw = Raw::connect(gateway.web());
    assert!(raw.closed_within(Duration::from_secs(3)));
    let refused = gateway
        .metric_sum("weir_connections_refused_total{listener=\"web\",reason=\"proxy_header\"");
    assert!(refused > 60.0, "{refused}");
    assert!(origin.bad().is_empty());
    gateway.assert_sound();

    let mut gateway = Gateway::start_bare(
        &trusting(&before).replace("\"127.0.0.0/8\", \"10.0.0.0/8\"", "\"10.0.0.0/8\""),
    );
    let count = origin.requests().len();
    let mut raw = Raw::connect(gateway.web());
    drop(raw.try_send([&v1[..], request.as_bytes()].concat()));
    assert!(raw.rest(Duration::from_secs(2)).is_empty());
    assert_eq!(
        origin.requests().len(),
        count,
        "a stranger's header counts for nothing"
    );
    gateway.assert_sound();
}

#[test]
fn c11_a_stranger_cannot_claim_the_identity_of_a_certificate() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let names = [
        "X-Forwarded-Client-Cert",
        "Client-Cert",
        "Client-Cert-Chain",
        "X-SSL-Client-Verify",
        "X-SSL-Client-S-DN",
        "X_Forwarded_Client_Cert",
        "Client_Cert",
    ];
    let fields: String = names.iter().map(|n| format!("{n}: forged\r\n")).collect();
    client::ask(gateway.web(), &get(&fields));
    let seen = &origin.requests()[0];
    for name in names {
        assert!(seen.all(name).is_empty(), "{name} went on");
    }
    gateway.assert_sound();
}

#[test]
fn c05_a_stranger_does_not_choose_its_route_by_what_only_a_proxy_may_say() {
    let origin = Origin::echo();
    let config = format!(
        "{}[[routes]]\nid = \"admin\"\nrespond = {{ body = \"admin\" }}\n\
         match = {{ path = \"/admin\", headers = {{ x-ssl-client-verify = \"SUCCESS\" }} }}\n\
         [[routes]]\nid = \"plain\"\nrespond = {{ body = \"plain\" }}\n\
         match = {{ path = \"/admin\" }}\n",
        gateway::before(origin.address, "")
    );
    let claim = "X-SSL-Client-Verify: SUCCESS\r\nConnection: close\r\n";
    let request = get(claim).replacen("GET / ", "GET /admin ", 1);
    let mut gateway = Gateway::start(&config);
    assert_eq!(client::ask(gateway.web(), &request).text(), "plain");
    gateway.assert_sound();
    let mut gateway = Gateway::start_bare(&trusting(&config));
    assert_eq!(client::ask(gateway.web(), &request).text(), "admin");
    gateway.assert_sound();
}

/// The config with these lines added to its only route.
fn edited(origin: SocketAddr, lines: &str) -> String {
    format!("{}{lines}\n", gateway::before(origin, ""))
}

#[test]
fn c01_a_client_strips_no_field_that_the_operator_sets() {
    let origin = Origin::echo();
    let set = "headers = { request = { set = { x-forwarded-prefix = \"/p\", x-real-ip = \"op\", \
               client-cert = \"op\", x-forwarded-proto = \"https\" } } }";
    let mut gateway = Gateway::start(&edited(origin.address, set));
    let mut raw = Raw::connect(gateway.web());
    for fields in [
        "",
        "X-Forwarded-For: 1.2.3.4\r\n",
        "X-Forwarded-For: 1.2.3.4\r\nConnection: te, x-real-ip, client-cert, x-forwarded-prefix\r\n\
         TE: trailers\r\nX-Real-IP: 9.9.9.9\r\nX-Forwarded-Proto: http\r\n",
    ] {
        origin.clear();
        assert_eq!(raw.send(get(fields)).response().status(), 200);
        let seen = &origin.requests()[0];
        assert_eq!(seen.all("x-forwarded-prefix"), ["/p"], "{fields}");
        assert_eq!(seen.all("x-real-ip"), ["op"], "{fields}");
        assert_eq!(seen.all("client-cert"), ["op"], "{fields}");
        assert_eq!(seen.all("x-forwarded-proto"), ["https"], "{fields}");
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "{fields}");
    }
    gateway.assert_sound();
}

#[test]
fn c05_the_forwarded_host_is_the_one_the_client_asked_for() {
    let origin = Origin::echo();
    let rewrite = "rewrite = { host = \"inner.test\" }";
    let mut gateway = Gateway::start(&edited(origin.address, rewrite));
    client::ask(gateway.web(), &get("Connection: close\r\n"));
    let seen = &origin.requests()[0];
    assert_eq!(seen.get("host"), Some("inner.test"));
    assert_eq!(seen.get("x-forwarded-host"), Some("t.test"));
    assert_eq!(
        seen.get("forwarded"),
        Some("for=127.0.0.1;proto=http;host=t.test")
    );
    gateway.assert_sound();
}

#[test]
fn n09_a_proxy_is_trusted_by_the_config_in_force_on_open_connections_too() {
    let origin = Origin::echo();
    let config = |trusted: &str| {
        let server = format!("[server]\nworkers = 1\ntrusted_proxies = [{trusted}]\n");
        let admin = "[admin]\naddress = \"127.0.0.1:0\"\n";
        format!("{server}{admin}{}", gateway::before(origin.address, ""))
    };
    let mut gateway = Gateway::start_bare(&config("\"127.0.0.1\""));
    let mut raw = Raw::connect(gateway.web());
    let mut seen = || {
        origin.clear();
        raw.send(get("X-Forwarded-For: 9.9.9.9\r\n")).response();
        let request = origin.requests().remove(0);
        request.get("x-forwarded-for").map(str::to_owned)
    };
    let believed = Some("9.9.9.9, 127.0.0.1".to_owned());
    assert_eq!(seen(), believed);
    for (trusted, expected) in [
        ("", Some("127.0.0.1".to_owned())),
        ("\"127.0.0.1\"", believed),
    ] {
        std::fs::write(gateway.config_path(), config(trusted)).expect("a config");
        assert_eq!(gateway.reload().1["outcome"], "applied");
        assert_eq!(seen(), expected, "{trusted}");
    }
    gateway.assert_sound();
}
