//! Active health checks, on the control thread.
//!
//! Each endpoint is asked at every interval by a GET on a connection of its own, opened the way
//! requests are. 2xx passes. Nothing of the body is read, the headers are bounded, and the
//! timeout covers all of it, so an endpoint that answers slowly, endlessly or with garbage costs
//! nothing but its own place. `rise` and `fall` in a row turn an endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Method, StatusCode, Uri};

use super::Upstream;
use super::balance::{self, Random};
use super::config::HealthConfig;
use super::connect::Connector;
use super::endpoint::Endpoint;
use super::resolve::Live;
use super::wire::{self, Sender};
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::Body;
use crate::telemetry::handles::UpstreamMetrics;

/// The checks of one upstream.
pub(super) struct Checks {
    upstream: Arc<str>,
    config: HealthConfig,
    connector: Connector,
    live: Arc<Live>,
    metrics: Arc<UpstreamMetrics>,
}

/// Checks of one endpoint in a row that say the opposite of how it stands.
#[derive(Debug, Default, Clone, Copy)]
struct Run(u32);

impl Run {
    /// Counts a check; `Some` when the endpoint turns.
    fn count(&mut self, passed: bool, unhealthy: bool, config: &HealthConfig) -> Option<bool> {
        if passed != unhealthy {
            self.0 = 0;
            return None;
        }
        self.0 += 1;
        let needed = if passed {
            config.rise.value
        } else {
            config.fall.value
        };
        (self.0 >= needed).then(|| {
            self.0 = 0;
            !passed
        })
    }
}

impl Checks {
    /// Of this upstream, if it has any.
    pub(super) fn of(upstream: &Upstream) -> Option<Self> {
        Some(Checks {
            upstream: Arc::clone(&upstream.name),
            config: upstream.config.health.clone()?,
            connector: upstream.connector.clone(),
            live: Arc::clone(&upstream.live),
            metrics: Arc::clone(&upstream.metrics),
        })
    }

    /// Checks for ever.
    pub(super) async fn run(self) {
        let interval = self.config.interval.value.0;
        let mut random = Random::new(balance::hash(self.upstream.as_bytes()));
        let mut runs: HashMap<SocketAddr, Run> = HashMap::new();
        loop {
            let set = self.live.set();
            runs.retain(|address, _| set.endpoints.iter().any(|e| e.address == *address));
            for (endpoint, passed) in self.round(&set.endpoints).await {
                let run = runs.entry(endpoint.address).or_default();
                self.apply(&endpoint, run, passed);
            }
            tokio::time::sleep(jittered(interval, &mut random)).await;
        }
    }

    /// One check of each endpoint, all at the same time, a bounded number of them.
    async fn round(&self, endpoints: &[Arc<Endpoint>]) -> Vec<(Arc<Endpoint>, bool)> {
        let mut results = Vec::with_capacity(endpoints.len());
        for some in endpoints.chunks(AT_ONCE) {
            let mut tasks = tokio::task::JoinSet::new();
            for endpoint in some {
                let check = check(
                    self.connector.clone(),
                    self.config.clone(),
                    Arc::clone(endpoint),
                    Arc::clone(&self.metrics),
                );
                tasks.spawn(check);
            }
            results.extend(tasks.join_all().await);
        }
        results
    }

    fn apply(&self, endpoint: &Endpoint, run: &mut Run, passed: bool) {
        let standing = &endpoint.standing;
        let Some(unhealthy) = run.count(passed, standing.is_unhealthy(), &self.config) else {
            return;
        };
        if standing.set_unhealthy(unhealthy, clock::now()) {
            self.live.changed();
            tracing::warn!(
                upstream = %self.upstream,
                endpoint = %endpoint.address,
                healthy = !unhealthy,
                "health of an endpoint changed"
            );
        }
    }
}

/// Checks of one upstream that run at once.
const AT_ONCE: usize = 64;

/// Plus or minus a tenth, so that gateways do not check in step.
fn jittered(interval: Duration, random: &mut Random) -> Duration {
    interval.mul_f64(0.9 + random.unit() / 5.0)
}

async fn check(
    connector: Connector,
    config: HealthConfig,
    endpoint: Arc<Endpoint>,
    metrics: Arc<UpstreamMetrics>,
) -> (Arc<Endpoint>, bool) {
    let cells = metrics.control();
    let asked = ask(&connector, &config, &endpoint, &metrics);
    let passed = match tokio::time::timeout(config.timeout.value.0, asked).await {
        Ok(Ok(status)) if status.is_success() => {
            cells.checks_pass.inc();
            true
        }
        Ok(_) => {
            cells.checks_fail.inc();
            false
        }
        Err(_) => {
            cells.checks_timeout.inc();
            false
        }
    };
    (endpoint, passed)
}

async fn ask(
    connector: &Connector,
    config: &HealthConfig,
    endpoint: &Endpoint,
    metrics: &UpstreamMetrics,
) -> Result<StatusCode, GatewayError> {
    let (io, h2) = connector.connect(endpoint, metrics.control()).await?;
    let (sender, task) = wire::speak(io, h2, None).await?;
    let _closed = CloseOnDrop(task);
    let request = request(config, endpoint, h2)?;
    let sent = match sender {
        Sender::H1(mut sender) => sender.send(request, true).await.map_err(|e| e.into_error()),
        Sender::H2(mut sender, _) => sender.send_request(request).await,
    };
    let response = sent.map_err(|e| GatewayError::caused(Reason::ConnectionTerminated, e))?;
    Ok(response.status())
}

struct CloseOnDrop(tokio::task::AbortHandle);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn request(
    config: &HealthConfig,
    endpoint: &Endpoint,
    h2: bool,
) -> Result<http::Request<Body>, GatewayError> {
    let host = config
        .host
        .as_ref()
        .map_or(&*endpoint.written, |h| &h.value);
    let invalid = |e: http::Error| GatewayError::caused(Reason::BadRequest, e);
    let host = HeaderValue::try_from(host).map_err(|e| invalid(e.into()))?;
    let path: Uri = config
        .path
        .value
        .parse()
        .map_err(|e: http::uri::InvalidUri| invalid(e.into()))?;
    let mut request = http::Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = path;
    request.headers_mut().insert(HOST, host);
    super::framing::prepare(&mut request, h2, endpoint)?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rise_and_fall_count_only_in_a_row() {
        let config: HealthConfig = toml::from_str("path = \"/\"").expect("a section");
        let mut run = Run::default();
        let mut unhealthy = false;
        let mut turns = Vec::new();
        let checks = [
            false, false, true, false, false, false, true, false, true, true,
        ];
        for (at, passed) in checks.into_iter().enumerate() {
            if let Some(turned) = run.count(passed, unhealthy, &config) {
                unhealthy = turned;
                turns.push((at, turned));
            }
        }
        assert_eq!(turns, [(5, true), (9, false)]);
    }
}
