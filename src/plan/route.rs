//! A route as run: what applies to a request that it takes, compiled.
//!
//! Shared by all workers and immutable; each worker makes a stack of its own from it (`stack`). A
//! route whose section, inherited defaults, files and upstreams are the same as before keeps its
//! very pointer over a reload, and with it every worker's stack.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{DefaultsConfig, Loaded, RouteConfig};
use crate::gate::caps::Caps;
use crate::message::fixed::FixedConfig;
use crate::middleware::cache::{RouteCache, Store};
use crate::middleware::compress::Compression;
use crate::middleware::fallback::{FallbackConfig, Ladder};
use crate::middleware::headers::{HeadersConfig, HeadersLayer};
use crate::middleware::rate_limit::{Limit, LimitConfig, RateLimitHeaders};
use crate::middleware::redirect::Redirect;
use crate::middleware::respond::Respond;
use crate::middleware::rewrite::RewriteLayer;
use crate::pressure::config::Priority;
use crate::problem::{Located, Problem, Problems};
use crate::switch::Mode;
use crate::telemetry::handles::{Metrics, RouteMetrics};
use crate::units::Time;
use crate::upstream::Upstream;

use super::pattern::Pattern;

/// A route's `timeout` where neither it nor the defaults say.
const TIMEOUT: Time = Time::secs(30);

/// What applies to the requests of one route.
pub struct RoutePlan {
    /// Its name in the config.
    pub id: Arc<str>,
    /// Our name, in answers and Via.
    pub identity: Arc<str>,
    /// Its numbers.
    pub metrics: Arc<RouteMetrics>,
    /// Last byte of the request to response headers.
    pub timeout: Duration,
    /// The largest request body, in bytes.
    pub max_body: Option<u64>,
    /// How often clients may come.
    pub limits: Vec<Arc<Limit>>,
    /// How they are told of it.
    pub limit_headers: RateLimitHeaders,
    /// Edits of fields.
    pub headers: Option<HeadersLayer>,
    /// Changes of path and host.
    pub rewrite: Option<RewriteLayer>,
    /// Protocols a connection may be upgraded to, lower case.
    pub upgrade: Vec<String>,
    /// Who is shed last; `None`: nothing is ever shed here.
    pub shed: Option<(Priority, Mode)>,
    /// How much may be in flight.
    pub concurrency: Option<Caps>,
    /// How answers are encoded.
    pub compress: Option<Compression>,
    /// Stored answers.
    pub cache: Option<RouteCache>,
    /// Lesser answers.
    pub ladder: Option<Ladder<Arc<Upstream>>>,
    /// Who answers.
    pub action: Action,
    /// The section with what it inherits, to tell whether a reload changes it.
    config: Option<RouteConfig>,
}

/// Who answers.
pub enum Action {
    /// Weir, always the same.
    Respond(Respond),
    /// Somebody else, the client is told.
    Redirect(Redirect),
    /// Upstreams, each with its weight.
    Forward(Vec<(u32, Arc<Upstream>)>),
    /// Nobody: the route of requests that no route takes.
    Refuse,
}

/// What a route is compiled with.
pub struct Context<'a> {
    /// The config and its files.
    pub loaded: &'a Loaded,
    /// Our name.
    pub identity: &'a Arc<str>,
    /// Whether there is shedding, and whether it acts.
    pub shed: Option<Mode>,
    /// The upstreams of the new plan.
    pub upstream: &'a dyn Fn(&str) -> Option<Arc<Upstream>>,
    /// The numbers of routes and limits, by name.
    pub metrics: &'a Metrics,
    /// A limit of the plan before, by name.
    pub limit: &'a dyn Fn(&str) -> Option<&'a Arc<Limit>>,
    /// What routes with a cache store.
    pub store: Option<&'a Arc<Store>>,
}

