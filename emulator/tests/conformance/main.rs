//! Every opcode against the host's arithmetic: bit for bit where IEEE or the PTX manual says what the bits are, within a
//! stated error where the hardware approximates.
//!
//! A case is an instruction, the classes of its operands and a function of the host. Each becomes a kernel of its own in
//! one module; every thread feeds it one triple of operands.

#[path = "../common/mod.rs"]
mod common;
mod convert;
mod float;
mod half_precision;
mod int;
mod matrix;
mod memory;
mod spaces;
mod warp;

use common::{Gpu, Launch, threads};
use cudarc::driver::PushKernelArg;
use cuemu::{Config, exclusive};

/// The class of an operand: how it is loaded, and which values it takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Class {
    /// Integers of 16, 32, 64 bits, edge cases included.
    I16,
    I32,
    I64,
    /// Amounts from 0 to 70.
    Amount,
    /// A predicate.
    P,
    /// Floats, edge cases included.
    F32,
    F64,
    /// Floats of 12 significant bits and like size, whose products and sums f64 holds exactly.
    Short32,
    /// One half, bfloat16.
    F16,
    Bf16,
    /// Pairs of them.
    F16x2,
    Bf16x2,
}

impl Class {
    fn bits(self) -> u32 {
        match self {
            Class::I16 | Class::F16 | Class::Bf16 => 16,
            Class::I64 | Class::F64 => 64,
            Class::P => 1,
            _ => 32,
        }
    }

    fn value(self, draw: u64, edge: usize) -> u64 {
        const FLOATS: [f32; 16] = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            1.5,
            2.5,
            -2.5,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            1e-40,
            -3e-42,
        ];
        const INTS: [i64; 12] =
            [0, 1, -1, 2, 7, i64::MAX, i64::MIN, i32::MAX as i64, i32::MIN as i64, 0x7fff, -0x8000, 0xffff_ffff];
        let cut = if self.bits() == 64 { u64::MAX } else { (1 << self.bits()) - 1 };
        let sparse = draw >> (draw % 53);
        let value = match self {
            Class::I16 | Class::I32 | Class::I64 if edge < INTS.len() => INTS[edge] as u64,
            Class::I16 | Class::I32 | Class::I64 if draw & 1 == 0 => sparse,
            Class::Amount => draw % 71,
            Class::F32 if edge < FLOATS.len() => FLOATS[edge].to_bits().into(),
            // Half of the floats are of like size, half of any.
            Class::F32 if draw & 1 == 0 => u64::from((draw >> 20) as u32 & 0x83ff_ffff | 0x3c00_0000),
            Class::F64 if edge < FLOATS.len() => f64::from(FLOATS[edge]).to_bits(),
            Class::F64 if draw & 1 == 0 => draw & 0x803f_ffff_ffff_ffff | 0x3fc0_0000_0000_0000,
            Class::Short32 => u64::from((draw >> 20) as u32 & 0x81ff_f000 | 0x3e00_0000),
            Class::F16 if edge < FLOATS.len() => half::f16::from_f32(FLOATS[edge]).to_bits().into(),
            Class::Bf16 if edge < FLOATS.len() => half::bf16::from_f32(FLOATS[edge]).to_bits().into(),
            Class::F16x2 | Class::Bf16x2 => {
                let half = if self == Class::F16x2 { Class::F16 } else { Class::Bf16 };
                half.value(draw >> 32, edge) | half.value(draw.rotate_left(17) >> 32, 15 - edge.min(15)) << 16
            }
            _ => draw,
        };
        value & cut
    }

    fn register(self, name: &str) -> String {
        format!("%{}{name}", if self.bits() == 1 { "p" } else { ["h", "r", "d"][self.bits() as usize / 32] })
    }
}

/// How close the result must be.
#[derive(Clone, Copy)]
pub enum Match {
    /// Every bit.
    Bits,
    /// Every bit, but any NaN for a NaN: f32, f64, f16, bf16 and pairs.
    Float(Class),
    /// f32 within this many units in the last place of the larger magnitude or 1e-6 absolutely.
    Near(f64),
}

/// What the host says: the operands' bits to the result's.
pub type Host = Box<dyn Fn(&[u64]) -> u64>;

/// One instruction under test.
pub struct Case {
    pub op: String,
    pub to: Class,
    pub from: Vec<Class>,
    pub host: Host,
    pub close: Match,
    /// Text after the operands (a member mask, an immediate).
    pub tail: String,
}

/// A case whose result must match in every bit.
pub fn exact(op: &str, to: Class, from: &[Class], host: impl Fn(&[u64]) -> u64 + 'static) -> Case {
    Case { op: op.into(), to, from: from.to_vec(), host: Box::new(host), close: Match::Bits, tail: String::new() }
}

/// A case whose float result must match in every bit unless it is NaN.
pub fn float(op: &str, to: Class, from: &[Class], host: impl Fn(&[u64]) -> u64 + 'static) -> Case {
    let close = Match::Float(to);
    Case { close, ..exact(op, to, from, host) }
}

fn is_nan(class: Class, bits: u64) -> bool {
    match class {
        Class::F32 | Class::Short32 => f32::from_bits(bits as u32).is_nan(),
        Class::F64 => f64::from_bits(bits).is_nan(),
        Class::F16 => half::f16::from_bits(bits as u16).is_nan(),
        Class::Bf16 => half::bf16::from_bits(bits as u16).is_nan(),
        _ => false,
    }
}

