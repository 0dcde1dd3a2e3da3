//! A body that many read while it comes.
//!
//! One task writes, each reader goes at its own pace. While the body is within its cap everything is
//! kept, so that readers may join and the whole may be stored. Beyond the cap nobody joins any more
//! and only a window is kept: the writer waits for the slowest reader, and ends when all have left.
//! A body that breaks breaks for every reader: nobody takes a part for the whole (CASES I19).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::budget::Budget;
use crate::error::{GatewayError, Reason};

/// What is kept of a body beyond its cap, in bytes: also what the writer may be ahead.
const WINDOW: u64 = 256 << 10;

/// The place of a reader that has left.
const GONE: usize = usize::MAX;

/// The body.
#[derive(Debug)]
pub struct Broadcast {
    inner: Mutex<Inner>,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Inner {
    pieces: VecDeque<Bytes>,
    /// The number of the first piece that is kept.
    first: usize,
    /// Bytes that are kept.
    kept: u64,
    /// Bytes of the budget that are taken for them.
    taken: u64,
    end: Option<End>,
    /// Not everything is kept any more.
    windowed: bool,
    /// Readers that have yet to take the first piece, once not everything is kept.
    behind: usize,
    /// The next piece of each reader.
    readers: Vec<usize>,
    here: usize,
    /// Readers that wait for a piece: in this round, each once.
    wakers: Vec<Waker>,
    round: u64,
    writer: Option<Waker>,
}

/// How a body ended.
#[derive(Debug, Clone)]
pub enum End {
    /// All of it came.
    Whole(Option<HeaderMap>),
    /// It broke off.
    Broken(Reason),
}

impl Broadcast {
    /// Nothing yet; what is kept is taken from this budget.
    pub fn new(budget: Arc<Budget>) -> Self {
        let inner = Mutex::default();
        Broadcast { inner, budget }
    }

    /// A reader from the first byte on; `None` once not everything is kept.
    pub fn read(self: &Arc<Self>, length: Option<u64>) -> Option<Reader> {
        let mut inner = self.inner.lock();
        if inner.windowed {
            return None;
        }
        inner.readers.push(0);
        inner.here += 1;
        Some(Reader {
            slot: inner.readers.len() - 1,
            body: Arc::clone(self),
            length,
            waits: None,
            ended: false,
        })
    }

    /// Room for the next piece, while everything is kept. False: there is none.
    pub fn takes(&self, piece: &Bytes) -> bool {
        let fits = self.budget.take(piece.len() as u64);
        if fits {
            self.inner.lock().taken += piece.len() as u64;
        }
        fits
    }

    /// The next piece is here.
    pub fn push(&self, piece: Bytes) {
        self.change(|inner| {
            inner.kept += piece.len() as u64;
            inner.pieces.push_back(piece);
        });
    }

    /// From now on only a window is kept, for the readers there are.
    pub fn window(&self) {
        let mut inner = self.inner.lock();
        inner.windowed = true;
        inner.trim();
        self.give_back(&mut inner);
    }

    /// What is not kept any more is given back.
    fn give_back(&self, inner: &mut Inner) {
        let left = inner.taken.min(inner.kept);
        if inner.windowed && left < inner.taken {
            self.budget.give(inner.taken - left);
            inner.taken = left;
        }
    }

