//! The section `server.shed`, and `priority` of a route.
//! What can be wrong with it is said here.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::{Located, Problem, Problems};
use crate::switch::Mode;
use crate::units::Time;

/// Who is shed last.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Shed first.
    Low,
    /// Shed after all low ones.
    #[default]
    Normal,
    /// Shed at the very end of memory or descriptors, and never for lag.
    High,
}

impl Priority {
    /// All priorities and their words, in the order of their discriminants.
    pub const ALL: &'static [(Priority, &'static str)] = &[
        (Priority::Low, "low"),
        (Priority::Normal, "normal"),
        (Priority::High, "high"),
    ];

    /// The word for config and metrics.
    pub fn as_str(self) -> &'static str {
        Priority::ALL[self as usize].1
    }
}

/// When requests are refused because the process is short of something, low priority first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShedConfig {
    /// From this share on of the memory that the cgroup (or the machine) grants, above 0 and below
    /// 1. Default 0.9.
    pub memory: Located<f64>,
    /// From this share on of the file descriptors that may be open. Default 0.9.
    pub descriptors: Located<f64>,
    /// Once a worker's loop comes round later than this: so much work waits that a busy moment is none.
    /// Low priority from a tenth of it on, but not below 5 ms. Default `"200ms"`.
    pub lag: Located<Time>,
    /// `"observe"`: count what would be shed, and shed nothing. Default `"enforce"`.
    pub mode: Mode,
}

impl Default for ShedConfig {
    fn default() -> Self {
        ShedConfig {
            memory: Located::unstated(0.9),
            descriptors: Located::unstated(0.9),
            lag: Located::unstated(Time::millis(200)),
            mode: Mode::Enforce,
        }
    }
}

/// The same, as run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// A share of the memory.
    pub memory: f64,
    /// A share of the descriptors.
    pub descriptors: f64,
    /// How late a worker may be before it sheds normal priority.
    pub lag: Duration,
    /// Whether anything is shed.
    pub mode: Mode,
}

impl ShedConfig {
    /// As run.
    pub fn rules(&self) -> Rules {
        Rules {
            memory: self.memory.value,
            descriptors: self.descriptors.value,
            lag: self.lag.0,
            mode: self.mode,
        }
    }

    /// What is wrong with it.
    pub fn check(&self, problems: &mut Problems) {
        let shares = [("memory", &self.memory), ("descriptors", &self.descriptors)];
        for (key, share) in shares {
            if !(share.value > 0.0 && share.value < 1.0) {
                let message = format!("{key} must be above 0 and below 1");
                let problem = Problem::at(&share.span, message);
                problems.push(problem.help("shed = false turns shedding off"));
            }
        }
        if self.lag.0.is_zero() {
            problems.push(Problem::at(&self.lag.span, "lag must be above 0"));
        }
    }
}
