//! One client connection from its first byte to its last.
//!
//! PROXY header, TLS, protocol detection, each under `header_timeout`; then hyper over
//! [`ClientIo`], with one timer for the whole life of the connection (see `drive`, `pulse`), and
//! without hyper while an HTTP/1 connection rests. On closing, HTTP/1 answers carry
//! `Connection: close` and an idle connection goes a second later; HTTP/2 gets GOAWAY. At the
//! deadline the connection is cut and its open requests are counted.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;

use super::detect::{self, Version};
use super::dispatch::Dispatch;
use super::drain::Signal;
use super::drive::{End, FINISH, Kind, drive};
use super::frames::Frames;
use super::guard::Guard;
use super::io::{ClientIo, Inspect};
use super::multiplex::Multiplex;
use super::pulse::Pulse;
use super::rest::{self, Rest};
use super::service::Counted;
use super::slot::Slot;
use super::socket::{Socket, Taken};
use super::streams::Streams;
use super::worker::Worker;
use super::{proxy_protocol, tls};
use crate::clock;
use crate::message::Conn;
use crate::message::exchange::TlsFacts;
use crate::plan::listener::{Limits, ListenerPlan, TlsPlan};
use crate::telemetry::handles::{ListenerCells, Refused, Violation};

const H2_STREAM_WINDOW: u32 = 64 << 10;
/// h2 lets through half as many bytes of small unread frames, each counted as 256: enough for one
/// stream's window of the smallest messages.
const H2_CONNECTION_WINDOW: u32 = 4 << 20;
const H2_FRAME: u32 = 16 << 10;
const H2_SEND_BUFFER: usize = 64 << 10;
const H2_PING: Duration = Duration::from_secs(30);
const H2_LOCAL_RESETS: usize = 200;
/// What hyper takes where it is not told. Where it is, it fills the room for as many fields anew for
/// each request.
const HYPERS_HEADERS: usize = 100;
/// hyper asks for at least this much.
const LEAST_BUFFER: usize = 8 << 10;

/// An accepted socket and where it belongs.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
}

/// What a connection belongs to.
pub(super) struct Place {
    pub(super) plan: Arc<ListenerPlan>,
    pub(super) worker: Arc<Worker>,
    /// Bounds handshakes at once on this worker.
    pub(super) handshakes: Arc<Semaphore>,
    /// The listener's phases, on this worker.
    pub(super) signal: Signal,
    pub(super) slot: Slot,
}

impl Place {
    fn cells(&self) -> &ListenerCells {
        self.plan.metrics.of(self.worker.index)
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        self.worker.view().plan.server.trusts(peer)
    }

    /// What is spoken where the client did not say.
    fn default_version(&self) -> Version {
        if self.plan.http1 {
            Version::Http1
        } else {
            Version::H2
        }
    }
}

/// Serves it to its end.
pub(super) async fn serve(accepted: Accepted) {
    let Accepted {
        mut stream,
        peer,
        place,
    } = accepted;
    let deadline = clock::now() + place.plan.limits.header_timeout;
    let Ok(mut conn) = introduce(&mut stream, peer, &place, deadline).await else {
        return;
    };
    let Some(tls) = place.plan.tls.clone() else {
        if let Ok((version, ahead)) = detect(&mut stream, &place, deadline).await {
            let spoken = Spoken::new(Socket::new(stream), version, ahead, conn, place);
            spoken.until_closed().await;
        }
        return;
    };
    // Boxed, with its result as small: the room would be this connection's to its end.
    let shaken = Box::pin(async move {
        let (stream, facts) = handshake(stream, &tls, &place, deadline).await?;
        let version = tls::version(&stream).unwrap_or(place.default_version());
        conn.tls = Some(facts);
        io::Result::Ok(Spoken::new(stream, version, Bytes::new(), conn, place))
    });
    if let Ok(spoken) = shaken.await {
        spoken.until_closed().await;
    }
}

