//! A gathered write, as the kernel takes it for the least.
//!
//! A few small pieces are copied into one and sent plainly: `writev` costs the kernel more than
//! the copy does. Anything larger is gathered as it stands, without a copy.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Up to this many bytes a copy is the cheaper way.
const SMALL: usize = 2048;

/// Writes `pieces`, some or all of them, as `poll_write_vectored` does.
pub fn poll_write<W: AsyncWrite + ?Sized>(
    writer: Pin<&mut W>,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [piece] = pieces {
        return writer.poll_write(cx, piece);
    }
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    if length > SMALL {
        return writer.poll_write_vectored(cx, pieces);
    }
    let mut whole = [0; SMALL];
    let mut at = 0;
    for piece in pieces {
        whole[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    writer.poll_write(cx, &whole[..at])
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Keeps each call apart.
    #[derive(Default)]
    struct Calls(Vec<Vec<u8>>);

    impl AsyncWrite for Calls {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.0.push(b"gathered".to_vec());
            Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn written(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, usize) {
        let mut calls = Calls::default();
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(length)) = poll_write(Pin::new(&mut calls), &mut cx, &slices) else {
            panic!("it is always ready");
        };
        (calls.0, length)
    }

    #[test]
    fn small_pieces_go_as_one_and_large_ones_as_they_stand() {
        assert_eq!(
            written(&[b"head", b"", b"body"]),
            (vec![b"headbody".to_vec()], 8)
        );
        assert_eq!(written(&[b"alone"]), (vec![b"alone".to_vec()], 5));
        let large = [0; SMALL];
        assert_eq!(
            written(&[&large, b"x"]),
            (vec![b"gathered".to_vec()], SMALL + 1)
        );
        assert_eq!(written(&[&large[1..], b"x"]).1, SMALL);
        assert_eq!(written(&[]).1, 0);
    }
}
