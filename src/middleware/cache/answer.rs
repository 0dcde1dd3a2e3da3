//! Answers made of what is stored: whole, a part, or that the client has it already.
//!
//! The one place that writes Age. What only caches read is taken off here.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};

use super::entry::{Entry, Head, Pieces};
use super::policy::range::{self, Ranged};
use super::policy::{conditional, targeted};
use crate::error::GatewayError;
use crate::message::{Body, Response};

/// What a client wants of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// GET or HEAD.
    pub method: &'a Method,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// It may have conditions or a range among them.
    pub special: bool,
}

/// The moment at which an answer is made.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For ages.
    pub now: Instant,
    /// For dates.
    pub wall: SystemTime,
}

/// The answer that a client gets of a stored one. `chance` makes the boundary of several parts.
pub fn of(entry: &Entry, wish: Wish<'_>, at: Moment, chance: u64) -> Response {
    let head = &*entry.head;
    if has_it(head, wish, at) {
        return not_modified(head, at);
    }
    let length = entry.body.len();
    let ranged = if wish.special {
        range::select(
            wish.method,
            wish.headers,
            head.status,
            &head.fields,
            length,
            at.wall,
        )
    } else {
        Ranged::Whole
    };
    match ranged {
        Ranged::Whole => {
            let mut response = begin(head, head.status, at);
            if *wish.method == Method::HEAD {
                if !matches!(
                    head.status,
                    StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
                ) {
                    set_length(&mut response, length);
                }
                return response;
            }
            *response.body_mut() = whole(&entry.body);
            response
        }
        Ranged::One(part) => {
            let mut response = begin(head, StatusCode::PARTIAL_CONTENT, at);
            let said = range::content_range(part, length);
            response.headers_mut().insert(header::CONTENT_RANGE, said);
            *response.body_mut() = several(entry.body.part(part.first, part.last));
            response
        }
        Ranged::Many(parts) => many(entry, &parts, at, chance),
        Ranged::Unsatisfiable => {
            let mut response = begin(head, StatusCode::RANGE_NOT_SATISFIABLE, at);
            let headers = response.headers_mut();
            headers.remove(header::CONTENT_TYPE);
            headers.remove(header::CONTENT_ENCODING);
            headers.insert(header::CONTENT_RANGE, range::unsatisfied(length));
            response
        }
    }
}

/// Whether the client says that it has the answer already.
pub fn has_it(head: &Head, wish: Wish<'_>, at: Moment) -> bool {
    wish.special
        && conditional::answer(
            wish.method,
            wish.headers,
            head.status,
            &head.fields,
            head.came,
            at.wall,
        )
}

/// That the client has it already.
pub fn not_modified(head: &Head, at: Moment) -> Response {
    let mut response = Box::new(http::Response::new(Body::empty()));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.headers_mut() = conditional::not_modified(&head.fields);
    finish(response.headers_mut(), head, at);
    response
}

/// The head of an answer, its body to come.
pub fn begin(head: &Head, status: StatusCode, at: Moment) -> Response {
    let mut response = Box::new(http::Response::new(Body::empty()));
    *response.status_mut() = status;
    *response.headers_mut() = head.fields.clone();
    finish(response.headers_mut(), head, at);
    response
}

/// Length where there is no body to tell it.
pub fn set_length(response: &mut Response, length: u64) {
    let length = HeaderValue::from(length);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
}

fn finish(headers: &mut HeaderMap, head: &Head, at: Moment) {
    if head.targeted {
        headers.remove(targeted::WEIR_CACHE_CONTROL);
    }
    headers.insert(header::AGE, HeaderValue::from(head.terms.age_secs(at.now)));
}

fn many(entry: &Entry, parts: &[range::Part], at: Moment, chance: u64) -> Response {
    let head = &*entry.head;
    let multipart = range::multipart(parts, &head.fields, entry.body.len(), chance);
    let mut pieces = Vec::new();
    for (before, part) in multipart.parts {
        pieces.push(before);
        pieces.extend(entry.body.part(part.first, part.last));
    }
    pieces.push(multipart.end);
    let mut response = begin(head, StatusCode::PARTIAL_CONTENT, at);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, multipart.content_type);
    *response.body_mut() = several(pieces);
    response
}

fn whole(body: &Pieces) -> Body {
    match body {
        Pieces::One(one) => Body::from(one.clone()),
        Pieces::Many(many) => several(many.to_vec()),
    }
}

fn several(pieces: Vec<Bytes>) -> Body {
    match <[Bytes; 1]>::try_from(pieces) {
        Ok([one]) => Body::from(one),
        Err(pieces) => {
            let left = pieces.iter().map(|piece| piece.len() as u64).sum();
            let pieces = pieces.into();
            Body::wrap(Several { pieces, left })
        }
    }
}

/// A body of several pieces that are all here.
struct Several {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl http_body::Body for Several {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let piece = self.pieces.pop_front();
        if let Some(piece) = &piece {
            self.left -= piece.len() as u64;
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
