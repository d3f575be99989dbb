//! `up` with nodes that are shell scripts: what matters is how they are looked after.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::child::{Ended, Launch, Supervisor};
use super::log::Log;
use super::plan::{Plan, Refusal};
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// What was written, for looking at.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn text(&self) -> String {
        anstream::adapter::strip_str(&String::from_utf8_lossy(&self.0.lock())).to_string()
    }

    fn log(&self) -> Log {
        Log::new(Box::new(self.clone()), ["balsa-0"].into_iter(), "up")
    }

    async fn shows(&self, what: &str) {
        let shown = async {
            while !self.text().contains(what) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(DEADLINE, shown).await.is_ok(), "{what:?} never came; there is only:\n{}", self.text());
    }
}

/// A shell cannot trap what was ignored when it began, as SIGINT is in whatever another script started with `&`: this test, perhaps.
/// (A node asks for the signal anew.)
fn script(text: &str) -> Launch {
    let args = ["--default-signal=INT", "/bin/sh", "-c", text];
    Launch { program: "/usr/bin/env".into(), args: args.map(Into::into).to_vec() }
}

fn supervisor(launch: Launch, page: &Page) -> Supervisor {
    Supervisor { launch, restart: true, grace: DEADLINE, log: page.log().of_node(0) }
}

fn args(dir: &Path) -> Args {
    let dir = dir.to_owned();
    Args { nodes: None, dir, config: None, port: None, no_restart: false, check: false, once: false }
}

/// A port whose neighbours are free as well, as far as one can know.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..30_000);
        let ports = (0..3).flat_map(|node| [0, 1, 80].map(|at| port + at + 100 * node));
        if ports.into_iter().all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
}

#[tokio::test]
async fn both_streams_of_a_node_are_tagged_line_by_line() {
    let (page, stop) = (Page::default(), watch::Sender::new(false));
    let launch = script("echo out; echo err >&2; printf 'no newline'; exit 2");
    let ended = supervisor(launch, &page).run(stop.subscribe()).await;
    assert_eq!(ended, Ended::Refused);
    for line in ["balsa-0 | out\n", "balsa-0 | err\n", "balsa-0 | no newline\n"] {
        assert!(page.text().contains(line), "{}", page.text());
    }
}

