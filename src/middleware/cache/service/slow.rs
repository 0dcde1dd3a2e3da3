//! What is not answered at once: a flight for an answer that others may have too, or a way alone.
//!
//! A leader and those who wait go the same way from the moment the flight has come to something: a
//! stale answer where the origin failed and one may be given, else what there is.

use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use tokio::sync::oneshot;
use tower::Service;

use super::super::answer::{self, Moment, Wish};
use super::super::broadcast::Reader;
use super::super::entry::Entry;
use super::super::fill::{Sent, Told, is_failure};
use super::super::flight::{Flight, Seat, Shared, Source, Stage};
use super::super::policy::{conditional, reuse};
use super::super::status::{Detail, Did, Forward};
use super::aboard::{board, names_of, start, variant};
use super::{Desk, Look, strip};
use crate::clock;
use crate::error::{Cause, GatewayError, Reason};
use crate::message::{Body, Exchange, Request, Response};
use crate::telemetry::cache::Used;

/// Variants that are waited for, one after the other, before a request goes alone.
const MOST_FLIGHTS: usize = 2;

type Answer = Result<Response, GatewayError>;

/// Not the cache's business.
pub(super) async fn pass<S>(desk: Arc<Desk>, mut inner: S, request: Request, why: Forward) -> Answer
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    let mut response = inner.call(request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    strip(response.headers_mut());
    desk.tell(&mut response, Did::went(why), Used::Bypass);
    Ok(response)
}

/// One request on its way to an answer.
struct Way<'a, S> {
    desk: &'a Arc<Desk>,
    inner: S,
    look: Box<Look>,
    method: Method,
    /// The client's fields.
    headers: HeaderMap,
    exchange: Arc<Exchange>,
}

/// The answer to a look-up that found nothing to be given.
pub(super) async fn fetch<S>(
    desk: Arc<Desk>,
    inner: S,
    request: Request,
    exchange: Arc<Exchange>,
    look: Box<Look>,
) -> Answer
where
    S: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + 'static,
    S::Future: Send,
{
    let way = Way {
        desk: &desk,
        inner,
        look,
        method: request.method().clone(),
        headers: request.headers().clone(),
        exchange,
    };
    way.go(request).await
}

