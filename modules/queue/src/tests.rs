//! What `queue.proto` promises, on the SDK's in-memory host, whose clock the tests move.

use std::time::Duration;

use balsa_sdk::testing::Host;
use balsa_sdk::{Bytes, Code, Map};
use proptest::prelude::*;

use super::*;
use crate::rows::{BODIES, DEAD, MESSAGES, SCHEDULE};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A host, some time after 1970, with the calls that tests make most. The queue is `mail`, and a message is in flight for 30
/// seconds.
struct Mail(Host);

impl Mail {
    fn new() -> Self {
        let mut host = Host::new();
        host.set_now(1_000_000 * SECOND);
        let mut mail = Self(host);
        mail.configure(5);
        mail
    }

    fn configure(&mut self, max_attempts: u32) {
        let settings = Some(Settings { max_attempts, visibility_ms: 0 });
        self.0.command(Queues::configure, ConfigureRequest { queue: "mail".into(), settings }).unwrap();
    }

    fn enqueue(&mut self, body: &str, delay: Duration) -> u64 {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let request = EnqueueRequest { queue: "mail".into(), body, delay_ms: delay.as_millis() as u64 };
        self.0.command(Queues::enqueue, request).unwrap().id
    }

    fn enqueue_all(&mut self, bodies: &[&str]) {
        for body in bodies {
            self.enqueue(body, Duration::ZERO);
        }
    }

    fn dequeue(&mut self, limit: u32) -> Vec<Delivery> {
        let request = DequeueRequest { queue: "mail".into(), limit, visibility_ms: 0 };
        self.0.command(Queues::dequeue, request).unwrap().deliveries
    }

    /// The bodies of what is handed out.
    fn bodies(&mut self, limit: u32) -> Vec<String> {
        self.dequeue(limit).into_iter().map(|delivery| String::from_utf8(delivery.body.to_vec()).unwrap()).collect()
    }

    /// The receipt of the next message.
    fn receipt(&mut self) -> String {
        self.dequeue(1).pop().expect("a message is available").receipt
    }

    fn ack(&mut self, receipt: &str) -> u32 {
        let request = AckRequest { queue: "mail".into(), receipts: vec![receipt.into()] };
        self.0.command(Queues::ack, request).unwrap().acked
    }

    fn nack(&mut self, receipt: &str, delay: Duration) -> Result<NackResponse, Status> {
        let (queue, receipt, delay_ms) = ("mail".into(), receipt.into(), delay.as_millis() as u64);
        self.0.command(Queues::nack, NackRequest { queue, receipt, delay_ms, error: "no such address".into() })
    }

    fn extend(&mut self, receipt: &str, visibility: Duration) -> Result<ExtendResponse, Status> {
        let (queue, receipt, visibility_ms) = ("mail".into(), receipt.into(), visibility.as_millis() as u64);
        self.0.command(Queues::extend, ExtendRequest { queue, receipt, visibility_ms })
    }

    fn requeue(&mut self, ids: &[u64]) -> RequeueResponse {
        self.0.command(Queues::requeue, RequeueRequest { queue: "mail".into(), ids: ids.into() }).unwrap()
    }

    fn purge(&mut self, ids: &[u64]) -> PurgeResponse {
        self.0.command(Queues::purge, PurgeRequest { queue: "mail".into(), ids: ids.into() }).unwrap()
    }

    fn stats(&mut self) -> Stats {
        self.0.query(Queues::get_stats, GetStatsRequest { queue: "mail".into() }).unwrap().stats.unwrap()
    }

    /// Messages that wait, are in flight, and are dead.
    fn counts(&mut self) -> (u64, u64, u64) {
        let stats = self.stats();
        (stats.waiting, stats.in_flight, stats.dead)
    }

    fn message(&mut self, id: u64) -> Result<Message, Status> {
        let response = self.0.query(Queues::get_message, GetMessageRequest { queue: "mail".into(), id });
        response.map(|response| response.message.unwrap())
    }

    fn dead(&mut self) -> Vec<Message> {
        let request = ListDeadRequest { queue: "mail".into(), ..Default::default() };
        self.0.query(Queues::list_dead, request).unwrap().messages
    }

    /// Makes dead letters of messages that wait.
    fn kill(&mut self, count: u32) {
        self.configure(1);
        for delivery in self.dequeue(count) {
            assert!(self.nack(&delivery.receipt, Duration::ZERO).unwrap().dead);
        }
    }
}

