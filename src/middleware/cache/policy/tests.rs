//! What RFC 9111 demands of a shared cache, section by section, as far as it is not in the tests of
//! a single file; with it RFC 9110 13 and 14, RFC 5861 and RFC 8246.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use super::conditional::{Head, answer, ask, confirms, head, not_modified};
use super::play_tests::*;
use super::range::{ContentRange, Part, Ranged, content_range, multipart, select, unsatisfied};
use super::reuse::{Cause, after_failure, disconnected, within};
use super::*;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn reused(play: &Play, after: u64, asked: &str) -> Reuse {
    let terms = play.terms();
    let asked = Asked::read(&map(&[("cache-control", asked)]));
    reuse(&terms, &asked, terms.since + secs(after))
}

// RFC 9111 3: storing.

#[test]
fn rfc9111_3_only_get_and_only_final_statuses_are_stored() {
    let mut play = answers(&[FRESH]);
    for status in [100, 101, 103, 304, 412, 416] {
        assert_eq!(
            play.clone().with_status(status).storable(),
            Err(Refusal::Status)
        );
    }
    for method in [Method::HEAD, Method::PUT, Method::OPTIONS, Method::POST] {
        play.method = method;
        assert_eq!(play.storable(), Err(Refusal::Method));
    }
}

#[test]
fn rfc9111_3_each_condition_has_its_refusal() {
    let rows: &[(Refusal, u16, Lines<'_>)] = &[
        (
            Refusal::NoStore,
            200,
            &[FRESH, ("cache-control", "no-store")],
        ),
        (
            Refusal::Private,
            200,
            &[FRESH, ("cache-control", "private")],
        ),
        (Refusal::NoFreshness, 503, &[("etag", "\"a\"")]),
        (Refusal::NoFreshness, 302, &[("last-modified", "@-900")]),
        (
            Refusal::Status,
            599,
            &[FRESH, ("cache-control", "must-understand")],
        ),
        (Refusal::Useless, 200, &[]),
        (Refusal::Useless, 404, &[]),
        (Refusal::Useless, 200, &[("cache-control", "max-age=0")]),
        (
            Refusal::Useless,
            200,
            &[FRESH, ("cache-control", "no-cache")],
        ),
        (
            Refusal::Malformed,
            200,
            &[FRESH, ("cache-control", "x=\"a, no-store")],
        ),
        (Refusal::Vary, 200, &[FRESH, ("vary", "a b")]),
    ];
    for (refusal, status, fields) in rows {
        let storable = answers(fields).with_status(*status).storable();
        assert_eq!(storable, Err(*refusal), "{status} {fields:?}");
    }
}

#[test]
fn every_refusal_has_a_word_of_its_own() {
    let mut words: Vec<_> = Refusal::ALL.map(Refusal::word).to_vec();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Refusal::ALL.len());
}

#[test]
fn rfc9111_3_what_may_be_validated_is_stored_without_freshness() {
    assert!(answers(&[("etag", "\"a\"")]).storable().is_ok());
    assert!(
        answers(&[("etag", "\"a\""), ("cache-control", "no-cache")])
            .storable()
            .is_ok()
    );
}

#[test]
fn rfc9111_3_1_unknown_fields_are_stored_and_private_ones_are_not() {
    let fields = [
        FRESH,
        ("cache-control", "private=\"x-user\""),
        ("x-user", "1"),
        ("x-y", "2"),
    ];
    let stored = answers(&fields).stored().expect("stored");
    assert!(stored.fields.contains_key("x-y") && !stored.fields.contains_key("x-user"));
}

#[test]
fn rfc9111_3_1_connection_cannot_take_off_what_an_answer_is_understood_by() {
    let fields = [
        FRESH,
        ("connection", "cache-control, vary, x"),
        ("vary", "a"),
        ("x", "1"),
    ];
    let stored = answers(&fields).stored().expect("stored");
    assert!(stored.fields.contains_key("cache-control") && stored.fields.contains_key("vary"));
    assert!(!stored.fields.contains_key("x"));
}

