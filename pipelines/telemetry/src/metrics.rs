//! The metrics of one node: its own meter provider and its own registry.

use crate::names::{Kind, Metric};
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use std::fmt;

/// Makes instruments and gives them out in the Prometheus text format. Cheap to clone. Instruments may be made
/// more than once; they count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    meter: Meter,
    // Instruments stop counting when their provider goes.
    _provider: SdkMeterProvider,
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The exporter did not register.
    #[error("the Prometheus exporter did not start: {0}")]
    Exporter(#[from] opentelemetry_sdk::error::OTelSdkError),
}

impl Metrics {
    /// Metrics of the node `service`, such as `haar-edge`.
    ///
    /// # Errors
    /// If the exporter does not register.
    pub fn new(service: &str) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            // `names` holds the names to the letter.
            .without_units()
            .without_counter_suffixes()
            .scope_info_enabled(false)
            .build()?;
        let resource = Resource::builder_empty().with_service_name(service.to_owned()).build();
        let provider =
            SdkMeterProvider::builder().with_reader(exporter).with_resource(resource).build();
        Ok(Self { registry, meter: provider.meter("haar"), _provider: provider })
    }

    /// A counter of [`crate::names`].
    pub fn counter(&self, metric: &Metric) -> Counter<u64> {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.meter
            .u64_counter(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.help)
            .build()
    }

    /// A gauge of [`crate::names`].
    pub fn gauge(&self, metric: &Metric) -> Gauge<f64> {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.meter
            .f64_gauge(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.help)
            .build()
    }

    /// A histogram of [`crate::names`].
    pub fn histogram(&self, metric: &Metric) -> Histogram<f64> {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        self.meter
            .f64_histogram(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.help)
            .with_boundaries(metric.buckets.to_vec())
            .build()
    }

    /// Everything so far, in the Prometheus text format 0.0.4.
    pub fn encode(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            // A family without a sample cannot be encoded; the exporter makes none.
            tracing::error!(%error, "metrics cannot be encoded");
            String::new()
        })
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyValue, names};

    #[test]
    fn names_come_out_to_the_letter() {
        let metrics = Metrics::new("haar-test").unwrap();
        for metric in names::ALL {
            let labels: Vec<KeyValue> =
                metric.labels.iter().map(|label| KeyValue::new(*label, "x")).collect();
            match metric.kind {
                Kind::Counter => metrics.counter(metric).add(1, &labels),
                Kind::Gauge => metrics.gauge(metric).record(1.0, &labels),
                Kind::Histogram => metrics.histogram(metric).record(0.2, &labels),
            }
        }
        let text = metrics.encode();
        for metric in names::ALL {
            let found = text.lines().any(|line| {
                line.strip_prefix("# TYPE ")
                    .and_then(|rest| rest.split_once(' '))
                    .is_some_and(|(name, _)| name == metric.name)
            });
            assert!(found, "{} is not in\n{text}", metric.name);
        }
        assert!(!text.contains("otel_scope"), "{text}");
    }

    #[test]
    fn two_nodes_in_one_process_do_not_mix() {
        let (edge, fog) = (Metrics::new("edge").unwrap(), Metrics::new("fog").unwrap());
        edge.counter(&names::EDGE_BATCHES).add(2, &[]);
        edge.counter(&names::EDGE_BATCHES).add(3, &[]);
        assert!(edge.encode().contains("haar_edge_batches_total 5"), "{}", edge.encode());
        assert!(!fog.encode().contains("haar_edge_batches_total"));
    }
}
