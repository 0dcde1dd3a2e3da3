//! Cases as data: `tests/cases/*.toml`, read and unfolded.
//!
//! Bytes stand in literal strings with escapes of our own, since they need not be text:
//!
//! | written | stands for |
//! |---|---|
//! | `\r` `\n` `\t` `\0` `\\` `\xHH` | that byte |
//! | `\H` | `Host: t.test` and CRLF |
//! | `\P` | a whole request for `/poison` |
//! | `\e` | the entry of `each`, one case for each |
//! | `\*N{text}` | `text`, N times |

use serde::Deserialize;

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Written>,
}

/// A case as written: one exchange, or one for each of `each`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The row of the catalogue.
    id: String,
    /// What the client sends: bytes, and pauses in milliseconds between them.
    #[serde(default = "plain_get")]
    send: Vec<Piece>,
    #[serde(default)]
    each: Vec<String>,
    /// The client ends its side after that.
    #[serde(default)]
    fin: bool,
    /// The first request is a HEAD.
    #[serde(default)]
    head: bool,
    /// What the origin does instead of echoing: bytes, pauses, `!fin` or `!rst` at the end.
    #[serde(default)]
    reply: Vec<Piece>,
    /// Outcomes that are right: see [`Outcome`].
    expect: Vec<String>,
    /// Statuses in order, where the outcome is `answers`.
    #[serde(default)]
    answers: Vec<u16>,
    /// For `norm`: how many answers, and requests upstream. Default 1.
    #[serde(default)]
    times: Option<usize>,
    /// For `answers` and `status`: complete requests upstream.
    #[serde(default)]
    upstream: Option<usize>,
    /// `keep`, `close` or `any`. Default `keep` for `norm`, else `any`.
    #[serde(default)]
    then: Option<String>,
    /// What the first request upstream says: `name: value`, `-name` for its absence, `name` for
    /// its presence.
    #[serde(default)]
    sees: Vec<String>,
    /// The target the first request upstream has.
    #[serde(default)]
    target: Option<String>,
    /// The body of the first request upstream.
    #[serde(default)]
    body: Option<String>,
    /// What the answer says, as `sees`.
    #[serde(default)]
    says: Vec<String>,
    /// The answer's body.
    #[serde(default)]
    answer: Option<String>,
}

/// Bytes, or a pause.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Piece {
    Pause(u64),
    Bytes(String),
}

fn plain_get() -> Vec<Piece> {
    vec![Piece::Bytes(r"GET / HTTP/1.1\r\n\H\r\n".into())]
}

/// What is done on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Pause(u64),
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// How an exchange may end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `reject:400`: one answer of ours, `Connection: close`, closed, nothing upstream.
    Reject(Vec<u16>),
    /// `abort:400`: as that, but the fault stood in the body: what went upstream was broken off.
    Abort(Vec<u16>),
    /// `drop`: closed without a word, nothing upstream.
    Drop,
    /// `cut`: closed without a word; what went upstream was broken off.
    Cut,
    /// `norm`: 200, one canonical request upstream.
    Norm,
    /// `status:502`: an answer with one of these.
    Status(Vec<u16>),
    /// `truncated`: an answer that ends before its end, and the connection with it.
    Truncated,
    /// `answers`: the statuses of the case, in order.
    Answers,
}

/// What is right after the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
    Any,
}

/// One exchange.
#[derive(Debug, Clone)]
pub struct Case {
    pub id: String,
    /// The ID, and which of its cases.
    pub name: String,
    pub send: Vec<Step>,
    pub head: bool,
    pub reply: Vec<Step>,
    pub expect: Vec<Outcome>,
    pub answers: Vec<u16>,
    pub times: usize,
    pub upstream: Option<usize>,
    pub then: Option<Then>,
    pub sees: Vec<String>,
    pub target: Option<Vec<u8>>,
    pub body: Option<Vec<u8>>,
    pub says: Vec<String>,
    pub answer: Option<Vec<u8>>,
}

/// All cases of a file's text.
pub fn read(text: &str) -> Vec<Case> {
    let file: File = toml::from_str(text).unwrap_or_else(|error| panic!("{error}"));
    file.case.iter().flat_map(unfold).collect()
}

fn unfold(written: &Written) -> Vec<Case> {
    if written.each.is_empty() {
        return vec![case(written, "", written.id.clone())];
    }
    let cases = written.each.iter().map(|entry| {
        let short: String = entry.chars().take(40).collect();
        case(written, entry, format!("{} {short:?}", written.id))
    });
    cases.collect()
}

