//! A body on its way through an encoder: streaming, in slices.
//!
//! A slice is encoded when it is this stream's turn, so that large bodies hold nobody else's request
//! up (CASES J13). Of a body whose length is not
//! known, what is there is flushed when no more has come, but not again and again while it merely
//! arrives in small pieces: an event a second arrives at once (J06). Trailers are held to the end. Long work is done aside, one slice at a time, with the
//! encoder lent to another thread meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep_until};

use super::encoder::{Encoder, Failed, Then};
use super::lend::{Lent, Seat};
use super::service::Guide;
use super::turns::Place;
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::Body;
use crate::message::coding::Coding;

/// Input of one step, in bytes: what others wait for at the most.
const SLICE: usize = 8 * 1024;

/// Input of the first step, which a small body is all of: it leaves with its head.
pub(super) const FIRST: usize = 16 * 1024;

/// Output that is worth a frame while more is to come.
const FRAME: usize = 8 * 1024;

/// The least time between two flushes: each costs bytes, and in br a good deal of work.
const PAUSE: Duration = Duration::from_millis(10);

/// A body being encoded.
pub(super) struct Encoding {
    inner: Body,
    guide: Arc<Guide>,
    coding: Coding,
    /// Given back as soon as the last byte is encoded.
    lent: Option<Lent>,
    seat: Option<Seat>,
    away: Option<oneshot::Receiver<Done>>,
    /// Flush when nothing more has come.
    live: bool,
    /// When that was done last.
    flushed: Option<Instant>,
    /// Until it may be done again.
    nap: Option<Pin<Box<Sleep>>>,
    input: Bytes,
    out: Vec<u8>,
    /// When a slice may be encoded on this thread.
    place: Place,
    /// The turn that the answer waited for stands until there is nothing to encode.
    granted: bool,
    /// Input of the next step at the most.
    most: usize,
    /// The encoder keeps input back.
    holds: bool,
    trailers: Option<HeaderMap>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// More input may come.
    Reading,
    /// The input is at its end, and the encoder does not know yet.
    Finishing,
    /// What is left to send is in `out` and `trailers`.
    Emptying,
    Over,
}

/// A step that was done, here or aside.
struct Done {
    encoder: Encoder,
    out: Vec<u8>,
    spent: Duration,
    outcome: Result<(), Failed>,
}

fn work(mut encoder: Encoder, slice: &[u8], then: Then, mut out: Vec<u8>) -> Done {
    let begun = clock::now();
    let outcome = encoder.step(slice, then, &mut out);
    Done {
        encoder,
        out,
        spent: clock::now() - begun,
        outcome,
    }
}

impl Encoding {
    pub(super) fn new(
        inner: Body,
        guide: Arc<Guide>,
        coding: Coding,
        (lent, seat): (Lent, Option<Seat>),
        place: Place,
    ) -> Self {
        let live = inner.size_hint().exact().is_none();
        Encoding {
            inner,
            guide,
            coding,
            lent: Some(lent),
            seat,
            away: None,
            live,
            flushed: None,
            nap: None,
            input: Bytes::new(),
            out: Vec::new(),
            place,
            granted: true,
            most: FIRST,
            holds: false,
            trailers: None,
            stage: Stage::Reading,
        }
    }

    /// Puts a slice of the input through the encoder.
    fn step(&mut self, then: Then) -> Result<(), GatewayError> {
        let slice = self.input.split_to(self.input.len().min(self.most));
        self.holds = then == Then::GoOn;
        let cells = &self.guide.cells().codings[self.coding.index()];
        cells.bytes_in.add(slice.len() as u64);
        let encoder = self.lent.as_mut().and_then(|lent| lent.encoder.take());
        let encoder = encoder.ok_or(Reason::Panic)?;
        let out = std::mem::take(&mut self.out);
        let Some(seat) = &self.seat else {
            self.place.spend(slice.len());
            return self.take_back(work(encoder, &slice, then, out));
        };
        let (back, done) = oneshot::channel();
        // Nobody waits for it any more if the client has gone.
        seat.work(Box::new(move || {
            drop(back.send(work(encoder, &slice, then, out)));
        }));
        self.away = Some(done);
        Ok(())
    }

