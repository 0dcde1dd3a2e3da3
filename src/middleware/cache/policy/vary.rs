//! Which requests a stored answer is for (RFC 9111 4.1).
//!
//! Two requests are alike in a field if their values are the same after what the syntax does not
//! mean: lines put together, whitespace around commas, and for Accept-Language case and order.
//! Fields that are not lists, and fields that tell people apart, are compared byte by byte.

use http::HeaderMap;
use http::header::{self, HeaderName};

/// What Vary says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// For every request, or for those alike in these fields: sorted, each once.
    On(Vec<HeaderName>),
    /// For no other request: `*`, or what cannot be read.
    Never,
}

impl Vary {
    /// Of an answer's fields.
    pub fn read(fields: &HeaderMap) -> Self {
        let lines = fields.get_all(header::VARY).iter();
        let members = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
        let members = members.map(<[u8]>::trim_ascii).filter(|m| !m.is_empty());
        let mut names = Vec::new();
        for member in members {
            match HeaderName::from_bytes(member) {
                Ok(name) if member != b"*" => names.push(name),
                Ok(_) | Err(_) => return Vary::Never,
            }
        }
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        Vary::On(names)
    }
}

/// What the fields that Vary names were in the request that was answered.
#[derive(Clone, Debug)]
pub struct Selected {
    fields: Box<[(HeaderName, Option<Chosen>)]>,
    /// The language it is in, where the request liked none better.
    language: Option<Box<[u8]>>,
}

impl PartialEq for Selected {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}

impl Eq for Selected {}

/// A field's value, as it was and as it is compared.
#[derive(Clone, Debug)]
struct Chosen {
    /// Byte by byte, if it was one line: most requests repeat it so.
    line: Option<Box<[u8]>>,
    /// What it means.
    normal: Box<[u8]>,
}

impl PartialEq for Chosen {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

impl Eq for Chosen {}

impl Selected {
    /// Of the request that was sent. The caller leaves out of `names` what it tells apart itself
    /// (Accept-Encoding, by its coding class).
    pub fn of(names: &[HeaderName], asked: &HeaderMap) -> Self {
        let chosen = |name: &HeaderName| {
            let line = only(name, asked).map(Box::from);
            let normal = asked
                .contains_key(name)
                .then(|| normal(name, asked))?
                .into();
            Some(Chosen { line, normal })
        };
        let fields = names.iter().map(|name| (name.clone(), chosen(name)));
        Selected {
            fields: fields.collect(),
            language: None,
        }
    }

    /// With the language of the answer: of two languages that its request liked best, the origin
    /// has this one, so it is also for requests that like this one best and none as well.
    pub fn speaking(mut self, asked: &HeaderMap, answer: &HeaderMap) -> Self {
        if !self.names().any(|name| *name == header::ACCEPT_LANGUAGE) {
            return self;
        }
        let language = only(&header::CONTENT_LANGUAGE, answer).map(<[u8]>::to_ascii_lowercase);
        let liked = best(asked);
        self.language = language
            .filter(|language| liked.contains(language))
            .map(Vec::into_boxed_slice);
        self
    }

    /// Whether this request would have been given the same answer: all fields alike, after
    /// whitespace, line breaks and the order of languages.
    pub fn matches(&self, asked: &HeaderMap) -> bool {
        self.fields.iter().all(|(name, chosen)| match chosen {
            None => !asked.contains_key(name),
            Some(chosen) => {
                let line = only(name, asked);
                line.is_some() && line == chosen.line.as_deref()
                    || asked.contains_key(name) && *chosen.normal == *normal(name, asked)
                    || *name == header::ACCEPT_LANGUAGE && self.speaks_for(asked)
            }
        })
    }

    fn speaks_for(&self, asked: &HeaderMap) -> bool {
        let language = self.language.as_deref();
        language.is_some_and(|language| matches!(&best(asked)[..], [only] if **only == *language))
    }

    /// The fields.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.fields.iter().map(|(name, _)| name)
    }

    /// Bytes on the heap, for the store's scales.
    pub fn weight(&self) -> usize {
        let chosen = |chosen: &Chosen| {
            chosen.line.as_ref().map_or(0, |line| line.len()) + chosen.normal.len()
        };
        let field = |(name, value): &(HeaderName, Option<Chosen>)| {
            name.as_str().len() + value.as_ref().map_or(0, chosen)
        };
        let language = self.language.as_ref().map_or(0, |language| language.len());
        size_of_val(&*self.fields) + language + self.fields.iter().map(field).sum::<usize>()
    }
}

