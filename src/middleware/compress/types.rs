//! Which media types are worth encoding.
//!
//! Text and what is made like text; not pictures, films and archives, which are small already, and
//! never event streams, whose events must not wait for each other.

/// What is encoded unless the config says otherwise.
const DEFAULT: [&str; 22] = [
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "application/x-ndjson",
    "application/graphql",
    "application/sql",
    "application/yaml",
    "application/toml",
    "application/x-javascript",
    "application/x-www-form-urlencoded",
    "application/vnd.ms-fontobject",
    "font/otf",
    "font/ttf",
    "font/collection",
    "image/svg+xml",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

/// Left alone whatever the config says: what streams in pieces that are messages.
const STREAMS: [&str; 4] = [
    "text/event-stream",
    "application/grpc*",
    "application/x-mixed-replace",
    "multipart/*",
];

/// A list of media types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Types {
    listed: Vec<Pattern>,
    streams: Vec<Pattern>,
}

/// A media type with at most one `*`: what comes before it, and after.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    start: Box<[u8]>,
    /// None: `start` is all of it.
    end: Option<Box<[u8]>>,
}

impl Pattern {
    /// `"text/*"`; none if it is no media type.
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
        let (start, end) = match rest.split_once('*') {
            Some((start, end)) => (start, Some(end)),
            None => (rest, None),
        };
        let whole = !kind.is_empty() && !rest.is_empty();
        let mut bytes = kind
            .bytes()
            .chain(start.bytes())
            .chain(end.unwrap_or("").bytes());
        (whole && bytes.all(token)).then(|| Pattern {
            start: format!("{kind}/{start}").into_bytes().into(),
            end: end.map(|end| end.as_bytes().into()),
        })
    }

    fn holds(&self, media: &[u8]) -> bool {
        let (start, end) = (&*self.start, self.end.as_deref());
        let Some((first, rest)) = media.split_at_checked(start.len()) else {
            return false;
        };
        let rest = match end {
            None => rest.is_empty(),
            Some(end) => {
                let tail = rest.len().checked_sub(end.len()).map(|at| &rest[at..]);
                tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
            }
        };
        rest && first.eq_ignore_ascii_case(start)
    }
}

impl Types {
    /// What is worth it by itself.
    pub(super) fn usual() -> Self {
        Types {
            listed: patterns(&DEFAULT),
            ..Types::none()
        }
    }

    /// Nothing yet.
    pub(super) fn none() -> Self {
        Types {
            listed: Vec::new(),
            streams: patterns(&STREAMS),
        }
    }

    /// Adds a type of the config's; false if it is none.
    pub(super) fn add(&mut self, text: &str) -> bool {
        let pattern = Pattern::parse(text);
        let good = pattern.is_some();
        self.listed.extend(pattern);
        good
    }

    /// Whether a `Content-Type` is in the list.
    pub(super) fn holds(&self, content_type: &[u8]) -> bool {
        let end = content_type.iter().position(|b| *b == b';');
        let media = content_type[..end.unwrap_or(content_type.len())].trim_ascii();
        let holds = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.holds(media));
        holds(&self.listed) && !holds(&self.streams)
    }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts
        .iter()
        .filter_map(|text| Pattern::parse(text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_its_kin_are_in_the_usual_list_and_small_things_are_not() {
        let usual = Types::usual();
        for media in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "text/plain ;x=y",
            "application/json",
            "application/problem+json",
            "application/atom+xml",
            "image/svg+xml",
            "application/wasm",
        ] {
            assert!(usual.holds(media.as_bytes()), "{media}");
        }
        for media in [
            "image/png",
            "video/mp4",
            "application/zip",
            "application/octet-stream",
            "font/woff2",
            "application/jsonx",
            "",
            "text",
            ";",
        ] {
            assert!(!usual.holds(media.as_bytes()), "{media}");
        }
    }

    /// CASES J06.
    #[test]
    fn event_streams_are_left_alone_even_if_they_are_listed() {
        let mut types = Types::usual();
        for media in [
            "text/event-stream",
            "application/grpc-web+proto",
            "application/*",
        ] {
            assert!(types.add(media), "{media}");
        }
        for media in [
            "text/event-stream;charset=utf-8",
            "application/grpc",
            "application/grpc-web+proto",
            "multipart/x-mixed-replace; boundary=x",
        ] {
            assert!(!types.holds(media.as_bytes()), "{media}");
        }
        assert!(types.holds(b"application/zip"));
    }

    #[test]
    fn what_is_no_media_type_is_not_added() {
        let mut types = Types::none();
        for text in [
            "",
            "text",
            "/",
            "text/",
            "/html",
            "text/ht ml",
            "text/*x*",
            "*/*",
            "a/b/c",
        ] {
            assert!(!types.add(text), "{text}");
        }
    }
}
