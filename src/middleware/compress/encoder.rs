//! The encoders: one step of any coding, into a buffer that is taken empty.
//!
//! Windows, tables and blocks are bounded here, so that a stream costs what [`Make::weight`] says and
//! not what the codecs take when nobody says (brotli: 11 and 4 MiB). gzip and zstd are begun anew
//! instead of allocated: for a small body that is most of the work.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderOperation, BrotliEncoderParameter as Br, BrotliEncoderStateStruct,
};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};
use zstd::stream::raw::{CParameter, Encoder as Zstd, InBuffer, Operation as _, OutBuffer};

use crate::message::coding::Coding;

/// Windows, as powers of two.
const GZIP_WINDOW: i32 = 14;
const BR_WINDOW: u32 = 16;
const BR_WIDE_WINDOW: u32 = 18;
const ZSTD_WINDOW: u32 = 15;

/// What zlib adds to a window's size to say that the stream has a gzip header.
const GZIP_HEADER: i32 = 16;

/// Symbols that gzip gathers before it writes a block, as a power of two, less 6.
const GZIP_BLOCK: i32 = 7;

/// Tables of zstd, as powers of two: of long matches, of short ones.
const ZSTD_TABLES: (u32, u32) = (14, 13);

/// The largest block of zstd, in bytes: its buffers are many times as large.
const ZSTD_BLOCK: u32 = 16 * 1024;

/// From this level on, brotli takes tables of 34 MiB for a window of 64 KiB, and fewer for a wider.
const BR_NEEDS_WIDE: u8 = 5;

/// Input after which brotli has to say what it has, in bytes: all that it knows of it stays in memory
/// until then, a hundred times what it comes to.
const BR_BLOCK: usize = 32 * 1024;

/// Room that a step makes for its output, in bytes.
const ROOM: usize = 4 * 1024;

/// What a step does after its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// More will come.
    GoOn,
    /// All so far can be decoded.
    Flush,
    /// That was all.
    Finish,
}

/// The codec said no, which it does only when memory is gone or it was asked nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the encoder failed")]
pub(super) struct Failed;

/// What an encoder is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Make {
    pub(super) coding: Coding,
    pub(super) level: u8,
    /// For one of the few long bodies that are encoded aside: it may take more memory.
    pub(super) aside: bool,
}

impl Make {
    /// What it takes of memory for a stream without end, in bytes.
    pub(super) fn weight(self) -> usize {
        match self.coding {
            Coding::Gzip | Coding::Zstd => 256 << 10,
            Coding::Br if self.level < BR_NEEDS_WIDE => 1280 << 10,
            Coding::Br => 2304 << 10,
        }
    }

    fn br_window(self) -> u32 {
        if self.aside || self.level >= BR_NEEDS_WIDE {
            BR_WIDE_WINDOW
        } else {
            BR_WINDOW
        }
    }
}

/// One stream being encoded.
pub(super) struct Encoder {
    pub(super) make: Make,
    codec: Codec,
    /// Input that brotli has not said yet, in bytes.
    unsaid: usize,
}

