//! Every metric once: name, kind, help, labels.
//!
//! A metric literal stands here and nowhere else: `expose` refers to these constants, the golden
//! file of the tests and the dashboard are made from [`ALL`]. Names follow CONVENTIONS 1: prefix
//! `weir_`, base units, `_total` on counters alone. A metric is listed when the feature that
//! counts it exists, not before. Labels are config names, worker numbers or words of closed
//! lists; nothing a client sends may ever become one.

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts in buckets, with a sum.
    Histogram,
}

impl Kind {
    /// The word of the text format's `# TYPE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric as scrapers see it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The full name, with unit and `_total`.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// The label names, in the order in which values are given.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($id:ident $kind:ident $name:literal [$($label:literal)*] $help:literal)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                help: $help,
                labels: &[$($label),*],
            };
        )*

        /// All metrics, in the order of CONVENTIONS 1.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    REQUESTS Counter "weir_requests_total" ["route" "code"]
        "Answers begun, by status; 499 is a client that left before headers."
    REQUESTS_BY_METHOD Counter "weir_requests_by_method_total" ["route" "method"]
        "Requests by method; unknown methods are _OTHER."
    REQUEST_DURATION Histogram "weir_request_duration_seconds" ["route"]
        "From headers read to the last body byte sent."
    REQUEST_FIRST_BYTE Histogram "weir_request_first_byte_seconds" ["route"]
        "From headers read to response headers ready."
    REQUEST_OVERHEAD Histogram "weir_request_overhead_seconds" ["route"]
        "First byte less the time spent waiting for upstreams."
    REQUESTS_IN_FLIGHT Gauge "weir_requests_in_flight" ["route"]
        "Requests being served."
    REQUEST_BODY_BYTES Counter "weir_request_body_bytes_total" ["route"]
        "Bytes of request bodies and into tunnels, as the client sent them."
    RESPONSE_BODY_BYTES Counter "weir_response_body_bytes_total" ["route"]
        "Bytes of response bodies and out of tunnels, as the client gets them."
    REQUEST_ERRORS Counter "weir_request_errors_total" ["route" "side" "reason"]
        "Requests that Weir itself failed or refused."
    OBSERVED Counter "weir_observed_total" ["route" "reason"]
        "What policies in observe mode would have refused."
    DEGRADED Counter "weir_degraded_total" ["route" "reason" "step"]
        "Lesser answers, by what they stand in for and where they came from."
    QUEUE_WAITING Gauge "weir_queue_waiting" ["route"]
        "Requests waiting for a place under the route's cap."
    QUEUE_WAIT Histogram "weir_queue_wait_seconds" ["route"]
        "Time requests waited for a place, whether they got it or not."
    CONCURRENCY_LIMIT Gauge "weir_concurrency_limit" ["upstream"]
        "The cap in force on requests at an upstream, also where it finds itself."
    SHED Counter "weir_shed_total" ["priority" "cause"]
        "Requests refused because the process was short of something."
    PRESSURE Gauge "weir_pressure_ratio" ["cause"]
        "How much of it is used, 0 to 1; for lag, how late the latest worker is against server.shed."

    UPSTREAM_ATTEMPTS Counter "weir_upstream_attempts_total" ["upstream" "result"]
        "Tries, by how they ended."
    UPSTREAM_ATTEMPT_DURATION Histogram "weir_upstream_attempt_duration_seconds" ["upstream"]
        "From a try begun to its response headers."
    UPSTREAM_CONNECT Histogram "weir_upstream_connect_seconds" ["upstream"]
        "Time to open a TCP connection."
    UPSTREAM_TLS_HANDSHAKE Histogram "weir_upstream_tls_handshake_seconds" ["upstream"]
        "Time of TLS handshakes with upstreams."
    UPSTREAM_IN_FLIGHT Gauge "weir_upstream_in_flight" ["upstream"]
        "Tries being made."
    UPSTREAM_ENDPOINTS Gauge "weir_upstream_endpoints" ["upstream" "state"]
        "Endpoints by state; draining ones are gone from the config and finish what they have."
    UPSTREAM_EJECTIONS Counter "weir_upstream_ejections_total" ["upstream"]
        "Endpoints taken out for failing."
    UPSTREAM_PANIC Gauge "weir_upstream_panic" ["upstream"]
        "1 while too few endpoints are healthy and all are used."
    UPSTREAM_HEALTH_CHECKS Counter "weir_upstream_health_checks_total" ["upstream" "result"]
        "Active health checks, by result."
    POOL_CONNECTIONS Gauge "weir_pool_connections" ["upstream" "state"]
        "Connections to the upstream, by state."
    POOL_CHECKOUTS Counter "weir_pool_checkouts_total" ["upstream" "source"]
        "Connections given to tries, by where they came from."
    POOL_WAITING Gauge "weir_pool_waiting" ["upstream"]
        "Tries waiting for a connection."
    POOL_WAIT Histogram "weir_pool_wait_seconds" ["upstream"]
        "Time tries waited for a connection."
    POOL_CLOSES Counter "weir_pool_closes_total" ["upstream" "reason"]
        "Connections to the upstream closed, by reason."
    RETRIES Counter "weir_retries_total" ["upstream" "outcome"]
        "Retries, by outcome."
    RETRIES_DENIED Counter "weir_retries_denied_total" ["upstream" "reason"]
        "Failed tries that were not made again, by reason."
    RETRY_BUDGET Gauge "weir_retry_budget_ratio" ["upstream"]
        "Share of the retry budget that is left."
    BREAKER_STATE Gauge "weir_breaker_state" ["upstream" "state"]
        "1 for the state of the upstream's breaker."
    BREAKER_TRANSITIONS Counter "weir_breaker_transitions_total" ["upstream" "to"]
        "Changes of state, of the upstream's breaker and of its endpoints'."
    BREAKER_REFUSALS Counter "weir_breaker_refusals_total" ["upstream"]
        "Tries not made because a breaker was open."

    LIMITER_DECISIONS Counter "weir_limiter_decisions_total" ["limit" "decision"]
        "Requests a limit judged, by decision."
    LIMITER_OVERFLOW Counter "weir_limiter_overflow_total" ["limit"]
        "Requests judged by the bucket that keys without a cell share."
    LIMITER_KEYS Gauge "weir_limiter_keys" ["limit"]
        "Keys that have used something of their burst."
    LIMITER_CAPACITY Gauge "weir_limiter_capacity" ["limit"]
        "Cells for keys."
    LIMITER_EVICTIONS Counter "weir_limiter_evictions_total" ["limit"]
        "Cells given to a new key; only such as were whole again."

    COMPRESSION_BYTES Counter "weir_compression_bytes_total" ["coding" "direction"]
        "Bytes of bodies into and out of encoders."
    COMPRESSION_RESPONSES Counter "weir_compression_responses_total" ["coding"]
        "Answers that were encoded."
    COMPRESSION_SECONDS Counter "weir_compression_seconds_total" ["coding"]
        "Time inside encoders."
    COMPRESSION_SKIPPED Counter "weir_compression_skipped_total" ["reason"]
        "Answers that were not encoded where compression is on, by reason."
    COMPRESSION_DECODED Counter "weir_compression_decoded_total" ["coding"]
        "Answers that were decoded for clients that do not take their coding."

    CACHE_REQUESTS Counter "weir_cache_requests_total" ["route" "result"]
        "Requests that passed the cache, by what it did."
    CACHE_AGE Histogram "weir_cache_age_seconds" ["route"]
        "Age of what was served from the cache."
    CACHE_OBJECT Histogram "weir_cache_object_bytes" ["route"]
        "Size of the bodies that were stored."
    CACHE_OBJECTS Gauge "weir_cache_objects" []
        "Keys under which something is stored."
    CACHE_BYTES Gauge "weir_cache_bytes" []
        "What is stored, bodies and fields, as it is weighed."
    CACHE_CAPACITY Gauge "weir_cache_capacity_bytes" []
        "The bound of what is stored."
    CACHE_INSERTIONS Counter "weir_cache_insertions_total" ["outcome"]
        "Answers that were to be stored, by what became of them."
    CACHE_EVICTIONS Counter "weir_cache_evictions_total" ["reason"]
        "Stored answers let go, by reason."
    CACHE_PURGES Counter "weir_cache_purges_total" ["kind"]
        "Purges, by what they were about."
    CACHE_REFRESHES Counter "weir_cache_refreshes_total" ["result"]
        "Refreshes in the background, by how they ended."

    CONNECTIONS Gauge "weir_connections" ["listener"]
        "Open client connections."
    CONNECTIONS_TOTAL Counter "weir_connections_total" ["listener" "protocol"]
        "Client connections by protocol."
    CONNECTIONS_REFUSED Counter "weir_connections_refused_total" ["listener" "reason"]
        "Client connections refused before their first request; for cap and descriptors, pauses in accepting."
    PROTOCOL_VIOLATIONS Counter "weir_protocol_violations_total" ["listener" "kind"]
        "Rules of HTTP that clients broke, by rule."
    TLS_HANDSHAKE Histogram "weir_tls_handshake_seconds" ["listener"]
        "Time of TLS handshakes with clients."
    CERTIFICATE_NOT_AFTER Gauge "weir_tls_certificate_not_after_timestamp_seconds" ["listener" "certificate"]
        "When a certificate ends, in Unix time."
    CONFIG_RELOADS Counter "weir_config_reloads_total" ["outcome"]
        "Reloads by outcome."
    CONFIG_GENERATION Gauge "weir_config_generation" []
        "Rises by 1 with each applied plan."
    CONFIG_LAST_SUCCESS Gauge "weir_config_last_reload_success" []
        "1 if the last reload was good, else 0."
    CONFIG_LAST_APPLIED Gauge "weir_config_last_reload_timestamp_seconds" []
        "When a plan was last applied, in Unix time."
    CONFIG_PLANS Gauge "weir_config_plans" []
        "Plans still held; above 2 for long is a leak."
    CONFIG_INFO Gauge "weir_config_info" ["hash"]
        "Always 1; the hash of the config in force."
    BUILD_INFO Gauge "weir_build_info" ["version" "revision" "rustc"]
        "Always 1; what is running."
    DRAINING Gauge "weir_draining" []
        "1 from the signal to stop on."
    DRAIN_ABORTED Counter "weir_drain_aborted_total" ["kind"]
        "What was cut at the drain's deadline."
    ACCESS_LOG_LINES Counter "weir_access_log_lines_total" []
        "Access-log lines written."
    ACCESS_LOG_DROPPED Counter "weir_access_log_dropped_total" []
        "Access-log lines lost: buffers full or writing failed."
    WORKER_CONNECTIONS Gauge "weir_worker_connections" ["worker"]
        "Open client connections of a worker."
    WORKER_REQUESTS_IN_FLIGHT Gauge "weir_worker_requests_in_flight" ["worker"]
        "Requests a worker is serving."
    WORKER_CONFIG_GENERATION Gauge "weir_worker_config_generation" ["worker"]
        "The plan a worker has seen."
    WORKER_ACCEPTS Counter "weir_worker_accepts_total" ["worker"]
        "Connections a worker accepted."
    WORKER_BUSY Counter "weir_worker_busy_seconds_total" ["worker"]
        "Time a worker was not waiting for events."
    WORKER_LOOP_LAG Histogram "weir_worker_loop_lag_seconds" ["worker"]
        "From a timer due to the timer run."

    PROCESS_CPU Counter "process_cpu_seconds_total" []
        "User and system CPU time."
    PROCESS_RESIDENT_MEMORY Gauge "process_resident_memory_bytes" []
        "Resident memory."
    PROCESS_VIRTUAL_MEMORY Gauge "process_virtual_memory_bytes" []
        "Virtual memory."
    PROCESS_OPEN_FDS Gauge "process_open_fds" []
        "Open file descriptors."
    PROCESS_MAX_FDS Gauge "process_max_fds" []
        "Most file descriptors that may be open."
    PROCESS_THREADS Gauge "process_threads" []
        "Threads."
    PROCESS_START_TIME Gauge "process_start_time_seconds" []
        "When the process started, in Unix time."
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name kind labels`, one a line.
    fn table() -> String {
        let line = |m: &Metric| format!("{} {} {}", m.name, m.kind.as_str(), m.labels.join(","));
        ALL.iter()
            .map(|m| line(m).trim_end().to_owned() + "\n")
            .collect()
    }

    #[test]
    fn the_metrics_are_those_of_the_golden_file() {
        assert_eq!(table(), include_str!("../../tests/golden/metrics.txt"));
    }

    #[test]
    fn counters_alone_end_in_total_and_no_name_stands_twice() {
        for metric in ALL {
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
            assert!(
                metric.help.ends_with('.') && !metric.help.contains('\n'),
                "{}",
                metric.name
            );
        }
        let mut names: Vec<_> = ALL.iter().map(|m| m.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