#[test]
fn rfc9111_3_2_an_update_replaces_all_lines_and_only_grows_vary() {
    let mut fields = map(&[
        ("a", "1"),
        ("a", "2"),
        ("etag", "W/\"x\""),
        ("vary", "accept-encoding"),
        ("age", "9"),
        ("date", "@-100"),
    ]);
    let new = map(&[
        ("a", "3"),
        ("etag", "\"x\""),
        ("vary", "Cookie"),
        ("connection", "b"),
        ("b", "1"),
        ("set-cookie", "c=d"),
    ]);
    let settings = Settings::default();
    fields::update(&mut fields, &new, &Stated::read(&new), &settings, wall());
    let expected = map(&[
        ("a", "3"),
        ("etag", "W/\"x\""),
        ("vary", "accept-encoding, cookie"),
        ("date", "@0"),
    ]);
    assert_eq!(fields, expected);
}

#[test]
fn rfc9111_3_3_a_part_without_knowledge_is_never_stored() {
    let asked: Lines<'_> = &[("range", "bytes=0-0")];
    for range in [
        None,
        Some("bytes 0-0"),
        Some("bytes 5-4/9"),
        Some("bytes 0-9/9"),
        Some("x 0-0/1"),
    ] {
        let mut fields = vec![FRESH];
        fields.extend(range.map(|range| ("content-range", range)));
        let answer = answers(&fields).with_status(206).to(asked);
        assert_eq!(answer.storable(), Err(Refusal::Partial), "{range:?}");
    }
}

#[test]
fn rfc9111_3_5_permission_that_cannot_be_read_is_none() {
    let asked: Lines<'_> = &[("authorization", "x")];
    for value in [
        "max-age=9, public, a b",
        "s-maxage=x",
        "max-age=9, must-revalidate, =",
    ] {
        let answer = answers(&[("cache-control", value)]).to(asked);
        assert_eq!(answer.storable(), Err(Refusal::Authorization), "{value}");
    }
}

// RFC 9111 4.2: freshness.

#[test]
fn rfc9111_4_2_1_s_maxage_then_max_age_then_expires_then_a_guess() {
    let lifetime = |fields: Lines<'_>| answers(fields).terms().lifetime;
    let (expires, rested) = (("expires", "@30"), ("last-modified", "@-100"));
    let date = ("date", "@0");
    let all = [
        ("cache-control", "max-age=20, s-maxage=10"),
        expires,
        rested,
        date,
    ];
    assert_eq!(lifetime(&all), secs(10));
    assert_eq!(
        lifetime(&[("cache-control", "max-age=20"), expires, rested, date]),
        secs(20)
    );
    assert_eq!(lifetime(&[expires, rested, date]), secs(30));
    assert_eq!(lifetime(&[rested, date]), secs(10));
    assert_eq!(lifetime(&[("expires", "@30"), ("date", "@10")]), secs(20));
    assert_eq!(
        lifetime(&[("expires", "@30"), ("expires", "@60"), date]),
        secs(30)
    );
}

#[test]
fn rfc9111_4_2_2_a_guess_is_a_tenth_and_at_most_a_day() {
    let terms = |fields: Lines<'_>| answers(fields).terms();
    let old = terms(&[("last-modified", "@-86400000"), ("date", "@0")]);
    assert_eq!((old.lifetime, old.heuristic), (secs(86_400), true));
    assert_eq!(
        terms(&[("last-modified", "@5"), ("date", "@0")]).lifetime,
        secs(0)
    );
    assert_eq!(terms(&[("last-modified", "yesterday")]).lifetime, secs(0));
    let stated = terms(&[("last-modified", "@-9000"), ("cache-control", "max-age=x")]);
    assert_eq!((stated.lifetime, stated.heuristic), (secs(0), false));
    let unclear = terms(&[("last-modified", "@-9000"), ("cache-control", "(x)")]);
    assert_eq!(unclear.lifetime, secs(0));
}

