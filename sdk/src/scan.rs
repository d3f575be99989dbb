//! Reading a range of keys, page by page.
//!
//! A [`Page`] is the host's answer, kept as the bytes it came in: one crossing, one buffer, whatever the number of items.
//! Since it is the module's own, a loop over it may write.

use std::fmt;

use prost::bytes::Bytes;

use crate::imports;
use crate::limits::{SCAN_BYTES_MAX, SCAN_ITEMS_MAX};

/// Which keys to read, in which direction, and how much at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) reverse: bool,
    pub(crate) keys_only: bool,
    pub(crate) limit: u32,
    pub(crate) page_bytes: u32,
}

impl Range {
    /// Bytes of a page unless asked otherwise: much work for one crossing, little memory.
    const PAGE_BYTES: u32 = 64 * 1024;

    /// `start <= key < end`.
    pub fn between(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self::new(start.into(), Some(end.into()))
    }

    /// `start <= key`.
    pub fn from(start: impl Into<Vec<u8>>) -> Self {
        Self::new(start.into(), None)
    }

    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self::new(start, end)
    }

    /// All keys.
    pub fn all() -> Self {
        Self::new(Vec::new(), None)
    }

    fn new(start: Vec<u8>, end: Option<Vec<u8>>) -> Self {
        Self { start, end, reverse: false, keys_only: false, limit: u32::MAX, page_bytes: Self::PAGE_BYTES }
    }

    /// Without the keys less than `start`.
    pub fn starting_at(mut self, start: &[u8]) -> Self {
        if self.start.as_slice() < start {
            self.start = copy(start);
        }
        self
    }

    /// Without the keys not less than `end`.
    pub fn ending_before(mut self, end: &[u8]) -> Self {
        if self.end.as_deref().is_none_or(|own| end < own) {
            self.end = Some(copy(end));
        }
        self
    }

    /// What is left of the range behind `key`, in its direction: behind the last key of a page comes the next page.
    pub fn behind(mut self, key: &[u8]) -> Self {
        self.continue_behind(key);
        self
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_slice() <= key && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// The same keys, from the last to the first.
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Keys with empty values: the host does not read the values.
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// At most this many items, over all pages. A single page never has more than
    /// [`SCAN_ITEMS_MAX`].
    pub fn limit(mut self, items: usize) -> Self {
        self.limit = u32::try_from(items).unwrap_or(u32::MAX);
        self
    }

    /// Pages of at most this size, framing included, unless a single item is longer; 64 KiB if not asked otherwise, and
    /// never more than [`SCAN_BYTES_MAX`].
    pub fn page_bytes(mut self, bytes: usize) -> Self {
        self.page_bytes = bytes.min(SCAN_BYTES_MAX) as u32;
        self
    }

    /// What is left behind `key` in the direction of the range.
    fn continue_behind(&mut self, key: &[u8]) {
        if self.reverse {
            self.end = Some(copy(key));
        } else {
            self.start.clear();
            self.start.extend_from_slice(key);
            self.start.push(0);
        }
    }
}

/// The first key behind all that start with `prefix`; `None` if there is no such key.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = copy(&prefix[..=last]);
    end[last] += 1;
    Some(end)
}

/// Kept out of line: it is small to call, not to copy into every bound of a range.
#[inline(never)]
fn copy(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// Items of a range, as they were when it was read.
///
/// Its bytes: count (u32, little-endian), whether there is more (one byte), then for each item the length of its key, the
/// key, the length of its value, the value.
#[derive(Clone)]
pub struct Page {
    bytes: Bytes,
}

/// Bytes before the first item.
const HEADER_BYTES: usize = 5;

impl Page {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        assert!(bytes.len() >= HEADER_BYTES, "the host gives whole pages");
        Self { bytes: bytes.into() }
    }

    /// What nobody needs to ask the host for.
    pub(crate) fn empty() -> Self {
        Self::new(vec![0; HEADER_BYTES])
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        read_u32(&self.bytes)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the range has items behind this page, within its limit or not.
    pub fn has_more(&self) -> bool {
        self.bytes[4] != 0
    }

    /// Keys and values, in the direction of the range.
    pub fn iter(&self) -> Items<'_> {
        Items { rest: &self.bytes[HEADER_BYTES..], left: self.len() }
    }

    /// A key or value of this page as [`Bytes`] that share the page's memory.
    ///
    /// # Panics
    /// If `part` is not a part of this page.
    pub fn slice(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// All of it behind the header: what [`iter`](Self::iter) goes through.
    pub(crate) fn rows(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// The key of its last item.
    pub fn last_key(&self) -> Option<&[u8]> {
        self.iter().last().map(|(key, _)| key)
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({} items, more: {})", self.len(), self.has_more())
    }
}

impl<'a> IntoIterator for &'a Page {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Items<'a>;

    fn into_iter(self) -> Items<'a> {
        self.iter()
    }
}

/// Iterator over keys and values of a [`Page`].
#[derive(Debug, Clone)]
pub struct Items<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Items<'a> {
    fn field(&mut self) -> &'a [u8] {
        let (field, rest) = self.rest[4..].split_at(read_u32(self.rest));
        self.rest = rest;
        field
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((self.field(), self.field()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Items<'_> {}

fn read_u32(bytes: &[u8]) -> usize {
    let bytes = bytes.first_chunk().expect("the host gives whole pages");
    u32::from_le_bytes(*bytes) as usize
}

/// Iterator over the pages of a [`Range`], each read when it is asked for. None of them is empty.
#[derive(Debug)]
pub struct Pages {
    range: Range,
    done: bool,
}

impl Pages {
    pub(crate) fn new(range: Range) -> Self {
        Self { range, done: false }
    }
}

impl Iterator for Pages {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        if self.done || self.range.limit == 0 {
            return None;
        }
        let page = imports::scan(&self.range);
        self.range.limit -= (page.len() as u32).min(self.range.limit);
        self.done = !page.has_more();
        self.range.continue_behind(page.last_key()?);
        Some(page)
    }
}

/// What one scan is asked for at most, whatever the range says.
pub(crate) fn items_max(range: &Range) -> usize {
    (range.limit as usize).min(SCAN_ITEMS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"a"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn a_range_goes_on_behind_a_key_in_its_direction() {
        let mut up = Range::prefix(b"a");
        up.continue_behind(b"ab");
        assert_eq!((up.start.as_slice(), up.end.as_deref()), (&b"ab\0"[..], Some(&b"b"[..])));
        let mut down = Range::prefix(b"a").reverse();
        down.continue_behind(b"ab");
        assert_eq!((down.start.as_slice(), down.end.as_deref()), (&b"a"[..], Some(&b"ab"[..])));
    }
}
