//! Modules that were built once and must go on working: `node/tests/fixtures/abi-1`.
//!
//! Results and fuel are pinned to the unit. A number that changes here is another meaning of entries that are in logs already:
//! it needs a new `APPLY_VERSION`, and these modules still have to give what they gave.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;

use super::fixture::{Rows, context, load, map, rows_of};
use crate::command::Outcome;
use crate::proto::kvstore::*;
use crate::wasm::{Call, Finished, Module, State, Transition};

const TINY: &[u8] = include_bytes!("../../../tests/fixtures/abi-1/tiny.wasm");
const KVSTORE: &[u8] = include_bytes!("../../../tests/fixtures/abi-1/kvstore.wasm");
const MEMORY_BYTES: u64 = 16 * 1024 * 1024;
const FUEL: u64 = 50_000_000;

/// A module and its state, from call to call.
struct Running {
    module: Module,
    rows: Rows,
}

impl Running {
    fn new(wasm: &[u8]) -> Self {
        Self { module: load(wasm), rows: Rows::new() }
    }

    fn call<'a>(module: &'a Module, path: &str, input: &[u8]) -> Call<'a> {
        let method = module.method(path).expect("it has always had this method");
        let input = Bytes::copy_from_slice(input);
        Call { method, input, context: context(), fuel: FUEL, memory_bytes: MEMORY_BYTES, deadline: None }
    }

    /// The outcome and the fuel; what was written stays if all went well.
    fn run(&mut self, path: &str, input: &[u8]) -> Finished {
        let call = Self::call(&self.module, path, input);
        let finished = self.module.call(call, self.state()).unwrap();
        self.keep(finished)
    }

    fn transition(&mut self, from: Option<&str>) -> Finished {
        let (writes_max, bytes_max, from) = (1_000, 1_000_000, from.map(Into::into));
        let (fuel, memory_bytes) = (FUEL, MEMORY_BYTES);
        let transition = Transition { from, context: context(), fuel, memory_bytes, writes_max, bytes_max };
        let finished = self.module.transition(transition, self.state()).unwrap();
        self.keep(finished)
    }

    fn stream(&self, path: &str, input: &[u8]) -> (Vec<Bytes>, Finished) {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let taken = sent.clone();
        let sink = move |message| {
            taken.lock().push(message);
            ControlFlow::Continue(())
        };
        let call = Self::call(&self.module, path, input);
        let finished = self.module.stream(call, self.state(), Box::new(sink)).unwrap();
        let sent = std::mem::take(&mut *sent.lock());
        (sent, finished)
    }

    fn state(&self) -> Box<dyn State> {
        map(self.rows.clone())
    }

    fn keep(&mut self, mut finished: Finished) -> Finished {
        let state = std::mem::replace(&mut finished.state, map(Rows::new()));
        if matches!(finished.outcome, Outcome::Ok(_)) {
            self.rows = rows_of(state);
        }
        finished
    }
}

/// Outcome and fuel, on a line.
fn line(finished: &Finished) -> String {
    let outcome = match &finished.outcome {
        Outcome::Ok(output) => format!("ok \"{}\"", output.escape_ascii()),
        Outcome::Status(status) => format!("status {} {:?}", status.code, status.message),
        Outcome::Trap(class) => format!("trap {}", class.name()),
        Outcome::Refused(refusal) => format!("{refusal:?}"),
    };
    format!("{outcome}, {} fuel, {} writes of {} bytes", finished.fuel_used, finished.writes, finished.written_bytes)
}