#[test]
fn the_config_speaks_where_the_origin_does_not() {
    let ttl = |settings: &mut Settings| {
        settings.ttl = Some(secs(600));
        settings.negative_ttl = Some(secs(5));
        settings.stale_while_revalidate = secs(7);
        settings.stale_if_error = secs(8);
    };
    let terms = |fields: Lines<'_>, status| answers(fields).with_status(status).with(ttl).terms();
    assert_eq!(terms(&[], 200).lifetime, secs(600));
    assert_eq!(terms(&[("last-modified", "@-10")], 200).lifetime, secs(600));
    assert_eq!(terms(&[FRESH], 200).lifetime, secs(60));
    assert_eq!(
        terms(&[("cache-control", "max-age=x")], 200).lifetime,
        secs(0)
    );
    assert_eq!(terms(&[], 404).lifetime, secs(5));
    assert_eq!(terms(&[], 503).lifetime, secs(0));
    let none = [(
        "cache-control",
        "stale-while-revalidate=0, stale-if-error=x",
    )];
    assert_eq!(terms(&none, 200).while_revalidate, secs(0));
    assert_eq!(terms(&none, 200).if_error, secs(0));
    assert_eq!(terms(&[], 200).while_revalidate, secs(7));
    assert_eq!(terms(&[], 200).if_error, secs(8));
    assert!(answers(&[]).with(ttl).storable().is_ok());
    let failed = answers(&[]).with_status(500).with(ttl);
    assert_eq!(failed.storable(), Err(Refusal::NoFreshness));
}

#[test]
fn the_config_may_overrule_freshness_but_never_what_forbids() {
    let overrule = |settings: &mut Settings| {
        settings.ttl = Some(secs(600));
        settings.respect_origin = false;
    };
    let play = |fields: Lines<'_>| answers(fields).with(overrule);
    assert_eq!(play(&[FRESH]).terms().lifetime, secs(600));
    assert_eq!(
        play(&[("cache-control", "max-age=0")]).terms().lifetime,
        secs(600)
    );
    let refused = |value| play(&[("cache-control", value)]).storable();
    assert_eq!(refused("no-store"), Err(Refusal::NoStore));
    assert_eq!(refused("private"), Err(Refusal::Private));
    assert!(play(&[("cache-control", "no-cache")]).terms().validate);
    let authorized = play(&[FRESH]).to(&[("authorization", "x")]);
    assert_eq!(authorized.storable(), Err(Refusal::Authorization));
}

#[test]
fn rfc9111_4_2_3_the_age_is_the_greater_of_two_and_then_grows() {
    let age = |fields: Lines<'_>, delay| answers(fields).terms_after(secs(delay)).age;
    assert_eq!(age(&[("date", "@-30"), ("age", "10")], 0), secs(30));
    assert_eq!(age(&[("date", "@-5"), ("age", "10")], 3), secs(13));
    assert_eq!(age(&[("date", "@500")], 0), secs(0));
    assert_eq!(age(&[], 2), secs(2));
    assert_eq!(age(&[("date", "nonsense")], 0), secs(0));
    let terms = answers(&[FRESH, ("age", "10")]).terms();
    let at = |after| terms.since + secs(after);
    assert_eq!(terms.age_secs(at(5)), 15);
    assert_eq!((terms.ttl(at(5)), terms.ttl(at(55))), (45, -5));
    assert_eq!(terms.fresh_for(at(5)), secs(45));
    assert_eq!(terms.stale_for(at(55)), secs(5));
    assert!(terms.is_fresh(at(49)) && !terms.is_fresh(at(50)));
}

// RFC 9111 4, 4.2.4, 5.2.1: reuse.

