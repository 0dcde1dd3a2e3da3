//! Which HTTP a cleartext client speaks, from its first bytes.
//!
//! Asked only where both are configured; the caller puts the time limit on it. No more is read
//! than one read brings beyond the byte that tells; all of it is replayed to hyper.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for most request heads, so that detection costs no second read.
const FIRST_READ: usize = 4096;

/// HTTP/1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 1.0 and 1.1.
    Http1,
    /// 2.
    H2,
}

/// Reads until it is clear, and gives back what was read.
///
/// # Errors
/// Where the client goes away before that.
pub(super) async fn version<S>(stream: &mut S) -> io::Result<(Version, Bytes)>
where
    S: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    loop {
        let n = buffer.len().min(PREFACE.len());
        if buffer[..n] != PREFACE[..n] {
            return Ok((Version::Http1, buffer.freeze()));
        }
        if n == PREFACE.len() {
            return Ok((Version::H2, buffer.freeze()));
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_version_is_told_over_any_split_and_no_byte_is_lost() {
        let inputs: [(&[u8], Version); 3] = [
            (b"GET / HTTP/1.1\r\n\r\n", Version::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Version::H2),
            (b"PRI / HTTP/1.1\r\n\r\n", Version::Http1),
        ];
        for (input, expected) in inputs {
            for cut in 1..input.len() {
                let mut pieces = (&input[..cut]).chain(&input[cut..]);
                let (found, read) = version(&mut pieces).await.expect("enough bytes");
                let mut read = read.to_vec();
                pieces
                    .read_to_end(&mut read)
                    .await
                    .expect("memory does not fail");
                assert_eq!((found, &read[..]), (expected, input));
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_in_the_middle_of_the_preface_is_an_error() {
        let mut rest = &PREFACE[..10];
        assert!(version(&mut rest).await.is_err());
    }
}
