//! Threads and sockets: what starts, feeds and ends the workers.
//!
//! [`Server`] belongs to the control thread. It binds listeners, starts one thread for each
//! worker, hands sockets over and walks through the phases of the end. A reload binds first
//! ([`Server::prepare`]: nothing changes where it fails), swaps the plan, then [`Server::commit`].
//! A worker that is lost is the process lost: traffic on its sockets would hang.
//!
//! * `thread`, `worker`: a worker's thread, and its world
//! * `bind`, `listener`, `slot`: sockets, accepting, counting
//! * `connection`: one client, over `proxy_protocol`, `tls`, `detect`, then hyper over `io`
//! * `drive`, `rest`: a connection's one timer; idle HTTP/1 connections without hyper
//! * `multiplex`, `bells`, `streams`: an HTTP/2 connection and its streams, in one task
//! * `socket`: what the kernel has taken of an answer
//! * `guard`, `frames`, `pulse`, `service`: what the IO shows and notes: strict HTTP/1 heads, HTTP/2
//!   budgets, times, open requests
//! * `dispatch`, `admit`, `trust`: one request, whether it is one, and whom it is believed
//! * `values`: field values of answers on HTTP/2, each kept once
//! * `tunnels`: upgraded connections
//! * `aside`: threads for long work
//! * `drain`, `signals`: how it ends

pub mod admit;
pub mod aside;
mod bells;
mod bind;
mod connection;
mod detect;
pub mod dispatch;
pub mod drain;
mod drive;
mod frames;
pub mod guard;
mod io;
mod listener;
mod multiplex;
mod proxy_protocol;
mod pulse;
mod rest;
mod service;
pub mod signals;
mod slot;
mod socket;
mod streams;
#[cfg(test)]
mod tests;
mod thread;
mod tls;
mod trust;
pub mod tunnels;
mod values;
pub mod worker;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::clock;
use crate::config::Workers;
use crate::plan::Plan;
use crate::plan::listener::{ClientRoots, ListenerPlan};
use crate::problem::{Problem, Problems};
use bind::Sockets;
use drain::{Phase, Signal};
use slot::Counts;
use thread::{Order, Start, Word};
use worker::Worker;

/// What workers get to end once their connections are cut.
const CUT: Duration = Duration::from_secs(2);

/// The threads that are worth having: as configured, else the CPUs that affinity and the cgroup
/// grant.
pub fn workers(configured: Workers) -> usize {
    match configured {
        Workers::Count(count) => usize::from(count).max(1),
        Workers::Auto => std::thread::available_parallelism().map_or(1, |n| n.get().min(256)),
    }
}

/// Runs `work`, which blocks, on a thread of its own. Threads are started here and nowhere else.
pub fn beside(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
}

/// Sockets bound for a plan and not yet used. Dropping it closes them.
pub struct Prepared {
    added: Vec<Added>,
    removed: Vec<Arc<str>>,
}

/// A listener that opens.
struct Added {
    plan: Arc<ListenerPlan>,
    /// For the workers.
    given: Sockets,
    /// For [`Bound`].
    kept: Sockets,
}

/// A listener that is open.
struct Bound {
    /// As configured: port 0 stays 0.
    configured: SocketAddr,
    /// Which clients may come.
    clients: Option<ClientRoots>,
    /// The sockets that the workers accept from. A listener that follows this one on its address
    /// takes them over, queue and all: a socket that is closed resets who waits in its queue.
    sockets: Sockets,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request and tunnel finished.
    Clean,
    /// The deadline passed, or a second signal came: something was cut.
    Cut,
    /// A worker was lost meanwhile.
    Lost,
}

/// All workers and their listeners.
pub struct Server {
    orders: Arc<[UnboundedSender<Order>]>,
    words: UnboundedReceiver<Word>,
    threads: Vec<JoinHandle<()>>,
    bound: BTreeMap<Arc<str>, Bound>,
}

