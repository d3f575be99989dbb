//! From a method's number and a request's bytes to a method of the module's, and back.
//!
//! `balsa-build` generates a [`Service`] for each service of the `.proto` files; `export!` joins them to one method table.
//! Both that table and the one in the metadata section are written by the same run of `balsa-build`, which is why a number
//! means the same method to the host and to the module.

use prost::Message;
use prost::bytes::Bytes;

use crate::context::Context;
use crate::sender::Sender;
use crate::status::Status;

/// Whether a method may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs on every replica in the order of the log; may write.
    Command,
    /// Runs on one node; cannot write. `idempotency_level = NO_SIDE_EFFECTS` in the `.proto`.
    Query,
}

/// One row of the method table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// As gRPC spells it: `/kvstore.v1.KvStore/Put`.
    pub path: &'static str,
    /// Whether it may write.
    pub kind: Kind,
    /// Whether it returns a stream of messages; only queries do.
    pub streaming: bool,
}

/// What a method that succeeded leaves for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The encoded response of a unary method.
    Message(Vec<u8>),
    /// Nothing more: the messages of a stream are with the host already.
    Streamed,
}

/// A served gRPC service. Implemented by generated code: `KvStoreServer<T>` for the service `KvStore`.
pub trait Service {
    /// Full name: `kvstore.v1.KvStore`.
    const NAME: &'static str;
    /// Position of its first method in the module's method table.
    const FIRST: u32;
    /// Its part of the method table.
    const METHODS: &'static [Method];

    /// Decodes `input`, runs the method at `position` of [`METHODS`](Self::METHODS) and encodes its response, or sends the
    /// messages of its stream.
    fn call(context: &mut Context, position: u32, input: Bytes) -> Result<Reply, Status>;
}

/// A service that the `.proto` files define: its name, and what to say if `export!` does not list it.
pub type ServiceEntry = (&'static str, &'static str);

/// Runs a unary method on encoded messages; what the arms of a generated dispatcher are. Bytes fields of the request share
/// `input`'s memory.
pub fn answer<Request, Response>(
    input: Bytes,
    method: impl FnOnce(Request) -> Result<Response, Status>,
) -> Result<Reply, Status>
where
    Request: Message + Default,
    Response: Message,
{
    let response = method(decode(input)?)?;
    let output = response.encode_to_vec();
    // The instance ends with the call; taking a large response apart would be work for nobody.
    #[cfg(target_arch = "wasm32")]
    std::mem::forget(response);
    Ok(Reply::Message(output))
}

/// Runs a streaming query on encoded messages; what the other arms of a generated dispatcher are.
pub fn stream<Request, Response>(
    input: Bytes,
    method: impl FnOnce(Request, &mut Sender<Response>) -> Result<(), Status>,
) -> Result<Reply, Status>
where
    Request: Message + Default,
    Response: Message,
{
    method(decode(input)?, &mut Sender::new())?;
    Ok(Reply::Streamed)
}

fn decode<Request: Message + Default>(input: Bytes) -> Result<Request, Status> {
    Request::decode(input).map_err(|error| undecodable(&error))
}

/// Not generic, so that a module holds it once.
#[cold]
#[inline(never)]
fn undecodable(error: &prost::DecodeError) -> Status {
    Status::invalid_argument(format!("the request does not decode: {error}"))
}

/// For a number that no method has. The host knows the method table, so only a host that is broken gets this.
#[cold]
pub fn unknown_method() -> Status {
    Status::unimplemented("no such method")
}

/// Compares the services that `export!` lists with those that the `.proto` files define; runs in the compiler.
pub const fn check(listed: &[&str], defined: &[ServiceEntry]) {
    let mut i = 0;
    while i < defined.len() {
        match count(listed, defined[i].0) {
            0 => panic!("{}", defined[i].1),
            1 => {}
            _ => panic!("export! lists a service twice"),
        }
        i += 1;
    }
    assert!(listed.len() == defined.len(), "export! lists a service that this crate's build.rs did not compile");
}

const fn count(listed: &[&str], name: &str) -> usize {
    let (mut i, mut found) = (0, 0);
    while i < listed.len() {
        if equal(listed[i].as_bytes(), name.as_bytes()) {
            found += 1;
        }
        i += 1;
    }
    found
}

/// `==` is not const.
const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFINED: &[ServiceEntry] = &[("a.A", "A is missing"), ("a.B", "B is missing")];

    #[test]
    fn every_service_once_in_any_order_is_fine() {
        check(&["a.B", "a.A"], DEFINED);
    }

    #[test]
    #[should_panic(expected = "B is missing")]
    fn a_service_left_out_is_named() {
        check(&["a.A"], DEFINED);
    }

    #[test]
    #[should_panic(expected = "twice")]
    fn a_service_listed_twice_is_refused() {
        check(&["a.A", "a.B", "a.B"], DEFINED);
    }

    #[test]
    #[should_panic(expected = "did not compile")]
    fn a_service_from_elsewhere_is_refused() {
        check(&["a.A", "a.B", "c.C"], DEFINED);
    }
}
