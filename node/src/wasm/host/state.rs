//! State: read, write, scan.
//!
//! Keys and values go from guest memory to the [`State`](crate::wasm::State) without a copy in between. A result that does
//! not fit the guest's buffer is kept for `result_read`, so that the guest can make room and fetch it without a second look-up.

use std::ops::ControlFlow;

use wasmtime::{Caller, Linker};

use super::{ABI, Guest, Meter, Span, bad_host_call, cost, host, input};
use crate::command::TrapClass;
use crate::limits::{SCAN_BYTES_MAX, SCAN_ITEMS_MAX, STORED_KEY_BYTES_MAX, STORED_VALUE_BYTES_MAX};
use crate::wasm::call::{CallState, ScanRange};
use crate::wasm::outcome::Stop;

/// `scan` flag: descending.
const REVERSE: u32 = 1;
/// `scan` flag: values are left empty.
const KEYS_ONLY: u32 = 2;
/// `scan` flag: to the last key; the end is ignored.
const NO_END: u32 = 4;
/// A page's count and its mark of whether there is more.
const PAGE_HEADER_BYTES: usize = 5;
/// An item's two lengths.
const ITEM_HEADER_BYTES: usize = 8;

pub(super) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    type Calling<'a> = Caller<'a, CallState>;
    linker.func_wrap(ABI, "get", |mut caller: Calling<'_>, key: u32, key_len: u32, buf: u32, cap: u32| {
        host(&mut caller, |guest| get(guest, Span::new(key, key_len), Span::new(buf, cap)))
    })?;
    linker.func_wrap(ABI, "result_read", |mut caller: Calling<'_>, ptr: u32, off: u32, len: u32| {
        host(&mut caller, |guest| result_read(guest, Span::new(ptr, len), off))
    })?;
    linker.func_wrap(ABI, "put", |mut caller: Calling<'_>, key: u32, key_len: u32, value: u32, value_len: u32| {
        host(&mut caller, |guest| put(guest, Span::new(key, key_len), Span::new(value, value_len)))
    })?;
    linker.func_wrap(ABI, "delete", |mut caller: Calling<'_>, key: u32, key_len: u32| {
        host(&mut caller, |guest| delete(guest, Span::new(key, key_len)))
    })?;
    linker.func_wrap(
        ABI,
        "scan",
        |mut caller: Calling<'_>,
         start: u32,
         start_len: u32,
         end: u32,
         end_len: u32,
         flags: u32,
         limit: u32,
         budget: u32,
         buf: u32,
         cap: u32| {
            let (start, end) = (Span::new(start, start_len), Span::new(end, end_len));
            let asked = Asked { start, end, flags, limit, budget };
            host(&mut caller, |guest| scan(guest, &asked, Span::new(buf, cap)))
        },
    )?;
    Ok(())
}

fn get(guest: &mut Guest<'_>, key: Span, buf: Span) -> Result<i64, Stop> {
    guest.begun()?;
    guest.meter.charge(cost::GET.call + cost::GET.byte * key.bytes())?;
    buf.of(guest.memory)?;
    let key = key.of(guest.memory)?;
    let found = if is_key(key) { guest.call.state.get(key)? } else { None };
    match found {
        None => Ok(-1),
        Some(value) => deliver(guest, value, buf, cost::GET.byte),
    }
}

/// Whether there can be a value at `key` at all.
fn is_key(key: &[u8]) -> bool {
    (1..=STORED_KEY_BYTES_MAX).contains(&key.len())
}

/// Hands a result over, or keeps it when the guest's buffer is too small; in both ways its length is the answer.
fn deliver(guest: &mut Guest<'_>, result: Vec<u8>, buf: Span, byte: u64) -> Result<i64, Stop> {
    let len = result.len();
    guest.meter.charge(byte * len as u64)?;
    match buf.of_mut(guest.memory)?.get_mut(..len) {
        Some(to) => to.copy_from_slice(&result),
        None => guest.call.unread = result,
    }
    Ok(i64::try_from(len).expect("a value or a page is a few megabytes at most"))
}

fn result_read(guest: &mut Guest<'_>, to: Span, off: u32) -> Result<(), Stop> {
    guest.begun()?;
    guest.meter.charge(cost::RESULT_READ.call + cost::RESULT_READ.byte * to.bytes())?;
    input::copy_out(guest.memory, to, &guest.call.unread, off, "the last result")
}

fn put(guest: &mut Guest<'_>, key: Span, value: Span) -> Result<(), Stop> {
    may_write(guest, "put")?;
    guest.meter.charge(cost::PUT.call + cost::PUT.byte * (key.bytes() + value.bytes()))?;
    let (key, value) = (key.of(guest.memory)?, value.of(guest.memory)?);
    check_key(key)?;
    if value.len() > STORED_VALUE_BYTES_MAX {
        let bytes = value.len();
        return Err(too_large(format!("put: a value of {bytes} bytes; at most {STORED_VALUE_BYTES_MAX} are stored")));
    }
    guest.call.written.charge((key.len() + value.len()) as u64)?;
    Ok(guest.call.state.put(key, value)?)
}

