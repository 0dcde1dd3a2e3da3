//! The one integration binary: the gateway by its front door.

mod config;
mod docs;
mod floor_plan;
