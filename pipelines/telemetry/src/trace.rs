//! Trace context between spans and text: W3C Trace Context, <https://www.w3.org/TR/trace-context/>.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";

/// The `traceparent` of a span; `None` when no traces are exported.
pub fn traceparent(span: &Span) -> Option<String> {
    let mut carrier = Carrier(None);
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.0
}

/// Makes a span the child of the one that `traceparent` names. Does nothing if that is malformed, if no traces are
/// exported, or if the span has been entered already.
pub fn set_parent(span: &Span, traceparent: &str) {
    let carrier = Carrier(Some(traceparent.to_owned()));
    let parent = TraceContextPropagator::new().extract(&carrier);
    // Fails only when there is no exporting layer.
    let _ = span.set_parent(parent);
}

/// Holds the one header.
struct Carrier(Option<String>);

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = Some(value);
        }
    }
}

impl Extractor for Carrier {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0.as_deref()).flatten()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|_| TRACEPARENT).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn a_child_in_another_process_is_in_the_same_trace() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let sent = traceparent(&tracing::info_span!("edge.batch")).unwrap();
            assert_eq!(sent.len(), 55);
            let child = tracing::info_span!("fog.batch");
            set_parent(&child, &sent);
            let child = traceparent(&child).unwrap();
            assert_eq!(child[..35], sent[..35]);
            assert_ne!(child[36..52], sent[36..52]);
            set_parent(&tracing::info_span!("fog.batch"), "no traceparent");
        });
    }

    #[test]
    fn without_export_there_is_no_context() {
        assert_eq!(traceparent(&Span::none()), None);
    }
}
