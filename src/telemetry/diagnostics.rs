//! Diagnostics: what Weir says of itself, on stderr.
//!
//! Set up once by [`init`]; the level follows reloads through [`Diagnostics`]. `WEIR_LOG` (a
//! filter such as `weir=debug,hyper=info`) overrules the config, `NO_COLOR` and a stderr that is
//! no terminal mean no colours. Workers write here too, so a stderr that takes nothing (a stopped
//! reader) loses lines instead of stopping a worker, and a closed one is no error.

use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// The variable that overrules the level of the config.
pub const VARIABLE: &str = "WEIR_LOG";
/// A pipe that is ready takes this much without blocking (POSIX `PIPE_BUF` on Linux).
const AT_ONCE: usize = 4_096;

/// How diagnostics look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Text,
    /// Lines for programs.
    Json,
}

/// Changes the level while running.
pub struct Diagnostics {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Starts writing to stderr. The error says what is wrong with `WEIR_LOG`, or that something else
/// writes diagnostics already.
pub fn init(level: LevelFilter, format: Format) -> Result<Diagnostics, String> {
    let (filter, handle) = reload::Layer::new(filter(level, variable())?);
    let colours = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines = fmt::layer()
        .with_writer(|| Patient)
        .with_ansi(colours && io::stderr().is_terminal())
        // it would panic on a closed stderr
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map_err(|e| e.to_string())?;
    Ok(Diagnostics { filter: handle })
}

impl Diagnostics {
    /// Takes another level into force, unless `WEIR_LOG` is set.
    pub fn set_level(&self, level: LevelFilter) {
        if variable().is_some() {
            return;
        }
        let changed =
            filter(level, None).and_then(|f| self.filter.reload(f).map_err(|e| e.to_string()));
        if let Err(error) = changed {
            tracing::warn!(error, "the log level cannot be changed");
        }
    }
}

fn variable() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|v| !v.is_empty())
}

fn filter(level: LevelFilter, variable: Option<String>) -> Result<EnvFilter, String> {
    let filter = EnvFilter::builder().with_default_directive(level.into());
    match variable {
        Some(text) => filter.parse(&text).map_err(|e| format!("{VARIABLE}: {e}")),
        None => filter.parse("").map_err(|e| e.to_string()),
    }
}

/// Stderr that is only written to when it takes something. Two threads may both find it ready and
/// one of them wait for the other's 4 KiB to be read; that race is accepted.
struct Patient;

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
        let ready = poll(&mut fds, Some(&Timespec::default()))?;
        if ready == 0 {
            return Ok(bytes.len());
        }
        stderr.lock().write(&bytes[..bytes.len().min(AT_ONCE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_overrules_the_level() {
        let plain = filter(LevelFilter::INFO, None).map(|f| f.to_string());
        assert_eq!(plain, Ok("info".into()));
        let said = filter(LevelFilter::INFO, Some("weir=debug".into())).map(|f| f.to_string());
        assert!(said.is_ok_and(|f| f.contains("weir=debug")));
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        let wrong = filter(LevelFilter::INFO, Some("weir=shouting".into()));
        assert!(wrong.is_err_and(|e| e.starts_with("WEIR_LOG: ")));
    }
}
