//! The ladder of lesser answers: `fallback = [{ stale = "10m" }, { upstream = "backup" }, ...]`.
//!
//! Stands below `rescue` and above every policy that refuses: whatever fails below, the first step
//! that serves the cause and can answer, answers. What no step answers fails as it would have. An
//! answer that has begun is never replaced. The other upstream and the stored copies are handed
//! in: this room knows neither.
//!
//! ```toml
//! fallback = [{ upstream = "backup" }, { respond = { status = 200, body = "{}" }, on = ["open"] }]
//! ```
//!
//! * `service`: the way down the ladder
//! * `kept`: what of a request the steps need

mod kept;
mod service;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Cause;
use crate::files::{FileRef, Files};
use crate::message::fixed::{Fixed, FixedConfig};
use crate::problem::{Located, Problem, Problems, Span};
use crate::units::Time;
pub use service::{Fallback, FallbackLayer, Guide, Stale};

/// One step of the ladder: exactly one of `stale`, `upstream`, `respond`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackConfig {
    /// A stored copy no older than this past its freshness. Only for GET and HEAD; a route that
    /// stores nothing passes on to the next step.
    #[serde(default)]
    pub stale: Option<Located<Time>>,
    /// Another upstream, with the route's `timeout` anew. Only for requests that the first one
    /// cannot have processed, or that may be repeated (RFC 9110 9.2.2).
    #[serde(default)]
    pub upstream: Option<Located<String>>,
    /// A fixed answer.
    #[serde(default)]
    pub respond: Option<Located<FixedConfig>>,
    /// What it serves: `"limited"`, `"shed"`, `"open"`, `"timeout"`, `"error"` (also an answer of
    /// the upstream with 5xx). Default: all of them.
    #[serde(default)]
    pub on: Option<Located<Vec<Located<Cause>>>>,
}

impl FallbackConfig {
    /// The file that a fixed answer names.
    pub fn file(&self) -> impl Iterator<Item = &FileRef> {
        self.respond.iter().flat_map(|respond| respond.files())
    }

    /// Where it stands, as near as that is known.
    pub fn span(&self) -> Span {
        let stale = self.stale.as_ref().map(|s| &s.span);
        let upstream = self.upstream.as_ref().map(|u| &u.span);
        let respond = self.respond.as_ref().map(|r| &r.span);
        let on = self.on.as_ref().map(|on| &on.span);
        let mut spans = [stale, upstream, respond, on].into_iter().flatten();
        spans.next().cloned().unwrap_or_default()
    }

    /// What it serves.
    pub fn serves(&self) -> impl Iterator<Item = Cause> {
        let causes = self.causes();
        let all = Cause::ALL.iter().map(|(cause, _)| *cause);
        all.filter(move |cause| causes.has(*cause))
    }

    fn causes(&self) -> Causes {
        match &self.on {
            None => Causes::ALL,
            Some(on) => Causes::of(on.value.iter().map(|cause| cause.value)),
        }
    }
}

/// A set of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Causes(u8);

impl Causes {
    const ALL: Causes = Causes((1 << Cause::ALL.len()) - 1);

    fn of(causes: impl Iterator<Item = Cause>) -> Self {
        Causes(causes.fold(0, |set, cause| set | 1 << cause as u8))
    }

    fn has(self, cause: Cause) -> bool {
        self.0 & (1 << cause as u8) != 0
    }

    fn and(self, other: Causes) -> Causes {
        Causes(self.0 | other.0)
    }

    fn is_within(self, other: Causes) -> bool {
        self.0 & !other.0 == 0
    }
}

/// A compiled ladder; `U` is another upstream, or the way to it.
#[derive(Debug, Clone)]
pub struct Ladder<U> {
    rungs: Vec<Rung<U>>,
    serves: Causes,
}

#[derive(Debug, Clone)]
struct Rung<U> {
    serves: Causes,
    step: Way<U>,
}

#[derive(Debug, Clone)]
enum Way<U> {
    Stale(Duration),
    Upstream(U),
    Respond(Fixed),
}

