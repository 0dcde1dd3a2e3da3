//! A connection at rest: hyper and its buffers are gone, the socket stays.
//!
//! hyper keeps 16 KiB for a connection that does nothing. So a keep-alive connection of HTTP/1
//! that has been idle for a second is taken out of hyper's hands and waits here for the client's
//! next byte, which is shown to a new hyper. hyper gets a [`Loan`] of the connection, which brings
//! it home when hyper is dropped; where hyper gives it on to a tunnel it ends there.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::ClientIo;
use super::socket::Taken;

/// A connection in hyper's hands.
pub(super) struct Loan<S> {
    /// There until the drop.
    io: Option<Box<ClientIo<S>>>,
    home: Arc<Home<S>>,
}

/// Where a connection is when hyper has it no more.
pub(super) struct Home<S>(Mutex<Option<Box<ClientIo<S>>>>);

/// Lends a connection out.
pub(super) fn lend<S>(io: Box<ClientIo<S>>) -> (Loan<S>, Arc<Home<S>>) {
    let home = Arc::new(Home(Mutex::new(None)));
    let loan = Loan {
        io: Some(io),
        home: home.clone(),
    };
    (loan, home)
}

impl<S> Home<S> {
    /// The connection, if it has come home.
    pub(super) fn take(&self) -> Option<Box<ClientIo<S>>> {
        self.0.lock().take()
    }
}

impl<S> Drop for Loan<S> {
    fn drop(&mut self) {
        *self.home.0.lock() = self.io.take();
    }
}

impl<S: Unpin> Loan<S> {
    fn lent(&mut self) -> Pin<&mut ClientIo<S>> {
        let io = self.io.as_mut();
        Pin::new(io.expect("a loan has its connection until it is dropped"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Loan<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.lent().poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Taken + Unpin> AsyncWrite for Loan<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.lent().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lent().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(|io| io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lent().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lent().poll_shutdown(cx)
    }
}

/// Waits for the client: `true` when it has sent something, `false` when the connection is over.
pub(super) struct Rest<'a, S> {
    io: &'a mut ClientIo<S>,
    finished: bool,
}

impl<'a, S> Rest<'a, S> {
    /// Of a connection of which nothing is under way.
    pub(super) fn new(io: &'a mut ClientIo<S>) -> Self {
        Rest {
            io,
            finished: false,
        }
    }

    /// It has been at rest for long enough, or is to close.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }
}

impl<S: AsyncRead + Unpin> Future for Rest<'_, S> {
    type Output = io::Result<bool>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.finished {
            return Poll::Ready(Ok(false));
        }
        let sent = ready!(self.io.poll_sent(cx))?;
        Poll::Ready(Ok(sent))
    }
}
