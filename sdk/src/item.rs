//! One named value of the state.

use std::fmt;
use std::marker::PhantomData;

use crate::context::{Context, View};
use crate::limits;
use crate::name;
use crate::status::Status;
use crate::value::Value;

/// One named value: `const TOTAL: Item<u64> = Item::new("total");`
///
/// It holds no more than its name, so it is a constant of the module and is asked for its value with the context of a call:
///
/// ```
/// use balsa_sdk::{Context, Item, Status};
///
/// const TOTAL: Item<u64> = Item::new("total");
///
/// fn add(ctx: &mut Context, amount: u64) -> Result<u64, Status> {
///     let total = TOTAL.get(ctx)?.unwrap_or_default() + amount;
///     TOTAL.set(ctx, &total)?;
///     Ok(total)
/// }
///
/// let mut host = balsa_sdk::testing::Host::new();
/// host.command(add, 2).unwrap();
/// assert_eq!(host.command(add, 3), Ok(5));
/// assert_eq!(host.dump(), "total\\x00 = \\x08\\x05\n");
/// ```
///
/// Two items of one name are the same item, in other types too. An item and a [`Map`](crate::Map) of one name are not.
pub struct Item<T> {
    name: &'static str,
    value: PhantomData<fn() -> T>,
}

impl<T> Item<T> {
    /// The item of this name: 1 to 31 ASCII letters, digits, `_`, `-` or `.`.
    ///
    /// # Panics
    /// If the name is not one; for a constant, that is an error of the compiler's.
    pub const fn new(name: &'static str) -> Self {
        name::check(name);
        Self { name, value: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The key under which it is stored.
    pub fn stored_key(&self) -> Vec<u8> {
        name::item_key(self.name)
    }

    /// Whether it is set.
    pub fn is_set(&self, view: &View) -> bool {
        view.get_head(&self.stored_key(), 0).is_some()
    }

    /// Deletes it; whether it was set.
    pub fn delete(&self, ctx: &mut Context) -> bool {
        ctx.delete(&self.stored_key())
    }
}

impl<T: Value> Item<T> {
    /// Its value, if it is set. DATA_LOSS if what is stored is not a `T`.
    pub fn get(&self, view: &View) -> Result<Option<T>, Status> {
        let key = self.stored_key();
        let Some(stored) = view.get(&key) else { return Ok(None) };
        T::from_stored(stored).map(Some).map_err(|error| name::located(error, &key))
    }

    /// Its value, or the default one. DATA_LOSS if what is stored is not a `T`.
    pub fn get_or_default(&self, view: &View) -> Result<T, Status>
    where
        T: Default,
    {
        self.get(view).map(Option::unwrap_or_default)
    }

    /// Stores its value. RESOURCE_EXHAUSTED if that is longer than [`STORED_BYTES_MAX`](limits::STORED_BYTES_MAX).
    pub fn set(&self, ctx: &mut Context, value: &T) -> Result<(), Status> {
        store(ctx, &self.stored_key(), &value.to_stored())
    }
}

/// Stores under a key of the SDK's, or says what the host's trap would not.
pub(crate) fn store(ctx: &mut Context, key: &[u8], value: &[u8]) -> Result<(), Status> {
    if key.len() > limits::STORED_KEY_BYTES_MAX || value.len() > limits::STORED_BYTES_MAX {
        return Err(too_large(key, value));
    }
    ctx.put(key, value);
    Ok(())
}

#[cold]
#[inline(never)]
fn too_large(key: &[u8], value: &[u8]) -> Status {
    let (what, len, max) = if key.len() > limits::STORED_KEY_BYTES_MAX {
        ("key", key.len(), limits::STORED_KEY_BYTES_MAX)
    } else {
        ("value", value.len(), limits::STORED_BYTES_MAX)
    };
    // Enough of the key to know it by.
    let start = &key[..key.len().min(256)];
    name::located(Status::resource_exhausted(format!("a {what} of {len} bytes; {max} are stored")), start)
}

impl<T> Clone for Item<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Item<T> {}

impl<T> fmt::Debug for Item<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Item({})", self.name)
    }
}
