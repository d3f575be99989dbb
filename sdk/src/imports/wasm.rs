//! The imports of ABI 1.
//!
//! All of the SDK's `unsafe` is here. Each call passes pointers and lengths of memory that the caller owns or borrows for
//! the duration of the call, and the host keeps none of them: an import returns before the guest goes on, and there is one
//! thread. The host writes only into `[pointer, pointer + length)` (or `+ capacity`), and traps if that is outside memory.
#![allow(unsafe_code)]

use std::panic::PanicHookInfo;

use prost::bytes::Bytes;

use crate::context::Context;
use crate::limits::SCAN_BYTES_MAX;
use crate::log::Level;
use crate::private::{Init, Migrate};
use crate::scan::{Page, Range, items_max};
use crate::service::Reply;
use crate::status::Status;
use crate::version::Version;

mod raw {
    #[link(wasm_import_module = "balsa_v1")]
    unsafe extern "C" {
        pub(super) fn input_read(buffer: *mut u8, offset: u32, len: u32);
        pub(super) fn output(bytes: *const u8, len: u32);
        pub(super) fn get(key: *const u8, key_len: u32, buffer: *mut u8, capacity: u32) -> i64;
        pub(super) fn result_read(buffer: *mut u8, offset: u32, len: u32);
        pub(super) fn put(key: *const u8, key_len: u32, value: *const u8, value_len: u32);
        pub(super) fn delete(key: *const u8, key_len: u32) -> i32;
        pub(super) fn scan(
            start: *const u8,
            start_len: u32,
            end: *const u8,
            end_len: u32,
            flags: u32,
            limit: u32,
            budget: u32,
            buffer: *mut u8,
            capacity: u32,
        ) -> i64;
        pub(super) fn context(buffer: *mut u8, capacity: u32) -> u32;
        pub(super) fn log(level: u32, text: *const u8, len: u32);
        pub(super) fn panic(text: *const u8, len: u32);
    }
}

/// What a `get` or `scan` is ready to take at once. Values are mostly smaller, and cost one crossing then; longer ones cost
/// a second.
const GUESS_BYTES: usize = 1024;

const REVERSE: u32 = 1;
const KEYS_ONLY: u32 = 2;
const NO_END: u32 = 4;

/// `balsa_call`: reads the input, runs `dispatch` and hands its result to the host.
pub fn enter(method: u32, input_len: u32, dispatch: fn(&mut Context, u32, Bytes) -> Result<Reply, Status>) -> u32 {
    report_panics();
    reply(dispatch(&mut call_context(), method, input(input_len)))
}

/// `balsa_init`: runs `init` on the empty state.
pub fn enter_init(init: Init) -> u32 {
    report_panics();
    transition(init(&mut call_context()))
}

/// `balsa_migrate`: the input is the version of the module before.
pub fn enter_migrate(from_len: u32, migrate: Migrate) -> u32 {
    report_panics();
    let from = Version::read(&String::from_utf8_lossy(&input(from_len)));
    transition(migrate(&mut call_context(), from))
}

/// Hands over why not; a transition that succeeds has nothing to say.
pub fn transition(result: Result<(), Status>) -> u32 {
    result.map_or_else(|status| reply(Err(status)), |()| 0)
}

/// The context of the one call of this instance.
pub fn call_context() -> Context {
    Context::new()
}

/// Hands the result of the call to the host; its code.
pub fn reply(result: Result<Reply, Status>) -> u32 {
    let (code, bytes) = match result {
        Ok(Reply::Message(response)) => (0, response),
        Ok(Reply::Streamed) => return 0,
        Err(status) => (status.code() as u32, status.encode()),
    };
    output(&bytes);
    // The instance ends with the call; giving the memory back would be work for nobody.
    std::mem::forget(bytes);
    code
}

/// Hands over a result, or a message of a stream.
pub(crate) fn output(bytes: &[u8]) {
    // SAFETY: the slice is borrowed for the call, and the host only reads it.
    unsafe { raw::output(bytes.as_ptr(), bytes.len() as u32) };
}

/// From here on, a panic is told to the host before it becomes a trap.
pub fn report_panics() {
    std::panic::set_hook(Box::new(report_panic));
}

