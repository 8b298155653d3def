//! How fast the emulator interprets, in lane instructions a second of one core: a figure about this program, never about a
//! GPU. Takes the number of repetitions (default 5); prints the best.

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

/// Seconds of CPU time of this thread: other processes do not count.
fn cpu_seconds() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid out pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

fn main() {
    let repeats: usize = std::env::args().nth(1).and_then(|v| v.parse().ok()).unwrap_or(5);
    let emulator = cuemu::preload().expect("the emulator loads");
    let context = CudaContext::new(0).expect("the emulated device exists");
    println!("{}; best of {repeats}", context.name().unwrap_or_default());
    let module =
        context.load_module(Ptx::from_src(include_str!("../tests/ptx/kernels.ptx"))).expect("the module loads");
    let stream = context.default_stream();
    let n = 1_000_003usize;
    let x = stream.clone_htod(&(0..n).map(|k| (k % 1000) as f32 * 4e-3 - 2.0).collect::<Vec<f32>>()).expect("copies");
    let mut y = stream.alloc_zeros::<f32>(n).expect("allocates");
    let mut words = stream.alloc_zeros::<u32>(n).expect("allocates");
    let mut sums = stream.alloc_zeros::<f64>(128).expect("allocates");
    let line = |blocks: u32| LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };
    let (all, few, side) = (n as i32, 100_000i32, 256i32);
    for (checks, traffic) in [(false, false), (true, true)] {
        emulator.configure(cuemu::Config { checks, traffic, ..cuemu::Config::default() });
        println!("{}", if checks { "all checkers on" } else { "unchecked" });
        for name in ["pade54", "block_reduce", "gemm32", "collatz", "gemm_bf16", "moments", "functions"] {
            let kernel = module.load_function(name).expect("the kernel exists");
            let mut best = (f64::MAX, 0, 0);
            for _ in 0..repeats {
                emulator.reset();
                let start = cpu_seconds();
                let mut launch = stream.launch_builder(&kernel);
                let cfg = match name {
                    "pade54" => {
                        launch.arg(&x).arg(&x).arg(&mut y).arg(&all);
                        line(all as u32 / 256 + 1)
                    }
                    "block_reduce" => {
                        launch.arg(&x).arg(&mut y).arg(&all);
                        line(64)
                    }
                    "gemm32" => {
                        launch.arg(&x).arg(&x).arg(&mut y).arg(&side).arg(&side).arg(&side);
                        LaunchConfig { grid_dim: (8, 8, 1), block_dim: (32, 8, 1), shared_mem_bytes: 0 }
                    }
                    "collatz" => {
                        launch.arg(&mut words).arg(&few);
                        line(few as u32 / 256)
                    }
                    "gemm_bf16" => {
                        launch.arg(&x).arg(&x).arg(&mut y).arg(&side).arg(&side);
                        LaunchConfig { grid_dim: (8, 4, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 }
                    }
                    "moments" => {
                        launch.arg(&x).arg(&mut sums).arg(&side);
                        line(64)
                    }
                    _ => {
                        launch.arg(&x).arg(&mut y).arg(&side);
                        line(1)
                    }
                };
                // SAFETY: the arguments fit the kernels of tests/cu/kernels.cu and their buffers.
                unsafe { launch.launch(cfg) }.expect("the kernel runs");
                let seconds = cpu_seconds() - start;
                let total = emulator.total();
                if seconds < best.0 {
                    best = (seconds, total.lane_instructions, total.warp_instructions);
                }
            }
            let (seconds, lanes, warps) = best;
            println!(
                "{name:14} {:8.2} ms  {:6.2} ns a warp instruction  {:5.2} G lane instructions/s",
                seconds * 1e3,
                seconds * 1e9 / warps as f64,
                lanes as f64 / seconds * 1e-9
            );
        }
    }
    emulator.configure(cuemu::Config::default());
}
