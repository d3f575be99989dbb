//! One configured wasmtime engine, and who may use how many of its instance slots at once.
//!
//! Commands and queries share compiled code, so they share one engine (two would compile every module twice). What keeps a
//! flood of queries away from apply is counting: the pool has a slot for everyone who may run at once, and [`Slots`] lets at
//! most `query_slots` queries in. Commands, start-up runs and streams, which wait for their clients, have slots of their own. So the
//! pool itself is never exhausted.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Enabled, Inlining, InstanceAllocationStrategy, Linker, OperatorCost, OptLevel, PoolingAllocationConfig,
    Strategy,
};

use super::call::CallState;
use super::host;
use super::module::Compiled;
use super::outcome::HostFault;
use crate::ids::ModuleHash;
use crate::limits::{MEMORY_BYTES_MAX, STREAMS_MAX};
use crate::measure::{ByMethod, RunMeter};

/// Stack that a thread needs to run modules: [`NATIVE_STACK_BYTES_MAX`], and as much again for the host functions below and
/// the caller above.
pub const THREAD_STACK_BYTES: usize = 2 * NATIVE_STACK_BYTES_MAX;

/// Where wasmtime's own check stops a call. `stack.rs` trips at a quarter of this by its own reckoning, so reaching it means
/// that the reckoning was wrong: a host fault. It is also the most that wasmtime 48 takes without its `async` feature.
pub(super) const NATIVE_STACK_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Elements of a module's table: functions whose address is taken. The kvstore has about 50.
pub(super) const TABLE_ELEMENTS_MAX: usize = 10_000;
/// Apply is one thread. The second slot lets an operator's dry run go beside it.
const COMMAND_SLOTS: u32 = 2;
/// Modules are loaded rarely, and one after the other.
const START_UP_SLOTS: u32 = 1;
/// Compiled modules kept for the next `Module::load` of the same bytes.
const COMPILED_MAX: usize = 8;
/// Memory that a slot keeps mapped between calls. With `PAGEMAP_SCAN` only pages that were written are looked at, so more
/// costs nothing; without, all of it is cleared by every call, so it is no more than a small module's data.
const KEEP_RESIDENT_BYTES: (usize, usize) = (1024 * 1024, 64 * 1024);

/// What a module may use of WebAssembly: what `wasm32-wasip1` compilers emit by default, and SIMD. Threads, 64-bit memory,
/// relaxed SIMD, tail calls (they would escape `stack.rs`), exceptions and GC are off.
pub(super) const FEATURES: WasmFeatures = WasmFeatures::LIME1
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::SIMD)
    .difference(WasmFeatures::GC_TYPES);

/// What differs from node to node, and does not change what a call computes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Queries that run at once.
    pub query_slots: u32,
    /// Linear memory that is set aside for an instance, bytes. No call may be allowed more.
    pub memory_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { query_slots: 4, memory_bytes_max: MEMORY_BYTES_MAX }
    }
}

/// The wasm machine of a node. Cheap to clone; one is enough for a process.
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) linker: Linker<CallState>,
    pub(super) memory_bytes_max: u64,
    pub(super) commands: Slots,
    pub(super) queries: Slots,
    pub(super) streams: Slots,
    pub(super) start_ups: Slots,
    /// Of the methods of what is loaded.
    pub(super) meters: ByMethod<RunMeter>,
    compiled: Mutex<VecDeque<Arc<Compiled>>>,
}

impl Engine {
    /// Sets the machine up: reserves address space for its slots, and finds out what the kernel and the CPU offer.
    pub fn new(options: Options) -> Result<Self, HostFault> {
        Self::configured(options, |_| ())
    }

    /// The same, with a configuration that `change` had in its hands.
    fn configured(options: Options, change: impl FnOnce(&mut Config)) -> Result<Self, HostFault> {
        let query_slots = options.query_slots.max(1);
        let slots = query_slots.saturating_add(COMMAND_SLOTS + START_UP_SLOTS + STREAMS_MAX);
        let fault = |error: wasmtime::Error| HostFault(format!("the wasm engine cannot be set up: {error:#}"));
        let mut config = config(slots, options.memory_bytes_max);
        change(&mut config);
        let wasmtime = wasmtime::Engine::new(&config).map_err(fault)?;
        let linker = host::linker(&wasmtime).map_err(fault)?;
        let shared = Shared {
            wasmtime,
            linker,
            memory_bytes_max: options.memory_bytes_max,
            commands: Slots::new(COMMAND_SLOTS),
            queries: Slots::new(query_slots),
            streams: Slots::new(STREAMS_MAX),
            start_ups: Slots::new(START_UP_SLOTS),
            meters: ByMethod::default(),
            compiled: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Compiled code for the module with this hash, if it was made lately.
    pub(super) fn compiled(&self, hash: ModuleHash) -> Option<Arc<Compiled>> {
        self.shared.compiled.lock().iter().find(|compiled| compiled.hash == hash).cloned()
    }

    /// Keeps `compiled` for the next load of the same bytes.
    pub(super) fn keep(&self, compiled: Arc<Compiled>) {
        let mut kept = self.shared.compiled.lock();
        if kept.len() == COMPILED_MAX {
            kept.pop_front();
        }
        kept.push_back(compiled);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("memory_bytes_max", &self.shared.memory_bytes_max).finish_non_exhaustive()
    }
}

/// Every knob of wasmtime that decides what a call computes, what it costs, or how fast it is.
///
/// A change in the first two groups changes the result of applying an entry: it needs a new `APPLY_VERSION`.
fn config(slots: u32, memory_bytes_max: u64) -> Config {
    let mut config = Config::new();

    // What a module may be and what its instructions compute.
    config.wasm_features(WasmFeatures::all(), false);
    config.wasm_features(FEATURES, true);
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);

    // What it costs. Fuel and not epochs: the clock has no say in it. Nothing is inlined, so the calls that are charged are
    // the calls that were written.
    config.consume_fuel(true);
    config.operator_cost(operator_cost());
    config.epoch_interruption(false);
    config.compiler_inlining(Inlining::No);

    // The native stack; see `stack.rs`.
    config.max_wasm_stack(NATIVE_STACK_BYTES_MAX);

    // How fast a fresh instance is: slots that are mapped once and cleared between calls.
    config.strategy(Strategy::Cranelift);
    config.cranelift_opt_level(OptLevel::Speed);
    config.memory_init_cow(true);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(slots, memory_bytes_max)));
    config
}

