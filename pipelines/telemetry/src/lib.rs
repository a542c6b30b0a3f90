//! What Haar says about itself: logs, traces, metrics, health.
//!
//! - [`names`]: every metric and span there is. What is not in it does not exist; dashboards are tested
//!   against it.
//! - [`Telemetry`]: logs to standard error and, if an endpoint is set, traces by OTLP. One per process.
//! - [`Metrics`]: the metrics of one *node*. A process may run several nodes, each with its own.
//! - [`Readiness`] and [`Admin`]: `/metrics`, `/health/live`, `/health/ready`.
//! - [`read_config`], [`stop_on_signals`]: how every node reads its configuration and is told to stop.
//! - [`Outage`]: what is away is said once.
//! - [`trace`]: trace context in and out of batches, as W3C `traceparent`.
//!
//! # Trust
//! Telemetry is read by people and machines that may not see patients' data: no attribute, label or log field
//! holds a subject, a device, a topic or a value. Labels are from small closed sets.
//!
//! # What is not guaranteed
//! Spans are exported from a queue of 2,048; a burst or a collector that is not there loses spans, never
//! readings. The admin endpoint is plain HTTP without authentication: bind it to loopback or a management network.
#![forbid(unsafe_code)]

mod admin;
mod config;
mod metrics;
pub mod names;
mod outage;
mod readiness;
mod start;
mod stop;
pub mod trace;

pub use admin::{Admin, AdminError};
pub use config::{ConfigError, MAX_CONFIG_BYTES, read_config};
pub use metrics::{Metrics, MetricsError};
pub use opentelemetry::KeyValue;
pub use opentelemetry::metrics::{Counter, Gauge, Histogram};
pub use outage::Outage;
pub use readiness::{Condition, Readiness, Unready};
pub use start::{Settings, StartError, Telemetry};
pub use stop::{INTERRUPTED, stop_on_signals};
