//! The default module: `kvstore.v1.KvStore`.
//!
//! What it promises is written where its users look: in `proto/kvstore.proto`. Here is how it keeps it, one noun a file:
//! - [`key`]: which state key holds a client's key,
//! - [`row`]: what is stored under it: version, indexes and value,
//! - [`entry`]: put, get and delete of one key,
//! - [`range`]: list, count and delete of many, and page tokens,
//! - [`txn`]: comparisons and operations in one step, and what they may cost together.
//!
//! Methods take a request apart, check it against [`limits`] and do what it says; the host takes care that all of a call
//! happens or nothing.

mod entry;
mod key;
mod limits;
mod range;
#[cfg(feature = "rewrite")]
mod rewrite;
mod row;
mod txn;

#[cfg(test)]
mod tests;

use balsa_sdk::{Context, Status, View};

balsa_sdk::include_proto!("kvstore.v1");

struct Kv;

impl KvStore for Kv {
    fn put(ctx: &mut Context, request: PutRequest) -> Result<PutResponse, Status> {
        entry::put(ctx, request)
    }

    fn get(ctx: &View, request: GetRequest) -> Result<GetResponse, Status> {
        entry::get(ctx, request)
    }

    fn delete(ctx: &mut Context, request: DeleteRequest) -> Result<DeleteResponse, Status> {
        entry::delete(ctx, request)
    }

    fn delete_range(ctx: &mut Context, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        range::delete(ctx, request)
    }

    fn list(ctx: &View, request: ListRequest) -> Result<ListResponse, Status> {
        range::list(ctx, request, limits::RESPONSE_BYTES_MAX)
    }

    fn count(ctx: &View, request: CountRequest) -> Result<CountResponse, Status> {
        range::count(ctx, request)
    }

    fn txn(ctx: &mut Context, request: TxnRequest) -> Result<TxnResponse, Status> {
        txn::run(ctx, request)
    }
}

#[cfg(not(feature = "rewrite"))]
balsa_sdk::export!(KvStoreServer<Kv>);
#[cfg(feature = "rewrite")]
balsa_sdk::export!(KvStoreServer<Kv>, migrate = rewrite::migrate);
