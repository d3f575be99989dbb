//! What tests of several parts share: an engine, modules to run, and a state for them.

pub(crate) mod exposition;
pub(crate) mod project;
mod rows;
mod section;
pub(crate) mod spans;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::method_options::IdempotencyLevel;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    MethodOptions, ServiceDescriptorProto,
};

pub(crate) use self::rows::{Rows, broken, map, rows_of};
pub(crate) use self::section::{COMMAND, MethodRow, ModuleSection, QUERY, append_section};
use crate::limits::MEMORY_BYTES_MAX;
use crate::wasm::{Engine, Options};

/// One engine for all tests of the process: compiled modules are kept in it.
pub(crate) fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let options = Options { query_slots: 2, memory_bytes_max: MEMORY_BYTES_MAX };
    ENGINE.get_or_init(|| Engine::new(options).expect("this machine can run wasm")).clone()
}

/// Holds what stands between the marks of a document to what is generated from `source`; `BALSA_UPDATE_DOCS=1` writes it there.
pub(crate) fn assert_generated(document: &str, source: &str, generated: &str) {
    const END: &str = "<!-- generated: end -->";
    let begin = format!("<!-- generated from {source}: begin -->\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(&begin).expect("the document has the begin mark");
    let (_, after) = rest.split_once(END).expect("the document has the end mark");
    let current = format!("{before}{begin}\n{generated}{END}{after}");
    if std::env::var_os("BALSA_UPDATE_DOCS").is_some() {
        return fs::write(&path, &current).unwrap();
    }
    assert!(text == current, "run with BALSA_UPDATE_DOCS=1 to renew {document}");
}

/// Runs `test` on a thread with the stack that modules need.
pub(crate) fn on_a_wasm_thread<R: Send>(test: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(2 * crate::wasm::THREAD_STACK_BYTES);
        let done = thread.spawn_scoped(scope, test).expect("a thread can be started").join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The module that misbehaves on purpose, from `$BALSA_HOSTILE_WASM` if that is set, else built once.
#[allow(dead_code)]
pub(crate) fn hostile_wasm() -> Vec<u8> {
    static WASM: OnceLock<Vec<u8>> = OnceLock::new();
    let path = || std::env::var_os("BALSA_HOSTILE_WASM").map_or_else(|| build_module("hostile"), PathBuf::from);
    WASM.get_or_init(|| read(&path())).clone()
}

/// A module of this workspace, from the directory `$BALSA_MODULES_DIR` if that is set, else built.
#[allow(dead_code)]
pub(crate) fn module_wasm(package: &str) -> Vec<u8> {
    match std::env::var_os("BALSA_MODULES_DIR") {
        Some(directory) => read(&PathBuf::from(directory).join(file_name(package))),
        None => read(&build_module(package)),
    }
}

/// The counter in C, from `$BALSA_COUNTER_C_WASM` if that is set, else built by its own Makefile.
#[allow(dead_code)]
pub(crate) fn counter_in_c() -> Vec<u8> {
    static WASM: OnceLock<Vec<u8>> = OnceLock::new();
    let path = || std::env::var_os("BALSA_COUNTER_C_WASM").map_or_else(make_counter_in_c, PathBuf::from);
    WASM.get_or_init(|| read(&path())).clone()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("node/ is in a workspace").to_owned()
}

fn build_module(package: &str) -> PathBuf {
    // A directory of its own: the cargo that runs this test may hold the lock of the other.
    let target = root().join("target/test-wasm");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(root())
        .args(["build", "--locked", "--profile", "wasm", "--target", "wasm32-wasip1", "--package", package])
        .arg("--target-dir")
        .arg(&target)
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the module {package} cannot be built; see `make modules`");
    target.join("wasm32-wasip1/wasm").join(file_name(package))
}

/// As cargo names what it builds of a package.
fn file_name(package: &str) -> String {
    format!("{}.wasm", package.replace('-', "_"))
}

fn make_counter_in_c() -> PathBuf {
    let build = root().join("target/counter-c");
    let made = Command::new("make")
        .args(["--directory", "modules/counter-c"])
        .arg(format!("BUILD={}", build.display()))
        .current_dir(root())
        .status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "modules/counter-c cannot be built; `make setup-test` installs clang for it"
    );
    build.join("counter.wasm")
}

/// Commands of [`tape`], in the order of its method table; then its queries.
const TAPE_COMMANDS: [&str; 7] = ["Put", "Delete", "Fail", "Trap", "Spin", "Big", "Now"];
const TAPE_QUERIES: [&str; 2] = ["Get", "Sneak"];

/// A module in a page of WAT, whose bytes never change with a compiler: service `tape.v1.<service>`, with `string text` in and
/// out.
///
/// `Put "k=v"` (one letter of key) answers with the value before; `Delete "k"`; `Get "k"`; `Big "n"` puts n under n
/// and answers with n KiB; `Now`
/// answers with 48 bytes of context. `Fail`, `Trap` and `Spin` put first, and then end in a status, a trap, and a loop without
/// end; `Sneak` is a query that puts. `salt` changes the hash of the module and nothing else.
pub(crate) fn tape(service: &str, salt: &str) -> Vec<u8> {
    Tape { service, salt, ..Tape::default() }.wasm()
}

/// What may differ from one [`tape`] to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tape<'a> {
    pub(crate) service: &'a str,
    pub(crate) salt: &'a str,
    pub(crate) version: &'a str,
    /// What its `balsa_init` and `balsa_migrate` do: "" (it has none), `ok` (puts the old version
    /// under `m`, or `i` under `i`), and after the same write `refuse`, `trap`, `spin`, or `flood` (writes without end).
    pub(crate) migrate: &'a str,
    /// Bytes that make it larger.
    pub(crate) padding: usize,
}

