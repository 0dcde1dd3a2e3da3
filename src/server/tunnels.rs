//! Upgraded connections: both ends joined, counted, and ended with the worker.
//!
//! A tunnel is a task of its worker. It ends when both ends have, when nothing has moved for the
//! idle timeout, or in the second half of a drain, at a moment of chance of its own, so that
//! clients do not all come back at once.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::drain::{Phase, Signal};
use crate::chance::Chance;
use crate::clock;
use crate::message::Exchange;
use crate::message::exchange::Lease;
use crate::middleware::upgrade::Tunnels;
use crate::telemetry::handles::Metrics;
use crate::upstream::tunnel;

/// A tunnel in which nothing moves for this long is closed.
const IDLE: Duration = Duration::from_secs(3600);

/// The tunnels of one worker.
#[derive(Debug)]
pub struct LocalTunnels {
    worker: usize,
    metrics: Arc<Metrics>,
    drain: Signal,
    chance: Chance,
}

impl LocalTunnels {
    /// None yet.
    pub fn new(worker: usize, metrics: Arc<Metrics>, drain: Signal) -> Self {
        LocalTunnels {
            worker,
            metrics,
            drain,
            chance: Chance::default(),
        }
    }
}

impl Tunnels for LocalTunnels {
    fn join(
        &self,
        client: OnUpgrade,
        upstream: OnUpgrade,
        exchange: Arc<Exchange>,
        lease: Option<Lease>,
    ) {
        let ending = ending(self.drain.clone(), self.chance.next());
        let metrics = self.metrics.clone();
        let worker = self.worker;
        tokio::spawn(async move {
            let Ok((client, upstream)) = tokio::try_join!(client, upstream) else {
                return;
            };
            if let Some(listener) = metrics.known_listener(&exchange.conn.listener) {
                listener.of(worker).tunnels.inc();
            }
            let (client, upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            tokio::select! {
                // Either end may break off at any time: that is how tunnels end.
                _ = tunnel::run(client, upstream, IDLE, |up, down| exchange.tunnelled(up, down)) => {}
                () = ending => metrics.worker.of(worker).drain_aborted_tunnels.inc(),
            }
            drop(lease);
        });
    }
}

/// Resolves at a moment of the second half of a drain.
async fn ending(drain: Signal, chance: u64) {
    drain.clone().reached(Phase::Closing).await;
    let left = drain.deadline().map_or(Duration::ZERO, |at| {
        at.saturating_duration_since(clock::now())
    });
    let share = f64::from(u32::try_from(chance >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    let wait = left / 2 + (left / 2).mul_f64(share * 0.9);
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = drain.reached(Phase::Aborting) => {}
    }
}
