//! What a reload changes, by name, and what it costs.
//!
//! Sections are compared as written, not by where they stand, and together with the files they
//! name: a renewed certificate is a change of its listener. Secrets are compared and never shown,
//! nor is what the environment filled in.
//! The result goes into the log line of a reload, into `/status` and to whoever compares two files.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Config, ListenerConfig, Loaded, RouteConfig};
use crate::files::{FileRef, Files};
use crate::filled::Filled;
use crate::message::fixed::FixedConfig;
use crate::middleware::cache::CacheConfig;
use crate::middleware::fallback::FallbackConfig;
use crate::middleware::headers::HeadersConfig;
use crate::middleware::rate_limit::LimitConfig;
use crate::upstream::config::UpstreamConfig;

/// Everything that differs between two configs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// By listener name.
    pub listeners: Changes,
    /// By upstream name.
    pub upstreams: Changes,
    /// By route id.
    pub routes: Changes,
    /// Routes that both have stand in another order, which decides between equals.
    pub reordered: bool,
    /// Keys of `server`, `admin`, `log`, `defaults` and `cache`, such as `"server.drain"`.
    pub global: Vec<String>,
}

/// What differs among the sections of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Names that only the new config has.
    pub added: Vec<String>,
    /// Names that only the old config has.
    pub removed: Vec<String>,
    /// Names that both have, with different content.
    pub changed: Vec<Change>,
}

/// One section that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// The keys that differ.
    pub keys: Vec<String>,
    /// What state is lost by it, in words; empty: none.
    pub resets: Vec<String>,
}

/// Compares the config in force with the one that is to follow it.
pub fn diff(old: &Loaded, new: &Loaded) -> Diff {
    let filled = &old.sources.filled;
    let by_id = (by_id(&old.config), by_id(&new.config));
    let limits = limits(&new.config.routes);
    Diff {
        listeners: changes(&listeners(old), &listeners(new), |name, keys| {
            let pair = (
                old.config.listeners.get(name),
                new.config.listeners.get(name),
            );
            pair.0
                .zip(pair.1)
                .map_or(Vec::new(), |(a, b)| listener_resets(a, b, keys, filled))
        }),
        upstreams: changes(&upstreams(old), &upstreams(new), |name, keys| {
            let pair = (
                old.config.upstreams.get(name),
                new.config.upstreams.get(name),
            );
            pair.0
                .zip(pair.1)
                .map_or(Vec::new(), |(a, b)| upstream_resets(a, b, keys, filled))
        }),
        routes: changes(&routes(old), &routes(new), |name, keys| {
            let pair = (by_id.0.get(name), by_id.1.get(name));
            pair.0.zip(pair.1).map_or(Vec::new(), |(a, b)| {
                let limits = limit_resets(a, &limits);
                limits.into_iter().chain(route_resets(a, b, keys)).collect()
            })
        }),
        reordered: reordered(&old.config, &new.config),
        global: differing(&global(old), &global(new)),
    }
}

impl Diff {
    /// A line for each kind of thing that differs; none for no change.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (kind, changes) in [
            ("listeners", &self.listeners),
            ("upstreams", &self.upstreams),
            ("routes", &self.routes),
        ] {
            if *changes != Changes::default() {
                lines.push(format!("{kind}: {changes}"));
            }
        }
        if self.reordered {
            lines.push("routes in another order".to_owned());
        }
        if !self.global.is_empty() {
            lines.push(self.global.join(", "));
        }
        lines
    }

    /// Whether nothing differs that the gateway acts on.
    pub fn is_empty(&self) -> bool {
        *self == Diff::default()
    }

    /// The keys that differ and are read only at the start.
    pub fn needs_restart(&self) -> Vec<String> {
        let fixed = |key: &&String| {
            *key == "server.workers" || *key == "log.format" || key.starts_with("admin.")
        };
        self.global.iter().filter(fixed).cloned().collect()
    }
}

impl Diff {
    /// For people, a line for each section: what differs, and below it what state is lost.
    pub fn told(&self) -> String {
        let mut out = String::new();
        for (kind, changes) in [
            ("listener", &self.listeners),
            ("upstream", &self.upstreams),
            ("route", &self.routes),
        ] {
            changes.tell(kind, &mut out);
        }
        if self.reordered {
            out += "routes stand in another order, which decides between equals\n";
        }
        for key in &self.global {
            out += &format!("{key} differs\n");
        }
        if self.global.iter().any(|key| key == "cache.memory") {
            out += "    what is stored is let go\n";
        }
        for key in self.needs_restart() {
            out += &format!("  {key} needs a restart: a reload would be refused\n");
        }
        if out.is_empty() {
            out += "no change: a reload would keep everything\n";
        }
        out
    }
}

