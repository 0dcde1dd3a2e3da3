//! Refuse fairly, before work: `rate_limit = [{ rate = "100/s", burst = 200, key = "client_ip" }]`.
//!
//! GCRA by governor, over a bounded table of our own. Limits that count `all` or `failures` stand
//! above the cache, those that count `misses` below it; within a group all are looked at before
//! any is charged, so that a refused request costs its client nothing. A limit that counts
//! failures looks before and charges after. Who is over is refused with `rate_limited`, the wait
//! and the names of the limits; `mode = "observe"` counts and lets pass. What clients have used is
//! shared by all workers, and nothing else is.
//!
//! * `config`: the section
//! * `pace`: the time of a limit, and how a key stands in it (pure)
//! * `table`: what clients have used
//! * `limiter`: one limit, its shared part and each worker's
//! * `fields`: what clients are told

mod config;
mod fields;
mod limiter;
mod pace;
mod table;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

pub use config::{Count, LimitConfig, LimitsConfig, RateLimitHeaders};
use fields::{Form, Left, Told};
pub use limiter::{Judge, Limit, Look, Verdict};

use crate::clock;
use crate::error::{GatewayError, Reason, Side};
use crate::message::{Exchange, Request, Response, exchange};
use crate::switch::Mode;

/// A group of a route's limits, consulted together.
#[derive(Clone)]
pub struct RateLimitLayer(Arc<Group>);

/// One worker's judges of a group.
struct Group {
    judges: Box<[Judge]>,
    form: Form,
}

impl RateLimitLayer {
    /// The limits that stand above the cache, for one worker; `None` if there are none.
    pub fn above_cache(
        limits: &[Arc<Limit>],
        headers: RateLimitHeaders,
        worker: usize,
    ) -> Option<Self> {
        Self::of(limits, headers, worker, |count| count != Count::Misses)
    }

    /// The limits that stand below it.
    pub fn below_cache(
        limits: &[Arc<Limit>],
        headers: RateLimitHeaders,
        worker: usize,
    ) -> Option<Self> {
        Self::of(limits, headers, worker, |count| count == Count::Misses)
    }

    fn of(
        limits: &[Arc<Limit>],
        headers: RateLimitHeaders,
        worker: usize,
        here: impl Fn(Count) -> bool,
    ) -> Option<Self> {
        let limits = limits.iter().filter(|limit| here(limit.count()));
        let judges: Box<[Judge]> = limits.map(|limit| Judge::new(limit, worker)).collect();
        let told = judges.iter().map(|judge| &*judge.limit);
        let form = Form::new(headers, told);
        (!judges.is_empty()).then(|| RateLimitLayer(Arc::new(Group { judges, form })))
    }
}

/// What a route's limits would say of a request, without charging it.
pub fn look(
    limits: &[Arc<Limit>],
    request: &Request,
    exchange: &Exchange,
    now: Instant,
) -> Vec<Look> {
    let each = |limit: &Arc<Limit>| limit.look(request, exchange, now);
    limits.iter().map(each).collect()
}

/// What is still to be charged, if the request fails: which judge, for which key.
type Owed = Vec<(usize, u64)>;

impl Group {
    /// Charges the request to every limit, if all of them admit it.
    fn admit(
        &self,
        request: &Request,
        exchange: &Exchange,
        now: Instant,
    ) -> Result<(Told, Owed), GatewayError> {
        if let [judge] = &*self.judges
            && judge.limit.count() != Count::Failures
        {
            let key = judge.limit.hash(request, exchange);
            return self.settle(exchange, now, &[(key, judge.charge(key, now))], Vec::new());
        }
        let look = |judge: &Judge| {
            let key = judge.limit.hash(request, exchange);
            (key, judge.look(key, now))
        };
        let mut said: Vec<(u64, Verdict)> = self.judges.iter().map(look).collect();
        let mut owed = Owed::new();
        if self.refusing(&said).next().is_none() {
            owed = self.charge(&mut said, now);
        }
        self.settle(exchange, now, &said, owed)
    }

    /// Charges all that admit, in order; who came between and took the last one ends it, and what
    /// was charged is given back.
    fn charge(&self, said: &mut [(u64, Verdict)], now: Instant) -> Owed {
        let mut owed = Owed::new();
        for at in 0..said.len() {
            let (judge, (key, looked)) = (&self.judges[at], said[at]);
            if !looked.admits {
                continue;
            }
            if judge.limit.count() == Count::Failures {
                owed.push((at, key));
                continue;
            }
            said[at].1 = judge.charge(key, now);
            if !said[at].1.admits && judge.limit.mode() == Mode::Enforce {
                let charged = |judge: &Judge| judge.limit.count() != Count::Failures;
                let before = self.judges.iter().zip(said.iter()).take(at);
                before
                    .filter(|(judge, (_, verdict))| charged(judge) && verdict.admits)
                    .for_each(|(judge, (key, verdict))| judge.refund(*key, *verdict));
                break;
            }
        }
        owed
    }

