//! Cache-Status (RFC 9211): what the cache did, as the last member of the field.
//!
//! `weir; hit; ttl=376`, `weir; fwd=stale; fwd-status=503; detail=stale-if-error`. One member for
//! each answer that passed the cache; an answer that Weir makes itself has none unless it rests on a
//! stored one.

use std::io::Write as _;

use http::{HeaderName, HeaderValue, StatusCode};

/// The field.
pub const NAME: HeaderName = HeaderName::from_static("cache-status");

/// Why the request went on (RFC 9211 2.2), the most specific word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of RFC 9211")]
pub enum Forward {
    Bypass,
    Method,
    UriMiss,
    VaryMiss,
    Request,
    Stale,
}

impl Forward {
    fn as_str(self) -> &'static str {
        match self {
            Forward::Bypass => "bypass",
            Forward::Method => "method",
            Forward::UriMiss => "uri-miss",
            Forward::VaryMiss => "vary-miss",
            Forward::Request => "request",
            Forward::Stale => "stale",
        }
    }
}

/// More to say of an answer that is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of RFC 5861")]
pub enum Detail {
    WhileRevalidate,
    IfError,
}

impl Detail {
    fn as_str(self) -> &'static str {
        match self {
            Detail::WhileRevalidate => "stale-while-revalidate",
            Detail::IfError => "stale-if-error",
        }
    }
}

/// What the cache did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// A stored answer, with the seconds of freshness that are left.
    Hit(i64, Option<Detail>),
    /// The request went on.
    Went {
        /// Why.
        why: Forward,
        /// What the origin answered, where that is not what the client gets.
        status: Option<StatusCode>,
        /// The answer is stored.
        stored: bool,
        /// It was put together with another one; false: it had to go alone.
        collapsed: Option<bool>,
        /// Why the client gets a stored answer all the same.
        detail: Option<Detail>,
    },
}

impl Did {
    /// The request went on, and that is all.
    pub fn went(why: Forward) -> Did {
        Did::Went {
            why,
            status: None,
            stored: false,
            collapsed: None,
            detail: None,
        }
    }

    /// As a member in this name. For a plain hit nothing is formatted.
    pub fn member(self, identity: &str) -> HeaderValue {
        if let Did::Hit(ttl @ 0.., None) = self {
            return hit(identity, ttl.unsigned_abs());
        }
        let mut text = Vec::with_capacity(64);
        text.extend_from_slice(identity.as_bytes());
        // Writing to a Vec cannot fail.
        drop(self.write(&mut text));
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    fn write(self, text: &mut Vec<u8>) -> std::io::Result<()> {
        let detail = match self {
            Did::Hit(ttl, detail) => {
                write!(text, "; hit; ttl={ttl}")?;
                detail
            }
            Did::Went {
                why,
                status,
                stored,
                collapsed,
                detail,
            } => {
                write!(text, "; fwd={}", why.as_str())?;
                if let Some(status) = status {
                    write!(text, "; fwd-status={}", status.as_u16())?;
                }
                if stored {
                    text.extend_from_slice(b"; stored");
                }
                match collapsed {
                    Some(true) => text.extend_from_slice(b"; collapsed"),
                    Some(false) => text.extend_from_slice(b"; collapsed=?0"),
                    None => {}
                }
                detail
            }
        };
        match detail {
            Some(detail) => write!(text, "; detail={}", detail.as_str()),
            None => Ok(()),
        }
    }
}

fn hit(identity: &str, ttl: u64) -> HeaderValue {
    let (mut digits, mut at, mut left) = ([0; 20], 20, ttl);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    let text = [identity.as_bytes(), b"; hit; ttl=", &digits[at..]].concat();
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_as_the_conventions_have_it() {
        let went = |why, status, stored, collapsed, detail| Did::Went {
            why,
            status,
            stored,
            collapsed,
            detail,
        };
        let failed = Some(StatusCode::SERVICE_UNAVAILABLE);
        let unchanged = Some(StatusCode::NOT_MODIFIED);
        for (did, expected) in [
            (Did::Hit(376, None), "weir; hit; ttl=376"),
            (Did::Hit(0, None), "weir; hit; ttl=0"),
            (Did::Hit(-7, None), "weir; hit; ttl=-7"),
            (
                Did::Hit(i64::MAX, None),
                "weir; hit; ttl=9223372036854775807",
            ),
            (
                Did::Hit(-5, Some(Detail::WhileRevalidate)),
                "weir; hit; ttl=-5; detail=stale-while-revalidate",
            ),
            (
                went(Forward::Stale, failed, false, None, Some(Detail::IfError)),
                "weir; fwd=stale; fwd-status=503; detail=stale-if-error",
            ),
            (
                went(Forward::UriMiss, None, true, None, None),
                "weir; fwd=uri-miss; stored",
            ),
            (
                went(Forward::Stale, unchanged, false, None, None),
                "weir; fwd=stale; fwd-status=304",
            ),
            (
                went(Forward::UriMiss, None, false, Some(true), None),
                "weir; fwd=uri-miss; collapsed",
            ),
            (
                went(Forward::VaryMiss, None, false, Some(false), None),
                "weir; fwd=vary-miss; collapsed=?0",
            ),
            (Did::went(Forward::Bypass), "weir; fwd=bypass"),
        ] {
            assert_eq!(did.member("weir"), expected);
        }
    }
}
