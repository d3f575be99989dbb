//! Nodes come and go: volumes are lost, come back, are put back to an earlier time; names are used twice; there are more nodes and
//! fewer. Nobody has to do anything but start and stop containers, and to change `replicas`.

use std::time::Duration;

use super::engine::with_engine;
use super::fleet::Fleet;
use crate::harness::{stays, until};

const THREE: [&str; 3] = ["balsa-0", "balsa-1", "balsa-2"];
const FIVE: [&str; 5] = ["balsa-0", "balsa-1", "balsa-2", "balsa-3", "balsa-4"];
/// How a node ends whose data has no place in the cluster.
const RETIRED: i32 = balsa::node::EXIT_RETIRED as i32;

#[tokio::test]
async fn nodes_come_and_go_and_the_members_follow() {
    with_engine(nodes_come_and_go_and_the_members_follow, async |engine| {
        let mut fleet = Fleet::start(engine).await;
        is_deleted_with_its_volume(&mut fleet).await;
        two_have_one_name(&mut fleet).await;
        a_volume_is_put_back(&mut fleet).await;
        three_become_five_and_three_again(&mut fleet).await;
    })
    .await;
}

/// The leader first.
async fn is_deleted_with_its_volume(fleet: &mut Fleet) {
    for title in ["the leader", "a node"] {
        let at = if title == "the leader" { fleet.leader().await } else { fleet.follower().await };
        fleet
            .case(&format!("{title} is deleted with its volume and begins anew"), async |fleet, load| {
                let before = fleet.voters(&THREE).await;
                fleet.kill(at).await;
                load.goes_on(50).await;
                fleet.renew(at).await;
                fleet.ready().await;
                let after = fleet.voters(&THREE).await;
                for (place, (before, after)) in before.iter().zip(&after).enumerate() {
                    assert_eq!(before == after, place != at, "{}: {before:016x} {after:016x}", THREE[place]);
                }
            })
            .await;
    }
}

/// The second waits while the first answers, takes its place when it is gone, and then the first has none.
async fn two_have_one_name(fleet: &mut Fleet) {
    let at = fleet.follower().await;
    let name = fleet.nodes[at].name.clone();
    let mut first = None;
    fleet
        .case(&format!("a second {name} starts beside the first, which is killed then"), async |fleet, load| {
            let before = fleet.voters(&THREE).await;
            let second = fleet.make(&name).await;
            let who = format!("{:016x}", before[at]);
            until("the second is told who has its name", async || {
                let log = second.log().await;
                log.lines().any(|line| line.contains("not a member") && line.contains(&who)).then_some(())
            })
            .await;
            load.goes_on(50).await;
            stays("the members are who they were", Duration::from_secs(2), async || {
                fleet.voters(&THREE).await == before && !second.is_ready().await
            })
            .await;
            fleet.kill(at).await;
            first = Some(std::mem::replace(&mut fleet.nodes[at], second));
            load.goes_on(50).await;
            fleet.ready().await;
            let after = fleet.voters(&THREE).await;
            assert_ne!(before[at], after[at], "{name} has a new id");
        })
        .await;
    fleet
        .case(&format!("the first {name} returns with its old volume"), async |_, load| {
            let mut first = first.take().expect("it was killed");
            first.start().await;
            assert_eq!(first.ended().await, RETIRED);
            let log = first.log().await;
            assert!(log.contains("was removed from its cluster"), "{log}");
            load.goes_on(50).await;
            first.delete().await;
        })
        .await;
}

async fn a_volume_is_put_back(fleet: &mut Fleet) {
    let at = fleet.follower().await;
    let earlier = fleet.copy_of_volume(at).await;
    fleet
        .case("a volume is put back to an earlier time", async |fleet, load| {
            let before = fleet.voters(&THREE).await;
            load.goes_on(200).await;
            fleet.kill(at).await;
            fleet.put_back(at, &earlier).await;
            assert_eq!(fleet.ended(at).await, RETIRED);
            let log = fleet.nodes[at].log().await;
            assert!(log.contains("has less on its volume than it had confirmed"), "{log}");
            load.goes_on(50).await;
            // As the message says.
            fleet.renew(at).await;
            fleet.ready().await;
            assert_ne!(fleet.voters(&THREE).await[at], before[at]);
        })
        .await;
}

async fn three_become_five_and_three_again(fleet: &mut Fleet) {
    fleet
        .case("three become five", async |fleet, load| {
            fleet.want_replicas(5);
            fleet.add(2).await;
            fleet.voters(&FIVE).await;
            load.goes_on(50).await;
        })
        .await;
    fleet
        .case("the leader and another one of five are killed", async |fleet, load| {
            let leader = fleet.leader().await;
            let dead = [leader, (leader + 1) % 5];
            for at in dead {
                fleet.kill(at).await;
            }
            load.goes_on(50).await;
            for at in dead {
                fleet.restart(at).await;
            }
        })
        .await;
    fleet
        .case("five become three, and the two that left end by themselves", async |fleet, load| {
            fleet.want_replicas(3);
            fleet.voters(&THREE).await;
            load.goes_on(50).await;
            for at in [4, 3] {
                assert_eq!(fleet.ended(at).await, RETIRED);
                fleet.delete_last().await;
            }
        })
        .await;
}
