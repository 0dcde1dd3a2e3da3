//! Field values that are sent again and again, each kept once.
//!
//! What h2 puts into the table of a connection stays there for as long as the client does. The
//! values of an upstream's answer are parts of the buffer in which all of it was read: in the table
//! they would hold some 8 KiB for each client. So what goes out on HTTP/2 is a copy, and since most
//! values are the same in every answer, a worker keeps the last copies and lends them out. A place
//! holds one value, the newest; two that want the same place cost a copy each time, and no more.

use http::HeaderValue;
use parking_lot::Mutex;

/// Values that are kept.
const PLACES: usize = 64;
/// Longer ones h2 does not put into its table.
const LONGEST: usize = 3 << 10;

/// The values of one worker.
pub(super) struct Values(Mutex<[Option<HeaderValue>; PLACES]>);

impl Values {
    /// None yet.
    pub(super) fn new() -> Self {
        Values(Mutex::new([const { None }; PLACES]))
    }

    /// Puts an equal value, which is part of nothing larger, in place of this one.
    pub(super) fn own(&self, value: &mut HeaderValue) {
        let bytes = value.as_bytes();
        if bytes.len() > LONGEST || value.is_sensitive() {
            return;
        }
        let place = &mut self.0.lock()[place(bytes)];
        match place {
            Some(kept) if kept.as_bytes() == bytes => *value = kept.clone(),
            _ => {
                if let Ok(copy) = HeaderValue::from_bytes(bytes) {
                    *value = copy.clone();
                    *place = Some(copy);
                }
            }
        }
    }
}

/// Where a value is kept: by its length and its ends, which differ where anything does, mostly.
fn place(bytes: &[u8]) -> usize {
    let end = |bytes: Option<&[u8; 4]>| bytes.map_or(0, |four| u32::from_le_bytes(*four));
    let mix = end(bytes.first_chunk()) ^ end(bytes.last_chunk()).rotate_left(13);
    let mix = (mix ^ bytes.len() as u32).wrapping_mul(0x9E37_79B1);
    (mix >> 26) as usize
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn equal_values_become_one_that_is_no_part_of_a_buffer() {
        let values = Values::new();
        let buffer = Bytes::from_static(b"Server: nginx\r\nVia: nginx\r\n");
        let part = |range| {
            HeaderValue::from_maybe_shared(buffer.slice(range)).expect("visible characters")
        };
        let (mut first, mut second) = (part(8..13), part(20..25));
        values.own(&mut first);
        values.own(&mut second);
        assert_eq!(first, "nginx");
        assert_eq!(first.as_bytes().as_ptr(), second.as_bytes().as_ptr());
        assert!(!buffer.as_ptr_range().contains(&first.as_bytes().as_ptr()));
    }

    #[test]
    fn whatever_is_asked_for_comes_back_equal() {
        let values = Values::new();
        for number in (0..2_000).chain(0..2_000) {
            let text = format!("{:1$}", number, number % 40);
            let mut value = HeaderValue::from_str(&text).expect("visible characters");
            values.own(&mut value);
            assert_eq!(value, text.as_str());
        }
    }
}
