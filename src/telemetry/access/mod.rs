//! The access log: one JSON line per request, never at a request's expense.
//!
//! A worker formats a line into its own buffer ([`AccessLog`]), which goes as one chunk through a
//! bounded channel to the one [`Writer`], a blocking loop that `server` runs on a thread of its
//! own. When buffer and channel are full the line is dropped and counted: a slow disk or a
//! stopped reader costs log lines, never requests. A buffer leaves when it is large, when its
//! oldest line is [`AGE`] old at the next one, or when the worker calls [`AccessLog::flush`] from
//! its tick, or [`AccessLog::close`] at its end.
//!
//! * `line`: how a line looks
//! * `writer`: where lines go, and what may go wrong there

pub mod line;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::cells::Cell;
use crate::clock;
pub use line::Record;
use line::Stamp;
use writer::{Chunk, Shared};
pub use writer::{Control, Opened, Target, Writer};

/// A buffer of this size goes to the writer.
const CHUNK: usize = 32 * 1024;
/// A buffer that cannot leave grows to this size, then lines are dropped.
const FULL: usize = 256 * 1024;
/// Chunks that may wait for the writer, over all workers.
const WAITING: usize = 64;
/// A line waits about this long for its buffer to fill, while others follow.
pub const AGE: Duration = Duration::from_millis(200);

/// How long a worker that ends waits for room in the channel before it looks again.
const RETRY: Duration = Duration::from_millis(5);

/// What is logged, and where. Made from the `log.access` section; `sample` is 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where lines go; `None` is off.
    pub to: Option<Target>,
    /// The share of requests that is logged.
    pub sample: f64,
}

impl Settings {
    /// As written in the config: `stdout`, `stderr`, `off`, or else the path of a file, relative
    /// to the folder `dir`.
    pub fn new(to: &str, dir: &Path, sample: f64) -> Self {
        let to = match to {
            "off" => None,
            "stdout" => Some(Target::Stdout),
            "stderr" => Some(Target::Stderr),
            path => Some(Target::File(dir.join(path))),
        };
        Settings { to, sample }
    }

    /// Opens the log, and makes its file if there is none. Never waits: a FIFO that nobody reads
    /// is an error.
    pub fn open(&self) -> std::io::Result<Opened> {
        let out = self.to.as_ref().map(Target::open).transpose()?;
        let settings = self.clone();
        Ok(Opened { settings, out })
    }
}

/// Opens the log for this many workers: a handle for each, the loop that writes, and the means to
/// reconfigure, reopen and close it. A file that cannot be opened is an error here, and only here.
pub fn open(
    settings: &Settings,
    workers: usize,
) -> std::io::Result<(Vec<AccessLog>, Writer, Control)> {
    let (sender, receiver) = sync_channel(WAITING);
    let shared = Arc::new(Shared::new(settings, workers));
    let (writer, control) =
        writer::pair(receiver, sender.clone(), shared.clone(), settings.open()?);
    let handles = (0..workers).map(|worker| AccessLog::new(worker, sender.clone(), shared.clone()));
    Ok((handles.collect(), writer, control))
}

/// A worker's handle. Clones share the worker's buffer and stay on its thread.
#[derive(Clone)]
pub struct AccessLog(Arc<Local>);

struct Local {
    worker: usize,
    sender: SyncSender<Chunk>,
    shared: Arc<Shared>,
    buffer: Mutex<Buffer>,
}

struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    oldest: SystemTime,
    stamp: Stamp,
    random: u64,
}

impl AccessLog {
    fn new(worker: usize, sender: SyncSender<Chunk>, shared: Arc<Shared>) -> Self {
        let buffer = Buffer {
            bytes: Vec::new(),
            lines: 0,
            oldest: SystemTime::UNIX_EPOCH,
            stamp: Stamp::default(),
            // any odd number will do; workers should not choose in step
            random: (worker as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        AccessLog(Arc::new(Local {
            worker,
            sender,
            shared,
            buffer: Mutex::new(buffer),
        }))
    }

    /// Whether anything is logged at all, so that nothing need be kept for it.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.shared.share.load(Relaxed) != OFF
    }

    /// Logs a request, if it is in the sample or failed by us with a 5xx. Never waits.
    pub fn log(&self, record: &Record<'_>) {
        let local = &*self.0;
        let share = local.shared.share.load(Relaxed);
        if share == OFF {
            return;
        }
        let mut buffer = local.buffer.lock();
        if !(buffer.chosen(share) || record.failed_by_us()) {
            return;
        }
        if buffer.bytes.len() >= FULL {
            local.send(&mut buffer);
        }
        if buffer.bytes.len() >= FULL {
            local.dropped().inc();
            return;
        }
        let now = clock::wall();
        buffer.write(record, now);
        let aged = now.duration_since(buffer.oldest).unwrap_or(AGE) >= AGE;
        if aged || buffer.bytes.len() >= CHUNK {
            local.send(&mut buffer);
        }
    }

    /// Hands what is buffered to the writer. For the worker's tick.
    pub fn flush(&self) {
        self.0.send(&mut self.0.buffer.lock());
    }

    /// Hands over what is buffered when nothing more is to come; what the writer does not take
    /// `within` that time is counted as dropped. Blocks: for the end of a worker's thread.
    pub fn close(&self, within: Duration) {
        let end = clock::now() + within;
        let mut buffer = self.0.buffer.lock();
        self.0.send(&mut buffer);
        while buffer.lines > 0 && clock::now() < end {
            std::thread::sleep(RETRY);
            self.0.send(&mut buffer);
        }
        self.0.dropped().add(std::mem::take(&mut buffer.lines));
        buffer.bytes = Vec::new();
    }
}

impl Local {
    fn dropped(&self) -> &Cell {
        self.shared.dropped.of(self.worker)
    }

    /// Hands the buffer over; keeps it while the channel is full.
    fn send(&self, buffer: &mut Buffer) {
        if buffer.lines == 0 {
            return;
        }
        let chunk = Chunk {
            bytes: std::mem::take(&mut buffer.bytes),
            lines: buffer.lines,
        };
        match self.sender.try_send(chunk) {
            Ok(()) => buffer.lines = 0,
            Err(TrySendError::Full(chunk)) => buffer.bytes = chunk.bytes,
            Err(TrySendError::Disconnected(chunk)) => {
                self.dropped().add(chunk.lines);
                buffer.lines = 0;
            }
        }
    }
}

impl Buffer {
    fn write(&mut self, record: &Record<'_>, now: SystemTime) {
        if self.lines == 0 {
            self.bytes.reserve(CHUNK + CHUNK / 8);
            self.oldest = now;
        }
        line::write(&mut self.bytes, record, self.stamp.at(now));
        self.lines += 1;
    }

    /// Whether this request is in the sample: xorshift64, good enough to choose by.
    fn chosen(&mut self, share: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random <= share
    }
}

/// The log is off, also for errors. A share of 0 with the log on is [`NONE`].
const OFF: u64 = 0;
/// No number of the sample is below this one but 0, which xorshift never gives.
const NONE: u64 = OFF + 1;

/// The share as a threshold on 64 bits.
fn threshold(settings: &Settings) -> u64 {
    match settings.to {
        None => OFF,
        Some(_) => ((settings.sample.clamp(0.0, 1.0) * u64::MAX as f64) as u64).max(NONE),
    }
}

#[cfg(test)]
mod tests;
