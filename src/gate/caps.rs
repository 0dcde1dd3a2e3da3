//! The caps of one route or one upstream, compiled: what counts, and by what rules.
//!
//! The rules are of one plan; what counts is shared by all workers and taken over from the plan
//! before: the cap for all from the cap for all, a cap for each client from the one by the same
//! key. So a reload that changes a number loses no count.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::config::ConcurrencyConfig;
use super::keyed::Clients;
use super::{Gate, Settings};
use crate::message::key::Key;
use crate::problem::Problems;
use crate::switch::Mode;

/// Bits of the network that an IPv6 client has to itself.
pub(super) const NETWORK: u8 = 64;

/// The caps of one route or upstream.
#[derive(Debug, Clone, Default)]
pub struct Caps {
    /// The cap for all.
    pub whole: Option<WholeCap>,
    /// Caps for each client.
    pub clients: Vec<ClientCap>,
}

/// How a cap stands, for `/status`.
#[derive(Debug, Clone, Serialize)]
pub struct CapStanding {
    /// Its name where it refuses.
    pub policy: Arc<str>,
    /// By what clients are told apart; `None`: it is for all.
    pub key: Option<String>,
    /// The most at once (of each client), now.
    pub limit: u32,
    /// It finds itself.
    pub adaptive: bool,
    /// What is in flight, of all clients.
    pub in_flight: u64,
    /// Clients that have something in flight, where it is for each of them.
    pub clients: Option<usize>,
    /// How many wait.
    pub waiting: u32,
    /// `enforce` or `observe`.
    pub mode: Mode,
}

/// A cap for all requests.
#[derive(Debug, Clone)]
pub struct WholeCap {
    /// Its place in the config's list.
    pub position: usize,
    /// Its name where it refuses.
    pub policy: Arc<str>,
    /// What counts.
    pub gate: Arc<Gate>,
    /// Its rules.
    pub settings: Settings,
    /// How long one may wait.
    pub timeout: Duration,
    /// Whether it acts.
    pub mode: Mode,
}

/// A cap for each client.
#[derive(Clone)]
pub struct ClientCap {
    /// Its place in the config's list.
    pub position: usize,
    /// Its name where it refuses.
    pub policy: Arc<str>,
    /// By what clients are told apart.
    pub key: Key,
    /// The key as written.
    pub written: String,
    /// What counts.
    pub counts: Arc<Clients>,
    /// The most at once.
    pub max: u32,
    /// Whether it acts.
    pub mode: Mode,
}

impl std::fmt::Debug for ClientCap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientCap({}, {})", self.policy, self.max)
    }
}

impl Caps {
    /// Compiles the caps of `name`, with what `previous` counts. Pushes every problem of a key.
    pub fn compile<'c>(
        name: &str,
        configs: impl IntoIterator<Item = &'c ConcurrencyConfig>,
        previous: Option<&Caps>,
        problems: &mut Problems,
    ) -> Caps {
        let mut caps = Caps::default();
        for (position, config) in configs.into_iter().enumerate() {
            if config.key.is_none() {
                let before = previous.and_then(|caps| caps.whole.as_ref());
                caps.whole = Some(WholeCap::new(name, position, config, before));
            } else {
                let cap = ClientCap::compile(name, position, config, previous, problems);
                caps.clients.extend(cap);
            }
        }
        caps
    }

    /// How they stand.
    pub fn standing(&self) -> Vec<CapStanding> {
        let whole = self.whole.iter().map(WholeCap::standing);
        let clients = self.clients.iter().map(ClientCap::standing);
        whole.chain(clients).collect()
    }

    /// What is shared with the plan before follows these rules from now on. For the moment after
    /// the plan has been swapped in.
    pub fn put_in_force(&self) {
        if let Some(cap) = &self.whole {
            cap.gate.put_in_force(&cap.settings);
        }
    }
}

impl WholeCap {
    fn standing(&self) -> CapStanding {
        let now = self.gate.standing();
        CapStanding {
            policy: self.policy.clone(),
            key: None,
            limit: now.limit,
            adaptive: self.settings.adaptive,
            in_flight: now.in_flight.into(),
            clients: None,
            waiting: now.waiting,
            mode: self.mode,
        }
    }

    fn new(
        name: &str,
        position: usize,
        config: &ConcurrencyConfig,
        before: Option<&WholeCap>,
    ) -> Self {
        let settings = config.settings();
        let gate = before.map_or_else(
            || Arc::new(Gate::new(&settings)),
            |before| Arc::clone(&before.gate),
        );
        WholeCap {
            position,
            policy: format!("{name}.concurrency").into(),
            gate,
            settings,
            timeout: config
                .queue_timeout
                .as_ref()
                .map_or(Duration::ZERO, |t| t.0),
            mode: config.mode,
        }
    }
}

impl ClientCap {
    fn standing(&self) -> CapStanding {
        let (clients, in_flight) = self.counts.count();
        CapStanding {
            policy: self.policy.clone(),
            key: Some(self.written.clone()),
            limit: self.max,
            adaptive: false,
            in_flight,
            clients: Some(clients),
            waiting: 0,
            mode: self.mode,
        }
    }

    fn compile(
        name: &str,
        position: usize,
        config: &ConcurrencyConfig,
        previous: Option<&Caps>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let key = config.key.as_ref()?.compile(NETWORK, problems)?;
        let written = config.key_text()?;
        let mut before = previous.into_iter().flat_map(|caps| &caps.clients);
        let before = before.find(|cap| cap.key == key);
        let counts = before.map_or_else(Arc::default, |before| Arc::clone(&before.counts));
        Some(ClientCap {
            position,
            policy: format!("{name}.concurrency.{}", written.replace(", ", "+")).into(),
            key,
            written,
            counts,
            max: config.max.value,
            mode: config.mode,
        })
    }
}
