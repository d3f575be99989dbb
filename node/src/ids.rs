//! Names for what is easily mixed up.

use std::fmt;
use std::str::FromStr;

/// A Raft node's identity: random, made once for a data directory and kept in its `node.meta`.
///
/// An ordinal or host name is *not* an identity: a volume that was lost and made anew has the same name and an empty log,
/// and must not be taken for the member that voted before. Shown as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

/// A cluster's identity: 16 random bytes, made by the node that bootstraps it. Shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 16]);

/// The blake3 hash of a module's uncompressed wasm bytes. Shown as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleHash(pub [u8; 32]);

/// The rolling digest of everything applied so far; see `state_machine/digest.rs` for the formula.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl NodeId {
    /// A fresh identity. Zero is kept free: it means "nobody" on the wire.
    pub fn random() -> Self {
        Self(rand::random_range(1..=u64::MAX))
    }
}

impl ClusterId {
    /// A fresh identity.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl ModuleHash {
    /// The hash of `wasm`.
    pub fn of(wasm: &[u8]) -> Self {
        Self(*blake3::hash(wasm).as_bytes())
    }

    /// The first 12 hex digits: enough for a table.
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

impl Digest {
    /// The first 12 hex digits: enough for a table.
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

/// Lower-case hex digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// What `hex` wrote, read back; `None` when it is not pairs of hex digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

macro_rules! shown_as_hex {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl TryFrom<&[u8]> for $name {
            type Error = std::array::TryFromSliceError;
            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                bytes.try_into().map(Self)
            }
        }
    )*};
}
shown_as_hex!(ClusterId, ModuleHash, Digest);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_back() {
        assert_eq!(unhex(&hex(b"\x00\xffbalsa")).as_deref(), Some(&b"\x00\xffbalsa"[..]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }
}