impl RoutePlan {
    /// Compiles one section, with what the route of this name in the plan in force counts. Pushes
    /// every problem; `None` if there was any.
    pub fn compile(
        config: &RouteConfig,
        context: &Context<'_>,
        previous: Option<&RoutePlan>,
        problems: &mut Problems,
    ) -> Option<RoutePlan> {
        let before = problems.len();
        let config = inherit(config, &context.loaded.config.defaults);
        let files = &context.loaded.files;
        let headers = config.headers.as_ref().map(|h| h.layer(files, problems));
        let rewrite = config.rewrite.as_ref().map(|r| r.value.layer(problems));
        let limits = limits(&config, context, problems);
        let priority = config
            .priority
            .as_ref()
            .map_or(Priority::default(), |p| p.value);
        let shed = context.shed.map(|mode| (priority, mode));
        let concurrency = config.concurrency.as_ref().map(|section| {
            let previous = previous.and_then(|route| route.concurrency.as_ref());
            Caps::compile(&config.id.value, section.caps(), previous, problems)
        });
        let compress = config.compress.as_ref().and_then(|c| c.value.on());
        let compress = compress.map(|section| section.compile(problems));
        let cache = cache(&config, context, problems);
        let ladder = ladder(&config, context, problems);
        let action = Action::compile(&config, context, problems);
        let upgrade = config
            .upgrade
            .iter()
            .filter_map(|p| protocol(p, problems))
            .collect();
        if problems.len() > before {
            return None;
        }
        Some(RoutePlan {
            id: config.id.value.as_str().into(),
            identity: context.identity.clone(),
            metrics: context.metrics.route(&config.id.value),
            timeout: config.timeout.as_ref().map_or(TIMEOUT, |t| t.value).0,
            max_body: config.max_body.map(|size| size.0),
            limits,
            limit_headers: context.loaded.config.server.rate_limit_headers,
            headers,
            rewrite,
            upgrade,
            shed,
            concurrency,
            compress,
            cache,
            ladder,
            action: action?,
            config: Some(config),
        })
    }

    /// The route of requests that no route takes.
    pub fn none(identity: &Arc<str>, metrics: Arc<RouteMetrics>) -> RoutePlan {
        RoutePlan {
            id: "_none".into(),
            identity: identity.clone(),
            metrics,
            timeout: TIMEOUT.0,
            max_body: None,
            limits: Vec::new(),
            limit_headers: RateLimitHeaders::Off,
            headers: None,
            rewrite: None,
            upgrade: Vec::new(),
            shed: None,
            concurrency: None,
            compress: None,
            cache: None,
            ladder: None,
            action: Action::Refuse,
            config: None,
        }
    }

    /// What it shares with the route of this name in the plan before follows its own section from
    /// now on. For the moment after its plan has been swapped in.
    pub fn put_in_force(&self) {
        if let Some(caps) = &self.concurrency {
            caps.put_in_force();
        }
    }

    /// Whether this does the same as `other`, so that `other` may go on in its place.
    pub fn same_as(&self, other: &RoutePlan, files_changed: bool) -> bool {
        let names_files = self.config.as_ref().is_some_and(|config| {
            let fixed = config.respond.iter().flat_map(FixedConfig::files);
            let headers = config.headers.iter().flat_map(HeadersConfig::files);
            let steps = config.steps().flat_map(FallbackConfig::file);
            fixed.chain(headers).chain(steps).next().is_some()
        });
        self.config == other.config
            && self.identity == other.identity
            && self.limit_headers == other.limit_headers
            && self.shed == other.shed
            && !(files_changed && names_files)
            && self.action.same_upstreams(&other.action)
            && self.same_others(other)
            && self.same_store(other)
    }

    /// The upstreams it forwards to, each with its weight; none for an answer of our own.
    pub fn shares(&self) -> &[(u32, Arc<Upstream>)] {
        match &self.action {
            Action::Forward(shares) => shares,
            Action::Respond(_) | Action::Redirect(_) | Action::Refuse => &[],
        }
    }

    /// They store in the same place.
    fn same_store(&self, other: &RoutePlan) -> bool {
        let store = |route: &RoutePlan| route.cache.as_ref().map(|cache| Arc::as_ptr(&cache.store));
        store(self) == store(other)
    }

    /// The ladders lead to the same upstreams.
    fn same_others(&self, other: &RoutePlan) -> bool {
        fn others(route: &RoutePlan) -> impl Iterator<Item = *const Upstream> {
            let ladder = route.ladder.iter();
            ladder.flat_map(Ladder::upstreams).map(Arc::as_ptr)
        }
        others(self).eq(others(other))
    }
}

