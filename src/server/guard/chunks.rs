//! Where a chunked body ends (RFC 9112 7.1).
//!
//! Follows chunk sizes, data and trailers over any split of the bytes. As lenient as hyper's own
//! decoder in what follows a size, so that both see the same end; anything else is `Broken`, also
//! where hyper is more lenient: a bare LF, a size without end.

/// The most digits of a size, zeros too.
const MOST_DIGITS: u8 = 16;

/// Inside a chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    size: u64,
    digits: u8,
}

#[derive(Debug, Default, Clone, Copy)]
enum At {
    #[default]
    FirstDigit,
    Digits,
    AfterSize,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

/// What the bytes brought.
pub(super) enum Progress {
    /// All of them belong to the body; it goes on.
    More,
    /// The body ended after this many.
    Done(usize),
    /// This is no chunked body, from the byte after so many on.
    Broken(usize),
}

impl Chunks {
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Progress {
        let mut i = 0;
        while i < bytes.len() {
            if matches!(self.at, At::Data) {
                let left = usize::try_from(self.size).unwrap_or(usize::MAX);
                let taken = left.min(bytes.len() - i);
                self.size -= taken as u64;
                i += taken;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            let done = matches!((self.at, bytes[i]), (At::EndLf, b'\n'));
            i += 1;
            if done {
                return Progress::Done(i);
            }
            match self.next(bytes[i - 1]) {
                Some(at) => self.at = at,
                None => return Progress::Broken(i - 1),
            }
        }
        Progress::More
    }

    fn next(&mut self, byte: u8) -> Option<At> {
        Some(match (self.at, byte) {
            (At::FirstDigit | At::Digits, b) if b.is_ascii_hexdigit() => {
                let digit = (b as char).to_digit(16)?;
                self.size = self.size.checked_mul(16)?.checked_add(u64::from(digit))?;
                self.digits += 1;
                let held = self.digits <= MOST_DIGITS && i64::try_from(self.size).is_ok();
                return held.then_some(At::Digits);
            }
            (At::Digits | At::AfterSize, b' ' | b'\t') => At::AfterSize,
            (At::Digits | At::AfterSize, b';') => At::Extension,
            (At::Digits | At::AfterSize | At::Extension, b'\r') => At::SizeLf,
            (At::Extension, b) if b != b'\n' => At::Extension,
            (At::SizeLf, b'\n') if self.size == 0 => At::TrailerStart,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.digits = 0;
                At::FirstDigit
            }
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::TrailerStart | At::Trailer, b) if b != b'\r' && b != b'\n' => At::Trailer,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            _ => return None,
        })
    }
}
