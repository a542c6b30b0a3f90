//! Names of metrics and spans, OpenTelemetry set-up, trace context
