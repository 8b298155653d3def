//! Walks a module: lays out variables, decodes kernels, resolves labels.

use std::collections::HashMap;

use super::builder::{Builder, Result, Symbol, Width};
use super::ir::{Class, Instr, Kernel, Kind, Note, TRUE, Work};
use crate::exec::simd::nothing;
use crate::ops;
use crate::ptx::ast::{self, Instruction, Space, Statement, Variable};

/// A loaded module.
pub struct Module {
    /// Its kernels.
    pub kernels: Vec<Kernel>,
    /// Its variables in device memory: name to address and size in bytes.
    pub globals: HashMap<String, (u64, u32)>,
}

/// Decodes a parsed module; `place` allocates a variable in device memory and gives its address.
///
/// # Errors
/// The first instruction that is not known, with its kernel, line and text.
pub fn decode(tree: &ast::Module, mut place: impl FnMut(&Variable) -> Result<u64>) -> Result<Module> {
    let mut globals = HashMap::new();
    for variable in tree.variables.iter().filter(|v| matches!(v.space, Space::Global | Space::Const)) {
        if variable.external {
            return Err(format!("variable {} is external, and modules are not linked here", variable.name));
        }
        globals.insert(variable.name.clone(), (place(variable)?, variable.size));
    }
    let shared: Vec<&Variable> = tree.variables.iter().filter(|v| v.space == Space::Shared).collect();
    let kernels = tree.entries.iter().map(|entry| kernel(entry, &globals, &shared)).collect::<Result<_>>()?;
    Ok(Module { kernels, globals })
}

/// Where something of `size` bytes lies behind `offset`, and where it ends.
fn placed(offset: u32, to: u32, size: u32, what: &str) -> Result<(u32, u32)> {
    let start = offset.checked_next_multiple_of(to.max(1));
    let end = start.and_then(|start| start.checked_add(size)).filter(|&end| end <= i32::MAX as u32);
    start.zip(end).ok_or_else(|| format!("variable {what} lies beyond the 2 GiB that such variables may take"))
}

/// Whether any instruction of the kernel names `symbol`.
fn mentions(entry: &ast::Entry, symbol: &str) -> bool {
    fn names(operand: &ast::Operand, symbol: &str) -> bool {
        match operand {
            ast::Operand::Name(name) => name == symbol,
            ast::Operand::Address(base, _) => names(base, symbol),
            ast::Operand::Vector(items) => items.iter().any(|item| names(item, symbol)),
            _ => false,
        }
    }
    entry.body.iter().any(|s| matches!(s, Statement::Instruction(i) if i.operands.iter().any(|o| names(o, symbol))))
}

