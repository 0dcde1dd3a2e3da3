//! Which requests a stored answer is for (RFC 9111 4.1).
use http::HeaderMap;
use http::header::HeaderName;

/// What Vary says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// For every request, or for those alike in these fields: sorted, each once.
    On(Vec<HeaderName>),
    /// For no other request: `*`, or what cannot be read.
    Never,
}

impl Vary {
    /// Of an answer's fields.
    pub fn read(_fields: &HeaderMap) -> Self {
        unimplemented!()
    }
}

/// What the fields that Vary names were in the request that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selected(Box<[(HeaderName, Option<Box<[u8]>>)]>);

impl Selected {
    /// Of the request that was sent. The caller leaves out of `names` what it tells apart itself
    /// (Accept-Encoding, by its coding class).
    pub fn of(_names: &[HeaderName], _asked: &HeaderMap) -> Self {
        unimplemented!()
    }

    /// Whether this request would have been given the same answer: all fields alike, after
    /// whitespace, line breaks and the order of languages.
    pub fn matches(&self, _asked: &HeaderMap) -> bool {
        unimplemented!()
    }

    /// The fields.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Bytes on the heap, for the store's scales.
    pub fn weight(&self) -> usize {
        unimplemented!()
    }
}