#[test]
fn rfc9111_4_2_4_stale_answers_need_leave() {
    let stale = answers(&[FRESH, ("etag", "\"a\"")]);
    assert_eq!(reused(&stale, 61, "x"), Reuse::Validate(Cause::Stale));
    assert_eq!(
        reused(&stale, 61, "max-stale"),
        Reuse::Stale(Stale::Accepted)
    );
    assert_eq!(
        reused(&stale, 90, "max-stale=10"),
        Reuse::Validate(Cause::Stale)
    );
    for word in ["must-revalidate", "proxy-revalidate", "s-maxage=60"] {
        let never = answers(&[FRESH, ("cache-control", word), ("etag", "\"a\"")]);
        let never = never.with(|settings| settings.stale_while_revalidate = secs(99));
        assert_eq!(
            reused(&never, 61, "max-stale"),
            Reuse::Validate(Cause::Stale),
            "{word}"
        );
        let (terms, asked) = (never.terms(), Asked::default());
        let now = terms.since + secs(61);
        assert!(!after_failure(&terms, &asked, now) && !disconnected(&terms, &asked, now));
        assert!(!within(&terms, secs(999), now), "{word}");
        assert!(within(&terms, secs(999), terms.since), "{word}");
    }
}

#[test]
fn what_can_neither_be_sent_nor_validated_is_spent() {
    let spent = |play: &Play, at: u64| {
        let terms = play.terms();
        terms.is_spent(terms.since + secs(at))
    };
    let bare = answers(&[FRESH]).with(|settings| settings.disconnected = secs(10));
    assert!(!spent(&bare, 70) && spent(&bare, 71));
    let ladder = bare.clone().with(|settings| settings.stale_step = secs(99));
    assert!(!spent(&ladder, 159) && spent(&ladder, 160));
    let never = answers(&[FRESH, ("cache-control", "must-revalidate")]);
    assert!(!spent(&never, 59) && spent(&never, 61));
    for validator in [("etag", "\"a\""), ("last-modified", "@-9")] {
        assert!(!spent(&answers(&[FRESH, validator]), 1 << 30));
    }
}

#[test]
fn rfc9111_5_2_2_4_no_cache_is_never_used_unvalidated() {
    let play = answers(&[FRESH, ("cache-control", "no-cache"), ("etag", "\"a\"")]);
    assert_eq!(
        reused(&play, 0, "max-stale"),
        Reuse::Validate(Cause::NoCache)
    );
    let terms = play.terms();
    let asked = Asked::read(&map(&[("cache-control", "stale-if-error=9")]));
    assert!(!disconnected(&terms, &asked, terms.since));
    assert!(!within(&terms, secs(999), terms.since));
}

#[test]
fn rfc9111_5_2_1_request_directives() {
    let play = answers(&[FRESH, ("cache-control", "stale-while-revalidate=30")]);
    let stale = Reuse::Stale(Stale::WhileRevalidate);
    for (after, asked, reuse) in [
        (10, "max-age=10", Reuse::Fresh),
        (11, "max-age=10", Reuse::Validate(Cause::Request)),
        (0, "max-age=0", Reuse::Validate(Cause::Request)),
        (0, "no-cache", Reuse::Validate(Cause::Request)),
        (10, "min-fresh=50", Reuse::Fresh),
        (10, "min-fresh=51", Reuse::Validate(Cause::Request)),
        (10, "no-store", Reuse::Fresh),
        (61, "x", stale),
        (61, "no-cache", Reuse::Validate(Cause::Stale)),
        (61, "max-age=100", Reuse::Validate(Cause::Stale)),
        (61, "max-age=100, max-stale", stale),
        (61, "min-fresh=1", Reuse::Validate(Cause::Stale)),
        (91, "max-stale=30", Reuse::Validate(Cause::Stale)),
        (91, "max-stale=31", Reuse::Stale(Stale::Accepted)),
        (
            91,
            "max-age=80, max-stale=31",
            Reuse::Validate(Cause::Stale),
        ),
    ] {
        assert_eq!(reused(&play, after, asked), reuse, "{after} {asked}");
    }
}

