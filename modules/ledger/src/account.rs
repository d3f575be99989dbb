//! Accounts: what one is when it is opened, and what its balance may become.

use balsa_sdk::{Context, Status, View};

use crate::{ACCOUNTS, Account, ENTRIES, Entry, LimitExceeded, Limits, OpenAccountRequest, Posting, SetLimitsRequest};

const NAME_MAX: usize = 128;
const UNIT_MAX: usize = 32;

pub(crate) fn open(ctx: &mut Context, request: OpenAccountRequest) -> Result<Account, Status> {
    check_text("the name", &request.name, NAME_MAX)?;
    check_text("the unit", &request.unit, UNIT_MAX)?;
    let limits = checked(request.limits)?;
    if ACCOUNTS.contains(ctx, &request.name) {
        return Err(Status::already_exists(format!("there is an account {}", request.name)));
    }
    let OpenAccountRequest { name, unit, .. } = request;
    let account = Account { name, unit, balance: 0, limits, postings: 0, opened_ms: ctx.now_ms() };
    fits(&account, 0)?;
    ACCOUNTS.insert(ctx, &account.name, &account)?;
    Ok(account)
}

pub(crate) fn set_limits(ctx: &mut Context, request: SetLimitsRequest) -> Result<Account, Status> {
    let limits = checked(request.limits)?;
    let account = Account { limits, ..find(ctx, &request.name)? };
    fits(&account, 0)?;
    ACCOUNTS.insert(ctx, &account.name, &account)?;
    Ok(account)
}

pub(crate) fn find(ctx: &View, name: &str) -> Result<Account, Status> {
    check_text("the name", name, NAME_MAX)?;
    ACCOUNTS.get(ctx, name)?.ok_or_else(|| Status::not_found(format!("there is no account {name}")))
}

/// Adds an amount to the balance, and an entry to the history.
pub(crate) fn post(ctx: &mut Context, transfer_id: u64, posting: &Posting) -> Result<Account, Status> {
    let mut account = find(ctx, &posting.account)?;
    account.balance = fits(&account, posting.amount)?;
    account.postings += 1;
    let entry = Entry {
        number: account.postings,
        transfer_id,
        time_ms: ctx.now_ms(),
        amount: posting.amount,
        balance: account.balance,
    };
    ENTRIES.insert(ctx, &(&account.name, entry.number), &entry)?;
    ACCOUNTS.insert(ctx, &account.name, &account)?;
    Ok(account)
}

/// The balance with the amount added, if it is within the limits.
fn fits(account: &Account, amount: i64) -> Result<i64, Status> {
    let (least, most) = bounds(account.limits.as_ref());
    match account.balance.checked_add(amount) {
        Some(balance) if (least..=most).contains(&balance) => Ok(balance),
        _ => Err(limit_exceeded(account, amount)),
    }
}

fn bounds(limits: Option<&Limits>) -> (i64, i64) {
    let Limits { least, most } = limits.copied().unwrap_or_default();
    (least.unwrap_or(0), most.unwrap_or(i64::MAX))
}

fn limit_exceeded(account: &Account, amount: i64) -> Status {
    let Account { name, unit, balance, limits, .. } = account;
    let (least, most) = bounds(limits.as_ref());
    let message = match amount {
        0 => format!("{name} has {balance} {unit}, which is beyond its limits, {least} to {most}"),
        _ => format!("{name} has {balance} {unit}: {amount:+} would take it beyond its limits, {least} to {most}"),
    };
    let detail = LimitExceeded { account: name.clone(), balance: *balance, amount, limits: *limits };
    Status::failed_precondition(message).with_detail(&detail)
}

fn checked(limits: Option<Limits>) -> Result<Option<Limits>, Status> {
    let (least, most) = bounds(limits.as_ref());
    if least > most {
        return Err(Status::invalid_argument(format!("the limits leave nothing: at least {least}, at most {most}")));
    }
    Ok(limits)
}

fn check_text(what: &str, text: &str, max: usize) -> Result<(), Status> {
    match text.len() {
        0 => Err(Status::invalid_argument(format!("{what} is empty"))),
        length if length > max => {
            Err(Status::invalid_argument(format!("{what} has {length} bytes: at most {max} are allowed")))
        }
        _ => Ok(()),
    }
}
