//! The last entries, decoded: what apply and replication read nearly always.
//!
//! A tail of the log, without gaps. Bounded by bytes, except that entries which are not written yet are never let go:
//! until they are, this is the only place to read them from.

use std::collections::VecDeque;
use std::ops::Range;

use crate::raft::types::Entry;

#[derive(Debug, Default)]
pub(super) struct Cache {
    /// Index of the first entry held; the next index of the log if there is none.
    first: u64,
    /// Each with its bytes.
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl Cache {
    /// Empty; the next entry will be `next`.
    pub(super) fn restart(&mut self, next: u64) {
        *self = Self { first: next, ..Self::default() };
    }

    /// Index of the first entry held.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Appends the entry that is next.
    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        debug_assert_eq!(entry.log_id.index, self.end(), "the caller checked that it is next");
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
    }

    /// Forgets entries from `end` on, which becomes the next index.
    pub(super) fn truncate(&mut self, end: u64) {
        while self.end() > end
            && let Some((_, bytes)) = self.entries.pop_back()
        {
            self.bytes -= bytes;
        }
        self.first = self.first.min(end);
    }

    /// Forgets entries before `first`.
    pub(super) fn forget_before(&mut self, first: u64) {
        while self.first < first && self.pop_front() {}
    }

    /// Forgets the oldest until at most `bytes_max` remain, but none from `unwritten` on.
    pub(super) fn shrink(&mut self, bytes_max: usize, unwritten: u64) {
        while self.bytes > bytes_max && self.first < unwritten && self.pop_front() {}
    }

    fn pop_front(&mut self) -> bool {
        let Some((_, bytes)) = self.entries.pop_front() else { return false };
        self.bytes -= bytes;
        self.first += 1;
        true
    }

    /// The entry at `index`.
    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(at).map(|(entry, _)| entry)
    }

    /// The entries of `range`, which is within; fewer, but at least one, where they are more than `bytes_max`.
    pub(super) fn read(&self, range: Range<u64>, bytes_max: usize) -> Vec<Entry> {
        let start = (range.start - self.first) as usize;
        let mut entries = Vec::with_capacity((range.end - range.start) as usize);
        let mut bytes = 0;
        for (entry, size) in self.entries.range(start..start + (range.end - range.start) as usize) {
            bytes += size;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_store::tests::blank;

    fn cache(range: Range<u64>) -> Cache {
        let mut cache = Cache::default();
        cache.restart(range.start);
        range.for_each(|index| cache.push(blank(1, index), 10));
        cache
    }

    fn indexes(entries: Vec<Entry>) -> Vec<u64> {
        entries.into_iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn entries_that_are_not_written_stay() {
        let mut cache = cache(5..15);
        cache.shrink(20, 11);
        assert_eq!((cache.first(), cache.bytes), (11, 40));
        cache.shrink(20, 15);
        assert_eq!((cache.first(), cache.bytes), (13, 20));
    }

    #[test]
    fn a_read_ends_at_the_byte_limit_after_at_least_one() {
        assert_eq!(indexes(cache(5..15).read(7..12, 25)), [7, 8]);
        assert_eq!(indexes(cache(5..15).read(7..12, 0)), [7]);
        assert_eq!(indexes(cache(5..15).read(7..9, 1000)), [7, 8]);
    }

    #[test]
    fn truncating_below_the_cache_restarts_it() {
        let mut cache = cache(5..15);
        cache.truncate(8);
        assert_eq!((cache.first(), cache.end(), cache.bytes), (5, 8, 30));
        cache.truncate(3);
        assert_eq!((cache.first(), cache.end(), cache.bytes), (3, 3, 0));
    }
}
