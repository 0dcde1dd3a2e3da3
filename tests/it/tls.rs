//! L: TLS towards clients.

use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::harness::secure::{Authority, Pair, Tls, config, connect, get, pair};
use super::harness::{Gateway, Raw, eventually};

const PREAMBLE: &str = "[server]\nworkers = 2\ndrain = { delay = \"0s\", timeout = \"10s\" }\n\
                        [admin]\naddress = \"127.0.0.1:0\"\n";

/// A listener `web` with certificates a (a.test, *.w.test) and b (b.test).
fn listener(more: &str) -> String {
    format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n\
         limits = {{ header_timeout = \"2s\" }}\n\
         [listeners.web.tls]\ncertificates = [{{ cert = \"a.crt\", key = \"a.key\" }}, \
         {{ cert = \"b.crt\", key = \"b.key\" }}]\n{more}\n\
         [[routes]]\nid = \"all\"\nrespond = {{ body = \"ok\" }}\n"
    )
}

/// The gateway, and certificates a and b.
fn start(more: &str, prepare: impl FnOnce(&Path)) -> (Gateway, Pair, Pair) {
    let dir = tempfile::tempdir().expect("a folder");
    let (a, b) = (pair(&["a.test", "*.w.test"]), pair(&["b.test"]));
    a.write(dir.path(), "a");
    b.write(dir.path(), "b");
    prepare(dir.path());
    fs::write(
        dir.path().join("weir.toml"),
        format!("{PREAMBLE}{}", listener(more)),
    )
    .expect("a file");
    (Gateway::run_in(dir), a, b)
}

fn status(tls: &mut Tls, host: &str) -> String {
    let head = get(tls, host).expect("an answer");
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn serves(tls: &Tls, pair: &Pair) -> bool {
    let shown = tls.conn.peer_certificates().expect("a certificate");
    shown[0] == CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM")
}

const CLIENTS: &str = "client_auth = { ca = \"ca.crt\", mode = \"required\" }";

#[test]
fn l01_l07_the_certificate_is_that_of_the_name_and_other_hosts_are_misdirected() {
    let (mut gateway, a, b) = start("", |_| {});
    let (web, plain) = (gateway.web(), config(&[], None));
    for (name, expected) in [
        ("a.test", &a),
        ("A.TEST", &a),
        ("b.test", &b),
        ("x.w.test", &a),
        ("x.y.w.test", &a),
        ("unknown.test", &a),
        ("127.0.0.1", &a),
        ("xn--bcher-kva.test", &a),
        (
            &format!("{0}.{0}.{0}.{1}", "l".repeat(63), "m".repeat(61)),
            &a,
        ),
    ] {
        let tls = connect(web, name, &plain).expect("a handshake");
        assert!(serves(&tls, expected), "{name}");
    }
    let mut tls = connect(web, "a.test", &plain).expect("a handshake");
    assert_eq!(status(&mut tls, "a.test"), "200");
    assert_eq!(status(&mut tls, "x.w.test"), "200");
    assert_eq!(status(&mut tls, "b.test"), "421");
    gateway.assert_sound();
}

#[test]
fn l02_a_session_of_one_listener_is_worth_nothing_at_one_that_asks_for_certificates() {
    let authority = Authority::new();
    let more = format!(
        "[listeners.inner]\naddress = \"127.0.0.1:0\"\n[listeners.inner.tls]\n\
         certificates = [{{ cert = \"a.crt\", key = \"a.key\" }}]\n{CLIENTS}"
    );
    let (mut gateway, ..) = start(&more, |dir| {
        fs::write(dir.join("ca.crt"), authority.pem()).expect("a file");
    });
    let nobody = config(&[], None);
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut tls = connect(gateway.web(), "a.test", &nobody).expect("a handshake");
        assert_eq!(status(&mut tls, "a.test"), "200");
        assert_eq!(tls.conn.handshake_kind(), Some(expected));
        assert!(!tls.conn.is_early_data_accepted(), "l09: 0-RTT is off");
    }
    let tls = connect(gateway.addr("inner"), "a.test", &nobody);
    let answer = tls.and_then(|mut tls| get(&mut tls, "a.test"));
    assert!(answer.is_err(), "{answer:?}");
    let known = config(&[], Some(&authority.client("me")));
    let mut tls = connect(gateway.addr("inner"), "a.test", &known).expect("a handshake");
    assert_eq!(status(&mut tls, "a.test"), "200");
    let stranger = config(&[], Some(&Authority::new().client("me")));
    let tls = connect(gateway.addr("inner"), "a.test", &stranger);
    assert!(tls.and_then(|mut tls| get(&mut tls, "a.test")).is_err());
    gateway.assert_sound();
}

#[test]
fn l03_when_other_clients_may_come_old_connections_and_sessions_end() {
    let (old, new) = (Authority::new(), Authority::new());
    let (mut gateway, ..) = start(CLIENTS, |dir| {
        fs::write(dir.join("ca.crt"), old.pem()).expect("a file");
    });
    let known = config(&[], Some(&old.client("me")));
    let open = || connect(gateway.web(), "a.test", &known);
    let mut kept = open().expect("a handshake");
    assert_eq!(status(&mut kept, "a.test"), "200");
    assert_eq!(gateway.reload().1["outcome"], "unchanged");
    assert_eq!(
        status(&mut kept, "a.test"),
        "200",
        "it is not touched for nothing"
    );
    fs::write(gateway.dir().join("ca.crt"), new.pem()).expect("a file");
    assert_eq!(gateway.reload().0, 200);
    let begun = Instant::now();
    let end = kept.read(&mut [0; 16]);
    assert!(matches!(end, Ok(0)), "{end:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    let again = open().and_then(|mut tls| get(&mut tls, "a.test"));
    assert!(
        again.is_err(),
        "neither its ticket nor its certificate is good"
    );
    let known = config(&[], Some(&new.client("me")));
    let mut tls = connect(gateway.web(), "a.test", &known).expect("a handshake");
    assert_eq!(status(&mut tls, "a.test"), "200");
    gateway.assert_sound();
}

#[test]
fn l05_a_bad_certificate_file_leaves_the_old_one_until_a_good_one_comes() {
    let (mut gateway, a, _) = start("", |_| {});
    let (web, plain) = (gateway.web(), config(&[], None));
    let path = gateway.dir().join("a.crt");
    let other = pair(&["a.test"]);
    let bad: [&[u8]; 5] = [
        b"",
        &a.cert.as_bytes()[..200],
        other.cert.as_bytes(),
        a.key.as_bytes(),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ];
    for bytes in bad {
        fs::write(&path, bytes).expect("a file");
        let (code, report) = gateway.reload();
        assert_eq!(code, 422, "{report}");
        assert!(serves(
            &connect(web, "a.test", &plain).expect("a handshake"),
            &a
        ));
    }
    fs::remove_file(&path).expect("removed");
    assert_eq!(gateway.reload().0, 422);
    assert!(serves(
        &connect(web, "a.test", &plain).expect("a handshake"),
        &a
    ));
    other.write(gateway.dir(), "a");
    let begun = Instant::now();
    eventually("the good one is noticed", || {
        serves(
            &connect(web, "a.test", &plain).expect("a handshake"),
            &other,
        )
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
    gateway.assert_sound();
}

#[test]
fn l06_certificates_are_renewed_under_handshakes() {
    let (mut gateway, ..) = start("", |_| {});
    let (web, stop) = (gateway.web(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let load = std::thread::spawn(move || {
        let mut count = 0;
        while !stopped.load(SeqCst) {
            let mut tls = connect(web, "a.test", &config(&[], None)).expect("a handshake");
            assert_eq!(status(&mut tls, "a.test"), "200");
            count += 1;
        }
        count
    });
    for _ in 0..40 {
        pair(&["a.test"]).write(gateway.dir(), "a");
        assert_eq!(gateway.reload().0, 200);
    }
    stop.store(true, SeqCst);
    assert!(load.join().expect("no handshake failed") > 5);
    gateway.assert_sound();
}

#[test]
fn l08_l10_what_is_no_tls_of_today_is_closed_and_nothing_spins() {
    let (mut gateway, ..) = start("", |_| {});
    let web = gateway.web();
    let hello = |version: u8, length: u8| {
        let mut bytes = vec![22, 3, version, 0, length, 1, 0, 0, length - 4, 3, version];
        bytes.resize(5 + usize::from(length), 0);
        bytes
    };
    let alerts: Vec<u8> = [21, 3, 3, 0, 2, 1, 100].repeat(10_000);
    let table: [Vec<u8>; 6] = [
        hello(1, 60),
        hello(2, 60),
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".to_vec(),
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
        alerts,
        b"\x17\x03\x03\x00\x05hello".to_vec(),
    ];
    for bytes in table {
        let mut raw = Raw::connect(web);
        drop(raw.try_send(&bytes));
        let begun = Instant::now();
        let rest = raw.rest(Duration::from_secs(4));
        assert!(begun.elapsed() < Duration::from_secs(3), "{bytes:?}");
        assert!(!rest.windows(4).any(|w| w == b"HTTP"), "{rest:?}");
    }
    let refused = "weir_connections_refused_total{listener=\"web\",reason=\"tls\"}";
    eventually("all are counted", || gateway.metric(refused) == 6.0);
    gateway.wait_idle();
    gateway.assert_sound();
}

#[test]
fn l11_handshakes_that_stop_half_way_end_in_time_and_others_are_served() {
    let (mut gateway, ..) = start("", |_| {});
    let web = gateway.web();
    let silent: Vec<Raw> = (0..300)
        .map(|_| {
            let mut raw = Raw::connect(web);
            raw.send(b"\x16\x03\x01\x02");
            raw
        })
        .collect();
    let mut tls = connect(web, "a.test", &config(&[], None)).expect("a handshake");
    assert_eq!(status(&mut tls, "a.test"), "200");
    for mut raw in silent {
        assert!(raw.closed_within(Duration::from_secs(6)));
    }
    gateway.assert_sound();
}

#[test]
fn l12_a_client_that_ends_without_close_notify_is_no_trouble() {
    let (mut gateway, ..) = start("", |_| {});
    for how in [Shutdown::Write, Shutdown::Both] {
        let mut tls = connect(gateway.web(), "a.test", &config(&[], None)).expect("a handshake");
        assert_eq!(status(&mut tls, "a.test"), "200");
        tls.sock.shutdown(how).expect("it was open");
        drop(tls);
    }
    gateway.wait_idle();
    gateway.assert_sound();
}

#[test]
fn l13_alpn_agrees_on_what_both_speak_or_ends_the_handshake() {
    let (mut gateway, ..) = start("", |_| {});
    let agreed = |offered: &[&str]| -> std::io::Result<Option<Vec<u8>>> {
        let tls = connect(gateway.web(), "a.test", &config(offered, None))?;
        Ok(tls.conn.alpn_protocol().map(<[u8]>::to_vec))
    };
    let h2: &[u8] = b"h2";
    assert_eq!(
        agreed(&["h2", "http/1.1"]).expect("agreed").as_deref(),
        Some(h2)
    );
    assert_eq!(
        agreed(&["http/1.1"]).expect("agreed").as_deref(),
        Some(&b"http/1.1"[..])
    );
    assert_eq!(agreed(&[]).expect("none is needed"), None);
    for foreign in ["http/1.0", "spdy/3", "h2c"] {
        assert!(agreed(&[foreign]).is_err(), "{foreign}");
    }
    gateway.assert_sound();
}