#[test]
fn the_tiny_module_does_what_it_always_did() {
    let mut tiny = Running::new(TINY);
    let mut lines = Vec::new();
    lines.push(format!("init: {}", line(&tiny.transition(None))));
    for input in ["one", "", "long enough to be read again", "three"] {
        let finished = tiny.run("/test.v1.Test/Do", input.as_bytes());
        lines.push(format!("do {input:?}: {}", line(&finished)));
        lines.extend(finished.logs.iter().map(|said| format!("  {} {}", said.level, said.text)));
    }
    let panicked = tiny.run("/test.v1.Test/Do", &[b'x'; 65]);
    lines.push(format!("do 65 bytes: {} ({})", line(&panicked), panicked.detail().lines().next().unwrap()));
    lines.push(format!("ask: {}", line(&tiny.run("/test.v1.Test/Ask", b""))));
    let (sent, finished) = tiny.stream("/test.v1.Test/Watch", b"abc");
    lines.push(format!("watch: {sent:?} {}", line(&finished)));
    lines.push(format!("migrate: {}", line(&tiny.transition(Some("1.0.0")))));
    lines.extend(tiny.rows.iter().map(|(key, value)| format!("{} = {}", key.escape_ascii(), value.escape_ascii())));
    insta::assert_snapshot!(lines.join("\n"), @r#"
    init: ok "", 2149 fuel, 1 writes of 12 bytes
    do "one": ok "", 3903 fuel, 1 writes of 7 bytes
      3 one
    do "": status 9 "", 43 fuel, 0 writes of 0 bytes
    do "long enough to be read again": ok "one", 4007 fuel, 1 writes of 32 bytes
      3 long enough to be read again
    do "three": ok "long enough to be read again", 4097 fuel, 1 writes of 9 bytes
      3 three
    do 65 bytes: trap unreachable, 546 fuel, 0 writes of 0 bytes (no room)
    ask: ok "\x07\x00\x00\x00\x00\x00\x00\x00{h\xe5\xcf\x8b\x01\x00\x00\xc0\xd4~=\xfe\x9c\x97\x17\x1b{\xd1d\x02\x00\x00\x00\x00\x04\x00\x00\x00init\x08\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00last\x05\x00\x00\x00three", 3168 fuel, 0 writes of 0 bytes
    watch: [b"a", b"b", b"c"] ok "", 803 fuel, 0 writes of 0 bytes
    migrate: ok "", 4160 fuel, 2 writes of 13 bytes
    from = 1.0.0
    init = \x07\x00\x00\x00\x00\x00\x00\x00
    "#);
}

#[test]
fn the_kvstore_does_what_it_always_did() {
    let mut kvstore = Running::new(KVSTORE);
    let mut lines = Vec::new();
    let mut run = |method: &str, request: Vec<u8>| {
        let finished = kvstore.run(&format!("/kvstore.v1.KvStore/{method}"), &request);
        lines.push(format!("{method}: {}", line(&finished)));
    };
    let put = |key: &'static str, value: &'static str| PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    run("Put", put("a", "1").encode_to_vec());
    run("Put", put("b", "2").encode_to_vec());
    run("Put", put("a", "3").encode_to_vec());
    run("Put", put("", "no key").encode_to_vec());
    run("Put", vec![0xff]);
    run("Get", GetRequest { key: "a".into() }.encode_to_vec());
    run("Get", GetRequest { key: "c".into() }.encode_to_vec());
    run("List", ListRequest::default().encode_to_vec());
    run("Delete", DeleteRequest { key: "b".into(), ..Default::default() }.encode_to_vec());
    run("Count", CountRequest::default().encode_to_vec());
    insta::assert_snapshot!(lines.join("\n"), @r#"
    Put: ok "\x08\x01\x10\x01\x18\x07 \x07", 7592 fuel, 1 writes of 7 bytes
    Put: ok "\x08\x01\x10\x01\x18\x07 \x07", 7592 fuel, 1 writes of 7 bytes
    Put: ok "\x08\x01\x10\x02\x18\x07 \x07", 7878 fuel, 1 writes of 7 bytes
    Put: status 3 "key is empty", 2273 fuel, 0 writes of 0 bytes
    Put: status 3 "the request does not decode: failed to decode Protobuf message: invalid varint", 3007 fuel, 0 writes of 0 bytes
    Get: ok "\n\x0c\n\x01a\x12\x013\x18\x02 \x07(\x07", 5496 fuel, 0 writes of 0 bytes
    Get: ok "", 3043 fuel, 0 writes of 0 bytes
    List: ok "\n\x0c\n\x01a\x12\x013\x18\x02 \x07(\x07\n\x0c\n\x01b\x12\x012\x18\x01 \x07(\x07", 11589 fuel, 0 writes of 0 bytes
    Delete: ok "\x08\x01", 4217 fuel, 1 writes of 2 bytes
    Count: ok "\x08\x01", 5841 fuel, 0 writes of 0 bytes
    "#);
}
