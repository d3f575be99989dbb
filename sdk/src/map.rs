//! Many values of one type, each under a key, in the order of the keys.
//!
//! All that is read of many entries goes through one type, [`Entries`]: what `range` and `prefix` give is narrowed, turned
//! round and bounded like an iterator, and is one. Pages for clients come from it, too.

mod entries;
#[cfg(test)]
mod tests;
mod upgrade;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use crate::context::{Context, View};
use crate::item::store;
use crate::key::{AsKey, Key, Prefix};
use crate::limits::STORED_KEY_BYTES_MAX;
use crate::name;
use crate::scan::Range;
use crate::status::Status;
use crate::value::Value;

pub use entries::{Entries, EntryPage, Keys, page_limit};
pub use upgrade::Upgraded;

/// Values of type `V` by keys of type `K`: `const ACCOUNTS: Map<String, Account> = Map::new("accounts");`
///
/// It holds no more than its name, so it is a constant of the module and is asked with the context of a call. Keys of more
/// than one part are tuples, and sort by their parts:
///
/// ```
/// use balsa_sdk::{Context, Map, Status};
///
/// /// By customer and number of the order: the amount in cents.
/// const ORDERS: Map<(String, u64), u64> = Map::new("orders");
///
/// fn example(ctx: &mut Context, _: ()) -> Result<(), Status> {
///     ORDERS.insert(ctx, &("bob", 1), &50)?;
///     ORDERS.insert(ctx, &("alice", 2), &70)?;
///     ORDERS.insert(ctx, &("alice", 1), &30)?;
///     assert_eq!(ORDERS.get(ctx, &("alice", 2))?, Some(70));
///
///     let of_alice: Vec<_> = ORDERS.prefix(ctx, &("alice",)).collect::<Result<_, _>>()?;
///     assert_eq!(of_alice, [(("alice".to_owned(), 1), 30), (("alice".to_owned(), 2), 70)]);
///
///     let last = ORDERS.last(ctx)?;
///     assert_eq!(last, Some((("bob".to_owned(), 1), 50)));
///
///     // What `range` and `prefix` give borrows nothing: a loop over it may write.
///     for entry in ORDERS.range(ctx, ..).reverse().limit(2) {
///         let (key, amount) = entry?;
///         ORDERS.insert(ctx, &key, &(amount * 2))?;
///     }
///     Ok(())
/// }
///
/// balsa_sdk::testing::Host::new().command(example, ()).unwrap();
/// ```
///
/// Two maps of one name are the same map, in other types too. A map and an [`Item`](crate::Item) of one name are not.
pub struct Map<K, V> {
    name: &'static str,
    entry: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Map<K, V> {
    /// The map of this name: 1 to 31 ASCII letters, digits, `_`, `-` or `.`.
    ///
    /// # Panics
    /// If the name is not one; for a constant, that is an error of the compiler's.
    pub const fn new(name: &'static str) -> Self {
        name::check(name);
        Self { name, entry: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The key under which an entry is stored.
    pub fn stored_key<Q: AsKey<K> + ?Sized>(&self, key: &Q) -> Vec<u8> {
        let mut stored = name::map_prefix(self.name);
        key.write(&mut stored);
        stored
    }

    /// Whether there is an entry with this key. Its value is not read.
    pub fn contains<Q: AsKey<K> + ?Sized>(&self, view: &View, key: &Q) -> bool {
        view.get_head(&self.stored_key(key), 0).is_some()
    }

    /// Deletes an entry; whether it was there.
    pub fn remove<Q: AsKey<K> + ?Sized>(&self, ctx: &mut Context, key: &Q) -> bool {
        remove(ctx, &self.stored_key(key))
    }

    /// Whether it has no entries.
    pub fn is_empty(&self, view: &View) -> bool {
        view.scan(&name::map_range(self.name).keys_only().limit(1)).is_empty()
    }
}

impl<K, V: Value> Map<K, V> {
    /// The value of an entry, if there is one. DATA_LOSS if what is stored is not a `V`.
    pub fn get<Q: AsKey<K> + ?Sized>(&self, view: &View, key: &Q) -> Result<Option<V>, Status> {
        let key = self.stored_key(key);
        let Some(stored) = view.get(&key) else { return Ok(None) };
        V::from_stored(stored).map(Some).map_err(|error| name::located(error, &key))
    }

    /// The value of an entry, or the default one. DATA_LOSS if what is stored is not a `V`.
    pub fn get_or_default<Q: AsKey<K> + ?Sized>(&self, view: &View, key: &Q) -> Result<V, Status>
    where
        V: Default,
    {
        self.get(view, key).map(Option::unwrap_or_default)
    }

    /// Stores an entry, in place of one with the same key. RESOURCE_EXHAUSTED if key or value are longer than the
    /// [limits](crate::limits).
    pub fn insert<Q: AsKey<K> + ?Sized>(&self, ctx: &mut Context, key: &Q, value: &V) -> Result<(), Status> {
        store(ctx, &self.stored_key(key), &value.to_stored())
    }

    /// Deletes an entry and gives its value, if there was one. DATA_LOSS if what is stored is not a `V`.
    pub fn take<Q: AsKey<K> + ?Sized>(&self, ctx: &mut Context, key: &Q) -> Result<Option<V>, Status> {
        let value = self.get(ctx, key)?;
        if value.is_some() {
            self.remove(ctx, key);
        }
        Ok(value)
    }
}

impl<K: Key, V: Value> Map<K, V> {
    /// The entries with keys in `bounds`, in their order: `map.range(ctx, ..)`, `map.range(ctx, 5..10)`,
    /// `map.range(ctx, ("a".to_owned(), 3)..)`.
    pub fn range(&self, view: &View, bounds: impl RangeBounds<K>) -> Entries<K, V> {
        let mut range = name::map_range(self.name);
        range = match bounds.start_bound() {
            Bound::Included(key) => range.starting_at(clip(&self.stored_key(key))),
            Bound::Excluded(key) => range.starting_at(clip(&behind(self.stored_key(key)))),
            Bound::Unbounded => range,
        };
        range = match bounds.end_bound() {
            Bound::Included(key) => range.ending_before(clip(&behind(self.stored_key(key)))),
            Bound::Excluded(key) => range.ending_before(clip(&self.stored_key(key))),
            Bound::Unbounded => range,
        };
        self.entries(view, range)
    }

    /// The entries whose keys begin with `prefix`: the first parts of a tuple, as a tuple (`&("alice",)`), or the
    /// [`Start`](crate::Start) of a text.
    pub fn prefix(&self, view: &View, prefix: &impl Prefix<K>) -> Entries<K, V> {
        let mut start = name::map_prefix(self.name);
        prefix.write_prefix(&mut start);
        self.entries(view, Range::prefix(clip(&start)))
    }

    /// The entry with the least key.
    pub fn first(&self, view: &View) -> Result<Option<(K, V)>, Status> {
        self.range(view, ..).limit(1).next().transpose()
    }

    /// The entry with the greatest key.
    pub fn last(&self, view: &View) -> Result<Option<(K, V)>, Status> {
        self.range(view, ..).reverse().limit(1).next().transpose()
    }

    /// Deletes the entries with keys in `bounds`; how many. It reads no values, but it takes time and fuel for each entry: what
    /// may be large is better deleted a part at a time.
    pub fn remove_range(&self, ctx: &mut Context, bounds: impl RangeBounds<K>) -> u64 {
        let range = self.range(ctx, bounds).into_range();
        let mut count = 0;
        for page in ctx.pages(range.keys_only()) {
            count += page.len() as u64;
            for (key, _) in &page {
                ctx.delete(key);
            }
        }
        count
    }

    fn entries(&self, _: &View, range: Range) -> Entries<K, V> {
        Entries::new(range, self.name.len() + 1)
    }
}

/// A key that is longer than one can be is not there.
fn remove(ctx: &mut Context, key: &[u8]) -> bool {
    key.len() <= STORED_KEY_BYTES_MAX && ctx.delete(key)
}

/// The least key greater than `key`.
fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// Lets no more of a bound cross than makes a difference: no key that can be stored is as long as what is left.
fn clip(bound: &[u8]) -> &[u8] {
    &bound[..bound.len().min(STORED_KEY_BYTES_MAX + 1)]
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Map<K, V> {}

impl<K, V> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({})", self.name)
    }
}
