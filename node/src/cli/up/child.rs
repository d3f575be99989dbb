//! One node's process: started, listened to, started again, stopped.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::log::Log;
use crate::{config, node};

/// The first wait before a node that died is started again; it doubles each time.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// The longest.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A node that ran this long died of something new.
const LIVED: Duration = Duration::from_secs(30);

/// Says to a node which process started it; see [`die_with_parent`].
const PARENT: &str = "BALSA_UP_PID";

/// How to start a node.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<std::ffi::OsString>,
}

/// Looks after one node.
pub(super) struct Supervisor {
    /// How it is started.
    pub launch: Launch,
    /// Whether it is started again.
    pub restart: bool,
    /// How long it may take to stop.
    pub grace: Duration,
    /// Where its lines go.
    pub log: Log,
}

/// Why a node is no longer looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to stop.
    Stopped,
    /// It died, and nobody wants it back.
    Dead,
    /// It refused its configuration, and would do so again.
    Refused,
}

impl Launch {
    fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env(PARENT, std::process::id().to_string()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A group of its own: Ctrl-C in the terminal is for us alone, and we stop the nodes in our own way.
        command.process_group(0).spawn()
    }
}

impl Supervisor {
    /// Until it is told to stop, or the node is dead for good.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) -> Ended {
        let mut backoff = BACKOFF_MIN;
        loop {
            let started = Instant::now();
            let status = match self.launch.start() {
                Ok(child) => match self.watch(child, &mut stop).await {
                    Some(status) => status,
                    None => return Ended::Stopped,
                },
                Err(error) => {
                    self.log.say(&format!("cannot start {}: {error}", self.launch.program.display()));
                    return Ended::Refused;
                }
            };
            if status.code() == Some(i32::from(config::EXIT_CODE)) {
                return Ended::Refused;
            }
            if status.code() == Some(i32::from(node::EXIT_RETIRED)) {
                self.log.say("is not started again: its data has no place in the cluster any more");
                return Ended::Dead;
            }
            if !self.restart {
                self.log.say(&format!("{}; it stays dead", describe(status)));
                return Ended::Dead;
            }
            backoff = if started.elapsed() > LIVED { BACKOFF_MIN } else { backoff };
            self.log.say(&format!("{}; starting it again in {:.1} s", describe(status), backoff.as_secs_f32()));
            tokio::select! {
                () = sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                _ = stop.wait_for(|stop| *stop) => return Ended::Stopped,
            }
        }
    }

    /// Until the node dies by itself (`Some`) or was stopped (`None`).
    async fn watch(&self, mut child: Child, stop: &mut watch::Receiver<bool>) -> Option<ExitStatus> {
        let out = tokio::spawn(self.log.clone().copy(child.stdout.take().expect("it is piped")));
        let err = tokio::spawn(self.log.clone().copy(child.stderr.take().expect("it is piped")));
        let status = tokio::select! {
            status = child.wait() => Some(status),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        if status.is_none() {
            self.stop(&mut child).await;
        }
        // Its last words. A grandchild could hold the pipes open, so they get no more than a moment.
        let _ = timeout(Duration::from_secs(1), async { (out.await, err.await) }).await;
        status.map(|status| status.expect("a child of ours can be waited for"))
    }

    /// Asks it to stop, and kills it if it does not.
    async fn stop(&self, child: &mut Child) {
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
            // Not SIGTERM, after which it would wait for load balancers. It may be gone already, which is what we want.
            let _ = kill_process(pid, Signal::INT);
        }
        if timeout(self.grace, child.wait()).await.is_err() {
            self.log.say(&format!("did not stop within {} s; killing it", self.grace.as_secs()));
            let _ = child.kill().await;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// For `balsa serve`: if `balsa up` started this process, die with it, however it dies. A node that outlived a killed `up`
/// would hold the ports and the data, and nobody would see it. `balsa up` itself does so if a test started it, which says so in the same way.
pub fn die_with_parent() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|pid| pid.parse::<i32>().ok()) else { return };
    // Only Linux has it; elsewhere the node stays, which is a nuisance and no danger.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // It may have died before the line above.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        std::process::exit(1);
    }
}
