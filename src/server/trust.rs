//! Whether a connection's peer is believed, asked anew for each plan.
//!
//! A connection may outlive the plan it was accepted under by days. Who is a trusted proxy is said
//! by the plan of each request, so that taking one off the list takes effect on connections that
//! are open. What a PROXY header said when the connection was opened stands.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::message::Conn;
use crate::plan::Plan;

/// A connection, as the plan of a request has it.
pub(super) struct Trust {
    accepted: Arc<Conn>,
    /// The same, believed if the first is not and not if it is. Made if it is ever needed.
    other: OnceLock<Arc<Conn>>,
    /// The last generation that was asked, twice, and one more if it believes this peer.
    known: AtomicU64,
}

impl Trust {
    /// As it was accepted.
    pub(super) fn new(accepted: Arc<Conn>) -> Self {
        Trust {
            accepted,
            other: OnceLock::new(),
            known: AtomicU64::new(u64::MAX),
        }
    }

    /// The connection under a plan. Costs a comparison while the plan is the same.
    pub(super) fn under(&self, plan: &Plan) -> &Arc<Conn> {
        let known = self.known.load(Relaxed);
        let trusted = if known >> 1 == plan.generation {
            known & 1 == 1
        } else {
            let trusted = plan.server.trusts(self.accepted.peer.ip());
            let known = plan.generation << 1 | u64::from(trusted);
            self.known.store(known, Relaxed);
            trusted
        };
        if trusted == self.accepted.trusted {
            return &self.accepted;
        }
        self.other.get_or_init(|| {
            let conn = Conn::clone(&self.accepted);
            Arc::new(Conn { trusted, ..conn })
        })
    }
}