/// The value of a field that has one line.
fn only<'a>(name: &HeaderName, asked: &'a HeaderMap) -> Option<&'a [u8]> {
    let mut lines = asked.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then(|| first.as_bytes())
}

fn normal(name: &HeaderName, asked: &HeaderMap) -> Vec<u8> {
    let lines = asked.get_all(name).iter().map(|line| line.as_bytes());
    let joined = lines.collect::<Vec<_>>().join(&b',');
    match *name {
        header::COOKIE
        | header::AUTHORIZATION
        | header::PROXY_AUTHORIZATION
        | header::USER_AGENT
        | header::REFERER => joined,
        header::ACCEPT_LANGUAGE => languages(&joined).unwrap_or_else(|| tight(&joined)),
        _ => tight(&joined),
    }
}

/// Without the whitespace around commas that are not quoted, and at both ends.
fn tight(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let (mut quoted, mut escaped) = (false, false);
    for &byte in value.trim_ascii() {
        let space = matches!(byte, b' ' | b'\t');
        if !quoted && byte == b',' {
            out.truncate(out.trim_ascii_end().len());
        }
        if !(space && !quoted && out.last() == Some(&b',')) {
            out.push(byte);
        }
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
    }
    out
}

/// Language ranges in lower case and sorted, without a weight of 1: their order means nothing
/// (RFC 9110 12.5.4). `None` if there is anything else in it.
fn languages(value: &[u8]) -> Option<Vec<u8>> {
    let members = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let members = members.filter(|member| !member.is_empty());
    let mut ranges: Vec<Vec<u8>> = members.map(language).collect::<Option<_>>()?;
    ranges.sort_unstable();
    ranges.dedup();
    Some(ranges.join(&b','))
}

fn language(member: &[u8]) -> Option<Vec<u8>> {
    let mut parts = member
        .splitn(2, |&byte| byte == b';')
        .map(<[u8]>::trim_ascii);
    let mut range = parts.next()?.to_ascii_lowercase();
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*');
    range.iter().all(known).then_some(())?;
    let Some(weight) = parts.next() else {
        return Some(range);
    };
    let weight = weight.to_ascii_lowercase();
    let digits = weight.strip_prefix(b"q=")?;
    let number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    digits.iter().all(number).then_some(())?;
    let least = match digits.contains(&b'.') {
        true => digits.trim_ascii_end(),
        false => digits,
    };
    let least = trim_zeros(least);
    if least != b"1" {
        range.extend_from_slice(b";q=");
        range.extend_from_slice(least);
    }
    Some(range)
}

/// The languages that a request likes best; none if it cannot be read.
fn best(asked: &HeaderMap) -> Vec<Vec<u8>> {
    let lines = asked.get_all(header::ACCEPT_LANGUAGE).iter();
    let joined = lines
        .map(|line| line.as_bytes())
        .collect::<Vec<_>>()
        .join(&b',');
    let ranges = languages(&joined).unwrap_or_default();
    let members = ranges.split(|&byte| byte == b',');
    members
        .filter(|member| !member.is_empty() && !member.contains(&b';'))
        .map(<[u8]>::to_vec)
        .collect()
}

