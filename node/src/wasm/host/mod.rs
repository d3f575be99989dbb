//! What a guest may call: the whole of it, what it costs, and how it reaches guest memory.
//!
//! [`IMPORTS`] is the list that `check` compares a module with; [`cost`] is the price list. Every host function runs inside
//! [`host`], which hands it a [`Guest`]: the memory, the call's state, and a meter. It charges the meter *before* it acts,
//! since what is done can't be undone when the fuel turns out to be short, and it looks at guest memory only through
//! [`Span`]s, which are compared with the memory's size first. Changing a price changes the outcome of commands that are
//! already in a log: it needs a new `APPLY_VERSION`, and the golden file of fuel will say so.

pub(super) mod context;
pub(super) mod input;
pub(super) mod log;
pub(super) mod random;
pub(super) mod state;
pub(super) mod wasi;

use std::time::Instant;

use wasmparser::ValType;
use wasmparser::ValType::{I32, I64};
use wasmtime::{AsContextMut, Caller, Extern, Linker, Memory};

use super::call::CallState;
use super::outcome::{Cut, HostFault, Stop};
use crate::command::TrapClass;

/// Namespace of ABI 1.
pub(super) const ABI: &str = "balsa_v1";
/// Namespace of WASI preview 1.
pub(super) const WASI: &str = "wasi_snapshot_preview1";

/// A function that a module may import.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) module: &'static str,
    pub(super) name: &'static str,
    pub(super) params: &'static [ValType],
    pub(super) results: &'static [ValType],
}

const fn import_of(
    module: &'static str,
    name: &'static str,
    params: &'static [ValType],
    results: &'static [ValType],
) -> Import {
    Import { module, name, params, results }
}

/// All of them. Only ever added to.
pub(super) const IMPORTS: &[Import] = &[
    import_of(ABI, "input_read", &[I32; 3], &[]),
    import_of(ABI, "output", &[I32; 2], &[]),
    import_of(ABI, "get", &[I32; 4], &[I64]),
    import_of(ABI, "result_read", &[I32; 3], &[]),
    import_of(ABI, "put", &[I32; 4], &[]),
    import_of(ABI, "delete", &[I32; 2], &[I32]),
    import_of(ABI, "scan", &[I32; 9], &[I64]),
    import_of(ABI, "context", &[I32; 2], &[I32]),
    import_of(ABI, "log", &[I32; 3], &[]),
    import_of(ABI, "panic", &[I32; 2], &[]),
    import_of(WASI, "environ_get", &[I32; 2], &[I32]),
    import_of(WASI, "environ_sizes_get", &[I32; 2], &[I32]),
    import_of(WASI, "args_get", &[I32; 2], &[I32]),
    import_of(WASI, "args_sizes_get", &[I32; 2], &[I32]),
    import_of(WASI, "clock_time_get", &[I32, I64, I32], &[I32]),
    import_of(WASI, "clock_res_get", &[I32; 2], &[I32]),
    import_of(WASI, "random_get", &[I32; 2], &[I32]),
    import_of(WASI, "fd_write", &[I32; 4], &[I32]),
    import_of(WASI, "fd_read", &[I32; 4], &[I32]),
    import_of(WASI, "fd_close", &[I32], &[I32]),
    import_of(WASI, "fd_seek", &[I32, I64, I32, I32], &[I32]),
    import_of(WASI, "fd_fdstat_get", &[I32; 2], &[I32]),
    import_of(WASI, "sched_yield", &[], &[I32]),
    import_of(WASI, "proc_exit", &[I32], &[]),
];

/// The import with this name.
pub(super) fn import(module: &str, name: &str) -> Option<&'static Import> {
    IMPORTS.iter().find(|import| (import.module, import.name) == (module, name))
}

/// What a host function costs: fuel per call, per byte that moves, and per row that is visited.
///
/// One unit is about a nanosecond of the work that a small node does for it, at apply *and* later: a write also costs the
/// commit and the digest.
pub(super) mod cost {
    /// Fuel per call, byte and row.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Cost {
        pub(in super::super) call: u64,
        pub(in super::super) byte: u64,
        pub(in super::super) row: u64,
    }

    const fn cost(call: u64, byte: u64, row: u64) -> Cost {
        Cost { call, byte, row }
    }

    pub(in super::super) const INPUT_READ: Cost = cost(100, 1, 0);
    pub(in super::super) const OUTPUT: Cost = cost(200, 1, 0);
    pub(in super::super) const GET: Cost = cost(1_000, 1, 0);
    pub(in super::super) const RESULT_READ: Cost = cost(100, 1, 0);
    pub(in super::super) const PUT: Cost = cost(2_000, 2, 0);
    pub(in super::super) const DELETE: Cost = cost(2_000, 2, 0);
    pub(in super::super) const SCAN: Cost = cost(2_000, 1, 200);
    pub(in super::super) const CONTEXT: Cost = cost(100, 0, 0);
    pub(in super::super) const LOG: Cost = cost(500, 1, 0);
    pub(in super::super) const PANIC: Cost = cost(500, 1, 0);
    /// Rows are I/O vectors.
    pub(in super::super) const FD_WRITE: Cost = cost(500, 1, 50);
    pub(in super::super) const RANDOM: Cost = cost(200, 2, 0);
    /// The rest of WASI: a number is read or written.
    pub(in super::super) const WASI: Cost = cost(100, 0, 0);
}

