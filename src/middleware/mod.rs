//! Rooms: each file is a config section, its layer, its service and their tests.
//!
//! The rules of a room: it imports the ground floor only (not another room, not `config`, not
//! `plan`); its service takes a [`Request`](crate::message::Request), gives a
//! [`Response`](crate::message::Response) and fails with a
//! [`GatewayError`](crate::error::GatewayError); `poll_ready` is passed on and the innermost is
//! always ready, so waiting is done inside `call`; parameters are `Copy` or behind one
//! worker-local `Arc`. The order of the rooms is in `plan/stack` and nowhere else.
//!
//! * `request_id`: accept or mint an id; tracing fields
//! * `observe`: count and time to the end of the body; the access log
//! * `rescue`: an error becomes a response; a panic becomes an error
//! * `headers`: the route's edits
//! * `load_shed`: refuse by priority while the process is short of something
//! * `concurrency`: a cap on what is in flight, and a bounded queue
//! * `fallback`: the ladder of lesser answers
//! * `cache`: stored answers, and one fetch for each that is missing
//! * `compress`: answers encoded in what the client takes
//! * `upgrade`: who may leave HTTP, and the join of both ends
//! * `rate_limit`: how often a client may come
//! * `intake`: caps and timeout on the request body
//! * `rewrite`: path and host before the upstream sees them
//! * `forward`: what an intermediary takes off and puts on
//! * `split`: a share for each upstream
//! * `respond`, `redirect`, `refuse`: answers without an upstream

pub mod cache;
pub mod compress;
pub mod concurrency;
pub mod fallback;
pub mod forward;
pub mod headers;
pub mod intake;
pub mod load_shed;
pub mod observe;
pub mod rate_limit;
pub mod redirect;
pub mod refuse;
pub mod request_id;
pub mod rescue;
pub mod respond;
pub mod rewrite;
pub mod split;
pub mod upgrade;
