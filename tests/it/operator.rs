//! Q: what the operator sees and is asked, and what clients never see.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use super::harness::gateway::before;
use super::harness::{Gateway, Origin, Raw, client, eventually};

const NO_LOG: &str = "[log]\naccess = { to = \"off\" }\n";

#[test]
fn q01_whatever_a_client_sends_is_one_line_of_json() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let agents: [&[u8]; 6] = [
        b"a\"b\\c",
        b"\xe2\x80\xae reversed",
        b"\xff\xfe\x80",
        b"{\"level\":\"fatal\"}",
        b"tab\there",
        b"\xc2\x85next line\xe2\x80\xa8",
    ];
    let mut raw = Raw::connect(gateway.web());
    for agent in agents {
        let head: &[u8] = b"GET /%22%0a%1b[31m?q=%0d%0a HTTP/1.1\r\nHost: t.test\r\nUser-Agent: ";
        raw.send([head, agent, b"\r\nReferer: ", agent, b"\r\n\r\n"].concat());
        let status = raw.response().status();
        assert!(matches!(status, 200 | 400), "{status}");
        if status == 400 {
            raw = Raw::connect(gateway.web());
        }
    }
    eventually("it is logged", || {
        gateway.stdout().lines().count() >= agents.len()
    });
    let text = std::fs::read(gateway.dir().join("stdout")).expect("a file");
    let text = String::from_utf8(text).expect("UTF-8");
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(record.is_object());
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(
            !line.contains(['\u{202e}', '\u{2028}', '\u{85}']),
            "{line:?}"
        );
    }
    assert_eq!(text.lines().count(), agents.len());
    gateway.assert_sound();
}

#[test]
fn q02_the_admin_address_keeps_to_its_methods_its_names_and_its_limits() {
    let mut gateway = Gateway::start(&before("127.0.0.1:9".parse().expect("an address"), ""));
    let ask = |request: &str| client::ask(gateway.admin(), request).status();
    let generation = gateway.metric("weir_config_reloads_total{outcome=\"unchanged\"}");
    let reload = "/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n";
    assert_eq!(ask(&format!("GET {reload}\r\n")), 405);
    assert_eq!(
        ask(&format!("POST {reload}Origin: http://evil.example\r\n\r\n")),
        403
    );
    assert_eq!(
        ask(&format!("POST {reload}Sec-Fetch-Site: cross-site\r\n\r\n")),
        403
    );
    assert_eq!(
        ask("POST /reload HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n"),
        421
    );
    assert_eq!(
        ask("GET /config HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        421
    );
    assert_eq!(ask("GET /none HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), 404);
    assert_eq!(
        gateway.metric("weir_config_reloads_total{outcome=\"unchanged\"}"),
        generation
    );
    // silent ones do not keep others out
    let silent: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway.admin()).expect("it listens");
            stream.write_all(b"GET /healthz HT").expect("it is open");
            stream
        })
        .collect();
    assert_eq!(gateway.ask_admin("/healthz").status(), 200);
    drop(silent);
    let mut flood = Raw::connect(gateway.admin());
    drop(flood.try_send(format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(1 << 20))));
    let rest = flood.rest(Duration::from_secs(3));
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"));
    gateway.assert_sound();
}

#[test]
fn q03_secrets_are_nowhere_to_be_seen() {
    let secret = "hunter2hunter2";
    let origin = Origin::echo();
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("token"), secret).expect("a file");
    let config = format!(
        "[server]\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{}\
         headers = {{ request = {{ set = {{ authorization = {{ file = \"token\" }} }} }} }}\n",
        before(origin.address, "")
    );
    std::fs::write(dir.path().join("weir.toml"), config).expect("a config");
    let mut gateway = Gateway::run_in(dir);
    assert_eq!(client::get(gateway.web(), "/").status(), 200);
    assert_eq!(origin.requests()[0].get("authorization"), Some(secret));
    std::fs::write(gateway.dir().join("token"), format!("{secret}3")).expect("a file");
    let (_, report) = gateway.reload();
    assert_eq!(
        report["outcome"], "applied",
        "a secret that changed is a change"
    );
    eventually("it is logged", || !gateway.stdout().is_empty());
    let mut said = vec![report.to_string(), gateway.stderr(), gateway.stdout()];
    said.extend(["/config", "/status", "/metrics"].map(|at| gateway.ask_admin(at).text()));
    for text in said {
        assert!(!text.contains("hunter2"), "{text}");
    }
    gateway.assert_sound();
}

