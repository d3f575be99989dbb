//! Double-entry bookkeeping: the example of a call that changes several keys, and all of them or none.
//!
//! What it promises is in `proto/ledger.proto`. Here is how it keeps it, one noun a file:
//! - [`account`]: opening, limits, and the one function that changes a balance,
//! - [`transfer`]: postings one after the other, and what must be true of them together,
//! - [`history`]: the queries.
//!
//! Nothing here undoes anything: a method that returns a status leaves no trace, so it may write first and check later.

mod account;
mod history;
mod transfer;

#[cfg(test)]
mod tests;

use balsa_sdk::{Context, Item, Map, Status, View};

balsa_sdk::include_proto!("ledger.v1");

/// By name.
const ACCOUNTS: Map<String, Account> = Map::new("accounts");
/// The id of the last transfer. A counter and not the log's index, which would begin anew in a cluster that is restored from a
/// backup.
const LAST_TRANSFER: Item<u64> = Item::new("last-transfer");
/// By id.
const TRANSFERS: Map<u64, Transfer> = Map::new("transfers");
/// By the account's name and the entry's number.
const ENTRIES: Map<(String, u64), Entry> = Map::new("entries");

struct Books;

impl Ledger for Books {
    fn open_account(ctx: &mut Context, request: OpenAccountRequest) -> Result<OpenAccountResponse, Status> {
        account::open(ctx, request).map(|account| OpenAccountResponse { account: Some(account) })
    }

    fn set_limits(ctx: &mut Context, request: SetLimitsRequest) -> Result<SetLimitsResponse, Status> {
        account::set_limits(ctx, request).map(|account| SetLimitsResponse { account: Some(account) })
    }

    fn transfer(ctx: &mut Context, request: TransferRequest) -> Result<TransferResponse, Status> {
        transfer::transfer(ctx, request)
    }

    fn get_balance(ctx: &View, request: GetBalanceRequest) -> Result<GetBalanceResponse, Status> {
        account::find(ctx, &request.name).map(|account| GetBalanceResponse { account: Some(account) })
    }

    fn get_transfer(ctx: &View, request: GetTransferRequest) -> Result<GetTransferResponse, Status> {
        history::transfer(ctx, request.id).map(|transfer| GetTransferResponse { transfer: Some(transfer) })
    }

    fn list_accounts(ctx: &View, request: ListAccountsRequest) -> Result<ListAccountsResponse, Status> {
        history::accounts(ctx, request)
    }

    fn list_history(ctx: &View, request: ListHistoryRequest) -> Result<ListHistoryResponse, Status> {
        history::entries(ctx, request)
    }
}

balsa_sdk::export!(LedgerServer<Books>);
