//! What happens to containers: killed, paused, cut off, moved to other addresses, and restarted one after the other.

use std::time::Duration;

use super::engine::with_engine;
use super::fleet::Fleet;

/// Twice the longest time after which somebody stands for election.
const LONG: Duration = Duration::from_secs(4);

#[tokio::test]
async fn containers_are_killed_paused_moved_and_restarted() {
    with_engine(containers_are_killed_paused_moved_and_restarted, async |engine| {
        let mut fleet = Fleet::start(engine).await;
        each_is_killed(&mut fleet).await;
        is_paused(&mut fleet).await;
        is_cut_off(&mut fleet).await;
        comes_back_elsewhere(&mut fleet).await;
        addresses_change_hands(&mut fleet).await;
        all_are_restarted(&mut fleet).await;
    })
    .await;
}

async fn each_is_killed(fleet: &mut Fleet) {
    let leader = fleet.leader().await;
    for (at, title) in [(leader, "the leader"), ((leader + 1) % 3, "a node"), ((leader + 2) % 3, "another node")] {
        fleet
            .case(&format!("{title} is killed"), async |fleet, load| {
                fleet.kill(at).await;
                load.goes_on(50).await;
                fleet.restart(at).await;
            })
            .await;
    }
}

async fn is_paused(fleet: &mut Fleet) {
    for leads in [true, false] {
        let at = if leads { fleet.leader().await } else { fleet.follower().await };
        let title = format!("the {} is paused for longer than an election", if leads { "leader" } else { "follower" });
        fleet
            .case(&title, async |fleet, load| {
                fleet.pause(at).await;
                load.goes_on_for(LONG).await;
                fleet.unpause(at).await;
            })
            .await;
    }
}

async fn is_cut_off(fleet: &mut Fleet) {
    for leads in [true, false] {
        let at = if leads { fleet.leader().await } else { fleet.follower().await };
        let title =
            format!("the {} is cut off and comes back with another address", if leads { "leader" } else { "follower" });
        fleet
            .case(&title, async |fleet, load| {
                fleet.disconnect(at).await;
                load.goes_on_for(LONG).await;
                fleet.connect(at).await;
            })
            .await;
    }
}

async fn comes_back_elsewhere(fleet: &mut Fleet) {
    let at = fleet.leader().await;
    fleet
        .case("the leader is stopped and starts with another address", async |fleet, load| {
            assert_eq!(fleet.stop(at).await, 0);
            fleet.disconnect(at).await;
            load.goes_on(50).await;
            fleet.connect(at).await;
            fleet.restart(at).await;
        })
        .await;
}

/// Whoever still has the other's old address talks to the wrong node, which says so.
async fn addresses_change_hands(fleet: &mut Fleet) {
    let one = fleet.leader().await;
    let other = (one + 1) % 3;
    fleet
        .case("two nodes start with each other's address", async |fleet, _| {
            let addresses = [fleet.nodes[one].address, fleet.nodes[other].address];
            for at in [one, other] {
                fleet.kill(at).await;
                fleet.disconnect(at).await;
            }
            fleet.connect_as(one, addresses[1]).await;
            fleet.connect_as(other, addresses[0]).await;
            for at in [one, other] {
                fleet.restart(at).await;
            }
        })
        .await;
}

/// As a rollout does it, each once the one before is healthy. The leader is the last: leadership moves then, and never to a node
/// that is still to be restarted.
async fn all_are_restarted(fleet: &mut Fleet) {
    let leader = fleet.leader().await;
    fleet
        .case("all nodes are restarted, one after the other", async |fleet, load| {
            for at in [(leader + 1) % 3, (leader + 2) % 3, leader] {
                assert_eq!(fleet.stop(at).await, 0);
                load.goes_on(20).await;
                fleet.restart(at).await;
                fleet.healthy(at).await;
            }
        })
        .await;
}
