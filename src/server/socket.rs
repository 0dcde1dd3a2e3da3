//! A client's socket, and how much the kernel has taken of what was written to it.
//!
//! It lies under TLS, so that progress is measured where bytes leave: rustls holds ciphertext that
//! no write of ours shows. The kernel is told to hold little that is not sent ([`UNSENT`]), so
//! that what it takes follows what the client takes; else it would be silent for megabytes, and a
//! client that is steady and slow would look like one that stands still.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// Bytes that the kernel holds of a connection and has not sent; it asks for more at half of it.
pub(super) const UNSENT: u32 = 64 << 10;

/// A socket that counts what it has taken.
#[derive(Debug)]
pub(super) struct Socket<S> {
    stream: S,
    taken: u64,
}

/// What lies over a [`Socket`], or is one.
pub(super) trait Taken {
    /// Bytes that the socket has taken so far.
    fn taken(&self) -> u64;
}

impl<S> Socket<S> {
    /// Nothing was taken yet.
    pub(super) fn new(stream: S) -> Self {
        Socket { stream, taken: 0 }
    }

    fn count(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let taken = ready!(outcome)?;
        self.taken += taken as u64;
        Poll::Ready(Ok(taken))
    }
}

impl<S> Taken for Socket<S> {
    fn taken(&self) -> u64 {
        self.taken
    }
}

impl<S> Taken for TlsStream<Socket<S>> {
    fn taken(&self) -> u64 {
        self.get_ref().0.taken()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
