//! The way a host fault ends a node.
//!
//! Disk, corruption, an exhausted pool: such a fault says nothing about the command that met it, so it must not become a reply.
//! Whoever meets one raises it here, does no more work, and the node's main task ends the process. The first one
//! counts.

use std::sync::Arc;

use tokio::sync::watch;

/// Where a fault is raised and awaited. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Fatal(Arc<watch::Sender<Option<String>>>);

impl Default for Fatal {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Fatal {
    /// Ends the node, because of `why`.
    pub fn raise(&self, why: impl std::fmt::Display) {
        let why = why.to_string();
        self.0.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            tracing::error!(why, "host fault: this node stops");
            *first = Some(why);
            true
        });
    }

    /// Why the node must end, if it must.
    pub fn get(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits for a fault.
    pub async fn raised(&self) -> String {
        let mut watch = self.0.subscribe();
        let fault = watch.wait_for(Option::is_some).await.expect("this very value holds the sender");
        fault.clone().expect("it was awaited")
    }
}
