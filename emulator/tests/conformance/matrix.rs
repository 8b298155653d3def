//! The matrix instructions of a warp and what feeds them, as the PTX manual lays out their fragments.

use super::HEAD;
use crate::common::{Gpu, Launch, threads};
use cudarc::driver::PushKernelArg;
use cuemu::{Config, exclusive};
use half::bf16;

const LANES: usize = 32;

/// A kernel `[in, out]` of one warp with `%lane`, and tile 512 bytes of shared memory.
fn kernel(name: &str, body: &str) -> String {
    format!(
        ".visible .entry {name}(.param .u64 from, .param .u64 to)
{{
.reg .b64 %in, %out, %far;
.reg .b32 %lane, %place, %tile, %size, %r<16>;
.reg .f32 %f<8>;
.shared .align 16 .b8 tile[512];
ld.param.u64 %in, [from];
ld.param.u64 %out, [to];
mov.u32 %lane, %tid.x;
mov.u32 %tile, tile;
{body}ret;
}}
"
    )
}

/// Stores `count` words a lane, registers `prefix0` and so on.
fn stored(prefix: &str, count: usize) -> String {
    let mut text = format!("mul.wide.u32 %far, %lane, {};\nadd.u64 %out, %out, %far;\n", 4 * count);
    (0..count).for_each(|k| text += &format!("st.global.b32 [%out+{}], %{prefix}{k};\n", 4 * k));
    text
}

/// Runs a kernel of one warp on words; `out` words come back.
fn run(gpu: &Gpu, name: &str, input: &[u32], out: usize) -> Vec<u32> {
    let device = gpu.stream.clone_htod(input).unwrap();
    let mut words = gpu.stream.alloc_zeros::<u32>(out).unwrap();
    let function = gpu.kernel(name);
    gpu.stream.launch_builder(&function).arg(&device).arg(&mut words).run(threads(LANES, 32)).unwrap();
    gpu.stream.clone_dtoh(&words).unwrap()
}

/// Sixteen bytes a lane into shared memory, those beyond a size of its own zero.
#[test]
fn asynchronous_copies() {
    for wait in ["cp.async.wait_all;", "cp.async.commit_group;\ncp.async.wait_group 0;"] {
        asynchronous_copies_with(wait);
    }
}

fn asynchronous_copies_with(wait: &str) {
    let s = exclusive(Config::checked()).unwrap();
    let copies = "mul.wide.u32 %far, %lane, 16;\nadd.u64 %in, %in, %far;\nshl.b32 %place, %lane, 4;\nadd.u32 %place, %tile, %place;\n\
                and.b32 %size, %lane, 15;\nadd.u32 %size, %size, 1;\n\
                cp.async.cg.shared.global [%place], [%in], 16, %size;\n";
    let body = format!("{copies}{wait}\nld.shared.v4.b32 {{%r0, %r1, %r2, %r3}}, [%place];\n");
    let gpu = Gpu::new(&format!("{HEAD}{}", kernel("copies", &format!("{body}{}", stored("r", 4)))));
    let input: Vec<u32> = (0..4 * LANES as u32).map(|i| 0x0101_0101u32.wrapping_mul(i + 1)).collect();
    let got = run(&gpu, "copies", &input, 4 * LANES);
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    for (lane, (got, from)) in bytes(&got).chunks(16).zip(bytes(&input).chunks(16)).enumerate() {
        let size = lane % 16 + 1;
        assert_eq!(got[..size], from[..size], "lane {lane}");
        assert!(got[size..].iter().all(|&byte| byte == 0), "lane {lane}");
    }
    s.assert_clean();
}

