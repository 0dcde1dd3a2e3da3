//! The body of a worker thread: its runtime, its orders, its clock.
//!
//! A worker obeys [`Order`]s of the control thread and takes fresh sockets from its peers. It ends
//! when it has been told to close and its last connection is gone, or when it is told to abort;
//! any other end, a panic included, is reported by the [`Watchman`] as the loss of a worker.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::drain::{self, Phase, Signal, Switch};
use super::listener::{self, AcceptLoop};
use super::slot::{Counts, Seat};
use super::tls::HANDSHAKES;
use super::worker::Worker;
use crate::clock;
use crate::plan::listener::ListenerPlan;
use crate::pressure;
use crate::telemetry::access::AccessLog;

/// How often a worker looks at its clock.
const TICK: Duration = Duration::from_secs(1);
/// How often a worker looks how late it is.
const LAG_TICK: Duration = Duration::from_millis(25);
/// How often a closing worker looks whether its last connection is gone.
const LOOK: Duration = Duration::from_millis(20);
/// What the access log gets to take the last lines: less than `server` waits for a worker that
/// cuts.
const LAST_LINES: Duration = Duration::from_secs(1);
/// What connections get to count themselves and close once they are cut.
const CUT: Duration = Duration::from_millis(100);

/// What a worker is told.
pub(super) enum Order {
    /// Accept on this socket.
    Listen {
        plan: Arc<ListenerPlan>,
        socket: std::net::TcpListener,
        open: Arc<AtomicU32>,
    },
    /// Close this listener gracefully.
    Unlisten(Arc<str>),
    /// Serve a socket that another worker accepted.
    Serve(Fresh),
    /// There is a new plan.
    Tick,
    /// The process ends.
    Turn(Phase, Option<Instant>),
}

/// An accepted socket on its way to another worker.
pub(super) struct Fresh {
    pub(super) plan: Arc<ListenerPlan>,
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) seat: Seat,
}

/// A worker's word to the control thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// It has ended as it was told.
    Ended(usize),
    /// It has ended otherwise.
    Lost(usize),
}

/// What a worker's accept loops share.
pub(super) struct Local {
    pub(super) worker: Arc<Worker>,
    pub(super) counts: Arc<Counts>,
    pub(super) handshakes: Arc<Semaphore>,
    pub(super) peers: Arc<[UnboundedSender<Order>]>,
}

/// All that a worker thread starts with.
pub(super) struct Start {
    pub(super) index: usize,
    pub(super) counts: Arc<Counts>,
    pub(super) peers: Arc<[UnboundedSender<Order>]>,
    pub(super) orders: UnboundedReceiver<Order>,
    pub(super) words: UnboundedSender<Word>,
    pub(super) build: Arc<dyn Fn(usize, Signal) -> Worker + Send + Sync>,
}

/// Reports how the thread ended, even by a panic.
struct Watchman {
    index: usize,
    words: UnboundedSender<Word>,
    as_told: bool,
}

impl Drop for Watchman {
    fn drop(&mut self) {
        let word = if self.as_told {
            Word::Ended(self.index)
        } else {
            Word::Lost(self.index)
        };
        // without a control thread there is nobody to tell
        self.words.send(word).ok();
    }
}

/// Starts the thread of a worker.
pub(super) fn spawn(start: Start) -> io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()?;
    std::thread::Builder::new()
        .name(format!("weir-worker-{}", start.index))
        .spawn(move || {
            let mut watchman = Watchman {
                index: start.index,
                words: start.words.clone(),
                as_told: false,
            };
            let access = runtime.block_on(live(start));
            // requests that are cut here are logged, too
            runtime.shutdown_background();
            if let Some(access) = access {
                access.close(LAST_LINES);
            }
            watchman.as_told = true;
        })
}

/// Serves until the end. What is logged later than that is in the access log's handle.
async fn live(start: Start) -> Option<AccessLog> {
    let (switch, signal) = drain::channel();
    let worker = Arc::new((start.build)(start.index, signal.clone()));
    let local = Arc::new(Local {
        worker: worker.clone(),
        counts: start.counts,
        handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
        peers: start.peers,
    });
    let mut floor = Floor {
        local,
        switch,
        listeners: BTreeMap::new(),
    };
    let access = worker.access();
    let mut orders = start.orders;
    let mut beat = std::pin::pin!(heartbeat(&worker));
    // A task like any other: it waits in the row that requests wait in. It ends with the runtime.
    tokio::spawn(watch_lag(worker.clone()));
    let encoders = worker.encoders.clone();
    tokio::spawn(async move { encoders.hand_out_turns().await });
    let mut end = std::pin::pin!(ended(floor.local.clone(), signal.clone()));
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => floor.obey(order),
                None => return access,
            },
            () = &mut beat => {}
            () = &mut end => break,
        }
    }
    // What a peer has sent meanwhile is served still; what comes later, the peer serves itself.
    orders.close();
    while let Some(order) = orders.recv().await {
        floor.obey(order);
    }
    emptied(&floor.local, &signal).await;
    access
}