impl<U> Ladder<U> {
    /// Compiles the steps; `upstream` gives another upstream by its name, `stores` says whether
    /// anything is stored for this route. Pushes every problem: steps that say nothing or several
    /// things, that serve nothing, that are never reached, and a ladder that cannot answer.
    pub fn compile(
        steps: &Located<Vec<FallbackConfig>>,
        stores: bool,
        upstream: impl Fn(&Located<String>) -> Option<U>,
        files: &Files,
        problems: &mut Problems,
    ) -> Option<Ladder<U>> {
        let before = problems.len();
        let idle = |config: &FallbackConfig| config.stale.is_some() && !stores;
        if steps.value.iter().all(idle) {
            let problem = Problem::at(&steps.span, "a ladder that cannot answer");
            problems.push(problem.help(match steps.value.len() {
                0 => "leave the key out, or give it a step",
                _ => "nothing is stored on this route: give it a further step",
            }));
        }
        let mut answered = Causes::default();
        let mut rungs = Vec::new();
        for config in &steps.value {
            let serves = config.causes();
            reachable(config, serves, answered, problems);
            let step = way(config, &upstream, files, problems);
            if config.respond.is_some() {
                answered = answered.and(serves);
            }
            rungs.extend(step.map(|step| Rung { serves, step }));
        }
        let all = rungs.iter().map(|rung| rung.serves);
        let serves = all.fold(Causes::default(), Causes::and);
        (problems.len() == before).then_some(Ladder { rungs, serves })
    }

    /// The same ladder with other ways to the upstreams.
    pub fn map<V>(&self, to: impl Fn(&U) -> V) -> Ladder<V> {
        let rungs = self.rungs.iter().map(|rung| Rung {
            serves: rung.serves,
            step: match &rung.step {
                Way::Stale(limit) => Way::Stale(*limit),
                Way::Upstream(upstream) => Way::Upstream(to(upstream)),
                Way::Respond(fixed) => Way::Respond(fixed.clone()),
            },
        });
        Ladder {
            rungs: rungs.collect(),
            serves: self.serves,
        }
    }

    /// The other upstreams, in their order.
    pub fn upstreams(&self) -> impl Iterator<Item = &U> {
        self.rungs.iter().filter_map(|rung| match &rung.step {
            Way::Upstream(upstream) => Some(upstream),
            Way::Stale(_) | Way::Respond(_) => None,
        })
    }

    /// Whether a step may need the request once more.
    fn needs_request(&self) -> bool {
        let needs = |rung: &Rung<U>| !matches!(rung.step, Way::Respond(_));
        self.rungs.iter().any(needs)
    }
}

/// A step is there for something, and something is left for it.
fn reachable(config: &FallbackConfig, serves: Causes, answered: Causes, problems: &mut Problems) {
    if let Some(on) = config.on.as_ref().filter(|on| on.value.is_empty()) {
        let problem = Problem::at(&on.span, "a step that serves nothing");
        problems.push(problem.help("leave `on` out to serve everything"));
    } else if serves.is_within(answered) {
        let message = "a step that is never reached: fixed answers before it serve all it serves";
        problems.push(Problem::at(&config.span(), message));
    }
}

fn way<U>(
    config: &FallbackConfig,
    upstream: &impl Fn(&Located<String>) -> Option<U>,
    files: &Files,
    problems: &mut Problems,
) -> Option<Way<U>> {
    match (&config.stale, &config.upstream, &config.respond) {
        (Some(limit), None, None) => Some(Way::Stale(limit.value.0)),
        // A name that does not resolve is `config/check`'s to report.
        (None, Some(name), None) => upstream(name).map(Way::Upstream),
        (None, None, Some(fixed)) => fixed.compile(files, problems).map(Way::Respond),
        _ => {
            let message = "a step is exactly one of stale, upstream, respond";
            problems.push(Problem::at(&config.span(), message));
            None
        }
    }
}

#[cfg(test)]
mod tests;
