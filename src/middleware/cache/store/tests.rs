//! The store by itself: its bound, what it lets go, and that nothing purged comes back.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Method, StatusCode};

use super::super::entry::{Head, MOST_VARIANTS, Pieces, Variant};
use super::super::flight::{Seat, Stage};
use super::super::key::KeyPlan;
use super::super::policy::{Received, Settings, Stated, Terms};
use super::super::stamps::About;
use super::super::tags;
use super::*;
use crate::message::Body;
use crate::problem::Problems;

const VARY: &[(&str, &str)] = &[("vary", "x-v"), ("cache-control", "max-age=60")];

fn store(memory: u64) -> Arc<Store> {
    Arc::new(Store::new(memory, Arc::default()))
}

fn key(store: &Store, target: &str) -> Key {
    let plan = KeyPlan::compile("r", None, None, &mut Problems::new()).expect("a plan");
    let mut request = Box::new(http::Request::new(Body::empty()));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target.parse().expect("a target");
    plan.of(&request, "http", &store.secrets)
}

fn asked(variant: &str) -> HeaderMap {
    let value = HeaderValue::from_str(variant).expect("a value");
    HeaderMap::from_iter([(http::HeaderName::from_static("x-v"), value)])
}

fn entry(store: &Store, url: &str, variant: &str, size: usize) -> Arc<Entry> {
    let now = clock::now();
    entry_of(store, url, variant, size, now)
}

