//! Weir, a reverse-proxy gateway.
pub mod admin;
pub mod chance;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod error;
pub mod files;
pub mod message;
pub mod middleware;
pub mod plan;
pub mod problem;
pub mod reload;
pub mod run;
pub mod server;
pub mod telemetry;
pub mod units;
pub mod upstream;
pub mod watch;

use telemetry::Build;

/// What this is.
pub const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    revision: env!("WEIR_REVISION"),
    rustc: env!("WEIR_RUSTC"),
};

/// Reads the command line and does what it says.
pub fn run() -> std::process::ExitCode {
    cli::main()
}
