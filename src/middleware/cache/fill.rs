//! A fetch, and what becomes of its answer.
//!
//! A task of its own on the worker of whoever asked first, so that it goes on when that client
//! leaves. It asks the origin, decides by the policy whether the answer is for others too, passes
//! the body on as it comes, and stores the whole. Whatever happens to it, also a panic or the end of
//! the process, the flight is told: nobody waits for ever.
//!
//! * `question`: what the origin is asked; `heads`: what is made of the fields of its answer

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use http_body::Body as _;
use tokio::sync::oneshot;
use tower::Service;

use super::broadcast::{Broadcast, End, Reader};
use super::entry::{self, Entry, Head, Pieces};
use super::flight::{Failed, Flight, Origin, Shared, Source, Stage};
use super::key::Key;
use super::policy::storable::Exchanged;
use super::policy::{self, Keep, Received, Refusal, Stated, conditional};
use super::service::Desk;
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::{Body, Request, Response};
use crate::telemetry::cache::{Inserted, Refreshed};

/// What the origin sent, for the one who asked first.
#[derive(Debug)]
pub struct Sent {
    /// The fields, also those that are not stored.
    pub fields: HeaderMap,
    /// The body, if it is still to come.
    pub body: Option<Reader>,
}

mod heads;
mod question;

pub use question::Question;

/// What the one who asked first is told.
#[derive(Debug)]
pub enum Told {
    /// The answer is for nobody else.
    Yours(Result<Response, GatewayError>),
    /// Others have it too: look at the flight.
    Look(Option<Sent>),
}

/// A fetch under way.
pub struct Fetch {
    desk: Arc<Desk>,
    key: Key,
    flight: Arc<Flight>,
    question: Question,
    /// The stored answer that is to be validated.
    stale: Option<Arc<Entry>>,
    pulse: Option<Arc<entry::Pulse>>,
    /// Who asked first, if anybody waits.
    tell: Option<oneshot::Sender<Told>>,
    /// Nobody waits for it.
    background: bool,
    over: bool,
}

impl Fetch {
    /// For this key, on this flight.
    pub fn new(
        desk: Arc<Desk>,
        key: Key,
        flight: Arc<Flight>,
        question: Question,
        stale: Option<Arc<Entry>>,
        pulse: Option<Arc<entry::Pulse>>,
        tell: Option<oneshot::Sender<Told>>,
    ) -> Self {
        Fetch {
            desk,
            key,
            flight,
            question,
            stale,
            pulse,
            background: tell.is_none(),
            tell,
            over: false,
        }
    }

    /// Asks the origin and does what its answer says.
    pub async fn run<S>(mut self, mut inner: S)
    where
        S: Service<Request, Response = Response, Error = GatewayError>,
    {
        let mut asked = self.question.exchange.look();
        let mut request = self.question.asking(self.stale.as_deref());
        let mut answer = inner.call(request).await;
        if let (Ok(response), Some(stale)) = (&answer, &self.stale)
            && response.status() == StatusCode::NOT_MODIFIED
            && !conditional::confirms(&stale.head.fields, response.headers(), true)
        {
            // It speaks of another answer: ask for all of it (RFC 9111 4.3.4).
            self.stale = None;
            asked = self.question.exchange.look();
            request = self.question.asking(None);
            answer = inner.call(request).await;
        }
        let received = Received {
            asked,
            came: clock::now(),
            wall: clock::wall(),
        };
        match answer {
            Err(error) => self.failed(error),
            Ok(response) => self.answered(response, received).await,
        }
    }

    fn origin(&self) -> Origin {
        self.question.exchange.noted(Origin::of)
    }

    /// Counts how a refresh behind the client's back ended.
    fn count(&self, how: Refreshed) {
        if self.background {
            self.desk.store.cells.refreshes[how as usize].inc();
        }
    }

    /// The origin does not do well.
    fn cool(&self) {
        self.count(Refreshed::Failed);
        if let Some(pulse) = &self.pulse {
            pulse.failed(self.desk.store.start, clock::now(), self.desk.cool_down());
        }
    }

    fn failed(mut self, error: GatewayError) {
        self.cool();
        self.end(Stage::Failed(Failed::of(&error, self.origin())));
        self.say(Told::Yours(Err(error)));
    }

