//! Getting a connection: an idle one, a shared one, a new one, or a place in a bounded queue.
//!
//! The caps hold over all workers. Who cannot have a connection at once waits for a permit or for
//! one that comes back, for at most `pending_timeout`; when too many wait already, the answer is
//! a refusal at once and never an unbounded wait.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Upstream;
use super::balance::Random;
use super::caps::Permit;
use super::config::Protocol;
use super::endpoint::Endpoint;
use super::pool::{Connecting, EndpointPool, LentH1, LentH2, Life, WorkerPools};
use super::wire::{self, Sender};
use crate::clock;
use crate::error::{GatewayError, Reason};

/// A connection for one request.
pub(super) enum Lent {
    H1(LentH1),
    H2(LentH2),
}

/// What a request needs of its connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    /// Never one that was used before.
    pub(super) fresh: bool,
    /// HTTP/1, whatever the upstream speaks: the request asks for an upgrade.
    pub(super) upgrade: bool,
}

/// An idle connection older than this may have been closed without our having looked.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(super) struct Checkout<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) endpoint: &'a Endpoint,
    pub(super) pool: &'a Arc<EndpointPool>,
    pub(super) pools: &'a WorkerPools,
    pub(super) wanted: Wanted,
    /// When the try ends by a limit of its own, and what it is called then.
    pub(super) due: Option<(Instant, Reason)>,
}

