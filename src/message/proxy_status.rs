//! Proxy-Status (RFC 9209): what Weir says of an answer that it made because something failed.
//!
//! `weir; error=connection_timeout; next-hop=app`. The upstream is named as in the config; config
//! names are RFC 9651 Tokens unless they begin with a digit, then they are Strings.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::error::Reason;

/// The field.
pub const NAME: HeaderName = HeaderName::from_static("proxy-status");

/// The member for a failure; `None` where RFC 9209 has no word for it.
pub fn failed(identity: &str, reason: Reason, next_hop: Option<&str>) -> Option<HeaderValue> {
    let member = format!("{identity}; error={}", reason.proxy_status()?);
    with_next_hop(member, next_hop)
}

/// The member for an upstream's answer that was replaced.
pub fn received(identity: &str, status: StatusCode, next_hop: Option<&str>) -> Option<HeaderValue> {
    let member = format!("{identity}; received-status={}", status.as_u16());
    with_next_hop(member, next_hop)
}

fn with_next_hop(mut member: String, next_hop: Option<&str>) -> Option<HeaderValue> {
    if let Some(upstream) = next_hop {
        let is_token = !upstream.starts_with(|c: char| c.is_ascii_digit());
        let quote = if is_token { "" } else { "\"" };
        write!(member, "; next-hop={quote}{upstream}{quote}").ok()?;
    }
    HeaderValue::from_str(&member).ok()
}
