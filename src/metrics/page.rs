//! A scrape's page in the making: families of what is read at the moment of the scrape.

use prometheus::proto::{self, Bucket, LabelPair, Metric, MetricFamily, MetricType};
use rusd_storage::measure::{Counter, Histogram, Observed};

/// See the module. Families without a series are left out, as etcd's client library does.
#[derive(Default)]
pub(super) struct Page(Vec<MetricFamily>);

/// Name and value, in the order of the family's labels.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// All families, in no order.
    pub fn into_families(self) -> Vec<MetricFamily> {
        self.0
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.count(name, help, counter.get());
    }
    /// The same of a number.
    pub fn count(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help).add(&[], value);
    }
    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help).add(&[], value);
    }
    /// A histogram without labels.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.histograms(name, help).add(&[], &histogram.observed());
    }
    /// Counters with labels.
    pub fn counters(&mut self, name: &str, help: &str) -> Counters<'_> {
        Counters(self.family(name, help, MetricType::COUNTER))
    }
    /// Gauges with labels.
    pub fn gauges(&mut self, name: &str, help: &str) -> Gauges<'_> {
        Gauges(self.family(name, help, MetricType::GAUGE))
    }
    /// Histograms with labels.
    pub fn histograms(&mut self, name: &str, help: &str) -> Histograms<'_> {
        Histograms(self.family(name, help, MetricType::HISTOGRAM))
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType) -> Family<'_> {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        Family { page: self, family, series: Vec::new() }
    }
}

/// A family that enters its page when it is dropped.
struct Family<'a> {
    page: &'a mut Page,
    family: MetricFamily,
    series: Vec<Metric>,
}

impl Family<'_> {
    fn add(&mut self, labels: Labels<'_>, set: impl FnOnce(&mut Metric)) {
        let pair = |(name, value): &(&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).into());
            pair.set_value((*value).into());
            pair
        };
        let mut metric = Metric::default();
        metric.set_label(labels.iter().map(pair).collect());
        set(&mut metric);
        self.series.push(metric);
    }
}

impl Drop for Family<'_> {
    fn drop(&mut self) {
        if !self.series.is_empty() {
            self.family.set_metric(std::mem::take(&mut self.series));
            self.page.0.push(std::mem::take(&mut self.family));
        }
    }
}

/// A family of counters.
pub(super) struct Counters<'a>(Family<'a>);

impl Counters<'_> {
    /// One series.
    pub fn add(&mut self, labels: Labels<'_>, value: u64) {
        let mut counter = proto::Counter::default();
        counter.set_value(value as f64);
        self.0.add(labels, |metric| metric.set_counter(counter));
    }
}

/// A family of gauges.
pub(super) struct Gauges<'a>(Family<'a>);

impl Gauges<'_> {
    /// One series.
    pub fn add(&mut self, labels: Labels<'_>, value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        self.0.add(labels, |metric| metric.set_gauge(gauge));
    }
}

/// A family of histograms.
pub(super) struct Histograms<'a>(Family<'a>);

impl Histograms<'_> {
    /// One series.
    pub fn add(&mut self, labels: Labels<'_>, observed: &Observed) {
        let bucket = |(bound, count): &(f64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(observed.buckets.iter().map(bucket).collect());
        histogram.set_sample_count(observed.count);
        histogram.set_sample_sum(observed.sum);
        self.0.add(labels, |metric| metric.set_histogram(histogram));
    }
    /// One series, if anything was observed.
    pub fn add_used(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let observed = histogram.observed();
        if observed.count > 0 {
            self.add(labels, &observed);
        }
    }
}