/// Who is at the other end, as the socket or a PROXY header says.
async fn introduce(
    stream: &mut TcpStream,
    peer: SocketAddr,
    place: &Place,
    deadline: Instant,
) -> io::Result<Conn> {
    let listener = place.plan.name.clone();
    let (local, trusted) = (stream.local_addr()?, place.trusts(peer.ip().to_canonical()));
    if !place.plan.proxy_protocol {
        return Ok(Conn::new(listener, peer, local, trusted, None));
    }
    let read = async {
        if trusted {
            proxy_protocol::read(stream).await
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    };
    // boxed: few connections have one, and none has it for long
    let read = within(deadline, Box::pin(read)).await;
    let refused = &place.cells().refused[Refused::ProxyHeader as usize];
    let (peer, local) = read
        .inspect_err(|_| refused.inc())?
        .unwrap_or((peer, local));
    let trusted = place.trusts(peer.ip().to_canonical());
    Ok(Conn::new(listener, peer, local, trusted, None))
}

async fn handshake(
    stream: TcpStream,
    tls: &TlsPlan,
    place: &Place,
    deadline: Instant,
) -> io::Result<(TlsStream<Socket<TcpStream>>, TlsFacts)> {
    let started = clock::now();
    let shaken = within(
        deadline,
        tls::accept(tls, Socket::new(stream), &place.handshakes),
    );
    let cells = place.cells();
    let shaken = shaken.await;
    let shaken = shaken.inspect_err(|_| cells.refused[Refused::Tls as usize].inc())?;
    cells
        .tls_handshake
        .observe(clock::now().duration_since(started));
    Ok(shaken)
}

/// The version a cleartext client speaks, and what was read to tell.
async fn detect(
    stream: &mut TcpStream,
    place: &Place,
    deadline: Instant,
) -> io::Result<(Version, Bytes)> {
    if !(place.plan.http1 && place.plan.h2) {
        return Ok((place.default_version(), Bytes::new()));
    }
    let found = within(deadline, detect::version(stream)).await;
    found.inspect_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut {
            place.cells().refused[Refused::DetectTimeout as usize].inc();
        }
    })
}

