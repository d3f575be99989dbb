//! A module that counts, and says with each answer which version of it did: written here in WebAssembly text, so that a test can have
//! as many versions as it needs, whose bytes never change with a compiler.
//!
//! Its one row holds the total. Each `balsa_init` adds [`INIT`] to it and each `balsa_migrate` [`MIGRATION`], however they
//! end; so a total tells apart what clients have added, how often the module has begun, and how many migrations have
//! taken effect, and one that was rolled back by halves would show.

use balsa::client::{Call, Client, Error, Read, Reply};
use balsa::ids::ModuleHash;
use prost::Message;

use crate::section::{COMMAND, MethodRow, ModuleSection, QUERY, append_section};

/// What a first activation adds to the total.
const INIT: u64 = 1 << 56;
/// What each migration adds.
const MIGRATION: u64 = 1 << 40;

/// What may differ from one abacus to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abacus<'a> {
    /// The module's.
    pub(crate) name: &'a str,
    /// Of its protobuf package, `<package>.v1`.
    pub(crate) package: &'a str,
    pub(crate) version: &'a str,
    pub(crate) migrate: Migrate,
    /// Changes the hash and nothing else.
    pub(crate) salt: &'a str,
    /// Whether it has the method `Undo`.
    pub(crate) undo: bool,
    /// The type of `AddRequest.amount`, which the code takes for eight bytes.
    pub(crate) amount: &'a str,
    /// `namespace.function` that it imports and never calls.
    pub(crate) import: &'a str,
    /// Bytes that make it larger.
    pub(crate) padding: usize,
    /// Functions that make compiling it take long: about a second for each thousand.
    pub(crate) functions: usize,
}

/// What its `balsa_migrate` does after it has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Migrate {
    /// It has none.
    Absent,
    /// Ends well.
    Well,
    /// Ends well after this many turns of a loop.
    Slowly(u32),
    /// Answers FAILED_PRECONDITION, "no".
    Refuse,
    Trap,
    /// Never ends.
    Spin,
    /// Writes one row after the other.
    Flood,
}

impl Default for Abacus<'_> {
    fn default() -> Self {
        Self {
            name: "abacus",
            package: "abacus",
            version: "0.1.0",
            migrate: Migrate::Absent,
            salt: "",
            undo: true,
            amount: "fixed64",
            import: "",
            padding: 0,
            functions: 0,
        }
    }
}

/// The request of all methods.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AddRequest {
    #[prost(fixed64, tag = "1")]
    pub(crate) amount: u64,
    /// Ignored: it makes the log grow.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) padding: Vec<u8>,
}

/// The answer of all methods.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Reading {
    #[prost(fixed64, tag = "1")]
    total: u64,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
}

impl Reading {
    pub(crate) fn of(reply: &Reply) -> Self {
        Self::decode(&*reply.message).unwrap()
    }

    /// The sum of what clients have added.
    pub(crate) fn added(&self) -> u64 {
        self.total % MIGRATION
    }

    pub(crate) fn migrations(&self) -> u64 {
        self.total % INIT / MIGRATION
    }

    pub(crate) fn inits(&self) -> u64 {
        self.total / INIT
    }
}

/// The path of a method of the package.
pub(crate) fn path(package: &str, method: &str) -> String {
    format!("/{package}.v1.Abacus/{method}")
}

pub(crate) fn amount(amount: u64) -> Vec<u8> {
    AddRequest { amount, padding: Vec::new() }.encode_to_vec()
}

/// Adds to the abacus of that package.
pub(crate) async fn add(client: &Client, package: &str, count: u64) -> Result<Reading, Error> {
    client.command(&path(package, "Add"), amount(count)).await.map(|reply| Reading::of(&reply))
}

/// What the abacus of that package shows.
pub(crate) async fn total(client: &Client, package: &str) -> Result<Reading, Error> {
    let call = Call::query(&path(package, "Total"), Vec::new(), Read::Linearizable);
    client.call(&call).await.map(|reply| Reading::of(&reply))
}

/// The hash of a module's bytes, as the cluster knows it.
pub(crate) fn hash(wasm: &[u8]) -> Vec<u8> {
    ModuleHash::of(wasm).0.to_vec()
}

