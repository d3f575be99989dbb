//! The host, as functions: the only place that knows how a module reaches it.
//!
//! Compiled to wasm these are the imports of ABI 1 (`ABI.md`); natively they reach the call that a
//! [`testing::Host`](crate::testing::Host) is in the middle of. Both have the same functions with the same meaning.

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(target_arch = "wasm32")]
mod wasm;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::*;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::*;

#[cfg(target_arch = "wasm32")]
pub use wasm::{call_context as context, enter, input, reply, report_panics};
