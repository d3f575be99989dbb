//! One call on one fresh instance.

use std::any::Any;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

use bytes::Bytes;
use wasmtime::{Extern, Instance, Memory, ModuleExport, ResourceLimiter, Store};

use super::check::Rejection;
use super::engine::TABLE_ELEMENTS_MAX;
use super::host::log::Logs;
use super::host::random::Random;
use super::module::{Method, MethodKind, Module};
use super::outcome::{self, Circumstances, Cut, Export, HostFault, Stop, Stopped};
use super::stack;
use super::stream::Output;
use crate::command::{GuestStatus, Outcome, TrapClass};
use crate::measure::{RunMeter, Span, Stopwatch};

/// Fuel of the run that finds out whether a module starts: far more than constructors need.
const START_UP_FUEL: u64 = 10_000_000;
/// Bytes of a trap's text: it travels in a header.
const DETAIL_BYTES_MAX: usize = 4 * 1024;
/// gRPC's code for a call that its client gave up.
const CANCELLED: u32 = 1;
/// gRPC's code for a deadline that has passed.
const DEADLINE_EXCEEDED: u32 = 4;

/// A module's state, as one call sees it: an overlay of its writes over what was there before.
///
/// Keys are the module's own; the owner of the state prefixes them. An error is a host fault: a guest can't cause one.
pub trait State: Any + Send {
    /// The value at `key`.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, HostFault>;
    /// Sets the value at `key`.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), HostFault>;
    /// Removes `key`; whether it was there.
    fn delete(&mut self, key: &[u8]) -> Result<bool, HostFault>;
    /// Visits what is in `range`, in its order, until `visit` breaks. The call's own writes are seen.
    fn scan(&mut self, range: &ScanRange, visit: Visit<'_>) -> Result<(), HostFault>;
}

/// What a scan does with a key and its value, until it has had enough.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Keys from `start`, up to `end` and without it. The host never asks for a range whose start is not before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRange {
    /// The first key that may be in it.
    pub start: Vec<u8>,
    /// The first key after it; `None`: to the last key there is.
    pub end: Option<Vec<u8>>,
    /// Descending.
    pub reverse: bool,
}

/// What a call knows of the world beside its input and its state; the same on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Log index of the entry, or that a query reads at.
    pub index: u64,
    /// Log time, milliseconds since 1970.
    pub time_ms: u64,
    /// Seeds everything random. Not secret.
    pub random: [u8; 32],
}

/// What to run.
#[derive(Debug)]
pub struct Call<'a> {
    /// One of the module's own methods. Its kind decides whether writes are allowed and whose slots are used.
    pub method: &'a Method,
    /// The encoded request message.
    pub input: Bytes,
    /// See there.
    pub context: Context,
    /// Fuel for all of it: instantiation, constructors, the call, and what the host does for it.
    pub fuel: u64,
    /// Linear memory it may grow to, bytes.
    pub memory_bytes: u64,
    /// When nobody waits any more. For queries only; ignored for a command, whose outcome may not depend on a clock.
    pub deadline: Option<Instant>,
}

/// How a call went.
pub struct Finished {
    /// The outcome; never [`Outcome::Refused`]. A query that was cut short ends in a status; `cut` tells it from the module's.
    pub outcome: Outcome,
    /// Why a query was not brought to its end. Always absent from a command.
    pub cut: Option<Cut>,
    /// Fuel it used. After a trap in the guest's own code, what it used up to the call, return or loop before that.
    pub fuel_used: u64,
    /// Linear memory that it had at its end, bytes.
    pub memory_bytes: u64,
    /// When it ran. This node's alone, and for people: no result may depend on it.
    pub took: Span,
    /// What the author wants to know about a trap. This node's: never replicated.
    pub trap_detail: Option<String>,
    /// What it logged. This node's too.
    pub logs: Vec<LogLine>,
    /// Puts and deletes that it made, each counted even if it was the same key again.
    pub writes: u64,
    /// Bytes of the keys and values of those.
    pub written_bytes: u64,
    /// The state it was given. After anything but [`Outcome::Ok`] its writes are to be thrown away.
    pub state: Box<dyn State>,
}

