//! Content codings: what a client takes, and what a body is in (RFC 9110 §8.4, §12.5.3).
//!
//! The cache and compression agree here. `Accept-Encoding` is read once into [`Accepted`], which
//! is `Copy`; [`Accepted::choose`] gives the coding an answer will be made in, and that is the
//! coding class of a cache key: no more classes than codings and one, whatever clients write.
//! What is kept under a class may be in another coding than the class (an origin encodes as it
//! likes), so a stored answer is sent only to a client whom it [`Accepted::suits`].
//!
//! The reading is safe: a member that breaks the grammar is not there, of two members for one
//! coding the lesser weight counts, and a list that is absurdly long asks for nothing.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A list longer than this asks for nothing, in bytes over all field lines.
const MAX_BYTES: usize = 1024;

/// A weight, in thousandths.
type Weight = u16;

const FULL: Weight = 1000;

/// A content coding that we speak.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// gzip, RFC 1952.
    Gzip,
    /// Brotli, RFC 7932.
    Br,
    /// Zstandard, RFC 8878; a window of at most 8 MiB, RFC 9659.
    Zstd,
}

impl Coding {
    /// All of them, as in [`Coding::index`].
    pub const ALL: [Coding; 3] = [Coding::Gzip, Coding::Br, Coding::Zstd];

    /// Its place in [`Coding::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name on the wire, in the config and in metrics.
    pub const fn token(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Br => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// The coding of a name, in any case; `x-gzip` is gzip.
    pub fn from_token(token: &[u8]) -> Option<Self> {
        let is = |name: &str| token.eq_ignore_ascii_case(name.as_bytes());
        if is("x-gzip") {
            return Some(Coding::Gzip);
        }
        Coding::ALL.into_iter().find(|c| is(c.token()))
    }
}

/// The codings a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// There was a list. Without one a client takes anything, and is sent plain bodies.
    stated: bool,
    /// By [`Coding::index`].
    weights: [Weight; 3],
    /// None: not named, and taken after all that is.
    identity: Option<Weight>,
    /// Codings that are not named: the weight of `*`.
    rest: Weight,
}

impl Accepted {
    /// A client that does not say.
    pub const UNSTATED: Accepted = Accepted {
        stated: false,
        weights: [0; 3],
        identity: None,
        rest: 0,
    };

    /// A client that takes plain bodies alone.
    const PLAIN: Accepted = Accepted {
        stated: true,
        ..Accepted::UNSTATED
    };

    /// Reads `Accept-Encoding`, over all its field lines.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(ACCEPT_ENCODING).iter().peekable();
        if lines.peek().is_none() {
            return Accepted::UNSTATED;
        }
        let mut list = List::default();
        let mut left = MAX_BYTES;
        for line in lines {
            let Some(rest) = left.checked_sub(line.len()) else {
                return Accepted::PLAIN;
            };
            left = rest;
            let members = line.as_bytes().split(|b| *b == b',');
            members.filter_map(member).for_each(|m| list.add(m));
        }
        list.resolve()
    }

    /// The coding to answer in, of those in `order` (best first); none: plain. Weights decide, and
    /// `order` between equals. Plain wins only if the client named it with more weight.
    ///
    /// This is the coding class of a cache key.
    pub fn choose(self, order: &[Coding]) -> Option<Coding> {
        let mut best: Option<(Weight, Coding)> = None;
        for coding in order {
            let weight = self.weights[coding.index()];
            if weight > best.map_or(0, |(most, _)| most) {
                best = Some((weight, *coding));
            }
        }
        let (weight, coding) = best?;
        (weight >= self.identity.unwrap_or(0)).then_some(coding)
    }

    /// Takes bodies in this coding.
    pub fn takes(self, coding: Coding) -> bool {
        !self.stated || self.weights[coding.index()] > 0
    }

    /// Takes plain bodies. Who refuses them and all else we have is sent them all the same, as
    /// RFC 9110 §12.5.3 advises.
    pub fn takes_plain(self) -> bool {
        self.identity != Some(0)
    }

    /// Takes an answer with these fields as it is, coded or plain.
    pub fn suits(self, answer: &HeaderMap) -> bool {
        match Coded::read(answer) {
            Coded::Plain => true,
            Coded::In(coding) => self.takes(coding),
            Coded::Otherwise => !self.stated || self.rest > 0,
        }
    }

    /// The list as an upstream should see it: the same few values whatever clients write. None for
    /// a client that did not say.
    pub fn normalised(self) -> Option<HeaderValue> {
        let takes = Coding::ALL.map(|coding| self.takes(coding));
        let list = match takes {
            [true, true, true] => "br, zstd, gzip",
            [true, true, false] => "br, gzip",
            [true, false, true] => "zstd, gzip",
            [true, false, false] => "gzip",
            [false, true, true] => "br, zstd",
            [false, true, false] => "br",
            [false, false, true] => "zstd",
            [false, false, false] => "identity",
        };
        self.stated.then(|| HeaderValue::from_static(list))
    }
}

