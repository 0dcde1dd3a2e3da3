//! TLS of a listener, compiled: certificates by name, client certificates, session tickets.
//!
//! One rustls `ServerConfig` for all workers. It is made anew only when the section or one of its
//! files has changed, so that sessions survive an unrelated reload; and it has ticket keys and a
//! session cache of its own, so that a session made under one set of client roots is worth nothing
//! under another. No I/O here: the files were read by `config/load`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock;
use crate::config::{CertificateConfig, ClientAuthConfig, ClientAuthMode, ListenerTlsConfig};
use crate::files::{FileRef, Files};
use crate::problem::{Problem, Problems};

/// TLS of a listener.
pub struct TlsPlan {
    /// One for all workers, so that resumption works.
    pub config: Arc<ServerConfig>,
    /// When each certificate of the section ends, in its order: Unix seconds.
    pub not_after: Vec<i64>,
    /// Which clients may come; `None`: no certificate is asked for.
    pub clients: Option<ClientRoots>,
    names: Arc<Names>,
    made_of: Source,
}

/// The rule for client certificates. Whoever came under one has shown nothing under another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRoots {
    mode: ClientAuthMode,
    ca: Bytes,
}

/// What a plan was made of: equal sources need no new plan.
#[derive(PartialEq)]
struct Source {
    section: ListenerTlsConfig,
    files: Vec<Bytes>,
    alpn: Vec<Vec<u8>>,
}

impl TlsPlan {
    /// Whether a connection that asked for `server_name` may carry requests for `host` (both lower
    /// case, without port): the same name, or one that the same certificate serves. Else 421.
    pub fn covers(&self, server_name: &str, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        let server_name = server_name.trim_end_matches('.');
        server_name == host || self.names.find(server_name) == self.names.find(host)
    }

    /// Compiles the section; `previous` is used again where nothing in it has changed.
    pub(super) fn compile(
        section: &ListenerTlsConfig,
        alpn: Vec<Vec<u8>>,
        files: &Files,
        previous: Option<&Arc<TlsPlan>>,
        problems: &mut Problems,
    ) -> Option<Arc<TlsPlan>> {
        // all of them, before the first that is missing ends it
        let read = section.files().map(|file| files.get(file, problems));
        let read: Vec<Option<Bytes>> = read.collect();
        let read: Option<Vec<Bytes>> = read.into_iter().collect();
        let made_of = Source {
            section: section.clone(),
            files: read?,
            alpn,
        };
        if let Some(previous) = previous
            && previous.made_of == made_of
        {
            return Some(previous.clone());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = section.certificates.value.iter();
        let loaded: Vec<Option<Certificate>> = certificates
            .map(|c| Certificate::load(c, files, &provider, problems))
            .collect();
        let verifier = match &section.client_auth {
            Some(auth) => Some(verifier(auth, files, &provider, problems)?),
            None => None,
        };
        let clients = match &section.client_auth {
            Some(auth) => Some(ClientRoots {
                mode: auth.mode,
                ca: files.get(&auth.ca, problems)?,
            }),
            None => None,
        };
        let loaded: Vec<Certificate> = loaded.into_iter().collect::<Option<_>>()?;
        let not_after = loaded.iter().map(|c| c.not_after).collect();
        let names = Arc::new(Names::of(loaded));
        let config = server_config(provider, verifier, names.clone(), &made_of.alpn);
        let config = config
            .map_err(|error| problems.push(Problem::general(format!("TLS: {error}"))))
            .ok()?;
        Some(Arc::new(TlsPlan {
            config: Arc::new(config),
            not_after,
            clients,
            names,
            made_of,
        }))
    }
}

fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    names: Arc<Names>,
    alpn: &[Vec<u8>],
) -> Result<ServerConfig, rustls::Error> {
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(names);
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.alpn_protocols = alpn.to_vec();
    Ok(config)
}

