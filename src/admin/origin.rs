//! Who makes a browser ask: requests that a foreign web page caused are refused.
//!
//! Two ways lead from a page on the internet to an address on this machine. It may post across
//! sites, which browsers admit in `Origin` and `Sec-Fetch-Site`; or it may point its own name at
//! 127.0.0.1 (DNS rebinding), which shows in `Host`. Tools send neither and are let in.

use std::net::IpAddr;

use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue};

/// Whether a browser says that a page of another site sent this.
pub(super) fn foreign(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let site = text(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|s| s != b"same-origin" && s != b"none") {
        return true;
    }
    text(ORIGIN).is_some_and(|origin| {
        let host = text(HOST).unwrap_or_default();
        let after = |scheme: &[u8]| origin.strip_prefix(scheme);
        after(b"http://").or(after(b"https://")) != Some(host)
    })
}

/// Whether `Host` names this machine: an address, or `localhost`. Asked of loopback addresses
/// alone; elsewhere an operator may give the gateway any name.
pub(super) fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else {
        return true;
    };
    let host = host.to_str().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn addresses_and_localhost_name_this_machine_and_nothing_else_does() {
        for own in [
            "127.0.0.1:9901",
            "[::1]:9901",
            "localhost",
            "LOCALHOST:80",
            "weir.localhost:1",
        ] {
            assert!(names_this_machine(&with(HOST, own)), "{own}");
        }
        for other in [
            "evil.example:9901",
            "localhost.evil.example",
            "",
            "[",
            "127.0.0.1.nip.io",
        ] {
            assert!(!names_this_machine(&with(HOST, other)), "{other}");
        }
        assert!(names_this_machine(&HeaderMap::new()));
    }

    #[test]
    fn a_request_without_browser_fields_is_not_foreign() {
        assert!(!foreign(&with(HOST, "127.0.0.1:9901")));
        assert!(foreign(&with(ORIGIN, "http://127.0.0.1:9901")));
    }
}
