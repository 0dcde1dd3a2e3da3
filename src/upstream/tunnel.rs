//! After a 101: bytes both ways until both ends are done.
//!
//! A side that ends its direction has its end passed on while the other direction goes on. Each
//! direction has one buffer of bounded size and is read only when that is empty, so a slow reader
//! slows its writer. Bytes either way count against the one idle timeout, which is shorter once
//! only one side is left.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::clock;

/// Bytes that a direction may hold.
const BUFFER: usize = 32 * 1024;

/// Once one side has ended, the other may be silent this long: it may never end by itself.
const HALF_OPEN: Duration = Duration::from_secs(60);

/// What passed through a tunnel.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// From the client to the upstream.
    pub up: u64,
    /// From the upstream to the client.
    pub down: u64,
}

/// How a tunnel ended without an I/O error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides ended.
    Closed,
    /// Nothing moved either way for the idle timeout.
    Idle,
}

/// Copies both ways. `moved` is told of bytes as they are passed on (up, down), for the metrics.
/// Ends when both directions have, after `idle` without a byte, or with the first I/O error.
/// Cancel by dropping it.
pub async fn run<C, U>(
    client: C,
    upstream: U,
    idle: Duration,
    moved: impl FnMut(u64, u64) + Unpin,
) -> (Passed, io::Result<End>)
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut tunnel = Tunnel {
        client,
        upstream,
        up: Direction::new(),
        down: Direction::new(),
        last: clock::now(),
        idle,
        timer: Box::pin(tokio::time::sleep(idle)),
        moved,
    };
    let end = std::future::poll_fn(|cx| tunnel.poll(cx)).await;
    let passed = Passed {
        up: tunnel.up.passed,
        down: tunnel.down.passed,
    };
    (passed, end)
}

struct Tunnel<C, U, F> {
    client: C,
    upstream: U,
    up: Direction,
    down: Direction,
    last: Instant,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    moved: F,
}

impl<C, U, F> Tunnel<C, U, F>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(u64, u64),
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<End>> {
        let before = (self.up.passed, self.down.passed);
        let up = self.up.poll(cx, &mut self.client, &mut self.upstream)?;
        let down = self.down.poll(cx, &mut self.upstream, &mut self.client)?;
        let (sent, received) = (self.up.passed - before.0, self.down.passed - before.1);
        if sent + received > 0 {
            (self.moved)(sent, received);
            self.last = clock::now();
        }
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ok(End::Closed));
        }
        if (up.is_ready() || down.is_ready()) && self.idle > HALF_OPEN {
            self.idle = HALF_OPEN;
            self.timer.as_mut().reset((self.last + HALF_OPEN).into());
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let due = self.last + self.idle;
            if due <= clock::now() {
                return Poll::Ready(Ok(End::Idle));
            }
            self.timer.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

/// One direction: read, pass on, and in the end shut down.
struct Direction {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    passed: u64,
    unflushed: bool,
    state: State,
}

/// `Open -> Ending -> Ended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The reader's end is yet to be passed on.
    Ending,
    Ended,
}

impl Direction {
    fn new() -> Self {
        Direction {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            passed: 0,
            unflushed: false,
            state: State::Open,
        }
    }

    /// Ready when this direction has ended. One direction that never blocks cannot starve the
    /// other or the worker: tokio's own budget makes its sockets pause.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while self.state == State::Open {
            self.write(cx, to)?;
            if self.start < self.end {
                return Poll::Pending;
            }
            match self.read(cx, from)? {
                Poll::Ready(()) => {}
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        if self.state == State::Ending {
            ready!(Pin::new(to).poll_shutdown(cx))?;
            self.state = State::Ended;
        }
        Poll::Ready(Ok(()))
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Poll<()>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        if Pin::new(from).poll_read(cx, &mut buffer)?.is_pending() {
            return Ok(Poll::Pending);
        }
        (self.start, self.end) = (0, buffer.filled().len());
        if self.end == 0 {
            self.state = State::Ending;
        }
        Ok(Poll::Ready(()))
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        while self.start < self.end {
            let rest = &self.buffer[self.start..self.end];
            let Poll::Ready(written) = Pin::new(&mut *to).poll_write(cx, rest)? else {
                return Ok(());
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.start += written;
            self.passed += written as u64;
            self.unflushed = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_half_closed_side_still_receives() {
        let (mut client, inner_client) = duplex(64);
        let (mut origin, inner_origin) = duplex(64);
        let idle = Duration::from_secs(60);
        let tunnel = tokio::spawn(run(inner_client, inner_origin, idle, |_, _| {}));
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("half-closed");
        let mut heard = Vec::new();
        origin
            .read_to_end(&mut heard)
            .await
            .expect("read to its end");
        assert_eq!(heard, b"question");
        origin.write_all(&[7; 100]).await.expect("written");
        origin.shutdown().await.expect("closed");
        drop(origin);
        let mut answer = Vec::new();
        client
            .read_to_end(&mut answer)
            .await
            .expect("read to its end");
        assert_eq!(answer, [7; 100]);
        let (passed, end) = tunnel.await.expect("no panic");
        assert_eq!(end.expect("no error"), End::Closed);
        assert_eq!(passed, Passed { up: 8, down: 100 });
    }
}
