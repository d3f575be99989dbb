//! The queries: how much there is, and what a message looks like.

use balsa_sdk::{Status, View, page_limit};

use crate::queue::Open;
use crate::rows::{BODIES, DEAD, MessageRow, QUEUES, QueueRow, SCHEDULE};
use crate::{GetMessageRequest, GetMessageResponse, GetStatsResponse, ListQueuesRequest, ListQueuesResponse};
use crate::{Message, Settings, State, Stats, limits};

pub(crate) fn of_one(ctx: &View, queue: &str) -> Result<GetStatsResponse, Status> {
    let Open { name, row } = Open::existing(ctx, queue.to_owned())?;
    Ok(GetStatsResponse { stats: Some(stats(ctx, name, &row)?), now_ms: ctx.now_ms() })
}

pub(crate) fn of_all(ctx: &View, request: ListQueuesRequest) -> Result<ListQueuesResponse, Status> {
    let limit = page_limit(request.limit, limits::QUEUES_MAX);
    let page = QUEUES.range(ctx, ..).page(ctx, limit, &request.page_token)?;
    let queues = page.entries.into_iter().map(|(name, row)| stats(ctx, name, &row)).collect::<Result<_, _>>()?;
    Ok(ListQueuesResponse { queues, next_page_token: page.next, now_ms: ctx.now_ms() })
}

fn stats(ctx: &View, name: String, row: &QueueRow) -> Result<Stats, Status> {
    let QueueRow { max_attempts, visibility_ms, waiting, in_flight, dead, .. } = *row;
    let next = SCHEDULE.prefix(ctx, &(&name,)).limit(1).keys().next().transpose()?;
    let next_ms = next.map_or(0, |(_, at_ms, _)| at_ms);
    Ok(Stats {
        queue: name,
        settings: Some(Settings { max_attempts, visibility_ms }),
        waiting,
        in_flight,
        dead,
        next_ms,
    })
}

pub(crate) fn message(ctx: &View, request: GetMessageRequest) -> Result<GetMessageResponse, Status> {
    let queue = Open::existing(ctx, request.queue)?;
    let key = (&queue.name, request.id);
    let message = match (queue.message(ctx, request.id)?, DEAD.get(ctx, &key)?) {
        (Some(row), _) if row.in_flight => shown(request.id, row, State::InFlight),
        (Some(row), _) => shown(request.id, row, State::Waiting),
        (None, Some(row)) => shown(request.id, row, State::Dead),
        (None, None) => return Err(Status::not_found(format!("{} has no message {}", queue.name, request.id))),
    };
    let body = BODIES.get_or_default(ctx, &key)?;
    Ok(GetMessageResponse { message: Some(Message { body, ..message }) })
}

/// Without the body.
pub(crate) fn shown(id: u64, row: MessageRow, state: State) -> Message {
    let MessageRow { enqueued_ms, since_ms, attempts, last_error, .. } = row;
    Message { id, state: state.into(), body: Default::default(), enqueued_ms, since_ms, attempts, last_error }
}
