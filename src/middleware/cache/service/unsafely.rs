//! Requests that may change what is stored: they go on, and their answers invalidate (RFC 9111 4.4).
//!
//! On an answer of 2xx or 3xx, everything stored for the target goes, and for what Location and
//! Content-Location name on the same origin; and the groups that the answer names (RFC 9875).

use std::sync::Arc;

use http::Uri;
use tower::Service;

use super::super::entry::url;
use super::super::policy::invalidate::{self, Target};
use super::super::stamps::Purge;
use super::super::status::{Did, Forward};
use super::super::{key, tags};
use super::{Desk, again, strip};
use crate::error::GatewayError;
use crate::message::{Exchange, Request, Response, target};
use crate::telemetry::cache::{Purged, Used};

/// Passes it on, and lets go of what its answer makes untrue.
pub(super) async fn pass<S>(
    desk: Arc<Desk>,
    mut inner: S,
    request: Request,
    exchange: Arc<Exchange>,
) -> Result<Response, GatewayError>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    let asked = again(&request);
    let mut response = inner.call(request).await?;
    if invalidate::invalidates(asked.method(), response.status()) {
        forget(&desk, &asked, exchange.conn.scheme(), &response);
    }
    strip(response.headers_mut());
    desk.tell(&mut response, Did::went(Forward::Method), Used::Bypass);
    Ok(response)
}

fn forget(desk: &Desk, asked: &Request, scheme: &'static str, response: &Response) {
    forget_url(desk, asked, scheme);
    let host = key::host(asked.headers()).unwrap_or_default();
    let authority = String::from_utf8_lossy(&host);
    let path = asked
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let target = Target {
        scheme,
        authority: &authority,
        path,
    };
    for other in invalidate::others(target, response.headers()) {
        if let Some(uri) = canonical(&other) {
            let mut named = again(asked);
            *named.uri_mut() = uri;
            forget_url(desk, &named, scheme);
        }
    }
    let origin = tags::Origin {
        scheme,
        host: &host,
    };
    for mark in tags::invalidated(&desk.store.secrets, &origin, response.headers()) {
        desk.store.purge(Purge::Mark(mark), Purged::UnsafeMethod);
    }
}

/// Lets go of what is stored for a target: where the key is of the URL alone, only if there is
/// something, since every purge makes others look twice.
fn forget_url(desk: &Desk, request: &Request, scheme: &str) {
    let store = &desk.store;
    let key = desk.plan.key.of(request, scheme, &store.secrets);
    if desk.plan.key.is_by_url() && !store.holds(&key) {
        return;
    }
    let target = desk.plan.key.target(request.uri());
    let url = url(request.headers(), target.as_ref().unwrap_or(request.uri()));
    let mark = tags::of_url(&store.secrets, &url);
    store.invalidate(Purge::Mark(mark), &key);
}

/// A path with its query, in the form in which requests are looked up.
fn canonical(text: &str) -> Option<Uri> {
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    let path = target::path(path)?;
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    text.parse().ok()
}
