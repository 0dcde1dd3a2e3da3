//! Opening a connection: TCP, then TLS where asked for, both within `timeouts.connect`.
//!
//! Used by the pools of the workers and by the health checks of the control thread, so that a
//! check goes the way a request goes. Every failure here means the request was never sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::Protocol;
use super::endpoint::Endpoint;
use super::tls;
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::gather;
use crate::telemetry::handles::UpstreamCells;

/// How connections of one upstream are opened.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) protocol: Protocol,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) timeout: Duration,
    /// The kernel gives up on unacknowledged bytes after this.
    pub(super) stall: Duration,
}

/// An open connection.
#[derive(Debug)]
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connector {
    /// Opens a connection; the flag says that HTTP/2 is to be spoken on it.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        cells: &UpstreamCells,
    ) -> Result<(Io, bool), GatewayError> {
        tokio::time::timeout(self.timeout, self.open(endpoint, cells))
            .await
            .map_err(|late| GatewayError::caused(Reason::ConnectionTimeout, late))?
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        cells: &UpstreamCells,
    ) -> Result<(Io, bool), GatewayError> {
        let started = clock::now();
        let tcp = TcpStream::connect(endpoint.address)
            .await
            .map_err(refused)?;
        self.tune(&tcp).map_err(refused)?;
        let connected = clock::now();
        cells.connect.observe(connected - started);
        let (Some(tls), Some(name)) = (&self.tls, &endpoint.server_name) else {
            return Ok((Io::Plain(tcp), self.protocol == Protocol::H2));
        };
        let stream = handshake(tls, name, tcp).await?;
        cells.tls_handshake.observe(clock::now() - connected);
        let agreed = stream.get_ref().1.alpn_protocol();
        let h2 = agreed == Some(b"h2") || (agreed.is_none() && self.protocol == Protocol::H2);
        Ok((Io::Tls(Box::new(stream)), h2))
    }

    fn tune(&self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(tcp);
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10));
        socket.set_tcp_keepalive(&keepalive)?;
        // The kernel takes milliseconds that fit 31 bits.
        let most = Duration::from_millis(i32::MAX.unsigned_abs().into());
        socket.set_tcp_user_timeout(Some(self.stall.min(most)))
    }
}

async fn handshake(
    tls: &Arc<ClientConfig>,
    name: &ServerName<'static>,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, GatewayError> {
    let connector = TlsConnector::from(Arc::clone(tls));
    connector
        .connect(name.clone(), tcp)
        .await
        .map_err(tls::failure)
}

/// What a failed connect means.
fn refused(error: io::Error) -> GatewayError {
    use io::ErrorKind::{
        AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut,
    };
    let reason = match error.kind() {
        HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable => {
            Reason::DestinationIpUnroutable
        }
        TimedOut => Reason::ConnectionTimeout,
        _ => Reason::ConnectionRefused,
    };
    GatewayError::caused(reason, error)
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(io) => gather::poll_write(Pin::new(io), cx, bufs),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }
}
