//! H: clients that are slow, silent or too many.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use super::harness::gateway::before;
use super::harness::{Gateway, Origin, Raw, Reply, client, eventually, origin};

const GET: &str = "GET / HTTP/1.1\r\nHost: t.test\r\n\r\n";

/// Before an origin, with these limits of the listener.
fn limited(origin: &Origin, limits: &str) -> Gateway {
    let listener = format!("[listeners.web]\nlimits = {{ {limits} }}");
    Gateway::start(&before(origin.address, "").replacen("[listeners.web]", &listener, 1))
}

#[test]
fn h01_h02_h04_silence_and_slow_heads_end_at_the_header_timeout() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "header_timeout = \"400ms\"");
    for bytes in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
        "GET / HTTP/1.1\r\nHost: t.test\r\n",
    ] {
        let mut raw = Raw::connect(gateway.web());
        raw.send(bytes);
        raw.rest(Duration::from_secs(3));
        let begun = Instant::now();
        assert!(raw.closed_within(Duration::from_secs(1)), "{bytes:?}");
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
    let mut drip = Raw::connect(gateway.web());
    let begun = Instant::now();
    drip.send("GET / HTTP/1.1\r\nHost: t.test\r\n");
    while drip.try_send("X-A: b\r\n").is_ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "more fields put it off"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(origin.requests().is_empty());
    gateway.wait_idle();
    gateway.assert_sound();
}

#[test]
fn h05_h06_slow_bodies_and_slow_readers_are_cut() {
    let origin = Origin::start(|request, _| match request.target() {
        "/large" => origin::ok(&"x".repeat(16 << 20)),
        _ => origin::echo(request),
    });
    let mut gateway = limited(
        &origin,
        "body_idle_timeout = \"400ms\", write_timeout = \"500ms\"",
    );
    let mut upload = Raw::connect(gateway.web());
    upload.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 1000000\r\n\r\nabc");
    let begun = Instant::now();
    let rest = upload.rest(Duration::from_secs(4));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    let idle = gateway.rss();
    let mut readers: Vec<Raw> = (0..3).map(|_| Raw::connect(gateway.web())).collect();
    for reader in &mut readers {
        reader.send("GET /large HTTP/1.1\r\nHost: t.test\r\n\r\n");
    }
    gateway.wait_idle();
    assert!(
        gateway.rss().saturating_sub(idle) < 24 << 10,
        "{} KiB",
        gateway.rss().saturating_sub(idle)
    );
    eventually("upstream connections are not held", || {
        gateway.metric("weir_upstream_in_flight{upstream=\"o\"}") == 0.0
    });
    assert_eq!(client::get(gateway.web(), "/").status(), 200);
    gateway.assert_sound();
}

#[test]
fn h08_two_hundred_idle_connections_are_cheap_and_all_still_serve() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "idle_timeout = \"60s\"");
    let before = gateway.rss();
    let mut all: Vec<Raw> = (0..200).map(|_| Raw::connect(gateway.web())).collect();
    for raw in &mut all {
        assert_eq!(raw.send(GET).response().status(), 200);
    }
    let each = gateway.rss().saturating_sub(before) / 200;
    assert!(each < 80, "{each} KiB for each");
    for raw in &mut all {
        assert_eq!(raw.send(GET).response().status(), 200);
    }
    drop(all);
    gateway.wait_idle();
    gateway.assert_sound();
}

#[test]
fn h09_a_burst_fills_the_cap_and_no_more_and_no_worker_gets_most_of_it() {
    const CAP: usize = 20;
    const WORKERS: usize = 4;
    let origin = Origin::echo();
    let config = before(origin.address, "");
    let gateway = Gateway::start_bare(&format!(
        "[server]\nworkers = {WORKERS}\nmax_connections = {CAP}\n\
         [admin]\naddress = \"127.0.0.1:0\"\n{config}"
    ));
    let (mut open, mut held) = (0.0f64, 0.0f64);
    for _ in 0..3 {
        let clients: Vec<TcpStream> = (0..150)
            .map(|_| TcpStream::connect(gateway.web()).expect("the queue has room"))
            .collect();
        eventually("the cap is reached", || {
            gateway.metric_sum("weir_connections{") >= CAP as f64
        });
        let metrics = gateway.metrics();
        open = open.max(metrics["weir_connections{listener=\"web\"}"]);
        let workers = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("weir_worker_connections{"));
        held = workers.map(|(_, held)| *held).fold(held, f64::max);
        drop(clients);
        gateway.wait_idle();
    }
    // each worker may find the last place free at the same moment
    assert!(open < (CAP + WORKERS) as f64, "{open} are open");
    assert!(held <= (CAP / WORKERS + 4) as f64, "one holds {held}");
}

