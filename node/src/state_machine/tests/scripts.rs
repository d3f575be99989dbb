//! Golden scripts: what a sequence of entries does, written down and reviewed. They are in `golden/`; see its `README`.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p balsa scripts` writes the outputs anew.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::super::{QueryError, StateMachine};
use super::harness::{self, Text};
use crate::command::{Outcome, Reply};
use crate::ids::ModuleHash;
use crate::limits::Replicated;
use crate::proto::command as pb;
use crate::proto::command::command::Kind;
use crate::raft::types::Entry;
use crate::storage::keys::Key;
use crate::storage::sim_disk::SimDisk;
use crate::testing::Tape;
use crate::{testing, wasm};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

macro_rules! scripts {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/state_machine/golden").join(stringify!($name));
            testing::on_a_wasm_thread(|| goldenscript::run(&mut Runner::new(), path).unwrap());
        }
    )*};
}

scripts! {
    a_batch_is_one_commit
    a_call_reads_its_own_writes
    a_guest_error_rolls_back
    a_hostile_module_leaves_no_trace
    a_key_older_than_the_window_is_refused
    a_key_with_another_request_is_refused
    a_key_with_another_request_is_refused_on_another_method
    a_large_reply_needs_room
    a_large_state_is_dropped_in_parts
    a_migration_is_all_or_nothing
    a_missing_index_stops_the_node
    a_module_may_have_fuel_of_its_own
    a_module_is_stopped_resumed_and_dropped
    a_query_sees_whole_batches
    a_restart_repeats_nothing
    a_retry_is_replayed
    a_second_module_has_its_own_keys
    a_snapshot_brings_everything
    a_table_full_of_keys_refuses_new_ones
    a_wish_is_answered_once
    a_trap_rolls_back
    activation_is_checked_against_the_generation
    an_entry_from_the_future_stops_the_node
    an_invalid_module_is_refused
    an_opaque_key_is_forgotten_after_the_window
    an_unknown_method_is_refused
    digests_depend_on_everything
    key_value_store
    keys_from_the_future_are_kept
    limits_are_clamped
    membership_is_part_of_the_state
    out_of_fuel_leaves_no_trace
    retries_of_errors_and_traps_are_replayed
    the_window_never_moves_back
    time_is_monotone
}

/// One replica, and the log it was given.
struct Runner {
    disk: SimDisk,
    machine: Option<StateMachine>,
    log: Vec<Entry>,
    /// Entries of the batch that is being gathered.
    gathered: Option<Vec<Entry>>,
    time_ms: u64,
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &goldenscript::Context) -> Result<String> {
        let mut line = Line { name: &command.name, args: command.consume_args() };
        if let Some(at) = line.number("at")? {
            self.time_ms = at;
        }
        let said = match line.name {
            "install" => self.install(&mut line)?,
            "refuse" | "stop" | "drop" | "retry" => self.change_module(&mut line)?,
            "call" | "tick" | "limits" => self.command(&mut line)?,
            "blank" | "members" | "skip" | "alien" => self.other_entry(&mut line)?,
            "batch" | "apply" | "checkpoint" | "restart" | "transfer" => self.handle_node(&mut line)?,
            _ => self.look(&mut line)?,
        };
        line.args.reject_next()?;
        Ok(said)
    }
}

/// A command of a script, which takes the arguments that it knows.
struct Line<'a> {
    name: &'a str,
    args: ArgumentConsumer<'a>,
}

impl<'a> Line<'a> {
    /// The next word; empty: there is none.
    fn word(&mut self) -> &'a str {
        self.args.next_pos().unwrap_or_default()
    }

    fn words(&mut self) -> Vec<&'a str> {
        std::iter::from_fn(|| self.args.next_pos()).collect()
    }

    fn text(&mut self, key: &str) -> Option<&'a str> {
        self.args.take_key(key)
    }

    fn number<T: FromStr>(&mut self, key: &str) -> std::result::Result<Option<T>, T::Err> {
        self.text(key).map(str::parse).transpose()
    }

    fn unknown<T>(&self) -> Result<T> {
        Err(format!("there is no command {}", self.name).into())
    }
}

