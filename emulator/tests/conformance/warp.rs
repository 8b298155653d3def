//! Exchanges between lanes, special registers, jumps and barriers.

use super::HEAD;
use crate::common::{Gpu, Launch, threads};
use cudarc::driver::{LaunchConfig, PushKernelArg};
use cuemu::{Config, exclusive};

/// Runs `body`, which computes `%rx` from the lane `%ri` (and thread), in one warp; gives every lane's result.
fn lanes(body: &str) -> Vec<u32> {
    let s = exclusive(Config::checked()).unwrap();
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 out) {{\n.reg .b32 %ri, %rx, %ra, %rb, %rc;\n.reg .b64 %out, %da;\n.reg .pred %pa, %pb;\n\
        ld.param.u64 %out, [out];\nmov.u32 %ri, %laneid;\nmad.wide.u32 %out, %ri, 4, %out;\nmov.u32 %rx, 0;\n{body}\n\
        st.global.u32 [%out], %rx;\nret;\n}}\n"
    );
    let gpu = Gpu::new(&ptx);
    let mut out = gpu.stream.alloc_zeros::<u32>(32).unwrap();
    gpu.stream.launch_builder(&gpu.kernel("k")).arg(&mut out).run(threads(32, 32)).unwrap();
    let got = gpu.stream.clone_dtoh(&out).unwrap();
    s.assert_clean();
    got
}

fn each(f: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..32).map(f).collect()
}

#[test]
fn shuffles() {
    let value = "mul.lo.u32 %ra, %ri, 3;\n";
    let with = |op: &str| lanes(&format!("{value}shfl.sync.{op};"));
    assert_eq!(with("idx.b32 %rx, %ra, 5, 31, -1"), each(|_| 15));
    assert_eq!(with("up.b32 %rx, %ra, 2, 0, -1"), each(|k| if k < 2 { 3 * k } else { 3 * (k - 2) }));
    assert_eq!(with("down.b32 %rx, %ra, 4, 31, -1"), each(|k| if k > 27 { 3 * k } else { 3 * (k + 4) }));
    assert_eq!(with("bfly.b32 %rx, %ra, 16, 31, -1"), each(|k| 3 * (k ^ 16)));
    // Segments of 8: the clamp's upper bits hold the mask of the segment's number.
    assert_eq!(with("down.b32 %rx, %ra, 3, 6175, -1"), each(|k| if k % 8 > 4 { 3 * k } else { 3 * (k + 3) }));
    assert_eq!(with("up.b32 %rx, %ra, 1, 6144, -1"), each(|k| if k % 8 == 0 { 3 * k } else { 3 * (k - 1) }));
    assert_eq!(with("idx.b32 %rx, %ra, 2, 6175, -1"), each(|k| 3 * (k / 8 * 8 + 2)));
    // The predicate says whether the source lay inside the segment.
    assert_eq!(with("down.b32 %rb|%pa, %ra, 4, 31, -1;\nselp.u32 %rx, 1, 0, %pa"), each(|k| u32::from(k <= 27)));
}

#[test]
fn votes_matches_and_reductions() {
    let odd = "and.b32 %ra, %ri, 1;\nsetp.eq.u32 %pa, %ra, 1;\n";
    assert_eq!(lanes(&format!("{odd}vote.sync.ballot.b32 %rx, %pa, -1;")), each(|_| 0xaaaa_aaaa));
    assert_eq!(lanes(&format!("{odd}vote.sync.ballot.b32 %rx, !%pa, -1;")), each(|_| 0x5555_5555));
    for (mode, want) in [("any", 1), ("all", 0), ("uni", 0)] {
        assert_eq!(
            lanes(&format!("{odd}vote.sync.{mode}.pred %pb, %pa, -1;\nselp.u32 %rx, 1, 0, %pb;")),
            each(|_| want),
            "{mode}"
        );
    }
    assert_eq!(lanes("and.b32 %ra, %ri, 3;\nmatch.any.sync.b32 %rx, %ra, -1;"), each(|k| 0x1111_1111 << (k & 3)));
    assert_eq!(lanes("mov.u32 %ra, 9;\nmatch.all.sync.b32 %rx|%pa, %ra, -1;\n@!%pa mov.u32 %rx, 3;"), each(|_| !0));
    assert_eq!(lanes("match.all.sync.b32 %rx|%pa, %ri, -1;\n@!%pa add.u32 %rx, %rx, 3;"), each(|_| 3));
    assert_eq!(lanes("redux.sync.add.u32 %rx, %ri, -1;"), each(|_| 496));
    assert_eq!(lanes("sub.u32 %ra, %ri, 9;\nredux.sync.min.s32 %rx, %ra, -1;"), each(|_| -9i32 as u32));
    assert_eq!(lanes("sub.u32 %ra, %ri, 9;\nredux.sync.max.u32 %rx, %ra, -1;"), each(|_| !0));
    assert_eq!(lanes("shl.b32 %ra, 1, %ri;\nredux.sync.xor.b32 %rx, %ra, -1;"), each(|_| !0));
    assert_eq!(lanes("elect.sync _|%pa, -1;\nselp.u32 %rx, 1, 0, %pa;"), each(|k| u32::from(k == 0)));
}

