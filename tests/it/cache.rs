//! The response cache, from the client's side and from the origin's. CASES, group I.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::harness::origin::ok;
use super::harness::parse::Message;
use super::harness::{Gateway, Origin, Raw, Reply, client, eventually, gateway};

/// An answer with these fields and this body.
fn answer(status: u16, fields: &str, body: &str) -> Reply {
    Reply::Bytes(bytes(status, fields, body))
}

fn bytes(status: u16, fields: &str, body: &str) -> Vec<u8> {
    let fields: String = fields
        .split('|')
        .filter(|f| !f.is_empty())
        .map(|f| format!("{f}\r\n"))
        .collect();
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A gateway whose one route has this cache.
fn before(origin: &Origin, cache: &str) -> Gateway {
    with(origin, cache, "")
}

fn with(origin: &Origin, cache: &str, more: &str) -> Gateway {
    let config = gateway::before(origin.address, "retry = false\neject = false");
    Gateway::start(&format!("{config}cache = {cache}\n{more}\n"))
}

/// A GET with further fields, `name: value` each.
fn get(to: SocketAddr, target: &str, fields: &[&str]) -> Message {
    send(to, "GET", target, fields)
}

fn send(to: SocketAddr, method: &str, target: &str, fields: &[&str]) -> Message {
    let mut raw = Raw::connect(to);
    let host = fields
        .iter()
        .any(|f| f.to_ascii_lowercase().starts_with("host:"));
    let host = if host { "" } else { "Host: t.test\r\n" };
    let fields: String = fields.iter().map(|f| format!("{f}\r\n")).collect();
    raw.send(format!("{method} {target} HTTP/1.1\r\n{host}{fields}\r\n"));
    match method {
        "HEAD" => raw.response_to_head(),
        _ => raw.response(),
    }
}

/// What the cache says it did.
fn did(answer: &Message) -> &str {
    answer.get("cache-status").unwrap_or("")
}

/// Numbers its answers, so that two of them differ.
fn numbered(fields: &'static str) -> Origin {
    Origin::start(move |_, n| answer(200, fields, &format!("answer {n}")))
}

#[test]
fn what_is_fresh_is_answered_without_the_origin() {
    let origin = numbered("Cache-Control: max-age=60|X-Kept: yes");
    let mut gateway = before(&origin, "{}");
    let first = get(gateway.web(), "/a", &[]);
    assert_eq!(did(&first), "weir; fwd=uri-miss; stored");
    let again = get(gateway.web(), "/a", &[]);
    assert_eq!(
        (again.text(), again.get("x-kept")),
        (first.text(), Some("yes"))
    );
    assert!(
        did(&again).starts_with("weir; hit; ttl="),
        "{}",
        did(&again)
    );
    let age: u64 = again.get("age").expect("an age").parse().expect("seconds");
    assert!(age < 60);
    assert_eq!(
        (again.get("date"), again.get("warning")),
        (first.get("date"), None)
    );
    let other = get(gateway.web(), "/b", &[]);
    assert_eq!(other.text(), "answer 1");
    assert_eq!(origin.requests().len(), 2);
    let count = |result| {
        gateway.metric(&format!(
            "weir_cache_requests_total{{route=\"all\",result=\"{result}\"}}"
        ))
    };
    assert_eq!((count("hit"), count("miss")), (1.0, 2.0));
    eventually("both are stored", || {
        gateway.metric("weir_cache_objects") == 2.0
    });
    assert!(gateway.metric("weir_cache_bytes") > 1000.0);
    assert_eq!(
        gateway.metric("weir_cache_capacity_bytes"),
        f64::from(512 << 20)
    );
    gateway.assert_sound();
}

#[test]
fn i01_hosts_and_ports_have_objects_of_their_own() {
    let origin = numbered("Cache-Control: max-age=60");
    let gateway = before(&origin, "{}");
    for (n, host) in ["a.test", "b.test", "a.test:81"].into_iter().enumerate() {
        for _ in 0..2 {
            let answer = get(gateway.web(), "/", &[&format!("Host: {host}")]);
            assert_eq!(answer.text(), format!("answer {n}"), "{host}");
        }
    }
    assert_eq!(
        get(gateway.web(), "/", &["Host: A.test."]).text(),
        "answer 0"
    );
}

#[test]
fn i03_what_is_unkeyed_is_not_seen_by_the_origin_or_not_stored() {
    let origin = Origin::start(|request, _| {
        let seen = request.get("x-forwarded-host").unwrap_or("-").to_owned();
        answer(200, "Cache-Control: max-age=60", &seen)
    });
    let gateway = before(&origin, "{}");
    let poison = get(gateway.web(), "/", &["X-Forwarded-Host: evil.test"]);
    assert!(!poison.text().contains("evil"), "{}", poison.text());
    assert!(!get(gateway.web(), "/", &[]).text().contains("evil"));
}

#[test]
fn i04_the_origin_sees_the_query_as_it_counts() {
    let origin =
        Origin::start(|request, _| answer(200, "Cache-Control: max-age=60", request.target()));
    let gateway = before(
        &origin,
        "{ query = { exclude = [\"utm_*\"], sort = true } }",
    );
    let first = get(gateway.web(), "/p?b=2&utm_source=evil&a=1", &[]);
    assert_eq!(first.text(), "/p?a=1&b=2");
    let again = get(gateway.web(), "/p?a=1&b=2&utm_id=7", &[]);
    assert_eq!(
        (again.text().as_str(), origin.requests().len()),
        ("/p?a=1&b=2", 1)
    );
    assert_eq!(get(gateway.web(), "/p?a=2&b=2", &[]).text(), "/p?a=2&b=2");
}

#[test]
fn i06_i07_i08_what_is_for_one_client_is_not_stored() {
    for (fields, request) in [
        ("Cache-Control: private, max-age=60", None),
        ("Cache-Control: no-store", None),
        ("", None),
        ("Cache-Control: max-age=60|Set-Cookie: a=b", None),
        ("Cache-Control: max-age=60", Some("Authorization: Basic x")),
        ("Cache-Control: max-age=60|Vary: *", None),
    ] {
        let origin = Origin::start(move |_, n| answer(200, fields, &n.to_string()));
        let gateway = before(&origin, "{}");
        let with: Vec<&str> = request.into_iter().collect();
        for n in 0..3 {
            let answer = get(gateway.web(), "/account/x.css", &with);
            assert_eq!(answer.text(), n.to_string(), "{fields}");
            assert_eq!(did(&answer), "weir; fwd=uri-miss", "{fields}");
        }
    }
}

#[test]
fn i07_a_cookie_is_stripped_for_others_where_the_config_says_so() {
    let origin = numbered("Cache-Control: max-age=60|Set-Cookie: a=b");
    let gateway = before(&origin, "{ set_cookie = \"strip\" }");
    let first = get(gateway.web(), "/", &[]);
    assert_eq!(
        first.get("set-cookie"),
        Some("a=b"),
        "it is the first one's"
    );
    let other = get(gateway.web(), "/", &[]);
    assert_eq!(
        (other.text(), other.get("set-cookie")),
        (first.text(), None)
    );
}

#[test]
fn i10_variants_stand_beside_each_other_and_are_capped() {
    let origin = Origin::start(|request, n| {
        let seen = request.get("x-v").unwrap_or("-").to_owned();
        answer(
            200,
            "Cache-Control: max-age=60|Vary: X-V, X-W",
            &format!("{seen} {n}"),
        )
    });
    let gateway = before(&origin, "{}");
    for n in 0..100 {
        let answer = get(gateway.web(), "/", &[&format!("X-V: {n}")]);
        assert_eq!(answer.text(), format!("{n} {n}"));
    }
    let last = get(gateway.web(), "/", &["X-V: 99"]);
    assert_eq!(last.text(), "99 99");
    let first = get(gateway.web(), "/", &["X-V: 0"]);
    assert_eq!(
        (first.text().as_str(), did(&first)),
        ("0 100", "weir; fwd=vary-miss; stored")
    );
}

#[test]
fn i11_a_coding_is_given_to_who_takes_it() {
    let origin = Origin::start(|request, n| {
        let coded = request
            .get("accept-encoding")
            .unwrap_or("")
            .contains("gzip");
        let fields = if coded { "|Content-Encoding: gzip" } else { "" };
        let fields = format!("Cache-Control: max-age=60|Vary: Accept-Encoding{fields}");
        answer(200, &fields, &n.to_string())
    });
    let gateway = before(&origin, "{}");
    let asks = |codings: &str| {
        get(
            gateway.web(),
            "/",
            &[&format!("Accept-Encoding: {codings}")],
        )
        .text()
    };
    assert_eq!(asks("gzip"), "0");
    assert_eq!(asks("GZIP;q=0.5, deflate"), "0");
    assert_eq!(asks("identity"), "1");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "1");
}

