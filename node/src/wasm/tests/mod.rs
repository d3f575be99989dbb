//! Tests of the host against small modules written in WebAssembly text, so that no compiler's version matters to them.

mod example;
mod fixture;
mod fuel;
mod garbage;
mod hostile;
mod imports;
mod limits;
mod loading;
