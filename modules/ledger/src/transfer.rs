//! Transfers: postings one after the other, and what must be true of them together.

use std::collections::{BTreeMap, BTreeSet};

use balsa_sdk::{Context, Status};

use crate::{LAST_TRANSFER, Posting, TRANSFERS, Transfer, TransferRequest, TransferResponse, account};

const POSTINGS_MAX: usize = 100;
const DESCRIPTION_MAX: usize = 1024;

/// Writes as it goes. What turns out to be wrong at the end, or in the middle, ends the call with a status, and the host
/// forgets all that the call has written.
pub(crate) fn transfer(ctx: &mut Context, request: TransferRequest) -> Result<TransferResponse, Status> {
    let TransferRequest { postings, description } = request;
    check(&postings, &description)?;

    let id = LAST_TRANSFER.get_or_default(ctx)? + 1;
    LAST_TRANSFER.set(ctx, &id)?;
    let mut accounts = Vec::with_capacity(postings.len());
    let mut sums = BTreeMap::new();
    for posting in &postings {
        let account = account::post(ctx, id, posting)?;
        // A hundred amounts of 64 bits fit 128.
        *sums.entry(account.unit.clone()).or_default() += i128::from(posting.amount);
        accounts.push(account);
    }
    check_sums(&sums)?;

    let transfer = Transfer { id, time_ms: ctx.now_ms(), postings, description };
    TRANSFERS.insert(ctx, &id, &transfer)?;
    Ok(TransferResponse { id, accounts })
}

/// What can be seen without looking at an account.
fn check(postings: &[Posting], description: &str) -> Result<(), Status> {
    if !(2..=POSTINGS_MAX).contains(&postings.len()) {
        let count = postings.len();
        return Err(Status::invalid_argument(format!("a transfer has 2 to {POSTINGS_MAX} postings, not {count}")));
    }
    if description.len() > DESCRIPTION_MAX {
        return Err(Status::invalid_argument(format!("the description is longer than {DESCRIPTION_MAX} bytes")));
    }
    let mut seen = BTreeSet::new();
    for Posting { account, amount } in postings {
        if *amount == 0 {
            return Err(Status::invalid_argument(format!("the posting to {account} has the amount 0")));
        }
        if !seen.insert(account) {
            return Err(Status::invalid_argument(format!("{account} is named twice: add its amounts up")));
        }
    }
    Ok(())
}

/// Nothing comes from nowhere.
fn check_sums(sums: &BTreeMap<String, i128>) -> Result<(), Status> {
    match sums.iter().find(|(_, sum)| **sum != 0) {
        Some((unit, sum)) => Err(Status::invalid_argument(format!("the postings in {unit} add up to {sum}, not to 0"))),
        None => Ok(()),
    }
}
