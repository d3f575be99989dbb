//! A backup is made while clients write, and restored to one volume; the other two nodes join it with empty ones.

use super::engine::with_engine;
use super::fleet::Fleet;

#[tokio::test]
async fn a_backup_is_restored_on_three_nodes() {
    with_engine(a_backup_is_restored_on_three_nodes, async |engine| {
        let mut fleet = Fleet::start(engine).await;
        fleet.case("clients write what will be in the backup", async |_, load| load.goes_on(200).await).await;
        let before = fleet.status().await.cluster_id;
        let load = fleet.load();
        load.goes_on(50).await;
        let least = fleet.total().await;
        let backup = fleet.back_up().await;
        load.goes_on(50).await;
        let across = load.stop().await;
        fleet.begin_again_with(&backup).await;
        fleet.has_at_least(least, &across).await;
        fleet.case("a backup is restored, and its cluster goes on", async |_, load| load.goes_on(200).await).await;
        assert_ne!(fleet.status().await.cluster_id, before, "the cluster is a new one");
    })
    .await;
}
