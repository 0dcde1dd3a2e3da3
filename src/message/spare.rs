//! A request's head, kept so that it can be sent again.
//!
//! Few are sent again: keeping one is a copy of bytes, and the map of fields is made anew when it
//! is wanted. A clone of the map would count a reference up and down for each field.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use super::{Body, Request};

/// A head without its extensions.
#[derive(Debug)]
pub struct SpareHead {
    method: Method,
    uri: Uri,
    version: Version,
    fields: Fields,
}

impl SpareHead {
    /// Of this request.
    pub fn of(request: &Request) -> Self {
        SpareHead {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            fields: Fields::of(request.headers()),
        }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request once more.
    pub fn request(&self, body: Body) -> Request {
        let mut request = Box::new(http::Request::new(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.fields.map();
        request
    }
}

/// Fields one after the other: how long name and value are, then their bytes.
#[derive(Debug)]
struct Fields {
    bytes: Vec<u8>,
    count: usize,
}

/// What says how long a field is: the name in two bytes, the value in four, whose top bit says
/// that it is sensitive (RFC 7541 7.1.3).
const LENGTHS: usize = 6;
const SENSITIVE: u32 = 1 << 31;

impl Fields {
    fn of(map: &HeaderMap) -> Self {
        let length = |(name, value): (&HeaderName, &HeaderValue)| {
            LENGTHS + name.as_str().len() + value.len()
        };
        let mut bytes = Vec::with_capacity(map.iter().map(length).sum());
        for (name, value) in map {
            let name = name.as_str().as_bytes();
            let sensitive = if value.is_sensitive() { SENSITIVE } else { 0 };
            // both are bounded far below by the head's own limit
            bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32 | sensitive).to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value.as_bytes());
        }
        Fields {
            bytes,
            count: map.len(),
        }
    }

    fn map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.count);
        let mut rest = &*self.bytes;
        while let Some((lengths, after)) = rest.split_at_checked(LENGTHS) {
            let name = usize::from(u16::from_le_bytes([lengths[0], lengths[1]]));
            let word = u32::from_le_bytes([lengths[2], lengths[3], lengths[4], lengths[5]]);
            let (name, after) = after.split_at(name);
            let (value, after) = after.split_at((word & !SENSITIVE) as usize);
            let name = HeaderName::from_bytes(name).expect("it was a name");
            let mut value = HeaderValue::from_bytes(value).expect("it was a value");
            value.set_sensitive(word & SENSITIVE != 0);
            map.append(name, value);
            rest = after;
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
        let value = "[\t -~\u{a0}-\u{ff}]{0,40}".prop_map(|text: String| {
            let latin: Vec<u8> = text.chars().filter_map(|c| u8::try_from(c).ok()).collect();
            HeaderValue::from_bytes(&latin).expect("a value")
        });
        let name = "(host|cookie|x-[a-z0-9]{1,40})"
            .prop_map(|text: String| text.parse::<HeaderName>().expect("a name"));
        (name, value, any::<bool>()).prop_map(|(name, mut value, sensitive)| {
            value.set_sensitive(sensitive);
            (name, value)
        })
    }

    proptest! {
        #[test]
        fn a_request_that_is_sent_again_has_all_its_fields_in_order(
            fields in prop::collection::vec(field(), 0..30),
        ) {
            let mut request: Request = Box::default();
            *request.method_mut() = Method::PUT;
            *request.uri_mut() = "/a?b=c".parse().expect("a target");
            *request.version_mut() = Version::HTTP_2;
            for (name, value) in fields {
                request.headers_mut().append(name, value);
            }
            let again = SpareHead::of(&request).request(Body::empty());
            prop_assert_eq!(again.headers(), request.headers());
            let sensitive = |map: &HeaderMap| -> Vec<bool> {
                map.values().map(HeaderValue::is_sensitive).collect()
            };
            prop_assert_eq!(sensitive(again.headers()), sensitive(request.headers()));
            prop_assert_eq!(
                (again.method(), again.uri(), again.version()),
                (request.method(), request.uri(), request.version())
            );
        }
    }
}