fn kernel(entry: &ast::Entry, globals: &HashMap<String, (u64, u32)>, module_shared: &[&Variable]) -> Result<Kernel> {
    let mut b = Builder::new();
    for (name, (address, _)) in globals {
        b.symbols.insert(name.clone(), Symbol::Global(*address));
    }
    let (mut params, mut param_bytes) = (Vec::new(), 0);
    for param in &entry.params {
        let (start, end) = placed(param_bytes, param.align, param.size, &param.name)?;
        b.symbols.insert(param.name.clone(), Symbol::Param(start));
        params.push((start, param.size));
        param_bytes = end;
    }
    let (shared, local) = lay_out(entry, module_shared, &mut b)?;

    let mut labels = HashMap::new();
    let mut jumps: Vec<(usize, String)> = Vec::new();
    for statement in &entry.body {
        match statement {
            Statement::Open => b.open(),
            Statement::Close => b.close(),
            Statement::Registers(kind, names) => b.declare(*kind, names),
            Statement::Variable(_) => {}
            Statement::Label(name) => _ = labels.insert(name.clone(), b.code.len() as u32),
            Statement::BranchTargets(name, targets) => _ = b.tables.insert(name.clone(), targets.clone()),
            Statement::Instruction(instruction) => {
                let refuse = |reason: String| {
                    format!("kernel {}, line {}: `{}`: {reason}", entry.name, instruction.line, instruction.text)
                };
                decode_one(&mut b, instruction, &mut jumps).map_err(refuse)?;
            }
        }
    }
    let end = Note {
        text: "(end of kernel)".into(),
        line: 0,
        work: Work::new(Class::Control, 0),
        reads: vec![],
        writes: vec![],
        moves: false,
    };
    b.code.push(Instr { kind: Kind::Exit, ..Instr::new(nothing) });
    b.notes.push(end);
    let find = |label: &String| labels.get(label).copied().ok_or(format!("kernel {}: no label {label}", entry.name));
    for (at, label) in &jumps {
        if let Some(targets) = b.tables.get(label) {
            let targets = targets.iter().map(find).collect::<Result<Vec<u32>>>()?;
            b.code[*at].n = targets.len().min(255) as u8;
            b.code[*at].imm = b.lists.len() as i64;
            b.code[*at].x[0] = targets.len() as u32;
            b.lists.extend(targets);
        } else {
            b.code[*at].target = find(label)?;
        }
    }
    Ok(Kernel {
        name: entry.name.clone(),
        register_bytes: b.register_bytes(),
        register_words: b.register_words(),
        constants32: b.constants32.iter().map(|(value, slot)| (*slot, *value)).collect(),
        constants64: b.constants64.iter().map(|(value, slot)| (*slot, *value)).collect(),
        specials: b.specials.iter().map(|(special, slot)| (*slot, *special)).collect(),
        code: b.code,
        notes: b.notes,
        lists: b.lists,
        helpers: b.helpers,
        params,
        param_bytes,
        shared,
        local,
        caches: b.caches,
        required_block: entry.required_block,
        max_threads: entry.max_threads.unwrap_or(1024),
        independent: !b.atomics,
    })
}

/// Offsets of shared and local variables; gives the bytes of both. Dynamic shared memory begins after the static.
fn lay_out(entry: &ast::Entry, module_shared: &[&Variable], b: &mut Builder) -> Result<(u32, u32)> {
    let own = entry.body.iter().filter_map(|s| if let Statement::Variable(v) = s { Some(v) } else { None });
    let used = module_shared.iter().copied().filter(|v| !v.external && mentions(entry, &v.name));
    let (mut shared, mut local) = (0, 0);
    for variable in own.chain(used) {
        let (bytes, symbol): (&mut u32, fn(u32) -> Symbol) =
            if variable.space == Space::Shared { (&mut shared, Symbol::Shared) } else { (&mut local, Symbol::Local) };
        let (start, end) = placed(*bytes, variable.align, variable.size, &variable.name)?;
        b.symbols.insert(variable.name.clone(), symbol(start));
        *bytes = end;
    }
    let shared = shared.next_multiple_of(16);
    for variable in module_shared.iter().filter(|v| v.external) {
        b.symbols.insert(variable.name.clone(), Symbol::Shared(shared));
    }
    Ok((shared, local.next_multiple_of(16)))
}

fn decode_one(b: &mut Builder, instruction: &Instruction, jumps: &mut Vec<(usize, String)>) -> Result<()> {
    b.reads.clear();
    b.writes.clear();
    let (guard, flip) = match &instruction.guard {
        Some((name, negated)) => match b.register(name) {
            Some(register) if register.width == Width::Pred => (register.slot, if *negated { !0 } else { 0 }),
            _ => return Err(format!("guard {name} is no predicate")),
        },
        None => (TRUE, 0),
    };
    let (mut instr, work) = ops::decode(b, instruction)?;
    (instr.guard, instr.flip) = (guard, flip);
    if matches!(instr.kind, Kind::Branch | Kind::IndexedBranch) {
        match instruction.operands.last() {
            Some(ast::Operand::Name(label)) => jumps.push((b.code.len(), label.clone())),
            _ => return Err("a branch needs a label".into()),
        }
    }
    let moves = instruction.family() == "mov";
    let (reads, writes) = (std::mem::take(&mut b.reads), std::mem::take(&mut b.writes));
    b.notes.push(Note { text: instruction.text.clone(), line: instruction.line, work, reads, writes, moves });
    b.code.push(instr);
    Ok(())
}