fn case(written: &Written, entry: &str, name: String) -> Case {
    let bytes = |text: &String| unescape(text, entry);
    let texts = |list: &[String]| -> Vec<String> {
        let unescaped = list.iter().map(bytes);
        unescaped
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .collect()
    };
    let mut send = steps(&written.send, entry);
    if written.fin {
        send.push(Step::Fin);
    }
    Case {
        id: written.id.clone(),
        name,
        send,
        head: written.head,
        reply: steps(&written.reply, entry),
        expect: written.expect.iter().map(|text| outcome(text)).collect(),
        answers: written.answers.clone(),
        times: written.times.unwrap_or(1),
        upstream: written.upstream,
        then: written.then.as_deref().map(then),
        sees: texts(&written.sees),
        target: written.target.as_ref().map(bytes),
        body: written.body.as_ref().map(bytes),
        says: texts(&written.says),
        answer: written.answer.as_ref().map(bytes),
    }
}

fn steps(pieces: &[Piece], entry: &str) -> Vec<Step> {
    let step = |piece: &Piece| match piece {
        Piece::Pause(millis) => Step::Pause(*millis),
        Piece::Bytes(text) if text == "!fin" => Step::Fin,
        Piece::Bytes(text) if text == "!rst" => Step::Reset,
        Piece::Bytes(text) => Step::Bytes(unescape(text, entry)),
    };
    pieces.iter().map(step).collect()
}

fn outcome(text: &str) -> Outcome {
    let (word, statuses) = text.split_once(':').unwrap_or((text, "400"));
    let statuses = statuses.split(',').map(|s| s.parse().expect("a status"));
    match word {
        "reject" => Outcome::Reject(statuses.collect()),
        "abort" => Outcome::Abort(statuses.collect()),
        "status" => Outcome::Status(statuses.collect()),
        "drop" => Outcome::Drop,
        "cut" => Outcome::Cut,
        "norm" => Outcome::Norm,
        "truncated" => Outcome::Truncated,
        "answers" => Outcome::Answers,
        other => panic!("{other:?} is no outcome"),
    }
}

fn then(text: &str) -> Then {
    match text {
        "keep" => Then::Keep,
        "close" => Then::Close,
        "any" => Then::Any,
        other => panic!("{other:?} is neither keep, close nor any"),
    }
}

/// The bytes that a string stands for.
fn unescape(text: &str, entry: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let kind = escape.chars().next().expect("something after a backslash");
        rest = &escape[kind.len_utf8()..];
        match kind {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'H' => bytes.extend_from_slice(b"Host: t.test\r\n"),
            'P' => bytes.extend_from_slice(b"GET /poison HTTP/1.1\r\nHost: t.test\r\n\r\n"),
            'e' => bytes.extend(unescape(entry, "")),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two hex digits"));
                rest = &rest[2..];
            }
            '*' => {
                let (count, more) = rest.split_once('{').expect("a brace");
                let (what, more) = more.split_once('}').expect("its end");
                let count = count.parse().expect("a number");
                bytes.extend(unescape(what, entry).repeat(count));
                rest = more;
            }
            other => panic!("\\{other} is no escape in {text:?}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[test]
fn escapes_stand_for_their_bytes() {
    assert_eq!(unescape(r"a\r\n\x80\0\\", ""), b"a\r\n\x80\0\\");
    assert_eq!(unescape(r"\H", ""), b"Host: t.test\r\n");
    assert_eq!(unescape(r"<\e>", r"\t"), b"<\t>");
    assert_eq!(unescape(r"\*3{1\r\n}.", ""), b"1\r\n1\r\n1\r\n.");
}

#[test]
fn a_case_unfolds_into_one_for_each_entry() {
    let text = "[[case]]\nid = \"X1\"\nsend = ['a\\e', 5]\neach = ['b', 'c']\nfin = true\n\
                expect = [\"reject:400,501\", \"norm\"]\n";
    let cases = read(text);
    assert_eq!(cases.len(), 2);
    let steps = [Step::Bytes(b"ac".to_vec()), Step::Pause(5), Step::Fin];
    assert_eq!(cases[1].send, steps);
    assert_eq!(cases[1].name, "X1 \"c\"");
    let outcomes = [Outcome::Reject(vec![400, 501]), Outcome::Norm];
    assert_eq!(cases[1].expect, outcomes);
}
