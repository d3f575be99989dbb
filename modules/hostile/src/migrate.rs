//! What the module does when it takes the place of another: it behaves, or misbehaves in the way that the state asks for.
//!
//! A migration has no request, so it is told by the value under `migrate`, which a `Put` has left there:
//!
//! | value | what it does | how it should end |
//! |---|---|---|
//! | none | puts the old module's version under `migrated` | well |
//! | `spin` | writes "trace", loops for ever | out_of_fuel |
//! | `trap` | writes "trace", panics | unreachable |
//! | `writes N` | puts N rows | write_limit above the limit |
//! | `bytes N` | puts rows of 1 MiB, N bytes together | write_limit above the limit |
//! | `deletes N` | deletes N keys that may not be there | write_limit above the limit |
//! | `answer N` | writes "trace", returns code N without output | bad_result, unless N is from 0 to 16 |
//! | `refuse` | writes "trace", returns FAILED_PRECONDITION "hostile refuses to migrate" | that status |

use balsa_sdk::{Context, Status};

use crate::{leave_trace, raw, spin};

/// Tells a migration what to do.
const ORDER: &[u8] = b"migrate";
/// Left behind by one that behaves.
const MIGRATED: &[u8] = b"migrated";
const MEGABYTE: u32 = 1024 * 1024;

pub(crate) fn migrate(ctx: &mut Context, from: &str) -> Result<(), Status> {
    let order = ctx.get(ORDER).unwrap_or_default();
    let order = String::from_utf8_lossy(&order).into_owned();
    let (verb, number) = order.split_once(' ').unwrap_or((&order, "0"));
    let number: i32 = number.parse().map_err(|_| Status::invalid_argument(format!("`{number}` is not a number")))?;
    obey(ctx, verb, number, from)
}

fn obey(ctx: &mut Context, verb: &str, number: i32, from: &str) -> Result<(), Status> {
    let count = number.unsigned_abs();
    match verb {
        "" => ctx.put(MIGRATED, from.as_bytes()),
        "spin" => {
            leave_trace(ctx);
            spin();
        }
        "trap" => {
            leave_trace(ctx);
            panic!("hostile panics while it migrates");
        }
        "writes" => (0..count).for_each(|row| ctx.put(&key(row), b"")),
        "bytes" => {
            let value = vec![b'm'; MEGABYTE as usize];
            let sizes = (0..count).step_by(MEGABYTE as usize).map(|at| (count - at).min(MEGABYTE));
            sizes.enumerate().for_each(|(row, size)| ctx.put(&key(row as u32), &value[..size as usize]));
        }
        "deletes" => (0..count).for_each(|row| {
            ctx.delete(&key(row));
        }),
        "answer" => {
            leave_trace(ctx);
            raw::answer_with(number);
        }
        "refuse" => {
            leave_trace(ctx);
            return Err(Status::failed_precondition("hostile refuses to migrate"));
        }
        other => return Err(Status::invalid_argument(format!("`{other}` is not a way to migrate"))),
    }
    Ok(())
}

fn key(row: u32) -> Vec<u8> {
    format!("migrate/{row:08}").into_bytes()
}
