//! The streams that hyper begins on an HTTP/2 connection, and the end of those whose client stands
//! still.
//!
//! A client that opens no window holds an answer, and the upstream connection it comes from, for
//! as long as it likes, and the socket does not show it: it may be read from all the time. So each
//! stream's task is watched from outside: where hyper was given a piece of a body and has not come
//! back for the next one within `write_timeout`, the task is dropped, which resets the stream and
//! lets the upstream go. Only whole pieces count, so that a window opened byte by byte is none. A
//! stream that waits for the socket is not blamed: `io` has a limit for that.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::rt::Executor;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::pulse::{Piece, Pulse};
use crate::clock;
use crate::plan::listener::ListenerPlan;
use crate::telemetry::handles::Violation;

/// A stream, to its end. hyper's own type has no name.
pub(super) type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Streams that hyper has begun and nobody has polled yet.
#[derive(Default)]
pub(super) struct Begun(Mutex<VecDeque<Stream>>);

impl Begun {
    /// Adds one.
    pub(super) fn push(&self, stream: Stream) {
        self.0.lock().push_back(stream);
    }

    /// Takes the first.
    pub(super) fn next(&self) -> Option<Stream> {
        self.0.lock().pop_front()
    }
}

/// Where hyper puts the streams of one connection; `multiplex` polls them.
#[derive(Clone)]
pub(super) struct Streams(Arc<Of>);

struct Of {
    pulse: Arc<Pulse>,
    plan: Arc<ListenerPlan>,
    worker: usize,
    begun: Arc<Begun>,
}

impl Streams {
    pub(super) fn new(pulse: Arc<Pulse>, plan: Arc<ListenerPlan>, worker: usize) -> Self {
        Streams(Arc::new(Of {
            pulse,
            plan,
            worker,
            begun: Arc::default(),
        }))
    }

    /// What was put here.
    pub(super) fn begun(&self) -> Arc<Begun> {
        self.0.begun.clone()
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let watched = Watched {
            stream,
            of: self.clone(),
            held: None,
            timer: None,
        };
        self.0.begun.push(Box::pin(watched));
    }
}

pin_project! {
    /// One stream.
    struct Watched<F> {
        #[pin]
        stream: F,
        of: Streams,
        // since when hyper holds a piece that the client does not take
        held: Option<Instant>,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let pulse = &this.of.0.pulse;
        // What is noted there may be another stream's: one is polled at a time.
        pulse.piece();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match pulse.piece() {
            Some(Piece::Given) => *this.held = Some(clock::now()),
            Some(Piece::Awaited) => *this.held = None,
            None => {}
        }
        let Some(since) = this.held else {
            return Poll::Pending;
        };
        ready!(stalled(since, this.timer, this.of, cx));
        let of = &this.of.0;
        let cells = of.plan.metrics.of(of.worker);
        cells.violations[Violation::Stall as usize].inc();
        Poll::Ready(())
    }
}

/// Ready when a piece has been held for too long. The timer is moved only when it fires.
fn stalled(
    since: &mut Instant,
    timer: &mut Option<Pin<Box<Sleep>>>,
    of: &Streams,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let wait = of.0.plan.limits.write_timeout;
    let due = *since + wait;
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
    loop {
        ready!(timer.as_mut().poll(cx));
        if of.0.pulse.blocked() {
            *since = clock::now();
        }
        let due = *since + wait;
        if due <= clock::now() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(due.into());
    }
}