#[test]
fn rfc5861_3_while_it_is_validated_and_no_longer() {
    let play = answers(&[FRESH, ("cache-control", "stale-while-revalidate=30")]);
    assert_eq!(reused(&play, 90, "x"), Reuse::Stale(Stale::WhileRevalidate));
    assert_eq!(reused(&play, 91, "x"), Reuse::Validate(Cause::Stale));
}

#[test]
fn rfc5861_4_when_the_origin_fails_and_no_longer() {
    let terms = answers(&[FRESH, ("cache-control", "stale-if-error=30")]).terms();
    let (asked, at) = (Asked::default(), |after| terms.since + secs(after));
    assert!(after_failure(&terms, &asked, at(90)));
    assert!(!after_failure(&terms, &asked, at(91)));
    assert!(!disconnected(&terms, &asked, at(91)));
    let plain = answers(&[FRESH]).terms();
    let at = |after| plain.since + secs(after);
    assert!(!after_failure(&plain, &asked, at(61)));
    assert!(disconnected(&plain, &asked, at(70)) && !disconnected(&plain, &asked, at(71)));
    assert!(within(&plain, secs(5), at(65)) && !within(&plain, secs(5), at(66)));
}

#[test]
fn rfc8246_2_an_immutable_answer_is_validated_only_for_no_cache() {
    let play = answers(&[FRESH, ("cache-control", "immutable"), ("etag", "\"a\"")]);
    assert_eq!(reused(&play, 10, "max-age=0"), Reuse::Fresh);
    assert_eq!(
        reused(&play, 10, "no-cache"),
        Reuse::Validate(Cause::Request)
    );
    assert_eq!(
        reused(&play, 61, "max-age=0"),
        Reuse::Validate(Cause::Stale)
    );
}

// RFC 9111 4.3, RFC 9110 13: validation.

fn has(fields: Lines<'_>, asked: Lines<'_>) -> bool {
    let (fields, asked) = (map(fields), map(asked));
    answer(
        &Method::GET,
        &asked,
        StatusCode::OK,
        &fields,
        wall(),
        wall(),
    )
}

#[test]
fn rfc9111_4_3_1_we_ask_by_what_is_stored_and_nothing_else() {
    let mut request = map(&[
        ("if-none-match", "\"theirs\""),
        ("if-modified-since", "@-1"),
        ("range", "bytes=0-1"),
        ("if-range", "\"theirs\""),
        ("abc", "123"),
    ]);
    let modified = ("last-modified", "@-9");
    assert!(ask(&mut request, &map(&[("etag", "W/\"a\""), modified])));
    let ours = [
        ("if-none-match", "W/\"a\""),
        ("if-modified-since", "@-9"),
        ("abc", "123"),
    ];
    assert_eq!(request, map(&ours));
    assert!(!ask(
        &mut request,
        &map(&[("etag", "bare"), ("last-modified", "x")])
    ));
    assert_eq!(request, map(&[("abc", "123")]));
}

#[test]
fn rfc9110_13_1_2_if_none_match_is_a_list_compared_weakly() {
    let etag: Lines<'_> = &[("etag", "\"abc\"")];
    for list in [
        "\"abc\"",
        "W/\"abc\"",
        "*",
        "\"1\", \"abc\", \"2\"",
        "\"1\",, \"abc\"",
        "\"1\",\"abc\"",
    ] {
        assert!(has(etag, &[("if-none-match", list)]), "{list}");
    }
    for list in [
        "\"ab\"",
        "abc",
        "w/\"abc\"",
        "\"1\" \"abc\"",
        "\"a, \"abc\"",
        "",
    ] {
        assert!(!has(etag, &[("if-none-match", list)]), "{list}");
    }
    assert!(has(
        &[("etag", "W/\"abc\"")],
        &[("if-none-match", "\"1\""), ("if-none-match", "\"abc\"")]
    ));
    assert!(!has(&[("etag", "abc")], &[("if-none-match", "abc")]));
    assert!(!has(&[], &[("if-none-match", "\"abc\"")]));
}

