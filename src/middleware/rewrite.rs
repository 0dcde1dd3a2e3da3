//! placeholder
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::Located;

/// What is changed in path and host before the upstream sees them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewriteConfig {
    /// The beginning of the path that is replaced, on a segment boundary. Goes with `with`.
    pub prefix: Option<Located<String>>,
    /// What stands there instead.
    pub with: Option<Located<String>>,
    /// The Host that the upstream sees. Default: the client's.
    pub host: Option<Located<String>>,
}
