//! What `ledger.proto` promises, on the SDK's in-memory host.

use std::collections::BTreeMap;
use std::time::Duration;

use balsa_sdk::prost::Message;
use balsa_sdk::testing::Host;
use balsa_sdk::{Bytes, Code};
use proptest::prelude::*;

use super::*;

/// A host with the calls that tests make most.
#[derive(Default)]
struct Bank(Host);

impl Bank {
    /// Two people who cannot overdraw, and the world, which can.
    fn with_accounts() -> Self {
        let mut bank = Self::default();
        bank.open("world", "EUR", Limits { least: Some(i64::MIN), most: None }).unwrap();
        bank.open("alice", "EUR", Limits::default()).unwrap();
        bank.open("bob", "EUR", Limits { least: None, most: Some(100) }).unwrap();
        bank
    }

    fn open(&mut self, name: &str, unit: &str, limits: Limits) -> Result<Account, Status> {
        let request = OpenAccountRequest { name: name.into(), unit: unit.into(), limits: Some(limits) };
        self.0.command(Books::open_account, request).map(|response| response.account.unwrap())
    }

    fn transfer(&mut self, postings: &[(&str, i64)]) -> Result<TransferResponse, Status> {
        let posting = |(account, amount): &(&str, i64)| Posting { account: (*account).into(), amount: *amount };
        let postings = postings.iter().map(posting).collect();
        self.0.command(Books::transfer, TransferRequest { postings, description: "a gift".into() })
    }

    /// A transfer that is refused, and must leave no trace.
    fn refused(&mut self, postings: &[(&str, i64)]) -> Status {
        let before = self.0.dump();
        let status = self.transfer(postings).unwrap_err();
        assert_eq!(self.0.dump(), before);
        status
    }

    fn balance(&mut self, name: &str) -> i64 {
        let request = GetBalanceRequest { name: name.into() };
        self.0.query(Books::get_balance, request).unwrap().account.unwrap().balance
    }

    fn history(&mut self, account: &str, limit: u32, page_token: Bytes) -> ListHistoryResponse {
        let request = ListHistoryRequest { account: account.into(), limit, page_token };
        self.0.query(Books::list_history, request).unwrap()
    }

    fn accounts(&mut self) -> Vec<Account> {
        self.0.query(Books::list_accounts, ListAccountsRequest::default()).unwrap().accounts
    }
}

#[test]
fn a_transfer_moves_money() {
    let mut bank = Bank::with_accounts();
    let made = bank.transfer(&[("world", -50), ("alice", 30), ("bob", 20)]).unwrap();
    assert_eq!(made.accounts.iter().map(|account| account.balance).collect::<Vec<_>>(), [-50, 30, 20]);
    assert_eq!((bank.balance("world"), bank.balance("alice"), bank.balance("bob")), (-50, 30, 20));
}

#[test]
fn an_overdraft_is_refused_and_says_why() {
    let mut bank = Bank::with_accounts();
    bank.transfer(&[("world", -30), ("alice", 30)]).unwrap();
    let status = bank.refused(&[("alice", -31), ("world", 31)]);
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "alice has 30 EUR: -31 would take it beyond its limits, 0 to 9223372036854775807");
    let detail = LimitExceeded::decode(status.details()[0].value.as_slice()).unwrap();
    assert_eq!((detail.account.as_str(), detail.balance, detail.amount), ("alice", 30, -31));
}

#[test]
fn the_last_of_many_postings_can_undo_them_all() {
    let mut bank = Bank::with_accounts();
    // `refused` compares all that is stored: the first two postings had been written by then.
    let status = bank.refused(&[("world", -200), ("alice", 50), ("bob", 150)]);
    assert_eq!(status.message(), "bob has 0 EUR: +150 would take it beyond its limits, 0 to 100");
}

