//! The schema of the state: every key there is, what its value is, and how it is encoded.
//!
//! A key starts with one byte that names its space; within a space, the order of the bytes is the order that its scans need.
//! Numbers are big-endian for that reason. A part of variable length that is followed by another carries its length before it.
//!
//! Everything in the table is a function of the log: two replicas that applied the same entries hold the same bytes, and
//! `state_hash` covers all of them. What belongs to one node (identity, vote, fence) is kept in files of its own, never here.
//!
//! | space  | key after the space byte                                   | value |
//! |--------|------------------------------------------------------------|-------|
//! | `0x01` | -                                                          | `Progress`: last applied, log time, digest, counters |
//! | `0x02` | -                                                          | `balsa.raft.v1.StoredMembership` |
//! | `0x03` | -                                                          | `balsa.command.v1.Limits`; absent: the defaults of apply version 1 |
//! | `0x10` | module name                                                | `balsa.command.v1.ActiveModule` |
//! | `0x11` | hash of a wasm (32), number of the part (u32)              | `MODULE_PART_BYTES_MAX` bytes of it, uncompressed; the last part has the rest |
//! | `0x12` | hash of a wasm (32)                                        | `balsa.command.v1.Uploaded`: its parts are on their way |
//! | `0x13` | module name                                                | `balsa.command.v1.Decided` |
//! | `0x14` | module name (u8 length), log index (u64)                   | `balsa.command.v1.Activation` |
//! | `0x20` | UUIDv7 (16), module (u8 length), method path               | `balsa.command.v1.Session` |
//! | `0x21` | module (u8 length), method path (u16 length), opaque key   | `balsa.command.v1.Session` |
//! | `0x22` | log time (u64), log index (u64)                            | the `0x21` key that was written then |
//! | `0x40` | module (u8 length), the module's own key                   | the module's own value |

use crate::ids::ModuleHash;

