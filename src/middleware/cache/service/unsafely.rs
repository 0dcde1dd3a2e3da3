//! Requests that may change what is stored: they go on, and their answers invalidate (RFC 9111 4.4).
//!
//! On an answer of 2xx or 3xx, everything stored for the target goes, and for what Location and
//! Content-Location name on the same origin; and the groups that the answer names (RFC 9875). An
//! answer to POST that says that it is what a GET would get now, and for how long, is stored as that
//! (RFC 9110 9.3.3), unless the target was changed or purged while it was under way.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Uri};
use http_body::Body as _;
use tokio::sync::oneshot;
use tower::Service;

use super::super::entry::url;
use super::super::fill::Told;
use super::super::flight::Seat;
use super::super::key::{self, Key};
use super::super::policy::invalidate::{self, Target};
use super::super::policy::storable::{self, Exchanged};
use super::super::policy::{Asked, Keep, Received, Stated};
use super::super::stamps::{About, Purge};
use super::super::status::{Did, Forward};
use super::super::store::{Found, Posting};
use super::super::tags;
use super::aboard::start;
use super::{Desk, Look, again, strip};
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::{Body, Exchange, Request, Response, target};
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
    let sent = Sent::new(&desk, &request, exchange);
    let response = inner.call(request).await?;
    let came = clock::now();
    if !invalidate::invalidates(sent.request.method(), response.status()) {
        return Ok(told(&desk, response, false));
    }
    sent.forget_others(&desk, &response);
    if !sent.is_stored(&desk, &response) {
        forget_url(&desk, &sent, &sent.request);
        return Ok(told(&desk, response, false));
    }
    let key = sent.key(&desk, &sent.request);
    match desk.store.supersede(&sent.about, &key) {
        Some(born) => sent.store(&desk, key, born, response, came).await,
        None => Ok(told(&desk, response, false)),
    }
}

fn told(desk: &Desk, mut response: Response, stored: bool) -> Response {
    strip(response.headers_mut());
    let did = Did::Went {
        why: Forward::Method,
        status: None,
        stored,
        collapsed: None,
        detail: None,
    };
    desk.tell(&mut response, did, Used::Bypass);
    response
}

/// An unsafe request on its way.
struct Sent {
    /// Without its body.
    request: Request,
    exchange: Arc<Exchange>,
    authority: String,
    asked: Instant,
    /// The target, as of when it was sent.
    about: About,
    /// Its answer may come to be stored.
    posting: Option<Posting>,
}

impl Sent {
    fn new(desk: &Desk, request: &Request, exchange: Arc<Exchange>) -> Self {
        let host = key::host(request.headers()).unwrap_or_default();
        let (url, mark) = named(desk, request);
        // Before the epoch is read: from here on every change of the target leaves its mark.
        let posts = *request.method() == Method::POST;
        let posting = posts.then(|| desk.store.posting());
        Sent {
            request: again(request),
            exchange,
            authority: String::from_utf8_lossy(&host).into_owned(),
            asked: clock::now(),
            about: About::new(url, [mark].into(), desk.store.epoch()),
            posting,
        }
    }

    fn key(&self, desk: &Desk, request: &Request) -> Key {
        let scheme = self.exchange.conn.scheme();
        desk.plan.key.of(request, scheme, &desk.store.secrets)
    }

    fn target(&self) -> Target<'_> {
        let path = self.request.uri().path_and_query();
        Target {
            scheme: self.exchange.conn.scheme(),
            authority: &self.authority,
            path: path.map_or("/", |path| path.as_str()),
        }
    }

    /// What the answer names beside the target.
    fn forget_others(&self, desk: &Desk, response: &Response) {
        for other in invalidate::others(self.target(), response.headers()) {
            if let Some(uri) = canonical(&other) {
                let mut named = again(&self.request);
                *named.uri_mut() = uri;
                forget_url(desk, self, &named);
            }
        }
        let origin = tags::Origin {
            scheme: self.exchange.conn.scheme(),
            host: self.authority.as_bytes(),
        };
        for mark in tags::invalidated(&desk.store.secrets, &origin, response.headers()) {
            desk.store.purge(Purge::Mark(mark), Purged::UnsafeMethod);
        }
    }

    /// Whether the answer is stored for the GETs to come.
    fn is_stored(&self, desk: &Desk, response: &Response) -> bool {
        let exchanged = Exchanged {
            method: self.request.method(),
            asked: self.request.headers(),
            status: response.status(),
            fields: response.headers(),
            stated: &Stated::read(response.headers()),
        };
        let kept = storable::storable_post(&exchanged, self.target(), &desk.plan.settings);
        kept == Ok(Keep::Whole) && response.body().size_hint().lower() <= desk.plan.max_object
    }

    /// Stores the answer while it is passed on, unless somebody is fetching it anew already.
    async fn store(
        self,
        desk: &Arc<Desk>,
        key: Key,
        born: u64,
        response: Response,
        came: Instant,
    ) -> Result<Response, GatewayError> {
        let look = Look {
            key,
            found: Found::default(),
            asked: Asked::default(),
            special: false,
            now: came,
            why: Forward::Method,
        };
        let about = || About::new(self.about.url.clone(), self.about.marks.clone(), born);
        let (flights, own) = (&desk.store.flights, desk.chance.next());
        let Seat::Leader(flight) = flights.board(&look.key, own, None, |_| true, about) else {
            return Ok(told(desk, response, false));
        };
        drop(self.posting);
        let (tell, receipt) = oneshot::channel();
        let (request, exchange) = (&self.request, self.exchange);
        let fetch = start(desk, &look, request, exchange, flight, Some(tell));
        let received = Received {
            asked: self.asked,
            came,
            wall: clock::wall(),
        };
        let status = response.status();
        tokio::spawn(fetch.posted(response, received));
        match receipt.await {
            Ok(Told::Look(Some(sent))) => {
                let mut response = Box::new(http::Response::new(
                    sent.body.map_or_else(Body::empty, Body::wrap),
                ));
                *response.status_mut() = status;
                *response.headers_mut() = sent.fields;
                Ok(told(desk, response, true))
            }
            Ok(Told::Yours(answer)) => answer.map(|response| told(desk, response, false)),
            Ok(Told::Look(None)) | Err(_) => Err(Reason::HttpResponseIncomplete.into()),
        }
    }
}

/// What a purge calls the target of a request, and the mark of that.
fn named(desk: &Desk, request: &Request) -> (Box<str>, u64) {
    let target = desk.plan.key.target(request.uri());
    let url = url(request.headers(), target.as_ref().unwrap_or(request.uri()));
    let mark = tags::of_url(&desk.store.secrets, &url);
    (url, mark)
}

/// Lets go of what is stored for a target: where the key is of the URL alone, only if there is
/// something or may come to be, since every purge makes others look twice.
fn forget_url(desk: &Desk, sent: &Sent, target: &Request) {
    let store = &desk.store;
    let key = sent.key(desk, target);
    let others_post = store.posts() > usize::from(sent.posting.is_some());
    if desk.plan.key.is_by_url() && !store.holds(&key) && !others_post {
        return;
    }
    store.invalidate(Purge::Mark(named(desk, target).1), &key);
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
