//! The phases of a process that ends, and how its parts learn of them.
//!
//! `Running -> Unready -> Closing -> Aborting`, never back. The control thread walks through them
//! (`Server::drain`) and tells every worker; a worker holds a [`Switch`] of its own and one for
//! each of its listeners, so that a signal crosses threads once for each worker and not once for
//! each connection. Connections and tunnels hold a [`Signal`].

use std::time::Instant;

use tokio::sync::watch;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    Running,
    /// `/readyz` says no; everything is served as before while balancers learn.
    Unready,
    /// Nothing is accepted; requests and tunnels finish.
    Closing,
    /// The time is up: what is left is cut.
    Aborting,
}

/// A phase, and when the last one begins.
#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    deadline: Option<Instant>,
}

/// The end that is turned.
#[derive(Debug)]
pub struct Switch(watch::Sender<State>);

/// The end that is watched. Cheap to clone on the worker that owns the switch.
#[derive(Debug, Clone)]
pub struct Signal(watch::Receiver<State>);

/// A switch in [`Phase::Running`] and its signal.
pub fn channel() -> (Switch, Signal) {
    let state = State {
        phase: Phase::Running,
        deadline: None,
    };
    let (switch, signal) = watch::channel(state);
    (Switch(switch), Signal(signal))
}

impl Switch {
    /// Goes on to `phase`; a phase already passed is ignored. `deadline`: when `Aborting` begins,
    /// where that is known.
    pub fn turn(&self, phase: Phase, deadline: Option<Instant>) {
        self.0.send_if_modified(|state| {
            let later = phase > state.phase;
            if later {
                let deadline = deadline.or(state.deadline);
                *state = State { phase, deadline };
            }
            later
        });
    }

    /// Resolves when nobody watches any more.
    pub async fn unwatched(&self) {
        self.0.closed().await;
    }

    /// One more watcher.
    pub fn signal(&self) -> Signal {
        Signal(self.0.subscribe())
    }
}

impl Signal {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.0.borrow().phase
    }

    /// When `Aborting` begins; known from `Closing` on. Tunnels spread their ends before it.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.borrow().deadline
    }

    /// Whether the phase has changed since this signal was made; a glance, without a lock.
    pub fn has_changed(&self) -> bool {
        self.0.has_changed().unwrap_or(true)
    }

    /// Resolves once `phase` or a later one is reached; never if the switch is gone before.
    pub async fn reached(mut self, phase: Phase) {
        if self.0.wait_for(|state| state.phase >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phase_is_never_taken_back() {
        let (switch, signal) = channel();
        let end = crate::clock::now();
        switch.turn(Phase::Closing, Some(end));
        switch.turn(Phase::Unready, None);
        assert_eq!(signal.phase(), Phase::Closing);
        assert_eq!(signal.deadline(), Some(end));
        switch.turn(Phase::Aborting, None);
        assert_eq!(signal.deadline(), Some(end));
        signal.reached(Phase::Closing).await;
    }
}
