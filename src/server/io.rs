//! The bytes of one client connection, on their way to and from hyper.
//!
//! Replays what was read before hyper came (detection, PROXY header), shows every byte to the
//! guard or the frame counter, notes in the pulse where a head begins and ends, cuts a client that
//! takes nothing of its answer for `write_timeout`, and closes without losing the last answer. It
//! holds the connection's [`Slot`], so that a tunnel counts until its end. Bytes are never changed,
//! save for the end of a request line that is too long; between two answers interim ones are written.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::frames::Frames;
use super::guard::Guard;
use super::pulse::Pulse;
use super::slot::Slot;
use super::socket::Taken;
use crate::clock;
use crate::gather;
use crate::message::Interims;
use crate::telemetry::handles::Violation;

/// What a stalled client must take of each answer within `write_timeout` not to be cut.
const LEAST_PROGRESS: u64 = 1024;
/// How long the rest of a refused request is read, so that the refusal is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);

/// Who looks at the incoming bytes.
#[derive(Debug)]
pub(super) enum Inspect {
    /// HTTP/1.
    Heads(Guard),
    /// HTTP/2.
    Frames(Frames),
}

/// A client connection as hyper sees it.
#[derive(Debug)]
pub(super) struct ClientIo<S> {
    stream: S,
    ahead: Bytes,
    inspect: Inspect,
    pulse: Arc<Pulse>,
    write_timeout: Duration,
    stall: Option<Stall>,
    linger: Option<Pin<Box<Sleep>>>,
    ended: bool,
    shut: bool,
    /// Something was written since the last flush, or read: TLS may have an answer to it.
    unflushed: bool,
    /// Written where hyper writes nothing.
    interims: Option<Arc<Interims>>,
    /// What is left of them to write.
    interim: Bytes,
    _slot: Slot,
}

/// A write that waits.
#[derive(Debug)]
struct Stall {
    timer: Pin<Box<Sleep>>,
    waiting: bool,
    /// What the socket had taken when the timer began.
    taken: u64,
}

impl<S> ClientIo<S> {
    /// `ahead` are bytes of HTTP that were read from `stream` already.
    pub(super) fn new(
        stream: S,
        ahead: Bytes,
        inspect: Inspect,
        pulse: Arc<Pulse>,
        write_timeout: Duration,
        slot: Slot,
    ) -> Self {
        ClientIo {
            stream,
            ahead,
            inspect,
            pulse,
            write_timeout,
            stall: None,
            linger: None,
            ended: false,
            shut: false,
            unflushed: true,
            interims: None,
            interim: Bytes::new(),
            _slot: slot,
        }
    }

    /// Interim answers are written between the others.
    pub(super) fn between(mut self, interims: Arc<Interims>) -> Self {
        self.interims = Some(interims);
        self
    }

    /// Shows new bytes to whoever looks at them; says how many may pass.
    fn look(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inspect {
            Inspect::Heads(guard) => {
                let pass = guard.inspect(bytes)?;
                self.pulse.head(guard.in_head());
                self.pulse.amid(!guard.between() || guard.awaits());
                Ok(pass)
            }
            Inspect::Frames(frames) => {
                frames.inspect(bytes)?;
                self.pulse.head(frames.in_head());
                if !frames.in_head() {
                    self.pulse.greet();
                }
                if frames.leaves() && !self.pulse.closing() {
                    self.pulse.close();
                }
                Ok(bytes.len())
            }
        }
    }

    /// Whether hyper gets nothing for now: a bad head has passed, or a request that asks to leave
    /// HTTP is not answered yet. hyper asks again when it has answered.
    fn holds(&mut self) -> bool {
        let Inspect::Heads(guard) = &mut self.inspect else {
            return false;
        };
        if self.pulse.ended() >= guard.heads() {
            guard.stays();
        }
        guard.awaits() || guard.holds() || guard.breaks()
    }

    /// Bytes after a request that asks to leave HTTP: the next request, or a tunnel's.
    fn put_back(&mut self, bytes: &[u8]) {
        if matches!(&self.inspect, Inspect::Heads(guard) if guard.awaits()) && !bytes.is_empty() {
            self.ahead = [bytes, &self.ahead].concat().into();
        }
    }

    /// Instead of bytes that may not pass: the end of a request line that was cut, an error that
    /// ends a broken body, or nothing until the request they belong to is refused.
    fn withheld(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Inspect::Heads(guard) = &mut self.inspect else {
            return Poll::Pending;
        };
        let ending = guard.ending(buf.remaining());
        if !ending.is_empty() {
            buf.put_slice(ending);
            return Poll::Ready(Ok(()));
        }
        if guard.breaks() {
            self.blame();
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Pending
    }

    fn blame(&self) {
        self.pulse.blame(match &self.inspect {
            Inspect::Heads(guard) if guard.breaks() => Violation::Body,
            Inspect::Heads(_) => Violation::Parse,
            Inspect::Frames(_) => Violation::H2,
        });
    }
}

impl<S: Taken> ClientIo<S> {
    /// After a write: starts the stall timer where it waits.
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        match outcome {
            Poll::Ready(Ok(n)) => {
                if let Inspect::Frames(frames) = &mut self.inspect {
                    frames.wrote(n);
                }
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.stalled(cx),
        }
    }