fn verifier(
    auth: &ClientAuthConfig,
    files: &Files,
    provider: &Arc<CryptoProvider>,
    problems: &mut Problems,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for root in chain(&auth.ca, files, problems)? {
        if let Err(error) = roots.add(root) {
            problems.push(bad(&auth.ca, &error));
            return None;
        }
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match auth.mode {
        ClientAuthMode::Required => builder,
        ClientAuthMode::Optional => builder.allow_unauthenticated(),
    };
    let built = builder.build();
    built
        .map_err(|error| problems.push(bad(&auth.ca, &error)))
        .ok()
}

fn bad(file: &FileRef, why: &dyn std::fmt::Display) -> Problem {
    Problem::at(&file.span, format!("\"{}\": {why}", file.value))
}

/// The certificates of a PEM file, at least one.
fn chain(
    file: &FileRef,
    files: &Files,
    problems: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let pem = files.get(file, problems)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => return Some(chain),
        Ok(_) => problems.push(bad(file, &"there is no certificate in it")),
        Err(error) => problems.push(bad(file, &error)),
    }
    None
}

/// A certificate with its key, and what it says.
struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_after: i64,
}

impl Certificate {
    fn load(
        config: &CertificateConfig,
        files: &Files,
        provider: &CryptoProvider,
        problems: &mut Problems,
    ) -> Option<Certificate> {
        let chain = chain(&config.cert, files, problems);
        let pem = files.get(&config.key, problems)?;
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|error| problems.push(bad(&config.key, &error)))
            .ok()?;
        let chain = chain?;
        let leaf = match X509Certificate::from_der(&chain[0]) {
            Ok((_, leaf)) => leaf,
            Err(error) => {
                problems.push(bad(&config.cert, &error));
                return None;
            }
        };
        let names = names(&leaf);
        let not_after = leaf.validity().not_after.timestamp();
        warn_of_dates(&config.cert.value, &leaf);
        // fails where the key does not belong to the certificate
        let key = CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| problems.push(bad(&config.key, &error)))
            .ok()?;
        Some(Certificate {
            key: Arc::new(key),
            names,
            not_after,
        })
    }
}

/// A certificate out of its time is served all the same: to refuse the config would take down
/// every other change with it.
fn warn_of_dates(file: &str, leaf: &X509Certificate<'_>) {
    let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(wall.as_secs()).unwrap_or(i64::MAX);
    let validity = leaf.validity();
    if validity.not_after.timestamp() < now {
        tracing::warn!(file, "certificate has expired");
    }
    if validity.not_before.timestamp() > now {
        tracing::warn!(file, "certificate is not valid yet");
    }
}

/// The DNS names of a certificate, lower case; its common name where it has none.
fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let dns = alternative.iter().flat_map(|san| &san.value.general_names);
    let mut names: Vec<String> = dns
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if alternative.is_none() {
        let common = leaf.subject().iter_common_name();
        names.extend(common.filter_map(|cn| Some(cn.as_str().ok()?.to_ascii_lowercase())));
    }
    names
}

/// Which certificate serves which name. Of two that name the same, the one written first.
#[derive(Debug)]
struct Names {
    keys: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, usize>,
    /// By what stands after `*`, with the dot.
    wildcard: HashMap<String, usize>,
}

