//! Every number is seen, under its name, in both text forms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::telemetry::handles::CODES;
use crate::telemetry::names::Kind;
use crate::telemetry::series_estimate;

struct Fixed;

impl Live for Fixed {
    fn upstreams(&self) -> Vec<LiveUpstream> {
        vec![LiveUpstream {
            name: "app".into(),
            endpoints: [2, 0, 1, 0, 0],
            panic: true,
            retry_budget: Some(0.5),
            concurrency_limit: Some(20),
            breaker: Some("open"),
        }]
    }
    fn limiters(&self) -> Vec<LiveLimiter> {
        vec![LiveLimiter {
            name: "api.0".into(),
            keys: 12,
            capacity: 150_000,
        }]
    }
    fn certificates(&self) -> Vec<LiveCertificate> {
        vec![LiveCertificate {
            listener: "web".into(),
            certificate: "tls/\"a\"\\b.crt".into(),
            not_after: 1_800_000_000,
        }]
    }
    fn access_log(&self) -> (u64, u64) {
        (7, 3)
    }
    fn cache(&self) -> Option<LiveCache> {
        Some(LiveCache {
            objects: 2,
            bytes: 2_048,
            capacity: 4_096,
        })
    }
}

fn exposition(metrics: Metrics) -> Exposition {
    let build = Build {
        version: "1.2.3",
        revision: "abc",
        rustc: "1.95.0",
    };
    Exposition::new(Arc::new(metrics), Arc::new(Fixed), build)
}

/// A route, an upstream, a listener, a worker, and `_none`.
fn quiet() -> Metrics {
    let metrics = Metrics::new(1);
    metrics.route("_none");
    metrics.route("api");
    metrics.upstream("app");
    metrics.listener("web");
    metrics.limiter("api.0");
    metrics
}

/// The same with every cell touched that makes a series appear.
fn busy() -> Metrics {
    let metrics = quiet();
    for route in ["_none", "api"] {
        let route = metrics.route(route);
        let cells = route.of(0);
        let classes = [150, 250, 350, 450, 550];
        CODES
            .iter()
            .chain(&classes)
            .for_each(|c| cells.codes.inc_code(*c));
        cells.methods.iter().for_each(Cell::inc);
        Reason::ALL.iter().for_each(|r| cells.errors.inc(*r));
        Reason::ALL.iter().for_each(|r| cells.observed.inc(*r));
        cells.degraded.iter().flatten().for_each(|c| c.inc());
        cells.cache.iter().for_each(Cell::inc);
    }
    let upstream = metrics.upstream("app");
    let cells = upstream.of(0);
    for cell in [
        &cells.ok,
        &cells.server_error,
        &cells.cancelled,
        &cells.checks_pass,
    ] {
        cell.inc();
    }
    cells.checks_fail.inc();
    cells.checks_timeout.inc();
    Reason::ALL.iter().for_each(|r| cells.failed.inc(*r));
    cells.pool_closes.iter().for_each(Cell::inc);
    cells.retries_denied.iter().for_each(Cell::inc);
    cells.breaker_transitions.iter().for_each(Cell::inc);
    cells.breaker_refusals.inc();
    let listener = metrics.listener("web");
    let cells = listener.of(0);
    cells.refused.iter().for_each(Cell::inc);
    cells.violations.iter().for_each(Cell::inc);
    let skipped = &metrics.compression.of(0).skipped;
    skipped.iter().for_each(Cell::inc);
    metrics
}

/// The samples of a text: series with labels, and the value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let value = value.parse().expect("a number");
        assert!(
            all.insert(series.to_owned(), value).is_none(),
            "twice: {series}"
        );
    }
    all
}

fn text(exposition: &Exposition) -> String {
    String::from_utf8(exposition.text()).expect("UTF-8")
}

fn openmetrics(exposition: &Exposition) -> String {
    String::from_utf8(exposition.openmetrics()).expect("UTF-8")
}

#[test]
fn every_metric_of_the_table_is_exposed_with_its_kind_and_labels() {
    let exposition = exposition(busy());
    let families = exposition.0.gather();
    let exposed: BTreeSet<_> = families.iter().map(|f| f.name().to_owned()).collect();
    let named: BTreeSet<_> = names::ALL.iter().map(|m| m.name.to_owned()).collect();
    assert_eq!(exposed, named);
    for metric in names::ALL {
        let family = families
            .iter()
            .find(|f| f.name() == metric.name)
            .expect("exposed");
        for series in family.get_metric() {
            let labels: Vec<_> = series.get_label().iter().map(|l| l.name()).collect();
            assert_eq!(labels, metric.labels, "{}", metric.name);
        }
        let typed = format!("# TYPE {} {}\n", metric.name, metric.kind.as_str());
        assert!(text(&exposition).contains(&typed), "{typed}");
    }
}