/// Four matrices of 8 x 8 halves, as they are and transposed: lane 8q + r points at row r of matrix q.
#[test]
fn matrices_of_halves() {
    let s = exclusive(Config::checked()).unwrap();
    let fill = "mul.wide.u32 %far, %lane, 16;\nadd.u64 %in, %in, %far;\nld.global.v4.b32 {%r0, %r1, %r2, %r3}, [%in];\n\
                shl.b32 %place, %lane, 4;\nadd.u32 %place, %tile, %place;\nst.shared.v4.b32 [%place], {%r0, %r1, %r2, %r3};\n\
                bar.warp.sync 0xffffffff;\n";
    let mut ptx = HEAD.to_string();
    for (name, turn) in [("plain", ""), ("turned", ".trans")] {
        let load = format!("ldmatrix.sync.aligned.m8n8.x4{turn}.shared.b16 {{%r4, %r5, %r6, %r7}}, [%place];\n");
        let moves: String = (0..4).map(|k| format!("mov.b32 %r{k}, %r{};\n", k + 4)).collect();
        ptx += &kernel(name, &format!("{fill}{load}{moves}{}", stored("r", 4)));
    }
    let gpu = Gpu::new(&ptx);
    // Element (row, column) of matrix q is 64·q + 8·row + column.
    let input: Vec<u32> = (0..4 * LANES as u32).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect();
    for (name, turned) in [("plain", false), ("turned", true)] {
        let got = run(&gpu, name, &input, 4 * LANES);
        for lane in 0..LANES as u32 {
            let (row, column) = (lane / 4, lane % 4 * 2);
            for q in 0..4 {
                let element = |second: u32| match turned {
                    false => 64 * q + 8 * row + column + second,
                    true => 64 * q + 8 * (column + second) + row,
                };
                assert_eq!(
                    got[(4 * lane + q) as usize],
                    element(0) | element(1) << 16,
                    "{name}, lane {lane}, matrix {q}"
                );
            }
        }
    }
    s.assert_clean();
}

/// The product of 16 x K and K x 8 small whole numbers plus a third matrix: exact in either arithmetic.
#[test]
fn products() {
    let s = exclusive(Config::checked()).unwrap();
    let shapes = [("bf16", 16, "m16n8k16.row.col.f32.bf16.bf16.f32"), ("tf32", 8, "m16n8k8.row.col.f32.tf32.tf32.f32")];
    let mut ptx = HEAD.to_string();
    for (name, _, shape) in shapes {
        // Ten words a lane: four of A, two of B, four of C.
        let load: String = (0..6).map(|k| format!("ld.global.b32 %r{k}, [%in+{}];\n", 4 * k)).collect();
        let sums: String = (0..4).map(|k| format!("ld.global.f32 %f{k}, [%in+{}];\n", 24 + 4 * k)).collect();
        let multiply = format!(
            "mma.sync.aligned.{shape} {{%f0, %f1, %f2, %f3}}, {{%r0, %r1, %r2, %r3}}, {{%r4, %r5}}, {{%f0, %f1, %f2, %f3}};\n"
        );
        let body = format!("mul.wide.u32 %far, %lane, 40;\nadd.u64 %in, %in, %far;\n{load}{sums}{multiply}");
        ptx += &kernel(name, &format!("{body}{}", stored("f", 4)));
    }
    let gpu = Gpu::new(&ptx);
    for (name, depth, _) in shapes {
        let left = |row: usize, k: usize| ((row * 7 + k * 3) % 11) as f32 - 5.0;
        let right = |k: usize, column: usize| ((k * 5 + column) % 13) as f32 - 6.0;
        let third = |row: usize, column: usize| (row * 8 + column) as f32;
        let pair =
            |a: f32, b: f32| u32::from(bf16::from_f32(a).to_bits()) | u32::from(bf16::from_f32(b).to_bits()) << 16;
        let mut input = Vec::new();
        for lane in 0..LANES {
            let (group, member) = (lane / 4, lane % 4);
            for part in 0..4 {
                let row = group + part % 2 * 8;
                input.push(match depth {
                    16 => {
                        let k = member * 2 + part / 2 * 8;
                        pair(left(row, k), left(row, k + 1))
                    }
                    _ => left(row, member + part / 2 * 4).to_bits(),
                });
            }
            for part in 0..2 {
                input.push(match depth {
                    16 => {
                        let k = member * 2 + part * 8;
                        pair(right(k, group), right(k + 1, group))
                    }
                    _ => right(member + part * 4, group).to_bits(),
                });
            }
            for part in 0..4 {
                input.push(third(group + part / 2 * 8, member * 2 + part % 2).to_bits());
            }
        }
        let got = run(&gpu, name, &input, 4 * LANES);
        for lane in 0..LANES {
            for part in 0..4 {
                let (row, column) = (lane / 4 + part / 2 * 8, lane % 4 * 2 + part % 2);
                let sum: f32 = (0..depth).map(|k| left(row, k) * right(k, column)).sum();
                let expected = sum + third(row, column);
                assert_eq!(f32::from_bits(got[4 * lane + part]), expected, "{name}, element {row}, {column}");
            }
        }
    }
    s.assert_clean();
}