    /// Counts what was said, and tells the client.
    fn settle(
        &self,
        exchange: &Exchange,
        now: Instant,
        said: &[(u64, Verdict)],
        owed: Owed,
    ) -> Result<(Told, Owed), GatewayError> {
        let refused = self.refusing(said).next().is_some();
        for (judge, (_, verdict)) in self.judges.iter().zip(said) {
            match (verdict.admits, judge.limit.mode()) {
                (false, Mode::Enforce) => judge.cells().deny.inc(),
                (false, Mode::Observe) => {
                    judge.cells().observed.inc();
                    exchange.observe(Reason::RateLimited);
                }
                (true, _) if refused => {}
                (true, _) => judge.cells().allow.inc(),
            }
        }
        let told = self.form.tell(self.left(said, now));
        if !refused {
            return Ok((told, owed));
        }
        let wait = self
            .refusing(said)
            .map(|(judge, verdict)| judge.wait(verdict.standing, now));
        let error = GatewayError::new(Reason::RateLimited)
            .with_retry_after(wait.max().unwrap_or(Duration::ZERO));
        let named =
            |error: GatewayError, (judge, _): (&Judge, _)| error.with_policy(judge.name.clone());
        Err(told.put_on(self.refusing(said).fold(error, named)))
    }

    /// The limits that refuse, with what they said.
    fn refusing(&self, said: &[(u64, Verdict)]) -> impl Iterator<Item = (&Judge, Verdict)> {
        let each = self.judges.iter().zip(said);
        each.filter(|(judge, (_, verdict))| !verdict.admits && judge.limit.mode() == Mode::Enforce)
            .map(|(judge, (_, verdict))| (judge, *verdict))
    }

    /// What is left of each limit that acts.
    fn left(&self, said: &[(u64, Verdict)], now: Instant) -> impl Iterator<Item = Left> {
        let each = self.judges.iter().zip(said).enumerate();
        each.filter(|(_, (judge, _))| judge.limit.mode() == Mode::Enforce)
            .map(move |(at, (judge, (_, verdict)))| Left {
                at,
                left: verdict.standing.left,
                next: seconds(judge.wait(verdict.standing, now)),
            })
    }

    /// Charges what a failed request owes.
    fn pay(&self, owed: &Owed) {
        let now = clock::now();
        for (at, key) in owed {
            self.judges[*at].charge(*key, now);
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;
    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit {
            inner,
            group: self.0.clone(),
        }
    }
}

/// The service of [`RateLimitLayer`].
#[derive(Clone)]
pub struct RateLimit<S> {
    inner: S,
    group: Arc<Group>,
}

impl<S> Service<Request> for RateLimit<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = RateLimitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let admitted = match exchange::of(&request) {
            Some(exchange) => self.group.admit(&request, exchange, exchange.as_of()),
            None => Ok((Told::Nothing, Owed::new())),
        };
        let (inner, told, owed, refused) = match admitted {
            Ok((told, owed)) => (Some(self.inner.call(request)), told, owed, None),
            Err(error) => (None, Told::Nothing, Owed::new(), Some(error)),
        };
        let owes = (!owed.is_empty()).then(|| (self.group.clone(), owed));
        RateLimitFuture {
            inner,
            refused,
            told,
            owes,
        }
    }
}

pin_project! {
    /// The answer, with what is left of the limits; or the refusal.
    pub struct RateLimitFuture<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<GatewayError>,
        told: Told,
        owes: Option<(Arc<Group>, Owed)>,
    }
}

impl<F: Future<Output = Result<Response, GatewayError>>> Future for RateLimitFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = match this.inner.as_pin_mut() {
            Some(inner) => ready!(inner.poll(cx)),
            None => Err(this
                .refused
                .take()
                .expect("polled once after it is refused")),
        };
        if let Some((group, owed)) = this.owes.take_if(|_| failed(&answer)) {
            group.pay(&owed);
        }
        let told = std::mem::take(this.told);
        Poll::Ready(match answer {
            Ok(mut response) => {
                if !response.status().is_redirection() {
                    told.put(response.headers_mut());
                }
                Ok(response)
            }
            Err(error) => Err(told.put_on(error)),
        })
    }
}

/// Whether an answer is a failure of the client or the upstream.
fn failed(answer: &Result<Response, GatewayError>) -> bool {
    match answer {
        Ok(response) => response.status() >= StatusCode::BAD_REQUEST,
        Err(error) => error.reason().side() != Side::Gateway,
    }
}
