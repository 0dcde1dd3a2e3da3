//! The walk through what a well-known conformance suite of caches looks at, group by group, in our
//! own rows. Three seconds lie between an answer and the next request unless a row says otherwise.

use http::{Method, StatusCode};

use super::play_tests::*;
use super::*;

const MISS: Seen = Seen::Miss;
const HIT: Seen = Seen::Cached;

fn all(rows: &[(Seen, Lines<'_>)]) {
    for (seen, fields) in rows {
        assert_eq!(answers(fields).later(), *seen, "{fields:?}");
    }
}

#[test]
fn cache_control_freshness() {
    all(&[
        (MISS, &[]),
        (HIT, &[("cache-control", "max-age=3600")]),
        (MISS, &[("cache-control", "max-age=2")]),
        (MISS, &[("cache-control", "max-age=0")]),
        (HIT, &[("cache-control", "max-age=2147483647")]),
        (HIT, &[("cache-control", "max-age=2147483648")]),
        (HIT, &[("cache-control", "max-age=2147483649")]),
        (HIT, &[("cache-control", "max-age=99999999999")]),
        (
            MISS,
            &[
                ("date", "@0"),
                ("cache-control", "max-age=3600"),
                ("age", "7200"),
            ],
        ),
        (
            MISS,
            &[("date", "@-7200"), ("cache-control", "max-age=3600")],
        ),
        (
            HIT,
            &[
                ("cache-control", "max-age=3600"),
                ("expires", "@-7200"),
                ("date", "@0"),
            ],
        ),
        (
            HIT,
            &[
                ("cache-control", "max-age=3600"),
                ("expires", "0"),
                ("date", "@0"),
            ],
        ),
        (
            MISS,
            &[
                ("expires", "@3600"),
                ("cache-control", "max-age=0"),
                ("date", "@0"),
            ],
        ),
        (HIT, &[("cache-control", "foobar, max-age=3600")]),
        (HIT, &[("cache-control", "MaX-aGe=3600")]),
        (MISS, &[("cache-control", "max-age=-3600")]),
        (HIT, &[("cache-control", "s-maxage=3600")]),
        (MISS, &[("cache-control", "max-age=3600, s-maxage=1")]),
        (MISS, &[("cache-control", "s-maxage=1, max-age=3600")]),
        (
            MISS,
            &[
                ("cache-control", "max-age=3600"),
                ("cache-control", "s-maxage=1"),
            ],
        ),
        (HIT, &[("cache-control", "max-age=1, s-maxage=3600")]),
        (
            HIT,
            &[
                ("expires", "@-10"),
                ("cache-control", "max-age=0, s-maxage=3600"),
            ],
        ),
    ]);
}

#[test]
fn cache_control_grammar() {
    all(&[
        (HIT, &[("cache-control", "max-age=1800, max-age=1")]),
        (
            HIT,
            &[
                ("cache-control", "max-age=1800"),
                ("cache-control", "max-age=1"),
            ],
        ),
        (MISS, &[("cache-control", "max-age=1, max-age=1800")]),
        (MISS, &[("cache-control", "x=\"max-age=3600\", max-age=1")]),
        (MISS, &[("cache-control", "max-age=1, x=\"max-age=3600\"")]),
        (HIT, &[("cache-control", "max-age=\"3600\"")]),
        (MISS, &[("cache-control", "max-age =3600")]),
        (MISS, &[("cache-control", "max-age= 3600")]),
        (HIT, &[("cache-control", "max-age=003600")]),
        (MISS, &[("cache-control", "max-age='3600'")]),
        (MISS, &[("cache-control", "max-age=3600.0")]),
        (MISS, &[("cache-control", "max-age=3600.5")]),
        (MISS, &[("cache-control", "max-age=a3600")]),
        (MISS, &[("cache-control", "max-age=3600a")]),
    ]);
}

#[test]
fn cache_control_of_answers() {
    all(&[
        (MISS, &[("cache-control", "private, max-age=3600")]),
        (MISS, &[("cache-control", "no-store")]),
        (MISS, &[("cache-control", "No-StOrE")]),
        (
            MISS,
            &[
                ("cache-control", "max-age=10000, no-store"),
                ("expires", "@10000"),
            ],
        ),
        (
            MISS,
            &[
                ("cache-control", "max-age=10000, no-cache"),
                ("expires", "@10000"),
            ],
        ),
        (
            MISS,
            &[("cache-control", "max-age=10000, No-CaChE"), ("date", "@0")],
        ),
        (
            Seen::Validated,
            &[("cache-control", "no-cache"), ("etag", "\"abcd\"")],
        ),
        (
            Seen::Validated,
            &[
                ("cache-control", "max-age=9, no-cache"),
                ("etag", "\"abcd\""),
            ],
        ),
        (
            HIT,
            &[
                ("cache-control", "no-cache=\"a\""),
                ("cache-control", "max-age=3600"),
            ],
        ),
        (
            HIT,
            &[
                ("cache-control", "max-age=10000, must-revalidate"),
                ("etag", "\"abcd\""),
            ],
        ),
        (
            Seen::Validated,
            &[
                ("cache-control", "max-age=2, must-revalidate"),
                ("etag", "\"a\""),
            ],
        ),
    ]);
}

#[test]
fn fields_named_by_no_cache_are_not_stored() {
    let lines = [
        ("cache-control", "no-cache=\"a, b\", max-age=9"),
        ("a", "1"),
        ("c", "3"),
    ];
    let stored = answers(&lines).stored().expect("stored");
    assert!(!stored.fields.contains_key("a") && stored.fields.contains_key("c"));
}

#[test]
fn cache_control_of_requests() {
    let rows: &[(Seen, Lines<'_>, &str)] = &[
        (MISS, &[("cache-control", "max-age=3600")], "max-age=0"),
        (MISS, &[("cache-control", "max-age=3600")], "max-age=1"),
        (
            MISS,
            &[("cache-control", "max-age=3600"), ("age", "1800")],
            "max-age=600",
        ),
        (
            Seen::Stale,
            &[("cache-control", "max-age=1")],
            "max-stale=1000",
        ),
        (
            Seen::Stale,
            &[("cache-control", "max-age=1500"), ("age", "2000")],
            "max-stale=1000",
        ),
        (MISS, &[("cache-control", "max-age=1500")], "min-fresh=2000"),
        (
            MISS,
            &[("cache-control", "max-age=1500"), ("age", "1000")],
            "min-fresh=1000",
        ),
        (MISS, &[("cache-control", "max-age=3600")], "no-cache"),
        (
            Seen::Validated,
            &[("cache-control", "max-age=9"), ("last-modified", "@-9")],
            "no-cache",
        ),
        (
            Seen::Validated,
            &[("cache-control", "max-age=9"), ("etag", "\"a\"")],
            "no-cache",
        ),
        (
            HIT,
            &[("cache-control", "max-age=3600")],
            "nothing-to-see-here",
        ),
    ];
    for (seen, fields, asked) in rows {
        let asked: Lines<'_> = &[("cache-control", asked)];
        assert_eq!(
            answers(fields).then(3, asked),
            *seen,
            "{fields:?} {asked:?}"
        );
    }
    let no_store: Lines<'_> = &[("cache-control", "no-store")];
    let answer = answers(&[("cache-control", "max-age=9")]).to(no_store);
    assert_eq!(answer.storable(), Err(Refusal::RequestNoStore));
    assert!(Asked::read(&map(&[("cache-control", "only-if-cached")])).only_if_cached);
}

#[test]
fn age() {
    for (seen, lines) in [
        (HIT, &["abc"][..]),
        (HIT, &["-7200"]),
        (HIT, &["7200.0"]),
        (MISS, &["7200,0"]),
        (MISS, &["7200", "0"]),
        (HIT, &["0,7200"]),
        (HIT, &["0", "7200"]),
        (HIT, &["0, 0"]),
        (HIT, &["0", "0"]),
        (MISS, &["7200, 7200"]),
        (MISS, &["7200", "7200"]),
        (MISS, &["99999999999999999999"]),
    ] {
        let mut fields = vec![("date", "@0"), ("cache-control", "max-age=3600")];
        fields.extend(lines.iter().map(|line| ("age", *line)));
        assert_eq!(answers(&fields).later(), seen, "{lines:?}");
    }
}

#[test]
fn expires() {
    all(&[
        (HIT, &[("expires", "@2592000"), ("date", "@0")]),
        (MISS, &[("expires", "@-2592000"), ("date", "@0")]),
        (MISS, &[("expires", "@0"), ("date", "@0")]),
        (MISS, &[("expires", "@300"), ("date", "@400")]),
        (MISS, &[("expires", "0"), ("date", "@0")]),
        (HIT, &[("expires", "@10"), ("date", "foo")]),
        (MISS, &[("date", "@-10"), ("expires", "@10"), ("age", "25")]),
        (MISS, &[("date", "@10"), ("expires", "@20"), ("age", "15")]),
        (
            HIT,
            &[("expires", "THU, 18 Aug 2050 02:01:18 GMT"), ("date", "@0")],
        ),
        (
            HIT,
            &[("expires", "Thu, 18 AUG 2050 02:01:18 GMT"), ("date", "@0")],
        ),
        (
            HIT,
            &[("expires", "Thu, 18 Aug 2050 02:01:18 gMT"), ("date", "@0")],
        ),
        (
            MISS,
            &[("expires", "Thu, 18 Aug 2050 02:01:18 UTC"), ("date", "@0")],
        ),
        (
            MISS,
            &[("expires", "Thu, 18 Aug 50 02:01:18 GMT"), ("date", "@0")],
        ),
        (
            MISS,
            &[("expires", "Thu 18 Aug 2050 02:01:18 GMT"), ("date", "@0")],
        ),
        (
            MISS,
            &[
                ("expires", "Thu, 18  Aug  2050 02:01:18 GMT"),
                ("date", "@0"),
            ],
        ),
        (
            MISS,
            &[("expires", "Thu, 18-Aug-2050 02:01:18 GMT"), ("date", "@0")],
        ),
        (
            MISS,
            &[("expires", "Thu, 18 Aug 2050 02.01.18 GMT"), ("date", "@0")],
        ),
        (
            MISS,
            &[("expires", "Thu, 18 Aug 2050 2:01:18 GMT"), ("date", "@0")],
        ),
    ]);
}

#[test]
fn guesses_by_status() {
    let guessed = |status, fields: Lines<'_>| answers(fields).with_status(status).later();
    let rested: Lines<'_> = &[("last-modified", "@-86400"), ("date", "@0")];
    for status in [200, 203, 204, 404, 405, 410, 414, 501] {
        assert_eq!(guessed(status, rested), HIT, "{status}");
    }
    for status in [201, 202, 403, 502, 503, 504, 599] {
        assert_eq!(guessed(status, rested), MISS, "{status}");
    }
    let public: Lines<'_> = &[
        ("last-modified", "@-86400"),
        ("date", "@0"),
        ("cache-control", "public"),
    ];
    assert_eq!(guessed(599, public), HIT);
    for (rested, seen) in [("@-5", Seen::Validated), ("@-60", HIT), ("@-3600", HIT)] {
        let fields = [("last-modified", rested), ("date", "@0")];
        assert_eq!(guessed(200, &fields), seen, "{rested}");
    }
}

#[test]
fn statuses_with_explicit_freshness() {
    let fresh: Lines<'_> = &[("cache-control", "max-age=100000"), ("date", "@0")];
    let stale: Lines<'_> = &[("expires", "@-5000"), ("date", "@0")];
    for status in [
        200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599,
    ] {
        assert_eq!(answers(fresh).with_status(status).later(), HIT, "{status}");
        assert_eq!(answers(stale).with_status(status).later(), MISS, "{status}");
    }
    let told = answers(&[("cache-control", "max-age=3600, no-store, must-understand")]);
    assert_eq!(told.clone().with_status(599).later(), MISS);
    assert_eq!(told.with_status(200).later(), HIT);
}

#[test]
fn stale_answers() {
    assert!(answers(&[("cache-control", "max-age=2")]).when_gone());
    for word in [
        "must-revalidate",
        "proxy-revalidate",
        "no-cache",
        "s-maxage=2",
    ] {
        let value = format!("max-age=2, {word}");
        assert!(
            !answers(&[("cache-control", &value), ("etag", "\"a\"")]).when_gone(),
            "{word}"
        );
    }
    let swr = answers(&[
        ("cache-control", "max-age=1, stale-while-revalidate=4"),
        ("etag", "\"a\""),
    ]);
    assert_eq!(swr.then(3, &[]), Seen::Stale);
    assert_eq!(swr.then(6, &[]), Seen::Validated);
    let sie = answers(&[("cache-control", "max-age=0, stale-if-error=60")]);
    assert!(sie.when_failing(3, &[]) && sie.when_gone());
    assert!(!sie.when_failing(61, &[]));
    let plain = answers(&[("cache-control", "max-age=1")]);
    assert!(plain.when_failing(3, &[("cache-control", "stale-if-error=60")]));
    assert!(!plain.when_failing(3, &[("cache-control", "stale-if-error=1")]));
    assert!(!plain.when_failing(3, &[]));
}

#[test]
fn authorization() {
    let rows: &[(Seen, Lines<'_>)] = &[
        (MISS, &[("expires", "@2592000"), ("date", "@0")]),
        (MISS, &[("cache-control", "max-age=3600")]),
        (HIT, &[("cache-control", "max-age=3600, public")]),
        (HIT, &[("cache-control", "max-age=3600, must-revalidate")]),
        (HIT, &[("cache-control", "s-maxage=3600")]),
        (MISS, &[("cache-control", "max-age=3600, public=x")]),
    ];
    for (seen, fields) in rows {
        let answer = answers(fields).to(&[("authorization", "FOO")]);
        assert_eq!(answer.later(), *seen, "{fields:?}");
    }
}

#[test]
fn pragma() {
    let fresh = answers(&[("cache-control", "max-age=3600")]);
    assert_eq!(fresh.then(3, &[("pragma", "unrecognised-extension")]), HIT);
    assert_eq!(fresh.then(3, &[("pragma", "no-cache")]), MISS);
    assert_eq!(
        fresh.then(3, &[("pragma", "no-cache"), ("cache-control", "x")]),
        HIT
    );
    all(&[
        (
            HIT,
            &[("cache-control", "max-age=3600"), ("pragma", "no-cache")],
        ),
        (HIT, &[("cache-control", "max-age=3600"), ("pragma", "x")]),
    ]);
}

#[test]
fn targeted_fields() {
    let cdn = "cdn-cache-control";
    all(&[
        (HIT, &[(cdn, "max-age=3600")]),
        (HIT, &[(cdn, "max-age=99999999999")]),
        (
            MISS,
            &[("date", "@0"), (cdn, "max-age=3600"), ("age", "7200")],
        ),
        (
            MISS,
            &[("cache-control", "max-age=1"), (cdn, "max-age =100")],
        ),
        (MISS, &[(cdn, "max-age=0")]),
        (HIT, &[(cdn, "foobar, max-age=3600")]),
        (
            HIT,
            &[
                (cdn, "max-age=3600"),
                ("expires", "@-10000"),
                ("date", "@0"),
            ],
        ),
        (
            HIT,
            &[(cdn, "max-age=3600"), ("expires", "0"), ("date", "@0")],
        ),
        (
            MISS,
            &[(cdn, "max-age=0"), ("expires", "@10000"), ("date", "@0")],
        ),
        (
            HIT,
            &[("cache-control", "max-age=1"), (cdn, "max-age=3600")],
        ),
        (
            MISS,
            &[("cache-control", "max-age=3600"), (cdn, "max-age=1")],
        ),
        (
            MISS,
            &[
                (cdn, "private"),
                ("cache-control", "max-age=9"),
                ("expires", "@9"),
            ],
        ),
        (
            MISS,
            &[
                (cdn, "no-cache"),
                ("cache-control", "max-age=9"),
                ("expires", "@9"),
            ],
        ),
        (
            MISS,
            &[
                (cdn, "no-store"),
                ("cache-control", "max-age=9"),
                ("expires", "@9"),
            ],
        ),
        (
            HIT,
            &[("cache-control", "no-store"), (cdn, "max-age=10000")],
        ),
        (
            MISS,
            &[(cdn, "max-age=10000, &&&&&"), ("cache-control", "no-store")],
        ),
        (
            MISS,
            &[(cdn, "max-age=\"10000\""), ("cache-control", "no-store")],
        ),
    ]);
}

#[test]
fn vary() {
    let fresh = ("cache-control", "max-age=5000");
    let on_three = answers(&[fresh, ("vary", "Foo, Bar, Baz")]).to(&[("foo", "1"), ("bar", "a")]);
    assert_eq!(
        on_three.then(3, &[("bar", "a"), ("foo", "1"), ("other", "2")]),
        HIT
    );
    assert_eq!(on_three.then(3, &[("foo", "1"), ("bar", "abc")]), MISS);
    assert_eq!(
        on_three.then(3, &[("foo", "1"), ("bar", "a"), ("baz", "7")]),
        MISS
    );
    assert_eq!(on_three.then(3, &[]), MISS);
    for star in ["*", "*, *", ", *", "*, Foo", "Foo, *"] {
        let answer = answers(&[fresh, ("vary", star)]);
        assert_eq!(answer.storable(), Err(Refusal::Vary), "{star}");
    }
    let german = [
        fresh,
        ("vary", "Accept-Language"),
        ("content-language", "de"),
    ];
    let german = answers(&german).to(&[("accept-language", "en, de")]);
    assert_eq!(
        german.then(3, &[("accept-language", "fr;q=0.5, de;q=1.0")]),
        HIT
    );
}

#[test]
fn cookies() {
    let fresh = ("cache-control", "max-age=3600");
    assert_eq!(answers(&[fresh]).then(3, &[("cookie", "a=b")]), HIT);
    let sets = answers(&[fresh, ("set-cookie", "a=b")]);
    assert_eq!(sets.storable(), Err(Refusal::SetCookie));
    let keeps = sets
        .clone()
        .with(|settings| settings.set_cookie = SetCookie::Keep);
    assert!(
        keeps
            .stored()
            .is_ok_and(|stored| stored.fields.contains_key("set-cookie"))
    );
    let strips = sets.with(|settings| settings.set_cookie = SetCookie::Strip);
    assert!(
        strips
            .stored()
            .is_ok_and(|stored| !stored.fields.contains_key("set-cookie"))
    );
    let named = [
        fresh,
        ("cache-control", "no-cache=\"Set-Cookie\""),
        ("set-cookie", "a=b"),
    ];
    let named = answers(&named).stored().expect("stored");
    assert!(!named.fields.contains_key("set-cookie"));
}

#[test]
fn which_fields_are_stored() {
    let fresh = ("cache-control", "max-age=3600");
    for name in [
        "test-header",
        "content-foo",
        "content-encoding",
        "content-length",
        "content-location",
        "content-md5",
        "content-range",
        "content-security-policy",
        "content-type",
        "clear-site-data",
        "etag",
        "expires",
        "public-key-pins",
        "set-cookie2",
        "x-frame-options",
        "strict-transport-security",
        "www-authenticate",
    ] {
        let stored = answers(&[fresh, (name, "a")]).stored().expect("stored");
        assert!(stored.fields.contains_key(name), "{name}");
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "ratelimit",
    ] {
        let stored = answers(&[fresh, (name, "a")]).stored().expect("stored");
        assert!(!stored.fields.contains_key(name), "{name}");
    }
    let named = [
        fresh,
        ("connection", "a, B"),
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
    ];
    let stored = answers(&named).stored().expect("stored");
    assert!(
        ["a", "b", "connection"]
            .iter()
            .all(|name| !stored.fields.contains_key(*name))
    );
    assert!(stored.fields.contains_key("c"));
}

#[test]
fn what_a_304_updates() {
    for (name, updated) in [
        ("test-header", true),
        ("content-foo", true),
        ("cache-control", true),
        ("content-type", true),
        ("content-security-policy", true),
        ("expires", true),
        ("content-length", false),
        ("content-encoding", false),
        ("content-range", false),
    ] {
        let mut fields = map(&[("etag", "\"a\""), ("kept", "1"), (name, "1")]);
        let new = map(&[("etag", "\"a\""), ("date", "@5"), (name, "2")]);
        assert!(conditional::confirms(&fields, &new, true));
        let settings = Settings::default();
        fields::update(&mut fields, &new, &Stated::read(&new), &settings, wall());
        assert_eq!(fields[name], if updated { "2" } else { "1" }, "{name}");
        assert_eq!(fields["kept"], "1");
        assert_eq!(fields["date"], date(5));
    }
}

#[test]
fn partial_answers() {
    let asked: Lines<'_> = &[("range", "bytes=-5")];
    let fields: Lines<'_> = &[
        ("cache-control", "max-age=3600"),
        ("content-range", "bytes 4-9/10"),
    ];
    let part = answers(fields).with_status(206);
    assert_eq!(part.storable(), Err(Refusal::Partial));
    let part = part.to(asked);
    let Ok(Keep::Part(stored)) = part.storable() else {
        panic!("a part is stored as a part");
    };
    let within = |range| {
        let asked = map(&[("range", range)]);
        let part = range::within(&Method::GET, &asked, &part.fields, stored, wall())?;
        Some((part.first, part.last))
    };
    assert_eq!(within("bytes=-5"), Some((5, 9)));
    assert_eq!(within("bytes=6-8"), Some((6, 8)));
    assert_eq!(within("bytes=6-"), Some((6, 9)));
    assert_eq!(within("bytes=-1"), Some((9, 9)));
    assert_eq!(within("bytes=3-8"), None);
    assert_eq!(within("bytes=4-5,7-8"), None);
}

#[test]
fn post_for_later_gets() {
    let target = invalidate::Target {
        scheme: "https",
        authority: "example.com",
        path: "/a?b",
    };
    let may = |fields: Lines<'_>, method: Method| {
        let fields = map(fields);
        let exchanged = storable::Exchanged {
            method: &method,
            asked: &map(&[]),
            status: StatusCode::OK,
            stated: &Stated::read(&fields),
            fields: &fields,
        };
        storable::storable_post(&exchanged, target, &Settings::default())
    };
    let (here, fresh) = (("content-location", "/a?b"), ("expires", "@2592000"));
    assert_eq!(may(&[here, fresh], Method::POST), Ok(Keep::Whole));
    assert_eq!(may(&[here, fresh], Method::PUT), Err(Refusal::Method));
    assert_eq!(may(&[fresh], Method::POST), Err(Refusal::Method));
    let elsewhere = ("content-location", "/a");
    assert_eq!(may(&[elsewhere, fresh], Method::POST), Err(Refusal::Method));
    let guess = ("last-modified", "@-9000");
    assert_eq!(may(&[here, guess], Method::POST), Err(Refusal::NoFreshness));
}
