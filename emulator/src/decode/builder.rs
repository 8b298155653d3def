//! Slots for registers, constants, special registers and symbols of one kernel.

use std::collections::HashMap;

use super::ir::{Instr, LaneMask, Note, Special};
use crate::exec::lanes::Lane;
use crate::ptx::ast::{Operand, Type};

/// Result with a reason to refuse the instruction.
pub type Result<T> = std::result::Result<T, String>;

/// Width of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One bit a lane.
    Pred,
    /// 16 bits in a 32-bit lane whose upper half is zero.
    W16,
    /// 32 bits.
    W32,
    /// 64 bits.
    W64,
}

/// A register.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// Byte offset in the register file.
    pub slot: u32,
    /// Its width.
    pub width: Width,
}

/// What a symbol stands for.
#[derive(Clone, Copy, Debug)]
pub enum Symbol {
    /// Address of a module variable.
    Global(u64),
    /// Offset in shared memory.
    Shared(u32),
    /// Offset in local memory.
    Local(u32),
    /// Offset in the argument block.
    Param(u32),
}

/// The registers between a `{` and its `}`.
#[derive(Default)]
struct Scope {
    /// Width of each, and its slot once it is used.
    names: HashMap<String, (Width, Option<u32>)>,
    /// Declared as `%r<100>`: prefix, number, width. They get names when they are first used, however many there are.
    ranges: Vec<(String, u32, Width)>,
}

impl Scope {
    /// Width and slot of the register called `name`, if this scope declares it.
    fn find(&self, name: &str) -> Option<(Width, Option<u32>)> {
        self.names.get(name).copied().or_else(|| {
            let range = self.ranges.iter().rev().find(|(prefix, count, _)| {
                let number = name.strip_prefix(prefix.as_str()).unwrap_or_default();
                // `%r07` is not `%r7`.
                let plain = number == "0" || !number.starts_with(['0', '+']);
                plain && number.parse::<u32>().is_ok_and(|number| number < *count)
            });
            range.map(|&(_, _, width)| (width, None))
        })
    }
}

/// The state of one kernel's decoding.
#[derive(Default)]
pub struct Builder {
    scopes: Vec<Scope>,
    /// Symbols by name.
    pub symbols: HashMap<String, Symbol>,
    /// Jump tables by name.
    pub tables: HashMap<String, Vec<String>>,
    bytes: u32,
    words: u32,
    free_pred: (u32, u32),
    /// 32-bit constants: value to slot.
    pub constants32: HashMap<u32, u32>,
    /// 64-bit constants: value to slot.
    pub constants64: HashMap<u64, u32>,
    /// Special registers to slots.
    pub specials: HashMap<Special, u32>,
    /// Operand lists.
    pub lists: Vec<u32>,
    /// Instructions that others run as a part of theirs.
    pub helpers: Vec<Instr>,
    /// Address caches given out.
    pub caches: u32,
    carry: Option<u32>,
    /// Registers the instruction being decoded reads.
    pub reads: Vec<u32>,
    /// Registers the instruction being decoded writes.
    pub writes: Vec<u32>,
    /// Instructions so far.
    pub code: Vec<Instr>,
    /// Notes so far.
    pub notes: Vec<Note>,
    /// Set once an atomic was seen.
    pub atomics: bool,
}

impl Builder {
    /// A kernel with only the always-true predicate.
    pub fn new() -> Builder {
        let mut builder = Builder { scopes: vec![Scope::default()], ..Builder::default() };
        builder.pred_slot();
        builder
    }

    /// Opens a `{`.
    pub fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    /// Closes a `}`.
    pub fn close(&mut self) {
        self.scopes.pop();
    }

    /// Bytes of the register file so far.
    pub fn register_bytes(&self) -> u32 {
        self.bytes
    }

    /// Register words of a thread so far.
    pub fn register_words(&self) -> u32 {
        self.words
    }

    /// Declares registers; they get a slot when they are first used.
    pub fn declare(&mut self, kind: Type, names: &[(String, Option<u32>)]) {
        let width = match kind.bits() {
            1 => Width::Pred,
            8 | 16 => Width::W16,
            32 => Width::W32,
            _ => Width::W64,
        };
        let scope = self.scopes.last_mut().expect("the outermost scope is never closed");
        for (name, count) in names {
            match count {
                None => _ = scope.names.insert(name.clone(), (width, None)),
                Some(count) => scope.ranges.push((name.clone(), *count, width)),
            }
        }
    }