impl Changes {
    fn tell(&self, kind: &str, out: &mut String) {
        let new = self.added.iter().map(|name| format!("+ {kind} {name}\n"));
        let gone = self.removed.iter().map(|name| format!("- {kind} {name}\n"));
        out.extend(new.chain(gone));
        for change in &self.changed {
            *out += &format!("~ {kind} {}: {}\n", change.name, change.keys.join(", "));
            out.extend(change.resets.iter().map(|reset| format!("    {reset}\n")));
            if change.resets.is_empty() {
                *out += "    no state is lost\n";
            }
        }
    }
}

impl fmt::Display for Diff {
    /// One line: `upstreams: +b -c ~a (endpoints; ...); routes: +x`, or `no change`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        if lines.is_empty() {
            return f.write_str("no change");
        }
        f.write_str(&lines.join("; "))
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added = self.added.iter().map(|name| format!("+{name}"));
        let removed = self.removed.iter().map(|name| format!("-{name}"));
        let changed = self.changed.iter().map(|change| format!("~{change}"));
        let words: Vec<String> = added.chain(removed).chain(changed).collect();
        f.write_str(&words.join(" "))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.name, self.keys.join(", "))?;
        for reset in &self.resets {
            write!(f, "; {reset}")?;
        }
        f.write_str(")")
    }
}

/// A section as its keys and their values.
type Section = Map<String, Value>;

fn section(value: &impl Serialize) -> Section {
    match serde_json::to_value(value) {
        Ok(Value::Object(keys)) => keys,
        _ => Section::new(),
    }
}

/// Puts what the named files hold beside the key that names them, so that it is compared too.
fn with_files<'a>(
    section: &mut Section,
    key: &str,
    names: impl Iterator<Item = &'a FileRef>,
    files: &Files,
) {
    let names: BTreeSet<&str> = names.map(|name| name.value.as_str()).collect();
    let named = files
        .iter()
        .filter(|(path, _)| names.contains(path.as_str()));
    let contents: Vec<u64> = named.map(|(_, content)| hash(content)).collect();
    if !contents.is_empty() {
        let written = section.remove(key).unwrap_or_default();
        section.insert(key.to_owned(), serde_json::json!([written, contents]));
    }
}

fn hash(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

fn listeners(loaded: &Loaded) -> BTreeMap<&str, Section> {
    let named = loaded.config.listeners.iter().map(|(name, listener)| {
        let mut keys = section(listener);
        let files = listener.tls.iter().flat_map(|tls| tls.files());
        with_files(&mut keys, "tls", files, &loaded.files);
        (name.as_str(), keys)
    });
    named.collect()
}

fn upstreams(loaded: &Loaded) -> BTreeMap<&str, Section> {
    let named = loaded.config.upstreams.iter().map(|(name, upstream)| {
        let mut keys = section(upstream);
        let files = upstream.tls.iter().flat_map(|tls| tls.files());
        with_files(&mut keys, "tls", files, &loaded.files);
        (name.as_str(), keys)
    });
    named.collect()
}

fn routes(loaded: &Loaded) -> BTreeMap<&str, Section> {
    let named = loaded.config.routes.iter().map(|route| {
        let mut keys = section(route);
        let headers = route.headers.iter().flat_map(HeadersConfig::files);
        with_files(&mut keys, "headers", headers, &loaded.files);
        let fixed = route.respond.iter().flat_map(FixedConfig::files);
        with_files(&mut keys, "respond", fixed, &loaded.files);
        let steps = route.steps().flat_map(FallbackConfig::file);
        with_files(&mut keys, "fallback", steps, &loaded.files);
        (route.id.as_str(), keys)
    });
    named.collect()
}

/// The sections that stand once, key by key.
fn global(loaded: &Loaded) -> Section {
    let config = &loaded.config;
    let mut defaults = section(&config.defaults);
    let headers = config
        .defaults
        .headers
        .iter()
        .flat_map(HeadersConfig::files);
    with_files(&mut defaults, "headers", headers, &loaded.files);
    let sections = [
        ("server", section(&config.server)),
        ("admin", section(&config.admin)),
        ("log", section(&config.log)),
        ("defaults", defaults),
        ("cache", section(&config.cache)),
    ];
    let keys = sections.into_iter().flat_map(|(name, keys)| {
        let full = move |(key, value)| (format!("{name}.{key}"), value);
        keys.into_iter().map(full)
    });
    keys.collect()
}

fn differing(old: &Section, new: &Section) -> Vec<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = keys
        .into_iter()
        .filter(|key| old.get(*key) != new.get(*key));
    differ.cloned().collect()
}

fn changes(
    old: &BTreeMap<&str, Section>,
    new: &BTreeMap<&str, Section>,
    resets: impl Fn(&str, &[String]) -> Vec<String>,
) -> Changes {
    let only = |a: &BTreeMap<&str, Section>, b: &BTreeMap<&str, Section>| {
        let names = a.keys().filter(|name| !b.contains_key(*name));
        names.map(|name| (*name).to_owned()).collect()
    };
    let both = old
        .iter()
        .filter_map(|(name, a)| Some((name, a, new.get(name)?)));
    let changed = both.filter_map(|(name, a, b)| {
        let keys = differing(a, b);
        (!keys.is_empty()).then(|| Change {
            resets: resets(name, &keys),
            name: (*name).to_owned(),
            keys,
        })
    });
    Changes {
        added: only(new, old),
        removed: only(old, new),
        changed: changed.collect(),
    }
}

