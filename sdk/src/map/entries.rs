//! Entries of a map, one after the other or a page at a time.

use std::fmt;
use std::marker::PhantomData;

use prost::bytes::{Buf, Bytes};

use crate::context::View;
use crate::key::Key;
use crate::limits::STORED_KEY_BYTES_MAX;
use crate::name;
use crate::scan::{Page, Pages, Range};
use crate::status::Status;
use crate::value::Value;

/// The entries of a range of a [`Map`](crate::Map): an iterator over `Result<(K, V), Status>`, which reads a page from the
/// host whenever it needs one. An error is DATA_LOSS, names map and key, and does not end the iteration.
///
/// It borrows nothing. What a loop over it writes behind where it is may or may not be seen; what it deletes or changes where
/// it has been makes no difference.
///
/// [`reverse`](Self::reverse), [`limit`](Self::limit) and the like are for before the first entry is read.
pub struct Entries<K, V> {
    items: RowsOf,
    entry: PhantomData<fn() -> (K, V)>,
}

/// The keys of a range of a [`Map`](crate::Map): an iterator over `Result<K, Status>`. Values are not read.
pub struct Keys<K> {
    items: RowsOf,
    key: PhantomData<fn() -> K>,
}

/// A page of entries, for a method that lists them: see [`Entries::page`].
#[derive(Debug, Clone, PartialEq)]
pub struct EntryPage<K, V> {
    /// In the order of the range.
    pub entries: Vec<(K, V)>,
    /// What the next page is asked for with; empty if this was the last one.
    pub next: Bytes,
}

/// Bytes of a page for a client, as they are stored, unless its only entry is longer: room enough in a response.
const PAGE_BYTES: usize = 1024 * 1024;

impl<K, V> Entries<K, V> {
    pub(super) fn new(range: Range, prefix_len: usize) -> Self {
        Self { items: RowsOf::new(range, prefix_len), entry: PhantomData }
    }

    /// From the last to the first.
    pub fn reverse(self) -> Self {
        self.with(Range::reverse)
    }

    /// At most this many entries. The host reads no more of them, so it is cheaper than `take`.
    pub fn limit(self, entries: usize) -> Self {
        self.with(|range| range.limit(entries))
    }

    /// Reads so many bytes at a time from the host; 64 KiB if not asked otherwise.
    pub fn page_bytes(self, bytes: usize) -> Self {
        self.with(|range| range.page_bytes(bytes))
    }

    /// Only the keys.
    pub fn keys(self) -> Keys<K> {
        Keys { items: self.with(Range::keys_only).items, key: PhantomData }
    }

    fn with(mut self, change: impl FnOnce(Range) -> Range) -> Self {
        assert!(self.items.pages.is_none(), "what is read is chosen before the first entry is read");
        self.items.range = change(self.items.range);
        self
    }

    pub(super) fn into_range(self) -> Range {
        self.items.range
    }
}

impl<K: Key, V: Value> Entries<K, V> {
    /// One page of at most `entries` and about 1 MiB, and the token for the page behind it. `token` is empty for the first
    /// page, and what the page before gave as [`next`](EntryPage::next) for a later one; clients may carry it about.
    /// INVALID_ARGUMENT if it is not of this range.
    ///
    /// ```
    /// # use balsa_sdk::{Bytes, Context, Map, Status, View, page_limit};
    /// const NUMBERS: Map<u32, String> = Map::new("numbers");
    ///
    /// /// What a `List` with `limit` and `page_token` does.
    /// fn list(ctx: &View, (limit, token): (u32, Bytes)) -> Result<(Vec<String>, Bytes), Status> {
    ///     let page = NUMBERS.range(ctx, ..).page(ctx, page_limit(limit, 1000), &token)?;
    ///     Ok((page.entries.into_iter().map(|(_, text)| text).collect(), page.next))
    /// }
    ///
    /// let mut host = balsa_sdk::testing::Host::new();
    /// host.change(|ctx| (0..3).try_for_each(|n| NUMBERS.insert(ctx, &n, &format!("number {n}")))).unwrap();
    /// let (first, next) = host.read(|ctx| list(ctx, (2, Bytes::new()))).unwrap();
    /// assert_eq!(first, ["number 0", "number 1"]);
    /// let (second, next) = host.read(|ctx| list(ctx, (2, next))).unwrap();
    /// assert_eq!((second, next), (vec!["number 2".to_owned()], Bytes::new()));
    /// ```
    pub fn page(self, view: &View, entries: usize, token: &[u8]) -> Result<EntryPage<K, V>, Status> {
        let prefix_len = self.items.prefix_len;
        let mut range = self.items.range.page_bytes(PAGE_BYTES).limit(entries);
        if !token.is_empty() {
            range = behind_token(range, prefix_len, token)?;
        }
        let page = view.scan(&range);
        let next = next_token(&page, prefix_len);
        let entries = Rows::new(&page).map(|row| row.entry(prefix_len)).collect::<Result<_, _>>()?;
        Ok(EntryPage { entries, next })
    }
}

