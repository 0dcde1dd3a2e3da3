//! Entity tags (RFC 9110 8.8.3).
//!
//! A tag is kept as it was written and compared byte by byte: strongly where bytes are put together
//! (ranges), weakly where it only matters whether a copy still stands. What is not a tag to the
//! letter is none: nobody is told "not modified" by it.

use http::HeaderMap;
use http::header;

/// An entity tag, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ETag<'a> {
    /// `W/`.
    pub weak: bool,
    /// With its quotes.
    pub opaque: &'a [u8],
}

impl<'a> ETag<'a> {
    /// Of a whole field value; `None` if it is not one tag.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::first(text)?;
        rest.is_empty().then_some(tag)
    }

    /// Of an answer's fields; `None` if there is not exactly one.
    pub fn read(fields: &'a HeaderMap) -> Option<Self> {
        let mut lines = fields.get_all(header::ETAG).iter();
        let first = lines.next()?;
        match lines.next() {
            None => Self::parse(first.as_bytes()),
            Some(_) => None,
        }
    }

    /// The tag at the start, and what follows it.
    pub(super) fn first(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, rest) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let inner = rest.strip_prefix(b"\"")?;
        let len = inner.iter().position(|&byte| byte == b'"')?;
        if !inner[..len].iter().all(|&byte| is_etagc(byte)) {
            return None;
        }
        let (opaque, rest) = rest.split_at(len + 2);
        Some((ETag { weak, opaque }, rest))
    }

    /// Both strong and the same.
    pub fn strong_eq(self, other: ETag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// The same, weak or not.
    pub fn weak_eq(self, other: ETag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

fn is_etagc(byte: u8) -> bool {
    byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Option<ETag<'_>> {
        ETag::parse(text.as_bytes())
    }

    #[test]
    fn rfc9110_8_8_3_a_tag_is_quoted_and_its_weakness_is_upper_case() {
        assert!(tag("\"\"").is_some());
        assert!(tag("\"a b\"").is_none());
        assert!(tag("\"\u{fc}\"").is_some());
        for text in [
            "abc",
            "w/\"a\"",
            "W\"a\"",
            "\"a",
            "\"a\"b",
            "\"a\", \"b\"",
            "",
            "W/",
        ] {
            assert_eq!(tag(text), None, "{text}");
        }
    }

    #[test]
    fn rfc9110_8_8_3_2_the_table_of_comparisons() {
        let rows = [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ];
        for (one, other, strong, weak) in rows {
            let (one, other) = (tag(one).expect("a tag"), tag(other).expect("a tag"));
            assert_eq!(one.strong_eq(other), strong);
            assert_eq!(one.weak_eq(other), weak);
        }
    }
}
