//! Which fields are stored, and what a later answer changes in them (RFC 9111 3.1, 3.2).
use std::time::SystemTime;

use http::HeaderMap;

use super::{Settings, Stated};

/// Takes off what is not to be stored: hop by hop, named in Connection, for this proxy alone,
/// named in `private` or `no-cache`, cookies by config. Age stays: it is read once, by
/// [`super::Terms::new`], and written anew with each use.
pub fn strip(_fields: &mut HeaderMap, _stated: &Stated, _settings: &Settings) {
    unimplemented!()
}

/// Takes into a stored answer's fields what a 304 or an answer to HEAD says anew (RFC 9111 3.2).
/// Never what belongs to the body that is kept (Content-Length, Content-Encoding, Content-Range).
pub fn update(
    _fields: &mut HeaderMap,
    _new: &HeaderMap,
    _stated: &Stated,
    _settings: &Settings,
    _came: SystemTime,
) {
    unimplemented!()
}
