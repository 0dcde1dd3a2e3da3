//! A route in a line, for the table of `weir check` and the status page.
//! Words for people only: nothing may read them back. What the environment filled in is shown as
//! it is written.

use super::{MatchConfig, RouteConfig};
use crate::filled::Filled;

/// What it matches: `GET api.example.com/v1/* x-tenant=* ?v=2`.
pub fn matches(route: &RouteConfig, filled: &Filled) -> String {
    let MatchConfig {
        host,
        path,
        methods,
        headers,
        query,
    } = &route.matches.value;
    let mut words = Vec::new();
    if !methods.is_empty() {
        let names: Vec<_> = methods.iter().map(|m| filled.shown(m)).collect();
        words.push(names.join(","));
    }
    let host = host.as_ref().map_or("*", |h| filled.shown(h));
    let path = path.as_ref().map_or("/*", |p| filled.shown(p));
    words.push(format!("{host}{path}"));
    words.extend(
        headers
            .iter()
            .map(|(name, value)| format!("{}={}", name.value, filled.shown(value))),
    );
    words.extend(
        query
            .iter()
            .map(|(name, value)| format!("?{}={}", name.value, filled.shown(value))),
    );
    words.join(" ")
}

/// Where it leads: `upstream app`, `split app 95, partner 5`, `308 /new/*`, `respond 200`.
pub fn target(route: &RouteConfig, filled: &Filled) -> String {
    if let Some(upstream) = &route.upstream {
        return format!("upstream {}", filled.shown(upstream));
    }
    if let Some(split) = &route.split {
        let shares = split
            .value
            .iter()
            .map(|s| format!("{} {}", filled.shown(&s.upstream), s.weight.value));
        return format!("split {}", shares.collect::<Vec<_>>().join(", "));
    }
    if let Some(redirect) = &route.redirect {
        return format!("{} {}", redirect.status.value, filled.shown(&redirect.to));
    }
    let status = route.respond.as_ref().map_or(0, |r| r.status.value);
    format!("respond {status}")
}
