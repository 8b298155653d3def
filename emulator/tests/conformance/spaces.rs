//! Every load and store: each state space, type and vector carries each byte to its place.
//!
//! A thread moves the first bytes of a record of its own through one instruction under test; everything around it is
//! scalar words of 32 bits, or scalars as wide as the type.

use super::HEAD;
use crate::common::{Gpu, Launch, threads};
use cudarc::driver::PushKernelArg;
use cuemu::{Config, exclusive};

const THREADS: usize = 64;
/// Bytes of a record.
const RECORD: usize = 32;

/// Types by width in bytes, and the prefix of their registers: those of bytes are 16 bits wide.
const TYPES: [(&str, usize, &str); 13] = [
    ("b8", 1, "h"),
    ("u8", 1, "h"),
    ("b16", 2, "h"),
    ("u16", 2, "h"),
    ("s16", 2, "h"),
    ("b32", 4, "r"),
    ("u32", 4, "r"),
    ("s32", 4, "r"),
    ("f32", 4, "f"),
    ("b64", 8, "d"),
    ("u64", 8, "d"),
    ("s64", 8, "d"),
    ("f64", 8, "e"),
];

/// `x0` or `{x0, x1}`.
fn registers(prefix: &str, count: usize) -> String {
    let names: Vec<String> = (0..count).map(|k| format!("%{prefix}{k}")).collect();
    if count == 1 { names[0].clone() } else { format!("{{{}}}", names.join(", ")) }
}

/// Moves `bytes` of a record word by word; `from` and `to` are a space and a base.
fn words(from: (&str, &str), to: (&str, &str)) -> String {
    (0..RECORD)
        .step_by(4)
        .map(|at| {
            let ((load, source), (store, target)) = (from, to);
            format!("ld.{load}.b32 %w, [{source}+{at}];\nst.{store}.b32 [{target}+{at}], %w;\n")
        })
        .collect()
}

/// The kernel around `body`; what it must not touch of its output stays zero.
fn kernel(name: &str, body: &str) -> String {
    format!(
        ".visible .entry {name}(.param .u64 input, .param .u64 output, .param .align 16 .b8 block[{RECORD}]) {{\n\
        .reg .b16 %h<4>;\n.reg .b32 %r<4>, %w, %t;\n.reg .f32 %f<4>;\n.reg .b64 %d<4>, %in, %out, %tile;\n.reg .f64 %e<4>;\n\
        .shared .align 16 .b8 tile[{}];\n.local .align 16 .b8 stack[{RECORD}];\n\
        ld.param.u64 %in, [input];\nld.param.u64 %out, [output];\ncvta.to.global.u64 %in, %in;\nmov.u32 %t, %tid.x;\n\
        mad.wide.u32 %in, %t, {RECORD}, %in;\nmad.wide.u32 %out, %t, {RECORD}, %out;\nmov.u64 %tile, tile;\n\
        mad.wide.u32 %tile, %t, {RECORD}, %tile;\n{body}ret;\n}}\n",
        THREADS * RECORD
    )
}

/// One instruction: its kernel's text, the bytes it moves, and whether they come from the table or block that all share.
struct Move {
    op: String,
    body: String,
    bytes: usize,
    shared_source: bool,
}

fn moves() -> Vec<Move> {
    let mut all = Vec::new();
    for (ty, width, prefix) in TYPES {
        for count in [1, 2, 4] {
            if width * count > 16 {
                continue;
            }
            let vector = if count == 1 { String::new() } else { format!("v{count}.") };
            let list = registers(prefix, count);
            let bits = 8 * width;
            let scalars = |op: &str, base: &str| -> String {
                (0..count)
                    .map(|k| match op {
                        "ld" => format!("ld.global.b{bits} %{prefix}{k}, [{base}+{}];\n", k * width),
                        _ => format!("st.global.b{bits} [{base}+{}], %{prefix}{k};\n", k * width),
                    })
                    .collect()
            };
            let mut add = |op: String, body: String, shared_source: bool| {
                all.push(Move { op, body, bytes: width * count, shared_source });
            };
            for (space, base) in [
                ("global", "%in"),
                ("global.nc", "%in"),
                ("global.cg", "%in"),
                ("shared", "%tile"),
                ("local", "stack"),
                ("const", "table"),
                ("param", "block"),
            ] {
                let op = format!("ld.{space}.{vector}{ty}");
                let before = match space {
                    "shared" | "local" => words(("global", "%in"), (space, base)),
                    _ => String::new(),
                };
                let body = format!("{before}{op} {list}, [{base}];\n{}", scalars("st", "%out"));
                add(op, body, matches!(space, "const" | "param"));
            }
            for (space, base) in [("global", "%out"), ("shared", "%tile"), ("local", "stack")] {
                let op = format!("st.{space}.{vector}{ty}");
                let store = format!("{}{op} [{base}], {list};\n", scalars("ld", "%in"));
                let body = match space {
                    "global" => store,
                    // Zeros first: the rest of the record is read too.
                    _ => {
                        let zero: String =
                            (0..RECORD).step_by(4).map(|at| format!("st.{space}.b32 [{base}+{at}], 0;\n")).collect();
                        zero + &store + &words((space, base), ("global", "%out"))
                    }
                };
                add(op, body, false);
            }
        }
    }
    all
}

#[test]
fn loads_and_stores() {
    let s = exclusive(Config::checked()).unwrap();
    let moves = moves();
    // No two bytes of a record are alike, and none is zero.
    let byte = |thread: usize, at: usize| (1 + (thread * 37 + at * 7) % 255) as u8;
    let block: [u8; RECORD] = std::array::from_fn(|at| byte(200, at));
    let list = block.map(|b| b.to_string()).join(", ");
    let mut ptx = format!("{HEAD}.const .align 16 .b8 table[{RECORD}] = {{{list}}};\n");
    for (k, one) in moves.iter().enumerate() {
        ptx += &kernel(&format!("move{k}"), &one.body);
    }
    let gpu = Gpu::new(&ptx);
    let input: Vec<u8> = (0..THREADS * RECORD).map(|i| byte(i / RECORD, i % RECORD)).collect();
    let device = gpu.stream.clone_htod(&input).unwrap();
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Block([u8; RECORD]);
    // SAFETY: `repr(C)` and plain bytes.
    unsafe impl cudarc::driver::DeviceRepr for Block {}
    let shared = Block(block);
    for (k, one) in moves.iter().enumerate() {
        let mut out = gpu.stream.alloc_zeros::<u8>(THREADS * RECORD).unwrap();
        let function = gpu.kernel(&format!("move{k}"));
        let mut launch = gpu.stream.launch_builder(&function);
        launch.arg(&device).arg(&mut out).arg(&shared).run(threads(THREADS, THREADS as u32)).unwrap();
        let got = gpu.stream.clone_dtoh(&out).unwrap();
        for (thread, record) in got.chunks(RECORD).enumerate() {
            let source = if one.shared_source { &block[..] } else { &input[thread * RECORD..][..RECORD] };
            assert_eq!(record[..one.bytes], source[..one.bytes], "{}, thread {thread}", one.op);
            assert!(record[one.bytes..].iter().all(|b| *b == 0), "{} wrote past its bytes, thread {thread}", one.op);
        }
    }
    s.assert_clean();
}
