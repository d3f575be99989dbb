//! The stand-in for the imports: the call that a [`testing::Host`](crate::testing::Host) is in the middle of.
//!
//! The imports of a module are global functions, so the stand-in is global too: per thread, since tests run on several. It
//! stops a call where the real host would, by a panic that says why.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::limits::{LOG_BYTES_MAX, RESULT_BYTES_MAX, SCAN_BYTES_MAX, STORED_BYTES_MAX, STORED_KEY_BYTES_MAX};
use crate::log::Level;
use crate::scan::{Page, Range, items_max};

/// Keys and values of a module.
pub(crate) type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the host lends to a call.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) state: State,
    pub(crate) index: u64,
    pub(crate) time_ms: u64,
    pub(crate) random: [u8; 32],
    pub(crate) writable: bool,
    pub(crate) logs: Vec<(Level, String)>,
    /// The messages of a stream.
    pub(crate) sent: Vec<Vec<u8>>,
    /// What each write replaced, in the order of the writes.
    pub(crate) undo: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Call {
    /// Makes the state what it was before the call.
    pub(crate) fn roll_back(&mut self) {
        for (key, value) in self.undo.drain(..).rev() {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        assert!(self.writable, "write_in_query: a query tried to write");
        assert!(!key.is_empty() && key.len() <= STORED_KEY_BYTES_MAX, "too_large: a key of {} bytes", key.len());
        let old = match value {
            Some(value) => self.state.insert(key.to_vec(), value.to_vec()),
            None => self.state.remove(key),
        };
        let existed = old.is_some();
        self.undo.push((key.to_vec(), old));
        existed
    }

    fn scan(&self, range: &Range) -> Page {
        let end = range.end.as_deref();
        if end.is_some_and(|end| end <= range.start.as_slice()) {
            return encode(std::iter::empty(), range);
        }
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.state.range::<[u8], _>((Bound::Included(range.start.as_slice()), end));
        if range.reverse { encode(rows.rev(), range) } else { encode(rows, range) }
    }
}

/// The page of the host's: at least one item, and then as many as limit and size allow.
fn encode<'a>(rows: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>, range: &Range) -> Page {
    let mut page = vec![0; 5];
    let budget = (range.page_bytes as usize).min(SCAN_BYTES_MAX);
    let mut count = 0_u32;
    for (key, value) in rows {
        let value = if range.keys_only { &[][..] } else { value };
        let full = page.len() + 8 + key.len() + value.len() > budget && count > 0;
        if full || count as usize == items_max(range) {
            page[4] = 1;
            break;
        }
        for field in [key, value] {
            page.extend_from_slice(&(field.len() as u32).to_le_bytes());
            page.extend_from_slice(field);
        }
        count += 1;
    }
    page[..4].copy_from_slice(&count.to_le_bytes());
    Page::new(page)
}

thread_local! {
    static CURRENT: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Enters or, with `None`, leaves a call; returns the one before.
pub(crate) fn replace(call: Option<Call>) -> Option<Call> {
    CURRENT.with(|current| current.replace(call))
}

fn with<T>(use_call: impl FnOnce(&mut Call) -> T) -> T {
    CURRENT.with(|current| {
        use_call(current.borrow_mut().as_mut().expect("the host is reached in a call of testing::Host only"))
    })
}

pub(crate) fn get(key: &[u8]) -> Option<Vec<u8>> {
    with(|call| call.state.get(key).cloned())
}

pub(crate) fn get_head(key: &[u8], len: usize) -> Option<Vec<u8>> {
    with(|call| call.state.get(key).map(|value| value[..len.min(value.len())].to_vec()))
}

pub(crate) fn put(key: &[u8], value: &[u8]) {
    assert!(value.len() <= STORED_BYTES_MAX, "too_large: a value of {} bytes", value.len());
    with(|call| call.write(key, Some(value)));
}

pub(crate) fn delete(key: &[u8]) -> bool {
    with(|call| call.write(key, None))
}

pub(crate) fn scan(range: &Range) -> Page {
    with(|call| call.scan(range))
}

pub(crate) fn output(message: &[u8]) {
    assert!(message.len() <= RESULT_BYTES_MAX, "bad_result: a message of {} bytes", message.len());
    with(|call| call.sent.push(message.to_vec()));
}

pub(crate) fn index_and_time() -> (u64, u64) {
    with(|call| (call.index, call.time_ms))
}

pub(crate) fn random() -> [u8; 32] {
    with(|call| call.random)
}

pub(crate) fn log(level: Level, text: &str) {
    let text = &text[..text.floor_char_boundary(LOG_BYTES_MAX)];
    with(|call| call.logs.push((level, text.to_owned())));
}
