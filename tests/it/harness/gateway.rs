//! The real binary on a config of the test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client;
use super::parse::Message;
use super::{SOON, eventually};

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    dir: TempDir,
    ready: serde_json::Value,
}

/// What stands before every test's config: few workers, no waiting at the end, free ports.
const PREAMBLE: &str = "[server]\nworkers = 2\ndrain = { delay = \"0s\", timeout = \"10s\" }\n\
                        [admin]\naddress = \"127.0.0.1:0\"\n";

impl Gateway {
    /// Runs a config to which server and admin sections are added. Listeners are at port 0.
    pub fn start(config: &str) -> Gateway {
        Gateway::start_bare(&format!("{PREAMBLE}{config}"))
    }

    /// One listener `web` in front of one upstream `o` at `origin`, taking every request; `more`
    /// is added to the upstream's section.
    pub fn before(origin: SocketAddr, more: &str) -> Gateway {
        Gateway::start(&before(origin, more))
    }

    /// Runs a config as it stands.
    pub fn start_bare(config: &str) -> Gateway {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("weir.toml"), config).expect("a config");
        Gateway::run_in(dir)
    }

    /// Runs the `weir.toml` of a folder.
    pub fn run_in(dir: TempDir) -> Gateway {
        Gateway::run_with(dir, &[])
    }

    /// The same, with these variables in its environment.
    pub fn run_with(dir: TempDir, env: &[(&str, &str)]) -> Gateway {
        let stderr = std::fs::File::create(dir.path().join("stderr")).expect("a file");
        let stdout = std::fs::File::create(dir.path().join("stdout")).expect("a file");
        let ready_file = dir.path().join("ready.json");
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("run")
            .arg("--config")
            .arg(dir.path().join("weir.toml"))
            .arg("--ready-file")
            .arg(&ready_file)
            .env("WEIR_LOG", "warn")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("the binary runs");
        let end = Instant::now() + SOON;
        let ready = loop {
            if let Ok(text) = std::fs::read_to_string(&ready_file) {
                break serde_json::from_str(&text).expect("JSON");
            }
            let gone = child.try_wait().expect("it is our child");
            if gone.is_some() || Instant::now() > end {
                let said = std::fs::read_to_string(dir.path().join("stderr"));
                panic!(
                    "the gateway did not start ({gone:?}):\n{}",
                    said.unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Gateway { child, dir, ready }
    }

    /// Where a listener is bound at the start.
    pub fn addr(&self, listener: &str) -> SocketAddr {
        let text = self.ready["listeners"][listener]
            .as_str()
            .expect("a listener");
        text.parse().expect("an address")
    }

    /// The listener `web`.
    pub fn web(&self) -> SocketAddr {
        self.addr("web")
    }

    pub fn admin(&self) -> SocketAddr {
        self.ready["admin"]
            .as_str()
            .expect("an address")
            .parse()
            .expect("an address")
    }

    /// The scrape address of a config that has one.
    pub fn scrape(&self) -> SocketAddr {
        let text = self.ready["scrape"].as_str().expect("an address");
        text.parse().expect("an address")
    }

    /// The folder of the config.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("weir.toml")
    }

    /// Puts another config in place in one step, the preamble before it.
    pub fn write_config(&self, config: &str) {
        let beside = self.dir.path().join("weir.toml.new");
        std::fs::write(&beside, format!("{PREAMBLE}{config}")).expect("a config");
        std::fs::rename(beside, self.config_path()).expect("renamed");
    }

    /// `POST /reload`: status, and the report as JSON.
    pub fn reload(&self) -> (u16, serde_json::Value) {
        let request = "POST /reload HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\
                       Content-Length: 0\r\nConnection: close\r\n\r\n";
        let answer = client::ask(self.admin(), request);
        (
            answer.status(),
            serde_json::from_slice(&answer.body).unwrap_or_default(),
        )
    }

    /// A GET on the admin address.
    pub fn ask_admin(&self, target: &str) -> Message {
        let head = "Host: 127.0.0.1\r\nAccept: application/json\r\nConnection: close\r\n\r\n";
        client::ask(self.admin(), &format!("GET {target} HTTP/1.1\r\n{head}"))
    }

    /// All series by name and labels as they stand in /metrics.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let text = client::ask(self.admin(), request).text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        pairs
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// One series; 0 where it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        self.metrics().get(series).copied().unwrap_or(0.0)
    }

    /// The sum over all series that begin so.
    pub fn metric_sum(&self, prefix: &str) -> f64 {
        self.metrics()
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|s| s.1)
            .sum()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB, without the pages of the program itself, which come as code is first
    /// run and say nothing of what is kept.
    pub fn rss(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let text = text.expect("it runs");
        let line = text
            .lines()
            .find(|l| l.starts_with("RssAnon:"))
            .expect("a line");
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number")
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("it runs")
            .count()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        kill_process(pid, signal).expect("it is our child");
    }

    /// Waits for its end.
    pub fn exit(&mut self, within: Duration) -> ExitStatus {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < end, "it did not end:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// It is alive, and no request has panicked.
    pub fn assert_sound(&mut self) {
        assert_eq!(
            self.child.try_wait().expect("it is our child"),
            None,
            "{}",
            self.stderr()
        );
        let metrics = self.metrics();
        let mut panics = metrics
            .iter()
            .filter(|(name, _)| name.contains("reason=\"panic\""));
        assert!(panics.all(|(_, count)| *count == 0.0), "{}", self.stderr());
    }

    /// Waits until no client connection is open any more.
    pub fn wait_idle(&self) {
        eventually("every connection ends", || {
            self.metric_sum("weir_connections{") == 0.0
        });
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// The access log, where it goes to stdout.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stdout")).unwrap_or_default()
    }
}

/// The config of [`Gateway::before`].
pub fn before(origin: SocketAddr, more: &str) -> String {
    format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\nprotocols = [\"http1\", \"h2\"]\n\
         [upstreams.o]\nendpoints = [\"{origin}\"]\n{more}\n\
         [[routes]]\nid = \"all\"\nupstream = \"o\"\n"
    )
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
