//! What the operating system asks of the process.
//!
//! Installed before anything else: as PID 1 there is no default action for TERM. TERM drains, INT
//! drains without delay, HUP reloads; what a second TERM or INT means (end at once) is decided by
//! the one that waits for it. This file must never act by itself.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// TERM: unready, delay, close, finish.
    Drain,
    /// INT: the same without the delay.
    DrainNow,
    /// HUP.
    Reload,
}

impl Asked {
    /// Whether the process is to end.
    pub fn ends(self) -> bool {
        self != Asked::Reload
    }
}

/// The handlers. They stay installed for the life of the process.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Installs the handlers; inside the control thread's runtime.
    pub fn install() -> io::Result<Self> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// The next request. May be dropped and called again: no signal is lost.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.term.recv() => Asked::Drain,
            _ = self.int.recv() => Asked::DrainNow,
            _ = self.hup.recv() => Asked::Reload,
        }
    }

    /// The next request to end, whichever; reloads asked meanwhile are passed over.
    pub async fn end(&mut self) -> Asked {
        loop {
            let asked = self.next().await;
            if asked.ends() {
                return asked;
            }
        }
    }
}
