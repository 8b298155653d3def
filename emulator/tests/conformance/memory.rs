//! Loads, stores, atomics and address spaces.

use super::Class::{I16, I32, I64};
use super::{Case, HEAD, check, exact};
use crate::common::{Gpu, Launch, threads};
use cudarc::driver::PushKernelArg;
use cuemu::{Config, exclusive};

#[test]
fn widths_and_extensions() {
    // Every load reads the first operand again from memory.
    let load = |ty: &str, to: &str| format!("ld.global.{ty} {to}, [%addr];\n//");
    check(vec![
        exact(&load("u8", "%rx"), I32, &[I64], |v| v[0] & 0xff),
        exact(&load("s8", "%rx"), I32, &[I64], |v| v[0] as i8 as u32 as u64),
        exact(&load("u16", "%rx"), I32, &[I64], |v| v[0] & 0xffff),
        exact(&load("s16", "%rx"), I32, &[I64], |v| v[0] as i16 as u32 as u64),
        exact(&load("s8", "%hx"), I16, &[I64], |v| v[0] as i8 as u16 as u64),
        exact(&load("s32", "%dx"), I64, &[I64], |v| v[0] as i32 as u64),
        exact(&load("u8", "%dx"), I64, &[I64], |v| v[0] & 0xff),
        exact(&load("b64", "%dx"), I64, &[I64], |v| v[0]),
        exact("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%rt, %rx}, [%addr];\n//", I32, &[I64], |v| v[0] >> 32),
        exact("ld.global.v4.u16 {%ha, %hb, %hx, %hc}, [%addr];\n//", I16, &[I64], |v| v[0] >> 32 & 0xffff),
        exact("ld.volatile.v2.b64 {%da, %dx}, [%addr+8];\n//", I64, &[I64, I64, I64], |v| v[2]).aligned(),
        exact("ld.u32 %rx, [%addr+4];\n//", I32, &[I64], |v| v[0] >> 32),
        exact("st.global.u8 [%addr], %rb;\nld.global.u64 %dx, [%addr];\n//", I64, &[I64, I32], |v| {
            v[0] & !0xff | v[1] & 0xff
        }),
        exact("st.global.v2.u16 [%addr+4], {%hb, %hc};\nld.global.u64 %dx, [%addr];\n//", I64, &[I64, I16, I16], |v| {
            v[0] & 0xffff_ffff | v[1] << 32 | v[2] << 48
        }),
    ]);
}

trait Aligned {
    fn aligned(self) -> Case;
}

impl Aligned for Case {
    /// Triples are 24 bytes long: a vector of 16 at byte 8 is aligned in every second one only, so the address is made so.
    fn aligned(self) -> Case {
        let op = self.op.replace("[%addr+8]", "[%addr]");
        Case {
            op: format!(
                "ld.global.u64 %da, [%addr+16];\nst.global.u64 [%out], %da;\nmov.u64 %dx, %da;\n{}",
                op.split_once('\n').map_or("", |x| x.1)
            ),
            ..self
        }
    }
}

#[test]
fn atomics_return_the_old_value_and_store_the_new() {
    let mut cases = Vec::new();
    let mut add = |name: &str, wide: bool, new: fn(u64, u64, u64) -> u64| {
        let (class, r) = if wide { (I64, 'd') } else { (I32, 'r') };
        let bits = if wide { 64 } else { 32 };
        let third = if name.starts_with("cas") { format!(", %{r}c") } else { String::new() };
        // old ^ (new rotated by one) tells both apart.
        let text = format!(
            "atom.global.{name} %{r}x, [%addr], %{r}b{third};\nld.global.b{bits} %{r}a, [%addr];\nshl.b{bits} %{r}a, %{r}a, 1;\nxor.b{bits} %{r}x, %{r}x, %{r}a;\n//"
        );
        let cut = if wide { u64::MAX } else { 0xffff_ffff };
        cases.push(exact(&text, class, &[class; 3], move |v| (v[0] ^ new(v[0], v[1], v[2]) << 1) & cut));
    };
    add("add.u32", false, |x, y, _| x + y);
    add("add.u64", true, |x, y, _| x.wrapping_add(y));
    add("add.s32", false, |x, y, _| x + y);
    add("and.b32", false, |x, y, _| x & y);
    add("or.b32", false, |x, y, _| x | y);
    add("xor.b64", true, |x, y, _| x ^ y);
    add("exch.b32", false, |_, y, _| y);
    add("exch.b64", true, |_, y, _| y);
    add("min.u32", false, |x, y, _| x.min(y));
    add("max.u64", true, |x, y, _| x.max(y));
    add("min.s32", false, |x, y, _| (x as i32).min(y as i32) as u32 as u64);
    add("max.s32", false, |x, y, _| (x as i32).max(y as i32) as u32 as u64);
    add("min.s64", true, |x, y, _| (x as i64).min(y as i64) as u64);
    add("inc.u32", false, |x, y, _| if x >= y { 0 } else { x + 1 });
    add("dec.u32", false, |x, y, _| if x == 0 || x > y { y } else { x - 1 });
    add("cas.b32", false, |x, y, z| if x == y { z } else { x });
    add("cas.b64", true, |x, y, z| if x == y { z } else { x });
    check(cases);
}

