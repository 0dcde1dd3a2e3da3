//! Targeted fields: Weir-Cache-Control, then CDN-Cache-Control (RFC 9213).
//!
//! They are dictionaries of structured fields and nothing looser: with a parse error, with a known
//! directive of the wrong type, or with nothing in it, a field is as if it were not there.

use http::HeaderMap;
use http::header::HeaderName;

use super::dictionary::{self, Item};
use super::directives::{Delta, MOST, Scope, Source, Stated};

/// Only ours: it is taken off before the client sees it.
pub const WEIR_CACHE_CONTROL: HeaderName = HeaderName::from_static("weir-cache-control");
/// Every surrogate's: it is passed on.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// What the first field of the target list that is valid and not empty states (RFC 9213 2.2).
pub(super) fn read(fields: &HeaderMap) -> Option<Stated> {
    [WEIR_CACHE_CONTROL, CDN_CACHE_CONTROL]
        .iter()
        .find_map(|name| stated(fields, name))
}

fn stated(fields: &HeaderMap, name: &HeaderName) -> Option<Stated> {
    let mut lines = fields.get_all(name).iter();
    let first = lines.next()?;
    let mut text = first.as_bytes().to_vec();
    for line in lines {
        text.extend_from_slice(b", ");
        text.extend_from_slice(line.as_bytes());
    }
    let members = dictionary::parse(&text)?;
    if members.is_empty() {
        return None;
    }
    let mut stated = Stated {
        source: Source::Targeted,
        ..Stated::default()
    };
    for (key, item) in &members {
        take(&mut stated, key, item)?;
    }
    Some(stated)
}

/// `None` if the type is not the directive's.
fn take(stated: &mut Stated, key: &str, item: &Item) -> Option<()> {
    match key {
        "no-store" => stated.no_store = item.flag()?,
        "public" => stated.public = item.flag()?,
        "must-revalidate" => stated.must_revalidate = item.flag()?,
        "proxy-revalidate" => stated.proxy_revalidate = item.flag()?,
        "must-understand" => stated.must_understand = item.flag()?,
        "no-transform" => stated.no_transform = item.flag()?,
        "immutable" => stated.immutable = item.flag()?,
        "no-cache" => scope(&mut stated.no_cache, item)?,
        "private" => scope(&mut stated.private, item)?,
        "max-age" => stated.max_age = delta(item)?,
        "s-maxage" => stated.s_maxage = delta(item)?,
        "stale-while-revalidate" => stated.stale_while_revalidate = delta(item)?,
        "stale-if-error" => stated.stale_if_error = delta(item)?,
        _ => {}
    }
    Some(())
}

fn scope(scope: &mut Scope, item: &Item) -> Option<()> {
    match item {
        Item::Flag(true) => scope.add(None),
        Item::Flag(false) => {}
        Item::Text(text) => scope.add(Some(text.as_bytes())),
        Item::Integer(_) | Item::Other => return None,
    }
    Some(())
}

fn delta(item: &Item) -> Option<Delta> {
    let Item::Integer(number) = item else {
        return None;
    };
    Some(match u64::try_from(*number) {
        Err(_) => Delta::Invalid,
        Ok(number) => Delta::Seconds(u32::try_from(number).map_or(MOST, |n| n.min(MOST))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(lines: &[(&'static str, &'static str)]) -> Stated {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_static(value));
        }
        Stated::read(&fields)
    }

    #[test]
    fn rfc9213_2_2_the_first_of_the_list_decides_alone() {
        let stated = of(&[
            ("cache-control", "no-store"),
            ("cdn-cache-control", "max-age=20"),
            ("weir-cache-control", "max-age=10"),
        ]);
        assert_eq!(stated.max_age, Delta::Seconds(10));
        assert!(!stated.no_store);
        assert_eq!(stated.source, Source::Targeted);
    }

    #[test]
    fn rfc9213_2_1_an_empty_or_unreadable_field_is_not_there() {
        for value in [
            "",
            "max-age=10000, &&&&&",
            "max-age=\"10000\"",
            "max-age =100",
            "max-age= 100",
            "MaX-aGe=3600",
            "max-age=1.5",
            "no-store=1",
            "max-age=10,",
        ] {
            let stated = of(&[("cdn-cache-control", value), ("cache-control", "no-store")]);
            assert!(stated.no_store, "{value}");
            assert_eq!(stated.source, Source::CacheControl, "{value}");
        }
    }

    #[test]
    fn rfc9213_2_1_parameters_and_unknown_directives_do_not_count() {
        let stated = of(&[("cdn-cache-control", "foobar, max-age=3600;x=1, y=(1 2)")]);
        assert_eq!(stated.max_age, Delta::Seconds(3600));
    }

    #[test]
    fn rfc9213_2_1_lines_are_one_dictionary_and_the_last_of_a_key_counts() {
        let lines = [
            ("cdn-cache-control", "max-age=1"),
            ("cdn-cache-control", "max-age=2"),
        ];
        assert_eq!(of(&lines).max_age, Delta::Seconds(2));
    }

    #[test]
    fn numbers_and_fields_are_as_in_cache_control() {
        let max_age = |value| of(&[("cdn-cache-control", value)]).max_age;
        assert_eq!(max_age("max-age=99999999999"), Delta::Seconds(MOST));
        assert_eq!(max_age("max-age=-1"), Delta::Invalid);
        let stated = of(&[("cdn-cache-control", "no-cache=\"a, b\", private")]);
        assert_eq!(stated.no_cache.fields().len(), 2);
        assert_eq!(stated.private, Scope::All);
        assert!(!of(&[("cdn-cache-control", "no-store=?0")]).no_store);
    }
}
