//! The process as the kernel sees it: the standard `process_*` metrics.
//!
//! Read from `/proc/self` at scrape time, on the control thread. A number that cannot be read
//! (another system, a hidden `/proc`) is left out rather than guessed.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What a scrape tells of the process. Times in seconds, sizes in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    /// User and system CPU time.
    pub(super) cpu_seconds: Option<f64>,
    /// Resident memory.
    pub(super) resident_bytes: Option<f64>,
    /// Virtual memory.
    pub(super) virtual_bytes: Option<f64>,
    /// Open file descriptors.
    pub(super) open_fds: Option<f64>,
    /// The soft limit of file descriptors; `None` if there is none.
    pub(super) max_fds: Option<f64>,
    /// Threads.
    pub(super) threads: Option<f64>,
    /// Start, in Unix time.
    pub(super) start_seconds: Option<f64>,
}

impl Process {
    /// As it stands now.
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        Process {
            // the folder that is read is open itself
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| fds.count().saturating_sub(1) as f64),
            max_fds: getrlimit(Resource::Nofile).current.map(|n| n as f64),
            ..Process::parse(
                &stat,
                &boot,
                clock_ticks_per_second() as f64,
                page_size() as f64,
            )
        }
    }

    /// The numbers of `/proc/self/stat` (proc_pid_stat(5)) and the boot time of `/proc/stat`.
    fn parse(stat: &str, boot: &str, ticks: f64, page: f64) -> Self {
        // the second field is a name in parentheses and may hold anything
        let after_name = stat.rsplit_once(") ").map_or("", |s| s.1);
        let fields: Vec<f64> = after_name
            .split_ascii_whitespace()
            .map(|f| f.parse().unwrap_or(f64::NAN))
            .collect();
        let field = |number: usize| fields.get(number - 3).copied().filter(|n| !n.is_nan());
        let booted = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
        Process {
            cpu_seconds: field(14)
                .zip(field(15))
                .map(|(user, system)| (user + system) / ticks),
            threads: field(20),
            start_seconds: field(22)
                .zip(booted)
                .map(|(after, booted)| booted + after / ticks),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page),
            ..Process::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 5 0 1000 8192 3 0";
        let process = Process::parse(stat, "cpu 1\nbtime 1700000000\n", 100.0, 4096.0);
        assert_eq!(process.cpu_seconds, Some(3.0));
        assert_eq!(process.threads, Some(5.0));
        assert_eq!(process.start_seconds, Some(1_700_000_010.0));
        assert_eq!(process.virtual_bytes, Some(8192.0));
        assert_eq!(process.resident_bytes, Some(12_288.0));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(Process::parse("", "", 100.0, 4096.0), Process::default());
    }

    #[test]
    fn the_living_process_has_threads_memory_and_descriptors() {
        let process = Process::read();
        assert!(process.threads.is_some_and(|n| n >= 1.0));
        assert!(process.resident_bytes.is_some_and(|n| n > 0.0));
        assert!(process.open_fds.is_some_and(|n| n >= 1.0));
    }
}
