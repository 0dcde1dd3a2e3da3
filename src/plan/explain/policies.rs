//! What applies to a request, outermost first: the order of `plan/stack`, with the words and the
//! places of the config.

use std::time::Instant;

use serde::Serialize;

use super::{Asked, place, place_of};
use crate::config::{Loaded, RouteConfig};
use crate::plan::Plan;
use crate::plan::route::{Action, RoutePlan};
use crate::problem::Span;
use crate::units::Time;

/// One policy as it applies to the request.
#[derive(Debug, Serialize)]
pub struct Policy {
    /// The key in the config, or the name of the room.
    pub name: &'static str,
    /// What it does here.
    pub says: String,
    /// Where the config says so; `None`: a default.
    pub at: Option<String>,
}

/// The list under way.
struct List<'a> {
    loaded: &'a Loaded,
    policies: Vec<Policy>,
}

impl List<'_> {
    fn add(&mut self, name: &'static str, says: impl Into<String>, span: &Span) {
        self.policies.push(Policy {
            name,
            says: says.into(),
            at: place(self.loaded, span),
        });
    }
}

/// The policies of a route, for a request.
pub(super) fn of(
    plan: &Plan,
    config: &RouteConfig,
    route: &RoutePlan,
    asked: &Asked,
    now: Instant,
) -> Vec<Policy> {
    let mut list = List {
        loaded: &plan.loaded,
        policies: Vec::new(),
    };
    edits(&mut list, config);
    if let Some(size) = route.max_body {
        let says = format!("a request body of at most {}", crate::units::Size(size));
        list.add("max_body", says, &(0..0));
    }
    if let Some(steps) = &config.fallback {
        let says = format!("{} steps when anything below fails", steps.value.len());
        list.add("fallback", says, &steps.span);
    }
    refusals(&mut list, config, route, asked, now);
    if let Some(cache) = &route.cache {
        let (request, exchange) = asked.request();
        let section = config
            .cache
            .as_ref()
            .or(plan.loaded.config.defaults.cache.as_ref());
        let span = section.map_or(0..0, |section| section.span.clone());
        list.add("cache", cache.explain(&request, &exchange, now), &span);
    }
    way_out(&mut list, plan, config, route, asked);
    list.policies
}

/// What may refuse, in order.
fn refusals(_: &mut List<'_>, _: &RouteConfig, _: &RoutePlan, _: &Asked, _: Instant) {}

fn edits(list: &mut List<'_>, config: &RouteConfig) {
    let Some(headers) = &config.headers else {
        return;
    };
    for (side, edits) in [
        ("request", &headers.request),
        ("response", &headers.response),
    ] {
        let removed = edits.remove.iter().map(|n| format!("remove {}", n.value));
        let set = edits.set.keys().map(|n| format!("set {}", n.value));
        let added = edits.add.keys().map(|n| format!("add {}", n.value));
        let words: Vec<String> = removed.chain(set).chain(added).collect();
        let names = edits
            .remove
            .iter()
            .chain(edits.set.keys())
            .chain(edits.add.keys());
        let first = names.map(|name| &name.span).min_by_key(|span| span.start);
        if let Some(span) = first {
            list.add("headers", format!("{side}: {}", words.join(", ")), span);
        }
    }
}

fn way_out(
    list: &mut List<'_>,
    plan: &Plan,
    config: &RouteConfig,
    route: &RoutePlan,
    asked: &Asked,
) {
    if !matches!(route.action, Action::Forward(_)) {
        return;
    }
    if let Some(first) = config.upgrade.first() {
        let says = format!("to {}", route.upgrade.join(", "));
        list.add("upgrade", says, &first.span);
    }
    if let (Some(rewrite), Some(layer)) = (&config.rewrite, &route.rewrite) {
        let (mut request, _) = asked.request();
        layer.apply(&mut request);
        let host = request.headers().get(http::header::HOST);
        let host = host.and_then(|h| h.to_str().ok()).unwrap_or("");
        let says = format!("the upstream sees {host}{}", request.uri());
        list.add("rewrite", says, &rewrite.span);
    }
    let timeout = format!("response headers within {}", Time(route.timeout));
    let span = config.timeout.as_ref().map_or(0..0, |t| t.span.clone());
    list.add("timeout", timeout, &span);
    for (_, upstream) in route.shares() {
        let Some(section) = plan.loaded.config.upstreams.get(&*upstream.name) else {
            continue;
        };
        if let Some(retry) = section.retry.on() {
            let on: Vec<String> = retry.on.iter().map(|on| on.value.to_string()).collect();
            let says = format!(
                "{}: up to {} further tries on {}, {} % of requests",
                upstream.name,
                retry.attempts.value,
                on.join(", "),
                retry.budget.value * 100.0
            );
            let at = place_of(list.loaded, &retry.attempts);
            list.policies.push(Policy {
                name: "retry",
                says,
                at,
            });
        }
    }
}
