//! The request message in, the response message out.

use bytes::Bytes;
use wasmtime::{Caller, Linker};

use super::{ABI, Guest, Span, bad_host_call, cost, host};
use crate::command::TrapClass;
use crate::limits::RESULT_BYTES_MAX;
use crate::wasm::call::CallState;
use crate::wasm::outcome::Stop;

pub(super) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.func_wrap(ABI, "input_read", |mut caller: Caller<'_, CallState>, ptr: u32, off: u32, len: u32| {
        host(&mut caller, |guest| input_read(guest, Span::new(ptr, len), off))
    })?;
    linker.func_wrap(ABI, "output", |mut caller: Caller<'_, CallState>, ptr: u32, len: u32| {
        host(&mut caller, |guest| output(guest, Span::new(ptr, len)))
    })?;
    Ok(())
}

fn input_read(guest: &mut Guest<'_>, to: Span, off: u32) -> Result<(), Stop> {
    guest.begun()?;
    guest.meter.charge(cost::INPUT_READ.call + cost::INPUT_READ.byte * to.bytes())?;
    copy_out(guest.memory, to, &guest.call.input, off, "the input")
}

/// Copies `source[off..off + to.len]` to guest memory.
pub(super) fn copy_out(memory: &mut [u8], to: Span, source: &[u8], off: u32, what: &str) -> Result<(), Stop> {
    let range = Span::new(off, to.len).range();
    let Some(bytes) = source.get(range) else {
        let (len, size) = (to.len, source.len());
        return Err(bad_host_call(format!("offset {off} and length {len} lie outside {what} of {size} bytes")));
    };
    to.of_mut(memory)?.copy_from_slice(bytes);
    Ok(())
}

fn output(guest: &mut Guest<'_>, from: Span) -> Result<(), Stop> {
    guest.begun()?;
    if guest.call.output.is_full() {
        return Err(Stop::trap(TrapClass::BadResult, "output() was called twice; a unary method has one"));
    }
    if from.len as usize > RESULT_BYTES_MAX {
        let detail = format!("an output of {} bytes; at most {RESULT_BYTES_MAX} fit a gRPC message", from.len);
        return Err(Stop::trap(TrapClass::BadResult, detail));
    }
    guest.meter.charge(cost::OUTPUT.call + cost::OUTPUT.byte * from.bytes())?;
    Ok(guest.call.output.push(Bytes::copy_from_slice(from.of(guest.memory)?))?)
}
