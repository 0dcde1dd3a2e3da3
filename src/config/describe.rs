//! A route in a line, for the table of `weir check` and the status page.
//! Words for people only: nothing may read them back.

use super::{MatchConfig, RouteConfig};

/// What it matches: `GET api.example.com/v1/* x-tenant=* ?v=2`.
pub fn matches(route: &RouteConfig) -> String {
    let MatchConfig {
        host,
        path,
        methods,
        headers,
        query,
    } = &route.matches.value;
    let mut words = Vec::new();
    if !methods.is_empty() {
        let names: Vec<_> = methods.iter().map(|m| m.value.as_str()).collect();
        words.push(names.join(","));
    }
    let host = host.as_ref().map_or("*", |h| h.value.as_str());
    let path = path.as_ref().map_or("/*", |p| p.value.as_str());
    words.push(format!("{host}{path}"));
    words.extend(
        headers
            .iter()
            .map(|(name, value)| format!("{}={}", name.value, value.value)),
    );
    words.extend(
        query
            .iter()
            .map(|(name, value)| format!("?{}={}", name.value, value.value)),
    );
    words.join(" ")
}

/// Where it leads: `upstream app`, `split app 95, partner 5`, `308 /new/*`, `respond 200`.
pub fn target(route: &RouteConfig) -> String {
    if let Some(upstream) = &route.upstream {
        return format!("upstream {}", upstream.value);
    }
    if let Some(split) = &route.split {
        let shares = split
            .value
            .iter()
            .map(|s| format!("{} {}", s.upstream.value, s.weight.value));
        return format!("split {}", shares.collect::<Vec<_>>().join(", "));
    }
    if let Some(redirect) = &route.redirect {
        return format!("{} {}", redirect.status.value, redirect.to.value);
    }
    let status = route.respond.as_ref().map_or(0, |r| r.status.value);
    format!("respond {status}")
}
