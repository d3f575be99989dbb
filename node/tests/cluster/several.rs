//! Several modules side by side, each with its own services and its own state.

use balsa::client::{Client, Code, Error};
use balsa::proto::admin::StatusResponse;
use balsa::proto::command::activation::Outcome;

use crate::abacus::{Abacus, Migrate, add, amount, path, total};
use crate::harness::{Cluster, File, Setup, until};
use crate::operator::{activated, decided, drop_module, history_of, push, refused};
use crate::swapped::{LIMITS, files};

/// A module of this name, with a package of the same name.
fn named<'a>(name: &'a str, version: &'a str) -> Abacus<'a> {
    Abacus { name, package: name, version, migrate: Migrate::Well, ..Abacus::default() }
}

fn file<'a>(name: &'a str, wasm: &'a [u8]) -> File<'a> {
    File { name, wasm, allow_breaking: false }
}

fn serves(status: &StatusResponse) -> Vec<Vec<&str>> {
    status.nodes.iter().map(|node| node.modules.iter().map(|module| module.name.as_str()).collect()).collect()
}

/// Until all nodes serve these modules.
async fn serve(cluster: &Cluster, modules: &[&str]) {
    until(&format!("all nodes serve {modules:?}"), async || {
        serves(&cluster.status().await).iter().all(|served| served == modules).then_some(())
    })
    .await;
}

