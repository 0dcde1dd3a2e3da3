//! What drives an HTTP/1 connection: a task of its own, and at once who sends on it, where asked.
//!
//! Left to its task alone, a request waits until all that is ready on the worker has had its turn,
//! before a byte of it leaves. Where many requests are read in one turn (HTTP/2), the sender polls
//! the connection itself, and the origin works while others are read. One by one it would cost more
//! than it brings: an origin is woken for each. The wakers that the connection leaves behind are the
//! task's either way. It is dropped with its task, which breaks the circle of what holds what.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One connection. All of it happens on one worker: the lock is never waited for.
pub(super) struct Driver {
    /// There until it has ended.
    connection: Mutex<Option<Connection>>,
    task: AtomicWaker,
    /// It is to be polled.
    rung: AtomicBool,
    /// Somebody is about to poll it: its task need not.
    attended: AtomicBool,
}

impl Driver {
    /// For a connection, and the task that drives it.
    pub(super) fn new(
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let driver = Arc::new(Driver {
            connection: Mutex::new(Some(Box::pin(connection))),
            task: AtomicWaker::new(),
            rung: AtomicBool::new(true),
            attended: AtomicBool::new(false),
        });
        let task = Task {
            waker: Waker::from(Arc::clone(&driver)),
            driver: Arc::clone(&driver),
        };
        (driver, task)
    }

    /// Sends, and has the connection do what that brings before anything else is done.
    pub(super) fn at_once<T>(self: &Arc<Self>, send: impl FnOnce() -> T) -> T {
        self.attended.store(true, Relaxed);
        let sent = send();
        let waker = Waker::from(Arc::clone(self));
        let ended = self.poll(&waker).is_ready();
        self.attended.store(false, Relaxed);
        if ended || self.rung.load(Relaxed) {
            self.task.wake();
        }
        sent
    }

    /// Polls the connection if it is to be. Ready once it has ended.
    fn poll(&self, waker: &Waker) -> Poll<()> {
        if !self.rung.swap(false, Relaxed) {
            return Poll::Pending;
        }
        let mut connection = self.connection.lock();
        let polled = match &mut *connection {
            Some(connection) => connection.as_mut().poll(&mut Context::from_waker(waker)),
            None => Poll::Ready(()),
        };
        if polled.is_ready() {
            *connection = None;
            self.rung.store(true, Relaxed);
        }
        polled
    }
}

impl Wake for Driver {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Relaxed);
        if !self.attended.load(Relaxed) {
            self.task.wake();
        }
    }
}

struct Task {
    driver: Arc<Driver>,
    waker: Waker,
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.driver.task.register(cx.waker());
        self.driver.poll(&self.waker)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let connection = self.driver.connection.lock().take();
        drop(connection);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::mpsc;

    use super::*;

    /// A connection that takes what is sent and counts its polls.
    fn connection(
        polls: &Arc<AtomicUsize>,
    ) -> (mpsc::UnboundedSender<u8>, impl Future<Output = ()> + use<>) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let polls = Arc::clone(polls);
        let taken = std::future::poll_fn(move |cx| {
            polls.fetch_add(1, Relaxed);
            while let Some(sent) = std::task::ready!(receiver.poll_recv(cx)) {
                if sent == 0 {
                    break;
                }
            }
            Poll::Ready(())
        });
        (sender, taken)
    }

    #[tokio::test]
    async fn what_is_sent_leaves_at_once_and_wakes_no_task() {
        let polls = Arc::new(AtomicUsize::new(0));
        let (sender, taken) = connection(&polls);
        let (driver, task) = Driver::new(taken);
        let task = tokio::spawn(task);
        tokio::task::yield_now().await;
        assert_eq!(polls.load(Relaxed), 1);
        for sent in 1..10 {
            driver.at_once(|| sender.send(sent)).expect("it is taken");
            assert_eq!(polls.load(Relaxed), 1 + usize::from(sent));
        }
        tokio::task::yield_now().await;
        assert_eq!(polls.load(Relaxed), 10, "its task had nothing to do");
        // what comes from elsewhere is the task's
        sender.send(1).expect("it is taken");
        tokio::task::yield_now().await;
        assert_eq!(polls.load(Relaxed), 11);
        driver.at_once(|| sender.send(0)).expect("it is taken");
        task.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_connection_goes_with_its_task_and_nothing_holds_the_other() {
        let (sender, taken) = connection(&Arc::default());
        let (driver, task) = Driver::new(taken);
        let task = tokio::spawn(task);
        driver.at_once(|| sender.send(1)).expect("it is taken");
        task.abort();
        assert!(task.await.is_err());
        assert!(sender.is_closed());
        driver.at_once(|| ());
        assert_eq!(Arc::strong_count(&driver), 1);
    }
}
