//! Integration tests: the real binary, real sockets, hostile traffic. One binary for all of them.
//!
//! Tests of CASES.md carry the ID of their row in their name.

#![allow(missing_docs, reason = "tests are named for what must hold")]
#![allow(unreachable_pub, reason = "one binary, nobody outside")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "clients and origins are plain threads with real time"
)]

mod acceptance;
mod bodies;
mod breaker;
mod breaker_endpoint;
mod cache;
mod cases;
mod compress;
mod concurrency;
mod config;
mod cool_downs;
mod docs;
mod explain;
mod fallback;
mod floor_plan;
mod forwarding;
mod framing;
mod framing_fuzz;
mod h2_dos;
mod h2_faults;
mod h2_semantics;
mod harness;
mod hops;
mod hostile;
mod interim;
mod kill;
mod leaving;
mod lifecycle;
mod operator;
mod rate_limits;
mod reload;
mod request_line;
mod resting;
mod retries;
mod shed;
mod slow_readers;
mod stampede;
mod streams;
mod tls;
mod tunnels;
mod upstream_answers;
mod upstream_h2;
