//! The decoders, for clients that do not take what an upstream sends: never more than a buffer at
//! a time, and never much more than went in.
//!
//! What an upstream sends is not trusted: it may be cut, not be what it says, or unfold without
//! end (CASES J10, J11). All of that is an error, and the answer is broken off.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use zlib_rs::{Inflate, InflateFlush, Status};
use zstd::stream::raw::{DParameter, Decoder as Zstd, InBuffer, Operation as _, OutBuffer};

use crate::message::coding::Coding;

/// Bytes out for each byte in, beyond [`FREE`].
const RATIO: u64 = 100;

/// Bytes out for which no ratio is asked: a page of zeros is no attack.
const FREE: u64 = 1 << 20;

/// The largest window, as a power of two; 16 more say that a gzip header comes.
const GZIP_WINDOW: u8 = 15 + 16;

/// The largest window, as a power of two (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

/// Why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    /// It is not what it says.
    #[error("not in the coding it says it is in")]
    Garbage,
    /// It ends before its end.
    #[error("a coded body that ends too early")]
    Cut,
    /// It unfolds to too much.
    #[error("a coded body that unfolds to more than a hundred times its size")]
    Bomb,
}

/// One stream being decoded.
pub(super) struct Decoder {
    codec: Codec,
    taken: u64,
    given: u64,
    /// Between streams: this may be the end.
    whole: bool,
}

enum Codec {
    Gzip(Inflate),
    Br(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(Zstd<'static>),
}

impl Decoder {
    pub(super) fn new(coding: Coding) -> Result<Self, Bad> {
        let codec = match coding {
            Coding::Gzip => Codec::Gzip(Inflate::new(true, GZIP_WINDOW)),
            Coding::Br => {
                let alloc = StandardAlloc::default;
                Codec::Br(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
            }
            Coding::Zstd => {
                let mut decoder = Zstd::new().map_err(|_| Bad::Garbage)?;
                let window = decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW));
                window.map_err(|_| Bad::Garbage)?;
                Codec::Zstd(decoder)
            }
        };
        Ok(Decoder {
            codec,
            taken: 0,
            given: 0,
            whole: false,
        })
    }

    /// Decodes from `input` into `room`: bytes taken and given. Neither: it needs more input.
    pub(super) fn step(&mut self, input: &[u8], room: &mut [u8]) -> Result<(usize, usize), Bad> {
        if input.is_empty() && self.whole {
            return Ok((0, 0));
        }
        let (taken, given) = match &mut self.codec {
            Codec::Gzip(decoder) => {
                // Members may follow each other (RFC 1952 2.2).
                if self.whole {
                    *decoder = Inflate::new(true, GZIP_WINDOW);
                }
                let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, room, InflateFlush::NoFlush);
                self.whole = status.map_err(|_| Bad::Garbage)? == Status::StreamEnd;
                let taken = decoder.total_in() - before_in;
                let given = decoder.total_out() - before_out;
                (length(taken), length(given))
            }
            Codec::Br(decoder) => {
                if self.whole {
                    return Err(Bad::Garbage);
                }
                let (mut left, mut taken) = (input.len(), 0);
                let (mut space, mut given) = (room.len(), 0);
                let result = BrotliDecompressStream(
                    &mut left, &mut taken, input, &mut space, &mut given, room, &mut 0, decoder,
                );
                match result {
                    BrotliResult::ResultFailure => return Err(Bad::Garbage),
                    BrotliResult::ResultSuccess => self.whole = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                }
                (taken, given)
            }
            Codec::Zstd(decoder) => {
                let mut input = InBuffer::around(input);
                let mut room = OutBuffer::around(room);
                let left = decoder.run(&mut input, &mut room);
                self.whole = left.map_err(|_| Bad::Garbage)? == 0;
                (input.pos(), room.pos())
            }
        };
        self.count(taken, given)?;
        Ok((taken, given))
    }

    /// There is no more input.
    pub(super) fn end(&self) -> Result<(), Bad> {
        if self.whole { Ok(()) } else { Err(Bad::Cut) }
    }

    fn count(&mut self, taken: usize, given: usize) -> Result<(), Bad> {
        self.taken += taken as u64;
        self.given += given as u64;
        let most = self.taken.saturating_mul(RATIO).saturating_add(FREE);
        if self.given > most {
            Err(Bad::Bomb)
        } else {
            Ok(())
        }
    }
}

/// Of a part of a buffer.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
