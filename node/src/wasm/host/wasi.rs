//! The part of WASI preview 1 that guests built for `wasm32-wasip1` link even if they never use it, made deterministic.
//!
//! No environment and no arguments; clocks show log time, randomness is the entry's, standard output and error become log
//! lines, and there are no files. Programs that need more are refused by `check`, by the name of what they import.

use wasmtime::{Caller, Linker};

use super::{Guest, Span, WASI, cost, host};
use crate::command::TrapClass;
use crate::wasm::call::CallState;
use crate::wasm::outcome::Stop;

/// WASI's error numbers, as far as they are used.
mod errno {
    pub(super) const SUCCESS: u32 = 0;
    pub(super) const BADF: u32 = 8;
    pub(super) const INVAL: u32 = 28;
    pub(super) const SPIPE: u32 = 70;
}

/// Realtime, monotonic, process and thread time: all of them log time.
const CLOCKS: u32 = 4;
const NANOS_PER_MILLI: u64 = 1_000_000;
/// Standard input, output and error.
const STDIO: u32 = 3;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
/// `fdstat`: a character device that can be written.
const FDSTAT: [u8; 24] = {
    let mut stat = [0; 24];
    stat[0] = 2;
    stat[8] = 1 << 6;
    stat
};
/// A pointer and a length.
const IOVEC_BYTES: u32 = 8;

pub(super) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    type Calling<'a> = Caller<'a, CallState>;
    for sizes in ["environ_sizes_get", "args_sizes_get"] {
        linker.func_wrap(WASI, sizes, |mut caller: Calling<'_>, count: u32, bytes: u32| {
            host(&mut caller, |guest| no_sizes(guest, count, bytes))
        })?;
    }
    for nothing in ["environ_get", "args_get"] {
        linker.func_wrap(WASI, nothing, |mut caller: Calling<'_>, _: u32, _: u32| host(&mut caller, success))?;
    }
    linker.func_wrap(WASI, "clock_time_get", |mut caller: Calling<'_>, clock: u32, _precision: u64, ptr: u32| {
        host(&mut caller, |guest| clock_time_get(guest, clock, ptr))
    })?;
    linker.func_wrap(WASI, "clock_res_get", |mut caller: Calling<'_>, clock: u32, ptr: u32| {
        host(&mut caller, |guest| on_clock(guest, clock, ptr, NANOS_PER_MILLI))
    })?;
    linker.func_wrap(WASI, "random_get", |mut caller: Calling<'_>, ptr: u32, len: u32| {
        host(&mut caller, |guest| random_get(guest, Span::new(ptr, len)))
    })?;
    linker.func_wrap(WASI, "fd_write", |mut caller: Calling<'_>, fd: u32, iovs: u32, count: u32, written: u32| {
        host(&mut caller, |guest| fd_write(guest, fd, iovs, count, written))
    })?;
    linker.func_wrap(WASI, "fd_read", |mut caller: Calling<'_>, _: u32, _: u32, _: u32, _: u32| {
        host(&mut caller, |guest| answer(guest, errno::BADF))
    })?;
    linker.func_wrap(WASI, "fd_close", |mut caller: Calling<'_>, fd: u32| {
        host(&mut caller, |guest| answer(guest, if fd < STDIO { errno::SUCCESS } else { errno::BADF }))
    })?;
    linker.func_wrap(WASI, "fd_seek", |mut caller: Calling<'_>, fd: u32, _: u64, _: u32, _: u32| {
        host(&mut caller, |guest| answer(guest, if fd < STDIO { errno::SPIPE } else { errno::BADF }))
    })?;
    linker.func_wrap(WASI, "fd_fdstat_get", |mut caller: Calling<'_>, fd: u32, ptr: u32| {
        host(&mut caller, |guest| fd_fdstat_get(guest, fd, ptr))
    })?;
    linker.func_wrap(WASI, "sched_yield", |mut caller: Calling<'_>| host(&mut caller, success))?;
    linker.func_wrap(WASI, "proc_exit", |mut caller: Calling<'_>, code: u32| {
        host(&mut caller, |guest| proc_exit(guest, code))
    })?;
    Ok(())
}

