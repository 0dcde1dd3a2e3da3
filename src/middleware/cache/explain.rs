//! What the cache would do with a request, in words, for `weir explain`.
//!
//! Looks and changes nothing. Whether an answer will be stored is known only once it is there; why it
//! cannot be is said where the request alone decides that.

use std::time::Instant;

use http::{Method, header};

use super::RouteCache;
use super::policy::reuse::{Cause, Stale};
use super::policy::{Asked, Reuse, Terms, conditional, reuse};
use crate::message::{Exchange, Request};

impl RouteCache {
    /// Key and verdict: `host=a.test path=/x query=(none): fresh for 57 s`.
    pub fn explain(&self, request: &Request, exchange: &Exchange, now: Instant) -> String {
        let key = self.plan.key.shown(request);
        format!("{key}: {}", self.verdict(request, exchange, now))
    }

    fn verdict(&self, request: &Request, exchange: &Exchange, now: Instant) -> String {
        let headers = request.headers();
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS | Method::TRACE => return "passed on, as OPTIONS and TRACE are".into(),
            _ => return "passed on; a good answer makes what is stored for it untrue".into(),
        }
        if headers.contains_key(header::UPGRADE) {
            return "passed on, since it may leave HTTP".into();
        }
        if conditional::for_origin(headers) {
            return "passed on, since If-Match and If-Unmodified-Since are the origin's to judge"
                .into();
        }
        let key = self
            .plan
            .key
            .of(request, exchange.conn.scheme(), &self.store.secrets);
        let found = self.store.find(&key, headers);
        let asked = Asked::read(headers);
        match found.entry {
            Some(entry) => stored(&entry.head.terms, &asked, now),
            None if asked.only_if_cached => "not stored, and only-if-cached: 504".into(),
            None => missing(found.object.is_some(), &asked, headers),
        }
    }
}

fn stored(terms: &Terms, asked: &Asked, now: Instant) -> String {
    let age = terms.age_secs(now);
    let stale = format!("stale by {} s", terms.stale_for(now).as_secs());
    match reuse(terms, asked, now) {
        Reuse::Fresh => format!(
            "stored, fresh for {} s, {age} s old",
            terms.fresh_for(now).as_secs()
        ),
        Reuse::Stale(Stale::WhileRevalidate) => {
            format!("stored, {stale}: served, and fetched anew behind it (stale-while-revalidate)")
        }
        Reuse::Stale(Stale::Accepted) => format!("stored, {stale}: served, as the client takes it"),
        Reuse::Validate(Cause::Stale) => format!("stored, {stale}: the origin is asked first"),
        Reuse::Validate(Cause::NoCache) => "stored, no-cache: the origin is asked first".into(),
        Reuse::Validate(Cause::Request) => {
            format!("stored, {age} s old: the client wants the origin asked")
        }
    }
}

fn missing(others: bool, asked: &Asked, headers: &http::HeaderMap) -> String {
    let found = if others {
        "other variants are stored"
    } else {
        "not stored"
    };
    let why = if asked.no_store {
        ", nor will it be: the client says no-store"
    } else if headers.contains_key(header::RANGE) {
        ", nor will it be: a part is passed on"
    } else if headers.contains_key(header::AUTHORIZATION) {
        ", nor will it be unless the answer says that it is for others too (Authorization)"
    } else {
        ""
    };
    format!("{found}{why}")
}
