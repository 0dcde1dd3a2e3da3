//! What an operator wants gone: `POST /cache/purge?url=`, `?prefix=`, `?tag=` or `?all`.
//!
//! From the moment of the answer on nothing of it is served, whatever the number of objects. URLs
//! are read as requests are: the scheme does not count, the path is brought into its canonical form.

use std::fmt;

use super::stamps::Purge;
use super::store::Store;
use super::tags;
use crate::message::target;
use crate::telemetry::cache::Purged;

/// What is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// One URL with all its variants: `host/path?query`.
    Url(String),
    /// Every URL that begins so.
    Prefix(String),
    /// Everything with this tag.
    Tag(String),
    /// Everything.
    All,
}

impl Wanted {
    /// Reads one parameter of the query; the error says what is wrong with it.
    pub fn read(key: &str, value: &str) -> Result<Wanted, String> {
        match key {
            "url" => url(value).map(Wanted::Url),
            "prefix" => prefix(value).map(Wanted::Prefix),
            "tag" if value.is_empty() => Err("an empty tag".to_owned()),
            "tag" => Ok(Wanted::Tag(value.to_owned())),
            "all" if matches!(value, "" | "true" | "1") => Ok(Wanted::All),
            "all" => Err(format!("all=\"{value}\" says neither yes nor no")),
            _ => Err(format!("\"{key}\" is none of url, prefix, tag, all")),
        }
    }

    /// Makes it so.
    pub fn purge(&self, store: &Store) {
        let secrets = &store.secrets;
        let (what, kind) = match self {
            Wanted::Url(url) => (Purge::Mark(tags::of_url(secrets, url)), Purged::Url),
            Wanted::Prefix(prefix) => (Purge::Prefix(prefix.as_str().into()), Purged::Prefix),
            Wanted::Tag(tag) => {
                let mark = tags::of_tag(secrets, tag.as_bytes());
                (Purge::Mark(mark), Purged::Tag)
            }
            Wanted::All => (Purge::All, Purged::All),
        };
        store.purge(what, kind);
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Url(url) => write!(f, "url {url}"),
            Wanted::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Wanted::Tag(tag) => write!(f, "tag {tag}"),
            Wanted::All => f.write_str("all"),
        }
    }
}

/// Host and the rest, from `http://host/path`, `https://host/path` or `host/path`.
fn split(text: &str) -> Result<(String, &str), String> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let rest = rest.unwrap_or(text);
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = target::host(authority).ok_or_else(|| format!("\"{authority}\" is no host"))?;
    let host = match host.port {
        Some(port) => format!("{}:{port}", host.name),
        None => host.name.into_owned(),
    };
    Ok((host, rest))
}

fn url(text: &str) -> Result<String, String> {
    let (host, rest) = split(text)?;
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = if path.is_empty() { "/" } else { path };
    let path = target::path(path).ok_or_else(|| format!("\"{path}\" is no path"))?;
    Ok(match query {
        Some(query) => format!("{host}{path}?{query}"),
        None => format!("{host}{path}"),
    })
}

/// A prefix is compared as it stands: it may end within a segment.
fn prefix(text: &str) -> Result<String, String> {
    let (host, rest) = split(text)?;
    let rest = if rest.is_empty() { "/" } else { rest };
    Ok(format!("{host}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_purged_is_read_as_requests_are() {
        for (key, value, expected) in [
            (
                "url",
                "https://A.test/x/../b?q",
                Wanted::Url("a.test/b?q".into()),
            ),
            ("url", "a.test:81", Wanted::Url("a.test:81/".into())),
            (
                "prefix",
                "http://a.test/im",
                Wanted::Prefix("a.test/im".into()),
            ),
            ("prefix", "a.test", Wanted::Prefix("a.test/".into())),
            ("tag", "x", Wanted::Tag("x".into())),
            ("all", "", Wanted::All),
        ] {
            assert_eq!(Wanted::read(key, value), Ok(expected), "{key} {value}");
        }
        for (key, value) in [
            ("url", ""),
            ("url", "/only/a/path"),
            ("url", "a.test/%2f"),
            ("tag", ""),
            ("all", "no"),
            ("everything", ""),
        ] {
            assert!(Wanted::read(key, value).is_err(), "{key} {value}");
        }
    }
}
