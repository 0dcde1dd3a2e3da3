//! Whether an answer is encoded, decoded or left alone: pure, from both heads.
//!
//! What is said of a GET is said of a HEAD, so that both carry the same fields. The first reason
//! that holds is the one that is counted.

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, HeaderMap,
    HeaderName, RANGE,
};
use http::{Method, StatusCode};

use super::Guard;
use super::types::Types;
use crate::message::coding::{Accepted, Coded, Coding};
use crate::telemetry::handles::Skip;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_USER: HeaderName = HeaderName::from_static("sec-fetch-user");

/// What a route says.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Best first.
    pub(super) codings: Vec<Coding>,
    pub(super) types: Types,
    /// In bytes.
    pub(super) min_size: u64,
    pub(super) guard: Guard,
}

/// What of a request matters, read before it goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) accepted: Accepted,
    /// What it will be answered in.
    pub(super) choice: Option<Coding>,
    pub(super) head: bool,
    range: bool,
    guarded: bool,
}

impl Asked {
    pub(super) fn of(method: &Method, headers: &HeaderMap, rules: &Rules) -> Self {
        let accepted = Accepted::read(headers);
        let choice = accepted.choose(&rules.codings);
        Asked {
            accepted,
            choice,
            head: method == Method::HEAD,
            range: headers.contains_key(RANGE),
            guarded: choice.is_some() && guarded(rules.guard, headers),
        }
    }

    /// Why no answer to this is encoded, whatever it is.
    pub(super) fn refusal(&self) -> Option<Skip> {
        if self.range {
            Some(Skip::Range)
        } else if self.choice.is_none() {
            Some(Skip::NotAccepted)
        } else {
            self.guarded.then_some(Skip::CrossSite)
        }
    }
}

/// The size of what is sent back would tell of secrets (BREACH, CASES J12): another site had the
/// request made, with what makes the client known. A click of the user's own, which a site cannot
/// make by the thousand, is no danger.
fn guarded(guard: Guard, headers: &HeaderMap) -> bool {
    let known = || headers.contains_key(COOKIE) || headers.contains_key(AUTHORIZATION);
    let is = |name, value: &str| headers.get(name).is_some_and(|v| v == value);
    match guard {
        Guard::Off => false,
        Guard::Credentials => known(),
        Guard::CrossSite => is(FETCH_SITE, "cross-site") && !is(FETCH_USER, "?1") && known(),
    }
}

/// What is done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Encoded in this.
    Encode(Coding),
    /// Decoded from this, which the client does not take.
    Decode(Coding),
    /// Left alone, for this reason; none: it has no body to speak of.
    Leave(Option<Skip>),
}

/// A verdict, and whether another client might get another (`Vary`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) negotiable: bool,
}

/// Judges an answer; `length` is that of its body, if known.
pub(super) fn judge(
    rules: &Rules,
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Judged {
    let bodiless = status.is_informational()
        || matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        );
    let left = |reason, negotiable| Judged {
        verdict: Verdict::Leave(reason),
        negotiable,
    };
    if bodiless {
        return left(None, false);
    }
    if no_transform(headers) {
        return left(Some(Skip::NoTransform), false);
    }
    let part = status == StatusCode::PARTIAL_CONTENT || headers.contains_key(CONTENT_RANGE);
    let length = if asked.head { stated(headers) } else { length };
    match Coded::read(headers) {
        Coded::In(coding) if asked.accepted.takes(coding) || part || length == Some(0) => {
            return left(Some(Skip::Coded), true);
        }
        Coded::In(coding) => {
            return Judged {
                verdict: Verdict::Decode(coding),
                negotiable: true,
            };
        }
        Coded::Otherwise => return left(Some(Skip::Coded), false),
        Coded::Plain => {}
    }
    let media = headers.get(CONTENT_TYPE).map_or(&b""[..], |t| t.as_bytes());
    if !rules.types.holds(media) {
        return left(Some(Skip::Type), false);
    }
    let reason = reason(rules, asked, part, length);
    Judged {
        verdict: match (reason, asked.choice) {
            (None, Some(coding)) => Verdict::Encode(coding),
            (reason, _) => Verdict::Leave(reason.or(Some(Skip::NotAccepted))),
        },
        negotiable: true,
    }
}

/// Why an answer of a good type stays as it is.
fn reason(rules: &Rules, asked: &Asked, part: bool, length: Option<u64>) -> Option<Skip> {
    let least = if asked.accepted.takes_plain() {
        rules.min_size
    } else {
        1
    };
    if part {
        Some(Skip::Range)
    } else if length.is_some_and(|length| length < least) {
        Some(Skip::Small)
    } else {
        asked.refusal()
    }
}

/// What Content-Length says.
fn stated(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `Cache-Control: no-transform` (RFC 9110 7.7), outside of quoted arguments.
fn no_transform(headers: &HeaderMap) -> bool {
    let named = |line: &[u8]| {
        let mut quoted = false;
        let members = line.split(|byte| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        });
        let name = |member: &[u8]| {
            let end = member.iter().position(|b| *b == b'=');
            member[..end.unwrap_or(member.len())]
                .trim_ascii()
                .eq_ignore_ascii_case(b"no-transform")
        };
        members.into_iter().any(name)
    };
    let mut lines = headers.get_all(CACHE_CONTROL).iter();
    lines.any(|line| named(line.as_bytes()))
}
