//! What the admin address answers.
//!
//! One table of paths; each with the one method that it takes (HEAD counts as GET). Answers are
//! whole and small, never cached, and say nothing to a browser that it could run. A POST that a
//! foreign web page makes a browser send is refused.

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::origin::{foreign, names_this_machine};
use super::{Context, ReloadOutcome, Scope, page};
use crate::middleware::cache::purge::Wanted;
use crate::plan::explain::Asked;
use crate::telemetry::expose::openmetrics;
use crate::upstream::breaker::State;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The page styles itself and needs nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

type Answer = Response<Full<Bytes>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Metrics,
    Healthz,
    Readyz,
    Status,
    Config,
    Explain,
    Reload,
    Breakers,
    Purge,
}

const ENDPOINTS: &[(&str, Endpoint, Scope, &str)] = &[
    (
        "/metrics",
        Endpoint::Metrics,
        Scope::ScrapeOnly,
        "Prometheus text, or OpenMetrics by Accept",
    ),
    (
        "/healthz",
        Endpoint::Healthz,
        Scope::ScrapeOnly,
        "200 while the process lives",
    ),
    (
        "/readyz",
        Endpoint::Readyz,
        Scope::ScrapeOnly,
        "200 while it takes traffic, else 503 and why",
    ),
    (
        "/status",
        Endpoint::Status,
        Scope::Full,
        "a page for people, or JSON by Accept",
    ),
    (
        "/config",
        Endpoint::Config,
        Scope::Full,
        "the config in force as JSON",
    ),
    (
        "/explain",
        Endpoint::Explain,
        Scope::Full,
        "what would become of ?request=GET+https://host/path&header=name:+value&client=1.2.3.4",
    ),
    (
        "/reload",
        Endpoint::Reload,
        Scope::Full,
        "reads the config again (POST)",
    ),
    (
        "/breakers/",
        Endpoint::Breakers,
        Scope::Full,
        "NAME/open, NAME/close: holds the breaker of an upstream so; NAME/auto: lets it go (POST)",
    ),
    (
        "/cache/purge",
        Endpoint::Purge,
        Scope::Full,
        "?url=, ?prefix=, ?tag= or ?all: serves nothing stored of it any more (POST)",
    ),
];

impl Endpoint {
    fn method(self) -> Method {
        match self {
            Endpoint::Reload | Endpoint::Breakers | Endpoint::Purge => Method::POST,
            Endpoint::Metrics
            | Endpoint::Healthz
            | Endpoint::Readyz
            | Endpoint::Status
            | Endpoint::Config
            | Endpoint::Explain => Method::GET,
        }
    }
}

/// An address, as far as its answers depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) scope: Scope,
    /// Bound to loopback: only this machine's names lead here.
    pub(super) loopback: bool,
}

/// The answer to a request. Its body is never read.
pub(super) async fn answer<B>(request: Request<B>, place: Place, context: &dyn Context) -> Answer {
    let (head, _) = request.into_parts();
    let Place { scope, loopback } = place;
    if loopback && !names_this_machine(&head.headers) {
        let why = "this address goes by no such name\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, why.into());
    }
    let Some(endpoint) = find(head.uri.path(), scope) else {
        return plain(StatusCode::NOT_FOUND, listing(scope));
    };
    let method = if head.method == Method::HEAD {
        &Method::GET
    } else {
        &head.method
    };
    if *method != endpoint.method() {
        return wrong_method(endpoint);
    }
    if *method == Method::POST && foreign(&head.headers) {
        return plain(
            StatusCode::FORBIDDEN,
            "a web page of another site may not do this\n".into(),
        );
    }
    match endpoint {
        Endpoint::Metrics => metrics(&head.headers, context),
        Endpoint::Healthz => plain(StatusCode::OK, "ok\n".into()),
        Endpoint::Readyz => ready(context),
        Endpoint::Status => status(&head.headers, context),
        Endpoint::Config => pretty(StatusCode::OK, &context.config_json()),
        Endpoint::Explain => explain(&head.headers, head.uri.query().unwrap_or(""), context),
        Endpoint::Reload => reload(context).await,
        Endpoint::Breakers => breaker(head.uri.path(), context),
        Endpoint::Purge => purge(head.uri.query().unwrap_or(""), context),
    }
}

fn served(
    scope: Scope,
) -> impl Iterator<Item = &'static (&'static str, Endpoint, Scope, &'static str)> {
    ENDPOINTS
        .iter()
        .filter(move |e| scope == Scope::Full || e.2 == Scope::ScrapeOnly)
}

fn find(path: &str, scope: Scope) -> Option<Endpoint> {
    let leads = |to: &str| to == path || (to.ends_with('/') && path.starts_with(to));
    served(scope).find(|e| leads(e.0)).map(|e| e.1)
}

fn listing(scope: Scope) -> String {
    let lines = served(scope).map(|(path, _, _, what)| format!("{path:<10} {what}\n"));
    format!(
        "There is nothing here. There is:\n\n{}",
        lines.collect::<String>()
    )
}

fn wrong_method(endpoint: Endpoint) -> Answer {
    let allow = match endpoint.method() {
        Method::POST => "POST",
        _ => "GET, HEAD",
    };
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, format!("use {allow}\n"));
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