enum Codec {
    Gzip(Deflate),
    Br(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    Zstd(Zstd<'static>),
}

impl Encoder {
    pub(super) fn new(make: Make) -> Result<Self, Failed> {
        let level = make.level;
        let codec = match make.coding {
            Coding::Gzip => Codec::Gzip(Deflate::new_with_config(DeflateConfig {
                level: i32::from(level),
                window_bits: GZIP_WINDOW + GZIP_HEADER,
                mem_level: GZIP_BLOCK,
                ..DeflateConfig::default()
            })),
            Coding::Br => {
                let mut encoder = BrotliEncoderStateStruct::new(StandardAlloc::default());
                encoder.set_parameter(Br::BROTLI_PARAM_QUALITY, u32::from(level));
                encoder.set_parameter(Br::BROTLI_PARAM_LGWIN, make.br_window());
                Codec::Br(Box::new(encoder))
            }
            Coding::Zstd => {
                let mut encoder = Zstd::new(i32::from(level)).map_err(|_| Failed)?;
                for bound in [
                    CParameter::WindowLog(ZSTD_WINDOW),
                    CParameter::HashLog(ZSTD_TABLES.0),
                    CParameter::ChainLog(ZSTD_TABLES.1),
                    CParameter::MaxBlockSize(ZSTD_BLOCK),
                ] {
                    encoder.set_parameter(bound).map_err(|_| Failed)?;
                }
                Codec::Zstd(encoder)
            }
        };
        Ok(Encoder {
            make,
            codec,
            unsaid: 0,
        })
    }

    /// Ready for another stream; false: it cannot be used again.
    pub(super) fn renew(&mut self) -> bool {
        match &mut self.codec {
            Codec::Gzip(encoder) => {
                encoder.reset();
                true
            }
            Codec::Br(_) => false,
            Codec::Zstd(encoder) => encoder.reinit().is_ok(),
        }
    }

    /// Says how many bytes will come, before the first.
    pub(super) fn expect(&mut self, length: u64) -> Result<(), Failed> {
        match &mut self.codec {
            Codec::Zstd(encoder) => {
                let pledged = encoder.set_pledged_src_size(Some(length));
                pledged.map_err(|_| Failed)
            }
            // From 1 MiB on it takes a table of 4 MiB.
            Codec::Br(encoder) => {
                let most = if self.make.aside {
                    u32::MAX
                } else {
                    (1 << 20) - 1
                };
                let hint = u32::try_from(length).unwrap_or(most).min(most);
                encoder.set_parameter(Br::BROTLI_PARAM_SIZE_HINT, hint);
                Ok(())
            }
            Codec::Gzip(_) => Ok(()),
        }
    }

    /// Encodes all of `input`, then does as told; adds to `out`.
    pub(super) fn step(
        &mut self,
        input: &[u8],
        then: Then,
        out: &mut Vec<u8>,
    ) -> Result<(), Failed> {
        self.unsaid += input.len();
        match &mut self.codec {
            Codec::Gzip(encoder) => gzip(encoder, input, then, out),
            Codec::Br(encoder) => {
                let full = self.unsaid >= BR_BLOCK && !self.make.aside;
                let then = if full && then == Then::GoOn {
                    Then::Flush
                } else {
                    then
                };
                if then != Then::GoOn {
                    self.unsaid = 0;
                }
                br(encoder, input, then, out)
            }
            Codec::Zstd(encoder) => zstd(encoder, input, then, out),
        }
    }
}

fn gzip(
    encoder: &mut Deflate,
    mut input: &[u8],
    then: Then,
    out: &mut Vec<u8>,
) -> Result<(), Failed> {
    let flush = match then {
        Then::GoOn => DeflateFlush::NoFlush,
        Then::Flush => DeflateFlush::SyncFlush,
        Then::Finish => DeflateFlush::Finish,
    };
    loop {
        let at = out.len();
        out.resize(at + ROOM, 0);
        let (taken, given) = (encoder.total_in(), encoder.total_out());
        let status = encoder.compress(input, &mut out[at..], flush);
        let count = |now, before| usize::try_from(now - before).map_err(|_| Failed);
        let given = count(encoder.total_out(), given)?;
        out.truncate(at + given);
        input = &input[count(encoder.total_in(), taken)?..];
        // Room that is left says that there is no more to come.
        let drained = given < ROOM;
        match (status.map_err(|_| Failed)?, then) {
            (Status::StreamEnd, _) => return Ok(()),
            (_, Then::Finish) => {}
            _ if input.is_empty() && drained => return Ok(()),
            _ => {}
        }
    }
}

fn br(
    encoder: &mut BrotliEncoderStateStruct<StandardAlloc>,
    input: &[u8],
    then: Then,
    out: &mut Vec<u8>,
) -> Result<(), Failed> {
    let operation = match then {
        Then::GoOn => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
        Then::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
        Then::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
    };
    let (mut left, mut at) = (input.len(), 0);
    loop {
        // Without room of ours it keeps its output until that is taken.
        let good = encoder.compress_stream(
            operation,
            &mut left,
            input,
            &mut at,
            &mut 0,
            &mut [],
            &mut 0,
            &mut None,
            &mut |_, _, _, _| (),
        );
        if !good {
            return Err(Failed);
        }
        let ready = encoder.has_more_output();
        while encoder.has_more_output() {
            let mut size = 0;
            let ready = encoder.take_output(&mut size);
            out.extend_from_slice(&ready[..size]);
        }
        match then {
            Then::Finish if encoder.is_finished() => return Ok(()),
            Then::Finish => {}
            Then::GoOn | Then::Flush if left == 0 && !ready => return Ok(()),
            Then::GoOn | Then::Flush => {}
        }
    }
}

fn zstd(
    encoder: &mut Zstd<'static>,
    input: &[u8],
    then: Then,
    out: &mut Vec<u8>,
) -> Result<(), Failed> {
    let mut input = InBuffer::around(input);
    while input.pos() < input.src.len() {
        into(out, |room| encoder.run(&mut input, room))?;
    }
    loop {
        let left = match then {
            Then::GoOn => 0,
            Then::Flush => into(out, |room| encoder.flush(room))?,
            Then::Finish => into(out, |room| encoder.finish(room, true))?,
        };
        if left == 0 {
            return Ok(());
        }
    }
}

/// Lends the codec some room at the end of `out`.
fn into(
    out: &mut Vec<u8>,
    work: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> std::io::Result<usize>,
) -> Result<usize, Failed> {
    out.reserve(ROOM);
    let at = out.len();
    let mut room = OutBuffer::around_pos(out, at);
    work(&mut room).map_err(|_| Failed)
}
