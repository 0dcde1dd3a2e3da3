//! Workers on real sockets, with whatever `dispatch` answers.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::chance::Chance;
use crate::config::{Config, LimitsConfig, ListenerConfig, ListenerProtocol, Loaded};
use crate::files::Files;
use crate::middleware::compress::Encoders;
use crate::plan::stack::Kit;
use crate::plan::{SharedPlan, compile};
use crate::problem::{Located, Sources};
use crate::telemetry::handles::{Metrics, Refused, Violation};
use crate::units::Time;
use crate::upstream::WorkerPools;

struct Town {
    shared: SharedPlan,
    metrics: Arc<Metrics>,
    server: Server,
}

/// A listener section on any free port, `protocols` as given.
fn section(protocols: &[ListenerProtocol]) -> ListenerConfig {
    ListenerConfig {
        address: Located::unstated("127.0.0.1:0".to_owned()),
        protocols: Some(Located::unstated(protocols.to_vec())),
        proxy_protocol: false,
        max_connections: None,
        tls: None,
        limits: LimitsConfig::default(),
    }
}

fn plan(metrics: &Metrics, listeners: &[(&str, ListenerConfig)]) -> Plan {
    plan_with(metrics, listeners, &Files::default())
}

fn plan_with(metrics: &Metrics, listeners: &[(&str, ListenerConfig)], files: &Files) -> Plan {
    let section = |(name, section): &(&str, ListenerConfig)| {
        (Located::unstated((*name).to_owned()), section.clone())
    };
    let mut config: Config = toml::from_str(
        "server = { trusted_proxies = ['127.0.0.1/32'], max_connections = 1000 }\n\
         routes = [{ id = 'all', respond = {} }]",
    )
    .expect("a good config");
    config.listeners = listeners.iter().map(section).collect();
    let files = files.clone();
    let loaded = Loaded {
        config,
        files,
        dir: std::path::PathBuf::new(),
        sources: Sources::default(),
        hash: 0,
    };
    compile::compile(Arc::new(loaded), None, metrics).expect("a good config")
}

/// A worker's world without an access log.
fn world(index: usize, shared: &SharedPlan, metrics: &Arc<Metrics>, drain: Signal) -> Worker {
    let kit = Kit {
        worker: index,
        metrics: metrics.clone(),
        pools: Arc::new(WorkerPools::new(index)),
        chance: Arc::new(Chance::seeded(1)),
        encoders: Arc::new(Encoders::new(None)),
        access: None,
        tunnels: Arc::new(tunnels::LocalTunnels::new(index, metrics.clone(), drain)),
    };
    Worker::new(kit, shared.clone())
}

impl Town {
    fn start(workers: usize, listeners: &[(&str, ListenerConfig)]) -> Town {
        Town::with(workers, listeners, &Files::default())
    }

    fn with(workers: usize, listeners: &[(&str, ListenerConfig)], files: &Files) -> Town {
        let metrics = Arc::new(Metrics::new(workers));
        let plan = plan_with(&metrics, listeners, files);
        let prepared = Server::bind(&plan, workers).expect("free ports");
        let shared = SharedPlan::new(Arc::new(plan));
        let build = {
            let (shared, metrics) = (shared.clone(), metrics.clone());
            move |index, drain| world(index, &shared, &metrics, drain)
        };
        let server = Server::start(prepared, workers, build).expect("threads");
        Town {
            shared,
            metrics,
            server,
        }
    }

    async fn connect(&self) -> TcpStream {
        let address = self.server.addresses()["web"];
        TcpStream::connect(address).await.expect("it listens")
    }

    fn refused(&self, why: Refused) -> u64 {
        let cells = self.metrics.listener("web");
        cells.sum(|c| c.refused[why as usize].get())
    }

