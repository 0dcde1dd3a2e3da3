//! Rules of one upstream: the texts of its endpoints, and keys that go together.
//! That values are in their ranges is said where they are compiled (`upstream/compile`), and not
//! again here. Whether a name can be resolved is not asked: a check does no I/O.

use std::collections::BTreeMap;

use super::super::decode::Lost;
use super::{address, is_token, name};
use crate::problem::{Located, Problem, Problems};
use crate::upstream::config::{BalanceConfig, EndpointConfig, UpstreamConfig};

/// Checks one upstream.
pub(super) fn check(
    upstream: &Located<String>,
    section: &UpstreamConfig,
    lost: &Lost,
    problems: &mut Problems,
) {
    name("an upstream", upstream, problems);
    endpoints(&section.endpoints, problems);
    balance(&section.balance, problems);
    if !lost.touched("upstreams", upstream) {
        client_certificate(section, problems);
    }
}

fn endpoints(endpoints: &Located<Vec<EndpointConfig>>, problems: &mut Problems) {
    if endpoints.is_empty() {
        problems.push(Problem::at(
            &endpoints.span,
            "an upstream needs an endpoint",
        ));
    }
    let mut seen = BTreeMap::new();
    for endpoint in endpoints.iter() {
        address::endpoint(&endpoint.address, problems);
        let text = endpoint.address.to_ascii_lowercase();
        if let Some(first) = seen.insert(text, &endpoint.address.span) {
            let message = format!("endpoint \"{}\" stands here twice", endpoint.address.value);
            let problem = Problem::at(&endpoint.address.span, message).also(first, "first here");
            problems.push(problem.help("give one of them a higher weight instead"));
        }
    }
}

fn balance(balance: &Located<BalanceConfig>, problems: &mut Problems) {
    if let BalanceConfig::HashCookie(name) = &balance.value
        && !is_token(name)
    {
        let message = format!("\"{name}\" cannot name a cookie");
        problems.push(Problem::at(&balance.span, message));
    }
}

/// A certificate is of no use without its key, nor a key without its certificate.
fn client_certificate(section: &UpstreamConfig, problems: &mut Problems) {
    let Some(tls) = &section.tls else { return };
    let lonely = match (&tls.cert, &tls.key) {
        (Some(cert), None) => Some((cert, "cert", "key")),
        (None, Some(key)) => Some((key, "key", "cert")),
        _ => None,
    };
    if let Some((file, has, lacks)) = lonely {
        let message = format!("{has} without {lacks}");
        problems.push(Problem::at(&file.span, message).help("give both, or neither"));
    }
}
