//! Cache-Control and Pragma, read to the letter (RFC 9111 5.2).
//!
//! Directives count in any case; arguments as tokens or quoted strings. Of a directive that is there
//! twice the first counts (RFC 9111 4.2.1), of two that conflict the stricter. A directive that
//! restricts counts even if it is written badly, one that permits does not.

use http::HeaderMap;
use http::header::{self, HeaderName};

use super::lexer::{Directive, Lexer, Value};
use super::targeted;

/// No number of seconds counts for more (RFC 9111 1.2.2).
pub(super) const MOST: u32 = 1 << 31;

/// Seconds as a directive states them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delta {
    /// The directive is not there.
    #[default]
    Absent,
    /// It is, without a number that can be read: to be taken as the strictest (RFC 9111 4.2.1).
    Invalid,
    /// At most 2^31 (RFC 9111 1.2.2).
    Seconds(u32),
}

impl Delta {
    fn first(&mut self, value: &Value<'_>) {
        if *self == Delta::Absent {
            *self = value
                .text()
                .and_then(seconds)
                .map_or(Delta::Invalid, Delta::Seconds);
        }
    }

    /// The seconds, if there is a number; none for what is invalid.
    pub fn number(self) -> Option<u32> {
        match self {
            Delta::Absent => None,
            Delta::Invalid => Some(0),
            Delta::Seconds(seconds) => Some(seconds),
        }
    }
}

/// Digits and nothing else; too many are the most there can be.
pub(super) fn seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let sum = text.iter().fold(0_u32, |sum, digit| {
        let next = sum
            .saturating_mul(10)
            .saturating_add(u32::from(digit - b'0'));
        next.min(MOST)
    });
    Some(sum)
}

/// What `no-cache` and `private` are about.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Scope {
    /// Not stated.
    #[default]
    Nothing,
    /// The fields named, no more.
    Fields(Vec<HeaderName>),
    /// The answer.
    All,
}

impl Scope {
    /// Takes in one more statement: with an argument that names no fields it is about all.
    pub(super) fn add(&mut self, argument: Option<&[u8]>) {
        let Some(more) = argument.and_then(names) else {
            *self = Scope::All;
            return;
        };
        match self {
            Scope::All => {}
            Scope::Nothing => *self = Scope::Fields(more),
            Scope::Fields(fields) => fields.extend(more),
        }
    }

    /// The fields it is about, if it is only about some.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Scope::Fields(fields) => fields,
            Scope::Nothing | Scope::All => &[],
        }
    }
}

/// A list of field names; `None` if there is anything else in it, or nothing.
fn names(text: &[u8]) -> Option<Vec<HeaderName>> {
    let members = text.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let members = members.filter(|member| !member.is_empty());
    let names: Vec<_> = members
        .map(HeaderName::from_bytes)
        .collect::<Result<_, _>>()
        .ok()?;
    (!names.is_empty()).then_some(names)
}

/// Whose word it is that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Source {
    /// `Cache-Control` (and `Expires`), or nothing.
    #[default]
    CacheControl,
    /// A targeted field: `Cache-Control` and `Expires` do not count (RFC 9213 2.2).
    Targeted,
}

/// What an answer states (RFC 9111 5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Stated {
    /// Whose word it is.
    pub source: Source,
    /// Not to be stored.
    pub no_store: bool,
    /// Not to be used before it was validated.
    pub no_cache: Scope,
    /// Not for a shared cache.
    pub private: Scope,
    /// For everyone.
    pub public: bool,
    /// Never stale without validation.
    pub must_revalidate: bool,
    /// The same, for shared caches.
    pub proxy_revalidate: bool,
    /// Only for caches that know the status.
    pub must_understand: bool,
    /// Not to be transformed.
    pub no_transform: bool,
    /// Does not change while fresh.
    pub immutable: bool,
    /// Freshness for all.
    pub max_age: Delta,
    /// Freshness for shared caches.
    pub s_maxage: Delta,
    /// May be served so long past freshness while it is validated.
    pub stale_while_revalidate: Delta,
    /// May be served so long past freshness when the origin fails.
    pub stale_if_error: Delta,
    /// Some of it could not be read: what permits does not count then.
    pub malformed: bool,
    /// It ends inside a quoted string: what else it would have said is not known.
    pub cut: bool,
}

