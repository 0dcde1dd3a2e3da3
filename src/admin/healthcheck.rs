//! `weir healthcheck`: asks `/readyz` of an admin address.
//!
//! For a container without a shell, so it is a few lines of blocking std and no HTTP client. It
//! trusts nothing it reads but the status, and never waits longer than it was told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock;

/// As much of an answer as is looked at.
const ANSWER: u64 = 4 * 1024;

/// Good if the gateway at `address` says within `within` that it is ready; else why not.
pub fn healthcheck(address: SocketAddr, within: Duration) -> Result<(), String> {
    let answer = ask(address, within).map_err(|e| format!("{address} does not answer: {e}"))?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some(status) => Err(format!("not ready ({status}): {}", body.trim())),
        None => Err(format!("{address} does not speak HTTP")),
    }
}

fn ask(address: SocketAddr, within: Duration) -> std::io::Result<Vec<u8>> {
    let deadline = clock::now() + within;
    // zero would mean for ever
    let left = || {
        deadline
            .saturating_duration_since(clock::now())
            .max(Duration::from_millis(1))
    };
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_write_timeout(Some(left()))?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while answer.len() < ANSWER as usize {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut piece)? {
            0 => break,
            n => answer.extend_from_slice(&piece[..n]),
        }
        if clock::now() >= deadline {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
    Ok(answer)
}