    fn take_back(&mut self, done: Done) -> Result<(), GatewayError> {
        let cells = &self.guide.cells().codings[self.coding.index()];
        let nanos = u64::try_from(done.spent.as_nanos()).unwrap_or(u64::MAX);
        cells.nanos.add(nanos);
        self.out = done.out;
        let failed = |failed| GatewayError::caused(Reason::Panic, failed);
        done.outcome.map_err(failed)?;
        if let Some(lent) = &mut self.lent {
            lent.encoder = Some(done.encoder);
        }
        if self.stage == Stage::Emptying {
            self.lent = None;
            self.seat = None;
        }
        Ok(())
    }

    /// What is encoded, if it is worth a frame.
    fn frame(&mut self, least: usize) -> Option<Frame<Bytes>> {
        if self.out.len() < least {
            return None;
        }
        let cells = &self.guide.cells().codings[self.coding.index()];
        cells.bytes_out.add(self.out.len() as u64);
        Some(Frame::data(std::mem::take(&mut self.out).into()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, GatewayError>> {
        loop {
            if let Some(away) = &mut self.away {
                let done = ready!(Pin::new(away).poll(cx));
                self.away = None;
                self.take_back(done.map_err(|_| Reason::Panic)?)?;
            }
            let least = if self.stage == Stage::Emptying {
                1
            } else {
                FRAME
            };
            if let Some(frame) = self.frame(least) {
                return Poll::Ready(Ok(Some(frame)));
            }
            if self.steps() && self.seat.is_none() && !std::mem::take(&mut self.granted) {
                self.most = SLICE;
                ready!(self.place.poll(self.input.len().min(SLICE), cx));
            }
            match self.stage {
                Stage::Reading if self.input.is_empty() => {
                    if let Some(frame) = ready!(self.poll_input(cx))? {
                        return Poll::Ready(Ok(Some(frame)));
                    }
                }
                Stage::Reading if self.input.len() <= self.most && self.inner.is_end_stream() => {
                    self.stage = Stage::Emptying;
                    self.step(Then::Finish)?;
                }
                Stage::Reading => self.step(Then::GoOn)?,
                Stage::Finishing => {
                    self.stage = Stage::Emptying;
                    self.step(Then::Finish)?;
                }
                Stage::Emptying => {
                    self.stage = Stage::Over;
                    let trailers = self.trailers.take().map(Frame::trailers);
                    return Poll::Ready(Ok(trailers));
                }
                Stage::Over => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Whether the encoder works next.
    fn steps(&self) -> bool {
        match self.stage {
            Stage::Reading => !self.input.is_empty(),
            Stage::Finishing => true,
            Stage::Emptying | Stage::Over => false,
        }
    }

    /// Waits until the next flush may be done.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = clock::now();
        if let Some(due) = self.flushed.map(|at| at + PAUSE).filter(|due| *due > now) {
            let nap = || Box::pin(sleep_until(due.into()));
            ready!(self.nap.get_or_insert_with(nap).as_mut().poll(cx));
        }
        self.nap = None;
        self.flushed = Some(now);
        Poll::Ready(())
    }

    /// Reads on. A frame: there is no more for now, and this should not wait for it.
    fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, GatewayError>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => {
                self.granted = false;
                if !self.live {
                    return Poll::Pending;
                }
                if self.holds {
                    ready!(self.poll_pause(cx));
                    self.step(Then::Flush)?;
                    return Poll::Ready(Ok(None));
                }
                match self.frame(1) {
                    None => Poll::Pending,
                    frame => Poll::Ready(Ok(frame)),
                }
            }
            Poll::Ready(None) => {
                self.stage = Stage::Finishing;
                Poll::Ready(Ok(None))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(Some(Ok(frame))) => {
                match frame.into_data() {
                    Ok(data) => self.input = data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.stage = Stage::Finishing;
                    }
                }
                Poll::Ready(Ok(None))
            }
        }
    }
}

impl http_body::Body for Encoding {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let polled = ready!(self.poll(cx));
        if polled.is_err() {
            self.stage = Stage::Over;
            self.lent = None;
        }
        Poll::Ready(polled.transpose())
    }

    fn is_end_stream(&self) -> bool {
        let empty = self.out.is_empty() && self.away.is_none() && self.trailers.is_none();
        self.stage == Stage::Over || (self.stage == Stage::Emptying && empty)
    }
}
