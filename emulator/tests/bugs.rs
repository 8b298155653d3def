//! Planted mistakes: each is found by its checker, with the kernel, the instruction and the lane.

mod common;

use common::{BUGS, Gpu, KERNELS, Launch, threads};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, DevicePtr, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use cuemu::{Config, Exclusive, Finding, FindingKind, exclusive};

fn checked() -> Exclusive {
    exclusive(Config { patience: 1 << 16, ..Config::checked() }).unwrap()
}

/// The only finding of this kind, which must name `kernel` and an instruction that starts with `opcode`.
fn only(s: &Exclusive, kind: FindingKind, kernel: &str, opcode: &str) -> Finding {
    let all = s.findings();
    let found: Vec<&Finding> = all.iter().filter(|f| f.kind == kind).collect();
    assert!(!found.is_empty(), "no {kind:?} among {all:?}");
    let f = found[0].clone();
    assert_eq!(f.kernel, kernel);
    assert!(f.instruction.contains(opcode), "{f}");
    // The instruction is where the finding says: its text stands on that line of the PTX.
    let line = BUGS.lines().chain([""]).nth(f.line as usize - 1).unwrap_or_default();
    if kernel != "last_block_unfenced" {
        let squeeze = |t: &str| t.chars().filter(|c| !c.is_whitespace() && *c != ';').collect::<String>();
        assert_eq!(squeeze(line), squeeze(&f.instruction), "{f}");
    }
    f
}

fn error(e: DriverError) -> CUresult {
    e.0
}

/// Launches a kernel of one float output of `n` elements.
fn run_one(kernel: &str, n: usize, cfg: LaunchConfig) -> Result<(), DriverError> {
    let gpu = Gpu::new(BUGS);
    let mut out = gpu.stream.alloc_zeros::<f32>(n).unwrap();
    let result = gpu.stream.launch_builder(&gpu.kernel(kernel)).arg(&mut out).run(cfg);
    result.map(|_| ())
}

#[test]
fn a_missing_barrier_is_a_shared_race() {
    for seed in [0, 1, 2, 3] {
        let s = exclusive(Config { seed, ..Config::checked() }).unwrap();
        run_one("missing_barrier", 64, threads(64, 64)).unwrap();
        let f =
            s.findings().into_iter().find(|f| f.kind == FindingKind::SharedRace).expect("found in any order of warps");
        assert_eq!(f.kernel, "missing_barrier");
        assert!(f.instruction.contains(".shared") && f.detail.contains("no barrier"), "{f}");
    }
}

#[test]
fn lanes_are_not_in_step_by_law() {
    let s = checked();
    run_one("missing_syncwarp", 32, threads(32, 32)).unwrap();
    let f = only(&s, FindingKind::SharedRace, "missing_syncwarp", "ld.shared.f32");
    assert_eq!(f.lane, 0);
    assert!(f.detail.contains("thread 0") && f.detail.contains("thread 31"), "{f}");
}

