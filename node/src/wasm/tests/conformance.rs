//! Modules from `modules/`, compiled, in the host that serves them: their conformance scripts, and the counter in Rust against
//! its twin in C. The SDK's own fixture has scripts, too: of what modules can have and none of the others has.
//!
//! A script is a golden file in the module's `conformance/`: calls and what comes of them, whose form the `README` there
//! explains. `UPDATE_GOLDENFILES=1 cargo test -p balsa --lib conformance` writes the answers anew, as the modules in Rust
//! give them. That those in C are built without any Rust shows that `sdk/ABI.md` says all there is to say.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, mpsc};

use bytes::Bytes;
use goldenscript::Command;
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor};

use super::fixture::{Rows, context, load, map};
use crate::command::{GuestStatus, Outcome};
use crate::limits::Replicated;
use crate::testing::{counter_in_c, module_wasm};
use crate::wasm::{Call, Context, Finished, MethodKind, Module, Transition};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How `balsa_sdk` begins, and C repeats, the message about a request that does not decode. What follows is the decoder's.
const UNDECODABLE: &str = "the request does not decode";

/// The scripts of the module whose sources are in `folder`, in the order of their names.
fn scripts(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("conformance");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name != "README"));
    files.sort();
    assert!(!files.is_empty(), "{} has no scripts", folder.display());
    files
}

fn passes_its_scripts(package: &str, folder: &str) {
    let module = load(&module_wasm(package));
    for file in scripts(folder) {
        goldenscript::run(&mut Runner::new(&module), file).unwrap();
    }
}

#[test]
fn the_counter_passes_its_scripts() {
    passes_its_scripts("counter", "modules/counter");
}

#[test]
fn the_ledger_passes_its_scripts() {
    passes_its_scripts("ledger", "modules/ledger");
}

#[test]
fn the_lock_passes_its_scripts() {
    passes_its_scripts("lock", "modules/lock");
}

#[test]
fn the_queue_passes_its_scripts() {
    passes_its_scripts("queue", "modules/queue");
}

#[test]
fn the_sdks_fixture_passes_its_scripts() {
    passes_its_scripts("balsa-sdk-fixture", "sdk/fixture");
}

#[test]
fn the_counter_in_c_passes_the_same_scripts() {
    let [_, module] = twins();
    for file in scripts("modules/counter") {
        let script = fs::read_to_string(&file).unwrap();
        let found = goldenscript::generate(&mut Runner::new(module), &script).unwrap();
        assert_eq!(found, script, "{}", file.display());
    }
}

/// The counter in Rust and in C.
fn twins() -> &'static [Module; 2] {
    static TWINS: OnceLock<[Module; 2]> = OnceLock::new();
    TWINS.get_or_init(|| [load(&module_wasm("counter")), load(&counter_in_c())])
}

#[test]
fn the_twins_say_the_same_of_themselves() {
    let [rust, c] = twins();
    assert_eq!(rust.name(), c.name());
    let services = |module: &Module| {
        let described = module.descriptors().services().map(|service| service.service_descriptor_proto().clone());
        described.collect::<Vec<_>>()
    };
    assert_eq!(services(rust), services(c));
    let messages = |module: &Module| {
        let described = module.descriptors().all_messages().map(|message| message.descriptor_proto().clone());
        described.collect::<Vec<_>>()
    };
    assert_eq!(messages(rust), messages(c));
}

/// Bytes that look like a request often enough to get behind the first check.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![4 => Just(0x0a_u8), 3 => Just(0x10), 2 => Just(0x1a), 1 => any::<u8>()];
    let value = prop_oneof![
        4 => "[ab\\x00\\x01]{0,3}".prop_map(|text| [&[text.len() as u8], text.as_bytes()].concat()),
        2 => any::<u64>().prop_map(|number| { let mut to = Vec::new(); prost::encoding::encode_varint(number, &mut to); to }),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    let field = (key, value).prop_map(|(key, value)| [vec![key], value].concat());
    prop::collection::vec(field, 0..4).prop_map(|fields| fields.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Found by chance rather than written down: a whole life of both, on the same bytes.
    #[test]
    fn the_twins_answer_alike_whatever_they_are_asked(calls in prop::collection::vec((0..4_usize, request()), 1..20)) {
        let [rust, c] = twins();
        let (mut rust, mut c) = (Runner::new(rust), Runner::new(c));
        for (method, request) in calls {
            let method = ["Add", "Remove", "Get", "List"][method];
            prop_assert_eq!(rust.run_bytes(method, &request).unwrap(), c.run_bytes(method, &request).unwrap());
            prop_assert_eq!(&rust.rows, &c.rows);
        }
    }
}

/// A module and its state.
struct Runner<'a> {
    module: &'a Module,
    rows: Rows,
    context: Context,
}

