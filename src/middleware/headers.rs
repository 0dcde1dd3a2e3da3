//! placeholder
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::files::{FileRef, Text};
use crate::problem::Located;

/// What a route changes in the fields of requests and responses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeadersConfig {
    /// Towards the upstream.
    pub request: HeaderEdits,
    /// Towards the client, also on answers of our own making.
    pub response: HeaderEdits,
}

impl HeadersConfig {
    /// The files this section names.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        let edits = [&self.request, &self.response].into_iter();
        edits.flat_map(|e| e.set.values().chain(e.add.values()).filter_map(Text::file))
    }
}

/// Removed first, then set, then added.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderEdits {
    /// Fields that are taken out.
    pub remove: Vec<Located<String>>,
    /// Fields that get this value and no other.
    pub set: BTreeMap<Located<String>, Text>,
    /// Fields that get this value beside those they have.
    pub add: BTreeMap<Located<String>, Text>,
}
