//! An HTTP/2 connection and its streams, as one task.
//!
//! A task for each stream would be woken for an answer, then wake the connection's to write it, and
//! each would wait its turn among all other tasks of the worker: a request would take four turns.
//! Here what a turn brings is taken as far as it goes: requests that were read are begun at once,
//! and what streams have to say is written in the same turn, all of it together. Only what was
//! woken is polled. A stream that panics takes no other with it; when hyper has ended, so have the
//! streams.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::task::coop;

use super::bells::{Bell, Bells};
use super::pulse::Pulse;
use super::streams::{Begun, Stream};

/// hyper, among the parts.
const HYPER: u32 = u32::MAX;
/// How often hyper and the streams may wake each other before other tasks have a turn: what streams
/// had to say is then written, and what was read is begun.
const ROUNDS: usize = 2;
/// Places for streams that are kept while none is open.
const KEPT: usize = 4;

/// One connection.
pub(super) struct Multiplex<C> {
    hyper: Pin<Box<C>>,
    pulse: Arc<Pulse>,
    begun: Arc<Begun>,
    bells: Arc<Bells>,
    bell: Arc<Bell>,
    waker: Waker,
    places: Vec<Place>,
    /// Places without a stream.
    free: Vec<u32>,
    /// Room for the parts that were woken.
    rung: Vec<u32>,
}

struct Place {
    stream: Option<Stream>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<C: Future> Multiplex<C> {
    /// `hyper` puts the streams that it begins into `begun`.
    pub(super) fn new(hyper: C, begun: Arc<Begun>, pulse: Arc<Pulse>) -> Self {
        let bells = Bells::new();
        let bell = bells.hang(HYPER);
        bell.wake_by_ref();
        Multiplex {
            hyper: Box::pin(hyper),
            pulse,
            begun,
            waker: Waker::from(bell.clone()),
            bell,
            bells,
            places: Vec::new(),
            free: Vec::new(),
            rung: Vec::new(),
        }
    }

    /// hyper, to be told something; it is polled in the next turn.
    pub(super) fn hyper(&mut self) -> Pin<&mut C> {
        self.waker.wake_by_ref();
        self.hyper.as_mut()
    }

    /// Polls all that was woken: streams, then hyper, which writes what they have said.
    fn round(&mut self) -> Poll<C::Output> {
        let mut rung = std::mem::take(&mut self.rung);
        self.bells.take(&mut rung);
        let mut hyper = false;
        for part in rung.drain(..) {
            match part {
                HYPER => hyper = true,
                place => self.poll_stream(place as usize),
            }
        }
        self.rung = rung;
        if hyper {
            return self.poll_hyper();
        }
        Poll::Pending
    }

    fn poll_hyper(&mut self) -> Poll<C::Output> {
        self.bell.answer();
        self.pulse.turn();
        let polled = self
            .hyper
            .as_mut()
            .poll(&mut Context::from_waker(&self.waker));
        while let Some(stream) = self.begun.next() {
            self.begin(stream);
        }
        polled
    }

    /// Finds a place for a stream and polls it for the first time.
    fn begin(&mut self, stream: Stream) {
        let place = match self.free.pop() {
            Some(place) => place as usize,
            None => self.another_place(),
        };
        self.places[place].stream = Some(stream);
        self.poll_stream(place);
    }

    fn another_place(&mut self) -> usize {
        let place = self.places.len();
        let number = u32::try_from(place).expect("fewer streams than there are numbers for them");
        let bell = self.bells.hang(number);
        self.places.push(Place {
            stream: None,
            waker: Waker::from(bell.clone()),
            bell,
        });
        place
    }

    /// What was woken may have ended meanwhile, and its place be gone.
    fn poll_stream(&mut self, number: usize) {
        let Some(place) = self.places.get_mut(number) else {
            return;
        };
        place.bell.answer();
        let Some(stream) = &mut place.stream else {
            return;
        };
        let mut context = Context::from_waker(&place.waker);
        let poll = AssertUnwindSafe(|| stream.as_mut().poll(&mut context));
        if catch_unwind(poll).is_ok_and(|polled| polled.is_pending()) {
            return;
        }
        place.stream = None;
        self.free.push(number as u32);
        if self.free.len() == self.places.len() && self.places.len() > KEPT {
            self.rest();
        }
    }

    /// Nothing is open: gives back what many streams have needed.
    fn rest(&mut self) {
        self.places.truncate(KEPT);
        self.places.shrink_to_fit();
        self.free = (0..KEPT as u32).collect();
    }
}

impl<C: Future> Future for Multiplex<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        this.bells.awake(cx.waker());
        for _ in 0..ROUNDS {
            if let Poll::Ready(outcome) = this.round() {
                return Poll::Ready(outcome);
            }
            if this.bells.sleep() {
                return Poll::Pending;
            }
            if !coop::has_budget_remaining() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<C> Drop for Multiplex<C> {
    /// What waits to begin holds what it waits in.
    fn drop(&mut self) {
        while self.begun.next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