/// A key of the state, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// What changes with every batch, in one row.
    Progress,
    /// The last membership that was applied.
    Membership,
    /// The replicated limits.
    Limits,
    /// A row of the module registry.
    Module(&'a str),
    /// A part of a module's code.
    Wasm {
        /// Of the whole.
        hash: ModuleHash,
        /// From 0.
        part: u32,
    },
    /// How much of a module's code has arrived, until it is activated.
    Upload(ModuleHash),
    /// The last wish of the files about the module called so.
    Decided(&'a str),
    /// What became of a module that was wanted.
    History {
        /// Its name.
        module: &'a str,
        /// Log index of the decision.
        index: u64,
    },
    /// A command remembered under a UUIDv7: its time comes first, so that what is too old is one range.
    TimedSession {
        /// The idempotency key's 16 bytes; the first six are milliseconds since 1970.
        id: [u8; 16],
        /// Name of the module that served it.
        module: &'a str,
        /// Full method path.
        method: &'a str,
    },
    /// A command remembered under any other idempotency key.
    OpaqueSession {
        /// Name of the module that served it.
        module: &'a str,
        /// Full method path.
        method: &'a str,
        /// The idempotency key as the client wrote it.
        key: &'a [u8],
    },
    /// When an opaque session was written: the order in which they are forgotten.
    OpaqueTime {
        /// Log time then.
        time_ms: u64,
        /// Log index then; an entry writes at most one.
        index: u64,
    },
    /// A module's own data.
    State {
        /// Whose.
        module: &'a str,
        /// As the module named it.
        key: &'a [u8],
    },
}

/// A module's name is kept behind one length byte.
pub const MODULE_NAME_BYTES_MAX: usize = u8::MAX as usize;

mod space {
    pub(super) const PROGRESS: u8 = 0x01;
    pub(super) const MEMBERSHIP: u8 = 0x02;
    pub(super) const LIMITS: u8 = 0x03;
    pub(super) const MODULE: u8 = 0x10;
    pub(super) const WASM: u8 = 0x11;
    pub(super) const UPLOAD: u8 = 0x12;
    pub(super) const DECIDED: u8 = 0x13;
    pub(super) const HISTORY: u8 = 0x14;
    pub(super) const TIMED_SESSION: u8 = 0x20;
    pub(super) const OPAQUE_SESSION: u8 = 0x21;
    pub(super) const OPAQUE_TIME: u8 = 0x22;
    pub(super) const STATE: u8 = 0x40;
}

impl<'a> Key<'a> {
    /// The key's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Self::Progress => vec![space::PROGRESS],
            Self::Membership => vec![space::MEMBERSHIP],
            Self::Limits => vec![space::LIMITS],
            Self::Module(name) => join(space::MODULE, &[name.as_bytes()]),
            Self::Wasm { hash, part } => join(space::WASM, &[&hash.0, &part.to_be_bytes()]),
            Self::Upload(hash) => join(space::UPLOAD, &[&hash.0]),
            Self::Decided(name) => join(space::DECIDED, &[name.as_bytes()]),
            Self::History { module, index } => {
                join(space::HISTORY, &[&[len_u8(module)], module.as_bytes(), &index.to_be_bytes()])
            }
            Self::TimedSession { id, module, method } => {
                join(space::TIMED_SESSION, &[&id, &[len_u8(module)], module.as_bytes(), method.as_bytes()])
            }
            Self::OpaqueSession { module, method, key } => {
                let parts = [&[len_u8(module)], module.as_bytes(), &len_u16(method), method.as_bytes(), key];
                join(space::OPAQUE_SESSION, &parts)
            }
            Self::OpaqueTime { time_ms, index } => {
                join(space::OPAQUE_TIME, &[&time_ms.to_be_bytes(), &index.to_be_bytes()])
            }
            Self::State { module, key } => join(space::STATE, &[&[len_u8(module)], module.as_bytes(), key]),
        }
    }

    /// The key with these bytes; `None` if no version of this schema wrote them.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&first, rest) = bytes.split_first()?;
        match first {
            space::PROGRESS => rest.is_empty().then_some(Self::Progress),
            space::MEMBERSHIP => rest.is_empty().then_some(Self::Membership),
            space::LIMITS => rest.is_empty().then_some(Self::Limits),
            space::MODULE => text(rest).map(Self::Module),
            space::WASM => {
                let (hash, part) = rest.split_first_chunk()?;
                Some(Self::Wasm { hash: ModuleHash(*hash), part: u32::from_be_bytes(part.try_into().ok()?) })
            }
            space::UPLOAD => Some(Self::Upload(ModuleHash(rest.try_into().ok()?))),
            space::DECIDED => text(rest).map(Self::Decided),
            space::HISTORY => {
                let (module, index) = split_u8(rest)?;
                Some(Self::History { module: text(module)?, index: u64::from_be_bytes(index.try_into().ok()?) })
            }
            space::TIMED_SESSION => {
                let (id, rest) = rest.split_first_chunk()?;
                let (module, method) = split_u8(rest)?;
                Some(Self::TimedSession { id: *id, module: text(module)?, method: text(method)? })
            }
            space::OPAQUE_SESSION => {
                let (module, rest) = split_u8(rest)?;
                let (len, rest) = rest.split_first_chunk()?;
                let (method, key) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
                Some(Self::OpaqueSession { module: text(module)?, method: text(method)?, key })
            }
            space::OPAQUE_TIME => {
                let (time, index) = rest.split_first_chunk()?;
                let index = index.try_into().ok()?;
                Some(Self::OpaqueTime { time_ms: u64::from_be_bytes(*time), index: u64::from_be_bytes(index) })
            }
            space::STATE => {
                let (module, key) = split_u8(rest)?;
                Some(Self::State { module: text(module)?, key })
            }
            _ => None,
        }
    }
}

/// Where the registry's rows lie: start and end (not included).
pub fn modules() -> (Vec<u8>, Vec<u8>) {
    (vec![space::MODULE], vec![space::MODULE + 1])
}

/// Where uploads that are under way lie: start and end (not included).
pub fn uploads() -> (Vec<u8>, Vec<u8>) {
    (vec![space::UPLOAD], vec![space::UPLOAD + 1])
}

/// Where decisions about the files' wishes lie: start and end (not included).
pub fn decided() -> (Vec<u8>, Vec<u8>) {
    (vec![space::DECIDED], vec![space::DECIDED + 1])
}

/// Where the history of `module`, or of all modules, lies: start and end (not included).
pub fn history(module: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    let start = match module {
        None => vec![space::HISTORY],
        Some(module) => join(space::HISTORY, &[&[len_u8(module)], module.as_bytes()]),
    };
    let end = after_prefix(&start).expect("the space's own byte is below 0xff");
    (start, end)
}

/// What a module's own keys start with.
pub fn state_prefix(module: &str) -> Vec<u8> {
    Key::State { module, key: b"" }.encode()
}