#[test]
fn off_by_one_is_out_of_bounds_even_unchecked() {
    for config in [Config::default(), Config::checked()] {
        let s = exclusive(config).unwrap();
        let gpu = Gpu::new(BUGS);
        let mut out = gpu.stream.alloc_zeros::<f32>(40).unwrap();
        let n = 40i32;
        let kernel = gpu.kernel("off_by_one");
        let launched = gpu.stream.launch_builder(&kernel).arg(&mut out).arg(&n).run(threads(64, 64));
        assert_eq!(launched.map(|_| ()).map_err(error), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        let f = only(&s, FindingKind::OutOfBounds, "off_by_one", "st.global");
        assert_eq!((f.warp, f.lane), (1, 8));
        assert!(f.detail.contains("0 bytes past the end of an allocation of 160 bytes"), "{f}");
        // The error is sticky until the context ends.
        assert_eq!(gpu.stream.synchronize().map_err(error), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        drop((out, kernel, gpu));
        assert!(Gpu::new(BUGS).stream.synchronize().is_ok());
    }
}

#[test]
fn blocks_that_write_the_same_word_race() {
    let s = checked();
    let gpu = Gpu::new(BUGS);
    let mut out = gpu.stream.alloc_zeros::<i32>(1).unwrap();
    gpu.stream.launch_builder(&gpu.kernel("block_race")).arg(&mut out).run(threads(128, 32)).unwrap();
    let f = only(&s, FindingKind::GlobalRace, "block_race", "st.global");
    assert_eq!((f.lane, f.block), (0, [1, 0, 0]));
}

#[test]
fn reading_another_blocks_word_is_a_race() {
    let s = checked();
    let gpu = Gpu::new(BUGS);
    let input = gpu.stream.alloc_zeros::<f32>(4).unwrap();
    let mut out = gpu.stream.alloc_zeros::<f32>(4).unwrap();
    gpu.stream.launch_builder(&gpu.kernel("block_read_race")).arg(&input).arg(&mut out).run(threads(4, 1)).unwrap();
    let found = s.findings();
    assert!(found.iter().all(|f| f.kind == FindingKind::GlobalRace) && found.len() == 2, "{found:?}");
}

#[test]
fn a_fence_orders_blocks_and_its_absence_does_not() {
    let s = checked();
    for (kernel, racy) in [("last_block_fenced", false), ("last_block_unfenced", true)] {
        s.reset();
        let gpu = Gpu::new(KERNELS);
        let x: Vec<f32> = (0..10).map(|k| k as f32).collect();
        let dx = gpu.stream.clone_htod(&x).unwrap();
        let mut parts = gpu.stream.alloc_zeros::<f32>(10).unwrap();
        let mut out = gpu.stream.alloc_zeros::<f32>(1).unwrap();
        gpu.stream
            .launch_builder(&gpu.kernel(kernel))
            .arg(&dx)
            .arg(&mut parts)
            .arg(&mut out)
            .run(threads(320, 32))
            .unwrap();
        assert_eq!(gpu.stream.clone_dtoh(&out).unwrap(), [45.0]);
        let found = s.findings();
        assert_eq!(found.iter().any(|f| f.kind == FindingKind::GlobalRace), racy, "{kernel}: {found:?}");
        assert_eq!(found.is_empty(), !racy);
    }
}

#[test]
fn uninitialised_shared_memory() {
    let s = checked();
    run_one("uninitialised_shared", 64, threads(64, 64)).unwrap();
    let f = only(&s, FindingKind::UninitialisedMemory, "uninitialised_shared", "ld.shared");
    assert_eq!((f.lane, f.count), (5, 1));
    assert!(f.detail.contains("shared byte 20"), "{f}");
}

#[test]
fn uninitialised_global_memory_is_found_in_kernels_and_in_copies() {
    let s = checked();
    let gpu = Gpu::new(BUGS);
    // Allocated and half written.
    let mut input = gpu.undefined(32);
    let mut out = gpu.undefined(33);
    gpu.stream.memcpy_htod(&[1.0f32; 20], &mut input.slice_mut(0..20)).unwrap();
    gpu.stream.launch_builder(&gpu.kernel("copy")).arg(&input).arg(&mut out).run(threads(32, 32)).unwrap();
    let f = only(&s, FindingKind::UninitialisedMemory, "copy", "ld.global");
    assert_eq!((f.lane, f.count), (20, 12));
    s.reset();
    gpu.stream.clone_dtoh(&out).unwrap();
    let found = s.findings();
    assert!(found.len() == 1 && found[0].kernel.is_empty() && found[0].detail.contains("byte 128"), "{found:?}");
}

#[test]
fn uninitialised_register() {
    let s = checked();
    let ptx = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out) {\n.reg .pred %p<2>;\n\
        .reg .b32 %r<5>;\n.reg .b64 %rd<5>;\nld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nsetp.lt.u32 %p1, %r1, 7;\n\
        @%p1 mov.u32 %r2, 5;\nadd.u32 %r3, %r2, 1;\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd3, %rd1, %rd2;\n\
        st.global.u32 [%rd3], %r3;\nret;\n}\n";
    let gpu = Gpu::new(ptx);
    let mut out = gpu.stream.alloc_zeros::<u32>(32).unwrap();
    gpu.stream.launch_builder(&gpu.kernel("k")).arg(&mut out).run(threads(32, 32)).unwrap();
    let found = s.findings();
    assert_eq!(found.len(), 1, "{found:?}");
    let f = &found[0];
    assert_eq!((f.kind, f.pc, f.lane, f.line), (FindingKind::UninitialisedRegister, 4, 7, 12));
    assert_eq!(f.instruction, "add.u32 %r3, %r2, 1");
}

#[test]
fn misaligned_address() {
    let s = checked();
    assert_eq!(run_one("misaligned", 40, threads(32, 32)).map_err(error), Err(CUresult::CUDA_ERROR_MISALIGNED_ADDRESS));
    assert_eq!(only(&s, FindingKind::Misaligned, "misaligned", "st.global").lane, 9);
}

#[test]
fn divergent_barrier() {
    let s = checked();
    assert!(run_one("divergent_barrier", 32, threads(32, 32)).is_ok(), "on a device that counts lanes it even works");
    let f = only(&s, FindingKind::BarrierDivergence, "divergent_barrier", "bar");
    assert_eq!(f.lane, 1);
    assert!(f.detail.contains("0xaaaaaaaa"), "{f}");
}

#[test]
fn threads_that_leave_before_a_barrier() {
    let s = checked();
    let gpu = Gpu::new(BUGS);
    let mut out = gpu.stream.alloc_zeros::<f32>(64).unwrap();
    let n = 40i32;
    gpu.stream.launch_builder(&gpu.kernel("early_exit")).arg(&mut out).arg(&n).run(threads(64, 64)).unwrap();
    let f = only(&s, FindingKind::BarrierDivergence, "early_exit", "bar");
    assert_eq!(f.lane, 8);
    assert!(f.detail.contains("warp 1"), "{f}");
}

#[test]
fn copy_that_nobody_awaits() {
    let s = checked();
    let gpu = Gpu::new(BUGS);
    let input = gpu.stream.clone_htod(&[3.0f32; 32]).unwrap();
    let mut out = gpu.stream.alloc_zeros::<f32>(32).unwrap();
    gpu.stream.launch_builder(&gpu.kernel("unawaited_copy")).arg(&input).arg(&mut out).run(threads(32, 32)).unwrap();
    let f = only(&s, FindingKind::CopyNotAwaited, "unawaited_copy", "ld.shared");
    assert_eq!((f.lane, f.count), (0, 32));
    assert_ne!(gpu.stream.clone_dtoh(&out).unwrap(), [3.0; 32], "the bytes have not arrived");
}

#[test]
fn hang_and_trap() {
    let s = checked();
    assert_eq!(run_one("hang", 1, threads(1, 1)).map_err(error), Err(CUresult::CUDA_ERROR_LAUNCH_TIMEOUT));
    assert_eq!(s.findings()[0].kind, FindingKind::Hang);
    s.reset();
    let gpu = Gpu::new(BUGS);
    let mut out = gpu.stream.clone_htod(&[3i32]).unwrap();
    let launched = gpu.stream.launch_builder(&gpu.kernel("gives_up")).arg(&mut out).run(threads(1, 1));
    assert_eq!(launched.map(|_| ()).map_err(error), Err(CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION));
    only(&s, FindingKind::Trap, "gives_up", "trap");
}

#[test]
fn leaks_and_bad_frees() {
    let s = checked();
    let gpu = Gpu::new(BUGS);
    let lost = gpu.stream.alloc_zeros::<f32>(25).unwrap();
    let freed_twice = gpu.stream.alloc_zeros::<f32>(5).unwrap();
    let address = freed_twice.device_ptr(&gpu.stream).0;
    assert_eq!(s.memory(0).0, 120);
    drop(freed_twice);
    assert_eq!(s.memory(0), (100, 120));
    for bad in [address, lost.device_ptr(&gpu.stream).0 + 4] {
        s.reset();
        // SAFETY: a bad free is refused by the emulator, as the test demands.
        assert!(unsafe { cudarc::driver::result::free_sync(bad) }.is_err());
        let found = s.findings();
        assert!(found.len() == 1 && found[0].kind == FindingKind::BadFree, "{found:?}");
    }
    s.reset();
    let leaked = lost.leak();
    assert_ne!(leaked, 0);
    drop(gpu);
    let found = s.findings();
    assert!(
        found.len() == 1 && found[0].kind == FindingKind::Leak && found[0].detail.contains("100 bytes"),
        "{found:?}"
    );
}

#[test]
fn wrong_launches() {
    let s = checked();
    let gpu = Gpu::new(BUGS);
    let mut out = gpu.stream.alloc_zeros::<f32>(64).unwrap();
    let n = 64i32;
    let kernel = gpu.kernel("innocent");
    let good = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 256 };
    let cases = [
        (LaunchConfig { grid_dim: (0, 1, 1), ..good }, CUresult::CUDA_ERROR_INVALID_VALUE, "at least 1"),
        (LaunchConfig { grid_dim: (1, 70_000, 1), ..good }, CUresult::CUDA_ERROR_INVALID_VALUE, "65535"),
        (
            LaunchConfig { block_dim: (512, 1, 1), ..good },
            CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
            "more threads than 256",
        ),
        (
            LaunchConfig { shared_mem_bytes: 60_000, ..good },
            CUresult::CUDA_ERROR_INVALID_VALUE,
            "dynamic shared memory",
        ),
    ];
    for (cfg, code, words) in cases {
        s.reset();
        let launched = gpu.stream.launch_builder(&kernel).arg(&mut out).arg(&n).run(cfg);
        assert_eq!(launched.map(|_| ()).map_err(error), Err(code));
        let found = s.findings();
        assert!(
            found.len() == 1 && found[0].kind == FindingKind::BadLaunch && found[0].detail.contains(words),
            "{found:?}"
        );
    }
    // Too little dynamic shared memory is seen by the access.
    s.reset();
    let short = LaunchConfig { shared_mem_bytes: 64, ..good };
    assert!(gpu.stream.launch_builder(&kernel).arg(&mut out).arg(&n).run(short).is_err());
    assert_eq!(s.findings()[0].kind, FindingKind::OutOfBounds);
    drop((out, kernel, gpu));
    // More than 48 KiB after opting in is fine.
    s.reset();
    let gpu = Gpu::new(BUGS);
    let mut out = gpu.stream.alloc_zeros::<f32>(64).unwrap();
    let kernel = gpu.kernel("innocent");
    let attribute = cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    kernel.set_attribute(attribute, 60_000).unwrap();
    let large = LaunchConfig { shared_mem_bytes: 60_000, ..good };
    gpu.stream.launch_builder(&kernel).arg(&mut out).arg(&n).run(large).unwrap();
    assert_eq!(gpu.stream.clone_dtoh(&out).unwrap(), [2.0; 64]);
    s.assert_clean();
}

