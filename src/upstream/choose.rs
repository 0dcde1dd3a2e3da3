//! A worker's view of the endpoints, and the choice among them for each request.
//!
//! The view is rebuilt when the shared number of changes has moved, and once a second, since
//! ejections end and slow starts proceed by time alone. Between that a choice costs no look at
//! shared memory but that number, and touches only this worker's own `Arc`s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;
use http::header::COOKIE;

use super::Upstream;
use super::balance::{self, Picker, Random, Seen};
use super::config::BalanceConfig;
use super::endpoint::Endpoint;
use super::pool::{EndpointPool, WorkerPools};
use super::resolve::EndpointSet;
use crate::error::{GatewayError, Reason};
use crate::message::{Exchange, Request};

/// What a consistent hash is taken of.
#[derive(Debug)]
pub(super) enum HashKey {
    /// Endpoints are not chosen by hash.
    None,
    ClientIp,
    Header(HeaderName),
    Cookie(Box<str>),
}

impl HashKey {
    /// The hash for a request; `None` where it lacks the key.
    pub(super) fn of(&self, request: &Request, exchange: Option<&Arc<Exchange>>) -> Option<u64> {
        match self {
            HashKey::None => None,
            HashKey::ClientIp => exchange.map(|e| match e.client {
                std::net::IpAddr::V4(ip) => balance::hash(&ip.octets()),
                std::net::IpAddr::V6(ip) => balance::hash(&ip.octets()),
            }),
            HashKey::Header(name) => {
                let value = request.headers().get(name)?;
                Some(balance::hash(value.as_bytes()))
            }
            HashKey::Cookie(name) => cookie(request, name).map(balance::hash),
        }
    }
}

fn cookie<'a>(request: &'a Request, name: &str) -> Option<&'a [u8]> {
    let lines = request.headers().get_all(COOKIE).into_iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    let mut values = pairs.filter_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    });
    values.next()
}

/// An endpoint with this worker's connections to it.
pub(super) struct Slot {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) pool: Arc<EndpointPool>,
}

/// What one stack on one worker knows of an upstream's endpoints.
pub(super) struct View {
    generation: u64,
    good_until: Option<Instant>,
    set: Arc<EndpointSet>,
    slots: Vec<Arc<Slot>>,
    picker: Picker,
    random: Random,
}

/// For how long a view is good when nothing is known to have changed.
const GOOD_FOR: Duration = Duration::from_secs(1);

impl View {
    /// Knows nothing yet.
    pub(super) fn new(seed: u64) -> Self {
        View {
            generation: 0,
            good_until: None,
            set: Arc::default(),
            slots: Vec::new(),
            picker: Picker::default(),
            random: Random::new(seed),
        }
    }

    /// The endpoint for a request: by `hash` where there is one; none of `avoid` while there are
    /// others.
    pub(super) fn choose(
        &mut self,
        upstream: &Upstream,
        pools: &WorkerPools,
        hash: Option<u64>,
        avoid: &[SocketAddr],
        now: Instant,
    ) -> Result<Arc<Slot>, GatewayError> {
        self.refresh(upstream, pools, now);
        let first = match (hash, &self.set.ring) {
            (Some(hash), Some(ring)) => {
                let eligible = self.picker.indices();
                ring.walk(hash).find(|i| {
                    eligible.binary_search(i).is_ok()
                        && !avoid.contains(&self.slots[*i].endpoint.address)
                })
            }
            _ => None,
        };
        let index = first.or_else(|| self.pick(upstream, now));
        let Some(index) = index else {
            return Err(self.nowhere(upstream));
        };
        if !avoid.contains(&self.slots[index].endpoint.address) {
            return Ok(Arc::clone(&self.slots[index]));
        }
        let other = self.other(avoid, now).unwrap_or(index);
        Ok(Arc::clone(&self.slots[other]))
    }

    fn pick(&mut self, upstream: &Upstream, now: Instant) -> Option<usize> {
        if upstream.config.balance.value == BalanceConfig::RoundRobin {
            return self.picker.in_turn();
        }
        let slots = &self.slots;
        self.picker
            .p2c(&mut self.random, |i| slots[i].pool.load(now))
    }

    /// One that was not tried: among the eligible ones, else any usable one.
    fn other(&mut self, avoid: &[SocketAddr], now: Instant) -> Option<usize> {
        let slots = &self.slots;
        let untried = |i: usize| !avoid.contains(&slots[i].endpoint.address);
        let eligible = self.picker.another(&mut self.random, untried);
        eligible.or_else(|| {
            (0..slots.len()).find(|i| untried(*i) && slots[*i].endpoint.standing.is_usable(now))
        })
    }

    fn nowhere(&self, upstream: &Upstream) -> GatewayError {
        if self.slots.is_empty() && upstream.live.has_names() {
            Reason::DnsError.into()
        } else {
            Reason::NoEndpoint.into()
        }
    }

    fn refresh(&mut self, upstream: &Upstream, pools: &WorkerPools, now: Instant) {
        let generation = upstream.live.generation();
        let changed = generation != self.generation;
        if !changed && self.good_until.is_some_and(|until| now < until) {
            return;
        }
        if changed {
            self.generation = generation;
            let set = upstream.live.set();
            if !Arc::ptr_eq(&set, &self.set) {
                self.slots = set
                    .endpoints
                    .iter()
                    .map(|endpoint| {
                        Arc::new(Slot {
                            endpoint: Arc::clone(endpoint),
                            pool: pools.pool(upstream, endpoint),
                        })
                    })
                    .collect();
                self.set = set;
            }
        }
        let seen = seen(upstream, &self.set, now);
        let eligible = balance::eligible(&seen, upstream.config.panic_threshold.value);
        self.picker = Picker::new(eligible, &seen, &mut self.random);
        self.good_until = Some(now + GOOD_FOR);
    }
}

/// How the endpoints of a set stand at `now`.
pub(super) fn seen(upstream: &Upstream, set: &EndpointSet, now: Instant) -> Vec<Seen> {
    let slow_start = upstream.config.slow_start.map(|t| t.0);
    set.endpoints
        .iter()
        .map(|endpoint| Seen {
            usable: endpoint.standing.is_usable(now),
            priority: endpoint.priority,
            near: endpoint.near,
            weight: f64::from(endpoint.weight) * endpoint.standing.share(now, slow_start),
        })
        .collect()
}
