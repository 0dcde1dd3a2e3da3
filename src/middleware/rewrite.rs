//! What is changed in path and host before the upstream sees them:
//! `rewrite = { prefix = "/shop", with = "/store", host = "partner.example.com" }`.
//!
//! Stands under the router and every policy, which see the client's canonical path. The prefix is
//! replaced on a segment boundary only; a path without it passes as it is. The result is canonical
//! again, since both parts are; one too long to be a URI is refused. The client's Host stays known
//! to the exchange, for the forwarding fields.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::Uri;
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use crate::error::{GatewayError, Reason};
use crate::message::{Request, exchange, target};
use crate::problem::{Located, Problem, Problems};

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

impl RewriteConfig {
    /// Compiles the section; every bad path and host is a problem at its place.
    pub fn layer(&self, problems: &mut Problems) -> RewriteLayer {
        let prefix = self.prefix.as_ref().and_then(|p| clean(p, problems));
        let with = self.with.as_ref().and_then(|p| clean(p, problems));
        let host = self.host.as_ref().and_then(|host| {
            let value = target::host(&host.value).and(HeaderValue::from_str(&host.value).ok());
            if value.is_none() {
                problems.push(Problem::at(
                    &host.span,
                    format!("\"{}\" is no host", host.value),
                ));
            }
            value
        });
        RewriteLayer(Arc::new(Rules {
            path: prefix.zip(with),
            host,
        }))
    }
}

/// A canonical path without the slash at its end.
fn clean(path: &Located<String>, problems: &mut Problems) -> Option<String> {
    let clean = target::path(&path.value).map(|p| p.trim_end_matches('/').to_owned());
    if clean.is_none() {
        let message = format!("\"{}\" is not a plain path", path.value);
        problems.push(Problem::at(&path.span, message).help("such as \"/store\""));
    }
    clean
}

#[derive(Debug, Clone)]
struct Rules {
    path: Option<(String, String)>,
    host: Option<HeaderValue>,
}

impl Rules {
    /// Fails only where the new path and query are too long for a URI.
    fn apply(&self, request: &mut Request) -> Result<(), Reason> {
        if let Some(host) = &self.host {
            let asked = request.headers_mut().insert(HOST, host.clone());
            if let Some((exchange, asked)) = exchange::of(request).zip(asked) {
                exchange.keep_host(asked);
            }
        }
        let rewritten = self.path.as_ref();
        let Some(text) = rewritten.and_then(|(from, to)| replace(request, from, to)) else {
            return Ok(());
        };
        let path = PathAndQuery::try_from(text).map_err(|_| Reason::UriTooLong)?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(path);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Reason::UriTooLong)?;
        Ok(())
    }
}

/// The new path and query; `None` where the prefix does not stand before a segment boundary.
fn replace(request: &Request, from: &str, to: &str) -> Option<String> {
    let rest = request.uri().path().strip_prefix(from)?;
    if !(rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    let mut path = format!("{to}{rest}");
    if path.is_empty() {
        path.push('/');
    }
    if let Some(query) = request.uri().query() {
        path.push('?');
        path.push_str(query);
    }
    Some(path)
}

/// Rewrites path and host on the way up.
#[derive(Debug, Clone)]
pub struct RewriteLayer(Arc<Rules>);

impl RewriteLayer {
    /// What it makes of a request.
    ///
    /// # Errors
    /// [`Reason::UriTooLong`] where that is no URI any more.
    pub fn apply(&self, request: &mut Request) -> Result<(), Reason> {
        self.0.apply(request)
    }

    /// The same rules behind an `Arc` of this worker's own.
    #[must_use]
    pub fn local(&self) -> Self {
        RewriteLayer(Arc::new(Rules::clone(&self.0)))
    }
}

impl<S> Layer<S> for RewriteLayer {
    type Service = Rewrite<S>;
    fn layer(&self, inner: S) -> Rewrite<S> {
        Rewrite {
            inner,
            rules: self.0.clone(),
        }
    }
}

/// The service of [`RewriteLayer`].
#[derive(Debug, Clone)]
pub struct Rewrite<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S: Service<Request, Error = GatewayError>> Service<Request> for Rewrite<S> {
    type Response = S::Response;
    type Error = GatewayError;
    type Future = Either<S::Future, Ready<Result<S::Response, GatewayError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.rules.apply(&mut request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(reason) => Either::Right(ready(Err(reason.into()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;
    use crate::message::Body;

    fn rewritten(config: &str, uri: &str) -> (String, String) {
        let config: RewriteConfig = toml::from_str(config).expect("a rewrite section");
        let mut problems = Problems::new();
        let layer = config.layer(&mut problems);
        assert!(problems.is_empty());
        let request = http::Request::builder().uri(uri).header("host", "a.test");
        let mut request = request
            .body(Body::empty())
            .map(Box::new)
            .expect("a request");
        layer.0.apply(&mut request).expect("it fits");
        let host = request.headers()["host"].to_str().expect("text").to_owned();
        (request.uri().to_string(), host)
    }

    #[test]
    fn a_prefix_is_replaced_on_a_segment_boundary_only() {
        let config = "prefix = '/shop'\nwith = '/store/'\nhost = 'p.test'";
        assert_eq!(
            rewritten(config, "/shop/1?q=2"),
            ("/store/1?q=2".into(), "p.test".into())
        );
        assert_eq!(rewritten(config, "/shop").0, "/store");
        assert_eq!(rewritten(config, "/shopping").0, "/shopping");
    }

    #[test]
    fn a_prefix_may_be_stripped_or_put_before_everything() {
        assert_eq!(rewritten("prefix = '/api'\nwith = '/'", "/api").0, "/");
        assert_eq!(rewritten("prefix = '/api'\nwith = '/'", "/api/x").0, "/x");
        assert_eq!(rewritten("prefix = '/'\nwith = '/v1'", "/x").0, "/v1/x");
    }

    #[tokio::test]
    async fn a_path_that_becomes_too_long_is_refused_and_not_passed_as_it_was() {
        let config = "prefix = '/p'\nwith = '/tenants/public'";
        let config: RewriteConfig = toml::from_str(config).expect("a rewrite section");
        let inner = tower::service_fn(|_: Request| async {
            Ok::<_, GatewayError>(Box::new(http::Response::new(Body::empty())))
        });
        let rewrite = config.layer(&mut Problems::new()).layer(inner);
        let ask = |length: usize| {
            let uri = format!("/p/secret?{}", "a".repeat(length));
            let request = http::Request::builder().uri(uri).body(Body::empty());
            rewrite
                .clone()
                .oneshot(Box::new(request.expect("a request")))
        };
        assert!(ask(60_000).await.is_ok());
        let error = ask(65_515).await.expect_err("too long");
        assert_eq!(error.reason(), Reason::UriTooLong);
    }
}
