//! Signature-level placeholder: replaced by the wasm part.
#![allow(missing_docs, dead_code, unused)]
use std::any::Any;
use std::ops::ControlFlow;
use std::time::Instant;

use bytes::Bytes;

use crate::command::Outcome;
use crate::ids::ModuleHash;

#[derive(Debug, Clone)]
pub struct Engine;
#[derive(Debug, Clone, Default)]
pub struct Options { pub query_slots: u32, pub memory_bytes_max: u64 }
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HostFault(pub String);
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Rejection(pub String);
impl Engine { pub fn new(_options: Options) -> Result<Self, HostFault> { unimplemented!() } }
#[derive(Debug, Clone)]
pub struct Module;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind { Command, Query }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method { pub path: String, pub kind: MethodKind, pub index: u32 }
#[derive(Debug, Clone, Copy)]
pub struct Context { pub index: u64, pub time_ms: u64, pub random: [u8; 32] }
#[derive(Debug)]
pub struct Call<'a> { pub method: &'a Method, pub input: Bytes, pub context: Context, pub fuel: u64, pub memory_bytes: u64, pub deadline: Option<Instant> }
#[derive(Debug, Clone)]
pub struct LogLine { pub level: u32, pub text: String }
pub struct Finished { pub outcome: Outcome, pub fuel_used: u64, pub trap_detail: Option<String>, pub logs: Vec<LogLine>, pub state: Box<dyn State> }
#[derive(Debug, Clone)]
pub struct ScanRange { pub start: Vec<u8>, pub end: Option<Vec<u8>>, pub reverse: bool }
pub trait State: Any + Send {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, HostFault>;
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), HostFault>;
    fn delete(&mut self, key: &[u8]) -> Result<bool, HostFault>;
    fn scan(&mut self, range: &ScanRange, visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), HostFault>;
}
impl Module {
    pub fn load(_engine: &Engine, _wasm: &[u8]) -> Result<Self, Rejection> { unimplemented!() }
    pub fn hash(&self) -> ModuleHash { unimplemented!() }
    pub fn name(&self) -> &str { unimplemented!() }
    pub fn version(&self) -> &str { unimplemented!() }
    pub fn methods(&self) -> &[Method] { unimplemented!() }
    pub fn method(&self, _path: &str) -> Option<&Method> { unimplemented!() }
    pub fn descriptors(&self) -> &prost_reflect::DescriptorPool { unimplemented!() }
    pub fn file_descriptor_set(&self) -> &[u8] { unimplemented!() }
    pub fn call(&self, _call: Call<'_>, _state: Box<dyn State>) -> Result<Finished, HostFault> { unimplemented!() }
}
