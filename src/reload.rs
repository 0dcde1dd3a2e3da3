//! The path of a reload, top to bottom: watch, load, check, compile, diff, resolve, bind, swap,
//! tick, retire.
//!
//! All or nothing: a failure at any step says why and leaves everything as it was. What has not
//! changed keeps its state, since `plan/compile` takes it over from the plan in force. Runs on
//! the control thread, off the request path; old plans are dropped here and nowhere else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tracing_subscriber::filter::LevelFilter;

use crate::admin::{ReloadOutcome, ReloadReport};
use crate::clock;
use crate::config::diff::{Diff, diff};
use crate::config::load::{self, Invalid};
use crate::config::{AccessConfig, Config, Loaded, LogLevel};
use crate::plan::{Plan, SharedPlan, compile};
use crate::problem::{Problem, Problems, Sources};
use crate::server::Server;
use crate::telemetry::access;
use crate::telemetry::diagnostics::Diagnostics;
use crate::telemetry::handles::Metrics;
use crate::upstream::Upstream;

/// Where the config comes from.
pub enum Source {
    /// A file and what it includes.
    File(PathBuf),
    /// A text of our own.
    Fixed(Box<dyn Fn() -> Result<Loaded, Invalid> + Send + Sync>),
}

impl Source {
    /// Reads and checks it.
    ///
    /// # Errors
    /// [`Invalid`] with every problem.
    pub fn load(&self) -> Result<Loaded, Invalid> {
        match self {
            Source::File(path) => load::load(path),
            Source::Fixed(load) => load(),
        }
    }

    /// A glance at it, to be compared with the next.
    pub fn look(&self) -> Look {
        Look::of(&self.load())
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Source::File(path) => Some(path),
            Source::Fixed(_) => None,
        }
    }
}

/// Why a reload is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked: SIGHUP or POST /reload. The outcome is always told.
    Asked,
    /// The files may have changed, and looked so a moment ago. They are taken if they still do,
    /// and only news is told.
    Noticed(Look),
}

/// What the files said at a glance: the hash of a good config, the faults of any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look(Result<u64, String>);

impl Look {
    fn of(loaded: &Result<Loaded, Invalid>) -> Self {
        let look = loaded.as_ref().map(|loaded| loaded.hash);
        Look(look.map_err(|invalid| invalid.render(false)))
    }
}

/// What a reload works on.
pub struct Reload {
    /// Where the config comes from.
    pub source: Source,
    /// The plan in force.
    pub shared: SharedPlan,
    /// All numbers.
    pub metrics: Arc<Metrics>,
    /// Sockets and workers.
    pub server: Server,
    /// The access log.
    pub access: Arc<access::Control>,
    /// The log level.
    pub diagnostics: Diagnostics,
    keepers: Keepers,
    retired: Vec<Arc<Plan>>,
    /// What was read last and found good: in force, or the same but for comments and layout.
    loaded: Arc<Loaded>,
    /// What the last refusal said, so that a file that stays bad is told once.
    refused: Option<String>,
}

impl Reload {
    /// Over a running server; starts the housekeeping of the first plan's upstreams.
    pub fn new(
        source: Source,
        shared: SharedPlan,
        metrics: Arc<Metrics>,
        server: Server,
        access: Arc<access::Control>,
        diagnostics: Diagnostics,
    ) -> Self {
        let mut keepers = Keepers::default();
        let plan = shared.load();
        keepers.follow(&plan);
        applied(&metrics, &plan);
        let (retired, loaded) = (Vec::new(), plan.loaded.clone());
        Reload {
            source,
            shared,
            metrics,
            server,
            access,
            diagnostics,
            keepers,
            retired,
            loaded,
            refused: None,
        }
    }

    /// The files of the config in force and those it names: what is worth watching.
    pub fn files(&self) -> Vec<PathBuf> {
        let Some(top) = self.source.path() else {
            return Vec::new();
        };
        let loaded = &self.loaded;
        let named = loaded.files.iter().map(|(path, _)| loaded.dir.join(path));
        let patterns = loaded.config.include.iter();
        let patterns = patterns.map(|pattern| loaded.dir.join(&pattern.value));
        let read = loaded.sources.paths().map(Path::to_path_buf);
        read.chain(named)
            .chain(patterns)
            .chain([top.to_path_buf()])
            .collect()
    }

