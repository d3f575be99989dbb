//! A `migrate` that writes every row anew, as it is. It is only there with the feature `rewrite`, to measure how long commands
//! wait for such a thing: see `make bench-swap`.

use balsa_sdk::{Context, Range, Status, Version};

pub(crate) fn migrate(ctx: &mut Context, _from: Version) -> Result<(), Status> {
    for page in ctx.pages(Range::all()) {
        page.iter().for_each(|(key, value)| ctx.put(key, value));
    }
    Ok(())
}
