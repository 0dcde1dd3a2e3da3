//! The endpoints in force: built from the config and the last good answer for each name.
//!
//! Names are resolved on the control thread by the system's resolver, at start and at every
//! `resolve_interval`, never for a request. A failed lookup, a slow one or an empty answer keeps
//! what was known. Every address of a name becomes an endpoint that shares the name's weight. A
//! worker compares one number to see whether anything changed.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rustls_pki_types::ServerName;
use tokio::task::JoinSet;

use super::balance::Ring;
use super::breaker::Breaker;
use super::endpoint::{Endpoint, Standing};

/// One entry of `endpoints`, compiled.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) written: Arc<str>,
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) weight: u16,
    pub(super) priority: u8,
    pub(super) zone: Option<Arc<str>>,
    pub(super) near: bool,
    pub(super) server_name: Option<ServerName<'static>>,
}

impl Spec {
    /// The address, when the host is one.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }
}

/// Addresses by entry as written.
pub(super) type Answers = BTreeMap<Arc<str>, Vec<SocketAddr>>;

/// The endpoints at one moment.
#[derive(Debug, Default)]
pub(super) struct EndpointSet {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) ring: Option<Ring>,
}

/// The endpoints in force, and a number that rises with every change of them or of how they stand.
#[derive(Debug)]
pub(super) struct Live {
    specs: Vec<Spec>,
    hashed: bool,
    /// Endpoints have breakers, for this many workers.
    guarded: Option<usize>,
    set: RwLock<Arc<EndpointSet>>,
    answers: RwLock<Answers>,
    generation: AtomicU64,
}

/// How long one lookup may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// Lookups of one upstream that run at once.
const AT_ONCE: usize = 16;
/// Addresses of one name that are used.
const MOST_ADDRESSES: usize = 256;

impl Live {
    /// From the config; what an earlier set knew by address is taken over, as are the answers for
    /// names that are still there.
    pub(super) fn new(
        specs: Vec<Spec>,
        hashed: bool,
        guarded: Option<usize>,
        previous: Option<&Live>,
        now: Instant,
    ) -> Self {
        let answers = previous
            .map(|p| p.answers.read().clone())
            .unwrap_or_default();
        let before = previous.map(Live::set);
        let mut live = Live {
            specs,
            hashed,
            guarded,
            set: RwLock::default(),
            answers: RwLock::new(answers),
            generation: AtomicU64::new(1),
        };
        let set = live.build(before.as_deref(), now);
        *live.set.get_mut() = Arc::new(set);
        live
    }

    /// The endpoints in force.
    pub(super) fn set(&self) -> Arc<EndpointSet> {
        Arc::clone(&self.set.read())
    }

    /// The number that rises with every change.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Nobody checks any more: what the last checks found is forgotten.
    pub(super) fn trust_all(&self) {
        let now = crate::clock::now();
        let mut turned = false;
        for endpoint in &self.set().endpoints {
            turned |= endpoint.standing.set_unhealthy(false, now);
        }
        if turned {
            self.changed();
        }
    }

    /// An endpoint stands differently now.
    pub(super) fn changed(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    /// Some entry is a name.
    pub(super) fn has_names(&self) -> bool {
        self.specs.iter().any(|s| s.literal().is_none())
    }

    /// The entries without any address yet, as written.
    pub(super) fn unresolved(&self) -> Vec<Spec> {
        let answers = self.answers.read();
        let unknown = |s: &&Spec| s.literal().is_none() && !answers.contains_key(&s.written);
        self.specs.iter().filter(unknown).cloned().collect()
    }

    /// Asks for every name once, a bounded number at a time, and puts each answer in force as it
    /// comes: a name that is dead or slow keeps no other waiting.
    pub(super) async fn resolve(&self) {
        let mut names = self.specs.iter().filter(|s| s.literal().is_none());
        let mut lookups = JoinSet::new();
        for spec in names.by_ref().take(AT_ONCE) {
            lookups.spawn(lookup(spec.clone()));
        }
        while let Some(answer) = lookups.join_next().await {
            if let Some(spec) = names.next() {
                lookups.spawn(lookup(spec.clone()));
            }
            if let Ok(Some((written, found))) = answer {
                self.learn(written, found);
            }
        }
    }

    fn learn(&self, written: Arc<str>, found: Vec<SocketAddr>) {
        let old = self.answers.write().insert(written, found.clone());
        if old.as_ref() != Some(&found) {
            self.rebuild();
        }
    }

    fn rebuild(&self) {
        let before = self.set();
        let set = self.build(Some(&before), crate::clock::now());
        *self.set.write() = Arc::new(set);
        self.changed();
    }

    fn build(&self, before: Option<&EndpointSet>, now: Instant) -> EndpointSet {
        let answers = self.answers.read();
        let warm = before.is_none_or(|set| set.endpoints.is_empty());
        let known = before.iter().flat_map(|set| set.endpoints.iter().rev());
        let known: HashMap<SocketAddr, &Arc<Endpoint>> = known.map(|e| (e.address, e)).collect();
        let breaker = |known: Option<&Arc<Endpoint>>| {
            let workers = self.guarded?;
            let kept = known.and_then(|e| e.breaker.clone());
            Some(kept.unwrap_or_else(|| Arc::new(Breaker::new(workers, now))))
        };
        let addresses = |spec: &Spec| match spec.literal() {
            Some(address) => vec![address],
            None => answers.get(&spec.written).cloned().unwrap_or_default(),
        };
        let all = self.specs.iter();
        let all = all.flat_map(|spec| addresses(spec).into_iter().map(move |a| (spec, a)));
        let endpoint = |(spec, address): (&Spec, SocketAddr)| {
            let known = known.get(&address).copied();
            Arc::new(Endpoint {
                address,
                written: Arc::clone(&spec.written),
                server_name: spec.server_name.clone(),
                weight: spec.weight,
                priority: spec.priority,
                zone: spec.zone.clone(),
                near: spec.near,
                standing: known.map_or_else(
                    || Arc::new(Standing::new(now, warm)),
                    |e| Arc::clone(&e.standing),
                ),
                breaker: breaker(known),
            })
        };
        let endpoints: Vec<Arc<Endpoint>> = all.map(endpoint).collect();
        let ring = self.hashed.then(|| ring(&endpoints));
        EndpointSet { endpoints, ring }
    }
}

/// A name as written and its sorted addresses, or nothing if there is no usable answer.
async fn lookup(spec: Spec) -> Option<(Arc<str>, Vec<SocketAddr>)> {
    let (host, port) = (Arc::clone(&spec.host), spec.port);
    let asked = tokio::task::spawn_blocking(move || {
        (&*host, port).to_socket_addrs().map(Iterator::collect)
    });
    let answer: std::io::Result<Vec<SocketAddr>> = match tokio::time::timeout(LOOKUP, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    match answer {
        Ok(mut found) if !found.is_empty() => {
            found.sort_unstable();
            found.dedup();
            found.truncate(MOST_ADDRESSES);
            Some((spec.written, found))
        }
        Ok(_) => {
            tracing::warn!(name = %spec.written, "no address for an upstream name; keeping what is known");
            None
        }
        Err(error) => {
            tracing::warn!(name = %spec.written, %error, "cannot resolve an upstream name; keeping what is known");
            None
        }
    }
}

fn ring(endpoints: &[Arc<Endpoint>]) -> Ring {
    let names: Vec<String> = endpoints.iter().map(|e| e.address.to_string()).collect();
    let named = names.iter().zip(endpoints);
    Ring::new(named.map(|(name, e)| (name.as_bytes(), e.weight)))
}
