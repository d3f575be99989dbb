//! List, count and delete of many keys.
//!
//! All three have bounded work in one call. The reading ones go on from a page token: the last key that was read, behind a
//! byte that says in which direction. To clients it is opaque.

use balsa_sdk::prost::Message;
use balsa_sdk::{Bytes, Context, Page, Range, Status, View, page_limit};

use crate::limits::{COUNT_ITEMS_MAX, DELETE_ITEMS_MAX, LIST_ITEMS_MAX};
use crate::{
    CountRequest, CountResponse, DeleteRangeRequest, DeleteRangeResponse, KeyValue, ListRequest, ListResponse,
};
use crate::{key, limits, row};

/// First byte of a page token.
const FORWARD: u8 = 1;
const REVERSE: u8 = 2;

/// Bytes of keys that one delete reads: a page of the host's.
pub(crate) const DELETE_BYTES_MAX: usize = balsa_sdk::limits::SCAN_BYTES_MAX;

/// One page of at most `bytes_max` encoded bytes, token and framing not counted.
pub(crate) fn list(ctx: &View, request: ListRequest, bytes_max: usize) -> Result<ListResponse, Status> {
    let mut range = bounds(&request.prefix, &request.start, &request.end)?;
    if request.reverse {
        range = range.reverse();
    }
    if request.keys_only {
        range = range.keys_only();
    }
    let direction = if request.reverse { REVERSE } else { FORWARD };
    let range = after_token(range, &request.page_token, direction)?;
    let limit = page_limit(request.limit, LIST_ITEMS_MAX);

    let mut kvs = Vec::new();
    let complete = fill(ctx, range, request.keys_only, limit, bytes_max, &mut kvs)?;
    let next_page_token = match kvs.last() {
        Some(last) if !complete => token(direction, &last.key),
        None if !complete => return Err(limits::response_too_large()),
        _ => Bytes::new(),
    };
    Ok(ListResponse { kvs, next_page_token })
}

/// Reads items into `kvs` until there are `limit` of them or `bytes_max` is reached; whether that was all of the range.
fn fill(
    ctx: &View,
    range: Range,
    keys_only: bool,
    limit: usize,
    mut bytes_max: usize,
    kvs: &mut Vec<KeyValue>,
) -> Result<bool, Status> {
    let mut complete = true;
    for page in ctx.pages(range.limit(limit)) {
        complete = !page.has_more();
        for (stored, row) in &page {
            let kv = item(&page, stored, row, keys_only)?;
            let Some(rest) = bytes_max.checked_sub(framed_len(&kv)) else { return Ok(false) };
            bytes_max = rest;
            kvs.push(kv);
        }
    }
    Ok(complete)
}

fn item(page: &Page, stored: &[u8], row: &[u8], keys_only: bool) -> Result<KeyValue, Status> {
    let key = page.slice(key::client(stored));
    if keys_only {
        return Ok(KeyValue { key, ..KeyValue::default() });
    }
    let (header, value) = row::decode(row)?;
    Ok(row::key_value(key, header, page.slice(value)))
}

/// Bytes of a message within another: itself, its tag, and its length of at most five bytes.
pub(crate) fn framed_len(message: &impl Message) -> usize {
    message.encoded_len() + 6
}

pub(crate) fn count(ctx: &View, request: CountRequest) -> Result<CountResponse, Status> {
    let range = bounds(&request.prefix, &request.start, &request.end)?.keys_only().page_bytes(256 * 1024);
    let range = after_token(range, &request.page_token, FORWARD)?;
    let mut response = CountResponse::default();
    for page in ctx.pages(range.limit(COUNT_ITEMS_MAX)) {
        response.count += page.len() as u64;
        response.next_page_token = if page.has_more() { page_token(&page) } else { Bytes::new() };
    }
    Ok(response)
}

pub(crate) fn delete(ctx: &mut Context, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
    let page = doomed(ctx, &request, DELETE_ITEMS_MAX, DELETE_BYTES_MAX)?;
    delete_page(ctx, &page);
    Ok(DeleteRangeResponse { deleted: page.len() as u64, more: page.has_more() })
}

/// The keys that a delete would delete, if they are at most so many and so long together.
pub(crate) fn doomed(
    ctx: &View,
    request: &DeleteRangeRequest,
    items_max: usize,
    bytes_max: usize,
) -> Result<Page, Status> {
    let everything = request.prefix.is_empty() && request.start.is_empty() && request.end.is_empty();
    if everything && !request.all {
        return Err(Status::invalid_argument("the range is all keys; to delete them, set `all`"));
    }
    let range = bounds(&request.prefix, &request.start, &request.end)?;
    Ok(ctx.scan(&range.keys_only().limit(items_max).page_bytes(bytes_max)))
}

pub(crate) fn delete_page(ctx: &mut Context, page: &Page) {
    for (stored, _) in page {
        ctx.delete(stored);
    }
}

/// The range of state keys for what all range requests have.
fn bounds(prefix: &[u8], start: &[u8], end: &[u8]) -> Result<Range, Status> {
    let range = Range::prefix(key::bound(prefix)?).starting_at(&key::bound(start)?);
    Ok(if end.is_empty() { range } else { range.ending_before(&key::bound(end)?) })
}

fn page_token(page: &Page) -> Bytes {
    page.last_key().map_or_else(Bytes::new, |stored| token(FORWARD, key::client(stored)))
}

fn token(direction: u8, key: &[u8]) -> Bytes {
    [&[direction], key].concat().into()
}

/// The rest of `range` behind the page that ended with `token`.
fn after_token(range: Range, token: &[u8], direction: u8) -> Result<Range, Status> {
    let Some((given, key)) = token.split_first() else { return Ok(range) };
    let last = key::bound(key)?;
    if *given != direction || !range.contains(&last) {
        return Err(Status::invalid_argument("page_token is not of this range and direction"));
    }
    Ok(range.behind(&last))
}
