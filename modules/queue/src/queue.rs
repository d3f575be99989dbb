//! A queue in the hands of a command, and the steps in the life of a message.
//!
//! Each step changes the rows of one message and the counts of its queue, and nothing else does. The queue's own row is
//! written once, by [`Open::save`], at the end of the command.

use balsa_sdk::{Context, Status, View};

use crate::rows::{BODIES, DEAD, MESSAGES, MessageRow, QUEUES, QueueRow, SCHEDULE};
use crate::{ConfigureRequest, ConfigureResponse, EnqueueRequest, EnqueueResponse, Settings, limits};

pub(crate) fn configure(ctx: &mut Context, request: ConfigureRequest) -> Result<ConfigureResponse, Status> {
    let settings = limits::settings(&request.settings.unwrap_or_default())?;
    let mut queue = Open::or_new(ctx, request.queue)?;
    queue.row.max_attempts = settings.max_attempts;
    queue.row.visibility_ms = settings.visibility_ms;
    queue.save(ctx)?;
    Ok(ConfigureResponse { settings: Some(settings) })
}

pub(crate) fn enqueue(ctx: &mut Context, request: EnqueueRequest) -> Result<EnqueueResponse, Status> {
    limits::check_body(&request.body)?;
    limits::check_delay(request.delay_ms)?;
    let mut queue = Open::or_new(ctx, request.queue)?;
    queue.row.last_id += 1;
    let id = queue.row.last_id;
    BODIES.insert(ctx, &(&queue.name, id), &request.body)?;
    let message = MessageRow { enqueued_ms: ctx.now_ms(), ..MessageRow::default() };
    let available_ms = ctx.now_ms() + request.delay_ms;
    queue.wait(ctx, id, message, available_ms)?;
    queue.save(ctx)?;
    Ok(EnqueueResponse { id, available_ms })
}

/// A queue, read by a command and not yet written.
pub(crate) struct Open {
    pub(crate) name: String,
    pub(crate) row: QueueRow,
}

impl Open {
    pub(crate) fn existing(ctx: &View, name: String) -> Result<Self, Status> {
        limits::check_name(&name)?;
        match QUEUES.get(ctx, &name)? {
            Some(row) => Ok(Self { name, row }),
            None => Err(Status::not_found(format!("there is no queue {name}"))),
        }
    }

    fn or_new(ctx: &View, name: String) -> Result<Self, Status> {
        limits::check_name(&name)?;
        if let Some(row) = QUEUES.get(ctx, &name)? {
            return Ok(Self { name, row });
        }
        let Settings { max_attempts, visibility_ms } = limits::settings(&Settings::default())?;
        Ok(Self { name, row: QueueRow { max_attempts, visibility_ms, ..QueueRow::default() } })
    }

    pub(crate) fn save(self, ctx: &mut Context) -> Result<(), Status> {
        QUEUES.insert(ctx, &self.name, &self.row)
    }

    pub(crate) fn message(&self, ctx: &View, id: u64) -> Result<Option<MessageRow>, Status> {
        MESSAGES.get(ctx, &(&self.name, id))
    }

    /// A message that is new, was given back or was dead waits.
    pub(crate) fn wait(&mut self, ctx: &mut Context, id: u64, message: MessageRow, at_ms: u64) -> Result<(), Status> {
        self.row.waiting += 1;
        self.schedule(ctx, id, MessageRow { in_flight: false, since_ms: at_ms, ..message })
    }

    /// A message that was taken out is in flight until then.
    pub(crate) fn fly(&mut self, ctx: &mut Context, id: u64, message: MessageRow, until_ms: u64) -> Result<(), Status> {
        self.row.in_flight += 1;
        self.schedule(ctx, id, MessageRow { in_flight: true, since_ms: until_ms, ..message })
    }

    /// A message that was taken out is dead.
    pub(crate) fn bury(&mut self, ctx: &mut Context, id: u64, message: MessageRow) -> Result<(), Status> {
        self.row.dead += 1;
        DEAD.insert(ctx, &(&self.name, id), &MessageRow { in_flight: false, since_ms: ctx.now_ms(), ..message })
    }

    /// A dead letter is taken out, to wait or to be forgotten.
    pub(crate) fn exhume(&mut self, ctx: &mut Context, id: u64) -> Result<Option<MessageRow>, Status> {
        let message = DEAD.take(ctx, &(&self.name, id))?;
        self.row.dead -= u64::from(message.is_some());
        Ok(message)
    }

    /// A message that waited or was in flight is taken out: what it does next is another step.
    pub(crate) fn take(&mut self, ctx: &mut Context, id: u64, message: &MessageRow) {
        let count = if message.in_flight { &mut self.row.in_flight } else { &mut self.row.waiting };
        *count -= 1;
        MESSAGES.remove(ctx, &(&self.name, id));
        SCHEDULE.remove(ctx, &(&self.name, message.since_ms, id));
    }

    /// The end of a message that was taken out.
    pub(crate) fn forget(&self, ctx: &mut Context, id: u64) {
        BODIES.remove(ctx, &(&self.name, id));
    }

    fn schedule(&self, ctx: &mut Context, id: u64, message: MessageRow) -> Result<(), Status> {
        SCHEDULE.insert(ctx, &(&self.name, message.since_ms, id), &())?;
        MESSAGES.insert(ctx, &(&self.name, id), &message)
    }
}