fn listener_resets(
    old: &ListenerConfig,
    new: &ListenerConfig,
    keys: &[String],
    filled: &Filled,
) -> Vec<String> {
    let mut resets = Vec::new();
    if old.address != new.address {
        let address = filled.shown(&old.address);
        resets.push(format!("connections to {address} drain"));
    } else if keys.iter().any(|key| key == "tls" || key == "protocols") {
        let asks = |listener: &ListenerConfig| {
            let tls = listener.tls.as_ref();
            tls.is_some_and(|tls| tls.client_auth.is_some())
        };
        resets.push("open connections keep what they agreed on".to_owned());
        if asks(old) || asks(new) {
            resets.push("where other clients may come, they drain".to_owned());
        }
    }
    resets
}

fn upstream_resets(
    old: &UpstreamConfig,
    new: &UpstreamConfig,
    keys: &[String],
    filled: &Filled,
) -> Vec<String> {
    let mut resets = Vec::new();
    if keys.iter().any(|key| key == "tls" || key == "protocol") {
        resets.push("pooled connections are replaced".to_owned());
    }
    let finds_itself = |upstream: &UpstreamConfig| {
        let cap = upstream.concurrency.as_ref();
        cap.is_some_and(|cap| cap.adaptive)
    };
    if finds_itself(old) && !finds_itself(new) {
        resets.push("the cap it has found is forgotten".to_owned());
    }

    for (key, had, has) in [
        ("breaker", &old.breaker, &new.breaker),
        (
            "endpoint_breaker",
            &old.endpoint_breaker,
            &new.endpoint_breaker,
        ),
    ] {
        if had.is_some() && has.is_none() {
            resets.push(format!("what {key} knows is forgotten"));
        }
    }
    let kept: BTreeSet<&str> = new.endpoints.iter().map(|e| e.address.as_str()).collect();
    let gone = old.endpoints.iter().map(|e| &e.address);
    for address in gone.filter(|address| !kept.contains(address.as_str())) {
        let address = filled.shown(address);
        resets.push(format!("connections to {address} drain"));
    }
    resets
}

/// Limits of a route that do not go on under their name among the `new` ones: what clients have
/// used is forgotten.
fn limit_resets(old: &RouteConfig, new: &BTreeMap<String, &LimitConfig>) -> Vec<String> {
    let lost = limits([old]).into_iter().filter(|(name, limit)| {
        let goes_on = |new: &&LimitConfig| new.counts_as(limit);
        new.get(name).is_some_and(|new| !goes_on(new))
    });
    lost.map(|(name, _)| format!("limit {name} begins anew"))
        .collect()
}

fn by_id(config: &Config) -> BTreeMap<&str, &RouteConfig> {
    let routes = config.routes.iter();
    routes.map(|route| (route.id.as_str(), route)).collect()
}

fn limits<'c>(
    routes: impl IntoIterator<Item = &'c RouteConfig>,
) -> BTreeMap<String, &'c LimitConfig> {
    let of = |route: &'c RouteConfig| {
        let limits = route.rate_limit.0.iter().enumerate();
        limits.map(|(position, limit)| (limit.name(&route.id, position), limit))
    };
    routes.into_iter().flat_map(of).collect()
}

fn route_resets(old: &RouteConfig, new: &RouteConfig, keys: &[String]) -> Vec<String> {
    fn cache(route: &RouteConfig) -> Option<&CacheConfig> {
        route.cache.as_ref().and_then(|cache| cache.value.on())
    }
    let mut resets = Vec::new();
    if keys.iter().any(|key| key == "cache")
        && let Some(before) = cache(old)
    {
        match cache(new) {
            None => resets.push("what is stored is not used any more".to_owned()),
            Some(now) if now.key != before.key || now.query != before.query => {
                resets.push("what is stored stands under other keys and is not found".to_owned());
            }
            Some(_) => {}
        }
    }
    resets
}

/// Whether the routes that both have come in another order.
fn reordered(old: &Config, new: &Config) -> bool {
    let ids = |config: &Config| -> Vec<String> {
        config
            .routes
            .iter()
            .map(|route| route.id.value.clone())
            .collect()
    };
    let (mut old, mut new) = (ids(old), ids(new));
    let (in_old, in_new): (BTreeSet<_>, BTreeSet<_>) =
        (old.iter().cloned().collect(), new.iter().cloned().collect());
    old.retain(|id| in_new.contains(id));
    new.retain(|id| in_old.contains(id));
    old != new
}

#[cfg(test)]
mod tests;
