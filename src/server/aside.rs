//! Threads beside the workers, for work that would hold a worker up.
//!
//! A few of them, over one queue. Seats are counted out beforehand and each has at most one job
//! waiting, so the queue is as short as there are seats; who gets none does something lesser. A job
//! that panics takes no thread with it: whoever waits for it sees that nothing comes back.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use super::beside;
use crate::middleware::compress::{Aside, Job};

/// Seats for each thread: a stream that is sent slowly has work for its thread now and then only.
const SEATS: usize = 16;

/// The queue before the threads.
pub struct Bench {
    jobs: Sender<Job>,
    /// Seats that are free.
    free: AtomicUsize,
}

impl Bench {
    /// Threads for a process with so many workers: one for two of them, and no more than four.
    ///
    /// # Errors
    /// Where a thread cannot be made.
    pub fn start(workers: usize) -> io::Result<Arc<Bench>> {
        let threads = workers.div_ceil(2).clamp(1, 4);
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for index in 0..threads {
            let queue = queue.clone();
            beside(&format!("weir-aside-{index}"), move || run(&queue))?;
        }
        Ok(Arc::new(Bench {
            jobs,
            free: AtomicUsize::new(threads * SEATS),
        }))
    }
}

/// Until nobody can send any more.
fn run(queue: &Mutex<Receiver<Job>>) {
    let next = || queue.lock().recv();
    while let Ok(job) = next() {
        drop(catch_unwind(AssertUnwindSafe(job)));
    }
}

impl Aside for Bench {
    fn sit(&self) -> bool {
        let less = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Relaxed, Relaxed, less).is_ok()
    }

    fn leave(&self) {
        self.free.fetch_add(1, Relaxed);
    }

    fn work(&self, job: Job) {
        // The queue outlives its sender: it ends when nobody can send any more.
        drop(self.jobs.send(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_and_a_panic_takes_no_thread_with_it() {
        let bench = Bench::start(1).expect("a thread");
        assert_eq!((0..20).filter(|_| bench.sit()).count(), SEATS);
        bench.leave();
        assert!(bench.sit() && !bench.sit());
        let (tell, told) = channel();
        bench.work(Box::new(|| panic!("as a test wants")));
        bench.work(Box::new(move || {
            tell.send("done").expect("it is waited for");
        }));
        assert_eq!(told.recv(), Ok("done"));
    }
}
