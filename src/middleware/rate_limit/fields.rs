//! How clients are told what is left: RateLimit fields, put together without formatting.
//!
//! `RateLimit-Policy: "api.0";q=200;w=2` and `RateLimit: "api.0";r=150;t=1`
//! (draft-ietf-httpapi-ratelimit-headers-10), or the older X-RateLimit-* of the limit with the
//! least left. What never changes is made once for each worker.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::config::RateLimitHeaders;
use super::limiter::Limit;
use crate::error::GatewayError;
use crate::switch::Mode;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const OLD_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const OLD_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const OLD_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What is left of one limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    /// Which, among the limits that are told of.
    pub(super) at: usize,
    /// How many.
    pub(super) left: u32,
    /// Seconds until one more is.
    pub(super) next: u64,
}

/// The fields of a group of limits, as far as they never change.
pub(super) enum Form {
    Draft {
        policy: HeaderValue,
        /// `"name";r=`, one for each.
        names: Box<[Box<[u8]>]>,
    },
    Legacy {
        /// The burst of each.
        limits: Box<[u32]>,
    },
    Off,
}

/// The fields of one answer.
#[derive(Debug, Default)]
pub(super) enum Told {
    #[default]
    Nothing,
    Draft {
        policy: HeaderValue,
        limit: HeaderValue,
    },
    Legacy {
        limit: u32,
        left: u32,
        next: u64,
    },
}

impl Form {
    /// For these limits; those that only observe are not told of.
    pub(super) fn new<'l>(
        headers: RateLimitHeaders,
        limits: impl Iterator<Item = &'l Limit> + Clone,
    ) -> Self {
        match headers {
            RateLimitHeaders::Off => Form::Off,
            RateLimitHeaders::Legacy => Form::Legacy {
                limits: limits.map(Limit::burst).collect(),
            },
            RateLimitHeaders::Draft => {
                let policies: Vec<String> = limits.clone().filter(acts).map(policy).collect();
                let policy = HeaderValue::from_str(&policies.join(", "));
                let name = |limit: &Limit| format!("\"{}\";r=", limit.name).into_bytes();
                Form::Draft {
                    policy: policy.expect("config/check admits only plain names"),
                    names: limits.map(|limit| name(limit).into()).collect(),
                }
            }
        }
    }

    /// The fields for what is left.
    pub(super) fn tell(&self, all: impl Iterator<Item = Left>) -> Told {
        match self {
            Form::Off => Told::Nothing,
            Form::Legacy { limits } => {
                let least = all.min_by_key(|one| one.left);
                least.map_or(Told::Nothing, |one| Told::Legacy {
                    limit: limits[one.at],
                    left: one.left,
                    next: one.next,
                })
            }
            Form::Draft { policy, names } => {
                let mut text = Vec::with_capacity(64);
                for one in all {
                    if !text.is_empty() {
                        text.extend_from_slice(b", ");
                    }
                    text.extend_from_slice(&names[one.at]);
                    push(&mut text, u64::from(one.left));
                    text.extend_from_slice(b";t=");
                    push(&mut text, one.next);
                }
                match HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
                    Ok(limit) if !limit.is_empty() => Told::Draft {
                        policy: policy.clone(),
                        limit,
                    },
                    _ => Told::Nothing,
                }
            }
        }
    }
}

impl Told {
    /// Onto an answer. What a room below said of its own limits stays.
    pub(super) fn put(self, headers: &mut HeaderMap) {
        match self {
            Told::Nothing => {}
            Told::Draft { policy, limit } => {
                headers.append(POLICY, policy);
                headers.append(LIMIT, limit);
            }
            Told::Legacy { limit, left, next } => {
                let said = headers.get(&OLD_REMAINING);
                let said = said.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
                if said.is_none_or(|said| left <= said) {
                    headers.insert(OLD_LIMIT, limit.into());
                    headers.insert(OLD_REMAINING, left.into());
                    headers.insert(OLD_RESET, next.into());
                }
            }
        }
    }

    /// Onto the answer that an error becomes.
    pub(super) fn put_on(self, error: GatewayError) -> GatewayError {
        match self {
            Told::Nothing => error,
            Told::Draft { policy, limit } => {
                error.with_field(POLICY, policy).with_field(LIMIT, limit)
            }
            Told::Legacy { .. } if error.fields().iter().any(|(name, _)| *name == OLD_LIMIT) => {
                error
            }
            Told::Legacy { limit, left, next } => error
                .with_field(OLD_LIMIT, limit.into())
                .with_field(OLD_REMAINING, left.into())
                .with_field(OLD_RESET, next.into()),
        }
    }
}

fn acts(limit: &&Limit) -> bool {
    limit.mode() == Mode::Enforce
}

/// `"name";q=200;w=2`: the burst, and the seconds in which it refills.
fn policy(limit: &Limit) -> String {
    let (rate, burst) = (limit.rate(), u64::from(limit.burst()));
    let seconds = (burst * rate.period().as_secs()).div_ceil(u64::from(rate.count()));
    format!("\"{}\";q={burst};w={seconds}", limit.name)
}

/// A number in decimal.
fn push(text: &mut Vec<u8>, mut number: u64) {
    let from = text.len();
    loop {
        text.push(b'0' + u8::try_from(number % 10).expect("a digit"));
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text[from..].reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_decimal() {
        for number in [0, 7, 10, 4_294_967_295, u64::MAX] {
            let mut text = b"r=".to_vec();
            push(&mut text, number);
            assert_eq!(text, format!("r={number}").into_bytes());
        }
    }
}
