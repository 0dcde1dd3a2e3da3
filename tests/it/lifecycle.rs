//! O: start, end, and what is under way then.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::gateway::before;
use super::harness::{Gateway, Origin, Raw, Reply, SOON, client, eventually, h2c, origin};

const GET: &str = "GET / HTTP/1.1\r\nHost: t.test\r\n\r\n";

/// A gateway with these drain times before an origin that answers `/slow` after a second.
fn start(delay: &str, timeout: &str) -> (Gateway, Origin) {
    let origin = Origin::start(|request, _| match request.target() {
        "/slow" => Reply::After(Duration::from_secs(1), Box::new(origin::ok("late"))),
        "/never" => Reply::After(Duration::from_secs(20), Box::new(origin::ok("never"))),
        "/ws" => Reply::Act(Box::new(|stream| {
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
            drop(stream.write_all(head.as_bytes()));
            drop(stream.read(&mut [0; 16]));
            false
        })),
        _ => origin::echo(request),
    });
    let gateway = Gateway::start_bare(&format!(
        "[server]\nworkers = 2\ndrain = {{ delay = \"{delay}\", timeout = \"{timeout}\" }}\n\
         [admin]\naddress = \"127.0.0.1:0\"\n{}upgrade = [\"x\"]\n",
        before(origin.address, "")
    ));
    (gateway, origin)
}

#[test]
fn o01_o03_unready_at_once_then_served_for_the_delay_then_closed_after_an_answer() {
    let (mut gateway, origin) = start("600ms", "10s");
    let web = gateway.web();
    let mut kept = Raw::connect(web);
    assert_eq!(kept.send(GET).response().get("connection"), None);
    let mut slow = Raw::connect(web);
    gateway.signal(Signal::TERM);
    eventually("it is unready", || {
        gateway.ask_admin("/readyz").status() == 503
    });
    assert_eq!(gateway.ask_admin("/healthz").status(), 200);
    assert_eq!(gateway.metric("weir_draining"), 1.0);
    assert_eq!(gateway.reload().0, 409);
    assert_eq!(
        client::get(web, "/").status(),
        200,
        "new clients are served meanwhile"
    );
    assert_eq!(kept.send(GET).response().get("connection"), None);
    slow.send("GET /slow HTTP/1.1\r\nHost: t.test\r\n\r\n");
    eventually("the listener closes", || TcpStream::connect(web).is_err());
    // sent when the gateway is about to close an idle connection: it waits a second for this
    let answer = kept.send(GET).response();
    assert_eq!(
        (answer.status(), answer.get("connection")),
        (200, Some("close"))
    );
    assert!(kept.closed_within(SOON));
    let answer = slow.response();
    assert_eq!(
        (answer.text().as_str(), answer.get("connection")),
        ("late", Some("close"))
    );
    assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
    assert_eq!(origin.bad(), Vec::<String>::new());
}

#[test]
fn o02_streams_that_were_taken_finish_after_the_goaway() {
    let (mut gateway, _origin) = start("0s", "10s");
    let web = gateway.web();
    let stream = std::thread::spawn(move || h2c::download(web, "/slow"));
    eventually("it is under way", || {
        gateway.metric("weir_requests_in_flight{route=\"all\"}") == 1.0
    });
    gateway.signal(Signal::TERM);
    assert_eq!(stream.join().expect("it was answered"), 4);
    assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
}