/// How many entries a client gets that asks for so many of a page: 0, and all above `most`, means `most`.
pub fn page_limit(asked: u32, most: usize) -> usize {
    if asked == 0 { most } else { most.min(asked as usize) }
}

/// What the page behind this one is asked for with: the last key, without the map's own part.
pub(super) fn next_token(page: &Page, prefix_len: usize) -> Bytes {
    match page.last_key() {
        Some(key) if page.has_more() => page.slice(&key[prefix_len..]),
        _ => Bytes::new(),
    }
}

/// Goes on behind the key that the token stands for.
pub(super) fn behind_token(range: Range, prefix_len: usize, token: &[u8]) -> Result<Range, Status> {
    let key = [&range.start[..prefix_len], token].concat();
    if key.len() > STORED_KEY_BYTES_MAX || !range.contains(&key) {
        return Err(Status::invalid_argument("the page token is not of this range"));
    }
    Ok(range.behind(&key))
}

impl<K: Key, V: Value> Iterator for Entries<K, V> {
    type Item = Result<(K, V), Status>;

    fn next(&mut self) -> Option<Self::Item> {
        self.items.next().map(|row| row.entry(self.items.prefix_len))
    }
}

impl<K: Key> Iterator for Keys<K> {
    type Item = Result<K, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        self.items.next().map(|row| row.key(self.items.prefix_len))
    }
}

/// A stored key and its value; they share the page's memory.
struct Row {
    key: Bytes,
    value: Bytes,
}

impl Row {
    fn key<K: Key>(&self, prefix_len: usize) -> Result<K, Status> {
        let mut rest = &self.key[prefix_len..];
        match K::read(&mut rest) {
            Some(key) if rest.is_empty() => Ok(key),
            _ => Err(not_a_key(&self.key)),
        }
    }

    fn entry<K: Key, V: Value>(self, prefix_len: usize) -> Result<(K, V), Status> {
        let key = self.key(prefix_len)?;
        let value = V::from_stored(self.value).map_err(|error| name::located(error, &self.key))?;
        Ok((key, value))
    }
}

#[cold]
#[inline(never)]
fn not_a_key(stored: &[u8]) -> Status {
    name::located(Status::data_loss("the stored key is not one of the map's type"), stored)
}

/// The rows of one page.
struct Rows {
    rest: Bytes,
    left: usize,
}

impl Rows {
    fn new(page: &Page) -> Self {
        Self { rest: page.rows(), left: page.len() }
    }

    fn field(&mut self) -> Bytes {
        let len = self.rest.get_u32_le();
        self.rest.split_to(len as usize)
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.left = self.left.checked_sub(1)?;
        Some(Row { key: self.field(), value: self.field() })
    }
}

/// The rows of a range, page by page.
struct RowsOf {
    /// What was asked for. Nothing is read before the first row is.
    range: Range,
    pages: Option<Pages>,
    rows: Rows,
    /// Bytes of the map's own in front of each key.
    prefix_len: usize,
}

impl RowsOf {
    fn new(range: Range, prefix_len: usize) -> Self {
        Self { range, pages: None, rows: Rows { rest: Bytes::new(), left: 0 }, prefix_len }
    }

    fn next(&mut self) -> Option<Row> {
        if self.rows.left == 0 {
            let pages = self.pages.get_or_insert_with(|| Pages::new(self.range.clone()));
            self.rows = Rows::new(&pages.next()?);
        }
        self.rows.next()
    }
}

impl<K, V> fmt::Debug for Entries<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entries({:?})", self.items.range)
    }
}

impl<K> fmt::Debug for Keys<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?})", self.items.range)
    }
}