#[test]
fn an_empty_line_after_a_body_does_not_end_the_idle_time() {
    let origin = Origin::echo();
    let gateway = limited(&origin, "header_timeout = \"300ms\"");
    let mut raw = Raw::connect(gateway.web());
    let post = "POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 2\r\n\r\nhi\r\n";
    assert_eq!(raw.send(post).response().status(), 200);
    assert!(!raw.closed_within(Duration::from_millis(900)));
    assert_eq!(raw.send(GET).response().status(), 200);
    raw.send("\r\nGET");
    assert!(
        raw.closed_within(Duration::from_secs(3)),
        "a head has begun"
    );
}

/// Ticks of the CPU used so far; a hundred are a second.
fn ticks(gateway: &Gateway) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).expect("it runs");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("a name")
        .split(' ')
        .collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    number(12) + number(13)
}

#[test]
fn h09_without_descriptors_nothing_spins_others_keep_a_reserve_and_it_recovers() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).expect("a pid"));
    let old = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(gateway.descriptors() as u64 + 60),
        maximum: old.maximum,
    };
    let mut early = Raw::connect(gateway.web());
    assert_eq!(early.send(GET).response().status(), 200);
    prlimit(pid, Resource::Nofile, few).expect("a lower limit");
    let held: Vec<TcpStream> = (0..150)
        .map(|_| TcpStream::connect(gateway.web()).expect("it is queued"))
        .collect();
    eventually("descriptors are scarce", || {
        gateway.metric("weir_connections_refused_total{listener=\"web\",reason=\"descriptors\"}")
            > 0.0
    });
    let (begun, used) = (Instant::now(), ticks(&gateway));
    while begun.elapsed() < Duration::from_millis(1200) {
        assert_eq!(gateway.ask_admin("/healthz").status(), 200);
        early.send(GET.replace("GET", "DELETE"));
        assert_eq!(early.response().status(), 200, "upstreams are reached");
        std::thread::sleep(Duration::from_millis(100));
    }
    let share = (ticks(&gateway) - used) as f64 / 100.0 / begun.elapsed().as_secs_f64();
    assert!(share < 0.2, "{share} of a core");
    let lines = gateway.stderr().matches("cannot accept").count();
    assert!(
        (1..=8).contains(&lines),
        "{lines} lines:\n{}",
        gateway.stderr()
    );
    drop(held);
    let begun = Instant::now();
    assert_eq!(client::get(gateway.web(), "/").status(), 200);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    prlimit(pid, Resource::Nofile, old).expect("the old limit");
    gateway.assert_sound();
}

#[test]
fn h13_heads_without_end_take_no_more_than_they_may() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "header_bytes = \"16KiB\", header_timeout = \"3s\"");
    let before = gateway.rss();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: t.test\r\nX: {}",
        "a".repeat(400 << 10)
    );
    let mut all: Vec<Raw> = (0..100).map(|_| Raw::connect(gateway.web())).collect();
    for raw in &mut all {
        // refused before all of it is sent
        drop(raw.try_send(&head));
    }
    let grown = gateway.rss().saturating_sub(before);
    assert!(grown < 100 * 128, "{grown} KiB");
    for raw in &mut all {
        let rest = raw.rest(Duration::from_secs(4));
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 431"));
    }
    assert!(origin.requests().is_empty());
    gateway.wait_idle();
    gateway.assert_sound();
}

#[test]
fn h14_a_full_disk_costs_log_lines_and_no_request() {
    let origin = Origin::echo();
    let log = "[log]\naccess = { to = \"/dev/full\" }\n";
    let mut gateway = Gateway::start(&format!("{log}{}", before(origin.address, "")));
    let mut raw = Raw::connect(gateway.web());
    for _ in 0..200 {
        assert_eq!(raw.send(GET).response().status(), 200);
    }
    eventually("the loss is counted", || {
        gateway.metric("weir_access_log_dropped_total") >= 200.0
    });
    let lines = gateway
        .stderr()
        .matches("access-log lines are lost")
        .count();
    assert_eq!(lines, 1, "{}", gateway.stderr());
    let path = gateway.dir().join("access.log");
    let log = format!("[log]\naccess = {{ to = \"{}\" }}\n", path.display());
    gateway.write_config(&format!("{log}{}", before(origin.address, "")));
    assert_eq!(gateway.reload().0, 200);
    let lines = || {
        fs::read_to_string(&path)
            .unwrap_or_default()
            .lines()
            .count()
    };
    eventually("lines are written again", || {
        assert_eq!(raw.send(GET).response().status(), 200);
        lines() > 0
    });
    // rotation: moved away, then opened anew
    fs::rename(&path, gateway.dir().join("access.log.1")).expect("renamed");
    gateway.signal(Signal::HUP);
    eventually("the file is opened anew", || {
        assert_eq!(raw.send(GET).response().status(), 200);
        lines() > 0
    });
    gateway.assert_sound();
}

