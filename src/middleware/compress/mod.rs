//! Bodies as small as the client can take: `compress = true`, or a table.
//!
//! Stands under the cache, so that what is stored is encoded already, and above everything that
//! fetches. Text is encoded while it streams, in br, zstd or gzip; what is small already, ranges,
//! event streams and what says `no-transform` are left as they are, byte for byte. A body in a
//! coding that the client does not take is decoded. Off unless the config says otherwise: an
//! encoded answer is another representation, and its validator a weak one.
//!
//! ```toml
//! compress = { min_size = "2KiB", types = ["text/*", "application/json"], levels = { br = 5 } }
//! ```
//!
//! * `verdict`: what is done with an answer, and why not; `types`: the media types
//! * `fields`: what changes in the head
//! * `encoder`, `decoder`: the codecs; `lend`: how many there are, and the seats aside
//! * `body`, `decoding`: bodies on their way through; `service`: the layer

mod body;
mod decoder;
mod decoding;
mod encoder;
mod fields;
mod lend;
mod service;
mod turns;
mod types;
mod verdict;

use std::sync::Arc;

use http::{HeaderMap, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::coding::Coding;
use crate::problem::{Located, Problem, Problems};
use crate::telemetry::handles::{Metrics, Skip};
use crate::units::Size;
use service::Guide;
use types::Types;
use verdict::{Asked, Rules};

pub use lend::{Aside, Encoders, Job};
pub use service::{Compress, CompressLayer};

/// How answers are encoded. `true` is every default, `false` is off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompressConfig {
    /// The codings, best first: among those a client takes equally, the first is used.
    /// Default `["br", "zstd", "gzip"]`.
    pub codings: Located<Vec<Located<Coding>>>,
    /// Media types that are encoded, with at most one `*` after the slash. Default: text, JSON,
    /// XML, JavaScript, WebAssembly, SVG, uncompressed fonts. Event streams and gRPC never are.
    pub types: Option<Located<Vec<Located<String>>>>,
    /// Shorter bodies stay as they are, where the length is known. Default `"1KiB"`.
    pub min_size: Size,
    /// How hard each coding tries.
    pub levels: LevelsConfig,
    /// Whose answers are not encoded, since their size could tell of secrets in them (BREACH).
    /// Default `"cross_site"`.
    pub guard: Guard,
}

impl Default for CompressConfig {
    fn default() -> Self {
        let codings = [Coding::Br, Coding::Zstd, Coding::Gzip].map(Located::unstated);
        CompressConfig {
            codings: Located::unstated(codings.into()),
            types: None,
            min_size: Size(1024),
            levels: LevelsConfig::default(),
            guard: Guard::default(),
        }
    }
}

/// How hard each coding tries. The higher ones (br above 5, zstd above 6) are done by threads
/// beside the workers, and at the default level while those are busy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LevelsConfig {
    /// 1 to 9. Default 4.
    pub gzip: Located<u8>,
    /// 2 to 11. Default 4.
    pub br: Located<u8>,
    /// 1 to 19. Default 3.
    pub zstd: Located<u8>,
}

impl Default for LevelsConfig {
    fn default() -> Self {
        let usual = |coding| Located::unstated(Levels::USUAL.of(coding));
        LevelsConfig {
            gzip: usual(Coding::Gzip),
            br: usual(Coding::Br),
            zstd: usual(Coding::Zstd),
        }
    }
}

/// Whose answers are not encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// Requests with a cookie or Authorization that another site made (`Sec-Fetch-Site:
    /// cross-site`), but for a click of the user's own.
    #[default]
    CrossSite,
    /// All requests with a cookie or Authorization.
    Credentials,
    /// Nobody's: answers hold no secrets, or hide their length.
    Off,
}

/// A level for each coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Levels([u8; Coding::ALL.len()]);

impl Levels {
    /// Quick enough to be done on a worker.
    const USUAL: Levels = Levels([4, 4, 3]);

    /// The last level of each that is done on a worker.
    const CALM: Levels = Levels([9, 5, 6]);

    fn of(self, coding: Coding) -> u8 {
        self.0[coding.index()]
    }

    fn is_high(coding: Coding, level: u8) -> bool {
        level > Levels::CALM.of(coding)
    }
}

/// Compiled: what a route says of encoding.
#[derive(Debug, Clone)]
pub struct Compression {
    rules: Rules,
    levels: Levels,
}

impl CompressConfig {
    /// Compiles the section; every bad type and level is a problem at its place.
    pub fn compile(&self, problems: &mut Problems) -> Compression {
        let codings: Vec<Coding> = self
            .codings
            .value
            .iter()
            .map(|coding| coding.value)
            .collect();
        if codings.is_empty() {
            let problem = Problem::at(&self.codings.span, "no coding to encode in");
            problems.push(problem.help("compress = false turns it off"));
        }
        for (at, coding) in self.codings.value.iter().enumerate() {
            if codings[..at].contains(&coding.value) {
                let message = format!("\"{}\" stands here twice", coding.value.token());
                problems.push(Problem::at(&coding.span, message));
            }
        }
        Compression {
            rules: Rules {
                codings,
                types: self.compile_types(problems),
                min_size: self.min_size.0,
                guard: self.guard,
            },
            levels: self.levels.compile(problems),
        }
    }

    fn compile_types(&self, problems: &mut Problems) -> Types {
        let Some(listed) = &self.types else {
            return Types::usual();
        };
        let mut types = Types::none();
        for text in &listed.value {
            if !types.add(&text.value) {
                let message = format!("\"{}\" is no media type", text.value);
                let problem = Problem::at(&text.span, message);
                problems.push(problem.help("such as \"application/json\" or \"text/*\""));
            }
        }
        types
    }
}

impl LevelsConfig {
    fn compile(&self, problems: &mut Problems) -> Levels {
        let mut levels = Levels::USUAL;
        for (coding, level, range) in [
            (Coding::Gzip, &self.gzip, 1..=9),
            (Coding::Br, &self.br, 2..=11),
            (Coding::Zstd, &self.zstd, 1..=19),
        ] {
            levels.0[coding.index()] = level.value;
            if !range.contains(&level.value) {
                let (name, least, most) = (coding.token(), range.start(), range.end());
                let message = format!("a level of {name} is from {least} to {most}");
                problems.push(Problem::at(&level.span, message));
            }
        }
        levels
    }
}

impl Compression {
    /// The layer, with what a worker lends.
    pub fn layer(
        &self,
        encoders: &Arc<Encoders>,
        metrics: &Arc<Metrics>,
        worker: usize,
    ) -> CompressLayer {
        CompressLayer(Arc::new(Guide {
            rules: self.rules.clone(),
            levels: self.levels,
            encoders: encoders.clone(),
            metrics: metrics.clone(),
            worker,
        }))
    }

    /// The codings it may use, best first: with them a cache finds the coding class of a request
    /// ([`Accepted::choose`](crate::message::coding::Accepted::choose)).
    pub fn codings(&self) -> &[Coding] {
        &self.rules.codings
    }

    /// What would become of the answer to a request, as far as the request decides.
    pub fn explain(&self, method: &Method, headers: &HeaderMap) -> String {
        let asked = Asked::of(method, headers, &self.rules);
        let refusal = asked.refusal().map(Skip::as_str);
        match asked.choice.filter(|_| refusal.is_none()) {
            None => format!("no: {}", refusal.unwrap_or_default()),
            Some(coding) => format!(
                "{} at level {}, from {} on, of the listed types",
                coding.token(),
                self.levels.of(coding),
                Size(self.rules.min_size)
            ),
        }
    }
}

#[cfg(test)]
mod tests;