#[test]
fn i12_a_get_with_a_body_fills_nothing_and_is_given_nothing_stored() {
    let origin = Origin::start(|request, n| {
        answer(
            200,
            "Cache-Control: max-age=60",
            &format!("{} {n}", request.text()),
        )
    });
    let gateway = before(&origin, "{}");
    let fat = "GET / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 4\r\n\r\nevil";
    let first = client::ask(gateway.web(), fat);
    assert_eq!(
        (first.text().as_str(), did(&first)),
        ("evil 0", "weir; fwd=bypass")
    );
    assert_eq!(get(gateway.web(), "/", &[]).text(), " 1");
    assert_eq!(client::ask(gateway.web(), fat).text(), "evil 2");
}

#[test]
fn i13_head_is_answered_from_get_and_never_fills_it() {
    let origin = Origin::start(|request, n| {
        let body = format!("answer {n}");
        let full = bytes(200, "Cache-Control: max-age=60", &body);
        let head = full[..full.len() - body.len()].to_vec();
        Reply::Bytes(if request.method() == "HEAD" {
            head
        } else {
            full
        })
    });
    let gateway = before(&origin, "{}");
    let head = send(gateway.web(), "HEAD", "/", &[]);
    assert_eq!((head.body.len(), did(&head)), (0, "weir; fwd=uri-miss"));
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 1");
    let head = send(gateway.web(), "HEAD", "/", &[]);
    assert!(did(&head).starts_with("weir; hit"), "{}", did(&head));
    assert_eq!(
        (head.get("content-length"), head.body.len()),
        (Some("8"), 0)
    );
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 1");
}

