//! The life of a process: start, serve, reload, drain.
//!
//! The control thread's own work. Signal handlers come before anything else, since Weir may be
//! PID 1; then the config, then sockets, then workers, then ready. From there on one loop waits
//! for signals, for the files of the config to change, for `POST /reload` and for a worker to be
//! lost, which ends the process: half a gateway helps nobody.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::{mpsc, oneshot};

use crate::admin::{self, ReloadOutcome, ReloadReport, Scope};
use crate::chance::Chance;
use crate::clock;
use crate::config::{Config, Loaded, LogFormat};
use crate::control::Control;
use crate::middleware::compress::Encoders;
use crate::plan::stack::Kit;
use crate::plan::{Plan, SharedPlan, compile};
use crate::pressure;
use crate::pressure::probe::Granted;
use crate::reload::{Cause, Reload, Source, access_settings, level, resolve_names};
use crate::server::aside::Bench;
use crate::server::drain::Signal;
use crate::server::signals::{Asked, Signals};
use crate::server::tunnels::LocalTunnels;
use crate::server::worker::Worker;
use crate::server::{self, Drained, Server};
use crate::telemetry::access::{self, AccessLog};
use crate::telemetry::diagnostics::{self, Diagnostics};
use crate::telemetry::handles::Metrics;
use crate::upstream::WorkerPools;
use crate::watch::Watch;

/// How often retired plans are looked after, while there are any.
const RETIRE: Duration = Duration::from_secs(1);
/// How often memory and descriptors are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The access log may take this long to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Serves the config in a file.
pub fn run(config: &Path, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let source = Source::File(config.to_path_buf());
    serve(
        source,
        ready_file.map(Path::to_path_buf),
        std::future::pending(),
        || (),
    )
}

/// Serves a config; `beside` runs along on the control thread, and `hello` is called once ready.
pub fn serve(
    source: Source,
    ready_file: Option<PathBuf>,
    beside: impl Future<Output = ()> + Send + 'static,
    hello: impl FnOnce(),
) -> anyhow::Result<()> {
    small_pages();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::install()?;
        let process = Process::start(source).await?;
        tokio::spawn(beside);
        if let Some(path) = &ready_file {
            process.write_ready_file(path)?;
        }
        hello();
        process.live(&mut signals).await
    });
    // A name that is being looked up must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Huge pages are not for us: each worker's heap would hold megabytes that it does not use, and a
/// limit that one client has asked its whole table, though it says that memory costs nothing until
/// it is touched. A kernel that cannot leave them out goes on as it does.
pub fn small_pages() {
    rustix::thread::disable_transparent_huge_pages(true).ok();
}

fn start_diagnostics(config: &Config) -> anyhow::Result<Diagnostics> {
    let format = match config.log.format {
        LogFormat::Text => diagnostics::Format::Text,
        LogFormat::Json => diagnostics::Format::Json,
    };
    diagnostics::init(level(config), format).map_err(anyhow::Error::msg)
}

type Request = oneshot::Sender<ReloadReport>;

/// A gateway that serves.
struct Process {
    reload: Reload,
    control: Arc<Control>,
    requests: mpsc::Receiver<Request>,
    admin: Admin,
    access: Arc<access::Control>,
}

/// Where the operator's addresses are bound.
struct Admin {
    full: SocketAddr,
    scrape: Option<SocketAddr>,
}

impl Process {
    async fn start(source: Source) -> anyhow::Result<Self> {
        let loaded = Arc::new(
            source
                .load()
                .map_err(|invalid| anyhow!(compile::all_faults(invalid).render(false)))?,
        );
        let diagnostics = start_diagnostics(&loaded.config)?;
        let workers = server::workers(loaded.config.server.workers.value);
        let metrics = Arc::new(Metrics::new(workers));
        let plan = first_plan(loaded.clone(), &metrics)?;
        let (logs, writer, access) = access::open(&access_settings(&loaded), workers)
            .with_context(|| {
                let to = &loaded.config.log.access.to.value;
                format!("cannot open the access log \"{to}\"")
            })?;
        let access = Arc::new(access);
        let full = bind(&loaded.config.admin.address.value).await?;
        let scrape = match &loaded.config.admin.scrape_address {
            Some(address) => Some(bind(&address.value).await?),
            None => None,
        };
        let admin = Admin {
            full: full.local_addr()?,
            scrape: scrape.as_ref().map(|s| s.local_addr()).transpose()?,
        };
        resolve_names(&plan).await;
        let shared = SharedPlan::new(plan.clone());
        let sockets = Server::bind(&plan, workers)
            .map_err(|problems| anyhow!(problems.render(&loaded.sources, false)))?;
        server::beside("weir-access-log", move || writer.run())?;
        let aside = Bench::start(workers)?;
        let build = worker_builder(shared.clone(), metrics.clone(), logs, aside);
        let server = Server::start(sockets, workers, build)?;
        let (ask, requests) = mpsc::channel(16);
        let control = Control::new(shared.clone(), metrics.clone(), access.clone(), ask);
        let control = Arc::new(control);
        control.bound(server.addresses());
        tokio::spawn(watch_pressure(shared.clone(), metrics.clone()));
        tokio::spawn(admin::serve(full, Scope::Full, control.clone()));
        if let Some(scrape) = scrape {
            tokio::spawn(admin::serve(scrape, Scope::ScrapeOnly, control.clone()));
        }
        let reload = Reload::new(source, shared, metrics, server, access.clone(), diagnostics);
        let process = Process {
            reload,
            control,
            requests,
            admin,
            access,
        };
        process.announce();
        Ok(process)
    }

