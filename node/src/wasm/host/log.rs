//! What a guest says to people: log lines, standard output and error, and the message of a panic.
//!
//! Lines are collected and handed to the caller with the outcome; nothing here decides whether anyone reads them. They are
//! not part of the outcome, but what they may cost is bounded like everything else.

use wasmtime::{Caller, Linker};

use super::{ABI, Guest, Span, bad_host_call, cost, host};
use crate::wasm::call::{CallState, LogLine};
use crate::wasm::outcome::Stop;

/// A line is cut here.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// Lines kept of one call; later ones are dropped.
const LINES_MAX: usize = 64;
/// Level of what goes to standard output.
const STDOUT_LEVEL: u32 = 3;
/// Level of what goes to standard error.
const STDERR_LEVEL: u32 = 2;

pub(super) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.func_wrap(ABI, "log", |mut caller: Caller<'_, CallState>, level: u32, ptr: u32, len: u32| {
        host(&mut caller, |guest| log(guest, level, Span::new(ptr, len)))
    })?;
    linker.func_wrap(ABI, "panic", |mut caller: Caller<'_, CallState>, ptr: u32, len: u32| {
        host(&mut caller, |guest| panic(guest, Span::new(ptr, len)))
    })?;
    Ok(())
}

fn log(guest: &mut Guest<'_>, level: u32, text: Span) -> Result<(), Stop> {
    guest.meter.charge(cost::LOG.call + cost::LOG.byte * text.bytes())?;
    if !(1..=5).contains(&level) {
        return Err(bad_host_call(format!("log: level {level} is not known; 1 (error) to 5 (trace) are")));
    }
    let text = text.of(guest.memory)?;
    guest.call.logs.line(level, text);
    Ok(())
}

/// Keeps the message; the guest traps next, by itself. The first of several counts: it is the cause.
fn panic(guest: &mut Guest<'_>, text: Span) -> Result<(), Stop> {
    guest.meter.charge(cost::PANIC.call + cost::PANIC.byte * text.bytes())?;
    let text = text.of(guest.memory)?;
    guest.call.panic.get_or_insert_with(|| lossy(text));
    Ok(())
}

/// What was said so far.
#[derive(Default)]
pub(in crate::wasm) struct Logs {
    lines: Vec<LogLine>,
    /// Standard output and error up to their next newline: writers hand lines over in pieces.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Logs {
    fn line(&mut self, level: u32, text: &[u8]) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(LogLine { level, text: lossy(text) });
        }
    }

    /// Bytes for standard output, or error.
    pub(super) fn write(&mut self, error: bool, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.piece(error, &bytes[..end]);
            self.end_line(error);
            bytes = &bytes[end + 1..];
        }
        self.piece(error, bytes);
    }

    fn piece(&mut self, error: bool, bytes: &[u8]) {
        let line = if error { &mut self.stderr } else { &mut self.stdout };
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, error: bool) {
        let (level, line) = match error {
            true => (STDERR_LEVEL, std::mem::take(&mut self.stderr)),
            false => (STDOUT_LEVEL, std::mem::take(&mut self.stdout)),
        };
        self.line(level, &line);
    }

    /// All lines, unfinished ones last.
    pub(in crate::wasm) fn into_lines(mut self) -> Vec<LogLine> {
        for error in [false, true] {
            let unfinished = if error { !self.stderr.is_empty() } else { !self.stdout.is_empty() };
            if unfinished {
                self.end_line(error);
            }
        }
        self.lines
    }
}

fn lossy(text: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&text[..text.len().min(LINE_BYTES_MAX)]).into_owned();
    text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
    text
}
