//! The accept loop of one listener on one worker.
//!
//! Takes a few sockets at each wake and lets others run; pauses at a cap and backs off when
//! descriptors or memory are short, without spinning and with at most one log line a second; hands
//! a fresh socket to the worker with the fewest connections when this one holds clearly more. On
//! closing it empties the accept queue first: those clients were told that they are connected.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{Resource, getrlimit};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::SendError;

use super::connection::{self, Accepted, Place};
use super::drain::{Phase, Signal};
use super::slot::{Seat, Slot};
use super::socket::UNSENT;
use super::thread::{Fresh, Local, Order};
use crate::clock;
use crate::plan::listener::ListenerPlan;
use crate::telemetry::handles::Refused;

/// Sockets taken before others run.
const BATCH: usize = 16;
/// How often a paused loop looks whether it may go on.
const PAUSE: Duration = Duration::from_millis(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// What clients leave of the descriptors to upstreams, the operator and files: one in so many, and
/// no fewer than [`LEAST_RESERVE`].
const RESERVE: u64 = 16;
const LEAST_RESERVE: u64 = 32;
const LAST_BACKOFF: Duration = Duration::from_secs(1);
/// The kernel's own limit on unacknowledged data, behind `write_timeout`.
const USER_TIMEOUT_SLACK: Duration = Duration::from_secs(15);
/// The kernel takes milliseconds that fit 31 bits.
const LONGEST_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX.unsigned_abs() as u64);

/// One listener on one worker.
pub(super) struct AcceptLoop {
    /// As it was when the socket was bound: where a reload has removed the listener, clients in
    /// its queue are still served by this.
    pub(super) first: Arc<ListenerPlan>,
    pub(super) socket: TcpListener,
    pub(super) local: Arc<Local>,
    pub(super) signal: Signal,
    /// This listener's connections, over all workers.
    pub(super) open: Arc<AtomicU32>,
}

