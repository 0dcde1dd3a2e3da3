//! placeholder
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::files::{FileRef, Text};
use crate::problem::Located;

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RespondConfig {
    /// 200 to 599. Default 200.
    #[serde(default = "ok")]
    pub status: Located<u16>,
    /// Default `"text/plain; charset=utf-8"` where there is a body.
    #[serde(default)]
    pub content_type: Option<Located<String>>,
    /// A string, or `{ file = "path" }`. Default: none.
    #[serde(default)]
    pub body: Option<Text>,
}

fn ok() -> Located<u16> {
    Located::unstated(200)
}

impl RespondConfig {
    /// The file this section names.
    pub fn file(&self) -> Option<&FileRef> {
        self.body.as_ref().and_then(Text::file)
    }
}
