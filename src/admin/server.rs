//! The connections of the admin address and their limits.
//!
//! Its own small numbers, apart from those of the data path: a slow or silent client is cut, no
//! connection lives long, and no more than [`CONNECTIONS`] do at once; where they are all taken the
//! oldest makes room, so that nobody can hold them. On the scrape address, which anybody in the
//! network may reach, a connection is good for one answer. A handler that panics answers 500 and
//! takes nothing else along.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tower::Layer;
use tower_http::body::UnsyncBoxBody;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use super::endpoints::{self, Place};
use super::{Context, Scope};
use crate::error::BoxError;

/// Connections at once; one more ends the oldest.
const CONNECTIONS: usize = 64;
/// To read a request's head, and to wait for the next one.
const HEADER: Duration = Duration::from_secs(5);
/// To answer; a reload of a large config takes a while.
const ANSWER: Duration = Duration::from_secs(30);
/// A connection this old takes no further request, and is cut at twice its age.
const AGE: Duration = Duration::from_secs(60);
/// A connection of the scrape address ends after this, whoever is slow.
const SCRAPE: Duration = Duration::from_secs(5);
/// No endpoint reads a body; this much is let pass.
const BODY: usize = 64 * 1024;
/// After a failed accept (no descriptors left).
const BACKOFF: Duration = Duration::from_millis(100);

/// Serves until dropped. Connections end with it.
pub async fn serve(listener: TcpListener, scope: Scope, context: Arc<dyn Context>) {
    let loopback = listener.local_addr().is_ok_and(|a| a.ip().is_loopback());
    let place = Place { scope, loopback };
    let (mut connections, mut oldest) = (JoinSet::new(), VecDeque::new());
    let mut failing = false;
    loop {
        while let Some(ended) = connections.try_join_next() {
            reap(Some(ended));
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                make_room(&mut oldest);
                oldest.push_back(connections.spawn(connection(stream, place, context.clone())));
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the admin address cannot accept");
                }
                sleep(BACKOFF).await;
            }
        }
    }
}

/// Lets go of those that have ended, and ends the oldest where there is no place yet.
fn make_room(oldest: &mut VecDeque<AbortHandle>) {
    oldest.retain(|connection| !connection.is_finished());
    if oldest.len() >= CONNECTIONS
        && let Some(connection) = oldest.pop_front()
    {
        connection.abort();
    }
}

fn reap(ended: Option<Result<(), JoinError>>) {
    if let Some(Err(error)) = ended
        && !error.is_cancelled()
    {
        tracing::warn!(%error, "an admin connection failed");
    }
}

async fn connection(stream: TcpStream, place: Place, context: Arc<dyn Context>) {
    // a client that hurries or vanishes is no news
    if let Err(error) = converse(stream, place, context).await {
        tracing::debug!(%error, "admin connection");
    }
}

async fn converse(
    stream: TcpStream,
    place: Place,
    context: Arc<dyn Context>,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER)
            .keep_alive(place.scope == Scope::Full)
            .max_headers(64)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service(place, context))
    );
    let (whole, rest) = match place.scope {
        Scope::Full => (AGE, AGE),
        Scope::ScrapeOnly => (SCRAPE, Duration::ZERO),
    };
    if let Ok(ended) = timeout(whole, connection.as_mut()).await {
        return Ok(ended?);
    }
    connection.as_mut().graceful_shutdown();
    match timeout(rest, connection).await {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// What the layers make of an endpoint's body.
type Answer = UnsyncBoxBody<Bytes, BoxError>;

/// hyper's service over the endpoints: panics caught, bodies and answers limited.
fn service(
    place: Place,
    context: Arc<dyn Context>,
) -> impl Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible, Future: Send>
{
    let answer = tower::service_fn(move |request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(endpoints::answer(request, place, &*context).await) }
    });
    let limited = RequestBodyLimitLayer::new(BODY).layer(answer);
    let timed =
        TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER).layer(limited);
    TowerToHyperService::new(CatchPanicLayer::new().layer(timed))
}
