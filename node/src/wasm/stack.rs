//! Bounds recursion by counting, so that a call overflows at the same depth on every machine.
//!
//! wasmtime's own bound, `max_wasm_stack`, counts native bytes: how deep a guest gets depends on how the compiler for this CPU
//! laid out its frames. A command that recurses to just that depth would succeed on one replica and trap on another. So before
//! compilation a module is rewritten to keep account itself, in a global that its own code can't name:
//!
//! ```text
//! func f (params) (results)            func f (params) (results)
//!   body                                 if left < cost(f): left = SPENT; unreachable
//! end                         ─▶         left -= cost(f)
//!                                        block (results)
//!                                          body, with `return` turned into a branch to the end of this block
//!                                        end
//!                                        left += cost(f)
//!                                      end
//! ```
//!
//! A branch to the function's own label becomes a branch to that block without being touched, since the block takes the very
//! place that the function's label had. Tail calls would leave without giving back; they are switched off.
//!
//! `cost(f)` is a deterministic guess at the native frame, in slots of 8 bytes: its parameters and locals, the most operands it
//! ever holds, one for every eight instructions (a compiler may keep a value that it hoisted out of a loop or found twice), and
//! a constant for what every frame has. It need not be right, only never four times too low: the native stack is four times
//! [`SLOTS`]. Running into that bound is a host fault. A function that calls nothing is not counted if it is small, since
//! only one of them can be on the stack at a time.

use std::convert::Infallible;

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType,
    Instruction, SectionId, TypeSection, ValType,
};
use wasmparser::{
    CustomSectionReader, ExportSectionReader, FuncValidator, FunctionBody, FunctionSectionReader, GlobalSectionReader,
    Operator, OperatorsReader, TypeSectionReader, ValidatorResources,
};

use super::engine::{FEATURES, NATIVE_STACK_BYTES_MAX};

/// The budget of a call, in slots of 8 bytes: half a megabyte, or some 2 000 frames of small functions. Guests compiled by
/// Rust also have a stack in linear memory (64 KiB by our build script) and often run out of that first.
pub(super) const SLOTS: u32 = 64 * 1024;
/// What the global holds once the budget has been overrun. It can't get there by counting.
pub(super) const SPENT: i32 = -1;
/// The global's export. `check` refuses modules that use the name themselves.
pub(super) const EXPORT: &str = "balsa:stack";

/// Return address, frame pointer, callee-saved registers, outgoing arguments.
const FRAME_SLOTS: u32 = 24;
/// Instructions per slot of values that the compiler alone keeps.
const INSTRUCTIONS_PER_SLOT: u32 = 8;
/// A leaf function up to this cost is free.
const LEAF_SLOTS_MAX: u32 = 512;

const _: () =
    assert!(NATIVE_STACK_BYTES_MAX >= 4 * 8 * SLOTS as usize, "the counter trips well before the native stack");

/// What a function's frame costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    slots: u32,
    leaf: bool,
}

impl Frame {
    /// Validates a function's body and measures it on the way.
    pub(super) fn measure(
        validator: &mut FuncValidator<ValidatorResources>,
        body: &FunctionBody<'_>,
    ) -> wasmparser::Result<Self> {
        let mut reader = body.get_binary_reader();
        reader.set_features(FEATURES);
        validator.read_locals(&mut reader)?;
        let mut measure = Measure::default();
        let mut operators = OperatorsReader::new(reader);
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            validator.op(offset, &operator)?;
            measure.instruction(&operator, validator);
        }
        operators.finish()?;
        Ok(measure.frame(validator))
    }

    /// What the counter is charged; `None` when the function is not counted.
    fn counted(self) -> Option<i32> {
        let free = self.leaf && self.slots <= LEAF_SLOTS_MAX;
        (!free).then(|| i32::try_from(self.slots).unwrap_or(i32::MAX))
    }
}

#[derive(Default)]
struct Measure {
    instructions: u32,
    operands_max: u32,
    calls: bool,
    vectors: bool,
}

impl Measure {
    fn instruction(&mut self, operator: &Operator<'_>, validator: &FuncValidator<ValidatorResources>) {
        self.instructions = self.instructions.saturating_add(1);
        self.operands_max = self.operands_max.max(validator.operand_stack_height());
        self.calls |= matches!(operator, Operator::Call { .. } | Operator::CallIndirect { .. });
        self.vectors |= validator.get_operand_type(0) == Some(Some(wasmparser::ValType::V128));
    }

    fn frame(&self, validator: &FuncValidator<ValidatorResources>) -> Frame {
        let locals = validator.len_locals();
        let vectors =
            self.vectors || (0..locals).any(|at| validator.get_local_type(at) == Some(wasmparser::ValType::V128));
        let values = locals + self.operands_max + self.instructions / INSTRUCTIONS_PER_SLOT;
        let slots = values.saturating_mul(if vectors { 2 } else { 1 }).saturating_add(FRAME_SLOTS);
        Frame { slots, leaf: !self.calls }
    }
}

/// Rewrites `wasm`, which is valid, so that it counts. `frames` are its functions' in order.
pub(super) fn instrument(wasm: &[u8], frames: &[Frame]) -> Result<Vec<u8>, reencode::Error> {
    let mut module = wasm_encoder::Module::new();
    let mut parser = wasmparser::Parser::new(0);
    parser.set_features(FEATURES);
    Instrument::new(frames).parse_core_module(&mut module, parser, wasm)?;
    Ok(module.finish())
}

