//! Listening sockets: one for each worker, all on one address.
//!
//! The address is probed without SO_REUSEPORT first: with it a second process on the port would
//! quietly take half of the traffic. All of it is done on the control thread; nothing accepts
//! before the sockets reach their workers.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 4096;

/// The sockets of one listener.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Where they are bound: port 0 is resolved.
    pub(super) address: SocketAddr,
    /// One for each worker.
    pub(super) listeners: Vec<TcpListener>,
}

impl Sockets {
    /// The same sockets once more: one queue, two owners.
    pub(super) fn duplicate(&self) -> io::Result<Sockets> {
        let listeners = self.listeners.iter().map(TcpListener::try_clone);
        Ok(Sockets {
            address: self.address,
            listeners: listeners.collect::<io::Result<_>>()?,
        })
    }
}

/// Binds `address` for this many workers. `ours`: sockets of this process have the port, such as
/// those of a listener that a reload renames; then it is not probed.
pub(super) fn bind(address: SocketAddr, workers: usize, ours: bool) -> io::Result<Sockets> {
    if address.port() != 0 && !ours {
        let probe = socket(address)?;
        probe.bind(&address.into())?;
        probe.listen(1)?;
    }
    let first = listen(address)?;
    let address = first.local_addr()?;
    let others = (1..workers).map(|_| listen(address));
    let listeners = std::iter::once(Ok(first))
        .chain(others)
        .collect::<io::Result<_>>()?;
    Ok(Sockets { address, listeners })
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
    }
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_one_port_and_a_second_process_gets_an_error() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let sockets = bind(any, 3, false).expect("a free port");
        for listener in &sockets.listeners {
            assert_eq!(listener.local_addr().ok(), Some(sockets.address));
        }
        let error = bind(sockets.address, 1, false).expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let again = bind(sockets.address, 1, true).expect("it is ours");
        assert_eq!(again.address, sockets.address);
    }
}
