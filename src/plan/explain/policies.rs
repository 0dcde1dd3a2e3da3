//! What applies to a request, outermost first: the order of `plan/stack`, with the words and the
//! places of the config.

use std::time::Instant;

use serde::Serialize;

use super::{Asked, place, place_of};
use crate::config::{Loaded, RouteConfig};
use crate::gate::caps::Caps;
use crate::middleware::rate_limit::{self, Count, Limit, Look};
use crate::plan::Plan;
use crate::plan::route::{Action, RoutePlan};
use crate::problem::Span;
use crate::switch::Mode;
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
        let count = steps.value.len();
        let plural = if count == 1 { "" } else { "s" };
        let says = format!("{count} step{plural} when anything below fails");
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
    if let Some(compression) = &route.compress {
        let says = compression.explain(&asked.method, &asked.headers);
        let inherited = plan.loaded.config.defaults.compress.as_ref();
        let span = config.compress.as_ref().or(inherited);
        list.add("compress", says, &span.map_or(0..0, |c| c.span.clone()));
    }
    way_out(&mut list, plan, config, route, asked);
    list.policies
}

/// What may refuse, in order.
fn refusals(
    list: &mut List<'_>,
    config: &RouteConfig,
    route: &RoutePlan,
    asked: &Asked,
    now: Instant,
) {
    if let Some((priority, mode)) = route.shed {
        let says = format!("{}{}", priority.as_str(), observed(mode));
        let span = config.priority.as_ref().map_or(0..0, |p| p.span.clone());
        list.add("priority", says, &span);
    }
    limits(list, config, route, asked, now);
    let Some(caps) = &route.concurrency else {
        return;
    };
    let span = |policy: usize| {
        let cap = config.concurrency.as_ref()?.caps().get(policy)?;
        Some(cap.max.span.clone())
    };
    for (at, says) in concurrency(caps, asked) {
        list.add("concurrency", says, &span(at).unwrap_or(0..0));
    }
}

fn limits(
    list: &mut List<'_>,
    config: &RouteConfig,
    route: &RoutePlan,
    asked: &Asked,
    now: Instant,
) {
    let (request, exchange) = asked.request();
    let looks = rate_limit::look(&route.limits, &request, &exchange, now);
    let limits = route.limits.iter().zip(looks).zip(&config.rate_limit.0);
    let (misses, others): (Vec<_>, Vec<_>) =
        limits.partition(|((limit, _), _)| limit.count() == Count::Misses);
    for ((limit, look), config) in others.into_iter().chain(misses) {
        list.add("rate_limit", limited(limit, &look), &config.rate.span);
    }
}

/// How a limit stands for the client of a request.
fn limited(limit: &Limit, look: &Look) -> String {
    let count = match limit.count() {
        Count::All => "",
        Count::Misses => " not answered from the cache",
        Count::Failures => " that fail",
    };
    let says = format!(
        "{}: {}{count}, {} at once, by {}; {}: {} left",
        look.name,
        look.rate,
        look.burst,
        limit.key(),
        look.key.join(", "),
        look.left,
    );
    let says = match (look.left, limit.mode()) {
        (0, Mode::Enforce) => format!("{says}: it is refused for {} ms", look.next.as_millis()),
        _ => says,
    };
    match limit.mode() {
        Mode::Enforce => says,
        Mode::Observe => says + observed(Mode::Observe),
    }
}

/// What each cap says of the request, with its place in the config's list.
fn concurrency(caps: &Caps, asked: &Asked) -> Vec<(usize, String)> {
    let (request, exchange) = asked.request();
    let clients = caps.clients.iter().map(|cap| {
        let key = cap.key.hash(&request, &exchange, &cap.counts.by);
        let shown = cap.key.shown(&request, &exchange).join(", ");
        let (max, now) = (cap.max, cap.counts.of(key));
        let mode = observed(cap.mode);
        let says = format!("{}: at most {max} of {shown}, {now} now{mode}", cap.written);
        (cap.position, says)
    });
    let whole = caps.whole.iter().map(|cap| {
        let now = cap.gate.standing();
        let mut says = format!("at most {}, {} now", now.limit, now.in_flight);
        let queue = cap.settings.rules.queue;
        if queue > 0 {
            let (timeout, waiting) = (Time(cap.timeout), now.waiting);
            says += &format!("; {queue} may wait for {timeout}, {waiting} do");
        }
        (cap.position, says + observed(cap.mode))
    });
    clients.chain(whole).collect()
}

fn observed(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "",
        Mode::Observe => " (observes)",
    }
}

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
        let rewritten = layer.apply(&mut request);
        let host = request.headers().get(http::header::HOST);
        let host = host.and_then(|h| h.to_str().ok()).unwrap_or("");
        let says = match rewritten {
            Ok(()) => format!("the upstream sees {host}{}", request.uri()),
            Err(reason) => format!("refused: {}", reason.as_str()),
        };
        list.add("rewrite", says, &rewrite.span);
    }
    let timeout = format!("response headers within {}", Time(route.timeout));
    let span = config.timeout.as_ref().map_or(0..0, |t| t.span.clone());
    list.add("timeout", timeout, &span);
    for (_, upstream) in route.shares() {
        let Some(section) = plan.loaded.config.upstreams.get(&*upstream.name) else {
            continue;
        };
        if let (Some(cap), Some(caps)) = (&section.concurrency, upstream.concurrency()) {
            for (_, says) in concurrency(caps, asked) {
                let says = format!("{}: {says}", upstream.name);
                list.add("concurrency", says, &cap.max.span);
            }
        }

        for (name, breaker) in [
            ("breaker", &section.breaker),
            ("endpoint_breaker", &section.endpoint_breaker),
        ] {
            let Some(breaker) = breaker else { continue };
            list.policies.push(Policy {
                name,
                says: format!("{}: opens {}", upstream.name, breaker.opens()),
                at: place_of(list.loaded, &breaker.error_ratio),
            });
        }
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
