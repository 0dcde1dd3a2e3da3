//! Speaking HTTP on an open connection: hyper's client with our limits, one task a connection.
//!
//! The task owns the socket and holds the permit that counts it; aborting it closes the socket at
//! once. Buffers, header sizes and windows are bounded here and nowhere else. An answer has hyper's
//! 100 fields at the most: told another number, it would fill room for so many at each answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::caps::Permit;
use super::connect::Io;
use super::driver::Driver;
use crate::error::{GatewayError, Reason};
use crate::message::Body;

const MAX_HEADER_SIZE: usize = 64 * 1024;
const MAX_BUFFER: usize = 128 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
/// Room for many streams whose clients do not read: with little, a few of them would stop all
/// others on the connection. h2 also takes more small frames for an attack the less there is.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// How long the other side of a new HTTP/2 connection may take to say how many streams it allows.
pub(super) const SETTINGS_WAIT: Duration = Duration::from_secs(1);
const SETTINGS_LOOK: Duration = Duration::from_millis(1);
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_ANSWER: Duration = Duration::from_secs(10);

/// A sender of requests on one connection.
pub(super) enum Sender {
    H1(SenderH1),
    /// With the streams the other side allows at once, as of now.
    H2(http2::SendRequest<Body>, Arc<AtomicU32>),
}

/// Sends on an HTTP/1 connection.
pub(super) struct SenderH1 {
    sender: http1::SendRequest<Body>,
    driver: Arc<Driver>,
}

impl SenderH1 {
    /// The connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// A request may be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Waits until a request may be sent.
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        self.sender.ready().await
    }

    /// Sends a request, which leaves `at_once` or in its connection's turn; the future is only the
    /// wait for its answer.
    pub(super) fn send(
        &mut self,
        request: http::Request<Body>,
        at_once: bool,
    ) -> impl Future<Output = Sent> + use<> {
        let sender = &mut self.sender;
        match at_once {
            true => self.driver.at_once(|| sender.try_send_request(request)),
            false => sender.try_send_request(request),
        }
    }
}

/// An answer, or what came instead, with the request if no byte of it has left.
pub(super) type Sent =
    Result<http::Response<Incoming>, hyper::client::conn::TrySendError<http::Request<Body>>>;

/// Begins HTTP on a connection. The handle ends its task and closes the socket.
pub(super) async fn speak(
    io: Io,
    h2: bool,
    permit: Option<Arc<Permit>>,
) -> Result<(Sender, AbortHandle), GatewayError> {
    if h2 {
        speak_h2(io, permit).await
    } else {
        speak_h1(io, permit).await
    }
}

async fn speak_h1(
    io: Io,
    permit: Option<Arc<Permit>>,
) -> Result<(Sender, AbortHandle), GatewayError> {
    let (sender, connection) = http1::Builder::new()
        .max_header_size(MAX_HEADER_SIZE)
        .max_buf_size(MAX_BUFFER)
        .handshake(TokioIo::new(io))
        .await
        .map_err(unspoken)?;
    let (driver, task) = Driver::new(async move {
        let ended = connection.with_upgrades().await;
        if let Err(error) = ended {
            tracing::debug!(%error, "upstream connection ended");
        }
        drop(permit);
    });
    let task = tokio::spawn(task);
    Ok((Sender::H1(SenderH1 { sender, driver }), task.abort_handle()))
}

async fn speak_h2(
    io: Io,
    permit: Option<Arc<Permit>>,
) -> Result<(Sender, AbortHandle), GatewayError> {
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_SIZE as u32)
        .initial_max_send_streams(0)
        .max_send_buf_size(MAX_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await
        .map_err(unspoken)?;
    let allowed = Arc::new(AtomicU32::new(limit(connection.current_max_send_streams())));
    let told = Arc::clone(&allowed);
    let (settled, settings) = oneshot::channel();
    let mut settled = Some(settled);
    let mut look = tokio::time::interval(SETTINGS_LOOK);
    let task = tokio::spawn(async move {
        let driven = std::future::poll_fn(|cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            let streams = limit(connection.current_max_send_streams());
            told.store(streams, Relaxed);
            if streams > 0 {
                // Nobody may wait for this any more; that is fine.
                settled.take().map(|s| s.send(()));
            }
            // hyper reads SETTINGS in a task of its own and tells nobody: look until they are here.
            while settled.as_ref().is_some_and(|s| !s.is_closed()) && look.poll_tick(cx).is_ready()
            {
            }
            polled
        });
        if let Err(error) = driven.await {
            tracing::debug!(%error, "upstream connection ended");
        }
        drop(permit);
    });
    // Before its SETTINGS are here the other side may refuse any stream but the first.
    match tokio::time::timeout(SETTINGS_WAIT, settings).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(gone)) => {
            return Err(GatewayError::caused(Reason::ConnectionTerminated, gone).never_sent());
        }
    }
    Ok((Sender::H2(sender, allowed), task.abort_handle()))
}

fn limit(streams: usize) -> u32 {
    u32::try_from(streams).unwrap_or(u32::MAX)
}

fn unspoken(error: hyper::Error) -> GatewayError {
    GatewayError::caused(Reason::ConnectionTerminated, error).never_sent()
}