#[test]
fn strict_launches_fail_on_findings() {
    let _s = exclusive(Config { strict: true, ..Config::checked() }).unwrap();
    assert_eq!(
        run_one("uninitialised_shared", 64, threads(64, 64)).map_err(error),
        Err(CUresult::CUDA_ERROR_LAUNCH_FAILED)
    );
}

#[test]
fn red_zones_and_stale_memory_of_an_arena() {
    let s = checked();
    let gpu = Gpu::new(BUGS);
    let input = gpu.stream.alloc_zeros::<f32>(64).unwrap();
    let mut out = gpu.stream.alloc_zeros::<f32>(32).unwrap();
    let address = input.device_ptr(&gpu.stream).0;
    assert!(s.undefine(address, 12) && !s.undefine(address + 250, 12));
    gpu.stream.launch_builder(&gpu.kernel("copy")).arg(&input).arg(&mut out).run(threads(32, 32)).unwrap();
    assert_eq!(only(&s, FindingKind::UninitialisedMemory, "copy", "ld.global").count, 3);
    s.reset();
    gpu.stream.memset_zeros(&mut gpu.stream.alloc_zeros::<f32>(1).unwrap()).unwrap();
    assert!(s.forbid(address + 64, 4, true));
    gpu.stream.launch_builder(&gpu.kernel("copy")).arg(&input).arg(&mut out).run(threads(32, 32)).unwrap();
    assert_eq!(only(&s, FindingKind::OutOfBounds, "copy", "ld.global").lane, 16);
}

