//! TLS towards endpoints: roots, our certificate, ALPN; compiled once for all workers.
//!
//! The provider is named explicitly. A certificate that does not verify is refused; there is no
//! switch that turns this off and no fallback to cleartext.

use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::BuilderVerifierExt;

use super::config::{Protocol, UpstreamTlsConfig};
use crate::error::{GatewayError, Reason};
use crate::files::{FileRef, Files};
use crate::problem::{Problem, Problems};

/// Compiles the `tls` section.
pub(super) fn compile(
    config: &UpstreamTlsConfig,
    protocol: Protocol,
    files: &Files,
    problems: &mut Problems,
) -> Option<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| problems.push(Problem::general(format!("cannot set up TLS: {e}"))))
        .ok()?;
    let builder = match &config.ca {
        Some(ca) => builder.with_root_certificates(roots(ca, files, problems)?),
        None => builder
            .with_platform_verifier()
            .map_err(|e| {
                let message = format!("cannot read the system's certificate roots: {e}");
                problems.push(Problem::general(message).help("name a file with `ca`"));
            })
            .ok()?,
    };
    let mut tls = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert, files, problems)?;
            let private = private_key(key, files, problems)?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|e| {
                    let message = format!("this key does not serve the certificate: {e}");
                    problems.push(Problem::at(&key.span, message));
                })
                .ok()?
        }
        (None, None) => builder.with_no_client_auth(),
        // one without the other is `config/check`'s to report
        (Some(_), None) | (None, Some(_)) => return None,
    };
    tls.alpn_protocols = alpn(protocol);
    Some(Arc::new(tls))
}

/// What is offered for a protocol.
pub(super) fn alpn(protocol: Protocol) -> Vec<Vec<u8>> {
    match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::H2 => vec![b"h2".to_vec()],
        Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    }
}

fn roots(ca: &FileRef, files: &Files, problems: &mut Problems) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, files, problems)? {
        if let Err(e) = roots.add(certificate) {
            let message = format!("a certificate in \"{}\" is no root: {e}", ca.value);
            problems.push(Problem::at(&ca.span, message));
            return None;
        }
    }
    Some(roots)
}

fn certificates(
    file: &FileRef,
    files: &Files,
    problems: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let pem = files.get(file, problems)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(found) if !found.is_empty() => Some(found),
        Ok(_) => {
            let message = format!("no certificate in \"{}\"", file.value);
            problems.push(Problem::at(&file.span, message));
            None
        }
        Err(e) => {
            let message = format!("\"{}\" is not PEM: {e}", file.value);
            problems.push(Problem::at(&file.span, message));
            None
        }
    }
}

fn private_key(
    file: &FileRef,
    files: &Files,
    problems: &mut Problems,
) -> Option<PrivateKeyDer<'static>> {
    let pem = files.get(file, problems)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|e| {
            let message = format!("no private key in \"{}\": {e}", file.value);
            problems.push(Problem::at(&file.span, message));
        })
        .ok()
}

/// What a failed handshake means.
pub(super) fn failure(error: io::Error) -> GatewayError {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    let cause = error.get_ref().and_then(|e| e.downcast_ref());
    let reason = match cause {
        Some(InvalidCertificate(_)) => Reason::TlsCertificateError,
        Some(AlertReceived(_)) => Reason::TlsAlertReceived,
        _ => Reason::TlsProtocolError,
    };
    GatewayError::caused(reason, error)
}
