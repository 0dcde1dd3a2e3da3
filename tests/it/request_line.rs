//! Group B: request line, target, Host and limits. One reading of each, the same for the router,
//! the policies and the upstream; where there are two, the request is refused.

use std::io::Write;
use std::time::{Duration, Instant};

use super::harness::bench::{BAD, Bench, ended};
use super::harness::{Gateway, Origin, Raw, SOON, client, gateway};

const POISON: &str = "GET /poison HTTP/1.1\r\nHost: t.test\r\n\r\n";
const REFUSED: &[u16] = &[400, 505];

/// A GET with this request line, Host, and a request behind it that must never be read.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: t.test\r\n\r\n{POISON}")
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: t.test\r\n\r\n")
}

#[test]
fn b01_to_b04_a_request_has_one_valid_host() {
    let mut bench = Bench::new();
    bench.refused(format!("GET / HTTP/1.1\r\n\r\n{POISON}"), BAD);
    bench.refused(format!("GET / HTTP/1.1\r\nX: y\r\n\r\n{POISON}"), BAD);
    for host in [
        "t.test\r\nHost: t.test",
        "t.test\r\nHost: evil.test",
        "t.test\r\nhost:",
        "a, b",
        "a/b",
        "u@a",
        "a b",
        "",
        " ",
        "[::1",
        "::1",
        "[zz]",
        "[::1]x",
        "a:99999",
        "a:0",
        "a:-1",
        "a:80abc",
        "a:",
        "a:+1",
        "a%41",
        "a?b",
        "a#b",
        "a\\b",
        "good.test\0.evil",
        "good.test\u{1}",
        "é.test",
        "a\tb",
        "http://a",
    ] {
        bench.refused(
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n{POISON}"),
            BAD,
        );
    }
    bench.refused(
        format!("GET / HTTP/1.1\r\nHost : t.test\r\n\r\n{POISON}"),
        BAD,
    );
    for host in [
        "t.test",
        "T.Test:8080",
        "t.test.",
        "[::1]:80",
        "127.0.0.1",
        " \tt.test \t",
    ] {
        let case = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let seen = bench.passes(case, true);
        assert_eq!(seen.get("host"), Some(host.trim()));
    }
    bench.end();
}

#[test]
fn b05_b06_the_authority_of_an_absolute_target_wins_over_host() {
    let origin = Origin::echo();
    let config = gateway::before(origin.address, "").replace(
        "id = \"all\"\n",
        "id = \"all\"\nmatch = { host = \"evil.test\" }\n",
    );
    let mut gateway = Gateway::start(&config);
    let web = gateway.web();
    let ask = |target: &str, host: &str| {
        let case = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        client::ask(web, &case)
    };
    assert_eq!(ask("http://evil.test/", "t.test").status(), 200);
    assert_eq!(ask("http://t.test/", "evil.test").status(), 404);
    assert_eq!(ask("http://evil.test", "t.test").text(), "GET / 0");
    assert_eq!(ask("http://evil.test?x", "t.test").text(), "GET /?x 0");
    assert_eq!(ask("HTTP://EVIL.test/a/../b", "t.test").text(), "GET /b 0");
    for target in [
        "https://evil.test/",
        "ftp://evil.test/",
        "http://u@evil.test/",
        "http:///x",
        "http://",
        "evil.test:80",
        "//evil.test/",
        "http:/evil.test",
    ] {
        let answer = ask(target, "t.test");
        assert!(
            matches!(answer.status(), 400 | 404),
            "{target}: {}",
            answer.start
        );
    }
    let seen = origin.requests();
    assert_eq!(seen.len(), 4, "{seen:?}");
    for request in seen {
        let host = request.get("host").expect("a host");
        assert!(host.eq_ignore_ascii_case("evil.test"), "{host}");
    }
    gateway.assert_sound();
}

