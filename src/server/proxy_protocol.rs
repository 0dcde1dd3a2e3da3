//! The PROXY header (v1, v2) before everything else on a listener that asks for it.
//!
//! Read only from peers in `trusted_proxies`, under the listener's `header_timeout` and a cap on
//! its bytes; anything else closes the connection. A header is never optional where it is asked
//! for: else a client could leave it out, or bring its own.

use std::io;
use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A v2 header with TLVs may be 65,551 bytes; nobody sends a tenth of that.
const MOST_BYTES: usize = 4096;

/// The client, and the address it connected to; none for a health check of the proxy itself.
pub(super) type Addresses = Option<(SocketAddr, SocketAddr)>;

/// Reads the header and nothing after it. The caller puts the time limit on it.
///
/// # Errors
/// Where there is none, it is broken or too long, or the peer goes away.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Addresses> {
    let mut bytes = [0u8; MOST_BYTES];
    let mut had = 0;
    while had < MOST_BYTES {
        let seen = stream.peek(&mut bytes[had..]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let parsed = parse(&bytes[..had + seen])?;
        let end = parsed.map_or(had + seen, |(_, length)| length);
        stream.read_exact(&mut bytes[had..end]).await?;
        if let Some((addresses, _)) = parsed {
            return Ok(addresses);
        }
        had = end;
    }
    Err(bad("PROXY header too long"))
}

/// The addresses and the header's length; `None` where it goes on.
fn parse(bytes: &[u8]) -> io::Result<Option<(Addresses, usize)>> {
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, length)) => {
            let pair = header.proxied_address().map(|a| (a.source, a.destination));
            Ok(Some((pair, length)))
        }
        Err(Error::BufferTooShort) => Ok(None),
        Err(_) => Err(bad("no PROXY header")),
    }
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn of(input: &[u8], cut: usize) -> (io::Result<Addresses>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut far = TcpStream::connect(address).await.expect("it listens");
        let (mut near, _) = listener.accept().await.expect("it was connected");
        let send = async {
            far.write_all(&input[..cut]).await.expect("room");
            tokio::task::yield_now().await;
            far.write_all(&input[cut..]).await.expect("room");
            drop(far);
        };
        let (addresses, ()) = tokio::join!(read(&mut near), send);
        let mut rest = Vec::new();
        if addresses.is_ok() {
            near.read_to_end(&mut rest)
                .await
                .expect("the far end closed");
        }
        (addresses, rest)
    }

    #[tokio::test]
    async fn v1_gives_the_client_and_leaves_the_rest() {
        let input = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\nGET /";
        for cut in [0, 1, 20, 44, 46] {
            let (addresses, rest) = of(input, cut).await;
            let client = "192.0.2.7:5000".parse().expect("an address");
            assert_eq!(addresses.expect("a good header").map(|a| a.0), Some(client));
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test]
    async fn v2_local_has_no_addresses() {
        let (addresses, rest) = of(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00X", 5).await;
        assert_eq!(addresses.expect("a good header"), None);
        assert_eq!(rest, b"X");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let inputs: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 1.2.3.4",
            b"",
            b"PROXY X\r\n",
        ];
        for input in inputs {
            assert!(of(input, 0).await.0.is_err());
        }
    }
}
