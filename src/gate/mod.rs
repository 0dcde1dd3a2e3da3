//! A cap on what is in flight, over all workers: places, a bounded queue for them, and a limit that
//! may find itself.
//!
//! On the ground, since routes and upstreams both have caps. A [`Gate`] is shared by all workers
//! and outlives reloads by its name; it counts what is in and knows nothing of requests. Whoever
//! was let in calls [`Gate::leave`] exactly once: the room that uses it keeps that in a guard.
//!
//! * `queue`: places, and who is next
//! * `keyed`: a cap for each client, without a queue
//! * `gradient`: a limit from latency; pure
//! * `window`: what is measured between two looks of the gradient
//! * `config`: the section `concurrency`
//! * `caps`: the caps of one route or upstream, compiled

pub mod caps;
pub mod config;
pub mod gradient;
pub mod keyed;
mod queue;
mod window;

#[cfg(test)]
mod loom_tests;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use gradient::{Bounds, Gradient};
use queue::{Asked, Queue, Turn};
use window::Window;

/// What `queue` is made of.
mod sync {
    pub(super) use parking_lot::Mutex;
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

/// Who is served first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The one who came first.
    #[default]
    Fifo,
    /// While more than half of the queue is taken, the one who came last: they are the ones whose
    /// clients still wait. A full queue then turns away its oldest.
    NewestFirst,
}

/// How long the queue may be, and who is served first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// The most who may wait.
    pub queue: u32,
    /// Who is served first.
    pub order: Order,
}

/// What holds for a gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The most that may be in.
    pub max: u32,
    /// The lower bound of a limit that finds itself.
    pub min: u32,
    /// The limit finds itself, between `min` and `max`.
    pub adaptive: bool,
    /// The queue.
    pub rules: Rules,
}

impl Settings {
    fn bounds(&self) -> Bounds {
        Bounds {
            min: self.min,
            max: self.max,
        }
    }
}

/// How something that was let in has ended, as far as a limit learns from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an answer, after this time.
    Answered(Duration),
    /// It took too long.
    TimedOut,
}

/// How a gate stands, for `/status` and the gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many may be in, now.
    pub limit: u32,
    /// How many are in.
    pub in_flight: u32,
    /// How many wait.
    pub waiting: u32,
}

/// A cap and its queue.
#[derive(Debug)]
pub struct Gate {
    queue: Queue<Called>,
    window: Window,
    gradient: Mutex<Option<Gradient>>,
}

/// Tells one who waits.
#[derive(Debug)]
struct Called(oneshot::Sender<()>);

impl Turn for Called {
    fn take(self) -> bool {
        self.0.send(()).is_ok()
    }
}

impl Gate {
    /// With nobody in.
    pub fn new(settings: &Settings) -> Self {
        let gradient = settings.adaptive.then(|| Gradient::new(settings.bounds()));
        let limit = gradient.as_ref().map_or(settings.max, Gradient::limit);
        Gate {
            queue: Queue::new(limit, settings.rules),
            window: Window::default(),
            gradient: Mutex::new(gradient),
        }
    }

    /// Takes other settings into force. What is in stays; a limit that finds itself goes on from
    /// where it is.
    pub fn put_in_force(&self, settings: &Settings) {
        let mut gradient = self.gradient.lock();
        let kept = gradient.take().filter(|_| settings.adaptive);
        *gradient = settings.adaptive.then(|| match kept {
            Some(kept) => kept.within(settings.bounds()),
            None => Gradient::new(settings.bounds()),
        });
        let limit = gradient.as_ref().map_or(settings.max, Gradient::limit);
        self.queue.resize(limit, Some(settings.rules));
    }

    /// Lets one in, if there is a place and nobody waits for it; `beyond` counts further places,
    /// for a cap that only watches.
    #[inline]
    pub fn enter(&self, beyond: u32) -> bool {
        self.queue.enter(beyond)
    }

    /// Asks for a place where none was free at once.
    pub fn queue(&self) -> Queued<'_> {
        let (turn, called) = oneshot::channel();
        let (asked, turned_away) = self.queue.ask(Called(turn));
        // whose caller hears of it by this
        drop(turned_away);
        match asked {
            Asked::In => Queued::In,
            Asked::Full => Queued::Full,
            Asked::Waits(number) => Queued::Waits(Waiting {
                gate: self,
                called,
                number,
                over: false,
            }),
        }
    }

    /// One who was let in has gone.
    #[inline]
    pub fn leave(&self) {
        self.queue.leave();
    }

    /// What is learnt from one who was let in at `now - took`. Only for a limit that finds itself.
    pub fn learn(&self, ended: Ended, now: Instant) {
        let inside = self.queue.counts().inside;
        let Some(measured) = self.window.add(ended, inside, now) else {
            return;
        };
        let limit = {
            let mut gradient = self.gradient.lock();
            gradient.as_mut().map(|g| g.update(&measured, now))
        };
        if let Some(limit) = limit
            && limit != self.queue.limit()
        {
            self.queue.resize(limit, None);
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let counts = self.queue.counts();
        Standing {
            limit: self.queue.limit(),
            in_flight: counts.inside,
            waiting: counts.waiting,
        }
    }
}

/// What came of asking for a place in the queue.
pub enum Queued<'g> {
    /// There was a place after all: let in.
    In,
    /// The queue is full.
    Full,
    /// In the queue.
    Waits(Waiting<'g>),
}

/// One in the queue; dropped, it leaves no trace.
pub struct Waiting<'g> {
    gate: &'g Gate,
    called: oneshot::Receiver<()>,
    number: u64,
    /// Told, either way.
    over: bool,
}

impl Waiting<'_> {
    /// Waits to be let in; `false` if the queue turned it away, or `timeout` has passed.
    pub async fn turn(mut self, timeout: Duration) -> bool {
        let told = tokio::time::timeout(timeout, &mut self.called).await;
        self.over = told.is_ok();
        matches!(told, Ok(Ok(())))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.called.close();
        match self.called.try_recv() {
            // The place came just before we went.
            Ok(()) => self.gate.leave(),
            Err(_) => self.gate.queue.forget(self.number),
        }
    }
}
