//! Whatever is written in the fields: nothing panics, and garbage permits nothing.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;

use super::play_tests::*;
use super::*;

const NAMES: [&str; 14] = [
    "cache-control",
    "cdn-cache-control",
    "weir-cache-control",
    "expires",
    "age",
    "date",
    "last-modified",
    "etag",
    "vary",
    "pragma",
    "connection",
    "set-cookie",
    "content-range",
    "content-length",
];

const ASKED: [&str; 10] = [
    "cache-control",
    "pragma",
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    "authorization",
    "accept-language",
    "cookie",
    "accept",
];

/// Bytes, or what almost is a field value.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let words = "((max-age|s-maxage|public|no-cache|private|bytes|W/|\"a\"|\\*|GMT|Thu)?[=\",;0-9 -]{0,4}){0,6}";
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..30),
        words.prop_map(String::into_bytes),
    ]
}

fn lines(names: &'static [&'static str]) -> impl Strategy<Value = HeaderMap> {
    let line = (proptest::sample::select(names), value());
    proptest::collection::vec(line, 0..8).prop_map(|lines| {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                fields.append(HeaderName::from_static(name), value);
            }
        }
        fields
    })
}

/// Garbage without the words that permit.
fn powerless(fields: &HeaderMap) -> bool {
    let permits = |value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let words = ["public", "must-", "s-maxage", "private", "no-cache"];
        words.iter().any(|word| text.contains(word))
    };
    !fields.values().any(permits)
}

proptest! {
    #[test]
    fn nothing_panics_and_all_ends_in_a_verdict(
        fields in lines(&NAMES),
        asked in lines(&ASKED),
        status in 100_u16..600,
        len in 0_u64..2000,
        after in 0_u64..10_000,
    ) {
        let mut play = answers(&[]).with_status(status);
        (play.fields, play.asked) = (fields, asked.clone());
        play.then(after, &[]);
        let terms = play.terms();
        let now = terms.since + Duration::from_secs(after);
        reuse(&terms, &Asked::read(&asked), now);
        terms.ttl(now);
        conditional::answer(&Method::GET, &asked, StatusCode::OK, &play.fields, wall(), wall());
        conditional::confirms(&play.fields, &asked, true);
        conditional::not_modified(&play.fields);
        let stated = Stated::read(&play.fields);
        let mut stored = play.fields.clone();
        fields::update(&mut stored, &play.fields, &stated, &play.settings, wall());
        range::within(&Method::GET, &asked, &stored, range::ContentRange {
            part: range::Part { first: 0, last: len },
            len: None,
        }, wall());
    }

    #[test]
    fn what_is_sent_of_a_body_is_in_it(asked in lines(&ASKED), len in 0_u64..2000) {
        let fields = map(&[("etag", "\"a\"")]);
        let within = |part: &range::Part| part.first <= part.last && part.last < len;
        match range::select(&Method::GET, &asked, StatusCode::OK, &fields, len, wall()) {
            range::Ranged::One(part) => prop_assert!(within(&part)),
            range::Ranged::Many(parts) => {
                prop_assert!(parts.iter().all(within));
                prop_assert!(parts.iter().map(|part| part.len()).sum::<u64>() < len);
            }
            range::Ranged::Whole | range::Ranged::Unsatisfiable => {}
        }
    }

    #[test]
    fn garbage_never_lifts_a_refusal(
        garbage in lines(&NAMES),
        first in any::<bool>(),
    ) {
        // a targeted field that can be read is the one thing that overrules Cache-Control
        if !powerless(&garbage) || targeted::read(&garbage).is_some() {
            return Ok(());
        }
        for (refused, asked) in [
            ("no-store, max-age=60", &[][..]),
            ("private, max-age=60", &[][..]),
            ("max-age=60", &[("authorization", "x")][..]),
        ] {
            let own = HeaderValue::from_static(refused);
            let mut play = answers(&[]).to(asked);
            let name = HeaderName::from_static("cache-control");
            if first {
                play.fields.append(name.clone(), own.clone());
            }
            for (name, value) in &garbage {
                play.fields.append(name.clone(), value.clone());
            }
            if !first {
                play.fields.append(name, own);
            }
            prop_assert!(play.storable().is_err(), "{:?}", play.fields);
        }
    }

    #[test]
    fn garbage_makes_nothing_fresh(garbage in lines(&NAMES)) {
        let mut play = answers(&[]);
        play.fields = garbage;
        let stated = Stated::read(&play.fields);
        let said = stated.max_age.number().or(stated.s_maxage.number());
        let dated = ["expires", "last-modified"].map(|name| play.fields.contains_key(name));
        if said.is_none() && dated == [false, false] {
            prop_assert_eq!(play.terms().lifetime, Duration::ZERO);
        }
    }
}