/// Where sessions under a UUIDv7 older than `time_ms` lie: start and end (not included).
pub fn timed_sessions_before(time_ms: u64) -> (Vec<u8>, Vec<u8>) {
    // A UUIDv7 has 48 bits of time: nothing it can say is later than that.
    let end = match time_ms < 1 << 48 {
        true => join(space::TIMED_SESSION, &[&time_ms.to_be_bytes()[2..]]),
        false => vec![space::TIMED_SESSION + 1],
    };
    (vec![space::TIMED_SESSION], end)
}

/// Where the times of opaque sessions written before `time_ms` lie: start and end (not included).
pub fn opaque_times_before(time_ms: u64) -> (Vec<u8>, Vec<u8>) {
    (vec![space::OPAQUE_TIME], join(space::OPAQUE_TIME, &[&time_ms.to_be_bytes()]))
}

/// The smallest key above every key that starts with `prefix`; `None` if there is no such key.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn join(space: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(space);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn len_u8(name: &str) -> u8 {
    u8::try_from(name.len()).expect("activation refuses module names above MODULE_NAME_BYTES_MAX")
}

fn len_u16(method: &str) -> [u8; 2] {
    u16::try_from(method.len()).expect("a resolved method path is within METHOD_BYTES_MAX").to_be_bytes()
}

fn split_u8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(len.into())
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(time_ms: u64, tail: [u8; 10]) -> [u8; 16] {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&tail);
        id
    }

    proptest! {
        #[test]
        fn a_key_is_read_back(
            hash: [u8; 32], id: [u8; 16], module in ".{1,40}", method in ".{0,40}", key: Vec<u8>, time_ms: u64, index: u64,
        ) {
            let hash = ModuleHash(hash);
            for original in [
                Key::Progress,
                Key::Membership,
                Key::Limits,
                Key::Module(&module),
                Key::Wasm { hash, part: index as u32 },
                Key::Upload(hash),
                Key::Decided(&module),
                Key::History { module: &module, index },
                Key::TimedSession { id, module: &module, method: &method },
                Key::OpaqueSession { module: &module, method: &method, key: &key },
                Key::OpaqueTime { time_ms, index },
                Key::State { module: &module, key: &key },
            ] {
                let bytes = original.encode();
                prop_assert_eq!(Key::decode(&bytes), Some(original));
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            if let Some(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }

        #[test]
        fn different_keys_have_different_bytes(
            a in ("[ab/]{1,3}", "[ab/]{0,3}", "[ab/]{0,3}"), b in ("[ab/]{1,3}", "[ab/]{0,3}", "[ab/]{0,3}"),
        ) {
            let encode = |(module, method, key): &(String, String, String)| {
                Key::OpaqueSession { module, method, key: key.as_bytes() }.encode()
            };
            prop_assert_eq!(a == b, encode(&a) == encode(&b));
        }

        #[test]
        fn a_modules_keys_keep_their_order_and_stay_among_themselves(a: Vec<u8>, b: Vec<u8>, other in "[a-z]{1,4}") {
            let of = |module, key| Key::State { module, key }.encode();
            prop_assert_eq!(of("kv", &a).cmp(&of("kv", &b)), a.cmp(&b));
            let (start, end) = (state_prefix("kv"), after_prefix(&state_prefix("kv")).unwrap());
            let inside = |key: Vec<u8>| start <= key && key < end;
            prop_assert!(inside(of("kv", &a)));
            prop_assert_eq!(inside(of(&other, &a)), other == "kv");
        }

        #[test]
        fn timed_sessions_are_in_order_of_time(at in 0u64..1 << 48, tail: [u8; 10], cut in 0u64..1 << 49) {
            let key = Key::TimedSession { id: id(at, tail), module: "kv", method: "/a/B" }.encode();
            let (start, end) = timed_sessions_before(cut);
            prop_assert_eq!(start <= key && key < end, at < cut);
        }

        #[test]
        fn opaque_times_are_in_order_of_time(time_ms: u64, index: u64, cut: u64) {
            let key = Key::OpaqueTime { time_ms, index }.encode();
            let (start, end) = opaque_times_before(cut);
            prop_assert_eq!(start <= key && key < end, time_ms < cut);
        }

        #[test]
        fn after_prefix_is_a_tight_bound(prefix: Vec<u8>, tail: Vec<u8>) {
            let longer = [prefix.clone(), tail].concat();
            match after_prefix(&prefix) {
                Some(end) => prop_assert!(longer < end && !end.starts_with(&prefix)),
                None => prop_assert!(prefix.iter().all(|byte| *byte == u8::MAX)),
            }
        }
    }
}