impl Checkout<'_> {
    /// One that can be had at once. Under load there nearly always is.
    pub(super) fn at_hand(&self, now: Instant) -> Option<Lent> {
        if self.shares() {
            let lent = self.pool.share(now)?;
            self.pool.cells().checkouts_shared.inc();
            return Some(Lent::H2(lent));
        }
        if self.wanted.fresh {
            return None;
        }
        let lent = self.pool.pop_used_within(LOOK_AGAIN, now)?;
        self.pool.cells().checkouts_idle.inc();
        Some(Lent::H1(lent))
    }

    /// A connection.
    pub(super) async fn get(&self) -> Result<Lent, GatewayError> {
        // A shared connection that broke is closed and not found again; opening one for each of
        // its streams would be a stampede.
        if (!self.wanted.fresh || self.shares())
            && let Some(lent) = self.reuse().await?
        {
            return Ok(lent);
        }
        if let Some(permit) = self.upstream.caps.try_open() {
            // Boxed, as is all that is rare, so that the usual way stays small.
            return Box::pin(self.open(permit)).await;
        }
        Box::pin(self.wait()).await
    }

    /// One that is there already.
    async fn reuse(&self) -> Result<Option<Lent>, GatewayError> {
        if self.shares() {
            return Box::pin(self.share()).await;
        }
        while let Some(mut lent) = self.pool.pop(clock::now()) {
            let since = lent.idle_since.unwrap_or_else(clock::now);
            if clock::now().saturating_duration_since(since) > LOOK_AGAIN {
                // Lets the connection's task see a FIN that the kernel already has.
                tokio::task::yield_now().await;
                if !lent.sender().is_ready() {
                    continue;
                }
            }
            self.pool.cells().checkouts_idle.inc();
            return Ok(Some(Lent::H1(lent)));
        }
        Ok(None)
    }

    fn shares(&self) -> bool {
        !self.wanted.upgrade
            && match self.upstream.connector.protocol {
                Protocol::H2 => true,
                Protocol::Auto => self.pool.speaks_h2.load(Relaxed),
                Protocol::Http1 => false,
            }
    }

    /// A place on a shared connection, also on one that is being made right now: that one's
    /// failure is the failure of all who wait for it.
    async fn share(&self) -> Result<Option<Lent>, GatewayError> {
        let shared = async {
            loop {
                if let Some(lent) = self.pool.share(clock::now()) {
                    self.pool.cells().checkouts_shared.inc();
                    return Ok(Some(Lent::H2(lent)));
                }
                match self.pool.opened().await {
                    None => return Ok(None),
                    Some(Ok(())) => {}
                    Some(Err(reason)) => return Err(GatewayError::new(reason).never_sent()),
                }
            }
        };
        let limit = clock::now() + self.upstream.connector.timeout + wire::SETTINGS_WAIT;
        self.before(limit, Reason::ConnectionTimeout, shared)
            .await?
    }

    /// Waits until `limit`, or the end of the try if that is earlier.
    async fn before<T>(
        &self,
        limit: Instant,
        why: Reason,
        what: impl Future<Output = T>,
    ) -> Result<T, GatewayError> {
        let (limit, why) = self.due.filter(|due| due.0 < limit).unwrap_or((limit, why));
        let done = tokio::time::timeout_at(limit.into(), what).await;
        done.map_err(|late| GatewayError::caused(why, late).never_sent())
    }

    async fn wait(&self) -> Result<Lent, GatewayError> {
        let pool = &self.upstream.config.pool;
        let _place = self.upstream.caps.wait(pool.max_pending)?;
        let _waiting = self.pool.wait();
        // An idle connection that will not be used makes room for one that will.
        if !self.pools.evict(&self.upstream.name) {
            self.upstream.caps.ask_for_room();
        }
        let started = clock::now();
        let limit = started + pool.pending_timeout.value.0;
        // Whatever ends the wait, it was our own queue, and no endpoint is to blame.
        let limit = self.due.map_or(limit, |due| due.0.min(limit));
        let ticket = tokio::time::timeout_at(limit.into(), self.ticket()).await;
        self.pool.cells().pool_wait.observe(clock::now() - started);
        match ticket {
            Ok(Ok(Ticket::Lent(lent))) => Ok(lent),
            Ok(Ok(Ticket::Permit(permit))) => self.open(permit).await,
            Ok(Err(error)) => Err(error),
            Err(late) => Err(GatewayError::caused(Reason::ConnectionLimitReached, late)),
        }
    }

    async fn ticket(&self) -> Result<Ticket, GatewayError> {
        let permit = self.upstream.caps.open();
        tokio::pin!(permit);
        loop {
            tokio::select! {
                permit = &mut permit => return Ok(Ticket::Permit(permit?)),
                () = self.pool.returned.notified() => {}
            }
            if self.wanted.fresh {
                self.pool.evict();
            } else if let Some(lent) = self.take() {
                return Ok(Ticket::Lent(lent));
            }
        }
    }

    fn take(&self) -> Option<Lent> {
        let now = clock::now();
        if self.shares() {
            self.pool.share(now).map(Lent::H2)
        } else {
            self.pool.pop(now).map(Lent::H1)
        }
    }

    async fn open(&self, permit: Arc<Permit>) -> Result<Lent, GatewayError> {
        self.pool.cells().checkouts_new.inc();
        let connecting = Connecting::begin(self.pool, self.shares());
        let made = match self.due {
            Some((due, why)) => self.before(due, why, self.connect(permit)).await,
            None => Ok(self.connect(permit).await),
        };
        made.flatten()
            .inspect_err(|error| connecting.failed(error.reason()))
    }

    async fn connect(&self, permit: Arc<Permit>) -> Result<Lent, GatewayError> {
        let connector = match self.wanted.upgrade {
            true => &self.upstream.http1_connector,
            false => &self.upstream.connector,
        };
        let (io, h2) = connector.connect(self.endpoint, self.pool.cells()).await?;
        let (sender, task) = wire::speak(io, h2, Some(Arc::clone(&permit))).await?;
        let now = clock::now();
        let life = self.life(now);
        Ok(match sender {
            Sender::H1(sender) => Lent::H1(self.pool.lend_h1(sender, (task, permit), life)),
            Sender::H2(sender, allowed) => {
                let shared = (sender, allowed);
                Lent::H2(self.pool.lend_h2(shared, task, life, now))
            }
        })
    }

    fn life(&self, now: Instant) -> Life {
        let pool = &self.upstream.config.pool;
        let nth = self.pool.cells().checkouts_new.get();
        let jitter = 1.0 - Random::new(nth).unit() / 10.0;
        Life {
            idle_timeout: pool.idle_timeout.value.0.mul_f64(jitter),
            retire_at: now + pool.max_age.value.0.mul_f64(jitter),
        }
    }
}

enum Ticket {
    Permit(Arc<Permit>),
    Lent(Lent),
}