#[test]
fn an_account_can_be_emptied_and_filled_to_its_limits() {
    let mut bank = Bank::with_accounts();
    bank.transfer(&[("world", -100), ("bob", 100)]).unwrap();
    assert_eq!(bank.refused(&[("world", -1), ("bob", 1)]).code(), Code::FailedPrecondition);
    bank.transfer(&[("bob", -100), ("world", 100)]).unwrap();
    assert_eq!(bank.balance("bob"), 0);
}

#[test]
fn a_transfer_that_does_not_add_up_is_refused() {
    let mut bank = Bank::with_accounts();
    let status = bank.refused(&[("world", -50), ("alice", 49)]);
    assert_eq!(status.message(), "the postings in EUR add up to -1, not to 0");
}

#[test]
fn every_unit_adds_up_for_itself() {
    let mut bank = Bank::with_accounts();
    bank.open("exchange/EUR", "EUR", Limits { least: Some(-1000), most: None }).unwrap();
    bank.open("exchange/USD", "USD", Limits { least: Some(-1000), most: None }).unwrap();
    bank.open("alice/USD", "USD", Limits::default()).unwrap();
    bank.transfer(&[("world", -50), ("alice", 50)]).unwrap();
    let status = bank.refused(&[("alice", -50), ("alice/USD", 50)]);
    assert_eq!(status.message(), "the postings in EUR add up to -50, not to 0");
    let exchange = [("alice", -50), ("exchange/EUR", 50), ("exchange/USD", -54), ("alice/USD", 54)];
    bank.transfer(&exchange).unwrap();
    assert_eq!((bank.balance("alice"), bank.balance("alice/USD")), (0, 54));
}

#[test]
fn amounts_that_overflow_are_refused() {
    let mut bank = Bank::with_accounts();
    bank.transfer(&[("world", -i64::MAX), ("alice", i64::MAX)]).unwrap();
    assert_eq!(bank.refused(&[("alice", 1), ("world", -1)]).code(), Code::FailedPrecondition);
    bank.open("hell", "EUR", Limits { least: Some(i64::MIN), most: None }).unwrap();
    bank.open("heaven", "EUR", Limits::default()).unwrap();
    // In 64 bits this one would add up.
    let status = bank.refused(&[("heaven", i64::MAX), ("hell", i64::MAX), ("world", 2)]);
    assert_eq!(status.message(), "the postings in EUR add up to 18446744073709551616, not to 0");
}

#[test]
fn what_is_no_transfer_is_refused() {
    let mut bank = Bank::with_accounts();
    let mut message = |postings: &[(&str, i64)]| bank.refused(postings).message().to_owned();
    assert_eq!(message(&[]), "a transfer has 2 to 100 postings, not 0");
    assert_eq!(message(&[("alice", 1)]), "a transfer has 2 to 100 postings, not 1");
    assert_eq!(message(&[("alice", 0), ("bob", 0)]), "the posting to alice has the amount 0");
    assert_eq!(message(&[("alice", 1), ("alice", -1)]), "alice is named twice: add its amounts up");
    assert_eq!(message(&[("world", -1), ("carol", 1)]), "there is no account carol");
}

#[test]
fn an_account_is_opened_once_and_within_its_limits() {
    let mut bank = Bank::with_accounts();
    let mut code = |name: &str, least, most| {
        bank.open(name, "EUR", Limits { least: Some(least), most: Some(most) }).unwrap_err().code()
    };
    assert_eq!(code("alice", 0, 1), Code::AlreadyExists);
    assert_eq!(code("carol", 1, 0), Code::InvalidArgument);
    assert_eq!(code("carol", 1, 2), Code::FailedPrecondition);
    assert_eq!(code("", 0, 1), Code::InvalidArgument);
}