/// What scripts tell the node to do.
impl Runner {
    /// Activates a module: inside the entry, or by its hash, with its bytes uploaded before or not.
    fn install(&mut self, line: &mut Line<'_>) -> Result<String> {
        let module = line.word();
        let wasm = module_of(module, line)?;
        let way = line.text("by");
        let mut said = String::new();
        if way == Some("upload") {
            for part in harness::uploads(&wasm) {
                said += &self.enter(part)?;
            }
        }
        let wish = line.text("wish").unwrap_or_default();
        let source = if wish.is_empty() { pb::Source::Push } else { pb::Source::Files };
        let activate = pb::Activate {
            name: line.text("name").unwrap_or(module).to_owned(),
            expected_generation: line.number("expected")?.unwrap_or(0),
            hash: ModuleHash::of(&wasm).0.to_vec().into(),
            wasm: if way.is_some() { Bytes::new() } else { wasm.into() },
            proposed_by: "balsa-0".into(),
            source: source.into(),
            decides: Bytes::copy_from_slice(wish.as_bytes()),
            fuel: line.number("own-fuel")?.map(|command| pb::Fuel { command, query: 0 }),
        };
        Ok(said + &self.enter(Kind::Activate(activate))?)
    }

    fn change_module(&mut self, line: &mut Line<'_>) -> Result<String> {
        let name = line.word().to_owned();
        let expected_generation = line.number("expected")?.unwrap_or(0);
        let (proposed_by, source) = ("balsa-0".into(), pb::Source::Files.into());
        self.enter(match line.name {
            "refuse" => Kind::Refuse(pb::Refuse {
                name,
                expected_generation,
                reason: line.word().to_owned(),
                proposed_by,
                source,
                decides: Bytes::copy_from_slice(line.text("wish").unwrap_or_default().as_bytes()),
                ..pb::Refuse::default()
            }),
            "stop" => Kind::Deactivate(pb::Deactivate {
                name,
                expected_generation,
                proposed_by,
                source,
                decides: Bytes::new(),
            }),
            "drop" => Kind::Drop(pb::Drop { name, proposed_by: "an operator".into() }),
            "retry" => Kind::Retry(pb::Retry { name }),
            _ => return line.unknown(),
        })
    }

    fn command(&mut self, line: &mut Line<'_>) -> Result<String> {
        let kind = match line.name {
            "call" => {
                let (method, request) = self.request(line.word(), line.word())?;
                harness::call(&method, request, &session_key(line.text("key").unwrap_or_default()))
            }
            "tick" => Kind::Tick(pb::Tick {}),
            "limits" => Kind::SetLimits(pb::SetLimits { limits: Some(limits(line)?.into()) }),
            _ => return line.unknown(),
        };
        self.enter(kind)
    }

    fn other_entry(&mut self, line: &mut Line<'_>) -> Result<String> {
        let next = self.next();
        match line.name {
            "blank" => self.append(harness::blank(next)),
            "members" => self.append(harness::membership(next, &line.words())),
            "skip" => self.append(harness::blank(next + 1)),
            "alien" => self.alien(line.number("version")?),
            _ => line.unknown(),
        }
    }

    fn handle_node(&mut self, line: &mut Line<'_>) -> Result<String> {
        match line.name {
            "batch" => {
                self.gathered = Some(Vec::new());
                Ok(String::new())
            }
            "apply" => {
                let entries = self.gathered.take().ok_or("apply ends what batch began")?;
                self.apply(entries)
            }
            "checkpoint" => self.checkpoint(),
            "restart" => self.restart(),
            "transfer" => self.transfer(),
            _ => line.unknown(),
        }
    }