    /// Waits, beyond the cap, until the slowest reader has come near. False once nobody reads.
    pub async fn room(&self) -> bool {
        poll_fn(|cx| {
            let mut inner = self.inner.lock();
            if inner.here == 0 {
                return Poll::Ready(false);
            }
            if !inner.windowed || inner.kept <= WINDOW {
                return Poll::Ready(true);
            }
            inner.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The body has ended; the first word counts.
    pub fn end(&self, end: End) {
        self.change(|inner| {
            inner.end.get_or_insert(end);
        });
    }

    /// Everything, while everything is kept.
    pub fn pieces(&self) -> Vec<Bytes> {
        self.inner.lock().pieces.iter().cloned().collect()
    }

    /// Changes something and wakes the readers.
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let wakers = {
            let mut inner = self.inner.lock();
            change(&mut inner);
            inner.round += 1;
            std::mem::take(&mut inner.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    /// A reader has left place `at` behind.
    fn passed(&mut self, at: usize) {
        if self.windowed && at == self.first {
            self.behind -= 1;
            if self.behind == 0 {
                self.trim();
            }
        }
    }

    /// Lets go of what every reader has.
    fn trim(&mut self) {
        let slowest = self.readers.iter().copied().min().unwrap_or(GONE);
        while self.first < slowest {
            let Some(piece) = self.pieces.pop_front() else {
                break;
            };
            self.kept -= piece.len() as u64;
            self.first += 1;
        }
        self.behind = self.readers.iter().filter(|at| **at == self.first).count();
        if self.kept <= WINDOW || self.here == 0 {
            self.writer.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        self.budget.give(self.inner.get_mut().taken);
    }
}

/// One who reads.
#[derive(Debug)]
pub struct Reader {
    body: Arc<Broadcast>,
    slot: usize,
    length: Option<u64>,
    /// The round in which it began to wait, and its place among the wakers.
    waits: Option<(u64, usize)>,
    ended: bool,
}

/// Puts a reader among those that wait, once in each round.
fn wait(waits: &mut Option<(u64, usize)>, inner: &mut Inner, cx: &Context<'_>) {
    match waits.filter(|(round, _)| *round == inner.round) {
        Some((_, at)) => inner.wakers[at].clone_from(cx.waker()),
        None => {
            *waits = Some((inner.round, inner.wakers.len()));
            inner.wakers.push(cx.waker().clone());
        }
    }
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let body = &*this.body;
        let mut inner = body.inner.lock();
        let next = inner.readers[this.slot];
        if let Some(piece) = inner.pieces.get(next - inner.first) {
            let piece = piece.clone();
            inner.readers[this.slot] += 1;
            inner.passed(next);
            body.give_back(&mut inner);
            if let Some(left) = &mut this.length {
                *left = left.saturating_sub(piece.len() as u64);
            }
            let last = next + 1 == inner.first + inner.pieces.len();
            this.ended = last && matches!(inner.end, Some(End::Whole(None)));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match inner.end.clone() {
            None => {
                wait(&mut this.waits, &mut inner, cx);
                Poll::Pending
            }
            Some(End::Whole(trailers)) => {
                this.ended = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(End::Broken(reason)) => {
                this.ended = true;
                Poll::Ready(Some(Err(reason.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.body.inner.lock();
        let at = std::mem::replace(&mut inner.readers[self.slot], GONE);
        inner.here -= 1;
        inner.passed(at);
        self.body.give_back(&mut inner);
        if inner.here == 0 {
            inner.writer.take().into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a body of our own making")]
    async fn all(reader: Reader) -> Result<Vec<u8>, Reason> {
        let body = reader.collect().await.map_err(|error| error.reason())?;
        Ok(body.to_bytes().to_vec())
    }

    #[tokio::test]
    async fn everyone_gets_everything_whenever_they_come() {
        let body = Arc::new(Broadcast::new(Arc::new(Budget::new(u64::MAX))));
        let early = tokio::spawn(all(body.read(None).expect("open")));
        for piece in ["a", "bc", "d"] {
            body.push(Bytes::from(piece));
            tokio::task::yield_now().await;
        }
        let late = tokio::spawn(all(body.read(Some(4)).expect("open")));
        tokio::task::yield_now().await;
        body.end(End::Whole(None));
        for reader in [early, late] {
            assert_eq!(reader.await.expect("no panic"), Ok(b"abcd".to_vec()));
        }
        assert_eq!(
            all(body.read(None).expect("open")).await,
            Ok(b"abcd".to_vec())
        );
    }

    #[tokio::test]
    async fn i19_a_body_that_breaks_breaks_for_everyone() {
        let body = Arc::new(Broadcast::new(Arc::new(Budget::new(u64::MAX))));
        let (one, other) = (body.read(None), body.read(Some(9)));
        body.push(Bytes::from("abc"));
        body.end(End::Broken(Reason::HttpResponseIncomplete));
        for reader in [one, other, body.read(None)] {
            let read = all(reader.expect("open")).await;
            assert_eq!(read, Err(Reason::HttpResponseIncomplete));
        }
    }

    #[tokio::test]
    async fn i28_beyond_the_cap_a_window_is_kept_and_the_slowest_reader_sets_the_pace() {
        let body = Arc::new(Broadcast::new(Arc::new(Budget::new(u64::MAX))));
        let (mut slow, mut fast) = (
            body.read(None).expect("open"),
            body.read(None).expect("open"),
        );
        let piece = Bytes::from(vec![7; 64 << 10]);
        body.window();
        assert!(body.read(None).is_none(), "nobody joins");
        let (writer, pushed) = (Arc::clone(&body), piece.clone());
        let writing = tokio::spawn(async move {
            for _ in 0..100 {
                if !writer.room().await {
                    return false;
                }
                writer.push(pushed.clone());
            }
            writer.end(End::Whole(None));
            true
        });
        for read in 0..100 {
            for reader in [&mut fast, &mut slow] {
                let frame = reader.frame().await.expect("more").expect("whole");
                assert_eq!(frame.data_ref(), Some(&piece), "{read}");
            }
            assert!(body.inner.lock().kept <= WINDOW + piece.len() as u64);
        }
        assert!(writing.await.expect("no panic"));
        assert!(fast.frame().await.is_none());
    }

    #[tokio::test]
    async fn the_writer_ends_when_everyone_has_left() {
        let body = Arc::new(Broadcast::new(Arc::new(Budget::new(u64::MAX))));
        let reader = body.read(None).expect("open");
        body.window();
        body.push(Bytes::from(vec![0; 1 << 20]));
        let writer = Arc::clone(&body);
        let writing = tokio::spawn(async move { writer.room().await });
        tokio::task::yield_now().await;
        drop(reader);
        assert!(!writing.await.expect("no panic"));
    }
}