impl Server {
    /// Binds every listener of the first plan.
    ///
    /// # Errors
    /// A problem for each address that cannot be bound; nothing stays bound then.
    pub fn bind(plan: &Plan, workers: usize) -> Result<Prepared, Problems> {
        prepare(&BTreeMap::new(), plan, workers)
    }

    /// Starts the workers and lets them accept. `build` makes a worker's world; it runs on the
    /// worker's thread, inside its runtime.
    ///
    /// # Errors
    /// Where a thread or its runtime cannot be made.
    pub fn start<F>(prepared: Prepared, workers: usize, build: F) -> std::io::Result<Server>
    where
        F: Fn(usize, Signal) -> Worker + Send + Sync + 'static,
    {
        let counts = Arc::new(Counts::new(workers));
        let build: Arc<dyn Fn(usize, Signal) -> Worker + Send + Sync> = Arc::new(build);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| unbounded_channel()).unzip();
        let orders: Arc<[_]> = senders.into();
        let (tell, words) = unbounded_channel();
        let start = |(index, received)| {
            thread::spawn(Start {
                index,
                counts: counts.clone(),
                peers: orders.clone(),
                orders: received,
                words: tell.clone(),
                build: build.clone(),
            })
        };
        let threads = receivers.into_iter().enumerate().map(start);
        let threads = threads.collect::<std::io::Result<_>>()?;
        let bound = BTreeMap::new();
        let mut server = Server {
            orders,
            words,
            threads,
            bound,
        };
        server.commit(prepared);
        Ok(server)
    }

    /// Binds the listeners that `plan` adds or moves. Nothing changes yet.
    ///
    /// # Errors
    /// A problem for each address that cannot be bound.
    pub fn prepare(&self, plan: &Plan) -> Result<Prepared, Problems> {
        prepare(&self.bound, plan, self.threads.len())
    }

    /// After the swap: opens what was prepared, closes what the plan has no more (its queue is
    /// emptied, its connections end gracefully), and makes every worker look at the plan.
    pub fn commit(&mut self, prepared: Prepared) {
        for name in prepared.removed {
            self.bound.remove(&name);
            self.tell(|| Order::Unlisten(name.clone()));
        }
        for Added { plan, given, kept } in prepared.added {
            tracing::info!(listener = %plan.name, address = %kept.address, "listening");
            let open = Arc::new(AtomicU32::new(0));
            for (socket, worker) in given.listeners.into_iter().zip(self.orders.iter()) {
                let (plan, open) = (plan.clone(), open.clone());
                worker.send(Order::Listen { plan, socket, open }).ok();
            }
            let bound = Bound {
                configured: plan.address,
                clients: clients(&plan),
                sockets: kept,
            };
            self.bound.insert(plan.name.clone(), bound);
        }
        self.tick();
    }

    /// Makes every worker look at the plan in force.
    pub fn tick(&self) {
        self.tell(|| Order::Tick);
    }

    /// Where each listener is bound, ports resolved.
    pub fn addresses(&self) -> BTreeMap<Arc<str>, SocketAddr> {
        let bound = self.bound.iter();
        bound
            .map(|(name, b)| (name.clone(), b.sockets.address))
            .collect()
    }

    /// Resolves when a worker is lost, with its number: the process must end, with a code that is
    /// not 0. May be dropped and called again.
    pub async fn worker_lost(&mut self) -> usize {
        match self.words.recv().await {
            Some(Word::Lost(index) | Word::Ended(index)) => index,
            // the senders live in the threads: all of them are gone
            None => 0,
        }
    }

    /// Ends the workers in the order of CONVENTIONS 6, from step 2 on: serves for `delay`, closes,
    /// lets requests finish for `timeout`, cuts the rest. `hurry` resolves at a second signal and
    /// cuts at once. The caller has made `/readyz` say no.
    pub async fn drain(
        mut self,
        delay: Duration,
        timeout: Duration,
        hurry: impl Future<Output = ()>,
    ) -> Drained {
        let mut hurry = std::pin::pin!(hurry);
        self.tell(|| Order::Turn(Phase::Unready, None));
        let mut hurried = tokio::select! {
            () = &mut hurry => true,
            () = tokio::time::sleep(delay) => false,
        };
        let mut left = self.threads.len();
        if !hurried {
            let deadline = clock::now() + timeout;
            // the workers empty the queues; nobody must wait in one that no worker looks at
            self.bound.clear();
            self.tell(|| Order::Turn(Phase::Closing, Some(deadline)));
            let finished = tokio::select! {
                () = &mut hurry => None,
                finished = tokio::time::timeout(timeout, ended(&mut self.words, &mut left)) => finished.ok(),
            };
            match finished {
                Some(true) => return Drained::Clean,
                Some(false) => return Drained::Lost,
                None => hurried = true,
            }
        }
        debug_assert!(hurried);
        self.tell(|| Order::Turn(Phase::Aborting, None));
        match tokio::time::timeout(CUT, ended(&mut self.words, &mut left)).await {
            Ok(false) => Drained::Lost,
            Ok(true) | Err(_) => Drained::Cut,
        }
    }

    fn tell(&self, order: impl Fn() -> Order) {
        for worker in self.orders.iter() {
            // a worker that is gone has been reported as lost
            worker.send(order()).ok();
        }
    }
}

