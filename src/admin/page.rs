//! `/status` as people see it: one page, no script, nothing fetched.
//!
//! Built from the same [`Status`] as the JSON. Everything that is not markup of this file goes
//! through [`Escaped`]; a config name is text here, never HTML. Colours are never the only sign:
//! every state is also a word.

use std::fmt::{self, Display, Write};
use std::time::{Duration, UNIX_EPOCH};

use super::status::{
    Cache, Endpoint, LastReload, Limiter, Listener, Route, Status, Upstream, Worker,
};
use crate::gate::caps::CapStanding;
use crate::switch::Mode;

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn render(status: &Status) -> String {
    let mut out = String::with_capacity(16 * 1024);
    page(&mut out, status).expect("writing to a string cannot fail");
    out
}

fn page(out: &mut String, status: &Status) -> fmt::Result {
    out.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width\">");
    out.push_str("<meta http-equiv=\"refresh\" content=\"10\"><title>Weir</title>");
    write!(out, "<style>{STYLE}</style></head><body>")?;
    head(out, status)?;
    if let Some(reload) = &status.last_reload {
        last_reload(out, reload)?;
    }
    section(out, "Routes", &ROUTES, &status.routes, route)?;
    if !status.limits.is_empty() {
        section(out, "Limits", &LIMITS, &status.limits, limiter)?;
    }

    let caps: Vec<&CapStanding> = caps(status).collect();
    if !caps.is_empty() {
        section(out, "Concurrency", &CAPS, &caps, cap)?;
    }
    out.push_str("<h2>Upstreams</h2>");
    for one in &status.upstreams {
        upstream(out, one)?;
    }
    section(out, "Listeners", &LISTENERS, &status.listeners, listener)?;
    if let Some(stored) = &status.cache {
        section(out, "Cache", &CACHE, std::slice::from_ref(stored), cache)?;
    }
    section(out, "Workers", &WORKERS, &status.workers, worker)?;
    out.push_str("<footer>The same as JSON with <code>Accept: application/json</code>. ");
    out.push_str("See also <a href=\"/metrics\">/metrics</a> and <a href=\"/config\">/config</a>.");
    out.push_str("</footer></body></html>\n");
    Ok(())
}

fn head(out: &mut String, status: &Status) -> fmt::Result {
    write!(
        out,
        "<header><h1>Weir</h1>{}</header>",
        State(&status.state)
    )?;
    out.push_str("<p class=\"facts\">");
    fact(out, "version", &status.version)?;
    fact(out, "revision", &status.revision)?;
    fact(out, "up for", &span(status.uptime_seconds))?;
    fact(out, "generation", &status.generation.to_string())?;
    fact(out, "config", &status.config_hash)?;
    fact(out, "plans held", &status.plans.to_string())?;
    out.push_str("</p>");
    Ok(())
}

fn fact(out: &mut String, name: &str, value: &str) -> fmt::Result {
    if value.is_empty() {
        return Ok(());
    }
    write!(out, "<span>{name} <b>{}</b></span>", Escaped(value))
}

fn last_reload(out: &mut String, reload: &LastReload) -> fmt::Result {
    let at = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(reload.at));
    write!(
        out,
        "<h2>Last reload</h2><div class=\"card said\"><p>{}",
        State(&reload.outcome)
    )?;
    write!(out, " <span class=\"quiet\">{at}</span></p>")?;
    // problems are drawn with carets: their columns must hold
    if reload.message.contains('\n') {
        write!(out, "<pre>{}</pre>", Escaped(reload.message.trim_end()))?;
    } else if !reload.message.is_empty() {
        write!(out, "<p>{}</p>", Escaped(&reload.message))?;
    }
    if !reload.changes.is_empty() {
        out.push_str("<ul>");
        for change in &reload.changes {
            write!(out, "<li>{}</li>", Escaped(change))?;
        }
        out.push_str("</ul>");
    }
    out.push_str("</div>");
    Ok(())
}