/// `0.50` is `0.5`, and `1.0` is `1`.
fn trim_zeros(digits: &[u8]) -> &[u8] {
    if !digits.contains(&b'.') {
        return digits;
    }
    let end = digits
        .iter()
        .rposition(|&byte| byte != b'0')
        .map_or(0, |at| at + 1);
    digits[..end].strip_suffix(b".").unwrap_or(&digits[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    fn alike(name: &'static str, one: &[&'static str], other: &[&'static str]) -> bool {
        let of = |values: &[&'static str]| {
            map(&values
                .iter()
                .map(|value| (name, *value))
                .collect::<Vec<_>>())
        };
        let names = [HeaderName::from_static(name)];
        let selected = Selected::of(&names, &of(one));
        let same = selected == Selected::of(&names, &of(other));
        assert_eq!(selected.matches(&of(other)), same);
        same
    }

    #[test]
    fn rfc9111_4_1_a_star_anywhere_is_for_no_other_request() {
        for lines in [
            &["*"][..],
            &["*, *"],
            &["*", "*"],
            &[", *"],
            &["", "*"],
            &["*, Foo"],
            &["Foo, *"],
            &["Foo Bar"],
            &["(foo)"],
        ] {
            let fields = map(&lines.iter().map(|line| ("vary", *line)).collect::<Vec<_>>());
            assert_eq!(Vary::read(&fields), Vary::Never, "{lines:?}");
        }
    }

    #[test]
    fn rfc9110_12_5_5_names_count_in_any_case_and_order_and_once() {
        let one = Vary::read(&map(&[("vary", "Foo, BAR,,foo")]));
        let other = Vary::read(&map(&[("vary", "bar"), ("vary", "fOO")]));
        assert_eq!(one, other);
        assert_eq!(Vary::read(&map(&[])), Vary::On(Vec::new()));
    }

    #[test]
    fn rfc9111_4_1_all_fields_must_be_alike_and_absence_too() {
        let names = ["bar", "baz", "foo"].map(HeaderName::from_static);
        let request = map(&[("foo", "1"), ("bar", "abc"), ("other", "2")]);
        let selected = Selected::of(&names, &request);
        assert!(selected.matches(&map(&[("bar", "abc"), ("foo", "1"), ("other", "3")])));
        assert!(!selected.matches(&map(&[("foo", "2"), ("bar", "abc")])));
        assert!(!selected.matches(&map(&[("foo", "1"), ("bar", "abcde")])));
        assert!(!selected.matches(&map(&[("foo", "1")])));
        assert!(!selected.matches(&map(&[("foo", "1"), ("bar", "abc"), ("baz", "")])));
        assert!(!selected.matches(&map(&[])));
    }

    #[test]
    fn rfc9111_4_1_lines_and_whitespace_mean_nothing() {
        assert!(alike("foo", &["1, 2"], &["1", "2"]));
        assert!(alike("foo", &["1,2"], &[" 1 ,\t2 "]));
        assert!(alike("foo", &["\"a , b\",c"], &["\"a , b\" , c"]));
        assert!(!alike("foo", &["\"a , b\""], &["\"a,b\""]));
        assert!(!alike("foo", &["a b"], &["ab"]));
        assert!(!alike("foo", &["A"], &["a"]));
        assert!(!alike("foo", &["1, 2"], &["2, 1"]));
    }

    #[test]
    fn rfc9110_12_5_4_of_languages_neither_case_nor_order_counts() {
        let same = |one, other| alike("accept-language", &[one], &[other]);
        assert!(same("en, de", "de, en"));
        assert!(same("en, de", "eN, De"));
        assert!(same("en, de", " en ,   de"));
        assert!(same("en;q=1.0, de;q=0.50", "de;Q=0.5, en"));
        assert!(!same("en, de;q=0.5", "de, en;q=0.5"));
        assert!(!same("en", "en-GB"));
        assert!(!same("en;q=x", "en"));
    }

    #[test]
    fn an_answer_is_for_those_who_like_its_language_best() {
        let names = [header::ACCEPT_LANGUAGE];
        let request = map(&[("accept-language", "en, de, fr;q=0.5")]);
        let of = |language| {
            let answer = map(&[("content-language", language)]);
            Selected::of(&names, &request).speaking(&request, &answer)
        };
        let asks = |value| map(&[("accept-language", value)]);
        assert!(of("de").matches(&asks("fr;q=0.5, DE;q=1.0")));
        assert!(!of("de").matches(&asks("fr, de")));
        assert!(!of("de").matches(&asks("de;q=0.9, en;q=0.8")));
        assert!(!of("fr").matches(&asks("fr")));
        assert!(!of("de, en").matches(&asks("de")));
        assert!(!of("de").matches(&map(&[])));
    }

    #[test]
    fn what_tells_people_apart_is_compared_byte_by_byte() {
        assert!(!alike("cookie", &["a=1, 2"], &["a=1,2"]));
        assert!(!alike("authorization", &["x ,y"], &["x,y"]));
    }

    proptest! {
        #[test]
        fn a_request_is_alike_to_itself(value in "[ -~]{0,40}", name in 0..3_usize) {
            let name = [header::ACCEPT_LANGUAGE, header::COOKIE, header::ACCEPT][name].clone();
            let mut fields = HeaderMap::new();
            fields.insert(name.clone(), HeaderValue::from_str(&value).expect("text"));
            prop_assert!(Selected::of(&[name], &fields).matches(&fields));
        }
    }
}