#[test]
fn b07_b11_b14_a_request_line_is_three_words_with_one_space_between_them() {
    let mut bench = Bench::new();
    for request_line in [
        "GET * HTTP/1.1",
        "GET foo HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1\t",
        " GET / HTTP/1.1",
        "GET",
        "GET /",
        "/ HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/1",
        "GET / HTTP/01.1",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/4294967295.255",
        "GET / HTTP/1.1x",
        "GET / HTTP/ 1.1",
        "GET / HTTP/0.9",
        "GET / HTTPS/1.1",
        "OPTIONS *x HTTP/1.1",
        "OPTIONS */ HTTP/1.1",
        "GET /\u{b}HTTP/1.1",
    ] {
        bench.refused(line(request_line), REFUSED);
    }
    bench.refused(
        format!("GET / HTTP/1.1\r\n Host: t.test\r\n\r\n{POISON}"),
        BAD,
    );
    bench.refused(
        format!("GET / HTTP/1.1\r\n\tX: y\r\nHost: t.test\r\n\r\n{POISON}"),
        BAD,
    );
    let mut raw = bench.connect();
    raw.send("OPTIONS * HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert!((200..300).contains(&raw.response().status()));
    drop(raw);
    let seen = bench.seen("OPTIONS *");
    assert!(
        seen.iter().all(|request| request.target() == "*"),
        "{seen:?}"
    );
    bench.end();
}

#[test]
fn b08_b09_a_target_goes_on_as_it_was_routed_or_not_at_all() {
    let mut bench = Bench::new();
    for target in [
        "/a b", "/a\0", "/a\tb", "/a\u{7f}", "/a\u{1}", "/é", "/a?é", "/\\", "/a?\\", "/<", "/>",
        "/\"", "/{x}", "/^", "/`", "/#frag", "/x#@evil", "/a?b#c", "#", "/%", "/%2", "/%zz",
    ] {
        bench.refused(line(&format!("GET {target} HTTP/1.1")), BAD);
    }
    for byte in 0x80..=0xffu8 {
        if byte % 16 != 0 {
            continue;
        }
        let case = [&b"GET /"[..], &[byte], b" HTTP/1.1\r\nHost: t.test\r\n\r\n"].concat();
        bench.refused(case, BAD);
    }
    for target in [
        "/a|b",
        "/a'()*+,;=:@!$&-._~",
        "/?a=%00%0a&b",
        "/a?b?c//../d",
        "/?",
        "/%C3%A9",
        "/a//b".replace("//", "/").as_str(),
    ] {
        let seen = bench.passes(get(target), true);
        assert_eq!(seen.target(), target);
    }
    for byte in "\"<>{}|^`".chars() {
        let target = format!("/a?{byte}");
        let mut raw = bench.connect();
        raw.send(get(&target));
        let status = raw.response().status();
        let seen = bench.seen(&target);
        match status {
            200 => assert_eq!((seen.len(), seen[0].target()), (1, &*target)),
            status => assert_eq!((status, seen.len()), (400, 0), "{target}"),
        }
    }
    bench.end();
}

#[test]
fn b10_b22_a_path_has_one_reading_for_policies_and_upstream() {
    let origin = Origin::echo();
    let config = gateway::before(origin.address, "").replace(
        "[[routes]]",
        "[[routes]]\nid = \"deny\"\nmatch = { path = \"/admin/*\" }\nrespond = { status = 403 }\n\
         [[routes]]\nid = \"moved\"\nmatch = { path = \"/old/*\" }\nredirect = { to = \"/new/*\" }\n\
         [[routes]]\nid = \"written\"\nmatch = { path = \"/shop/*\" }\nupstream = \"o\"\n\
         rewrite = { prefix = \"/shop\", with = \"/store\" }\n\
         [[routes]]",
    );
    let mut gateway = Gateway::start(&config);
    let web = gateway.web();
    for target in [
        "/admin",
        "/./admin",
        "//admin",
        "/x/../admin",
        "/%61dmin",
        "/admin/.",
        "/admin/",
        "/admin/x",
        "/admin//x",
        "/%2e/admin",
        "/x/%2e%2e/admin",
        "/x/%2E./admin",
        "/admin/x/..",
        "/x/../%61%64min",
        "/admin?x",
        "///admin",
        "/admin/./../admin/",
        "/x/y/../../admin",
        "http://t.test/x/../admin",
    ] {
        assert_eq!(client::get(web, target).status(), 403, "{target}");
    }
    for target in [
        "/admin%2f",
        "/x%2f..%2fadmin",
        "/x/..;/admin",
        "/admin%00",
        "/%c0%af",
        "/..",
        "/../admin",
        "\\admin",
        "/\\admin",
        "/x%5c..%5cadmin",
        "/x/..%2fadmin",
        "/.;/admin",
        "/%e0%80%af",
        "/x/..%5cadmin",
        "/old/%0d%0aX:%20y",
        "/shop/%0d%0aX:%20y",
        "/%0aX",
        "/a%7f",
    ] {
        let answer = client::get(web, target);
        assert_eq!(answer.status(), 400, "{target}");
        assert!(answer.get("x").is_none());
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
    for (target, upstream) in [
        ("/admin;a=b", "/admin;a=b"),
        ("/ADMIN", "/ADMIN"),
        ("/administrator", "/administrator"),
        ("/%2561dmin", "/%2561dmin"),
        ("/a/%7Eb/%c3%a9", "/a/~b/%C3%A9"),
        (
            "/shop/x?%0d%0aX: y".split(' ').next().expect("a word"),
            "/store/x?%0d%0aX:",
        ),
    ] {
        assert_eq!(client::get(web, target).status(), 200, "{target}");
        let seen = origin.requests().pop().expect("a request");
        assert_eq!(seen.target(), upstream);
        assert!(seen.get("x").is_none());
    }
    let moved = client::get(web, "/old/x?%0d%0aX:%20y");
    assert_eq!(moved.get("location"), Some("/new/x?%0d%0aX:%20y"));
    assert!(moved.get("x").is_none());
    let twice = client::get(web, "/old//evil.test/");
    assert_eq!(twice.get("location"), Some("/new/evil.test/"));
    gateway.assert_sound();
}

#[test]
fn b12_b13_a_request_without_version_and_empty_lines_without_end_are_refused() {
    let mut bench = Bench::with("limits = { header_timeout = \"1s\" }");
    bench.refused("GET /\r\n\r\n", BAD);
    let mut raw = bench.connect();
    raw.send("GET /\r\n").finish();
    bench.refused_or_ended(&mut raw, "HTTP/0.9 and the end");
    let mut raw = bench.connect();
    raw.send(get("/first") + "GET /poison\r\n\r\n");
    assert_eq!(raw.response().text(), "GET /first 0");
    bench.expect_refusal(&mut raw, "HTTP/0.9 behind a request", BAD);
    assert_eq!(bench.seen("HTTP/0.9 behind a request").len(), 1);
    assert_eq!(
        bench.passes(format!("\r\n{}", get("/")), true).target(),
        "/"
    );
    let mut raw = bench.connect();
    drop(raw.try_send("\r\n".repeat(1000) + &get("/")));
    bench.refused_or_ended(&mut raw, "1000 empty lines");
    let mut raw = bench.connect();
    let begun = Instant::now();
    let mut stream = raw.stream().try_clone().expect("a socket");
    let drip = std::thread::spawn(move || {
        while begun.elapsed() < SOON && stream.write_all(b"\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(150));
        }
    });
    let said = raw.try_response();
    assert!(ended(&said) || said.is_ok_and(|answer| answer.status() == 408));
    assert!(
        begun.elapsed() < Duration::from_millis(2500),
        "each line puts the end off"
    );
    drop(raw);
    drip.join().expect("no panic");
    assert!(bench.seen("empty lines").is_empty());
    bench.end();
}

#[test]
fn b15_a_method_that_no_one_has_heard_of_passes_and_one_that_is_none_does_not() {
    let mut bench = Bench::new();
    let long = "G".repeat(100 << 10);
    for method in [
        "get",
        "G=\":<>(e),[T];?\"",
        "GET_EVIL",
        "Get",
        "PRI",
        "G\u{1}T",
        &long,
    ] {
        let mut raw = bench.connect();
        drop(raw.try_send(line(&format!("{method} / HTTP/1.1"))));
        let answer = raw.response();
        assert!(
            matches!(answer.status(), 400 | 405 | 431 | 501),
            "{}",
            answer.start
        );
        assert!(raw.closed_within(SOON));
        assert!(bench.seen("a bad method").is_empty());
    }
    assert_eq!(
        bench
            .passes("PURGE / HTTP/1.1\r\nHost: t.test\r\n\r\n", true)
            .method(),
        "PURGE"
    );
    bench.end();
}

#[test]
fn b16_b17_b18_targets_and_fields_have_limits_that_stand_still() {
    let mut bench = Bench::with("limits = { header_bytes = \"16KiB\", headers = 50 }");
    let long = format!("/{}", "a".repeat(7999));
    assert_eq!(bench.passes(get(&long), true).target(), long);
    let too_long = get(&format!("/{}", "a".repeat(100 << 10)));
    let mut raw = bench.connect();
    drop(raw.try_send(too_long));
    bench.expect_refusal(&mut raw, "a target of 100 KiB", &[414]);
    let field = |name: usize, value: usize| {
        let (name, value) = ("n".repeat(name), "v".repeat(value));
        format!("GET / HTTP/1.1\r\nHost: t.test\r\n{name}: {value}\r\n\r\n")
    };
    let many = |count: usize| {
        let fields: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: t.test\r\n{fields}\r\n")
    };
    let large = [
        field(5, 100 << 10),
        field(100 << 10, 5),
        many(10_000),
        many(50),
    ];
    for case in &large {
        let mut raw = bench.connect();
        drop(raw.try_send(case));
        let name = super::harness::bench::name(case.as_bytes());
        bench.expect_refusal(&mut raw, &name, &[431]);
        assert!(bench.seen(&name).is_empty());
    }
    assert_eq!(bench.passes(many(49), true).all("x-48").len(), 1);
    let base = field(1, 0).len();
    let accepted = |bench: &mut Bench, whole: usize| {
        let mut raw = bench.connect();
        raw.send(field(1, whole - base));
        let status = raw.response().status();
        assert!(matches!(status, 200 | 431), "{whole} bytes: {status}");
        status == 200
    };
    for whole in [16 << 10, (16 << 10) - 1] {
        assert!(accepted(&mut bench, whole), "{whole} bytes");
    }
    assert!(!accepted(&mut bench, (16 << 10) + 1), "a byte too many");
    drop(bench.seen("limits"));
    bench.end();
}

#[test]
fn b19_b20_names_and_values_with_bytes_that_have_no_place_there_are_refused() {
    let mut bench = Bench::new();
    for byte in "(),/;<=>?@[\\]{}\" "
        .bytes()
        .chain([0, 1, 0x7f, 0x80, 0xc3, b'\t'])
    {
        let case = [
            &b"GET / HTTP/1.1\r\nHost: t.test\r\nna"[..],
            &[byte],
            b"me: x\r\n\r\n",
            POISON.as_bytes(),
        ];
        bench.refused(case.concat(), BAD);
    }
    for field in [": x", "no colon", ":", "X", "é: y", " : x"] {
        let case = format!("GET / HTTP/1.1\r\nHost: t.test\r\n{field}\r\n\r\n{POISON}");
        bench.refused(case, BAD);
    }
    for byte in (0..0x20).chain([0x7f]).filter(|byte| *byte != b'\t') {
        let case = [
            &b"GET / HTTP/1.1\r\nHost: t.test\r\nX: a"[..],
            &[byte],
            b"b\r\n\r\n",
            POISON.as_bytes(),
        ];
        bench.refused(case.concat(), BAD);
    }
    bench.end();
}

#[test]
fn b21_a_rule_on_a_field_looks_at_each_of_its_values() {
    let origin = Origin::echo();
    let config = gateway::before(origin.address, "").replace(
        "[[routes]]",
        "[[routes]]\nid = \"deny\"\nmatch = { headers = { internal = \"true\" } }\n\
         respond = { status = 403 }\n[[routes]]",
    );
    let mut gateway = Gateway::start(&config);
    let ask = |fields: &str| {
        let head =
            format!("GET / HTTP/1.1\r\nHost: t.test\r\n{fields}\r\nConnection: close\r\n\r\n");
        client::ask(gateway.web(), &head).status()
    };
    for fields in [
        "internal: true",
        "Internal: true",
        "internal: true\r\ninternal: true",
        "internal: false\r\ninternal: true",
        "internal: true\r\nInternal: x",
        "internal:\ttrue ",
    ] {
        assert_eq!(ask(fields), 403, "{fields:?}");
    }
    assert_eq!(ask("internal: false"), 200);
    assert_eq!(origin.requests().len(), 1);
    gateway.assert_sound();
}

#[test]
fn b23_long_hostile_paths_and_fields_are_matched_in_no_time() {
    let origin = Origin::echo();
    let config = gateway::before(origin.address, "").replace(
        "[[routes]]",
        "[[routes]]\nid = \"a\"\nmatch = { path = \"/{a}/{b}/{c}/x\" }\nupstream = \"o\"\n\
         [[routes]]\nid = \"b\"\nmatch = { path = \"/a/*\", query = { v = \"2\" }, headers = { h = \"v\" } }\n\
         upstream = \"o\"\n[[routes]]",
    );
    let mut gateway = Gateway::start(&config);
    let mut raw = Raw::connect(gateway.web());
    for target in [
        "/a".repeat(6 << 10),
        "/%61".repeat(3 << 10),
        "/./a/..".repeat(1700),
        format!("/a/?{}", "v=1&".repeat(3 << 10)),
        format!("/{}", "a".repeat(15 << 10)),
        "/".repeat(15 << 10),
    ] {
        let begun = Instant::now();
        raw.send(format!(
            "GET {target} HTTP/1.1\r\nHost: t.test\r\nh: {}\r\n\r\n",
            "v".repeat(9000)
        ));
        assert_eq!(raw.response().status(), 200, "{}", &target[..20]);
        // of a build without optimisation, on a machine that does other things too
        assert!(
            begun.elapsed() < Duration::from_millis(500),
            "{}",
            &target[..20]
        );
    }
    gateway.assert_sound();
}
