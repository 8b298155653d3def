//! The stack machine: opcodes, stack, marks and memo.

use std::collections::HashMap;

use super::{Fault, Function, Id, Object, Result};

/// Most objects in one pickle, and most entries of its stack. A state of 10,000 tensors needs some 200,000.
const MAX_OBJECTS: usize = 1 << 22;

/// Runs the program in `bytes`: all objects that it made, and the one that it is of.
pub(super) fn run(bytes: &[u8]) -> Result<(Vec<Object>, Id)> {
    let mut machine = Machine {
        input: Input { rest: bytes },
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    while let Some(()) = machine.step()? {}
    let root = machine.pop()?;
    Ok((machine.objects, root))
}

/// The stack machine.
struct Machine<'a> {
    input: Input<'a>,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack at the marks. What lies below the last one is out of reach until it is popped.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    /// Executes one opcode; `None` after the last.
    fn step(&mut self) -> Result<Option<()>> {
        match self.input.byte()? {
            // PROTO, FRAME: nothing to do with the version and the frames' lengths.
            0x80 => drop(self.input.byte()?),
            0x95 => drop(self.input.take(8)?),
            // STOP
            b'.' => return Ok(None),
            // MARK, POP, POP_MARK, DUP
            b'(' => self.mark()?,
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Object::None)?,
            0x88 => self.push(Object::Bool(true))?,
            0x89 => self.push(Object::Bool(false))?,
            // BININT, BININT1, BININT2, LONG1, BINFLOAT
            b'J' => {
                let value = i32::from_le_bytes(self.input.array()?);
                self.push(Object::Int(value.into()))?;
            }
            b'K' => {
                let value = self.input.byte()?;
                self.push(Object::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.input.array()?);
                self.push(Object::Int(value.into()))?;
            }
            0x8a => {
                let length = self.input.byte()?;
                let value = long(self.input.take(length.into())?)?;
                self.push(Object::Int(value))?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.input.array()?);
                self.push(Object::Float(value))?;
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, and Python 2's BINSTRING and SHORT_BINSTRING
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.input.array()?);
                self.push_text(length.into())?;
            }
            0x8c | b'U' => {
                let length = self.input.byte()?;
                self.push_text(length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.input.array()?);
                self.push_text(length)?;
            }
            // EMPTY_LIST, EMPTY_DICT, EMPTY_TUPLE
            b']' => self.push(Object::List(Vec::new()))?,
            b'}' => self.push(Object::Dict(Vec::new()))?,
            b')' => self.push(Object::Tuple(Vec::new()))?,
            // TUPLE1, TUPLE2, TUPLE3
            opcode @ 0x85..=0x87 => {
                let start = self.reach(usize::from(opcode - 0x84))?;
                let items = self.stack.split_off(start);
                self.push(Object::Tuple(items))?;
            }
            // TUPLE, LIST, DICT: of what lies above the mark
            b't' => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items))?;
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Object::List(items))?;
            }
            b'd' => {
                let entries = pairs(&self.pop_mark()?)?;
                self.push(Object::Dict(entries))?;
            }
            // APPEND, APPENDS
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            // SETITEM, SETITEMS
            b's' => {
                let start = self.reach(2)?;
                let entry = self.stack.split_off(start);
                self.extend_dict(&entry)?;
            }
            b'u' => {
                let entries = self.pop_mark()?;
                self.extend_dict(&entries)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let key = self.input.byte()?;
                self.memoize(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.input.array()?);
                self.memoize(key)?;
            }
            // The table of objects is limited, and with it the memo: no entry without an opcode.
            0x94 => self.memoize(self.memo.len() as u32)?,
            // BINGET, LONG_BINGET
            b'h' => {
                let key = self.input.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.input.array()?);
                self.recall(key)?;
            }
            // GLOBAL, STACK_GLOBAL, INST
            b'c' | b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let object = Function::named(&String::from_utf8_lossy(module), &String::from_utf8_lossy(name))?;
                self.push(object)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let object = match (self.object(module), self.object(name)) {
                    (Object::Text(module), Object::Text(name)) => Function::named(module, name)?,
                    _ => return Err(Fault::malformed("a global name that is not text")),
                };
                self.push(object)?;
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => self.storage()?,
            opcode => return Err(Fault::malformed(format!("opcode {opcode:#04x} has no place among weights"))),
        }
        Ok(Some(()))
    }

    /// `REDUCE`: calls a function with a tuple of arguments.
    fn reduce(&mut self) -> Result<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Object::Function(function) = *self.object(callable) else {
            return Err(Fault::refused("an object that is not a function"));
        };
        let Object::Tuple(arguments) = self.object(arguments) else {
            return Err(Fault::malformed("arguments that are not a tuple"));
        };
        match (function, arguments.as_slice()) {
            (Function::OrderedDict, []) => self.push(Object::Dict(Vec::new())),
            // tensor, requires_grad, backward_hooks
            (Function::RebuildParameter, &[tensor, _, _]) if matches!(self.object(tensor), Object::Tensor { .. }) => {
                self.push_id(tensor)
            }
            // storage, offset, shape, stride, requires_grad, backward_hooks, and metadata since PyTorch 2
            (Function::RebuildTensor, &[storage, offset, shape, stride, _, _, ..]) if arguments.len() <= 7 => {
                match (self.object(storage), self.object(offset), self.object(shape), self.object(stride)) {
                    (Object::Storage { .. }, &Object::Int(offset @ 0..), Object::Tuple(_), Object::Tuple(_)) => {
                        self.push(Object::Tensor { storage, offset: offset as usize, shape, stride })
                    }
                    _ => Err(Fault::malformed("a tensor of the wrong parts")),
                }
            }
            _ => Err(Fault::malformed("wrong arguments of a function")),
        }
    }

    /// `BUILD`: sets attributes. A state's dictionary carries version numbers as attributes; they change no tensor.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        match self.object(self.top()?) {
            Object::Dict(_) => Ok(()),
            _ => Err(Fault::refused("__setstate__ of an object that is not a dictionary")),
        }
    }

    /// `BINPERSID`: names a storage by the tuple ("storage", type, key, device, number of elements).
    fn storage(&mut self) -> Result<()> {
        let name = self.pop()?;
        let storage = match self.object(name) {
            Object::Tuple(parts) => match parts.as_slice() {
                &[tag, of_type, key, _device, length] => {
                    match (self.object(tag), self.object(of_type), self.object(key), self.object(length)) {
                        (
                            Object::Text(tag),
                            &Object::StorageType(dtype),
                            Object::Text(_),
                            &Object::Int(length @ 0..),
                        ) if tag == "storage" => Some(Object::Storage { dtype, key, length: length as usize }),
                        _ => None,
                    }
                }
                _ => None,
            },
            _ => None,
        };
        self.push(storage.ok_or_else(|| Fault::malformed("a storage of the wrong parts"))?)
    }

    fn object(&self, id: Id) -> &Object {
        &self.objects[id as usize]
    }

    fn push(&mut self, object: Object) -> Result<()> {
        if self.objects.len() >= MAX_OBJECTS {
            return Err(Fault::malformed("more objects than any model's weights"));
        }
        self.objects.push(object);
        self.push_id((self.objects.len() - 1) as Id)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        if self.stack.len() >= MAX_OBJECTS {
            return Err(Fault::malformed("a deeper stack than any model's weights"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn push_text(&mut self, length: u64) -> Result<()> {
        let bytes = self.input.take(length)?;
        self.push(Object::Text(String::from_utf8_lossy(bytes).into_owned()))
    }

    /// Where the last `count` entries of the stack begin.
    fn reach(&self, count: usize) -> Result<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(start),
            _ => Err(Fault::malformed("it takes more from its stack than it put there")),
        }
    }

    fn top(&self) -> Result<Id> {
        Ok(self.stack[self.reach(1)?])
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() >= MAX_OBJECTS {
            return Err(Fault::malformed("more marks than any model's weights"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Takes off the last mark and what lies above it.
    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| Fault::malformed("a mark that was never set"))?;
        Ok(self.stack.split_off(mark))
    }

    fn extend_list(&mut self, mut items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match &mut self.objects[list as usize] {
            Object::List(list) => list.append(&mut items),
            _ => return Err(Fault::malformed("it appends to what is no list")),
        }
        Ok(())
    }

    fn extend_dict(&mut self, flat: &[Id]) -> Result<()> {
        let dict = self.top()?;
        match &mut self.objects[dict as usize] {
            Object::Dict(entries) => entries.append(&mut pairs(flat)?),
            _ => return Err(Fault::malformed("it sets items of what is no dictionary")),
        }
        Ok(())
    }

    fn memoize(&mut self, key: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        if self.memo.len() > MAX_OBJECTS {
            return Err(Fault::malformed("a larger memo than any model's weights"));
        }
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let id = *self.memo.get(&key).ok_or_else(|| Fault::malformed("it recalls what it never memorised"))?;
        self.push_id(id)
    }
}

/// Keys and values, alternating.
fn pairs(flat: &[Id]) -> Result<Vec<(Id, Id)>> {
    match flat.as_chunks() {
        (entries, []) => Ok(entries.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err(Fault::malformed("a key without a value")),
    }
}

/// A two's-complement little-endian integer of any length up to that of an i64.
fn long(bytes: &[u8]) -> Result<i64> {
    let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut full = [if negative { 0xff } else { 0 }; 8];
    full.get_mut(..bytes.len())
        .ok_or_else(|| Fault::malformed("an integer of more than 64 bits"))?
        .copy_from_slice(bytes);
    Ok(i64::from_le_bytes(full))
}

/// What is left to read.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let (taken, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| self.rest.split_at_checked(length))
            .ok_or_else(|| Fault::malformed("it ends in the middle"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| Fault::malformed("it ends in the middle"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Up to the next line feed, which is dropped.
    fn line(&mut self) -> Result<&'a [u8]> {
        let length = self
            .rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(|| Fault::malformed("it ends in the middle"))?;
        let line = self.take(length as u64)?;
        self.byte()?;
        Ok(line)
    }
}