#[test]
fn i14_an_unsafe_request_makes_the_stored_answer_untrue_if_it_succeeds() {
    let origin = Origin::start(|request, n| match request.method() {
        "POST" => answer(403, "", "no"),
        "PUT" => answer(303, "Location: /other", ""),
        _ => answer(200, "Cache-Control: max-age=60", &format!("answer {n}")),
    });
    let gateway = before(&origin, "{}");
    let text = |target| get(gateway.web(), target, &[]).text();
    assert_eq!(
        (text("/"), text("/other")),
        ("answer 0".into(), "answer 1".into())
    );
    let refused = send(gateway.web(), "POST", "/", &["Content-Length: 0"]);
    assert_eq!((refused.status(), did(&refused)), (403, "weir; fwd=method"));
    assert_eq!(
        (text("/"), text("/other")),
        ("answer 0".into(), "answer 1".into())
    );
    assert_eq!(
        send(gateway.web(), "PUT", "/", &["Content-Length: 0"]).status(),
        303
    );
    assert_eq!(
        (text("/"), text("/other")),
        ("answer 4".into(), "answer 5".into())
    );
    assert_eq!(
        gateway.metric("weir_cache_purges_total{kind=\"unsafe_method\"}"),
        2.0
    );
}

#[test]
fn i15_i16_i18_errors_are_not_stored_unless_they_say_how_long() {
    for status in [400, 403, 405, 413, 414, 431, 500, 503] {
        let origin = Origin::start(move |_, n| answer(status, "", &n.to_string()));
        let gateway = before(&origin, "{ ttl = \"1h\" }");
        for n in 0..2 {
            let answer = get(gateway.web(), "/", &["X-HTTP-Method-Override: DELETE"]);
            assert_eq!(answer.text(), n.to_string(), "{status}");
        }
    }
    let origin = Origin::start(|_, n| answer(404, "", &n.to_string()));
    let gateway = before(&origin, "{ negative_ttl = \"1m\" }");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "0");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "0");
}

#[test]
fn i19_an_answer_cut_at_any_byte_is_never_stored_and_never_whole() {
    let body = "0123456789";
    let plain = bytes(200, "Cache-Control: max-age=60", body);
    let chunked = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n".to_vec();
    for whole in [plain, chunked] {
        let head = whole
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a head")
            + 4;
        let cut = Arc::new(AtomicUsize::new(0));
        let (at, sent) = (cut.clone(), whole.clone());
        let origin = Origin::start(move |_, _| {
            let at = at.load(SeqCst);
            if at == usize::MAX {
                return Reply::Close(sent.clone());
            }
            Reply::Close(sent[..at].to_vec())
        });
        let gateway = before(&origin, "{}");
        for at in 0..whole.len() {
            cut.store(at, SeqCst);
            let mut raw = Raw::connect(gateway.web());
            raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
            match raw.try_response() {
                Ok(answer) => assert!(
                    at < head && answer.status() == 502,
                    "{at}: {}",
                    answer.start
                ),
                Err(_) => assert!(at >= head, "{at}"),
            }
        }
        assert_eq!(
            gateway.metric("weir_cache_insertions_total{outcome=\"stored\"}"),
            0.0
        );
        cut.store(usize::MAX, SeqCst);
        assert_eq!(get(gateway.web(), "/", &[]).text(), body);
        assert!(did(&get(gateway.web(), "/", &[])).starts_with("weir; hit"));
    }
}

/// Sends the head and the first half, waits, and then sends the rest.
fn in_halves(fields: &'static str, pause: Duration) -> Reply {
    Reply::Act(Box::new(move |stream| {
        let all = bytes(200, fields, "first half, second half");
        let half = all.len() - 11;
        drop(stream.write_all(&all[..half]));
        std::thread::sleep(pause);
        stream.write_all(&all[half..]).is_ok()
    }))
}

