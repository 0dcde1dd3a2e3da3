//! A stored answer, and the answers that are stored under one key.
//!
//! An answer is whole or it is not stored: an [`Entry`] is made once its last byte is here. What it
//! keeps is copied into memory of its own size, so that no read buffer hangs on a small body. All of
//! it is immutable; a new answer for the same key makes a new [`Object`] with the others in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};

use super::policy::{Selected, Terms, Vary};
use super::stamps::About;
use crate::message::coding::{Accepted, Coding};

/// Answers of one key that are kept: the newest ones.
pub const MOST_VARIANTS: usize = 64;
/// What a field costs beside its bytes: its places in the map.
const FIELD: usize = 140;
/// What an answer costs beside its fields and its body.
const ENTRY: usize = 700;
/// What a key costs: its places in the store.
const OBJECT: usize = 500;
/// Fields that a client is told beside what is stored: Age, Cache-Status, X-Request-Id, Date.
const ADDED: usize = 4;
/// Bodies are kept in pieces of at most this.
const PIECE: usize = 256 << 10;

/// The head of an answer that others may be given too.
#[derive(Debug)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// Its fields: without what is never stored, without length and age.
    pub fields: HeaderMap,
    /// How long it is good for.
    pub terms: Terms,
    /// When it came, by the calendar.
    pub came: SystemTime,
    /// Which requests it is for.
    pub for_whom: Variant,
    /// What a purge can hit.
    pub about: About,
    /// It carries a field that only caches read, which is taken off for clients.
    pub targeted: bool,
}

/// Which requests an answer is for.
#[derive(Debug, Clone)]
pub struct Variant {
    /// What the fields that Vary names were; Accept-Encoding left out.
    selected: Selected,
    /// The coding class of the request, where it counts.
    class: Option<Class>,
    /// It is in a coding that its own request did not take either: no request of that class gets
    /// anything better.
    unasked: bool,
}

/// What a request's Accept-Encoding comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class(Option<Coding>);

/// In the order in which an answer would be coded.
pub const ORDER: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];

impl Class {
    fn of(headers: &HeaderMap) -> (Accepted, Class) {
        let accepted = Accepted::read(headers);
        (accepted, Class(accepted.choose(&ORDER)))
    }
}

impl Variant {
    /// Of the answer with these fields to a request with those. `None`: it is for nobody else.
    pub fn of(fields: &HeaderMap, asked: &HeaderMap) -> Option<Variant> {
        let Vary::On(mut names) = Vary::read(fields) else {
            return None;
        };
        let before = names.len();
        names.retain(|name| *name != header::ACCEPT_ENCODING);
        let coded = names.len() < before || fields.contains_key(header::CONTENT_ENCODING);
        let (accepted, class) = Class::of(asked);
        Some(Variant {
            selected: Selected::of(&names, asked).speaking(asked, fields),
            class: coded.then_some(class),
            unasked: !accepted.suits(fields),
        })
    }

    /// Whether the answer with these fields is for a request with those.
    pub fn suits(&self, fields: &HeaderMap, asked: &HeaderMap) -> bool {
        let coding = self.class.is_none_or(|class| {
            let (accepted, asks) = Class::of(asked);
            asks == class && (self.unasked || accepted.suits(fields))
        });
        coding && self.selected.matches(asked)
    }

    /// The fields that tell such answers apart.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let class = self.class.map(|_| &header::ACCEPT_ENCODING);
        self.selected.names().chain(class)
    }
}

impl Head {
    /// Whether it is for a request with these fields.
    pub fn suits(&self, asked: &HeaderMap) -> bool {
        self.for_whom.suits(&self.fields, asked)
    }
}

/// A body that is all here.
#[derive(Debug, Clone)]
pub enum Pieces {
    /// Nothing, or one piece.
    One(Bytes),
    /// Several.
    Many(Arc<[Bytes]>),
}

impl Pieces {
    /// From a body as it came: copied together where the pieces are small.
    pub fn of(pieces: Vec<Bytes>) -> Pieces {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let mut pieces = pieces;
        if let [one] = pieces.as_mut_slice() {
            return Pieces::One(std::mem::take(one));
        }
        let mut whole = Vec::with_capacity(length / PIECE + 1);
        let mut left = length;
        let mut next = BytesMut::with_capacity(left.min(PIECE));
        for piece in pieces {
            let mut piece = &piece[..];
            while !piece.is_empty() {
                let (now, later) = piece.split_at(piece.len().min(PIECE - next.len()));
                next.extend_from_slice(now);
                left -= now.len();
                piece = later;
                if next.len() == PIECE {
                    let full =
                        std::mem::replace(&mut next, BytesMut::with_capacity(left.min(PIECE)));
                    whole.push(full.freeze());
                }
            }
        }
        if !next.is_empty() {
            whole.push(next.freeze());
        }
        match whole.as_mut_slice() {
            [] => Pieces::One(Bytes::new()),
            [one] => Pieces::One(std::mem::take(one)),
            _ => Pieces::Many(whole.into()),
        }
    }