/// Resolves when a closing worker has no connection left, or was told to abort.
async fn ended(local: Arc<Local>, signal: Signal) {
    signal.clone().reached(Phase::Closing).await;
    // accept loops empty their queues first
    tokio::time::sleep(LOOK).await;
    emptied(&local, &signal).await;
}

/// Resolves when the worker has no connection left, or was told to abort.
async fn emptied(local: &Local, signal: &Signal) {
    let left = || local.counts.of(local.worker.index);
    while left() > 0 && signal.phase() < Phase::Aborting {
        tokio::time::sleep(LOOK).await;
    }
    if left() > 0 {
        tokio::time::sleep(CUT).await;
    }
}

/// Once a second: how late the loop runs, how busy it was, and housekeeping.
async fn heartbeat(worker: &Worker) {
    let cells = worker.metrics.worker.of(worker.index);
    let runtime = tokio::runtime::Handle::current().metrics();
    loop {
        let due = clock::now() + TICK;
        tokio::time::sleep_until(due.into()).await;
        let now = clock::now();
        cells.loop_lag.observe(now.duration_since(due));
        let busy = runtime.worker_total_busy_duration(0).as_nanos();
        let busy = u64::try_from(busy).unwrap_or(u64::MAX);
        cells
            .busy_nanos
            .add(busy.saturating_sub(cells.busy_nanos.get()));
        worker.tick();
        worker.every_second(now);
    }
}

/// Many times a second: how late the loop comes round, for who encodes too, and what is shed for it.
async fn watch_lag(worker: Arc<Worker>) {
    let mut own = pressure::Own::default();
    let mut due = clock::now();
    loop {
        let last = due;
        due = clock::now() + LAG_TICK;
        tokio::time::sleep_until(due.into()).await;
        worker.encoders.turn().await;
        let now = clock::now();
        let lag = now.duration_since(due);
        let rules = worker.view().plan.server.shed;
        let to = (&worker.metrics.pressure, worker.index);
        own.step(lag, rules.as_ref(), now.duration_since(last), to);
    }
}

/// What a worker has open.
struct Floor {
    local: Arc<Local>,
    switch: Switch,
    listeners: BTreeMap<Arc<str>, Open>,
}

/// A listener that is open: its phases, and the count by which its sockets are known.
struct Open {
    switch: Switch,
    count: Arc<AtomicU32>,
}

impl Floor {
    fn obey(&mut self, order: Order) {
        match order {
            Order::Listen { plan, socket, open } => self.listen(plan, socket, open),
            Order::Unlisten(name) => {
                if let Some(Open { switch, .. }) = self.listeners.remove(&name) {
                    switch.turn(Phase::Closing, None);
                    // its connections go on watching until they have ended
                    tokio::spawn(outlive(switch, self.switch.signal()));
                }
            }
            Order::Serve(fresh) => self.serve(fresh),
            Order::Tick => self.local.worker.tick(),
            Order::Turn(phase, deadline) => {
                self.switch.turn(phase, deadline);
                for listener in self.listeners.values() {
                    listener.switch.turn(phase, deadline);
                }
            }
        }
    }

    fn listen(
        &mut self,
        plan: Arc<ListenerPlan>,
        socket: std::net::TcpListener,
        open: Arc<AtomicU32>,
    ) {
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listener = %plan.name, %error, "cannot listen");
                return;
            }
        };
        let (switch, signal) = drain::channel();
        let count = open.clone();
        self.listeners
            .insert(plan.name.clone(), Open { switch, count });
        let accept = AcceptLoop {
            first: plan,
            socket,
            local: self.local.clone(),
            signal,
            open,
        };
        tokio::spawn(accept.run());
    }

    fn serve(&self, fresh: Fresh) {
        let Ok(stream) = TcpStream::from_std(fresh.stream) else {
            return;
        };
        let open = self.listeners.get(&fresh.plan.name);
        let same = |open: &&Open| Arc::ptr_eq(&open.count, fresh.seat.listener());
        let signal = match open.filter(same) {
            Some(open) => open.switch.signal(),
            None => self.closing(),
        };
        listener::serve(
            &self.local,
            fresh.plan,
            fresh.seat,
            signal,
            stream,
            fresh.peer,
        );
    }

    /// For a client of a listener that was removed while its socket was under way.
    fn closing(&self) -> Signal {
        let (switch, signal) = drain::channel();
        switch.turn(Phase::Closing, None);
        tokio::spawn(outlive(switch, self.switch.signal()));
        signal
    }
}

/// Keeps the switch of a removed listener while it has connections, so that they hear of an abort.
async fn outlive(switch: Switch, process: Signal) {
    tokio::select! {
        () = process.reached(Phase::Aborting) => switch.turn(Phase::Aborting, None),
        () = switch.unwatched() => {}
    }
}