#[tokio::test]
async fn a_node_that_dies_is_started_again() {
    let (page, stop) = (Page::default(), watch::Sender::new(false));
    let dir = TempDir::new().unwrap();
    let mark = dir.path().join("mark");
    let text = format!("if [ -e {0} ]; then echo again; exec sleep 1000; fi; touch {0}; kill -9 $$", mark.display());
    let task = tokio::spawn(supervisor(script(&text), &page).run(stop.subscribe()));
    page.shows("balsa-0 | was killed by signal 9; starting it again in 0.2 s").await;
    page.shows("balsa-0 | again").await;
    stop.send_replace(true);
    assert_eq!(timeout(DEADLINE, task).await.unwrap().unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn a_node_that_died_stays_dead_if_asked() {
    let (page, stop) = (Page::default(), watch::Sender::new(false));
    let supervisor = Supervisor { restart: false, ..supervisor(script("exit 7"), &page) };
    assert_eq!(supervisor.run(stop.subscribe()).await, Ended::Dead);
    assert!(page.text().contains("ended with exit code 7; it stays dead"));
}

#[tokio::test]
async fn a_node_is_asked_to_stop_and_says_its_last_words() {
    let (page, stop) = (Page::default(), watch::Sender::new(false));
    let text = "trap 'echo bye; exit 0' INT; echo up; while :; do sleep 0.01; done";
    let task = tokio::spawn(supervisor(script(text), &page).run(stop.subscribe()));
    page.shows("| up").await;
    stop.send_replace(true);
    assert_eq!(timeout(DEADLINE, task).await.unwrap().unwrap(), Ended::Stopped);
    assert!(page.text().contains("balsa-0 | bye"), "{}", page.text());
}

#[tokio::test]
async fn a_node_that_does_not_stop_is_killed() {
    let (page, stop) = (Page::default(), watch::Sender::new(false));
    let launch = script("trap '' INT; echo up; while :; do sleep 0.01; done");
    let supervisor = Supervisor { grace: Duration::from_millis(50), ..supervisor(launch, &page) };
    let task = tokio::spawn(supervisor.run(stop.subscribe()));
    page.shows("| up").await;
    stop.send_replace(true);
    assert_eq!(timeout(DEADLINE, task).await.unwrap().unwrap(), Ended::Stopped);
    assert!(page.text().contains("killing it"));
}

#[tokio::test]
async fn a_node_that_waits_to_be_started_again_can_be_stopped() {
    let (page, stop) = (Page::default(), watch::Sender::new(false));
    let task = tokio::spawn(supervisor(script("exit 1"), &page).run(stop.subscribe()));
    page.shows("starting it again").await;
    stop.send_replace(true);
    assert_eq!(timeout(DEADLINE, task).await.unwrap().unwrap(), Ended::Stopped);
}

/// Answers every request on `listener` with this.
async fn answer(listener: tokio::net::TcpListener, status: Arc<Mutex<&'static str>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let text = *status.lock();
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

#[tokio::test]
async fn the_cluster_is_ready_when_every_node_says_so() {
    let page = Page::default();
    let dir = TempDir::new().unwrap();
    let plan = Plan::make(&Args { nodes: Some(1), port: Some(free_port()), ..args(dir.path()) }).unwrap();
    let sites = plan.sites.clone();
    let log = page.log();
    let waiting = tokio::spawn(async move { ready::all(&sites, Duration::from_millis(20), &log).await });
    page.shows("up      | still waiting for balsa-0 (Connection refused").await;
    let listener = tokio::net::TcpListener::bind(plan.sites[0].http_addr).await.unwrap();
    let status = Arc::new(Mutex::new("HTTP/1.1 503 Service Unavailable\r\n\r\n[+]module ok\n[-]leader not known\n"));
    tokio::spawn(answer(listener, status.clone()));
    page.shows("still waiting for balsa-0 ([-]leader not known)").await;
    *status.lock() = "HTTP/1.1 200 OK\r\n\r\nok\n";
    timeout(DEADLINE, waiting).await.unwrap().unwrap();
}

#[test]
fn a_new_directory_gets_a_configuration_and_a_second_run_keeps_it() {
    let dir = TempDir::new().unwrap();
    let port = free_port();
    let first = Plan::make(&Args { port: Some(port), ..args(dir.path()) }).unwrap();
    assert_eq!(first.sites.len(), 3);
    assert_eq!(first.sites[2].http_addr.port(), port + 280);
    let sites = first.sites.clone();
    drop(first);
    let text = fs::read_to_string(dir.path().join("balsa.toml")).unwrap();
    let second = Plan::make(&args(dir.path())).unwrap();
    assert_eq!(second.sites, sites);
    assert_eq!(fs::read_to_string(dir.path().join("balsa.toml")).unwrap(), text);
}

#[test]
fn a_node_is_served_with_its_name_and_its_directory() {
    let dir = TempDir::new().unwrap();
    let plan = Plan::make(&Args { port: Some(free_port()), ..args(dir.path()) }).unwrap();
    let said: Vec<_> = plan.launch(&plan.sites[1]).args.into_iter().map(|arg| arg.into_string().unwrap()).collect();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let expected = ["serve", "--config", &path("balsa.toml"), "--name", "balsa-1", "--data-dir", &path("balsa-1")];
    assert_eq!(said, expected);
}

#[test]
fn what_is_proposed_to_try_is_what_the_cluster_serves() {
    let dir = TempDir::new().unwrap();
    let plan = Plan::make(&Args { port: Some(free_port()), ..args(dir.path()) }).unwrap();
    assert!(
        plan.welcome().contains(" put hello world\n") && plan.welcome().contains(" status\n"),
        "{}",
        plan.welcome()
    );
    drop(plan);
    let toml = dir.path().join("balsa.toml");
    let text = fs::read_to_string(&toml).unwrap() + "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n";
    fs::write(toml, text).unwrap();
    fs::write(dir.path().join("a.wasm"), b"\0asm\x01\0\0\0\0\x0d\x0cbalsa.module").unwrap();
    let plan = Plan::make(&args(dir.path())).unwrap();
    assert!(plan.welcome().contains(" call --list\n") && !plan.welcome().contains(" put "), "{}", plan.welcome());
}

#[test]
fn the_welcome_says_with_what_the_same_cluster_starts_again() {
    let home = TempDir::new().unwrap();
    let (dir, config) = (home.path().join("cluster"), home.path().join("balsa.toml"));
    let same = |args: Args| {
        let welcome = Plan::make(&args).unwrap().welcome();
        let (_, same) = welcome.split_once(" up").unwrap();
        same.split_once('`').unwrap().0.replace(&home.path().display().to_string(), "HOME")
    };
    assert_eq!(same(Args { port: Some(free_port()), ..args(&dir) }), " --dir HOME/cluster");
    fs::copy(dir.join("balsa.toml"), &config).unwrap();
    assert_eq!(same(Args { config: Some(config), ..args(&dir) }), " --dir HOME/cluster --config HOME/balsa.toml");
}

#[test]
fn endpoints_are_there_while_the_cluster_is() {
    let dir = TempDir::new().unwrap();
    let port = free_port();
    fs::write(dir.path().join("endpoints"), "127.0.0.1:1\n").unwrap();
    let plan = Plan::make(&Args { port: Some(port), ..args(dir.path()) }).unwrap();
    assert!(!plan.endpoints_path().exists(), "what a killed `up` left is gone");
    plan.write_endpoints().unwrap();
    let lines: String = (0..3).map(|node| format!("127.0.0.1:{}\n", port + 100 * node)).collect();
    assert_eq!(fs::read_to_string(dir.path().join("endpoints")).unwrap(), lines);
    plan.remove_endpoints();
    assert!(!plan.endpoints_path().exists());
}

fn refused(args: &Args) -> String {
    let dir = format!("{}/", args.dir.display());
    Plan::make(args)
        .expect_err("it must be refused")
        .to_string()
        .replace(&dir, "")
        .replace(dir.trim_end_matches('/'), "DIR")
}

#[test]
fn a_second_up_in_the_same_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let first = Plan::make(&Args { port: Some(free_port()), ..args(dir.path()) }).unwrap();
    let said = refused(&args(dir.path())).replace(&std::process::id().to_string(), "PID");
    insta::assert_snapshot!(said, @"`balsa up` runs in DIR already (process PID); stop it first, or give this one a directory of its own with --dir");
    drop(first);
    assert!(Plan::make(&args(dir.path())).is_ok(), "the lock went with the first");

    let dev = dir.path().join(".balsa-dev");
    let first = Plan::make(&Args { port: Some(free_port()), ..args(&dev) }).unwrap();
    let said = refused(&args(&dev)).replace(&std::process::id().to_string(), "PID");
    insta::assert_snapshot!(said, @"`balsa dev` runs in DIR already (process PID); stop it first");
    drop(first);
    let said = refused(&Args { port: Some(7), ..args(&dev) });
    assert!(said.ends_with(", --port says 7; leave --port out, or edit the file"), "{said}");
}

#[test]
fn a_taken_port_is_named_and_nothing_stays_behind() {
    let dir = TempDir::new().unwrap();
    let port = free_port();
    let _taken = TcpListener::bind(("127.0.0.1", port + 101)).unwrap();
    let said = refused(&Args { port: Some(port), ..args(dir.path()) }).replace(&(port + 101).to_string(), "PORT");
    insta::assert_snapshot!(said, @"port PORT is taken, and balsa-1 needs it (peer_addr); stop what listens there, or start the cluster on other ports, such as --port 7000");
    assert!(!dir.path().join("balsa.toml").exists());
}

#[test]
fn arguments_that_contradict_the_directory_are_refused() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("balsa.toml"), "[cluster]\nreplicas = 3\n").unwrap();
    let config = dir.path().join("balsa.toml");
    insta::assert_snapshot!(refused(&Args { nodes: Some(5), config: Some(config), ..args(dir.path()) }), @"balsa.toml says 3 node(s), --nodes says 5; leave --nodes out, or start another cluster with --dir");
    insta::assert_snapshot!(refused(&Args { port: Some(7000), ..args(dir.path()) }), @"balsa.toml says port 6000, --port says 7000; leave --port out, edit the file, or start another cluster with --dir");
}

