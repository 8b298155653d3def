//! Whole kernels, as nvcc compiled them, launched by an unmodified `cudarc` and compared with the host's arithmetic.

mod common;

use common::{Gpu, KERNELS, Launch, numbers, threads};
use cudarc::driver::{LaunchConfig, PushKernelArg};
use cuemu::{Config, exclusive};

fn bf16(x: f32) -> u16 {
    ((x.to_bits().wrapping_add(0x7fff + (x.to_bits() >> 16 & 1))) >> 16) as u16
}

fn pade(v: f32, c: &[f32]) -> f32 {
    let p = (0..5).rev().fold(c[5], |p, k| p.mul_add(v, c[k]));
    let q = (6..9).rev().fold(c[9], |q, k| q.mul_add(v, c[k]));
    p / (1.0 + (q * v).abs())
}

/// Both ways of running a kernel: bare, and under every checker, which must find nothing.
fn both(test: impl Fn(&cuemu::Exclusive)) {
    for config in [Config::default(), Config::checked()] {
        let exclusive = exclusive(config).unwrap();
        test(&exclusive);
        exclusive.assert_clean();
    }
}

#[test]
fn pade_is_bit_exact() {
    both(|s| {
        let gpu = Gpu::new(KERNELS);
        let (x, c) = (numbers(10_007, 1), numbers(10, 2));
        let (dx, dc) = (gpu.stream.clone_htod(&x).unwrap(), gpu.stream.clone_htod(&c).unwrap());
        let mut dy = gpu.stream.alloc_zeros::<f32>(x.len()).unwrap();
        let n = x.len() as i32;
        gpu.stream
            .launch_builder(&gpu.kernel("pade54"))
            .arg(&dx)
            .arg(&dc)
            .arg(&mut dy)
            .arg(&n)
            .run(threads(x.len(), 256))
            .unwrap();
        let y = gpu.stream.clone_dtoh(&dy).unwrap();
        for (k, (y, x)) in y.iter().zip(&x).enumerate() {
            assert_eq!(y.to_bits(), pade(*x, &c).to_bits(), "element {k}");
        }
        let counted = s.counters_of("pade54");
        assert_eq!((counted.launches, counted.blocks), (1, 40));
        // Ten coefficients and the value, 4 bytes each, for every thread that computes.
        assert_eq!(counted.global_load_bytes, 11 * 4 * x.len() as u64);
        assert_eq!(counted.global_store_bytes, 4 * x.len() as u64);
        // 8 FMAs, a product, a magnitude, a sum and a division.
        assert_eq!(counted.flops_f32, (8 * 2 + 1 + 1 + 1) * x.len() as u64);
    });
}

