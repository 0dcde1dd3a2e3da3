//! How a request leaves.
pub mod config;