/// What a body is in, by its `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coded {
    /// No coding.
    Plain,
    /// One that we speak.
    In(Coding),
    /// Several, or one that we do not speak.
    Otherwise,
}

impl Coded {
    /// Reads `Content-Encoding`. `identity`, which does not belong there, is a coding we do not
    /// speak: such an answer is left alone.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(CONTENT_ENCODING).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Coded::Plain,
            (Some(one), None) => {
                Coding::from_token(one.as_bytes().trim_ascii()).map_or(Coded::Otherwise, Coded::In)
            }
            _ => Coded::Otherwise,
        }
    }
}

/// The members of a list so far: the least weight of each name.
#[derive(Default)]
struct List {
    codings: [Option<Weight>; 3],
    identity: Option<Weight>,
    rest: Option<Weight>,
}

impl List {
    fn add(&mut self, (name, weight): (&[u8], Weight)) {
        let place = if name == b"*" {
            &mut self.rest
        } else if name.eq_ignore_ascii_case(b"identity") {
            &mut self.identity
        } else if let Some(coding) = Coding::from_token(name) {
            &mut self.codings[coding.index()]
        } else {
            return;
        };
        *place = Some(place.map_or(weight, |known| known.min(weight)));
    }

    /// `*` stands for all that is not named; of plain bodies it says only that they are refused.
    fn resolve(self) -> Accepted {
        let rest = self.rest.unwrap_or(0);
        let refused = (self.rest == Some(0)).then_some(0);
        Accepted {
            stated: true,
            weights: self.codings.map(|weight| weight.unwrap_or(rest)),
            identity: self.identity.or(refused),
            rest,
        }
    }
}

/// `gzip;q=0.5` as its name and weight; none if it breaks the grammar.
fn member(member: &[u8]) -> Option<(&[u8], Weight)> {
    let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = match parts.next() {
        None => FULL,
        Some([b'q' | b'Q', b'=', value @ ..]) => qvalue(value)?,
        Some(_) => return None,
    };
    parts.next().is_none().then_some((name, weight))
}

