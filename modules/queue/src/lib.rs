//! Work queues: the example of rows that are found in more than one order.
//!
//! What they promise is in `proto/queue.proto`. Here is how they keep it, one noun a file:
//! - [`rows`]: what is stored, and in which order,
//! - [`queue`]: a queue in the hands of a command, and the steps in the life of a message,
//! - [`delivery`]: dequeue, and what can be said with a receipt,
//! - [`dead`]: dead letters,
//! - [`stats`]: the queries,
//! - [`limits`]: all limits.
//!
//! Every message that is not dead has its place in the schedule, by the time at which it is available: a message in flight is
//! one that is available later. So there is one index, a timeout needs nobody to notice it, and each step costs a few rows
//! however long the queue is.

mod dead;
mod delivery;
mod limits;
mod queue;
mod rows;
mod stats;

#[cfg(test)]
mod tests;

use balsa_sdk::{Context, Status, View};

balsa_sdk::include_proto!("queue.v1");

struct Queues;

impl Queue for Queues {
    fn configure(ctx: &mut Context, request: ConfigureRequest) -> Result<ConfigureResponse, Status> {
        queue::configure(ctx, request)
    }

    fn enqueue(ctx: &mut Context, request: EnqueueRequest) -> Result<EnqueueResponse, Status> {
        queue::enqueue(ctx, request)
    }

    fn dequeue(ctx: &mut Context, request: DequeueRequest) -> Result<DequeueResponse, Status> {
        delivery::dequeue(ctx, request)
    }

    fn ack(ctx: &mut Context, request: AckRequest) -> Result<AckResponse, Status> {
        delivery::ack(ctx, request)
    }

    fn nack(ctx: &mut Context, request: NackRequest) -> Result<NackResponse, Status> {
        delivery::nack(ctx, request)
    }

    fn extend(ctx: &mut Context, request: ExtendRequest) -> Result<ExtendResponse, Status> {
        delivery::extend(ctx, request)
    }

    fn requeue(ctx: &mut Context, request: RequeueRequest) -> Result<RequeueResponse, Status> {
        dead::requeue(ctx, request)
    }

    fn purge(ctx: &mut Context, request: PurgeRequest) -> Result<PurgeResponse, Status> {
        dead::purge(ctx, request)
    }

    fn get_stats(ctx: &View, request: GetStatsRequest) -> Result<GetStatsResponse, Status> {
        stats::of_one(ctx, &request.queue)
    }

    fn list_queues(ctx: &View, request: ListQueuesRequest) -> Result<ListQueuesResponse, Status> {
        stats::of_all(ctx, request)
    }

    fn list_dead(ctx: &View, request: ListDeadRequest) -> Result<ListDeadResponse, Status> {
        dead::list(ctx, request)
    }

    fn get_message(ctx: &View, request: GetMessageRequest) -> Result<GetMessageResponse, Status> {
        stats::message(ctx, request)
    }
}

balsa_sdk::export!(QueueServer<Queues>);
