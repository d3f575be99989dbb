//! Bringing what is stored up to date, a part at a time.
//!
//! A [`Versioned`] value is read whatever its version is, so nothing has to be rewritten. But as long as there may be old
//! values, the code that reads them has to stay; a command that is called until it is through makes it superfluous.

use prost::bytes::Bytes;

use super::Map;
use super::entries::{behind_token, next_token};
use crate::context::Context;
use crate::key::Key;
use crate::name;
use crate::status::Status;
use crate::value::{Upgrade, Value, Versioned, take_version};

/// What one [`Map::upgrade`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// Values that were written anew.
    pub rewritten: u64,
    /// What the next call goes on with; empty if this was the last one.
    pub next: Bytes,
}

impl<K: Key, T: Upgrade> Map<K, Versioned<T>> {
    /// Looks at up to `entries` of the map and writes those anew that have an older version. `token` is empty for the first
    /// call and [`next`](Upgraded::next) of the one before for a later one, over as many commands as it takes.
    pub fn upgrade(&self, ctx: &mut Context, entries: usize, token: &[u8]) -> Result<Upgraded, Status> {
        let prefix_len = self.name.len() + 1;
        let mut range = name::map_range(self.name).limit(entries);
        if !token.is_empty() {
            range = behind_token(range, prefix_len, token)?;
        }
        let page = ctx.scan(&range);
        let mut rewritten = 0;
        for (key, stored) in &page {
            let stored = page.slice(stored);
            if take_version(&mut stored.clone()) == Ok(T::VERSION.into()) {
                continue;
            }
            let value = Versioned::<T>::from_stored(stored).map_err(|error| name::located(error, key))?;
            super::store(ctx, key, &value.to_stored())?;
            rewritten += 1;
        }
        Ok(Upgraded { rewritten, next: next_token(&page, prefix_len) })
    }
}
