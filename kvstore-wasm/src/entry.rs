//! Put, get and delete of one key.
//!
//! A put costs one read and one write of the state. The read fetches no more than the row's header unless the request asks
//! about the value.

use balsa_sdk::{Bytes, Context, Status, View};

use crate::put_request::Condition;
use crate::row::Header;
use crate::{DeleteRequest, DeleteResponse, GetRequest, GetResponse, PutRequest, PutResponse};
use crate::{key, limits, row};

/// What a put finds: the header, and the value if it was needed.
struct Found {
    header: Header,
    value: Option<Bytes>,
}

pub(crate) fn put(ctx: &mut Context, request: PutRequest) -> Result<PutResponse, Status> {
    limits::check_value(&request.value)?;
    let key = key::stored(&request.key)?;
    let needs_value = request.prev_kv || matches!(request.condition, Some(Condition::IfValue(_)));
    let found = if needs_value { find(ctx, &key)? } else { find_header(ctx, &key)? };

    let succeeded = request.condition.is_none_or(|condition| holds(&condition, &found));
    let mut header = found.header;
    if succeeded {
        header = header.next(ctx.index());
        row::put(ctx, &key, header, &request.value);
    }
    let old = if request.prev_kv { found.value } else { None };
    Ok(PutResponse {
        succeeded,
        version: header.version,
        create_index: header.create_index,
        mod_index: header.mod_index,
        prev_kv: old.map(|value| row::key_value(request.key, found.header, value)),
    })
}

fn find(ctx: &View, key: &[u8]) -> Result<Found, Status> {
    Ok(match row::get(ctx, key)? {
        Some((header, value)) => Found { header, value: Some(value) },
        None => Found { header: Header::ABSENT, value: None },
    })
}

fn find_header(ctx: &View, key: &[u8]) -> Result<Found, Status> {
    Ok(Found { header: row::header(ctx, key)?, value: None })
}

fn holds(condition: &Condition, found: &Found) -> bool {
    match condition {
        Condition::IfAbsent(absent) => *absent == (found.header == Header::ABSENT),
        Condition::IfValue(value) => found.value.as_ref() == Some(value),
        Condition::IfVersion(version) => *version == found.header.version,
        Condition::IfModIndex(index) => *index == found.header.mod_index,
    }
}

pub(crate) fn get(ctx: &View, request: GetRequest) -> Result<GetResponse, Status> {
    let key = key::stored(&request.key)?;
    let found = row::get(ctx, &key)?;
    Ok(GetResponse { kv: found.map(|(header, value)| row::key_value(request.key, header, value)) })
}

pub(crate) fn delete(ctx: &mut Context, request: DeleteRequest) -> Result<DeleteResponse, Status> {
    let key = key::stored(&request.key)?;
    let found = if request.prev_kv { row::get(ctx, &key)? } else { None };
    let prev_kv = found.map(|(header, value)| row::key_value(request.key, header, value));
    Ok(DeleteResponse { deleted: ctx.delete(&key), prev_kv })
}
