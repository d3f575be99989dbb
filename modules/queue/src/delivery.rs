//! Dequeue, and what can be said with a receipt.

use balsa_sdk::{Context, Status, View, page_limit};

use crate::queue::Open;
use crate::rows::{BODIES, MessageRow, SCHEDULE};
use crate::{AckRequest, AckResponse, Delivery, DequeueRequest, DequeueResponse};
use crate::{ExtendRequest, ExtendResponse, NackRequest, NackResponse, limits};

/// Hands out what is due, in the order of the schedule. A message whose attempts are used up is buried on the way. It
/// reads what is due before `now`, and writes behind it.
pub(crate) fn dequeue(ctx: &mut Context, request: DequeueRequest) -> Result<DequeueResponse, Status> {
    let mut queue = Open::existing(ctx, request.queue)?;
    let until_ms = ctx.now_ms() + limits::visibility(request.visibility_ms, queue.row.visibility_ms)?;
    // Who does not say how many gets one, not all there are.
    let limit = page_limit(request.limit.max(1), limits::BATCH_MAX);
    let due = (queue.name.clone(), 0, 0)..(queue.name.clone(), ctx.now_ms() + 1, 0);

    let mut deliveries = Vec::new();
    let mut room = limits::DELIVERED_BYTES_MAX;
    for key in SCHEDULE.range(ctx, due.clone()).limit(limits::STEPS_MAX).keys() {
        let (_, _, id) = key?;
        let Some(message) = queue.message(ctx, id)? else { return Err(broken(id)) };
        if message.attempts >= queue.row.max_attempts {
            queue.take(ctx, id, &message);
            queue.bury(ctx, id, message)?;
            continue;
        }
        if deliveries.len() == limit {
            break;
        }
        let body = BODIES.get_or_default(ctx, &(&queue.name, id))?;
        if body.len() > room {
            break;
        }
        room -= body.len();
        let message = deliver(ctx, &mut queue, id, message, until_ms)?;
        let (receipt, attempt) = (Receipt::new(id, &message).to_string(), message.attempts);
        let (enqueued_ms, visible_ms) = (message.enqueued_ms, until_ms);
        deliveries.push(Delivery { id, receipt, body, attempt, enqueued_ms, visible_ms });
    }
    queue.save(ctx)?;
    let more = SCHEDULE.range(ctx, due).limit(1).keys().next().is_some();
    Ok(DequeueResponse { deliveries, more })
}

fn deliver(
    ctx: &mut Context,
    queue: &mut Open,
    id: u64,
    message: MessageRow,
    until_ms: u64,
) -> Result<MessageRow, Status> {
    queue.take(ctx, id, &message);
    let (attempts, deliveries) = (message.attempts + 1, message.deliveries + 1);
    let message = MessageRow { attempts, deliveries, ..message };
    queue.fly(ctx, id, message.clone(), until_ms)?;
    Ok(message)
}

pub(crate) fn ack(ctx: &mut Context, request: AckRequest) -> Result<AckResponse, Status> {
    limits::check_count("receipts", request.receipts.len(), limits::BATCH_MAX)?;
    let mut queue = Open::existing(ctx, request.queue)?;
    let mut acked = 0;
    for receipt in &request.receipts {
        let receipt = Receipt::parse(receipt)?;
        if let Some(message) = receipt.find(ctx, &queue)? {
            queue.take(ctx, receipt.id, &message);
            queue.forget(ctx, receipt.id);
            acked += 1;
        }
    }
    queue.save(ctx)?;
    Ok(AckResponse { acked })
}

pub(crate) fn nack(ctx: &mut Context, request: NackRequest) -> Result<NackResponse, Status> {
    limits::check_delay(request.delay_ms)?;
    limits::check_error(&request.error)?;
    let mut queue = Open::existing(ctx, request.queue)?;
    let (id, message) = Receipt::parse(&request.receipt)?.take(ctx, &mut queue)?;
    let message = MessageRow { last_error: request.error, ..message };
    let dead = message.attempts >= queue.row.max_attempts;
    let available_ms = if dead { 0 } else { ctx.now_ms() + request.delay_ms };
    if dead {
        queue.bury(ctx, id, message)?;
    } else {
        queue.wait(ctx, id, message, available_ms)?;
    }
    queue.save(ctx)?;
    Ok(NackResponse { dead, available_ms })
}

pub(crate) fn extend(ctx: &mut Context, request: ExtendRequest) -> Result<ExtendResponse, Status> {
    let mut queue = Open::existing(ctx, request.queue)?;
    let visible_ms = ctx.now_ms() + limits::visibility(request.visibility_ms, queue.row.visibility_ms)?;
    let (id, message) = Receipt::parse(&request.receipt)?.take(ctx, &mut queue)?;
    queue.fly(ctx, id, message, visible_ms)?;
    queue.save(ctx)?;
    Ok(ExtendResponse { visible_ms })
}

/// Names one delivery of a message, as `17.1`: the first one of message 17.
struct Receipt {
    id: u64,
    delivery: u64,
}

impl Receipt {
    fn new(id: u64, message: &MessageRow) -> Self {
        Self { id, delivery: message.deliveries }
    }

    fn parse(text: &str) -> Result<Self, Status> {
        let parse =
            |(id, delivery): (&str, &str)| Some(Self { id: id.parse().ok()?, delivery: delivery.parse().ok()? });
        let receipt = text.split_once('.').and_then(parse);
        receipt.ok_or_else(|| Status::invalid_argument(format!("{text:?} is no receipt: Dequeue gives them")))
    }

    /// The message, if it is in flight and was not handed out again. That its time is over makes no difference.
    fn find(&self, ctx: &View, queue: &Open) -> Result<Option<MessageRow>, Status> {
        let message = queue.message(ctx, self.id)?;
        Ok(message.filter(|message| message.in_flight && message.deliveries == self.delivery))
    }

    fn take(&self, ctx: &mut Context, queue: &mut Open) -> Result<(u64, MessageRow), Status> {
        let Some(message) = self.find(ctx, queue)? else {
            return Err(Status::failed_precondition(format!("the receipt {self} is not good any more")));
        };
        queue.take(ctx, self.id, &message);
        Ok((self.id, message))
    }
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.id, self.delivery)
    }
}

fn broken(id: u64) -> Status {
    Status::data_loss(format!("message {id} is in the schedule, and nowhere else"))
}
