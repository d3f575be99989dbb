//! What was, and what is: the queries.

use balsa_sdk::{Start, Status, View, page_limit};

use crate::{ACCOUNTS, ENTRIES, TRANSFERS, account};
use crate::{ListAccountsRequest, ListAccountsResponse, ListHistoryRequest, ListHistoryResponse, Transfer};

/// Items of a page.
const PAGE_MAX: usize = 1000;

pub(crate) fn transfer(ctx: &View, id: u64) -> Result<Transfer, Status> {
    TRANSFERS.get(ctx, &id)?.ok_or_else(|| Status::not_found(format!("there is no transfer {id}")))
}

pub(crate) fn accounts(ctx: &View, request: ListAccountsRequest) -> Result<ListAccountsResponse, Status> {
    let range = ACCOUNTS.prefix(ctx, &Start(request.prefix));
    let page = range.page(ctx, page_limit(request.limit, PAGE_MAX), &request.page_token)?;
    let accounts = page.entries.into_iter().map(|(_, account)| account).collect();
    Ok(ListAccountsResponse { accounts, next_page_token: page.next })
}

pub(crate) fn entries(ctx: &View, request: ListHistoryRequest) -> Result<ListHistoryResponse, Status> {
    let account = account::find(ctx, &request.account)?;
    let range = ENTRIES.prefix(ctx, &(account.name,)).reverse();
    let page = range.page(ctx, page_limit(request.limit, PAGE_MAX), &request.page_token)?;
    let entries = page.entries.into_iter().map(|(_, entry)| entry).collect();
    Ok(ListHistoryResponse { entries, next_page_token: page.next })
}
