//! What `lock.proto` promises, on the SDK's in-memory host, whose clock the tests move.

use balsa_sdk::prost::Message;
use balsa_sdk::testing::Host;
use balsa_sdk::{Bytes, Code};

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A host, some time after 1970, with the calls that tests make most. Leases are for 10 seconds.
struct Cluster(Host);

impl Cluster {
    fn new() -> Self {
        let mut host = Host::new();
        host.set_now(1_000_000 * SECOND);
        Self(host)
    }

    fn acquire(&mut self, name: &str, owner: &str) -> AcquireResponse {
        let request = AcquireRequest { name: name.into(), owner: owner.into(), ttl_ms: 10_000 };
        self.0.command(Locks::acquire, request).unwrap()
    }

    /// The token, if the lock was free.
    fn token(&mut self, name: &str, owner: &str) -> Option<u64> {
        let response = self.acquire(name, owner);
        response.acquired.then(|| response.lease.unwrap().token)
    }

    fn renew(&mut self, name: &str, token: u64, ttl: Duration) -> Result<Lease, Status> {
        let request = RenewRequest { name: name.into(), token, ttl_ms: ttl.as_millis() as u64 };
        self.0.command(Locks::renew, request).map(|response| response.lease.unwrap())
    }

    fn release(&mut self, name: &str, token: u64) -> bool {
        self.0.command(Locks::release, ReleaseRequest { name: name.into(), token }).unwrap().released
    }

    fn owner(&mut self, name: &str) -> Option<String> {
        let response = self.0.query(Locks::inspect, InspectRequest { name: name.into() }).unwrap();
        response.lease.map(|lease| lease.owner)
    }

    fn list(&mut self, prefix: &str, limit: u32, page_token: Bytes) -> ListResponse {
        self.0.query(Locks::list, ListRequest { prefix: prefix.into(), limit, page_token }).unwrap()
    }
}

#[test]
fn a_free_lock_is_acquired_and_a_taken_one_says_by_whom() {
    let mut cluster = Cluster::new();
    assert!(cluster.acquire("db", "ann").acquired);
    let refused = cluster.acquire("db", "bob");
    let lease = refused.lease.unwrap();
    assert_eq!((refused.acquired, lease.owner.as_str()), (false, "ann"));
    assert_eq!(lease.expires_ms - refused.now_ms, 10_000);
}

#[test]
fn a_lease_is_held_until_its_last_millisecond_and_not_after() {
    let mut cluster = Cluster::new();
    let first = cluster.token("db", "ann").unwrap();
    cluster.0.advance(10 * SECOND - MS);
    assert_eq!((cluster.owner("db").as_deref(), cluster.token("db", "bob")), (Some("ann"), None));
    cluster.0.advance(MS);
    assert_eq!(cluster.owner("db"), None);
    assert!(cluster.token("db", "bob").unwrap() > first);
}

#[test]
fn a_released_lock_is_free_at_once() {
    let mut cluster = Cluster::new();
    let token = cluster.token("db", "ann").unwrap();
    assert!(cluster.release("db", token));
    assert!(cluster.acquire("db", "bob").acquired);
}

#[test]
fn tokens_grow_over_all_locks() {
    let mut cluster = Cluster::new();
    let mut last = 0;
    for name in ["a", "b", "a", "c", "b"] {
        let token = cluster.token(name, "ann").unwrap();
        assert!(token > last);
        last = token;
        cluster.release(name, token);
    }
}

#[test]
fn acquiring_again_keeps_the_lease_and_never_shortens_it() {
    let mut cluster = Cluster::new();
    let first = cluster.acquire("db", "ann").lease.unwrap();
    cluster.0.advance(4 * SECOND);
    let second = cluster.acquire("db", "ann").lease.unwrap();
    assert_eq!(second, Lease { expires_ms: first.expires_ms + 4000, ..first });
    let short = AcquireRequest { name: "db".into(), owner: "ann".into(), ttl_ms: 1 };
    assert_eq!(cluster.0.command(Locks::acquire, short).unwrap().lease.unwrap(), second);
}

#[test]
fn a_renewed_lease_lives_longer_or_shorter() {
    let mut cluster = Cluster::new();
    let token = cluster.token("db", "ann").unwrap();
    cluster.0.advance(9 * SECOND);
    cluster.renew("db", token, 10 * SECOND).unwrap();
    cluster.0.advance(9 * SECOND);
    assert_eq!(cluster.owner("db").as_deref(), Some("ann"));
    cluster.renew("db", token, MS).unwrap();
    cluster.0.advance(MS);
    assert_eq!(cluster.owner("db"), None);
}

#[test]
fn a_lease_that_is_over_is_not_renewed() {
    let mut cluster = Cluster::new();
    let token = cluster.token("db", "ann").unwrap();
    cluster.0.advance(10 * SECOND);
    let status = cluster.renew("db", token, SECOND).unwrap_err();
    assert_eq!(status.message(), "the lease 1 of db is over, and nobody has it now");
    cluster.acquire("db", "bob");
    let status = cluster.renew("db", token, SECOND).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let detail = NotHeld::decode(status.details()[0].value.as_slice()).unwrap();
    assert_eq!(detail.holder.unwrap().owner, "bob");
}

#[test]
fn the_owner_of_an_old_lease_does_not_release_the_new_one() {
    let mut cluster = Cluster::new();
    let old = cluster.token("db", "ann").unwrap();
    cluster.0.advance(10 * SECOND);
    cluster.acquire("db", "bob");
    assert!(!cluster.release("db", old));
    assert_eq!(cluster.owner("db").as_deref(), Some("bob"));
}

#[test]
fn a_list_has_what_is_held() {
    let mut cluster = Cluster::new();
    cluster.acquire("job/1", "ann");
    cluster.0.advance(6 * SECOND);
    cluster.acquire("job/2", "bob");
    cluster.acquire("db", "bob");
    let names =
        |response: &ListResponse| response.leases.iter().map(|lease| lease.name.clone()).collect::<Vec<_>>().join(" ");
    let first = cluster.list("job/", 1, Bytes::new());
    let second = cluster.list("job/", 1, first.next_page_token.clone());
    assert_eq!((names(&first).as_str(), names(&second).as_str()), ("job/1", "job/2"));
    cluster.0.advance(4 * SECOND);
    assert_eq!(names(&cluster.list("job/", 0, Bytes::new())), "job/2");
}

#[test]
fn rows_of_expired_leases_do_not_pile_up() {
    let mut cluster = Cluster::new();
    for number in 0..100 {
        cluster.acquire(&format!("job/{number}"), "ann");
        cluster.0.advance(SECOND);
    }
    // The ten that are held, two rows each, the last ones that have expired since, and the last token.
    assert!(cluster.0.state().len() <= 2 * 11 + 1, "{}", cluster.0.dump());
}

#[test]
fn what_cannot_be_a_lease_is_refused() {
    let mut cluster = Cluster::new();
    let long = "n".repeat(257);
    let day = 86_400_000;
    for (name, owner, ttl_ms) in [("", "a", 1), ("n", "", 1), (&long, "a", 1), ("n", "a", 0), ("n", "a", day + 1)] {
        let request = AcquireRequest { name: name.into(), owner: owner.into(), ttl_ms };
        assert_eq!(cluster.0.command(Locks::acquire, request).unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(cluster.0.state().is_empty());
}