#[test]
fn another_number_of_nodes_is_written_into_the_directory_s_own_file() {
    let dir = TempDir::new().unwrap();
    let port = free_port();
    drop(Plan::make(&Args { nodes: Some(2), port: Some(port), ..args(dir.path()) }).unwrap());
    let text = || fs::read_to_string(dir.path().join("balsa.toml")).unwrap();
    let two = text();
    fs::create_dir(dir.path().join("balsa-2")).unwrap();
    let plan = Plan::make(&Args { nodes: Some(3), ..args(dir.path()) }).unwrap();
    assert_eq!(plan.sites.len(), 3);
    drop(plan);
    assert_eq!(text(), two.replace("replicas = 2", "replicas = 3"));
    assert!(dir.path().join("balsa-2.old-1").exists(), "what was left of another balsa-2");
    // And a change that comes to nothing is none.
    let _taken = TcpListener::bind(("127.0.0.1", port + 201)).unwrap();
    refused(&Args { nodes: Some(3), ..args(dir.path()) });
    fs::write(dir.path().join("balsa.toml"), &two).unwrap();
    refused(&Args { nodes: Some(3), ..args(dir.path()) });
    assert_eq!(text(), two);
}

#[test]
fn a_cluster_is_made_smaller_only_by_a_majority_of_itself() {
    let dir = TempDir::new().unwrap();
    drop(Plan::make(&Args { nodes: Some(5), port: Some(free_port()), ..args(dir.path()) }).unwrap());
    let before = fs::read_to_string(dir.path().join("balsa.toml")).unwrap();
    let smaller = |nodes| Args { nodes: Some(nodes), ..args(dir.path()) };
    for ordinal in 0..5 {
        fs::create_dir(dir.path().join(format!("balsa-{ordinal}"))).unwrap();
    }
    insta::assert_snapshot!(refused(&smaller(2)), @"2 of 5 nodes are no majority, and it takes one to let the others go: say --nodes 3 first, and go on when `balsa member list` shows no more; or say replicas = 2 in balsa.toml while the cluster runs");
    assert_eq!(fs::read_to_string(dir.path().join("balsa.toml")).unwrap(), before);
    assert_eq!(Plan::make(&smaller(3)).unwrap().sites.len(), 3);
    // The two that left have data, too, and are not among those that the file names now.
    assert_eq!(Plan::make(&smaller(2)).unwrap().sites.len(), 2);
    refused(&smaller(1));
}

