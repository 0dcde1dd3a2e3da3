//! Idle HTTP/1 connections rest after a second: their buffers go, and nobody notices.

use std::time::Duration;

use rustix::process::Signal;

use super::harness::secure::{self, Tls};
use super::harness::{Gateway, Raw, eventually};

/// What a connection at rest may hold, in KiB.
const MOST: u64 = 10;
/// Longer than a connection is idle before it rests.
const WHILE: Duration = Duration::from_millis(1300);

/// A gateway with one answer of its own, without and with TLS.
fn start(limits: &str) -> Gateway {
    let dir = tempfile::tempdir().expect("a folder");
    secure::pair(&["t.test"]).write(dir.path(), "a");
    let config = format!(
        "[server]\nworkers = 1\ndrain = {{ delay = \"0s\", timeout = \"20s\" }}\n\
         [admin]\naddress = \"127.0.0.1:0\"\n[log]\naccess = {{ to = \"off\" }}\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\nlimits = {{ {limits} }}\n\
         [listeners.tls]\naddress = \"127.0.0.1:0\"\nlimits = {{ {limits} }}\n\
         tls = {{ certificates = [{{ cert = \"a.crt\", key = \"a.key\" }}] }}\n\
         [[routes]]\nid = \"all\"\nrespond = {{ body = \"hello\" }}\n"
    );
    std::fs::write(dir.path().join("weir.toml"), config).expect("a config");
    Gateway::run_in(dir)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: t.test\r\n\r\n";

fn asks(raw: &mut Raw) {
    assert_eq!(raw.response().body, b"hello");
}

fn tls(gateway: &Gateway) -> Tls {
    let config = secure::config(&["http/1.1"], None);
    secure::connect(gateway.addr("tls"), "t.test", &config).expect("TLS")
}

#[test]
fn a_connection_that_rested_goes_on_where_it_was() {
    let mut gateway = start("");
    let mut whole = Raw::connect(gateway.web());
    let mut split = Raw::connect(gateway.web());
    let mut piped = Raw::connect(gateway.web());
    let mut secret = tls(&gateway);
    for raw in [&mut whole, &mut split, &mut piped] {
        asks(raw.send(GET));
    }
    secure::get(&mut secret, "t.test").expect("an answer");
    for _ in 0..2 {
        std::thread::sleep(WHILE);
        asks(whole.send(GET));
        split.send(&GET[..20]);
        piped.send(GET.repeat(3));
        (0..3).for_each(|_| asks(&mut piped));
        asks(split.send(&GET[20..]));
        secure::get(&mut secret, "t.test").expect("an answer");
    }
    gateway.assert_sound();
}

#[test]
fn a_connection_at_rest_holds_little() {
    const COUNT: u64 = 400;
    let gateway = start("");
    let open = || {
        let mut raw = Raw::connect(gateway.web());
        asks(raw.send(GET));
        raw
    };
    let secretly = || {
        let mut secret = tls(&gateway);
        secure::get(&mut secret, "t.test").expect("an answer");
        secret
    };
    // what the first ones bring along stays
    drop((0..COUNT).map(|_| (open(), secretly())).collect::<Vec<_>>());
    gateway.wait_idle();
    let before = gateway.rss();
    let plain: Vec<_> = (0..COUNT).map(|_| open()).collect();
    eventually("they rest", || gateway.rss() < before + COUNT * MOST);
    let with = gateway.rss();
    let secret: Vec<_> = (0..COUNT).map(|_| secretly()).collect();
    eventually("they rest", || gateway.rss() < with + COUNT * 2 * MOST);
    drop((plain, secret));
    gateway.wait_idle();
}

#[test]
fn a_connection_at_rest_ends_when_the_client_goes_or_its_time_is_over() {
    let gateway = start("idle_timeout = \"2s\"");
    let mut stays = Raw::connect(gateway.web());
    let mut goes = Raw::connect(gateway.web());
    let mut secret = tls(&gateway);
    for raw in [&mut stays, &mut goes] {
        asks(raw.send(GET));
    }
    secure::get(&mut secret, "t.test").expect("an answer");
    std::thread::sleep(WHILE);
    goes.finish();
    assert!(goes.closed_within(Duration::from_millis(500)));
    assert!(stays.closed_within(Duration::from_secs(3)));
    gateway.wait_idle();
}

#[test]
fn a_drain_ends_connections_at_rest_politely() {
    let mut gateway = start("");
    let mut silent = Raw::connect(gateway.web());
    let mut late = Raw::connect(gateway.web());
    asks(silent.send(GET));
    asks(late.send(GET));
    std::thread::sleep(WHILE);
    gateway.signal(Signal::TERM);
    // one was on its way already; which of them is the last is the gateway's to say
    loop {
        let answer = late.send(GET).response();
        assert_eq!(answer.body, b"hello");
        if answer.get("connection") == Some("close") {
            break;
        }
    }
    assert!(silent.closed_within(Duration::from_secs(5)));
    assert!(gateway.exit(Duration::from_secs(10)).success());
}