#[test]
fn unknown_ptx_is_refused_by_name() {
    let s = checked();
    let context = CudaContext::new(0).unwrap();
    assert_eq!(context.name().unwrap(), "cuemu (emulated CUDA device)");
    let cases = [
        ("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%r1}, {%r1}, {%r1}, {%r1};", "wmma.mma"),
        ("add.rz.f64 %rd1, %rd1, %rd1;", "add.rz.f64"),
        ("tex.1d.v4.f32.s32 {%r1, %r1, %r1, %r1}, [%rd1, {%r1}];", "tex.1d"),
        ("call.uni vprintf, (%rd1, %rd1);", "call.uni"),
        ("frobnicate.b32 %r1, %r1;", "frobnicate.b32"),
        ("setp.s32;", "setp.s32"),
        ("add.s32 %r1, %r1;", "add.s32"),
        ("not.pred;", "not.pred"),
        ("ld.global.frob.u32 %r1, [%rd1];", "ld.global.frob.u32"),
    ];
    for (line, name) in cases {
        s.reset();
        let ptx = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() {{\n.reg .b32 %r<4>;\n.reg .b64 %rd<4>;\n{line}\nret;\n}}\n"
        );
        let refused = context.load_module(Ptx::from_src(ptx));
        assert_eq!(refused.map(|_| ()).map_err(error), Err(CUresult::CUDA_ERROR_INVALID_PTX), "{line}");
        let found = s.findings();
        assert!(
            found.len() == 1 && found[0].kind == FindingKind::BadModule && found[0].detail.contains(name),
            "{found:?}"
        );
        assert!(found[0].detail.contains("line 7"), "{found:?}");
    }
}

