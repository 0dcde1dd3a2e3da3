//! What is kept over reloads and what a wait may blame on whom.
//! Each of these went wrong once under load or over a reload.

use std::time::Duration;

use super::super::views::Views;
use super::*;

/// Takes the first request of each connection and never answers.
fn silent(
    _: usize,
    mut socket: TcpStream,
    _: Arc<AtomicUsize>,
) -> tokio::task::JoinHandle<io::Result<()>> {
    tokio::spawn(async move {
        while socket.read_u8().await.is_ok() {}
        Ok(())
    })
}

fn after(old: &Bench, address: SocketAddr, more: &str) -> Bench {
    let new = compiled(&[address], more, &old.metrics, Some(&old.upstream));
    let new = new.expect("compiles");
    new.put_in_force();
    Bench::new(new, Arc::clone(&old.pools), Arc::clone(&old.metrics))
}

#[tokio::test]
async fn a_cap_that_a_reload_lowers_holds_over_what_was_opened_before() {
    let origin = origin(answer_always).await;
    let three = bench(&[origin.address], "pool = { max_connections = 3 }");
    let mut held = Vec::new();
    for _ in 0..3 {
        let get = request(Method::GET, Body::empty());
        held.push(three.send(get).await.expect("an answer"));
    }
    let one = "pool = { max_connections = 1, max_pending = 0 }";
    let lowered = after(&three, origin.address, one);
    for _ in 0..3 {
        let refused = lowered.get().await.expect_err("the cap is passed already");
        assert_eq!(refused.reason(), Reason::ConnectionLimitReached);
        held.pop();
        tokio::task::yield_now().await;
    }
    while lowered.get().await.is_err() {
        tokio::task::yield_now().await;
    }
    let kept = lowered
        .send(request(Method::GET, Body::empty()))
        .await
        .expect("the one connection");
    assert!(lowered.get().await.is_err());
    let raised = after(&lowered, origin.address, "pool = { max_connections = 2 }");
    raised.get().await.expect("a second connection");
    drop(kept);
}

#[tokio::test]
async fn an_upstream_that_went_and_came_back_counts_in_its_new_numbers() {
    let origin = origin(answer_always).await;
    let old = bench(&[origin.address], "");
    old.get().await.expect("an answer");
    let metrics = Metrics::new(1).upstream("app");
    let new = compiled(&[origin.address], "", &metrics, None).expect("compiles");
    let new = Bench::new(new, Arc::clone(&old.pools), metrics);
    new.get().await.expect("an answer");
    let cells = new.metrics.of(0);
    assert_eq!((cells.ok.get(), cells.pool_idle.get()), (1, 1));
    assert_eq!(old.metrics.of(0).ok.get(), 1);
    drop(old);
}

#[tokio::test]
async fn without_a_health_section_nobody_is_unhealthy() {
    let origin = origin(answer_always).await;
    let old = bench(&[origin.address], "health = { path = \"/\" }");
    let now = crate::clock::now();
    let standing = Arc::clone(&old.upstream.live.set().endpoints[0].standing);
    standing.set_unhealthy(true, now);
    after(&old, origin.address, "health = { path = \"/other\" }");
    assert!(standing.is_unhealthy());
    after(&old, origin.address, "");
    assert!(!standing.is_unhealthy());
}

#[tokio::test]
async fn a_try_that_ends_in_our_own_queue_is_nothing_against_the_endpoint() {
    let origin = origin(answer_always).await;
    let more = "pool = { max_connections = 1, pending_timeout = \"1h\" }\n\
        eject = { consecutive = 1, max_percent = 100 }\n\
        retry = { attempts = 1, per_try_timeout = \"250ms\" }";
    let bench = bench(&[origin.address], more);
    let held = bench.send(request(Method::GET, Body::empty())).await;
    assert!(held.is_ok(), "the only connection there may be");
    let error = bench.get().await.expect_err("no connection");
    assert_eq!(error.reason(), Reason::ConnectionLimitReached);
    assert_eq!(bench.metrics.of(0).ejections.get(), 0);
    drop(held);
}

