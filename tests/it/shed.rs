//! Shedding by priority while the process is short of something.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::harness::{Gateway, Raw, client, eventually};

/// Routes of each priority that answer by themselves.
fn config(shed: &str) -> String {
    let route = |id: &str, more: &str| {
        format!(
            "[[routes]]\nid = \"{id}\"\nmatch = {{ path = \"/{id}\" }}\n{more}\
             respond = {{ body = \"{id}\" }}\n"
        )
    };
    format!(
        "[server]\nworkers = 2\nshed = {shed}\n\
         drain = {{ delay = \"0s\", timeout = \"10s\" }}\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\nlimits = {{ header_timeout = \"60s\" }}\n\
         {}{}{}",
        route("low", "priority = \"low\"\n"),
        route("usual", ""),
        route("high", "priority = \"high\"\n"),
    )
}

/// Connections enough that the reserve the listeners keep is a small part of what is open.
fn crowd(gateway: &Gateway) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect(gateway.web()).expect("it listens");
    let crowd = (0..200).map(connect).collect();
    eventually("all are let in", || gateway.descriptors() > 220);
    crowd
}

/// Changes the limit so that `share` of the gateway's descriptors are open.
fn grant(gateway: &Gateway, share: f64) {
    let limit = Rlimit {
        current: Some((gateway.descriptors() as f64 / share) as u64),
        // a child has what we have
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(pid(gateway), Resource::Nofile, limit).expect("it is our child");
}

fn pid(gateway: &Gateway) -> Option<Pid> {
    i32::try_from(gateway.pid()).ok().and_then(Pid::from_raw)
}

/// How many of 40 requests are answered with 200.
fn good(gateway: &Gateway, path: &str) -> usize {
    let statuses = (0..40).map(|_| client::get(gateway.web(), path).status());
    statuses.filter(|status| *status == 200).count()
}

const DESCRIPTORS: &str = "{ descriptors = 0.3, lag = \"60s\" }";

#[test]
fn short_of_descriptors_low_priority_is_shed_then_half_of_the_usual_and_no_high() {
    let mut gateway = Gateway::start_bare(&config(DESCRIPTORS));
    assert_eq!((good(&gateway, "/low"), good(&gateway, "/usual")), (40, 40));
    // From 0.3 to 1 in three parts: 0.6 is within the second.
    let _crowd = crowd(&gateway);
    grant(&gateway, 0.62);
    eventually("low is shed", || {
        client::get(gateway.web(), "/low").status() == 503
    });
    eventually("all low is shed", || good(&gateway, "/low") == 0);
    let usual = good(&gateway, "/usual");
    assert!((5..=38).contains(&usual), "{usual} of 40");
    assert_eq!(good(&gateway, "/high"), 40);
    let shed = |p: &str| {
        gateway.metric(&format!(
            "weir_shed_total{{priority=\"{p}\",cause=\"descriptors\"}}"
        ))
    };
    assert!(shed("low") >= 40.0 && shed("normal") > 0.0);
    assert_eq!(shed("high"), 0.0);
    let pressure = gateway.metric("weir_pressure_ratio{cause=\"descriptors\"}");
    assert!((0.5..0.75).contains(&pressure), "{pressure}");
    let refused = client::get(gateway.web(), "/low");
    assert!(refused.get("retry-after").is_some());
    assert_eq!(
        gateway.ask_admin("/readyz").status(),
        200,
        "the operator is never shed"
    );
    let status: serde_json::Value =
        serde_json::from_slice(&gateway.ask_admin("/status").body).expect("JSON");
    assert_eq!(status["workers"][0]["shed_cause"], "descriptors");
    // It lets go slowly, and first of the usual.
    grant(&gateway, 0.1);
    eventually("low is served again", || {
        client::get(gateway.web(), "/low").status() == 200
    });
    gateway.assert_sound();
}

#[test]
fn short_of_memory_the_same_holds() {
    let machine = std::fs::read_to_string("/proc/meminfo").expect("a kernel");
    let total = machine.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let total = total.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    let total = total.expect("so much memory") * 1024.0;
    let gateway = Gateway::start_bare(&config("{ memory = 0.0000001, lag = \"60s\" }"));
    // Of a machine's whole memory it is a small share, and so is what it sheds.
    let used = gateway.rss() as f64 * 1024.0 / total;
    eventually("the pressure is told", || {
        gateway.metric("weir_pressure_ratio{cause=\"memory\"}") >= used * 0.9
    });
    eventually("some of low is shed", || {
        good(&gateway, "/low");
        gateway.metric("weir_shed_total{priority=\"low\",cause=\"memory\"}") > 0.0
    });
    assert_eq!(good(&gateway, "/high"), 40);
}

#[test]
fn a_worker_that_has_more_work_than_time_sheds_low_priority_and_never_high() {
    let gateway = Gateway::start_bare(&config("{ lag = \"1ms\" }"));
    let (web, over) = (gateway.web(), Arc::new(AtomicBool::new(false)));
    let crowds = (0..3).map(|_| {
        let over = over.clone();
        std::thread::spawn(move || {
            let mut crowd: Vec<Raw> = (0..40).map(|_| Raw::connect(web)).collect();
            while !over.load(SeqCst) {
                for one in &mut crowd {
                    one.send("GET /low HTTP/1.1\r\nHost: t.test\r\n\r\n");
                }
                crowd.iter_mut().for_each(|one| drop(one.response()));
            }
        })
    });
    let crowds: Vec<_> = crowds.collect();
    let shed = |p: &str| {
        gateway.metric(&format!(
            "weir_shed_total{{priority=\"{p}\",cause=\"lag\"}}"
        ))
    };
    eventually("low is shed", || shed("low") > 0.0);
    assert_eq!(good(&gateway, "/high"), 40);
    over.store(true, SeqCst);
    crowds.into_iter().for_each(|c| c.join().expect("no panic"));
    assert_eq!(shed("high"), 0.0);
}

#[test]
fn shedding_that_observes_counts_and_one_that_is_off_does_nothing() {
    let observing = DESCRIPTORS.replace('}', ", mode = \"observe\" }");
    let gateway = Gateway::start_bare(&config(&observing));
    let _crowd = crowd(&gateway);
    grant(&gateway, 0.62);
    let observed = "weir_observed_total{route=\"low\",reason=\"shed\"}";
    eventually("it is counted", || {
        assert_eq!(good(&gateway, "/low"), 40);
        gateway.metric(observed) > 0.0
    });
    assert_eq!(gateway.metric_sum("weir_shed_total{"), 0.0);
    let off = Gateway::start_bare(&config("false"));
    let _more = crowd(&off);
    grant(&off, 0.7);
    eventually("the pressure is told all the same", || {
        off.metric("weir_pressure_ratio{cause=\"descriptors\"}") > 0.5
    });
    assert_eq!(good(&off, "/low"), 40);
}

#[test]
fn a_shed_request_gets_its_ladder() {
    let ladder = "priority = \"low\"\nfallback = [{ respond = { status = 200, body = \"less\" }, on = [\"shed\"] }]\n";
    let config = config(DESCRIPTORS).replace("priority = \"low\"\n", ladder);
    let gateway = Gateway::start_bare(&config);
    let _crowd = crowd(&gateway);
    grant(&gateway, 0.7);
    eventually("it is degraded", || {
        client::get(gateway.web(), "/low").text() == "less"
    });
    // each worker looks for itself
    eventually("every worker says so", || {
        (0..20).all(|_| {
            let answer = client::get(gateway.web(), "/low");
            answer.get("weir-degraded") == Some("reason=shed; step=respond")
        })
    });
}

#[test]
fn a_reload_moves_the_thresholds() {
    let gateway = Gateway::start_bare(&config("false"));
    let _crowd = crowd(&gateway);
    grant(&gateway, 0.62);
    assert_eq!(good(&gateway, "/low"), 40);
    std::fs::write(gateway.config_path(), config(DESCRIPTORS)).expect("a config");
    assert_eq!(gateway.reload().0, 200);
    eventually("all low is shed", || good(&gateway, "/low") == 0);
    std::fs::write(gateway.config_path(), config("false")).expect("a config");
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(good(&gateway, "/low"), 40);
}
