//! N: configuration and reload.

use std::fs;
use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::gateway::before;
use super::harness::{Gateway, Origin, Raw, Reply, SOON, client, eventually, origin};

/// What stands before the configs of [`Gateway::start`].
const PREAMBLE: &str = "[server]\nworkers = 2\ndrain = { delay = \"0s\", timeout = \"10s\" }\n\
                        [admin]\naddress = \"127.0.0.1:0\"\n";

/// A config that answers every request with a text of its own.
fn says(text: &str) -> String {
    format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n\
         [[routes]]\nid = \"all\"\nrespond = {{ body = \"{text}\" }}\n"
    )
}

fn said(web: SocketAddr) -> String {
    client::get(web, "/").text()
}

/// Waits until the gateway says this; how long it took.
fn comes(web: SocketAddr, text: &str) -> Duration {
    let begun = Instant::now();
    eventually(text, || said(web) == text);
    begun.elapsed()
}

fn generation(gateway: &Gateway) -> f64 {
    gateway.metric("weir_config_generation")
}

/// `weir check`: whether it is content, and what it says.
fn check(path: &Path) -> (bool, String) {
    let weir = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("check")
        .arg(path)
        .output()
        .expect("the binary runs");
    let text = [weir.stdout, weir.stderr].concat();
    (
        weir.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

fn applied(gateway: &Gateway, config: &str) -> serde_json::Value {
    gateway.write_config(config);
    let (status, report) = gateway.reload();
    assert_eq!(status, 200, "{report}");
    report
}

fn refused(gateway: &Gateway, config: &str) -> String {
    gateway.write_config(config);
    let (status, report) = gateway.reload();
    assert_eq!(status, 422, "{config}\n{report}");
    report["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn n01_a_file_that_is_no_config_is_refused_with_its_place_and_the_old_one_serves() {
    let mut gateway = Gateway::start(&says("good"));
    let nested = format!(
        "{}x = {}1{}\n",
        says("n"),
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    let bomb = format!("a = {{{}}}\n", "b = { c = 1 }, ".repeat(50_000));
    let texts: Vec<(&str, Vec<u8>, bool)> = vec![
        ("syntax", says("n").replace(']', "").into_bytes(), true),
        (
            "unknown key",
            format!("{}wrong = 1\n", says("n")).into_bytes(),
            true,
        ),
        ("type", says("n").replace("\"all\"", "7").into_bytes(), true),
        ("double", format!("{0}{0}", says("n")).into_bytes(), true),
        ("BOM", format!("\u{feff}{}", says("n")).into_bytes(), true),
        ("empty", Vec::new(), false),
        ("junk", (0..=255_u8).cycle().take(5000).collect(), true),
        ("NUL", b"\0\0\0\0".to_vec(), true),
        ("nesting", nested.into_bytes(), true),
        ("bomb", bomb.into_bytes(), true),
        ("large", vec![b'#'; 100 << 20], false),
        (
            "UTF-16",
            says("n")
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect(),
            true,
        ),
    ];
    let path = gateway.config_path();
    for (name, bytes, placed) in texts {
        fs::write(&path, &bytes).expect("a file");
        let (good, text) = check(&path);
        assert!(!good, "{name} was let through by check");
        let (status, report) = gateway.reload();
        let message = report["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (status, &report["outcome"]),
            (422, &"rejected".into()),
            "{name}: {message}"
        );
        assert!(
            !placed || (message.contains("weir.toml:") && text.contains("weir.toml:")),
            "{name}: {message}"
        );
        assert!(message.len() < 100_000, "{name}: {} bytes", message.len());
        assert_eq!(gateway.metric("weir_config_last_reload_success"), 0.0);
        assert_eq!(said(gateway.web()), "good", "{name}");
    }
    assert_eq!(generation(&gateway), 1.0);
    let text = format!("{PREAMBLE}{}", says("CRLF")).replace('\n', "\r\n");
    fs::write(&path, text).expect("a file");
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(said(gateway.web()), "CRLF");
    gateway.assert_sound();
}

#[test]
fn n02_what_is_wrong_in_meaning_is_refused_as_a_whole() {
    let mut gateway = Gateway::start(&says("good"));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("bound");
    let pair = |name: &str| {
        let made = rcgen::generate_simple_self_signed([format!("{name}.test")]).expect("made");
        fs::write(gateway.dir().join(format!("{name}.crt")), made.cert.pem()).expect("a file");
        let key = made.signing_key.serialize_pem();
        fs::write(gateway.dir().join(format!("{name}.key")), key).expect("a file");
    };
    pair("a");
    pair("b");
    let tls = |cert: &str, key: &str| {
        format!(
            "{}[listeners.tls]\naddress = \"127.0.0.1:0\"\n\
             tls = {{ certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}] }}\n",
            says("bad")
        )
    };
    let more = |text: &str| format!("{}{text}", says("bad"));
    let table = [
        more(&format!(
            "[listeners.x]\naddress = \"{taken}\"\n[listeners.y]\naddress = \"{taken}\"\n"
        )),
        more("[listeners.x]\naddress = \"127.0.0.1:70000\"\n"),
        more("[log]\naccess = { to = \"/no/such/folder/access.log\" }\n"),
        more("[listeners.x]\naddress = \"localhost:80\"\n"),
        more("[[routes]]\nid = \"r\"\nmatch = { path = \"/r\" }\nupstream = \"nobody\"\n"),
        more("[[routes]]\nid = \"r\"\nmatch = { path = \"/{r\" }\nrespond = {}\n"),
        more(
            "[[routes]]\nid = \"r\"\nmatch = { path = \"/r\" }\nrespond = { body = { file = \"none\" } }\n",
        ),
        more("[upstreams.u]\nendpoints = [\"host:0\"]\n"),
        more("[upstreams.u]\nendpoints = []\n"),
        more("[upstreams.u]\nendpoints = [\"a:1\"]\ntls = { ca = \"a.key\" }\n"),
        tls("none.crt", "a.key"),
        tls("a.crt", "b.key"),
        tls("a.key", "a.crt"),
    ];
    for config in &table {
        let message = refused(&gateway, config);
        assert!(
            message.contains("--> ") && message.contains('^'),
            "{config}\n{message}"
        );
        assert_eq!(said(gateway.web()), "good", "{config}");
    }
    assert_eq!(generation(&gateway), 1.0);
    assert_eq!(
        gateway.metric("weir_config_reloads_total{outcome=\"rejected\"}"),
        13.0
    );
    assert_eq!(
        applied(&gateway, &tls("a.crt", "a.key"))["outcome"],
        "applied"
    );
    gateway.assert_sound();
}

#[test]
fn n03_a_file_that_is_written_in_pieces_is_not_taken_half() {
    let mut gateway = Gateway::start(&says("0"));
    let mut file = fs::File::create(gateway.config_path()).expect("a file");
    write!(file, "{PREAMBLE}{}", says("whole")).expect("written");
    for piece in 0..10 {
        let route = format!(
            "[[routes]]\nid = \"p{piece}\"\nmatch = {{ path = \"/p{piece}\" }}\nrespond = {{}}\n"
        );
        file.write_all(route.as_bytes()).expect("written");
        std::thread::sleep(Duration::from_millis(80));
    }
    drop(file);
    comes(gateway.web(), "whole");
    assert_eq!(generation(&gateway), 2.0, "no half of it was ever in force");
    assert_eq!(client::get(gateway.web(), "/p9").text(), "");
    gateway.assert_sound();
}

#[test]
fn n04_every_way_to_change_a_file_is_noticed() {
    let mut gateway = Gateway::start(&says("0"));
    let (web, path) = (gateway.web(), gateway.config_path());
    let full = |text: &str| format!("{PREAMBLE}{}", says(text));
    let beside = gateway.dir().join("weir.toml~");
    type Way<'a> = (&'a str, Box<dyn Fn(&str) + 'a>);
    let ways: [Way<'_>; 5] = [
        (
            "renamed over",
            Box::new(|text| gateway.write_config(&says(text))),
        ),
        (
            "in place",
            Box::new(|text| fs::write(&path, full(text)).expect("written")),
        ),
        (
            "moved away and made anew",
            Box::new(|text| {
                fs::rename(&path, &beside).expect("renamed");
                fs::write(&path, full(text)).expect("written");
            }),
        ),
        (
            "removed and made anew",
            Box::new(|text| {
                fs::remove_file(&path).expect("removed");
                fs::write(&path, full(text)).expect("written");
            }),
        ),
        (
            "copied over",
            Box::new(|text| {
                fs::write(&beside, full(text)).expect("written");
                fs::copy(&beside, &path).expect("copied");
            }),
        ),
    ];
    for (name, way) in ways {
        way(name);
        let took = comes(web, name);
        assert!(took < Duration::from_secs(5), "{name}: {took:?}");
    }
    assert_eq!(
        gateway.metric("weir_config_reloads_total{outcome=\"applied\"}"),
        5.0
    );
    gateway.assert_sound();
}

/// A folder laid out as Kubernetes does: the file links into `..data`, which links to a folder.
fn swap(dir: &Path, version: usize, text: &str) {
    let folder = dir.join(format!("..v{version}"));
    fs::create_dir(&folder).expect("a folder");
    fs::write(
        folder.join("weir.toml"),
        format!("{PREAMBLE}{}", says(text)),
    )
    .expect("a file");
    let link = dir.join("..data_tmp");
    std::os::unix::fs::symlink(&folder, &link).expect("a link");
    fs::rename(&link, dir.join("..data")).expect("swapped");
    if version > 0 {
        fs::remove_dir_all(dir.join(format!("..v{}", version - 1))).expect("removed");
    }
}

#[test]
fn n05_a_swapped_configmap_is_applied_each_time_and_the_last_of_many_wins() {
    let dir = tempfile::tempdir().expect("a folder");
    swap(dir.path(), 0, "0");
    std::os::unix::fs::symlink("..data/weir.toml", dir.path().join("weir.toml")).expect("a link");
    let mut gateway = Gateway::run_in(dir);
    for version in 1..=4 {
        swap(gateway.dir(), version, &version.to_string());
        let took = comes(gateway.web(), &version.to_string());
        assert!(took < Duration::from_secs(5), "{version}: {took:?}");
    }
    for version in 5..=100 {
        swap(gateway.dir(), version, &version.to_string());
    }
    comes(gateway.web(), "100");
    gateway.assert_sound();
}

#[test]
fn n08_a_storm_of_reloads_ends_with_the_last_config() {
    let mut gateway = Gateway::start(&says("0"));
    for number in 1..=100 {
        gateway.write_config(&says(&number.to_string()));
        for _ in 0..10 {
            gateway.signal(Signal::HUP);
        }
    }
    comes(gateway.web(), "100");
    assert!(generation(&gateway) <= 101.0);
    gateway.assert_sound();
}

#[test]
fn n09_a_request_ends_with_the_config_it_began_with_and_the_next_has_the_new_one() {
    let origin = Origin::start(|request, _| {
        let wait = if request.target() == "/slow" { 400 } else { 0 };
        Reply::After(Duration::from_millis(wait), Box::new(origin::ok("x")))
    });
    let config = |mark: &str| {
        let all = before(origin.address, "");
        format!("{all}headers = {{ response = {{ set = {{ x-mark = \"{mark}\" }} }} }}\n")
    };
    let mut gateway = Gateway::start(&config("old"));
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET /slow HTTP/1.1\r\nHost: t.test\r\n\r\n");
    eventually("it is under way", || origin.requests().len() == 1);
    applied(&gateway, &config("new"));
    assert_eq!(raw.response().get("x-mark"), Some("old"));
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(raw.response().get("x-mark"), Some("new"));
    gateway.assert_sound();
}

#[test]
fn n10_listeners_come_go_and_move_and_one_that_cannot_be_bound_stops_the_whole() {
    let (first, second) = (free_port(), free_port());
    let origin =
        Origin::start(|_, _| Reply::After(Duration::from_millis(400), Box::new(origin::ok("x"))));
    let base = before(origin.address, "");
    let more = |port: u16| format!("{base}[listeners.more]\naddress = \"127.0.0.1:{port}\"\n");
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut gateway = Gateway::start(&base);
    applied(&gateway, &more(first));
    assert_eq!(client::get(at(first), "/").status(), 200);
    let mut raw = Raw::connect(at(first));
    raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    eventually("it is under way", || origin.requests().len() == 2);
    applied(&gateway, &more(second));
    let answer = raw.response();
    assert_eq!(
        (answer.status(), answer.get("connection")),
        (200, Some("close"))
    );
    assert_eq!(client::get(at(second), "/").status(), 200);
    eventually("the old port is closed", || {
        TcpStream::connect(at(first)).is_err()
    });
    let taken = TcpListener::bind(at(first)).expect("it is free again");
    let message = refused(&gateway, &more(first).replace("\"all\"", "\"other\""));
    assert!(
        message.contains("cannot be bound") && message.contains('^'),
        "{message}"
    );
    assert_eq!(client::get(at(second), "/").status(), 200);
    assert_eq!(
        gateway.metric_sum("weir_requests_total{route=\"other\""),
        0.0
    );
    drop(taken);
    applied(&gateway, &base);
    eventually("the listener is gone", || {
        TcpStream::connect(at(second)).is_err()
    });
    assert_eq!(client::get(gateway.web(), "/").status(), 200);
    gateway.assert_sound();
}

#[test]
fn n10_a_listener_that_is_renamed_on_its_address_resets_nobody() {
    let port = free_port();
    let web = SocketAddr::from(([127, 0, 0, 1], port));
    let named = |name: &str| {
        says("x")
            .replace(".web", &format!(".{name}"))
            .replace(":0", &format!(":{port}"))
    };
    let mut gateway = Gateway::start(&named("a"));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(SeqCst) {
                    assert_eq!(client::get(web, "/").status(), 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for turn in 0..20 {
        applied(&gateway, &named(if turn % 2 == 0 { "b" } else { "a" }));
        std::thread::sleep(Duration::from_millis(30));
    }
    stop.store(true, SeqCst);
    for client in clients {
        assert!(client.join().expect("no request failed") > 20);
    }
    gateway.assert_sound();
}

#[test]
fn n11_pools_of_upstreams_that_stay_are_kept() {
    let origin = Origin::echo();
    let config = |extra: &str| format!("{}{extra}", before(origin.address, ""));
    let mut gateway = Gateway::start(&config(""));
    let mut raw = Raw::connect(gateway.web());
    for turn in 0..10 {
        let extra = format!("[upstreams.x{turn}]\nendpoints = [\"127.0.0.1:9\"]\n");
        applied(&gateway, &config(&extra));
        raw.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
        assert_eq!(raw.response().status(), 200);
    }
    assert_eq!((origin.requests().len(), origin.connections()), (10, 1));
    gateway.assert_sound();
}

#[test]
fn n12_n13_a_hundred_renames_leave_nothing_behind_though_a_tunnel_pins_the_first_plan() {
    let origin = Origin::start(|_, _| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        Reply::Bytes(head.into())
    });
    let config = |name: &str| {
        format!(
            "[listeners.web]\naddress = \"127.0.0.1:0\"\n\
             [upstreams.{name}]\nendpoints = [\"{}\"]\n\
             [[routes]]\nid = \"{name}\"\nupstream = \"{name}\"\nupgrade = [\"x\"]\n",
            origin.address
        )
    };
    let mut gateway = Gateway::start(&config("n0"));
    let mut tunnel = Raw::connect(gateway.web());
    tunnel.send("GET / HTTP/1.1\r\nHost: t.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(tunnel.response().status(), 101);
    let series = gateway.metrics().len();
    for turn in 1..=100 {
        applied(&gateway, &config(&format!("n{turn}")));
    }
    eventually("old plans are gone", || {
        drop(gateway.reload());
        gateway.metric("weir_config_plans") <= 2.0
    });
    let left = gateway.metrics();
    assert!(
        left.len() <= series + 10,
        "{} series, {series} before",
        left.len()
    );
    assert!(!left.keys().any(|name| name.contains("\"n50\"")));
    gateway.assert_sound();
}

#[test]
fn n14_the_environment_fills_in_what_is_there_and_nothing_else() {
    let gateway = Gateway::start(&says("$${HOME} ${NONE_SUCH:-else}"));
    assert_eq!(said(gateway.web()), "${HOME} else");
    for bad in ["${NONE_SUCH}", "${}", "${A"] {
        let message = refused(&gateway, &says(bad));
        assert!(message.contains('^'), "{bad}: {message}");
    }
    assert_eq!(generation(&gateway), 1.0);
}

/// A FIFO that nobody holds open: to open it plainly waits for ever.
fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).expect("a FIFO");
}

#[test]
fn n02_a_fifo_without_another_end_holds_nobody_up() {
    let mut gateway = Gateway::start(&says("good"));
    fifo(&gateway.dir().join("fifo"));
    let tls = "[listeners.tls]\naddress = \"127.0.0.1:0\"\n\
               tls = { certificates = [{ cert = \"fifo\", key = \"fifo\" }] }\n";
    let no_file = "it is no regular file";
    for (more, why) in [
        ("[log]\naccess = { to = \"fifo\" }\n", "cannot be opened"),
        ("include = [\"fifo\"]\n", no_file),
        (tls, no_file),
    ] {
        let begun = Instant::now();
        // `include` stands at the top, before any section
        let config = format!("{PREAMBLE}{}", says("bad"));
        let config = match more.starts_with("include") {
            true => format!("{more}{config}"),
            false => format!("{config}{more}"),
        };
        fs::write(gateway.config_path(), config).expect("a config");
        let (status, report) = gateway.reload();
        let message = report["message"].as_str().unwrap_or_default();
        assert_eq!(status, 422, "{more}\n{report}");
        assert!(message.contains(why) && message.contains('^'), "{message}");
        assert!(begun.elapsed() < SOON / 2, "{more}: {:?}", begun.elapsed());
        assert_eq!(gateway.ask_admin("/healthz").status(), 200);
        assert_eq!(said(gateway.web()), "good", "{more}");
    }
    // With somebody at the other end it is a log like any other.
    let path = gateway.dir().join("fifo");
    let reader = std::thread::spawn(move || {
        let mut lines = std::io::BufReader::new(fs::File::open(path).expect("it opens")).lines();
        lines.next().expect("a line").expect("UTF-8")
    });
    let log = format!("{}[log]\naccess = {{ to = \"fifo\" }}\n", says("logged"));
    eventually("the reader is there", || {
        gateway.write_config(&log);
        gateway.reload().0 == 200
    });
    assert_eq!(said(gateway.web()), "logged");
    let line = reader.join().expect("no panic");
    assert!(line.contains("\"status\":200"), "{line}");
    gateway.assert_sound();
}

#[test]
fn n11_a_name_that_a_reload_brings_in_is_there_for_the_first_request() {
    let origin = Origin::echo();
    let mut gateway = Gateway::start(&says("old"));
    for turn in 0..3 {
        let config = format!(
            "[listeners.web]\naddress = \"127.0.0.1:0\"\n\
             [upstreams.u{turn}]\nendpoints = [\"localhost:{}\"]\nresolve_interval = \"1h\"\n\
             [[routes]]\nid = \"all\"\nupstream = \"u{turn}\"\n",
            origin.address.port()
        );
        applied(&gateway, &config);
        assert_eq!(client::get(gateway.web(), "/").status(), 200, "{turn}");
    }
    gateway.assert_sound();
}

#[test]
fn n15_a_bad_config_taken_back_leaves_the_first_one_and_says_that_all_is_well() {
    let mut gateway = Gateway::start(&says("good"));
    let success = |gateway: &Gateway| gateway.metric("weir_config_last_reload_success");
    // noticed by the watch, both times
    gateway.write_config("wrong");
    eventually("the bad one is refused", || success(&gateway) == 0.0);
    gateway.write_config(&says("good"));
    eventually("all is well", || success(&gateway) == 1.0);
    assert_eq!(generation(&gateway), 1.0);
    let report = applied(&gateway, &format!("# a word\n{}", says("good")));
    assert_eq!(report["outcome"], "unchanged", "{report}");
    assert_eq!(generation(&gateway), 1.0);
    let level = format!(
        "[log]\nlevel = \"debug\"\naccess = {{ to = \"off\" }}\n{}",
        says("good")
    );
    assert_eq!(applied(&gateway, &level)["outcome"], "applied");
    let format = format!("[log]\nformat = \"json\"\n{}", says("good"));
    assert!(refused(&gateway, &format).contains("log.format"));
    assert_eq!(generation(&gateway), 2.0);
    gateway.assert_sound();
}

#[test]
fn n17_reloads_and_the_end_at_once_end_well() {
    for turn in 0..4 {
        let mut gateway = Gateway::start(&says("a"));
        gateway.write_config(&says("b"));
        if turn % 2 == 0 {
            gateway.signal(Signal::HUP);
        }
        gateway.signal(Signal::TERM);
        gateway.signal(Signal::HUP);
        assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
        assert!(TcpStream::connect(gateway.web()).is_err());
    }
}

#[test]
fn n18_without_its_folder_the_gateway_goes_on_serving() {
    let mut gateway = Gateway::start(&says("good"));
    let away = gateway.dir().with_extension("away");
    fs::rename(gateway.dir(), &away).expect("moved away");
    let (status, report) = gateway.reload();
    assert_eq!((status, &report["outcome"]), (422, &"rejected".into()));
    assert_eq!(said(gateway.web()), "good");
    fs::rename(&away, gateway.dir()).expect("moved back");
    assert_eq!(applied(&gateway, &says("again"))["outcome"], "applied");
    assert_eq!(said(gateway.web()), "again");
    gateway.assert_sound();
}

/// `weir check` by somebody whom file permissions bind.
fn check_unprivileged(path: &Path) -> (bool, String) {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    if rustix::process::getuid().is_root() {
        weir.uid(65534).gid(65534);
    }
    let weir = weir
        .arg("check")
        .arg(path)
        .output()
        .expect("the binary runs");
    let text = String::from_utf8_lossy(&weir.stderr).into_owned();
    (weir.status.success(), text)
}

#[test]
fn n03_included_files_that_cannot_be_read_are_a_problem_and_not_absent() {
    let mut gateway = Gateway::start(&says("plain"));
    let folder = gateway.dir().join("conf.d");
    fs::create_dir(&folder).expect("a folder");
    let more = "[[routes]]\nid = \"more\"\nmatch = { path = \"/more\" }\nrespond = {}\n";
    fs::write(folder.join("a.toml"), more).expect("a file");
    let including = format!("include = [\"conf.d/*.toml\"]\n{}", says("plain"));
    fs::write(gateway.config_path(), format!("{including}{PREAMBLE}")).expect("a config");
    assert_eq!(gateway.reload().1["outcome"], "applied");
    assert_eq!(client::get(gateway.web(), "/more").text(), "");
    // the lock of an editor is a dangling link, and no config
    let link = |name: &str| std::os::unix::fs::symlink("me@here.1:2", folder.join(name));
    link(".#a.toml").expect("a link");
    assert_eq!(gateway.reload().1["outcome"], "unchanged");
    fs::remove_file(folder.join("a.toml")).expect("it was there");
    link("a.toml").expect("a link");
    let (status, report) = gateway.reload();
    assert_eq!(status, 422, "{report}");
    let message = report["message"].as_str().unwrap_or_default();
    assert!(message.contains("a.toml\": no such file"), "{message}");
    fs::remove_file(folder.join("a.toml")).expect("it was there");
    fs::create_dir(folder.join("a.toml")).expect("a folder");
    assert!(check(&gateway.config_path()).0, "a folder is no file");
    gateway.assert_sound();
}

#[test]
fn n03_a_folder_of_includes_that_may_not_be_read_is_a_problem() {
    let dir = tempfile::tempdir().expect("a folder");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    mode(dir.path(), 0o755);
    let outer = dir.path().join("outer");
    let inner = outer.join("conf.d");
    fs::create_dir_all(&inner).expect("a folder");
    fs::write(inner.join("a.toml"), "").expect("a file");
    let config = dir.path().join("weir.toml");
    for pattern in ["outer/conf.d/*.toml", "outer/*/a.toml"] {
        fs::write(&config, format!("include = [\"{pattern}\"]\n{}", says("x"))).expect("a config");
        for shut in [&outer, &inner] {
            assert!(check_unprivileged(&config).0);
            mode(shut, 0o000);
            let (good, text) = check_unprivileged(&config);
            mode(shut, 0o755);
            assert!(
                !good && text.contains("permission denied"),
                "{pattern} {shut:?}: {text}"
            );
        }
    }
}

#[test]
fn n04_a_folder_that_is_replaced_or_comes_later_is_watched_on() {
    let route = |text: &str| {
        format!(
            "[[routes]]\nid = \"{text}\"\nmatch = {{ path = \"/{text}\" }}\n\
             respond = {{ body = \"{text}\" }}\n"
        )
    };
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let folder = |name: &str, text: &str| {
        fs::create_dir_all(at(name)).expect("a folder");
        fs::write(at(name).join("a.toml"), route(text)).expect("a file");
    };
    let link = |to: &str| {
        std::os::unix::fs::symlink(at(to), at("next")).expect("a link");
        fs::rename(at("next"), at("current")).expect("renamed");
    };
    folder("conf.d", "c0");
    folder("elsewhere/41", "r0");
    link("elsewhere/41");
    let included = ["conf.d", "current", "late"].map(|name| at(name).join("*.toml"));
    let include = format!("include = {included:?}\n");
    // a log beside the config would be a stream of events
    let log = "[log]\naccess = { to = \"off\" }\n";
    let config = format!("{include}{PREAMBLE}{log}{}", says("plain"));
    fs::write(at("weir.toml"), config).expect("a config");
    let home = tempfile::tempdir().expect("a folder");
    let top = home.path().join("weir.toml");
    std::os::unix::fs::symlink(at("weir.toml"), top).expect("a link");
    let mut gateway = Gateway::run_in(home);
    let serves = |text: &str| {
        let begun = Instant::now();
        eventually(text, || {
            client::get(gateway.web(), &format!("/{text}")).text() == text
        });
        assert!(begun.elapsed() < Duration::from_secs(5), "{text}");
    };
    let edit = |name: &str, text: &str| {
        fs::write(at(name).join("a.toml"), route(text)).expect("written");
        serves(text);
    };
    folder("new", "c1");
    fs::rename(at("conf.d"), at("old")).expect("renamed");
    fs::rename(at("new"), at("conf.d")).expect("renamed");
    serves("c1");
    edit("conf.d", "c2");
    folder("elsewhere/42", "r1");
    link("elsewhere/42");
    serves("r1");
    edit("elsewhere/42", "r2");
    folder("late", "l1");
    serves("l1");
    edit("late", "l2");
    fs::remove_dir_all(at("late")).expect("removed");
    folder("late", "l3");
    serves("l3");
    edit("late", "l4");
    gateway.assert_sound();
}

#[test]
fn n06_a_file_is_not_taken_while_its_writer_only_pauses() {
    let mut gateway = Gateway::start(&says("whole"));
    let more = |n: usize| {
        format!("[[routes]]\nid = \"r{n}\"\nmatch = {{ path = \"/{n}\" }}\nrespond = {{}}\n")
    };
    let mut file = fs::File::create(gateway.config_path()).expect("a file");
    let begin = format!("{PREAMBLE}{}", says("written"));
    file.write_all(begin.as_bytes()).expect("written");
    for n in 0..20 {
        std::thread::sleep(Duration::from_millis(280));
        file.write_all(more(n).as_bytes()).expect("written");
        assert_eq!(said(gateway.web()), "whole", "after {n}");
    }
    drop(file);
    comes(gateway.web(), "written");
    assert_eq!(generation(&gateway), 2.0, "no half of it was ever in force");
    gateway.assert_sound();
}

#[test]
fn n01_a_start_and_a_reload_report_all_that_check_does() {
    let mut gateway = Gateway::start(&says("good"));
    let tls = "tls = { certificates = [{ cert = \"a.crt\", key = \"a.key\" }, \
               { cert = \"b.crt\", key = \"b.key\" }] }\n";
    let listener = format!("[listeners.tls]\naddress = \"127.0.0.1:0\"\n{tls}");
    let redirect = "[[routes]]\nid = \"r\"\nmatch = { path = \"/r\" }\nredirect = { to = \"r\" }\n";
    let lost = "[[routes]]\nid = \"lost\"\nmatch = { path = \"/l\" }\nupstream = \"none\"\n";
    gateway.write_config(&format!("{}{redirect}{lost}{listener}", says("x")));
    let checked = check(&gateway.config_path()).1;
    let mut start = Command::new(env!("CARGO_BIN_EXE_weir"));
    let start = start.arg("run").arg("--config").arg(gateway.config_path());
    let start = start.output().expect("the binary runs").stderr;
    let (status, report) = gateway.reload();
    assert_eq!(status, 422, "{report}");
    let reload = report["message"].as_str().unwrap_or_default();
    for said in [&checked, &*String::from_utf8_lossy(&start), reload] {
        for fault in [
            "a.crt",
            "a.key",
            "b.crt",
            "b.key",
            "no upstream \"none\"",
            "send a client",
        ] {
            assert!(said.contains(fault), "{fault}: {said}");
        }
    }
    gateway.assert_sound();
}
