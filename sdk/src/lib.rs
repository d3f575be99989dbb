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
//! State is kept in an [`Item`] (one value), in a [`Map`] (many, by typed keys that sort), or under keys of the module's own
//! making ([`View::get`], [`Context::put`]). A module that replaces another one can change what it finds: all at once in
//! `migrate` (see [`export!`]), or each value when it is read ([`Versioned`]).
//!
//! Tests run natively, in plain `cargo test`, on the in-memory host of [`testing`]. The binary interface to the host, for
//! those who write modules in other languages, is in `ABI.md` beside this crate.

#![deny(missing_docs)]

#[cfg(any(target_arch = "wasm32", test))]
mod arena;
mod context;
mod export;
mod imports;
mod item;
mod key;
pub mod limits;
mod log;
mod map;
mod name;
mod random;
mod scan;
mod sender;
mod service;
pub mod status;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod value;
mod version;

pub use context::{Context, View};
pub use item::Item;
pub use key::{AsKey, Key, Prefix, Start};
pub use log::Level;
pub use map::{Entries, EntryPage, Keys, Map, Upgraded, page_limit};
pub use prost;
pub use prost::bytes::{self, Bytes};
pub use random::Random;
pub use scan::{Items, Page, Pages, Range};
pub use sender::Sender;
pub use service::{Kind, Method, Reply, Service};
pub use status::{Any, Code, Status};
pub use value::{Upgrade, VERSION_FIELD, Value, Versioned};
pub use version::{InvalidVersion, Version};

/// What generated code and macros use; not for people.
#[doc(hidden)]
pub mod private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::imports::{context, enter, enter_init, enter_migrate, input, reply, report_panics, transition};
    pub use crate::log::line;
    pub use crate::service::{ServiceEntry, answer, check, stream, unknown_method};

    /// What `export!` takes for `init`.
    pub type Init = fn(&mut crate::Context) -> Result<(), crate::Status>;
    /// What `export!` takes for `migrate`.
    pub type Migrate = fn(&mut crate::Context, crate::Version) -> Result<(), crate::Status>;
}