fn answer(guest: &mut Guest<'_>, errno: u32) -> Result<u32, Stop> {
    guest.meter.charge(cost::WASI.call)?;
    Ok(errno)
}

fn success(guest: &mut Guest<'_>) -> Result<u32, Stop> {
    answer(guest, errno::SUCCESS)
}

fn no_sizes(guest: &mut Guest<'_>, count: u32, bytes: u32) -> Result<u32, Stop> {
    guest.meter.charge(cost::WASI.call)?;
    write(guest, count, &0_u32.to_le_bytes())?;
    write(guest, bytes, &0_u32.to_le_bytes())?;
    Ok(errno::SUCCESS)
}

fn clock_time_get(guest: &mut Guest<'_>, clock: u32, ptr: u32) -> Result<u32, Stop> {
    let nanos = guest.call.context.time_ms.saturating_mul(NANOS_PER_MILLI);
    on_clock(guest, clock, ptr, nanos)
}

fn on_clock(guest: &mut Guest<'_>, clock: u32, ptr: u32, nanos: u64) -> Result<u32, Stop> {
    guest.meter.charge(cost::WASI.call)?;
    if clock >= CLOCKS {
        return Ok(errno::INVAL);
    }
    write(guest, ptr, &nanos.to_le_bytes())?;
    Ok(errno::SUCCESS)
}

fn random_get(guest: &mut Guest<'_>, to: Span) -> Result<u32, Stop> {
    guest.meter.charge(cost::RANDOM.call + cost::RANDOM.byte * to.bytes())?;
    guest.call.random.fill(to.of_mut(guest.memory)?);
    Ok(errno::SUCCESS)
}

fn fd_write(guest: &mut Guest<'_>, fd: u32, iovs: u32, count: u32, written: u32) -> Result<u32, Stop> {
    guest.meter.charge(cost::FD_WRITE.call + cost::FD_WRITE.row * u64::from(count))?;
    if fd != STDOUT && fd != STDERR {
        return Ok(errno::BADF);
    }
    let vectors = Span::new(iovs, count.saturating_mul(IOVEC_BYTES)).of(guest.memory)?;
    let mut total = 0_u32;
    for vector in vectors.chunks_exact(IOVEC_BYTES as usize) {
        let bytes = iovec(vector);
        guest.meter.charge(cost::FD_WRITE.byte * bytes.bytes())?;
        guest.call.logs.write(fd == STDERR, bytes.of(guest.memory)?);
        total = total.saturating_add(bytes.len);
    }
    write(guest, written, &total.to_le_bytes())?;
    Ok(errno::SUCCESS)
}

fn iovec(vector: &[u8]) -> Span {
    let word = |at: usize| u32::from_le_bytes(vector[at..at + 4].try_into().expect("four bytes"));
    Span::new(word(0), word(4))
}

fn fd_fdstat_get(guest: &mut Guest<'_>, fd: u32, ptr: u32) -> Result<u32, Stop> {
    guest.meter.charge(cost::WASI.call)?;
    if fd >= STDIO {
        return Ok(errno::BADF);
    }
    write(guest, ptr, &FDSTAT)?;
    Ok(errno::SUCCESS)
}

fn proc_exit(guest: &mut Guest<'_>, code: u32) -> Result<(), Stop> {
    guest.meter.charge(cost::WASI.call)?;
    Err(Stop::trap(TrapClass::Exit, format!("the module called proc_exit({code}); return a Status instead")))
}

fn write(guest: &mut Guest<'_>, ptr: u32, bytes: &[u8]) -> Result<(), Stop> {
    let len = u32::try_from(bytes.len()).expect("a few bytes");
    Span::new(ptr, len).of_mut(guest.memory)?.copy_from_slice(bytes);
    Ok(())
}
