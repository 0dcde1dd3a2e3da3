//! An answer that is always the same: status, media type, body.
//!
//! On the ground, since a route may end in one and so may the ladder of lesser answers. HEAD gets
//! the head of the same answer; hyper leaves the body out.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Body, Response};
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
}

fn ok() -> Located<u16> {
    Located::unstated(200)
}

impl FixedConfig {
    /// The file this section names.
    pub fn file(&self) -> Option<&FileRef> {
        self.body.as_ref().and_then(Text::file)
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
        Some(Fixed {
            status: status?,
            content_type,
            body,
        })
    }
}

/// An answer, ready to be given.
#[derive(Debug, Clone)]
pub struct Fixed {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

impl Fixed {
    /// The answer.
    pub fn response(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        if let Some(content_type) = &self.content_type {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, content_type.clone());
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
