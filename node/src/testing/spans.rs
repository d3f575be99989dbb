//! Stands in for a collector of traces.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use parking_lot::Mutex;

use crate::traces::Traces;

/// The spans that have ended. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl Spans {
    /// What makes them: of all calls but those whose clients say no.
    pub(crate) fn traces(&self) -> Traces {
        Traces::on(SdkTracerProvider::builder().with_span_processor(self.clone()).build())
    }

    /// In the order in which they ended.
    pub(crate) fn ended(&self) -> Vec<SpanData> {
        self.0.lock().clone()
    }
}

/// What `span` says about `key`.
pub(crate) fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string())
}

impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
