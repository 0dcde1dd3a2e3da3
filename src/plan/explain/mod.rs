//! What would become of a request, and which line of the config says so.
//!
//! For `weir explain` and `GET /explain`: nothing is sent, counted or charged. The policies stand in
//! the order of [`crate::plan::stack`]. Pure but for what the plan itself knows at the moment: how
//! endpoints and breakers stand, and what is left of limits.
//!
//! * `asked`: the request
//! * `policies`: what applies to it
//! * `text`: for people

mod asked;
mod policies;
mod text;

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::Plan;
use super::route::RoutePlan;
use super::router::{Found, why};
use crate::config::{Loaded, RouteConfig, describe};
use crate::error::{Cause, Reason};
use crate::problem::{Located, Span};
use crate::upstream::breaker::BreakerStatus;
use crate::upstream::{EndpointStatus, Upstream};
pub use asked::Asked;
pub use policies::Policy;

/// What would become of a request.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// As routing sees it: `GET api.example.com/v1/x`.
    pub request: String,
    /// The route that takes it.
    pub route: Option<Chosen>,
    /// Where no route does: the answer.
    pub refused: Option<String>,
    /// The other routes, and why each does not take it.
    pub others: Vec<Other>,
}

/// The route that takes the request.
#[derive(Debug, Serialize)]
pub struct Chosen {
    /// Its id.
    pub id: String,
    /// What it matches.
    pub matches: String,
    /// Where it leads.
    pub target: String,
    /// Where it stands: `file:line:column`.
    pub at: Option<String>,
    /// What applies, outermost first.
    pub policies: Vec<Policy>,
    /// Where it may be sent.
    pub upstreams: Vec<Candidate>,
    /// The steps of its ladder.
    pub ladder: Vec<Rung>,
}

/// A route that does not take the request.
#[derive(Debug, Serialize)]
pub struct Other {
    /// Its id.
    pub id: String,
    /// Why not.
    pub why: String,
    /// Where its `match` stands.
    pub at: Option<String>,
}

/// An upstream that may be asked.
#[derive(Debug, Serialize)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its share among the others.
    pub weight: u32,
    /// How an endpoint is chosen.
    pub balance: String,
    /// Where it stands.
    pub at: Option<String>,
    /// Its endpoints as they stand.
    pub endpoints: Vec<EndpointStatus>,
    /// Too few are usable, so all are used.
    pub panic: bool,
    /// Its breaker as it stands, if it has one.
    pub breaker: Option<BreakerStatus>,
}

/// A step of the ladder.
#[derive(Debug, Serialize)]
pub struct Rung {
    /// What it does.
    pub step: String,
    /// What it serves.
    pub on: Vec<Cause>,
    /// Where it stands.
    pub at: Option<String>,
}

/// Explains a request by a plan, as things stand at `now`.
pub fn explain(plan: &Plan, asked: &Asked, now: Instant) -> Explanation {
    let question = asked.question();
    let found = plan.router.find(question);
    let winner = match &found {
        Found::Route(index) => Some(*index),
        Found::Methods(_) | Found::Nothing => None,
    };
    let configs = &plan.loaded.config.routes;
    let others = why::others(configs, question, winner);
    let others = others.into_iter().map(|(index, why)| Other {
        id: configs[index].id.value.clone(),
        why: why.to_string(),
        at: place(&plan.loaded, &span(&configs[index])),
    });
    Explanation {
        request: format!("{} {}{}", asked.method, asked.host, asked.uri),
        route: winner.map(|index| chosen(plan, &configs[index], &plan.routes[index], asked, now)),
        refused: refused(&found),
        others: others.collect(),
    }
}

fn refused(found: &Found) -> Option<String> {
    let reason = match found {
        Found::Route(_) => return None,
        Found::Methods(_) => Reason::MethodNotAllowed,
        Found::Nothing => Reason::NoRoute,
    };
    let status = reason.status().map_or(0, |status| status.as_u16());
    Some(format!("{status} {}", reason.as_str()))
}

fn chosen(
    plan: &Plan,
    config: &RouteConfig,
    route: &Arc<RoutePlan>,
    asked: &Asked,
    now: Instant,
) -> Chosen {
    let filled = &plan.loaded.sources.filled;
    let shares = route.shares().iter();
    let upstreams = shares.map(|(weight, up)| candidate(plan, up, *weight, now));
    Chosen {
        id: route.id.to_string(),
        matches: describe::matches(config, filled),
        target: describe::target(config, filled),
        at: place(&plan.loaded, &config.id.span),
        policies: policies::of(plan, config, route, asked, now),
        upstreams: upstreams.collect(),
        ladder: ladder(plan, config),
    }
}

fn candidate(plan: &Plan, upstream: &Upstream, weight: u32, now: Instant) -> Candidate {
    let status = upstream.status(now);
    let config = plan.loaded.config.upstreams.get_key_value(&*upstream.name);
    Candidate {
        name: upstream.name.to_string(),
        weight,
        balance: config.map_or_else(String::new, |(_, c)| c.balance.value.to_string()),
        at: config.and_then(|(name, _)| place(&plan.loaded, &name.span)),
        endpoints: status.endpoints,
        panic: status.panic,
        breaker: status.breaker,
    }
}

fn ladder(plan: &Plan, config: &RouteConfig) -> Vec<Rung> {
    let steps = config.steps().map(|step| Rung {
        step: match (&step.stale, &step.upstream, &step.respond) {
            (Some(limit), ..) => format!("a stored copy stale by at most {}", limit.value),
            (_, Some(name), _) => format!("upstream {}", name.value),
            (.., Some(fixed)) => format!("respond {}", fixed.value.status.value),
            (None, None, None) => String::new(),
        },
        on: step.serves().collect(),
        at: place(&plan.loaded, &step.span()),
    });
    steps.collect()
}

/// Where a route says what it matches, or stands.
fn span(route: &RouteConfig) -> Span {
    match route.matches.span.is_empty() {
        true => route.id.span.clone(),
        false => route.matches.span.clone(),
    }
}

fn place(loaded: &Loaded, span: &Span) -> Option<String> {
    if span.is_empty() {
        return None;
    }
    loaded.sources.place(span).map(|place| place.to_string())
}

fn place_of<T>(loaded: &Loaded, value: &Located<T>) -> Option<String> {
    place(loaded, &value.span)
}

#[cfg(test)]
mod tests;