impl Stated {
    /// Of an answer's fields: the first targeted field that is valid and not empty, else
    /// Cache-Control. Pragma: no-cache counts where there is neither: what it means in an answer
    /// was never said, so it is taken the strict way.
    pub fn read(fields: &HeaderMap) -> Self {
        if let Some(stated) = targeted::read(fields) {
            return stated;
        }
        let mut stated = Stated::default();
        for line in fields.get_all(header::CACHE_CONTROL) {
            let mut lexer = Lexer::new(line.as_bytes());
            for directive in &mut lexer {
                stated.take(&directive);
            }
            stated.cut |= lexer.cut();
        }
        if !fields.contains_key(header::CACHE_CONTROL) && pragma_no_cache(fields) {
            stated.no_cache = Scope::All;
        }
        stated
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let Directive { name, value } = directive;
        let bare = matches!(value, Value::Nothing);
        self.malformed |= matches!(value, Value::Broken);
        let (lower, len) = lowered(name);
        match &lower[..len] {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache.add(value.text()),
            b"private" => self.private.add(value.text()),
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"no-transform" => self.no_transform = true,
            b"public" => self.public |= bare,
            b"must-understand" => self.must_understand |= bare,
            b"immutable" => self.immutable |= bare,
            b"max-age" => self.max_age.first(value),
            b"s-maxage" => self.s_maxage.first(value),
            b"stale-while-revalidate" => self.stale_while_revalidate.first(value),
            b"stale-if-error" => self.stale_if_error.first(value),
            _ => {}
        }
    }
}

/// What a client asks (RFC 9111 5.2.1). What cannot be read is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Asked {
    /// Neither store the answer nor the request.
    pub no_store: bool,
    /// Only after validation (also by Pragma, where there is no Cache-Control).
    pub no_cache: bool,
    /// Only a stored answer, else 504.
    pub only_if_cached: bool,
    /// No older, seconds.
    pub max_age: Option<u32>,
    /// Fresh for so long yet, seconds.
    pub min_fresh: Option<u32>,
    /// Stale is welcome, by so many seconds: `u32::MAX` is any.
    pub max_stale: Option<u32>,
    /// Stale is welcome after a failure, by so many seconds (RFC 5861 4).
    pub stale_if_error: Option<u32>,
}

impl Asked {
    /// Of a request's fields. Costs two look-ups where there is nothing.
    pub fn read(fields: &HeaderMap) -> Self {
        let mut asked = Asked::default();
        if !fields.contains_key(header::CACHE_CONTROL) {
            asked.no_cache = pragma_no_cache(fields);
            return asked;
        }
        for line in fields.get_all(header::CACHE_CONTROL) {
            for directive in Lexer::new(line.as_bytes()) {
                asked.take(&directive);
            }
        }
        asked
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let Directive { name, value } = directive;
        let number = || value.text().and_then(seconds);
        let (lower, len) = lowered(name);
        match &lower[..len] {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => self.max_age = self.max_age.or_else(number),
            b"min-fresh" => self.min_fresh = self.min_fresh.or_else(number),
            b"stale-if-error" => self.stale_if_error = self.stale_if_error.or_else(number),
            b"max-stale" if matches!(value, Value::Nothing) => {
                self.max_stale = self.max_stale.or(Some(u32::MAX));
            }
            b"max-stale" => self.max_stale = self.max_stale.or_else(number),
            _ => {}
        }
    }
}

/// In lower case, up to a length that no directive here has.
fn lowered(name: &[u8]) -> ([u8; 24], usize) {
    let mut lower = [0; 24];
    let len = name.len().min(lower.len());
    lower[..len].copy_from_slice(&name[..len]);
    lower.make_ascii_lowercase();
    (lower, len)
}