/// Waits for `left` workers to end; false where one is lost.
async fn ended(words: &mut UnboundedReceiver<Word>, left: &mut usize) -> bool {
    while *left > 0 {
        match words.recv().await {
            Some(Word::Ended(_)) => *left -= 1,
            Some(Word::Lost(_)) | None => return false,
        }
    }
    true
}

fn prepare(
    bound: &BTreeMap<Arc<str>, Bound>,
    plan: &Plan,
    workers: usize,
) -> Result<Prepared, Problems> {
    let stays = |listener: &ListenerPlan| {
        let same = |b: &Bound| b.configured == listener.address && b.clients == clients(listener);
        bound.get(&listener.name).is_some_and(same)
    };
    let mut problems = Problems::new();
    let mut added = Vec::new();
    for (name, listener) in &plan.listeners {
        if stays(listener) {
            continue;
        }
        match open(bound, listener, workers) {
            Ok(one) => added.push(one),
            Err(error) => problems.push(unbound(plan, name, listener.address, &error)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let gone = |name: &&Arc<str>| !plan.listeners.get(*name).is_some_and(|l| stays(l));
    let removed = bound.keys().filter(gone).cloned().collect();
    Ok(Prepared { added, removed })
}

/// Takes over the sockets that have this listener's address, under its name or another; else binds.
fn open(
    bound: &BTreeMap<Arc<str>, Bound>,
    plan: &Arc<ListenerPlan>,
    workers: usize,
) -> std::io::Result<Added> {
    let (name, address) = (&plan.name, plan.address);
    let before = bound.get(name).filter(|b| b.configured == address);
    let before = before.or_else(|| bound.values().find(|b| b.sockets.address == address));
    let kept = match before {
        Some(bound) => bound.sockets.duplicate()?,
        None => {
            let same_port = |b: &Bound| b.sockets.address.port() == address.port();
            bind::bind(address, workers, bound.values().any(same_port))?
        }
    };
    Ok(Added {
        plan: plan.clone(),
        given: kept.duplicate()?,
        kept,
    })
}

fn clients(listener: &ListenerPlan) -> Option<ClientRoots> {
    listener.tls.as_ref().and_then(|tls| tls.clients.clone())
}

fn unbound(plan: &Plan, name: &str, address: SocketAddr, error: &std::io::Error) -> Problem {
    let message = format!("listener \"{name}\" cannot be bound to {address}: {error}");
    let listeners = &plan.loaded.config.listeners;
    match listeners.iter().find(|(key, _)| key.value == name) {
        Some((_, section)) => Problem::at(&section.address.span, message),
        None => Problem::general(message),
    }
}