async fn within<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout_at(deadline.into(), work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A connection whose version is known, and what serves it.
struct Spoken<S> {
    version: Version,
    io: Box<ClientIo<S>>,
    service: Arc<Counted>,
    plan: Arc<ListenerPlan>,
    worker: Arc<Worker>,
    pulse: Arc<Pulse>,
    signal: Signal,
}

impl<S> Spoken<S>
where
    S: AsyncRead + AsyncWrite + Taken + Send + Unpin + 'static,
{
    fn new(stream: S, version: Version, ahead: Bytes, conn: Conn, place: Place) -> Self {
        let Place {
            plan,
            worker,
            signal,
            slot,
            ..
        } = place;
        let limits = plan.limits;
        let pulse = Arc::new(Pulse::new(&limits, version == Version::H2));
        let cells = plan.metrics.of(worker.index);
        let (inspect, verdict) = match version {
            Version::Http1 => {
                cells.http1.inc();
                let guard = Guard::new(limits.header_bytes);
                let verdict = guard.verdict();
                (Inspect::Heads(guard), Some(verdict))
            }
            Version::H2 => {
                cells.h2.inc();
                (Inspect::Frames(Frames::default()), None)
            }
        };
        let wait = limits.write_timeout;
        let conn = Arc::new(conn);
        let interims = (version == Version::Http1).then(|| conn.interims.clone());
        let io = ClientIo::new(stream, ahead, inspect, pulse.clone(), wait, slot);
        let io = match &interims {
            Some(interims) => io.between(interims.clone()),
            None => io,
        };
        let dispatch = Dispatch::new(worker.clone(), plan.clone(), conn, verdict);
        let service = Counted::new(dispatch, pulse.clone(), interims);
        Spoken {
            version,
            io: Box::new(io),
            service: Arc::new(service),
            plan,
            worker,
            pulse,
            signal,
        }
    }

    /// HTTP, from the first byte to the last.
    async fn until_closed(self) {
        let version = self.version;
        let (pulse, plan) = (self.pulse.clone(), self.plan.clone());
        let worker = self.worker.clone();
        let end = match version {
            Version::Http1 => self.http1().await,
            Version::H2 => self.h2().await,
        };
        let cells = plan.metrics.of(worker.index);
        match end {
            End::Done(_) if let Some(violation) = pulse.blamed() => {
                cells.violations[violation as usize].inc();
            }
            End::Done(Ok(())) => pulse.release(),
            End::Done(Err(error)) => count(&error, version, cells),
            End::Rest | End::Due { stalled: false } => {}
            End::Due { stalled: true } => cells.violations[Violation::Stall as usize].inc(),
            End::Cut { unfinished } => {
                let worker = worker.metrics.worker.of(worker.index);
                worker.drain_aborted_requests.add(u64::from(unfinished));
            }
        }
    }

    /// hyper while there is something to do; in between the connection rests.
    async fn http1(self) -> End<hyper::Result<()>> {
        let (mut io, pulse, signal) = (self.io, &*self.pulse, &self.signal);
        loop {
            let (loan, home) = rest::lend(io);
            let hyper = http1(&self.plan.limits);
            let hyper = hyper.serve_connection(TokioIo::new(loan), self.service.clone());
            // boxed, so that a connection at rest has no room for it
            let mut hyper = Box::pin(hyper.with_upgrades());
            let finish =
                |hyper: Pin<&mut http1::UpgradeableConnection<_, _>>| hyper.graceful_shutdown();
            let end = drive(hyper.as_mut(), finish, Kind::Http1, pulse, signal).await;
            drop(hyper);
            let back = matches!(end, End::Rest).then(|| home.take()).flatten();
            let Some(back) = back else {
                return end;
            };
            io = back;
            let rest = pin!(Rest::new(&mut io));
            let finish = |mut rest: Pin<&mut Rest<'_, S>>| rest.finish();
            match drive(rest, finish, Kind::Resting, pulse, signal).await {
                End::Done(Ok(true)) => {}
                End::Cut { unfinished } => return End::Cut { unfinished },
                End::Done(_) | End::Rest | End::Due { .. } => {
                    // the client may be gone, and knows when it closes if not
                    drop(tokio::time::timeout(FINISH, io.shutdown()).await);
                    return End::Done(Ok(()));
                }
            }
        }
    }

    async fn h2(self) -> End<hyper::Result<()>> {
        let (pulse, signal) = (&self.pulse, &self.signal);
        let streams = Streams::new(pulse.clone(), self.plan.clone(), self.worker.index);
        let begun = streams.begun();
        let hyper = http2(&self.plan.limits, streams);
        let hyper = hyper.serve_connection(TokioIo::new(self.io), self.service);
        let connection = pin!(Multiplex::new(hyper, begun, pulse.clone()));
        let finish = |connection: Pin<&mut Multiplex<http2::Connection<_, _, _>>>| {
            connection.get_mut().hyper().graceful_shutdown();
        };
        drive(connection, finish, Kind::H2, pulse, signal).await
    }
}

fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    if limits.headers != HYPERS_HEADERS {
        builder.max_headers(limits.headers);
    }
    builder
        .timer(TokioTimer::new())
        // the pulse has this timer, and one for idling that does not start anew at each request
        .header_read_timeout(None)
        .half_close(true)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(LEAST_BUFFER) + LEAST_BUFFER);
    builder
}

fn http2(limits: &Limits, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_frame_size(H2_FRAME)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_local_error_reset_streams(H2_LOCAL_RESETS)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING);
    builder
}

/// What a failed connection says of its client.
fn count(error: &hyper::Error, version: Version, cells: &ListenerCells) {
    let violation = match version {
        _ if error.is_parse_too_large() => Violation::FieldSize,
        _ if error.is_parse() => Violation::Parse,
        _ if error.is_timeout() => Violation::Stall,
        Version::H2 if is_h2_violation(error) => Violation::H2,
        _ => return,
    };
    cells.violations[violation as usize].inc();
}

/// Whether it was we who ended the connection for what the client sent.
fn is_h2_violation(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.is_library() && h2.is_go_away();
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_connection_needs_while_it_rests_is_small() {
        fn size<A, F>(_: impl Fn(A) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let size = size(super::serve);
        assert!(size <= 2048, "{size} bytes: box what is rare or soon over");
    }
}
