//! A failing origin under load: what is stale is served, and the origin is left alone meanwhile.
//! CASES I27.
//!
//! Counted at the origin. Each probe must be at least a cool-down after the one before it on the
//! same key, however slow the machine is: nothing here depends on how fast anything goes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::harness::{Gateway, Origin, Raw, Reply, client, eventually, gateway};

const KEYS: usize = 4;
const CLIENTS: usize = 4;
/// Of each client, every [`TICK`]: 5 000 requests a second in all.
const BURST: usize = 25;
const TICK: Duration = Duration::from_millis(20);
const COOL_DOWN: Duration = Duration::from_millis(250);
/// Cool-downs of 250, 500, 1000 and 2000 ms, and a fifth more at most.
const TIME: Duration = Duration::from_secs(5);

/// When each key was asked for at the origin, after it had been stored.
type Probes = Arc<Mutex<[Vec<Instant>; KEYS]>>;

fn number(target: &str) -> usize {
    target[1..].parse().expect("a number")
}

/// Good once for each key, and then failing as it is told.
fn origin(probes: &Probes, window: &'static str, fails: fn() -> Reply) -> Origin {
    let (probes, seen) = (Arc::clone(probes), Mutex::new([false; KEYS]));
    Origin::start(move |request, _| {
        let key = number(request.target());
        if std::mem::replace(&mut seen.lock().expect("no panic")[key], true) {
            probes.lock().expect("no panic")[key].push(Instant::now());
            return fails();
        }
        let fields = format!("Cache-Control: max-age=1, {window}=3600\r\nETag: \"e\"");
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 4\r\n\r\ngood");
        Reply::Bytes(answer.into_bytes())
    })
}

/// Asks for all keys in turn until the time is up. Every answer must be the stored one.
fn load(gateway: &Gateway) {
    let web = gateway.web();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(move || {
                let mut raw = Raw::connect(web);
                let burst: String = (0..BURST)
                    .map(|n| format!("GET /{} HTTP/1.1\r\nHost: t.test\r\n\r\n", n % KEYS))
                    .collect();
                let end = Instant::now() + TIME;
                while Instant::now() < end {
                    let next = Instant::now() + TICK;
                    raw.send(&burst);
                    for _ in 0..BURST {
                        assert_eq!(raw.response().text(), "good");
                    }
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
    });
}

fn a_failing_origin(window: &'static str, fails: fn() -> Reply) {
    let probes = Probes::default();
    let origin = origin(&probes, window, fails);
    let upstream = "retry = false\neject = false";
    let config = gateway::before(origin.address, upstream);
    let millis = COOL_DOWN.as_millis();
    let cache = format!("cache = {{ error_cool_down = \"{millis}ms\" }}\n");
    let gateway = Gateway::start(&format!("{config}{cache}"));
    for key in 0..KEYS {
        client::get(gateway.web(), &format!("/{key}"));
    }
    eventually("all are stored", || {
        gateway.metric("weir_cache_objects") == KEYS as f64
    });
    std::thread::sleep(Duration::from_millis(1_100));
    load(&gateway);
    for probes in probes.lock().expect("no panic").iter() {
        assert!(
            probes.len() > 1,
            "nobody has asked whether it is well again"
        );
        for (nth, pair) in probes.windows(2).enumerate() {
            let pause = COOL_DOWN * (1 << nth.min(3));
            let waited = pair[1] - pair[0];
            assert!(waited >= pause, "probe {} after {waited:?}", nth + 2);
        }
    }
}

#[test]
fn i27_an_origin_that_answers_503_is_asked_once_in_a_cool_down() {
    a_failing_origin("stale-if-error", || {
        let answer = "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n";
        Reply::Bytes(answer.into())
    });
}

#[test]
fn i27_an_origin_that_closes_is_asked_once_in_a_cool_down() {
    a_failing_origin("stale-if-error", || Reply::Close(Vec::new()));
}

#[test]
fn i27_an_origin_that_closes_is_refreshed_from_once_in_a_cool_down() {
    a_failing_origin("stale-while-revalidate", || Reply::Close(Vec::new()));
}
