//! Membership runs itself: a lost volume is replaced, more nodes are let in, fewer leave, and nobody who has forgotten something
//! takes part.

use std::fs;
use std::path::Path;
use std::time::Duration;

use balsa::proto::admin::ClusterMember;

use crate::abacus::{Abacus, Migrate, total};
use crate::harness::{Cluster, Setup, balsa, calm, until};
use crate::hostile::{ADD, number};
use crate::load::Load;
use crate::operator::{activated, decided};
use crate::swapped::{file, files};
use crate::witness::{Temper, Witnesses};

const CLIENTS: usize = 6;
const VALUE_BYTES: usize = 200;
/// Its log, or its vote if there was an election in between.
const LESS: &str = "has less on its volume than it had confirmed: its ";

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

/// Asks the cluster for a change of its members by the command line.
async fn member(cluster: &Cluster, arguments: &[&str], code: i32) -> String {
    let ran = cluster.balsa(&[&["member"], arguments].concat()).await;
    assert_eq!(ran.code, code, "{ran:#?}");
    if code == 0 { ran.out } else { ran.err }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_in_the_files_adds_and_removes_members_under_load() {
    let setup = Setup { hostile: true, spare: 2, ..Setup::default() };
    let mut cluster = Cluster::start(setup).await;
    let load = Load::start(&cluster, CLIENTS, VALUE_BYTES);
    load.goes_on(100).await;

    // They wait until they are wanted, and say for what.
    cluster.nodes[3].start();
    let waiting = &cluster.nodes[3];
    waiting.says(0, "wants 3 nodes, and balsa-3 is none of them; raise `replicas`").await;
    // Which reason it was told last, changes with what the others see.
    until("its readiness says why", async || {
        let ready = waiting.get("/readyz?verbose").await?;
        (ready.contains("503") && ready.contains("not a member of its cluster yet: a majority")).then_some(())
    })
    .await;
    let refused =
        balsa(cluster.dir(), &["--endpoints", &waiting.address(), "--timeout", "10s", "status"]).await.ends(0);
    assert!(refused.contains("joining"), "{refused}");
    let told = waiting.client_within(Duration::from_secs(3)).command(ADD, number(1)).await.unwrap_err().to_string();
    assert!(told.contains("it is not a member of its cluster yet"), "{told}");
    until("the list has it", async || {
        let listed = member(&cluster, &["list"], 0).await;
        let asks = listed.contains("balsa-3 (") && listed.contains("asks to be let in");
        (listed.starts_with("3 voters; the files want 3") && asks).then_some(())
    })
    .await;

    cluster.nodes[4].start();
    cluster.configure(Setup { replicas: 5, ..setup });
    voters(&cluster, &FIVE).await;
    cluster.ready().await;
    load.goes_on(100).await;

    // Lowered while two that stay are away, nobody goes: the rest would be no majority.
    member(&cluster, &["transfer-leader", "balsa-4"], 0).await;
    for at in [0, 1] {
        cluster.nodes[at].kill().await;
    }
    cluster.configure(Setup { replicas: 1, ..setup });
    let why = "balsa-4 is beyond the 1 nodes that the files want, and stays: the others could not go on without it: of 4 voters 2 would \
               be able, which is no majority; balsa-0 does not answer, balsa-1 does not answer";
    until("status says why nobody is removed", async || {
        let warnings = cluster.nodes[2].status().await?.warnings;
        warnings.iter().any(|one| one.contains(why)).then_some(())
    })
    .await;
    let members = cluster.nodes[2].client().members().await.unwrap().members;
    assert!(members.len() == 5 && members.iter().all(|member| member.voter), "{members:?}");
    // As asked for above, if no stall has had another elected since.
    let leads = cluster.leader().await == 4;
    let said = cluster.nodes[4].log().len();
    cluster.configure(Setup { replicas: 3, ..setup });
    for at in [0, 1] {
        cluster.nodes[at].start();
    }
    voters(&cluster, &THREE).await;
    if leads {
        cluster.nodes[4].says(said, "another leads now, since this node is to leave").await;
    }
    for at in [3, 4] {
        assert_eq!(cluster.nodes[at].exited().await.code(), Some(6));
        assert!(cluster.nodes[at].log().contains("this node was removed from its cluster"));
    }
    load.goes_on(100).await;

    // With that data they stay out, and say why again.
    calm("nobody should be disturbed", async || {
        let (said, before) = (cluster.nodes[4].log().len(), cluster.term().await);
        cluster.nodes[4].start();
        assert_eq!(cluster.nodes[4].exited().await.code(), Some(6));
        assert!(cluster.nodes[4].log()[said..].contains("this node was removed from its cluster"));
        load.goes_on(50).await;
        (before, cluster.term().await)
    })
    .await;

    let tally = load.stop().await;
    tally.assert_kept(&cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_add_promote_remove_and_hand_over_and_are_refused_what_is_not_safe() {
    let mut cluster = Cluster::start(Setup { spare: 1, ..Setup::default() }).await;
    let to = cluster.follower().await;
    let name = cluster.nodes[to].name.clone();
    calm("the one that was named should lead", async || {
        let done = member(&cluster, &["transfer-leader", &name], 0).await;
        // If it took longer than the leader waits for it, the next attempt finds it leading.
        assert!([format!("{name} leads now\n"), format!("{name} leads\n")].contains(&done), "{done}");
        (to as u64, cluster.leader().await as u64)
    })
    .await;
    calm("the one that is furthest should lead, whoever that is of the others", async || {
        let leads = cluster.leader().await;
        member(&cluster, &["transfer-leader"], 0).await;
        (1, u64::from(cluster.leader().await != leads))
    })
    .await;

    // A fourth, by hand: files neither promote nor remove it.
    let refused = member(&cluster, &["add", "balsa-3"], 5).await;
    assert!(refused.contains("balsa-3 has not asked to be let in; start it first"), "{refused}");
    let refused = member(&cluster, &["add", "balsa-1"], 5).await;
    assert!(refused.contains("one of the nodes that the files want"), "{refused}");
    cluster.nodes[3].start();
    cluster.nodes[3].says(0, "let it in by hand with `balsa member add balsa-3`").await;
    let done = member(&cluster, &["add", "balsa-3"], 0).await;
    assert!(done.contains("is a learner now"), "{done}");
    let refused = member(&cluster, &["transfer-leader", "balsa-3"], 5).await;
    assert!(refused.contains("balsa-3 cannot lead: it is a learner; promote it first"), "{refused}");
    until("the learner serves", async || {
        let client = cluster.nodes[3].client();
        client
            .status()
            .await
            .ok()?
            .nodes
            .iter()
            .any(|node| node.name == "balsa-3" && node.role == "learner")
            .then_some(())
    })
    .await;
    until("it has caught up", async || {
        (cluster.balsa(&["member", "promote", "balsa-3"]).await.code == 0).then_some(())
    })
    .await;
    voters(&cluster, &["balsa-0", "balsa-1", "balsa-2", "balsa-3"]).await;
    let refused = member(&cluster, &["promote", "balsa-3"], 5).await;
    assert!(refused.contains("balsa-3 is a voter already"), "{refused}");
    assert_eq!(cluster.balsa(&["-o", "json", "member", "list"]).await.json()["members"][3]["added_by_operator"], true);

    // The one that leads can be removed too.
    member(&cluster, &["transfer-leader", "balsa-3"], 0).await;
    let done = member(&cluster, &["remove", "balsa-3"], 0).await;
    assert!(done.contains("is removed; it was a voter"), "{done}");
    assert_eq!(cluster.nodes[3].exited().await.code(), Some(6));
    voters(&cluster, &THREE).await;

    let refused = member(&cluster, &["remove", "balsa-7"], 5).await;
    assert!(refused.contains("balsa-7 is not a member; the members are balsa-0, balsa-1, balsa-2"), "{refused}");
    let refused = member(&cluster, &["remove", "balsa-2"], 5).await;
    assert!(refused.contains("lower `replicas`") && refused.contains("A lost volume needs no removal"), "{refused}");
    let leader = cluster.leader().await;
    let [dead, other] = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.nodes[dead].kill().await;
    let other = cluster.nodes[other].name.clone();
    let refused = member(&cluster, &["remove", &other, "--yes"], 5).await;
    let why = "the others could not go on without it: of 2 voters 1 would be able";
    assert!(refused.contains(why), "at once, though the dead one was heard of a moment ago: {refused}");
    // The dead one may go, and then the next, down to the last.
    let dead = cluster.nodes[dead].name.clone();
    member(&cluster, &["remove", &dead, "--yes"], 0).await;
    member(&cluster, &["remove", &other, "--yes"], 0).await;
    let last = cluster.nodes[leader].name.clone();
    let refused = member(&cluster, &["remove", &last, "--yes"], 5).await;
    assert!(refused.contains("it is the last voter, and without it there is no cluster"), "{refused}");
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &place),
            false => drop(fs::copy(entry.path(), place).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_put_back_to_an_earlier_time_takes_no_part_and_neither_does_a_replaced_one() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let load = Load::start(&cluster, CLIENTS, VALUE_BYTES);
    let victim = cluster.follower().await;
    let (data, copied) = (cluster.nodes[victim].data_dir.clone(), cluster.dir().join("copy"));
    let name = cluster.nodes[victim].name.clone();
    load.goes_on(100).await;
    assert_eq!(cluster.nodes[victim].terminate().await.code(), Some(0));
    copy(&data, &copied);
    cluster.nodes[victim].start();
    cluster.ready().await;
    let before = voters(&cluster, &THREE).await;
    load.goes_on(200).await;
    cluster.nodes[victim].kill().await;
    cluster.nodes[victim].lose_volume();
    copy(&copied, &data);
    let said = cluster.nodes[victim].log().len();
    for _ in 0..2 {
        cluster.nodes[victim].start();
        assert_eq!(cluster.nodes[victim].exited().await.code(), Some(6));
    }
    let log = cluster.nodes[victim].log();
    assert_eq!(log[said..].matches(LESS).count(), 2, "{}", &log[said..]);
    let what_was = [", and it had confirmed index ", ", and it had voted in term "];
    assert!(what_was.iter().any(|words| log[said..].contains(words)), "{}", &log[said..]);
    load.goes_on(50).await;

    // Its place is taken as that of a lost volume.
    fs::rename(&data, cluster.dir().join("rolled back")).unwrap();
    cluster.nodes[victim].start();
    cluster.ready().await;
    let after = voters(&cluster, &THREE).await;
    assert_ne!(id_of(&before, &name), id_of(&after, &name));

    // The volume that was replaced returns: even with all that it had confirmed, it is no member's any more.
    cluster.nodes[victim].kill().await;
    let present = cluster.dir().join("present");
    fs::rename(&data, &present).unwrap();
    copy(&copied, &data);
    fs::remove_file(data.join("standing")).unwrap();
    let said = cluster.nodes[victim].log().len();
    cluster.nodes[victim].start();
    assert_eq!(cluster.nodes[victim].exited().await.code(), Some(6));
    let log = cluster.nodes[victim].log();
    assert!(log[said..].contains("ERROR this node "), "{}", &log[said..]);
    load.goes_on(50).await;
    cluster.nodes[victim].lose_volume();
    fs::rename(&present, &data).unwrap();
    cluster.nodes[victim].start();
    cluster.ready().await;
    assert_eq!(
        id_of(&voters(&cluster, &THREE).await, &name),
        id_of(&after, &name),
        "the new one is a member all the same"
    );

    // So is one whose own peers remember nothing of it: a leader says that it was removed.
    cluster.nodes[victim].kill().await;
    fs::rename(&data, &present).unwrap();
    cluster.nodes[victim].start();
    cluster.ready().await;
    voters(&cluster, &THREE).await;
    for at in (0..3).filter(|at| *at != victim) {
        cluster.nodes[at].kill().await;
        cluster.nodes[at].start();
        cluster.ready().await;
    }
    cluster.nodes[victim].kill().await;
    cluster.nodes[victim].lose_volume();
    fs::rename(&present, &data).unwrap();
    let said = cluster.nodes[victim].log().len();
    cluster.nodes[victim].start();
    assert_eq!(cluster.nodes[victim].exited().await.code(), Some(6));
    let log = cluster.nodes[victim].log();
    assert!(log[said..].contains("this node was removed from its cluster"), "{}", &log[said..]);

    let tally = load.stop().await;
    tally.assert_kept(&cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_put_back_while_no_node_runs_is_noticed_when_all_are_started() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let load = Load::start(&cluster, CLIENTS, VALUE_BYTES);
    let (data, copied) = (cluster.nodes[2].data_dir.clone(), cluster.dir().join("copy"));
    load.goes_on(100).await;
    assert!(cluster.nodes[2].terminate().await.success());
    copy(&data, &copied);
    cluster.nodes[2].start();
    cluster.ready().await;
    load.goes_on(200).await;
    let tally = load.stop().await;
    for at in [2, 0, 1] {
        assert!(cluster.nodes[at].terminate().await.success());
    }
    cluster.nodes[2].lose_volume();
    copy(&copied, &data);
    let said = cluster.nodes[2].log().len();
    cluster.start_all();
    assert_eq!(cluster.nodes[2].exited().await.code(), Some(6));
    assert!(cluster.nodes[2].log()[said..].contains(LESS), "{}", &cluster.nodes[2].log()[said..]);
    cluster.ready().await;
    cluster.nodes[2].lose_volume();
    cluster.nodes[2].start();
    cluster.ready().await;
    voters(&cluster, &THREE).await;
    tally.assert_kept(&cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_goes_on_when_the_leader_dies_at_any_step_of_it_and_when_the_log_is_gone() {
    let raft = "snapshot_log_bytes = \"1 MiB\"\nkeep_log_bytes = 0\n";
    let mut cluster = Cluster::start(Setup { hostile: true, raft: Some(raft), ..Setup::default() }).await;
    let load = Load::start(&cluster, CLIENTS, 16 << 10);
    until("the log is trimmed", async || cluster.running().all(|node| node.trims_above(1) >= 1).then_some(())).await;
    for step in ["let in as a learner", "becomes a voter", "a voter now"] {
        let leader = cluster.leader().await;
        let victim = (leader + 1) % 3;
        cluster.nodes[victim].kill().await;
        cluster.nodes[victim].lose_volume();
        let said = cluster.said();
        cluster.nodes[victim].start();
        let leader = cluster.one_says(&said, step).await;
        cluster.nodes[leader].kill().await;
        cluster.nodes[leader].start();
        cluster.ready().await;
        voters(&cluster, &THREE).await;
        let log = cluster.nodes[victim].log();
        assert!(log[said[victim]..].contains("receiving a snapshot"), "the log was not gone");
        load.goes_on(50).await;
    }
    let tally = load.stop().await;
    tally.assert_kept(&cluster, 16 << 10).await;
    cluster.assert_same_state().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_changes_while_a_lost_node_is_replaced() {
    let first = Abacus::default().wasm();
    let mut cluster = Cluster::start(files(&[file(&first)])).await;
    let witnesses = Witnesses::start(&cluster, Temper::Persistent, 4, 0).await;
    for (version, joins_first) in [("0.2.0", false), ("0.3.0", true)] {
        witnesses.go_on(50).await;
        let wasm = Abacus { migrate: Migrate::Well, functions: 400, ..Abacus::version(version) }.wasm();
        let lost = cluster.follower().await;
        let (name, said) = (cluster.nodes[lost].name.clone(), cluster.said());
        cluster.nodes[lost].kill().await;
        cluster.nodes[lost].lose_volume();
        if joins_first {
            cluster.nodes[lost].start();
            cluster.one_says(&said, "let in as a learner").await;
            cluster.put_all("abacus.wasm", &wasm);
        } else {
            // The change waits for a voter that never comes back, and goes on with the one that takes its place.
            cluster.put_all("abacus.wasm", &wasm);
            cluster.one_says(&said, &format!("{name} (it does not answer)")).await;
            cluster.nodes[lost].start();
        }
        activated(&decided(&cluster, "abacus", &wasm, 0).await);
        voters(&cluster, &THREE).await;
        cluster.ready().await;
        assert_eq!(total(&cluster.nodes[lost].client(), "abacus").await.unwrap().version, version);
    }
    witnesses.stop().await.assert_kept(&cluster).await;
    cluster.assert_same_state().await;
}

/// The cluster's configuration, but that ordinal 2 is at other addresses: 2 n² + n is 3 n for 0 and 1 only.
fn elsewhere(cluster: &Cluster) -> String {
    let toml = fs::read_to_string(cluster.dir().join("balsa.toml")).unwrap();
    toml.replace("3 * ordinal", "2 * ordinal * ordinal + ordinal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_back_at_another_address_is_reached_there() {
    let mut cluster = Cluster::start(Setup { spare: 2, ..Setup::default() }).await;
    let before = voters(&cluster, &THREE).await;
    cluster.nodes[2].kill().await;
    // The others' files have the old one.
    cluster.nodes[2] = cluster.twin(2, &elsewhere(&cluster));
    cluster.nodes[2].start();
    let after = until("the members have its new addresses", async || {
        let members = cluster.nodes[0].client().members().await.ok()?.members;
        (members.len() == 3 && members[2].client_addr == cluster.nodes[2].address()).then_some(members)
    })
    .await;
    assert_ne!(after[2].peer_addr, before[2].peer_addr);
    assert_eq!((after[2].id, after[2].voter), (before[2].id, true), "it is the same node");
    cluster.ready().await;

    // It is counted on from there, also by one that starts with the old file.
    for at in 0..2 {
        cluster.nodes[at].kill().await;
        cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
        cluster.nodes[at].start();
        cluster.ready().await;
    }
    cluster.assert_same_state().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_live_nodes_of_one_name_are_not_both_let_in() {
    let mut cluster = Cluster::start(Setup { spare: 2, ..Setup::default() }).await;
    let before = voters(&cluster, &THREE).await;
    // Another balsa-2, which knows the others by their addresses and has some of its own.
    let twin = cluster.twin(2, &elsewhere(&cluster).replace("/data/", "/twin/"));
    cluster.nodes.push(twin);
    cluster.nodes.last_mut().unwrap().start();
    let twin = cluster.nodes.len() - 1;
    cluster.nodes[twin].says(0, "two live nodes of one name: balsa-2 is a member as ").await;
    until("status names both", async || {
        let warnings = cluster.nodes[0].status().await?.warnings;
        warnings.iter().any(|one| one.contains("asks to be let in: two live nodes of one name")).then_some(())
    })
    .await;
    let who = |members: &[ClusterMember]| {
        members.iter().map(|member| (member.name.clone(), member.id, member.peer_addr.clone())).collect::<Vec<_>>()
    };
    assert_eq!(who(&voters(&cluster, &THREE).await), who(&before));
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);

    // Each time, the next one to stand still is the one that took the other's place.
    let mut pair = [2, twin];
    calm("nobody should be disturbed", async || {
        let terms = the_twin_takes_its_place(&mut cluster, pair).await;
        pair.reverse();
        terms
    })
    .await;
}

/// A member stands still, and another node of its name takes its place, at its own address; the old one learns it when it goes on. Returns
/// the terms before and after it went on.
async fn the_twin_takes_its_place(cluster: &mut Cluster, [old, twin]: [usize; 2]) -> (u64, u64) {
    let before = voters(cluster, &THREE).await;
    if !cluster.nodes[twin].runs() {
        cluster.nodes[twin].lose_volume();
        cluster.nodes[twin].start();
    }
    cluster.nodes[old].freeze();
    let address = until("the twin is the member", async || {
        let members = cluster.nodes[0].client().members().await.ok()?.members;
        let is = members.len() == 3 && members[2].voter && members[2].id != before[2].id;
        is.then(|| members[2].peer_addr.clone())
    })
    .await;
    assert_eq!(address, cluster.nodes[twin].peer_address());
    let (said, term) = (cluster.nodes[old].log().len(), cluster.nodes[0].tells_own_status().await.term);
    cluster.nodes[old].thaw();
    assert_eq!(cluster.nodes[old].exited().await.code(), Some(6));
    assert!(cluster.nodes[old].log()[said..].contains("this node was removed from its cluster"));
    until("the twin is ready", async || cluster.nodes[twin].is_ready().await.then_some(())).await;
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    (term, cluster.nodes[0].tells_own_status().await.term)
}
