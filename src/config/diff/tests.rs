//! Two configs compared: what is named, and what it is said to cost.

use super::*;
use crate::config::load::load_text;
use std::path::Path;

const OLD: &str = r#"
    [listeners.web]
    address = "127.0.0.1:8080"
    [upstreams.app]
    endpoints = ["127.0.0.1:9001", "127.0.0.1:9002"]
    [upstreams.gone]
    endpoints = ["127.0.0.1:9003"]
    [[routes]]
    id = "a"
    match = { path = "/a" }
    upstream = "app"
    [[routes]]
    id = "b"
    upstream = "app"
"#;

fn loaded(text: &str) -> Loaded {
    let loaded = load_text("weir.toml", text, Path::new("/nowhere"), &|_| None);
    loaded.unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
}

fn against_old(from: &str, to: &str) -> Diff {
    assert!(OLD.contains(from));
    diff(&loaded(OLD), &loaded(&OLD.replace(from, to)))
}

#[test]
fn a_config_does_not_differ_from_itself_however_it_is_laid_out() {
    assert!(diff(&loaded(OLD), &loaded(OLD)).is_empty());
    assert!(against_old("[[routes]]", "# prose\n\n[[routes]]").is_empty());
    let stated = against_old("[upstreams.app]", "[upstreams.app]\nprotocol = \"http1\"");
    assert_eq!(stated.to_string(), "no change");
}

#[test]
fn what_is_new_gone_and_changed_is_named_with_its_keys() {
    let d = against_old("upstreams.gone", "upstreams.new");
    assert_eq!(d.to_string(), "upstreams: +new -gone");
    let d = against_old("id = \"b\"", "id = \"b\"\ntimeout = \"1s\"");
    assert_eq!(d.to_string(), "routes: ~b (timeout)");
}

#[test]
fn the_state_that_a_change_costs_is_told() {
    let d = against_old(", \"127.0.0.1:9002\"", "");
    let words = "upstreams: ~app (endpoints; connections to 127.0.0.1:9002 drain)";
    assert_eq!(d.to_string(), words);
    let d = against_old("[upstreams.app]", "[upstreams.app]\nprotocol = \"h2\"");
    assert_eq!(
        d.upstreams.changed[0].resets,
        ["pooled connections are replaced"]
    );
    let with = OLD.replace("[upstreams.app]", "[upstreams.app]\nbreaker = {}");
    let d = diff(&loaded(&with), &loaded(OLD));
    let words = "upstreams: ~app (breaker; what breaker knows is forgotten)";
    assert_eq!(d.to_string(), words);
    let other = with.replace("{}", "{ min_requests = 3 }");
    let d = diff(&loaded(&with), &loaded(&other));
    assert_eq!(d.to_string(), "upstreams: ~app (breaker)");
    let d = against_old("127.0.0.1:8080", "127.0.0.1:8081");
    let resets = ["connections to 127.0.0.1:8080 drain"];
    assert_eq!(d.listeners.changed[0].resets, resets);
}

#[test]
fn only_what_is_read_at_the_start_needs_a_restart() {
    let more = "[server]\nworkers = 3\nidentity = \"x\"\n[admin]\naddress = \"127.0.0.1:1\"\n\
                [log]\nlevel = \"warn\"\nformat = \"json\"\n[listeners.web]";
    let d = against_old("[listeners.web]", more);
    assert_eq!(
        d.global,
        [
            "admin.address",
            "log.format",
            "log.level",
            "server.identity",
            "server.workers"
        ]
    );
    assert_eq!(
        d.needs_restart(),
        ["admin.address", "log.format", "server.workers"]
    );
}

#[test]
fn routes_in_another_order_are_a_change() {
    let (a, b) = OLD.split_at(OLD.find("[[routes]]").expect("there are routes"));
    let second = b.rfind("[[routes]]").expect("there are two routes");
    let swapped = format!("{a}{}\n{}", &b[second..], &b[..second]);
    let d = diff(&loaded(OLD), &loaded(&swapped));
    assert_eq!(d.to_string(), "routes in another order");
}

#[test]
fn a_file_with_other_content_changes_the_section_that_names_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let text = OLD.replace(
        "id = \"b\"",
        "id = \"b\"\nheaders = { request = { set = { x = { file = \"s\" } } } }",
    );
    let load = || load_text("weir.toml", &text, dir.path(), &|_| None);
    let with = |secret: &str| {
        std::fs::write(dir.path().join("s"), secret).expect("the file is written");
        load().unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
    };
    let (one, two, again) = (with("one"), with("two"), with("one"));
    assert_eq!(diff(&one, &two).to_string(), "routes: ~b (headers)");
    assert!(diff(&one, &again).is_empty());
    assert_ne!(one.hash, two.hash);
    assert_eq!(one.hash, again.hash);
}

#[test]
fn what_the_environment_filled_in_is_not_told() {
    let with = |text: &str| {
        let env = |name: &str| (name == "OLD").then(|| "10.0.0.7".to_owned());
        load_text("weir.toml", text, Path::new("/nowhere"), &env)
            .unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
    };
    let old = OLD.replace("127.0.0.1:9002", "${OLD}:9002");
    let told = diff(&with(&old), &with(&OLD.replace(", \"127.0.0.1:9002\"", ""))).to_string();
    assert_eq!(
        told,
        "upstreams: ~app (endpoints; connections to ${OLD}:9002 drain)"
    );
}

#[test]
fn a_line_is_whole_whatever_stands_in_its_parentheses() {
    let more = "[upstreams.new]\nendpoints = [\"127.0.0.1:1\"]\n[upstreams.app]\nprotocol = \"h2\"";
    let d = against_old("[upstreams.app]", more);
    let upstreams = "upstreams: +new ~app (protocol; pooled connections are replaced)";
    assert_eq!(d.lines(), [upstreams]);
    let d = against_old("id = \"b\"", "id = \"c\"");
    assert_eq!(d.lines(), [d.to_string()]);
    assert!(diff(&loaded(OLD), &loaded(OLD)).lines().is_empty());
}