/// The cost of each instruction, spelled out so that wasmtime's defaults may change without us.
///
/// One unit is about a nanosecond, like most instructions. The exceptions are those that take several.
fn operator_cost() -> OperatorCost {
    let mut cost = OperatorCost::new();
    for slow in [&mut cost.I32DivS, &mut cost.I32DivU, &mut cost.I32RemS, &mut cost.I32RemU] {
        *slow = 4;
    }
    for slower in [&mut cost.I64DivS, &mut cost.I64DivU, &mut cost.I64RemS, &mut cost.I64RemU] {
        *slower = 8;
    }
    for root in [&mut cost.F32Div, &mut cost.F64Div, &mut cost.F32Sqrt, &mut cost.F64Sqrt] {
        *root = 4;
    }
    cost.CallIndirect = 2;
    // A page is zeroed when it is touched and given back when the call ends; the system call alone takes a microsecond.
    cost.MemoryGrow = 255;
    cost.TableGrow = 255;
    cost.variable.memory_copy_per_byte = 1;
    cost.variable.memory_fill_per_byte = 1;
    cost.variable.memory_init_per_byte = 1;
    cost.variable.memory_grow_per_page = 255;
    cost.variable.table_copy_per_element = 1;
    cost.variable.table_fill_per_element = 1;
    cost.variable.table_init_per_element = 1;
    cost.variable.table_grow_per_element = 1;
    cost
}

fn pool(slots: u32, memory_bytes_max: u64) -> PoolingAllocationConfig {
    let resident = if PoolingAllocationConfig::is_pagemap_scan_available() {
        KEEP_RESIDENT_BYTES.0
    } else {
        KEEP_RESIDENT_BYTES.1
    };
    let memory_bytes_max = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX).min(1 << 32);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots);
    pool.total_memories(slots);
    pool.total_tables(slots);
    pool.max_memories_per_module(1);
    pool.max_tables_per_module(1);
    pool.max_memory_size(memory_bytes_max);
    pool.table_elements(TABLE_ELEMENTS_MAX);
    pool.max_unused_warm_slots(slots);
    pool.linear_memory_keep_resident(resident);
    pool.table_keep_resident(resident);
    pool.pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
impl Engine {
    /// One that compiles, and then cannot make the code executable: a node without the memory for it.
    pub(super) fn that_cannot_load() -> Self {
        struct Refusing;
        impl wasmtime::CustomCodeMemory for Refusing {
            fn required_alignment(&self) -> usize {
                1
            }

            fn publish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
                Err(wasmtime::Error::msg("no memory"))
            }

            fn unpublish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
                Ok(())
            }
        }
        let options = Options { query_slots: 1, memory_bytes_max: 1024 * 1024 };
        let refusing = |config: &mut Config| {
            config.with_custom_code_memory(Some(Arc::new(Refusing)));
        };
        Self::configured(options, refusing).expect("this machine can run wasm")
    }
}

/// A counting semaphore over the slots of one kind of call.
pub(super) struct Slots {
    free: Mutex<u32>,
    returned: Condvar,
}

impl Slots {
    fn new(slots: u32) -> Self {
        Self { free: Mutex::new(slots), returned: Condvar::new() }
    }

    /// Waits for a slot; `None` when `deadline` came first.
    pub(super) fn take(&self, deadline: Option<Instant>) -> Option<Slot<'_>> {
        let mut free = self.free.lock();
        while *free == 0 {
            match deadline {
                None => self.returned.wait(&mut free),
                Some(deadline) if self.returned.wait_until(&mut free, deadline).timed_out() => return None,
                Some(_) => {}
            }
        }
        *free -= 1;
        Some(Slot(self))
    }
}

/// Leave to use one instance slot, given back when dropped: after the instance, so declare it before the store.
pub(super) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.returned.notify_one();
    }
}
