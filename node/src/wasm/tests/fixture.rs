//! A module, a state and a call to try things with.

use std::sync::OnceLock;

use prost::Message;
use prost_types::method_options::IdempotencyLevel;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions,
    ServiceDescriptorProto,
};

use crate::command::{Outcome, TrapClass};
pub(super) use crate::testing::{Rows, map, rows_of};
use crate::testing::{append_section, broken};
use crate::wasm::metadata::{Kind, Metadata, MethodEntry, SECTION};
use crate::wasm::{Call, Context, Engine, Finished, HostFault, Module, Options, Rejection};

/// Imports everything of ABI 1, and has what every module must have. `reply` outputs the eight bytes of a number.
const PRELUDE: &str = r#"
    (import "balsa_v1" "input_read" (func $input_read (param i32 i32 i32)))
    (import "balsa_v1" "output" (func $output (param i32 i32)))
    (import "balsa_v1" "get" (func $get (param i32 i32 i32 i32) (result i64)))
    (import "balsa_v1" "result_read" (func $result_read (param i32 i32 i32)))
    (import "balsa_v1" "put" (func $put (param i32 i32 i32 i32)))
    (import "balsa_v1" "delete" (func $delete (param i32 i32) (result i32)))
    (import "balsa_v1" "scan" (func $scan (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i64)))
    (import "balsa_v1" "context" (func $context (param i32 i32) (result i32)))
    (import "balsa_v1" "log" (func $log (param i32 i32 i32)))
    (import "balsa_v1" "panic" (func $panic (param i32 i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_res_get" (func $clock_res_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fd_fdstat_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (memory (export "memory") 2)
    (func (export "balsa_abi_1"))
    (func $reply (param $number i64) (result i32)
        (i64.store (i32.const 0) (local.get $number))
        (call $output (i32.const 0) (i32.const 8))
        (i32.const 0))
"#;

/// The method that every fixture has as a command, and as a query.
pub(super) const DO: &str = "/test.v1.Test/Do";
pub(super) const ASK: &str = "/test.v1.Test/Ask";

pub(super) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        Engine::new(Options { query_slots: 4, memory_bytes_max: 16 * 1024 * 1024 }).expect("this machine can run wasm")
    })
}

/// A module with the prelude and `items`, which must export `balsa_call`.
pub(super) fn with_items(items: &str) -> Vec<u8> {
    bare(&format!("{PRELUDE}\n{items}"))
}

/// A module whose `balsa_call` has this body: `$method` and `$len` in, a code out.
pub(super) fn with_body(body: &str) -> Vec<u8> {
    with_items(&function(body))
}

pub(super) fn function(body: &str) -> String {
    format!(r#"(func (export "balsa_call") (param $method i32) (param $len i32) (result i32) {body})"#)
}

/// A module of nothing but `items`, and the metadata of the test service.
pub(super) fn bare(items: &str) -> Vec<u8> {
    with_metadata(items, &metadata())
}

pub(super) fn with_metadata(items: &str, metadata: &Metadata) -> Vec<u8> {
    with_section(without_metadata(items), &metadata.encode_to_vec())
}

pub(super) fn without_metadata(items: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {items})")).expect("the fixture is well-formed text")
}

pub(super) fn with_section(mut wasm: Vec<u8>, data: &[u8]) -> Vec<u8> {
    append_section(&mut wasm, SECTION, data);
    wasm
}

pub(super) fn metadata() -> Metadata {
    let entry = |path: &str, kind: Kind| MethodEntry { path: path.into(), kind: kind.into() };
    Metadata {
        abi: 1,
        name: "fixture".into(),
        version: "1.2.3".into(),
        file_descriptor_set: FileDescriptorSet { file: vec![file()] }.encode_to_vec(),
        methods: vec![entry(DO, Kind::Command), entry(ASK, Kind::Query)],
        sdk: "by hand".into(),
    }
}

