//! What a fetch makes of an answer's fields: the head that all get, and that of an answer confirmed.
//!
//! Fields are copied into memory of their own. What a purge can hit is read here, once, and nothing of
//! how a body was framed or how much of a limit was left is kept.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::super::entry::{self, Entry, Head, Variant};
use super::super::flight::{Source, Stage};
use super::super::policy::storable::Exchanged;
use super::super::policy::{self, Received, Stated, Terms, fields, targeted};
use super::super::stamps::About;
use super::super::tags;
use super::{Fetch, Told};
use crate::clock;
use crate::telemetry::cache::Refreshed;

impl Fetch {
    /// The head that all get; `None` where it cannot be for others.
    pub(super) fn head(
        &self,
        status: StatusCode,
        all: &HeaderMap,
        stated: &Stated,
        received: Received,
    ) -> Option<Head> {
        let settings = &self.desk.plan.settings;
        let terms = Terms::new(status, all, stated, received, settings);
        let for_whom = Variant::of(all, &self.question.headers)?;
        let mut kept = entry::own(all);
        fields::strip(&mut kept, stated, settings);
        strip(&mut kept);
        // Without one, the answer was made when it came (RFC 9110 6.6.1).
        if !kept.contains_key(header::DATE) {
            let came = httpdate::fmt_http_date(received.wall);
            kept.extend(
                HeaderValue::try_from(came)
                    .ok()
                    .map(|came| (header::DATE, came)),
            );
        }
        let marks = tags::of_answer(&self.desk.store.secrets, &self.tag_origin(), all);
        Some(Head {
            status,
            terms,
            came: received.wall,
            for_whom,
            about: self.about(marks),
            targeted: kept.contains_key(targeted::WEIR_CACHE_CONTROL),
            fields: kept,
        })
    }

    /// What an answer with these marks of its own is about.
    fn about(&self, marks: impl IntoIterator<Item = u64>) -> About {
        let flight = &self.flight.about;
        let marks = flight.marks.iter().copied().chain(marks);
        About::new(flight.url.clone(), marks.collect(), flight.born)
    }

    fn tag_origin(&self) -> tags::Origin<'_> {
        let url = &*self.flight.about.url;
        tags::Origin {
            scheme: self.question.exchange.conn.scheme(),
            host: url.split('/').next().unwrap_or(url).as_bytes(),
        }
    }

    /// An answer to HEAD, just now, says that the stored answer still stands (RFC 9111 4.3.5).
    pub fn freshened(mut self, new: &HeaderMap) {
        let now = clock::now();
        let received = Received {
            asked: now,
            came: now,
            wall: clock::wall(),
        };
        self.background = false;
        match self.stale.take() {
            Some(stale) => self.confirmed(&stale, new, received),
            None => self.leave(),
        }
    }

    /// The stored answer still stands: it is as new, with what the 304 says anew (RFC 9111 4.3.4).
    pub(super) fn confirmed(mut self, stale: &Arc<Entry>, new: &HeaderMap, received: Received) {
        self.count(Refreshed::NotModified);
        let settings = &self.desk.plan.settings;
        let mut updated = stale.head.fields.clone();
        fields::update(
            &mut updated,
            new,
            &Stated::read(new),
            settings,
            received.wall,
        );
        let own_tags = if tags::any(new) {
            new
        } else {
            &HeaderMap::new()
        };
        let marks = tags::of_answer(&self.desk.store.secrets, &self.tag_origin(), own_tags);
        let about = match marks.is_empty() {
            true => self.about(stale.head.about.marks.iter().copied()),
            false => self.about(marks),
        };
        let (stated, status) = (Stated::read(&updated), stale.head.status);
        let terms = Terms::new(status, &updated, &stated, received, settings);
        strip(&mut updated);
        let updated = entry::own(&updated);
        let exchanged = Exchanged {
            method: &Method::GET,
            asked: &self.question.headers,
            status,
            fields: &updated,
            stated: &stated,
        };
        let may = policy::storable(&exchanged, settings).is_ok();
        let for_whom = Variant::of(&updated, &self.question.headers);
        let kept = may && for_whom.is_some();
        let head = Head {
            status,
            terms,
            came: received.wall,
            for_whom: for_whom.unwrap_or_else(|| stale.head.for_whom.clone()),
            about,
            targeted: updated.contains_key(targeted::WEIR_CACHE_CONTROL),
            fields: updated,
        };
        let entry = Arc::new(Entry::new(Arc::new(head), stale.body.clone()));
        if kept {
            self.store(entry, Source::Confirmed);
        } else {
            self.desk.store.outdate(&self.key, stale);
            self.end(Stage::Landed(entry, Source::Confirmed));
        }
        self.say(Told::Look(None));
    }
}

/// What is never stored beside what the policy says: framing, age, tags, how much of a limit is left.
fn strip(fields: &mut HeaderMap) {
    tags::strip(fields);
    for name in [
        "content-length",
        "age",
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "trailer",
    ] {
        fields.remove(name);
    }
}