impl Abacus<'_> {
    /// The usual one, of this version.
    pub(crate) fn version(version: &str) -> Abacus<'_> {
        Abacus { version, ..Abacus::default() }
    }

    pub(crate) fn wasm(&self) -> Vec<u8> {
        let mut wasm = wat::parse_str(self.wat()).expect("the text below is a module");
        self.section().append_to(&mut wasm);
        append_section(&mut wasm, "salt", self.salt.as_bytes());
        append_section(&mut wasm, "padding", &vec![b'.'; self.padding]);
        wasm
    }

    /// Every version has its methods in another order: an entry of the log names its method, never the position.
    fn methods(&self) -> Vec<(&'static str, u32)> {
        let mut methods = vec![("Add", COMMAND), ("Work", COMMAND), ("Total", QUERY)];
        if self.undo {
            methods.push(("Undo", COMMAND));
        }
        let turn = self.version.bytes().map(usize::from).sum::<usize>() % methods.len();
        methods.rotate_left(turn);
        methods
    }

    fn section(&self) -> ModuleSection {
        let row = |(method, kind): &(&str, u32)| MethodRow { path: path(self.package, method), kind: *kind };
        ModuleSection {
            abi: 1,
            name: self.name.into(),
            version: self.version.into(),
            file_descriptor_set: self.descriptors(),
            methods: self.methods().iter().map(row).collect(),
        }
    }

    fn descriptors(&self) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let file = format!("{}.proto", self.package);
        std::fs::write(dir.path().join(&file), self.proto()).unwrap();
        protox::compile([&file], [dir.path()]).unwrap().encode_to_vec()
    }

    fn proto(&self) -> String {
        let Self { package, amount, .. } = self;
        let method = |(name, kind): &(&str, u32)| match *kind {
            QUERY => {
                format!("rpc {name}(AddRequest) returns (Reading) {{ option idempotency_level = NO_SIDE_EFFECTS; }}")
            }
            _ => format!("rpc {name}(AddRequest) returns (Reading);"),
        };
        let methods: String = self.methods().iter().map(method).collect();
        format!(
            "syntax = \"proto3\"; package {package}.v1;
             message AddRequest {{ {amount} amount = 1; bytes padding = 2; }}
             message Reading {{ fixed64 total = 1; string version = 2; }}
             service Abacus {{ {methods} }}"
        )
    }

    fn wat(&self) -> String {
        let dispatch = |(at, (method, _)): (usize, &(&str, u32))| {
            format!("(if (i32.eq (local.get $method) (i32.const {at})) (then (return (call ${method}))))")
        };
        let import = self.import.split_once('.').map_or(String::new(), |(namespace, function)| {
            format!("(import \"{namespace}\" \"{function}\" (func (param i32) (result i32)))")
        });
        WAT.replace("IMPORT", &import)
            .replace("LENGTH", &(11 + self.version.len()).to_string())
            .replace("VERSION", &format!("\\12\\{:02x}{}", self.version.len(), self.version))
            .replace("DISPATCH", &self.methods().iter().enumerate().map(dispatch).collect::<String>())
            .replace("MIGRATE", &self.migrate.wat())
            .replace("BULK", &(0..self.functions).map(bulk).collect::<String>())
    }
}

impl Migrate {
    fn wat(self) -> String {
        let end = match self {
            Self::Absent => return String::new(),
            Self::Well => "(i32.const 0)".to_owned(),
            Self::Slowly(turns) => format!("(call $turn (i64.const {turns})) (i32.const 0)"),
            Self::Refuse => "(i64.store (i32.const 512) (i64.const 0x6f6e02120908))
                             (call $output (i32.const 512) (i32.const 6)) (i32.const 9)"
                .to_owned(),
            Self::Trap => "(unreachable)".to_owned(),
            Self::Spin => "(loop $again (br $again)) (unreachable)".to_owned(),
            Self::Flood => "(loop $again
                              (i32.store (i32.const 512) (i32.add (i32.load (i32.const 512)) (i32.const 1)))
                              (call $put (i32.const 512) (i32.const 4) (i32.const 512) (i32.const 4))
                              (br $again))
                            (unreachable)"
                .to_owned(),
        };
        format!(
            "(func (export \"balsa_migrate\") (param $from i32) (result i32) (call $count (i64.const {MIGRATION})) {end})"
        )
    }
}

/// A function that is never called, and no two alike.
fn bulk(number: usize) -> String {
    let step =
        |at| format!("(local.set 0 (i64.rotl (i64.mul (local.get 0) (i64.const {})) (local.get 1)))", number * 64 + at);
    format!("(func (param i64 i64) (result i64) {} (local.get 0))", (0..64).map(step).collect::<String>())
}

/// The request lies at 0: a tag, and at 1 the amount. The answer lies at 1015: a tag, at 1016 the total, at 1024 the version.
const WAT: &str = r#"
(module
  (import "balsa_v1" "input_read" (func $input_read (param i32 i32 i32)))
  (import "balsa_v1" "output" (func $output (param i32 i32)))
  (import "balsa_v1" "get" (func $get (param i32 i32 i32 i32) (result i64)))
  (import "balsa_v1" "put" (func $put (param i32 i32 i32 i32)))
  IMPORT
  (memory (export "memory") 2)
  (data (i32.const 256) "total")
  (data (i32.const 1024) "VERSION")
  (func (export "balsa_abi_1"))

  (func $load
    (drop (call $get (i32.const 256) (i32.const 5) (i32.const 1016) (i32.const 8))))
  (func $count (param $amount i64)
    (call $load)
    (i64.store (i32.const 1016) (i64.add (i64.load (i32.const 1016)) (local.get $amount)))
    (call $put (i32.const 256) (i32.const 5) (i32.const 1016) (i32.const 8)))
  (func $answer (result i32)
    (i32.store8 (i32.const 1015) (i32.const 9))
    (call $output (i32.const 1015) (i32.const LENGTH))
    (i32.const 0))
  (func $turn (param $turns i64)
    (block $done (loop $again
      (br_if $done (i64.eqz (local.get $turns)))
      (local.set $turns (i64.sub (local.get $turns) (i64.const 1)))
      (br $again))))

  (func $Add (result i32)
    (call $count (i64.load (i32.const 1)))
    (call $answer))
  (func $Undo (result i32)
    (call $count (i64.sub (i64.const 0) (i64.load (i32.const 1))))
    (call $answer))
  (func $Work (result i32)
    (call $turn (i64.load (i32.const 1)))
    (call $load)
    (call $answer))
  (func $Total (result i32)
    (call $load)
    (call $answer))

  (func (export "balsa_call") (param $method i32) (param $len i32) (result i32)
    (call $input_read (i32.const 0) (i32.const 0)
      (select (local.get $len) (i32.const 9) (i32.lt_u (local.get $len) (i32.const 9))))
    DISPATCH
    (unreachable))
  (func (export "balsa_init") (result i32)
    (call $count (i64.const 72057594037927936))
    (i32.const 0))
  MIGRATE
  BULK
)
"#;