fn delete(guest: &mut Guest<'_>, key: Span) -> Result<u32, Stop> {
    may_write(guest, "delete")?;
    guest.meter.charge(cost::DELETE.call + cost::DELETE.byte * key.bytes())?;
    let key = key.of(guest.memory)?;
    check_key(key)?;
    guest.call.written.charge(key.len() as u64)?;
    Ok(guest.call.state.delete(key)?.into())
}

fn may_write(guest: &Guest<'_>, what: &str) -> Result<(), Stop> {
    guest.begun()?;
    if guest.call.writable {
        return Ok(());
    }
    Err(Stop::trap(TrapClass::WriteInQuery, format!("{what}: a query can't write; make the method a command")))
}

fn check_key(key: &[u8]) -> Result<(), Stop> {
    if is_key(key) {
        return Ok(());
    }
    Err(too_large(format!("a key of {} bytes; 1 to {STORED_KEY_BYTES_MAX} are stored", key.len())))
}

fn too_large(detail: String) -> Stop {
    Stop::trap(TrapClass::TooLarge, detail)
}

/// The arguments of `scan`.
struct Asked {
    start: Span,
    end: Span,
    flags: u32,
    limit: u32,
    budget: u32,
}

fn scan(guest: &mut Guest<'_>, asked: &Asked, buf: Span) -> Result<i64, Stop> {
    guest.begun()?;
    let range_bytes = asked.start.bytes() + asked.end.bytes();
    guest.meter.charge(cost::SCAN.call + cost::SCAN.byte * range_bytes)?;
    buf.of(guest.memory)?;
    let range = range(guest.memory, asked)?;
    let mut page = Page::new(asked);
    if range.end.as_ref().is_none_or(|end| range.start < *end) {
        let (state, meter) = (&mut guest.call.state, &mut guest.meter);
        let mut spent = None;
        state.scan(&range, &mut |key, value| match charge_row(meter, key, value, page.keys_only) {
            Ok(()) => page.offer(key, value),
            Err(stop) => {
                spent = Some(stop);
                ControlFlow::Break(())
            }
        })?;
        if let Some(stop) = spent {
            return Err(stop);
        }
    }
    // Its bytes were charged row by row.
    deliver(guest, page.finish(), buf, 0)
}

fn charge_row(meter: &mut Meter, key: &[u8], value: &[u8], keys_only: bool) -> Result<(), Stop> {
    let bytes = key.len() + if keys_only { 0 } else { value.len() };
    meter.charge(cost::SCAN.row + cost::SCAN.byte * bytes as u64)
}

fn range(memory: &[u8], asked: &Asked) -> Result<ScanRange, Stop> {
    if asked.flags & !(REVERSE | KEYS_ONLY | NO_END) != 0 {
        return Err(bad_host_call(format!("scan: flags {:#x} are not known; 1, 2 and 4 are", asked.flags)));
    }
    let (start, end) = (asked.start.of(memory)?.to_vec(), asked.end.of(memory)?.to_vec());
    let end = (asked.flags & NO_END == 0).then_some(end);
    Ok(ScanRange { start, end, reverse: asked.flags & REVERSE != 0 })
}

/// A page under construction: `u32 count, u8 more`, then for each item `u32 length, key, u32 length, value`; little-endian.
struct Page {
    bytes: Vec<u8>,
    count: u32,
    more: bool,
    keys_only: bool,
    items_max: u32,
    bytes_max: usize,
}

impl Page {
    fn new(asked: &Asked) -> Self {
        Self {
            bytes: vec![0; PAGE_HEADER_BYTES],
            count: 0,
            more: false,
            keys_only: asked.flags & KEYS_ONLY != 0,
            items_max: asked.limit.min(SCAN_ITEMS_MAX as u32),
            bytes_max: (asked.budget as usize).min(SCAN_BYTES_MAX),
        }
    }

    /// Takes the item, or notes that there is more than fits. The first always fits, so that a guest that pages gets on.
    fn offer(&mut self, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        let value = if self.keys_only { &[] } else { value };
        let grown = self.bytes.len() + ITEM_HEADER_BYTES + key.len() + value.len();
        if self.count == self.items_max || (self.count > 0 && grown > self.bytes_max) {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.count += 1;
        for part in [key, value] {
            let len = u32::try_from(part.len()).expect("keys and values are bounded far below 4 GiB");
            self.bytes.extend_from_slice(&len.to_le_bytes());
            self.bytes.extend_from_slice(part);
        }
        ControlFlow::Continue(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[..4].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[4] = self.more.into();
        self.bytes
    }
}