impl<S> Way<'_, S>
where
    S: Service<Request, Response = Response, Error = GatewayError> + Clone + Send + 'static,
    S::Future: Send,
{
    async fn go(mut self, request: Request) -> Answer {
        let found = self.look.found.entry.as_ref();
        if found.is_some_and(|entry| entry.head.terms.is_spent(self.look.now)) {
            self.desk.store.have_looked_at(&self.look.key);
        }
        // A part of what is not stored is the client's own affair, and HEAD fills nothing.
        let part = self.look.special
            && self.look.found.entry.is_none()
            && self.headers.contains_key(header::RANGE);
        if part || self.method == Method::HEAD || self.look.asked.no_store {
            return self.alone(request, None).await;
        }
        let mut names = self
            .look
            .found
            .object
            .as_deref()
            .map_or_else(Vec::new, names_of);
        for _ in 0..MOST_FLIGHTS {
            match self.seat(&request, &names) {
                Seat::Leader(flight) => {
                    if let Some(answer) = self.came_meanwhile(&flight) {
                        return Ok(answer);
                    }
                    if let Some(stale) = self.failed_meanwhile(&flight) {
                        return Ok(stale);
                    }
                    let (tell, told) = oneshot::channel();
                    let exchange = Arc::clone(&self.exchange);
                    let on = Arc::clone(&flight);
                    let fetch = start(self.desk, &self.look, &request, exchange, on, Some(tell));
                    tokio::spawn(fetch.run(self.inner.clone()));
                    return self.leads(told, flight).await;
                }
                Seat::Waiter(flight) => match self.wait(&flight).await {
                    Waited::Answer(answer) => return answer,
                    Waited::OtherVariant(others) => names = others,
                    Waited::Alone => break,
                },
            }
        }
        self.alone(request, Some(false)).await
    }

    /// A seat on the flight for the variant that these fields choose. Where answers are for one
    /// client alone, everyone has a flight of their own.
    fn seat(&self, request: &Request, names: &[header::HeaderName]) -> Seat {
        let Look {
            key, found, now, ..
        } = &*self.look;
        let store = &self.desk.store;
        let since = now.saturating_duration_since(store.start);
        let own = found.entry.is_none() && store.shy.knows(key, since);
        let variant = match own {
            true => self.desk.chance.next(),
            false => variant(self.desk, names, request.headers()),
        };
        board(self.desk, &self.look, variant, request)
    }

    /// An answer that was stored between the look-up and the flight that one leads now: whoever
    /// boarded it meanwhile gets that too.
    fn came_meanwhile(&self, flight: &Arc<Flight>) -> Option<Response> {
        let (desk, key) = (self.desk, &self.look.key);
        let entry = desk.store.find_again(key, &self.headers).entry?;
        let known = self.look.found.entry.as_ref();
        let at = moment();
        let terms = &entry.head.terms;
        let new = known.is_none_or(|known| !Arc::ptr_eq(known, &entry));
        if !new || reuse::reuse(terms, &self.look.asked, at.now) != reuse::Reuse::Fresh {
            return None;
        }
        desk.store.flights.leave(key, flight);
        flight.reach(Stage::Landed(Arc::clone(&entry), Source::Fetched));
        let did = Did::Hit(terms.ttl(at.now), None);
        Some(desk.hit(&entry, self.wish(), at, did, Used::Hit))
    }

    /// The stale answer, if the origin has failed somebody else between the look-up and the flight that
    /// one leads now: it is not asked again so soon.
    fn failed_meanwhile(&self, flight: &Arc<Flight>) -> Option<Response> {
        let desk = self.desk;
        if !desk.is_cooling(self.look.found.object.as_ref(), clock::now()) {
            return None;
        }
        let entry = self.look.found.entry.as_ref()?;
        let at = moment();
        if self.look.why != Forward::Stale
            || !reuse::after_failure(&entry.head.terms, &self.look.asked, at.now)
        {
            return None;
        }
        desk.ground(&self.look.key, flight);
        Some(desk.stale(entry, self.wish(), at, Some(Detail::IfError)))
    }

    /// The origin was asked, for all who wait.
    async fn leads(&self, told: oneshot::Receiver<Told>, flight: Arc<Flight>) -> Answer {
        match told.await {
            Ok(Told::Yours(Ok(response))) => self.own(response),
            Ok(Told::Yours(Err(error))) => self.failed(error),
            Ok(Told::Look(sent)) => self.lands(flight.stage(), sent),
            // The fetch has ended without a word: the flight knows why.
            Err(_) => self.lands(flight.stage(), None),
        }
    }

    /// What the flight that one leads has come to.
    fn lands(&self, stage: Stage, sent: Option<Sent>) -> Answer {
        let (all, body) = sent.map_or((None, None), |sent| (Some(sent.fields), sent.body));
        let went = |stored| Did::Went {
            why: self.look.why,
            status: None,
            stored,
            collapsed: None,
            detail: None,
        };
        let used = |stored| match &self.look.found.entry {
            Some(_) if stored => Used::Replaced,
            _ => Used::Miss,
        };
        match stage {
            Stage::Shared(shared) => {
                let stored = shared.stored;
                let answer = self.shared(&shared, all, body, went(stored), used(stored));
                answer.unwrap_or_else(|| Err(Reason::HttpResponseIncomplete.into()))
            }
            Stage::Landed(entry, Source::Confirmed) => {
                let did = Did::Went {
                    why: self.look.why,
                    status: Some(StatusCode::NOT_MODIFIED),
                    stored: false,
                    collapsed: None,
                    detail: None,
                };
                Ok(self.landed(&entry, None, did, Used::Revalidated))
            }
            Stage::Landed(entry, Source::Fetched) => {
                Ok(self.landed(&entry, all, went(true), used(true)))
            }
            Stage::Failed(failed) => self.failed(failed.error()),
            Stage::Asking | Stage::Alone(_) => self.failed(Reason::Panic.into()),
        }
    }

    /// Waits for what somebody else has asked for.
    async fn wait(&self, flight: &Arc<Flight>) -> Waited {
        let limit = self.desk.plan.lock_timeout;
        let begun = clock::now();
        let stage = tokio::time::timeout(limit, flight.answered()).await;
        // It was the origin that took so long, though somebody else had asked.
        self.exchange.add_wait(self.exchange.look() - begun);
        let Ok(stage) = stage else {
            return Waited::Alone;
        };
        let did = Did::Went {
            why: self.look.why,
            status: None,
            stored: false,
            collapsed: Some(true),
            detail: None,
        };
        match stage {
            Stage::Shared(shared) if !shared.head.suits(&self.headers) => {
                Waited::OtherVariant(shared.head.for_whom.names().cloned().collect())
            }
            Stage::Shared(shared) => {
                let answer = self.shared(&shared, None, None, did, Used::Collapsed);
                self.exchange.note(|notes| shared.origin.note(notes));
                answer.map_or(Waited::Alone, Waited::Answer)
            }
            Stage::Landed(entry, _) if !entry.head.suits(&self.headers) => {
                Waited::OtherVariant(entry.head.for_whom.names().cloned().collect())
            }
            Stage::Landed(entry, _) => {
                Waited::Answer(Ok(self.landed(&entry, None, did, Used::Collapsed)))
            }
            Stage::Failed(failed) => {
                self.exchange.note(|notes| failed.origin.note(notes));
                Waited::Answer(self.failed(failed.error()))
            }
            Stage::Alone(status) if is_failure(status) => {
                let stale = self.stale_for(Some(status));
                stale.map_or(Waited::Alone, |response| Waited::Answer(Ok(response)))
            }
            Stage::Alone(_) | Stage::Asking => Waited::Alone,
        }
    }

    /// An answer whose body is still coming; `None` if it can be read from its beginning no more.
    fn shared(
        &self,
        shared: &Shared,
        all: Option<HeaderMap>,
        body: Option<Reader>,
        did: Did,
        used: Used,
    ) -> Option<Answer> {
        if is_failure(shared.head.status)
            && let Some(stale) = self.stale_for(Some(shared.head.status))
        {
            return Some(Ok(stale));
        }
        let at = moment();
        let mut response = if answer::has_it(&shared.head, self.wish(), at) {
            answer::not_modified(&shared.head, at)
        } else {
            let reader = body.or_else(|| shared.body.read(shared.length))?;
            let mut response = answer::begin(&shared.head, shared.head.status, at);
            *response.body_mut() = Body::wrap(reader);
            response
        };
        as_sent(&mut response, all);
        self.desk.tell(&mut response, did, used);
        Some(Ok(response))
    }

    fn landed(&self, entry: &Entry, all: Option<HeaderMap>, did: Did, used: Used) -> Response {
        let at = moment();
        let mut response = answer::of(entry, self.wish(), at, self.desk.chance.next());
        as_sent(&mut response, all);
        self.desk.tell(&mut response, did, used);
        response
    }

    /// An answer for this client alone.
    fn own(&self, mut response: Response) -> Answer {
        if is_failure(response.status())
            && let Some(stale) = self.stale_for(Some(response.status()))
        {
            return Ok(stale);
        }
        strip(response.headers_mut());
        self.desk
            .tell(&mut response, Did::went(self.look.why), Used::Miss);
        Ok(response)
    }

    /// There is no answer: a stale one, or the failure.
    fn failed(&self, error: GatewayError) -> Answer {
        if fails(&error)
            && let Some(stale) = self.stale_for(None)
        {
            return Ok(stale);
        }
        Err(error)
    }

    /// The stored answer, if it may be given because the origin failed.
    fn stale_for(&self, status: Option<StatusCode>) -> Option<Response> {
        let entry = self.look.found.entry.as_ref()?;
        let (at, terms, asked) = (moment(), &entry.head.terms, &self.look.asked);
        let may = match status {
            Some(_) => reuse::after_failure(terms, asked, at.now),
            None => reuse::disconnected(terms, asked, at.now),
        };
        if !may {
            return None;
        }
        let did = Did::Went {
            why: Forward::Stale,
            status,
            stored: false,
            collapsed: None,
            detail: Some(Detail::IfError),
        };
        Some(self.desk.hit(entry, self.wish(), at, did, Used::Stale))
    }

    /// By itself. `collapsed`: it had hoped for another one's answer.
    async fn alone(&mut self, request: Request, collapsed: Option<bool>) -> Answer {
        let plain = self.method == Method::HEAD;
        let mut response = match self.inner.call(request).await {
            Ok(response) => response,
            Err(error) => {
                if fails(&error) {
                    self.cool();
                }
                return self.failed(error);
            }
        };
        if is_failure(response.status()) {
            self.cool();
            if let Some(stale) = self.stale_for(Some(response.status())) {
                return Ok(stale);
            }
        }
        if plain {
            self.learn(&response);
        }
        strip(response.headers_mut());
        let why = match self.look.asked.no_store {
            true => Forward::Request,
            false => self.look.why,
        };
        let did = Did::Went {
            why,
            status: None,
            stored: false,
            collapsed,
            detail: None,
        };
        let used = match (collapsed, why) {
            (Some(_), _) => Used::Collapsed,
            (None, Forward::Request) => Used::Bypass,
            (None, _) => Used::Miss,
        };
        self.desk.tell(&mut response, did, used);
        Ok(response)
    }

    /// The origin does not do well: it is left alone for a while where there is a stale answer.
    fn cool(&self) {
        if let Some(object) = &self.look.found.object {
            let (start, pause) = (self.desk.store.start, self.desk.cool_down());
            object.pulse.failed(start, clock::now(), pause);
        }
    }

    /// What an answer to HEAD says of the stored answer to GET (RFC 9111 4.3.5).
    fn learn(&self, response: &Response) {
        let Some(entry) = &self.look.found.entry else {
            return;
        };
        let (status, fields) = (response.status(), response.headers());
        match conditional::head(status, fields, &entry.head.fields, entry.body.len()) {
            conditional::Head::Outdates => self.desk.store.outdate(&self.look.key, entry),
            conditional::Head::Freshens => {
                let mut request = Box::new(http::Request::new(Body::empty()));
                *request.headers_mut() = self.headers.clone();
                let own = self.desk.chance.next();
                if let Seat::Leader(flight) = board(self.desk, &self.look, own, &request) {
                    let exchange = Arc::clone(&self.exchange);
                    let fetch = start(self.desk, &self.look, &request, exchange, flight, None);
                    fetch.freshened(fields);
                }
            }
            conditional::Head::Nothing => {}
        }
    }

    fn wish(&self) -> Wish<'_> {
        Wish {
            method: &self.method,
            headers: &self.headers,
            special: self.look.special,
        }
    }
}

/// What waiting has come to.
enum Waited {
    Answer(Answer),
    /// The answer is for requests that differ in one of these fields.
    OtherVariant(Vec<header::HeaderName>),
    Alone,
}

/// Whether there is no answer because the origin does not do well.
fn fails(error: &GatewayError) -> bool {
    let failure = |cause| {
        matches!(
            cause,
            Cause::Error | Cause::Timeout | Cause::Open | Cause::Shed
        )
    };
    error.reason().cause().is_some_and(failure)
}

/// Who asked first gets the fields as the origin sent them, also those that are not stored.
fn as_sent(response: &mut Response, all: Option<HeaderMap>) {
    let Some(mut all) = all else {
        return;
    };
    let whole = !matches!(response.status().as_u16(), 206 | 304 | 416);
    if whole {
        strip(&mut all);
        *response.headers_mut() = all;
    } else {
        response.headers_mut().remove(header::AGE);
    }
}

fn moment() -> Moment {
    Moment {
        now: clock::now(),
        wall: clock::wall(),
    }
}