fn pragma_no_cache(fields: &HeaderMap) -> bool {
    let lines = fields.get_all(header::PRAGMA).iter();
    lines
        .flat_map(|line| Lexer::new(line.as_bytes()))
        .any(|directive| directive.name.eq_ignore_ascii_case(b"no-cache"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(lines: &[&'static str]) -> Stated {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(header::CACHE_CONTROL, HeaderValue::from_static(line));
        }
        Stated::read(&fields)
    }

    fn asks(line: &'static str) -> Asked {
        let mut fields = HeaderMap::new();
        fields.append(header::CACHE_CONTROL, HeaderValue::from_static(line));
        Asked::read(&fields)
    }

    #[test]
    fn rfc9111_5_2_names_count_in_any_case_and_unknown_ones_do_not() {
        let stated = of(&["foobar, No-StOrE", "x=\"no-cache\", MaX-aGe=3600"]);
        assert!(stated.no_store);
        assert_eq!(stated.no_cache, Scope::Nothing);
        assert_eq!(stated.max_age, Delta::Seconds(3600));
        assert!(!stated.malformed);
    }

    #[test]
    fn rfc9111_5_2_arguments_are_tokens_or_quoted_strings() {
        assert_eq!(of(&["max-age=\"3600\""]).max_age, Delta::Seconds(3600));
        assert_eq!(of(&["max-age=003600"]).max_age, Delta::Seconds(3600));
        for line in [
            "x=\"max-age=100\", max-age=1",
            "max-age=1, x=\"max-age=100\"",
        ] {
            assert_eq!(of(&[line]).max_age, Delta::Seconds(1), "{line}");
        }
    }

    #[test]
    fn rfc9111_4_2_1_a_lifetime_that_cannot_be_read_is_none() {
        for line in [
            "max-age=a3600",
            "max-age=3600a",
            "max-age=3600.0",
            "max-age=-3600",
            "max-age='3600'",
            "max-age =3600",
            "max-age= 3600",
            "max-age=",
            "max-age",
            "max-age=\"\"",
            "max-age=3600 public",
        ] {
            assert_eq!(of(&[line]).max_age, Delta::Invalid, "{line}");
        }
    }

    #[test]
    fn rfc9111_4_2_1_the_first_of_two_counts_on_one_line_or_two() {
        assert_eq!(
            of(&["max-age=1800, max-age=1"]).max_age,
            Delta::Seconds(1800)
        );
        assert_eq!(
            of(&["max-age=1", "max-age=1800"]).max_age,
            Delta::Seconds(1)
        );
        assert_eq!(of(&["max-age=x", "max-age=1800"]).max_age, Delta::Invalid);
    }

    #[test]
    fn rfc9111_1_2_2_a_number_too_great_is_the_greatest() {
        for (line, seconds) in [
            ("max-age=2147483647", MOST - 1),
            ("max-age=2147483648", MOST),
            ("max-age=2147483649", MOST),
            ("max-age=99999999999999999999999999", MOST),
        ] {
            assert_eq!(of(&[line]).max_age, Delta::Seconds(seconds), "{line}");
        }
    }

    #[test]
    fn rfc9111_5_2_2_4_and_7_with_fields_they_are_about_those_alone() {
        let stated = of(&["private=\"a, b\", no-cache=set-cookie", "no-cache=\"c\""]);
        assert_eq!(stated.private.fields(), ["a", "b"]);
        assert_eq!(stated.no_cache.fields(), ["set-cookie", "c"]);
        for line in [
            "private",
            "private=\"a\", private",
            "private, private=\"a\"",
            "private=\"\"",
            "private=\"a b\"",
            "private=\"a, (\"",
            "private = \"a\"",
            "private=",
        ] {
            assert_eq!(of(&[line]).private, Scope::All, "{line}");
        }
    }

    #[test]
    fn what_restricts_counts_written_badly_and_what_permits_does_not() {
        let stated =
            of(&["no-store=x, must-revalidate=1, public=1, immutable y, must-understand=z"]);
        assert!(stated.no_store && stated.must_revalidate && stated.malformed);
        assert!(!stated.public && !stated.immutable && !stated.must_understand);
        assert!(of(&["a=\"b, no-store"]).cut);
    }

    #[test]
    fn rfc9111_5_4_pragma_counts_only_without_cache_control() {
        let mut fields = HeaderMap::new();
        fields.insert(header::PRAGMA, HeaderValue::from_static("x, No-Cache"));
        assert!(Asked::read(&fields).no_cache);
        assert_eq!(Stated::read(&fields).no_cache, Scope::All);
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("x"));
        assert!(!Asked::read(&fields).no_cache);
        assert_eq!(Stated::read(&fields).no_cache, Scope::Nothing);
        fields.remove(header::CACHE_CONTROL);
        fields.insert(header::PRAGMA, HeaderValue::from_static("unknown"));
        assert_eq!(Asked::read(&fields), Asked::default());
    }

    #[test]
    fn rfc9111_5_2_1_what_a_client_asks() {
        let asked =
            asks("max-age=5, min-fresh=\"6\", max-stale, no-store, no-cache, only-if-cached");
        assert_eq!((asked.max_age, asked.min_fresh), (Some(5), Some(6)));
        assert_eq!(asked.max_stale, Some(u32::MAX));
        assert!(asked.no_store && asked.no_cache && asked.only_if_cached);
        assert_eq!(asks("max-stale=7, stale-if-error=8").max_stale, Some(7));
        assert_eq!(asks("stale-if-error=8").stale_if_error, Some(8));
    }

    #[test]
    fn what_a_client_writes_badly_is_not_there() {
        assert_eq!(
            asks("max-age=x, min-fresh=-1, max-stale=, stale-if-error"),
            Asked::default()
        );
    }
}
