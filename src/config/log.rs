//! `[log]`: what Weir says of itself, and of each request.
//! Defaults are in the field docs, which are the manual.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::Located;

/// Diagnostics and the access log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How much is said on stderr. Default `"info"`.
    pub level: LogLevel,
    /// How it is said. Default `"text"`.
    pub format: LogFormat,
    /// One line per request.
    pub access: AccessConfig,
}

/// How much is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual words")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// How diagnostics are written. The access log is always JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// Lines for programs.
    Json,
}

/// One JSON line per request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// `"stdout"` (default), `"stderr"`, `"off"`, or the path of a file, relative to the folder of
    /// this one, which is appended to.
    pub to: Located<String>,
    /// The share of requests that is logged, 0 to 1. Errors (5xx of ours) always are. Default 1.
    pub sample: Located<f64>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        AccessConfig {
            to: Located::unstated("stdout".to_owned()),
            sample: Located::unstated(1.0),
        }
    }
}
