//! Matrix operations of a warp: `mma` on bf16, f16 and tf32, `ldmatrix` and `stmatrix`.
//!
//! Fragments follow the PTX manual: with `g = lane / 4` and `t = lane % 4`, a lane of `m16n8` holds rows `g` and `g + 8` of
//! A, column `g` of B, and columns `2t`, `2t + 1` of C and D. Products are accumulated in f32 by fused multiply-adds in
//! ascending order of `k`; the hardware's order is not documented.

use super::minifloat::{widen_bf16, widen_f16};
use super::{Decoded, only, operands, unknown};
use crate::check::checker::Touch;
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Kind, Op, Work};
use crate::exec::access::Space;
use crate::exec::lanes::LANES;
use crate::exec::simd::op;
use crate::exec::warp::Warp;
use crate::ptx::ast::{Instruction, Operand};

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    if i.family() == "mma" { mma(b, i) } else { matrices(b, i) }
}

fn vector(operand: &Operand) -> Result<&[Operand], String> {
    match operand {
        Operand::Vector(parts) => Ok(parts),
        _ => Err("a vector of registers is due".into()),
    }
}

fn mma(b: &mut Builder, i: &Instruction) -> Decoded {
    only(i, &["sync", "aligned", "m16n8k4", "m16n8k8", "m16n8k16", "row", "col"])?;
    let [d, a, bb, c] = operands::<4>(i)?;
    let name = i.opcode[1..].join(".");
    let (run, depth, class): (Op, u32, Class) = match name.as_str() {
        "sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" => {
            (op!(|w, i, _m| halves::<16>(w, i, widen_bf16)), 16, Class::Matrix)
        }
        "sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32" => {
            (op!(|w, i, _m| halves::<8>(w, i, widen_bf16)), 8, Class::Matrix)
        }
        "sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" => {
            (op!(|w, i, _m| halves::<16>(w, i, widen_f16)), 16, Class::Matrix)
        }
        "sync.aligned.m16n8k8.row.col.f32.f16.f16.f32" => {
            (op!(|w, i, _m| halves::<8>(w, i, widen_f16)), 8, Class::Matrix)
        }
        "sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32" => (op!(|w, i, _m| words::<8>(w, i)), 8, Class::MatrixTf32),
        "sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32" => (op!(|w, i, _m| words::<4>(w, i)), 4, Class::MatrixTf32),
        _ => return unknown(i),
    };
    let words = if class == Class::Matrix { depth / 4 } else { depth / 2 } as usize;
    let (d, a, bb, c) = (vector(d)?, vector(a)?, vector(bb)?, vector(c)?);
    if (d.len(), a.len(), bb.len(), c.len()) != (4, words, words / 2, 4) {
        return Err("fragments of the wrong size".into());
    }
    let mut slots = Vec::new();
    for operand in a.iter().chain(bb).chain(c) {
        slots.push(b.src::<u32>(operand)?);
    }
    for operand in d {
        slots.push(b.dst::<u32>(operand)?);
    }
    let instr = Instr { kind: Kind::Converge, imm: b.list(slots), n: words as u8, ..Instr::new(run) };
    Ok((instr, Work::new(class, 2 * 16 * 8 * depth)))
}

/// A 16 x K (K x 8) operand in single precision.
type Left<const K: usize> = [[f32; K]; 16];
type Right<const K: usize> = [[f32; 8]; K];

#[inline(always)]
fn halves<const K: usize>(w: &mut Warp, i: &Instr, widen: impl Fn(u32) -> f32) -> bool {
    let slots = w.list(i.imm, K / 4 + K / 8);
    let (mut left, mut right): (Left<K>, Right<K>) = ([[0.0; K]; 16], [[0.0; 8]; K]);
    for (part, &slot) in slots.iter().enumerate() {
        let words = w.lanes::<u32>(slot);
        for (lane, word) in words.iter().enumerate() {
            let (g, t) = (lane / 4, lane % 4 * 2);
            let pair = [widen(word & 0xffff), widen(word >> 16)];
            if part < K / 4 {
                let (row, column) = (g + part % 2 * 8, t + part / 2 * 8);
                left[row][column..column + 2].copy_from_slice(&pair);
            } else {
                let row = t + (part - K / 4) * 8;
                (right[row][g], right[row + 1][g]) = (pair[0], pair[1]);
            }
        }
    }
    accumulate(w, i, &left, &right)
}

#[inline(always)]
fn words<const K: usize>(w: &mut Warp, i: &Instr) -> bool {
    let slots = w.list(i.imm, K / 2 + K / 4);
    let (mut left, mut right): (Left<K>, Right<K>) = ([[0.0; K]; 16], [[0.0; 8]; K]);
    for (part, &slot) in slots.iter().enumerate() {
        let words = w.lanes::<u32>(slot);
        for (lane, word) in words.iter().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            // The units ignore the low 13 bits.
            let value = f32::from_bits(word & 0xffff_e000);
            if part < K / 2 {
                left[g + part % 2 * 8][t + part / 2 * 4] = value;
            } else {
                right[t + (part - K / 2) * 4][g] = value;
            }
        }
    }
    accumulate(w, i, &left, &right)
}

