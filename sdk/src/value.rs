//! What an [`Item`](crate::Item) or a [`Map`](crate::Map) stores: protobuf messages, and messages with a version in them.
//!
//! A protobuf message takes new fields by itself, so most changes of a stored value need nothing. For those that do (a field
//! that changes its meaning, a value that is split) there are two ways: `migrate`, which runs once when a new module takes
//! over and must be done within its limits, and [`Versioned`], which changes each value when it is next read. The second has
//! no limit: what is never read is never changed.
//!
//! The version travels as a field of the message, with a number that protobuf keeps for such uses and that no `.proto` can
//! use: [`VERSION_FIELD`]. So a versioned value is still a message of its type to every reader, and one that was stored
//! before anybody thought of versions has version 0.

use std::ops::{Deref, DerefMut};

use prost::Message;
use prost::bytes::{Buf, Bytes};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use crate::status::Status;

/// What can be stored: any protobuf message that prost makes (and what prost takes for one: `u64`, `i64`, `u32`, `i32`,
/// `bool`, `f32`, `f64`, `String`, `Vec<u8>`, `Bytes`, `()`), and [`Versioned`] ones.
pub trait Value: Sized {
    /// The bytes to store.
    fn to_stored(&self) -> Vec<u8>;

    /// What stored bytes mean; an error if nothing.
    fn from_stored(stored: Bytes) -> Result<Self, Status>;
}

impl<M: Message + Default> Value for M {
    fn to_stored(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn from_stored(stored: Bytes) -> Result<Self, Status> {
        M::decode(stored).map_err(|error| undecodable(&error))
    }
}

/// Not generic, so that a module holds it once.
#[cold]
#[inline(never)]
fn undecodable(error: &prost::DecodeError) -> Status {
    Status::data_loss(format!("the stored value does not decode: {error}"))
}

/// A message that knows how to read what older versions of the module stored in its place.
///
/// ```
/// use balsa_sdk::prost::{self, Message};
/// use balsa_sdk::{Bytes, Map, Status, Upgrade, Value, Versioned};
///
/// /// What version 0 of the module stored.
/// #[derive(Clone, PartialEq, Message)]
/// struct OldLease {
///     #[prost(uint64, tag = "1")]
///     expires_s: u64,
/// }
///
/// #[derive(Clone, PartialEq, Message)]
/// struct Lease {
///     #[prost(uint64, tag = "1")]
///     expires_ms: u64,
/// }
///
/// impl Upgrade for Lease {
///     const VERSION: u32 = 1;
///
///     fn upgrade(version: u32, stored: Bytes) -> Result<Self, Status> {
///         match version {
///             0 => {
///                 let old = OldLease::from_stored(stored)?;
///                 Ok(Self { expires_ms: old.expires_s * 1000 })
///             }
///             _ => Err(Status::data_loss(format!("there never was a version {version}"))),
///         }
///     }
/// }
///
/// // It was a Map<String, OldLease> before.
/// const LEASES: Map<String, Versioned<Lease>> = Map::new("leases");
///
/// let mut host = balsa_sdk::testing::Host::new();
/// host.change(|ctx| Map::<String, OldLease>::new("leases").insert(ctx, "a", &OldLease { expires_s: 7 })).unwrap();
/// let lease = host.read(|ctx| LEASES.get(ctx, "a")).unwrap().unwrap();
/// assert_eq!(lease.expires_ms, 7000);
/// ```
pub trait Upgrade: Message + Default {
    /// The version that is stored now, from 1. Add one whenever the meaning of what is stored changes.
    const VERSION: u32;

