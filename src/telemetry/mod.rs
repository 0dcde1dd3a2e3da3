//! What is counted and what is logged.
//!
//! * `cells`: numbers with one writer
//! * `handles`: the numbers of each route, upstream, listener and worker

pub mod cells;
pub mod handles;
