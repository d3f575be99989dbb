//! Locks that expire: the example of time, and of a row that leads two lives.
//!
//! What it promises is in `proto/lock.proto`. A lease that has expired is not there, whether or not its row is: [`lease`]
//! reads it that way. Nothing runs by itself in a module, so rows are swept by whoever comes next: every Acquire removes a few
//! that are overdue, more than the one it may add, which [`EXPIRIES`] finds by their time.

mod lease;

#[cfg(test)]
mod tests;

use std::time::Duration;

use balsa_sdk::{Context, Item, Map, Start, Status, View, page_limit};

balsa_sdk::include_proto!("lock.v1");

/// By the lock's name.
const LEASES: Map<String, Lease> = Map::new("leases");
/// The same leases by the time at which they expire, in milliseconds.
const EXPIRIES: Map<(u64, String), ()> = Map::new("expiries");
/// The last token that was given out. A counter and not the log's index, which would begin anew in a cluster that is restored
/// from a backup.
const LAST_TOKEN: Item<u64> = Item::new("last-token");

/// Bytes of a name or owner.
const TEXT_MAX: usize = 256;
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Leases of one list.
const LIST_MAX: usize = 1000;

struct Locks;

impl Lock for Locks {
    fn acquire(ctx: &mut Context, request: AcquireRequest) -> Result<AcquireResponse, Status> {
        let AcquireRequest { name, owner, ttl_ms } = request;
        check_text("name", &name)?;
        check_text("owner", &owner)?;
        check_ttl(ttl_ms)?;
        lease::sweep(ctx)?;
        let now_ms = ctx.now_ms();
        let lease = match lease::held(ctx, &name)? {
            Some(lease) if lease.owner != owner => {
                return Ok(AcquireResponse { acquired: false, lease: Some(lease), now_ms });
            }
            Some(lease) => lease::extend(ctx, lease, now_ms + ttl_ms)?,
            None => lease::begin(ctx, name, owner, now_ms + ttl_ms)?,
        };
        Ok(AcquireResponse { acquired: true, lease: Some(lease), now_ms })
    }

    fn renew(ctx: &mut Context, request: RenewRequest) -> Result<RenewResponse, Status> {
        check_text("name", &request.name)?;
        check_ttl(request.ttl_ms)?;
        let now_ms = ctx.now_ms();
        let lease = match lease::held(ctx, &request.name)? {
            Some(lease) if lease.token == request.token => lease,
            holder => return Err(not_held(&request, holder)),
        };
        let lease = lease::set_expiry(ctx, lease, now_ms + request.ttl_ms)?;
        Ok(RenewResponse { lease: Some(lease), now_ms })
    }

    fn release(ctx: &mut Context, request: ReleaseRequest) -> Result<ReleaseResponse, Status> {
        check_text("name", &request.name)?;
        let lease = lease::held(ctx, &request.name)?.filter(|lease| lease.token == request.token);
        if let Some(lease) = &lease {
            lease::end(ctx, lease);
        }
        Ok(ReleaseResponse { released: lease.is_some() })
    }

    fn inspect(ctx: &View, request: InspectRequest) -> Result<InspectResponse, Status> {
        check_text("name", &request.name)?;
        Ok(InspectResponse { lease: lease::held(ctx, &request.name)?, now_ms: ctx.now_ms() })
    }

    fn list(ctx: &View, request: ListRequest) -> Result<ListResponse, Status> {
        let now_ms = ctx.now_ms();
        let limit = page_limit(request.limit, LIST_MAX);
        let page = LEASES.prefix(ctx, &Start(request.prefix)).page(ctx, limit, &request.page_token)?;
        let leases = page.entries.into_iter().map(|(_, lease)| lease);
        let leases = leases.filter(|lease| lease::is_held(lease, now_ms)).collect();
        Ok(ListResponse { leases, next_page_token: page.next, now_ms })
    }
}

balsa_sdk::export!(LockServer<Locks>);

fn check_text(what: &str, text: &str) -> Result<(), Status> {
    match text.len() {
        1..=TEXT_MAX => Ok(()),
        length => Err(Status::invalid_argument(format!("{what} has {length} bytes, not 1 to {TEXT_MAX}"))),
    }
}

fn check_ttl(ttl_ms: u64) -> Result<(), Status> {
    let most = TTL_MAX.as_millis() as u64;
    if (1..=most).contains(&ttl_ms) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("ttl_ms is {ttl_ms}, not 1 to {most}")))
}

fn not_held(request: &RenewRequest, holder: Option<Lease>) -> Status {
    let RenewRequest { name, token, .. } = request;
    let message = match &holder {
        Some(lease) => format!("the lease {token} of {name} is over: {} has it with {}", lease.owner, lease.token),
        None => format!("the lease {token} of {name} is over, and nobody has it now"),
    };
    Status::failed_precondition(message).with_detail(&NotHeld { holder })
}
