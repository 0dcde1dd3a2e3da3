//! The way through: what is asked is read and normalised, what comes back is judged and wrapped.
//!
//! An answer that is left alone costs the judgement and nothing else; an encoder is taken only for a
//! body that will go through it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use http::header::{ACCEPT_ENCODING, HeaderValue};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::Levels;
use super::body::{Encoding, FIRST};
use super::decoder::Decoder;
use super::decoding::Decoding;
use super::encoder::Make;
use super::fields;
use super::lend::{Encoders, Lent, Seat};
use super::turns::Place;
use super::verdict::{Asked, Rules, Verdict, judge};
use crate::error::GatewayError;
use crate::message::coding::Coding;
use crate::message::{Body, Request, Response, map_body};
use crate::telemetry::handles::{CompressionCells, Metrics, Skip};

/// A body in br that is longer than this is encoded aside, in bytes.
const LONG: u64 = 64 * 1024;

/// What a route says, with what a worker has.
pub(super) struct Guide {
    pub(super) rules: Rules,
    pub(super) levels: Levels,
    pub(super) encoders: Arc<Encoders>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) worker: usize,
}

impl Guide {
    pub(super) fn cells(&self) -> &CompressionCells {
        self.metrics.compression.of(self.worker)
    }

    /// The codings that take little memory, best first: for when there is none for br.
    fn light(&self) -> Vec<Coding> {
        let codings = self.rules.codings.iter().copied();
        codings.filter(|coding| *coding != Coding::Br).collect()
    }
}

/// Encodes answers.
pub struct CompressLayer(pub(super) Arc<Guide>);

impl<S> Layer<S> for CompressLayer {
    type Service = Compress<S>;
    fn layer(&self, inner: S) -> Compress<S> {
        Compress {
            inner,
            guide: Arc::clone(&self.0),
        }
    }
}

/// The service of [`CompressLayer`].
#[derive(Clone)]
pub struct Compress<S> {
    inner: S,
    guide: Arc<Guide>,
}

impl<S> Service<Request> for Compress<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = CompressFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let asked = Asked::of(request.method(), request.headers(), &self.guide.rules);
        let headers = request.headers_mut();
        // The upstream may encode by itself, in what the client takes.
        if let Some(list) = asked.accepted.normalised() {
            headers.insert(ACCEPT_ENCODING, list);
        }
        CompressFuture {
            weak: fields::map_back(headers),
            asked,
            guide: Arc::clone(&self.guide),
            turn: None,
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The answer, encoded where that is worth it.
    pub struct CompressFuture<F> {
        #[pin]
        inner: F,
        asked: Asked,
        // If-None-Match as the client sent it, where it knows weak tags
        weak: Option<HeaderValue>,
        guide: Arc<Guide>,
        turn: Option<Box<Turn>>,
    }
}

/// An answer that waits for its turn at encoding, and holds no encoder yet.
struct Turn {
    place: Place,
    coding: Coding,
    /// Of its body, if that is known; bytes.
    length: Option<u64>,
    response: Response,
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for CompressFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut turn = match this.turn.take() {
            Some(turn) => turn,
            None => {
                let response = ready!(this.inner.poll(cx))?;
                match answer(this.guide, this.asked, this.weak.as_ref(), response) {
                    Answer::Now(response) => return Poll::Ready(Ok(response)),
                    Answer::Encoded(turn) => turn,
                }
            }
        };
        if turn.poll(cx).is_pending() {
            *this.turn = Some(turn);
            return Poll::Pending;
        }
        Poll::Ready(Ok(encode(this.guide, this.asked, *turn)))
    }
}

impl Turn {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let length = self.length.and_then(|length| usize::try_from(length).ok());
        self.place
            .poll(length.map_or(FIRST, |length| length.min(FIRST)), cx)
    }
}

enum Answer {
    Now(Response),
    Encoded(Box<Turn>),
}

fn answer(
    guide: &Arc<Guide>,
    asked: &Asked,
    weak: Option<&HeaderValue>,
    mut response: Response,
) -> Answer {
    if response.status() == StatusCode::NOT_MODIFIED {
        if weak.is_some_and(|weak| fields::known_as_weak(weak, response.headers())) {
            fields::weaken(response.headers_mut());
        }
        return Answer::Now(response);
    }
    let length = response.body().size_hint().exact();
    let (status, headers) = (response.status(), response.headers());
    let judged = judge(&guide.rules, asked, status, headers, length);
    if judged.negotiable {
        fields::vary(response.headers_mut());
    }
    Answer::Now(match judged.verdict {
        Verdict::Leave(None) => response,
        Verdict::Leave(Some(reason)) => left(guide, reason, response),
        Verdict::Encode(coding) if asked.head => {
            fields::recode(response.headers_mut(), Some(coding));
            response
        }
        Verdict::Decode(_) if asked.head => {
            fields::recode(response.headers_mut(), None);
            response
        }
        Verdict::Decode(coding) => decode(guide, coding, response),
        Verdict::Encode(coding) => {
            return Answer::Encoded(Box::new(Turn {
                place: guide.encoders.place(),
                coding,
                length,
                response,
            }));
        }
    })
}

fn left(guide: &Guide, reason: Skip, response: Response) -> Response {
    guide.cells().skipped[reason as usize].inc();
    response
}

fn encode(guide: &Arc<Guide>, asked: &Asked, turn: Turn) -> Response {
    let Turn {
        place,
        coding,
        length,
        mut response,
    } = turn;
    let first = lend(guide, coding, length).map(|lent| (coding, lent));
    let lent = first.or_else(|| {
        let lighter = asked.accepted.choose(&guide.light());
        let lighter = lighter.filter(|lighter| *lighter != coding)?;
        Some((lighter, lend(guide, lighter, length)?))
    });
    let Some((coding, lent)) = lent else {
        return left(guide, Skip::Cap, response);
    };
    guide.cells().codings[coding.index()].responses.inc();
    fields::recode(response.headers_mut(), Some(coding));
    let guide = Arc::clone(guide);
    map_body(response, |body| {
        Body::wrap(Encoding::new(body, guide, coding, lent, place))
    })
}

/// What encodes a body of this length; `None` while there is no memory for it.
fn lend(guide: &Guide, coding: Coding, length: Option<u64>) -> Option<(Lent, Option<Seat>)> {
    let level = guide.levels.of(coding);
    let long = Levels::is_high(coding, level)
        || (coding == Coding::Br && length.is_some_and(|length| length > LONG));
    let seat = if long { guide.encoders.seat() } else { None };
    let level = match seat {
        None if long => level.min(Levels::USUAL.of(coding)),
        _ => level,
    };
    let aside = seat.is_some();
    let make = Make {
        coding,
        level,
        aside,
    };
    let lent = guide.encoders.take(make, length).ok().flatten()?;
    Some((lent, seat))
}

fn decode(guide: &Guide, coding: Coding, mut response: Response) -> Response {
    let Ok(decoder) = Decoder::new(coding) else {
        return left(guide, Skip::Cap, response);
    };
    guide.cells().decoded[coding.index()].inc();
    fields::recode(response.headers_mut(), None);
    map_body(response, |body| Body::wrap(Decoding::new(body, decoder)))
}