    /// One reload. `None` where nothing is new and nobody asked, or the files are still changing.
    pub async fn once(&mut self, cause: Cause) -> Option<ReloadReport> {
        self.drop_retired();
        let loaded = self.source.load();
        if let Cause::Noticed(before) = &cause
            && *before != Look::of(&loaded)
        {
            return None;
        }
        let report = match self.attempt(loaded).await {
            Ok(report) => report,
            Err(report) => report,
        };
        let refusal = (report.outcome == ReloadOutcome::Rejected
            || report.outcome == ReloadOutcome::NeedsRestart)
            .then(|| report.message.clone());
        // a bad file that was taken back is news, though the config is the one in force
        let old_news = match report.outcome {
            ReloadOutcome::Applied => false,
            _ => refusal == self.refused,
        };
        self.refused = refusal;
        if old_news && cause != Cause::Asked {
            return None;
        }
        self.tell(&report);
        Some(report)
    }

    /// The steps. An `Err` has changed nothing.
    async fn attempt(
        &mut self,
        loaded: Result<Loaded, Invalid>,
    ) -> Result<ReloadReport, ReloadReport> {
        let old = self.shared.load();
        let loaded = loaded.map_err(|invalid| {
            let invalid = compile::all_faults(invalid);
            rejected(&invalid.problems, &invalid.sources)
        })?;
        if loaded.hash == self.loaded.hash {
            return Ok(unchanged("nothing has changed"));
        }
        let changes = diff(&old.loaded, &loaded);
        if changes.is_empty() {
            self.loaded = Arc::new(loaded);
            return Ok(unchanged("nothing has changed that is acted on"));
        }
        if let Some(keys) = needs_restart(&changes) {
            let message = format!("{keys} can only change with a restart; nothing was applied");
            return Err(report(ReloadOutcome::NeedsRestart, message, Vec::new()));
        }
        let log = open_log(&loaded)?;
        let plan = self.compile(Arc::new(loaded), &old)?;
        resolve_names(&plan).await;
        let prepared = self.server.prepare(&plan).map_err(|problems| {
            self.forget_names(&old);
            rejected(&problems, &plan.loaded.sources)
        })?;
        let plan = Arc::new(plan);
        let retired = self.shared.swap(plan.clone());
        self.server.commit(prepared);
        plan.put_in_force(clock::now());
        self.keepers.follow(&plan);
        self.loaded = plan.loaded.clone();
        self.access.apply(log);
        self.diagnostics.set_level(level(&plan.loaded.config));
        self.forget_names(&plan);
        applied(&self.metrics, &plan);
        self.retired.push(retired);
        let message = format!("generation {} is in force", plan.generation);
        Ok(report(ReloadOutcome::Applied, message, changes.lines()))
    }

    fn compile(&self, loaded: Arc<Loaded>, old: &Plan) -> Result<Plan, ReloadReport> {
        compile::compile(loaded.clone(), Some(old), &self.metrics).map_err(|problems| {
            self.forget_names(old);
            rejected(&problems, &loaded.sources)
        })
    }

    /// Numbers of names that this plan does not have.
    fn forget_names(&self, plan: &Plan) {
        let routes: std::collections::BTreeSet<&str> = plan
            .routes
            .iter()
            .chain([&plan.none])
            .map(|route| &*route.id)
            .collect();
        let limits = plan.limits().map(|limit| &*limit.name);
        let limits: std::collections::BTreeSet<&str> = limits.collect();
        self.metrics.retain(
            |name| routes.contains(name),
            |name| plan.upstreams.contains_key(name),
            |name| plan.listeners.contains_key(name),
            |name| limits.contains(name),
        );
    }

    fn tell(&self, report: &ReloadReport) {
        let cells = &self.metrics.config;
        cells.reloads[report.outcome as usize].inc();
        let good = matches!(
            report.outcome,
            ReloadOutcome::Applied | ReloadOutcome::Unchanged
        );
        cells.last_success.set(i64::from(good));
        let (outcome, changes) = (report.word(), report.changes.join("; "));
        if good {
            tracing::info!(outcome, changes, "reload: {}", report.message);
        } else {
            tracing::error!(outcome, "reload: nothing was applied\n{}", report.message);
        }
    }

