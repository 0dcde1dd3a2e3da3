//! The route that takes a request is the one that would, and each loser is told the rule.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config::load::load_text;
use crate::plan::compile::compile;
use crate::telemetry::handles::Metrics;

const CONFIG: &str = r#"
[listeners.web]
address = "127.0.0.1:0"

[upstreams.app]
endpoints = ["127.0.0.1:9001", { address = "127.0.0.1:9002", priority = 1 }]

[upstreams.backup]
endpoints = ["127.0.0.1:9010"]

[[routes]]
id = "api"
match = { host = "api.test", path = "/v1/*", methods = ["GET"], headers = { x-t = "a" } }
upstream = "app"
timeout = "3s"
rewrite = { prefix = "/v1", with = "/new" }
concurrency = [{ max = 5, queue = 2, queue_timeout = "1s" }, { max = 2, key = "header:x-t" }]
fallback = [{ upstream = "backup" }, { respond = { status = 203 }, on = ["limited"] }]

[[routes]]
id = "deep"
match = { host = "api.test", path = "/v1/deep/{id}", query = { q = "1" } }
upstream = "app"

[[routes]]
id = "wild"
match = { host = "*.test", path = "/v1/*" }
respond = {}
compress = { codings = ["gzip", "br"] }

[[routes]]
id = "all"
respond = {}

[upstreams.app.breaker]
error_ratio = 0.25
consecutive = 9
mode = "observe"
"#;

fn plan() -> Plan {
    let loaded = load_text("weir.toml", CONFIG, Path::new("/nowhere"), &|_| None);
    let loaded = Arc::new(loaded.unwrap_or_else(|invalid| panic!("{}", invalid.render(false))));
    compile(loaded, None, &Metrics::new(1)).expect("compiles")
}

fn explained(request: &str, fields: &[&str]) -> Explanation {
    let asked = Asked::parse(request, fields, None).expect("a request");
    explain(&plan(), &asked, crate::clock::now())
}

fn told(explanation: &Explanation) -> Vec<(&str, &str)> {
    let others = explanation.others.iter();
    others.map(|o| (o.id.as_str(), o.why.as_str())).collect()
}

#[test]
fn the_winner_has_its_line_its_policies_its_upstreams_and_its_ladder() {
    let explanation = explained("GET https://API.test:8443/x/../v1/a?b=1", &["x-t: a"]);
    assert_eq!(explanation.request, "GET api.test/v1/a?b=1");
    let route = explanation.route.as_ref().expect("a route");
    assert_eq!(
        (route.id.as_str(), route.at.as_deref()),
        ("api", Some("weir.toml:12:6"))
    );
    let names: Vec<&str> = route.policies.iter().map(|p| p.name).collect();
    let order = "fallback priority concurrency concurrency rewrite timeout breaker retry";
    assert_eq!(names.join(" "), order);
    assert_eq!(route.policies[1].says, "normal");
    assert_eq!(route.policies[2].says, "header:x-t: at most 2 of a, 0 now");
    let whole = "at most 5, 0 now; 2 may wait for 1s, 0 do";
    assert_eq!(route.policies[3].says, whole);
    assert_eq!(
        route.policies[4].says,
        "the upstream sees API.test:8443/new/a?b=1"
    );
    assert_eq!(route.policies[5].at.as_deref(), Some("weir.toml:15:11"));
    let when = "when 25 % failed of at least 20 tries in 10s, or after 9 failures in a row";
    assert_eq!(
        route.policies[6].says,
        format!("app: opens {when}, for 10s (observes)")
    );
    assert_eq!(route.upstreams[0].endpoints.len(), 2);
    let steps: Vec<&str> = route.ladder.iter().map(|r| r.step.as_str()).collect();
    assert_eq!(steps, ["upstream backup", "respond 203"]);
    assert_eq!(route.ladder[1].on, [Cause::Limited]);
    let text = explanation.to_string();
    assert!(text.contains("breaker closed for 0 s, 0 % of 0 tries failed, observes"));
    assert!(text.contains("api: GET api.test/v1/* x-t=a"), "{text}");
    assert!(
        text.contains("upstream backup on limited, shed, open, timeout, error"),
        "{text}"
    );
}

#[test]
fn it_says_what_an_answer_would_be_encoded_in_or_why_not() {
    for (fields, says) in [
        (
            &["accept-encoding: br, gzip"][..],
            "gzip at level 4, from 1KiB on, of the listed types",
        ),
        (&[], "no: not_accepted"),
        (&["accept-encoding: br", "range: bytes=0-"], "no: range"),
    ] {
        let route = explained("GET http://wild.test/v1/x", fields).route;
        let policies = route.expect("a route").policies;
        let compress = policies.iter().find(|p| p.name == "compress");
        let compress = compress.expect("it is on");
        assert_eq!(compress.says, says);
        assert_eq!(compress.at.as_deref(), Some("weir.toml:29:12"));
    }
}

#[test]
fn every_other_route_is_told_the_rule_by_which_it_lost() {
    let explanation = explained("GET http://api.test/v1/deep/7?q=2", &["x-t: a"]);
    assert_eq!(
        told(&explanation),
        [
            ("deep", "query parameter q is missing or differs"),
            ("wild", "would match, but the other's host is more specific"),
            ("all", "would match, but the other's host is more specific"),
        ]
    );
    let explanation = explained("GET http://api.test/v1/deep/7?q=1", &["x-t: a"]);
    let behind = "would match, but the other's path is more specific";
    assert_eq!(told(&explanation)[0], ("api", behind));
    let explanation = explained("POST http://other/v1/x", &[]);
    assert_eq!(
        told(&explanation),
        [
            ("api", "another host"),
            ("deep", "another host"),
            ("wild", "another host")
        ]
    );
    let explanation = explained("POST http://api.test/v1/x", &["x-t: a"]);
    assert_eq!(told(&explanation)[0], ("api", "only for GET, HEAD"));
    let explanation = explained("http://api.test/v1/x", &["x-t: b"]);
    assert_eq!(
        told(&explanation)[0],
        ("api", "header x-t is missing or differs")
    );
}

#[test]
fn what_is_no_request_is_said_so() {
    for (request, field, wanted) in [
        ("GE(T http://a/", "", "no method"),
        ("GET http://a b/", "", "no URL"),
        ("GET http://a/%00", "", "400 bad_request"),
        ("GET http://a/", "nothing", "not \"name: value\""),
    ] {
        let fields = [field].into_iter().filter(|f| !f.is_empty());
        let error = Asked::parse(request, fields, None).expect_err(request);
        assert!(error.contains(wanted), "{request}: {error}");
    }
}

#[test]
fn each_route_that_find_names_is_the_one_that_no_rule_puts_behind() {
    let plan = plan();
    let paths = ["/v1/a", "/v1/deep/1", "/v1/deep/1?q=1", "/v1", "/", "/x"];
    for host in ["api.test", "b.test", "test", "other"] {
        for path in paths {
            for (method, field) in [("GET", "x-t: a"), ("POST", "x-t: a"), ("GET", "x-t: b")] {
                let request = format!("{method} http://{host}{path}");
                let asked = Asked::parse(&request, [field], None).expect("a request");
                let explanation = explain(&plan, &asked, crate::clock::now());
                let takers = 4 - explanation.others.len();
                assert_eq!(
                    takers,
                    usize::from(explanation.route.is_some()),
                    "{request}"
                );
                let behind = |o: &&Other| o.why.starts_with("would match");
                let rival = explanation.others.iter().find(behind);
                assert!(rival.is_none() || explanation.route.is_some(), "{request}");
            }
        }
    }
}