    /// Makes of what was stored with an older version (0: before there were versions) what it means now.
    fn upgrade(version: u32, stored: Bytes) -> Result<Self, Status>;
}

/// A value that is stored with its version, and read whatever its version is. See [`Upgrade`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Versioned<T>(pub T);

/// Number of the field that holds the version. Protobuf compilers refuse it in a `.proto`: 19000 to 19999 are reserved.
pub const VERSION_FIELD: u32 = 19_000;

/// The field's tag as it is encoded, with wire type 0 (a varint). It stands in front of all other fields.
const VERSION_TAG: [u8; 3] = {
    let tag = VERSION_FIELD << 3;
    [tag as u8 | 0x80, (tag >> 7) as u8 | 0x80, (tag >> 14) as u8]
};

impl<T: Upgrade> Value for Versioned<T> {
    fn to_stored(&self) -> Vec<u8> {
        let version = u64::from(T::VERSION);
        let len = VERSION_TAG.len() + encoded_len_varint(version) + self.0.encoded_len();
        let mut stored = Vec::with_capacity(len);
        stored.extend_from_slice(&VERSION_TAG);
        encode_varint(version, &mut stored);
        self.0.encode(&mut stored).expect("a Vec takes everything");
        stored
    }

    fn from_stored(mut stored: Bytes) -> Result<Self, Status> {
        match take_version(&mut stored)? {
            now if now == u64::from(T::VERSION) => T::from_stored(stored).map(Self),
            old if old < u64::from(T::VERSION) => T::upgrade(old as u32, stored).map(Self),
            newer => Err(from_the_future(newer, T::VERSION)),
        }
    }
}

/// Takes the version from the front of a stored value; 0 if there is none.
pub(crate) fn take_version(stored: &mut Bytes) -> Result<u64, Status> {
    if !stored.starts_with(&VERSION_TAG) {
        return Ok(0);
    }
    stored.advance(VERSION_TAG.len());
    decode_varint(stored).map_err(|error| undecodable(&error))
}

#[cold]
#[inline(never)]
fn from_the_future(found: u64, known: u32) -> Status {
    Status::failed_precondition(format!(
        "the stored value has version {found}, and this module reads up to {known}: a newer module wrote it"
    ))
}

impl<T> Deref for Versioned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Versioned<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Versioned<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;

    use super::*;
    use crate::status::Code;

    #[derive(Clone, PartialEq, Message)]
    struct Price {
        #[prost(uint64, tag = "1")]
        cents: u64,
    }

    impl Upgrade for Price {
        const VERSION: u32 = 200;

        fn upgrade(version: u32, stored: Bytes) -> Result<Self, Status> {
            let old = Self::from_stored(stored)?;
            Ok(Self { cents: if version == 0 { old.cents * 100 } else { old.cents } })
        }
    }

    fn with_version(version: u64, cents: u64) -> Bytes {
        let mut stored = VERSION_TAG.to_vec();
        encode_varint(version, &mut stored);
        stored.extend(Price { cents }.encode_to_vec());
        stored.into()
    }

    #[test]
    fn a_versioned_value_is_still_a_message_of_its_type() {
        let stored = Versioned(Price { cents: 5 }).to_stored();
        assert_eq!(stored, with_version(200, 5));
        assert_eq!(Price::decode(stored.as_slice()).unwrap(), Price { cents: 5 });
        assert_eq!(Versioned::<Price>::from_stored(stored.into()), Ok(Versioned(Price { cents: 5 })));
    }

    #[test]
    fn the_tag_is_what_prost_writes_for_that_field() {
        let mut tag = Vec::new();
        prost::encoding::encode_key(VERSION_FIELD, prost::encoding::WireType::Varint, &mut tag);
        assert_eq!(tag, VERSION_TAG);
    }

    #[test]
    fn a_value_from_before_versions_has_version_0() {
        let stored = Price { cents: 5 }.to_stored();
        assert_eq!(Versioned::<Price>::from_stored(stored.into()).unwrap().cents, 500);
        assert_eq!(Versioned::<Price>::from_stored(with_version(3, 5)).unwrap().cents, 5);
    }

    #[test]
    fn a_value_of_a_newer_module_is_refused() {
        let error = Versioned::<Price>::from_stored(with_version(201, 5)).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.message().contains("version 201") && error.message().contains("up to 200"), "{error}");
        let error = Versioned::<Price>::from_stored(with_version(u64::MAX, 5)).unwrap_err();
        assert!(error.message().contains(&u64::MAX.to_string()) && error.message().contains("up to 200"), "{error}");
        assert!(Versioned::<Price>::from_stored(VERSION_TAG.to_vec().into()).is_err());
    }
}