#[test]
fn contended_atomics_add_up() {
    let s = exclusive(Config::checked()).unwrap();
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 out) {{\n.reg .b32 %r<4>;\n.reg .b64 %rd<4>;\n.reg .f32 %f<4>;\n.reg .f64 %fd<4>;\n\
        .shared .align 8 .b8 sum[8];\nld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, 0;\nst.shared.u32 [sum], %r2;\n\
        bar.sync 0;\nmembar.gl;\natom.shared.add.u32 %r3, [sum], %r1;\nbar.sync 0;\nld.shared.u32 %r3, [sum];\nred.global.max.u32 [%rd1], %r3;\n\
        cvt.rn.f32.u32 %f1, %r1;\nred.global.add.f32 [%rd1+4], %f1;\ncvt.rn.f64.u32 %fd1, %r1;\natom.add.f64 %fd2, [%rd1+8], %fd1;\n\
        ret;\n}}\n"
    );
    let gpu = Gpu::new(&ptx);
    let mut out = gpu.stream.alloc_zeros::<u64>(2).unwrap();
    gpu.stream.launch_builder(&gpu.kernel("k")).arg(&mut out).run(threads(4 * 96, 96)).unwrap();
    let got = gpu.stream.clone_dtoh(&out).unwrap();
    let sum = 96 * 95 / 2u32;
    assert_eq!(
        (got[0] as u32, f32::from_bits((got[0] >> 32) as u32), f64::from_bits(got[1])),
        (sum, (4 * sum) as f32, f64::from(4 * sum))
    );
    let found = s.findings();
    // Every thread clears the sum with the same zero: a store that changes nothing after the first is no race.
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn generic_addresses_and_spaces() {
    let s = exclusive(Config::checked()).unwrap();
    let ptx = format!(
        "{HEAD}.const .align 4 .u32 table[4] = {{7, 8, 9, 10}};\n.global .align 8 .u64 counter = 5;\n\
        .visible .entry k(.param .u64 out, .param .align 4 .b8 pair[8]) {{\n.reg .b32 %r<12>;\n.reg .b64 %rd<12>;\n.reg .pred %p<4>;\n\
        .shared .align 4 .b8 tile[128];\n.local .align 4 .b8 stack[16];\nld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\n\
        mul.wide.u32 %rd2, %r1, 4;\nmov.u64 %rd3, tile;\ncvta.shared.u64 %rd4, %rd3;\nadd.s64 %rd5, %rd4, %rd2;\nst.u32 [%rd5], %r1;\n\
        ld.u32 %r2, [%rd5];\nmov.u64 %rd6, stack;\ncvta.local.u64 %rd7, %rd6;\nst.u32 [%rd7+4], %r2;\nld.local.u32 %r3, [stack+4];\n\
        and.b32 %r4, %r1, 3;\nmul.wide.u32 %rd8, %r4, 4;\nmov.u64 %rd9, table;\nadd.s64 %rd9, %rd9, %rd8;\nld.const.u32 %r5, [%rd9];\n\
        ld.param.u32 %r6, [pair+4];\nld.global.u32 %r7, [counter];\nadd.u32 %r3, %r3, %r5;\nadd.u32 %r3, %r3, %r6;\nadd.u32 %r3, %r3, %r7;\n\
        isspacep.shared %p1, %rd5;\n@!%p1 add.u32 %r3, %r3, 1000;\nisspacep.global %p2, %rd1;\n@!%p2 add.u32 %r3, %r3, 1000;\n\
        isspacep.local %p3, %rd5;\n@%p3 add.u32 %r3, %r3, 1000;\nadd.s64 %rd10, %rd1, %rd2;\nst.u32 [%rd10], %r3;\nret;\n}}\n"
    );
    let gpu = Gpu::new(&ptx);
    let mut out = gpu.stream.alloc_zeros::<u32>(32).unwrap();
    let pair = [3u32, 100];
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Pair([u32; 2]);
    // SAFETY: `repr(C)` and plain integers.
    unsafe impl cudarc::driver::DeviceRepr for Pair {}
    let pair = Pair(pair);
    gpu.stream.launch_builder(&gpu.kernel("k")).arg(&mut out).arg(&pair).run(threads(32, 32)).unwrap();
    let got = gpu.stream.clone_dtoh(&out).unwrap();
    assert!((0..32).all(|k| got[k] == k as u32 + [7, 8, 9, 10][k % 4] + 100 + 5), "{got:?}");
    s.assert_clean();
}