    fn look(&mut self, line: &mut Line<'_>) -> Result<String> {
        match line.name {
            "query" => self.query(line.word(), line.word()),
            "dump" => self.dump(line.word()),
            "history" => self.history(),
            "decisions" => self.decisions(),
            "digest" => Ok(format!("{}\n", self.machine().progress().digest.short())),
            "progress" => Ok(self.progress()),
            "show-limits" => Ok(format!("{:#?}\n", self.machine().reader().view().limits())),
            _ => line.unknown(),
        }
    }
}

impl Runner {
    fn new() -> Self {
        let disk = SimDisk::default();
        let machine = Some(harness::open(&disk));
        Self { disk, machine, log: Vec::new(), gathered: None, time_ms: 1_000_000 }
    }

    fn machine(&self) -> &StateMachine {
        self.machine.as_ref().expect("the node is up")
    }

    fn next(&self) -> u64 {
        (self.log.len() + self.gathered.as_ref().map_or(0, Vec::len)) as u64 + 1
    }

    fn enter(&mut self, kind: Kind) -> Result<String> {
        self.append(harness::command(self.next(), self.time_ms, kind))
    }

    fn append(&mut self, entry: Entry) -> Result<String> {
        match &mut self.gathered {
            Some(gathered) => {
                gathered.push(entry);
                Ok(String::new())
            }
            None => self.apply(vec![entry]),
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<String> {
        let methods = self.log.len();
        let machine = self.machine.as_mut().expect("the node is up");
        let replies = match harness::apply(machine, &entries) {
            Ok(replies) => replies,
            Err(fault) => return Ok(format!("the node stops: {fault}\n")),
        };
        self.log.extend(entries);
        let mut text = String::new();
        for (reply, entry) in replies.iter().zip(&self.log[methods..]) {
            writeln!(text, "{}", self.shown(entry, reply))?;
        }
        Ok(text)
    }

    /// An entry that this version must not apply.
    fn alien(&mut self, version: Option<u32>) -> Result<String> {
        let (index, kind) = (self.next(), version.map(|_| Kind::Tick(pb::Tick {})));
        let command =
            pb::Command { apply_version: version.unwrap_or(1), time_ms: self.time_ms, random: Bytes::new(), kind };
        let mut entry = harness::blank(index);
        entry.payload = openraft::EntryPayload::Normal(crate::command::Command::new(&command));
        self.append(entry)
    }

    fn shown(&self, entry: &Entry, reply: &Reply) -> String {
        if reply.outcome.is_empty() {
            return format!("@{}", reply.index);
        }
        let replayed = if reply.replayed { " (replayed)" } else { "" };
        let (kind, outcome) = (kind_of(entry), harness::outcome(reply));
        let message = match &kind {
            Some(Kind::Call(call)) => self.messages(&call.method).map(|(_, output)| output),
            _ => None,
        };
        let mut text = format!("@{} {}{replayed}", reply.index, shown_outcome(&outcome, message));
        match (outcome, kind, &reply.trap_detail) {
            (Outcome::Refused(_), _, Some(detail)) => {
                write!(text, ": {}", detail.lines().next().unwrap_or_default()).expect("a String takes anything");
            }
            (Outcome::Ok(bytes), Some(Kind::Drop(_)), _) => {
                let pb::Dropped { rows, more } = pb::Dropped::decode(bytes).expect("what a drop answers with");
                let more = if more { ", and there are more" } else { "" };
                write!(text, " {rows} rows{more}").expect("a String takes anything");
            }
            _ => {}
        }
        text
    }

    fn query(&self, method: &str, text: &str) -> Result<String> {
        let (method, request) = self.request(method, text)?;
        Ok(match self.machine().reader().query(&method, request, None) {
            Ok(executed) => {
                let message = self.messages(&method).map(|(_, output)| output);
                format!("@{} {}\n", executed.index, shown_outcome(&executed.outcome, message))
            }
            Err(QueryError::Fault(fault)) => return Err(fault.into()),
            Err(error) => format!("{error}\n"),
        })
    }

    /// A short method name is the tape's or the key-value store's; a request is plain text or JSON.
    fn request(&self, method: &str, text: &str) -> Result<(String, Bytes)> {
        let method = match method.contains('/') {
            true => format!("/{method}"),
            false => format!("/tape.v1.Tape/{method}"),
        };
        if !text.starts_with('{') {
            return Ok((method, Text { text: text.into() }.encode_to_vec().into()));
        }
        let (input, _) = self.messages(&method).ok_or("the method is not known, so its JSON is not either")?;
        let json: serde_json::Value = serde_json::from_str(text)?;
        let message =
            DynamicMessage::deserialize(input.clone(), with_bytes(json, &input, &|text| base64(text.as_bytes())))?;
        Ok((method, message.encode_to_vec().into()))
    }

    fn messages(&self, path: &str) -> Option<(MessageDescriptor, MessageDescriptor)> {
        let catalog = self.machine().reader().catalog();
        let (active, method) = catalog.method(path)?;
        let described = method.described(active.module.descriptors())?;
        Some((described.input(), described.output()))
    }

    fn decisions(&self) -> Result<String> {
        let mut text = String::new();
        for (name, pb::Decided { wish, index, refused }) in self.machine().reader().view().decisions()? {
            let (wish, answer) = (String::from_utf8_lossy(&wish), if refused { "refused" } else { "done" });
            writeln!(text, "{name}: {wish:?} {answer} at {index}")?;
        }
        Ok(if text.is_empty() { "(none)\n".into() } else { text })
    }

    fn history(&self) -> Result<String> {
        let mut text = String::new();
        for row in self.machine().reader().view().history(None)? {
            writeln!(text, "{} {} @{}: {}", row.name, row.version, row.index, shown_event(&row))?;
        }
        Ok(text)
    }

    fn checkpoint(&mut self) -> Result<String> {
        let machine = self.machine.as_mut().expect("the node is up");
        let mut waited = String::new();
        machine.checkpoint(&mut |log_id| {
            writeln!(waited, "waited for the log up to {}", log_id.index()).expect("a String takes anything");
            Ok(())
        })?;
        let durable = machine.durable_applied().map_or(0, |id| id.index());
        Ok(format!("{waited}durable up to {durable}\n"))
    }

    /// Stops without a checkpoint, opens again, and applies what the log has beyond.
    fn restart(&mut self) -> Result<String> {
        self.machine = None;
        self.machine = Some(harness::open(&self.disk));
        let from = self.machine().last_applied().map_or(0, |id| id.index());
        let again = self.log[from as usize..].to_vec();
        harness::apply(self.machine.as_mut().expect("it was just opened"), &again)?;
        Ok(format!("opened at {from}, applied {} again\n", again.len()))
    }

    /// Goes on with another replica that gets everything by snapshot.
    fn transfer(&mut self) -> Result<String> {
        let disk = SimDisk::default();
        let mut other = harness::open(&disk);
        harness::transfer(self.machine(), &mut other, 4096)?;
        assert_eq!(harness::fingerprint(self.machine()), harness::fingerprint(&other));
        self.machine = Some(other);
        self.disk = disk;
        Ok(format!("another replica is at {}\n", self.machine().last_applied().map_or(0, |id| id.index())))
    }

    fn progress(&self) -> String {
        let progress = self.machine().progress();
        format!(
            "applied={} time={} forgotten_before={} sessions={}\n",
            progress.index(),
            progress.time_ms,
            progress.forgotten_before_ms,
            progress.session_rows,
        )
    }

    fn dump(&self, what: &str) -> Result<String> {
        let mut text = String::new();
        self.machine().reader().view().state().each(b"", |key, value| {
            let key = Key::decode(key).expect("every key in the state is in the schema");
            if let Some(line) = shown_row(&key, value, what) {
                writeln!(text, "{line}").expect("a String takes anything");
            }
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(if text.is_empty() { "(empty)\n".into() } else { text })
    }
}

fn limits(line: &mut Line<'_>) -> Result<Replicated> {
    let defaults = Replicated::default();
    let mut or = |name, default: u64| line.number(name).map(|given| given.unwrap_or(default));
    Ok(Replicated {
        command_fuel: or("fuel", defaults.command_fuel)?,
        memory_bytes: or("memory", defaults.memory_bytes)?,
        idempotency_window_ms: or("window", defaults.idempotency_window_ms)?,
        idempotency_keys: or("keys", defaults.idempotency_keys)?,
        idempotency_bytes: or("bytes", defaults.idempotency_bytes)?,
        ..defaults
    })
}

fn shown_event(row: &pb::Activation) -> String {
    use pb::activation::Outcome as Event;
    match row.outcome.clone().expect("a row of the history says what happened") {
        Event::Activated(done) => {
            format!("activated from {:?}, {} writes, {} bytes", done.from_version, done.writes, done.bytes)
        }
        Event::Refused(no) => format!(
            "refused {:?} trap={:?} status={:?} {:?}",
            crate::command::Refusal::from_number(no.refusal),
            crate::command::TrapClass::from_number(no.trap).map(crate::command::TrapClass::name),
            no.status.map(|status| status.message),
            no.reason
        ),
        Event::Stopped(_) => "stopped".into(),
        Event::Dropped(_) => "dropped".into(),
    }
}

/// The module called so, or the tape that the line describes.
fn module_of(name: &str, line: &mut Line<'_>) -> Result<Vec<u8>> {
    let defaults = Tape::default();
    let tape = Tape {
        service: line.text("service").unwrap_or(defaults.service),
        salt: line.text("salt").unwrap_or(defaults.salt),
        version: line.text("version").unwrap_or(defaults.version),
        migrate: line.text("migrate").unwrap_or(defaults.migrate),
        padding: line.number("padding")?.unwrap_or(defaults.padding),
    };
    Ok(match (name, line.text("wasm")) {
        (_, Some(text)) => text.as_bytes().to_vec(),
        ("kvstore", None) => wasm::embedded::KVSTORE.to_vec(),
        ("hostile", None) => testing::hostile_wasm(),
        _ => tape.wasm(),
    })
}

/// `v7@1000` is a UUIDv7 of that time, `v7@1000.2` another one; anything else is an opaque key.
fn session_key(key: &str) -> String {
    let Some(minted) = key.strip_prefix("v7@") else { return key.to_owned() };
    let (minted, tail) = minted.split_once('.').unwrap_or((minted, "1"));
    harness::key_at(minted.parse().expect("milliseconds"), tail.parse().expect("a small number"))
}

fn kind_of(entry: &Entry) -> Option<Kind> {
    let openraft::EntryPayload::Normal(command) = &entry.payload else { return None };
    command.decode().ok()?.kind
}

fn shown_outcome(outcome: &Outcome, message: Option<MessageDescriptor>) -> String {
    match outcome {
        Outcome::Ok(bytes) if bytes.len() > 200 => format!("ok ({} bytes)", bytes.len()),
        Outcome::Ok(bytes) => match message {
            Some(message) => format!("ok {}", shown_message(message, bytes)),
            None => "ok".into(),
        },
        Outcome::Status(status) => format!("status {} {:?}", status.code, status.message),
        Outcome::Trap(class) => format!("trap({})", class.name()),
        Outcome::Refused(refusal) => format!("refused({refusal:?})"),
    }
}

fn shown_message(message: MessageDescriptor, bytes: &Bytes) -> String {
    if let Ok(text) = Text::decode(bytes.clone())
        && message.name().ends_with("Text")
    {
        return format!("{:?}", text.text);
    }
    match DynamicMessage::decode(message.clone(), bytes.clone()) {
        Ok(decoded) => {
            let json = serde_json::to_value(&decoded).expect("a message is JSON");
            with_bytes(json, &message, &unbase64).to_string()
        }
        Err(_) => format!("{:?}", String::from_utf8_lossy(bytes)),
    }
}

/// JSON of a message with its `bytes` fields translated, so that scripts can be read.
fn with_bytes(
    json: serde_json::Value,
    message: &MessageDescriptor,
    translate: &dyn Fn(&str) -> String,
) -> serde_json::Value {
    use prost_reflect::Kind as FieldKind;
    use serde_json::Value;
    let Value::Object(fields) = json else { return json };
    let translated = fields.into_iter().map(|(name, value)| {
        let field = message.get_field_by_json_name(&name).or_else(|| message.get_field_by_name(&name));
        let one = |value: Value| match (field.as_ref().map(|field| field.kind()), value) {
            (Some(FieldKind::Bytes), Value::String(text)) => Value::String(translate(&text)),
            (Some(FieldKind::Message(message)), value) => with_bytes(value, &message, translate),
            (_, value) => value,
        };
        let value = match value {
            Value::Array(items) => Value::Array(items.into_iter().map(one).collect()),
            value => one(value),
        };
        (name, value)
    });
    Value::Object(translated.collect())
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let group = |chunk: &[u8]| {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        let digit = |at: usize| char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]);
        (0..4).map(|at| if at <= chunk.len() { digit(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

fn unbase64(text: &str) -> String {
    let digits: Vec<_> = text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte)).collect();
    let bytes = digits.chunks(4).flat_map(|group| {
        let bits = (0..4).fold(0, |bits, at| bits << 6 | group.get(at).unwrap_or(&0));
        [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8].into_iter().take(group.len() - 1)
    });
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
}

fn shown_row(key: &Key<'_>, value: &[u8], what: &str) -> Option<String> {
    let all = what.is_empty();
    let shown = |kind: &str| all || what == kind;
    let session = |value| pb::Session::decode(value).expect("a session row");
    let outcome = |row: &pb::Session| {
        shown_outcome(&row.outcome.clone().expect("a session has one").try_into().expect("a known outcome"), None)
    };
    Some(match key {
        Key::Progress | Key::Limits | Key::Wasm { .. } | Key::OpaqueTime { .. } => return None,
        Key::Membership if shown("members") => {
            let row = crate::proto::raft::StoredMembership::decode(value).expect("a membership row");
            let nodes = row.membership.unwrap_or_default().nodes;
            let names: Vec<_> = nodes.into_iter().map(|node| node.member.unwrap_or_default().name).collect();
            format!("members {} since {}", names.join(" "), row.log_id.unwrap_or_default().index)
        }
        Key::Module(name) if shown("modules") => {
            let row = pb::ActiveModule::decode(value).expect("a module row");
            let serving = if row.serving() == pb::Serving::Serving { "" } else { " (stopped)" };
            format!("module {name} {} since {}{serving}", row.version, row.generation)
        }
        Key::TimedSession { id, module, method } if shown("sessions") => {
            let minted = id[..6].iter().fold(0, |time, byte| time << 8 | u64::from(*byte));
            let row = session(value);
            format!("session v7@{minted}.{} {module}{method} -> @{} {}", id[15], row.index, outcome(&row))
        }
        Key::OpaqueSession { module, method, key } if shown("sessions") => {
            let row = session(value);
            let key = String::from_utf8_lossy(key);
            format!("session {key:?} {module}{method} -> @{} at {} {}", row.index, row.time_ms, outcome(&row))
        }
        Key::State { module, key } if shown("state") => {
            let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
            format!("{module}: {key} = {value}")
        }
        _ => return None,
    })
}

#[test]
fn base64_is_read_back() {
    for text in ["", "a", "ab", "abc", "abcd", "\u{1F9A6}"] {
        assert_eq!(unbase64(&base64(text.as_bytes())), text);
    }
    assert_eq!(base64(b"balsa"), "YmFsc2E=");
}
