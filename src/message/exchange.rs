//! What a request is beside its head: who asks, over which connection, and what became of it.
//!
//! [`Conn`] holds the facts of one client connection and never changes. [`Exchange`] is one
//! request and its answer: facts set once by `server/dispatch`, and [`Notes`] that lower layers
//! write for the log line and the metrics of the upper ones. Both sit behind worker-local `Arc`s;
//! the lock of the notes is never contended and never held across an await.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;

use super::Interims;
use super::sketch::Sketch;
use crate::clock;
use crate::error::{Cause, Reason};

/// One client connection.
#[derive(Debug, Clone)]
pub struct Conn {
    /// The listener's name in the config.
    pub listener: Arc<str>,
    /// The other end: of the socket, or as a trusted PROXY header says.
    pub peer: SocketAddr,
    /// The address of the other end, as a field value.
    pub peer_text: HeaderValue,
    /// Our end.
    pub local: SocketAddr,
    /// The peer is in `trusted_proxies`, as the request's plan has them: its forwarding fields are
    /// believed.
    pub trusted: bool,
    /// What TLS said, on a TLS listener.
    pub tls: Option<TlsFacts>,
    /// Interim answers on their way to the client, on HTTP/1.
    pub interims: Arc<Interims>,
}

impl Conn {
    /// A connection from `peer`. IPv4 inside IPv6 counts as IPv4.
    pub fn new(
        listener: Arc<str>,
        peer: SocketAddr,
        local: SocketAddr,
        trusted: bool,
        tls: Option<TlsFacts>,
    ) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let peer_text = HeaderValue::from_str(&peer.ip().to_string());
        let peer_text = peer_text.expect("an address is visible ASCII");
        Conn {
            listener,
            peer,
            peer_text,
            local,
            trusted,
            tls,
            interims: Arc::default(),
        }
    }

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
    /// Which fields its head came with.
    pub sketch: Sketch,
    /// The route's `timeout`: from the request's last byte to the response headers.
    pub timeout: Duration,
    /// Which request of its connection it is, counted from 1; 0 if the client cannot be sent interim
    /// answers, or if nobody waits for the answer.
    turn: u64,
    asked_host: OnceLock<HeaderValue>,
    received: AtomicU64,
    uploading: AtomicBool,
    /// Nanoseconds from `started` to the end of the request body.
    uploaded: AtomicU64,
    /// Nanoseconds from `started` to the last [`look`](Exchange::look).
    looked: AtomicU64,
    /// Nanoseconds, see [`Exchange::waited`].
    waited: AtomicU64,
    notes: Mutex<Notes>,
    held: Mutex<Vec<Lease>>,
    tunnel: OnceLock<Meter>,
}

/// Counts the bytes that pass through a tunnel: up, down.
pub struct Meter(pub Box<dyn Fn(u64, u64) + Send + Sync>);

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
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
    /// What Weir itself failed or refused, if it did.
    pub reason: Option<Reason>,
    /// What policies in observe mode would have refused.
    pub observed: Vec<Reason>,
    /// The lesser answer that was given, if one was.
    pub degraded: Option<(Cause, Step)>,
}

/// A step of the ladder of lesser answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A stored copy past its freshness.
    Stale,
    /// Another upstream.
    Upstream,
    /// A fixed answer.
    Respond,
}

impl Step {
    /// All steps and their words, in the order of their discriminants.
    pub const ALL: &'static [(Step, &'static str)] = &[
        (Step::Stale, "stale"),
        (Step::Upstream, "upstream"),
        (Step::Respond, "respond"),
    ];

    /// The word for config, metrics, logs and answers.
    pub fn as_str(self) -> &'static str {
        Step::ALL[self as usize].1
    }
}

impl Exchange {
    /// A new request.
    pub fn new(
        conn: Arc<Conn>,
        started: Instant,
        client: IpAddr,
        id: HeaderValue,
        sketch: Sketch,
        timeout: Duration,
    ) -> Self {
        Exchange {
            conn,
            started,
            client,
            id,
            sketch,
            timeout,
            turn: 0,
            asked_host: OnceLock::new(),
            received: AtomicU64::new(0),
            uploading: AtomicBool::new(false),
            uploaded: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            notes: Mutex::default(),
            held: Mutex::default(),
            tunnel: OnceLock::new(),
        }
    }

    /// It is this request of its connection, counted from 1, and takes interim answers.
    #[must_use]
    pub fn in_turn(mut self, turn: u64) -> Self {
        self.turn = turn;
        self
    }

    /// Whether others of its connection may be read in the same turn: HTTP/2.
    pub fn is_one_of_many(&self) -> bool {
        self.turn == 0
    }

    /// Whether interim answers can be passed on.
    pub fn takes_interims(&self) -> bool {
        self.turn > 0
    }