/// A line that a guest logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
    /// At most 4 KiB.
    pub text: String,
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finished")
            .field("outcome", &self.outcome)
            .field("cut", &self.cut)
            .field("fuel_used", &self.fuel_used)
            .field("trap_detail", &self.trap_detail)
            .field("logs", &self.logs)
            .field("writes", &self.writes)
            .field("written_bytes", &self.written_bytes)
            .finish_non_exhaustive()
    }
}

/// What host functions work on: wasmtime hands it to them.
pub(super) struct CallState {
    pub(super) state: Box<dyn State>,
    pub(super) input: Bytes,
    pub(super) context: Context,
    pub(super) writable: bool,
    pub(super) written: Written,
    /// `balsa_call` has begun. Before, in constructors, there is no input, no state and no output.
    pub(super) begun: bool,
    pub(super) deadline: Option<Instant>,
    pub(super) instance: Option<Instance>,
    pub(super) memory: Option<Memory>,
    pub(super) output: Output,
    /// The last result of `get` or `scan` that did not fit the guest's buffer.
    pub(super) unread: Vec<u8>,
    pub(super) random: Random,
    pub(super) logs: Logs,
    pub(super) panic: Option<String>,
    pub(super) growth: Growth,
}

/// What to run, whoever asked for it: a [`Call`] or a [`Transition`](super::Transition).
pub(super) struct Run {
    pub(super) entry: Entry,
    pub(super) input: Bytes,
    pub(super) context: Context,
    pub(super) fuel: u64,
    pub(super) memory_bytes: u64,
    pub(super) access: Access,
    pub(super) output: Output,
}

/// Which export, and what it is called with; the input's length comes by itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Call { method: u32 },
    Init,
    Migrate,
}

/// What may be done with the state.
pub(super) enum Access {
    Read { deadline: Option<Instant> },
    Write { writes_max: u64, bytes_max: u64 },
}

impl Access {
    /// A command's: fuel and the limits of keys and values bound it.
    const COMMAND: Self = Self::Write { writes_max: u64::MAX, bytes_max: u64::MAX };
}

impl Entry {
    fn export(self, output: &Output) -> Export {
        match self {
            Self::Call { .. } if output.is_stream() => Export::Stream,
            Self::Call { .. } => Export::Call,
            Self::Init => Export::Init,
            Self::Migrate => Export::Migrate,
        }
    }
}

impl CallState {
    fn new(run: Run, state: Box<dyn State>) -> Self {
        let (deadline, written) = match run.access {
            Access::Read { deadline } => (deadline, Written::default()),
            Access::Write { writes_max, bytes_max } => (None, Written { writes_max, bytes_max, ..Written::default() }),
        };
        Self {
            state,
            input: run.input,
            context: run.context,
            writable: matches!(run.access, Access::Write { .. }),
            written,
            begun: false,
            deadline,
            instance: None,
            memory: None,
            output: run.output,
            unread: Vec::new(),
            random: Random::new(run.context.random),
            logs: Logs::default(),
            panic: None,
            growth: Growth { memory_bytes: usize::try_from(run.memory_bytes).unwrap_or(usize::MAX), denied: false },
        }
    }
}

/// What was written, and how much may be.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    pub(super) writes: u64,
    pub(super) bytes: u64,
    writes_max: u64,
    bytes_max: u64,
}

impl Written {
    /// Counts one write of as many bytes, before it is made.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Stop> {
        let Self { writes_max, bytes_max, .. } = *self;
        if self.writes >= writes_max {
            return Err(write_limit(format!("more than {writes_max} puts and deletes; {MEND}")));
        }
        if bytes > bytes_max - self.bytes {
            return Err(write_limit(format!("more than {bytes_max} bytes of keys and values; {MEND}")));
        }
        self.writes += 1;
        self.bytes += bytes;
        Ok(())
    }
}

/// What an author can do about a migration that is too large.
const MEND: &str = "change the rest when it is next read, by a version in each value";

fn write_limit(detail: String) -> Stop {
    Stop::trap(TrapClass::WriteLimit, detail)
}

/// How far memory and tables may grow.
///
/// Beyond the limit the guest gets -1, the same everywhere. Within it the host must deliver: when it can't, this node is at
/// fault and the guest never learns of it.
pub(super) struct Growth {
    memory_bytes: usize,
    denied: bool,
}

