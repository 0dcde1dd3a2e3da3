//! Targeted fields: Weir-Cache-Control, then CDN-Cache-Control (RFC 9213).
use http::header::HeaderName;

/// Only ours: it is taken off before the client sees it.
pub const WEIR_CACHE_CONTROL: HeaderName = HeaderName::from_static("weir-cache-control");
/// Every surrogate's: it is passed on.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
