//! One canonical path and host, decided once, before anything looks at them.
//!
//! The router, every policy and the upstream see the same bytes: percent-encodings of unreserved
//! characters are decoded and the rest upper-cased (RFC 3986 6.2.2), dot segments are removed,
//! repeated slashes merged. What two programs may read differently (`%2f`, `%5c`, `%00`, `..;`,
//! overlong UTF-8, climbing above the root) is refused, never guessed at. A path that is already
//! canonical, which is nearly every one, is passed through without a copy.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// What stands for a byte of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stays as it is.
    Plain,
    /// Needs a closer look: `/ . % ;`.
    Look,
    /// Never stands in a path (RFC 3986 3.3), or is read differently by different programs.
    Bad,
}

const CLASSES: [Class; 256] = {
    let mut table = [Class::Bad; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'/' | b'.' | b'%' | b';' => Class::Look,
            b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'}' | b'#' | b'?' => Class::Bad,
            _ => Class::Plain,
        };
        byte += 1;
    }
    table
};

/// The canonical form of a path that begins with `/`; `None` where it is malformed or ambiguous.
pub fn path(raw: &str) -> Option<Cow<'_, str>> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return None;
    }
    let mut rewrite = false;
    for (at, byte) in bytes.iter().enumerate() {
        match CLASSES[usize::from(*byte)] {
            Class::Plain => {}
            Class::Bad => return None,
            Class::Look => {
                let after_slash = at > 0 && bytes[at - 1] == b'/';
                rewrite |= matches!(byte, b'%' | b';') || (after_slash && *byte != b'%');
            }
        }
    }
    if !rewrite {
        return Some(Cow::Borrowed(raw));
    }
    let decoded = decode(bytes)?;
    let clean = remove_dot_segments(&decoded)?;
    Some(if clean == raw {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(clean)
    })
}

/// Decodes what is unreserved, upper-cases the rest, refuses what is ambiguous.
fn decode(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut before = None;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            out.push(char::from(bytes[at]));
            before = None;
            at += 1;
            continue;
        }
        let high = char::from(*bytes.get(at + 1)?).to_digit(16)?;
        let low = char::from(*bytes.get(at + 2)?).to_digit(16)?;
        let byte = u8::try_from(high * 16 + low).ok()?;
        match byte {
            0..=0x1f | 0x7f | b'/' | b'\\' | 0xc0 | 0xc1 => return None,
            0x80..=0x9f if before == Some(0xe0) => return None,
            0x80..=0x8f if before == Some(0xf0) => return None,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                out.push('%');
                out.extend([high, low].into_iter().filter_map(|digit| {
                    char::from_digit(digit, 16).map(|c| c.to_ascii_uppercase())
                }));
            }
        }
        before = Some(byte);
        at += 3;
    }
    Some(out)
}

/// RFC 3986 5.2.4, with empty segments merged; `None` above the root and for `..;` and `.;`.
fn remove_dot_segments(path: &str) -> Option<String> {
    let mut out: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in path.split('/') {
        open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                out.pop()?;
            }
            other if other.starts_with(".;") || other.starts_with("..;") => return None,
            other => out.push(other),
        }
    }
    let mut clean = String::with_capacity(path.len());
    for segment in &out {
        clean.push('/');
        clean.push_str(segment);
    }
    if open {
        clean.push('/');
    }
    Some(clean)
}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'a> {
    /// Lower case, without a trailing dot; an IPv6 address in brackets.
    pub name: Cow<'a, str>,
    /// 1 to 65535, if one is named.
    pub port: Option<u16>,
}

const UPPER: u8 = 1;
/// No host has it.
const ODD: u8 = 2;
/// What each byte is in the name of a host.
const KINDS: [u8; 256] = {
    let mut kinds = [ODD; 256];
    let mut byte = 0;
    while byte < kinds.len() {
        let letter = byte as u8;
        if letter.is_ascii_uppercase() {
            kinds[byte] = UPPER;
        } else if letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.' | b'_') {
            kinds[byte] = 0;
        }
        byte += 1;
    }
    kinds
};

