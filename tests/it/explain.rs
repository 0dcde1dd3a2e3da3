//! `weir explain`, `GET /explain` and `weir diff`: what would become of a request, or of a reload.

use std::path::Path;
use std::process::{Command, Output};

use super::harness::{Gateway, client};

const CONFIG: &str = r#"
[listeners.web]
address = "127.0.0.1:0"

[upstreams.app]
endpoints = ["127.0.0.1:9"]

[[routes]]
id = "api"
match = { host = "api.test", path = "/v1/*" }
upstream = "app"

[[routes]]
id = "rest"
respond = { status = 404 }
"#;

fn weir(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(args)
        .output()
        .expect("the binary runs")
}

fn written(dir: &Path, name: &str, config: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, config).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn the_command_names_the_route_the_losers_and_their_lines() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = written(dir.path(), "weir.toml", CONFIG);
    let told = weir(&[
        "explain",
        "--config",
        &config,
        "GET https://api.test/v1/x",
        "-H",
        "a: b",
    ]);
    let out = text(&told);
    assert!(told.status.success(), "{out}");
    assert!(
        out.contains("api: api.test/v1/*") && out.contains("weir.toml:9:6"),
        "{out}"
    );
    assert!(out.contains("127.0.0.1:9 healthy"), "{out}");
    assert!(
        out.contains("rest: would match, but the other's host is more specific"),
        "{out}"
    );
    let json = [
        "explain",
        "-c",
        &config,
        "--format",
        "json",
        "http://b.test/",
    ];
    let json: serde_json::Value =
        serde_json::from_slice(&weir(&json).stdout).expect("JSON on stdout");
    assert_eq!(json["route"]["id"], "rest");
    assert_eq!(json["others"][0]["why"], "another host");
}

#[test]
fn what_cannot_be_explained_fails_with_the_reason() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let bad = written(
        dir.path(),
        "bad.toml",
        &CONFIG.replace("\"app\"", "\"apq\""),
    );
    let told = weir(&["explain", "--config", &bad, "http://a.test/"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(
        text(&told).contains("did you mean \"app\"?"),
        "{}",
        text(&told)
    );
    let good = written(dir.path(), "weir.toml", CONFIG);
    let told = weir(&["explain", "--config", &good, "http://a.test/%00"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told).contains("400 bad_request"), "{}", text(&told));
}

#[test]
fn the_admin_address_explains_by_the_plan_in_force() {
    let gateway = Gateway::start(CONFIG);
    let ask = |query: &str| gateway.ask_admin(&format!("/explain?{query}"));
    let answer = ask("request=GET+https%3A%2F%2Fapi.test%2Fv1%2Fx&header=a:+b&client=192.0.2.1");
    assert_eq!(answer.status(), 200);
    let json: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
    assert_eq!(json["route"]["id"], "api");
    let request = "GET /explain?request=http://b.test/ HTTP/1.1\r\nHost: localhost\r\n\
                   \r\n";
    let shown = client::ask(gateway.admin(), request).text();
    assert!(shown.contains("leads to respond 404"), "{shown}");
    for (query, why) in [
        ("", "ask with"),
        ("request=GET+http://a.test/&client=x", "no address"),
        ("request=GET+http://a.test/&colour=x", "none of request"),
        ("request=G%00T+http://a.test/", "no method"),
    ] {
        let answer = ask(query);
        assert_eq!(answer.status(), 400, "{query}");
        assert!(answer.text().contains(why), "{query}: {}", answer.text());
    }
}

#[test]
fn a_difference_is_told_with_what_it_resets() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let old = written(dir.path(), "old.toml", CONFIG);
    let changed = CONFIG
        .replace("127.0.0.1:9\"", "127.0.0.1:10\"")
        .replace("/v1/*", "/v2/*")
        + "[server]\nworkers = 3\n";
    let new = written(dir.path(), "new.toml", &changed);
    let told = weir(&["diff", &old, &new]);
    assert!(told.status.success(), "{}", text(&told));
    assert_eq!(
        text(&told),
        "~ upstream app: endpoints\n    connections to 127.0.0.1:9 drain\n\
         ~ route api: match\n    no state is lost\nserver.workers differs\n  \
         server.workers needs a restart: a reload would be refused\n"
    );
    let same = weir(&["diff", &old, &old]);
    assert_eq!(text(&same), "no change: a reload would keep everything\n");
    let bad = written(dir.path(), "bad.toml", "x = 1\n");
    assert_eq!(weir(&["diff", &old, &bad]).status.code(), Some(1));
}
