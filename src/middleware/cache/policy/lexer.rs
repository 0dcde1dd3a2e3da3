//! A list of directives, cut into its parts (RFC 9111 5.2, RFC 9110 5.6).
//!
//! `directive = token [ "=" ( token / quoted-string ) ]`. Whatever is not so is given out as broken,
//! with the name if there is one, up to the next comma that is not quoted; nothing is left out.

use std::borrow::Cow;

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive<'a> {
    /// As written; empty if there is none.
    pub(super) name: &'a [u8],
    /// Its argument.
    pub(super) value: Value<'a>,
}

/// What stands behind a directive's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Nothing.
    Nothing,
    /// An argument, without quotes.
    Text(Cow<'a, [u8]>),
    /// Something that is no argument.
    Broken,
}

impl Value<'_> {
    /// The argument, if there is one.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Value::Text(text) => Some(text),
            Value::Nothing | Value::Broken => None,
        }
    }
}

/// The directives of one field line.
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    cut: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(line: &'a [u8]) -> Self {
        Lexer {
            rest: line,
            cut: false,
        }
    }

    /// The line ended inside a quoted string.
    pub(super) fn cut(&self) -> bool {
        self.cut
    }

    fn skip(&mut self, also: impl Fn(u8) -> bool) {
        while let [first, rest @ ..] = self.rest
            && (matches!(first, b' ' | b'\t') || also(*first))
        {
            self.rest = rest;
        }
    }

    fn token(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| !is_token(byte));
        let (token, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        token
    }

    fn argument(&mut self) -> Value<'a> {
        match self.rest {
            [b'=', b'"', ..] => {
                self.rest = &self.rest[2..];
                self.quoted().map_or(Value::Broken, Value::Text)
            }
            [b'=', ..] => {
                self.rest = &self.rest[1..];
                match self.token() {
                    [] => Value::Broken,
                    token => Value::Text(Cow::Borrowed(token)),
                }
            }
            _ => Value::Nothing,
        }
    }

    /// What is left of a quoted string.
    fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        let mut text = Cow::Borrowed(&self.rest[..0]);
        let start = self.rest;
        let mut at = 0;
        loop {
            match start.get(at..)? {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Some(text);
                }
                [b'\\', escaped, ..] => {
                    text.to_mut().push(*escaped);
                    at += 2;
                }
                [b'\\'] | [] => {
                    self.rest = &[];
                    self.cut = true;
                    return None;
                }
                [byte, ..] => {
                    match &mut text {
                        Cow::Borrowed(slice) => *slice = &start[..=at],
                        Cow::Owned(owned) => owned.push(*byte),
                    }
                    at += 1;
                }
            }
        }
    }

    /// To the next comma. False if anything stood before it.
    fn until_comma(&mut self) -> bool {
        self.skip(|_| false);
        let clean = matches!(self.rest, [] | [b',', ..]);
        while let [first, rest @ ..] = self.rest
            && *first != b','
        {
            self.rest = rest;
            if *first == b'"' && self.quoted().is_none() {
                break;
            }
        }
        clean
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Directive<'a>> {
        self.skip(|byte| byte == b',');
        if self.rest.is_empty() {
            return None;
        }
        let name = self.token();
        let mut value = match name {
            [] => Value::Broken,
            _ => self.argument(),
        };
        if !self.until_comma() {
            value = Value::Broken;
        }
        Some(Directive { name, value })
    }
}

/// A byte of a token (RFC 9110 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> Vec<(String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lexer = Lexer::new(line.as_bytes());
        lexer
            .map(|Directive { name, value }| {
                let value = match value {
                    Value::Nothing => None,
                    Value::Text(value) => Some(text(&value)),
                    Value::Broken => Some("BROKEN".to_owned()),
                };
                (text(name), value)
            })
            .collect()
    }

    fn some(name: &str, value: &str) -> (String, Option<String>) {
        (name.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn rfc9111_5_2_both_forms_of_arguments() {
        assert_eq!(
            read(" ,a=1 ,\tb=\"x, y\",, c "),
            [some("a", "1"), some("b", "x, y"), ("c".to_owned(), None)]
        );
        assert_eq!(read(r#"a="q\"uo\\te""#), [some("a", "q\"uo\\te")]);
        assert_eq!(read(r#"a="""#), [some("a", "")]);
    }

    #[test]
    fn what_is_no_directive_is_broken_up_to_the_comma() {
        assert_eq!(read("a =1, b=2"), [some("a", "BROKEN"), some("b", "2")]);
        assert_eq!(read("a= 1"), [some("a", "BROKEN")]);
        assert_eq!(read("a=, b=2"), [some("a", "BROKEN"), some("b", "2")]);
        assert_eq!(read("a=\"1\"x"), [some("a", "BROKEN")]);
        assert_eq!(read("a b, c=2"), [some("a", "BROKEN"), some("c", "2")]);
        assert_eq!(read("=1, c=2"), [some("", "BROKEN"), some("c", "2")]);
        assert_eq!(
            read("@ \"x,y\" z, c=2"),
            [some("", "BROKEN"), some("c", "2")]
        );
    }

    #[test]
    fn an_open_quoted_string_takes_all_and_says_so() {
        let mut lexer = Lexer::new(b"a=\"x, no-store");
        assert_eq!(lexer.by_ref().count(), 1);
        assert!(lexer.cut());
        let mut lexer = Lexer::new(b"a=\"x\\");
        assert_eq!(lexer.by_ref().count(), 1);
        assert!(lexer.cut());
    }

    proptest! {
        #[test]
        fn garbage_ends(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(Lexer::new(&line).count() <= line.len());
        }
    }
}