#[test]
fn i20_a_leader_that_leaves_does_not_end_the_fetch_for_others() {
    let origin =
        Origin::start(|_, _| in_halves("Cache-Control: max-age=60", Duration::from_millis(500)));
    let gateway = before(&origin, "{}");
    let mut leader = Raw::connect(gateway.web());
    leader.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    eventually("it is asked for", || origin.requests().len() == 1);
    let web = gateway.web();
    let waiter = std::thread::spawn(move || get(web, "/", &[]));
    std::thread::sleep(Duration::from_millis(100));
    drop(leader);
    let answer = waiter.join().expect("no panic");
    assert_eq!(answer.text(), "first half, second half");
    assert_eq!(did(&answer), "weir; fwd=uri-miss; collapsed");
    assert!(did(&get(gateway.web(), "/", &[])).starts_with("weir; hit"));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn i21_a_slow_reader_does_not_hold_up_the_others() {
    let body = "x".repeat(4 << 20);
    let origin = Origin::start(move |_, _| {
        Reply::After(
            Duration::from_millis(200),
            Box::new(answer(200, "Cache-Control: max-age=60", &body)),
        )
    });
    let gateway = before(&origin, "{}");
    let mut slow = Raw::connect(gateway.web());
    slow.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    eventually("it is asked for", || origin.requests().len() == 1);
    let begun = Instant::now();
    assert_eq!(get(gateway.web(), "/", &[]).body.len(), 4 << 20);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(slow.response().body.len(), 4 << 20);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn i22_i34_a_part_is_never_stored_as_the_whole() {
    let origin = Origin::start(|request, _| match request.get("range") {
        Some(_) => answer(
            206,
            "Cache-Control: max-age=60|Content-Range: bytes 0-0/10",
            "0",
        ),
        None => answer(200, "Cache-Control: max-age=60", "0123456789"),
    });
    let gateway = before(&origin, "{}");
    for _ in 0..2 {
        let part = get(gateway.web(), "/", &["Range: bytes=0-0"]);
        assert_eq!((part.status(), part.text().as_str()), (206, "0"));
        assert_eq!(did(&part), "weir; fwd=uri-miss");
    }
    let whole = get(gateway.web(), "/", &[]);
    assert_eq!((whole.status(), whole.text().as_str()), (200, "0123456789"));
    let part = get(gateway.web(), "/", &["Range: bytes=0-0"]);
    assert!(did(&part).starts_with("weir; hit"));
}

#[test]
fn i23_ranges_of_what_is_stored() {
    let origin = numbered("Cache-Control: max-age=60|ETag: \"e\"|Content-Type: text/x");
    let gateway = before(&origin, "{}");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 0");
    let ask = |range: &str| get(gateway.web(), "/", &[&format!("Range: {range}")]);
    for (range, status, text, said) in [
        ("bytes=0-1", 206, "an", Some("bytes 0-1/8")),
        ("bytes=-1", 206, "0", Some("bytes 7-7/8")),
        ("bytes=6-", 206, " 0", Some("bytes 6-7/8")),
        ("bytes=8-", 416, "", Some("bytes */8")),
        ("bytes=", 200, "answer 0", None),
        ("lines=0-1", 200, "answer 0", None),
        (
            "bytes=-9223372036854775808",
            206,
            "answer 0",
            Some("bytes 0-7/8"),
        ),
        ("bytes=99999999999999999999999-", 416, "", Some("bytes */8")),
    ] {
        let answer = ask(range);
        let got = (answer.status(), answer.text(), answer.get("content-range"));
        assert_eq!(got, (status, text.to_owned(), said), "{range}");
    }
    let other = get(gateway.web(), "/", &["Range: bytes=0-0", "If-Range: \"f\""]);
    assert_eq!(other.status(), 200);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn i23_several_ranges_of_what_is_stored() {
    let body = "0123456789".repeat(1000);
    let origin = Origin::start(move |_, _| {
        answer(200, "Cache-Control: max-age=60|Content-Type: text/x", &body)
    });
    let gateway = before(&origin, "{}");
    assert_eq!(get(gateway.web(), "/", &[]).body.len(), 10_000);
    let several = get(gateway.web(), "/", &["Range: bytes=1-2, 9998-9998"]);
    assert_eq!(
        (several.status(), several.get("content-range")),
        (206, None)
    );
    let kind = several.get("content-type").expect("a type");
    assert!(
        kind.starts_with("multipart/byteranges; boundary="),
        "{kind}"
    );
    let said = several.text();
    for part in [
        "bytes 1-2/10000\r\n\r\n12\r\n",
        "bytes 9998-9998/10000\r\n\r\n8\r\n",
        "text/x",
    ] {
        assert!(said.to_ascii_lowercase().contains(part), "{said}");
    }
    assert!(did(&several).starts_with("weir; hit"));
}

#[test]
fn a_client_that_has_it_is_told_so() {
    let origin = numbered(
        "Cache-Control: max-age=60|ETag: \"e\"|Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
    );
    let gateway = before(&origin, "{}");
    let miss = get(gateway.web(), "/", &["If-None-Match: \"e\""]);
    assert_eq!(
        (miss.status(), origin.requests()[0].get("if-none-match")),
        (304, None)
    );
    for condition in [
        "If-None-Match: W/\"e\"",
        "If-None-Match: *",
        "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT",
    ] {
        let told = get(gateway.web(), "/", &[condition]);
        assert_eq!((told.status(), told.body.len()), (304, 0), "{condition}");
        assert_eq!(told.get("etag"), Some("\"e\""));
    }
    let precedence = [
        "If-None-Match: \"f\"",
        "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT",
    ];
    assert_eq!(get(gateway.web(), "/", &precedence).status(), 200);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn i24_a_stale_answer_is_validated_and_the_304_changes_its_fields() {
    let origin = Origin::start(|request, n| {
        match request.get("if-none-match") {
        Some("\"e\"") => Reply::Bytes(
            b"HTTP/1.1 304 X\r\nETag: \"e\"\r\nCache-Control: max-age=60\r\nX-New: 1\r\nContent-Length: 999\r\nContent-Encoding: br\r\n\r\n".to_vec(),
        ),
        _ => answer(200, "Cache-Control: max-age=0|ETag: \"e\"|X-Old: 1", &format!("answer {n}")),
    }
    });
    let gateway = before(&origin, "{}");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 0");
    let validated = get(gateway.web(), "/", &[]);
    assert_eq!(
        (validated.status(), validated.text().as_str()),
        (200, "answer 0")
    );
    assert_eq!(did(&validated), "weir; fwd=stale; fwd-status=304");
    let hit = get(gateway.web(), "/", &[]);
    assert!(did(&hit).starts_with("weir; hit"), "{}", did(&hit));
    assert_eq!((hit.get("x-new"), hit.get("x-old")), (Some("1"), Some("1")));
    assert_eq!(
        (hit.get("content-length"), hit.get("content-encoding")),
        (Some("8"), None)
    );
    assert_eq!(origin.requests().len(), 2);
}

/// So many requests for the same at once: their answers.
fn at_once(gateway: &Gateway, count: usize, fields: &'static [&'static str]) -> Vec<Message> {
    let (web, barrier) = (gateway.web(), Arc::new(Barrier::new(count)));
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let barrier = barrier.clone();
            std::thread::spawn(move || {
                barrier.wait();
                get(web, "/", fields)
            })
        })
        .collect();
    clients
        .into_iter()
        .map(|client| client.join().expect("an answer"))
        .collect()
}

#[test]
fn i25_many_who_miss_are_one_request() {
    let origin = Origin::start(|_, n| {
        Reply::After(
            Duration::from_millis(500),
            Box::new(answer(200, "Cache-Control: max-age=60", &n.to_string())),
        )
    });
    let mut gateway = before(&origin, "{}");
    let answers = at_once(&gateway, 200, &[]);
    assert!(answers.iter().all(|answer| answer.text() == "0"));
    assert_eq!(origin.requests().len(), 1);
    let count = |word| answers.iter().filter(|a| did(a).ends_with(word)).count();
    assert_eq!(count("; stored"), 1);
    assert!(count("; collapsed") > 100);
    gateway.assert_sound();
}

#[test]
fn i25_an_answer_for_one_lets_the_others_go_at_once() {
    let origin = Origin::start(|_, n| {
        Reply::After(
            Duration::from_millis(300),
            Box::new(answer(200, "Cache-Control: no-store", &n.to_string())),
        )
    });
    let gateway = before(&origin, "{}");
    let begun = Instant::now();
    let answers = at_once(&gateway, 30, &[]);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "they went one after the other"
    );
    let mut texts: Vec<String> = answers.iter().map(Message::text).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 30, "an answer was given twice");
}

