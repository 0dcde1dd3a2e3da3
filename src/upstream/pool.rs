//! This worker's connections, and its own view of how busy each endpoint is.
//!
//! A pool is keyed by everything that makes connections unequal: the upstream, the address, and
//! a hash of protocol and TLS settings with the content of their files. So a pool survives a
//! reload that changes none of these, and a connection never serves another identity. HTTP/1
//! connections are lent out one by one, last in, first out; HTTP/2 ones are shared up to the
//! streams the other side allows. No lock is held across an await, and none is contended: only
//! this worker takes them.

mod give;
mod housekeep;
mod leaving;
mod lent;
mod opening;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Upstream;
use super::balance::Load;
use super::caps::{Caps, Permit};
use super::endpoint::Endpoint;
use super::latency::Latency;
use super::views::Views;
use super::wire::SenderH1;
use crate::message::Body;
use crate::telemetry::handles::{PoolClose, UpstreamCells, UpstreamMetrics};
use give::Givers;
use lent::Line;
pub(super) use lent::{InFlight, Keep, LentH1, LentH2, Waiting};
pub(super) use opening::Connecting;
use opening::Openings;

/// This worker's connections to every upstream.
pub struct WorkerPools {
    /// The worker.
    pub worker: usize,
    pools: Arc<Pools>,
    givers: Givers,
    /// What its stacks see of each upstream's endpoints.
    pub(super) views: Views,
}

type Pools = Mutex<HashMap<Key, Arc<EndpointPool>, foldhash::fast::RandomState>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    upstream: Arc<str>,
    address: SocketAddr,
    identity: u64,
}

impl WorkerPools {
    /// Empty, for this worker.
    pub fn new(worker: usize) -> Self {
        WorkerPools {
            worker,
            pools: Arc::default(),
            givers: Givers::default(),
            views: Views::default(),
        }
    }

    /// The pool of an endpoint, made at its first use. One that was there under an upstream of
    /// this name that has gone since is left to those who still hold it.
    pub(super) fn pool(&self, upstream: &Upstream, endpoint: &Endpoint) -> Arc<EndpointPool> {
        let key = Key {
            upstream: Arc::clone(&upstream.name),
            address: endpoint.address,
            identity: upstream.identity_of(endpoint),
        };
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(&key).filter(|pool| pool.is_of(upstream)) {
            return Arc::clone(pool);
        }
        let (metrics, caps) = (Arc::clone(&upstream.metrics), Arc::clone(&upstream.caps));
        self.givers.begin(&upstream.name, &caps, &self.pools);
        let pool = Arc::new(EndpointPool::new(self.worker, metrics, caps));
        pools.insert(key, Arc::clone(&pool));
        pool
    }

    /// Closes one idle connection of an upstream to make room for another; `false` if it has none.
    pub(super) fn evict(&self, upstream: &str) -> bool {
        evict(&self.pools, upstream)
    }

    /// Closes every connection that serves no request.
    pub fn close_idle(&self) {
        for pool in self.pools.lock().values() {
            pool.close_idle(PoolClose::Drain);
        }
    }
}

fn has_idle(pools: &Pools, upstream: &str) -> bool {
    let pools = pools.lock();
    let mut of_it = pools.iter().filter(|(key, _)| *key.upstream == *upstream);
    of_it.any(|(_, pool)| pool.has_idle())
}

fn evict(pools: &Pools, upstream: &str) -> bool {
    let pools = pools.lock();
    let mut of_it = pools.iter().filter(|(key, _)| *key.upstream == *upstream);
    of_it.any(|(_, pool)| pool.evict())
}

/// One endpoint's connections on one worker.
pub(super) struct EndpointPool {
    worker: usize,
    metrics: Arc<UpstreamMetrics>,
    connections: Mutex<Connections>,
    /// One is told when a connection comes back.
    pub(super) returned: Notify,
    openings: Openings,
    caps: Arc<Caps>,
    waiting: AtomicU32,
    /// The last connection spoke HTTP/2.
    pub(super) speaks_h2: AtomicBool,
    in_flight: AtomicU32,
    latency: Mutex<Latency>,
    /// Connections that came back while requests waited here and elsewhere.
    returns: AtomicU32,
    /// It was in no upstream any more when last looked at.
    left: AtomicBool,
}

/// One in so many connections that come back goes to whoever has waited longest on any worker, so
/// that no worker keeps all of them to itself.
const SHARED_RETURN: u32 = 4;

/// How long connections above `max_idle` stay after their last use.
const BURST: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Connections {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
}

struct Idle {
    line: Box<Line>,
    since: Instant,
}

/// How long a connection is kept, with its own jitter, so that they do not end together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// Idle for this long, it is closed.
    pub(super) idle_timeout: Duration,
    /// It serves no new request from then on.
    pub(super) retire_at: Instant,
}

