//! Getting aboard: which flight a request takes, and what its leader asks the origin.
//!
//! Requests take one flight if they share a key and are alike in what the answers under that key
//! differ by, as far as that is known; if it turns out otherwise, a waiter changes flights.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use tokio::sync::oneshot;
use tower::Service;

use super::super::entry::{ORDER, Object, url};
use super::super::fill::{Fetch, Question, Told};
use super::super::flight::{Flight, Seat};
use super::super::stamps::About;
use super::super::{key, tags};
use super::{Desk, Look, again};
use crate::clock;
use crate::error::GatewayError;
use crate::message::coding::{Accepted, Coding};
use crate::message::{Exchange, Request, Response};
use crate::telemetry::cache::Refreshed;

/// Fetches a new answer behind the client's back, unless somebody does already.
pub(super) fn refresh<S>(
    desk: &Arc<Desk>,
    inner: &S,
    request: &Request,
    exchange: &Exchange,
    look: &Look,
) where
    S: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + 'static,
    S::Future: Send,
{
    let names = look.found.object.as_deref().map_or_else(Vec::new, names_of);
    let variant = variant(desk, &names, request.headers());
    let Seat::Leader(flight) = board(desk, look, variant, request) else {
        return;
    };
    // Somebody else's refresh may have failed since the caller looked.
    if desk.is_cooling(look.found.object.as_ref(), clock::now()) {
        desk.store.cells.refreshes[Refreshed::Cooling as usize].inc();
        desk.ground(&look.key, &flight);
        return;
    }
    let (conn, id) = (Arc::clone(&exchange.conn), exchange.id.clone());
    let own = Exchange::new(
        conn,
        look.now,
        exchange.client,
        id,
        exchange.sketch,
        exchange.timeout,
    );
    let fetch = start(desk, look, &again(request), Arc::new(own), flight, None);
    tokio::spawn(fetch.run(inner.clone()));
}

pub(super) fn start(
    desk: &Arc<Desk>,
    look: &Look,
    request: &Request,
    exchange: Arc<Exchange>,
    flight: Arc<Flight>,
    tell: Option<oneshot::Sender<Told>>,
) -> Fetch {
    let question = question(desk, request, exchange);
    let (key, stale) = (look.key.clone(), look.found.entry.clone());
    let pulse = look
        .found
        .object
        .as_ref()
        .map(|object| Arc::clone(&object.pulse));
    Fetch::new(Arc::clone(desk), key, flight, question, stale, pulse, tell)
}

/// A request as the origin is to see it: without conditions and ranges, and in the form that the key
/// has of it, so that what shares a key is one request.
fn question(desk: &Desk, request: &Request, exchange: Arc<Exchange>) -> Question {
    let mut headers = request.headers().clone();
    for name in [
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
    ] {
        headers.remove(name);
    }
    if let Some(host) = key::host(request.headers()).and_then(|h| HeaderValue::from_bytes(&h).ok())
    {
        headers.insert(header::HOST, host);
    }
    Question {
        uri: target(desk, request),
        version: request.version(),
        headers,
        exchange,
    }
}

fn target(desk: &Desk, request: &Request) -> http::Uri {
    let changed = desk.plan.key.target(request.uri());
    changed.unwrap_or_else(|| request.uri().clone())
}

pub(super) fn board(desk: &Desk, look: &Look, variant: u64, request: &Request) -> Seat {
    let store = &desk.store;
    let about = || {
        let url = match desk.plan.key.target(request.uri()) {
            None => url(request.headers(), request.uri()),
            Some(changed) => url(request.headers(), &changed),
        };
        let mark = tags::of_url(&store.secrets, &url);
        About::new(url, [mark].into(), store.epoch())
    };
    let (key, found) = (&look.key, look.found.entry.as_ref());
    store
        .flights
        .board(key, variant, found, |about| store.is_alive(about), about)
}

/// The fields by which the answers under a key differ, as far as the newest one says.
pub(super) fn names_of(object: &Object) -> Vec<header::HeaderName> {
    let newest = object.entries.first().into_iter();
    newest
        .flat_map(|entry| entry.head.for_whom.names().cloned())
        .collect()
}

/// A number for what these fields are in a request; the coding class always counts.
pub(super) fn variant(desk: &Desk, names: &[header::HeaderName], headers: &HeaderMap) -> u64 {
    let accepted = Accepted::read(headers);
    let class = accepted.choose(&ORDER).map_or("", Coding::token);
    let accepted = accepted.normalised();
    let coding = accepted.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    // Who is authorized may get another answer than who is not.
    let authorized = headers.contains_key(header::AUTHORIZATION);
    let mut parts = vec![
        class.as_bytes(),
        coding,
        if authorized { &b"a"[..] } else { b"" },
    ];
    for name in names
        .iter()
        .filter(|name| **name != header::ACCEPT_ENCODING)
    {
        parts.push(name.as_str().as_bytes());
        parts.extend(headers.get_all(name).iter().map(HeaderValue::as_bytes));
    }
    desk.store.secrets.mark(0, &parts)
}