#[test]
fn the_estimate_is_what_a_process_exposes_at_worst() {
    let exposed = samples(&text(&exposition(busy()))).len();
    assert_eq!(exposed, series_estimate(1, 1, 1, 1, 1));
}

#[test]
fn series_the_config_gives_are_there_from_the_start_and_others_are_not() {
    let all = samples(&text(&exposition(quiet())));
    for series in [
        r#"weir_requests_in_flight{route="api"}"#,
        r#"weir_request_duration_seconds_count{route="_none"}"#,
        r#"weir_pool_checkouts_total{upstream="app",source="shared"}"#,
        r#"weir_retries_total{upstream="app",outcome="failure"}"#,
        r#"weir_connections_total{listener="web",protocol="h2"}"#,
        r#"weir_config_reloads_total{outcome="rejected"}"#,
        r#"weir_drain_aborted_total{kind="tunnel"}"#,
        r#"weir_worker_accepts_total{worker="0"}"#,
    ] {
        assert_eq!(all.get(series), Some(&0.0), "{series}");
    }
    for metric in [
        "weir_requests_total",
        "weir_request_errors_total",
        "weir_upstream_attempts_total",
    ] {
        assert!(!all.keys().any(|s| s.starts_with(metric)), "{metric}");
    }
}

#[test]
fn workers_are_summed_and_histograms_agree_with_themselves() {
    let metrics = Metrics::new(2);
    let route = metrics.route("api");
    for (worker, millis) in [(0, 1), (0, 3), (1, 20_000)] {
        let cells = route.of(worker);
        cells.codes.inc_code(200);
        cells.duration.observe(Duration::from_millis(millis));
        cells.request_bytes.add(10);
    }
    let exposition = exposition(metrics);
    for text in [text(&exposition), openmetrics(&exposition)] {
        let all = samples(&text);
        let get = |series: &str| all[&format!("weir_request{series}")];
        assert_eq!(get(r#"s_total{route="api",code="200"}"#), 3.0);
        assert_eq!(get(r#"_body_bytes_total{route="api"}"#), 30.0);
        assert_eq!(get(r#"_duration_seconds_count{route="api"}"#), 3.0);
        assert_eq!(
            get(r#"_duration_seconds_bucket{route="api",le="+Inf"}"#),
            3.0
        );
        assert_eq!(
            get(r#"_duration_seconds_bucket{route="api",le="0.001"}"#),
            1.0
        );
        assert_eq!(
            get(r#"_duration_seconds_bucket{route="api",le="0.005"}"#),
            2.0
        );
        assert_eq!(get(r#"_duration_seconds_sum{route="api"}"#), 20.004);
    }
}

#[test]
fn what_no_cell_holds_is_asked_and_labels_are_escaped() {
    let exposition = exposition(quiet());
    for text in [text(&exposition), openmetrics(&exposition)] {
        let all = samples(&text);
        assert_eq!(
            all[r#"weir_upstream_endpoints{upstream="app",state="healthy"}"#],
            2.0
        );
        assert_eq!(all[r#"weir_upstream_panic{upstream="app"}"#], 1.0);
        assert_eq!(all[r#"weir_retry_budget_ratio{upstream="app"}"#], 0.5);
        assert_eq!(all["weir_access_log_dropped_total"], 3.0);
        let ends = r#"weir_tls_certificate_not_after_timestamp_seconds{listener="web",certificate="tls/\"a\"\\b.crt"}"#;
        assert_eq!(all[ends], 1_800_000_000.0);
        let build = r#"weir_build_info{version="1.2.3",revision="abc",rustc="1.95.0"}"#;
        assert_eq!(all[build], 1.0);
    }
}

#[test]
fn openmetrics_names_counter_families_without_total_and_ends_in_eof() {
    let text = openmetrics(&exposition(busy()));
    assert!(text.ends_with("\n# EOF\n"));
    assert_eq!(text.matches("# EOF").count(), 1);
    assert!(text.contains("# TYPE weir_requests counter\n"));
    assert!(text.contains(r#"le="1.0"}"#));
    for metric in names::ALL.iter().filter(|m| m.kind == Kind::Counter) {
        assert!(
            !text.contains(&format!("# TYPE {} ", metric.name)),
            "{}",
            metric.name
        );
    }
    // a family's lines stand together, and its TYPE comes first
    let mut current = "";
    for line in text.lines().filter(|l| *l != "# EOF") {
        match line.strip_prefix("# TYPE ") {
            Some(family) => current = family.split(' ').next().unwrap_or_default(),
            None => {
                let rest = line.strip_prefix("# HELP ").unwrap_or(line);
                assert!(rest.starts_with(current), "{line} in {current}");
            }
        }
    }
}
