//! One lease: when it is held, and its two rows, of which the second one says when the first is of no use any more.

use balsa_sdk::{Context, Status, View};

use crate::{EXPIRIES, LAST_TOKEN, LEASES, Lease};

/// Overdue leases that one Acquire removes. It adds one at most, so rows do not pile up.
const SWEEP_MAX: usize = 4;

pub(crate) fn is_held(lease: &Lease, now_ms: u64) -> bool {
    now_ms < lease.expires_ms
}

/// The lease of a lock, if somebody has it.
pub(crate) fn held(ctx: &View, name: &str) -> Result<Option<Lease>, Status> {
    let now_ms = ctx.now_ms();
    Ok(LEASES.get(ctx, name)?.filter(|lease| is_held(lease, now_ms)))
}

/// A new lease, with the next token, in place of one that may have expired.
pub(crate) fn begin(ctx: &mut Context, name: String, owner: String, expires_ms: u64) -> Result<Lease, Status> {
    if let Some(expired) = LEASES.get(ctx, &name)? {
        end(ctx, &expired);
    }
    let token = LAST_TOKEN.get_or_default(ctx)? + 1;
    LAST_TOKEN.set(ctx, &token)?;
    write(ctx, Lease { name, owner, token, acquired_ms: ctx.now_ms(), expires_ms })
}

/// The same lease, until then if that is later.
pub(crate) fn extend(ctx: &mut Context, lease: Lease, expires_ms: u64) -> Result<Lease, Status> {
    if expires_ms <= lease.expires_ms { Ok(lease) } else { set_expiry(ctx, lease, expires_ms) }
}

pub(crate) fn set_expiry(ctx: &mut Context, lease: Lease, expires_ms: u64) -> Result<Lease, Status> {
    end(ctx, &lease);
    write(ctx, Lease { expires_ms, ..lease })
}

fn write(ctx: &mut Context, lease: Lease) -> Result<Lease, Status> {
    LEASES.insert(ctx, &lease.name, &lease)?;
    EXPIRIES.insert(ctx, &(lease.expires_ms, &lease.name), &())?;
    Ok(lease)
}

pub(crate) fn end(ctx: &mut Context, lease: &Lease) {
    LEASES.remove(ctx, &lease.name);
    EXPIRIES.remove(ctx, &(lease.expires_ms, &lease.name));
}

/// Removes some of the leases that have expired, the oldest first.
pub(crate) fn sweep(ctx: &mut Context) -> Result<(), Status> {
    let until = (ctx.now_ms() + 1, String::new());
    for expiry in EXPIRIES.range(ctx, ..until).limit(SWEEP_MAX).keys() {
        let (expires_ms, name) = expiry?;
        LEASES.remove(ctx, &name);
        EXPIRIES.remove(ctx, &(expires_ms, name));
    }
    Ok(())
}
