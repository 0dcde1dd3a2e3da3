//! Rooms: each file is a config section, its layer, its service and their tests.

pub mod headers;
pub mod redirect;
pub mod respond;
pub mod rewrite;
