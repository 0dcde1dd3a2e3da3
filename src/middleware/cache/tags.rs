//! What an answer is about beside its URL: Surrogate-Key, Cache-Tag and Cache-Groups (RFC 9875).
//!
//! A tag is the operator's, whatever the host; a group is its origin's alone. Both become marks, and
//! nothing of them is kept. Surrogate-Key and Cache-Tag are taken off: they are for caches.

use http::{HeaderMap, HeaderName};

use super::key::Secrets;

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Kinds of marks, so that a tag is never a URL.
const URL: u8 = 1;
const TAG: u8 = 2;
const GROUP: u8 = 3;

/// The mark of `host/path?query`.
pub fn of_url(secrets: &Secrets, url: &str) -> u64 {
    secrets.mark(URL, &[url.as_bytes()])
}

/// The mark of a tag.
pub fn of_tag(secrets: &Secrets, tag: &[u8]) -> u64 {
    secrets.mark(TAG, &[tag])
}

fn of_group(secrets: &Secrets, origin: &Origin<'_>, group: &[u8]) -> u64 {
    secrets.mark(GROUP, &[origin.scheme.as_bytes(), origin.host, group])
}

/// Whose groups they are.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port.
    pub host: &'a [u8],
}

/// The marks of an answer's tags and groups. An operator may purge a group as a tag.
pub fn of_answer(secrets: &Secrets, origin: &Origin<'_>, fields: &HeaderMap) -> Vec<u64> {
    let mut marks = Vec::new();
    let words = fields.get_all(SURROGATE_KEY).iter();
    let words = words.flat_map(|line| line.as_bytes().split(|b| *b == b' ' || *b == b'\t'));
    let listed = fields.get_all(CACHE_TAG).iter();
    let listed = listed.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    for tag in words.chain(listed).map(<[u8]>::trim_ascii) {
        if !tag.is_empty() {
            marks.push(of_tag(secrets, tag));
        }
    }
    for group in strings(fields, &CACHE_GROUPS) {
        marks.push(of_group(secrets, origin, &group));
        marks.push(of_tag(secrets, &group));
    }
    marks
}

/// The marks of the groups that an answer to an unsafe request makes untrue.
pub fn invalidated(secrets: &Secrets, origin: &Origin<'_>, fields: &HeaderMap) -> Vec<u64> {
    let groups = strings(fields, &INVALIDATION);
    groups
        .iter()
        .map(|group| of_group(secrets, origin, group))
        .collect()
}

/// Whether an answer has tags of its own.
pub fn any(fields: &HeaderMap) -> bool {
    let names = [SURROGATE_KEY, CACHE_TAG, CACHE_GROUPS];
    names.iter().any(|name| fields.contains_key(name))
}

/// Takes off what is for caches alone.
pub fn strip(fields: &mut HeaderMap) {
    fields.remove(SURROGATE_KEY);
    fields.remove(CACHE_TAG);
}

/// A List of Strings (RFC 9651 3.1, 3.3.3) over all lines of a field, parameters left out. Nothing if
/// it is none.
fn strings(fields: &HeaderMap, name: &HeaderName) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for line in fields.get_all(name) {
        match list(line.as_bytes()) {
            Some(members) => all.extend(members),
            None => return Vec::new(),
        }
    }
    all
}

fn list(mut text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut members = Vec::new();
    text = text.trim_ascii();
    while !text.is_empty() {
        let (member, rest) = string(text)?;
        members.push(member);
        text = after_parameters(rest)?.trim_ascii_start();
        match text.split_first() {
            None => break,
            Some((b',', rest)) => {
                text = rest.trim_ascii_start();
                if text.is_empty() {
                    return None;
                }
            }
            Some(_) => return None,
        }
    }
    Some(members)
}

/// A String and what follows it.
fn string(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut value = Vec::new();
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((value, rest)),
            b'\\' => {
                let (escaped, after) = rest.split_first()?;
                if !matches!(escaped, b'"' | b'\\') {
                    return None;
                }
                value.push(*escaped);
                rest = after;
            }
            0x20..=0x7e => value.push(*byte),
            _ => return None,
        }
    }
}

/// What follows the parameters, which say nothing here.
fn after_parameters(mut text: &[u8]) -> Option<&[u8]> {
    while let Some(rest) = text.strip_prefix(b";") {
        text = rest.trim_ascii_start();
        let name = text
            .iter()
            .take_while(|b| !matches!(b, b';' | b',' | b'=' | b' '))
            .count();
        if name == 0 {
            return None;
        }
        text = &text[name..];
        if let Some(value) = text.strip_prefix(b"=") {
            text = match string(value) {
                Some((_, rest)) => rest,
                None => {
                    let bare = value
                        .iter()
                        .take_while(|b| !matches!(b, b';' | b',' | b' '));
                    &value[bare.count()..]
                }
            };
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_strings_is_read_to_the_letter() {
        let read = |text: &str| {
            let members = list(text.as_bytes())?;
            let text = |m: Vec<u8>| String::from_utf8(m).expect("ASCII");
            Some(members.into_iter().map(text).collect::<Vec<_>>())
        };
        let expected = |members: &[&str]| Some(members.iter().map(|m| (*m).to_owned()).collect());
        assert_eq!(
            read(r#""a", "b c" ,"d\"\\""#),
            expected(&["a", "b c", "d\"\\"])
        );
        assert_eq!(read(r#""a";x;y="z, w";q=1, "b""#), expected(&["a", "b"]));
        assert_eq!(read(""), expected(&[]));
        for bad in [
            "a",
            r#""a"#,
            r#""a","#,
            r#""a" "b""#,
            r#""\n""#,
            "\"\u{e9}\"",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_group_is_its_origins_and_a_tag_is_everybodys() {
        let secrets = Secrets::default();
        let fields = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(
                HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )])
        };
        let origin = |host| Origin {
            scheme: "http",
            host,
        };
        let (a, b) = (origin(&b"a"[..]), origin(&b"b"[..]));
        let answer = fields("cache-groups", "\"g\"");
        let purge = fields("cache-group-invalidation", "\"g\"");
        let ours = of_answer(&secrets, &a, &answer);
        assert!(ours.contains(&invalidated(&secrets, &a, &purge)[0]));
        assert!(!ours.contains(&invalidated(&secrets, &b, &purge)[0]));
        assert!(ours.contains(&of_tag(&secrets, b"g")));
        let tagged = of_answer(&secrets, &a, &fields("surrogate-key", "x  y"));
        assert_eq!(
            tagged,
            of_answer(&secrets, &b, &fields("cache-tag", "x, y"))
        );
    }
}