impl Growth {
    fn allow(&mut self, allowed: bool) -> wasmtime::Result<bool> {
        self.denied |= !allowed;
        Ok(allowed)
    }

    fn failed(error: &wasmtime::Error) -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(Stop::Fault(HostFault(format!("memory for a module cannot be had: {error:#}")))))
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, _current: usize, desired: usize, declared: Option<usize>) -> wasmtime::Result<bool> {
        self.allow(desired <= self.memory_bytes && declared.is_none_or(|declared| desired <= declared))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Self::failed(&error)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, declared: Option<usize>) -> wasmtime::Result<bool> {
        self.allow(desired <= TABLE_ELEMENTS_MAX && declared.is_none_or(|declared| desired <= declared))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Self::failed(&error)
    }
}

impl Module {
    /// Runs one method on a fresh instance. One that answers with a stream is run by [`Module::stream`] instead.
    pub fn call(&self, call: Call<'_>, state: Box<dyn State>) -> Result<Finished, HostFault> {
        let access = match call.method.kind {
            MethodKind::Command => Access::COMMAND,
            MethodKind::Query => Access::Read { deadline: call.deadline },
        };
        let (entry, meter) = (Entry::Call { method: call.method.index }, self.meter(call.method));
        let Call { input, context, fuel, memory_bytes, .. } = call;
        let run = Run { entry, input, context, fuel, memory_bytes, access, output: Output::default() };
        let finished = self.run(run, state)?;
        meter.time.took(finished.took.elapsed());
        finished.measure(meter);
        Ok(finished)
    }

    /// Runs one export on a fresh instance.
    pub(super) fn run(&self, run: Run, state: Box<dyn State>) -> Result<Finished, HostFault> {
        if run.memory_bytes > self.engine.shared.memory_bytes_max {
            let (asked, reserved) = (run.memory_bytes, self.engine.shared.memory_bytes_max);
            return Err(HostFault(format!("a call may use {asked} bytes of memory, but slots have only {reserved}")));
        }
        let (shared, export) = (&self.engine.shared, run.entry.export(&run.output));
        let slots = match (&run.access, export) {
            (Access::Write { .. }, _) => &shared.commands,
            (Access::Read { .. }, Export::Stream) => &shared.streams,
            (Access::Read { .. }, _) => &shared.queries,
        };
        let (fuel, entry) = (run.fuel, run.entry);
        let call = CallState::new(run, state);
        let Some(_slot) = slots.take(call.deadline) else {
            return Ok(Finished::cut(call, 0, Cut::Deadline));
        };
        let watch = Stopwatch::start();
        let mut store = self.store(call, fuel)?;
        let result = self.enter(&mut store, entry);
        let took = watch.stop();
        let memory = store.data().memory;
        let memory_bytes = memory.map_or(0, |memory| memory.data_size(&store) as u64);
        let finished = self.finish(store, fuel, export, result)?;
        Ok(Finished { memory_bytes, took, ..finished })
    }

    /// Makes an instance and runs what runs before a call, to find out at load whether that works.
    pub(super) fn start_up(&self) -> Result<(), Rejection> {
        let run = Run {
            entry: Entry::Init,
            input: Bytes::new(),
            context: Context { index: 0, time_ms: 0, random: [0; 32] },
            fuel: START_UP_FUEL,
            memory_bytes: self.engine.shared.memory_bytes_max,
            access: Access::Read { deadline: None },
            output: Output::default(),
        };
        let _slot = self.engine.shared.start_ups.take(None);
        let mut store = self.store(CallState::new(run, Box::new(Empty)), START_UP_FUEL)?;
        match self.start(&mut store) {
            Ok(_) => Ok(()),
            Err(error) => match self.stopped(&mut store, &error).stop {
                Stop::Fault(fault) => Err(fault.into()),
                stop => Err(Rejection::Start { why: stop.to_string() }),
            },
        }
    }

