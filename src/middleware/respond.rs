//! A fixed answer: `respond = { status = 200, body = "pong" }`.
//!
//! The end of a route that needs no upstream. HEAD gets the head of the same answer; hyper leaves
//! the body out. Never fails.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::Service;

use crate::error::GatewayError;
use crate::files::{FileRef, Files, Text};
use crate::message::{Body, Request, Response};
use crate::problem::{Located, Problem, Problems};

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

    /// Compiles the answer.
    pub fn compile(&self, files: &Files, problems: &mut Problems) -> Option<Respond> {
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
        Some(Respond(Arc::new(Fixed {
            status: status?,
            content_type,
            body,
        })))
    }
}

#[derive(Debug, Clone)]
struct Fixed {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

/// Gives the same answer to every request.
#[derive(Debug, Clone)]
pub struct Respond(Arc<Fixed>);

impl Respond {
    /// The same answer behind an `Arc` of this worker's own.
    #[must_use]
    pub fn local(&self) -> Self {
        Respond(Arc::new(Fixed::clone(&self.0)))
    }
}

impl Service<Request> for Respond {
    type Response = Response;
    type Error = GatewayError;
    type Future = Ready<Result<Response, GatewayError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        let mut response = Response::new(Body::from(self.0.body.clone()));
        *response.status_mut() = self.0.status;
        if let Some(content_type) = &self.0.content_type {
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, content_type.clone());
        }
        ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> (Option<Respond>, usize) {
        let mut problems = Problems::new();
        let config: RespondConfig = toml::from_str(text).expect("a respond section");
        (
            config.compile(&Files::default(), &mut problems),
            problems.len(),
        )
    }

    #[tokio::test]
    async fn a_fixed_answer_is_given_as_written() {
        let (respond, problems) = compile("status = 418\nbody = 'short'");
        assert_eq!(problems, 0);
        let answer = respond
            .expect("compiled")
            .call(Request::default())
            .await
            .expect("an answer");
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
