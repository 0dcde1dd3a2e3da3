//! The TLS handshake of a client, and what it establishes.
//!
//! Under the caller's time limit and a cap on handshakes at once for each worker, so that a flood
//! of them cannot take the worker from requests. Certificates come from the plan in force when
//! the connection was accepted.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::detect::Version;
use crate::message::exchange::TlsFacts;
use crate::plan::listener::TlsPlan;

/// Handshakes at once on one worker; further ones wait.
pub(super) const HANDSHAKES: usize = 128;

/// Makes the handshake.
///
/// # Errors
/// Where it fails, or the client goes away.
pub(super) async fn accept<S>(
    plan: &TlsPlan,
    stream: S,
    handshakes: &Semaphore,
) -> io::Result<(TlsStream<S>, TlsFacts)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // whoever is silent must not take a turn from those who speak
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let _permit = handshakes.acquire().await.map_err(io::Error::other)?;
    let stream = hello.into_stream(Arc::clone(&plan.config)).await?;
    let session = stream.get_ref().1;
    let facts = TlsFacts {
        server_name: session.server_name().map(str::to_ascii_lowercase),
        client_subject: session
            .peer_certificates()
            .and_then(|chain| subject(chain.first()?)),
    };
    Ok((stream, facts))
}

/// What ALPN settled on; `None` where the client did not ask.
pub(super) fn version<S>(stream: &TlsStream<S>) -> Option<Version> {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Some(Version::H2),
        Some(_) => Some(Version::Http1),
        None => None,
    }
}

fn subject(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.subject().to_string())
}