    /// The pieces, in order.
    pub fn as_slice(&self) -> &[Bytes] {
        match self {
            Pieces::One(one) => std::slice::from_ref(one),
            Pieces::Many(many) => many,
        }
    }

    /// In bytes.
    pub fn len(&self) -> u64 {
        self.as_slice().iter().map(|piece| piece.len() as u64).sum()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes from `first` to `last`, both in it.
    pub fn part(&self, first: u64, last: u64) -> Vec<Bytes> {
        let mut before = 0;
        let mut part = Vec::new();
        for piece in self.as_slice() {
            let length = piece.len() as u64;
            let from = first.saturating_sub(before).min(length);
            let to = (last + 1).saturating_sub(before).min(length);
            if from < to {
                // Within the piece, so within usize.
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                part.push(piece.slice(index(from)..index(to)));
            }
            before += length;
        }
        part
    }
}

/// A stored answer.
#[derive(Debug)]
pub struct Entry {
    /// Its head.
    pub head: Arc<Head>,
    /// Its body, whole.
    pub body: Pieces,
    /// A later answer of the origin says that it is no longer true.
    pub outdated: AtomicBool,
}

impl Entry {
    /// An answer whose last byte is here.
    pub fn new(head: Arc<Head>, body: Pieces) -> Self {
        let outdated = AtomicBool::new(false);
        Entry {
            head,
            body,
            outdated,
        }
    }

    /// What it takes of memory, about.
    pub fn weight(&self) -> u64 {
        let fields = self.head.fields.iter();
        let fields: usize = fields
            .map(|(n, v)| n.as_str().len() + v.len() + FIELD)
            .sum();
        let about = self.head.about.url.len() + self.head.about.marks.len() * 8;
        let own = fields + about + self.head.for_whom.selected.weight() + ENTRY;
        self.body.len() + own as u64
    }
}

/// All that is stored under one key.
#[derive(Debug)]
pub struct Object {
    /// What was hashed to the key.
    pub parts: Box<[u8]>,
    /// The answers, newest first.
    pub entries: Vec<Arc<Entry>>,
    /// How the origin does with this key.
    pub pulse: Arc<Pulse>,
    weight: u64,
}

impl Object {
    /// With one answer in front of those there were. Those that it replaces, that are dead or too
    /// many are left out.
    pub fn with(
        before: Option<&Object>,
        parts: Box<[u8]>,
        entry: Arc<Entry>,
        most_weight: u64,
        is_alive: impl Fn(&Entry) -> bool,
    ) -> Object {
        let same = |old: &Entry| same_requests(&old.head.for_whom, &entry.head.for_whom);
        let old = before.iter().flat_map(|object| &object.entries);
        let kept = old.filter(|old| is_alive(old) && !same(old)).cloned();
        let mut entries: Vec<Arc<Entry>> =
            std::iter::once(Arc::clone(&entry)).chain(kept).collect();
        entries.truncate(MOST_VARIANTS);
        let mut weight = 0;
        entries.retain(|entry| {
            let more = weight + entry.weight();
            let fits = weight == 0 || more <= most_weight;
            weight = if fits { more } else { weight };
            fits
        });
        Object::new(
            parts,
            entries,
            before.map(|object| Arc::clone(&object.pulse)),
        )
    }

    /// Without the answers that are not `kept`; `None` if none is left.
    pub fn without(&self, kept: impl Fn(&Entry) -> bool) -> Option<Object> {
        let entries = self.entries.iter().filter(|entry| kept(entry)).cloned();
        let entries: Vec<_> = entries.collect();
        let pulse = Some(Arc::clone(&self.pulse));
        (!entries.is_empty()).then(|| Object::new(self.parts.clone(), entries, pulse))
    }

    /// How many of the answers are so.
    pub fn count(&self, so: impl Fn(&Entry) -> bool) -> u64 {
        self.entries.iter().filter(|entry| so(entry)).count() as u64
    }

    fn new(parts: Box<[u8]>, entries: Vec<Arc<Entry>>, pulse: Option<Arc<Pulse>>) -> Object {
        let own: u64 = entries.iter().map(|entry| entry.weight()).sum();
        Object {
            weight: own + (parts.len() + OBJECT) as u64,
            parts,
            entries,
            pulse: pulse.unwrap_or_default(),
        }
    }

    /// What it takes of memory, about.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// The newest answer that is for a request with these fields.
    pub fn select(&self, asked: &HeaderMap) -> Option<&Arc<Entry>> {
        self.entries.iter().find(|entry| entry.head.suits(asked))
    }
}

/// Whether two answers are for the same requests, so that one replaces the other.
fn same_requests(old: &Variant, new: &Variant) -> bool {
    old.class == new.class && old.selected == new.selected
}

/// How the origin does with one key: after a failure it is left alone for a while.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Milliseconds from the store's start to the end of the cool-down; 0: none.
    until: AtomicU64,
    failures: AtomicU32,
}

