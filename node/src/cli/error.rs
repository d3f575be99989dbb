//! How a command ends, and what it says when it did not end well: one sentence that names what was wrong and what would be
//! right.

use std::io;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Console, Format, call, value};
use crate::client::endpoint::{FileError, Source, started_by};
use crate::client::{self, Detail, Endpoints, Rejection};
use crate::command::code_name;

/// The exit codes of `balsa`, as its help lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It went well.
    Ok = 0,
    /// The key is absent, a condition did not hold, or a check found something wrong.
    No = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// No node served the call, and it was surely not run; or a push was not decided.
    Unavailable = 3,
    /// The command may or may not have been run.
    OutcomeUnknown = 4,
    /// The module said no, or no was said to a module.
    Rejected = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call failed.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Nothing listens where the cluster should be.
    #[error("nothing answers at {}{}: {last}; {}", places(.endpoints), origin(.endpoints), advice(.endpoints), last = without_place(.last, .endpoints))]
    Nobody {
        /// Where it should be.
        endpoints: Endpoints,
        /// The last failure.
        last: String,
    },
    /// The file of a local cluster.
    #[error(transparent)]
    Endpoints(#[from] FileError),
    /// The nodes do not say where their ports for peers are.
    #[error("the nodes do not say where operators are served; say --peers host:port,... or --socket PATH")]
    NoPeers,
    /// The configuration of the node that should run here.
    #[error(
        "no cluster is given, and the configuration of a node on this machine cannot be read, which would tell its socket \
        (--socket and --peers say where operators are served):\n{0}"
    )]
    NoNodeHere(String),
    /// A key or a value.
    #[error(transparent)]
    Value(#[from] value::Error),
    /// The method or the message of `balsa call`.
    #[error(transparent)]
    Call(#[from] call::Error),
    /// A reply does not decode.
    #[error("the reply cannot be decoded, so the module is not the key/value store this command is for: {0}")]
    Reply(#[from] prost::DecodeError),
    /// The benchmark's arguments do not fit together.
    #[error(transparent)]
    Bench(#[from] super::bench::Error),
    /// A module's file, and what is done with it.
    #[error(transparent)]
    Module(#[from] super::module::Error),
    /// A node's configuration, for what is done to its directory.
    #[error("{0}")]
    Configuration(String),
    /// A data directory.
    #[error(transparent)]
    Volume(#[from] crate::volume::Error),
    /// Nobody can be asked.
    #[error("nobody is at a terminal to say that this is meant; say --yes")]
    NobodyToAsk,
    /// The HTTP port of a node.
    #[error(transparent)]
    Health(#[from] super::health::Error),
    /// A backup's file.
    #[error(transparent)]
    Backup(#[from] super::backup::Error),
    /// Standard output.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The async runtime.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl Error {
    /// With what is known about where the addresses came from.
    pub(super) fn at(self, endpoints: Endpoints) -> Self {
        match self {
            Self::Client(client::Error::Unavailable { connected: false, last, .. }) => Self::Nobody { endpoints, last },
            other => other,
        }
    }

    /// The exit code that says what kind of failure it is.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Nobody { .. }
            | Self::Endpoints(FileError::NotThere(_))
            | Self::Health(_)
            | Self::Client(client::Error::Unavailable { .. } | client::Error::Interrupted(_)) => Exit::Unavailable,
            Self::Client(client::Error::OutcomeUnknown { .. }) => Exit::OutcomeUnknown,
            Self::Client(client::Error::Rejected(_)) | Self::Call(call::Error::Rejected { .. }) => Exit::Rejected,
            Self::Bench(error) => error.exit(),
            Self::Module(error) => error.exit(),
            _ => Exit::Usage,
        }
    }

    /// Says so on standard error.
    pub(super) fn report(&self, format: Format, console: &mut Console) {
        // Whoever closed standard error does not want to know.
        let _ = match format {
            Format::Json => writeln_to(console, &json!({ "error": self.to_json() }).to_string()),
            Format::Text => {
                let head = console.paint_error("error:");
                let extras = self.rejection().map(|(rejection, details)| extras(rejection, details));
                let text = format!("{head} {self}{}", extras.unwrap_or_default());
                writeln_to(console, &text)
            }
        };
    }

    /// What the module said, and its details in JSON as far as they are described.
    fn rejection(&self) -> Option<(&Rejection, &[Option<String>])> {
        match self {
            Self::Client(client::Error::Rejected(rejection)) => Some((rejection, &[])),
            Self::Call(call::Error::Rejected { rejection, details }) => Some((rejection, details)),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        let mut json = json!({ "exit": self.exit() as u8, "message": self.to_string() });
        let fields = json.as_object_mut().expect("made as an object");
        if let Some((rejection, details)) = self.rejection() {
            fields.append(&mut rejection_json(rejection, details));
        }
        match self {
            Self::Client(client::Error::Refused(refusal)) => {
                fields.insert("code".into(), code_name(refusal.code).into());
                fields.insert("reason".into(), refusal.reason.clone().into());
            }
            Self::Client(client::Error::OutcomeUnknown { key, .. }) => {
                fields.insert("idempotency_key".into(), key.clone().into());
            }
            _ => {}
        }
        json
    }
}

fn writeln_to(console: &mut Console, text: &str) -> io::Result<()> {
    writeln!(console.err, "{text}")
}

fn places(endpoints: &Endpoints) -> String {
    endpoints.list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A single place is named once only.
fn without_place<'a>(last: &'a str, endpoints: &Endpoints) -> &'a str {
    match &endpoints.list[..] {
        [only] => last.strip_prefix(&format!("{only}: ")).unwrap_or(last),
        _ => last,
    }
}

fn origin(endpoints: &Endpoints) -> String {
    match &endpoints.source {
        Source::Given | Source::GivenToOperators => String::new(),
        Source::Peers => " (the ports for peers that the nodes name)".into(),
        Source::Configuration => " (the socket of the node that would run here)".into(),
        Source::File(path) => format!(" (from {})", path.display()),
        Source::Default => " (the default)".into(),
    }
}

fn advice(endpoints: &Endpoints) -> String {
    match &endpoints.source {
        Source::GivenToOperators => "check the socket or the addresses, and whether the node runs".into(),
        Source::Peers => {
            "what changes the cluster is served on these ports and on each node's socket: where a firewall or a \
             NetworkPolicy closes the ports, run the command on a node (`kubectl exec balsa-0 -- balsa ...`)"
                .into()
        }
        Source::Configuration => {
            "what changes the cluster is served to operators only: start a local cluster with `balsa up`, run \
             the command where a node runs (`kubectl exec balsa-0 -- balsa ...`), or say --socket or --peers"
                .into()
        }
        Source::Given => "check the addresses, or start a local cluster with `balsa up`".into(),
        Source::File(path) => format!("the local cluster is not running: start it again with `{}`", started_by(path)),
        Source::Default => "start a local cluster with `balsa up`, or say where one is with --endpoints".into(),
    }
}

/// What the module said beyond its message, a line each.
fn extras(rejection: &Rejection, details: &[Option<String>]) -> String {
    let details = each_detail(rejection, details).map(|(detail, json)| {
        let value = json.map_or_else(|| super::output::escape(&detail.value), str::to_owned);
        format!("\n  detail: {} {value}", detail.type_name())
    });
    let replayed = rejection.replayed.then(|| format!("\n  {}", call::REPLAYED));
    let trap = rejection.trap_detail.iter().flat_map(|text| text.lines()).map(|line| format!("\n  trap: {line}"));
    details.chain(trap).chain(replayed).collect()
}

/// Each detail, and its JSON if it is described.
fn each_detail<'a>(
    rejection: &'a Rejection,
    described: &'a [Option<String>],
) -> impl Iterator<Item = (&'a Detail, Option<&'a str>)> {
    let described = described.iter().map(Option::as_deref).chain(std::iter::repeat(None));
    rejection.details.iter().zip(described)
}

fn rejection_json(rejection: &Rejection, details: &[Option<String>]) -> serde_json::Map<String, Value> {
    let details = each_detail(rejection, details).map(|(detail, described)| {
        let message = described.and_then(|text| serde_json::from_str::<Value>(text).ok());
        json!({ "type": detail.type_name(), "value": STANDARD.encode(&detail.value), "message": message })
    });
    let json = json!({
        "code": code_name(rejection.code),
        "reason": rejection.reason,
        "module_message": rejection.message,
        "details": details.collect::<Vec<_>>(),
        "index": rejection.index,
        "replayed": rejection.replayed,
        "trap_detail": rejection.trap_detail,
    });
    match json {
        Value::Object(fields) => fields,
        _ => unreachable!("made as an object"),
    }
}