#[test]
fn h15_a_closed_stdout_ends_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, ready) = (dir.path().join("weir.toml"), dir.path().join("ready"));
    let config = "[server]\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
                  [log]\naccess = { to = \"stdout\" }\n[listeners.web]\naddress = \"127.0.0.1:0\"\n\
                  [[routes]]\nid = \"all\"\nrespond = { body = \"x\" }\n";
    fs::write(&path, config).expect("a config");
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", "--config"])
        .arg(&path)
        .arg("--ready-file")
        .arg(&ready)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    eventually("it is ready", || ready.exists());
    drop((child.stdout.take(), child.stderr.take()));
    let addresses: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&ready).expect("a file")).expect("JSON");
    let web = addresses["listeners"]["web"]
        .as_str()
        .expect("an address")
        .parse();
    let web = web.expect("an address");
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        assert_eq!(client::get(web, "/").text(), "x");
        std::thread::sleep(Duration::from_millis(20));
    }
    let gone = child.try_wait().expect("our child");
    drop(child.kill());
    drop(child.wait());
    assert_eq!(gone, None);
}

#[test]
fn h18_a_process_that_was_stopped_goes_on_where_it_was() {
    let origin = Origin::echo();
    let mut gateway = Gateway::before(origin.address, "");
    let mut raws: Vec<Raw> = (0..10).map(|_| Raw::connect(gateway.web())).collect();
    for raw in &mut raws {
        assert_eq!(raw.send(GET).response().status(), 200);
    }
    gateway.signal(Signal::STOP);
    for raw in &mut raws {
        raw.send(GET);
    }
    std::thread::sleep(Duration::from_millis(1200));
    gateway.signal(Signal::CONT);
    let begun = Instant::now();
    for raw in &mut raws {
        assert_eq!(raw.response().status(), 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(origin.requests().len(), 20);
    gateway.assert_sound();
}

#[test]
fn h19_hosts_and_paths_of_clients_make_no_series() {
    let origin = Origin::echo();
    let sections = (0..200).map(|n| {
        format!(
            "[upstreams.u{n}]\nendpoints = [\"{}\"]\n[[routes]]\nid = \"r{n}\"\n\
             match = {{ host = \"h{n}.test\" }}\nupstream = \"u{n}\"\n",
            origin.address
        )
    });
    let config: String = sections.collect();
    let mut gateway = Gateway::start(&format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n{config}"
    ));
    let mut raw = Raw::connect(gateway.web());
    let mut ask = |n: usize| {
        raw.send(format!(
            "GET /p{n} HTTP/1.1\r\nHost: h{}.test\r\n\r\n",
            n % 4000
        ));
        raw.response().status()
    };
    for n in 0..100 {
        ask(n + 150);
    }
    let (series, rss) = (gateway.metrics().len(), gateway.rss());
    for n in 0..3000 {
        assert!(matches!(ask(n + 200), 404));
    }
    assert!(gateway.metrics().len() <= series + 2);
    assert!(gateway.rss().saturating_sub(rss) < 12 << 10);
    gateway.assert_sound();
}

#[test]
fn h20_connections_that_come_and_go_leave_nothing() {
    let origin = Origin::start(|_, _| {
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let mut gateway = Gateway::before(origin.address, "");
    let churn = |count: usize| {
        for n in 0..count {
            let mut raw = Raw::connect(gateway.web());
            match n % 4 {
                0 => assert_eq!(raw.send(GET).response().status(), 200),
                1 => drop(raw.try_send("GET / HT")),
                2 => drop(raw.try_send(GET)),
                _ => {}
            }
            if n % 2 == 0 {
                let socket = socket2::SockRef::from(raw.stream());
                socket.set_linger(Some(Duration::ZERO)).expect("linger");
            }
        }
        gateway.wait_idle();
    };
    churn(200);
    let (descriptors, rss) = (gateway.descriptors(), gateway.rss());
    churn(1000);
    eventually("descriptors are given back", || {
        gateway.descriptors() <= descriptors + 4
    });
    assert!(gateway.rss().saturating_sub(rss) < 12 << 10);
    gateway.assert_sound();
}