impl Pulse {
    /// The origin failed at `now`: it is left alone for `cool_down`, longer each time in a row, up
    /// to eight times.
    pub fn failed(&self, start: Instant, now: Instant, cool_down: Duration) {
        let times = self.failures.fetch_add(1, Relaxed).min(3);
        let until = now.saturating_duration_since(start) + cool_down * (1 << times);
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.until.store(until.max(1), Relaxed);
    }

    /// The origin answered.
    pub fn answered(&self) {
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
            self.until.store(0, Relaxed);
        }
    }

    /// Whether it is left alone.
    pub fn is_cooling(&self, start: Instant, now: Instant) -> bool {
        let until = self.until.load(Relaxed);
        until > 0 && now.saturating_duration_since(start) < Duration::from_millis(until)
    }
}

/// Fields in memory of their own: one piece for all values, so that an answer made of them counts its
/// references in one place. With room for what a client is told beside them.
pub fn own(fields: &HeaderMap) -> HeaderMap {
    let mut values = Vec::with_capacity(fields.values().map(HeaderValue::len).sum());
    for value in fields.values() {
        values.extend_from_slice(value.as_bytes());
    }
    let mut values = Bytes::from(values);
    let mut copy = HeaderMap::with_capacity(fields.len() + ADDED);
    for (name, value) in fields {
        let name =
            HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone());
        let owned = HeaderValue::from_maybe_shared(values.split_to(value.len()));
        copy.append(name, owned.unwrap_or_else(|_| value.clone()));
    }
    // A clone has no places to spare.
    copy.clone()
}

/// `host/path?query`: what a purge names.
pub fn url(headers: &HeaderMap, target: &Uri) -> Box<str> {
    let host = super::key::host(headers).unwrap_or_default();
    let target = target.path_and_query().map_or("", |t| t.as_str());
    format!("{}{target}", String::from_utf8_lossy(&host)).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_part_is_cut_out_of_any_pieces_as_out_of_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..6),
            first in 0u64..50, more in 0u64..50,
        ) {
            let whole = pieces.concat();
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            let many = Pieces::Many(pieces.clone().into());
            let joined = Pieces::of(pieces);
            prop_assert_eq!(joined.as_slice().concat(), whole.clone());
            let index = |at: u64| usize::try_from(at).expect("small").min(whole.len());
            let expected = &whole[index(first)..index(first + more + 1)];
            for body in [many, joined] {
                prop_assert_eq!(body.part(first, first + more).concat(), expected);
            }
        }
    }

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let named = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        lines.iter().map(named).collect()
    }

    #[test]
    fn rfc9111_4_an_answer_in_a_coding_that_nobody_asked_for_is_for_all_who_ask_alike() {
        let asks = |list| fields(&[("accept-encoding", list)]);
        let answer = fields(&[("content-encoding", "aws-chunked")]);
        let variant = Variant::of(&answer, &asks("gzip, deflate")).expect("for others");
        assert!(variant.suits(&answer, &asks("deflate, gzip")));
        assert!(!variant.suits(&answer, &asks("br")));
        // Whoever took the coding may be the only one who does.
        let answer = fields(&[("content-encoding", "gzip")]);
        let variant = Variant::of(&answer, &asks("br, gzip")).expect("for others");
        assert!(variant.suits(&answer, &asks("gzip, br")));
        assert!(!variant.suits(&answer, &asks("br")));
    }

    #[test]
    fn rfc9110_12_5_4_an_answer_is_for_who_likes_its_language_best() {
        let asks = |list| fields(&[("accept-language", list)]);
        let answer = fields(&[("vary", "accept-language"), ("content-language", "de")]);
        let variant = Variant::of(&answer, &asks("en, de")).expect("for others");
        assert!(variant.suits(&answer, &asks("fr;q=0.5, de;q=1.0")));
        assert!(!variant.suits(&answer, &asks("en")));
        assert!(!variant.suits(&answer, &asks("fr, de")));
    }

    #[test]
    fn a_failing_origin_is_left_alone_for_longer_each_time() {
        let (pulse, start) = (Pulse::default(), crate::clock::now());
        let (second, mut now) = (Duration::from_secs(1), start);
        for wait in [1, 2, 4, 8, 8] {
            pulse.failed(start, now, second);
            assert!(pulse.is_cooling(start, now + second * wait - Duration::from_millis(1)));
            now += second * wait;
            assert!(!pulse.is_cooling(start, now));
        }
        pulse.answered();
        pulse.failed(start, now, second);
        assert!(!pulse.is_cooling(start, now + second));
    }
}