#[test]
fn q03_what_the_environment_fills_in_is_shown_as_it_is_written() {
    let origin = Origin::echo();
    let dir = tempfile::tempdir().expect("a folder");
    let config = |more: &str| {
        format!(
            "[server]\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{}\
             headers = {{ request = {{ set = {{ authorization = \"Bearer ${{TOKEN}}\" }} }} }}\n\
             [[routes]]\nid = \"key\"\nmatch = {{ path = \"/key\", headers = {{ x-key = \"${{TOKEN}}\" }} }}\n\
             redirect = {{ to = \"https://e.test/${{TOKEN}}\" }}\n{more}",
            before(origin.address, "")
        )
    };
    let path = dir.path().join("weir.toml");
    std::fs::write(&path, config("")).expect("a config");
    let env = [
        ("TOKEN", "hunter2hunter2"),
        ("NAME", "nobody.invalid"),
        ("WEIR_LOG", "debug"),
    ];
    let mut gateway = Gateway::run_with(dir, &env);
    assert_eq!(client::get(gateway.web(), "/").status(), 200);
    let authorization = origin.requests()[0].get("authorization").map(str::to_owned);
    assert_eq!(authorization.as_deref(), Some("Bearer hunter2hunter2"));
    let check = || {
        let weir = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("check")
            .arg(&path)
            .envs(env)
            .output();
        let weir = weir.expect("the binary runs");
        String::from_utf8_lossy(&[weir.stdout, weir.stderr].concat()).into_owned()
    };
    let mut said = vec![check()];
    for (more, status) in [
        ("timeout = \"${TOKEN}\"\n", 422),
        ("[log]\naccess = { to = \"${TOKEN}/\" }\n", 422),
        (
            "[upstreams.more]\nendpoints = [\"${NAME}:1\"]\nhealth = { path = \"/${TOKEN}\" }\n",
            200,
        ),
        ("", 200),
    ] {
        std::fs::write(&path, config(more)).expect("a config");
        said.push(check());
        let (was, report) = gateway.reload();
        assert_eq!(was, status, "{report}");
        said.push(report.to_string());
        said.extend(["/config", "/status", "/metrics"].map(|at| gateway.ask_admin(at).text()));
    }
    let page = "GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    said.push(client::ask(gateway.admin(), page).text());
    eventually("it is logged", || !gateway.stdout().is_empty());
    said.extend([gateway.stderr(), gateway.stdout()]);
    for text in &said {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let config = gateway.ask_admin("/config").text();
    assert!(config.contains("\"Bearer ${TOKEN}\""), "{config}");
    gateway.assert_sound();
}

#[test]
fn q04_many_series_are_scraped_quickly() {
    let routes: String = (0..100)
        .map(|n| {
            format!("[[routes]]\nid = \"r{n}\"\nmatch = {{ path = \"/{n}\" }}\nrespond = {{}}\n")
        })
        .collect();
    let mut gateway = Gateway::start(&format!(
        "{NO_LOG}[listeners.web]\naddress = \"127.0.0.1:0\"\n{routes}"
    ));
    let mut raw = Raw::connect(gateway.web());
    for n in 0..100 {
        raw.send(format!("GET /{n} HTTP/1.1\r\nHost: t.test\r\n\r\n"));
        assert_eq!(raw.response().status(), 200);
    }
    assert!(
        gateway.metrics().len() > 4000,
        "{}",
        gateway.metrics().len()
    );
    let begun = std::time::Instant::now();
    for _ in 0..5 {
        gateway.metrics();
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    gateway.assert_sound();
}

#[test]
fn q05_every_refusal_is_counted_under_its_rule() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let head = "GET / HTTP/1.1\r\nHost: t.test\r\n";
    let table = [
        ("host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (
            "target",
            "GET ftp://t.test/ HTTP/1.1\r\nHost: t.test\r\n\r\n".to_owned(),
        ),
        (
            "parse",
            "GET http:/// HTTP/1.1\r\nHost: t.test\r\n\r\n".to_owned(),
        ),
        (
            "path",
            "GET /a%2fb HTTP/1.1\r\nHost: t.test\r\n\r\n".to_owned(),
        ),
        (
            "framing",
            format!("{head}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        (
            "transfer_coding",
            format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n"),
        ),
        (
            "method",
            "get / HTTP/1.1\r\nHost: t.test\r\n\r\n".to_owned(),
        ),
        ("expect", format!("{head}Expect: tea\r\n\r\n")),
        (
            "field_size",
            format!("{head}X: {}\r\n\r\n", "a".repeat(60_000)),
        ),
    ];
    let count = |gateway: &Gateway, kind: &str| {
        let series = format!("weir_protocol_violations_total{{listener=\"web\",kind=\"{kind}\"}}");
        gateway.metric(&series)
    };
    for (kind, request) in table {
        let before = count(&gateway, kind);
        let all = gateway.metric_sum("weir_protocol_violations_total");
        let mut raw = Raw::connect(gateway.web());
        drop(raw.try_send(&request));
        let rest = raw.rest(Duration::from_secs(2));
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 4") || rest.starts_with(b"HTTP/1.1 5")
        );
        eventually("it is counted", || {
            gateway.metric_sum("weir_protocol_violations_total") == all + 1.0
        });
        let told = gateway.metrics();
        let told = told.iter().filter(|s| s.0.contains("violations"));
        assert_eq!(
            count(&gateway, kind),
            before + 1.0,
            "{kind}: {:?}",
            told.collect::<Vec<_>>()
        );
    }
    assert!(origin.requests().is_empty());
    gateway.assert_sound();
}

#[test]
fn q06_a_trace_context_passes_if_it_is_one() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut raw = Raw::connect(gateway.web());
    for (sent, passed) in [
        (good.to_owned(), true),
        (good.to_uppercase(), false),
        (format!("{good}{}", "0".repeat(10_000)), false),
        (format!("{good}\r\ntraceparent: {good}"), false),
        (
            "00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(),
            false,
        ),
        (good.replacen("00", "ff", 1), false),
    ] {
        origin.clear();
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: t.test\r\ntraceparent: {sent}\r\ntracestate: a=b\r\n\r\n"
        ));
        assert_eq!(raw.response().status(), 200);
        let seen = &origin.requests()[0];
        let state = seen.get("tracestate").is_some();
        let parents = seen.all("traceparent");
        assert_eq!(
            state && parents == [sent.as_str()],
            passed,
            "{sent}: {parents:?}"
        );
        assert!(
            passed || !state && parents.iter().all(|p| p.len() == 55),
            "{parents:?}"
        );
    }
    gateway.assert_sound();
}