#[inline(always)]
fn accumulate<const K: usize>(w: &mut Warp, i: &Instr, left: &Left<K>, right: &Right<K>) -> bool {
    let words = usize::from(i.n);
    let slots = &w.list(i.imm, words + words / 2 + 8)[words + words / 2..];
    let mut sum = [[0.0f32; 8]; 16];
    for part in 0..4 {
        let c = w.lanes::<f32>(slots[part]);
        for lane in 0..LANES {
            sum[lane / 4 + part / 2 * 8][lane % 4 * 2 + part % 2] = c[lane];
        }
    }
    for (row, factors) in sum.iter_mut().zip(left) {
        for k in 0..K {
            for n in 0..8 {
                row[n] = factors[k].mul_add(right[k][n], row[n]);
            }
        }
    }
    for part in 0..4 {
        let d = w.lanes_mut::<f32>(slots[4 + part]);
        for lane in 0..LANES {
            d[lane] = sum[lane / 4 + part / 2 * 8][lane % 4 * 2 + part % 2];
        }
    }
    false
}

/// `ldmatrix` and `stmatrix` of 1, 2 or 4 matrices of 8 x 8 halves: lane `8q + r` gives the address of row `r` of matrix `q`.
fn matrices(b: &mut Builder, i: &Instruction) -> Decoded {
    only(i, &["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta"])?;
    let store = i.family() == "stmatrix";
    let count = if i.has("x4") {
        4
    } else if i.has("x2") {
        2
    } else {
        1
    };
    let [first, second] = operands::<2>(i)?;
    let (place, data) = if store { (first, second) } else { (second, first) };
    let data = vector(data)?;
    if data.len() != count {
        return Err(format!("{} registers for {count} matrices", data.len()));
    }
    let mut instr =
        Instr { kind: Kind::Converge, n: count as u8, ..Instr::new(if store { store_rows } else { load_rows }) };
    super::memory::address(b, &mut instr, place, Space::Shared)?;
    // The slot of the member mask is also that of the address cache, which shared memory does not need.
    instr.target = 0;
    instr.c = u32::from(i.has("trans"));
    for (slot, operand) in instr.x.iter_mut().zip(data) {
        *slot = if store { b.src::<u32>(operand)? } else { b.dst::<u32>(operand)? };
    }
    let bytes = 4 * count as u32;
    Ok((instr, Work { class: Class::Shared, flops: 0, bytes, store }))
}

/// Row and column of the first of the two halves a lane holds.
fn place(lane: usize, transposed: bool, second: usize) -> (usize, usize) {
    let (row, column) = (lane / 4, lane % 4 * 2 + second);
    if transposed { (column, row) } else { (row, column) }
}

fn load_rows(w: &mut Warp, i: &Instr, _: u32) -> bool {
    let at = w.addresses(i);
    if w.watched {
        w.count_traffic(Space::Shared, &at, (u64::MAX >> (64 - 8 * u32::from(i.n))) as u32, 16, false);
    }
    for q in 0..usize::from(i.n) {
        let mut matrix = [[0u16; 8]; 8];
        for (r, row) in matrix.iter_mut().enumerate() {
            let lane = 8 * q + r;
            let Some(source) = w.resolve(i, Space::Shared, at[lane], 16, lane) else { return true };
            if w.watched {
                w.observe(&source, 16, lane, Touch::Read);
            }
            // SAFETY: `resolve` checked 16 bytes, aligned.
            *row = unsafe { source.host.cast::<[u16; 8]>().read() };
        }
        let d = w.lanes_mut::<u32>(i.x[q]);
        for (lane, word) in d.iter_mut().enumerate() {
            let ((r0, c0), (r1, c1)) = (place(lane, i.c != 0, 0), place(lane, i.c != 0, 1));
            *word = u32::from(matrix[r0][c0]) | u32::from(matrix[r1][c1]) << 16;
        }
    }
    false
}

fn store_rows(w: &mut Warp, i: &Instr, _: u32) -> bool {
    let at = w.addresses(i);
    if w.watched {
        w.count_traffic(Space::Shared, &at, (u64::MAX >> (64 - 8 * u32::from(i.n))) as u32, 16, true);
    }
    for q in 0..usize::from(i.n) {
        let mut matrix = [[0u16; 8]; 8];
        for (lane, word) in w.lanes::<u32>(i.x[q]).iter().enumerate() {
            let ((r0, c0), (r1, c1)) = (place(lane, i.c != 0, 0), place(lane, i.c != 0, 1));
            (matrix[r0][c0], matrix[r1][c1]) = (*word as u16, (word >> 16) as u16);
        }
        for (r, row) in matrix.iter().enumerate() {
            let lane = 8 * q + r;
            let Some(target) = w.resolve(i, Space::Shared, at[lane], 16, lane) else { return true };
            if w.watched {
                w.observe(&target, 16, lane, Touch::Write(true));
            }
            // SAFETY: `resolve` checked 16 bytes, aligned.
            unsafe { target.host.cast::<[u16; 8]>().write(*row) };
        }
    }
    false
}
