//! The route's edits of fields: `headers = { request = { set = {...}, remove = [...] } }`.
//!
//! Stands above `rescue`'s callers and below `observe`, so that response edits reach answers of
//! our own making too, and request edits are seen by every policy below. Each side is removed
//! first, then set, then added. What is made anew on each hop cannot be edited: framing, hop-by-hop
//! and forwarding fields, and what only Weir says. Such an edit would do nothing, or a client could
//! undo it by sending a field of that kind.
//!
//! ```toml
//! headers = { request = { set = { x-via-weir = "1" } }, response = { remove = ["server"] } }
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pin_project_lite::pin_project;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use crate::error::GatewayError;
use crate::files::{FileRef, Files, Text};
use crate::message::{Request, Response, hop};
use crate::problem::{Located, Problem, Problems};

/// What a route changes in the fields of requests and responses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeadersConfig {
    /// Towards the upstream.
    pub request: HeaderEdits,
    /// Towards the client, also on answers of our own making.
    pub response: HeaderEdits,
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

impl HeadersConfig {
    /// The files this section names.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        let edits = [&self.request, &self.response].into_iter();
        edits.flat_map(|e| e.set.values().chain(e.add.values()).filter_map(Text::file))
    }

    /// Compiles the edits; every bad name and value is a problem at its place.
    pub fn layer(&self, files: &Files, problems: &mut Problems) -> HeadersLayer {
        let request = Edits::compile(&self.request, Side::Request, files, problems);
        let response = Edits::compile(&self.response, Side::Response, files, problems);
        HeadersLayer(Arc::new(Both { request, response }))
    }
}

#[derive(Debug, Default)]
struct Both {
    request: Edits,
    response: Edits,
}

#[derive(Debug, Default)]
struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    fn compile(config: &HeaderEdits, side: Side, files: &Files, problems: &mut Problems) -> Self {
        let pairs = |map: &BTreeMap<Located<String>, Text>, problems: &mut Problems| {
            let pair = |(n, text): (&Located<String>, &Text)| pair(n, side, text, files, problems);
            map.iter().filter_map(pair).collect()
        };
        set_once(&config.set, problems);
        Edits {
            set: pairs(&config.set, problems),
            add: pairs(&config.add, problems),
            remove: config
                .remove
                .iter()
                .filter_map(|n| name(n, side, problems))
                .collect(),
        }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

/// Two spellings of one name are one field, and only one of the values would be in it.
fn set_once(set: &BTreeMap<Located<String>, Text>, problems: &mut Problems) {
    let mut seen: BTreeMap<String, &Located<String>> = BTreeMap::new();
    for name in set.keys() {
        if let Some(first) = seen.insert(name.to_ascii_lowercase(), name) {
            let message = format!("\"{}\" is set twice", name.value);
            let problem = Problem::at(&name.span, message);
            problems.push(problem.also(&first.span, "also here, in another spelling"));
        }
    }
}

fn pair(
    written: &Located<String>,
    side: Side,
    text: &Text,
    files: &Files,
    problems: &mut Problems,
) -> Option<(HeaderName, HeaderValue)> {
    let name = name(written, side, problems);
    let bytes = text.resolve(files, problems)?;
    match HeaderValue::from_maybe_shared(bytes) {
        Ok(value) => Some((name?, value)),
        Err(_) => {
            let message = format!(
                "the value of \"{}\" cannot stand in a header",
                written.value
            );
            problems.push(Problem::at(text.span(), message));
            None
        }
    }
}

/// Which way the edited message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

fn name(written: &Located<String>, side: Side, problems: &mut Problems) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(written.value.as_bytes()) else {
        let message = format!("\"{}\" is not a header name", written.value);
        problems.push(Problem::at(&written.span, message));
        return None;
    };
    if !made_by_weir(&name, side) {
        return Some(name);
    }
    let message = format!("\"{name}\" is made by Weir on each hop and cannot be edited");
    let problem = Problem::at(&written.span, message);
    problems.push(if name == header::HOST {
        problem.help("use rewrite = { host = \"...\" }")
    } else {
        problem
    });
    None
}

/// Whether an edit of this field would do nothing, or not always.
fn made_by_weir(name: &HeaderName, side: Side) -> bool {
    let text = name.as_str();
    let of_this_side: &[&str] = match side {
        Side::Request => &[
            "expect",
            "forwarded",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
        ],
        Side::Response => &["x-request-id"],
    };
    hop::is_hop(text)
        || hop::is_look_alike(text)
        || (side == Side::Request && hop::is_ours(text))
        || [header::CONTENT_LENGTH, header::HOST].contains(name)
        || of_this_side.contains(&text)
}

/// Edits fields on the way up and back.
#[derive(Debug, Clone)]
pub struct HeadersLayer(Arc<Both>);

