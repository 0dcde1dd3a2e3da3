//! Notices that the config's files may have changed.
//!
//! Folders are watched and not files: editors rename, and Kubernetes swaps the `..data` link
//! beside what it points to, so that the file itself sees no event. An event is a hint and never
//! trusted: `reload` compares content. Where events are not to be had (an inotify limit, a network
//! file system) the poll alone serves, and a warning says so.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// So long nothing may happen before the files are looked at.
const QUIET: Duration = Duration::from_millis(300);
/// Under a stream of events the files are looked at this late at the latest.
const AT_LATEST: Duration = Duration::from_secs(2);
/// The files are looked at this often even without an event.
const POLL: Duration = Duration::from_secs(30);

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Watches folders.
pub struct Watch {
    events: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Identity>,
    /// Those that could not be watched, so that each is told once.
    unwatched: BTreeSet<PathBuf>,
    stirred: Arc<Notify>,
}

impl Watch {
    /// Of no folder yet.
    pub fn new() -> Self {
        let stirred = Arc::new(Notify::new());
        let wake = stirred.clone();
        let events = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files is an event too, and must not lead to reading them again.
            if event.map_or(true, |event| !event.kind.is_access()) {
                wake.notify_one();
            }
        });
        let events = events.inspect_err(|error| {
            tracing::warn!(%error, "file events are not to be had; the config is polled");
        });
        Watch {
            events: events.ok(),
            watched: BTreeMap::new(),
            unwatched: BTreeSet::new(),
            stirred,
        }
    }

    /// Watches the folders of these files, and those that hold the links on the way to them. A
    /// folder that has been replaced, or could not be watched before, is watched anew; since it may
    /// have changed in between, the files are then looked at once more.
    pub fn follow<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) {
        let wanted: BTreeSet<PathBuf> = files.into_iter().flat_map(folders).collect();
        let Some(events) = &mut self.events else {
            return;
        };
        self.unwatched.retain(|folder| wanted.contains(folder));
        self.watched.retain(|folder, identity| {
            let keep = wanted.contains(folder) && Identity::of(folder).as_ref() == Some(identity);
            if !keep {
                // It may be gone from the disk too; then there is nothing left to unwatch.
                drop(events.unwatch(folder));
            }
            keep
        });
        for folder in wanted {
            if self.watched.contains_key(&folder) {
                continue;
            }
            let identity = Identity::of(&folder);
            match (events.watch(&folder, RecursiveMode::NonRecursive), identity) {
                (Ok(()), Some(identity)) => {
                    self.unwatched.remove(&folder);
                    self.watched.insert(folder, identity);
                    self.stirred.notify_one();
                }
                (Ok(()), None) => drop(events.unwatch(&folder)),
                (Err(error), _) => {
                    let shown = folder.display();
                    if self.unwatched.insert(folder.clone()) {
                        tracing::warn!(folder = %shown, %error, "a folder cannot be watched; it is polled");
                    }
                }
            }
        }
    }

    /// Waits until it is time to look at the files: after an event and a moment of quiet, or
    /// after a while without one, or at the latest under a stream of events. Says whether it was
    /// quiet before. May be dropped and called again.
    pub async fn changed(&self) -> bool {
        if timeout(POLL, self.stirred.notified()).await.is_err() {
            return true;
        }
        let quiet = async { while timeout(QUIET, self.stirred.notified()).await.is_ok() {} };
        timeout(AT_LATEST, quiet).await.is_ok()
    }

    /// Waits for the moment between two looks that must agree, so that a file which is being
    /// written in pieces is not taken half. Together with the quiet before it, or alone where there
    /// was none, it is longer than a writer's pause that does not count as its end.
    pub async fn settle(quiet: bool) {
        sleep(if quiet { QUIET / 2 } else { QUIET + QUIET / 2 }).await;
    }
}

impl Default for Watch {
    fn default() -> Self {
        Watch::new()
    }
}

/// Which folder it is that stands at a path: a watch stays with the folder and not with the path.
#[derive(PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    /// The number of a folder that is gone is soon given to another.
    born: Option<SystemTime>,
}

impl Identity {
    fn of(folder: &Path) -> Option<Self> {
        let found = folder.metadata().ok()?;
        Some(Identity {
            device: found.dev(),
            inode: found.ino(),
            born: found.created().ok(),
        })
    }
}

/// The folder of a file and of what it is a link to, and the folders that hold a link on the way;
/// each by the one name without links, since two watches of one folder end together. A folder that
/// is not there yet shows in the nearest one above it that is.
fn folders(file: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut file = file.to_path_buf();
    for _ in 0..MOST_LINKS {
        let mut above = file.ancestors().skip(1);
        found.extend(above.find_map(|folder| not_empty(folder).canonicalize().ok()));
        let mut parts = file.ancestors();
        let Some((link, target)) = parts.find_map(|part| Some((part, part.read_link().ok()?)))
        else {
            break;
        };
        let holder = link.parent().unwrap_or(link);
        found.extend(not_empty(holder).canonicalize());
        let rest: PathBuf = file.strip_prefix(link).into_iter().collect();
        file = holder.join(target).join(rest).components().collect();
    }
    found
}

fn not_empty(folder: &Path) -> &Path {
    let here = folder.as_os_str().is_empty();
    if here { Path::new(".") } else { folder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_link_and_of_its_target_are_both_watched() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("..2026");
        std::fs::create_dir(&data).expect("a folder");
        std::fs::write(data.join("weir.toml"), "").expect("a file");
        std::os::unix::fs::symlink(&data, dir.path().join("..data")).expect("a link");
        let link = dir.path().join("weir.toml");
        std::os::unix::fs::symlink("..data/weir.toml", &link).expect("a link");
        let real = data.canonicalize().expect("it is there");
        let above = dir.path().canonicalize().expect("it is there");
        assert_eq!(folders(&link), [above, real].into());
    }

    #[test]
    fn the_folder_that_holds_a_link_on_the_way_is_watched_and_the_nearest_one_there_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = dir.path().canonicalize().expect("it is there");
        let release = at.join("releases/42");
        std::fs::create_dir_all(&release).expect("a folder");
        std::os::unix::fs::symlink("releases/42", at.join("current")).expect("a link");
        let found = folders(&at.join("current/weir.toml"));
        assert_eq!(found, [at.clone(), release].into());
        let found = folders(&at.join("none/conf.d/*.toml"));
        assert_eq!(found, [at.clone()].into());
        std::os::unix::fs::symlink("round", at.join("round")).expect("a link");
        assert_eq!(folders(&at.join("round")), [at.clone()].into());
    }

    #[tokio::test]
    async fn a_swapped_link_is_noticed() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("weir.toml");
        std::fs::write(&file, "1").expect("a file");
        let mut watch = Watch::new();
        watch.follow([file.as_path()]);
        std::fs::write(dir.path().join("new"), "2").expect("a file");
        std::fs::rename(dir.path().join("new"), &file).expect("renamed");
        let noticed = timeout(Duration::from_secs(10), watch.changed()).await;
        assert!(noticed.is_ok());
    }
}