    /// Waits until so many were refused: a client sees the end before it is counted.
    async fn refused_are(&self, why: Refused, count: u64) {
        let counted = async {
            while self.refused(why) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let counted = tokio::time::timeout(Duration::from_secs(5), counted).await;
        assert_eq!(counted.map(|()| self.refused(why)), Ok(count));
    }

    async fn drain(self) -> Drained {
        let _plan = self.shared;
        let timeout = Duration::from_secs(5);
        self.server
            .drain(Duration::ZERO, timeout, std::future::pending())
            .await
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

async fn all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer));
    match read.await.expect("the connection closes") {
        Ok(_) => String::from_utf8_lossy(&answer).into_owned(),
        Err(error) => format!("{}{error}", String::from_utf8_lossy(&answer)),
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.expect("the head goes on");
        answer.push(byte);
    }
    String::from_utf8(answer).expect("a head is text")
}

const HTTP1: &[ListenerProtocol] = &[ListenerProtocol::Http1];
const BOTH: &[ListenerProtocol] = &[ListenerProtocol::Http1, ListenerProtocol::H2];

#[tokio::test]
async fn a_request_is_answered_and_an_idle_connection_outlives_closing_by_a_second() {
    let town = Town::start(2, &[("web", section(HTTP1))]);
    let mut client = town.connect().await;
    for _ in 0..3 {
        client.write_all(GET).await.expect("it is open");
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200"));
    }
    let cells = town.metrics.listener("web");
    let late = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.write_all(GET).await.expect("it is still open");
        all(&mut client).await
    };
    let (drained, answer) = tokio::join!(town.drain(), late);
    assert_eq!(drained, Drained::Clean);
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(cells.sum(|c| c.connections.get()), 0);
    assert_eq!(cells.sum(|c| c.http1.get()), 1);
}

#[tokio::test]
async fn a59_a60_what_is_no_http1_is_closed() {
    let town = Town::start(1, &[("web", section(HTTP1))]);
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
    ] {
        let mut client = town.connect().await;
        client.write_all(bytes).await.expect("it is open");
        let answer = all(&mut client).await;
        assert!(answer.is_empty() || answer.contains("400"), "{answer}");
    }
}

