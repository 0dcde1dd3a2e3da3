//! What the README and the container folder show is what this version takes.
//!
//! A config that stands there must load, a flag or a default that is named must exist: a newcomer
//! has nothing else to go by.

use std::fs;
use std::path::Path;

use weir::config::diff::diff;
use weir::config::load::load_text;
use weir::config::{Loaded, schema};
use weir::telemetry::names;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of a language in a Markdown text.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let starts = text.split(&fence).skip(1);
    let blocks = starts.map(|rest| rest.split("```").next().expect("a split has a first part"));
    blocks.map(str::to_owned).collect()
}

fn loads(label: &str, text: &str) -> Loaded {
    let dir = tempfile::tempdir().expect("a temporary folder");
    load_text(label, text, dir.path(), &|_| None)
        .unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
}

#[test]
fn the_configs_in_the_readme_load() {
    let blocks = blocks(&read("README.md"), "toml");
    assert!(!blocks.is_empty(), "the README shows a first config");
    for block in blocks {
        loads("README.md", &whole(&block));
    }
}

/// A config with what a fragment of the manual leaves out: a listener, the upstreams it names.
fn whole(fragment: &str) -> String {
    let mut config = String::new();
    if !fragment.contains("[listeners.") {
        config += "[listeners.web]\naddress = \"127.0.0.1:0\"\n";
    }
    for name in ["app", "backup"] {
        let named = fragment.contains(&format!("\"{name}\""));
        if named && !fragment.contains(&format!("[upstreams.{name}]")) {
            config += &format!("[upstreams.{name}]\nendpoints = [\"127.0.0.1:9001\"]\n");
        }
    }
    let routes = if fragment.contains("[[routes]]") {
        ""
    } else {
        "[[routes]]\nid = \"all\"\nrespond = {}\n"
    };
    config + fragment + routes
}

#[test]
fn the_config_of_the_container_loads_and_is_seen_from_outside() {
    let config = loads("docker/weir.toml", &read("docker/weir.toml")).config;
    let scrape = config.admin.scrape_address.expect("Prometheus scrapes it");
    assert!(scrape.value.starts_with("0.0.0.0:"), "{}", scrape.value);
    assert!(read("docker/prometheus.yml").contains("weir:9902"));
    assert!(scrape.value.ends_with(":9902"), "{}", scrape.value);
}

#[test]
fn the_limits_in_the_readme_are_the_defaults_of_the_schema() {
    let (readme, schema) = (read("README.md"), schema());
    let rows = readme.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.strip_suffix('`')?;
        let default = cells.next()?.trim_matches('`');
        key.contains("NAME").then_some((key, default))
    });
    let mut count = 0;
    for (key, default) in rows {
        let section = key.split('.').nth(2).expect("a.NAME.section.key");
        let name = key.rsplit('.').next().expect("a key has a last part");
        let kind = ["Limits", "Timeouts", "Pool", "Retry"]
            .into_iter()
            .find(|kind| kind.eq_ignore_ascii_case(section))
            .unwrap_or_else(|| panic!("the README names a section that is not: {key}"));
        let property = &schema["$defs"][format!("{kind}Config")]["properties"][name];
        let stated = property["default"].to_string();
        assert_eq!(stated.trim_matches('"'), default, "{key}");
        count += 1;
    }
    assert!(count >= 10, "the README lists only {count} limits");
}

#[test]
fn the_alerts_and_samples_ask_for_metrics_that_exist() {
    let texts = [read("docker/alerts.yml"), read("README.md")];
    for text in texts {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        for word in words.filter(|w| w.starts_with("weir_")) {
            let base = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|end| word.strip_suffix(end))
                .unwrap_or(word);
            let known = |metric: &names::Metric| metric.name == base;
            assert!(names::ALL.iter().any(known), "no such metric: {word}");
        }
    }
}

#[test]
fn the_keys_in_the_readme_that_need_a_restart_are_those_that_do() {
    let readme = read("README.md");
    let (_, rest) = readme
        .split_once("Keys that need a restart (")
        .expect("it says so");
    let (listed, _) = rest.split_once(')').expect("a list");
    let listed: Vec<&str> = listed
        .split(", ")
        .map(|key| key.trim_matches('`'))
        .collect();
    let config = |more: &str| {
        let base =
            "[listeners.web]\naddress = \"127.0.0.1:0\"\n[[routes]]\nid = \"a\"\nrespond = {}\n";
        loads("weir.toml", &format!("{base}{more}"))
    };
    let other = "[server]\nworkers = 3\nidentity = \"b\"\nmax_connections = 7\nzone = \"z\"\n\
                 trusted_proxies = [\"10.0.0.0/8\"]\ndrain = { delay = \"1s\" }\n\
                 [admin]\naddress = \"127.0.0.1:1\"\nscrape_address = \"127.0.0.1:2\"\n\
                 [log]\nlevel = \"debug\"\nformat = \"json\"\naccess = { to = \"off\" }\n\
                 [defaults]\ntimeout = \"1s\"\nmax_body = \"1KiB\"\n";
    let needs = diff(&config(""), &config(other)).needs_restart();
    assert_eq!(
        needs,
        [
            "admin.address",
            "admin.scrape_address",
            "log.format",
            "server.workers"
        ]
    );
    let is_of = |key: &str, one: &str| key == one || key.starts_with(&format!("{one}."));
    for key in &needs {
        assert!(listed.iter().any(|one| is_of(key, one)), "{key}");
    }
    for one in &listed {
        assert!(needs.iter().any(|key| is_of(key, one)), "{one}");
    }
}
