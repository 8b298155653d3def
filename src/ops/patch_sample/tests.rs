use super::{PATCH, PatchOptions, Pooling, SIDE, Samples, VolumeSize, cpu, patch_sample};
use crate::device::cpu::{Pool, SimdLevel};
use crate::ops::testing::{Array, Tolerance, check_op, compare};

const NONE: PatchOptions = PatchOptions { mid_range: None };
const AVERAGE: PatchOptions = PatchOptions { mid_range: Some(Pooling::Average) };
const MAX: PatchOptions = PatchOptions { mid_range: Some(Pooling::Max) };

/// `V` at whole indices, zero outside; `volume` is `[batch, D, H, W, C]`.
fn voxel(volume: &Array, item: usize, at: [i64; 3], channel: usize) -> f64 {
    let shape = &volume.shape;
    if (0..3).any(|axis| at[axis] < 0 || at[axis] >= shape[axis + 1] as i64) {
        return 0.0;
    }
    let index = (0..3).fold(item, |index, axis| index * shape[axis + 1] + at[axis] as usize);
    volume.data[index * shape[4] + channel]
}

/// Trilinear value at a real position.
fn trilinear(volume: &Array, item: usize, at: [f64; 3], channel: usize) -> f64 {
    let below = at.map(f64::floor);
    (0..8)
        .map(|corner| {
            let step = [corner >> 2 & 1, corner >> 1 & 1, corner & 1];
            let weight: f64 = (0..3)
                .map(|axis| (at[axis] - below[axis], step[axis]))
                .map(|(f, step)| if step == 1 { f } else { 1.0 - f })
                .product();
            weight * voxel(volume, item, std::array::from_fn(|axis| below[axis] as i64 + step[axis]), channel)
        })
        .sum()
}

/// All patches by definition.
fn twin(volume: &Array, coordinates: &Array, options: PatchOptions) -> Array {
    let (points, channels) = (coordinates.shape[0], volume.shape[4]);
    let mut data = Vec::new();
    for point in 0..points {
        let item = point / (points / volume.shape[0]);
        let at = |offsets: [f64; 3], channel| {
            let position = std::array::from_fn(|axis| coordinates.data[3 * point + axis] + offsets[axis]);
            trilinear(volume, item, position, channel)
        };
        for channel in 0..options.channels(channels) {
            for n in 0..PATCH {
                let n = [n / (SIDE * SIDE), n / SIDE % SIDE, n % SIDE].map(|n| n as f64);
                if channel < channels {
                    data.push(at(n.map(|n| n - 3.0), channel));
                    continue;
                }
                let eight = (0..8).map(|corner| {
                    let step = [corner >> 2 & 1, corner >> 1 & 1, corner & 1].map(f64::from);
                    at(std::array::from_fn(|axis| 2.0 * n[axis] + step[axis] - 7.0), channel - channels)
                });
                data.push(match options.mid_range {
                    Some(Pooling::Max) => eight.fold(f64::NEG_INFINITY, f64::max),
                    _ => eight.sum::<f64>() / 8.0,
                });
            }
        }
    }
    Array { shape: vec![points, options.channels(channels), PATCH], data }
}

/// Whole and broken coordinates inside, at the corners and outside of a 9 × 8 × 10 volume.
fn coordinates(points: usize, seed: u64) -> Array {
    let mut coordinates = Array::random(&[points, 3], seed).map(|x| x * 8.0 + 4.5);
    let special = [[0.0, 0.0, 0.0], [8.0, 7.0, 9.0], [-30.25, 4.5, 100.0], [3.0, 4.5, 5.0], [-0.5, 7.75, 2.0]];
    for (to, from) in coordinates.data.chunks_mut(3).zip(special) {
        to.copy_from_slice(&from);
    }
    coordinates
}

fn patches(simd: SimdLevel, volume: &Array, coordinates: &Array, options: PatchOptions) -> Vec<f32> {
    let grid = VolumeSize::of("test", &volume.shape).unwrap();
    let (points, pool) = (coordinates.shape[0], Pool::start_with_simd(2, simd).unwrap());
    let (voxels, at) = (volume.f32s(), coordinates.f32s());
    let points_per_volume = points / volume.shape[0];
    let samples = Samples { voxels: &voxels[..], grid, coordinates: &at, points_per_volume, options };
    let mut patches = vec![f32::NAN; points * options.channels(grid.channels) * PATCH];
    cpu::forward(&pool, samples, &mut patches, &mut vec![f32::NAN; cpu::workspace(2, grid)]);
    patches
}

#[test]
fn whole_coordinates_give_the_voxels_exactly() {
    let volume = Array::random(&[2, 9, 8, 10, 3], 1);
    let whole = coordinates(150, 2).map(f64::floor);
    for (options, exact) in [(NONE, true), (MAX, true), (AVERAGE, false)] {
        let expected = twin(&volume, &whole, options);
        for simd in SimdLevel::available() {
            let ours = patches(simd, &volume, &whole, options);
            // A mean of eight numbers below 1 is off by at most seven roundings of sums below 8.
            compare("patches", &ours, &expected.data, if exact { 0.0 } else { 7.0 * 2f64.powi(-24) });
        }
    }
}

/// Eight products of at most 1 with weights that are themselves rounded: a few 2⁻²⁴. The reference's derivative is a
/// difference over 2·10⁻⁵ in f64, good to 10⁻⁹, of a function that is trilinear there; a gradient sums up to 686·8 terms
/// of random sign whose largest is compared.
const TOLERANCE: Tolerance = Tolerance { forward: 1e-6, backward: 5e-6 };