#[test]
fn q07_error_answers_tell_no_versions_addresses_or_markup() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let nobody = nobody.expect("a free port");
    let mut gateway = Gateway::before(nobody, "");
    for (accept, kind) in [
        ("text/html", "text/plain"),
        ("application/json", "application/problem+json"),
    ] {
        let request = format!(
            "GET /%3Cscript%3Ealert(1)%3C/script%3E HTTP/1.1\r\nHost: t.test\r\nAccept: {accept}\r\n\
             X-Request-Id: <script>alert(1)</script>\r\nConnection: close\r\n\r\n"
        );
        let answer = client::ask(gateway.web(), &request);
        assert_eq!(answer.status(), 502);
        let all = format!("{:?} {}", answer.fields, answer.text());
        for told in [
            "127.0.0.1",
            env!("CARGO_PKG_VERSION"),
            "script",
            "os error",
            ".rs",
            "hyper",
        ] {
            assert!(!all.contains(told), "{told} in {all}");
        }
        assert!(
            answer
                .get("content-type")
                .unwrap_or_default()
                .starts_with(kind),
            "{all}"
        );
        assert!(
            answer
                .get("proxy-status")
                .unwrap_or_default()
                .contains("connection_refused"),
            "{all}"
        );
    }
    gateway.assert_sound();
}

#[test]
fn q02_nobody_can_hold_the_operators_addresses() {
    let web = before("127.0.0.1:9".parse().expect("an address"), "");
    let mut gateway = Gateway::start_bare(&format!(
        "[server]\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         scrape_address = \"127.0.0.1:0\"\n{web}"
    ));
    let promptly = |to| {
        let mut raw = Raw::connect(to);
        let time = Some(Duration::from_secs(3));
        raw.stream().set_read_timeout(time).expect("a timeout");
        raw.send("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        raw.response().status()
    };
    for to in [gateway.scrape(), gateway.admin()] {
        let held: Vec<Raw> = (0..80)
            .map(|_| {
                let mut raw = Raw::connect(to);
                drop(raw.try_send("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /he"));
                raw
            })
            .collect();
        assert_eq!(promptly(to), 200);
        drop(held);
    }
    // on the scrape address a connection is for one answer, and not for long
    let mut kept = Raw::connect(gateway.scrape());
    kept.send("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert_eq!(kept.response().status(), 200);
    assert!(kept.closed_within(Duration::from_secs(2)));
    gateway.assert_sound();
}

#[test]
fn q04_every_worker_tells_the_generation_it_goes_by_from_the_start() {
    let mut gateway = Gateway::before("127.0.0.1:9".parse().expect("an address"), "");
    for worker in 0..2 {
        let series = format!("weir_worker_config_generation{{worker=\"{worker}\"}}");
        assert_eq!(gateway.metric(&series), 1.0, "{worker}");
    }
    gateway.assert_sound();
}
