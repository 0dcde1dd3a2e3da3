//! One connection to its end: polls what serves it and keeps the connection's one timer.
//!
//! What is driven is hyper, or an HTTP/1 connection at [rest](super::rest). The timer stands where
//! the [`Pulse`] says; on closing, HTTP/2 is told at once and HTTP/1 when it has been idle for a
//! second; at the deadline the connection is cut.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::drain::{Phase, Signal};
use super::pulse::Pulse;
use crate::clock;

/// Where the timer stands while requests are open and nothing is due.
const FAR: Duration = Duration::from_secs(3600);
/// How long what is driven has to end a connection once it was told to.
pub(super) const FINISH: Duration = Duration::from_secs(2);

/// What is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// hyper with HTTP/1, which may go to rest.
    Http1,
    /// hyper with HTTP/2, which says GOAWAY when closing begins and goes on with its streams.
    H2,
    /// A connection at rest.
    Resting,
}

/// How driving a connection ended.
pub(super) enum End<T> {
    /// By itself.
    Done(T),
    /// It has been idle for a while and is to go to rest.
    Rest,
    /// Nothing came in time. `stalled`: in the middle of a request head or of an answer.
    Due { stalled: bool },
    /// The drain deadline passed, with so many requests whose answers had not left.
    Cut { unfinished: u32 },
}

/// Drives a connection to its end. `finish` tells what is driven to end: at once when closing
/// begins on either side (HTTP/2), or when it has been idle until it was due.
pub(super) async fn drive<C: Future>(
    mut driven: Pin<&mut C>,
    finish: impl Fn(Pin<&mut C>),
    kind: Kind,
    pulse: &Pulse,
    signal: &Signal,
) -> End<C::Output> {
    let news = signal.clone();
    let mut heard = false;
    let mut closing = pin!(signal.clone().reached(Phase::Closing));
    let mut aborting = pin!(signal.clone().reached(Phase::Aborting));
    let mut alarm = Alarm::new(pulse, kind);
    let mut told = false;
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = driven.as_mut().poll(cx) {
            return Poll::Ready(End::Done(outcome));
        }
        // Polled once it wakes this task, which stays the same; again when there is news.
        if !pulse.closing()
            && (!std::mem::replace(&mut heard, true) || news.has_changed())
            && closing.as_mut().poll(cx).is_ready()
        {
            pulse.close();
        }
        if kind == Kind::H2 && !told && pulse.closing() {
            told = true;
            finish(driven.as_mut());
            cx.waker().wake_by_ref();
        }
        if pulse.closing() && aborting.as_mut().poll(cx).is_ready() {
            let unfinished = pulse.unfinished();
            return Poll::Ready(End::Cut { unfinished });
        }
        while alarm.poll(pulse, cx).is_ready() {
            if alarm.rests(pulse) {
                return Poll::Ready(End::Rest);
            }
            if pulse.in_head() || alarm.last_call() {
                let stalled = pulse.in_head() || pulse.holds();
                return Poll::Ready(End::Due { stalled });
            }
            finish(driven.as_mut());
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

/// The one timer of a connection.
struct Alarm {
    timer: Pin<Box<Sleep>>,
    armed: Instant,
    kind: Kind,
    /// It was told to finish; it has until the timer fires again, unless something has come
    /// meanwhile: after GOAWAY a client may still send what it had sent already.
    finishing: bool,
}

impl Alarm {
    fn new(pulse: &Pulse, kind: Kind) -> Self {
        let armed = pulse.due().unwrap_or_else(far);
        Alarm {
            timer: Box::pin(tokio::time::sleep_until(armed.into())),
            armed,
            kind,
            finishing: false,
        }
    }

    fn arm(&mut self, at: Instant) {
        self.armed = at;
        self.timer.as_mut().reset(at.into());
    }

    /// When the connection goes to rest, if it does and nothing happens until then.
    fn rest_due(&self, pulse: &Pulse) -> Option<Instant> {
        let may = self.kind == Kind::Http1 && !self.finishing;
        may.then(|| pulse.rest_due()).flatten()
    }

    /// Ready when the connection is due to close, or to rest.
    fn poll(&mut self, pulse: &Pulse, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let dues = pulse.due().into_iter().chain(self.rest_due(pulse));
            let due = dues.min();
            if let Some(due) = due.filter(|due| *due < self.armed && !self.finishing) {
                self.arm(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            let due = due.unwrap_or_else(far);
            if due <= clock::now() {
                return Poll::Ready(());
            }
            self.finishing = false;
            self.arm(due);
        }
    }

    /// Whether the connection is due to rest, and not to close.
    fn rests(&self, pulse: &Pulse) -> bool {
        let now = clock::now();
        self.rest_due(pulse).is_some_and(|at| at <= now) && pulse.due().is_none_or(|at| at > now)
    }

    /// Whether it was told to finish already; else the time for that begins.
    fn last_call(&mut self) -> bool {
        self.arm(clock::now() + FINISH);
        std::mem::replace(&mut self.finishing, true)
    }
}

fn far() -> Instant {
    clock::now() + FAR
}
