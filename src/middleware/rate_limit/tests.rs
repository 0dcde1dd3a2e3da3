//! A route's limits as a request meets them, in paused time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::{HeaderValue, Method};
use proptest::prelude::*;
use serde::Deserialize;
use tower::ServiceExt as _;

use super::*;
use crate::message::{Body, Conn, sketch::Sketch};
use crate::problem::Problems;
use crate::telemetry::handles::Metrics;

#[derive(Deserialize)]
struct Section {
    rate_limit: LimitsConfig,
}

/// The limits of a section, with what they take over.
fn after(before: &[Arc<Limit>], text: &str) -> Vec<Arc<Limit>> {
    let section: Section = toml::from_str(&format!("rate_limit = {text}")).expect("a section");
    let metrics = Metrics::new(2);
    let limits = section.rate_limit.0.iter().enumerate();
    let limits = limits.map(|(position, config)| {
        let name = config.name("api", position);
        let before = before.iter().find(|limit| *limit.name == *name);
        let numbers = metrics.limiter(&name);
        Limit::compile(&name, config, before, numbers, &mut Problems::new()).expect("a limit")
    });
    limits.collect()
}

fn limits(text: &str) -> Vec<Arc<Limit>> {
    after(&[], text)
}

fn request(client: &str) -> Request {
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let conn = Arc::new(Conn::new("web".into(), peer, peer, false, None));
    let client = client.parse().expect("an address");
    let id = HeaderValue::from_static("id");
    let exchange = Exchange::new(
        conn,
        clock::now(),
        client,
        id,
        Sketch::default(),
        Duration::MAX,
    );
    let mut request = Box::new(http::Request::new(Body::empty()));
    request.extensions_mut().insert(Arc::new(exchange));
    request
}

/// Sends a request of `client` through the limits above the cache, to one who answers `status`.
async fn ask(
    limits: &[Arc<Limit>],
    headers: RateLimitHeaders,
    client: &str,
    status: u16,
) -> Result<Response, GatewayError> {
    let layer = RateLimitLayer::above_cache(limits, headers, 0).expect("limits");
    let answer = tower::service_fn(move |_: Request| async move {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        Ok(response)
    });
    layer.layer(answer).oneshot(request(client)).await
}

async fn admitted(limits: &[Arc<Limit>], times: usize) -> usize {
    let mut count = 0;
    for _ in 0..times {
        let answer = ask(limits, RateLimitHeaders::Draft, "192.0.2.1", 200).await;
        count += usize::from(answer.is_ok());
    }
    count
}