/// The client is told that nobody has the method, by every node.
async fn assert_unserved(cluster: &Cluster, package: &str) {
    let clients: Vec<Client> = cluster.nodes.iter().map(|node| node.client()).collect();
    for client in clients {
        let answers = [add(&client, package, 1).await, total(&client, package).await];
        for answer in answers {
            let Err(Error::Refused(refusal)) = answer else { panic!("{package} was served: {answer:?}") };
            assert_eq!((refusal.code, refusal.reason.as_deref()), (Code::Unimplemented, Some("UNKNOWN_METHOD")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_live_side_by_side_and_end_one_by_one() {
    let (ant, bee) = (named("ant", "1.0.0").wasm(), named("bee", "1.0.0").wasm());
    let mut cluster = Cluster::start(files(&[file("ant", &ant), file("bee", &bee)])).await;
    serve(&cluster, &["ant", "bee"]).await;
    let client = cluster.client();
    for (package, count) in [("ant", 3), ("bee", 40)] {
        add(&client, package, count).await.unwrap();
    }
    assert_eq!(total(&client, "ant").await.unwrap().added(), 3);
    assert_eq!(total(&client, "bee").await.unwrap().added(), 40);

    // One is swapped, the other one does not notice.
    let next = named("bee", "1.1.0").wasm();
    cluster.put_all("bee.wasm", &next);
    activated(&decided(&cluster, "bee", &next, 0).await);
    let (ants, bees) = (total(&client, "ant").await.unwrap(), total(&client, "bee").await.unwrap());
    assert_eq!((&*ants.version, ants.migrations()), ("1.0.0", 0));
    assert_eq!((&*bees.version, bees.migrations(), bees.inits(), bees.added()), ("1.1.0", 1, 1, 40));
    assert_eq!(history_of(&cluster, "ant").await.len(), 1);

    // A third one claims what another serves; it is refused with both names, and the file that brought it is fine otherwise.
    let thief = Abacus { name: "thief", ..named("ant", "2.0.0") }.wasm();
    cluster.give_all(files(&[file("ant", &ant), file("bee", &next), file("thief", &thief)]));
    let row = decided(&cluster, "thief", &thief, 0).await;
    let why = &refused(&row).reason;
    assert!(["ant.v1.Abacus", "ant", "thief"].iter().all(|name| why.contains(name)), "{why}");
    serve(&cluster, &["ant", "bee"]).await;

    an_entry_goes_and_comes_back(&mut cluster, &ant, &next).await;
    a_dropped_module_begins_anew(&cluster, &ant, &next).await;
    assert_eq!(total(&client, "bee").await.unwrap().added(), 40);
    cluster.assert_same_state().await;
}

async fn an_entry_goes_and_comes_back(cluster: &mut Cluster, ant: &[u8], bee: &[u8]) {
    cluster.give_all(files(&[file("bee", bee)]));
    serve(cluster, &["bee"]).await;
    assert_unserved(cluster, "ant").await;
    let stopped = history_of(cluster, "ant").await.pop().unwrap();
    assert_eq!(stopped.outcome, Some(Outcome::Stopped(true)));
    for node in &mut cluster.nodes {
        node.kill().await;
    }
    cluster.start_all();
    cluster.ready().await;
    serve(cluster, &["bee"]).await;

    // Back again: its state is there, and the same code has nothing to migrate.
    cluster.give_all(files(&[file("ant", ant), file("bee", bee)]));
    serve(cluster, &["ant", "bee"]).await;
    let reading = add(&cluster.client(), "ant", 4).await.unwrap();
    assert_eq!((reading.added(), reading.inits(), reading.migrations()), (7, 1, 0));
}

async fn a_dropped_module_begins_anew(cluster: &Cluster, ant: &[u8], bee: &[u8]) {
    let node = &cluster.nodes[cluster.follower().await];
    let wanted = drop_module(node, "ant").await.unwrap_err();
    assert_eq!(wanted.code(), Code::FailedPrecondition);
    let mend = "take its [[module]] out of balsa.toml first";
    assert!(wanted.message().contains(mend), "{wanted:?}");
    let nobody = drop_module(node, "nobody").await.unwrap_err();
    assert!(nobody.message().contains("no module is called \"nobody\"; there are: ant, bee"), "{nobody:?}");

    cluster.give_all(files(&[file("bee", bee)]));
    serve(cluster, &["bee"]).await;
    assert_eq!(drop_module(node, "ant").await.unwrap(), 1);
    let dropped = history_of(cluster, "ant").await.pop().unwrap();
    assert_eq!(dropped.outcome, Some(Outcome::Dropped(true)));

    cluster.give_all(files(&[file("ant", ant), file("bee", bee)]));
    serve(cluster, &["ant", "bee"]).await;
    let reading = add(&cluster.client(), "ant", 5).await.unwrap();
    assert_eq!((reading.added(), reading.inits(), reading.migrations()), (5, 1, 0), "nothing is left of its old state");

    // One that no files mention may be stopped and dropped while it serves.
    activated(&push(node, &named("cat", "1.0.0").wasm()).await);
    add(&cluster.client(), "cat", 1).await.unwrap();
    assert_eq!(drop_module(node, "cat").await.unwrap(), 1);
    assert_unserved(cluster, "cat").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_may_change_hands_and_limits_change_with_the_files() {
    let old = Abacus { name: "old", ..named("shop", "1.0.0") }.wasm();
    let cluster = Cluster::start(files(&[file("old", &old)])).await;
    let client = cluster.client();
    add(&client, "shop", 1).await.unwrap();

    // Limits are the log's: a tight one is obeyed by all nodes from one index on, and so is its end.
    let work = async || client.command(&path("shop", "Work"), amount(1_000_000)).await;
    work().await.unwrap();
    let tight = format!("{LIMITS}command_fuel = 100000\n");
    let modules = [file("old", &old)];
    let setup = Setup { limits: &tight, ..files(&modules) };
    cluster.put_all("balsa.toml", cluster.toml(setup).as_bytes());
    let stopped = until("the new limit is in force", async || work().await.err()).await;
    let Error::Rejected(rejection) = stopped else { panic!("{stopped}") };
    assert_eq!(rejection.code, Code::ResourceExhausted);
    cluster.put_all("balsa.toml", cluster.toml(files(&modules)).as_bytes());
    until("the old limit is in force", async || work().await.ok()).await;

    // What one node's file says alone is not obeyed.
    cluster.nodes[0].volume.put("balsa.toml", cluster.toml(setup).as_bytes());
    until("status names the odd one", async || {
        let warnings = cluster.status().await.warnings;
        warnings.iter().any(|warning| warning.starts_with("balsa-0's files ask for something else")).then_some(())
    })
    .await;
    work().await.unwrap();

    // In one edit, one module goes and another takes its service over; it has a state of its own.
    let new = Abacus { name: "new", ..named("shop", "2.0.0") }.wasm();
    cluster.give_all(files(&[file("new", &new)]));
    serve(&cluster, &["new"]).await;
    let reading = add(&client, "shop", 7).await.unwrap();
    assert_eq!((&*reading.version, reading.added()), ("2.0.0", 7));
    cluster.assert_same_state().await;
}
