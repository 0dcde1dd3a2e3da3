//! What a request is beside its head: who asks, over which connection, and what became of it.
//!
//! [`Conn`] holds the facts of one client connection and never changes. [`Exchange`] is one
//! request and its answer: facts set once by `server/dispatch`, and [`Notes`] that lower layers
//! write for the log line and the metrics of the upper ones. Both sit behind worker-local `Arc`s;
//! the lock of the notes is never contended and never held across an await.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;

use crate::error::Reason;

/// One client connection.
#[derive(Debug)]
pub struct Conn {
    /// The listener's name in the config.
    pub listener: Arc<str>,
    /// The other end: of the socket, or as a trusted PROXY header says.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// The peer is in `trusted_proxies`: its forwarding fields are believed.
    pub trusted: bool,
    /// What TLS said, on a TLS listener.
    pub tls: Option<TlsFacts>,
}

impl Conn {
    /// `"https"` on a TLS listener, else `"http"`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// What the TLS handshake established.
#[derive(Debug, Clone, Default)]
pub struct TlsFacts {
    /// The name the client asked for (SNI), lower case, if any.
    pub server_name: Option<String>,
    /// The subject of the verified client certificate, if one was given.
    pub client_subject: Option<String>,
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    /// The connection it came on.
    pub conn: Arc<Conn>,
    /// When its headers were read.
    pub started: Instant,
    /// The client's address: the peer, or what trusted proxies say of it.
    pub client: IpAddr,
    /// The request id: kept from a trusted peer, else made.
    pub id: HeaderValue,
    notes: Mutex<Notes>,
}

/// What became of a request, written on the way and read at its end.
#[derive(Debug, Default, Clone)]
pub struct Notes {
    /// The upstream that was asked last (its config name).
    pub upstream: Option<Arc<str>>,
    /// The endpoint that was asked last.
    pub endpoint: Option<SocketAddr>,
    /// Tries made at upstreams.
    pub tries: u32,
    /// Time spent waiting for upstreams, to their response headers.
    pub waited: Duration,
    /// What Weir itself failed or refused, if it did.
    pub reason: Option<Reason>,
}

impl Exchange {
    /// A new request.
    pub fn new(conn: Arc<Conn>, started: Instant, client: IpAddr, id: HeaderValue) -> Self {
        Exchange {
            conn,
            started,
            client,
            id,
            notes: Mutex::default(),
        }
    }

    /// Writes into the notes.
    pub fn note(&self, write: impl FnOnce(&mut Notes)) {
        write(&mut self.notes.lock());
    }

    /// The notes as they stand.
    pub fn notes(&self) -> Notes {
        self.notes.lock().clone()
    }
}

/// The exchange of a request. `dispatch` puts one on every request it lets in.
pub fn of<B>(request: &http::Request<B>) -> Option<&Arc<Exchange>> {
    request.extensions().get::<Arc<Exchange>>()
}

/// When the route's `timeout` ends a request: an extension that `deadline` puts on it, so that no
/// further try begins after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Instant);