#[test]
fn o04_tunnels_end_in_the_second_half_of_the_drain() {
    let (mut gateway, _origin) = start("0s", "1s");
    let open = || {
        let mut raw = Raw::connect(gateway.web());
        raw.send("GET /ws HTTP/1.1\r\nHost: t.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        assert_eq!(raw.response().status(), 101);
        raw
    };
    let mut tunnels: Vec<Raw> = (0..4).map(|_| open()).collect();
    let begun = Instant::now();
    gateway.signal(Signal::TERM);
    for tunnel in &mut tunnels {
        assert!(tunnel.closed_within(Duration::from_secs(3)));
        assert!(
            begun.elapsed() > Duration::from_millis(450),
            "{:?}",
            begun.elapsed()
        );
    }
    assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
}

#[test]
fn o05_a_second_signal_ends_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let (mut gateway, origin) = start("5s", "20s");
        let mut raw = Raw::connect(gateway.web());
        raw.send("GET /never HTTP/1.1\r\nHost: t.test\r\n\r\n");
        eventually("it is under way", || origin.requests().len() == 1);
        gateway.signal(Signal::TERM);
        eventually("it drains", || gateway.ask_admin("/readyz").status() == 503);
        gateway.signal(second);
        assert_eq!(
            gateway.exit(Duration::from_secs(4)).code(),
            Some(0),
            "{}",
            gateway.stderr()
        );
        assert!(raw.closed_within(SOON));
        assert!(
            gateway.stderr().contains("a second signal"),
            "{}",
            gateway.stderr()
        );
    }
}

#[test]
fn the_last_lines_of_the_access_log_are_written_cut_requests_included() {
    for (timeout, cut) in [("5s", false), ("300ms", true)] {
        let origin = Origin::start(|request, _| match request.target() {
            "/never" => Reply::After(Duration::from_secs(20), Box::new(origin::ok("never"))),
            _ => origin::echo(request),
        });
        let mut gateway = Gateway::start_bare(&format!(
            "[server]\nworkers = 2\ndrain = {{ delay = \"0s\", timeout = \"{timeout}\" }}\n\
             [admin]\naddress = \"127.0.0.1:0\"\n[log]\naccess = {{ to = \"stdout\" }}\n{}",
            before(origin.address, "")
        ));
        let never = cut.then(|| {
            let mut raw = Raw::connect(gateway.web());
            raw.send("GET /never HTTP/1.1\r\nHost: t.test\r\n\r\n");
            eventually("it is under way", || origin.requests().len() == 1);
            raw
        });
        for _ in 0..5 {
            assert_eq!(client::get(gateway.web(), "/five").status(), 200);
        }
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
        let log = gateway.stdout();
        assert_eq!(log.matches("\"/five\"").count(), 5, "{log}");
        assert_eq!(log.matches("\"/never\"").count(), usize::from(cut), "{log}");
        drop(never);
    }
}

#[test]
fn o05_an_interrupt_skips_the_delay() {
    let (mut gateway, _origin) = start("20s", "5s");
    gateway.signal(Signal::INT);
    assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
}

#[test]
fn o06_a_request_that_outlasts_the_drain_is_cut_visibly() {
    let (mut gateway, origin) = start("0s", "400ms");
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET /never HTTP/1.1\r\nHost: t.test\r\n\r\n");
    eventually("it is under way", || origin.requests().len() == 1);
    gateway.signal(Signal::TERM);
    assert!(raw.closed_within(Duration::from_secs(4)));
    assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
    assert!(
        gateway.stderr().contains("has been cut"),
        "{}",
        gateway.stderr()
    );
}

#[test]
fn o07_after_a_kill_the_next_start_is_clean_on_the_same_port_and_log() {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port");
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("access.log");
    let config = format!(
        "[server]\nworkers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [log]\naccess = {{ to = \"{}\" }}\n[listeners.web]\naddress = \"{port}\"\n\
         [[routes]]\nid = \"all\"\nrespond = {{ body = \"x\" }}\n",
        log.display()
    );
    for _ in 0..3 {
        let mut gateway = Gateway::start_bare(&config);
        assert_eq!(client::get(gateway.web(), "/").text(), "x");
        gateway.signal(Signal::KILL);
        gateway.exit(SOON);
    }
    let mut gateway = Gateway::start_bare(&config);
    assert_eq!(client::get(gateway.web(), "/").text(), "x");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit(SOON).code(), Some(0));
    let text = std::fs::read_to_string(&log).expect("a log");
    let last: serde_json::Value =
        serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert!(last.is_object());
}