#[test]
fn divergent_groups_meet_and_act_apart() {
    // Both halves vote among themselves, at the same instruction and at different ones.
    let halves = "setp.lt.u32 %pa, %ri, 16;\nselp.b32 %ra, 65535, -65536, %pa;\nand.b32 %rb, %ri, 1;\nsetp.eq.u32 %pb, %rb, 1;\n";
    let want = each(|k| if k < 16 { 0xaaaa } else { 0xaaaa_0000 });
    assert_eq!(lanes(&format!("{halves}vote.sync.ballot.b32 %rx, %pb, %ra;")), want);
    let branches = "@%pa bra low;\nvote.sync.ballot.b32 %rx, %pb, %ra;\nbra done;\nlow:\nvote.sync.ballot.b32 %rx, %pb, %ra;\ndone:";
    assert_eq!(lanes(&format!("{halves}{branches}")), want);
    // A vote of all lanes waits for those that took the longer way.
    let wait =
        "setp.gt.u32 %pa, %ri, 20;\n@%pa bra skip;\nadd.u32 %ra, %ri, 1;\nskip:\nvote.sync.ballot.b32 %rx, %pa, -1;";
    assert_eq!(lanes(wait), each(|_| 0xffe0_0000));
    assert_eq!(
        lanes("setp.lt.u32 %pa, %ri, 4;\n@!%pa bra out;\nactivemask.b32 %rx;\nout:"),
        each(|k| if k < 4 { 15 } else { 0 })
    );
    // Loops of different lengths: the sum of the numbers below the lane.
    let sum = "mov.u32 %ra, 0;\nagain:\nsetp.ge.u32 %pa, %ra, %ri;\n@%pa bra end;\nadd.u32 %rx, %rx, %ra;\nadd.u32 %ra, %ra, 1;\nbra.uni again;\nend:\nbar.warp.sync -1;";
    assert_eq!(lanes(sum), each(|k| k * k.saturating_sub(1) / 2));
}

#[test]
fn jump_tables() {
    let table = "and.b32 %ra, %ri, 3;\nts: .branchtargets t0, t1, t2, t1;\nbrx.idx %ra, ts;\n\
        t0: mov.u32 %rx, 100;\nbra end;\nt1: mov.u32 %rx, 200;\nbra end;\nt2: mov.u32 %rx, 300;\nend:";
    assert_eq!(lanes(table), each(|k| [100, 200, 300, 200][k as usize % 4]));
}

