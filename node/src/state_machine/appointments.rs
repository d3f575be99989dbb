//! Seeing the state right after one entry.
//!
//! States are published batch by batch, and where a batch ends is an accident of each node's timing. To compare the bytes of
//! several nodes while clients write, all of them must look after the same entry: they are told its index while it is still to
//! come, and each ends the batch at hand there. Nothing that is applied depends on that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::View;
use super::query::Shared;

/// What became of an appointment.
#[derive(Debug, Clone)]
pub enum Kept {
    /// The state right after the entry.
    There(Arc<View>),
    /// The state was past it already, as far as this index.
    Missed(u64),
}

type Then = Box<dyn FnOnce(Kept) + Send>;

/// Who waits for which entry.
pub(super) struct Appointments {
    /// The lowest of the indexes, or the greatest number: what each entry that is applied is compared with.
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    made: u64,
    by_index: BTreeMap<(u64, u64), Then>,
}

/// Given up when it is dropped.
pub struct Appointment {
    shared: Arc<Shared>,
    key: (u64, u64),
}

impl Default for Appointments {
    fn default() -> Self {
        Self { next: AtomicU64::new(u64::MAX), waiting: Mutex::default() }
    }
}

impl Appointments {
    pub(super) fn make(shared: &Arc<Shared>, index: u64, then: Then) -> Appointment {
        let key = shared.appointments.change(|waiting| {
            waiting.made += 1;
            let key = (index, waiting.made);
            waiting.by_index.insert(key, then);
            key
        });
        Appointment { shared: shared.clone(), key }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = self.waiting.lock();
        let changed = change(&mut waiting);
        let next = waiting.by_index.keys().next().map_or(u64::MAX, |(index, _)| *index);
        self.next.store(next, Ordering::Release);
        changed
    }

    /// Whether somebody waits for the state right after this entry.
    pub(super) fn is_awaited(&self, index: u64) -> bool {
        self.next.load(Ordering::Acquire) <= index
    }

    /// Keeps what can be kept with `view`, which is published.
    pub(super) fn keep(&self, view: &Arc<View>) {
        let at = view.index();
        if !self.is_awaited(at) {
            return;
        }
        let due = self.change(|waiting| {
            let later = waiting.by_index.split_off(&(at + 1, 0));
            std::mem::replace(&mut waiting.by_index, later)
        });
        for ((index, _), then) in due {
            then(if index == at { Kept::There(view.clone()) } else { Kept::Missed(at) });
        }
    }
}

impl Drop for Appointment {
    fn drop(&mut self) {
        self.shared.appointments.change(|waiting| waiting.by_index.remove(&self.key));
    }
}

impl fmt::Debug for Appointment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appointment").field("index", &self.key.0).finish_non_exhaustive()
    }
}
