//! A bound on commands that were proposed and are not applied yet.
//!
//! openraft's core waits when its channels are full, and a core that waits misses heartbeats. So a command is refused here,
//! with a retry hint, long before that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::{PENDING_BYTES_MAX, PENDING_COMMANDS_MAX};
use crate::service::ServiceError;

/// Counts what is under way. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    commands: AtomicUsize,
    bytes: AtomicUsize,
}

/// A command's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Admission,
    bytes: usize,
}

impl Admission {
    /// A place for a command of `bytes`.
    pub(crate) fn admit(&self, bytes: usize) -> Result<Permit, ServiceError> {
        // Counted first and given back when refused, so that two that race for the last place never both get it.
        let commands = self.0.commands.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let permit = Permit { admission: self.clone(), bytes };
        if commands > PENDING_COMMANDS_MAX {
            return Err(ServiceError::Overloaded("too many commands are waiting to be applied"));
        }
        if total > PENDING_BYTES_MAX && commands > 1 {
            return Err(ServiceError::Overloaded("too many bytes of commands are waiting to be applied"));
        }
        Ok(permit)
    }

    /// Bytes of the commands under way.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Commands under way.
    pub(crate) fn pending(&self) -> usize {
        self.0.commands.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.0.commands.fetch_sub(1, Ordering::Relaxed);
        self.admission.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_place_comes_back() {
        let admission = Admission::default();
        let mut permits: Vec<_> = (0..PENDING_COMMANDS_MAX).map(|_| admission.admit(1).unwrap()).collect();
        assert!(matches!(admission.admit(1), Err(ServiceError::Overloaded(_))));
        permits.pop();
        assert!(admission.admit(1).is_ok());
        assert_eq!(admission.pending(), PENDING_COMMANDS_MAX - 1);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let admission = Admission::default();
        let _held = admission.admit(PENDING_BYTES_MAX).unwrap();
        assert!(matches!(admission.admit(1), Err(ServiceError::Overloaded(_))));
    }
}