    fn store(&self, call: CallState, fuel: u64) -> Result<Store<CallState>, HostFault> {
        let mut store = Store::try_new(&self.engine.shared.wasmtime, call)
            .map_err(|error| HostFault(format!("wasm: {error:#}")))?;
        store.limiter(|call| &mut call.growth);
        store.set_fuel(fuel).expect("the engine counts fuel");
        Ok(store)
    }

    /// Everything before the call itself. A start section, if any, runs inside `instantiate`.
    fn start(&self, store: &mut Store<CallState>) -> wasmtime::Result<Instance> {
        let instance = self.compiled.instance.instantiate(&mut *store)?;
        let Some(Extern::Memory(memory)) = instance.get_module_export(&mut *store, &self.compiled.exports.memory)
        else {
            unreachable!("checked: `memory` is a memory")
        };
        store.data_mut().memory = Some(memory);
        store.data_mut().instance = Some(instance);
        if let Some(initialize) = &self.compiled.exports.initialize {
            function(store, &instance, initialize).typed::<(), ()>(&*store)?.call(&mut *store, ())?;
        }
        Ok(instance)
    }

    fn enter(&self, store: &mut Store<CallState>, entry: Entry) -> wasmtime::Result<u32> {
        let instance = self.start(store)?;
        store.data_mut().begun = true;
        let exports = &self.compiled.exports;
        let input_len = u32::try_from(store.data().input.len()).expect("requests are bounded far below 4 GiB");
        match (entry, &exports.init, &exports.migrate) {
            (Entry::Call { method }, ..) => {
                let call = function(store, &instance, &exports.call).typed::<(u32, u32), u32>(&*store)?;
                call.call(store, (method, input_len))
            }
            (Entry::Init, Some(init), _) => function(store, &instance, init).typed::<(), u32>(&*store)?.call(store, ()),
            (Entry::Migrate, _, Some(migrate)) => {
                function(store, &instance, migrate).typed::<u32, u32>(&*store)?.call(store, input_len)
            }
            (Entry::Init, None, _) | (Entry::Migrate, _, None) => unreachable!("`transition` asks for what there is"),
        }
    }

    fn finish(
        &self,
        mut store: Store<CallState>,
        fuel: u64,
        export: Export,
        result: wasmtime::Result<u32>,
    ) -> Result<Finished, HostFault> {
        let fuel_used = fuel - store.get_fuel().expect("the engine counts fuel");
        let ended = match result {
            Ok(code) => returned(export, code, &mut store.data_mut().output)
                .map_err(|stop| Stopped { stop, backtrace: String::new() }),
            Err(error) => Err(self.stopped(&mut store, &error)),
        };
        let mut call = store.into_data();
        if matches!(ended, Err(Stopped { stop: Stop::Trap { .. }, .. })) {
            // Whether anybody still takes it changes nothing.
            let _ = call.output.flush();
        }
        match ended {
            Ok(outcome) => Ok(Finished::new(call, outcome, fuel_used, None)),
            Err(Stopped { stop: Stop::Fault(fault), .. }) => Err(fault),
            Err(Stopped { stop: Stop::Cut(cut), .. }) => Ok(Finished::cut(call, fuel_used, cut)),
            Err(Stopped { stop: Stop::Trap { class, detail }, backtrace }) => {
                let detail = describe(call.panic.as_deref(), &detail, &backtrace);
                Ok(Finished::new(call, Outcome::Trap(class), fuel_used, Some(detail)))
            }
        }
    }

    fn stopped(&self, store: &mut Store<CallState>, error: &wasmtime::Error) -> Stopped {
        let growth_denied = store.data().growth.denied;
        outcome::stopped(error, Circumstances { growth_denied, stack_spent: self.stack_spent(store) })
    }

    /// Whether the counter of `stack.rs` ran out. A start section has no
    /// instance to ask yet; what overflows there is `Unreachable`, everywhere.
    fn stack_spent(&self, store: &mut Store<CallState>) -> bool {
        let Some(instance) = store.data().instance else { return false };
        match instance.get_module_export(&mut *store, &self.compiled.exports.stack) {
            Some(Extern::Global(left)) => left.get(&mut *store).i32() == Some(stack::SPENT),
            _ => unreachable!("added by `stack`: a global"),
        }
    }
}