#[test]
fn messages_come_in_the_order_in_which_they_were_enqueued() {
    let mut mail = Mail::new();
    mail.enqueue_all(&["a", "b", "c"]);
    assert_eq!(mail.bodies(2), ["a", "b"]);
    assert_eq!(mail.bodies(2), ["c"]);
    assert!(mail.bodies(2).is_empty());
}

#[test]
fn a_delayed_message_comes_when_its_time_has_come_and_not_before() {
    let mut mail = Mail::new();
    mail.enqueue("later", 10 * SECOND);
    mail.enqueue("now", Duration::ZERO);
    assert_eq!(mail.bodies(10), ["now"]);
    mail.0.advance(10 * SECOND - MS);
    assert!(mail.bodies(10).is_empty());
    mail.0.advance(MS);
    assert_eq!(mail.bodies(10), ["later"]);
}

#[test]
fn an_acknowledged_message_leaves_nothing_behind() {
    let mut mail = Mail::new();
    let before = mail.0.state().len();
    mail.enqueue("a", Duration::ZERO);
    let receipt = mail.receipt();
    assert_eq!((mail.ack(&receipt), mail.ack(&receipt)), (1, 0));
    assert_eq!((mail.counts(), mail.0.state().len()), ((0, 0, 0), before));
}

#[test]
fn a_message_that_nobody_acknowledges_comes_again() {
    let mut mail = Mail::new();
    mail.enqueue("a", Duration::ZERO);
    let first = mail.dequeue(1).remove(0);
    mail.0.advance(30 * SECOND - MS);
    assert!(mail.dequeue(1).is_empty());
    mail.0.advance(MS);
    let second = mail.dequeue(1).remove(0);
    assert_eq!((second.id, first.attempt, second.attempt), (first.id, 1, 2));
    assert_eq!((mail.ack(&first.receipt), mail.ack(&second.receipt)), (0, 1));
}

#[test]
fn a_late_acknowledgement_counts_if_nobody_else_has_the_message() {
    let mut mail = Mail::new();
    mail.enqueue("a", Duration::ZERO);
    let receipt = mail.receipt();
    mail.0.advance(60 * SECOND);
    assert_eq!(mail.ack(&receipt), 1);
}

#[test]
fn a_message_that_is_given_back_comes_after_its_delay() {
    let mut mail = Mail::new();
    mail.enqueue_all(&["a", "b"]);
    let receipt = mail.receipt();
    mail.nack(&receipt, 5 * SECOND).unwrap();
    assert_eq!(mail.counts(), (2, 0, 0));
    assert_eq!(mail.bodies(10), ["b"]);
    mail.0.advance(5 * SECOND);
    assert_eq!(mail.bodies(10), ["a"]);
}

#[test]
fn an_extended_message_stays_in_flight() {
    let mut mail = Mail::new();
    mail.enqueue("a", Duration::ZERO);
    let receipt = mail.receipt();
    mail.0.advance(29 * SECOND);
    mail.extend(&receipt, 10 * SECOND).unwrap();
    mail.0.advance(10 * SECOND - MS);
    assert!(mail.dequeue(1).is_empty());
    assert_eq!(mail.ack(&receipt), 1);
}

#[test]
fn a_receipt_is_good_for_one_delivery() {
    let mut mail = Mail::new();
    mail.enqueue("a", Duration::ZERO);
    let old = mail.receipt();
    mail.nack(&old, Duration::ZERO).unwrap();
    mail.receipt();
    for refused in [mail.nack(&old, Duration::ZERO).unwrap_err(), mail.extend(&old, SECOND).unwrap_err()] {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(refused.message(), "the receipt 1.1 is not good any more");
    }
}

#[test]
fn the_last_attempt_makes_a_dead_letter_whether_it_is_given_back_or_times_out() {
    let mut mail = Mail::new();
    mail.configure(2);
    mail.enqueue_all(&["given back", "timed out"]);
    for attempt in 1..=2 {
        let deliveries = mail.dequeue(2);
        let dead = mail.nack(&deliveries[0].receipt, 30 * SECOND).unwrap().dead;
        assert_eq!((deliveries.len(), dead), (2, attempt == 2));
        mail.0.advance(30 * SECOND);
    }
    assert!(mail.dequeue(2).is_empty());
    assert_eq!(mail.counts(), (0, 0, 2));
    let dead = mail.dead();
    assert_eq!((dead[0].last_error.as_str(), dead[1].last_error.as_str()), ("no such address", ""));
    assert_eq!((dead[0].state(), dead[0].attempts), (State::Dead, 2));
}