#[test]
fn rfc9110_13_2_2_if_none_match_comes_first() {
    let fields: Lines<'_> = &[("etag", "\"abc\""), ("last-modified", "@-5000")];
    assert!(has(
        fields,
        &[
            ("if-none-match", "\"abc\""),
            ("if-modified-since", "@-9000")
        ]
    ));
    assert!(!has(
        fields,
        &[("if-none-match", "\"x\""), ("if-modified-since", "@0")]
    ));
}

#[test]
fn rfc9111_4_3_2_if_modified_since_by_last_modified_then_date_then_arrival() {
    let modified: Lines<'_> = &[("last-modified", "@-3000"), ("date", "@0")];
    assert!(has(modified, &[("if-modified-since", "@-3000")]));
    assert!(has(modified, &[("if-modified-since", "@-2000")]));
    assert!(!has(modified, &[("if-modified-since", "@-3001")]));
    assert!(!has(&[("date", "@-10")], &[("if-modified-since", "@-11")]));
    assert!(has(&[("date", "@-10")], &[("if-modified-since", "@-10")]));
    assert!(has(&[], &[("if-modified-since", "@0")]));
    assert!(!has(&[], &[("if-modified-since", "@-1")]));
}

#[test]
fn rfc9110_13_1_3_what_is_no_date_is_not_there() {
    let modified: Lines<'_> = &[("last-modified", "@-3000")];
    assert!(!has(modified, &[("if-modified-since", "0")]));
    assert!(!has(
        modified,
        &[("if-modified-since", "@0"), ("if-modified-since", "@0")]
    ));
    let rfc850 = "Monday, 21-Sep-26 14:13:20 GMT";
    assert!(has(modified, &[("if-modified-since", rfc850)]));
}

#[test]
fn rfc9110_13_2_1_only_for_get_and_head_of_200() {
    let (fields, asked) = (
        map(&[("etag", "\"a\"")]),
        map(&[("if-none-match", "\"a\"")]),
    );
    let says = |method, status| answer(&method, &asked, status, &fields, wall(), wall());
    assert!(says(Method::HEAD, StatusCode::OK));
    assert!(!says(Method::POST, StatusCode::OK));
    assert!(!says(Method::GET, StatusCode::NOT_FOUND));
}

#[test]
fn rfc9111_4_3_2_if_match_is_the_origins_business() {
    assert!(conditional::for_origin(&map(&[("if-match", "*")])));
    assert!(conditional::for_origin(&map(&[(
        "if-unmodified-since",
        "@0"
    )])));
    assert!(!conditional::for_origin(&map(&[("if-none-match", "*")])));
}

#[test]
fn rfc9110_15_4_5_a_304_has_what_a_200_would_have_but_for_the_body() {
    let kept = [
        ("cache-control", "max-age=1"),
        ("content-location", "/a"),
        ("date", "@0"),
        ("etag", "\"a\""),
        ("expires", "@1"),
        ("vary", "a"),
        ("access-control-allow-origin", "*"),
    ];
    let mut fields = kept.to_vec();
    fields.extend([
        ("content-type", "a/b"),
        ("content-length", "1"),
        ("last-modified", "@0"),
    ]);
    assert_eq!(not_modified(&map(&fields)), map(&kept));
    let undated = not_modified(&map(&[("last-modified", "@0")]));
    assert!(undated.contains_key("last-modified"));
}

#[test]
fn rfc9111_4_3_4_which_stored_answer_a_304_is_about() {
    let says = |fields: Lines<'_>, new: Lines<'_>, only| confirms(&map(fields), &map(new), only);
    let (a, b) = (("etag", "\"a\""), ("etag", "\"b\""));
    let (old, new) = (("last-modified", "@-9"), ("last-modified", "@-8"));
    assert!(says(&[a], &[a], false));
    assert!(!says(&[a], &[b], true));
    assert!(!says(&[old], &[a, old], true));
    assert!(says(&[("etag", "W/\"a\"")], &[a], false));
    assert!(says(&[a, old], &[old], false));
    assert!(!says(&[a, old], &[new], true));
    assert!(says(&[a], &[], true) && !says(&[a], &[], false));
    assert!(!says(&[a], &[("etag", "a")], true));
}

