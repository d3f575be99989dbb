//! A backup is restored to one volume, and the other two nodes join it with empty ones.

use super::engine::with_engine;
use super::fleet::Fleet;

#[tokio::test]
async fn a_backup_is_restored_on_three_nodes() {
    with_engine(a_backup_is_restored_on_three_nodes, async |engine| {
        let mut fleet = Fleet::start(engine).await;
        fleet.case("clients write what will be in the backup", async |_, load| load.goes_on(200).await).await;
        let before = fleet.status().await.cluster_id;
        let backup = fleet.back_up().await;
        fleet.begin_again_with(&backup).await;
        fleet.case("a backup is restored, and its cluster goes on", async |_, load| load.goes_on(200).await).await;
        assert_ne!(fleet.status().await.cluster_id, before, "the cluster is a new one");
    })
    .await;
}
