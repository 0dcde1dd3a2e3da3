//! Files that a config names: certificates, secrets, bodies.
//!
//! Sections hold a [`FileRef`] (the path as written); `config/load` reads every one of them into
//! [`Files`] before anything is compiled, so that `plan/compile` does no I/O and a reload sees one
//! consistent set. [`Text`] is a string that may stand in a file instead: what comes from a file
//! counts as a secret and is never printed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::problem::{Located, Problem, Problems, Span};

/// A path as written in the config, relative to the folder of the config file.
pub type FileRef = Located<String>;

/// The content of every file the config names, by the path as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, Result<Bytes, String>>);

impl Files {
    /// Keeps what was read for a path, or why it could not be read.
    pub fn insert(&mut self, path: String, content: Result<Bytes, String>) {
        self.0.insert(path, content);
    }

    /// The content of a file, or a problem at the place that names it.
    pub fn get(&self, file: &FileRef, problems: &mut Problems) -> Option<Bytes> {
        let why = match self.0.get(&file.value) {
            Some(Ok(content)) => return Some(content.clone()),
            Some(Err(why)) => why.as_str(),
            None => "it was not read",
        };
        problems.push(Problem::at(
            &file.span,
            format!("cannot read \"{}\": {why}", file.value),
        ));
        None
    }

    /// Whether a file reads the same in both.
    pub fn same(&self, other: &Files, path: &str) -> bool {
        self.0.get(path) == other.0.get(path)
    }

    /// The paths as written, with what was read.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Result<Bytes, String>)> {
        self.0.iter()
    }
}

/// A string, or `{ file = "path" }`.
#[derive(Clone, PartialEq, Eq)]
pub enum Text {
    /// As it stands in the config.
    Inline(Located<String>),
    /// The content of a file, one newline at its end cut off. Never printed.
    File(FileRef),
}

impl Text {
    /// The file this names, if it does.
    pub fn file(&self) -> Option<&FileRef> {
        match self {
            Text::Inline(_) => None,
            Text::File(file) => Some(file),
        }
    }

    /// Where it stands.
    pub fn span(&self) -> &Span {
        match self {
            Text::Inline(text) => &text.span,
            Text::File(file) => &file.span,
        }
    }

    /// The bytes; `None` with a problem where a file could not be read.
    pub fn resolve(&self, files: &Files, problems: &mut Problems) -> Option<Bytes> {
        match self {
            Text::Inline(text) => Some(Bytes::from(text.value.clone())),
            Text::File(file) => files.get(file, problems).map(|content| {
                let cut = content
                    .strip_suffix(b"\n")
                    .map(|c| c.strip_suffix(b"\r").unwrap_or(c));
                cut.map_or(content.clone(), |c| content.slice_ref(c))
            }),
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Inline(_) => f.write_str("Text(inline)"),
            Text::File(file) => write!(f, "Text(file {})", file.value),
        }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    file: FileRef,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct StringOrFile;
        impl<'de> Visitor<'de> for StringOrFile {
            type Value = Any;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or { file = \"path\" }")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Any(Text::Inline(Located::unstated(text.to_owned()))))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let table = FileTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Any(Text::File(table.file)))
            }
        }
        struct Any(Text);
        impl<'de> Deserialize<'de> for Any {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(StringOrFile)
            }
        }
        let any = Located::<Any>::deserialize(d)?;
        Ok(match any.value.0 {
            Text::Inline(text) => Text::Inline(Located {
                value: text.value,
                span: any.span,
            }),
            file @ Text::File(_) => file,
        })
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Text::Inline(text) => text.serialize(s),
            Text::File(file) => FileTable { file: file.clone() }.serialize(s),
        }
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a string, or { file = \"path\" } for a secret",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "file": { "type": "string" } },
                    "required": ["file"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}
