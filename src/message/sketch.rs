//! Which of the fields that some layer looks for a request has, found in one pass.
//!
//! Most requests have none of them. A layer asks the sketch first and looks the field up only if
//! it is there: a look-up hashes the name, and a dozen of them cost more than the pass. Drawn by
//! `server/dispatch` from the head as it came, kept in the exchange; what layers add later is not
//! in it.

use http::HeaderMap;

use super::hop;

/// A set of [`Field`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sketch(u16);

/// What may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A hop-by-hop field, or a look-alike of one.
    Hop,
    /// A field in which a peer speaks of the client: X-Forwarded-*, Forwarded and the like.
    Claim,
    /// Via.
    Via,
    /// traceparent, tracestate or baggage.
    Trace,
    /// Transfer-Encoding.
    TransferEncoding,
    /// Expect.
    Expect,
    /// Upgrade.
    Upgrade,
    /// X-Request-Id.
    RequestId,
    /// Content-Length.
    Length,
    /// Cookie.
    Cookie,
    /// Accept or Content-Type: they shape an answer of our own.
    Form,
    /// Something that a cache reads: directives, conditions, a range.
    Cache,
    /// Weir-Debug: a client that asks what would have happened.
    Debug,
}

impl Sketch {
    /// Of a head.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut sketch = Sketch::default();
        for name in headers.keys() {
            sketch.draw(name.as_str());
        }
        sketch
    }

    /// Whether it is there.
    #[inline]
    pub fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u16) != 0
    }

    fn add(&mut self, field: Field) {
        self.0 |= 1 << field as u16;
    }

    fn draw(&mut self, name: &str) {
        match name {
            "via" => self.add(Field::Via),
            "accept" | "content-type" => self.add(Field::Form),
            "expect" => self.add(Field::Expect),
            "cache-control"
            | "pragma"
            | "range"
            | "if-none-match"
            | "if-modified-since"
            | "if-match"
            | "if-unmodified-since"
            | "if-range" => self.add(Field::Cache),
            "weir-debug" => self.add(Field::Debug),
            "traceparent" | "tracestate" | "baggage" => self.add(Field::Trace),
            "x-request-id" => self.add(Field::RequestId),
            "content-length" => self.add(Field::Length),
            "cookie" => self.add(Field::Cookie),
            "transfer-encoding" => {
                self.add(Field::TransferEncoding);
                self.add(Field::Hop);
            }
            "upgrade" => {
                self.add(Field::Upgrade);
                self.add(Field::Hop);
            }
            _ if hop::is_claim(name) => self.add(Field::Claim),
            _ if hop::is_hop(name) || hop::is_look_alike(name) => self.add(Field::Hop),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_seen_and_nothing_else() {
        let names = [
            "host",
            "accept",
            "x-forwarded-for",
            "te",
            "expect",
            "content_length",
        ];
        let mut headers = HeaderMap::new();
        for name in names {
            headers.insert(name, http::HeaderValue::from_static("1"));
        }
        let sketch = Sketch::of(&headers);
        assert!(sketch.has(Field::Claim) && sketch.has(Field::Hop) && sketch.has(Field::Expect));
        assert!(!sketch.has(Field::Via) && !sketch.has(Field::Trace));
        headers.clear();
        headers.insert("host", http::HeaderValue::from_static("1"));
        assert_eq!(Sketch::of(&headers), Sketch::default());
    }
}