impl AcceptLoop {
    /// Accepts until closing begins; then empties the queue and closes the socket.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        tokio::select! {
            () = self.signal.clone().reached(Phase::Closing) => {}
            () = async { loop { self.turn(&mut backoff).await } } => {}
        }
        self.empty();
    }

    /// Takes all that is in the queue. The kernel is asked and not tokio, which may not have heard
    /// of the last ones yet.
    fn empty(&self) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        loop {
            let taken = match rustix::net::accept_with(&self.socket, flags) {
                Ok(taken) => taken,
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(_) => return,
            };
            let stream = TcpStream::from_std(taken.into());
            if let Ok((stream, peer)) = stream.and_then(|s| s.peer_addr().map(|p| (s, p))) {
                self.place(stream, peer);
            }
        }
    }

    /// One wake: waits for room and a client, takes a few.
    async fn turn(&self, backoff: &mut Backoff) {
        self.room().await;
        let mut taken = Some(self.socket.accept().await);
        // Nothing is taken that is not placed: a client would be dropped unseen.
        for left in (0..BATCH).rev() {
            match taken {
                Some(Ok((stream, peer))) => {
                    let scarce = is_scarce(stream.as_raw_fd());
                    self.place(stream, peer);
                    if scarce {
                        return self.spare(backoff).await;
                    }
                    backoff.clear();
                }
                Some(Err(error)) if is_short(&error) => {
                    self.count(Refused::Descriptors);
                    return backoff.wait(&self.first.name, &error).await;
                }
                // the client went away before we came (ECONNABORTED, EPROTO)
                Some(Err(_)) => {}
                None => return,
            }
            if left == 0 || self.is_full() {
                break;
            }
            taken = now(&self.socket).await;
        }
        tokio::task::yield_now().await;
    }

    fn plan(&self) -> Arc<ListenerPlan> {
        let current = self.local.worker.listener(&self.first.name);
        current.unwrap_or_else(|| self.first.clone())
    }

    /// Two workers may find the last place at the same moment: the caps can be passed by one
    /// connection for each further worker.
    fn is_full(&self) -> bool {
        let plan = self.local.worker.view().plan.clone();
        let own = plan.listeners.get(&self.first.name);
        let cap = own.and_then(|l| l.max_connections).unwrap_or(u32::MAX);
        self.local.counts.total() >= plan.server.max_connections || self.open.load(Relaxed) >= cap
    }

    /// Waits until there is room below the caps. Each pause in which a client waits counts.
    async fn room(&self) {
        while self.is_full() {
            if self.has_waiting() {
                self.count(Refused::Cap);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a client is in the queue; the kernel is asked and does not wait.
    fn has_waiting(&self) -> bool {
        let mut queue = [PollFd::new(&self.socket, PollFlags::IN)];
        let at_once = Timespec::default();
        matches!(rustix::event::poll(&mut queue, Some(&at_once)), Ok(1..))
    }

    /// Waits until clients may take descriptors again.
    async fn spare(&self, backoff: &mut Backoff) {
        self.count(Refused::Descriptors);
        loop {
            backoff.wait(&self.first.name, &Errno::MFILE.into()).await;
            // the kernel gives the lowest free number: a copy of a socket shows it
            let probe = rustix::io::fcntl_dupfd_cloexec(&self.socket, 0);
            if probe.is_ok_and(|probe| !is_scarce(probe.as_raw_fd())) {
                return backoff.clear();
            }
        }
    }

    fn count(&self, why: Refused) {
        let cells = self.first.metrics.of(self.local.worker.index);
        cells.refused[why as usize].inc();
    }

    /// Serves a fresh socket here, or hands it to the worker with the fewest.
    fn place(&self, stream: TcpStream, peer: SocketAddr) {
        let own = self.local.worker.index;
        self.local.worker.metrics.worker.of(own).accepts.inc();
        let target = match self.signal.phase() {
            Phase::Closing | Phase::Aborting => own,
            _ => self.local.counts.place(own),
        };
        if target == own {
            return self.keep(stream, peer);
        }
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let fresh = Fresh {
            plan: self.plan(),
            stream,
            peer,
            seat: self.seat(target),
        };
        // a peer that has ended before this worker heard of the end
        if let Err(SendError(Order::Serve(fresh))) =
            self.local.peers[target].send(Order::Serve(fresh))
            && let Ok(stream) = TcpStream::from_std(fresh.stream)
        {
            self.keep(stream, peer);
        }
    }

    fn keep(&self, stream: TcpStream, peer: SocketAddr) {
        let seat = self.seat(self.local.worker.index);
        let signal = self.signal.clone();
        serve(&self.local, self.plan(), seat, signal, stream, peer);
    }

    fn seat(&self, worker: usize) -> Seat {
        Seat::take(worker, self.local.counts.clone(), self.open.clone())
    }
}

/// Starts a connection on this worker.
pub(super) fn serve(
    local: &Local,
    plan: Arc<ListenerPlan>,
    seat: Seat,
    signal: Signal,
    stream: TcpStream,
    peer: SocketAddr,
) {
    prepare(&stream, &plan);
    let slot = Slot::new(seat, local.worker.metrics.clone(), plan.metrics.clone());
    let place = Place {
        plan,
        worker: local.worker.clone(),
        handshakes: local.handshakes.clone(),
        signal,
        slot,
    };
    tokio::spawn(connection::serve(Accepted {
        stream,
        peer,
        place,
    }));
}

/// Socket options. They are worth having and not worth losing a client for.
fn prepare(stream: &TcpStream, plan: &ListenerPlan) {
    let timeout = (plan.limits.write_timeout + USER_TIMEOUT_SLACK).min(LONGEST_USER_TIMEOUT);
    let socket = SockRef::from(stream);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(timeout)))
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT));
    if let Err(error) = set {
        tracing::debug!(%error, "socket option not set");
    }
}

/// The next client that is in the queue already.
async fn now(socket: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    tokio::select! {
        biased;
        outcome = socket.accept() => Some(outcome),
        () = std::future::ready(()) => None,
    }
}

/// Whether a number that the kernel has just given out lies in the reserve.
fn is_scarce(number: RawFd) -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return false;
    };
    let reserve = (limit / RESERVE).max(LEAST_RESERVE);
    u64::try_from(number).is_ok_and(|number| number >= limit.saturating_sub(reserve))
}

/// Whether accepting failed for want of descriptors or memory, so that trying again at once would
/// only spin.
fn is_short(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// Waiting that doubles, and one log line a second.
#[derive(Default)]
struct Backoff {
    wait: Duration,
    logged: Option<Instant>,
}

impl Backoff {
    fn clear(&mut self) {
        self.wait = Duration::ZERO;
    }

    async fn wait(&mut self, listener: &str, error: &io::Error) {
        self.wait = (self.wait * 2).clamp(FIRST_BACKOFF, LAST_BACKOFF);
        let now = clock::now();
        if self
            .logged
            .is_none_or(|at| now.duration_since(at) >= Duration::from_secs(1))
        {
            self.logged = Some(now);
            tracing::error!(listener, %error, "cannot accept; waiting");
        }
        tokio::time::sleep(self.wait).await;
    }
}