/// `( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`
fn qvalue(value: &[u8]) -> Option<Weight> {
    let (whole, decimals) = match value {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut weight = Weight::from(whole - b'0') * FULL;
    for (digit, scale) in decimals.iter().zip([100, 10, 1]) {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        weight += Weight::from(digit) * scale;
    }
    (weight <= FULL).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ORDER: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];

    fn accepted(list: &str) -> Accepted {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(list).expect("a field value");
        headers.insert(ACCEPT_ENCODING, value);
        Accepted::read(&headers)
    }

    fn chosen(list: &str) -> Option<&'static str> {
        accepted(list).choose(&ORDER).map(Coding::token)
    }

    /// CASES J05, RFC 9110 §12.5.3.
    #[test]
    fn weights_decide_and_the_order_between_equals() {
        for (list, expected) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip", Some("gzip")),
            ("GZIP", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("gzip;q=1.0, br;q=0.9", Some("gzip")),
            ("gzip ; q=0.001 ,zstd;Q=0.002", Some("zstd")),
            ("gzip;q=0", None),
            ("gzip;q=0.000, *", Some("br")),
            ("br;q=0, zstd;q=0, *;q=0.5", Some("gzip")),
            ("*;q=0", None),
            ("*;q=0, gzip", Some("gzip")),
            ("*", Some("br")),
            ("", None),
            (",, ,gzip,,", Some("gzip")),
            ("identity", None),
            ("identity;q=0", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some("gzip")),
            ("deflate", None),
            ("gzip, gzip;q=0", None),
        ] {
            assert_eq!(chosen(list), expected, "{list}");
        }
    }

    #[test]
    fn a_member_that_breaks_the_grammar_is_not_there() {
        for list in [
            "gzip;q=1.001",
            "gzip;q=2",
            "gzip;q=0.1234",
            "gzip;q=-1",
            "gzip;q=",
            "gzip;q",
            "gzip;level=9",
            "gzip;q=1;q=1",
            "gzip;q=0.x",
            "gz ip",
            "\"gzip\"",
        ] {
            assert_eq!(chosen(list), None, "{list}");
        }
        assert_eq!(chosen("gzip;q=9, br"), Some("br"));
    }

    #[test]
    fn a_list_without_end_asks_for_nothing() {
        let list = "gzip, ".repeat(MAX_BYTES / 4);
        assert_eq!(chosen(&list), None);
        assert!(accepted(&list).takes_plain());
    }

    #[test]
    fn plain_is_taken_unless_refused() {
        for (list, takes) in [
            ("gzip", true),
            ("", true),
            ("*", true),
            ("identity;q=0", false),
            ("*;q=0", false),
            ("gzip, *;q=0", false),
            ("identity;q=0.1, *;q=0", true),
        ] {
            assert_eq!(accepted(list).takes_plain(), takes, "{list}");
        }
    }

    #[test]
    fn who_does_not_say_takes_anything_and_is_sent_plain() {
        let accepted = Accepted::read(&HeaderMap::new());
        assert_eq!(accepted.choose(&ORDER), None);
        assert!(Coding::ALL.into_iter().all(|coding| accepted.takes(coding)));
        assert_eq!(accepted.normalised(), None);
    }

    #[test]
    fn a_stored_answer_suits_who_takes_its_coding() {
        let coded = |coding: &'static str| {
            HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(coding))])
        };
        assert!(accepted("br").suits(&HeaderMap::new()));
        assert!(accepted("br").suits(&coded("br")));
        assert!(!accepted("br").suits(&coded("gzip")));
        assert!(!accepted("gzip, deflate").suits(&coded("deflate")));
        assert!(accepted("*").suits(&coded("deflate")));
        assert!(Accepted::UNSTATED.suits(&coded("gzip, br")));
    }

    #[test]
    fn the_coding_of_an_answer_is_one_none_or_not_ours() {
        let coded = |lines: &[&'static str]| {
            let lines = lines.iter().map(|l| HeaderValue::from_static(l));
            Coded::read(&lines.map(|l| (CONTENT_ENCODING, l)).collect())
        };
        assert_eq!(coded(&[]), Coded::Plain);
        assert_eq!(coded(&["BR"]), Coded::In(Coding::Br));
        for other in [&["gzip, br"][..], &["gzip", "gzip"], &["identity"], &[""]] {
            assert_eq!(coded(other), Coded::Otherwise, "{other:?}");
        }
    }

    proptest! {
        /// What is chosen is taken and no better one was passed over; what an upstream is told
        /// means the same when it is read again.
        #[test]
        fn any_list_is_read_to_one_choice(list in "[ -~]{0,80}|((gzip|br|zstd|\\*|identity|deflate)(;q=(0|1|0\\.[0-9]{0,3}))?, ?){0,8}") {
            let accepted = accepted(&list);
            if let Some(coding) = accepted.choose(&ORDER) {
                prop_assert!(accepted.takes(coding));
                let weight = accepted.weights[coding.index()];
                prop_assert!(accepted.weights.iter().all(|other| *other <= weight));
            }
            let told = accepted.normalised().expect("a list was stated");
            let again = self::accepted(told.to_str().expect("text"));
            for coding in Coding::ALL {
                prop_assert_eq!(accepted.takes(coding), again.takes(coding));
            }
        }
    }
}