fn check(options: PatchOptions, channels: usize, seed: u64) {
    let volume = Array::random(&[2, 9, 8, 10, channels], seed);
    // Away from whole coordinates, where the derivative jumps.
    let broken = coordinates(6, seed + 1).map(|x| x.floor() + 0.2 + (x * 77.0).rem_euclid(0.6));
    check_op(
        &[volume, broken],
        &[0, 1],
        TOLERANCE,
        |tape, v| patch_sample(tape, &v[0], &v[1], options),
        |arrays| twin(&arrays[0], &arrays[1], options),
    );
}

#[test]
fn local_patches_and_their_gradients() {
    check(NONE, 2, 10);
}

/// Four channels are read at once on CUDA.
#[test]
fn patches_of_four_channels() {
    check(NONE, 4, 15);
}

#[test]
fn averaged_patches_and_their_gradients() {
    check(AVERAGE, 1, 20);
}

#[test]
fn largest_of_patches_and_their_gradients() {
    check(MAX, 1, 30);
}

#[test]
fn gradient_to_the_volume_is_the_adjoint() {
    // ⟨S·x, g⟩ = ⟨x, Sᵀ·g⟩ for whole and broken coordinates alike; S is linear unless it takes a maximum.
    let volume = Array::random(&[2, 9, 8, 10, 3], 40);
    let at = coordinates(130, 41);
    for options in [NONE, AVERAGE] {
        let grid = VolumeSize::of("test", &volume.shape).unwrap();
        let g = Array::random(&[130, options.channels(3), PATCH], 42);
        let (voxels, coordinates, gradient) = (volume.f32s(), at.f32s(), g.f32s());
        let samples = Samples { voxels: &voxels[..], grid, coordinates: &coordinates, points_per_volume: 65, options };
        let run = |threads: usize| {
            let mut adjoint = vec![f32::NAN; voxels.len()];
            let mut scratch = vec![f32::NAN; cpu::workspace(threads, grid)];
            cpu::volume_gradient(&Pool::start(threads).unwrap(), samples, &gradient, &mut adjoint, false, &mut scratch);
            adjoint
        };
        let adjoint = run(1);
        assert_eq!(adjoint, run(2), "threads");
        let left: f64 = twin(&volume, &at, options).data.iter().zip(&g.data).map(|(a, b)| a * b).sum();
        let right: f64 = adjoint.iter().zip(&volume.data).map(|(&a, b)| f64::from(a) * b).sum();
        // Some 10⁵ products of random sign, each rounded: far below 10⁻⁶ of the sum of magnitudes.
        let scale: f64 = adjoint.iter().zip(&volume.data).map(|(&a, b)| (f64::from(a) * b).abs()).sum();
        assert!((left - right).abs() <= 1e-7 * scale, "{left} and {right} of {scale}");
    }
}

#[test]
fn at_whole_coordinates_the_derivative_is_from_the_right() {
    let volume = Array::random(&[1, 9, 8, 10, 1], 50);
    let at = Array { shape: vec![1, 3], data: vec![4.0, 3.0, 5.0] };
    let g = Array::random(&[1, 1, PATCH], 51);
    let (voxels, coordinates, gradient) = (volume.f32s(), at.f32s(), g.f32s());
    let grid = VolumeSize::of("test", &volume.shape).unwrap();
    let samples = Samples { voxels: &voxels[..], grid, coordinates: &coordinates, points_per_volume: 1, options: NONE };
    let mut ours = [0.0; 3];
    let mut scratch = vec![0.0; cpu::workspace(1, grid)];
    cpu::coordinate_gradient(&Pool::start(1).unwrap(), samples, &gradient, &mut ours, false, &mut scratch);
    let project = |at: &Array| -> f64 { twin(&volume, at, NONE).data.iter().zip(&g.data).map(|(a, b)| a * b).sum() };
    let expected: Vec<f64> = (0..3)
        .map(|axis| {
            // Trilinear: along one axis the function is straight up to the next voxel.
            let mut right = at.clone();
            right.data[axis] += 0.5;
            (project(&right) - project(&at)) / 0.5
        })
        .collect();
    compare("derivative", &ours, &expected, 1e-6);
}

#[test]
fn coordinates_that_are_not_finite_do_no_harm() {
    let volume = Array::random(&[1, 9, 8, 10, 1], 60);
    let at = Array { shape: vec![3, 3], data: vec![f64::NAN, 1.0, 1.0, f64::INFINITY, 1.0, 1.0, 1.0, -1e30, 1.0] };
    let ours = patches(SimdLevel::detect(), &volume, &at, AVERAGE);
    assert!(ours[..PATCH].iter().all(|value| value.is_nan()));
    assert!(ours[2 * PATCH..].iter().all(|&value| value == 0.0));
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    use crate::device::Device;
    use crate::memory::Role;
    use crate::tape::{Mode, Tape};
    use crate::tensor::Tensor;
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    let volume = var(&[2, 4, 4, 4, 1]);
    for coordinates in [&[3, 3][..], &[4, 2], &[12]] {
        let error = patch_sample(&tape, &volume, &var(coordinates), NONE).err().unwrap().to_string();
        assert!(error.contains("coordinates"), "{error}");
    }
    assert!(patch_sample(&tape, &var(&[2, 4, 4, 4]), &var(&[4, 3]), NONE).is_err());
    assert!(patch_sample(&tape, &var(&[2, 4, 0, 4, 1]), &var(&[4, 3]), NONE).is_err());
}