#[tokio::test]
async fn h01_h02_silence_and_half_a_preface_end_at_the_header_timeout() {
    let mut section = section(BOTH);
    section.limits.header_timeout = Located::unstated(Time(Duration::from_millis(50)));
    let town = Town::start(1, &[("web", section)]);
    for bytes in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nHo"] {
        let mut client = town.connect().await;
        client.write_all(bytes).await.expect("it is open");
        all(&mut client).await;
    }
    town.refused_are(Refused::DetectTimeout, 2).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_new_request_puts_it_off() {
    let mut section = section(HTTP1);
    section.limits.idle_timeout = Located::unstated(Time(Duration::from_millis(200)));
    let town = Town::start(1, &[("web", section)]);
    let mut client = town.connect().await;
    let begun = crate::clock::now();
    for _ in 0..4 {
        client.write_all(GET).await.expect("it is open");
        head(&mut client).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(all(&mut client).await, "");
    assert!(begun.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn h2_is_spoken_by_prior_knowledge() {
    let town = Town::start(1, &[("web", section(BOTH))]);
    let io = hyper_util::rt::TokioIo::new(town.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut send, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .expect("h2");
    tokio::spawn(connection);
    for _ in 0..3 {
        let request =
            http::Request::get("http://a/").body(http_body_util::Empty::<bytes::Bytes>::new());
        let answer = send.send_request(request.expect("a request")).await;
        assert_eq!(answer.expect("an answer").status(), 200);
    }
    assert_eq!(town.metrics.listener("web").sum(|c| c.h2.get()), 1);
    assert_eq!(town.drain().await, Drained::Clean);
}

#[tokio::test]
async fn g10_a_flood_of_pings_ends_the_connection_and_is_counted() {
    let town = Town::start(1, &[("web", section(BOTH))]);
    let mut client = town.connect().await;
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for _ in 0..2000 {
        flood.extend(b"\0\0\x08\x06\0\0\0\0\0pingping");
    }
    // the rest may find the connection closed
    client.write_all(&flood).await.ok();
    all(&mut client).await;
    let cells = town.metrics.listener("web");
    let counted = || cells.sum(|c| c.violations[Violation::H2 as usize].get());
    let wait = async {
        while counted() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(5), wait).await;
    assert!(waited.is_ok(), "not counted");
}

#[tokio::test]
async fn nothing_after_a_bad_head_reaches_anyone_and_the_connection_lingers_for_the_answer() {
    let town = Town::start(1, &[("web", section(HTTP1))]);
    let mut client = town.connect().await;
    let bad = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /# HTTP/1.1\r\nHost: a\r\n\r\nGET /poison HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(bad.as_bytes()).await.expect("it is open");
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200"));
    assert!(head(&mut client).await.starts_with("HTTP/1.1 400"));
    let mut rest = Vec::new();
    let read = client.read_to_end(&mut rest);
    drop(tokio::time::timeout(Duration::from_millis(200), read).await);
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("HTTP/1.1"), "a third answer: {rest}");
}

#[tokio::test]
async fn every_client_of_a_burst_is_served() {
    let town = Town::start(1, &[("web", section(HTTP1))]);
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(town.connect().await);
    }
    for client in &mut clients {
        client.write_all(GET).await.expect("it is open");
    }
    for client in &mut clients {
        assert!(head(client).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn accepting_pauses_at_the_cap_and_goes_on_below_it() {
    let mut section = section(HTTP1);
    section.max_connections = Some(Located::unstated(2));
    let town = Town::start(1, &[("web", section)]);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = town.connect().await;
        client.write_all(GET).await.expect("it is open");
        head(&mut client).await;
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(town.refused(Refused::Cap), 0, "nobody waits");
    let mut third = town.connect().await;
    third.write_all(GET).await.expect("the kernel took it");
    let early = tokio::time::timeout(Duration::from_millis(100), third.read_u8()).await;
    assert!(early.is_err(), "it was served above the cap");
    assert!(town.refused(Refused::Cap) >= 3, "every pause counts");
    clients.pop();
    assert!(head(&mut third).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_are_spread_over_the_workers() {
    let town = Town::start(2, &[("web", section(HTTP1))]);
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = town.connect().await;
        client.write_all(GET).await.expect("it is open");
        head(&mut client).await;
        clients.push(client);
    }
    for worker in 0..2 {
        let held = town.metrics.worker.of(worker).connections.get();
        assert!(
            (15..=25).contains(&held),
            "worker {worker} holds {held} of 40"
        );
    }
}

#[tokio::test]
async fn a_reload_adds_and_removes_listeners_and_fails_whole() {
    let mut town = Town::start(2, &[("web", section(HTTP1))]);
    let mut client = town.connect().await;
    client.write_all(GET).await.expect("it is open");
    head(&mut client).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut clash = section(HTTP1);
    clash.address.value = taken.local_addr().expect("bound").to_string();
    let bad = plan(&town.metrics, &[("new", section(HTTP1)), ("clash", clash)]);
    assert_eq!(town.server.prepare(&bad).err().map(|p| p.len()), Some(1));

    let good = plan(&town.metrics, &[("new", section(HTTP1))]);
    let old = town.server.addresses()["web"];
    let prepared = town.server.prepare(&good).expect("a free port");
    town.server.commit(prepared);
    let addresses = town.server.addresses();
    assert!(addresses.contains_key("new") && !addresses.contains_key("web"));
    let mut fresh = TcpStream::connect(addresses["new"])
        .await
        .expect("it listens");
    fresh.write_all(GET).await.expect("it is open");
    assert!(head(&mut fresh).await.starts_with("HTTP/1.1 200"));
    loop {
        client.write_all(GET).await.expect("a second is left");
        if head(&mut client).await.contains("connection: close") {
            break;
        }
    }
    assert_eq!(all(&mut client).await, "");
    // each worker closes its own socket in its own time
    let closed = async { while TcpStream::connect(old).await.is_ok() {} };
    let closed = tokio::time::timeout(Duration::from_secs(5), closed).await;
    assert!(closed.is_ok(), "still open");
}

#[tokio::test]
async fn a_listener_may_be_renamed_on_its_address() {
    let mut town = Town::start(2, &[("web", section(HTTP1))]);
    let address = town.server.addresses()["web"];
    for name in ["edge", "web", "edge"] {
        let mut same = section(HTTP1);
        same.address.value = address.to_string();
        let renamed = plan(&town.metrics, &[(name, same)]);
        let prepared = town.server.prepare(&renamed).expect("it is ours");
        town.server.commit(prepared);
        assert_eq!(town.server.addresses()[name], address);
        // a client that comes between the emptying of a queue and its close is reset
        let mut answered = false;
        while !answered {
            if let Ok(mut client) = TcpStream::connect(address).await {
                client.write_all(GET).await.ok();
                answered = client.read_u8().await.is_ok();
            }
        }
    }
}

#[tokio::test]
async fn a_worker_that_panics_is_reported_as_lost() {
    let metrics = Arc::new(Metrics::new(2));
    let plan = plan(&metrics, &[("web", section(HTTP1))]);
    let prepared = Server::bind(&plan, 2).expect("free ports");
    let shared = SharedPlan::new(Arc::new(plan));
    let quiet = Arc::new(AtomicBool::new(false));
    let seen = quiet.clone();
    let build = move |index, drain| {
        assert!(
            index != 1 || seen.swap(true, SeqCst),
            "this worker is meant to fail"
        );
        world(index, &shared, &metrics, drain)
    };
    let mut server = Server::start(prepared, 2, build).expect("threads");
    assert_eq!(server.worker_lost().await, 1);
    assert!(quiet.load(SeqCst));
}

#[tokio::test]
async fn a_second_signal_cuts_a_request_in_progress() {
    let town = Town::start(1, &[("web", section(HTTP1))]);
    let mut client = town.connect().await;
    client.write_all(GET).await.expect("it is open");
    head(&mut client).await;
    let hurry = async {};
    let drained = town
        .server
        .drain(Duration::from_secs(60), Duration::from_secs(60), hurry)
        .await;
    assert_eq!(drained, Drained::Cut);
    assert_eq!(all(&mut client).await, "");
}

/// A listener with TLS for `a.test`, its files, and the client's roots.
fn secure() -> (ListenerConfig, Files, rustls::RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("a good name");
    let mut files = Files::default();
    files.insert("a.crt".into(), Ok(made.cert.pem().into()));
    files.insert("a.key".into(), Ok(made.signing_key.serialize_pem().into()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a good root");
    let mut section = section(BOTH);
    section.limits.header_timeout = Located::unstated(Time(Duration::from_millis(500)));
    section.tls = Some(crate::config::ListenerTlsConfig {
        certificates: Located::unstated(vec![crate::config::CertificateConfig {
            cert: Located::unstated("a.crt".to_owned()),
            key: Located::unstated("a.key".to_owned()),
        }]),
        client_auth: None,
    });
    (section, files, roots)
}

#[tokio::test]
async fn tls_is_shaken_resumed_on_any_worker_and_ended_when_it_stalls() {
    let (section, files, roots) = secure();
    let town = Town::with(2, &[("web", section)], &files);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut held = Vec::new();
    for turn in 0..6 {
        let name = "a.test".try_into().expect("a name");
        let mut client = connector
            .connect(name, town.connect().await)
            .await
            .expect("TLS");
        client.write_all(GET).await.expect("it is open");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let resumed = client.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        assert_eq!(resumed, turn > 0, "connection {turn}");
        held.push(client);
    }
    for bytes in [&b""[..], b"\x16\x03\x01", GET] {
        let mut client = town.connect().await;
        client.write_all(bytes).await.expect("it is open");
        all(&mut client).await;
    }
    town.refused_are(Refused::Tls, 3).await;
}

#[tokio::test]
async fn a_proxy_header_is_required_where_it_is_asked_for() {
    let mut section = section(HTTP1);
    section.proxy_protocol = true;
    let town = Town::start(1, &[("web", section)]);
    let mut client = town.connect().await;
    client
        .write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n")
        .await
        .expect("it is open");
    client.write_all(GET).await.expect("it is open");
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200"));
    let mut client = town.connect().await;
    client.write_all(GET).await.expect("it is open");
    all(&mut client).await;
    town.refused_are(Refused::ProxyHeader, 1).await;
}