struct Shared {
    sender: http2::SendRequest<Body>,
    task: AbortHandle,
    streams: Arc<AtomicU32>,
    allowed: Arc<AtomicU32>,
    last_used: Instant,
    life: Life,
}

impl EndpointPool {
    fn new(worker: usize, metrics: Arc<UpstreamMetrics>, caps: Arc<Caps>) -> Self {
        EndpointPool {
            returns: AtomicU32::new(0),
            left: AtomicBool::new(false),
            worker,
            metrics,
            connections: Mutex::default(),
            returned: Notify::new(),
            openings: Openings::default(),
            caps,
            waiting: AtomicU32::new(0),
            speaks_h2: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            latency: Mutex::default(),
        }
    }

    fn is_of(&self, upstream: &Upstream) -> bool {
        Arc::ptr_eq(&self.caps, &upstream.caps) && Arc::ptr_eq(&self.metrics, &upstream.metrics)
    }

    /// This worker's numbers of the upstream.
    pub(super) fn cells(&self) -> &UpstreamCells {
        self.metrics.of(self.worker)
    }

    fn closed(&self, why: PoolClose) {
        self.cells().pool_closes[why as usize].inc();
    }

    /// How busy it is.
    pub(super) fn load(&self, now: Instant) -> Load {
        Load {
            in_flight: self.in_flight.load(Relaxed),
            latency: self.latency.lock().at(now),
        }
    }

    /// Counts an answer, or a failure, into the latency.
    pub(super) fn observe(&self, took: Duration, failed: bool, now: Instant) {
        self.latency.lock().observe(took, failed, now);
    }

    /// Forgets its latency: what it was while it failed says nothing of it now.
    pub(super) fn forgive(&self) {
        *self.latency.lock() = Latency::default();
    }