/// The input of the call, which has this length.
pub fn input(len: u32) -> Bytes {
    let mut input = Vec::with_capacity(len as usize);
    // SAFETY: the capacity is at least `len`, and the host either writes all `len` bytes or traps.
    unsafe {
        raw::input_read(input.as_mut_ptr(), 0, len);
        input.set_len(len as usize);
    }
    input.into()
}

fn report_panic(info: &PanicHookInfo<'_>) {
    let text = info.to_string();
    // SAFETY: `text` is alive and initialised for its length.
    unsafe { raw::panic(text.as_ptr(), text.len() as u32) };
}

pub(crate) fn get(key: &[u8]) -> Option<Vec<u8>> {
    get_head(key, usize::MAX)
}

pub(crate) fn get_head(key: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(GUESS_BYTES);
    // SAFETY: `key` is borrowed for the call, and the host writes no more than the capacity it is given.
    let len = unsafe { raw::get(key.as_ptr(), key.len() as u32, value.as_mut_ptr(), GUESS_BYTES as u32) };
    let len = usize::try_from(len).ok()?;
    // SAFETY: the host has just returned this length for this buffer.
    unsafe { take_result(&mut value, len, max) };
    Some(value)
}

/// Makes `buffer` hold the first `max` bytes of the result of the import that was just called, or all of it.
///
/// # Safety
/// That import was given the buffer's pointer and a capacity of [`GUESS_BYTES`], which the buffer has, and it returned
/// `len`: so the buffer holds `len` bytes if they fit, and the host holds them for `result_read` if not.
unsafe fn take_result(buffer: &mut Vec<u8>, len: usize, max: usize) {
    let wanted = len.min(max);
    if len > GUESS_BYTES {
        buffer.reserve_exact(wanted);
        // SAFETY: there is room for `wanted` bytes now, no more than the result has, and the host writes all or traps.
        unsafe { raw::result_read(buffer.as_mut_ptr(), 0, wanted as u32) };
    }
    // SAFETY: `wanted` bytes are initialised, by the import or by `result_read`.
    unsafe { buffer.set_len(wanted) };
}

pub(crate) fn put(key: &[u8], value: &[u8]) {
    // SAFETY: both slices are borrowed for the call, and the host only reads them.
    unsafe { raw::put(key.as_ptr(), key.len() as u32, value.as_ptr(), value.len() as u32) };
}

pub(crate) fn delete(key: &[u8]) -> bool {
    // SAFETY: the slice is borrowed for the call, and the host only reads it.
    unsafe { raw::delete(key.as_ptr(), key.len() as u32) != 0 }
}

pub(crate) fn scan(range: &Range) -> Page {
    let end = range.end.as_deref();
    let flags = if range.reverse { REVERSE } else { 0 }
        | if range.keys_only { KEYS_ONLY } else { 0 }
        | if end.is_none() { NO_END } else { 0 };
    let end = end.unwrap_or_default();
    let limit = items_max(range) as u32;
    let mut page = Vec::with_capacity(GUESS_BYTES);
    // SAFETY: the slices are borrowed for the call, and the host writes no more than the capacity it is given.
    let len = unsafe {
        raw::scan(
            range.start.as_ptr(),
            range.start.len() as u32,
            end.as_ptr(),
            end.len() as u32,
            flags,
            limit,
            range.page_bytes.min(SCAN_BYTES_MAX as u32),
            page.as_mut_ptr(),
            GUESS_BYTES as u32,
        )
    };
    // SAFETY: the host has just returned this length for this buffer.
    unsafe { take_result(&mut page, len as usize, usize::MAX) };
    Page::new(page)
}

pub(crate) fn index_and_time() -> (u64, u64) {
    let bytes = context::<16>();
    let (words, _) = bytes.as_chunks();
    (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]))
}

pub(crate) fn random() -> [u8; 32] {
    let bytes = context::<48>();
    *bytes.last_chunk().expect("48 bytes have a last 32")
}

fn context<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: the host writes no more than the capacity it is given.
    unsafe { raw::context(bytes.as_mut_ptr(), N as u32) };
    bytes
}

pub(crate) fn log(level: Level, text: &str) {
    // SAFETY: the text is borrowed for the call, and the host only reads it.
    unsafe { raw::log(level as u32, text.as_ptr(), text.len() as u32) };
}