fn matches(close: Match, got: u64, want: u64) -> bool {
    match close {
        Match::Bits => got == want,
        Match::Float(pair @ (Class::F16x2 | Class::Bf16x2)) => {
            let one = if pair == Class::F16x2 { Class::F16 } else { Class::Bf16 };
            [0, 16].into_iter().all(|s| matches(Match::Float(one), got >> s & 0xffff, want >> s & 0xffff))
        }
        Match::Float(class) => got == want || (is_nan(class, got) && is_nan(class, want)),
        Match::Near(units) => {
            let (g, w) = (f32::from_bits(got as u32), f32::from_bits(want as u32));
            let error = (f64::from(g) - f64::from(w)).abs();
            g == w
                || (g.is_nan() && w.is_nan())
                || error <= units * f64::from(f32::EPSILON) * f64::from(w.abs())
                || error < 1e-6
        }
    }
}

/// The kernel of one case.
fn kernel(name: &str, case: &Case) -> String {
    let mut body = String::new();
    for (k, class) in case.from.iter().enumerate() {
        let letter = ["a", "b", "c"][k];
        let register = class.register(letter);
        let at = format!("[%addr+{}]", 8 * k);
        body += &match class.bits() {
            1 => format!("ld.global.u32 %rt, {at};\nsetp.ne.u32 {register}, %rt, 0;\n"),
            bits => format!("ld.global.b{bits} {register}, {at};\n"),
        };
    }
    let sources: Vec<String> = case.from.iter().zip(["a", "b", "c"]).map(|(c, l)| c.register(l)).collect();
    let mut operands = vec![case.to.register("x")];
    operands.extend(sources);
    if !case.tail.is_empty() {
        operands.push(case.tail.clone());
    }
    body += &format!("{} {};\n", case.op, operands.join(", "));
    body += &match case.to.bits() {
        1 => "selp.u32 %rt, 1, 0, %px;\nst.global.u32 [%out], %rt;\n".to_string(),
        bits => format!("st.global.b{bits} [%out], {};\n", case.to.register("x")),
    };
    format!(
        ".visible .entry {name}(.param .u64 input, .param .u64 output) {{\n\
        .reg .b16 %ha, %hb, %hc, %hx;\n.reg .b32 %ra, %rb, %rc, %rx, %rt, %ri;\n.reg .b64 %da, %db, %dc, %dx, %addr, %out;\n\
        .reg .pred %pa, %pb, %pc, %px;\nld.param.u64 %addr, [input];\nld.param.u64 %out, [output];\nmov.u32 %ri, %ctaid.x;\n\
        mov.u32 %rt, %ntid.x;\nmul.lo.u32 %ri, %ri, %rt;\nmov.u32 %rt, %tid.x;\nadd.u32 %ri, %ri, %rt;\n\
        mad.wide.u32 %addr, %ri, 24, %addr;\nmad.wide.u32 %out, %ri, 8, %out;\n{body}ret;\n}}\n"
    )
}

/// The first line of every module.
pub const HEAD: &str = ".version 8.4\n.target sm_90\n.address_size 64\n";

/// Runs cases on 1024 triples of operands each.
pub fn check(cases: Vec<Case>) {
    let exclusive = exclusive(Config::default()).unwrap();
    let mut ptx = HEAD.to_string();
    for (k, case) in cases.iter().enumerate() {
        ptx += &kernel(&format!("case{k}"), case);
    }
    let loaded = std::panic::catch_unwind(|| Gpu::new(&ptx));
    let gpu = loaded.unwrap_or_else(|_| panic!("{:?}", exclusive.findings()));
    let n = 1024;
    let mut failures = Vec::new();
    for (k, case) in cases.iter().enumerate() {
        let mut state = k as u64 + 1;
        let mut draw = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state ^ state >> 31
        };
        // The first 256 combine the edge cases of the first two operands.
        let edges = |t: usize, k: usize| if t < 256 { [t % 16, t / 16, t % 7][k] } else { 99 };
        let input: Vec<[u64; 3]> = (0..n)
            .map(|t| std::array::from_fn(|o| case.from.get(o).map_or(0, |c| c.value(draw(), edges(t, o)))))
            .collect();
        let flat: Vec<u64> = input.iter().flatten().copied().collect();
        let device = gpu.stream.clone_htod(&flat).unwrap();
        let mut out = gpu.stream.alloc_zeros::<u64>(n).unwrap();
        let function = gpu.kernel(&format!("case{k}"));
        gpu.stream.launch_builder(&function).arg(&device).arg(&mut out).run(threads(n, 64)).unwrap();
        let got = gpu.stream.clone_dtoh(&out).unwrap();
        if let Some(t) = (0..n).find(|&t| !matches(case.close, got[t], (case.host)(&input[t]))) {
            failures.push(format!(
                "{}: of {:x?} is {:#x}, not {:#x}",
                case.op,
                input[t],
                got[t],
                (case.host)(&input[t])
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {} opcodes:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// All of it again with the ops compiled for smaller instruction sets.
#[test]
fn every_instruction_set() {
    for level in ["portable", "avx2"] {
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--skip", "every_instruction_set"])
            .env("CUEMU_SIMD", level)
            .output()
            .unwrap();
        assert!(again.status.success(), "{level}: {}", String::from_utf8_lossy(&again.stdout));
    }
}
