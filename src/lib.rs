//! Weir, a reverse-proxy gateway.
#![allow(missing_docs)]
pub mod admin;
pub mod chance;
pub mod clock;
pub mod config;
pub mod error;
pub mod files;
pub mod message;
pub mod middleware;
pub mod plan;
pub mod problem;
pub mod server;
pub mod telemetry;
pub mod units;
pub mod upstream;