#[test]
fn lanes_that_miss_a_shuffle() {
    let kernel = |body: &str| {
        format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out) {{\n.reg .pred %p<2>;\n\
            .reg .b32 %r<5>;\n.reg .b64 %rd<3>;\nld.param.u64 %rd1, [out];\nmov.u32 %r1, %laneid;\nmov.u32 %r2, 7;\n\
            setp.ge.u32 %p1, %r1, 16;\n{body}\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd2, %rd1, %rd2;\n\
            st.global.u32 [%rd2], %r2;\nret;\n}}\n"
        )
    };
    let launch = |body: &str| {
        let s = checked();
        let gpu = Gpu::new(&kernel(body));
        let mut out = gpu.stream.alloc_zeros::<u32>(32).unwrap();
        let result = gpu.stream.launch_builder(&gpu.kernel("k")).arg(&mut out).run(threads(32, 32)).map_err(error);
        let f = s.findings().remove(0);
        assert_eq!(f.kind, FindingKind::WarpDivergence);
        (result, f)
    };
    // Half of the warp goes around a shuffle of the whole warp, and waits behind it.
    let (result, f) = launch("@%p1 bra skip;\nshfl.sync.idx.b32 %r2, %r1, 0, 31, -1;\nskip:\nbar.warp.sync -1;");
    assert_eq!(result, Err(CUresult::CUDA_ERROR_LAUNCH_FAILED));
    assert!(f.instruction.starts_with("shfl.sync.idx") && f.lane == 0 && f.detail.contains("0xffff0000"), "{f}");
    // The guard switches half of the warp off.
    let (result, f) = launch("@!%p1 shfl.sync.idx.b32 %r2, %r1, 0, 31, -1;");
    assert_eq!((result, f.lane), (Err(CUresult::CUDA_ERROR_LAUNCH_FAILED), 0));
    // Lanes outside their own mask.
    let (result, f) = launch("shfl.sync.idx.b32 %r2, %r1, 0, 31, 65535;");
    assert_eq!((result, f.lane), (Err(CUresult::CUDA_ERROR_LAUNCH_FAILED), 16));
    // A lane that takes part reads one that does not: the value is undefined, the kernel goes on.
    let (result, f) = launch("@!%p1 shfl.sync.idx.b32 %r2, %r1, 20, 31, 65535;");
    assert!(result.is_ok() && f.lane == 0 && f.detail.contains("lane 20"), "{f}");
}
