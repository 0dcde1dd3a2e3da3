//! Circuit breakers of single endpoints, through the real gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::breaker::{ALONE, bad, refusals, until_open};
use super::harness::client::get;
use super::harness::gateway::before;
use super::harness::origin::ok;
use super::harness::{Gateway, Origin, Raw, eventually};

/// Two endpoints, one of which fails: it is left out although the panic threshold asks for all,
/// and gets its share again once it is well. With both open nobody is asked.
#[test]
fn an_endpoint_that_fails_is_left_out_and_taken_back() {
    let ill = Arc::new([AtomicBool::new(true), AtomicBool::new(false)]);
    let start = |n: usize| {
        let ill = ill.clone();
        Origin::start(move |_, _| match ill[n].load(SeqCst) {
            true => bad(),
            false => ok("well"),
        })
    };
    let (a, b) = (start(0), start(1));
    let more = format!(
        "{ALONE}panic_threshold = 100\n\
         endpoint_breaker = {{ consecutive = 2, open_for = \"300ms\", half_open = 2 }}"
    );
    let config = before(a.address, &more);
    let both = format!("\"{}\", \"{}\"", a.address, b.address);
    let config = config.replace(&format!("\"{}\"", a.address), &both);
    let mut gateway = Gateway::start(&config);
    let bads = (0..100).filter(|_| get(gateway.web(), "/").status() == 500);
    let bads = bads.count();
    assert!((2..=20).contains(&bads), "{bads}");
    let log = gateway.stderr();
    assert!(
        log.contains("breaker opened") && log.contains(&a.address.to_string()),
        "{log}"
    );

    ill[0].store(false, SeqCst);
    a.clear();
    eventually("it has its share again", || {
        get(gateway.web(), "/");
        a.requests().len() > 20
    });

    ill.iter().for_each(|i| i.store(true, SeqCst));
    until_open(&gateway);
    assert!(refusals(&gateway) >= 1.0);
    ill.iter().for_each(|i| i.store(false, SeqCst));
    eventually("both are back", || {
        get(gateway.web(), "/");
        let healthy = "weir_upstream_endpoints{upstream=\"o\",state=\"healthy\"}";
        gateway.metric(healthy) == 2.0 && get(gateway.web(), "/").status() == 200
    });
    gateway.assert_sound();
}

/// The same as of a whole upstream, of one endpoint whose breaker is its own.
#[test]
fn m08_of_all_that_wait_for_an_endpoint_only_the_probes_reach_it() {
    let (ill, lets) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicBool::new(false)),
    );
    let (is_ill, opens) = (ill.clone(), lets.clone());
    let origin = Origin::start(move |_, _| {
        if is_ill.load(SeqCst) {
            return bad();
        }
        eventually("the test lets the probes be answered", || {
            opens.load(SeqCst)
        });
        ok("well")
    });
    let breaker = "endpoint_breaker = { consecutive = 2, open_for = \"1s\", half_open = 3 }\n";
    let gateway = Gateway::before(origin.address, &format!("{ALONE}{breaker}"));
    until_open(&gateway);
    ill.store(false, SeqCst);
    origin.clear();
    let request = "GET / HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n\r\n";
    let mut first = Raw::connect(gateway.web());
    eventually("its time is over, and one probes", || {
        if origin.requests().is_empty() {
            first = Raw::connect(gateway.web());
            first.send(request);
        }
        !origin.requests().is_empty()
    });
    let before = refusals(&gateway);
    let mut clients: Vec<Raw> = (0..300).map(|_| Raw::connect(gateway.web())).collect();
    clients.iter_mut().for_each(|c| _ = c.send(request));
    eventually("all but the probes are refused", || {
        refusals(&gateway) - before >= 297.0
    });
    lets.store(true, SeqCst);
    let answers: Vec<u16> = clients.iter_mut().map(|c| c.response().status()).collect();
    let good = answers.iter().filter(|status| **status == 200).count();
    assert!(good <= 3, "{good} reached it");
    assert!(origin.requests().len() <= 3);
    eventually("it is closed", || get(gateway.web(), "/").status() == 200);
}
