//! The response cache.
//!
//! * `policy`: what may be stored, and what a stored answer is good for: pure functions of
//!   header fields, config and time

pub mod policy;
