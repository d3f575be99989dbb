//! Messages and methods of the hostile module (`modules/hostile/proto`), as far as the tests use them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use balsa::client::{Call, Client, Error, Kind, Read, Reply};
use bytes::Bytes;
use prost::Message;

pub(crate) const ADD: &str = "/hostile.v1.Hostile/Add";
pub(crate) const PUT: &str = "/hostile.v1.Hostile/Put";
pub(crate) const GET: &str = "/hostile.v1.Hostile/Get";
pub(crate) const STREAM: &str = "/hostile.v1.Hostile/Stream";
pub(crate) const TOTAL: &str = "/hostile.v1.Hostile/Total";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetResponse {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(crate) value: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamRequest {
    #[prost(uint32, tag = "1")]
    pub(crate) count: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) bytes: u32,
    #[prost(int32, tag = "3")]
    pub(crate) ending: i32,
}

/// Any of the requests whose only field is a number: `amount`, `bytes`, `depth`, `wild`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
}

/// The request for adding `amount`.
pub(crate) fn number(number: u64) -> Vec<u8> {
    Number { number }.encode_to_vec()
}

/// The total in a reply to Add or Total.
pub(crate) fn total_in(reply: &Reply) -> u64 {
    Number::decode(&*reply.message).unwrap().number
}

/// The sum of all Adds.
pub(crate) async fn total(client: &Client, read: Read) -> Result<u64, Error> {
    client.query(TOTAL, Vec::new(), read).await.map(|reply| total_in(&reply))
}

/// An Add under `key`.
pub(crate) fn add(key: &str, amount: u64) -> Call {
    Call { path: ADD.into(), request: number(amount).into(), kind: Kind::Command { key: key.into() } }
}

/// The file, from `$BALSA_HOSTILE_WASM` if that is set, else built once.
pub(crate) fn wasm() -> PathBuf {
    static WASM: OnceLock<PathBuf> = OnceLock::new();
    WASM.get_or_init(|| std::env::var_os("BALSA_HOSTILE_WASM").map_or_else(build, PathBuf::from)).clone()
}

fn build() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("node/ is in a workspace").to_owned();
    // A directory of its own: the cargo that runs this test may hold the lock of the other.
    let target = root.join("target/hostile-wasm");
    let built = Command::new(env!("CARGO"))
        .current_dir(&root)
        .args(["build", "--locked", "--profile", "wasm", "--target", "wasm32-wasip1", "--package", "hostile"])
        .arg("--target-dir")
        .arg(&target)
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the hostile module cannot be built; set BALSA_HOSTILE_WASM");
    target.join("wasm32-wasip1/wasm/hostile.wasm")
}
