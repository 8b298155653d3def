//! What a checker reports.

use std::fmt;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// The kinds of finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FindingKind { $($(#[doc = $doc])* $name,)* }

        impl FindingKind {
            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self { $(FindingKind::$name => $text,)* }
            }

            /// The kind of this name.
            pub fn parse(name: &str) -> Option<FindingKind> {
                match name { $($text => Some(FindingKind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// An access outside every allocation, or outside a block's shared or a thread's local memory. The launch fails.
    OutOfBounds = "out of bounds",
    /// An address that is no multiple of the access's width. The launch fails.
    Misaligned = "misaligned",
    /// A read of memory nobody wrote.
    UninitialisedMemory = "uninitialised memory",
    /// A read of a register nobody wrote.
    UninitialisedRegister = "uninitialised register",
    /// Two threads of a block touch the same shared memory with no barrier between, and one of them writes.
    SharedRace = "shared memory race",
    /// Two threads touch the same global memory with nothing that orders them, and one of them writes.
    GlobalRace = "global memory race",
    /// Some threads of a block wait at a barrier that others never reach.
    BarrierDivergence = "barrier divergence",
    /// Lanes named in the mask of a warp-level instruction never reach it.
    WarpDivergence = "warp divergence",
    /// Shared memory touched while an asynchronous copy into it may still be under way.
    CopyNotAwaited = "copy not awaited",
    /// A warp that seems to run for ever. The launch fails.
    Hang = "hang",
    /// The kernel executed `trap`. The launch fails.
    Trap = "trap",
    /// Memory still allocated when its context ended.
    Leak = "leak",
    /// A free of something that is not allocated.
    BadFree = "bad free",
    /// A launch with arguments the device refuses.
    BadLaunch = "bad launch",
    /// A copy or a fill outside the allocations, or from memory nobody wrote.
    BadCopy = "bad copy",
    /// A module that cannot be loaded.
    BadModule = "bad module",
    /// A collective that ranks call differently, or on memory or a stream that is not theirs.
    BadCollective = "bad collective",
}

/// One finding; the same one at the same instruction is counted, not repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The kernel; empty where none runs.
    pub kernel: String,
    /// Index of the instruction in the kernel.
    pub pc: u32,
    /// The instruction as written.
    pub instruction: String,
    /// Line of the instruction in the PTX.
    pub line: u32,
    /// The first lane concerned.
    pub lane: u32,
    /// Its warp in the block.
    pub warp: u32,
    /// Its block.
    pub block: [u32; 3],
    /// How often it happened.
    pub count: u64,
    /// The particulars of the first time, in words.
    pub detail: String,
}

impl Finding {
    /// A finding of the host side, with no kernel.
    pub fn host(kind: FindingKind, detail: String) -> Finding {
        Finding {
            kind,
            kernel: String::new(),
            pc: 0,
            instruction: String::new(),
            line: 0,
            lane: 0,
            warp: 0,
            block: [0; 3],
            count: 1,
            detail,
        }
    }

    /// One line for [`Finding::parse`].
    pub fn to_line(&self) -> String {
        let clean = |s: &str| s.replace(['\t', '\n'], " ");
        let [x, y, z] = self.block;
        format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{x}\t{y}\t{z}\t{}\t{}",
            self.kind.name(),
            clean(&self.kernel),
            self.pc,
            clean(&self.instruction),
            self.line,
            self.lane,
            self.warp,
            self.count,
            clean(&self.detail),
        )
    }

    /// Reads what [`Finding::to_line`] wrote.
    pub fn parse(line: &str) -> Option<Finding> {
        let f: Vec<&str> = line.split('\t').collect();
        let [kind, kernel, pc, instruction, text_line, lane, warp, x, y, z, count, detail] = f[..] else { return None };
        Some(Finding {
            kind: FindingKind::parse(kind)?,
            kernel: kernel.into(),
            pc: pc.parse().ok()?,
            instruction: instruction.into(),
            line: text_line.parse().ok()?,
            lane: lane.parse().ok()?,
            warp: warp.parse().ok()?,
            block: [x.parse().ok()?, y.parse().ok()?, z.parse().ok()?],
            count: count.parse().ok()?,
            detail: detail.into(),
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kernel.is_empty() {
            return write!(f, "{}: {}", self.kind.name(), self.detail);
        }
        let [x, y, z] = self.block;
        write!(
            f,
            "{} in {} at pc {} `{}` (PTX line {})",
            self.kind.name(),
            self.kernel,
            self.pc,
            self.instruction,
            self.line
        )?;
        write!(f, ", block ({x},{y},{z}) warp {} lane {}: {}", self.warp, self.lane, self.detail)?;
        if self.count > 1 { write!(f, " ({} times)", self.count) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        let mut f = Finding::host(FindingKind::SharedRace, "a\tb\nc".into());
        (f.kernel, f.pc, f.block, f.instruction) = ("k".into(), 7, [1, 2, 3], "st.shared.f32 [%r1], %f1".into());
        let back = Finding::parse(&f.to_line()).unwrap();
        f.detail = "a b c".into();
        assert_eq!(back, f);
        assert!(f.to_string().contains("pc 7") && f.to_string().contains("lane 0"));
    }
}
