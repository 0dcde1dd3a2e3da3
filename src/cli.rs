//! The command line: subcommands, flags and their environment variables.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 good, 1 invalid or failed, 2
//! wrong usage (clap's own).

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{self, Loaded, load};
use crate::plan::explain::Asked;
use crate::problem::{Problems, Sources};
use crate::telemetry::handles::Metrics;
use crate::telemetry::series_estimate;
use crate::{admin, clock, demo, plan, run, server};

/// Weir: a reverse-proxy gateway. It degrades before it refuses, and reloads without losing
/// anything.
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 100)]
#[command(after_help = "Examples:
  weir demo                              try everything, nothing to configure
  weir check weir.toml                   is this config good? exit 0 or 1
  weir explain 'GET http://a.test/x'     which route, which policies, why
  weir diff old.toml new.toml            what would a reload change and reset?
  weir run --config weir.toml            serve; SIGHUP reloads, SIGTERM drains")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve. SIGHUP, a change of the file and POST /reload reload; SIGTERM drains.
    #[command(after_help = "Example:\n  weir run --config /etc/weir/weir.toml")]
    Run {
        /// The config file.
        #[arg(long, short, env = "WEIR_CONFIG", default_value = "weir.toml")]
        config: PathBuf,
        /// Write the bound addresses here, as JSON, once ready.
        #[arg(long, env = "WEIR_READY_FILE", hide = true)]
        ready_file: Option<PathBuf>,
    },
    /// Load, validate and compile a config without serving: a reload up to the swap.
    #[command(
        after_help = "Examples:\n  weir check weir.toml\n  weir check --format json weir.toml"
    )]
    Check {
        /// The config file.
        #[arg(env = "WEIR_CONFIG", default_value = "weir.toml")]
        config: PathBuf,
        /// How the outcome is written.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Say what would become of a request: its route and why the others lost, the policies in
    /// their order, the upstreams, the ladder, each with the line that says so.
    #[command(after_help = "Examples:
  weir explain 'GET https://api.example.com/v1/x'
  weir explain --config weir.toml 'POST http://shop.test/cart' -H 'x-tenant: a' --client 192.0.2.1")]
    Explain {
        /// The config file.
        #[arg(long, short, env = "WEIR_CONFIG", default_value = "weir.toml")]
        config: PathBuf,
        /// The method and the URL.
        request: String,
        /// A field of the request, `name: value`.
        #[arg(long = "header", short = 'H')]
        headers: Vec<String>,
        /// The client's address.
        #[arg(long, default_value = "127.0.0.1")]
        client: IpAddr,
        /// How the outcome is written.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Say what a reload from one config to another would change, and what state it would reset.
    #[command(after_help = "Example:\n  weir diff /etc/weir/weir.toml weir.toml")]
    Diff {
        /// The config that runs.
        old: PathBuf,
        /// The config that is to follow it.
        new: PathBuf,
        /// How the outcome is written.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Weir before four origins of its own, every policy on, in one process.
    Demo {
        /// The port to serve on; the admin address takes the next one.
        #[arg(long, env = "WEIR_DEMO_PORT", default_value = "8080")]
        port: u16,
    },
    /// Print the JSON Schema of the config, for editors.
    Schema,
    /// Ask /readyz of the admin address: exit 0 or 1. For a container without a shell.
    #[command(after_help = "Example:\n  weir healthcheck --address 127.0.0.1:9901")]
    Healthcheck {
        /// The admin address, as in the config.
        #[arg(long, env = "WEIR_ADMIN_ADDRESS", default_value = "127.0.0.1:9901")]
        address: SocketAddr,
    },
    /// Print version, revision and compiler.
    Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: each problem with its line and a caret.
    Text,
    /// For programs.
    Json,
}

/// How long `healthcheck` waits for an answer.
const HEALTHCHECK: Duration = Duration::from_secs(2);

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run { config, ready_file } => run::run(&config, ready_file.as_deref()),
        Command::Check { config, format } => check(&config, format),
        Command::Explain {
            config,
            request,
            headers,
            client,
            format,
        } => explain(&config, &request, &headers, client, format),
        Command::Diff { old, new, format } => diff(&old, &new, format),
        Command::Demo { port } => demo::run(port),
        Command::Schema => print(&format!("{:#}\n", config::schema())),
        Command::Healthcheck { address } => {
            admin::healthcheck(address, HEALTHCHECK).map_err(anyhow::Error::msg)
        }
        Command::Version => version(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Writes data; a reader that has gone is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes to people; if nobody can read it, nothing is lost.
fn say(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

fn version() -> anyhow::Result<()> {
    let build = crate::BUILD;
    print(&format!(
        "weir {} ({})\n{}\n",
        build.version, build.revision, build.rustc
    ))
}

/// A config that was loaded and compiles, or everything that is wrong with it.
pub fn load_and_compile(path: &Path) -> Result<(Arc<Loaded>, plan::Plan), (Problems, Sources)> {
    let loaded = load::load(path).map_err(|invalid| {
        let invalid = plan::compile::all_faults(invalid);
        (invalid.problems, invalid.sources)
    })?;
    let loaded = Arc::new(loaded);
    let workers = server::workers(loaded.config.server.workers.value);
    match plan::compile::compile(loaded.clone(), None, &Metrics::new(workers)) {
        Ok(plan) => Ok((loaded, plan)),
        Err(problems) => Err((problems, loaded.sources.clone())),
    }
}

fn check(path: &Path, format: Format) -> anyhow::Result<()> {
    match (load_and_compile(path), format) {
        (Ok((loaded, _)), Format::Text) => print(&summary(path, &loaded)),
        (Ok((loaded, _)), Format::Json) => print(&format!(
            "{:#}\n",
            serde_json::json!({ "valid": true, "problems": [], "series": series(&loaded) })
        )),
        (Err((problems, sources)), Format::Text) => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            say(&problems.render(&sources, colour));
            anyhow::bail!("{} is not valid", path.display());
        }
        (Err((problems, sources)), Format::Json) => {
            let problems = problems.to_json(&sources);
            print(&format!(
                "{:#}\n",
                serde_json::json!({ "valid": false, "problems": problems })
            ))?;
            anyhow::bail!("{} is not valid", path.display());
        }
    }
}

fn explain(
    path: &Path,
    request: &str,
    headers: &[String],
    client: IpAddr,
    format: Format,
) -> anyhow::Result<()> {
    let asked = Asked::parse(request, headers, Some(client)).map_err(anyhow::Error::msg)?;
    let (_, plan) = sound(path)?;
    let explanation = plan::explain::explain(&plan, &asked, clock::now());
    match format {
        Format::Text => print(&explanation.to_string()),
        Format::Json => print(&format!("{:#}\n", serde_json::json!(explanation))),
    }
}

fn diff(old: &Path, new: &Path, format: Format) -> anyhow::Result<()> {
    let ((old, _), (new, _)) = (sound(old)?, sound(new)?);
    let diff = config::diff::diff(&old, &new);
    match format {
        Format::Text => print(&diff.told()),
        Format::Json => print(&format!("{:#}\n", serde_json::json!(diff))),
    }
}

/// A config that compiles; else its problems are told.
fn sound(path: &Path) -> anyhow::Result<(Arc<Loaded>, plan::Plan)> {
    load_and_compile(path).map_err(|(problems, sources)| {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        say(&problems.render(&sources, colour));
        anyhow::anyhow!("{} is not valid", path.display())
    })
}

/// The worst-case number of metric series of a config.
fn series(loaded: &Loaded) -> usize {
    let config = &loaded.config;
    let (routes, upstreams) = (config.routes.len(), config.upstreams.len());
    let limits = config.routes.iter().map(|route| route.rate_limit.0.len());
    series_estimate(
        routes,
        limits.sum(),
        upstreams,
        config.listeners.len(),
        server::workers(config.server.workers.value),
    )
}

/// The route table of a good config.
fn summary(path: &Path, loaded: &Loaded) -> String {
    let (config, filled) = (&loaded.config, &loaded.sources.filled);
    let mut rows = vec![["ROUTE".to_owned(), "MATCHES".to_owned(), "TO".to_owned()]];
    rows.extend(config.routes.iter().map(|route| {
        [
            route.id.value.clone(),
            config::describe::matches(route, filled),
            config::describe::target(route, filled),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let mut out = String::new();
    for [route, matches, target] in &rows {
        out.push_str(&format!("{route:first$}  {matches:second$}  {target}\n"));
    }
    let counted = [
        (config.listeners.len(), "listener"),
        (config.upstreams.len(), "upstream"),
        (config.routes.len(), "route"),
    ];
    let counted = counted.map(|(n, what)| format!("{n} {what}{}", if n == 1 { "" } else { "s" }));
    let (path, counted) = (path.display(), counted.join(", "));
    let most = series(loaded);
    out.push_str(&format!(
        "\n{path} is valid: {counted}, at most {most} metric series\n"
    ));
    out
}