    fn pred_slot(&mut self) -> u32 {
        if self.free_pred.1 == 0 {
            self.free_pred = (self.bytes, 32);
            self.bytes += 128;
        }
        let slot = self.free_pred.0;
        self.free_pred = (slot + 4, self.free_pred.1 - 1);
        slot
    }

    /// A fresh slot.
    pub fn fresh(&mut self, width: Width) -> u32 {
        let bytes = match width {
            Width::Pred => return self.pred_slot(),
            Width::W16 | Width::W32 => 128,
            Width::W64 => 256,
        };
        self.bytes += bytes;
        self.bytes - bytes
    }

    /// The register called `name`, if it is one.
    pub fn register(&mut self, name: &str) -> Option<Register> {
        let found = self.scopes.iter().enumerate().rev().find_map(|(depth, scope)| Some((depth, scope.find(name)?)));
        let (depth, (width, slot)) = found?;
        let slot = slot.unwrap_or_else(|| {
            self.words += u32::from(width != Width::Pred) + u32::from(width == Width::W64);
            self.fresh(width)
        });
        self.scopes[depth].names.insert(name.to_string(), (width, Some(slot)));
        Some(Register { slot, width })
    }

    fn constant32(&mut self, value: u32) -> u32 {
        if let Some(&slot) = self.constants32.get(&value) {
            return slot;
        }
        let slot = self.fresh(Width::W32);
        self.constants32.insert(value, slot);
        slot
    }

    fn constant64(&mut self, value: u64) -> u32 {
        if let Some(&slot) = self.constants64.get(&value) {
            return slot;
        }
        let slot = self.fresh(Width::W64);
        self.constants64.insert(value, slot);
        slot
    }

    /// A slot holding a constant in every lane.
    pub fn constant<T: Lane>(&mut self, value: u64) -> u32 {
        if T::WIDE { self.constant64(value) } else { self.constant32(value as u32) }
    }

