//! Membership runs itself: a lost volume is replaced, more nodes are let in, fewer leave, and nobody who has forgotten something
//! takes part.

use balsa::proto::admin::{ClusterMember, member_change::Kind};

use crate::harness::{Cluster, Setup, until};
use crate::load::Load;

const CLIENTS: usize = 6;
const VALUE_BYTES: usize = 200;

/// The members that a majority agrees on, by name, once they are these voters and no learner.
async fn voters(cluster: &Cluster, names: &[&str]) -> Vec<ClusterMember> {
    until(&format!("the members are {names:?}, all of them voters"), async || {
        let node = cluster.running().next()?;
        let members = node.client().members().await.ok()?.members;
        let is = |(member, name): (&ClusterMember, &&str)| member.name == **name && member.voter && member.reachable;
        (members.len() == names.len() && members.iter().zip(names).all(is)).then_some(members)
    })
    .await
}

fn id_of(members: &[ClusterMember], name: &str) -> u64 {
    members.iter().find(|member| member.name == name).map_or(0, |member| member.id)
}

const THREE: [&str; 3] = ["balsa-0", "balsa-1", "balsa-2"];
const FIVE: [&str; 5] = ["balsa-0", "balsa-1", "balsa-2", "balsa-3", "balsa-4"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_volume_comes_back_as_a_new_one_under_load() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let load = Load::start(&cluster, CLIENTS, VALUE_BYTES);
    load.goes_on(100).await;
    let mut before = voters(&cluster, &THREE).await;
    let leader = cluster.leader().await;
    for victim in [leader, (leader + 1) % 3, (leader + 2) % 3] {
        cluster.nodes[victim].kill().await;
        cluster.nodes[victim].lose_volume();
        load.goes_on(50).await;
        cluster.nodes[victim].start();
        cluster.ready().await;
        let after = voters(&cluster, &THREE).await;
        let name = &cluster.nodes[victim].name;
        assert_ne!(id_of(&before, name), id_of(&after, name), "{name} has a new id");
        assert!(after.iter().all(|member| member.name == *name || id_of(&before, &member.name) == member.id));
        load.goes_on(50).await;
        before = after;
    }
    let tally = load.stop().await;
    tally.assert_kept(&cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;
}
