//! A connection's place: what is counted from accept to close.
//!
//! The caps (`server.max_connections`, a listener's own) hold over all workers, so their counts
//! are shared atomics, touched once when a connection comes and once when it goes, never by a
//! request. The counts by worker let a fresh socket go to the worker with the fewest. They are
//! taken by the worker that accepts ([`Seat`]), before the socket goes to another, so that one on
//! its way counts. A [`Slot`] lives inside the connection's IO and so counts a tunnel, too, until
//! its last byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::telemetry::handles::{ListenerMetrics, Metrics};

/// Open connections: all, and by worker.
#[derive(Debug)]
pub(super) struct Counts {
    total: AtomicU32,
    workers: Box<[AtomicU32]>,
}

impl Counts {
    /// For this many workers.
    pub(super) fn new(workers: usize) -> Self {
        Counts {
            total: AtomicU32::new(0),
            workers: (0..workers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Over all workers.
    pub(super) fn total(&self) -> u32 {
        self.total.load(Relaxed)
    }

    /// Of one worker.
    pub(super) fn of(&self, worker: usize) -> u32 {
        self.workers[worker].load(Relaxed)
    }

    /// The worker that should take a fresh connection accepted by `own`: itself, unless it holds
    /// clearly more (two, or an eighth of its own) than the one with the fewest.
    pub(super) fn place(&self, own: usize) -> usize {
        let mine = self.of(own);
        let fewest = (0..self.workers.len()).map(|w| (self.of(w), w)).min();
        match fewest {
            Some((least, worker)) if mine > least + (mine / 8).max(2) => worker,
            _ => own,
        }
    }
}

/// What a connection takes of the caps, from accept on. Taken and dropped on any worker.
#[derive(Debug)]
pub(super) struct Seat {
    counts: Arc<Counts>,
    listener: Arc<AtomicU32>,
    worker: usize,
}

impl Seat {
    /// Counts a connection of `listener` in that `worker` is to serve.
    pub(super) fn take(worker: usize, counts: Arc<Counts>, listener: Arc<AtomicU32>) -> Self {
        counts.total.fetch_add(1, Relaxed);
        counts.workers[worker].fetch_add(1, Relaxed);
        listener.fetch_add(1, Relaxed);
        Seat {
            counts,
            listener,
            worker,
        }
    }

    /// The count that tells the listener from others of its name.
    pub(super) fn listener(&self) -> &Arc<AtomicU32> {
        &self.listener
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.counts.total.fetch_sub(1, Relaxed);
        self.counts.workers[self.worker].fetch_sub(1, Relaxed);
        self.listener.fetch_sub(1, Relaxed);
    }
}

/// The place of one open connection. Must be made and dropped on the worker that serves it.
#[derive(Debug)]
pub(super) struct Slot {
    metrics: Arc<Metrics>,
    cells: Arc<ListenerMetrics>,
    worker: usize,
    _seat: Seat,
}

impl Slot {
    /// Shows a connection in the metrics.
    pub(super) fn new(seat: Seat, metrics: Arc<Metrics>, cells: Arc<ListenerMetrics>) -> Self {
        let worker = seat.worker;
        metrics.worker.of(worker).connections.inc();
        cells.of(worker).connections.inc();
        Slot {
            metrics,
            cells,
            worker,
            _seat: seat,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.worker.of(self.worker).connections.dec();
        self.cells.of(self.worker).connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[u32]) -> Counts {
        Counts {
            total: AtomicU32::new(of.iter().sum()),
            workers: of.iter().map(|n| AtomicU32::new(*n)).collect(),
        }
    }

    #[test]
    fn a_worker_keeps_a_socket_unless_it_holds_clearly_more() {
        assert_eq!(counts(&[0]).place(0), 0);
        assert_eq!(counts(&[2, 0]).place(0), 0);
        assert_eq!(counts(&[3, 0]).place(0), 1);
        assert_eq!(counts(&[80, 71]).place(0), 0);
        assert_eq!(counts(&[80, 69, 75]).place(0), 1);
        assert_eq!(counts(&[0, 50]).place(0), 0);
    }

    #[test]
    fn a_slot_counts_in_and_out() {
        let counts = Arc::new(Counts::new(2));
        let metrics = Arc::new(Metrics::new(2));
        let cells = metrics.listener("web");
        let listener = Arc::new(AtomicU32::new(0));
        let seat = Seat::take(1, counts.clone(), listener.clone());
        assert_eq!((counts.total(), counts.of(1), counts.of(0)), (1, 1, 0));
        assert_eq!(cells.of(1).connections.get(), 0, "it is on its way");
        let slot = Slot::new(seat, metrics.clone(), cells.clone());
        assert_eq!((counts.total(), counts.of(1), counts.of(0)), (1, 1, 0));
        assert_eq!(cells.of(1).connections.get(), 1);
        drop(slot);
        assert_eq!((counts.total(), listener.load(Relaxed)), (0, 0));
        assert_eq!(metrics.worker.of(1).connections.get(), 0);
    }
}