impl Names {
    fn of(certificates: Vec<Certificate>) -> Self {
        let mut names = Names {
            keys: Vec::new(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        };
        for (at, certificate) in certificates.into_iter().enumerate() {
            names.keys.push(certificate.key);
            for name in certificate.names {
                match name.strip_prefix('*') {
                    Some(suffix) => names.wildcard.entry(suffix.to_owned()).or_insert(at),
                    None => names.exact.entry(name).or_insert(at),
                };
            }
        }
        names
    }

    /// The certificate that names `host` (lower case), exactly or by a wildcard for one label.
    fn find(&self, host: &str) -> Option<usize> {
        let exact = self.exact.get(host);
        let wildcard = || self.wildcard.get(&host[host.find('.')?..]);
        exact.or_else(wildcard).copied()
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let named = name.and_then(|name| self.find(name.trim_end_matches('.')));
        self.keys.get(named.unwrap_or(0)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;
    use crate::problem::Located;

    fn located(path: &str) -> FileRef {
        Located::unstated(path.to_owned())
    }

    /// Self-signed, for these names, under `name.crt` and `name.key`.
    fn write(files: &mut Files, name: &str, hosts: &[&str]) {
        let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).expect("good names");
        files.insert(format!("{name}.crt"), Ok(made.cert.pem().into()));
        files.insert(
            format!("{name}.key"),
            Ok(made.signing_key.serialize_pem().into()),
        );
    }

    fn section(names: &[&str]) -> ListenerTlsConfig {
        let one = |name: &&str| CertificateConfig {
            cert: located(&format!("{name}.crt")),
            key: located(&format!("{name}.key")),
        };
        ListenerTlsConfig {
            certificates: Located::unstated(names.iter().map(one).collect()),
            client_auth: None,
        }
    }

    fn compile(
        section: &ListenerTlsConfig,
        files: &Files,
        previous: Option<&Arc<TlsPlan>>,
    ) -> Result<Arc<TlsPlan>, usize> {
        let mut problems = Problems::new();
        let plan = TlsPlan::compile(
            section,
            vec![b"h2".to_vec()],
            files,
            previous,
            &mut problems,
        );
        plan.filter(|_| problems.is_empty()).ok_or(problems.len())
    }

    fn two() -> (Files, ListenerTlsConfig) {
        let mut files = Files::default();
        write(&mut files, "a", &["a.test", "*.w.test"]);
        write(&mut files, "b", &["b.test", "B2.test", "x.w.test"]);
        (files, section(&["a", "b"]))
    }

    #[test]
    fn l07_a_certificate_is_found_exactly_then_by_one_label_of_wildcard() {
        let (files, section) = two();
        let plan = compile(&section, &files, None).expect("a good section");
        let find = |host| plan.names.find(host);
        assert_eq!(find("a.test"), Some(0));
        assert_eq!(find("b2.test"), Some(1));
        assert_eq!(find("y.w.test"), Some(0));
        assert_eq!(find("x.w.test"), Some(1));
        for host in ["z.y.w.test", "w.test", "", ".", "localhost"] {
            assert_eq!(find(host), None, "{host}");
        }
        assert_eq!(plan.not_after.len(), 2);
    }

    #[test]
    fn l01_a_connection_carries_only_hosts_of_its_certificate() {
        let (files, section) = two();
        let plan = compile(&section, &files, None).expect("a good section");
        assert!(plan.covers("a.test", "a.test"));
        assert!(plan.covers("a.test", "y.w.test"));
        assert!(plan.covers("b.test", "b2.test."));
        assert!(!plan.covers("a.test", "b.test"));
        assert!(!plan.covers("y.w.test", "x.w.test"));
        assert!(plan.covers("unknown.test", "unknown.test"));
    }

    #[test]
    fn l03_sessions_survive_an_unrelated_reload_and_no_other() {
        let (mut files, mut section) = two();
        let plan = compile(&section, &files, None).expect("a good section");
        let again = compile(&section, &files, Some(&plan)).expect("a good section");
        assert!(Arc::ptr_eq(&plan, &again));
        write(&mut files, "b", &["b.test"]);
        let renewed = compile(&section, &files, Some(&plan)).expect("a good section");
        assert!(!Arc::ptr_eq(&plan, &renewed));
        files.insert("ca.crt".into(), Ok(authority().into()));
        section.client_auth = Some(ClientAuthConfig {
            ca: located("ca.crt"),
            mode: ClientAuthMode::Optional,
        });
        let stricter = compile(&section, &files, Some(&renewed)).expect("a good section");
        assert!(!Arc::ptr_eq(&renewed, &stricter));
    }

    fn authority() -> String {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a root").pem()
    }

    #[test]
    fn l05_files_that_are_no_certificate_or_another_ones_key_are_problems() {
        let (files, section) = two();
        let of = |path: &str| match files.iter().find(|(p, _)| *p == path) {
            Some((_, Ok(content))) => content.clone(),
            _ => Bytes::new(),
        };
        let half = of("a.crt").slice(..200);
        for (path, content) in [
            ("a.crt", Bytes::new()),
            ("a.crt", half),
            ("a.crt", Bytes::from_static(b"\xff\0")),
            ("a.crt", of("b.crt")),
            ("a.key", of("b.key")),
            ("a.key", of("a.crt")),
            ("a.key", Bytes::new()),
        ] {
            let mut broken = files.clone();
            broken.insert(path.to_owned(), Ok(content));
            assert_eq!(compile(&section, &broken, None).err(), Some(1), "{path}");
        }
    }
}
