//! How a command ends, and what it says when it did not end well: one sentence that names what was wrong and what would be
//! right.

use std::io;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Console, Format, call, value};
use crate::client::endpoint::{FileError, Source};
use crate::client::{self, Endpoints, Rejection};
use crate::command::code_name;

/// The exit codes of `balsa`, as its help lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It went well.
    Ok = 0,
    /// The key is absent, or nodes differ.
    No = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// No node served the call, and it was surely not run.
    Unavailable = 3,
    /// The command may or may not have been run.
    OutcomeUnknown = 4,
    /// The module said no.
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
            Self::Client(client::Error::Rejected(_)) => Exit::Rejected,
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
                let text = format!("{head} {self}{}", self.rejection().map(extras).unwrap_or_default());
                writeln_to(console, &text)
            }
        };
    }

    fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Client(client::Error::Rejected(rejection)) => Some(rejection),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        let mut json = json!({ "exit": self.exit() as u8, "message": self.to_string() });
        let fields = json.as_object_mut().expect("made as an object");
        match self {
            Self::Client(client::Error::Rejected(rejection)) => fields.append(&mut rejection_json(rejection)),
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
        Source::Given => String::new(),
        Source::File(path) => format!(" (from {})", path.display()),
        Source::Default => " (the default)".into(),
    }
}

fn advice(endpoints: &Endpoints) -> &'static str {
    match endpoints.source {
        Source::Given => "check the addresses, or start a local cluster with `balsa up`",
        Source::File(_) => "the local cluster is not running: start it again with `balsa up`",
        Source::Default => "start a local cluster with `balsa up`, or say where one is with --endpoints",
    }
}

/// What the module said beyond its message, a line each.
fn extras(rejection: &Rejection) -> String {
    let details = rejection.details.iter().map(|detail| {
        let bytes = super::output::escape(&detail.value);
        format!("\n  detail: {} {bytes}", detail.type_name())
    });
    let trap = rejection.trap_detail.iter().flat_map(|text| text.lines()).map(|line| format!("\n  trap: {line}"));
    details.chain(trap).collect()
}

fn rejection_json(rejection: &Rejection) -> serde_json::Map<String, Value> {
    let details: Vec<_> = rejection
        .details
        .iter()
        .map(|detail| json!({ "type": detail.type_name(), "value": STANDARD.encode(&detail.value) }))
        .collect();
    let json = json!({
        "code": code_name(rejection.code),
        "reason": rejection.reason,
        "module_message": rejection.message,
        "details": details,
        "index": rejection.index,
        "trap_detail": rejection.trap_detail,
    });
    match json {
        Value::Object(fields) => fields,
        _ => unreachable!("made as an object"),
    }
}