    /// Nobody boards any more, and whoever waits learns why.
    fn end(&mut self, stage: Stage) {
        self.over = true;
        self.desk.store.flights.leave(&self.key, &self.flight);
        self.flight.reach(stage);
    }

    /// Tells who asked first; who has left is not told, and an answer of theirs alone is dropped.
    fn say(&mut self, told: Told) {
        if let Some(tell) = self.tell.take() {
            drop(tell.send(told));
        }
    }

    async fn answered(mut self, mut response: Response, received: Received) {
        let failure = is_failure(response.status());
        if failure {
            self.cool();
        } else if let Some(pulse) = &self.pulse {
            pulse.answered();
        }
        if response.status() == StatusCode::NOT_MODIFIED
            && let Some(stale) = self.stale.take()
        {
            self.confirmed(&stale, response.headers(), received);
            return;
        }
        if !failure {
            self.count(Refreshed::New);
        }
        let stated = Stated::read(response.headers());
        let keep = self.keep(&response, &stated);
        if keep == Verdict::Alone {
            self.alone(response, failure);
            return;
        }
        let all = std::mem::take(response.headers_mut());
        let head = self.head(response.status(), &all, &stated, received);
        let Some(head) = head else {
            *response.headers_mut() = all;
            self.alone(response, failure);
            return;
        };
        self.share(head, all, response.into_body(), keep == Verdict::Stored)
            .await;
    }

    /// An answer to POST that the policy lets be stored for GET: as if it had been asked for.
    pub async fn posted(self, mut response: Response, received: Received) {
        let stated = Stated::read(response.headers());
        let all = std::mem::take(response.headers_mut());
        match self.head(response.status(), &all, &stated, received) {
            Some(head) => self.share(head, all, response.into_body(), true).await,
            None => {
                *response.headers_mut() = all;
                self.alone(response, false);
            }
        }
    }

    /// What becomes of an answer that is no 304.
    fn keep(&self, response: &Response, stated: &Stated) -> Verdict {
        let (status, fields) = (response.status(), response.headers());
        let exchanged = Exchanged {
            method: &Method::GET,
            asked: &self.question.headers,
            status,
            fields,
            stated,
        };
        let too_large = response.body().size_hint().lower() > self.desk.plan.max_object;
        match policy::storable(&exchanged, &self.desk.plan.settings) {
            Ok(Keep::Whole) if too_large => {
                self.insertion(Inserted::TooLarge);
                Verdict::Alone
            }
            Ok(Keep::Whole) => Verdict::Stored,
            // A failure that is nobody's own is told to all who wait, and not asked for again by each.
            Err(Refusal::NoFreshness | Refusal::Useless)
                if status.is_server_error()
                    && !too_large
                    && !fields.contains_key(header::SET_COOKIE)
                    && !self.question.headers.contains_key(header::AUTHORIZATION) =>
            {
                Verdict::Shared
            }
            Ok(Keep::Part(_)) | Err(_) => Verdict::Alone,
        }
    }

    fn insertion(&self, outcome: Inserted) {
        self.desk.store.cells.insertions[outcome as usize].inc();
    }

    /// An answer for who asked first, or for nobody: the others go by themselves, and so do those
    /// who come soon.
    fn alone(mut self, response: Response, failure: bool) {
        let store = &self.desk.store;
        if !failure {
            let now = clock::now().saturating_duration_since(store.start);
            // An answer to who is authorized says nothing of the answers to others.
            if !self.question.headers.contains_key(header::AUTHORIZATION) {
                store.shy.remember(&self.key, now);
            }
            if let Some(stale) = &self.stale {
                store.outdate(&self.key, stale);
            }
        }
        self.end(Stage::Alone(response.status()));
        self.say(Told::Yours(Ok(response)));
    }

    /// Hands the whole answer over. From here on it is found by everyone, so this comes before the
    /// last byte reaches a client.
    fn store(&mut self, entry: Arc<Entry>, source: Source) {
        self.over = true;
        if source == Source::Fetched {
            self.desk
                .cells()
                .cache_object
                .observe_value(entry.body.len());
        }
        let store = &self.desk.store;
        store.shy.forget(&self.key);
        store.put(self.key.clone(), entry, Arc::clone(&self.flight), source);
    }