#[test]
fn i25_a_failing_origin_is_asked_once_for_all_who_wait() {
    for reply in [|| answer(503, "", "down"), || Reply::Close(Vec::new())] {
        let origin =
            Origin::start(move |_, _| Reply::After(Duration::from_millis(500), Box::new(reply())));
        let gateway = before(&origin, "{}");
        let answers = at_once(&gateway, 50, &[]);
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer.status(), 502 | 503))
        );
        assert!(origin.requests().len() <= 2, "{}", origin.requests().len());
    }
}

#[test]
fn i25_who_has_waited_long_enough_goes_alone() {
    let origin = Origin::start(|_, n| match n {
        0 => Reply::After(Duration::from_secs(3), Box::new(ok("late"))),
        _ => answer(200, "Cache-Control: max-age=60", "soon"),
    });
    let gateway = before(&origin, "{ lock_timeout = \"200ms\" }");
    let mut leader = Raw::connect(gateway.web());
    leader.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    eventually("it is asked for", || origin.requests().len() == 1);
    let alone = get(gateway.web(), "/", &[]);
    assert_eq!(
        (alone.text().as_str(), did(&alone)),
        ("soon", "weir; fwd=uri-miss; collapsed=?0")
    );
    assert_eq!(leader.response().text(), "late");
}

