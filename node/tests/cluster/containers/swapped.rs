//! The kubelet turns the link `..data` in a directory that is mounted into containers, and the nodes change their module at one index.

use super::engine::with_engine;
use super::fleet::Fleet;
use crate::abacus::{Abacus, Migrate, hash};
use crate::harness::until;
use crate::operator::activated;
use crate::witness::{Temper, Witnesses};

#[tokio::test]
async fn a_mounted_directory_is_turned_and_no_client_notices() {
    with_engine(a_mounted_directory_is_turned_and_no_client_notices, async |engine| {
        let first = Abacus::default().wasm();
        let mut fleet = Fleet::start_with(engine, &[("abacus", &first)]).await;
        let witnesses = Witnesses::start_at(&fleet.endpoints(), Temper::Strict, 3, 0).await;
        witnesses.go_on(50).await;
        for (version, migrate) in [("0.2.0", Migrate::Absent), ("0.3.0", Migrate::Well)] {
            let next = Abacus { migrate, ..Abacus::version(version) }.wasm();
            fleet.swap("abacus", &next);
            let row = until(&format!("abacus {version} is decided"), async || {
                let rows = fleet.client().module_history("abacus").await.ok()?;
                rows.into_iter().rfind(|row| row.hash[..] == hash(&next))
            })
            .await;
            activated(&row);
            witnesses.go_on(50).await;
            fleet.check().await;
        }
        let told = witnesses.stop().await;
        let client = fleet.client();
        told.assert_kept_since(client.module_history("abacus").await.unwrap(), &client).await;
    })
    .await;
}