#[test]
fn limits_change_only_to_what_the_balance_is_within() {
    let mut bank = Bank::with_accounts();
    bank.transfer(&[("world", -30), ("alice", 30)]).unwrap();
    let mut set = |least, most| {
        let limits = Some(Limits { least, most });
        bank.0.command(Books::set_limits, SetLimitsRequest { name: "alice".into(), limits })
    };
    assert_eq!(set(None, Some(29)).unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(set(Some(-10), None).unwrap().account.unwrap().balance, 30);
    bank.transfer(&[("alice", -40), ("world", 40)]).unwrap();
    assert_eq!(bank.balance("alice"), -10);
}

#[test]
fn history_comes_from_the_last_to_the_first_page_by_page() {
    let mut bank = Bank::with_accounts();
    bank.0.set_now(Duration::from_secs(1));
    for amount in 1..=5 {
        bank.transfer(&[("world", -amount), ("alice", amount)]).unwrap();
    }
    let mut seen = Vec::new();
    let mut page = bank.history("alice", 2, Bytes::new());
    while !page.next_page_token.is_empty() {
        seen.append(&mut page.entries);
        page = bank.history("alice", 2, page.next_page_token);
    }
    seen.append(&mut page.entries);
    assert_eq!(
        seen.iter().map(|entry| (entry.number, entry.amount)).collect::<Vec<_>>(),
        [(5, 5), (4, 4), (3, 3), (2, 2), (1, 1)]
    );
    assert_eq!((seen[0].balance, seen[0].time_ms), (15, 1000));
}

#[test]
fn an_entry_leads_to_its_transfer() {
    let mut bank = Bank::with_accounts();
    bank.refused(&[("world", -5), ("alice", 4)]);
    let id = bank.transfer(&[("world", -5), ("alice", 5)]).unwrap().id;
    assert_eq!(id, 1, "one that is refused takes no number");
    assert_eq!(bank.history("alice", 0, Bytes::new()).entries[0].transfer_id, id);
    let transfer = bank.0.query(Books::get_transfer, GetTransferRequest { id }).unwrap().transfer.unwrap();
    assert_eq!((transfer.description.as_str(), transfer.postings.len()), ("a gift", 2));
    let missing = bank.0.query(Books::get_transfer, GetTransferRequest { id: id + 1 }).unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "nobody"];

fn limits() -> impl Strategy<Value = Limits> {
    (prop::option::of(-50..=0_i64), prop::option::of(0..=50_i64)).prop_map(|(least, most)| Limits { least, most })
}

/// Mostly transfers that add up and may or may not fit, and some that are nonsense.
fn postings() -> impl Strategy<Value = Vec<(&'static str, i64)>> {
    let name = prop::sample::select(&NAMES[..]);
    let balanced = prop::collection::vec((name.clone(), -40..=40_i64), 1..4).prop_map(|mut postings| {
        let sum: i64 = postings.iter().map(|(_, amount)| amount).sum();
        postings.push(("a", -sum));
        postings
    });
    prop_oneof![9 => balanced, 1 => prop::collection::vec((name, any::<i64>()), 0..4)]
}

proptest! {
    /// The invariants, whatever is tried: each unit adds up to 0, nobody is beyond his limits, history adds up to the
    /// balance, and what is refused leaves no trace.
    #[test]
    fn the_books_always_balance(
        accounts in prop::collection::vec((prop::sample::select(&["EUR", "USD"][..]), limits()), 5),
        transfers in prop::collection::vec(postings(), 0..60),
    ) {
        let mut bank = Bank::default();
        for (name, (unit, limits)) in NAMES.iter().zip(accounts) {
            bank.open(name, unit, limits).unwrap();
        }
        for postings in transfers {
            let before = bank.0.dump();
            if bank.transfer(&postings).is_err() {
                prop_assert_eq!(bank.0.dump(), before);
            }
            let mut sums = BTreeMap::<String, i64>::new();
            for account in bank.accounts() {
                *sums.entry(account.unit).or_default() += account.balance;
                let Limits { least, most } = account.limits.unwrap();
                prop_assert!((least.unwrap_or(0)..=most.unwrap_or(i64::MAX)).contains(&account.balance));
                let history = bank.history(&account.name, 0, Bytes::new()).entries;
                prop_assert_eq!(history.iter().map(|entry| entry.amount).sum::<i64>(), account.balance);
            }
            prop_assert!(sums.values().all(|sum| *sum == 0), "{:?}", sums);
        }
    }
}