/// What a call came to. The last message of a stream is held back until the code says that it is one, and not a status.
fn returned(export: Export, code: u32, output: &mut Output) -> Result<Outcome, Stop> {
    if export == Export::Stream && code == 0 {
        output.flush()?;
    }
    outcome::returned(export, code, output.take())
}

fn function(store: &mut Store<CallState>, instance: &Instance, export: &ModuleExport) -> wasmtime::Func {
    match instance.get_module_export(store, export) {
        Some(Extern::Func(function)) => function,
        _ => unreachable!("checked: it is a function"),
    }
}

impl Finished {
    fn new(call: CallState, outcome: Outcome, fuel_used: u64, trap_detail: Option<String>) -> Self {
        Self {
            outcome,
            cut: None,
            fuel_used,
            memory_bytes: 0,
            took: Stopwatch::start().stop(),
            trap_detail,
            logs: call.logs.into_lines(),
            writes: call.written.writes,
            written_bytes: call.written.bytes,
            state: call.state,
        }
    }

    /// Adds what it used to its method's.
    pub(super) fn measure(&self, meter: &RunMeter) {
        meter.fuel.observe(self.fuel_used);
        meter.memory.observe(self.memory_bytes);
    }

    /// A success that nothing had to be run for.
    pub(super) fn nothing(state: Box<dyn State>) -> Self {
        let outcome = Outcome::Ok(Bytes::new());
        let (logs, trap_detail) = (Vec::new(), None);
        let took = Stopwatch::start().stop();
        Self {
            outcome,
            cut: None,
            fuel_used: 0,
            memory_bytes: 0,
            took,
            trap_detail,
            logs,
            writes: 0,
            written_bytes: 0,
            state,
        }
    }

    fn cut(call: CallState, fuel_used: u64, cut: Cut) -> Self {
        let code = match cut {
            Cut::Deadline => DEADLINE_EXCEEDED,
            Cut::Unwanted => CANCELLED,
        };
        let status = GuestStatus { code, message: cut.to_string(), details: Bytes::new() };
        Self { cut: Some(cut), ..Self::new(call, Outcome::Status(status), fuel_used, None) }
    }
}

/// A trap's text: what the guest said, what the host saw, and where.
fn describe(panic: Option<&str>, detail: &str, backtrace: &str) -> String {
    let mut text = panic.map(|panic| format!("{panic}\n")).unwrap_or_default();
    text.push_str(detail);
    if !backtrace.is_empty() {
        text.push('\n');
        text.push_str(backtrace.trim_end());
    }
    text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
    text
}

/// No state: what a start-up run sees. Host functions refuse it access to any before they get here.
struct Empty;

impl State for Empty {
    fn get(&mut self, _key: &[u8]) -> Result<Option<Vec<u8>>, HostFault> {
        Ok(None)
    }

    fn put(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), HostFault> {
        Ok(())
    }

    fn delete(&mut self, _key: &[u8]) -> Result<bool, HostFault> {
        Ok(false)
    }

    fn scan(&mut self, _range: &ScanRange, _visit: Visit<'_>) -> Result<(), HostFault> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_that_the_host_can_not_deliver_is_a_host_fault() {
        let mut growth = Growth { memory_bytes: 100, denied: false };
        assert!(growth.memory_growing(0, 100, None).unwrap());
        let error = growth.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap_err();
        let stopped = outcome::stopped(&error, Circumstances::default());
        assert_eq!(stopped.stop, Stop::Fault(HostFault("memory for a module cannot be had: no memory".into())));
    }

    #[test]
    fn growth_beyond_the_limit_or_the_declared_maximum_is_denied_and_remembered() {
        let mut growth = Growth { memory_bytes: 100, denied: false };
        assert!(growth.memory_growing(0, 50, Some(50)).unwrap() && !growth.denied);
        assert!(!growth.memory_growing(0, 51, Some(50)).unwrap() && growth.denied);
        assert!(!growth.memory_growing(0, 101, None).unwrap());
    }

    #[test]
    fn a_traps_text_is_cut_between_characters() {
        let text = describe(Some(&"\u{e4}".repeat(3_000)), "detail", "");
        assert_eq!(text.len(), DETAIL_BYTES_MAX);
    }
}