#[test]
fn i26_a_stale_answer_is_given_while_one_new_one_is_fetched() {
    let origin = Origin::start(|_, n| {
        let pause = Duration::from_millis(if n == 0 { 0 } else { 500 });
        let reply = answer(
            200,
            "Cache-Control: max-age=1, stale-while-revalidate=60",
            &n.to_string(),
        );
        Reply::After(pause, Box::new(reply))
    });
    let gateway = before(&origin, "{}");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "0");
    std::thread::sleep(Duration::from_millis(1_300));
    let answers = at_once(&gateway, 50, &[]);
    for answer in &answers {
        assert_eq!(answer.text(), "0");
        let said = did(answer);
        assert!(
            said.starts_with("weir; hit; ttl=-") || said.starts_with("weir; hit; ttl=0"),
            "{said}"
        );
        assert!(said.ends_with("; detail=stale-while-revalidate"), "{said}");
    }
    eventually("the new one is stored", || {
        gateway.metric("weir_cache_refreshes_total{result=\"new\"}") == 1.0
    });
    eventually("it is served", || {
        get(gateway.web(), "/", &[]).text() != "0"
    });
    assert!(origin.requests().len() <= 3, "{}", origin.requests().len());
}

#[test]
fn i27_a_failing_origin_is_probed_once_in_a_while_and_its_stale_answers_are_given() {
    let origin = Origin::start(|_, n| match n {
        0 => answer(
            200,
            "Cache-Control: max-age=0, stale-if-error=60|ETag: \"e\"",
            "good",
        ),
        _ => answer(503, "", "bad"),
    });
    let gateway = before(&origin, "{ error_cool_down = \"30s\" }");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "good");
    eventually("it is stored", || {
        gateway.metric("weir_cache_objects") == 1.0
    });
    let first = get(gateway.web(), "/", &[]);
    assert_eq!((first.status(), first.text().as_str()), (200, "good"));
    assert_eq!(
        did(&first),
        "weir; fwd=stale; fwd-status=503; detail=stale-if-error"
    );
    assert!(first.get("age").is_some());
    for _ in 0..50 {
        let answer = get(gateway.web(), "/", &[]);
        assert_eq!(answer.text(), "good");
        assert!(
            did(&answer).starts_with("weir; hit; ttl="),
            "{}",
            did(&answer)
        );
        assert!(did(&answer).ends_with("detail=stale-if-error"));
    }
    assert_eq!(origin.requests().len(), 2, "one probe in a cool-down");
}

#[test]
fn i28_what_grows_too_large_is_passed_on_and_not_stored() {
    let body = "x".repeat(3 << 20);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let plain = bytes(200, "Cache-Control: max-age=60", &body);
    for whole in [chunked.into_bytes(), plain] {
        let origin = Origin::start(move |_, _| Reply::Bytes(whole.clone()));
        let gateway = before(&origin, "{ max_object = \"1MiB\" }");
        for n in 1..=2 {
            assert_eq!(get(gateway.web(), "/", &[]).body.len(), 3 << 20);
            assert_eq!(origin.requests().len(), n);
        }
        assert_eq!(gateway.metric("weir_cache_objects"), 0.0);
        assert_eq!(
            gateway.metric("weir_cache_insertions_total{outcome=\"too_large\"}"),
            2.0
        );
    }
}

fn purge(gateway: &Gateway, query: &str) -> u16 {
    let head = "Host: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    client::ask(
        gateway.admin(),
        &format!("POST /cache/purge?{query} HTTP/1.1\r\n{head}"),
    )
    .status()
}

