//! Whom the gateway believes: upstreams with TLS whose certificate is not the one that was meant.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

use crate::harness::{Gateway, SOON, client, gateway};

type Root = CertifiedIssuer<'static, KeyPair>;

fn root() -> Root {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a root")
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    let name = Ia5String::try_from(name).expect("seven bits");
    params.subject_alt_names = vec![SanType::DnsName(name)];
    params
}

fn expired(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    params
}

/// A TLS origin with a certificate of these properties; counts the requests that reach it.
fn origin(params: &CertificateParams, issuer: Option<&Root>) -> (SocketAddr, Arc<AtomicUsize>) {
    let key = KeyPair::generate().expect("a key");
    let cert = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    let cert = cert.expect("signed").der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("a pair");
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(SOON)).expect("a timeout");
            let session = ServerConnection::new(config.clone()).expect("a session");
            let mut tls = StreamOwned::new(session, stream);
            if matches!(tls.read(&mut [0; 4096]), Ok(1..)) {
                count.fetch_add(1, SeqCst);
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                drop(tls.write_all(answer.as_bytes()));
                tls.conn.send_close_notify();
                drop(tls.flush());
            }
        }
    });
    (address, asked)
}

/// The status, and what was asked of the origin.
fn through(root: &Root, origin: (SocketAddr, Arc<AtomicUsize>)) -> (u16, String, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, root.pem()).expect("a file");
    let tls = format!("tls = {{ server_name = \"good.test\", ca = {ca:?} }}\nretry = false");
    let mut gateway = Gateway::start(&gateway::before(origin.0, &tls));
    let answer = client::get(gateway.web(), "/");
    gateway.assert_sound();
    let said = answer.get("proxy-status").unwrap_or_default().to_owned();
    (answer.status(), said, origin.1.load(SeqCst))
}

#[test]
fn e21_a_certificate_that_was_not_meant_is_a_bad_gateway_and_nothing_is_asked() {
    let (ours, theirs) = (root(), root());
    let good = through(&ours, origin(&named("good.test"), Some(&ours)));
    assert_eq!(good, (200, String::new(), 1));
    let bad = [
        ("another name", origin(&named("other.test"), Some(&ours))),
        ("a name below", origin(&named("x.good.test"), Some(&ours))),
        (
            "a NUL in it",
            origin(&named("good.test\0.evil"), Some(&ours)),
        ),
        ("expired", origin(&expired("good.test"), Some(&ours))),
        ("another root", origin(&named("good.test"), Some(&theirs))),
        ("self-signed", origin(&named("good.test"), None)),
    ];
    for (what, origin) in bad {
        let (status, said, asked) = through(&ours, origin);
        assert_eq!((status, asked), (502, 0), "{what}: {said}");
        let told = "weir; error=tls_certificate_error";
        assert!(said.starts_with(told), "{what}: {said}");
    }
}
