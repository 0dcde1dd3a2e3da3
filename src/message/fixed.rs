//! An answer that is always the same: status, media type, body.
//!
//! On the ground, since a route may end in one and so may the ladder of lesser answers. HEAD gets
//! the head of the same answer; hyper leaves the body out.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Body, Response, hop};
use crate::files::{FileRef, Files, Text};
use crate::problem::{Located, Problem, Problems};

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedConfig {
    /// 200 to 599. Default 200.
    #[serde(default = "ok")]
    pub status: Located<u16>,
    /// Default `"text/plain; charset=utf-8"` where there is a body.
    #[serde(default)]
    pub content_type: Option<Located<String>>,
    /// A string, or `{ file = "path" }`. Default: none.
    #[serde(default)]
    pub body: Option<Text>,
    /// Further fields. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<Located<String>, Text>,
}

fn ok() -> Located<u16> {
    Located::unstated(200)
}

impl FixedConfig {
    /// The files this section names.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        let texts = self.body.iter().chain(self.headers.values());
        texts.filter_map(Text::file)
    }

    /// Compiles the answer.
    ///
    /// # Errors
    /// Every problem is pushed; `None` if there was any.
    pub fn compile(&self, files: &Files, problems: &mut Problems) -> Option<Fixed> {
        let status = match self.status.value {
            code @ 200..=599 => StatusCode::from_u16(code).ok(),
            _ => None,
        };
        if status.is_none() {
            let message = format!("{} is not a status that can be answered", self.status.value);
            problems.push(Problem::at(&self.status.span, message).help("200 to 599"));
        }
        let body = match &self.body {
            Some(text) => text.resolve(files, problems)?,
            None => Bytes::new(),
        };
        if matches!(self.status.value, 204 | 304) && !body.is_empty() {
            let message = format!("status {} has no body", self.status.value);
            problems.push(Problem::at(&self.status.span, message));
            return None;
        }
        let content_type = match &self.content_type {
            Some(text) => match HeaderValue::from_str(&text.value) {
                Ok(value) => Some(value),
                Err(_) => {
                    problems.push(Problem::at(&text.span, "not a media type"));
                    return None;
                }
            },
            None => {
                (!body.is_empty()).then(|| HeaderValue::from_static("text/plain; charset=utf-8"))
            }
        };
        let before = problems.len();
        let fields = self.headers.iter();
        let fields = fields.filter_map(|(name, value)| field(name, value, files, problems));
        let fields: Vec<_> = fields.collect();
        if problems.len() > before {
            return None;
        }
        Some(Fixed {
            status: status?,
            content_type,
            fields,
            body,
        })
    }
}

/// An answer, ready to be given.
#[derive(Debug, Clone)]
pub struct Fixed {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

/// A field of a fixed answer. Framing and what goes hop by hop is made anew on each hop.
fn field(
    name: &Located<String>,
    text: &Text,
    files: &Files,
    problems: &mut Problems,
) -> Option<(HeaderName, HeaderValue)> {
    let header = HeaderName::from_bytes(name.as_bytes()).ok();
    let ours = |n: &HeaderName| *n == header::CONTENT_LENGTH || hop::is_hop(n.as_str());
    let Some(header) = header.filter(|n| !ours(n)) else {
        let message = format!("\"{}\" is no field that can be set here", name.value);
        problems.push(Problem::at(&name.span, message));
        return None;
    };
    let value = HeaderValue::from_maybe_shared(text.resolve(files, problems)?);
    let Ok(value) = value else {
        let message = format!("the value of \"{}\" cannot stand in a header", name.value);
        problems.push(Problem::at(text.span(), message));
        return None;
    };
    Some((header, value))
}

impl Fixed {
    /// The answer.
    pub fn response(&self) -> Response {
        let mut response = Box::new(http::Response::new(Body::from(self.body.clone())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = &self.content_type {
            headers.insert(header::CONTENT_TYPE, content_type.clone());
        }
        for (name, value) in &self.fields {
            headers.insert(name, value.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> (Option<Fixed>, usize) {
        let mut problems = Problems::new();
        let config: FixedConfig = toml::from_str(text).expect("a respond section");
        (
            config.compile(&Files::default(), &mut problems),
            problems.len(),
        )
    }

    #[test]
    fn a_fixed_answer_is_given_as_written() {
        let (fixed, problems) = compile("status = 418\nbody = 'short'");
        assert_eq!(problems, 0);
        let answer = fixed.expect("compiled").response();
        assert_eq!(answer.status(), 418);
        assert_eq!(
            answer.headers()["content-type"],
            "text/plain; charset=utf-8"
        );
    }

    #[test]
    fn a_status_that_cannot_be_sent_and_a_body_where_none_may_be_are_problems() {
        assert_eq!(compile("status = 101").1, 1);
        assert_eq!(compile("status = 204\nbody = 'x'").1, 1);
        assert_eq!(compile("body = { file = 'missing' }").1, 1);
    }
}
