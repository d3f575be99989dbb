//! Dead letters: looking at them, giving them another chance, and getting rid of them.

use balsa_sdk::{Context, Status, View, page_limit};

use crate::queue::Open;
use crate::rows::{DEAD, MessageRow};
use crate::{ListDeadRequest, ListDeadResponse, PurgeRequest, PurgeResponse, RequeueRequest, RequeueResponse};
use crate::{State, limits, stats};

pub(crate) fn requeue(ctx: &mut Context, request: RequeueRequest) -> Result<RequeueResponse, Status> {
    let mut queue = Open::existing(ctx, request.queue)?;
    let mut requeued = 0;
    for id in chosen(ctx, &queue, request.ids)? {
        if let Some(message) = queue.exhume(ctx, id)? {
            let at_ms = ctx.now_ms();
            queue.wait(ctx, id, MessageRow { attempts: 0, ..message }, at_ms)?;
            requeued += 1;
        }
    }
    let more = queue.row.dead > 0;
    queue.save(ctx)?;
    Ok(RequeueResponse { requeued, more })
}

pub(crate) fn purge(ctx: &mut Context, request: PurgeRequest) -> Result<PurgeResponse, Status> {
    let mut queue = Open::existing(ctx, request.queue)?;
    let mut purged = 0;
    for id in chosen(ctx, &queue, request.ids)? {
        if queue.exhume(ctx, id)?.is_some() {
            queue.forget(ctx, id);
            purged += 1;
        }
    }
    let more = queue.row.dead > 0;
    queue.save(ctx)?;
    Ok(PurgeResponse { purged, more })
}

/// The ones that were asked for, or the oldest.
fn chosen(ctx: &View, queue: &Open, ids: Vec<u64>) -> Result<Vec<u64>, Status> {
    limits::check_count("ids", ids.len(), limits::DEAD_MAX)?;
    if !ids.is_empty() {
        return Ok(ids);
    }
    let keys = DEAD.prefix(ctx, &(&queue.name,)).limit(limits::DEAD_MAX).keys();
    keys.map(|key| key.map(|(_, id)| id)).collect()
}

pub(crate) fn list(ctx: &View, request: ListDeadRequest) -> Result<ListDeadResponse, Status> {
    let queue = Open::existing(ctx, request.queue)?;
    let limit = page_limit(request.limit, limits::DEAD_MAX);
    let page = DEAD.prefix(ctx, &(&queue.name,)).page(ctx, limit, &request.page_token)?;
    let messages = page.entries.into_iter().map(|((_, id), row)| stats::shown(id, row, State::Dead)).collect();
    Ok(ListDeadResponse { messages, next_page_token: page.next })
}
