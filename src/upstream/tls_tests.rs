//! TLS towards an endpoint, against a rustls server with a certificate of our own making.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::config::UpstreamConfig;
use super::*;
use crate::error::GatewayError;

use crate::error::Reason;
use crate::files::Files;
use crate::message::Body;
use crate::problem::{Located, Problems};
use crate::telemetry::handles::Metrics;

/// Answers with the protocol spoken; its certificate is for `good.test`.
async fn origin(alpn: &[&[u8]]) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["good.test".to_owned()]).expect("made");
    let pem = made.cert.pem();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate with its key");
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(acceptor.clone(), socket));
        }
    });
    (address, pem)
}

async fn serve(
    acceptor: TlsAcceptor,
    socket: tokio::net::TcpStream,
) -> Result<(), crate::error::BoxError> {
    let stream = acceptor.accept(socket).await?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
        let version = Body::from(format!("{:?}", request.version()));
        async move { Ok::<_, GatewayError>(http::Response::new(version)) }
    });
    let io = TokioIo::new(stream);
    if h2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.serve_connection(io, service).await?;
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        server.serve_connection(io, service).await?;
    }
    Ok(())
}

async fn ask(address: SocketAddr, pem: &str, more: &str) -> Result<Bytes, GatewayError> {
    let text = format!("endpoints = [\"{address}\"]\nretry = false\n{more}");
    let config: UpstreamConfig = toml::from_str(&text).expect("a section");
    let name = Located::unstated("app".to_owned());
    let mut files = Files::default();
    files.insert("ca.pem".to_owned(), Ok(Bytes::from(pem.to_owned())));
    let mut problems = Problems::new();
    let metrics = Metrics::new(1).upstream("app");
    let upstream = Upstream::compile(&name, &config, None, &files, metrics, None, &mut problems);
    let upstream = Arc::new(upstream.expect("compiles"));
    let mut request = Box::new(http::Request::new(Body::empty()));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = "/".parse().expect("a path");
    let host = HeaderValue::from_static("good.test");
    request.headers_mut().insert("host", host);
    let pools = Arc::new(WorkerPools::new(0));
    let response = client(&upstream, &pools, |send| send)
        .oneshot(request)
        .await?;
    Ok(response.into_body().collect().await?.to_bytes())
}

const GOOD: &str = "tls = { server_name = \"good.test\", ca = \"ca.pem\" }";

#[tokio::test]
async fn alpn_decides_what_is_spoken() {
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (protocol, alpn, spoken) in [
        ("auto", both, "HTTP/2.0"),
        ("auto", &both[1..], "HTTP/1.1"),
        ("h2", both, "HTTP/2.0"),
        ("http1", both, "HTTP/1.1"),
    ] {
        let (address, pem) = origin(alpn).await;
        let more = format!("protocol = \"{protocol}\"\n{GOOD}");
        let said = ask(address, &pem, &more).await.expect("an answer");
        assert_eq!(said, spoken, "{protocol} with {alpn:?}");
    }
}

#[tokio::test]
async fn e21_a_wrong_name_or_an_unknown_root_is_refused() {
    let (address, pem) = origin(&[]).await;
    let wrong = "tls = { server_name = \"evil.test\", ca = \"ca.pem\" }";
    let error = ask(address, &pem, wrong).await.expect_err("wrong name");
    assert_eq!(error.reason(), Reason::TlsCertificateError);
    let (_, other) = origin(&[]).await;
    let error = ask(address, &other, GOOD).await.expect_err("unknown root");
    assert_eq!(error.reason(), Reason::TlsCertificateError);
}

#[tokio::test]
async fn e20_cleartext_on_a_tls_port_is_a_protocol_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let planted = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
        tokio::io::AsyncWriteExt::write_all(&mut socket, planted).await
    });
    let (_, pem) = origin(&[]).await;
    let error = ask(address, &pem, GOOD).await.expect_err("no TLS");
    assert_eq!(error.reason(), Reason::TlsProtocolError);
}