#[test]
fn i30_what_is_purged_is_not_served_any_more() {
    let origin = Origin::start(|request, n| {
        let tag = if request.target().starts_with("/a") {
            "red blue"
        } else {
            "green"
        };
        let fields = format!(
            "Cache-Control: max-age=60|Surrogate-Key: {tag}|Cache-Tag: all, some|Vary: X-V"
        );
        answer(200, &fields, &n.to_string())
    });
    let gateway = before(&origin, "{}");
    let numbers = || {
        ["/a/1", "/a/2", "/b/1"].map(|t| {
            get(gateway.web(), t, &[])
                .text()
                .parse::<u32>()
                .expect("a number")
        })
    };
    let mut last = numbers();
    assert_eq!(get(gateway.web(), "/a/1", &[]).get("surrogate-key"), None);
    for (query, gone) in [
        ("url=http://t.test/a/1", [true, false, false]),
        ("prefix=t.test/a/", [true, true, false]),
        ("tag=green", [false, false, true]),
        ("tag=red", [true, true, false]),
        ("tag=some", [true, true, true]),
        ("url=t.test/c", [false, false, false]),
        ("all", [true, true, true]),
    ] {
        assert_eq!(purge(&gateway, query), 200, "{query}");
        let now = numbers();
        let fetched: Vec<bool> = last
            .iter()
            .zip(now)
            .map(|(last, now)| *last != now)
            .collect();
        assert_eq!(fetched, gone, "{query}");
        last = now;
    }
    assert_eq!(gateway.metric("weir_cache_purges_total{kind=\"tag\"}"), 3.0);
}