impl goldenscript::Runner for Runner<'_> {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &goldenscript::Context) -> Result<String> {
        let mut args = command.consume_args();
        if let Some(at) = args.take_key("at") {
            self.context.time_ms = at.parse()?;
        }
        let words: Vec<_> = std::iter::from_fn(|| args.next_pos().map(str::to_owned)).collect();
        args.reject_next()?;
        match (command.name.as_str(), words.as_slice()) {
            ("call", [method, json]) => self.run_json(method, json),
            ("bytes", [method, hex]) => self.run_bytes(method, &bytes(hex)?),
            ("init", []) => self.transition(None),
            ("migrate", [from]) => self.transition(Some(from)),
            ("dump", []) => Ok(self.dump()),
            (name, _) => Err(format!("no such command, or not with these arguments: {name}").into()),
        }
    }
}

impl<'a> Runner<'a> {
    fn new(module: &'a Module) -> Self {
        Self { module, rows: Rows::new(), context: Context { index: 0, ..context() } }
    }

    fn run_json(&mut self, method: &str, json: &str) -> Result<String> {
        let mut json = serde_json::Deserializer::from_str(json);
        let request = DynamicMessage::deserialize(self.descriptor(method)?.input(), &mut json)?;
        self.run_bytes(method, &request.encode_to_vec())
    }

    fn run_bytes(&mut self, method: &str, request: &[u8]) -> Result<String> {
        let descriptor = self.descriptor(method)?;
        let path = format!("/{}/{method}", descriptor.parent_service().full_name());
        let method = self.module.method(&path).ok_or("every method is in the table")?;
        self.context.index += u64::from(method.kind == MethodKind::Command);
        let call = Call {
            method,
            input: request.to_vec().into(),
            context: self.context,
            fuel: 50_000_000,
            memory_bytes: 16 * 1024 * 1024,
            deadline: None,
        };
        let json = |message: &Bytes| -> Result<String> {
            Ok(serde_json::to_string(&DynamicMessage::decode(descriptor.output(), message.clone())?)?)
        };
        if !method.streaming {
            let finished = self.module.call(call, map(self.rows.clone()))?;
            return self.ended(finished, |output| Ok(format!("ok {}\n", json(output)?)));
        }
        let (sink, sent) = mpsc::channel();
        let sink = move |message| sink.send(message).map_or(ControlFlow::Break(()), ControlFlow::Continue);
        let finished = self.module.stream(call, map(self.rows.clone()), Box::new(sink))?;
        let messages = sent.try_iter().map(|message| Ok(format!("message {}\n", json(&message)?)));
        Ok(messages.collect::<Result<String>>()? + &self.ended(finished, |_| Ok("ok\n".into()))?)
    }

    /// Runs `balsa_init` or, if there was a version before, `balsa_migrate`.
    fn transition(&mut self, from: Option<&str>) -> Result<String> {
        self.context.index += 1;
        let Replicated { migrate_fuel, memory_bytes, migrate_writes, migrate_bytes, .. } = Replicated::default();
        let transition = Transition {
            from: from.map(Into::into),
            context: self.context,
            fuel: migrate_fuel,
            memory_bytes,
            writes_max: migrate_writes,
            bytes_max: migrate_bytes,
        };
        let finished = self.module.transition(transition, map(self.rows.clone()))?;
        self.ended(finished, |_| Ok("ok\n".into()))
    }

    /// How it ended; what it wrote is kept if it ended well.
    fn ended(&mut self, finished: Finished, well: impl FnOnce(&Bytes) -> Result<String>) -> Result<String> {
        match &finished.outcome {
            Outcome::Ok(output) => {
                let said = well(output)?;
                self.rows = finished.rows();
                Ok(said)
            }
            Outcome::Status(status) => shown_status(self.module, status),
            other => Err(format!("{other:?}: {:?}", finished.trap_detail).into()),
        }
    }

    /// The method of this name, whichever service it belongs to.
    fn descriptor(&self, name: &str) -> Result<MethodDescriptor> {
        let methods = self.module.descriptors().services().flat_map(|service| service.methods().collect::<Vec<_>>());
        methods.into_iter().find(|method| method.name() == name).ok_or_else(|| format!("no method {name}").into())
    }

    fn dump(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.rows {
            writeln!(text, "{} = {}", key.escape_ascii(), value.escape_ascii()).expect("a String takes everything");
        }
        if text.is_empty() { "(empty)\n".into() } else { text }
    }
}

/// Of `google.rpc.Status` what [`GuestStatus`] does not say.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The code, the message, and details on lines of their own.
fn shown_status(module: &Module, status: &GuestStatus) -> Result<String> {
    let code = tonic::Code::from(status.code as i32);
    let message = if status.message.starts_with(UNDECODABLE) { UNDECODABLE } else { &status.message };
    let mut text = format!("{code:?}: {message}\n");
    for detail in RpcStatus::decode(status.details.clone())?.details {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        let message = module.descriptors().get_message_by_name(name).ok_or("a detail of the module's own types")?;
        let message = DynamicMessage::decode(message, detail.value.as_slice())?;
        writeln!(text, "  {name} {}", serde_json::to_string(&message)?)?;
    }
    Ok(text)
}

/// `0a 01 61` is three bytes, `6e*256` one of them 256 times.
fn bytes(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        let (hex, times) = word.split_once('*').unwrap_or((word, "1"));
        let pairs = hex.as_bytes().chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
        bytes.extend(pairs.collect::<Result<Vec<_>>>()?.repeat(times.parse()?));
    }
    Ok(bytes)
}
