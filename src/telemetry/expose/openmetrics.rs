//! OpenMetrics 1.0 over gathered families.
//!
//! The `prometheus` crate writes text 0.0.4 alone. This writes the same families as OpenMetrics:
//! a counter's family is named without `_total`, bounds are canonical floats, the text ends in
//! `# EOF`. It writes counters, gauges and histograms, since Weir has no other kinds.

use std::fmt::{self, Display, Write};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The media type of what [`encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all families.
pub fn encode(families: &[MetricFamily]) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for one in families {
        family(&mut out, one).expect("writing to a string cannot fail");
    }
    out.push_str("# EOF\n");
    out
}

fn family(out: &mut String, family: &MetricFamily) -> fmt::Result {
    let kind = family.get_field_type();
    let name = match kind {
        MetricType::COUNTER => family.name().trim_end_matches("_total"),
        _ => family.name(),
    };
    let word = match kind {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    };
    writeln!(out, "# TYPE {name} {word}")?;
    writeln!(out, "# HELP {name} {}", Escaped(family.help()))?;
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match kind {
            MetricType::COUNTER => {
                let value = metric.get_counter().get_value();
                sample(out, name, "_total", labels, None, &value)?;
            }
            MetricType::HISTOGRAM => histogram(out, name, metric)?,
            _ => sample(out, name, "", labels, None, &metric.get_gauge().get_value())?,
        }
    }
    Ok(())
}

fn histogram(out: &mut String, name: &str, metric: &Metric) -> fmt::Result {
    let histogram = metric.get_histogram();
    let labels = metric.get_label();
    for bucket in histogram.get_bucket() {
        let count = bucket.cumulative_count();
        sample(
            out,
            name,
            "_bucket",
            labels,
            Some(bucket.upper_bound()),
            &count,
        )?;
    }
    let count = histogram.get_sample_count();
    sample(out, name, "_bucket", labels, Some(f64::INFINITY), &count)?;
    sample(out, name, "_count", labels, None, &count)?;
    let sum = histogram.get_sample_sum();
    sample(out, name, "_sum", labels, None, &sum)
}

fn sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[LabelPair],
    bound: Option<f64>,
    value: &dyn Display,
) -> fmt::Result {
    write!(out, "{name}{suffix}")?;
    let mut before = '{';
    for label in labels {
        write!(
            out,
            "{before}{}=\"{}\"",
            label.name(),
            Escaped(label.value())
        )?;
        before = ',';
    }
    match bound {
        Some(f64::INFINITY) => write!(out, "{before}le=\"+Inf\"}}")?,
        // `{:?}` keeps the `.0` that canonical floats have
        Some(bound) => write!(out, "{before}le=\"{bound:?}\"}}")?,
        None if before == ',' => out.push('}'),
        None => {}
    }
    writeln!(out, " {value}")
}

/// Backslash, quote and newline, as label values and help texts escape them.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}
