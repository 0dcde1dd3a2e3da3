//! A metric and its series, being put together for a scrape.
//!
//! The one place that builds the `proto` types of the `prometheus` crate. Label values come in
//! the order of the metric's labels; blocks of cells are summed here.

use std::sync::Arc;

use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use crate::telemetry::cells::{Cell, Gauge, Histogram, PerWorker, Tally};
use crate::telemetry::names::{Kind, Metric};

/// Things of one kind with their blocks of cells, by name.
pub(super) type Named<T> = [(Arc<str>, Arc<PerWorker<T>>)];
/// The words of a label, each with the number it stands for.
pub(super) type Words<'a, T, N> = &'a [(&'static str, fn(&T) -> &N)];

/// A series each: a counter.
pub(super) fn counters<T>(metric: &Metric, all: &Named<T>, cell: fn(&T) -> &Cell) -> MetricFamily {
    let mut family = Family::new(metric);
    for (name, cells) in all {
        family.number(&[name], cells.sum(|c| cell(c).get()) as f64);
    }
    family.done()
}

/// A series each for every word: a counter.
pub(super) fn counters_by<T>(
    metric: &Metric,
    all: &Named<T>,
    words: Words<T, Cell>,
) -> MetricFamily {
    let mut family = Family::new(metric);
    for (name, cells) in all {
        for (word, cell) in words {
            family.number(&[name, word], cells.sum(|c| cell(c).get()) as f64);
        }
    }
    family.done()
}

/// A series each: a gauge.
pub(super) fn gauges<T>(metric: &Metric, all: &Named<T>, gauge: fn(&T) -> &Gauge) -> MetricFamily {
    let mut family = Family::new(metric);
    for (name, cells) in all {
        family.number(&[name], cells.sum(|c| gauge(c).get()) as f64);
    }
    family.done()
}

/// A series each: a histogram.
pub(super) fn histograms<T>(
    metric: &Metric,
    all: &Named<T>,
    pick: fn(&T) -> &Histogram,
) -> MetricFamily {
    let mut family = Family::new(metric);
    for (name, cells) in all {
        family.histogram(&[name], cells.iter().map(pick));
    }
    family.done()
}

/// The one series of a metric.
pub(super) fn single(metric: &Metric, labels: &[&str], value: f64) -> MetricFamily {
    let mut family = Family::new(metric);
    family.number(labels, value);
    family.done()
}

/// A series for each word: counters that many write.
pub(super) fn tallies<W>(
    metric: &Metric,
    words: &[(W, &'static str)],
    tallies: &[Tally],
) -> MetricFamily {
    let mut family = Family::new(metric);
    for ((_, word), tally) in words.iter().zip(tallies) {
        family.number(&[word], tally.get() as f64);
    }
    family.done()
}

/// Nanoseconds as seconds.
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// A metric and its series, being put together.
pub(super) struct Family<'a> {
    metric: &'a Metric,
    series: Vec<proto::Metric>,
}

impl<'a> Family<'a> {
    pub(super) fn new(metric: &'a Metric) -> Self {
        let series = Vec::new();
        Family { metric, series }
    }

    /// A series of a counter or a gauge.
    pub(super) fn number(&mut self, labels: &[&str], value: f64) {
        let mut series = self.labelled(labels);
        if self.metric.kind == Kind::Counter {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            series.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            series.set_gauge(gauge);
        }
        self.series.push(series);
    }

    /// A series that is there from its first event on.
    pub(super) fn seen(&mut self, labels: &[&str], count: u64) {
        if count > 0 {
            self.number(labels, count as f64);
        }
    }

    /// A series of a histogram: the sum of these, which have the same bounds.
    pub(super) fn histogram<'h>(
        &mut self,
        labels: &[&str],
        blocks: impl Iterator<Item = &'h Histogram>,
    ) {
        let mut bounds: &[u64] = &[];
        let mut one = None;
        let mut counts = Vec::new();
        let mut sum = 0u64;
        for block in blocks {
            bounds = block.bounds();
            one = Some(block);
            counts.resize(bounds.len() + 1, 0);
            block
                .counts()
                .zip(&mut counts)
                .for_each(|(n, all)| *all += n);
            sum = sum.wrapping_add(block.sum());
        }
        let shown = |value| one.map_or(0.0, |block| block.shown(value));
        // the encoders write the open bucket themselves, from the count
        let mut below = 0u64;
        let buckets = bounds.iter().zip(&counts).map(|(bound, count)| {
            below += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(shown(*bound));
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(shown(sum));
        let mut series = self.labelled(labels);
        series.set_histogram(histogram);
        self.series.push(series);
    }

    fn labelled(&self, values: &[&str]) -> proto::Metric {
        debug_assert_eq!(values.len(), self.metric.labels.len());
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        proto::Metric::from_label(self.metric.labels.iter().zip(values).map(pair).collect())
    }

    pub(super) fn done(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(self.series);
        family
    }
}