    /// The value of a symbol as an address in its own space.
    pub fn symbol_value(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).map(|s| match *s {
            Symbol::Global(address) => address,
            Symbol::Shared(offset) | Symbol::Local(offset) | Symbol::Param(offset) => u64::from(offset),
        })
    }

    /// The slot of a source operand read as `T`.
    pub fn src<T: Lane>(&mut self, operand: &Operand) -> Result<u32> {
        match operand {
            Operand::Int(value) => Ok(self.constant::<T>(*value)),
            Operand::F32(bits) if !T::WIDE => Ok(self.constant32(*bits)),
            Operand::F32(bits) => Ok(self.constant64(f64::from(f32::from_bits(*bits)).to_bits())),
            Operand::F64(bits) if T::WIDE => Ok(self.constant64(*bits)),
            Operand::F64(bits) => Ok(self.constant32((f64::from_bits(*bits) as f32).to_bits())),
            Operand::Name(name) => {
                if let Some(register) = self.register(name) {
                    if register.width == Width::Pred || (register.width == Width::W64) != T::WIDE {
                        return Err(format!("register {name} has the wrong width"));
                    }
                    self.reads.push(register.slot);
                    return Ok(register.slot);
                }
                if let Some(special) = special(name) {
                    if T::WIDE {
                        return Err(format!("{name} is a 32-bit register"));
                    }
                    if let Some(&slot) = self.specials.get(&special) {
                        return Ok(slot);
                    }
                    let slot = self.fresh(Width::W32);
                    self.specials.insert(special, slot);
                    return Ok(slot);
                }
                if name == "WARP_SZ" {
                    return Ok(self.constant::<T>(32));
                }
                let value = self.symbol_value(name).ok_or_else(|| format!("unknown name {name}"))?;
                Ok(self.constant::<T>(value))
            }
            other => Err(format!("operand {other:?} is no value")),
        }
    }

    /// The slot of a source operand of a 16-bit type: immediates are cut to 16 bits.
    pub fn src16(&mut self, operand: &Operand) -> Result<u32> {
        match operand {
            Operand::Int(value) => Ok(self.constant32(*value as u16 as u32)),
            other => self.src::<u32>(other),
        }
    }

    /// A register operand of any width.
    pub fn any(&mut self, operand: &Operand) -> Result<Register> {
        match operand {
            Operand::Name(name) => self.register(name).ok_or_else(|| format!("{name} is no register")),
            other => Err(format!("operand {other:?} is no register")),
        }
    }

    /// The slot of a destination written as `T`; `_` gets one nobody reads.
    pub fn dst<T: Lane>(&mut self, operand: &Operand) -> Result<u32> {
        if *operand == Operand::Ignored {
            return Ok(self.fresh(if T::WIDE { Width::W64 } else { Width::W32 }));
        }
        let register = self.any(operand)?;
        if register.width == Width::Pred || (register.width == Width::W64) != T::WIDE {
            return Err("the destination register has the wrong width".into());
        }
        self.writes.push(register.slot);
        Ok(register.slot)
    }

    /// A source predicate: its slot, and all ones where it is negated.
    pub fn src_pred(&mut self, operand: &Operand) -> Result<(u32, u32)> {
        let (name, flip) = match operand {
            Operand::Name(name) => (name, 0),
            Operand::Not(name) => (name, !0),
            Operand::Int(value) => return Ok((super::ir::TRUE, if *value == 0 { !0 } else { 0 })),
            other => return Err(format!("operand {other:?} is no predicate")),
        };
        match self.register(name) {
            Some(Register { slot, width: Width::Pred }) => {
                self.reads.push(slot);
                Ok((slot, flip))
            }
            _ => Err(format!("{name} is no predicate")),
        }
    }

    /// The slot of a destination predicate; `_` gets one nobody reads.
    pub fn dst_pred(&mut self, operand: &Operand) -> Result<u32> {
        match operand {
            Operand::Ignored => Ok(self.pred_slot()),
            Operand::Name(name) => self.dst_pred_named(name),
            other => Err(format!("operand {other:?} is no predicate")),
        }
    }

    /// The slot of a destination predicate by name.
    pub fn dst_pred_named(&mut self, name: &str) -> Result<u32> {
        if name == "_" {
            return Ok(self.pred_slot());
        }
        match self.register(name) {
            Some(Register { slot, width: Width::Pred }) => {
                self.writes.push(slot);
                Ok(slot)
            }
            _ => Err(format!("{name} is no predicate")),
        }
    }

    /// The slot of the carry flag of `add.cc` and its kin.
    pub fn carry(&mut self) -> u32 {
        match self.carry {
            Some(slot) => slot,
            None => {
                let slot = self.pred_slot();
                *self.carry.insert(slot)
            }
        }
    }

    /// Stores a list of slots; gives the index of its first item.
    pub fn list(&mut self, slots: impl IntoIterator<Item = u32>) -> i64 {
        let at = self.lists.len();
        self.lists.extend(slots);
        at as i64
    }

    /// A fresh address cache.
    pub fn cache(&mut self) -> u32 {
        self.caches += 1;
        self.caches - 1
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |prefix: &str| match name.strip_prefix(prefix)? {
        ".x" => Some(0),
        ".y" => Some(1),
        ".z" => Some(2),
        _ => None,
    };
    if let Some(a) = axis("%tid") {
        return Some(Special::Tid(a));
    }
    if let Some(a) = axis("%ntid") {
        return Some(Special::Ntid(a));
    }
    if let Some(a) = axis("%ctaid") {
        return Some(Special::Ctaid(a));
    }
    if let Some(a) = axis("%nctaid") {
        return Some(Special::Nctaid(a));
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NWarpId,
        "%lanemask_eq" => Special::LaneMask(LaneMask::Eq),
        "%lanemask_lt" => Special::LaneMask(LaneMask::Lt),
        "%lanemask_le" => Special::LaneMask(LaneMask::Le),
        "%lanemask_gt" => Special::LaneMask(LaneMask::Gt),
        "%lanemask_ge" => Special::LaneMask(LaneMask::Ge),
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%smid" | "%gridid" => Special::Zero,
        _ => return None,
    })
}
