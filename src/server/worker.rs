//! A worker's world: its view of the plan, its stacks, its pools.
//!
//! Everything here is used by one thread only, and shared among its tasks behind a worker-local
//! `Arc`; locks are never contended and never held across an await. The view follows the plan in
//! force: a request asks for it once and keeps it to its end. Stacks are made at a route's first
//! request, so that a large reload stalls no worker, and stay while the route stays.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foldhash::fast::FixedState;
use parking_lot::Mutex;

use super::values::Values;
use crate::chance::Chance;
use crate::clock;
use crate::middleware::compress::Encoders;
use crate::plan::listener::ListenerPlan;
use crate::plan::route::RoutePlan;
use crate::plan::stack::{self, Kit, Stack};
use crate::plan::{Plan, PlanCache, SharedPlan};
use crate::telemetry::access::AccessLog;
use crate::telemetry::handles::Metrics;
use crate::upstream::WorkerPools;

/// What one worker thread owns.
pub struct Worker {
    /// Its number, from 0: the block of cells it writes.
    pub index: usize,
    /// This worker's connections to upstreams.
    pub pools: Arc<WorkerPools>,
    /// All numbers.
    pub metrics: Arc<Metrics>,
    /// Its chance.
    pub chance: Arc<Chance>,
    /// Its encoders.
    pub encoders: Arc<Encoders>,
    pub(super) values: Values,
    kit: Kit,
    calendar: Calendar,
    sight: Mutex<Sight>,
}

/// The date, from the monotonic clock: a request asks for the time once.
#[derive(Debug)]
struct Calendar {
    start: Instant,
    /// Nanoseconds from 1970 to `start`, as of the last look.
    then: AtomicU64,
}

impl Calendar {
    fn new() -> Self {
        let calendar = Calendar {
            start: clock::now(),
            then: AtomicU64::new(0),
        };
        calendar.look(calendar.start);
        calendar
    }

    /// Sees that somebody has set the clock.
    fn look(&self, now: Instant) {
        let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let then = since.saturating_sub(now - self.start);
        let then = u64::try_from(then.as_nanos()).unwrap_or(u64::MAX);
        self.then.store(then, Relaxed);
    }

    fn date(&self, now: Instant) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.then.load(Relaxed)) + (now - self.start)
    }
}

/// The plan in force, and the view that follows it.
struct Sight {
    cache: PlanCache,
    view: Arc<View>,
}

/// The plan in force as one worker runs it.
pub struct View {
    /// The plan.
    pub plan: Arc<Plan>,
    stacks: Box<[OnceLock<Stack>]>,
    none: OnceLock<Stack>,
}

impl Worker {
    /// With what it lends to its stacks, over the plan that all share.
    pub fn new(kit: Kit, shared: SharedPlan) -> Self {
        let view = View::new(shared.load(), None);
        sees(&kit.metrics, kit.worker, &view.plan);
        Worker {
            index: kit.worker,
            pools: kit.pools.clone(),
            metrics: kit.metrics.clone(),
            chance: kit.chance.clone(),
            encoders: kit.encoders.clone(),
            values: Values::new(),
            kit,
            calendar: Calendar::new(),
            sight: Mutex::new(Sight {
                cache: PlanCache::new(&shared),
                view: Arc::new(view),
            }),
        }
    }

    /// The plan in force, with this worker's stacks.
    pub fn view(&self) -> Arc<View> {
        let sight = &mut *self.sight.lock();
        let plan = sight.cache.load();
        if !Arc::ptr_eq(plan, &sight.view.plan) {
            sight.view = Arc::new(View::new(plan.clone(), Some(&sight.view)));
            sees(&self.metrics, self.index, &sight.view.plan);
        }
        sight.view.clone()
    }

    /// This worker's stack of a route.
    pub fn stack<'v>(&self, view: &'v View, route: usize) -> &'v Stack {
        view.stacks[route].get_or_init(|| self.build(&view.plan.routes[route]))
    }

    /// This worker's stack for requests that no route takes.
    pub fn refusal<'v>(&self, view: &'v View) -> &'v Stack {
        view.none.get_or_init(|| self.build(&view.plan.none))
    }

    fn build(&self, route: &RoutePlan) -> Stack {
        stack::build(route, &self.kit)
    }

    /// The listener of this name in the plan in force; `None` when a reload has removed it.
    pub fn listener(&self, name: &str) -> Option<Arc<ListenerPlan>> {
        self.view().plan.listeners.get(name).cloned()
    }

    /// Looks at the plan in force, so that an idle worker does not hold an old one.
    pub fn tick(&self) {
        drop(self.view());
    }

    /// This worker's handle of the access log, if there is one.
    pub fn access(&self) -> Option<AccessLog> {
        self.kit.access.clone()
    }

    /// The date at `now`, as of about a second ago at most.
    pub fn date(&self, now: Instant) -> SystemTime {
        self.calendar.date(now)
    }

    /// Housekeeping, about once a second.
    pub fn every_second(&self, now: Instant) {
        self.calendar.look(now);
        let view = self.view();
        self.pools.housekeep(now, &view.plan.upstreams);
        self.pools.tell_leaving(&view.plan.upstreams);
        if let Some(access) = &self.kit.access {
            access.flush();
        }
    }
}

/// A worker goes by this plan from now on.
fn sees(metrics: &Metrics, worker: usize, plan: &Plan) {
    let generation = i64::try_from(plan.generation).unwrap_or(i64::MAX);
    metrics.worker.of(worker).config_generation.set(generation);
}

impl View {
    /// Of a plan, with the stacks of every route that is the same as in the view before.
    fn new(plan: Arc<Plan>, before: Option<&View>) -> Self {
        let kept: HashMap<*const RoutePlan, &OnceLock<Stack>, FixedState> = before
            .iter()
            .flat_map(|view| view.plan.routes.iter().zip(&view.stacks))
            .map(|(route, stack)| (Arc::as_ptr(route), stack))
            .collect();
        let stack = |route| {
            kept.get(&Arc::as_ptr(route))
                .map(|s| (*s).clone())
                .unwrap_or_default()
        };
        let stacks = plan.routes.iter().map(stack).collect();
        let none = before.filter(|view| Arc::ptr_eq(&view.plan.none, &plan.none));
        let none = none.map(|view| view.none.clone()).unwrap_or_default();
        View { plan, stacks, none }
    }
}
