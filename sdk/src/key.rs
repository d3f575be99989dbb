//! Keys whose bytes sort as they do.
//!
//! The state is ordered by the bytes of its keys, so a typed key is written such that comparing bytes is comparing keys: then
//! a range of keys is a range of bytes, and the host never has to know what they mean. A tuple is its parts one after the
//! other, which works because every part says where it ends. A key of a [`Map`](crate::Map) is, after the map's prefix:
//!
//! | part | bytes |
//! |---|---|
//! | `u8` to `u128` | 1 to 16 bytes, the most significant first |
//! | `i8` to `i128` | the same, with the sign bit turned over, so that negative numbers come first |
//! | `bool` | one byte, 0 or 1 |
//! | `String`, `Vec<u8>`, `Bytes` | the bytes, with `00` written as `01 01` and `01` as `01 02`, and `00` behind the last one |
//! | `[u8; N]` | the N bytes |
//! | a tuple | its parts in their order |
//!
//! So `("ab", 7_u16)` is `61 62 00 00 07`. Text without the characters 0 and 1 is stored as a C string is.
//!
//! A type of the author's own is a [`Key`] as soon as it says how it is written ([`AsKey`]) and read, best by way of a tuple:
//!
//! ```
//! use balsa_sdk::{AsKey, Key};
//!
//! #[derive(Debug, PartialEq)]
//! struct Due { at_ms: u64, job: String }
//!
//! impl AsKey<Due> for Due {
//!     fn write(&self, key: &mut Vec<u8>) {
//!         AsKey::<(u64, String)>::write(&(self.at_ms, self.job.as_str()), key);
//!     }
//! }
//!
//! impl Key for Due {
//!     fn read(key: &mut &[u8]) -> Option<Self> {
//!         <(u64, String)>::read(key).map(|(at_ms, job)| Self { at_ms, job })
//!     }
//! }
//! ```

use prost::bytes::Bytes;

/// Behind the last byte of a text: less than all that it can be followed by.
const END: u8 = 0;
/// In front of a byte that would look like [`END`] or like this one.
const ESCAPE: u8 = 1;

/// What a [`Map`](crate::Map) can have as its keys: numbers, `bool`, `String`, `Vec<u8>`, `Bytes`, byte arrays, and tuples of
/// up to six of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a balsa Map",
    note = "keys are integers, bool, String, Vec<u8>, Bytes, [u8; N], tuples of them, or what implements balsa_sdk::Key"
)]
pub trait Key: AsKey<Self> + Sized {
    /// Reads a key from the front of `key` and leaves what is behind it; `None` if there is no such key.
    fn read(key: &mut &[u8]) -> Option<Self>;
}

/// What is written as a key of type `K` is: `K` itself, and what it can be borrowed as. So a map with keys `(String, u64)` is
/// asked for `("alice", 7)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not written as a key of type `{K}`",
    note = "a key may be given as itself or as what it borrows as: &str for String, &[u8] for Vec<u8> and Bytes, tuples of them"
)]
pub trait AsKey<K> {
    /// Appends the bytes of the key.
    fn write(&self, key: &mut Vec<u8>);
}

/// What all keys of some part of a map begin with: the first parts of a tuple, as a tuple (`("alice",)`), the last of which
/// may be the [`Start`] of a text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what keys of type `{K}` begin with",
    note = "a prefix of keys (A, B, C) is a tuple (a,) or (a, b); of text it is Start(\"..\"), which may also end such a tuple"
)]
pub trait Prefix<K> {
    /// Appends the bytes that such keys begin with.
    fn write_prefix(&self, key: &mut Vec<u8>);
}

/// Texts and bytes that begin with these: `map.prefix(ctx, &Start("user/"))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start<T>(pub T);

/// The last part of a prefix: a whole part of a key, or the start of one.
#[doc(hidden)]
pub trait AsPart<K> {
    fn write_part(&self, key: &mut Vec<u8>);
}

impl<K, Q: AsKey<K>> AsPart<K> for Q {
    fn write_part(&self, key: &mut Vec<u8>) {
        self.write(key);
    }
}

