//! What a request and a response are, here.
//!
//! [`Request`] and [`Response`] are the `http` types with our one [`Body`], boxed. What a request is
//! beside its head (who asks, over which connection, what became of it) is its [`Exchange`],
//! carried in the request's extensions from `server/dispatch` to `upstream/send`.
//!
//! * `body`: the one body type, streaming by default
//! * `exchange`: connection facts, request facts, notes for the log
//! * `coding`: which content codings a client takes, and which a body is in
//! * `target`: one canonical path and host, decided once
//! * `replay`: a request body that can be sent again; `spare`: a head that can
//! * `fixed`: an answer that is always the same
//! * `key`: what a policy tells clients apart by
//! * `proxy_status`: what we say of a failure
//! * `sketch`: which fields are there that some layer looks for
//! * `interim`: 1xx on their way to a client
//! * `hop`: hop-by-hop fields, Via, Forwarded and X-Forwarded-*

pub mod body;
pub mod coding;
pub mod exchange;
pub mod fixed;
pub mod hop;
pub mod interim;
pub mod key;
pub mod proxy_status;
pub mod replay;
pub mod sketch;
pub mod spare;
pub mod target;

pub use body::Body;
pub use exchange::{Conn, Exchange};
pub use interim::Interims;

/// A request on its way up. A dozen layers hand it on: what moves is a pointer.
pub type Request = Box<http::Request<Body>>;

/// An answer on its way back, likewise.
pub type Response = Box<http::Response<Body>>;

/// The answer with what is made of its body.
pub fn map_body(mut response: Response, make: impl FnOnce(Body) -> Body) -> Response {
    let body = std::mem::take(response.body_mut());
    *response.body_mut() = make(body);
    response
}
