//! Where access-log lines go, and what may go wrong there.
//!
//! [`Writer::run`] is a blocking loop for a thread of its own. It survives a full disk, a closed
//! pipe and a closed stdout: what cannot be written is counted as dropped, said once per outage,
//! and the next chunk is tried again, so writing goes on by itself when space returns. After half
//! a chunk the next one starts on a line of its own. Another target, opened by whoever asks for it,
//! is taken between two chunks. It must never panic and never hold a lock that a worker takes.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::{Settings, threshold};
use crate::telemetry::cells::{Cell, PerWorker};

/// How long a non-blocking target that takes nothing is left alone before it is asked again.
const PAUSE: Duration = Duration::from_millis(5);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, which is appended to.
    File(PathBuf),
}

/// Lines on their way to the writer.
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// What workers, writer and control share.
pub(super) struct Shared {
    /// The share that is logged, as a threshold; see `threshold`.
    pub(super) share: AtomicU64,
    /// Lines lost, by worker; the last block is the writer's.
    pub(super) dropped: PerWorker<Cell>,
    written: Cell,
    /// Where the next chunk goes, if elsewhere.
    next: Mutex<Option<Option<File>>>,
    closing: AtomicBool,
}

impl Shared {
    pub(super) fn new(settings: &Settings, workers: usize) -> Self {
        Shared {
            share: AtomicU64::new(threshold(settings)),
            dropped: PerWorker::new(workers, Cell::default),
            written: Cell::default(),
            next: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }
}

/// The writing end and the means to steer it.
pub(super) fn pair(
    chunks: Receiver<Chunk>,
    sender: SyncSender<Chunk>,
    shared: Arc<Shared>,
    opened: Opened,
) -> (Writer, Control) {
    let (alive, ended) = sync_channel(0);
    let writer = Writer {
        chunks,
        out: opened.out,
        torn: false,
        failing: false,
        shared: shared.clone(),
        _alive: alive,
    };
    let control = Control {
        sender,
        shared,
        settings: Mutex::new(opened.settings),
        ended: Mutex::new(ended),
    };
    (writer, control)
}

/// A log that can be written to.
pub struct Opened {
    pub(super) settings: Settings,
    /// `None` where the log is off.
    pub(super) out: Option<File>,
}

impl Target {
    /// A file that writes straight to it, without a buffer that could hold a failed line back.
    pub(super) fn open(&self) -> io::Result<File> {
        match self {
            Target::Stdout => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Target::Stderr => Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
            Target::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
                .open(path),
        }
    }
}

/// Steers the access log from the control thread.
pub struct Control {
    sender: SyncSender<Chunk>,
    shared: Arc<Shared>,
    settings: Mutex<Settings>,
    ended: Mutex<Receiver<()>>,
}

impl Control {
    /// Lines written, and lines lost.
    pub fn counts(&self) -> (u64, u64) {
        let lost = self.shared.dropped.sum(Cell::get);
        (self.shared.written.get(), lost)
    }

    /// Takes other settings into force.
    pub fn apply(&self, opened: Opened) {
        let Opened { settings, out } = opened;
        self.shared.share.store(threshold(&settings), Relaxed);
        *self.shared.next.lock() = Some(out);
        *self.settings.lock() = settings;
        self.wake();
    }

    /// Opens the file anew, after it was moved away.
    pub fn reopen(&self) {
        let settings = self.settings.lock().clone();
        match settings.open() {
            Ok(opened) => self.apply(opened),
            // the old file still takes lines: better there than nowhere
            Err(error) => {
                tracing::warn!(%error, to = ?settings.to, "the access log cannot be opened");
            }
        }
    }

    /// Writes what has been handed over and ends the writer; `false` if that took longer than
    /// `within`. Workers flush before. Blocks: call it off the workers, when nothing else runs.
    pub fn close(&self, within: Duration) -> bool {
        self.shared.closing.store(true, Relaxed);
        self.wake();
        let ended = self.ended.lock().recv_timeout(within);
        ended == Err(RecvTimeoutError::Disconnected)
    }

    /// A full channel needs no waking: the writer looks up after each chunk.
    fn wake(&self) {
        let nothing = Chunk {
            bytes: Vec::new(),
            lines: 0,
        };
        drop(self.sender.try_send(nothing));
    }
}

/// The one that writes.
pub struct Writer {
    chunks: Receiver<Chunk>,
    out: Option<File>,
    torn: bool,
    failing: bool,
    shared: Arc<Shared>,
    /// Dropped with the writer: that is how `close` learns of its end.
    _alive: SyncSender<()>,
}

impl Writer {
    /// Writes until closed, or until nobody is left to log. Blocks.
    pub fn run(mut self) {
        while self.step() && !self.shared.closing.load(Relaxed) {}
        while let Ok(chunk) = self.chunks.try_recv() {
            self.write(&chunk);
        }
    }

    /// Waits for a chunk and writes it; `false` when nobody is left to send one.
    pub(super) fn step(&mut self) -> bool {
        let Ok(chunk) = self.chunks.recv() else {
            return false;
        };
        self.retarget();
        self.write(&chunk);
        true
    }

    fn retarget(&mut self) {
        if let Some(out) = self.shared.next.lock().take() {
            self.out = out;
            self.torn = false;
            self.failing = false;
        }
    }

    fn write(&mut self, chunk: &Chunk) {
        if chunk.lines == 0 {
            return;
        }
        match self.try_write(&chunk.bytes) {
            Ok(()) => {
                self.failing = false;
                self.shared.written.add(chunk.lines);
            }
            Err(error) => {
                self.shared.dropped.control().add(chunk.lines);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "access-log lines are lost");
                }
            }
        }
    }

    /// All of it, or an error with what was written of the last line marked as torn.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Writer { out, torn, .. } = self;
        let out = out.as_mut().ok_or(ErrorKind::NotConnected)?;
        if *torn {
            put(out, &self.shared, b"\n", &mut false)?;
        }
        *torn = false;
        put(out, &self.shared, bytes, torn)
    }
}

/// `write_all` that notes a half-written line and waits for non-blocking targets until closing.
fn put(out: &mut File, shared: &Shared, mut bytes: &[u8], torn: &mut bool) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => {
                *torn = n < bytes.len() && bytes[n - 1] != b'\n';
                bytes = &bytes[n..];
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock && !shared.closing.load(Relaxed) => {
                std::thread::sleep(PAUSE);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn after_half_a_line_the_next_one_starts_on_its_own() {
        let (mut reader, pipe) = io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&pipe, true).expect("not blocking");
        let settings = Settings {
            to: None,
            sample: 1.0,
        };
        let (sender, chunks) = sync_channel(1);
        let shared = Arc::new(Shared::new(&settings, 1));
        shared.closing.store(true, Relaxed);
        let (mut writer, _control) = pair(chunks, sender, shared, settings.open().expect("off"));
        writer.out = Some(File::from(OwnedFd::from(pipe)));

        // more than a pipe takes: the rest is lost, in the middle of a line
        assert!(writer.try_write(&[b'a'; 1 << 20]).is_err());
        assert!(writer.torn);
        let mut taken = vec![0; 64 * 1024];
        reader.read_exact(&mut taken).expect("a full pipe");
        writer.try_write(b"{}\n").expect("room");
        drop(writer);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).expect("the end");
        assert!(rest.ends_with(b"\n{}\n"));
    }
}
