//! Tests of the host against small modules written in WebAssembly text, so that no compiler's version matters to them.
#![allow(clippy::disallowed_methods, reason = "tests look at the clock and the environment; the host does not")]

mod abi_1;
mod conformance;
mod example;
mod fixture;
mod fuel;
mod hostile;
mod imports;
mod limits;
mod loading;
mod stream;
mod transition;
