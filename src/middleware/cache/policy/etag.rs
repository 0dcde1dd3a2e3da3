//! Entity tags (RFC 9110 8.8.3).

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
    pub fn parse(_text: &'a [u8]) -> Option<Self> {
        unimplemented!()
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
