//! What the origin is asked for an answer that others may have too.
//!
//! Without the client's conditions and ranges, and in the form that the key has of it: what shares a
//! key is one request.

use std::sync::Arc;

use http::{HeaderMap, Method, Uri, Version};

use super::super::entry::Entry;
use super::super::policy::conditional;
use crate::message::{Body, Exchange, Request};

/// What the origin is asked: a GET without a body.
#[derive(Debug, Clone)]
pub struct Question {
    /// The target, with the query as it counts.
    pub uri: Uri,
    /// The version the client speaks.
    pub version: Version,
    /// The client's fields, without conditions.
    pub headers: HeaderMap,
    /// Whose request it is.
    pub exchange: Arc<Exchange>,
}

impl Question {
    fn request(&self, headers: HeaderMap) -> Request {
        let mut request = Box::new(http::Request::new(Body::empty()));
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = headers;
        request.extensions_mut().insert(Arc::clone(&self.exchange));
        request
    }

    /// As it is, or asking whether a stored answer still stands.
    pub(super) fn asking(&self, stored: Option<&Entry>) -> Request {
        let mut headers = self.headers.clone();
        if let Some(stored) = stored {
            conditional::ask(&mut headers, &stored.head.fields);
        }
        self.request(headers)
    }
}