/// A column: its heading, and whether it holds numbers.
type Column = (&'static str, bool);

const ROUTES: [Column; 7] = [
    ("route", false),
    ("matches", false),
    ("leads to", false),
    ("in flight", true),
    ("requests", true),
    ("5xx", true),
    ("our errors", true),
];

fn route(out: &mut String, route: &Route) -> fmt::Result {
    text(out, &route.id)?;
    wide(out, &route.matches)?;
    wide(out, &route.target)?;
    number(out, route.in_flight)?;
    number(out, route.requests)?;
    failures(out, route.server_errors)?;
    failures(out, route.errors)
}

const LIMITS: [Column; 8] = [
    ("limit", false),
    ("route", false),
    ("rate", false),
    ("key", false),
    ("keys", true),
    ("cells", true),
    ("allowed", true),
    ("denied", true),
];

fn limiter(out: &mut String, limit: &Limiter) -> fmt::Result {
    text(out, &limit.name)?;
    text(out, &limit.route)?;
    let observes = match limit.mode {
        Mode::Enforce => String::new(),
        Mode::Observe => format!(", observes only: {} would be denied", limit.observed),
    };
    let rate = format!("{}, {} at once{observes}", limit.rate, limit.burst);
    wide(out, &rate)?;
    text(out, &limit.key)?;
    number(out, limit.keys)?;
    number(out, limit.capacity)?;
    number(out, limit.allowed)?;
    failures(out, limit.denied)
}

const CAPS: [Column; 6] = [
    ("cap", false),
    ("of each", false),
    ("limit", true),
    ("in flight", true),
    ("waiting", true),
    ("", false),
];

fn caps(status: &Status) -> impl Iterator<Item = &CapStanding> {
    let routes = status.routes.iter().flat_map(|route| &route.concurrency);
    let upstreams = status.upstreams.iter().flat_map(|up| &up.concurrency);
    routes.chain(upstreams)
}

fn cap(out: &mut String, cap: &&CapStanding) -> fmt::Result {
    text(out, &cap.policy)?;
    text(out, cap.key.as_deref().unwrap_or(""))?;
    number(out, cap.limit)?;
    number(out, cap.in_flight)?;
    number(out, cap.waiting)?;
    let words = [
        (cap.adaptive, "finds itself"),
        (cap.mode == Mode::Observe, "observes"),
    ];
    let words: Vec<&str> = words.iter().filter(|w| w.0).map(|w| w.1).collect();
    text(out, &words.join(", "))
}

const ENDPOINTS: [Column; 5] = [
    ("endpoint", false),
    ("state", false),
    ("weight", true),
    ("priority", true),
    ("", false),
];

fn upstream(out: &mut String, upstream: &Upstream) -> fmt::Result {
    write!(out, "<h3>{}<small>", Escaped(&upstream.name))?;
    write!(
        out,
        "{}, {}",
        Escaped(&upstream.protocol),
        Escaped(&upstream.balance)
    )?;
    let (tries, failed) = (grouped(upstream.attempts), grouped(upstream.failures));
    write!(
        out,
        ", {} in flight, {tries} tries, {failed} failed",
        upstream.in_flight
    )?;
    if let Some(left) = upstream.retry_budget {
        write!(out, ", retry budget {:.0} %", left * 100.0)?;
    }
    if let Some(breaker) = &upstream.breaker {
        write!(out, ", {breaker}")?;
    }
    out.push_str("</small>");
    if upstream.panic {
        out.push_str(" <small class=\"warn\">too few are healthy, all are used</small>");
    }
    out.push_str("</h3>");
    table(out, &ENDPOINTS, &upstream.endpoints, endpoint)
}

fn endpoint(out: &mut String, endpoint: &Endpoint) -> fmt::Result {
    match &endpoint.name {
        Some(name) if *name != endpoint.address => write!(
            out,
            "<td><code>{}</code> <span class=\"quiet\">{}</span></td>",
            Escaped(&endpoint.address),
            Escaped(name)
        )?,
        _ => write!(out, "<td><code>{}</code></td>", Escaped(&endpoint.address))?,
    }
    write!(out, "<td>{}</td>", State(&endpoint.state))?;
    number(out, endpoint.weight)?;
    number(out, endpoint.priority)?;
    let zone = endpoint.zone.iter().map(|z| format!("zone {z}"));
    let breaker = endpoint.breaker.iter().map(ToString::to_string);
    let more: Vec<String> = zone.chain(breaker).collect();
    write!(
        out,
        "<td class=\"wide quiet\">{}</td>",
        Escaped(&more.join(", "))
    )
}

const LISTENERS: [Column; 6] = [
    ("listener", false),
    ("address", false),
    ("speaks", false),
    ("open", true),
    ("so far", true),
    ("certificates", false),
];

fn listener(out: &mut String, listener: &Listener) -> fmt::Result {
    text(out, &listener.name)?;
    write!(out, "<td><code>{}</code></td>", Escaped(&listener.address))?;
    let tls = if listener.tls { "TLS, " } else { "" };
    text(out, &format!("{tls}{}", listener.protocols.join(", ")))?;
    number(out, listener.connections)?;
    number(out, listener.connections_total)?;
    let certificates = listener.certificates.iter().map(|c| {
        let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(c.not_after).unwrap_or(0));
        format!("{} until {}", c.name, httpdate::fmt_http_date(end))
    });
    wide(out, &certificates.collect::<Vec<_>>().join("; "))
}