#[tokio::test]
async fn requests_that_wait_for_one_h2_connection_fail_together_with_it() {
    let origin = origin(silent).await;
    let ca = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let mut files = Files::default();
    files.insert("ca.pem".to_owned(), Ok(ca.cert.pem().into_bytes().into()));
    let text = format!(
        "endpoints = [\"{}\"]\nprotocol = \"h2\"\nretry = false\n\
         tls = {{ ca = \"ca.pem\" }}\ntimeouts = {{ connect = \"50ms\" }}",
        origin.address
    );
    let config: UpstreamConfig = toml::from_str(&text).expect("a section");
    let name = Located::unstated("app".to_owned());
    let metrics = Metrics::new(1).upstream("app");
    let mut problems = Problems::new();
    let upstream = Upstream::compile(
        &name,
        &config,
        None,
        &files,
        Arc::clone(&metrics),
        None,
        &mut problems,
    );
    let upstream = upstream.unwrap_or_else(|| panic!("{problems:?}"));
    let bench = Arc::new(Bench::new(upstream, Arc::new(WorkerPools::new(0)), metrics));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let bench = Arc::clone(&bench);
        tasks.spawn(async move { bench.get().await.expect_err("no answer").reason() });
    }
    for reason in tasks.join_all().await {
        assert_eq!(reason, Reason::ConnectionTimeout);
    }
    assert_eq!(origin.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_used_again_begins_without_its_past() {
    let (one, two) = (origin(answer_always).await, origin(answer_always).await);
    let bench = bench(&[one.address, two.address], "eject = false");
    bench.get().await.expect("an answer");
    let set = bench.upstream.live.set();
    let pool = bench.pools.pool(&bench.upstream, &set.endpoints[0]);
    let now = crate::clock::now();
    for _ in 0..10 {
        pool.observe(std::time::Duration::from_secs(1), true, now);
    }
    let standing = &set.endpoints[0].standing;
    for unhealthy in [true, false] {
        standing.set_unhealthy(unhealthy, now);
        bench.upstream.live.changed();
        bench.get().await.expect("an answer");
    }
    for _ in 0..40 {
        bench.get().await.expect("an answer");
    }
    assert!(one.requests.load(SeqCst) >= 5, "it gets traffic again");
}

#[tokio::test]
async fn connections_of_a_burst_stay_until_it_is_over() {
    let origin = origin(answer_always).await;
    let bench = bench(&[origin.address], "pool = { max_idle = 2 }");
    for _ in 0..3 {
        let (a, b, c) = tokio::join!(bench.get(), bench.get(), bench.get());
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        tokio::task::yield_now().await;
    }
    let cells = bench.metrics.of(0);
    assert_eq!((cells.checkouts_new.get(), cells.pool_idle.get()), (3, 3));
    let (name, upstream) = (
        Arc::clone(&bench.upstream.name),
        Arc::clone(&bench.upstream),
    );
    let known = std::collections::BTreeMap::from([(name, upstream)]);
    let now = crate::clock::now();
    bench.pools.housekeep(now, &known);
    assert_eq!(cells.pool_idle.get(), 3);
    bench.pools.housekeep(now + Duration::from_secs(2), &known);
    assert_eq!(cells.pool_idle.get(), 2);
}

#[test]
fn the_stacks_of_a_worker_share_one_view_of_an_upstream_and_another_of_the_one_that_follows_it() {
    let metrics = Metrics::new(1).upstream("app");
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let upstream = || Arc::new(compiled(&[address], "", &metrics, None).expect("compiles"));
    let (old, new, views) = (upstream(), upstream(), Views::default());
    let first = views.of(&old, 0);
    assert!(Arc::ptr_eq(&first, &views.of(&old, 0)));
    let second = views.of(&new, 0);
    assert!(!Arc::ptr_eq(&first, &second));
    views.tidy();
    assert!(Arc::ptr_eq(&second, &views.of(&new, 0)));
}