#[test]
fn rfc9111_4_3_5_head_freshens_or_outdates() {
    let stored = [("etag", "\"a\""), ("last-modified", "@-9")];
    let says = |status, fields: Lines<'_>| head(status, &map(fields), &map(&stored), 10);
    assert_eq!(says(StatusCode::OK, &[]), Head::Freshens);
    assert_eq!(
        says(StatusCode::OK, &[stored[0], ("content-length", "10")]),
        Head::Freshens
    );
    assert_eq!(
        says(StatusCode::OK, &[("content-length", "11")]),
        Head::Outdates
    );
    assert_eq!(
        says(StatusCode::OK, &[("content-length", "x")]),
        Head::Outdates
    );
    assert_eq!(says(StatusCode::OK, &[("etag", "\"b\"")]), Head::Outdates);
    assert_eq!(
        says(StatusCode::OK, &[("last-modified", "@-8")]),
        Head::Outdates
    );
    assert_eq!(says(StatusCode::GONE, &[("etag", "\"b\"")]), Head::Nothing);
}

// RFC 9110 14: ranges.

fn ranged(len: u64, asked: Lines<'_>) -> Ranged {
    let fields = map(&[("etag", "\"a\""), ("last-modified", "@-60"), ("date", "@0")]);
    select(
        &Method::GET,
        &map(asked),
        StatusCode::OK,
        &fields,
        len,
        wall(),
    )
}

fn one(first: u64, last: u64) -> Ranged {
    Ranged::One(Part { first, last })
}

#[test]
fn rfc9110_14_1_2_one_range() {
    for (range, ranged_to) in [
        ("bytes=0-1", one(0, 1)),
        ("Bytes=0-0", one(0, 0)),
        ("bytes=1-", one(1, 10)),
        ("bytes=-1", one(10, 10)),
        ("bytes=-99", one(0, 10)),
        ("bytes=5-99", one(5, 10)),
        ("bytes= 0-1 ,", one(0, 1)),
        ("bytes=0-99999999999999999999999", one(0, 10)),
        ("bytes=-99999999999999999999999", one(0, 10)),
        ("bytes=11-", Ranged::Unsatisfiable),
        ("bytes=-0", Ranged::Unsatisfiable),
        ("bytes=99999999999999999999999-", Ranged::Unsatisfiable),
    ] {
        assert_eq!(ranged(11, &[("range", range)]), ranged_to, "{range}");
    }
}

#[test]
fn rfc9110_14_2_what_is_no_good_range_is_not_there() {
    let many = format!("bytes={}", "0-0,".repeat(17));
    for range in [
        "bytes=",
        "bytes=-",
        "bytes=2-1",
        "bytes=a-b",
        "bytes=1",
        "bytes=0-1,x",
        "bytes 0-1",
        "lines=0-1",
        "0-1",
        "",
        "bytes=--1",
        "bytes=0-1-2",
        "bytes=1 - 2",
        "bytes=-9223372036854775808x",
        &many,
    ] {
        assert_eq!(ranged(11, &[("range", range)]), Ranged::Whole, "{range}");
    }
    let twice: Lines<'_> = &[("range", "bytes=0-1"), ("range", "bytes=0-1")];
    assert_eq!(ranged(11, twice), Ranged::Whole);
}

#[test]
fn rfc9110_14_2_ranges_are_for_get_of_200() {
    let (fields, asked) = (HeaderMap::new(), map(&[("range", "bytes=0-1")]));
    let says = |method, status| select(&method, &asked, status, &fields, 11, wall());
    assert_eq!(says(Method::HEAD, StatusCode::OK), Ranged::Whole);
    assert_eq!(says(Method::GET, StatusCode::NOT_FOUND), Ranged::Whole);
    assert_eq!(says(Method::GET, StatusCode::OK), one(0, 1));
}