const CACHE: [Column; 5] = [
    ("objects", true),
    ("bytes", true),
    ("of", true),
    ("hits", true),
    ("requests", true),
];

fn cache(out: &mut String, cache: &Cache) -> fmt::Result {
    number(out, cache.objects)?;
    number(out, cache.bytes)?;
    number(out, cache.capacity)?;
    number(out, cache.hits)?;
    number(out, cache.requests)
}

const WORKERS: [Column; 6] = [
    ("worker", false),
    ("connections", true),
    ("in flight", true),
    ("accepted", true),
    ("generation", true),
    ("sheds", false),
];

fn worker(out: &mut String, worker: &Worker) -> fmt::Result {
    text(out, &worker.index.to_string())?;
    number(out, worker.connections)?;
    number(out, worker.in_flight)?;
    number(out, worker.accepts)?;
    number(out, worker.generation)?;
    let level = worker.shed_level * 100.0;
    let sheds = worker.shed_cause.map(|cause| match level {
        0.0..=100.0 => format!("{level:.0} % of low, for {cause}"),
        100.0..=200.0 => format!("low, {:.0} % of normal, for {cause}", level - 100.0),
        _ => format!("low, normal, {:.0} % of high, for {cause}", level - 200.0),
    });
    text(out, sheds.as_deref().unwrap_or("nothing"))
}

fn section<T>(
    out: &mut String,
    title: &str,
    columns: &[Column],
    rows: &[T],
    row: fn(&mut String, &T) -> fmt::Result,
) -> fmt::Result {
    write!(out, "<h2>{title}</h2>")?;
    table(out, columns, rows, row)
}

fn table<T>(
    out: &mut String,
    columns: &[Column],
    rows: &[T],
    row: fn(&mut String, &T) -> fmt::Result,
) -> fmt::Result {
    out.push_str("<div class=\"card\"><table><tr>");
    for (heading, numbers) in columns {
        let class = if *numbers { " class=\"n\"" } else { "" };
        write!(out, "<th{class}>{heading}</th>")?;
    }
    out.push_str("</tr>");
    for one in rows {
        out.push_str("<tr>");
        row(out, one)?;
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
    Ok(())
}

fn text(out: &mut String, text: &str) -> fmt::Result {
    write!(out, "<td>{}</td>", Escaped(text))
}

fn wide(out: &mut String, text: &str) -> fmt::Result {
    write!(out, "<td class=\"wide\">{}</td>", Escaped(text))
}

fn number(out: &mut String, number: impl Display) -> fmt::Result {
    write!(out, "<td class=\"n\">{}</td>", grouped(number))
}

fn failures(out: &mut String, count: u64) -> fmt::Result {
    let class = if count == 0 { "n quiet" } else { "n warn" };
    write!(out, "<td class=\"{class}\">{}</td>", grouped(count))
}

/// `1 204 311`, with narrow spaces that do not break.
fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + 12);
    for (at, digit) in digits.char_indices() {
        let left = digits.len() - at;
        if left.is_multiple_of(3) && out.ends_with(|c: char| c.is_ascii_digit()) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// `3d 4h`, `4h 5m`, `5m 6s`, `6s`.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// A word of a state, with a dot in its colour.
struct State<'a>(&'a str);

impl Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.0 {
            "ready" | "healthy" | "applied" | "unchanged" => "good",
            "draining" | "ejected" | "needs_restart" => "warn",
            _ => "bad",
        };
        write!(
            f,
            "<span class=\"state {class}\">{}</span>",
            Escaped(self.0)
        )
    }
}

/// Text in HTML, also between quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}