impl<K, Q: AsKey<K> + ?Sized> AsKey<K> for &Q {
    fn write(&self, key: &mut Vec<u8>) {
        (**self).write(key);
    }
}

macro_rules! unsigned {
    ($($number:ty),+) => {$(
        impl AsKey<$number> for $number {
            fn write(&self, key: &mut Vec<u8>) {
                key.extend_from_slice(&self.to_be_bytes());
            }
        }

        impl Key for $number {
            fn read(key: &mut &[u8]) -> Option<Self> {
                take(key).map(<$number>::from_be_bytes)
            }
        }
    )+};
}

macro_rules! signed {
    ($($number:ty as $bits:ty),+) => {$(
        impl AsKey<$number> for $number {
            fn write(&self, key: &mut Vec<u8>) {
                AsKey::<$bits>::write(&(*self as $bits ^ (1 << (<$bits>::BITS - 1))), key);
            }
        }

        impl Key for $number {
            fn read(key: &mut &[u8]) -> Option<Self> {
                <$bits>::read(key).map(|bits| (bits ^ (1 << (<$bits>::BITS - 1))) as $number)
            }
        }
    )+};
}

unsigned!(u8, u16, u32, u64, u128);
signed!(i8 as u8, i16 as u16, i32 as u32, i64 as u64, i128 as u128);

impl AsKey<bool> for bool {
    fn write(&self, key: &mut Vec<u8>) {
        key.push((*self).into());
    }
}