impl Default for Tape<'_> {
    fn default() -> Self {
        Self { service: "Tape", salt: "", version: "0.1.0", migrate: "", padding: 0 }
    }
}

impl Tape<'_> {
    pub(crate) fn wasm(&self) -> Vec<u8> {
        let text = TAPE.trim_end().strip_suffix(')').expect("the text below is a module");
        let migrate = match self.migrate {
            "" => String::new(),
            how => TAPE_MIGRATE.replace("HOW", how),
        };
        let mut wasm = wat::parse_str(format!("{text}{migrate})")).expect("so it still is one");
        let section = ModuleSection { version: self.version.into(), ..module_section(self.service) };
        section.append_to(&mut wasm);
        append_section(&mut wasm, "salt", self.salt.as_bytes());
        append_section(&mut wasm, "padding", &vec![b'.'; self.padding]);
        wasm
    }
}

fn module_section(service: &str) -> ModuleSection {
    let rows = |methods: &[&str], kind| {
        let row = |method: &&str| MethodRow { path: format!("/tape.v1.{service}/{method}"), kind };
        methods.iter().map(row).collect::<Vec<_>>()
    };
    ModuleSection {
        abi: 1,
        name: "tape".into(),
        version: "0.1.0".into(),
        file_descriptor_set: FileDescriptorSet { file: vec![tape_proto(service)] }.encode_to_vec(),
        methods: [rows(&TAPE_COMMANDS, COMMAND), rows(&TAPE_QUERIES, QUERY)].concat(),
    }
}

fn tape_proto(service: &str) -> FileDescriptorProto {
    let text = FieldDescriptorProto {
        name: Some("text".into()),
        number: Some(1),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::String.into()),
        json_name: Some("text".into()),
        ..Default::default()
    };
    let method = |name: &&str, level: IdempotencyLevel| MethodDescriptorProto {
        name: Some((*name).into()),
        input_type: Some(format!(".tape.v1.{service}Text")),
        output_type: Some(format!(".tape.v1.{service}Text")),
        options: Some(MethodOptions { idempotency_level: Some(level.into()), ..Default::default() }),
        ..Default::default()
    };
    let commands = TAPE_COMMANDS.iter().map(|name| method(name, IdempotencyLevel::IdempotencyUnknown));
    let queries = TAPE_QUERIES.iter().map(|name| method(name, IdempotencyLevel::NoSideEffects));
    FileDescriptorProto {
        name: Some(format!("tape/v1/{}.proto", service.to_lowercase())),
        package: Some("tape.v1".into()),
        message_type: vec![DescriptorProto {
            name: Some(format!("{service}Text")),
            field: vec![text],
            ..Default::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some(service.into()),
            method: commands.chain(queries).collect(),
            ..Default::default()
        }],
        syntax: Some("proto3".into()),
        ..Default::default()
    }
}