#[test]
fn i30_a_purge_during_a_fill_leaves_nothing_stored() {
    let origin =
        Origin::start(|_, _| in_halves("Cache-Control: max-age=60", Duration::from_millis(400)));
    let gateway = before(&origin, "{}");
    let mut reader = Raw::connect(gateway.web());
    reader.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    eventually("it is asked for", || origin.requests().len() == 1);
    assert_eq!(purge(&gateway, "all"), 200);
    assert_eq!(reader.response().text(), "first half, second half");
    assert_eq!(
        did(&get(gateway.web(), "/", &[])),
        "weir; fwd=uri-miss; stored"
    );
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn groups_are_invalidated_by_unsafe_answers_of_their_origin() {
    let origin = Origin::start(|request, n| match request.method() {
        "POST" => answer(200, "Cache-Group-Invalidation: \"g\"", ""),
        _ => answer(
            200,
            "Cache-Control: max-age=60|Cache-Groups: \"g\", \"h\"",
            &n.to_string(),
        ),
    });
    let gateway = before(&origin, "{}");
    assert_eq!(get(gateway.web(), "/1", &[]).text(), "0");
    assert_eq!(get(gateway.web(), "/1", &["Host: other.test"]).text(), "1");
    send(gateway.web(), "POST", "/elsewhere", &["Content-Length: 0"]);
    assert_eq!(get(gateway.web(), "/1", &[]).text(), "3");
    assert_eq!(get(gateway.web(), "/1", &["Host: other.test"]).text(), "1");
}

#[test]
fn i32_what_a_client_asks_of_the_cache() {
    let origin = numbered("Cache-Control: max-age=60");
    let gateway = before(&origin, "{}");
    let only = get(gateway.web(), "/", &["Cache-Control: only-if-cached"]);
    assert_eq!((only.status(), origin.requests().len()), (504, 0));
    assert_eq!(
        get(gateway.web(), "/", &["Cache-Control: no-store"]).text(),
        "answer 0"
    );
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 1");
    let only = get(gateway.web(), "/", &["Cache-Control: only-if-cached"]);
    assert_eq!(only.text(), "answer 1");
    let anew = get(gateway.web(), "/", &["Cache-Control: no-cache"]);
    assert_eq!(
        (anew.text().as_str(), did(&anew)),
        ("answer 2", "weir; fwd=request; stored")
    );
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 2");
}

#[test]
fn i33_a_targeted_field_overrules_and_ours_is_not_passed_on() {
    let origin = numbered(
        "Cache-Control: no-store|Weir-Cache-Control: max-age=60|CDN-Cache-Control: max-age=0",
    );
    let gateway = before(&origin, "{}");
    for _ in 0..2 {
        let answer = get(gateway.web(), "/", &[]);
        assert_eq!(
            (answer.text().as_str(), answer.get("weir-cache-control")),
            ("answer 0", None)
        );
        assert_eq!(answer.get("cdn-cache-control"), Some("max-age=0"));
    }
}

#[test]
fn i35_a_reload_keeps_what_is_stored_and_another_memory_empties_it() {
    let origin = numbered("Cache-Control: max-age=60");
    let gateway = before(&origin, "{}");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 0");
    let config = gateway::before(origin.address, "retry = false\neject = false");
    gateway.write_config(&format!(
        "{config}cache = {{ ttl = \"1m\" }}\ntimeout = \"9s\"\n"
    ));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 0");
    gateway.write_config(&format!(
        "[cache]\nmemory = \"64MiB\"\n{config}cache = {{}}\n"
    ));
    let (status, report) = gateway.reload();
    assert_eq!(status, 200, "{report}");
    assert!(
        report["changes"].to_string().contains("cache.memory"),
        "{report}"
    );
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 1");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "answer 1");
}

#[test]
fn the_ladder_finds_a_stale_copy() {
    let origin = Origin::start(|_, n| match n {
        0 => answer(200, "Cache-Control: max-age=0|ETag: \"e\"", "good"),
        _ => answer(500, "", "bad"),
    });
    let gateway = with(&origin, "{}", "fallback = [{ stale = \"10m\" }]");
    assert_eq!(get(gateway.web(), "/", &[]).text(), "good");
    let answer = get(gateway.web(), "/", &[]);
    assert_eq!((answer.status(), answer.text().as_str()), (200, "good"));
    assert_eq!(
        answer.get("weir-degraded"),
        Some("reason=error; step=stale")
    );
    assert!(
        did(&answer).ends_with("detail=stale-if-error"),
        "{}",
        did(&answer)
    );
}

#[test]
fn a_redirect_and_a_204_are_stored_as_they_are() {
    let origin = Origin::start(|request, n| match request.target() {
        "/none" => Reply::Bytes(
            format!("HTTP/1.1 204 X\r\nCache-Control: max-age=60\r\nX-N: {n}\r\n\r\n").into_bytes(),
        ),
        _ => answer(
            301,
            &format!("Cache-Control: max-age=60|Location: /x|X-N: {n}"),
            "",
        ),
    });
    let gateway = before(&origin, "true");
    for target in ["/none", "/moved"] {
        let first = get(gateway.web(), target, &[]);
        let again = get(gateway.web(), target, &[]);
        assert_eq!(
            (first.status(), first.get("x-n")),
            (again.status(), again.get("x-n"))
        );
        assert!(
            did(&again).starts_with("weir; hit"),
            "{target}: {}",
            did(&again)
        );
        assert!(again.body.is_empty());
    }
}

#[test]
fn many_readers_of_a_body_in_pieces_all_get_all_of_it() {
    let body = "0123456789abcdef".repeat(40_000);
    let sent = body.clone();
    let origin = Origin::start(move |_, _| {
        let sent = sent.clone();
        Reply::Act(Box::new(move |stream| {
            let head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
            drop(stream.write_all(head));
            for piece in sent.as_bytes().chunks(50_000) {
                drop(write!(stream, "{:x}\r\n", piece.len()));
                drop(stream.write_all(piece));
                drop(stream.write_all(b"\r\n"));
                std::thread::sleep(Duration::from_millis(10));
            }
            stream.write_all(b"0\r\n\r\n").is_ok()
        }))
    });
    let gateway = before(&origin, "{}");
    for answer in at_once(&gateway, 20, &[]) {
        assert_eq!(answer.text(), body);
    }
    assert_eq!(get(gateway.web(), "/", &[]).text(), body);
    assert_eq!(origin.requests().len(), 1);
    let part = get(gateway.web(), "/", &["Range: bytes=262140-262150"]);
    assert_eq!(part.text(), body[262_140..=262_150]);
}

#[test]
fn j_i_an_answer_is_encoded_once_for_each_coding_and_kept_so() {
    let body = "the same line again and again\n".repeat(200);
    let (length, fields) = (
        body.len(),
        "Cache-Control: max-age=60|Content-Type: text/plain|ETag: \"v1\"",
    );
    let origin = Origin::start(move |_, _| answer(200, fields, &body));
    let gateway = with(&origin, "{}", "compress = true");
    let ask = |coding: &str| get(gateway.web(), "/", &[&format!("Accept-Encoding: {coding}")]);
    for (coding, said, stored) in [
        ("identity", None, false),
        ("gzip", Some("gzip"), false),
        ("gzip, x-other", Some("gzip"), true),
        ("br, gzip;q=0.5", Some("br"), false),
        ("gzip;q=0.4, br", Some("br"), true),
        ("identity", None, true),
    ] {
        let answer = ask(coding);
        assert_eq!(answer.get("content-encoding"), said, "{coding}");
        assert_eq!(
            did(&answer).contains("hit"),
            stored,
            "{coding}: {}",
            did(&answer)
        );
        let weak = said.map_or("\"v1\"", |_| "W/\"v1\"");
        assert_eq!(answer.get("etag"), Some(weak), "{coding}");
        assert_eq!(answer.get("vary"), Some("accept-encoding"), "{coding}");
        assert_eq!(answer.body.len() < length, said.is_some(), "{coding}");
    }
    assert_eq!(origin.requests().len(), 3);
    for coding in ["gzip", "br"] {
        let series = format!("weir_compression_responses_total{{coding=\"{coding}\"}}");
        assert_eq!(gateway.metric(&series), 1.0, "{coding}");
    }
    let unchanged = get(
        gateway.web(),
        "/",
        &["Accept-Encoding: gzip", "If-None-Match: W/\"v1\""],
    );
    assert_eq!(unchanged.status(), 304);
}