    /// Counts a request as under way until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight
            .store(self.in_flight.load(Relaxed) + 1, Relaxed);
        self.cells().in_flight.inc();
        InFlight(Arc::clone(self))
    }

    /// Marks one request as waiting for a connection here.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Relaxed);
        self.cells().pool_waiting.inc();
        Waiting(self)
    }

    /// The idle connection used last, if there is one that is still good.
    pub(super) fn pop(self: &Arc<Self>, now: Instant) -> Option<LentH1> {
        self.pop_used_within(Duration::MAX, now)
    }

    /// As [`EndpointPool::pop`], if it was used so lately that it need not be looked at.
    pub(super) fn pop_used_within(
        self: &Arc<Self>,
        time: Duration,
        now: Instant,
    ) -> Option<LentH1> {
        let mut connections = self.connections.lock();
        let lately = |idle: &mut Idle| now.saturating_duration_since(idle.since) <= time;
        while let Some(idle) = connections.idle.pop_if(lately) {
            self.cells().pool_idle.dec();
            match idle.spent(now) {
                None => {
                    let Idle { line, since } = idle;
                    return Some(LentH1::new(line, Some(since), Arc::clone(self)));
                }
                Some(why) => {
                    self.closed(why);
                    idle.line.task.abort();
                }
            }
        }
        None
    }

    /// A place on a shared connection that has one.
    pub(super) fn share(self: &Arc<Self>, now: Instant) -> Option<LentH2> {
        let mut connections = self.connections.lock();
        connections.shared.retain(|shared| {
            let good = !shared.sender.is_closed();
            if !good {
                self.cells().pool_idle.dec();
                self.closed(PoolClose::Peer);
            }
            good
        });
        let shared = connections.shared.iter_mut().find(|s| s.has_place(now))?;
        shared.last_used = now;
        Some(LentH2::new(shared, Arc::clone(self)))
    }

    /// Lends out a new HTTP/1 connection.
    pub(super) fn lend_h1(
        self: &Arc<Self>,
        sender: SenderH1,
        (task, permit): (AbortHandle, Arc<Permit>),
        life: Life,
    ) -> LentH1 {
        self.speaks_h2.store(false, Relaxed);
        let line = Line::new(sender, task, permit, life);
        LentH1::new(line, None, Arc::clone(self))
    }

    /// Puts a new HTTP/2 connection up for sharing and takes its first place.
    pub(super) fn lend_h2(
        self: &Arc<Self>,
        (sender, allowed): (http2::SendRequest<Body>, Arc<AtomicU32>),
        task: AbortHandle,
        life: Life,
        now: Instant,
    ) -> LentH2 {
        self.speaks_h2.store(true, Relaxed);
        let shared = Shared {
            sender,
            task,
            streams: Arc::default(),
            allowed,
            last_used: now,
            life,
        };
        self.cells().pool_idle.inc();
        let lent = LentH2::new(&shared, Arc::clone(self));
        self.connections.lock().shared.push(shared);
        lent
    }

    /// It has a connection that could be closed for another.
    fn has_idle(&self) -> bool {
        let connections = self.connections.lock();
        let unused = |s: &Shared| s.streams.load(Relaxed) == 0;
        !connections.idle.is_empty() || connections.shared.iter().any(unused)
    }

    /// Closes one idle connection to make room for another; `false` if there was none.
    pub(super) fn evict(&self) -> bool {
        let mut connections = self.connections.lock();
        let task = if connections.idle.is_empty() {
            let unused = |s: &Shared| s.streams.load(Relaxed) == 0;
            let Some(at) = connections.shared.iter().position(unused) else {
                return false;
            };
            connections.shared.swap_remove(at).task
        } else {
            connections.idle.remove(0).line.task
        };
        task.abort();
        self.cells().pool_idle.dec();
        self.closed(PoolClose::Cap);
        true
    }

    fn keep(&self, idle: Idle, keep: Keep) {
        let mut connections = self.connections.lock();
        let here = self.waiting.load(Relaxed);
        // Since the answer began, others may have come.
        let awaited = keep.awaited.max(self.caps.waiting());
        let waited_for = here > 0 && !(awaited > here && self.is_shared_return());
        // More than `max_idle` stay until `shrink` finds that the burst is over: a client with many
        // streams would otherwise have half of them connect anew.
        let room = keep.max_idle > 0 && awaited == 0;
        if (waited_for || room) && self.caps.owed() == 0 {
            connections.idle.push(idle);
            self.cells().pool_idle.inc();
            self.returned.notify_one();
        } else {
            idle.line.task.abort();
            self.closed(PoolClose::Cap);
        }
    }

    /// Closes those above `max_idle` that nothing has used for a while, the oldest first.
    fn shrink(&self, max_idle: usize, now: Instant) {
        let mut connections = self.connections.lock();
        let over = connections.idle.len().saturating_sub(max_idle);
        let unused = |idle: &&Idle| now.saturating_duration_since(idle.since) >= BURST;
        // They come back in order: the first have waited longest.
        let closed = connections.idle.iter().take(over).take_while(unused);
        let closed = closed.count();
        for idle in connections.idle.drain(..closed) {
            idle.line.task.abort();
            self.cells().pool_idle.dec();
            self.closed(PoolClose::Cap);
        }
    }

    fn is_shared_return(&self) -> bool {
        let nth = self.returns.load(Relaxed).wrapping_add(1);
        self.returns.store(nth, Relaxed);
        nth.is_multiple_of(SHARED_RETURN)
    }

    fn expire(&self, now: Instant) {
        let mut connections = self.connections.lock();
        connections.idle.retain(|idle| match idle.spent(now) {
            None => true,
            Some(why) => {
                idle.line.task.abort();
                self.cells().pool_idle.dec();
                self.closed(why);
                false
            }
        });
        connections.shared.retain(|shared| match shared.spent(now) {
            None => true,
            Some(why) => {
                shared.task.abort();
                self.cells().pool_idle.dec();
                self.closed(why);
                false
            }
        });
    }

    fn close_idle(&self, why: PoolClose) {
        let mut connections = self.connections.lock();
        for idle in connections.idle.drain(..) {
            idle.line.task.abort();
            self.cells().pool_idle.dec();
            self.closed(why);
        }
        connections.shared.retain(|shared| {
            let busy = shared.streams.load(Relaxed) > 0;
            if !busy {
                shared.task.abort();
                self.cells().pool_idle.dec();
                self.closed(why);
            }
            busy
        });
    }

    fn is_empty(&self) -> bool {
        let connections = self.connections.lock();
        connections.idle.is_empty() && connections.shared.is_empty()
    }
}

impl Drop for EndpointPool {
    fn drop(&mut self) {
        self.close_idle(PoolClose::Drain);
    }
}

impl Idle {
    /// Why it is not to be used any more, if so.
    fn spent(&self, now: Instant) -> Option<PoolClose> {
        if self.line.sender.is_closed() || !self.line.sender.is_ready() {
            Some(PoolClose::Peer)
        } else if now >= self.line.life.retire_at {
            Some(PoolClose::Age)
        } else if now >= self.since + self.line.life.idle_timeout {
            Some(PoolClose::Idle)
        } else {
            None
        }
    }
}

impl Shared {
    fn has_place(&self, now: Instant) -> bool {
        let streams = self.streams.load(Relaxed);
        now < self.life.retire_at && self.sender.is_ready() && streams < self.allowed.load(Relaxed)
    }

    fn spent(&self, now: Instant) -> Option<PoolClose> {
        if self.sender.is_closed() {
            Some(PoolClose::Peer)
        } else if self.streams.load(Relaxed) > 0 {
            None
        } else if now >= self.life.retire_at {
            Some(PoolClose::Age)
        } else if now >= self.last_used + self.life.idle_timeout {
            Some(PoolClose::Idle)
        } else {
            None
        }
    }
}
