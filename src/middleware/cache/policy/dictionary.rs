//! Dictionaries of structured fields (RFC 9651 4.2), as strictly as they are meant.
//!
//! Only the shapes that a cache directive can have are kept; the others are read, because one error
//! anywhere makes the whole field void, and forgotten.

/// The value of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// `?1`, or no value.
    Flag(bool),
    /// At most 15 digits.
    Integer(i64),
    /// A string or a token.
    Text(String),
    /// Anything else.
    Other,
}

impl Item {
    /// True or false.
    pub(super) fn flag(&self) -> Option<bool> {
        match self {
            Item::Flag(flag) => Some(*flag),
            Item::Integer(_) | Item::Text(_) | Item::Other => None,
        }
    }
}

/// The members, each key once: the last counts. `None` on any error.
pub(super) fn parse(text: &[u8]) -> Option<Vec<(String, Item)>> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.is_ascii())?;
    let mut at = Reader(text.trim_matches(' ').as_bytes());
    let mut members: Vec<(String, Item)> = Vec::new();
    while !at.0.is_empty() {
        let key = at.key()?;
        let item = match at.take(b'=') {
            true => at.member()?,
            false => Item::Flag(true),
        };
        at.parameters()?;
        members.retain(|(known, _)| *known != key);
        members.push((key, item));
        at.space(b" \t");
        if at.0.is_empty() {
            break;
        }
        at.take(b',').then_some(())?;
        at.space(b" \t");
        (!at.0.is_empty()).then_some(())?;
    }
    Some(members)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn space(&mut self, bytes: &[u8]) {
        self.run(|byte| bytes.contains(&byte));
    }

    fn run(&mut self, good: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|&byte| !good(byte));
        let (run, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        run
    }

    fn key(&mut self) -> Option<String> {
        let start = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'*';
        self.0.first().filter(|byte| start(byte))?;
        let key = self.run(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        });
        Some(String::from_utf8_lossy(key).into_owned())
    }

    /// An item or an inner list.
    fn member(&mut self) -> Option<Item> {
        if !self.take(b'(') {
            return self.bare();
        }
        loop {
            self.space(b" ");
            if self.take(b')') {
                return Some(Item::Other);
            }
            self.bare()?;
            self.parameters()?;
            matches!(self.0.first(), Some(b' ' | b')')).then_some(())?;
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.space(b" ");
            self.key()?;
            if self.take(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    fn bare(&mut self) -> Option<Item> {
        match self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => self.boolean(),
            b':' => self.bytes(),
            b'@' => {
                self.0 = &self.0[1..];
                matches!(self.number()?, Item::Integer(_)).then_some(Item::Other)
            }
            b'%' => self.display(),
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                let token = self.run(|byte| super::lexer::is_token(byte) || b":/".contains(&byte));
                Some(Item::Text(String::from_utf8_lossy(token).into_owned()))
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Item> {
        let sign = if self.take(b'-') { -1 } else { 1 };
        let whole = self.run(|byte| byte.is_ascii_digit());
        if self.take(b'.') {
            let part = self.run(|byte| byte.is_ascii_digit());
            let good = (1..=12).contains(&whole.len()) && (1..=3).contains(&part.len());
            return good.then_some(Item::Other);
        }
        let good = (1..=15).contains(&whole.len());
        let sum = |sum: i64, digit: &u8| sum * 10 + i64::from(digit - b'0');
        good.then(|| Item::Integer(sign * whole.iter().fold(0, sum)))
    }

    fn string(&mut self) -> Option<Item> {
        let mut text = String::new();
        self.0 = &self.0[1..];
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => return Some(Item::Text(text)),
                b'\\' => {
                    let (&escaped, rest) = self.0.split_first()?;
                    matches!(escaped, b'"' | b'\\').then_some(())?;
                    self.0 = rest;
                    text.push(char::from(escaped));
                }
                0x20..=0x7e => text.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    fn boolean(&mut self) -> Option<Item> {
        let flag = match self.0.get(1)? {
            b'0' => false,
            b'1' => true,
            _ => return None,
        };
        self.0 = &self.0[2..];
        Some(Item::Flag(flag))
    }

    fn bytes(&mut self) -> Option<Item> {
        self.0 = &self.0[1..];
        self.run(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        self.take(b':').then_some(Item::Other)
    }

    fn display(&mut self) -> Option<Item> {
        self.0 = self.0.strip_prefix(b"%\"")?;
        self.run(|byte| byte != b'"' && (0x20..=0x7e).contains(&byte));
        self.take(b'"').then_some(Item::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_type_is_read() {
        let text = b" a, b=?0, c=-12, d=\"x\\\"y\", e=tok/en:x, f=1.25, g=:aGk=:, h=(1 \"a\";b=1), i=@1, j=%\"f%c3\";q ";
        let members = parse(text).expect("a dictionary");
        let items: Vec<_> = members.into_iter().map(|(_, item)| item).collect();
        let text = |text: &str| Item::Text(text.to_owned());
        let kept = [
            Item::Flag(true),
            Item::Flag(false),
            Item::Integer(-12),
            text("x\"y"),
            text("tok/en:x"),
        ];
        assert_eq!(items[..5], kept);
        assert!(items[5..].iter().all(|item| *item == Item::Other));
    }

    #[test]
    fn every_error_voids_all() {
        for text in [
            "a,",
            ",a",
            "A",
            "a=",
            "a b",
            "a=(1",
            "a=(1 2",
            "a=(1\"a\")",
            "a=\"x",
            "a=\"\\x\"",
            "a=?2",
            "a=1.",
            "a=1.2345",
            "a=1234567890123456",
            "a;",
            "a;B",
            "a=-",
            "a=:x",
            "\ta",
            "a=\u{e9}",
            "a=@1.5",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b""), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            parse(&bytes);
        }
    }
}
