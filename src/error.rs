//! Every way a request can fail, as one closed list of words.
//!
//! A [`Reason`] is the metric label, the log field and the word in the answer; it fixes the
//! status, the side that is to blame, the RFC 9209 token and whether another try is allowed.
//! The matches below have no wildcard arm, so that a new reason does not compile until each of
//! them is decided. A [`GatewayError`] is a reason with its cause; only `middleware/rescue` (and
//! `fallback`) turn one into a response. Complaints about the config are `Problems`, never this.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Any error, as a cause.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Who is to blame for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client sent something wrong, or left.
    Client,
    /// Weir refused or failed.
    Gateway,
    /// The upstream failed.
    Upstream,
}

impl Side {
    /// The word used as metric label and log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Gateway => "gateway",
            Side::Upstream => "upstream",
        }
    }
}

/// When a failed try may be made again, before any other condition (budget, body, deadline).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Never.
    No,
    /// The upstream cannot have seen the request: any method.
    Always,
    /// Only where the method is idempotent (RFC 9110 9.2.2), or the request was never written.
    Idempotent,
}

/// What a failure is to the ladder of lesser answers (`fallback`, `weir_degraded_total`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The client is over its limit.
    Limited,
    /// Weir, or a cap of its own, has no room.
    Shed,
    /// A breaker is open, or no endpoint is there.
    Open,
    /// The upstream took too long.
    Timeout,
    /// The upstream failed, or answered with 5xx.
    Error,
}

impl Cause {
    /// All causes and their words, in the order of their discriminants.
    pub const ALL: &'static [(Cause, &'static str)] = &[
        (Cause::Limited, "limited"),
        (Cause::Shed, "shed"),
        (Cause::Open, "open"),
        (Cause::Timeout, "timeout"),
        (Cause::Error, "error"),
    ];

    /// The word for config, metrics, logs and answers.
    pub fn as_str(self) -> &'static str {
        Cause::ALL[self as usize].1
    }
}

