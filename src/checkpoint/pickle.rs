//! An interpreter for the part of Python's pickle language that weights need, and no more.
//!
//! A pickle is a program for a stack machine that may call any function of any installed package. This one builds
//! dictionaries, lists, tuples, strings, numbers, and tensors (the description only: the elements lie elsewhere in the
//! archive). The functions it knows are the arms of [`Function::named`]; any other name ends the reading.
//!
//! Objects live in one table and refer to each other by index. However a hostile pickle nests or knots them, the table
//! holds at most one entry an opcode, nothing here recurses, and nothing is allocated on the word of a length field
//! that the input does not back.
//!
//! The language is defined by CPython's `Lib/pickletools.py`.

use super::Dtype;

mod machine;

/// Why a pickle was not read: the problem, and what the user can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

impl Fault {
    /// The pickle is not what `torch.save` writes.
    fn malformed(problem: impl Into<String>) -> Fault {
        Fault { problem: format!("its pickle is damaged: {}", problem.into()), remedy: super::DAMAGED }
    }

    /// The pickle wants more than data.
    fn refused(callable: &str) -> Fault {
        Fault {
            problem: format!("it is more than weights: this program refuses to call {callable}"),
            remedy: "save only model.state_dict() with torch.save and load that",
        }
    }
}

type Result<T> = std::result::Result<T, Fault>;

/// Place of an object in the table.
pub(super) type Id = u32;

/// An object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Keys and values in the order of insertion; `OrderedDict` too. A later key replaces an earlier equal one.
    Dict(Vec<(Id, Id)>),
    Function(Function),
    StorageType(Dtype),
    /// A piece of the archive: element type, key (a text), number of elements.
    Storage {
        dtype: Dtype,
        key: Id,
        length: usize,
    },
    /// A strided window on a storage. Offset and strides count elements; shape and stride are tuples of integers.
    Tensor {
        storage: Id,
        offset: usize,
        shape: Id,
        stride: Id,
    },
}

/// The functions that may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
}

impl Function {
    /// What stands behind a global name: a function, or the type of a storage. Everything else is refused.
    fn named(module: &str, name: &str) -> Result<Object> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Object::Function(Function::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Object::Function(Function::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Object::Function(Function::RebuildParameter),
            ("torch", "DoubleStorage") => Object::StorageType(Dtype::F64),
            ("torch", "FloatStorage") => Object::StorageType(Dtype::F32),
            ("torch", "HalfStorage") => Object::StorageType(Dtype::F16),
            ("torch", "BFloat16Storage") => Object::StorageType(Dtype::Bf16),
            ("torch", "LongStorage") => Object::StorageType(Dtype::I64),
            ("torch", "IntStorage") => Object::StorageType(Dtype::I32),
            ("torch", "ShortStorage") => Object::StorageType(Dtype::I16),
            ("torch", "CharStorage") => Object::StorageType(Dtype::I8),
            ("torch", "ByteStorage") => Object::StorageType(Dtype::U8),
            ("torch", "BoolStorage") => Object::StorageType(Dtype::Bool),
            _ => return Err(Fault::refused(&format!("{}.{}", module.escape_debug(), name.escape_debug()))),
        })
    }
}

/// A tensor, checked: as many strides as axes, nothing negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor<'a> {
    pub(super) dtype: Dtype,
    /// Name of the storage within the archive.
    pub(super) key: &'a str,
    /// Number of elements of the storage.
    pub(super) storage_length: usize,
    /// First element within the storage.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// Elements of the storage from one index to the next, an axis each.
    pub(super) stride: Vec<usize>,
}

/// The objects that a pickle made.
#[derive(Debug)]
pub(super) struct Pickle {
    objects: Vec<Object>,
    root: Id,
}

impl Pickle {
    /// Runs the program in `bytes`.
    pub(super) fn load(bytes: &[u8]) -> Result<Pickle> {
        let (objects, root) = machine::run(bytes)?;
        Ok(Pickle { objects, root })
    }

    /// The object that the pickle is of.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// The entries of the dictionary `id`, if it is one.
    pub(super) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.object(id) {
            Object::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The text `id`, if it is one.
    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.object(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether `id` is a tensor.
    pub(super) fn is_tensor(&self, id: Id) -> bool {
        matches!(self.object(id), Object::Tensor { .. })
    }

    /// The tensor `id`, if it is one.
    pub(super) fn tensor(&self, id: Id) -> Option<Tensor<'_>> {
        let Object::Tensor { storage, offset, shape, stride } = *self.object(id) else { return None };
        let Object::Storage { dtype, key, length } = *self.object(storage) else { return None };
        let (shape, stride) = (self.lengths(shape)?, self.lengths(stride)?);
        (shape.len() == stride.len()).then_some(())?;
        Some(Tensor { dtype, key: self.text(key)?, storage_length: length, offset, shape, stride })
    }

    /// A tuple of integers from 0.
    fn lengths(&self, id: Id) -> Option<Vec<usize>> {
        let Object::Tuple(items) = self.object(id) else { return None };
        let length = |&item: &Id| match *self.object(item) {
            Object::Int(value) => usize::try_from(value).ok(),
            _ => None,
        };
        items.iter().map(length).collect()
    }

    fn object(&self, id: Id) -> &Object {
        &self.objects[id as usize]
    }
}