    /// All that was written has left: nothing waits.
    fn flushed(&mut self) {
        self.unflushed = false;
        self.pulse.block(false);
        if let Some(stall) = &mut self.stall {
            stall.waiting = false;
        }
    }

    /// Output waits: cuts a client that takes too little of it.
    fn stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let (wait, taken) = (self.write_timeout, self.stream.taken());
        let least = LEAST_PROGRESS * u64::from(self.pulse.open().max(1));
        self.pulse.block(true);
        let stall = self.stall.get_or_insert_with(|| Stall {
            timer: Box::pin(tokio::time::sleep(wait)),
            waiting: true,
            taken,
        });
        let mut again = !std::mem::replace(&mut stall.waiting, true);
        loop {
            if again {
                stall.taken = taken;
                let until = tokio::time::Instant::from_std(clock::now() + wait);
                stall.timer.as_mut().reset(until);
            }
            ready!(stall.timer.as_mut().poll(cx));
            if taken - stall.taken < least {
                self.pulse.blame(Violation::Stall);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            again = true;
        }
    }
}

impl<S: AsyncWrite + Taken + Unpin> ClientIo<S> {
    /// Writes the interim answers that have come: only where hyper has nothing to write, so never
    /// within another answer. Whoever holds the final one back is woken.
    fn write_interims(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = self.interims.as_ref().filter(|interims| interims.any());
        let Some(interims) = waiting.cloned() else {
            return Poll::Ready(Ok(()));
        };
        loop {
            ready!(self.rest_of_interim(cx))?;
            match interims.next() {
                Some(next) => self.interim = next.into(),
                None => break,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    /// One that was begun is written to its end before anything else is.
    fn rest_of_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let outcome = Pin::new(&mut self.stream).poll_write(cx, &self.interim);
            match ready!(self.wrote(cx, outcome))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.interim.advance(taken),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> ClientIo<S> {
    fn fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            self.ended = buf.filled().len() == before && buf.remaining() > 0;
            return Poll::Ready(Ok(()));
        }
        let taken = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..taken]);
        self.ahead.advance(taken);
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the first bytes of a connection that rests, and keeps them for hyper; `false` at
    /// the end of what the client sends.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [0u8; 1024];
        let mut buf = ReadBuf::new(&mut space);
        ready!(self.fill(cx, &mut buf))?;
        self.ahead = Bytes::copy_from_slice(buf.filled());
        Poll::Ready(Ok(!self.ended))
    }

    /// Reads away what a client still sends, until it closes or the time is over: to close with
    /// unread bytes would reset the connection and take the answer with it.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0u8; 2048];
        for _ in 0..16 {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.linger(),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => match &mut self.linger {
                    Some(timer) => return timer.as_mut().poll(cx).map(Ok),
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
        if let Some(timer) = &mut self.linger
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        // there may be more to read, and nobody was told to wait for it
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn linger(&mut self) {
        self.linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
    }

    /// Whether the client is in the middle of a request, or was refused.
    fn unfinished(&self) -> bool {
        match &self.inspect {
            Inspect::Heads(guard) => !guard.between() || guard.in_head(),
            Inspect::Frames(_) => false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.pulse.released() {
            return this.fill(cx, buf);
        }
        if this.holds() {
            return this.withheld(buf);
        }
        if this.pulse.is_dry() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let filled = this.fill(cx, buf);
        if filled.is_pending() && matches!(this.inspect, Inspect::Frames(_)) {
            this.pulse.dry();
        }
        ready!(filled)?;
        this.unflushed = true;
        let new = buf.filled().len() - before;
        let looked = this.look(&buf.filled()[before..]);
        let pass = looked.inspect_err(|_| this.blame())?;
        this.put_back(&buf.filled()[before + pass..]);
        buf.set_filled(before + pass);
        if pass == 0 && new > 0 {
            return this.withheld(buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Taken + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.rest_of_interim(cx))?;
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.rest_of_interim(cx))?;
        let outcome = gather::poll_write(Pin::new(&mut self.stream), cx, bufs);
        self.wrote(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_interims(cx))?;
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.stalled(cx),
            ready => {
                self.flushed();
                ready
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            match Pin::new(&mut self.stream).poll_shutdown(cx) {
                Poll::Pending => return self.stalled(cx),
                Poll::Ready(outcome) => outcome?,
            }
            self.shut = true;
            if self.unfinished() {
                self.linger();
            }
        }
        if self.pulse.released() {
            return Poll::Ready(Ok(()));
        }
        self.drain(cx)
    }
}

#[cfg(test)]
mod tests;
