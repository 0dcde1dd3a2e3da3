//! Send the client elsewhere: `redirect = { to = "/new/*", status = 308 }`.
//!
//! A `*` at the end of `to` takes what the route's own `*` matched, in its canonical form, and the
//! query goes along. Nothing is decoded into Location: what is percent-encoded stays so, what would
//! begin another host (`//`) cannot come out of a canonical path, and what would go on with one (a
//! `*` right behind it) is refused in the config. Never fails.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, StatusCode, Uri, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::Service;

use crate::error::{GatewayError, Reason};
use crate::message::{Body, Request, Response};
use crate::problem::{Located, Problem, Problems};

/// Send the client elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectConfig {
    /// A path or an absolute http(s) URL. A `*` at its end takes what the route's own `*` matched.
    /// A `{host}` in a URL, once, takes the host the client asked for, without its port.
    pub to: Located<String>,
    /// 301, 302, 303, 307 or 308 (default): the last two keep the method.
    #[serde(default = "permanent")]
    pub status: Located<u16>,
}

fn permanent() -> Located<u16> {
    Located::unstated(308)
}

impl RedirectConfig {
    /// Compiles the target. `prefix` is what stands before the `*` in the route's path, if any.
    pub fn compile(&self, prefix: Option<&str>, problems: &mut Problems) -> Option<Redirect> {
        let status = match self.status.value {
            code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code).ok(),
            code => {
                let problem = Problem::at(&self.status.span, format!("{code} is no redirect"));
                problems.push(problem.help("301, 302, 303, 307 or 308"));
                None
            }
        };
        let (to, rest) = match self.to.value.strip_suffix('*') {
            Some(to) => (to, true),
            None => (self.to.value.as_str(), false),
        };
        let sample = to.replace("{host}", "host.example");
        let absolute = ["http://", "https://"]
            .iter()
            .any(|scheme| sample.starts_with(scheme));
        let path = sample.starts_with('/') && !sample.starts_with("//");
        if sample.parse::<Uri>().is_err() || !(absolute || path) || sample.contains('*') {
            let problem = Problem::at(&self.to.span, "not a place to send a client to");
            problems.push(problem.help("a path such as \"/new/*\", or an http or https URL"));
            return None;
        }
        if let Some((message, help)) = trap(to, rest && absolute) {
            problems.push(Problem::at(&self.to.span, message).help(help));
            return None;
        }
        if rest && prefix.is_none() {
            let message = "a \"*\" here needs a route whose path ends in \"/*\"";
            problems.push(Problem::at(&self.to.span, message));
            return None;
        }
        let strip = prefix.filter(|_| rest).map_or(0, str::len);
        let (before, after) = match to.split_once("{host}") {
            Some((before, after)) => (before.to_owned(), Some(after.to_owned())),
            None => (to.to_owned(), None),
        };
        Some(Redirect(Arc::new(Target {
            status: status?,
            before,
            after,
            rest,
            strip,
        })))
    }
}

/// What would send clients elsewhere than it seems, and what to write instead. `open`: the rest of
/// the client's path follows an absolute URL.
fn trap(to: &str, open: bool) -> Option<(&'static str, &'static str)> {
    let behind_scheme = to.split_once("://").map_or(to, |(_, rest)| rest);
    if open && !behind_scheme.contains('/') {
        let message = "the client's path would go on with the host: anybody could choose it";
        return Some((message, "put a \"/\" between host and \"*\""));
    }
    if to.contains('#') {
        let message = "the query is put behind the target, and would be part of its fragment";
        return Some((message, "leave out what begins with \"#\""));
    }
    let twice = to.matches("{host}").count() > 1;
    twice.then_some(("only one {host} is filled in", "name the other host itself"))
}

#[derive(Debug, Clone)]
struct Target {
    status: StatusCode,
    /// All of the target, or what stands before `{host}`.
    before: String,
    /// What stands after `{host}`.
    after: Option<String>,
    /// Whether the rest of the path is appended.
    rest: bool,
    /// How many bytes of the path are not part of the rest.
    strip: usize,
}