/// A linker with everything in [`IMPORTS`].
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<CallState>> {
    let mut linker = Linker::new(engine);
    input::link(&mut linker)?;
    state::link(&mut linker)?;
    context::link(&mut linker)?;
    log::link(&mut linker)?;
    wasi::link(&mut linker)?;
    Ok(linker)
}

/// A part of guest memory, as a guest names it; it may well lie outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    ptr: u32,
    len: u32,
}

impl Span {
    pub(super) fn new(ptr: u32, len: u32) -> Self {
        Self { ptr, len }
    }

    fn bytes(self) -> u64 {
        u64::from(self.len)
    }

    /// The bytes it names.
    fn of(self, memory: &[u8]) -> Result<&[u8], Stop> {
        let size = memory.len();
        memory.get(self.range()).ok_or_else(|| self.outside(size))
    }

    /// The same, to write to.
    fn of_mut(self, memory: &mut [u8]) -> Result<&mut [u8], Stop> {
        let size = memory.len();
        memory.get_mut(self.range()).ok_or_else(|| self.outside(size))
    }

    fn range(self) -> std::ops::Range<usize> {
        let start = self.ptr as usize;
        start..start + self.len as usize
    }

    fn outside(self, size: usize) -> Stop {
        let Self { ptr, len } = self;
        bad_host_call(format!("pointer {ptr} and length {len} lie outside the {size} bytes of memory"))
    }
}

/// Fuel that is left.
pub(super) struct Meter {
    left: u64,
}

impl Meter {
    pub(super) fn charge(&mut self, fuel: u64) -> Result<(), Stop> {
        match self.left.checked_sub(fuel) {
            Some(left) => self.left = left,
            None => {
                self.left = 0;
                return Err(Stop::trap(TrapClass::OutOfFuel, "the call used up its fuel in a host function"));
            }
        }
        Ok(())
    }
}

/// What a host function has to work with. Its parts are apart, so that memory can be read while the state is written.
pub(super) struct Guest<'a> {
    pub(super) memory: &'a mut [u8],
    pub(super) call: &'a mut CallState,
    pub(super) meter: Meter,
}

impl Guest<'_> {
    /// Refuses what makes sense only during `balsa_call`.
    fn begun(&self) -> Result<(), Stop> {
        if self.call.begun {
            return Ok(());
        }
        Err(bad_host_call("input, output and state are there during balsa_call only, not in constructors"))
    }
}

/// Runs a host function: meter out, act, meter back, whatever came of it.
pub(super) fn host<R>(
    caller: &mut Caller<'_, CallState>,
    act: impl FnOnce(&mut Guest<'_>) -> Result<R, Stop>,
) -> wasmtime::Result<R> {
    let memory = memory(caller)?;
    let meter = Meter { left: caller.get_fuel()? };
    let (memory, call) = memory.data_and_store_mut(caller.as_context_mut());
    let mut guest = Guest { memory, call, meter };
    let result = on_time(guest.call.deadline).and_then(|()| act(&mut guest));
    let left = guest.meter.left;
    caller.set_fuel(left)?;
    result.map_err(wasmtime::Error::new)
}

/// A query that nobody waits for stops here. Commands have no deadline.
#[allow(clippy::disallowed_methods, reason = "queries only; no command's outcome depends on it")]
fn on_time(deadline: Option<Instant>) -> Result<(), Stop> {
    match deadline {
        Some(deadline) if Instant::now() >= deadline => Err(Cut::Deadline.into()),
        _ => Ok(()),
    }
}

/// The guest's memory. In a start section the instance is not known yet, so that it is asked for by name.
fn memory(caller: &mut Caller<'_, CallState>) -> wasmtime::Result<Memory> {
    if let Some(memory) = caller.data().memory {
        return Ok(memory);
    }
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory),
        _ => Err(wasmtime::Error::new(Stop::Fault(HostFault("a checked module has no memory".into())))),
    }
}

pub(super) fn bad_host_call(detail: impl Into<String>) -> Stop {
    Stop::trap(TrapClass::BadHostCall, detail)
}