fn metrics(headers: &HeaderMap, context: &dyn Context) -> Answer {
    let asked = quality(headers, "application/openmetrics-text");
    let openmetrics = asked > 0.0 && asked >= quality(headers, "text/plain");
    let kind = if openmetrics {
        openmetrics::CONTENT_TYPE
    } else {
        PROMETHEUS
    };
    respond(StatusCode::OK, kind, context.metrics_text(openmetrics))
}

fn ready(context: &dyn Context) -> Answer {
    match context.ready() {
        Ok(()) => plain(StatusCode::OK, "ready\n".into()),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn status(headers: &HeaderMap, context: &dyn Context) -> Answer {
    let status = context.status();
    let json = quality(headers, JSON);
    if json > 0.0 && json >= quality(headers, "text/html") {
        return pretty(StatusCode::OK, &status);
    }
    respond(StatusCode::OK, HTML, page::render(&status).into_bytes())
}

/// Text for people, JSON by Accept.
fn explain(headers: &HeaderMap, query: &str, context: &dyn Context) -> Answer {
    let asked = match asked(query) {
        Ok(asked) => asked,
        Err(why) => return plain(StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    let explanation = context.explain(&asked);
    let json = quality(headers, JSON);
    if json > 0.0 && json >= quality(headers, "text/plain") {
        return pretty(StatusCode::OK, &explanation);
    }
    plain(StatusCode::OK, explanation.to_string())
}

/// The request that a query names.
fn asked(query: &str) -> Result<Asked, String> {
    let (mut request, mut fields, mut client) = (None, Vec::new(), None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "request" => request = Some(value.into_owned()),
            "header" => fields.push(value.into_owned()),
            "client" => {
                let address = value.parse();
                client = Some(address.map_err(|_| format!("\"{value}\" is no address"))?);
            }
            _ => return Err(format!("\"{key}\" is none of request, header, client")),
        }
    }
    let request = request.ok_or("ask with ?request=GET+https://host/path")?;
    Asked::parse(&request, &fields, client)
}

/// What is to go; nothing is purged unless all of it can be read.
fn purge(query: &str, context: &dyn Context) -> Answer {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let wanted: Result<Vec<_>, _> = pairs
        .map(|(key, value)| Wanted::read(&key, &value))
        .collect();
    let refused = |status, why: &str| pretty(status, &json!({ "error": why }));
    match wanted {
        Err(why) => refused(StatusCode::BAD_REQUEST, &why),
        Ok(all) if all.is_empty() => refused(
            StatusCode::BAD_REQUEST,
            "say what: ?url=, ?prefix=, ?tag= or ?all",
        ),
        Ok(all) => {
            if !all.iter().all(|wanted| context.purge(wanted)) {
                return refused(StatusCode::NOT_FOUND, "no route has a cache");
            }
            let said: Vec<String> = all.iter().map(ToString::to_string).collect();
            pretty(StatusCode::OK, &json!({ "purged": said }))
        }
    }
}

async fn reload(context: &dyn Context) -> Answer {
    if context.draining() {
        let refusal = json!({ "outcome": "refused", "message": "draining", "changes": [] });
        return pretty(StatusCode::CONFLICT, &refusal);
    }
    let report = context.reload().await;
    let status = match report.outcome {
        ReloadOutcome::Applied | ReloadOutcome::Unchanged => StatusCode::OK,
        ReloadOutcome::Rejected | ReloadOutcome::NeedsRestart => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let said = json!({
        "outcome": report.word(),
        "message": report.message,
        "changes": report.changes,
    });
    pretty(status, &said)
}

/// `/breakers/NAME/ORDER`.
fn breaker(path: &str, context: &dyn Context) -> Answer {
    let rest = path.strip_prefix("/breakers/").unwrap_or_default();
    let (name, order) = rest.split_once('/').unwrap_or((rest, ""));
    let to = match order {
        "open" => Some(State::Open),
        "close" => Some(State::Closed),
        "auto" => None,
        _ => {
            let usage = "POST /breakers/NAME/open, /close or /auto\n";
            return plain(StatusCode::NOT_FOUND, usage.into());
        }
    };
    match context.force_breaker(name, to) {
        Some(status) => pretty(StatusCode::OK, &status),
        None => {
            let why = "there is no upstream of this name with a breaker\n";
            plain(StatusCode::NOT_FOUND, why.into())
        }
    }
}

/// The weight that Accept gives a media type by its name (RFC 9110 12.5.1); 0 if it does not.
/// Wildcards do not count: who names nothing gets the default.
fn quality(headers: &HeaderMap, media: &str) -> f32 {
    let fields = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let weight = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        if !parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(media))
        {
            return None;
        }
        let q = parts.find_map(|p| p.strip_prefix("q=").or(p.strip_prefix("Q=")));
        Some(q.map_or(1.0, |q| q.parse().unwrap_or(0.0)))
    };
    fields
        .flat_map(|f| f.split(','))
        .filter_map(weight)
        .fold(0.0, f32::max)
}

fn plain(status: StatusCode, text: String) -> Answer {
    respond(status, TEXT, text.into_bytes())
}

fn pretty(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            respond(status, JSON, text)
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}