impl HeadersLayer {
    /// The same edits behind an `Arc` of this worker's own.
    #[must_use]
    pub fn local(&self) -> Self {
        let copy = |e: &Edits| Edits {
            remove: e.remove.clone(),
            set: e.set.clone(),
            add: e.add.clone(),
        };
        let Both { request, response } = &*self.0;
        HeadersLayer(Arc::new(Both {
            request: copy(request),
            response: copy(response),
        }))
    }
}

impl<S> Layer<S> for HeadersLayer {
    type Service = Headers<S>;
    fn layer(&self, inner: S) -> Headers<S> {
        Headers {
            inner,
            edits: self.0.clone(),
        }
    }
}

/// The service of [`HeadersLayer`].
#[derive(Debug, Clone)]
pub struct Headers<S> {
    inner: S,
    edits: Arc<Both>,
}

impl<S> Service<Request> for Headers<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = HeadersFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        self.edits.request.apply(request.headers_mut());
        HeadersFuture {
            inner: self.inner.call(request),
            edits: self.edits.clone(),
        }
    }
}

pin_project! {
    /// Edits the response once it is there.
    pub struct HeadersFuture<F> {
        #[pin]
        inner: F,
        edits: Arc<Both>,
    }
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for HeadersFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        this.edits.response.apply(response.headers_mut());
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Body;
    use tower::ServiceExt;

    fn config(text: &str) -> HeadersConfig {
        toml::from_str(text).expect("a headers section")
    }

    #[tokio::test]
    async fn fields_are_removed_then_set_then_added() {
        let mut problems = Problems::new();
        let layer = config(
            "request = { remove = ['x-debug'], set = { x-a = '1' } }\n\
             response = { set = { x-b = '2' }, add = { set-cookie = 'c=1' }, remove = ['server'] }",
        )
        .layer(&Files::default(), &mut problems);
        assert!(problems.is_empty());
        let origin = tower::service_fn(|request: Request| async move {
            assert_eq!(request.headers()["x-a"], "1");
            assert!(!request.headers().contains_key("x-debug"));
            let response = http::Response::builder()
                .header("server", "x")
                .header("set-cookie", "d");
            Ok(Box::new(response.body(Body::empty()).expect("a response")))
        });
        let request = http::Request::builder()
            .header("x-debug", "1")
            .header("x-a", "0");
        let request = request
            .body(Body::empty())
            .map(Box::new)
            .expect("a request");
        let response = layer
            .layer(origin)
            .oneshot(request)
            .await
            .expect("an answer");
        assert_eq!(response.headers()["x-b"], "2");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert!(!response.headers().contains_key("server"));
    }

    #[test]
    fn what_is_made_on_each_hop_cannot_be_edited_and_the_rest_can() {
        let refused = |text: &str| {
            let mut problems = Problems::new();
            config(text).layer(&Files::default(), &mut problems);
            problems.len()
        };
        let both = [
            "te",
            "proxy-authorization",
            "proxy-connection",
            "client_cert",
            "content-length",
        ];
        let up = [
            "x-forwarded-for",
            "x-forwarded-host",
            "forwarded",
            "via",
            "expect",
            "weir-degraded",
        ];
        for (side, names) in [
            ("request", &both[..]),
            ("request", &up),
            ("response", &both),
        ] {
            for name in names {
                assert_eq!(
                    refused(&format!("{side} = {{ set = {{ {name} = '1' }} }}")),
                    1,
                    "{name}"
                );
                assert_eq!(
                    refused(&format!("{side} = {{ remove = ['{name}'] }}")),
                    1,
                    "{name}"
                );
            }
        }
        assert_eq!(refused("response = { remove = ['x-request-id'] }"), 1);
        assert_eq!(
            refused("response = { remove = ['via', 'weir-degraded', 'server'] }"),
            0
        );
        for name in [
            "x-forwarded-proto",
            "x-forwarded-prefix",
            "x-real-ip",
            "client-cert",
        ] {
            assert_eq!(
                refused(&format!("request = {{ set = {{ {name} = '1' }} }}")),
                0,
                "{name}"
            );
        }
    }

    #[test]
    fn a_field_is_not_set_twice_in_two_spellings() {
        let mut problems = Problems::new();
        let edits = "request = { set = { X-A = '1', x-a = '2', x-b = '3' } }";
        config(edits).layer(&Files::default(), &mut problems);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn a_field_of_framing_cannot_be_edited_and_a_bad_value_is_named() {
        let mut problems = Problems::new();
        let edits = "request = { set = { connection = 'x', 'a b' = 'x', x-c = \"a\\nb\" } }";
        config(edits).layer(&Files::default(), &mut problems);
        assert_eq!(problems.len(), 3);
    }
}