/// Answers with a Location.
#[derive(Debug, Clone)]
pub struct Redirect(Arc<Target>);

impl Redirect {
    /// The same target behind an `Arc` of this worker's own.
    #[must_use]
    pub fn local(&self) -> Self {
        Redirect(Arc::new(Target::clone(&self.0)))
    }

    fn location(&self, request: &Request) -> Option<HeaderValue> {
        let target = &self.0;
        let mut location = target.before.clone();
        if let Some(after) = &target.after {
            let host = request.headers().get(header::HOST)?.to_str().ok()?;
            location.push_str(&crate::message::target::host(host)?.name);
            location.push_str(after);
        }
        if target.rest {
            let path = request.uri().path();
            let rest = path.get(target.strip..).unwrap_or("");
            location.push_str(if location.ends_with('/') {
                rest.trim_start_matches('/')
            } else {
                rest
            });
        }
        if let Some(query) = request.uri().query() {
            location.push(if location.contains('?') { '&' } else { '?' });
            location.push_str(query);
        }
        HeaderValue::from_str(&location).ok()
    }
}

impl Service<Request> for Redirect {
    type Response = Response;
    type Error = GatewayError;
    type Future = Ready<Result<Response, GatewayError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(location) = self.location(&request) else {
            return ready(Err(Reason::BadRequest.into()));
        };
        let mut response = Box::new(http::Response::new(Body::empty()));
        *response.status_mut() = self.0.status;
        response.headers_mut().insert(header::LOCATION, location);
        ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(to: &str, prefix: Option<&str>, uri: &str) -> String {
        let config = RedirectConfig {
            to: Located::unstated(to.into()),
            status: permanent(),
        };
        let mut problems = Problems::new();
        let redirect = config.compile(prefix, &mut problems).expect("compiles");
        let request = http::Request::builder()
            .uri(uri)
            .header("host", "a.test:8080");
        let request = request
            .body(Body::empty())
            .map(Box::new)
            .expect("a request");
        let value = redirect.location(&request).expect("a location");
        value.to_str().expect("text").to_owned()
    }

    #[test]
    fn the_rest_of_the_path_and_the_query_go_along() {
        assert_eq!(
            location("/new/*", Some("/old/"), "/old/a/b?c=1"),
            "/new/a/b?c=1"
        );
        assert_eq!(location("/new/*", Some("/old/"), "/old"), "/new/");
        assert_eq!(
            location("https://{host}/*", Some("/"), "/x?y"),
            "https://a.test/x?y"
        );
        assert_eq!(
            location("https://b.test/?z=1", None, "/x?y"),
            "https://b.test/?z=1&y"
        );
        assert_eq!(
            location("/new/*", Some("/old/"), "/old/%0D%0Ax"),
            "/new/%0D%0Ax"
        );
    }

    #[test]
    fn the_rest_may_stand_in_the_query_of_another_host() {
        assert_eq!(
            location(
                "https://b.test/hello?from=*",
                Some("/old/"),
                "/old/@evil.test"
            ),
            "https://b.test/hello?from=@evil.test"
        );
    }

    #[test]
    fn what_is_no_target_is_a_problem() {
        let open = ["https://a.test*", "http://{host}*", "https://a.test?x=*"];
        let odd = ["https://a.test/#x", "/a#x", "https://{host}/{host}/"];
        let none = ["", "new", "//evil.test/", "ftp://a/", "/a*b", "/a b"];
        for to in none.into_iter().chain(open).chain(odd) {
            let config = RedirectConfig {
                to: Located::unstated(to.into()),
                status: permanent(),
            };
            let mut problems = Problems::new();
            assert!(config.compile(Some("/"), &mut problems).is_none(), "{to}");
            assert_eq!(problems.len(), 1);
        }
    }
}