    /// An answer for everyone who waits: its body is passed on as it comes.
    async fn share(mut self, head: Head, all: HeaderMap, body: Body, stored: bool) {
        if stored && body.is_end_stream() {
            let entry = Entry::new(Arc::new(head), Pieces::of(Vec::new()));
            self.store(Arc::new(entry), Source::Fetched);
            let (fields, body) = (all, None);
            self.say(Told::Look(Some(Sent { fields, body })));
            return;
        }
        let shared = Arc::new(Shared {
            head: Arc::new(head),
            body: Arc::new(Broadcast::new(Arc::clone(&self.desk.store.underway))),
            length: body.size_hint().exact(),
            stored,
            origin: self.origin(),
        });
        self.flight.reach(Stage::Shared(Arc::clone(&shared)));
        // Who asked first reads from the first byte on, however much has come by the time they look.
        let reads = self.tell.is_some();
        let body_of_first = reads.then(|| shared.body.read(shared.length)).flatten();
        self.say(Told::Look(Some(Sent {
            fields: all,
            body: body_of_first,
        })));
        let end = self.pump(body, &shared).await;
        let broken = matches!(end, End::Broken(_));
        if !self.over && !broken && stored {
            let pieces = Pieces::of(shared.body.pieces());
            let entry = Entry::new(Arc::clone(&shared.head), pieces);
            self.store(Arc::new(entry), Source::Fetched);
        } else if !self.over {
            if broken && stored {
                self.insertion(Inserted::Truncated);
            }
            self.leave();
        }
        shared.body.end(end);
    }

    /// Nobody boards any more; those who have boarded go on.
    fn leave(&mut self) {
        self.over = true;
        self.desk.store.flights.leave(&self.key, &self.flight);
    }

    /// Passes the body on. The last piece of a known length is held back until the origin has ended
    /// the answer, since a client that has it may ask again at once.
    async fn pump(&mut self, mut body: Body, shared: &Shared) -> End {
        let (mut total, mut held) = (0, None);
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let frame = match frame {
                None => {
                    held.into_iter().for_each(|last| shared.body.push(last));
                    return whole(total, shared.length, None);
                }
                Some(Err(error)) => return End::Broken(error.reason()),
                Some(Ok(frame)) => frame,
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    let trailers = frame.into_trailers().ok();
                    return whole(total, shared.length, trailers);
                }
            };
            total += data.len() as u64;
            if !self.over && !self.has_room(total, &data, &shared.body) {
                self.leave();
                shared.body.window();
            }
            if self.over {
                shared.body.push(data);
                if !shared.body.room().await {
                    return End::Broken(Reason::ClientGone);
                }
            } else if shared.length == Some(total) && held.is_none() {
                held = Some(Bytes::copy_from_slice(&data));
            } else {
                shared.body.push(Bytes::copy_from_slice(&data));
            }
        }
    }

    /// Whether the body, now of this length, may be kept.
    fn has_room(&self, total: u64, more: &Bytes, body: &Broadcast) -> bool {
        let now = clock::now().saturating_duration_since(self.desk.store.start);
        if total > self.desk.plan.max_object {
            self.insertion(Inserted::TooLarge);
            self.desk.store.shy.remember(&self.key, now);
            return false;
        }
        let fits = body.takes(more);
        if !fits {
            self.insertion(Inserted::QueueFull);
        }
        fits
    }
}

impl Drop for Fetch {
    /// A fetch that ends in any other way than it should: who waits is told.
    fn drop(&mut self) {
        match self.flight.stage() {
            // A body that has ended stays as it is.
            Stage::Shared(shared) => {
                self.leave();
                shared.body.end(End::Broken(Reason::HttpResponseIncomplete));
            }
            // Who waits can still go alone.
            _ if !self.over => self.end(Stage::Alone(StatusCode::INTERNAL_SERVER_ERROR)),
            _ => {}
        }
    }
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All get it, and it is stored.
    Stored,
    /// All who wait get it.
    Shared,
    /// Who asked gets it.
    Alone,
}

/// A body has ended by itself; where its length was stated, it has that.
fn whole(total: u64, stated: Option<u64>, trailers: Option<HeaderMap>) -> End {
    match stated {
        Some(length) if length != total => End::Broken(Reason::HttpResponseIncomplete),
        _ => End::Whole(trailers),
    }
}

/// An origin that fails, for which a stale answer may stand in (RFC 5861 4).
pub fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
