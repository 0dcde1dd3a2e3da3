//! Refuses requests while the process is short of memory, descriptors or time: low `priority` first.
//!
//! Stands above everything that does work, so that what is refused costs little, and below the
//! ladder, so that a lesser answer is given where there is one. How much is shed is decided
//! elsewhere ([`crate::pressure`]); a request reads one word. Refuses with `shed` (503).
//!
//! ```toml
//! priority = "low"    # on a route, or in [defaults]
//! ```

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tower::{Layer, Service};

use crate::chance::Chance;
use crate::error::{GatewayError, Reason};
use crate::message::{Request, Response, exchange};
use crate::pressure::config::Priority;
use crate::switch::Mode;
use crate::telemetry::handles::Metrics;

/// How requests of one route are shed, for one worker.
#[derive(Debug)]
pub struct Shedder {
    /// What the process is short of, and where what is shed is counted.
    pub metrics: Arc<Metrics>,
    /// The worker's number.
    pub worker: usize,
    /// The route's priority.
    pub priority: Priority,
    /// Whether it acts.
    pub mode: Mode,
    /// The worker's chance.
    pub chance: Arc<Chance>,
}

/// Sheds.
#[derive(Debug, Clone)]
pub struct LoadShedLayer(Arc<Shedder>);

impl LoadShedLayer {
    /// By this shedder, behind an `Arc` of this worker's own.
    pub fn new(shedder: Shedder) -> Self {
        LoadShedLayer(Arc::new(shedder))
    }
}

impl<S> Layer<S> for LoadShedLayer {
    type Service = LoadShed<S>;
    fn layer(&self, inner: S) -> LoadShed<S> {
        LoadShed {
            inner,
            shedder: self.0.clone(),
        }
    }
}

/// The service of [`LoadShedLayer`].
#[derive(Debug, Clone)]
pub struct LoadShed<S> {
    inner: S,
    shedder: Arc<Shedder>,
}

impl Shedder {
    /// Whether this request is refused.
    fn sheds(&self, request: &Request) -> bool {
        let pressure = &self.metrics.pressure;
        let chance = || self.chance.below(1000);
        let Some(cause) = pressure.sheds(self.worker, self.priority, chance) else {
            return false;
        };
        match self.mode {
            Mode::Enforce => {
                let cells = self.metrics.worker.of(self.worker);
                cells.shed[self.priority as usize][cause as usize].inc();
                true
            }
            Mode::Observe => {
                if let Some(exchange) = exchange::of(request) {
                    exchange.observe(Reason::Shed);
                }
                false
            }
        }
    }
}

impl<S> Service<Request> for LoadShed<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = Either<S::Future, Ready<Result<Response, GatewayError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if self.shedder.sheds(&request) {
            return Either::Right(ready(Err(Reason::Shed.into())));
        }
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;
    use tower_test::mock;

    use super::*;
    use crate::message::Body;

    fn shedder(priority: Priority, mode: Mode, level: f64) -> Shedder {
        let metrics = Arc::new(Metrics::new(1));
        metrics.pressure.set_worker(0, level, 1.0);
        Shedder {
            metrics,
            worker: 0,
            priority,
            mode,
            chance: Arc::new(Chance::seeded(1)),
        }
    }

    async fn outcome(priority: Priority, mode: Mode, level: f64) -> Result<u16, Reason> {
        let layer = LoadShedLayer::new(shedder(priority, mode, level));
        let inner =
            tower::service_fn(|_| async { Ok(Box::new(http::Response::new(Body::empty()))) });
        let answer = layer
            .layer(inner)
            .oneshot(Box::new(http::Request::new(Body::empty())))
            .await;
        answer.map(|a| a.status().as_u16()).map_err(|e| e.reason())
    }

    #[tokio::test]
    async fn it_passes_below_its_level_refuses_above_and_only_counts_when_it_observes() {
        let (low, high) = (Priority::Low, Priority::High);
        assert_eq!(outcome(low, Mode::Enforce, 0.0).await, Ok(200));
        assert_eq!(outcome(low, Mode::Enforce, 1.0).await, Err(Reason::Shed));
        assert_eq!(outcome(low, Mode::Observe, 1.0).await, Ok(200));
        assert_eq!(outcome(high, Mode::Enforce, 2.0).await, Ok(200));
    }

    #[tokio::test]
    async fn readiness_is_that_of_the_inner_service() {
        let shedder = Arc::new(shedder(Priority::Low, Mode::Enforce, 1.0));
        let (mock, mut handle) = mock::pair::<(), Response>();
        let inner = mock
            .map_request(|_: Request| ())
            .map_err(|_| Reason::Panic.into());
        handle.allow(0);
        let mut shed = LoadShed { inner, shedder };
        let ready = futures_util::future::poll_fn(|cx| Poll::Ready(shed.poll_ready(cx).is_ready()));
        assert!(!ready.await);
    }
}