/// Reads `host[:port]` as it stands in Host or `:authority` (RFC 9110 7.2). `None` for anything
/// else: user information, an empty name, a port that is none, letters that no host has.
pub fn host(text: &str) -> Option<Host<'_>> {
    let end = match text.strip_prefix('[') {
        Some(rest) => {
            let close = rest.find(']')?;
            rest[..close].parse::<Ipv6Addr>().ok()?;
            close + 2
        }
        None => text.bytes().position(|b| b == b':').unwrap_or(text.len()),
    };
    let (name, rest) = text.split_at(end);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some(digits) => {
            let plain = digits.bytes().all(|b| b.is_ascii_digit());
            Some(digits.parse().ok().filter(|port| plain && *port > 0)?)
        }
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let bracketed = name.starts_with('[');
    let kinds = name.bytes().map(|byte| KINDS[usize::from(byte)]);
    let kinds = kinds.fold(0, |all, kind| all | kind);
    let (upper, good) = (kinds & UPPER != 0, kinds & ODD == 0);
    if name.is_empty() || name.starts_with('.') || !(good || bracketed) {
        return None;
    }
    let name = if upper {
        name.to_ascii_lowercase().into()
    } else {
        Cow::Borrowed(name)
    };
    Some(Host { name, port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_canonical_path_is_passed_without_a_copy() {
        for raw in [
            "/", "/a", "/a/", "/a.b/c~d", "/a/b;v=1", "/%C3%A9", "/a|b", "/a:b@c",
        ] {
            assert!(
                matches!(path(raw), Some(Cow::Borrowed(same)) if same == raw),
                "{raw}"
            );
        }
    }

    #[test]
    fn every_spelling_of_a_path_becomes_one() {
        for raw in [
            "/admin",
            "/./admin",
            "//admin",
            "/x/../admin",
            "/%61dmin",
            "/admin/../admin",
            "/%2e/admin",
            "/x/%2e%2E/admin",
            "///x//..//admin",
        ] {
            assert_eq!(path(raw).as_deref(), Some("/admin"), "{raw}");
        }
        assert_eq!(path("/admin/.").as_deref(), Some("/admin/"));
        assert_eq!(path("/a/b/..").as_deref(), Some("/a/"));
        assert_eq!(path("/%c3%a9").as_deref(), Some("/%C3%A9"));
        assert_eq!(path("/%2525").as_deref(), Some("/%2525"));
    }

    #[test]
    fn an_ambiguous_path_is_refused() {
        for raw in [
            "",
            "a",
            "*",
            "/admin%2f",
            "/x%2F..%2fadmin",
            "/x/..;/admin",
            "/x/.;/y",
            "/admin%00",
            "/%c0%af",
            "/%e0%80%af",
            "/%5c",
            "/\\admin",
            "/..",
            "/../x",
            "/a/../../b",
            "/%",
            "/%2",
            "/%zz",
            "/a b",
            "/a\x7f",
            "/a\"",
            "/<",
            "/{x}",
            "/é",
            "/%0d%0aX:%20y",
            "/#x",
        ] {
            assert_eq!(path(raw), None, "{raw}");
        }
    }

    #[test]
    fn a_host_is_read_without_case_dot_and_port() {
        let read = |text| host(text).map(|h| (h.name.into_owned(), h.port));
        assert_eq!(read("A.Example."), Some(("a.example".into(), None)));
        assert_eq!(
            read("a.example:8080"),
            Some(("a.example".into(), Some(8080)))
        );
        assert_eq!(read("[::1]:443"), Some(("[::1]".into(), Some(443))));
        assert_eq!(read("[2001:DB8::1]"), Some(("[2001:db8::1]".into(), None)));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "", ".", ":80", "a, b", "a/b", "u@a", "a b", "[::1", "[zz]", "[::1]x", "a:99999",
            "a:0", "a:-1", "a:80abc", "a:", "a:+1", "a\0b", "a%41", "é",
        ] {
            assert_eq!(host(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(raw in "/[a-c./%;0-9A-F]{0,24}") {
            if let Some(once) = path(&raw) {
                let twice = path(&once);
                prop_assert_eq!(twice.as_deref(), Some(&*once));
                prop_assert!(!once.contains("//") && !once.contains("/../"));
            }
        }
    }
}