    fn announce(&self) {
        for (name, address) in self.reload.server.addresses() {
            tracing::info!(listener = &*name, %address, "listening");
        }
        tracing::info!(address = %self.admin.full, "admin listening");
        if let Some(address) = self.admin.scrape {
            tracing::info!(%address, "scrape listening");
        }
    }

    /// The bound addresses as JSON, put in place in one step.
    fn write_ready_file(&self, path: &Path) -> anyhow::Result<()> {
        let listeners: BTreeMap<String, String> = self
            .reload
            .server
            .addresses()
            .into_iter()
            .map(|(name, address)| (name.to_string(), address.to_string()))
            .collect();
        let text = serde_json::json!({
            "admin": self.admin.full.to_string(),
            "scrape": self.admin.scrape.map(|a| a.to_string()),
            "listeners": listeners,
        });
        let beside = path.with_extension("tmp");
        std::fs::write(&beside, text.to_string())?;
        std::fs::rename(&beside, path).context("cannot write the ready file")
    }

    /// Serves until a signal, then drains.
    async fn live(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let mut watch = Watch::new();
        loop {
            let retired = self.reload.drop_retired();
            let files = self.reload.files();
            watch.follow(files.iter().map(PathBuf::as_path));
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Reload => {
                        self.access.reopen();
                        self.reload(Cause::Asked, Vec::new()).await;
                    }
                    ends => return self.drain(ends, signals).await,
                },
                request = self.requests.recv() => {
                    let more = std::iter::from_fn(|| self.requests.try_recv().ok());
                    let all = request.into_iter().chain(more).collect();
                    self.reload(Cause::Asked, all).await;
                }
                quiet = watch.changed(), if !files.is_empty() => self.noticed(quiet).await,
                () = tokio::time::sleep(RETIRE), if retired > 0 => {}
                lost = self.reload.server.worker_lost() => bail!("worker {lost} is lost"),
            }
        }
    }

    /// The files may have changed: they are taken when two looks agree.
    async fn noticed(&mut self, quiet: bool) {
        let first = self.reload.source.look();
        Watch::settle(quiet).await;
        self.reload(Cause::Noticed(first), Vec::new()).await;
    }

    async fn reload(&mut self, cause: Cause, requests: Vec<Request>) {
        let Some(report) = self.reload.once(cause).await else {
            return;
        };
        if report.outcome == ReloadOutcome::Applied {
            self.control.bound(self.reload.server.addresses());
        }
        self.control.reloaded(&report);
        for request in requests {
            // Whoever asked may have left.
            drop(request.send(report.clone()));
        }
    }

    async fn drain(self, asked: Asked, signals: &mut Signals) -> anyhow::Result<()> {
        let plan = self.reload.shared.load();
        let (mut delay, timeout) = (plan.server.drain_delay, plan.server.drain_timeout);
        if asked == Asked::DrainNow {
            delay = Duration::ZERO;
        }
        tracing::info!(?delay, ?timeout, "draining");
        self.reload.metrics.config.draining.set(1);
        let hurry = async {
            signals.end().await;
            tracing::warn!("a second signal: ending at once");
        };
        let (_, before) = self.access.counts();
        let drained = self.reload.server.drain(delay, timeout, hurry).await;
        if !self.access.close(LAST_LINES) {
            tracing::warn!("the last lines of the access log are lost");
        }
        let (_, lost) = self.access.counts();
        if lost > before {
            let lines = lost - before;
            tracing::warn!(lines, "access-log lines were lost while draining");
        }
        match drained {
            Drained::Clean => tracing::info!("drained: every request has finished"),
            Drained::Cut => tracing::warn!("drained: what was left has been cut"),
            Drained::Lost => bail!("a worker was lost while draining"),
        }
        Ok(())
    }
}

/// A few times a second: how much memory and how many descriptors are in use, and what is shed for
/// it.
async fn watch_pressure(shared: SharedPlan, metrics: Arc<Metrics>) {
    let mut process = pressure::Process::default();
    let mut last = clock::now();
    loop {
        let used = Granted::read().used();
        let now = clock::now();
        let rules = shared.load().server.shed;
        process.step(used, rules.as_ref(), now - last, &metrics.pressure);
        last = now;
        tokio::time::sleep(LOOK).await;
    }
}

fn first_plan(loaded: Arc<Loaded>, metrics: &Metrics) -> anyhow::Result<Arc<Plan>> {
    let plan = compile::compile(loaded.clone(), None, metrics);
    plan.map(Arc::new)
        .map_err(|problems| anyhow!(problems.render(&loaded.sources, false)))
}

async fn bind(address: &str) -> anyhow::Result<tokio::net::TcpListener> {
    let listener = tokio::net::TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on the admin address {address}"))
}

/// Makes each worker its world, on its own thread.
fn worker_builder(
    shared: SharedPlan,
    metrics: Arc<Metrics>,
    logs: Vec<AccessLog>,
    aside: Arc<Bench>,
) -> impl Fn(usize, Signal) -> Worker + Send + Sync + 'static {
    move |worker, drain| {
        let kit = Kit {
            worker,
            metrics: metrics.clone(),
            pools: Arc::new(WorkerPools::new(worker)),
            chance: Arc::new(Chance::default()),
            encoders: Arc::new(Encoders::new(Some(aside.clone()))),
            access: logs.get(worker).cloned(),
            tunnels: Arc::new(LocalTunnels::new(worker, metrics.clone(), drain)),
        };
        Worker::new(kit, shared.clone())
    }
}