#[test]
fn o07_the_access_log_stands_beside_the_config_wherever_the_process_does() {
    let config = |name: &str| {
        format!(
            "[log]\naccess = {{ to = \"{name}\" }}\n[listeners.web]\naddress = \"127.0.0.1:0\"\n\
             [[routes]]\nid = \"all\"\nrespond = {{ body = \"x\" }}\n"
        )
    };
    let gateway = Gateway::start(&config("first.log"));
    let is_logged = |name: &str| {
        assert_eq!(client::get(gateway.web(), "/").text(), "x");
        let log = gateway.dir().join(name);
        eventually(name, || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"status\":200"))
        });
    };
    is_logged("first.log");
    gateway.write_config(&config("second.log"));
    assert_eq!(gateway.reload().0, 200);
    is_logged("second.log");
    // rotated away, and opened anew
    let first = gateway.dir().join("second.log");
    std::fs::rename(&first, gateway.dir().join("second.log.1")).expect("renamed");
    gateway.signal(Signal::HUP);
    eventually("it is opened anew", || first.exists());
    is_logged("second.log");
}

/// Runs a config that must not start: its exit code and what it said.
fn fails(config: Option<&str>) -> (Option<i32>, String) {
    fails_with(config, &[])
}

/// The same, with these variables in its environment.
fn fails_with(config: Option<&str>, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("weir.toml");
    if let Some(text) = config {
        std::fs::write(&path, text).expect("a config");
    }
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", "--config"])
        .arg(&path)
        .envs(env.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let most = Duration::from_secs(3);
    while begun.elapsed() < most && child.try_wait().expect("it is our child").is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(child.kill());
    let output = child.wait_with_output().expect("it ends");
    assert!(begun.elapsed() < most, "{:?}", begun.elapsed());
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn o12_what_cannot_start_ends_at_once_and_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("bound");
    let listen = |address: SocketAddr, more: &str| {
        format!(
            "[admin]\naddress = \"127.0.0.1:0\"\n[listeners.web]\naddress = \"{address}\"\n{more}\n\
             [[routes]]\nid = \"all\"\nrespond = {{}}\n"
        )
    };
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let tls = "tls = { certificates = [{ cert = \"none.crt\", key = \"none.key\" }] }";
    let admin = listen(any, "").replacen("127.0.0.1:0", &taken.to_string(), 1);
    for (config, why) in [
        (Some(listen(taken, "")), "cannot be bound"),
        (Some(admin), &*taken.to_string()),
        (Some(listen(any, tls)), "none.crt"),
        (None, "weir.toml"),
    ] {
        let (code, said) = fails(config.as_deref());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{why} is not in: {said}");
        assert!(
            !said.contains("panicked") && said.lines().count() < 20,
            "{said}"
        );
    }
}

#[test]
fn o12_a_log_that_cannot_be_said_or_written_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let fifo = dir.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).expect("a FIFO");
    let config = |to: &str| {
        format!(
            "[admin]\naddress = \"127.0.0.1:0\"\n[log]\naccess = {{ to = \"{to}\" }}\n\
             [listeners.web]\naddress = \"127.0.0.1:0\"\n[[routes]]\nid = \"all\"\nrespond = {{}}\n"
        )
    };
    let fifo = fifo.display().to_string();
    let shouting = [("WEIR_LOG", "weir=shouting")];
    for (to, env, why) in [
        ("off", &shouting[..], "WEIR_LOG"),
        (&fifo, &[], &fifo),
        ("no/such/folder/log", &[], "no/such/folder/log"),
    ] {
        let (code, said) = fails_with(Some(&config(to)), env);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{why} is not in: {said}");
    }
}

#[test]
fn o13_an_upstream_that_is_not_there_yet_is_used_once_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let more =
        "health = { path = \"/\", interval = \"100ms\", timeout = \"1s\", rise = 1, fall = 1 }";
    let mut gateway = Gateway::before(address, more);
    assert_eq!(gateway.ask_admin("/readyz").status(), 200);
    let early = client::get(gateway.web(), "/").status();
    assert!(matches!(early, 502 | 503), "{early}");
    let listener = TcpListener::bind(address).expect("the port is still free");
    let _origin = Origin::at(listener, |request, _| origin::echo(request));
    eventually("it is served", || {
        client::get(gateway.web(), "/").status() == 200
    });
    gateway.assert_sound();
}
