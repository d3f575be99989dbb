//! What is kept of a call of a module's method from its headers to its end.
//!
//! Every such call ends here, so that each is counted, timed and traced once, whichever way it ends. One that ends in no other way was
//! dropped: its client hung up, its own deadline passed, or its connection was cut off.

use std::sync::Arc;

use tokio::time::Instant;

use super::routes::Route;
use crate::traces::{Open, Parent};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Watch {
    route: Arc<Route>,
    started: Instant,
    /// If the call is traced.
    span: Option<Open>,
    ended: bool,
}

impl Watch {
    pub(super) fn new(route: Arc<Route>, started: Instant, span: Option<Open>) -> Self {
        Self { route, started, span, ended: false }
    }

    /// If the call is traced: what belongs under it says so with this.
    pub(super) fn trace(&self) -> Option<Parent> {
        self.span.as_ref().map(Open::parent)
    }

    /// It took effect, or reads, at this log index.
    pub(super) fn at(&mut self, index: u64, replayed: bool) {
        if let Some(span) = &mut self.span {
            span.at(index, replayed);
        }
        if replayed {
            self.route.meter.replayed();
        }
    }

    /// The call came to this. What it comes to later does not count.
    pub(super) fn ended(&mut self, code: tonic::Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.route.meter.answered(code, self.started.elapsed());
        if let Some(span) = self.span.take() {
            span.ended(code);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended(tonic::Code::Cancelled);
    }
}
