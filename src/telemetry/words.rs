//! The closed lists of words that stand as label values, and the tables that index them.
//!
//! A word is what happened, once and for all: the same in a metric, a log line and the manual.
//! Each list has its words in the order of its discriminants, so that a counter is found by index.

/// Statuses that are counted exactly; any other counts as its class.
pub const CODES: &[u16] = &[
    101, 200, 201, 202, 203, 204, 205, 206, 207, 226, 300, 301, 302, 303, 304, 307, 308, 400, 401,
    402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422,
    423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 508, 511,
];

/// Methods that are counted by name; any other is `_OTHER`.
pub const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT",
];

/// How an endpoint stands.
pub const ENDPOINT_STATES: [&str; 5] =
    ["healthy", "unhealthy", "ejected", "draining", "unresolved"];

/// Why a pooled connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the labels of weir_pool_closes_total")]
pub enum PoolClose {
    Idle,
    Age,
    Peer,
    Error,
    Cap,
    Drain,
}

impl PoolClose {
    /// All of them, in the order of their discriminants.
    pub const ALL: &'static [(PoolClose, &'static str)] = &[
        (PoolClose::Idle, "idle"),
        (PoolClose::Age, "age"),
        (PoolClose::Peer, "peer"),
        (PoolClose::Error, "error"),
        (PoolClose::Cap, "cap"),
        (PoolClose::Drain, "drain"),
    ];
}

/// Why no further try was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the labels of weir_retries_denied_total")]
pub enum RetryDenied {
    Budget,
    Method,
    Body,
    Deadline,
    Answered,
    Attempts,
}

impl RetryDenied {
    /// All of them, in the order of their discriminants.
    pub const ALL: &'static [(RetryDenied, &'static str)] = &[
        (RetryDenied::Budget, "budget"),
        (RetryDenied::Method, "method"),
        (RetryDenied::Body, "body"),
        (RetryDenied::Deadline, "deadline"),
        (RetryDenied::Answered, "answered"),
        (RetryDenied::Attempts, "attempts"),
    ];
}

/// The states of a breaker, in the order of their discriminants there.
pub const BREAKER: &[&str] = &["closed", "half_open", "open"];

/// Why a connection was refused before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the labels of weir_connections_refused_total")]
pub enum Refused {
    Cap,
    Descriptors,
    ProxyHeader,
    DetectTimeout,
    Tls,
}

impl Refused {
    /// All of them, in the order of their discriminants.
    pub const ALL: &'static [(Refused, &'static str)] = &[
        (Refused::Cap, "cap"),
        (Refused::Descriptors, "descriptors"),
        (Refused::ProxyHeader, "proxy_header"),
        (Refused::DetectTimeout, "detect_timeout"),
        (Refused::Tls, "tls"),
    ];
}

/// A rule of HTTP that a client broke: one word for each check that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the labels of weir_protocol_violations_total")]
pub enum Violation {
    Host,
    Authority,
    Target,
    Path,
    Framing,
    TransferCoding,
    Method,
    Expect,
    Upgrade,
    Fields,
    FieldSize,
    Misdirected,
    Body,
    Parse,
    Stall,
    H2,
}

impl Violation {
    /// All of them, in the order of their discriminants.
    pub const ALL: &'static [(Violation, &'static str)] = &[
        (Violation::Host, "host"),
        (Violation::Authority, "authority"),
        (Violation::Target, "target"),
        (Violation::Path, "path"),
        (Violation::Framing, "framing"),
        (Violation::TransferCoding, "transfer_coding"),
        (Violation::Method, "method"),
        (Violation::Expect, "expect"),
        (Violation::Upgrade, "upgrade"),
        (Violation::Fields, "fields"),
        (Violation::FieldSize, "field_size"),
        (Violation::Misdirected, "misdirected"),
        (Violation::Body, "body"),
        (Violation::Parse, "parse"),
        (Violation::Stall, "stall"),
        (Violation::H2, "h2"),
    ];
}

/// Why an answer was not encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the labels of weir_compression_skipped_total")]
pub enum Skip {
    Small,
    Type,
    Coded,
    NoTransform,
    NotAccepted,
    Range,
    Cap,
    CrossSite,
}

impl Skip {
    /// All of them, in the order of their discriminants.
    pub const ALL: &'static [(Skip, &'static str)] = &[
        (Skip::Small, "small"),
        (Skip::Type, "type"),
        (Skip::Coded, "coded"),
        (Skip::NoTransform, "no_transform"),
        (Skip::NotAccepted, "not_accepted"),
        (Skip::Range, "range"),
        (Skip::Cap, "cap"),
        (Skip::CrossSite, "cross_site"),
    ];

    /// The word for metrics and `explain`.
    pub fn as_str(self) -> &'static str {
        Skip::ALL[self as usize].1
    }
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the labels of weir_config_reloads_total")]
pub enum ReloadOutcome {
    Applied,
    Unchanged,
    Rejected,
    NeedsRestart,
}

impl ReloadOutcome {
    /// All of them, in the order of their discriminants.
    pub const ALL: &'static [(ReloadOutcome, &'static str)] = &[
        (ReloadOutcome::Applied, "applied"),
        (ReloadOutcome::Unchanged, "unchanged"),
        (ReloadOutcome::Rejected, "rejected"),
        (ReloadOutcome::NeedsRestart, "needs_restart"),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_the_order_that_indexing_relies_on() {
        assert!(CODES.is_sorted());
        for (i, (close, _)) in PoolClose::ALL.iter().enumerate() {
            assert_eq!(*close as usize, i);
        }
        for (i, (skip, _)) in Skip::ALL.iter().enumerate() {
            assert_eq!(*skip as usize, i);
        }
        for (i, (violation, _)) in Violation::ALL.iter().enumerate() {
            assert_eq!(*violation as usize, i);
        }
    }
}