#[test]
fn a_node_whose_data_is_no_member_s_is_not_started_again() {
    let (page, stop) = (Page::default(), watch::Sender::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(supervisor(script("exit 6"), &page).run(stop.subscribe()));
    assert_eq!(ended, Ended::Dead);
    assert!(page.text().contains("its data has no place in the cluster any more"), "{}", page.text());
}

#[test]
fn a_configuration_for_several_hosts_is_refused() {
    let dir = TempDir::new().unwrap();
    let text = "[cluster]\nreplicas = 3\n[node]\nclient_addr = \"0.0.0.0:6000\"\npeer_addr = \"0.0.0.0:6001\"\n\
                advertise_client_addr = \"{name}:6000\"\nadvertise_peer_addr = \"{name}:6001\"\n";
    fs::write(dir.path().join("balsa.toml"), text).unwrap();
    insta::assert_snapshot!(refused(&args(dir.path())), @"balsa-0 and balsa-1 would both listen on 0.0.0.0:6000; `balsa up` runs all nodes on this host, so give them ports of their own");
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_written() {
    let home = TempDir::new().unwrap();
    let (config, dir) = (home.path().join("wrong.toml"), home.path().join("cluster"));
    fs::write(&config, "[cluster]\nreplicsa = 3\n").unwrap();
    let refusal = Plan::make(&Args { config: Some(config), ..args(&dir) }).unwrap_err();
    assert!(matches!(refusal, Refusal::Config(_)));
    assert!(!dir.exists());
}