/// Walks a module section by section. Only ever appends to an index space, so that nothing needs renumbering.
struct Instrument<'a> {
    frames: &'a [Frame],
    /// Type of the block around a function's body, for every function type.
    results: Vec<BlockType>,
    /// Types of the module's own functions, in order.
    functions: Vec<u32>,
    /// Functions rewritten so far.
    rewritten: usize,
    /// Index of the global, once its section was written.
    left: Option<u32>,
}

impl<'a> Instrument<'a> {
    fn new(frames: &'a [Frame]) -> Self {
        Self { frames, results: Vec::new(), functions: Vec::new(), rewritten: 0, left: None }
    }

    fn add_global(&mut self, globals: &mut GlobalSection) {
        self.left = Some(globals.len());
        let ty = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
        globals.global(ty, &ConstExpr::i32_const(SLOTS as i32));
    }

    fn left(&self) -> u32 {
        self.left.expect("the sections of globals precede exports and code")
    }

    fn enter(&self, function: &mut Function, cost: i32) {
        let left = self.left();
        function
            .instruction(&Instruction::GlobalGet(left))
            .instruction(&Instruction::I32Const(cost))
            .instruction(&Instruction::I32LtU)
            .instruction(&Instruction::If(BlockType::Empty))
            .instruction(&Instruction::I32Const(SPENT))
            .instruction(&Instruction::GlobalSet(left))
            .instruction(&Instruction::Unreachable)
            .instruction(&Instruction::End)
            .instruction(&Instruction::GlobalGet(left))
            .instruction(&Instruction::I32Const(cost))
            .instruction(&Instruction::I32Sub)
            .instruction(&Instruction::GlobalSet(left));
    }

    fn leave(&self, function: &mut Function, cost: i32) {
        let left = self.left();
        function
            .instruction(&Instruction::GlobalGet(left))
            .instruction(&Instruction::I32Const(cost))
            .instruction(&Instruction::I32Add)
            .instruction(&Instruction::GlobalSet(left))
            .instruction(&Instruction::End);
    }

    /// The body inside its block. The body's own last `end` closes the block.
    fn body(&mut self, function: &mut Function, body: &FunctionBody<'_>) -> Result<(), reencode::Error> {
        let mut reader = body.get_operators_reader()?;
        let mut open_blocks = 0_u32;
        while !reader.eof() {
            let operator = reader.read()?;
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => open_blocks += 1,
                Operator::End => open_blocks = open_blocks.saturating_sub(1),
                Operator::Return => {
                    function.instruction(&Instruction::Br(open_blocks));
                    continue;
                }
                _ => {}
            }
            function.instruction(&self.instruction(operator)?);
        }
        Ok(())
    }
}

impl Reencode for Instrument<'_> {
    type Error = Infallible;

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: TypeSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_type_section(self, types, section.clone())?;
        for (at, ty) in (0_u32..).zip(section.into_iter_err_on_gc_types()) {
            let ty = ty?;
            let results: Vec<ValType> = ty.results().iter().map(|ty| self.val_type(*ty)).collect::<Result<_, _>>()?;
            self.results.push(match results[..] {
                [] => BlockType::Empty,
                [result] => BlockType::Result(result),
                _ if ty.params().is_empty() => BlockType::FunctionType(at),
                _ => {
                    types.ty().function([], results);
                    BlockType::FunctionType(types.len() - 1)
                }
            });
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        self.functions = section.clone().into_iter().collect::<wasmparser::Result<_>>()?;
        reencode::utils::parse_function_section(self, functions, section)
    }

    fn parse_global_section(
        &mut self,
        globals: &mut GlobalSection,
        section: GlobalSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_global_section(self, globals, section)?;
        self.add_global(globals);
        Ok(())
    }

    /// A module without globals gets the section where it belongs: right before the first section that comes after it.
    fn intersperse_section_hook(
        &mut self,
        module: &mut wasm_encoder::Module,
        _after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result<(), reencode::Error> {
        use SectionId::{Function, Global, Import, Memory, Table, Type};
        if self.left.is_none() && !matches!(before, Some(Type | Import | Function | Table | Memory | Global)) {
            let mut globals = GlobalSection::new();
            self.add_global(&mut globals);
            module.section(&globals);
        }
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: ExportSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_export_section(self, exports, section)?;
        exports.export(EXPORT, ExportKind::Global, self.left());
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), reencode::Error> {
        let at = self.rewritten;
        self.rewritten += 1;
        let Some(cost) = self.frames[at].counted() else {
            code.raw(body.as_bytes());
            return Ok(());
        };
        let mut function = self.new_function_with_parsed_locals(&body)?;
        self.enter(&mut function, cost);
        function.instruction(&Instruction::Block(self.results[self.functions[at] as usize]));
        self.body(&mut function, &body)?;
        self.leave(&mut function, cost);
        code.function(&function);
        Ok(())
    }

    /// Names stay, for backtraces, and byte by byte, since a malformed name section is no error. Other custom sections are of
    /// no use to the compiler.
    fn parse_custom_section(
        &mut self,
        module: &mut wasm_encoder::Module,
        section: CustomSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        if section.name() == "name" {
            module.section(&wasm_encoder::RawSection { id: SectionId::Custom.into(), data: &raw_custom(&section) });
        }
        Ok(())
    }
}

/// The payload of a custom section: the length of its name, its name, its data.
fn raw_custom(section: &CustomSectionReader<'_>) -> Vec<u8> {
    let name = section.name().as_bytes();
    let length = u8::try_from(name.len()).expect("`name` is four bytes");
    [&[length], name, section.data()].concat()
}