#[test]
fn block_reduce_sums() {
    both(|_| {
        let gpu = Gpu::new(KERNELS);
        for n in [1usize, 31, 256, 1000, 50_000] {
            let x = numbers(n, n as u64);
            let dx = gpu.stream.clone_htod(&x).unwrap();
            let mut out = gpu.stream.alloc_zeros::<f32>(1).unwrap();
            let (n32, cfg) =
                (n as i32, LaunchConfig { grid_dim: (8, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 });
            gpu.stream.launch_builder(&gpu.kernel("block_reduce")).arg(&dx).arg(&mut out).arg(&n32).run(cfg).unwrap();
            let got = f64::from(gpu.stream.clone_dtoh(&out).unwrap()[0]);
            let (want, size) = x.iter().fold((0.0, 0.0), |(s, a), v| (s + f64::from(*v), a + f64::from(v.abs())));
            // Every thread adds at most n / 2048 + 1 terms in order, then about 20 additions follow: that many roundings.
            let roundings = (n as f64 / 2048.0 + 21.0) * f64::from(f32::EPSILON);
            assert!((got - want).abs() <= size * roundings, "n {n}: {got} against {want}");
        }
    });
}

#[test]
fn gemm_is_bit_exact() {
    both(|s| {
        let gpu = Gpu::new(KERNELS);
        let (m, n, k) = (33usize, 65usize, 47usize);
        let (a, b) = (numbers(m * k, 3), numbers(k * n, 4));
        let (da, db) = (gpu.stream.clone_htod(&a).unwrap(), gpu.stream.clone_htod(&b).unwrap());
        let mut dc = gpu.stream.alloc_zeros::<f32>(m * n).unwrap();
        let cfg = LaunchConfig { grid_dim: (3, 2, 1), block_dim: (32, 8, 1), shared_mem_bytes: 0 };
        let (mi, ni, ki) = (m as i32, n as i32, k as i32);
        gpu.stream
            .launch_builder(&gpu.kernel("gemm32"))
            .arg(&da)
            .arg(&db)
            .arg(&mut dc)
            .arg(&mi)
            .arg(&ni)
            .arg(&ki)
            .run(cfg)
            .unwrap();
        let c = gpu.stream.clone_dtoh(&dc).unwrap();
        for row in 0..m {
            for col in 0..n {
                let want = (0..k).fold(0.0f32, |s, j| a[row * k + j].mul_add(b[j * n + col], s));
                assert_eq!(c[row * n + col].to_bits(), want.to_bits(), "({row}, {col})");
            }
        }
        // The tiles are padded to multiples of 32, and every padded product is an FMA.
        assert_eq!(s.counters_of("gemm32").flops_f32, 2 * 64 * 96 * 64);
    });
}

#[test]
fn collatz_diverges_and_meets_again() {
    both(|s| {
        let gpu = Gpu::new(KERNELS);
        let n = 3001usize;
        let mut out = gpu.stream.alloc_zeros::<u32>(n).unwrap();
        let n32 = n as i32;
        gpu.stream.launch_builder(&gpu.kernel("collatz")).arg(&mut out).arg(&n32).run(threads(n, 128)).unwrap();
        for (k, got) in gpu.stream.clone_dtoh(&out).unwrap().into_iter().enumerate() {
            let (mut v, mut steps) = (k as u64 + 1, 0);
            while v != 1 {
                v = if v & 1 == 1 { 3 * v + 1 } else { v >> 1 };
                steps += 1;
            }
            assert_eq!(got, steps, "start {}", k + 1);
        }
        let counted = s.counters_of("collatz");
        assert!(counted.divergent_branches > 0 && counted.lane_efficiency() < 0.9);
    });
}

#[test]
fn bf16_tensor_gemm_with_async_copies() {
    both(|s| {
        let gpu = Gpu::new(KERNELS);
        let (m, n, k) = (128usize, 64usize, 96usize);
        let (a, b): (Vec<u16>, Vec<u16>) =
            (numbers(m * k, 5).into_iter().map(bf16).collect(), numbers(n * k, 6).into_iter().map(bf16).collect());
        let (da, db) = (gpu.stream.clone_htod(&a).unwrap(), gpu.stream.clone_htod(&b).unwrap());
        let mut dc = gpu.stream.alloc_zeros::<f32>(m * n).unwrap();
        let cfg = LaunchConfig { grid_dim: (2, 2, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
        let (ni, ki) = (n as i32, k as i32);
        gpu.stream
            .launch_builder(&gpu.kernel("gemm_bf16"))
            .arg(&da)
            .arg(&db)
            .arg(&mut dc)
            .arg(&ni)
            .arg(&ki)
            .run(cfg)
            .unwrap();
        let c = gpu.stream.clone_dtoh(&dc).unwrap();
        let wide = |x: u16| f32::from_bits(u32::from(x) << 16);
        for row in 0..m {
            for col in 0..n {
                // Products of bf16 are exact; the emulator adds them in ascending order with one rounding each.
                let want = (0..k).fold(0.0f32, |s, j| wide(a[row * k + j]).mul_add(wide(b[col * k + j]), s));
                assert_eq!(c[row * n + col].to_bits(), want.to_bits(), "({row}, {col})");
            }
        }
        let counted = s.counters_of("gemm_bf16");
        assert_eq!(counted.flops_matrix_half, 2 * (m * n * k) as u64);
        if s.config().traffic {
            // ldmatrix reads 8 rows, 20 words apart, of 4 words: all banks once. Eight lanes of a copy write two rows of 16
            // words 20 apart, and 20 + 12 wraps onto the first row's banks: one conflict for every 8 of the 4 * 3 * 384
            // copied pieces.
            assert_eq!(counted.traffic.bank_conflicts(), 4 * 3 * 384 / 8);
        }
    });
}

#[test]
fn tf32_tensor_gemm() {
    both(|_| {
        let gpu = Gpu::new(KERNELS);
        let k = 40usize;
        let (a, b) = (numbers(16 * k, 7), numbers(k * 8, 8));
        let (da, db) = (gpu.stream.clone_htod(&a).unwrap(), gpu.stream.clone_htod(&b).unwrap());
        let mut dc = gpu.stream.alloc_zeros::<f32>(128).unwrap();
        let ki = k as i32;
        gpu.stream
            .launch_builder(&gpu.kernel("gemm_tf32"))
            .arg(&da)
            .arg(&db)
            .arg(&mut dc)
            .arg(&ki)
            .run(threads(32, 32))
            .unwrap();
        let c = gpu.stream.clone_dtoh(&dc).unwrap();
        // Nearest, ties away from zero, to 10 explicit bits.
        let tf32 = |x: f32| f32::from_bits(x.to_bits().wrapping_add(0x1000) & 0xffff_e000);
        for row in 0..16 {
            for col in 0..8 {
                let want = (0..k).fold(0.0f32, |s, j| tf32(a[row * k + j]).mul_add(tf32(b[j * 8 + col]), s));
                assert_eq!(c[row * 8 + col].to_bits(), want.to_bits(), "({row}, {col})");
            }
        }
    });
}

#[test]
fn compaction_keeps_values_in_order() {
    both(|_| {
        let gpu = Gpu::new(KERNELS);
        let x = numbers(2000, 9);
        let blocks = x.len().div_ceil(128);
        let dx = gpu.stream.clone_htod(&x).unwrap();
        let mut counts = gpu.stream.alloc_zeros::<u32>(blocks).unwrap();
        let mut out = gpu.stream.alloc_zeros::<f32>(x.len()).unwrap();
        let n = x.len() as i32;
        let cfg = threads(x.len(), 128);
        gpu.stream.launch_builder(&gpu.kernel("count_positive")).arg(&dx).arg(&mut counts).arg(&n).run(cfg).unwrap();
        gpu.stream.launch_builder(&gpu.kernel("compact")).arg(&dx).arg(&counts).arg(&mut out).arg(&n).run(cfg).unwrap();
        let want: Vec<f32> = x.iter().copied().filter(|v| *v > 0.0).collect();
        let got = gpu.stream.clone_dtoh(&out).unwrap();
        assert_eq!(gpu.stream.clone_dtoh(&counts).unwrap().iter().sum::<u32>() as usize, want.len());
        assert_eq!(got[..want.len()], want[..]);
    });
}

#[test]
fn moments_in_double_precision() {
    both(|_| {
        let gpu = Gpu::new(KERNELS);
        let (channels, quads) = (5usize, 333usize);
        let x = numbers(channels * quads * 4, 10);
        let dx = gpu.stream.clone_htod(&x).unwrap();
        let mut out = gpu.stream.alloc_zeros::<f64>(2 * channels).unwrap();
        let q = quads as i32;
        let cfg = LaunchConfig { grid_dim: (channels as u32, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
        gpu.stream.launch_builder(&gpu.kernel("moments")).arg(&dx).arg(&mut out).arg(&q).run(cfg).unwrap();
        let got = gpu.stream.clone_dtoh(&out).unwrap();
        for c in 0..channels {
            let values = &x[c * quads * 4..(c + 1) * quads * 4];
            let n = values.len() as f64;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
            let variance = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n - mean * mean;
            // Some 1400 additions of numbers below 4 in f64.
            assert!((got[2 * c] - mean).abs() < 1e-12 && (got[2 * c + 1] - variance).abs() < 1e-12);
        }
    });
}

#[test]
fn trilinear_and_its_adjoint() {
    both(|_| {
        let gpu = Gpu::new(KERNELS);
        let (d, h, w, n) = (5i32, 6i32, 7i32, 300i32);
        let volume = numbers((d * h * w) as usize, 11);
        let grad = numbers(n as usize, 12);
        // From -1 to 7: some points lie outside.
        let points: Vec<f32> = numbers(3 * n as usize, 13).into_iter().map(|v| 3.0 + 2.0 * v).collect();
        let (dv, dp, dg) = (
            gpu.stream.clone_htod(&volume).unwrap(),
            gpu.stream.clone_htod(&points).unwrap(),
            gpu.stream.clone_htod(&grad).unwrap(),
        );
        let mut out = gpu.stream.alloc_zeros::<f32>(n as usize).unwrap();
        let mut back = gpu.stream.alloc_zeros::<f32>(volume.len()).unwrap();
        let cfg = threads(n as usize, 64);
        gpu.stream
            .launch_builder(&gpu.kernel("trilinear"))
            .arg(&dv)
            .arg(&dp)
            .arg(&mut out)
            .arg(&d)
            .arg(&h)
            .arg(&w)
            .arg(&n)
            .run(cfg)
            .unwrap();
        gpu.stream
            .launch_builder(&gpu.kernel("trilinear_adjoint"))
            .arg(&mut back)
            .arg(&dp)
            .arg(&dg)
            .arg(&d)
            .arg(&h)
            .arg(&w)
            .arg(&n)
            .run(cfg)
            .unwrap();
        let (out, back) = (gpu.stream.clone_dtoh(&out).unwrap(), gpu.stream.clone_dtoh(&back).unwrap());
        assert!(out.contains(&0.0) && out.iter().any(|v| *v != 0.0));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        let size: f64 = out.iter().zip(&grad).map(|(x, y)| f64::from((x * y).abs())).sum();
        // Weights carry 3 roundings, sums of 8 another 8, and the atomics a few: 20 units in the last place.
        assert!((dot(&out, &grad) - dot(&volume, &back)).abs() < size * 20.0 * f64::from(f32::EPSILON));
    });
}

#[test]
fn library_functions() {
    both(|_| {
        let gpu = Gpu::new(KERNELS);
        let x = numbers(500, 14);
        let dx = gpu.stream.clone_htod(&x).unwrap();
        let mut out = gpu.stream.alloc_zeros::<f32>(12 * x.len()).unwrap();
        let n = x.len() as i32;
        gpu.stream
            .launch_builder(&gpu.kernel("functions"))
            .arg(&dx)
            .arg(&mut out)
            .arg(&n)
            .run(threads(x.len(), 128))
            .unwrap();
        let got = gpu.stream.clone_dtoh(&out).unwrap();
        for (i, v) in x.iter().enumerate() {
            let a = v.abs() + 0.1;
            let (v64, a64) = (f64::from(*v), f64::from(a));
            let want = [
                v64.exp(),
                a64.ln(),
                v64.tanh(),
                f64::from(v * 1e4).sin(),
                a64.powf(f64::from(1.7f32)),
                1.0 / a64.sqrt(),
                f64::NAN,
                a64.ln_1p(),
                v64.exp(),
                v64 / a64,
                a64.ln(),
                1.0 / a64,
            ];
            for (f, want) in want.iter().enumerate().filter(|(_, w)| !w.is_nan()) {
                let got = f64::from(got[f * x.len() + i]);
                // CUDA documents at most 4 units in the last place for these (log 1, exp 2, pow 4); near zeros of log and
                // sin the error is absolute.
                assert!(
                    (got - want).abs() <= 8.0 * f64::from(f32::EPSILON) * want.abs().max(0.1),
                    "function {f} of {v}: {got} {want}"
                );
            }
            let erf = got[6 * x.len() + i];
            assert!(erf.abs() <= 1.0 && erf.signum() == v.signum());
        }
    });
}

#[test]
fn assorted_integer_work() {
    both(|_| {
        let gpu = Gpu::new(KERNELS);
        let x: Vec<i32> = numbers(256, 15).into_iter().map(|v| (v * 1e9) as i32).collect();
        let dx = gpu.stream.clone_htod(&x).unwrap();
        let mut out = gpu.stream.alloc_zeros::<i64>(x.len()).unwrap();
        let n = x.len() as i32;
        let cfg = LaunchConfig { shared_mem_bytes: 64 * 8, ..threads(x.len(), 64) };
        gpu.stream.launch_builder(&gpu.kernel("assorted")).arg(&dx).arg(&mut out).arg(&n).run(cfg).unwrap();
        let got = gpu.stream.clone_dtoh(&out).unwrap();
        for i in 0..x.len() {
            let v = x[i ^ 1];
            let (v64, u) = (i64::from(v), v as u32);
            let permuted = u32::from_le_bytes([
                v as u8,
                (v.wrapping_mul(3)) as u8,
                (u >> 8) as u8,
                (v.wrapping_mul(3) >> 8) as u8,
            ]);
            let want = match v & 7 {
                0 => v64 / 7,
                1 => v64 % 13,
                2 => v64.wrapping_mul(v64).wrapping_mul(v64),
                3 => i64::from(v.leading_zeros() as i32 + 100 * (v.trailing_zeros() as i32 + 1)),
                4 => i64::from(u.reverse_bits() ^ permuted),
                5 => ((v64 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17) as i64,
                6 => {
                    let funnel = (((77u64 << 32) | u64::from(u)) << 5 >> 32) as u32;
                    i64::from((((v64 * 1_234_567) >> 32) as u32).wrapping_add(funnel))
                }
                _ => v64 << (v & 31),
            };
            assert_eq!(got[i], want, "value {v}");
        }
    });
}

#[test]
fn bank_conflicts_and_sectors_are_counted() {
    let exclusive = exclusive(Config::checked()).unwrap();
    let gpu = Gpu::new(KERNELS);
    let x = numbers(1024, 16);
    let dx = gpu.stream.clone_htod(&x).unwrap();
    let mut dy = gpu.stream.alloc_zeros::<f32>(1024).unwrap();
    for (kernel, conflicts) in [("transpose32", 32 * 31), ("transpose33", 0)] {
        let cfg = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 8, 1), shared_mem_bytes: 0 };
        gpu.stream.launch_builder(&gpu.kernel(kernel)).arg(&dx).arg(&mut dy).run(cfg).unwrap();
        let y = gpu.stream.clone_dtoh(&dy).unwrap();
        assert!((0..1024).all(|k| y[k] == x[k % 32 * 32 + k / 32]));
        let traffic = exclusive.counters_of(kernel).traffic;
        assert_eq!(traffic.bank_conflicts(), conflicts, "{kernel}");
        assert_eq!((traffic.loads.sectors_per_request(), traffic.stores.sectors_per_request()), (4.0, 4.0));
    }
    exclusive.assert_clean();
}

#[test]
fn permuted_orders_give_the_same_bits() {
    let run = |seed| {
        let exclusive = exclusive(Config { seed, ..Config::checked() }).unwrap();
        let gpu = Gpu::new(KERNELS);
        let x = numbers(64 * 64, 17);
        let dx = gpu.stream.clone_htod(&x).unwrap();
        let mut dc = gpu.stream.alloc_zeros::<f32>(64 * 64).unwrap();
        let cfg = LaunchConfig { grid_dim: (2, 2, 1), block_dim: (32, 8, 1), shared_mem_bytes: 0 };
        let n = 64i32;
        gpu.stream
            .launch_builder(&gpu.kernel("gemm32"))
            .arg(&dx)
            .arg(&dx)
            .arg(&mut dc)
            .arg(&n)
            .arg(&n)
            .arg(&n)
            .run(cfg)
            .unwrap();
        let mut sum = gpu.stream.alloc_zeros::<f32>(1).unwrap();
        let n = x.len() as i32;
        gpu.stream
            .launch_builder(&gpu.kernel("block_reduce"))
            .arg(&dx)
            .arg(&mut sum)
            .arg(&n)
            .run(threads(x.len(), 64))
            .unwrap();
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        exclusive.assert_clean();
        (bits(gpu.stream.clone_dtoh(&dc).unwrap()), bits(gpu.stream.clone_dtoh(&sum).unwrap()))
    };
    let runs: Vec<_> = (0..6).map(run).collect();
    assert!(runs.iter().all(|r| r.0 == runs[0].0), "a matrix product does not depend on the order of blocks");
    assert!(runs.iter().any(|r| r.1 != runs[0].1), "a sum of float atomics does, so the order was really permuted");
}

#[test]
fn blocks_on_several_threads_give_the_same_bits_and_counts() {
    let run = |threads_| {
        let exclusive = exclusive(Config { threads: threads_, ..Config::default() }).unwrap();
        let gpu = Gpu::new(KERNELS);
        let (x, c) = (numbers(20_000, 18), numbers(10, 19));
        let (dx, dc) = (gpu.stream.clone_htod(&x).unwrap(), gpu.stream.clone_htod(&c).unwrap());
        let mut dy = gpu.stream.alloc_zeros::<f32>(x.len()).unwrap();
        let n = x.len() as i32;
        gpu.stream
            .launch_builder(&gpu.kernel("pade54"))
            .arg(&dx)
            .arg(&dc)
            .arg(&mut dy)
            .arg(&n)
            .run(threads(x.len(), 128))
            .unwrap();
        let y: Vec<u32> = gpu.stream.clone_dtoh(&dy).unwrap().into_iter().map(f32::to_bits).collect();
        (y, exclusive.counters_of("pade54"))
    };
    assert_eq!(run(1), run(3));
}
