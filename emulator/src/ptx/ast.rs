//! The syntax tree of a PTX module.

/// A whole module.
#[derive(Debug, Default)]
pub struct Module {
    /// `.version`, as major and minor.
    pub version: (u32, u32),
    /// `.target`, as written (`sm_80`).
    pub target: String,
    /// Variables at module scope: `.global`, `.const`, `.shared`, also `.extern .shared`.
    pub variables: Vec<Variable>,
    /// The kernels.
    pub entries: Vec<Entry>,
}

/// A state space in which variables live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Device memory.
    Global,
    /// Device memory that kernels only read.
    Const,
    /// Memory of one block.
    Shared,
    /// Memory of one thread.
    Local,
    /// The arguments of a kernel.
    Param,
}

/// A scalar type: its letter and its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// One bit a lane.
    Pred,
    /// Untyped bits, of this many.
    B(u8),
    /// Unsigned integer.
    U(u8),
    /// Signed integer.
    S(u8),
    /// IEEE float.
    F(u8),
    /// bfloat16.
    Bf16,
    /// Two halves in 32 bits.
    F16x2,
    /// Two bfloat16 in 32 bits.
    Bf16x2,
    /// The 19-bit float of the matrix units, in 32 bits.
    Tf32,
}

impl Type {
    /// Reads a type name without its dot, such as `u32` or `bf16x2`.
    pub fn parse(name: &str) -> Option<Type> {
        match name {
            "pred" => return Some(Type::Pred),
            "bf16" => return Some(Type::Bf16),
            "f16x2" => return Some(Type::F16x2),
            "bf16x2" => return Some(Type::Bf16x2),
            "tf32" => return Some(Type::Tf32),
            _ => {}
        }
        let bits = match name.get(1..)? {
            "8" => 8,
            "16" => 16,
            "32" => 32,
            "64" => 64,
            _ => return None,
        };
        match &name[..1] {
            "b" => Some(Type::B(bits)),
            "u" => Some(Type::U(bits)),
            "s" => Some(Type::S(bits)),
            "f" if bits >= 16 => Some(Type::F(bits)),
            _ => None,
        }
    }

    /// Width in bits; a predicate has one.
    pub fn bits(self) -> u32 {
        match self {
            Type::Pred => 1,
            Type::B(n) | Type::U(n) | Type::S(n) | Type::F(n) => u32::from(n),
            Type::Bf16 => 16,
            Type::F16x2 | Type::Bf16x2 | Type::Tf32 => 32,
        }
    }

    /// Width in memory, in bytes.
    pub fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }
}

/// A declared variable or kernel parameter.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Where it lives.
    pub space: Space,
    /// Its name.
    pub name: String,
    /// Its size in bytes; zero for `.extern .shared name[]`.
    pub size: u32,
    /// Its alignment in bytes.
    pub align: u32,
    /// Its initial bytes; shorter than `size` where the rest is zero.
    pub init: Vec<u8>,
    /// True for `.extern`.
    pub external: bool,
}

/// A kernel.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its parameters, in order.
    pub params: Vec<Variable>,
    /// `.reqntid`: the only block it may be launched with.
    pub required_block: Option<[u32; 3]>,
    /// `.maxntid` multiplied out: the most threads a block may have.
    pub max_threads: Option<u32>,
    /// Its statements.
    pub body: Vec<Statement>,
}

/// One statement of a kernel body.
#[derive(Debug)]
pub enum Statement {
    /// `{`
    Open,
    /// `}`
    Close,
    /// `.reg .b32 %r<5>;` one item a name, with the count of a `<n>` range.
    Registers(Type, Vec<(String, Option<u32>)>),
    /// `.shared` or `.local` memory.
    Variable(Variable),
    /// `name:`
    Label(String),
    /// `name: .branchtargets a, b;`
    BranchTargets(String, Vec<String>),
    /// An instruction.
    Instruction(Instruction),
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// `@p` or `@!p`: the predicate's name, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The opcode split at its dots: `["ld", "global", "f32"]`.
    pub opcode: Vec<String>,
    /// The operands.
    pub operands: Vec<Operand>,
    /// The instruction as written, white space normalised.
    pub text: String,
    /// Line in the PTX text, from 1.
    pub line: u32,
}

impl Instruction {
    /// The opcode's first part.
    pub fn family(&self) -> &str {
        &self.opcode[0]
    }

    /// Whether the opcode has this modifier.
    pub fn has(&self, part: &str) -> bool {
        self.opcode[1..].iter().any(|p| p == part)
    }

    /// The opcode's last part as a type.
    pub fn last_type(&self) -> Option<Type> {
        Type::parse(self.opcode.last()?)
    }

    /// The opcode as written.
    pub fn name(&self) -> String {
        self.opcode.join(".")
    }
}

/// One operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, symbol, label or special register.
    Name(String),
    /// `!p`
    Not(String),
    /// An integer; negative values are two's complement.
    Int(u64),
    /// `0f3F800000`
    F32(u32),
    /// `0d3FF0000000000000`, or a decimal literal.
    F64(u64),
    /// `[base+offset]`
    Address(Box<Operand>, i64),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `p|q`
    Pair(String, String),
    /// `_`
    Ignored,
}