#[test]
fn an_empty_body_has_no_parts() {
    assert_eq!(ranged(0, &[("range", "bytes=0-")]), Ranged::Unsatisfiable);
    assert_eq!(ranged(0, &[("range", "bytes=-5")]), Ranged::Whole);
}

#[test]
fn rfc9110_14_2_several_ranges_in_their_order_unless_they_touch() {
    let part = |first, last| Part { first, last };
    let says = |range| ranged(1000, &[("range", range)]);
    assert_eq!(
        says("bytes=500-509,0-9"),
        Ranged::Many(vec![part(500, 509), part(0, 9)])
    );
    assert_eq!(says("bytes=0-9,5-20"), one(0, 20));
    assert_eq!(says("bytes=0-9,30-40"), one(0, 40));
    assert_eq!(says("bytes=0-9,2000-"), one(0, 9));
    assert_eq!(says("bytes=2000-,3000-"), Ranged::Unsatisfiable);
    let joined = Ranged::Many(vec![part(0, 20), part(500, 509)]);
    assert_eq!(says("bytes=500-509,0-9,5-20"), joined);
    assert_eq!(says("bytes=0-,0-,0-,0-"), one(0, 999));
}

#[test]
fn rfc9110_13_1_5_if_range_is_strong() {
    let says = |value| ranged(11, &[("range", "bytes=0-1"), ("if-range", value)]);
    assert_eq!(says("\"a\""), one(0, 1));
    assert_eq!(says("@-60"), one(0, 1));
    for value in ["W/\"a\"", "\"b\"", "@-59", "@-61", "a", "*", ""] {
        assert_eq!(says(value), Ranged::Whole, "{value}");
    }
    let fields = map(&[("etag", "W/\"a\""), ("last-modified", "@0"), ("date", "@0")]);
    for value in ["\"a\"", "W/\"a\"", "@0"] {
        let asked = map(&[("range", "bytes=0-1"), ("if-range", value)]);
        let ranged = select(&Method::GET, &asked, StatusCode::OK, &fields, 11, wall());
        assert_eq!(ranged, Ranged::Whole, "{value}");
    }
}

#[test]
fn rfc9110_14_4_content_range_is_written_and_read() {
    let (first, last) = (4, 9);
    let part = Part { first, last };
    assert_eq!(content_range(part, 10), "bytes 4-9/10");
    assert_eq!(unsatisfied(10), "bytes */10");
    let read = |value| ContentRange::read(&map(&[("content-range", value)]));
    assert_eq!(
        read("bytes 4-9/10"),
        Some(ContentRange {
            part,
            len: Some(10)
        })
    );
    assert_eq!(read("bytes 4-9/*"), Some(ContentRange { part, len: None }));
    for value in [
        "bytes */10",
        "bytes 4-9",
        "bytes 9-4/10",
        "bytes 4-10/10",
        "x 4-9/10",
        "",
    ] {
        assert_eq!(read(value), None, "{value}");
    }
}

#[test]
fn rfc9110_14_6_several_parts_in_one_body() {
    let parts = [Part { first: 0, last: 1 }, Part { first: 8, last: 9 }];
    let layout = multipart(&parts, &map(&[("content-type", "text/plain")]), 10, 0xabc);
    let mut body = Vec::new();
    for (head, part) in &layout.parts {
        body.extend_from_slice(head);
        body.extend((part.first..=part.last).map(|digit| b'0' + u8::try_from(digit).expect("1")));
    }
    body.extend_from_slice(&layout.end);
    let text = "--0000000000000abc\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
        \r\n--0000000000000abc\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
        \r\n--0000000000000abc--\r\n";
    assert_eq!(String::from_utf8(body).expect("text"), text);
    assert_eq!(layout.len, text.len() as u64);
    assert_eq!(
        layout.content_type,
        "multipart/byteranges; boundary=0000000000000abc"
    );
}
