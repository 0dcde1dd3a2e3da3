//! placeholder
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::Located;

/// Send the client elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectConfig {
    /// A path or an absolute http(s) URL. A `*` at its end takes what the route's own `*` matched.
    pub to: Located<String>,
    /// 301, 302, 303, 307 or 308 (default): the last two keep the method.
    #[serde(default = "permanent")]
    pub status: Located<u16>,
}

fn permanent() -> Located<u16> {
    Located::unstated(308)
}