#[test]
fn a_requeued_letter_has_all_its_attempts_and_no_old_receipt_fits_it() {
    let mut mail = Mail::new();
    mail.enqueue_all(&["a", "b"]);
    mail.kill(2);
    assert_eq!(mail.requeue(&[2, 7]), RequeueResponse { requeued: 1, more: true });
    assert_eq!(mail.requeue(&[]), RequeueResponse { requeued: 1, more: false });
    let deliveries = mail.dequeue(2);
    // Requeued at the same time, they are in the order of their ids again.
    let seen: Vec<_> = deliveries.iter().map(|delivery| (delivery.id, delivery.attempt)).collect();
    assert_eq!(seen, [(1, 1), (2, 1)]);
    assert_eq!((mail.ack("1.1"), mail.ack("1.2")), (0, 1));
}

#[test]
fn a_purged_letter_is_gone() {
    let mut mail = Mail::new();
    let before = mail.0.state().len();
    mail.enqueue_all(&["a", "b"]);
    mail.kill(2);
    assert_eq!(mail.purge(&[1]), PurgeResponse { purged: 1, more: true });
    assert_eq!(mail.message(1).unwrap_err().code(), Code::NotFound);
    assert_eq!(mail.message(2).unwrap().body, "b");
    assert_eq!(mail.purge(&[]), PurgeResponse { purged: 1, more: false });
    assert_eq!(mail.0.state().len(), before);
}

#[test]
fn a_message_can_be_looked_at_in_every_state() {
    let mut mail = Mail::new();
    mail.configure(1);
    let id = mail.enqueue("a", Duration::ZERO);
    assert_eq!(mail.message(id).unwrap().state(), State::Waiting);
    let receipt = mail.receipt();
    assert_eq!(mail.message(id).unwrap().state(), State::InFlight);
    mail.nack(&receipt, Duration::ZERO).unwrap();
    assert_eq!(mail.message(id).unwrap().state(), State::Dead);
}

#[test]
fn stats_say_how_long_somebody_should_have_been_dequeuing() {
    let mut mail = Mail::new();
    assert_eq!(mail.stats().next_ms, 0);
    mail.enqueue("a", 5 * SECOND);
    mail.enqueue("b", SECOND);
    let now_ms = mail.0.now().as_millis() as u64;
    assert_eq!((mail.counts(), mail.stats().next_ms), ((2, 0, 0), now_ms + 1000));
    mail.0.advance(SECOND);
    mail.dequeue(1);
    assert_eq!((mail.counts(), mail.stats().next_ms), ((1, 1, 0), now_ms + 5000));
}

#[test]
fn queues_are_apart_from_each_other() {
    let mut mail = Mail::new();
    mail.enqueue("a", Duration::ZERO);
    // Not even a name that begins with the other one's sees its messages.
    for queue in ["mai", "mail2"] {
        let request = EnqueueRequest { queue: queue.into(), ..Default::default() };
        mail.0.command(Queues::enqueue, request).unwrap();
    }
    assert_eq!(mail.bodies(10), ["a"]);
    let queues = mail.0.query(Queues::list_queues, ListQueuesRequest::default()).unwrap().queues;
    let waiting: Vec<_> = queues.iter().map(|stats| (stats.queue.as_str(), stats.waiting)).collect();
    assert_eq!(waiting, [("mai", 1), ("mail", 0), ("mail2", 1)]);
}

#[test]
fn a_queue_that_nobody_made_is_not_found() {
    let mut host = Host::new();
    let request = DequeueRequest { queue: "mail".into(), ..Default::default() };
    assert_eq!(host.command(Queues::dequeue, request).unwrap_err().code(), Code::NotFound);
}

#[test]
fn what_is_handed_out_fits_a_response() {
    let mut mail = Mail::new();
    let body = "b".repeat(limits::BODY_MAX);
    for _ in 0..20 {
        mail.enqueue(&body, Duration::ZERO);
    }
    assert_eq!((mail.dequeue(100).len(), mail.dequeue(100).len()), (12, 8));
}

#[test]
fn many_dead_letters_at_once_are_buried_step_by_step() {
    let mut mail = Mail::new();
    mail.configure(1);
    for _ in 0..700 {
        mail.enqueue("a", Duration::ZERO);
    }
    while !mail.dequeue(100).is_empty() {}
    mail.0.advance(30 * SECOND);
    mail.enqueue("new", Duration::ZERO);
    let mut dequeue = || mail.0.command(Queues::dequeue, DequeueRequest { queue: "mail".into(), ..Default::default() });
    let first = dequeue().unwrap();
    assert_eq!((first.deliveries.len(), first.more), (0, true));
    let second = dequeue().unwrap();
    assert_eq!((&second.deliveries[0].body[..], second.more), (&b"new"[..], false));
    assert_eq!(mail.counts(), (0, 1, 700));
}