macro_rules! reasons {
    ($($variant:ident $word:literal,)*) => {
        /// One word for each way to fail.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the word beside each variant is its documentation")]
        pub enum Reason { $($variant,)* }

        impl Reason {
            /// All reasons, in the order of their discriminants.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The word for metrics, logs and answers.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    BadRequest "bad_request",
    RequestTimeout "request_timeout",
    BodyTooLarge "body_too_large",
    UriTooLong "uri_too_long",
    HeaderTooLarge "header_too_large",
    ExpectationFailed "expectation_failed",
    UnsupportedCoding "unsupported_coding",
    ClientGone "client_gone",
    Denied "denied",
    NoRoute "no_route",
    MethodNotAllowed "method_not_allowed",
    Misdirected "misdirected",
    OnlyIfCached "only_if_cached",
    RateLimited "rate_limited",
    QueueFull "queue_full",
    Shed "shed",
    Panic "panic",
    Loop "loop",
    NoEndpoint "no_endpoint",
    BreakerOpen "breaker_open",
    ConnectionLimitReached "connection_limit_reached",
    DnsError "dns_error",
    DnsTimeout "dns_timeout",
    ConnectionRefused "connection_refused",
    DestinationIpUnroutable "destination_ip_unroutable",
    ConnectionTimeout "connection_timeout",
    TlsProtocolError "tls_protocol_error",
    TlsCertificateError "tls_certificate_error",
    TlsAlertReceived "tls_alert_received",
    ConnectionTerminated "connection_terminated",
    ConnectionWriteTimeout "connection_write_timeout",
    FirstByteTimeout "first_byte_timeout",
    PerTryTimeout "per_try_timeout",
    HttpResponseTimeout "http_response_timeout",
    HttpProtocolError "http_protocol_error",
    HttpResponseHeaderSectionSize "http_response_header_section_size",
    HttpUpgradeFailed "http_upgrade_failed",
    HttpResponseIncomplete "http_response_incomplete",
    ConnectionReadTimeout "connection_read_timeout",
}

impl Reason {
    /// A dense index, for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The status of the answer; `None` where no answer can be sent any more.
    pub fn status(self) -> Option<StatusCode> {
        use Reason::*;
        Some(match self {
            BadRequest => StatusCode::BAD_REQUEST,
            RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            UriTooLong => StatusCode::URI_TOO_LONG,
            HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            UnsupportedCoding => StatusCode::NOT_IMPLEMENTED,
            Denied => StatusCode::FORBIDDEN,
            NoRoute => StatusCode::NOT_FOUND,
            MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Misdirected => StatusCode::MISDIRECTED_REQUEST,
            RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Panic => StatusCode::INTERNAL_SERVER_ERROR,
            QueueFull | Shed | NoEndpoint | BreakerOpen | ConnectionLimitReached => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            OnlyIfCached
            | DnsTimeout
            | ConnectionTimeout
            | ConnectionWriteTimeout
            | FirstByteTimeout
            | PerTryTimeout
            | HttpResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
            Loop
            | DnsError
            | ConnectionRefused
            | DestinationIpUnroutable
            | TlsProtocolError
            | TlsCertificateError
            | TlsAlertReceived
            | ConnectionTerminated
            | HttpProtocolError
            | HttpResponseHeaderSectionSize
            | HttpUpgradeFailed => StatusCode::BAD_GATEWAY,
            ClientGone | HttpResponseIncomplete | ConnectionReadTimeout => return None,
        })
    }

    /// Who is to blame.
    pub fn side(self) -> Side {
        use Reason::*;
        match self {
            BadRequest | RequestTimeout | BodyTooLarge | UriTooLong | HeaderTooLarge
            | ExpectationFailed | UnsupportedCoding | ClientGone => Side::Client,
            Denied | NoRoute | MethodNotAllowed | Misdirected | OnlyIfCached | RateLimited
            | QueueFull | Shed | Panic | Loop => Side::Gateway,
            NoEndpoint
            | BreakerOpen
            | ConnectionLimitReached
            | DnsError
            | DnsTimeout
            | ConnectionRefused
            | DestinationIpUnroutable
            | ConnectionTimeout
            | TlsProtocolError
            | TlsCertificateError
            | TlsAlertReceived
            | ConnectionTerminated
            | ConnectionWriteTimeout
            | FirstByteTimeout
            | PerTryTimeout
            | HttpResponseTimeout
            | HttpProtocolError
            | HttpResponseHeaderSectionSize
            | HttpUpgradeFailed
            | HttpResponseIncomplete
            | ConnectionReadTimeout => Side::Upstream,
        }
    }

    /// The `error` parameter of Proxy-Status (RFC 9209 2.3), where one is sent.
    pub fn proxy_status(self) -> Option<&'static str> {
        use Reason::*;
        Some(match self {
            BadRequest | RequestTimeout | BodyTooLarge | UriTooLong | HeaderTooLarge
            | ExpectationFailed | UnsupportedCoding | NoRoute | MethodNotAllowed | Misdirected
            | OnlyIfCached | RateLimited => "http_request_error",
            QueueFull | Shed => "proxy_internal_response",
            Denied => "http_request_denied",
            Panic => "proxy_internal_error",
            Loop => "proxy_loop_detected",
            NoEndpoint | BreakerOpen => "destination_unavailable",
            FirstByteTimeout | PerTryTimeout => "connection_read_timeout",
            ConnectionLimitReached
            | DnsError
            | DnsTimeout
            | ConnectionRefused
            | DestinationIpUnroutable
            | ConnectionTimeout
            | TlsProtocolError
            | TlsCertificateError
            | TlsAlertReceived
            | ConnectionTerminated
            | ConnectionWriteTimeout
            | HttpResponseTimeout
            | HttpProtocolError
            | HttpResponseHeaderSectionSize
            | HttpUpgradeFailed
            | HttpResponseIncomplete
            | ConnectionReadTimeout => self.as_str(),
            ClientGone => return None,
        })
    }

    /// What the ladder of lesser answers takes it for; `None`: no lesser answer helps.
    pub fn cause(self) -> Option<Cause> {
        use Reason::*;
        Some(match self {
            RateLimited => Cause::Limited,
            QueueFull | Shed | ConnectionLimitReached => Cause::Shed,
            NoEndpoint | BreakerOpen => Cause::Open,
            DnsTimeout
            | ConnectionTimeout
            | ConnectionWriteTimeout
            | FirstByteTimeout
            | PerTryTimeout
            | HttpResponseTimeout => Cause::Timeout,
            Panic
            | DnsError
            | ConnectionRefused
            | DestinationIpUnroutable
            | TlsProtocolError
            | TlsCertificateError
            | TlsAlertReceived
            | ConnectionTerminated
            | HttpProtocolError
            | HttpResponseHeaderSectionSize
            | HttpUpgradeFailed => Cause::Error,
            BadRequest
            | RequestTimeout
            | BodyTooLarge
            | UriTooLong
            | HeaderTooLarge
            | ExpectationFailed
            | UnsupportedCoding
            | ClientGone
            | Denied
            | NoRoute
            | MethodNotAllowed
            | Misdirected
            | OnlyIfCached
            | Loop
            | HttpResponseIncomplete
            | ConnectionReadTimeout => return None,
        })
    }

    /// Whether another try is allowed, budget and body permitting.
    pub fn again(self) -> Again {
        use Reason::*;
        match self {
            DnsError
            | DnsTimeout
            | ConnectionRefused
            | DestinationIpUnroutable
            | ConnectionTimeout
            | TlsProtocolError
            | TlsCertificateError
            | TlsAlertReceived => Again::Always,
            ConnectionTerminated | ConnectionWriteTimeout | FirstByteTimeout | PerTryTimeout => {
                Again::Idempotent
            }
            BadRequest
            | RequestTimeout
            | BodyTooLarge
            | UriTooLong
            | HeaderTooLarge
            | ExpectationFailed
            | UnsupportedCoding
            | ClientGone
            | Denied
            | NoRoute
            | MethodNotAllowed
            | Misdirected
            | OnlyIfCached
            | RateLimited
            | QueueFull
            | Shed
            | Panic
            | Loop
            | NoEndpoint
            | BreakerOpen
            | ConnectionLimitReached
            | HttpResponseTimeout
            | HttpProtocolError
            | HttpResponseHeaderSectionSize
            | HttpUpgradeFailed
            | HttpResponseIncomplete
            | ConnectionReadTimeout => Again::No,
        }
    }
}

/// A request that failed: the reason, and what is known of the cause.
pub struct GatewayError {
    reason: Reason,
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    source: Option<BoxError>,
    retry_after: Option<Duration>,
    fields: Vec<(HeaderName, HeaderValue)>,
    policies: Vec<Arc<str>>,
    unsent: bool,
}

impl GatewayError {
    /// A failure without a cause of its own.
    pub fn new(reason: Reason) -> Self {
        GatewayError { reason, more: None }
    }

    /// A failure with its cause, which is logged and never shown to a client.
    pub fn caused(reason: Reason, source: impl Into<BoxError>) -> Self {
        let mut error = GatewayError::new(reason);
        error.more().source = Some(source.into());
        error
    }

    /// When the client may come back.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.more().retry_after = Some(after);
        self
    }

    /// A field that the answer carries, also a lesser one: such as Allow on a 405 (RFC 9110
    /// 15.5.6), or how much of a limit is left.
    #[must_use]
    pub fn with_field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more().fields.push((name, value));
        self
    }

    /// A policy of the config that refused, by its name there.
    #[must_use]
    pub fn with_policy(mut self, name: Arc<str>) -> Self {
        self.more().policies.push(name);
        self
    }

    /// Marks the request as provably never written to the upstream: any method may try again.
    #[must_use]
    pub fn never_sent(mut self) -> Self {
        self.more().unsent = true;
        self
    }

    /// The one word.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// When the client may come back, if the refuser knows.
    pub fn retry_after(&self) -> Option<Duration> {
        self.more.as_ref().and_then(|m| m.retry_after)
    }

    /// What the answer carries beside its usual fields.
    pub fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        self.more.as_ref().map_or(&[], |m| &m.fields)
    }

    /// The policies that refused, if a policy did.
    pub fn policies(&self) -> &[Arc<str>] {
        self.more.as_ref().map_or(&[], |m| &m.policies)
    }

    /// Whether another try is allowed; a request that was never written may always be sent again.
    pub fn again(&self) -> Again {
        match self.reason.again() {
            Again::Idempotent if self.more.as_ref().is_some_and(|m| m.unsent) => Again::Always,
            other => other,
        }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

impl From<Reason> for GatewayError {
    fn from(reason: Reason) -> Self {
        GatewayError::new(reason)
    }
}

impl fmt::Debug for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayError")
            .field("reason", &self.reason)
            .field(
                "source",
                &self.more.as_ref().and_then(|m| m.source.as_ref()),
            )
            .finish()
    }
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())
    }
}

impl StdError for GatewayError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.more.as_ref()?.source.as_ref()?;
        Some(&**source)
    }
}

#[cfg(test)]
mod tests;
