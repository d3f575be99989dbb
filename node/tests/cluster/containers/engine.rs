//! The container engine: this machine's own, or one that is started for the tests; and the test, once more, where it is reached.
//!
//! Addresses of containers are reached from the engine's network only. An engine that `.ci/docker` starts has a network of its own,
//! so a test is run a second time in there, as another process, and the first one only reports how it ended. What was started is
//! ended by a caretaker: a shell that waits for the end of this process, be it by SIGKILL. It holds the lock by which another run
//! of these tests in this checkout waits for it.

use std::any::type_name;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::harness::turn;

/// Names the image for the test that runs inside.
const IMAGE: &str = "BALSA_TEST_IMAGE";
/// Exit status of `.ci/docker`: the kernel forbids it.
const FORBIDDEN: i32 = 77;
const LABEL: &str = "balsa.test";
/// What a test may take among the containers. The longest takes two minutes on an idle machine.
const WHOLE: Duration = Duration::from_secs(30 * 60);

/// What a test needs to know.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    /// Of the node.
    pub(super) image: String,
    /// Everything that is made carries it.
    pub(super) label: String,
}

/// Where containers can be run.
enum Place {
    /// This machine has an engine.
    Machine,
    /// `.ci/docker` keeps one in this directory.
    Started(PathBuf),
    /// Nowhere.
    Forbidden,
}

/// Runs the body of `test`, the test function that calls this, where it reaches containers; not at all where there can be none.
pub(super) async fn with_engine<T: Copy>(test: T, body: impl AsyncFnOnce(Engine)) {
    if let Ok(image) = std::env::var(IMAGE) {
        return body(Engine { image, label: label() }).await;
    }
    let _turn = turn().await;
    // What failed once is not tried again: the lock is held until this process ends.
    static PLACE: OnceLock<Option<Place>> = OnceLock::new();
    // Its threads are named after tests, but not if there is only one.
    let (_, name) = type_name_of(test).split_once("::").expect("it begins with the crate's name");
    match PLACE.get_or_init(|| std::panic::catch_unwind(find).ok()) {
        None => panic!("there is no engine for containers; the test that looked for one says why"),
        Some(Place::Forbidden) => say(&format!("SKIPPED for want of containers: {name}")),
        Some(place) => run_inside(place, name).await,
    }
}

fn type_name_of<T: Copy>(_: T) -> &'static str {
    type_name::<T>()
}

/// Past the test runner, which shows what a test prints only if it fails.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "==> {line}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("node/ is in a workspace")
}

/// Another checkout has others.
fn checkout() -> String {
    blake3::hash(root().as_os_str().as_encoded_bytes()).to_hex()[..8].to_owned()
}

fn label() -> String {
    format!("{LABEL}={}", checkout())
}

fn find() -> Place {
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("containers.lock")).unwrap();
    if lock.try_lock().is_err() {
        say("waiting for another run of the tests with containers in this checkout");
        lock.lock().unwrap();
    }
    if machine_has_one() {
        let clear = clear_away(&label());
        run(shell(&clear), "what an earlier run has left is removed");
        care(&lock, &clear);
        build_image(None);
        return Place::Machine;
    }
    // Short, as sockets' names have to be, and not in memory.
    let dir = PathBuf::from(format!("/var/tmp/balsa-test-{}", checkout()));
    let docker = root().join(".ci/docker");
    let may = |verb| {
        let status = Command::new(&docker).arg(verb).arg(&dir).stdin(Stdio::null()).stdout(Stdio::null()).status();
        match status.unwrap().code() {
            Some(0) => true,
            Some(FORBIDDEN) => false,
            other => panic!("`.ci/docker {verb}` ended with {other:?}; see above"),
        }
    };
    // One that an earlier run has left.
    if !may("down") {
        return Place::Forbidden;
    }
    care(&lock, &format!("exec '{}' down '{}'", docker.display(), dir.display()));
    if !may("up") {
        return Place::Forbidden;
    }
    build_image(Some(&dir));
    Place::Started(dir)
}

/// Whether there is an engine whose bridge is on this machine, where this process can reach it: none in a virtual machine, on another
/// host, or in a network namespace of its own.
fn machine_has_one() -> bool {
    let mut command = Command::new("docker");
    command.args(["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]);
    let Ok(output) = command.stderr(Stdio::null()).output() else { return false };
    let gateway = String::from_utf8_lossy(&output.stdout).trim().parse::<IpAddr>();
    gateway.is_ok_and(|gateway| TcpListener::bind((gateway, 0)).is_ok())
}

/// Removes all that carries the label.
pub(super) fn clear_away(label: &str) -> String {
    let filter = format!("--filter label={label}");
    format!(
        "docker ps --all --quiet {filter} | xargs -r docker rm --force --volumes
         docker volume ls --quiet {filter} | xargs -r docker volume rm --force
         docker network ls --quiet {filter} | xargs -r docker network rm
         docker image ls --quiet {filter} | sort -u | xargs -r docker image rm --force"
    )
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Has `script` run when this process has ended, however it ends.
fn care(lock: &File, script: &str) {
    let output = || Stdio::from(lock.try_clone().unwrap());
    let mut command = shell(&format!("cat\n{script}"));
    // Ctrl-C is for this process.
    command.stdin(Stdio::piped()).stdout(output()).stderr(output()).process_group(0);
    let caretaker = command.spawn().unwrap();
    // The pipe is open until the kernel closes it.
    std::mem::forget(caretaker);
}

fn run(mut command: Command, what: &str) {
    let status = command.status().unwrap();
    assert!(status.success(), "{what}: {status}");
}

/// Chosen by this run: no other one overwrites it.
fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| format!("balsa-test:{:08x}", rand::random::<u32>()))
}

fn build_image(engine: Option<&Path>) {
    let mut command = Command::new(root().join(".ci/image"));
    command.args(["server", env!("CARGO_BIN_EXE_balsa"), image(), "--label", &label()]).stdin(Stdio::null());
    if let Some(dir) = engine {
        command.env("DOCKER_HOST", host(dir));
    }
    run(command, "the image is built");
}

fn host(dir: &Path) -> String {
    format!("unix://{}/docker.sock", dir.display())
}

/// Runs this one test in a process there.
async fn run_inside(place: &Place, test: &str) {
    let mut command = match place {
        Place::Started(dir) => {
            let mut command = Command::new(root().join(".ci/docker"));
            command.arg("enter").arg(dir).arg("env").arg(format!("DOCKER_HOST={}", host(dir)));
            command
        }
        _ => Command::new("env"),
    };
    // As arguments, since sudo hands on no environment.
    let kept =
        std::env::vars().filter(|(name, _)| name.starts_with("BALSA_") || name == "PATH" || name == "RUST_BACKTRACE");
    command.args(kept.map(|(name, value)| format!("{name}={value}"))).arg(format!("{IMAGE}={}", image()));
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(WHOLE, command.output()).await;
    let output =
        output.unwrap_or_else(|_| panic!("{test} does not end among the containers within {WHOLE:?}")).unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}\n{err}");
    assert!(output.status.success() && out.contains("1 passed"), "{test} failed among the containers; see above");
}
