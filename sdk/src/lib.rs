//! What the author of a balsa module uses.
//!
//! A module is a `cdylib` crate with a `.proto`, a `build.rs` and one implementation:
//!
//! ```ignore
//! // build.rs
//! fn main() -> Result<(), balsa_build::Error> {
//!     balsa_build::compile(&["proto/counter.proto"], &["proto"])
//! }
//!
//! // src/lib.rs
//! use balsa_sdk::{Context, Status, View};
//!
//! balsa_sdk::include_proto!("counter.v1");
//!
//! struct MyCounter;
//!
//! impl Counter for MyCounter {
//!     fn add(ctx: &mut Context, request: AddRequest) -> Result<AddResponse, Status> { .. }    // a command
//!     fn total(ctx: &View, request: TotalRequest) -> Result<TotalResponse, Status> { .. }     // a query
//! }
//!
//! balsa_sdk::export!(CounterServer<MyCounter>);
//! ```
//!
//! Every method is a command unless its `.proto` says `option idempotency_level = NO_SIDE_EFFECTS;`, which makes it a query.
//! A command runs on every replica, in the order of the log, and gets a [`Context`]: it may write. A query runs on one node
//! and gets a [`View`]: it cannot, and the compiler says so.
//!
//! What a method can rely on:
//! - It sees its own writes at once; others see all of them or none. A method that returns a [`Status`], panics, or runs
//!   out of fuel or memory leaves no trace in the state.
//! - Nothing but the state survives a call: each one runs in a fresh instance, so a `static` is as it was compiled.
//! - Everything is deterministic: the clock, randomness and even `std::time` and `HashMap` seeds come from the log entry.
//!
//! Tests run natively, in plain `cargo test`, on the in-memory host of [`testing`]. The binary interface to the host, for
//! those who write modules in other languages, is in `ABI.md` beside this crate.

#![deny(missing_docs)]

#[cfg(any(target_arch = "wasm32", test))]
mod arena;
mod context;
mod imports;
mod item;
mod key;
pub mod limits;
mod log;
mod map;
mod name;
mod random;
mod scan;
mod service;
mod status;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod value;

pub use context::{Context, View};
pub use item::Item;
pub use key::{AsKey, Key, Prefix, Start};
pub use log::Level;
pub use map::{Entries, EntryPage, Keys, Map};
pub use prost;
pub use prost::bytes::{self, Bytes};
pub use random::Random;
pub use scan::{Items, Page, Pages, Range};
pub use service::{Kind, Method, Service};
pub use status::{Any, Code, Status};
pub use value::{Upgrade, VERSION_FIELD, Value, Versioned};

/// What generated code and macros use; not for people.
#[doc(hidden)]
pub mod private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::imports::{context, enter, input, reply, report_panics};
    pub use crate::log::line;
    pub use crate::service::{ServiceEntry, answer, check, unknown_method};
}

/// Includes what `balsa_build::compile` generated for a protobuf package: messages, service traits and servers.
#[macro_export]
macro_rules! include_proto {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// Makes the crate a balsa module that serves these services: `export!(KvStoreServer<Kv>, AdminServer<Kv>)`.
///
/// Every service of the `.proto` files given to `balsa_build::compile` must be listed, once, in any order; the compiler says
/// which one is not. Natively (in tests) this only checks.
#[macro_export]
macro_rules! export {
    ($($server:ty),+ $(,)?) => {
        const _: () = {
            const _: () = $crate::private::check(
                &[$(<$server as $crate::Service>::NAME),+],
                include!(concat!(env!("OUT_DIR"), "/balsa.services.rs")),
            );

            #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
            fn dispatch(
                context: &mut $crate::Context,
                method: u32,
                input: $crate::Bytes,
            ) -> ::core::result::Result<::std::vec::Vec<u8>, $crate::Status> {
                $(
                    let position = method.wrapping_sub(<$server as $crate::Service>::FIRST);
                    if (position as usize) < <$server as $crate::Service>::METHODS.len() {
                        return <$server as $crate::Service>::call(context, position, input);
                    }
                )+
                ::core::result::Result::Err($crate::private::unknown_method())
            }

            $crate::export_wasm!(dispatch);
        };
    };
}

/// The exports and the metadata section of a module; see `ABI.md`.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! export_wasm {
    ($dispatch:ident) => {
        $crate::export_metadata!();

        // A name that ABI 1 reserves; only this macro, used once in a module, defines it.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn balsa_call(method: u32, input_len: u32) -> u32 {
            $crate::private::enter(method, input_len, $dispatch)
        }
    };
}

/// The part of a module's exports that says what it is.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! export_metadata {
    () => {
        // The section and the name below are those that ABI 1 reserves; only this macro, used once in a module, defines them.
        #[allow(unsafe_code)]
        #[used]
        #[unsafe(link_section = "balsa.module")]
        static MODULE: [u8; include_bytes!(concat!(env!("OUT_DIR"), "/balsa.module.bin")).len()] =
            *include_bytes!(concat!(env!("OUT_DIR"), "/balsa.module.bin"));

        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn balsa_abi_1() {}
    };
}

/// Natively there is nothing to export.
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
#[macro_export]
macro_rules! export_wasm {
    ($dispatch:ident) => {};
}