    /// Drops plans that no worker holds any more, here and off the request path. Says how many
    /// are left.
    pub fn drop_retired(&mut self) -> usize {
        self.retired.retain(|plan| Arc::strong_count(plan) > 1);
        let held = i64::try_from(self.retired.len() + 1).unwrap_or(i64::MAX);
        self.metrics.config.plans.set(held);
        self.retired.len()
    }
}

/// The settings of the access log.
pub fn access_settings(loaded: &Loaded) -> access::Settings {
    let AccessConfig { to, sample } = &loaded.config.log.access;
    access::Settings::new(&to.value, &loaded.dir, sample.value)
}

/// The log level of a config.
pub fn level(config: &Config) -> LevelFilter {
    match config.log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Opens the access log where the config says.
fn open_log(loaded: &Loaded) -> Result<access::Opened, ReloadReport> {
    access_settings(loaded).open().map_err(|error| {
        let to = &loaded.config.log.access.to;
        let message = format!("the access log \"{}\" cannot be opened: {error}", to.value);
        let mut problems = Problems::new();
        problems.push(Problem::at(&to.span, message));
        rejected(&problems, &loaded.sources)
    })
}

/// The keys that stand against a change while running.
fn needs_restart(changes: &Diff) -> Option<String> {
    let keys = changes.needs_restart();
    (!keys.is_empty()).then(|| keys.join(", "))
}

fn applied(metrics: &Metrics, plan: &Plan) {
    let cells = &metrics.config;
    let now = clock::wall()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    cells
        .generation
        .set(i64::try_from(plan.generation).unwrap_or(i64::MAX));
    cells
        .last_applied
        .set(i64::try_from(now).unwrap_or(i64::MAX));
    cells.last_success.set(1);
    *cells.hash.lock() = format!("{:016x}", plan.hash);
}

fn unchanged(message: &str) -> ReloadReport {
    report(ReloadOutcome::Unchanged, message, Vec::new())
}

fn report(
    outcome: ReloadOutcome,
    message: impl Into<String>,
    changes: Vec<String>,
) -> ReloadReport {
    ReloadReport {
        outcome,
        message: message.into(),
        changes,
    }
}

fn rejected(problems: &Problems, sources: &Sources) -> ReloadReport {
    report(
        ReloadOutcome::Rejected,
        problems.render(sources, false),
        Vec::new(),
    )
}

/// Names among the endpoints are waited for this long before the first request is taken.
const FIRST_NAMES: Duration = Duration::from_secs(2);

/// Gives names that have no answer yet a moment, so that the first requests find somebody.
pub async fn resolve_names(plan: &Plan) {
    let all = plan
        .upstreams
        .values()
        .filter(|up| up.is_unresolved())
        .map(|upstream| {
            let upstream = upstream.clone();
            tokio::spawn(async move { upstream.resolve_once().await })
        });
    let all: Vec<_> = all.collect();
    let waited = tokio::time::timeout(FIRST_NAMES, async {
        for one in all {
            drop(one.await);
        }
    });
    if waited.await.is_err() {
        tracing::warn!("some names are not resolved yet; their endpoints come later");
    }
}

/// The housekeeping tasks of what is in force: health checks and names of upstreams, the store.
#[derive(Default)]
struct Keepers(HashMap<*const (), AbortHandle>);

// The pointers are only compared.
impl Keepers {
    fn follow(&mut self, plan: &Plan) {
        let upstreams = plan.upstreams.values();
        let upstreams: HashMap<*const (), &Arc<Upstream>> =
            upstreams.map(|up| (Arc::as_ptr(up).cast(), up)).collect();
        let store = plan
            .store
            .as_ref()
            .map(|store| (Arc::as_ptr(store).cast(), store));
        self.0.retain(|key, task| {
            let keep = upstreams.contains_key(key) || store.is_some_and(|(store, _)| store == *key);
            if !keep {
                task.abort();
            }
            keep
        });
        for (key, upstream) in upstreams {
            self.0
                .entry(key)
                .or_insert_with(|| tokio::spawn(upstream.housekeeping()).abort_handle());
        }
        if let Some((key, store)) = store {
            let task = || tokio::spawn(store.clone().housekeeping()).abort_handle();
            self.0.entry(key).or_insert_with(task);
        }
    }
}