#[test]
fn special_registers() {
    for (name, want) in [
        ("%laneid", each(|k| k)),
        ("%lanemask_eq", each(|k| 1 << k)),
        ("%lanemask_lt", each(|k| (1 << k) - 1)),
        ("%lanemask_le", each(|k| ((1u64 << (k + 1)) - 1) as u32)),
        ("%lanemask_gt", each(|k| !(((1u64 << (k + 1)) - 1) as u32))),
        ("%lanemask_ge", each(|k| !((1 << k) - 1))),
        ("WARP_SZ", each(|_| 32)),
        ("%ntid.y", each(|_| 1)),
        ("%nwarpid", each(|_| 1)),
    ] {
        assert_eq!(lanes(&format!("mov.u32 %rx, {name};")), want, "{name}");
    }
    let s = exclusive(Config::checked()).unwrap();
    let mut body = String::new();
    for (k, name) in ["tid", "ntid", "ctaid", "nctaid"].iter().enumerate() {
        for (a, axis) in ["x", "y", "z"].iter().enumerate() {
            body += &format!("mov.u32 %ra, %{name}.{axis};\nst.global.u32 [%out+{}], %ra;\n", 4 * (3 * k + a));
        }
    }
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 out) {{\n.reg .b32 %ra, %rb, %rc, %rn;\n.reg .b64 %out;\nld.param.u64 %out, [out];\n\
        mov.u32 %ra, %ctaid.z;\nmov.u32 %rb, %nctaid.y;\nmov.u32 %rc, %ctaid.y;\nmad.lo.u32 %ra, %ra, %rb, %rc;\nmov.u32 %rb, %nctaid.x;\n\
        mov.u32 %rc, %ctaid.x;\nmad.lo.u32 %ra, %ra, %rb, %rc;\nmov.u32 %rb, %ntid.z;\nmov.u32 %rc, %tid.z;\nmad.lo.u32 %ra, %ra, %rb, %rc;\n\
        mov.u32 %rb, %ntid.y;\nmov.u32 %rc, %tid.y;\nmad.lo.u32 %ra, %ra, %rb, %rc;\nmov.u32 %rb, %ntid.x;\nmov.u32 %rc, %tid.x;\n\
        mad.lo.u32 %ra, %ra, %rb, %rc;\nmad.wide.u32 %out, %ra, 48, %out;\n{body}ret;\n}}\n"
    );
    let gpu = Gpu::new(&ptx);
    let (grid, block) = ((2u32, 3u32, 2u32), (5u32, 3u32, 4u32));
    let count = (grid.0 * grid.1 * grid.2 * block.0 * block.1 * block.2) as usize;
    let mut out = gpu.stream.alloc_zeros::<u32>(12 * count).unwrap();
    let cfg = LaunchConfig { grid_dim: grid, block_dim: block, shared_mem_bytes: 0 };
    gpu.stream.launch_builder(&gpu.kernel("k")).arg(&mut out).run(cfg).unwrap();
    let got = gpu.stream.clone_dtoh(&out).unwrap();
    for t in 0..count as u32 {
        let (x, y, z) = (t % 5, t / 5 % 3, t / 15 % 4);
        let b = t / 60;
        let want = [x, y, z, 5, 3, 4, b % 2, b / 2 % 3, b / 6, 2, 3, 2];
        assert_eq!(got[12 * t as usize..12 * t as usize + 12], want, "thread {t}");
    }
    s.assert_clean();
}

#[test]
fn barriers_with_reductions_and_numbers() {
    let s = exclusive(Config::checked()).unwrap();
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 out) {{\n.reg .b32 %r<8>;\n.reg .b64 %rd<3>;\n.reg .pred %p<6>;\n.shared .align 4 .b8 t[512];\n\
        ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nsetp.lt.u32 %p1, %r1, 70;\nbar.red.popc.u32 %r2, 0, %p1;\n\
        bar.red.and.pred %p2, 0, %p1;\nbar.red.or.pred %p3, 1, %p1;\nselp.u32 %r3, 1000, 0, %p2;\nselp.u32 %r4, 10000, 0, %p3;\n\
        add.u32 %r2, %r2, %r3;\nadd.u32 %r2, %r2, %r4;\n\
        setp.ge.u32 %p4, %r1, 64;\n@%p4 bra second;\n\
        shl.b32 %r5, %r1, 2;\nmov.u32 %r6, t;\nadd.u32 %r5, %r5, %r6;\nst.shared.u32 [%r5], %r1;\nbar.sync 2, 64;\nxor.b32 %r5, %r5, 252;\n\
        ld.shared.u32 %r7, [%r5];\nadd.u32 %r2, %r2, %r7;\nsecond:\nbar.sync 0;\n\
        mul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd1, %rd1, %rd2;\nst.global.u32 [%rd1], %r2;\nret;\n}}\n"
    );
    let gpu = Gpu::new(&ptx);
    let mut out = gpu.stream.alloc_zeros::<u32>(128).unwrap();
    gpu.stream.launch_builder(&gpu.kernel("k")).arg(&mut out).run(threads(128, 128)).unwrap();
    let got = gpu.stream.clone_dtoh(&out).unwrap();
    assert!((0..128).all(|k| got[k] == 10_070 + if k < 64 { 63 - k as u32 } else { 0 }), "{got:?}");
    s.assert_clean();
}
