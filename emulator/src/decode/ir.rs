//! The compact form a kernel is executed in.

use crate::exec::warp::Warp;

/// Executes one instruction on the lanes of a mask; true where it traps (the reason is left in the warp).
///
/// # Safety
/// The CPU must have the features the function was compiled for; [`crate::exec::simd`] sees to it.
pub type Op = unsafe fn(&mut Warp, &Instr, u32) -> bool;

/// What the scheduler must know of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs on whatever lanes are there.
    Plain,
    /// Runs once all lanes of its member mask are there (shuffles, votes, matrix operations, `bar.warp.sync`).
    Converge,
    /// A jump to `target` for the lanes of the guard.
    Branch,
    /// A jump to a target of its own for every lane.
    IndexedBranch,
    /// A barrier of the block.
    Barrier,
    /// The end of a thread.
    Exit,
}

/// One instruction, 64 bytes. Operands are byte offsets into the register file.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Instr {
    /// What it does.
    pub run: Op,
    /// An immediate: an address offset, an index into the kernel's lists.
    pub imm: i64,
    /// Destination.
    pub d: u32,
    /// First source.
    pub a: u32,
    /// Second source.
    pub b: u32,
    /// Third source.
    pub c: u32,
    /// Further operands: the registers of a vector.
    pub x: [u32; 4],
    /// The guard predicate; the always-true one where there is none.
    pub guard: u32,
    /// All ones where the guard is negated.
    pub flip: u32,
    /// Target of a branch; slot of the address cache of a memory access.
    pub target: u32,
    /// What the scheduler must know.
    pub kind: Kind,
    /// A count: vector length, bytes of a copy.
    pub n: u8,
    /// Small facts of the family's own.
    pub flags: u8,
}

impl Instr {
    /// An instruction without operands.
    pub fn new(run: Op) -> Instr {
        Instr {
            run,
            imm: 0,
            d: 0,
            a: 0,
            b: 0,
            c: 0,
            x: [0; 4],
            guard: TRUE,
            flip: 0,
            target: 0,
            kind: Kind::Plain,
            n: 1,
            flags: 0,
        }
    }
}

/// Slot of the predicate that is always true.
pub const TRUE: u32 = 0;

/// Classes the counters tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Integer and bitwise arithmetic, moves, comparisons.
    Integer,
    /// Single precision arithmetic.
    F32,
    /// Double precision arithmetic.
    F64,
    /// Half and bfloat16 arithmetic.
    Half,
    /// Approximated functions, division and square root.
    Special,
    /// Conversions.
    Convert,
    /// Branches, barriers, fences, exits.
    Control,
    /// Loads and stores of global memory, and generic ones.
    Global,
    /// Loads and stores of shared memory.
    Shared,
    /// Loads and stores of local memory.
    Local,
    /// Loads of constants and arguments.
    Constant,
    /// Atomics on global memory.
    Atomic,
    /// Atomics on shared memory.
    SharedAtomic,
    /// Shuffles, votes, matches.
    Warp,
    /// Matrix operations on f16 and bf16.
    Matrix,
    /// Matrix operations on tf32.
    MatrixTf32,
    /// Asynchronous copies.
    Copy,
}

impl Class {
    /// All of them, in the order of the counters.
    pub const ALL: [Class; 17] = [
        Class::Integer,
        Class::F32,
        Class::F64,
        Class::Half,
        Class::Special,
        Class::Convert,
        Class::Control,
        Class::Global,
        Class::Shared,
        Class::Local,
        Class::Constant,
        Class::Atomic,
        Class::SharedAtomic,
        Class::Warp,
        Class::Matrix,
        Class::MatrixTf32,
        Class::Copy,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Integer => "integer",
            Class::F32 => "f32",
            Class::F64 => "f64",
            Class::Half => "half",
            Class::Special => "special",
            Class::Convert => "convert",
            Class::Control => "control",
            Class::Global => "global",
            Class::Shared => "shared",
            Class::Local => "local",
            Class::Constant => "constant",
            Class::Atomic => "atomic",
            Class::SharedAtomic => "shared atomic",
            Class::Warp => "warp",
            Class::Matrix => "matrix",
            Class::MatrixTf32 => "matrix tf32",
            Class::Copy => "copy",
        }
    }
}

/// Work of one execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Class of the instruction.
    pub class: Class,
    /// Floating-point operations a lane (an FMA is two); of the whole warp for matrix operations.
    pub flops: u32,
    /// Bytes of memory a lane touches.
    pub bytes: u32,
    /// Whether it writes them.
    pub store: bool,
}

impl Work {
    /// Work that touches no memory.
    pub fn new(class: Class, flops: u32) -> Work {
        Work { class, flops, bytes: 0, store: false }
    }
}

/// What reports and checkers must know of an instruction and the hot loop must not.
#[derive(Clone, Debug)]
pub struct Note {
    /// The instruction as written.
    pub text: String,
    /// Line in the PTX.
    pub line: u32,
    /// Its work.
    pub work: Work,
    /// Registers read, with the lanes given by the mask of the instruction.
    pub reads: Vec<u32>,
    /// Registers written.
    pub writes: Vec<u32>,
    /// A move: an undefined source makes the destination undefined instead of being reported.
    pub moves: bool,
}

/// The special registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// Index of the thread in its block, along an axis.
    Tid(u8),
    /// Threads of the block along an axis.
    Ntid(u8),
    /// Index of the block in the grid, along an axis.
    Ctaid(u8),
    /// Blocks of the grid along an axis.
    Nctaid(u8),
    /// Lane in the warp.
    LaneId,
    /// Warp in the block.
    WarpId,
    /// Warps of the block.
    NWarpId,
    /// Lanes equal to, before, up to, from, after this one.
    LaneMask(LaneMask),
    /// Dynamic shared memory of the launch, in bytes.
    DynamicShared,
    /// All shared memory of the launch, in bytes.
    TotalShared,
    /// Zero: things that have no meaning here (multiprocessor, grid number).
    Zero,
}

/// The lane masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneMask {
    /// This lane.
    Eq,
    /// Lanes before.
    Lt,
    /// Lanes up to this one.
    Le,
    /// Lanes after.
    Gt,
    /// Lanes from this one.
    Ge,
}

/// A decoded kernel.
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its instructions; the last is an exit.
    pub code: Vec<Instr>,
    /// One note an instruction.
    pub notes: Vec<Note>,
    /// Operand lists longer than [`Instr::x`].
    pub lists: Vec<u32>,
    /// Instructions that others run as a part of theirs.
    pub helpers: Vec<Instr>,
    /// Bytes of the register file of one warp.
    pub register_bytes: u32,
    /// Registers of a thread in 32-bit words, as declared and used (virtual, not what ptxas allocates).
    pub register_words: u32,
    /// 32-bit constants: slot and value.
    pub constants32: Vec<(u32, u32)>,
    /// 64-bit constants: slot and value.
    pub constants64: Vec<(u32, u64)>,
    /// Special registers: slot and meaning.
    pub specials: Vec<(u32, Special)>,
    /// Offset and size of every argument.
    pub params: Vec<(u32, u32)>,
    /// Bytes of the argument block.
    pub param_bytes: u32,
    /// Static shared memory in bytes.
    pub shared: u32,
    /// Local memory of a thread in bytes.
    pub local: u32,
    /// Address cache slots.
    pub caches: u32,
    /// `.reqntid`.
    pub required_block: Option<[u32; 3]>,
    /// Most threads a block may have.
    pub max_threads: u32,
    /// True where blocks cannot meet: no atomics, so that blocks may run at the same time with the same result.
    pub independent: bool,
}
