//! A look at HTTP/2 frame headers as they come in, for what h2 has no timer or budget for.
//!
//! Nine bytes of each frame are read and its payload is passed over, nothing is changed. It knows
//! whether a header block is unfinished (the pulse then closes a client that sends it too slowly)
//! and whether the client has said goodbye, and counts what costs a client nothing: resets and
//! control frames. A connection that spends its budget is cut.

use std::io;
use std::time::{Duration, Instant};

use crate::clock;

const PREFACE_BYTES: u64 = 24;
const FRAME_HEADER: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// Resets a connection may send in a [`PERIOD`] before they are measured against its requests. A
/// client that lives for days and cancels most of what it asks, watches say, is none that floods.
const RESETS: u64 = 100;
/// Control and empty frames allowed in a [`PERIOD`] beside those that come with requests and data.
const IDLE_FRAMES: u64 = 1_000;
const PERIOD: Duration = Duration::from_secs(10);
/// Bytes of answers that earn a frame: a window update for a piece, a PING to measure by. The
/// acknowledgement of a PING is 17 bytes, so that a flood does not pay for itself.
const EARNING: u64 = 64;
/// Frames of one header block.
const CONTINUATIONS: u32 = 32;

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes of the preface or of the frame's payload that are still to come.
    skip: u64,
    header: [u8; FRAME_HEADER],
    filled: usize,
    preface: bool,
    /// The SETTINGS that end the client's preface have come.
    settled: bool,
    /// Between a HEADERS frame and its END_HEADERS.
    block: bool,
    last_of_block: bool,
    continuations: u32,
    /// The highest stream so far.
    stream: u32,
    requests: u64,
    resets: u64,
    /// Frames that did nothing, less what requests and data have earned.
    idle: u64,
    /// Since when these three are counted.
    since: Instant,
    leaves: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Frames {
            skip: PREFACE_BYTES,
            header: [0; FRAME_HEADER],
            filled: 0,
            preface: true,
            settled: false,
            block: false,
            last_of_block: false,
            continuations: 0,
            stream: 0,
            requests: 0,
            resets: 0,
            idle: 0,
            since: clock::now(),
            leaves: false,
        }
    }
}

impl Frames {
    /// Whether the preface or a header block is unfinished.
    pub(super) fn in_head(&self) -> bool {
        self.preface || self.block
    }

    /// Whether the client has sent GOAWAY: it asks for nothing more.
    pub(super) fn leaves(&self) -> bool {
        self.leaves
    }

    /// So many bytes went out.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.idle = self.idle.saturating_sub(bytes as u64 / EARNING);
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// Where a budget is spent, or the preface does not end in SETTINGS (RFC 9113 3.4).
    pub(super) fn inspect(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let taken = bytes
                    .len()
                    .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                self.skip -= taken as u64;
                bytes = &bytes[taken..];
                if self.skip == 0 {
                    self.payload_ended();
                }
                continue;
            }
            let taken = bytes.len().min(FRAME_HEADER - self.filled);
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == FRAME_HEADER {
                self.filled = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn payload_ended(&mut self) {
        self.preface = false;
        if self.last_of_block {
            self.block = false;
        }
    }

    fn frame(&mut self) -> io::Result<()> {
        let [a, b, c, kind, flags, id @ ..] = self.header;
        let length = u64::from(u32::from_be_bytes([0, a, b, c]));
        if !self.settled && (kind != SETTINGS || flags & ACK != 0) {
            return Err(refused("a preface without SETTINGS"));
        }
        self.settled = true;
        match kind {
            HEADERS => {
                self.request(u32::from_be_bytes(id));
                self.continuations = 0;
                self.begin(flags);
            }
            CONTINUATION => {
                self.continuations += 1;
                self.begin(flags);
            }
            DATA if length > 0 => self.idle = self.idle.saturating_sub(1),
            RST_STREAM => self.resets += 1,
            GOAWAY => self.leaves = true,
            _ => self.idle += 1,
        }
        self.skip = length;
        if length == 0 {
            self.payload_ended();
        }
        self.budgets()
    }

    /// Trailers are no request.
    fn request(&mut self, stream: u32) {
        if stream > self.stream {
            self.stream = stream;
            self.requests += 1;
            self.idle = self.idle.saturating_sub(10);
        } else {
            self.idle += 1;
        }
    }

    fn begin(&mut self, flags: u8) {
        self.block = true;
        self.last_of_block = flags & END_HEADERS != 0;
    }

    fn budgets(&mut self) -> io::Result<()> {
        let spent = if self.continuations > CONTINUATIONS {
            "too many CONTINUATION frames"
        } else if self.resets > RESETS && self.resets * 2 > self.requests && !self.begins_anew() {
            "too many resets"
        } else if self.idle > IDLE_FRAMES && !self.begins_anew() {
            "too many frames without use"
        } else {
            return Ok(());
        };
        Err(refused(spent))
    }

    /// Whether what was counted came over so long a time that the count begins anew.
    fn begins_anew(&mut self) -> bool {
        let now = clock::now();
        let calm = now.duration_since(self.since) >= PERIOD;
        if calm {
            (self.requests, self.resets, self.idle, self.since) = (0, 0, 0, now);
        }
        calm
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.extend(std::iter::repeat_n(0, usize::from(length)));
        bytes
    }

    fn on_stream(mut frame: Vec<u8>, stream: u32) -> Vec<u8> {
        frame[5..9].copy_from_slice(&stream.to_be_bytes());
        frame
    }

    fn greeted() -> Frames {
        let mut frames = Frames::default();
        frames.inspect(PREFACE).expect("the preface is free");
        let settings = frame(SETTINGS, 0, 0);
        frames.inspect(&settings).expect("they belong to it");
        frames.idle = 0;
        frames
    }

    #[test]
    fn f25_the_preface_ends_in_settings() {
        for first in [
            frame(0x6, 0, 8),
            frame(SETTINGS, ACK, 0),
            frame(HEADERS, 5, 1),
        ] {
            let mut frames = Frames::default();
            frames.inspect(PREFACE).expect("so far");
            assert!(frames.inspect(&first).is_err());
        }
    }

    #[test]
    fn a_header_block_is_unfinished_until_the_last_byte_of_its_last_frame() {
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frame(0x4, 0, 12));
        let calm = bytes.len();
        bytes.extend(frame(HEADERS, 0, 5));
        bytes.extend(frame(CONTINUATION, END_HEADERS, 3));
        let end = bytes.len();
        bytes.extend(frame(DATA, 1, 4));
        let mut frames = Frames::default();
        for (at, byte) in bytes.iter().enumerate() {
            frames.inspect(&[*byte]).expect("within the budgets");
            let read = at + 1;
            let expected = read < PREFACE.len() || (read >= calm + FRAME_HEADER && read < end);
            assert_eq!(frames.in_head(), expected, "after {read} bytes");
        }
    }

