//! A client in another language, which has only what every gRPC client has: the address, and server reflection.
//!
//! `$BALSA_TEST_PYTHON` names a Python with grpcio and grpcio-reflection, as `make test` sets one up: then that is what there is. Where
//! somebody types `cargo test`, an environment is made once in the target directory. Only where that cannot be done is the test skipped,
//! and says so.

use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::harness::{Cluster, Setup, run};

#[tokio::test]
async fn a_python_client_uses_the_cluster_by_reflection() {
    let Some(python) = python().await else { return };
    let cluster = Cluster::start(Setup::default()).await;
    let mut client = Command::new(python);
    client.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/client.py"));
    client.args([cluster.nodes[1].address(), cluster.nodes[2].address()]);
    assert_eq!(run(client).await.ends(0), "OK\n");
}

/// A Python that has what `.ci/requirements.txt` lists.
pub(crate) async fn python() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("BALSA_TEST_PYTHON").filter(|given| !given.is_empty()) {
        let given = PathBuf::from(given);
        assert!(given.exists(), "BALSA_TEST_PYTHON is {}, which is not there", given.display());
        return Some(given);
    }
    // make says to what it runs how deep it is.
    assert!(std::env::var_os("MAKELEVEL").is_none(), "make runs this test, and sets no BALSA_TEST_PYTHON");
    static MADE: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    let made = MADE.get_or_init(make).await;
    if let Err(why) = made {
        eprintln!("SKIPPED: no Python with grpcio, and none could be made: {why}");
    }
    made.clone().ok()
}

/// One of our own.
async fn make() -> Result<PathBuf, String> {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = environment.join("bin/python");
    if !imports_grpc(&python).await {
        let mut venv = Command::new("python3");
        succeeds(venv.args(["-m", "venv", "--clear"]).arg(&environment)).await?;
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/requirements.txt");
        let mut pip = Command::new(&python);
        succeeds(pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"]).arg(requirements))
            .await?;
    }
    Ok(python)
}

async fn imports_grpc(python: &Path) -> bool {
    succeeds(Command::new(python).args(["-c", "import grpc, grpc_reflection, prometheus_client"])).await.is_ok()
}

async fn succeeds(command: &mut Command) -> Result<(), String> {
    let output = command.output().await.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}