fn entry_of(store: &Store, url: &str, variant: &str, size: usize, now: Instant) -> Arc<Entry> {
    let fields = VARY.iter().map(|(name, value)| {
        let name = http::HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    let fields: HeaderMap = fields.collect();
    let received = Received {
        asked: now,
        came: now,
        wall: SystemTime::UNIX_EPOCH,
    };
    let stated = Stated::read(&fields);
    let mark = tags::of_url(&store.secrets, url);
    let head = Head {
        status: StatusCode::OK,
        terms: Terms::new(
            StatusCode::OK,
            &fields,
            &stated,
            received,
            &Settings::default(),
        ),
        came: received.wall,
        for_whom: Variant::of(&fields, &asked(variant)).expect("it may vary"),
        about: About::new(url.into(), [mark].into(), store.epoch()),
        targeted: false,
        fields,
    };
    let body = Pieces::of(vec![Bytes::from(vec![7; size])]);
    Arc::new(Entry::new(Arc::new(head), body))
}

fn put(store: &Store, target: &str, variant: &str, size: usize) {
    store.store(&key(store, target), &entry(store, target, variant, size));
}

fn has(store: &Store, target: &str, variant: &str) -> bool {
    store
        .find(&key(store, target), &asked(variant))
        .entry
        .is_some()
}

#[test]
fn i10_variants_of_a_key_are_found_replaced_and_capped() {
    let store = store(64 << 20);
    for n in 0..200 {
        put(&store, "/", &n.to_string(), 10);
    }
    let kept = (0..200).filter(|n| has(&store, "/", &n.to_string()));
    assert_eq!(
        kept.collect::<Vec<_>>(),
        (200 - MOST_VARIANTS..200).collect::<Vec<_>>()
    );
    put(&store, "/", "199", 20);
    let found = store
        .find(&key(&store, "/"), &asked("199"))
        .entry
        .expect("stored");
    assert_eq!(found.body.len(), 20);
    let object = store.find(&key(&store, "/"), &asked("other"));
    assert!(
        object.entry.is_none() && object.object.expect("others").entries.len() == MOST_VARIANTS
    );
}

#[test]
fn one_key_never_takes_more_than_its_share() {
    let store = store(8 << 20);
    for n in 0..20 {
        put(&store, "/", &n.to_string(), 200 << 10);
        let object = store
            .find(&key(&store, "/"), &asked("-"))
            .object
            .expect("stored");
        assert!(
            object.weight() <= (8 << 20) / SHARE + 4_096,
            "{}",
            object.weight()
        );
    }
    assert!(has(&store, "/", "19") && !has(&store, "/", "0"));
}

#[test]
fn i29_a_scan_stays_within_the_bound_and_leaves_what_is_asked_for_often() {
    let memory = 4 << 20;
    let store = store(memory);
    let hot: Vec<String> = (0..200).map(|n| format!("/hot/{n}")).collect();
    for target in &hot {
        put(&store, target, "-", 1_024);
        store.shelf.tidy();
    }
    for round in 0..20_000 {
        has(&store, &hot[round % hot.len()], "-");
        let cold = format!("/cold/{round}");
        has(&store, &cold, "-");
        put(&store, &cold, "-", 1_024);
        if round % 16 == 0 {
            store.shelf.tidy();
        }
    }
    store.shelf.tidy();
    let (objects, bytes) = store.size();
    assert!(bytes <= memory + memory / 10, "{bytes} in {objects}");
    let kept = hot.iter().filter(|target| has(&store, target, "-")).count();
    assert!(kept >= hot.len() * 9 / 10, "{kept} of {}", hot.len());
    assert!(store.cells.evictions[Evicted::Size as usize].get() > 10_000);
}

#[tokio::test]
async fn i30_what_is_purged_is_gone_at_once_and_its_memory_after_a_sweep() {
    let store = store(64 << 20);
    for n in 0..1_000 {
        put(&store, &format!("/{}/{n}", n % 10), "-", 10);
    }
    let old = entry(&store, "/3/new", "-", 10);
    store.shelf.tidy();
    store.purge(Purge::Prefix("/3/".into()), Purged::Prefix);
    assert!(!has(&store, "/3/3", "-") && has(&store, "/4/4", "-"));
    store.store(&key(&store, "/3/new"), &old);
    assert!(
        !has(&store, "/3/new", "-"),
        "it was fetched before the purge"
    );
    store.sweep().await;
    store.shelf.tidy();
    assert_eq!(store.size().0, 900);
    put(&store, "/3/3", "-", 10);
    assert!(has(&store, "/3/3", "-"), "it was fetched after the purge");
    store.purge(Purge::All, Purged::All);
    assert!(!has(&store, "/4/4", "-"));
    store.sweep().await;
    store.shelf.tidy();
    assert_eq!(store.size(), (0, 0));
}

#[tokio::test]
async fn an_answer_is_found_from_its_last_byte_on_whenever_it_comes_to_be_stored() {
    let store = store(64 << 20);
    let (key, url) = (key(&store, "/"), "h/");
    let about = || About::new(url.into(), Box::default(), store.epoch());
    let board = || {
        store
            .flights
            .board(&key, 1, None, |about| store.is_alive(about), about)
    };
    let Seat::Leader(flight) = board() else {
        panic!("nobody else is there");
    };
    assert!(matches!(board(), Seat::Waiter(_)) && store.holds(&key));
    let entry = entry(&store, url, "-", 10);
    store.put(
        key.clone(),
        Arc::clone(&entry),
        Arc::clone(&flight),
        Source::Fetched,
    );
    assert!(matches!(flight.stage(), Stage::Landed(..)));
    let found = || store.find(&key, &asked("-")).entry.expect("it is there");
    assert!(Arc::ptr_eq(&found(), &entry));
    assert_eq!(store.size().0, 0, "nobody has stored it yet");
    let task = tokio::spawn(Arc::clone(&store).housekeeping());
    while store.flights.any(&key) {
        tokio::task::yield_now().await;
    }
    assert!(Arc::ptr_eq(&found(), &entry));
    store.purge(Purge::All, Purged::All);
    assert!(store.find(&key, &asked("-")).entry.is_none());
    task.abort();
}

#[test]
fn i30_nobody_boards_for_an_answer_whose_tag_was_purged_before_it_was_stored() {
    let store = store(64 << 20);
    let board = |key: &Key| {
        let about = || About::new("h/".into(), [1].into(), store.epoch());
        store
            .flights
            .board(key, 0, None, |about| store.is_alive(about), about)
    };
    let key = key(&store, "/");
    let Seat::Leader(flight) = board(&key) else {
        panic!("the first");
    };
    let entry = entry(&store, "tag", "v", 10);
    store.put(key.clone(), entry, flight, Source::Fetched);
    assert!(matches!(board(&key), Seat::Waiter(_)));
    let mark = tags::of_url(&store.secrets, "tag");
    store.purge(Purge::Mark(mark), Purged::Tag);
    assert!(matches!(board(&key), Seat::Leader(_)));
}

#[tokio::test(start_paused = true)]
async fn what_nothing_can_be_done_with_is_let_go_as_expired() {
    let store = store(1 << 20);
    let evicted = |why: Evicted| store.cells.evictions[why as usize].get();
    let born = clock::now();
    for variant in ["old", "new"] {
        let wait = if variant == "new" { 50 } else { 0 };
        tokio::time::advance(Duration::from_secs(wait)).await;
        put(&store, "/", variant, 10);
    }
    // Fresh for a minute, and ten seconds more for an origin that cannot be reached.
    tokio::time::advance(born + Duration::from_secs(70) - clock::now()).await;
    store.look(key(&store, "/").hash());
    assert!(has(&store, "/", "old"));
    tokio::time::advance(Duration::from_secs(1)).await;
    store.look(key(&store, "/").hash());
    assert!(!has(&store, "/", "old") && has(&store, "/", "new"));
    assert_eq!(
        (evicted(Evicted::Expired), evicted(Evicted::Purged)),
        (1, 0)
    );
}

/// Half of the requests go to 400 objects, the other half to 20,000, and there is room for 600: of the
/// 400, LRU would have six in ten.
#[test]
fn i29_what_is_asked_for_often_stays_however_much_is_asked_for_once() {
    const OBJECTS: u64 = 20_000;
    let store = store(2 << 20);
    let chance = crate::chance::Chance::seeded(1);
    let (mut hits, mut asked_for) = (0, 0);
    for round in 0..60_000 {
        let popular = chance.below(2) == 0;
        let number = chance.below(if popular { 400 } else { OBJECTS });
        let target = format!("/{number}");
        let there = has(&store, &target, "a");
        if popular && round > 20_000 {
            asked_for += 1;
            hits += u64::from(there);
        }
        if !there {
            put(&store, &target, "a", 2000);
        }
        if round % 32 == 0 {
            store.shelf.tidy();
        }
    }
    store.shelf.tidy();
    let (objects, weight) = store.size();
    assert!(
        weight <= store.memory() && objects > 300,
        "{objects} objects, {weight} bytes"
    );
    assert!(hits * 100 > asked_for * 95, "{hits} of {asked_for}");
}