    #[test]
    fn rapid_resets_are_cut_and_a_client_that_cancels_now_and_then_is_not() {
        let open = |n: u32| on_stream(frame(HEADERS, END_HEADERS, 1), 2 * n + 1);
        let reset = frame(RST_STREAM, 0, 4);
        let mut frames = greeted();
        let survived = (0..1_000)
            .take_while(|n| frames.inspect(&[open(*n), reset.clone()].concat()).is_ok())
            .count();
        assert_eq!(survived, 100);
        let mut frames = greeted();
        for n in 0..1_000 {
            let calm = [open(2 * n), open(2 * n + 1), reset.clone()].concat();
            frames
                .inspect(&calm)
                .expect("half of the requests may be cancelled");
        }
        let mut frames = greeted();
        let trailed = |n: u32| [open(n), open(n), reset.clone()].concat();
        let survived = (0..1_000)
            .take_while(|n| frames.inspect(&trailed(*n)).is_ok())
            .count();
        assert_eq!(survived, 100, "trailers are no request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_lives_long_may_cancel_all_it_asks_a_few_times_a_second() {
        let asked = |n: u32| {
            let open = on_stream(frame(HEADERS, END_HEADERS, 1), 2 * n + 1);
            [open, frame(RST_STREAM, 0, 4)].concat()
        };
        let mut frames = greeted();
        for n in 0..5_000 {
            frames.inspect(&asked(n)).expect("8 in a second");
            tokio::time::advance(Duration::from_millis(125)).await;
        }
        let mut frames = greeted();
        let mut survived = 0;
        while frames.inspect(&asked(survived)).is_ok() {
            survived += 1;
            tokio::time::advance(Duration::from_millis(50)).await;
        }
        assert_eq!(survived, 100, "20 in a second");
    }

    #[test]
    fn floods_of_control_frames_and_continuations_are_cut() {
        for (kind, length) in [(0x6, 8), (0x4, 0), (0x2, 5), (0x8, 4), (DATA, 0)] {
            let mut frames = greeted();
            let flood = frame(kind, 0, length);
            let survived = (0..5_000)
                .take_while(|_| frames.inspect(&flood).is_ok())
                .count();
            assert_eq!(survived, 1_000);
        }
        let mut frames = greeted();
        frames
            .inspect(&frame(HEADERS, 0, 1))
            .expect("a block may begin");
        let one = frame(CONTINUATION, 0, 1);
        assert_eq!(
            (0..99).take_while(|_| frames.inspect(&one).is_ok()).count(),
            32
        );
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_come_with_answers_or_now_and_then_are_no_flood() {
        let update = frame(0x8, 0, 4);
        let mut frames = greeted();
        for _ in 0..10_000 {
            frames.inspect(&update).expect("it was earned");
            frames.wrote(100);
        }
        let mut frames = greeted();
        for _ in 0..3_000 {
            frames.inspect(&update).expect("it is no flood");
            tokio::time::advance(Duration::from_millis(20)).await;
        }
    }
}