impl Key for bool {
    fn read(key: &mut &[u8]) -> Option<Self> {
        match u8::read(key)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<const N: usize> AsKey<[u8; N]> for [u8; N] {
    fn write(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(self);
    }
}

impl<const N: usize> Key for [u8; N] {
    fn read(key: &mut &[u8]) -> Option<Self> {
        take(key)
    }
}

/// Text and bytes: what they are borrowed as is written in the same way, and so is the start of it.
macro_rules! text {
    ($key:ty, $read:expr; $($borrowed:ty),+) => {
        impl Key for $key {
            fn read(key: &mut &[u8]) -> Option<Self> {
                read_text(key).and_then($read)
            }
        }

        $(
            impl AsKey<$key> for $borrowed {
                fn write(&self, key: &mut Vec<u8>) {
                    write_text(self.as_ref(), key);
                    key.push(END);
                }
            }
        )+

        impl<T: AsRef<[u8]>> Prefix<$key> for Start<T> {
            fn write_prefix(&self, key: &mut Vec<u8>) {
                write_text(self.0.as_ref(), key);
            }
        }

        impl<T: AsRef<[u8]>> AsPart<$key> for Start<T> {
            fn write_part(&self, key: &mut Vec<u8>) {
                write_text(self.0.as_ref(), key);
            }
        }
    };
}

text!(String, |bytes| String::from_utf8(bytes).ok(); String, str);
text!(Vec<u8>, Some; Vec<u8>, [u8], Bytes);
text!(Bytes, |bytes| Some(bytes.into()); Bytes, [u8], Vec<u8>);

impl<const N: usize> AsKey<Vec<u8>> for [u8; N] {
    fn write(&self, key: &mut Vec<u8>) {
        AsKey::<Vec<u8>>::write(self.as_slice(), key);
    }
}

impl<const N: usize> AsKey<Bytes> for [u8; N] {
    fn write(&self, key: &mut Vec<u8>) {
        AsKey::<Bytes>::write(self.as_slice(), key);
    }
}

fn write_text(text: &[u8], key: &mut Vec<u8>) {
    key.reserve(text.len() + 1);
    for byte in text {
        if *byte <= ESCAPE {
            key.push(ESCAPE);
        }
        key.push(if *byte <= ESCAPE { byte + 1 } else { *byte });
    }
}

/// What [`write_text`] and an [`END`] wrote, and only that: no two spellings mean the same key.
fn read_text(key: &mut &[u8]) -> Option<Vec<u8>> {
    let end = key.iter().position(|byte| *byte == END)?;
    let (mut written, rest) = (&key[..end], &key[end + 1..]);
    let mut text = Vec::with_capacity(written.len());
    while let Some(byte) = take_byte(&mut written) {
        text.push(match byte {
            ESCAPE => take_byte(&mut written).filter(|byte| matches!(byte, 1 | 2))? - 1,
            byte => byte,
        });
    }
    *key = rest;
    Some(text)
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    take(bytes).map(|[byte]| byte)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

macro_rules! tuple {
    ($($key:ident $query:ident $part:tt),+) => {
        impl<$($key,)+ $($query: AsKey<$key>),+> AsKey<($($key,)+)> for ($($query,)+) {
            fn write(&self, key: &mut Vec<u8>) {
                $(self.$part.write(key);)+
            }
        }

        impl<$($key: Key),+> Key for ($($key,)+) {
            fn read(key: &mut &[u8]) -> Option<Self> {
                Some(($($key::read(key)?,)+))
            }
        }
    };
}

tuple!(A QA 0);
tuple!(A QA 0, B QB 1);
tuple!(A QA 0, B QB 1, C QC 2);
tuple!(A QA 0, B QB 1, C QC 2, D QD 3);
tuple!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4);
tuple!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4, F QF 5);

/// `whole` parts of the key, then one that may be the start of a part, then what the prefix leaves open.
macro_rules! prefix {
    ($($key:ident $query:ident $part:tt),* ; $last:ident $start:ident $position:tt ; $($open:ident),*) => {
        impl<$($key,)* $last, $($open,)* $($query: AsKey<$key>,)* $start: AsPart<$last>>
            Prefix<($($key,)* $last, $($open,)*)> for ($($query,)* $start,)
        {
            fn write_prefix(&self, key: &mut Vec<u8>) {
                $(self.$part.write(key);)*
                self.$position.write_part(key);
            }
        }
    };
}

prefix!(; A P 0; );
prefix!(; A P 0; B);
prefix!(; A P 0; B, C);
prefix!(; A P 0; B, C, D);
prefix!(; A P 0; B, C, D, E);
prefix!(; A P 0; B, C, D, E, F);
prefix!(A QA 0; B P 1; );
prefix!(A QA 0; B P 1; C);
prefix!(A QA 0; B P 1; C, D);
prefix!(A QA 0; B P 1; C, D, E);
prefix!(A QA 0; B P 1; C, D, E, F);
prefix!(A QA 0, B QB 1; C P 2; );
prefix!(A QA 0, B QB 1; C P 2; D);
prefix!(A QA 0, B QB 1; C P 2; D, E);
prefix!(A QA 0, B QB 1; C P 2; D, E, F);
prefix!(A QA 0, B QB 1, C QC 2; D P 3; );
prefix!(A QA 0, B QB 1, C QC 2; D P 3; E);
prefix!(A QA 0, B QB 1, C QC 2; D P 3; E, F);
prefix!(A QA 0, B QB 1, C QC 2, D QD 3; E P 4; );
prefix!(A QA 0, B QB 1, C QC 2, D QD 3; E P 4; F);
prefix!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4; F P 5; );

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    fn written<K>(key: &(impl AsKey<K> + ?Sized)) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.write(&mut bytes);
        bytes
    }

    fn begun<K>(prefix: &impl Prefix<K>) -> Vec<u8> {
        let mut bytes = Vec::new();
        prefix.write_prefix(&mut bytes);
        bytes
    }

    /// Bytes sort as keys do, and each key is read back, with what is behind it left alone.
    fn check<K: Key + Ord + Debug>(a: &K, b: &K) {
        let (bytes_a, bytes_b) = (written::<K>(a), written::<K>(b));
        assert_eq!(bytes_a.cmp(&bytes_b), a.cmp(b), "{a:?} {b:?}");
        let followed = [bytes_a.as_slice(), &bytes_b].concat();
        let mut rest = followed.as_slice();
        assert_eq!(K::read(&mut rest).as_ref(), Some(a));
        assert_eq!(rest, bytes_b);
    }

    /// Text in which the bytes that matter are frequent.
    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!['\0', '\u{1}', '\u{2}', 'a', 'b', 'ÿ', '\u{10ffff}']), 0..6)
            .prop_map(|chars| chars.into_iter().collect())
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0, 1, 2, 3, 0x7f, 0xfe, 0xff]), 0..6)
    }

    proptest! {
        #[test]
        fn numbers_sort_as_numbers(a in any::<(u8, u16, u32, u64)>(), b in any::<(u8, u16, u32, u64)>()) {
            check(&a, &b);
            check(&(a.0 % 2, a.1 % 2, a.2 % 2, a.3), &(b.0 % 2, b.1 % 2, b.2 % 2, b.3));
        }

        #[test]
        fn negative_numbers_come_first(a in any::<(i8, i16, i32, i64)>(), b in any::<(i8, i16, i32, i64)>()) {
            check(&a, &b);
            check(&a.3, &b.3);
        }

        #[test]
        fn wide_numbers_sort_too(a in any::<(u128, i128)>(), b in any::<(u128, i128)>()) {
            check(&a.0, &b.0);
            check(&a.1, &b.1);
        }

        #[test]
        fn texts_sort_by_their_bytes(a in text(), b in text()) {
            check(&a, &b);
        }

        #[test]
        fn tuples_sort_by_their_parts(
            a in (text(), bytes(), any::<bool>(), any::<[u8; 2]>(), any::<i64>(), text()),
            b in (text(), bytes(), any::<bool>(), any::<[u8; 2]>(), any::<i64>(), text()),
        ) {
            check(&a, &b);
            check(&(a.0.clone(), a.4), &(a.0.clone(), b.4));
            check(&(a.1.clone(), a.0.clone()), &(b.1.clone(), b.0.clone()));
            check(&(Bytes::from(a.1.clone()), a.2, a.3), &(Bytes::from(b.1.clone()), b.2, b.3));
            check(&((a.0, a.1), a.5), &((b.0, b.1), b.5));
        }

        #[test]
        fn a_key_begins_with_its_prefixes_and_no_other(a in (text(), bytes(), any::<u16>()), b in (text(), bytes())) {
            let key = written::<(String, Vec<u8>, u16)>(&a);
            prop_assert_eq!(key.starts_with(&begun::<(String, Vec<u8>, u16)>(&(b.0.as_str(),))), a.0 == b.0);
            let both = begun::<(String, Vec<u8>, u16)>(&(b.0.as_str(), &b.1));
            prop_assert_eq!(key.starts_with(&both), a.0 == b.0 && a.1 == b.1);
            let start = begun::<(String, Vec<u8>, u16)>(&(a.0.as_str(), Start(&b.1)));
            prop_assert_eq!(key.starts_with(&start), a.1.starts_with(&b.1));
            let start = begun::<(String, Vec<u8>, u16)>(&(Start(&b.0),));
            prop_assert_eq!(key.starts_with(&start), a.0.starts_with(&b.0));
        }

        #[test]
        fn bytes_that_are_read_as_a_key_are_those_that_it_is_written_as(bytes in bytes()) {
            let mut rest = bytes.as_slice();
            if let Some(key) = <(Vec<u8>, bool)>::read(&mut rest) {
                prop_assert_eq!([written::<(Vec<u8>, bool)>(&key).as_slice(), rest].concat(), bytes);
            }
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        assert_eq!(written::<(String, u16)>(&("ab", 7)), b"ab\0\0\x07");
        assert_eq!(written::<String>("\0\u{1}\u{2}"), b"\x01\x01\x01\x02\x02\0");
        assert_eq!(written::<i16>(&-2), [0x7f, 0xfe]);
        assert_eq!(written::<(bool, [u8; 2], i8)>(&(true, [0, 9], 1)), [1, 0, 9, 0x81]);
    }

    #[test]
    fn a_key_may_be_given_as_what_it_borrows_as() {
        let (name, part) = ("ab".to_owned(), vec![1, 2]);
        let owned = written::<(String, Vec<u8>, u64)>(&(name.clone(), part.clone(), 7));
        assert_eq!(written::<(String, Vec<u8>, u64)>(&("ab", &part[..], 7)), owned);
        assert_eq!(written::<(String, Vec<u8>, u64)>(&(&name, Bytes::from(part), &7)), owned);
    }
}