fn cache(
    config: &RouteConfig,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<RouteCache> {
    let section = config.caches(&context.loaded.config.defaults)?;
    let steps = config.steps().filter_map(|step| step.stale.as_ref());
    let longest = steps.map(|limit| limit.value.0).max().unwrap_or_default();
    let plan = section
        .value
        .on()?
        .compile(&config.id.value, longest, problems)?;
    Some(RouteCache {
        plan: Arc::new(plan),
        store: context.store?.clone(),
    })
}

fn ladder(
    config: &RouteConfig,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<Ladder<Arc<Upstream>>> {
    let upstream = |name: &Located<String>| (context.upstream)(&name.value);
    let (steps, files) = (config.fallback.as_ref()?, &context.loaded.files);
    let stores = config.caches(&context.loaded.config.defaults).is_some();
    Ladder::compile(steps, stores, upstream, files, problems)
}

/// The section with what it inherits filled in.
fn inherit(route: &RouteConfig, defaults: &DefaultsConfig) -> RouteConfig {
    let mut route = route.clone();
    route.timeout = route.timeout.or_else(|| defaults.timeout.clone());
    route.max_body = route.max_body.or(defaults.max_body);
    route.headers = route.headers.or_else(|| defaults.headers.clone());
    route.priority = route.priority.or_else(|| defaults.priority.clone());
    let concurrency = defaults.concurrency.as_ref();
    route.concurrency = route.concurrency.or_else(|| concurrency.cloned());
    route.compress = route.compress.or_else(|| defaults.compress.clone());
    route.cache = route.cache.or_else(|| defaults.cache.clone());
    route
}

/// The route's limits, each with what it takes over from the limit of its name.
fn limits(config: &RouteConfig, context: &Context<'_>, problems: &mut Problems) -> Vec<Arc<Limit>> {
    let limits = config.rate_limit.0.iter().enumerate();
    let compile = |(position, limit): (usize, &LimitConfig)| {
        let name = limit.name(&config.id.value, position);
        let numbers = context.metrics.limiter(&name);
        Limit::compile(&name, limit, (context.limit)(&name), numbers, problems)
    };
    limits.filter_map(compile).collect()
}

/// A protocol name (RFC 9110 7.8), lower case. `h2c` is no upgrade that a proxy may pass on.
fn protocol(name: &Located<String>, problems: &mut Problems) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&b);
    let lower = name.value.to_ascii_lowercase();
    if lower.is_empty() || !lower.bytes().all(token) || lower == "h2c" || lower.starts_with("http")
    {
        let problem = Problem::at(
            &name.span,
            format!("\"{}\" is no protocol to upgrade to", name.value),
        );
        problems.push(problem.help("such as \"websocket\""));
        return None;
    }
    Some(lower)
}

impl Action {
    fn compile(
        config: &RouteConfig,
        context: &Context<'_>,
        problems: &mut Problems,
    ) -> Option<Action> {
        if let Some(respond) = &config.respond {
            return respond
                .compile(&context.loaded.files, problems)
                .map(|fixed| Action::Respond(Respond::new(fixed)));
        }
        if let Some(redirect) = &config.redirect {
            let path = config.matches.path.as_ref();
            // A pattern that does not parse is the router's to report.
            let pattern = path.and_then(|p| Pattern::parse(p, &mut Problems::new()));
            let pattern = path.map_or(Some(Pattern::everything()), |_| pattern);
            let prefix = pattern.and_then(|p| p.prefix());
            return redirect
                .compile(prefix.as_deref(), problems)
                .map(Action::Redirect);
        }
        let single = config.upstream.iter().map(|name| (1, name));
        let split = config.split.iter().flat_map(|s| &s.value);
        let shares = single.chain(split.map(|share| (share.weight.value, &share.upstream)));
        // A name that does not resolve is `config/check`'s to report.
        let forward = shares.filter_map(|(w, name)| Some((w, (context.upstream)(&name.value)?)));
        let forward: Vec<_> = forward.collect();
        (!forward.is_empty()).then_some(Action::Forward(forward))
    }

    fn same_upstreams(&self, other: &Action) -> bool {
        match (self, other) {
            (Action::Forward(a), Action::Forward(b)) => {
                let mut pairs = a.iter().zip(b);
                a.len() == b.len() && pairs.all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1))
            }
            (Action::Forward(_), _) | (_, Action::Forward(_)) => false,
            _ => true,
        }
    }
}