/// `test.proto`: service Test { rpc Do (M) returns (M); rpc Ask (M) returns (M) { NO_SIDE_EFFECTS } }
pub(super) fn file() -> FileDescriptorProto {
    let message = DescriptorProto { name: Some("M".into()), ..Default::default() };
    let service = ServiceDescriptorProto {
        name: Some("Test".into()),
        method: vec![method("Do", false), method("Ask", true)],
        options: None,
    };
    FileDescriptorProto {
        name: Some("test.proto".into()),
        package: Some("test.v1".into()),
        message_type: vec![message],
        service: vec![service],
        syntax: Some("proto3".into()),
        ..Default::default()
    }
}

pub(super) fn method(name: &str, reads_only: bool) -> MethodDescriptorProto {
    let level = IdempotencyLevel::NoSideEffects as i32;
    MethodDescriptorProto {
        name: Some(name.into()),
        input_type: Some(".test.v1.M".into()),
        output_type: Some(".test.v1.M".into()),
        options: reads_only.then(|| MethodOptions { idempotency_level: Some(level), ..Default::default() }),
        ..Default::default()
    }
}

pub(super) fn load(wasm: &[u8]) -> Module {
    Module::load(engine(), wasm).unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn refusal(wasm: &[u8]) -> Rejection {
    Module::load(engine(), wasm).expect_err("the module should be refused")
}

/// A call, with defaults for what a test does not care about.
#[derive(Debug, Clone)]
pub(super) struct Try {
    pub(super) method: &'static str,
    pub(super) input: Vec<u8>,
    pub(super) fuel: u64,
    pub(super) memory_bytes: u64,
    pub(super) deadline: Option<std::time::Instant>,
    pub(super) rows: Rows,
    pub(super) broken: bool,
}

impl Default for Try {
    fn default() -> Self {
        let rows = Rows::new();
        let memory_bytes = 4 * 1024 * 1024;
        Self { method: DO, input: Vec::new(), fuel: 10_000_000, memory_bytes, deadline: None, rows, broken: false }
    }
}

impl Try {
    pub(super) fn query() -> Self {
        Self { method: ASK, ..Self::default() }
    }

    pub(super) fn rows(mut self, rows: &[(&[u8], &[u8])]) -> Self {
        self.rows = rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        self
    }

    pub(super) fn run(self, module: &Module) -> Result<Finished, HostFault> {
        let call = Call {
            method: module.method(self.method).expect("the fixture has it"),
            input: self.input.into(),
            context: context(),
            fuel: self.fuel,
            memory_bytes: self.memory_bytes,
            deadline: self.deadline,
        };
        module.call(call, if self.broken { broken() } else { map(self.rows) })
    }

    /// Runs the body of `balsa_call`.
    pub(super) fn body(self, body: &str) -> Finished {
        self.run(&load(&with_body(body))).expect("the host is well")
    }
}

pub(super) fn context() -> Context {
    Context { index: 7, time_ms: 1_700_000_000_123, random: [9; 32] }
}

/// Runs the body of `balsa_call` as a command on an empty state.
pub(super) fn body(body: &str) -> Finished {
    Try::default().body(body)
}

impl Finished {
    pub(super) fn output(&self) -> &[u8] {
        match &self.outcome {
            Outcome::Ok(output) => output,
            other => panic!("{other:?}: {:?}", self.trap_detail),
        }
    }

    /// What `$reply` was given.
    pub(super) fn number(&self) -> i64 {
        i64::from_le_bytes(self.output().try_into().expect("eight bytes"))
    }

    pub(super) fn trap(&self) -> TrapClass {
        match self.outcome {
            Outcome::Trap(class) => class,
            ref other => panic!("{other:?}"),
        }
    }

    pub(super) fn detail(&self) -> &str {
        self.trap_detail.as_deref().unwrap_or_default()
    }

    pub(super) fn rows(self) -> Rows {
        rows_of(self.state)
    }
}
