//! Comparisons and operations in one step.
//!
//! The host makes a call atomic, so a transaction is no more than a loop. What it adds is a [`Budget`]: each operation is
//! bounded by itself, and their sum must be, too, before memory or fuel is gone: those end a call without a helpful word.

use std::cmp::Ordering;

use balsa_sdk::{Context, Status, View};

use crate::compare::Target;
use crate::limits::{DELETE_ITEMS_MAX, RESPONSE_BYTES_MAX, TXN_OPERATIONS_MAX};
use crate::operation::Operation as Kind;
use crate::operation_response::Response;
use crate::range::{DELETE_BYTES_MAX, framed_len};
use crate::{Compare, DeleteRangeRequest, DeleteRangeResponse, Operation, OperationResponse, Operator};
use crate::{TxnRequest, TxnResponse};
use crate::{entry, key, limits, range, row};

pub(crate) fn run(ctx: &mut Context, request: TxnRequest) -> Result<TxnResponse, Status> {
    let sizes = [request.compare.len(), request.success.len(), request.failure.len()];
    if sizes.into_iter().any(|size| size > TXN_OPERATIONS_MAX) {
        return Err(Status::invalid_argument("more than 128 comparisons, or operations of one branch"));
    }
    let succeeded = all_hold(ctx, &request.compare)?;
    let operations = if succeeded { request.success } else { request.failure };

    let mut budget = Budget::new();
    let mut responses = Vec::with_capacity(operations.len());
    for operation in operations {
        let response = OperationResponse { response: Some(perform(ctx, operation, &mut budget)?) };
        budget.take_response(framed_len(&response))?;
        responses.push(response);
    }
    Ok(TxnResponse { succeeded, responses })
}

fn all_hold(ctx: &View, compares: &[Compare]) -> Result<bool, Status> {
    for compare in compares {
        if !holds(ctx, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(ctx: &View, compare: &Compare) -> Result<bool, Status> {
    let key = key::stored(&compare.key)?;
    let target = compare.target.as_ref().ok_or_else(|| Status::invalid_argument("a comparison has no target"))?;
    let operator = Operator::try_from(compare.operator);
    let operator = operator.map_err(|_| Status::invalid_argument("a comparison has an unknown operator"))?;
    let header = || row::header(ctx, &key);
    let ordering = match target {
        Target::Version(version) => header()?.version.cmp(version),
        Target::CreateIndex(index) => header()?.create_index.cmp(index),
        Target::ModIndex(index) => header()?.mod_index.cmp(index),
        Target::Value(value) => match row::get(ctx, &key)? {
            Some((_, found)) => found.cmp(value),
            None => return Ok(false),
        },
    };
    Ok(match operator {
        Operator::Equal => ordering == Ordering::Equal,
        Operator::NotEqual => ordering != Ordering::Equal,
        Operator::Greater => ordering == Ordering::Greater,
        Operator::Less => ordering == Ordering::Less,
    })
}

fn perform(ctx: &mut Context, operation: Operation, budget: &mut Budget) -> Result<Response, Status> {
    let kind = operation.operation.ok_or_else(|| Status::invalid_argument("an operation says nothing"))?;
    Ok(match kind {
        Kind::Put(request) => Response::Put(entry::put(ctx, request)?),
        Kind::Get(request) => Response::Get(entry::get(ctx, request)?),
        Kind::Delete(request) => Response::Delete(entry::delete(ctx, request)?),
        Kind::DeleteRange(request) => Response::DeleteRange(delete_range(ctx, &request, budget)?),
        Kind::List(request) => Response::List(range::list(ctx, request, budget.response_bytes)?),
    })
}

/// All of the range or an error: half of it would not be what a transaction is used for.
fn delete_range(
    ctx: &mut Context,
    request: &DeleteRangeRequest,
    budget: &mut Budget,
) -> Result<DeleteRangeResponse, Status> {
    // One more than may be deleted shows whether there are more.
    let page = range::doomed(ctx, request, budget.delete_items + 1, budget.delete_bytes)?;
    budget.take_deletes(&page)?;
    range::delete_page(ctx, &page);
    Ok(DeleteRangeResponse { deleted: page.len() as u64, more: false })
}

/// What the operations of a transaction may still cost together.
struct Budget {
    response_bytes: usize,
    delete_items: usize,
    delete_bytes: usize,
}

impl Budget {
    fn new() -> Self {
        // A token of each list has its own room: see `take_response`, which stops after the first that does not fit.
        Self { response_bytes: RESPONSE_BYTES_MAX, delete_items: DELETE_ITEMS_MAX, delete_bytes: DELETE_BYTES_MAX }
    }

    fn take_response(&mut self, bytes: usize) -> Result<(), Status> {
        self.response_bytes = self.response_bytes.checked_sub(bytes).ok_or_else(limits::response_too_large)?;
        Ok(())
    }

    fn take_deletes(&mut self, page: &balsa_sdk::Page) -> Result<(), Status> {
        let bytes = page.iter().map(|(key, _)| key.len()).sum();
        let items = self.delete_items.checked_sub(page.len());
        let bytes = self.delete_bytes.checked_sub(bytes);
        match (items, bytes, page.has_more()) {
            (Some(items), Some(bytes), false) => {
                (self.delete_items, self.delete_bytes) = (items, bytes);
                Ok(())
            }
            _ => Err(Status::resource_exhausted(
                "the ranges of a transaction delete more than 10 000 keys or 4 MiB of keys",
            )),
        }
    }
}
