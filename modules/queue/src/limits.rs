//! All limits, and the checks of a request against them.

use balsa_sdk::Status;

use crate::Settings;

const QUEUE_NAME_MAX: usize = 128;
/// Bodies of a Dequeue must fit a response, which is at most about 4 MiB.
pub(crate) const BODY_MAX: usize = 256 * 1024;
pub(crate) const DELIVERED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Messages of a Dequeue and receipts of an Ack.
pub(crate) const BATCH_MAX: usize = 100;
/// Messages that one Dequeue looks at: there may be many for which this was the last attempt.
pub(crate) const STEPS_MAX: usize = 500;
/// Dead letters of a call.
pub(crate) const DEAD_MAX: usize = 500;
/// Queues of a list.
pub(crate) const QUEUES_MAX: usize = 100;

const ERROR_MAX: usize = 1024;
const ATTEMPTS_MAX: u32 = 1000;
const SECOND_MS: u64 = 1000;
const HOUR_MS: u64 = 3600 * SECOND_MS;
const VISIBILITY_MAX_MS: u64 = 12 * HOUR_MS;
const DELAY_MAX_MS: u64 = 30 * 24 * HOUR_MS;

/// What 0 means.
const ATTEMPTS: u32 = 5;
const VISIBILITY_MS: u64 = 30 * SECOND_MS;

pub(crate) fn settings(asked: &Settings) -> Result<Settings, Status> {
    at_most("max_attempts", u64::from(asked.max_attempts), u64::from(ATTEMPTS_MAX))?;
    Ok(Settings {
        max_attempts: if asked.max_attempts == 0 { ATTEMPTS } else { asked.max_attempts },
        visibility_ms: visibility(asked.visibility_ms, VISIBILITY_MS)?,
    })
}

pub(crate) fn visibility(asked_ms: u64, default_ms: u64) -> Result<u64, Status> {
    at_most("visibility_ms", asked_ms, VISIBILITY_MAX_MS)?;
    Ok(if asked_ms == 0 { default_ms } else { asked_ms })
}

pub(crate) fn check_delay(delay_ms: u64) -> Result<(), Status> {
    at_most("delay_ms", delay_ms, DELAY_MAX_MS)
}

pub(crate) fn check_name(queue: &str) -> Result<(), Status> {
    if queue.is_empty() {
        return Err(Status::invalid_argument("queue is empty"));
    }
    at_most("the length of queue", queue.len() as u64, QUEUE_NAME_MAX as u64)
}

pub(crate) fn check_body(body: &[u8]) -> Result<(), Status> {
    at_most("the length of body", body.len() as u64, BODY_MAX as u64)
}

pub(crate) fn check_error(error: &str) -> Result<(), Status> {
    at_most("the length of error", error.len() as u64, ERROR_MAX as u64)
}

pub(crate) fn check_count(what: &str, count: usize, most: usize) -> Result<(), Status> {
    at_most(&format!("the number of {what}"), count as u64, most as u64)
}

fn at_most(what: &str, value: u64, most: u64) -> Result<(), Status> {
    if value <= most {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("{what} is {value}: at most {most} is allowed")))
}
