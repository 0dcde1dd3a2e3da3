//! The encoders: one step of any coding, into a buffer that is taken empty.
//!
//! Windows and tables are bounded here, so that a stream costs a few hundred KiB and not what the
//! codecs take when nobody says (brotli: 11 and 4 MiB). gzip and zstd are begun anew instead of
//! allocated: for a small body that is most of the work.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderOperation, BrotliEncoderParameter as Br, BrotliEncoderStateStruct,
};
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::stream::raw::{CParameter, Encoder as Zstd, InBuffer, Operation as _, OutBuffer};

use crate::message::coding::Coding;

/// Windows, as powers of two.
const GZIP_WINDOW: u8 = 15;
const BR_WINDOW: u32 = 18;
const ZSTD_WINDOW: u32 = 17;

/// Tables of zstd, as powers of two: of long matches, of short ones.
const ZSTD_TABLES: (u32, u32) = (16, 15);

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

/// One stream being encoded.
pub(super) struct Encoder {
    pub(super) coding: Coding,
    pub(super) level: u8,
    codec: Codec,
}

enum Codec {
    Gzip(Compress),
    Br(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    Zstd(Zstd<'static>),
}

impl Encoder {
    pub(super) fn new(coding: Coding, level: u8) -> Result<Self, Failed> {
        let codec = match coding {
            Coding::Gzip => {
                let level = Compression::new(u32::from(level));
                Codec::Gzip(Compress::new_gzip(level, GZIP_WINDOW))
            }
            Coding::Br => {
                let mut encoder = BrotliEncoderStateStruct::new(StandardAlloc::default());
                encoder.set_parameter(Br::BROTLI_PARAM_QUALITY, u32::from(level));
                encoder.set_parameter(Br::BROTLI_PARAM_LGWIN, BR_WINDOW);
                Codec::Br(Box::new(encoder))
            }
            Coding::Zstd => {
                let mut encoder = Zstd::new(i32::from(level)).map_err(|_| Failed)?;
                for bound in [
                    CParameter::WindowLog(ZSTD_WINDOW),
                    CParameter::HashLog(ZSTD_TABLES.0),
                    CParameter::ChainLog(ZSTD_TABLES.1),
                ] {
                    encoder.set_parameter(bound).map_err(|_| Failed)?;
                }
                Codec::Zstd(encoder)
            }
        };
        Ok(Encoder {
            coding,
            level,
            codec,
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
            Codec::Br(encoder) => {
                let hint = u32::try_from(length).unwrap_or(u32::MAX);
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
        match &mut self.codec {
            Codec::Gzip(encoder) => gzip(encoder, input, then, out),
            Codec::Br(encoder) => br(encoder, input, then, out),
            Codec::Zstd(encoder) => zstd(encoder, input, then, out),
        }
    }
}

fn gzip(
    encoder: &mut Compress,
    mut input: &[u8],
    then: Then,
    out: &mut Vec<u8>,
) -> Result<(), Failed> {
    let flush = match then {
        Then::GoOn => FlushCompress::None,
        Then::Flush => FlushCompress::Sync,
        Then::Finish => FlushCompress::Finish,
    };
    loop {
        out.reserve(ROOM);
        let before = encoder.total_in();
        let status = encoder.compress_vec(input, out, flush);
        let taken = usize::try_from(encoder.total_in() - before).map_err(|_| Failed)?;
        input = &input[taken..];
        // A buffer that is not full says that there is no more to come.
        let drained = out.len() < out.capacity();
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