fn decisions(limit: &Limit) -> [u64; 3] {
    let cells = limit.metrics.of(0);
    [cells.allow.get(), cells.deny.get(), cells.observed.get()]
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_limit_and_the_wait() {
    let limits = limits("{ name = \"per-client\", rate = \"1/m\", burst = 2 }");
    let told = |response: &Response| {
        let field = |name| response.headers()[name].to_str().expect("text").to_owned();
        (field("ratelimit-policy"), field("ratelimit"))
    };
    let policy = "\"per-client\";q=2;w=120".to_owned();
    let first = ask(&limits, RateLimitHeaders::Draft, "192.0.2.1", 200)
        .await
        .expect("let in");
    assert_eq!(
        told(&first),
        (policy.clone(), "\"per-client\";r=1;t=60".into())
    );
    tokio::time::advance(Duration::from_secs(15)).await;
    let second = ask(&limits, RateLimitHeaders::Draft, "192.0.2.1", 200)
        .await
        .expect("let in");
    assert_eq!(told(&second), (policy, "\"per-client\";r=0;t=45".into()));
    let refused = ask(&limits, RateLimitHeaders::Draft, "192.0.2.1", 200)
        .await
        .expect_err("not");
    assert_eq!(refused.reason(), Reason::RateLimited);
    assert_eq!(refused.policies(), ["per-client".into()]);
    let wait = refused.retry_after().expect("a wait");
    assert_eq!(seconds(wait), 45);
    let field = refused
        .fields()
        .iter()
        .find(|(name, _)| name == "ratelimit");
    assert_eq!(field.expect("told").1, "\"per-client\";r=0;t=45");
    assert!(
        ask(&limits, RateLimitHeaders::Draft, "192.0.2.2", 200)
            .await
            .is_ok()
    );
    tokio::time::advance(wait).await;
    assert_eq!(
        admitted(&limits, 3).await,
        1,
        "who waits that long is let in"
    );
    assert_eq!(decisions(&limits[0]), [4, 3, 0]);
}

#[tokio::test(start_paused = true)]
async fn none_is_charged_unless_all_admit() {
    let both = limits("[{ rate = \"5/h\" }, { rate = \"2/h\", key = \"route\" }]");
    assert_eq!(admitted(&both, 10).await, 2);
    let request = request("192.0.2.1");
    let exchange = exchange::of(&request).expect("an exchange");
    let left = look(&both, &request, exchange, clock::now());
    assert_eq!((left[0].left, left[1].left), (3, 0));
    assert_eq!(
        (&*left[0].name, &*left[0].rate, left[0].burst),
        ("api.0", "5/h", 5)
    );
    assert_eq!(left[0].key, ["192.0.2.1"]);
    assert_eq!(
        (decisions(&both[0]), decisions(&both[1])),
        ([2, 0, 0], [2, 8, 0])
    );
}

#[tokio::test(start_paused = true)]
async fn both_limits_are_told_of_and_the_older_fields_are_of_the_tighter() {
    let both = limits("[{ rate = \"5/h\" }, { rate = \"200/s\", burst = 2 }]");
    let answer = ask(&both, RateLimitHeaders::Draft, "192.0.2.1", 200)
        .await
        .expect("let in");
    let (policy, left) = (
        &answer.headers()["ratelimit-policy"],
        &answer.headers()["ratelimit"],
    );
    assert_eq!(policy, "\"api.0\";q=5;w=3600, \"api.1\";q=2;w=1");
    assert_eq!(left, "\"api.0\";r=4;t=720, \"api.1\";r=1;t=1");
    let answer = ask(&both, RateLimitHeaders::Legacy, "192.0.2.9", 200)
        .await
        .expect("let in");
    let field = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(field("x-ratelimit-limit"), "2");
    assert_eq!(
        (field("x-ratelimit-remaining"), field("x-ratelimit-reset")),
        ("1".into(), "1".into())
    );
    assert!(!answer.headers().contains_key("ratelimit"));
    for (headers, status) in [(RateLimitHeaders::Draft, 302), (RateLimitHeaders::Off, 200)] {
        let answer = ask(&both, headers, "192.0.2.3", status)
            .await
            .expect("let in");
        assert!(answer.headers().is_empty(), "{:?}", answer.headers());
    }
}

#[tokio::test(start_paused = true)]
async fn what_counts_failures_charges_failures_alone() {
    let limits = limits("{ rate = \"3/h\", count = \"failures\" }");
    assert_eq!(admitted(&limits, 20).await, 20);
    for status in [404, 500, 400] {
        assert!(
            ask(&limits, RateLimitHeaders::Draft, "192.0.2.1", status)
                .await
                .is_ok()
        );
    }
    assert_eq!(admitted(&limits, 20).await, 0, "three failures are enough");
    let error = |reason| Err(GatewayError::new(reason));
    assert!(failed(&error(Reason::ConnectionRefused)) && failed(&error(Reason::BodyTooLarge)));
    assert!(!failed(&error(Reason::Shed)) && !failed(&error(Reason::RateLimited)));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_observes_counts_and_lets_pass() {
    let limits = limits("[{ rate = \"1/h\", mode = \"observe\" }, { rate = \"100/s\" }]");
    let layer = RateLimitLayer::above_cache(&limits, RateLimitHeaders::Draft, 0).expect("limits");
    let service = layer.layer(tower::service_fn(|_: Request| async {
        Ok(Response::default())
    }));
    let mut observed = 0;
    for _ in 0..5 {
        let request = request("192.0.2.1");
        let exchange = exchange::of(&request).expect("an exchange").clone();
        let answer = service.clone().oneshot(request).await.expect("let in");
        let left = answer.headers()["ratelimit"].to_str().expect("text");
        assert!(
            left.starts_with("\"api.1\"") && !left.contains("api.0"),
            "{left}"
        );
        observed += exchange.noted(|notes| notes.observed.len());
    }
    assert_eq!(observed, 4);
    assert_eq!(
        (decisions(&limits[0]), decisions(&limits[1])),
        ([1, 0, 4], [5, 0, 0])
    );
}

#[tokio::test(start_paused = true)]
async fn what_counts_misses_stands_below_and_nowhere_else() {
    let limits = limits("[{ rate = \"1/h\", count = \"misses\" }]");
    assert!(RateLimitLayer::above_cache(&limits, RateLimitHeaders::Off, 0).is_none());
    let layer = RateLimitLayer::below_cache(&limits, RateLimitHeaders::Off, 0).expect("a limit");
    let service = layer.layer(tower::service_fn(|_: Request| async {
        Ok(Response::default())
    }));
    assert!(service.clone().oneshot(request("192.0.2.1")).await.is_ok());
    assert!(service.oneshot(request("192.0.2.1")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn k07_what_was_used_is_kept_over_reloads_and_another_rate_goes_on_from_it() {
    let text = "{ rate = \"1/s\", burst = 4 }";
    let mut now = limits(text);
    assert_eq!(admitted(&now, 10).await, 4);
    for _ in 0..50 {
        let next = after(&now, text);
        assert!(Arc::ptr_eq(&next[0], &now[0]));
        now = next;
        assert_eq!(admitted(&now, 3).await, 0);
    }
    let mut faster = after(&now, "{ rate = \"10/s\", burst = 4 }");
    faster[0].put_in_force(clock::now());
    assert_eq!(admitted(&faster, 3).await, 0, "no second burst");
    tokio::time::advance(Duration::from_millis(101)).await;
    assert_eq!(admitted(&faster, 3).await, 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(admitted(&faster, 9).await, 4);
    let more = after(&faster, "{ rate = \"10/s\", burst = 6 }");
    more[0].put_in_force(clock::now());
    assert_eq!(
        admitted(&more, 9).await,
        2,
        "a larger burst is more at once"
    );
    faster = after(
        &more,
        "{ rate = \"10/s\", burst = 6, key = [\"client_ip\", \"path\"] }",
    );
    assert_eq!(admitted(&faster, 9).await, 6, "other keys begin anew");
}

/// Reload after reload, the rate going up and down: no time is given twice.
#[tokio::test(start_paused = true)]
async fn k07_a_storm_of_reloads_gives_nothing_away() {
    let mut now = limits("{ rate = \"100/s\", burst = 10 }");
    let mut count = admitted(&now, 20).await;
    for round in 0..500 {
        let rate = if round % 2 == 0 { 50 } else { 100 };
        now = after(&now, &format!("{{ rate = \"{rate}/s\", burst = 10 }}"));
        now[0].put_in_force(clock::now());
        tokio::time::advance(Duration::from_millis(20)).await;
        count += admitted(&now, 5).await;
    }
    // 250 times 20 ms at 50/s and at 100/s, and the burst
    assert!(
        (250 + 500 + 10 - 1..=250 + 500 + 10).contains(&count),
        "{count}"
    );
}

#[tokio::test(start_paused = true)]
async fn k01_k02_one_peer_and_one_ipv6_network_are_one_client() {
    let limits = limits("{ rate = \"5/h\" }");
    let mut count = 0;
    for host in 0..100 {
        let client = format!("2001:db8::{host:x}");
        let mut request = request(&client);
        let spoofed = HeaderValue::from_str(&format!("10.0.0.{host}")).expect("a value");
        request.headers_mut().insert("x-forwarded-for", spoofed);
        *request.method_mut() = Method::POST;
        let layer = RateLimitLayer::above_cache(&limits, RateLimitHeaders::Off, 0).expect("limits");
        let service = layer.layer(tower::service_fn(|_: Request| async {
            Ok(Response::default())
        }));
        count += usize::from(service.oneshot(request).await.is_ok());
    }
    assert_eq!(count, 5);
    let whole = super::tests::limits("{ rate = \"5/h\", ipv6_prefix = 56 }");
    for (client, admits) in [
        ("2001:db8::1", true),
        ("2001:db8:0:ff::1", true),
        ("2001:db8:0:100::1", true),
    ] {
        assert_eq!(
            ask(&whole, RateLimitHeaders::Off, client, 200)
                .await
                .is_ok(),
            admits
        );
    }
    let left = |client| {
        let request = request(client);
        look(
            &whole,
            &request,
            exchange::of(&request).expect("one"),
            clock::now(),
        )[0]
        .left
    };
    assert_eq!((left("2001:db8::9"), left("2001:db8:0:100::9")), (3, 4));
}

/// Workers that judge at once by one limit: exactly its burst, at one instant.
#[test]
fn workers_share_a_limit_exactly() {
    let limits = limits("{ rate = \"1000/s\", burst = 500 }");
    let (now, count) = (clock::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (limit, count) = (&limits[0], &count);
            scope.spawn(move || {
                let judge = Judge::new(limit, worker);
                let admits = |_: &i32| judge.charge(7, now).admits;
                count.fetch_add((0..1_000).filter(admits).count(), Relaxed);
            });
        }
    });
    assert_eq!(count.load(Relaxed), 500);
}

/// The limit as one would say it: a bucket of `burst` that fills at the rate. In billionths of an
/// admission, exactly.
struct Bucket {
    level: u128,
    at: u128,
}

impl Bucket {
    fn admits(&mut self, now: u128, rate: u32, period: u128, burst: u32) -> bool {
        let full = u128::from(burst) * period;
        self.level = (self.level + (now - self.at) * u128::from(rate)).min(full);
        self.at = now;
        if self.level < period {
            return false;
        }
        self.level -= period;
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn k08_the_limit_admits_what_a_plain_bucket_admits(
        (rate, unit) in (1_u32..2_000, prop::sample::select(vec!["s", "m", "h", "d"])),
        burst in 1_u32..50,
        steps in prop::collection::vec((1_u64..5, 0_u64..3_000_000_000), 1..400),
    ) {
        let limits = limits(&format!("{{ rate = \"{rate}/{unit}\", burst = {burst} }}"));
        let period = limits[0].rate().period().as_nanos();
        let workers = [Judge::new(&limits[0], 0), Judge::new(&limits[0], 1)];
        let start = clock::now();
        let mut now = Duration::ZERO;
        let mut buckets: HashMap<u64, (Bucket, i64)> = HashMap::new();
        for (at, (key, wait)) in steps.iter().enumerate() {
            // most waits about as long as one admission takes
            let one = u64::try_from(period / u128::from(rate)).expect("it fits");
            now += Duration::from_nanos(wait % (one * 2));
            let verdict = workers[at % 2].charge(*key, start + now);
            let full = u128::from(burst) * period;
            let new = || (Bucket { level: full, at: now.as_nanos() }, 0);
            let (bucket, apart) = buckets.entry(*key).or_insert_with(new);
            let expected = bucket.admits(now.as_nanos(), rate, period, burst);
            *apart += i64::from(verdict.admits) - i64::from(expected);
            prop_assert!(apart.abs() <= 1, "{apart} apart at step {at}");
        }
    }
}
