//! Notices that the config's files may have changed.
//!
//! Folders are watched and not files: editors rename, and Kubernetes swaps the `..data` link
//! beside what it points to, so that the file itself sees no event. An event is a hint and never
//! trusted: `reload` compares content. Where events are not to be had (an inotify limit, a network
//! file system) the poll alone serves, and a warning says so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// So long nothing may happen before the files are looked at.
const QUIET: Duration = Duration::from_millis(300);
/// Under a stream of events the files are looked at this late at the latest.
const AT_LATEST: Duration = Duration::from_secs(2);
/// The files are looked at this often even without an event.
const POLL: Duration = Duration::from_secs(30);

/// Watches folders.
pub struct Watch {
    events: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
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
            folders: BTreeSet::new(),
            stirred,
        }
    }

    /// Watches the folders of these files and of what links on the way to them point to.
    pub fn follow<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) {
        let wanted: BTreeSet<PathBuf> = files.into_iter().flat_map(folders).collect();
        let Some(events) = &mut self.events else {
            return;
        };
        for gone in self.folders.difference(&wanted) {
            // It may be gone from the disk too; then there is nothing left to unwatch.
            drop(events.unwatch(gone));
        }
        for new in wanted.difference(&self.folders) {
            if let Err(error) = events.watch(new, RecursiveMode::NonRecursive) {
                let folder = new.display();
                tracing::warn!(%folder, %error, "a folder cannot be watched; it is polled");
            }
        }
        self.folders = wanted;
    }

    /// Waits until it is time to look at the files: after an event and a moment of quiet, or
    /// after a while without one. May be dropped and called again.
    pub async fn changed(&self) {
        if timeout(POLL, self.stirred.notified()).await.is_err() {
            return;
        }
        let quiet = async { while timeout(QUIET, self.stirred.notified()).await.is_ok() {} };
        drop(timeout(AT_LATEST, quiet).await);
    }

    /// Waits for the moment between two looks that must agree, so that a file which is being
    /// written in pieces is not taken half.
    pub async fn settle() {
        sleep(QUIET / 2).await;
    }
}

impl Default for Watch {
    fn default() -> Self {
        Watch::new()
    }
}

/// The folder of a file, and of the file it is a link to.
fn folders(file: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = |file: &Path| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_path_buf),
    };
    let real = file.canonicalize().ok();
    [folder(file), real.as_deref().and_then(folder)]
        .into_iter()
        .flatten()
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
        let found: Vec<PathBuf> = folders(&link).collect();
        let real = data.canonicalize().expect("it is there");
        assert_eq!(found, [dir.path().to_path_buf(), real]);
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
