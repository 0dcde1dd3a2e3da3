//! How much of its memory and of its descriptors the process uses, as the kernel sees it.
//!
//! A few small files of `/proc` and of the cgroup, read on the control thread. What cannot be read
//! counts as unused: a gateway must not refuse traffic because a file is hidden from it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

/// Shares of what there is, 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// Resident memory, of what may be used.
    pub memory: f64,
    /// Open descriptors, of those that may be open.
    pub descriptors: f64,
}

/// What there is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Granted {
    /// Bytes; `None`: unknown.
    memory: Option<u64>,
    /// Descriptors; `None`: without limit.
    descriptors: Option<u64>,
}

impl Granted {
    /// As it stands now.
    pub fn read() -> Self {
        Granted {
            memory: memory_limit(&|path| fs::read_to_string(path).ok()),
            descriptors: getrlimit(Resource::Nofile).current,
        }
    }

    /// What is used of it now.
    pub fn used(&self) -> Used {
        let share = |used: Option<u64>, of: Option<u64>| match (used, of) {
            (Some(used), Some(of)) if of > 0 => used as f64 / of as f64,
            _ => 0.0,
        };
        Used {
            memory: share(resident(), self.memory),
            descriptors: share(descriptors(), self.descriptors),
        }
    }
}

/// Bytes of resident memory.
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

/// Open descriptors. Kernels since 6.2 say how many there are; on others they are counted.
fn descriptors() -> Option<u64> {
    let folder = Path::new("/proc/self/fd");
    let told = fs::metadata(folder).ok()?.len();
    if told > 0 {
        return Some(told);
    }
    // the folder that is read is open itself
    let counted = fs::read_dir(folder).ok()?.count().saturating_sub(1);
    u64::try_from(counted).ok()
}

/// The least of what the cgroups above us grant (version 2, or 1), and of what the machine has.
fn memory_limit(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let membership = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let lines = membership.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    let limits = lines.flat_map(|(controllers, path)| {
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return Vec::new();
        };
        let group = Path::new(root).join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|p| p.starts_with(root));
        above
            .map(|folder: &Path| -> PathBuf { folder.join(file) })
            .collect()
    });
    let limits = limits.filter_map(|file| read(&file)?.trim().parse::<u64>().ok());
    limits.chain(machine(read)).min()
}

fn machine(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let text = read(Path::new("/proc/meminfo"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        memory_limit(&|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    const MEMINFO: (&str, &str) = ("/proc/meminfo", "MemTotal:     1024 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_least_of_all_groups_above_and_of_the_machine_holds() {
        let two = [
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "4096\n"),
            MEMINFO,
        ];
        assert_eq!(limit(&two), Some(4096));
        let one = [
            ("/proc/self/cgroup", "5:cpu:/x\n4:memory,blkio:/a\n"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "8192\n"),
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            MEMINFO,
        ];
        assert_eq!(limit(&one), Some(8192));
        let namespaced = [
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/memory.max", "2048\n"),
            MEMINFO,
        ];
        assert_eq!(limit(&namespaced), Some(2048));
        assert_eq!(limit(&[MEMINFO]), Some(1 << 20));
        assert_eq!(limit(&[]), None);
    }

    #[test]
    fn the_living_process_uses_some_of_both_and_not_all() {
        let used = Granted::read().used();
        assert!(used.memory > 0.0 && used.memory < 1.0, "{used:?}");
        assert!(used.descriptors > 0.0 && used.descriptors < 1.0, "{used:?}");
        assert_eq!(Granted::default().used(), Used::default());
    }
}