    /// Passes an interim answer on to the client.
    pub fn interim(&self, status: StatusCode, fields: &HeaderMap) {
        self.conn.interims.pass(self.turn, status, fields);
    }

    /// The request becomes a tunnel, whose bytes are counted by `meter`; the first one counts.
    pub fn meter(&self, meter: Meter) {
        self.tunnel.get_or_init(|| meter);
    }

    /// Bytes have passed through the tunnel that the request became.
    pub fn tunnelled(&self, up: u64, down: u64) {
        if let Some(Meter(count)) = self.tunnel.get() {
            count(up, down);
        }
    }

    /// Looks at the clock for this request, as whoever has let it wait does: what follows at once
    /// takes the time from [`as_of`](Exchange::as_of).
    pub fn look(&self) -> Instant {
        let now = clock::now();
        self.looked.store(self.since_start(now), Relaxed);
        now
    }

    /// In nanoseconds.
    fn since_start(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.started))
    }

    /// The time when the clock was last looked at for this request: now, but for what was done
    /// without waiting.
    pub fn as_of(&self) -> Instant {
        self.started + Duration::from_nanos(self.looked.load(Relaxed))
    }

    /// Time spent waiting for upstreams, to their response headers.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Relaxed))
    }

    /// Adds to it. A request waits for one thing at a time.
    pub fn add_wait(&self, time: Duration) {
        let waited = self.waited.load(Relaxed).saturating_add(nanos(time));
        self.waited.store(waited, Relaxed);
    }

    /// Writes into the notes.
    pub fn note(&self, write: impl FnOnce(&mut Notes)) {
        write(&mut self.notes.lock());
    }

    /// Reads one of the notes.
    pub fn noted<T>(&self, read: impl FnOnce(&Notes) -> T) -> T {
        read(&self.notes.lock())
    }

    /// The notes as they stand.
    pub fn notes(&self) -> Notes {
        self.notes.lock().clone()
    }

    /// A policy in observe mode would have refused.
    pub fn observe(&self, reason: Reason) {
        self.note(|notes| notes.observed.push(reason));
    }

    /// Keeps something until the request is over: with its last byte, or with its tunnel, which
    /// has the exchange to its end.
    pub fn hold(&self, lease: Lease) {
        self.held.lock().push(lease);
    }

    /// The route's time begins anew at `now`, for a lesser answer by another upstream; or at the
    /// end of the request body, while that is still coming.
    pub fn begin_anew(&self, now: Instant) {
        if self.due().is_some() {
            self.upload_ends(now);
        }
    }

    /// The Host that the client sent, before another is put in its place. The first one counts: a
    /// lesser answer may rewrite again.
    pub fn keep_host(&self, host: HeaderValue) {
        self.asked_host.get_or_init(|| host);
    }

    /// The Host that the client sent, where it was rewritten.
    pub fn asked_host(&self) -> Option<&HeaderValue> {
        self.asked_host.get()
    }

    /// The request has a body that is still to come.
    pub fn upload_begins(&self) {
        self.uploading.store(true, Relaxed);
    }

    /// More of the request body has come.
    pub fn upload_grows(&self, bytes: u64) {
        self.received
            .store(self.received.load(Relaxed) + bytes, Relaxed);
    }

    /// The last byte of the request body has come, or no more will be read.
    pub fn upload_ends(&self, now: Instant) {
        self.uploading.store(false, Relaxed);
        self.uploaded.store(self.since_start(now), Relaxed);
    }

    /// Bytes of the request body so far.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// When the response headers are due; `None` while the request body is still coming, since
    /// then the client's own pace counts (and its body timeout).
    pub fn due(&self) -> Option<Instant> {
        if self.uploading.load(Relaxed) {
            return None;
        }
        let uploaded = Duration::from_nanos(self.uploaded.load(Relaxed));
        Some(self.started + uploaded + self.timeout)
    }
}

/// The exchange of a request. `dispatch` puts one on every request it lets in.
pub fn of<B>(request: &http::Request<B>) -> Option<&Arc<Exchange>> {
    request.extensions().get::<Arc<Exchange>>()
}

/// On a request that may leave HTTP: the protocol it asks for. Written by `upgrade`, read by
/// `forward`, which makes the fields of the next hop.
#[derive(Debug, Clone)]
pub struct Upgrading(pub HeaderValue);

/// On an answer that leaves HTTP: what its upstream connection holds until it is closed. Written by
/// `upstream/send`, kept by whoever joins both ends.
#[derive(Clone)]
pub struct Lease(pub Arc<dyn Send + Sync>);

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lease")
    }
}

/// How long a client may pause within a body, as its listener says. On requests that have one.
#[derive(Debug, Clone, Copy)]
pub struct BodyIdle(pub Duration);

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