#[test]
fn what_is_beyond_the_limits_is_refused() {
    let mut mail = Mail::new();
    let body = vec![0; limits::BODY_MAX + 1].into();
    let refused = mail.0.command(Queues::enqueue, EnqueueRequest { queue: "mail".into(), body, delay_ms: 0 });
    assert_eq!(refused.unwrap_err().message(), "the length of body is 262145: at most 262144 is allowed");
    let settings = Some(Settings { max_attempts: 1001, visibility_ms: 0 });
    let refused = mail.0.command(Queues::configure, ConfigureRequest { queue: "mail".into(), settings });
    assert_eq!(refused.unwrap_err().message(), "max_attempts is 1001: at most 1000 is allowed");
    let refused = mail.0.command(Queues::enqueue, EnqueueRequest::default());
    assert_eq!(refused.unwrap_err().message(), "queue is empty");
    let refused = mail.0.command(Queues::ack, AckRequest { queue: "mail".into(), receipts: vec!["x".into()] });
    assert_eq!(refused.unwrap_err().message(), "\"x\" is no receipt: Dequeue gives them");
}

/// What can happen to a queue. Numbers choose among the receipts that were given out so far, good or not any more.
#[derive(Debug, Clone)]
enum Step {
    Enqueue(u64),
    Dequeue(u32),
    Ack(usize),
    Nack(usize),
    Extend(usize),
    Requeue,
    Purge(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..20_u64).prop_map(Step::Enqueue),
        4 => (0..4_u32).prop_map(Step::Dequeue),
        2 => any::<usize>().prop_map(Step::Ack),
        2 => any::<usize>().prop_map(Step::Nack),
        1 => any::<usize>().prop_map(Step::Extend),
        1 => Just(Step::Requeue),
        1 => (0..20_u64).prop_map(Step::Purge),
        3 => (0..20_u64).prop_map(Step::Wait),
    ]
}

impl Mail {
    /// How many messages it removed.
    fn take(&mut self, step: Step, receipts: &mut Vec<String>) -> u64 {
        let pick = |number: usize| receipts.get(number % receipts.len().max(1)).cloned().unwrap_or("0.0".into());
        match step {
            Step::Enqueue(delay_s) => drop(self.enqueue("a", delay_s as u32 * SECOND)),
            Step::Dequeue(limit) => receipts.extend(self.dequeue(limit).into_iter().map(|delivery| delivery.receipt)),
            Step::Ack(number) => return self.ack(&pick(number)).into(),
            Step::Nack(number) => drop(self.nack(&pick(number), SECOND)),
            Step::Extend(number) => drop(self.extend(&pick(number), 5 * SECOND)),
            Step::Requeue => drop(self.requeue(&[])),
            Step::Purge(id) => return self.purge(&[id]).purged.into(),
            Step::Wait(seconds) => self.0.advance(seconds as u32 * SECOND),
        }
        0
    }

    fn rows<K: balsa_sdk::Key, V>(&mut self, map: Map<K, V>) -> u64
    where
        V: balsa_sdk::Value,
    {
        self.0.read(|ctx| Ok(map.range(ctx, ..).keys().count() as u64)).unwrap()
    }
}

proptest! {
    /// Whatever happens: no message is lost or kept twice, and the counts are right.
    #[test]
    fn every_message_is_in_one_place(steps in prop::collection::vec(step(), 0..80)) {
        let mut mail = Mail::new();
        mail.configure(2);
        let mut receipts = Vec::new();
        let (mut enqueued, mut removed) = (0, 0);
        for step in steps {
            enqueued += u64::from(matches!(step, Step::Enqueue(_)));
            removed += mail.take(step, &mut receipts);
            let (waiting, in_flight, dead) = mail.counts();
            prop_assert_eq!(waiting + in_flight + dead, enqueued - removed);
            prop_assert_eq!(mail.rows(MESSAGES), waiting + in_flight);
            prop_assert_eq!(mail.rows(SCHEDULE), waiting + in_flight);
            prop_assert_eq!(mail.rows(DEAD), dead);
            prop_assert_eq!(mail.rows(BODIES), waiting + in_flight + dead);
        }
    }
}
