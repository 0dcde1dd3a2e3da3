//! Wakers for the parts of one task.
//!
//! A task that polls many futures must know which of them was woken. So each part has a [`Bell`],
//! which is its waker: it notes the part and wakes the task, once for however many ring, and not at
//! all while the task is running and looks by itself. A bell may ring from any thread; nearly all
//! ring on the task's own, so that the lock is not waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

/// The bells of one task.
pub(super) struct Bells(Mutex<Row>);

struct Row {
    /// Parts that were rung for and not looked at.
    rung: Vec<u32>,
    task: Waker,
    /// The task was woken already, or is running.
    awake: bool,
}

/// The waker of one part.
pub(super) struct Bell {
    part: u32,
    /// It stands in the row.
    rung: AtomicBool,
    row: Arc<Bells>,
}

impl Bells {
    /// Of a task that has not run yet.
    pub(super) fn new() -> Arc<Bells> {
        Arc::new(Bells(Mutex::new(Row {
            rung: Vec::new(),
            task: Waker::noop().clone(),
            awake: true,
        })))
    }

    /// A part's bell.
    pub(super) fn hang(self: &Arc<Self>, part: u32) -> Arc<Bell> {
        Arc::new(Bell {
            part,
            rung: AtomicBool::new(false),
            row: self.clone(),
        })
    }

    /// The task runs: from here on it is not woken.
    pub(super) fn awake(&self, task: &Waker) {
        let mut row = self.0.lock();
        row.awake = true;
        if !row.task.will_wake(task) {
            row.task = task.clone();
        }
    }

    /// Moves the parts that were rung for into `parts`. Each is polled after [`Bell::answer`].
    pub(super) fn take(&self, parts: &mut Vec<u32>) {
        parts.append(&mut self.0.lock().rung);
    }

    /// Whether nothing has rung: then the task may sleep, and is woken by the next bell.
    pub(super) fn sleep(&self) -> bool {
        let mut row = self.0.lock();
        row.awake = !row.rung.is_empty();
        !row.awake
    }
}

impl Bell {
    /// Its part is about to be polled: it may ring anew.
    pub(super) fn answer(&self) {
        self.rung.swap(false, AcqRel);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, AcqRel) {
            return;
        }
        let mut row = self.row.0.lock();
        row.rung.push(self.part);
        if !std::mem::replace(&mut row.awake, true) {
            let task = row.task.clone();
            drop(row);
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_sleeping_task_is_woken_once_and_told_who_rang() {
        let count = Arc::new(Count(AtomicU32::new(0)));
        let task = Waker::from(count.clone());
        let bells = Bells::new();
        bells.awake(&task);
        let hung: Vec<_> = (0..3).map(|part| bells.hang(part)).collect();
        assert!(bells.sleep());
        for part in [2, 1, 2] {
            hung[part].wake_by_ref();
        }
        assert_eq!(count.0.load(Relaxed), 1);
        bells.awake(&task);
        let mut parts = Vec::new();
        bells.take(&mut parts);
        assert_eq!(parts, [2, 1]);
    }

    #[test]
    fn what_rings_while_the_task_runs_keeps_it_from_sleeping() {
        let count = Arc::new(Count(AtomicU32::new(0)));
        let task = Waker::from(count.clone());
        let bells = Bells::new();
        bells.awake(&task);
        let bell = bells.hang(7);
        bell.wake_by_ref();
        assert!(!bells.sleep());
        assert_eq!(count.0.load(Relaxed), 0);
        let mut parts = Vec::new();
        bells.take(&mut parts);
        assert!(bells.sleep());
        bell.wake_by_ref();
        assert_eq!(count.0.load(Relaxed), 0, "it was not answered yet");
        bell.answer();
        bell.wake_by_ref();
        assert_eq!(count.0.load(Relaxed), 1);
    }
}
