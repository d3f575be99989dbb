//! What the guest is told of its entry: index, time, randomness.

use wasmtime::{Caller, Linker};

use super::{ABI, Guest, Span, cost, host};
use crate::wasm::call::{CallState, Context};
use crate::wasm::outcome::Stop;

/// `u64 index, u64 time_ms, 32 bytes`, little-endian. Later versions may append.
const CONTEXT_BYTES: usize = 48;

pub(super) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.func_wrap(ABI, "context", |mut caller: Caller<'_, CallState>, ptr: u32, cap: u32| {
        host(&mut caller, |guest| context(guest, Span::new(ptr, cap)))
    })?;
    Ok(())
}

/// Writes as much as fits, and answers how much there is.
fn context(guest: &mut Guest<'_>, to: Span) -> Result<u32, Stop> {
    guest.meter.charge(cost::CONTEXT.call)?;
    let bytes = encode(&guest.call.context);
    let to = to.of_mut(guest.memory)?;
    let fits = to.len().min(CONTEXT_BYTES);
    to[..fits].copy_from_slice(&bytes[..fits]);
    Ok(CONTEXT_BYTES as u32)
}

fn encode(context: &Context) -> [u8; CONTEXT_BYTES] {
    let mut bytes = [0; CONTEXT_BYTES];
    bytes[..8].copy_from_slice(&context.index.to_le_bytes());
    bytes[8..16].copy_from_slice(&context.time_ms.to_le_bytes());
    bytes[16..].copy_from_slice(&context.random);
    bytes
}
