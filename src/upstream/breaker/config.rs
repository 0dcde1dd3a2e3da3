//! `breaker` and `endpoint_breaker` of an upstream, as written.
//! Defaults and ranges are in the field docs, which are the manual.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Rule, Slow};
use crate::problem::{Located, Problem, Problems};
use crate::switch::Mode;
use crate::units::Time;

/// When to stop asking, and how to find out whether to ask again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// It opens when this share of the tries in the window has failed, up to 1; 0: never for that.
    /// Default 0.5.
    pub error_ratio: Located<f64>,
    /// A share is taken of at least this many tries, 1 to 1000000. Default 20.
    pub min_requests: Located<u32>,
    /// Over what time shares are taken, `"100ms"` to `"1h"`. Default `"10s"`.
    pub window: Located<Time>,
    /// For how long it stays open, `"100ms"` to `"1h"`; doubled up to eight times this while it
    /// opens again and again. Default `"10s"`.
    pub open_for: Located<Time>,
    /// Probes at once when that is over, and how many must be good until it closes, 1 to 100.
    /// Default 3.
    pub half_open: Located<u8>,
    /// It opens after this many failures in a row, 1 to 1000000. Default: never for that.
    pub consecutive: Option<Located<u32>>,
    /// It opens when this share of the tries in the window was slow, above 0, up to 1. Default:
    /// never for that. Needs `slow_over`.
    pub slow_ratio: Option<Located<f64>>,
    /// A try whose response headers took longer is slow; below `timeouts.first_byte`.
    pub slow_over: Option<Located<Time>>,
    /// `"observe"`: counts and logs, and refuses nobody. Default `"enforce"`.
    pub mode: Mode,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig {
            error_ratio: Located::unstated(0.5),
            min_requests: Located::unstated(20),
            window: Located::unstated(Time::secs(10)),
            open_for: Located::unstated(Time::secs(10)),
            half_open: Located::unstated(3),
            consecutive: None,
            slow_ratio: None,
            slow_over: None,
            mode: Mode::Enforce,
        }
    }
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_hours(1);
const MANY: std::ops::RangeInclusive<u32> = 1..=1_000_000;

impl BreakerConfig {
    /// Every rule that the section breaks. `first_byte`: after this long a try has failed anyway.
    pub(crate) fn check(&self, first_byte: &Located<Time>, problems: &mut Problems) {
        let mut wrong = |holds: bool, span, message: &str| {
            if !holds {
                problems.push(Problem::at(span, message));
            }
        };
        let ratio = &self.error_ratio;
        let message = "`error_ratio` is from 0 to 1";
        wrong((0.0..=1.0).contains(&ratio.value), &ratio.span, message);
        let least = &self.min_requests;
        let message = "`min_requests` is from 1 to 1000000";
        wrong(MANY.contains(&least.value), &least.span, message);
        for (key, time) in [("window", &self.window), ("open_for", &self.open_for)] {
            let message = format!("`{key}` is from \"100ms\" to \"1h\"");
            wrong((SHORTEST..=LONGEST).contains(&time.0), &time.span, &message);
        }
        let probes = &self.half_open;
        let message = "`half_open` is from 1 to 100";
        wrong((1..=100).contains(&probes.value), &probes.span, message);
        if let Some(run) = &self.consecutive {
            let message = "`consecutive` is from 1 to 1000000";
            wrong(MANY.contains(&run.value), &run.span, message);
        }
        if let Some(ratio) = &self.slow_ratio {
            let holds = ratio.value > 0.0 && ratio.value <= 1.0;
            wrong(holds, &ratio.span, "`slow_ratio` is above 0, up to 1");
        }
        self.check_slow(first_byte, problems);
        if ratio.value == 0.0 && self.consecutive.is_none() && self.slow_ratio.is_none() {
            let problem = Problem::at(&ratio.span, "this breaker can never open");
            problems.push(problem.help("give error_ratio above 0, consecutive or slow_ratio"));
        }
    }

    fn check_slow(&self, first_byte: &Located<Time>, problems: &mut Problems) {
        match (&self.slow_ratio, &self.slow_over) {
            (Some(ratio), None) => {
                let problem = Problem::at(&ratio.span, "`slow_ratio` without `slow_over`");
                problems.push(problem.help("say what is slow: slow_over = \"1s\""));
            }
            (None, Some(over)) => {
                let problem = Problem::at(&over.span, "`slow_over` without `slow_ratio`");
                problems.push(problem.help("say how many may be slow: slow_ratio = 0.5"));
            }
            (Some(_), Some(over)) if over.0.is_zero() || over.value >= first_byte.value => {
                let message = "`slow_over` is above 0 and below timeouts.first_byte";
                let problem = Problem::at(&over.span, message);
                problems.push(problem.help("a try that takes as long as that has failed"));
            }
            _ => {}
        }
    }

    /// When it opens and for how long, in words.
    pub fn opens(&self) -> String {
        let mut when = Vec::new();
        if self.error_ratio.value > 0.0 {
            when.push(format!("{} % failed", self.error_ratio.value * 100.0));
        }
        if let (Some(ratio), Some(over)) = (&self.slow_ratio, &self.slow_over) {
            when.push(format!(
                "{} % took over {}",
                ratio.value * 100.0,
                over.value
            ));
        }
        let shares = (!when.is_empty()).then(|| {
            let (shares, least) = (when.join(" or "), self.min_requests.value);
            format!(
                "when {shares} of at least {least} tries in {}",
                self.window.value
            )
        });
        let run = self.consecutive.as_ref();
        let run = run.map(|run| format!("after {} failures in a row", run.value));
        let all: Vec<String> = shares.into_iter().chain(run).collect();
        let observes = match self.mode {
            Mode::Enforce => "",
            Mode::Observe => " (observes)",
        };
        format!(
            "{}, for {}{observes}",
            all.join(", or "),
            self.open_for.value
        )
    }

    /// As the machine takes it.
    pub(in crate::upstream) fn rule(&self) -> Rule {
        let ratio = Some(self.error_ratio.value);
        let slow = self.slow_ratio.as_ref().zip(self.slow_over.as_ref());
        Rule {
            error_ratio: ratio.filter(|r| *r > 0.0),
            min_requests: self.min_requests.value.into(),
            window: self.window.value.0,
            open_for: self.open_for.value.0,
            half_open: self.half_open.value,
            consecutive: self.consecutive.as_ref().map(|run| run.value),
            slow: slow.map(|(ratio, over)| Slow {
                ratio: ratio.value,
                over: over.value.0,
            }),
            observes: self.mode == Mode::Observe,
        }
    }
}
