//! A worker's view of the endpoints, and the choice among them for each request.
//!
//! The view is rebuilt when the shared number of changes has moved, and once a second, since
//! ejections end and slow starts proceed by time alone. Between that a choice costs no look at
//! shared memory but that number, and touches only this worker's own `Arc`s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;

use super::Upstream;
use super::admit::{self, Wish};
use super::balance::{self, Eligible, Picker, Random, Seen};
use super::breaker::{State, Ticket};
use super::config::BalanceConfig;
use super::endpoint::Endpoint;
use super::pool::{EndpointPool, WorkerPools};
use super::resolve::EndpointSet;
use crate::error::{GatewayError, Reason};
use crate::message::{Exchange, Request, key};

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
            HashKey::Cookie(name) => key::cookie(request, name).map(balance::hash),
        }
    }
}

/// An endpoint with this worker's connections to it.
pub(super) struct Slot {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) pool: Arc<EndpointPool>,
}

/// What one worker knows of an upstream's endpoints, for all its stacks.
pub(super) struct View {
    generation: u64,
    good_until: Option<Instant>,
    set: Arc<EndpointSet>,
    slots: Vec<Arc<Slot>>,
    picker: Picker,
    /// Endpoints whose breakers were not closed when the view was made.
    barred: Vec<usize>,
    /// Those of them that would be asked but for that.
    on_trial: Vec<usize>,
    /// Endpoints that were not usable when the view was made.
    out: Vec<usize>,
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
            barred: Vec::new(),
            out: Vec::new(),
            on_trial: Vec::new(),
            random: Random::new(seed),
        }
    }

    /// The endpoint for a request, and its breaker's ticket: by hash where there is one; none of
    /// those to avoid while there are others. One that is on trial comes first while it has a
    /// place, and is not asked beyond that.
    pub(super) fn choose(
        &mut self,
        upstream: &Upstream,
        pools: &WorkerPools,
        wish: &Wish<'_>,
        now: Instant,
    ) -> Result<(Arc<Slot>, Option<Ticket>), GatewayError> {
        self.refresh(upstream, pools, now);
        if let Some(probe) = self.probe(upstream, wish, now) {
            return Ok(probe);
        }
        let Some(index) = self.prefer(upstream, wish, now) else {
            return Err(self.nowhere(upstream, wish, now));
        };
        let slot = &self.slots[index];
        match upstream.admit_to(&slot.endpoint, wish, now) {
            Ok(ticket) => Ok((Arc::clone(slot), ticket)),
            Err(left) => self.instead(upstream, wish, left, now),
        }
    }

    fn prefer(&mut self, upstream: &Upstream, wish: &Wish<'_>, now: Instant) -> Option<usize> {
        let avoid = wish.avoid;
        let first = match (wish.hash, &self.set.ring) {
            (Some(hash), Some(ring)) => {
                let eligible = self.picker.indices();
                ring.walk(hash).find(|i| {
                    eligible.binary_search(i).is_ok()
                        && !avoid.contains(&self.slots[*i].endpoint.address)
                })
            }
            _ => None,
        };
        let index = first.or_else(|| self.pick(upstream, now))?;
        if !avoid.contains(&self.slots[index].endpoint.address) {
            return Some(index);
        }
        Some(self.other(upstream, avoid, now).unwrap_or(index))
    }

    /// A place on one that is on trial: nothing else would find out whether it is well.
    fn probe(
        &self,
        upstream: &Upstream,
        wish: &Wish<'_>,
        now: Instant,
    ) -> Option<(Arc<Slot>, Option<Ticket>)> {
        let slots = self.on_trial.iter().map(|i| &self.slots[*i]);
        let mut slots = slots.filter(|s| !wish.avoid.contains(&s.endpoint.address));
        slots.find_map(|slot| {
            let breaker = slot.endpoint.breaker.as_ref()?;
            // It may have closed since: then it is one of many.
            if breaker.state(now) != State::HalfOpen {
                return None;
            }
            let ticket = upstream.admit_to(&slot.endpoint, wish, now).ok()?;
            Some((Arc::clone(slot), ticket))
        })
    }

    /// The one that was picked has opened since the view was made: any other, first those that were
    /// not tried.
    fn instead(
        &mut self,
        upstream: &Upstream,
        wish: &Wish<'_>,
        left: Duration,
        now: Instant,
    ) -> Result<(Arc<Slot>, Option<Ticket>), GatewayError> {
        let mut others: Vec<usize> = self.picker.turned(&mut self.random).collect();
        others.sort_by_key(|i| wish.avoid.contains(&self.slots[*i].endpoint.address));
        let mut soonest = left;
        for slot in others.into_iter().map(|i| &self.slots[i]) {
            match upstream.admit_to(&slot.endpoint, wish, now) {
                Ok(ticket) => return Ok((Arc::clone(slot), ticket)),
                Err(left) => soonest = soonest.min(left),
            }
        }
        Err(admit::refusal(soonest, upstream.metrics.of(wish.worker)))
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
    fn other(&mut self, upstream: &Upstream, avoid: &[SocketAddr], now: Instant) -> Option<usize> {
        let slots = &self.slots;
        let untried = |i: usize| !avoid.contains(&slots[i].endpoint.address);
        let eligible = self.picker.another(&mut self.random, untried);
        eligible.or_else(|| {
            let usable = |i: usize| stand(upstream, &slots[i].endpoint, now).usable;
            (0..slots.len()).find(|i| untried(*i) && usable(*i))
        })
    }

    fn nowhere(&self, upstream: &Upstream, wish: &Wish<'_>, now: Instant) -> GatewayError {
        let barred = self
            .slots
            .iter()
            .filter_map(|s| bar(upstream, &s.endpoint, now));
        if let Some(soonest) = barred.min() {
            return admit::refusal(soonest, upstream.metrics.of(wish.worker));
        }
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
                self.barred.clear();
                self.out.clear();
            }
        }
        let seen = seen(upstream, &self.set, now);
        let eligible = balance::eligible(&seen, upstream.config.panic_threshold.value);
        self.forgive_who_is_back(&seen);
        let good_for = self.look_at_breakers(upstream, &seen, &eligible, now);
        self.picker = Picker::new(eligible, &seen, &mut self.random);
        self.good_until = Some(now + good_for);
    }

    /// An endpoint that is used again begins without its past: how slow it was while it failed would
    /// keep traffic from it for minutes.
    fn forgive_who_is_back(&mut self, seen: &[Seen]) {
        let back = self.out.iter().filter(|i| seen[**i].usable);
        back.for_each(|i| self.slots[*i].pool.forgive());
        self.out = (0..seen.len()).filter(|i| !seen[*i].usable).collect();
    }

    /// Notes which endpoints have open breakers, and which of them would be asked but for that. Gives
    /// for how long that is good: an opening that ends earlier is seen when it does.
    fn look_at_breakers(
        &mut self,
        upstream: &Upstream,
        seen: &[Seen],
        eligible: &Eligible,
        now: Instant,
    ) -> Duration {
        if upstream.endpoint_rule.is_none() {
            return GOOD_FOR;
        }
        self.barred = (0..seen.len()).filter(|i| seen[*i].barred).collect();
        let in_use = eligible.indices.first().map(|i| &seen[*i]);
        let would = |i: &usize| {
            let slot = &self.slots[*i];
            in_use.is_none_or(|other| {
                let nearer = seen[*i].near || !other.near;
                let before = seen[*i].priority < other.priority;
                let beside = seen[*i].priority == other.priority && nearer;
                (before || beside) && slot.endpoint.standing.is_usable(now)
            })
        };
        self.on_trial = self.barred.iter().copied().filter(would).collect();
        let slots = self.barred.iter().map(|i| &self.slots[*i]);
        let ends = slots.filter_map(|s| bar(upstream, &s.endpoint, now));
        ends.min().map_or(GOOD_FOR, |end| end.min(GOOD_FOR))
    }
}

/// How the endpoints of a set stand at `now`.
pub(super) fn seen(upstream: &Upstream, set: &EndpointSet, now: Instant) -> Vec<Seen> {
    set.endpoints
        .iter()
        .map(|endpoint| stand(upstream, endpoint, now))
        .collect()
}

/// How an endpoint stands at `now`, its breaker included.
pub(super) fn stand(upstream: &Upstream, endpoint: &Endpoint, now: Instant) -> Seen {
    let slow_start = upstream.config.slow_start.map(|t| t.0);
    let barred = bar(upstream, endpoint, now).is_some();
    Seen {
        usable: endpoint.standing.is_usable(now) && !barred,
        barred,
        priority: endpoint.priority,
        near: endpoint.near,
        weight: f64::from(endpoint.weight) * endpoint.standing.share(now, slow_start),
    }
}

/// For how long the breaker of an endpoint keeps the many from it.
pub(super) fn bar(upstream: &Upstream, endpoint: &Endpoint, now: Instant) -> Option<Duration> {
    let rule = upstream.endpoint_rule.as_ref().filter(|r| !r.observes)?;
    endpoint.breaker.as_ref()?.refuses(rule, now)
}