/// The request lies at 0: tag, length, then at 2 the text. An answer is built at 4096 in the same form.
const TAPE: &str = r#"
(module
  (import "balsa_v1" "input_read" (func $input_read (param i32 i32 i32)))
  (import "balsa_v1" "output" (func $output (param i32 i32)))
  (import "balsa_v1" "get" (func $get (param i32 i32 i32 i32) (result i64)))
  (import "balsa_v1" "put" (func $put (param i32 i32 i32 i32)))
  (import "balsa_v1" "delete" (func $delete (param i32 i32) (result i32)))
  (import "balsa_v1" "context" (func $context (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "balsa_abi_1"))

  (func $answer_value_of_key (result i32)
    (local $len i32)
    (local.set $len (i32.wrap_i64 (call $get (i32.const 2) (i32.const 1) (i32.const 4098) (i32.const 127))))
    (if (i32.lt_s (local.get $len) (i32.const 0))
      (then (call $output (i32.const 4096) (i32.const 0)) (return (i32.const 0))))
    (i32.store8 (i32.const 4096) (i32.const 10))
    (i32.store8 (i32.const 4097) (local.get $len))
    (call $output (i32.const 4096) (i32.add (local.get $len) (i32.const 2)))
    (i32.const 0))

  (func $put_text (param $len i32)
    (call $put (i32.const 2) (i32.const 1) (i32.const 4) (i32.sub (local.get $len) (i32.const 4))))

  (func (export "balsa_call") (param $method i32) (param $len i32) (result i32)
    (call $input_read (i32.const 0) (i32.const 0) (local.get $len))
    (block $sneak (block $get (block $now (block $big (block $spin (block $trap (block $fail (block $delete (block $put
      (br_table $put $delete $fail $trap $spin $big $now $get $sneak (local.get $method)))
      ;; put
      (drop (call $answer_value_of_key))
      (call $put_text (local.get $len))
      (return (i32.const 0)))
    ;; delete
    (drop (call $answer_value_of_key))
    (drop (call $delete (i32.const 2) (i32.const 1)))
    (return (i32.const 0)))
    ;; fail: FAILED_PRECONDITION, "no"
    (call $put_text (local.get $len))
    (i64.store (i32.const 4096) (i64.const 0x6f6e02120908))
    (call $output (i32.const 4096) (i32.const 6))
    (return (i32.const 9)))
    ;; trap
    (call $put_text (local.get $len))
    (unreachable))
    ;; spin
    (call $put_text (local.get $len))
    (loop $again (br $again))
    (unreachable))
    ;; big
    (call $put (i32.const 2) (i32.const 1) (i32.const 2) (i32.const 1))
    (call $output (i32.const 4096)
      (i32.mul (i32.const 1024) (i32.sub (i32.load8_u (i32.const 2)) (i32.const 48))))
    (return (i32.const 0)))
    ;; now
    (drop (call $context (i32.const 4098) (i32.const 48)))
    (i32.store16 (i32.const 4096) (i32.const 0x300a))
    (call $output (i32.const 4096) (i32.const 50))
    (return (i32.const 0)))
    ;; get
    (return (call $answer_value_of_key)))
    ;; sneak
    (call $put_text (local.get $len))
    (i32.const 0))
)
"#;

/// Both write before they end, so that a test sees what is rolled back. `HOW` is the name of a function below.
const TAPE_MIGRATE: &str = r#"
  (func (export "balsa_init") (result i32)
    (i32.store8 (i32.const 8192) (i32.const 105))
    (call $note (i32.const 105) (i32.const 1))
    (call $HOW))
  (func (export "balsa_migrate") (param $len i32) (result i32)
    (call $input_read (i32.const 8192) (i32.const 0) (local.get $len))
    (call $note (i32.const 109) (local.get $len))
    (call $HOW))
  (func $note (param $key i32) (param $len i32)
    (i32.store8 (i32.const 8190) (local.get $key))
    (call $put (i32.const 8190) (i32.const 1) (i32.const 8192) (local.get $len)))
  (func $ok (result i32) (i32.const 0))
  (func $refuse (result i32)
    (i64.store (i32.const 4096) (i64.const 0x6f6e02120908))
    (call $output (i32.const 4096) (i32.const 6))
    (i32.const 9))
  (func $trap (result i32) (unreachable))
  (func $spin (result i32) (loop $again (br $again)) (unreachable))
  (func $flood (result i32)
    (local $n i32)
    (loop $again
      (i32.store (i32.const 8190) (local.get $n))
      (call $put (i32.const 8190) (i32.const 4) (i32.const 8192) (i32.const 1))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br $again))
    (unreachable))
"#;
