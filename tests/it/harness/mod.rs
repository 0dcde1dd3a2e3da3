//! What every integration test stands on: the real binary, raw sockets on both sides of it, and
//! an origin that records every byte.
//!
//! Blocking sockets and threads, so that a test reads top to bottom. Every wait has a bound.
//!
//! * `gateway`: `weir run` on a config of the test's own, its addresses, metrics, memory, signals
//! * `client`: bytes out, strictly parsed answers in
//! * `h2c`: an HTTP/2 client that keeps the rules
//! * `secure`: TLS from the client, certificates
//! * `h2`, `hpack`: HTTP/2 frames out and in
//! * `origin`: an upstream that records requests with a strict parser of its own and answers as
//!   the test says
//! * `oracles`: both with a victim beside them, and what must hold after every exchange

pub mod bench;
pub mod client;
pub mod gateway;
pub mod h2;
pub mod h2c;
pub mod hpack;
pub mod oracles;
pub mod origin;
pub mod parse;
pub mod rpc;
pub mod secure;

use std::time::{Duration, Instant};

pub use client::Raw;
pub use gateway::Gateway;
pub use origin::{Origin, Reply};

/// How long anything may take that should take no time.
pub const SOON: Duration = Duration::from_secs(10);

/// Waits until `holds`, looking every few milliseconds; panics with `what` after [`SOON`].
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "it never came about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
