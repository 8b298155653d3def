use super::accumulator::{Accumulator, Part, Place};
use super::*;
use crate::data::{Affine, Geometry, GridTransform, Padding};
use crate::models::{UNet, UNetConfig};
use crate::rng::Rng;

#[test]
fn windows_cover_an_axis_and_overlap_as_asked() {
    for (length, side, overlap) in [(64, 64, 0.5), (100, 32, 0.5), (65, 64, 0.5), (200, 48, 0.25), (40, 16, 0.0)] {
        let axis = Axis::new(length, side, overlap);
        assert_eq!((axis.starts[0], *axis.starts.last().unwrap()), (0, length - side));
        for pair in axis.starts.windows(2) {
            // Rounding moves a start by half a voxel at most.
            let common = side as f64 - (pair[1] - pair[0]) as f64;
            assert!(common >= side as f64 * overlap - 1.0, "{length} {side} {overlap}: {pair:?}");
        }
        assert!(axis.sums(length).iter().all(|&sum| sum > 0.0));
    }
}

/// Weights fall as a Gaussian with an eighth of the side as its standard deviation, as those of MONAI and nnU-Net do.
#[test]
fn weights_of_a_window() {
    let weights = Axis::new(40, 16, 0.5).weights;
    // exp(−(d/2)²/2) at the distances 0.5, 2.5 and 7.5 from the centre; f32 keeps seven digits.
    for (at, expected) in [(7, 0.969_233_2), (8, 0.969_233_2), (5, 0.457_833_4), (0, 0.000_883_83), (15, 0.000_883_83)]
    {
        assert!((weights[at] / expected - 1.0).abs() < 1e-5, "{at}: {}", weights[at]);
    }
    assert_eq!(Axis::new(16, 16, 0.5).weights, [1.0; 16], "one window needs no weights");
}

/// A "network" that answers with the voxels themselves, part by part: whatever the windows, the volume comes back.
#[test]
fn averages_of_equal_answers_are_the_answers() {
    let (shape, device) = ([20, 17, 9], Device::cpu(1, 1 << 24).unwrap());
    for outputs in [1, 2, 3] {
        let uniform = |i: usize| (1 + i * 37 % 101) as f32;
        // Several outputs are probabilities and sum to one.
        let voxels: Vec<f32> = (0..shape.iter().product())
            .flat_map(|voxel| match outputs {
                1 => vec![uniform(voxel) / 101.0],
                _ => {
                    let row: Vec<f32> = (0..outputs).map(|output| uniform(outputs * voxel + output)).collect();
                    row.iter().map(|value| value / row.iter().sum::<f32>()).collect()
                }
            })
            .collect();
        let volume = Volume::new(shape, outputs, voxels);
        for (sides, overlap) in [([8, 8, 4], 0.5), ([20, 5, 9], 0.3), ([7, 17, 3], 0.0), (shape, 0.5)] {
            let axes = [0, 1, 2].map(|k| Axis::new(shape[k], sides[k], overlap));
            let decision = Decision { threshold: 0.5, keep: true };
            let mut planes = Planes::new(shape, outputs, Destination { decision, way: None, strips: 1 });
            planes.begin(&device, 0..shape[1]).unwrap();
            let mut slab = Accumulator::new(&device, shape, outputs, &axes, 0..shape[1]).unwrap();
            for &x in &axes[0].starts {
                slab.advance(x, &mut planes);
                for &y in &axes[1].starts {
                    for &z in &axes[2].starts {
                        for mirror in [[false; 3], [true, false, true], [false, true, true], [true; 3]] {
                            let place = Place { start: [x, y, z], mirror, share: 0.25 };
                            let block = cut(&volume, place.start, sides, mirror);
                            // The first three planes, then the rest.
                            for planes in [0..3, 3..sides[0]] {
                                let own = [planes.len(), sides[1], sides[2]];
                                let plane = own[1] * own[2] * outputs;
                                let part = Part { start: [planes.start, 0, 0], sides: own };
                                slab.add(place, part, &block[planes.start * plane..planes.end * plane]);
                            }
                        }
                    }
                }
            }
            slab.advance(shape[0], &mut planes);
            let kept = planes.probabilities.unwrap();
            let worst = kept.iter().zip(&volume.voxels).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            // Sums of up to 4·27 positive products, each rounded, of values up to 1: 108 · 6e-8. Those of two classes
            // make the error of the first, whose answers sum to one within 2e-7.
            assert!(kept.len() == volume.voxels.len() && worst < 1.4e-5, "{sides:?} {worst}");
            for (class, row) in planes.classes.iter().zip(kept.chunks_exact(outputs)) {
                assert_eq!(*class, lattice::class_of(row, 0.5));
            }
        }
    }
}

/// A small network with fresh weights and noise for it to see.
fn network(device: &Device, dimensions: usize, outputs: usize) -> (UNet, Parameters) {
    let mut parameters = Parameters::new(device);
    let config = UNetConfig {
        channels: vec![4, 8],
        strides: vec![2],
        slice_axis: 1,
        ..UNetConfig::standard(dimensions, 1, outputs)
    };
    (UNet::new(config, &mut parameters, &mut Rng::new(1)).unwrap(), parameters)
}

fn noise(shape: [usize; 3]) -> Volume {
    let mut rng = Rng::new(2);
    Volume::new(shape, 1, (0..shape.iter().product()).map(|_| rng.normal()).collect())
}

/// Of a whole volume as well: eight passes (four of slices) over mirrored copies, turned back and averaged.
#[test]
fn mirrored_answers_are_averaged() {
    let (device, shape) = (Device::cpu(2, 1 << 28).unwrap(), [8, 20, 6]);
    let volume = noise(shape);
    for (dimensions, outputs) in [(3, 1), (3, 3), (2, 2)] {
        let (network, parameters) = network(&device, dimensions, outputs);
        let ask = |volume: &Volume, mirror| {
            let windows = SlidingWindow { mirror, ..SlidingWindow::default() };
            let decision = Decision { threshold: 0.5, keep: true };
            predict(&network, &parameters, volume, &windows, decision, &mut || Ok(())).unwrap()
        };
        let mirrored = |at: usize, bits: usize| {
            let index = [at / (shape[1] * shape[2]), at / shape[2] % shape[1], at % shape[2]];
            let index = [0, 1, 2].map(|k| if bits >> k & 1 == 1 { shape[k] - 1 - index[k] } else { index[k] });
            (index[0] * shape[1] + index[1]) * shape[2] + index[2]
        };
        let ways: Vec<usize> = (0..8).filter(|bits| dimensions == 3 || bits & 2 == 0).collect();
        let mut expected = vec![0.0; volume.voxels.len() * outputs];
        for &bits in &ways {
            let seen = (0..volume.voxels.len()).map(|at| volume.voxels[mirrored(at, bits)]).collect();
            let found = ask(&Volume::new(shape, 1, seen), false).probabilities.unwrap();
            for (at, row) in found.chunks_exact(outputs).enumerate() {
                let sums = &mut expected[mirrored(at, bits) * outputs..][..outputs];
                sums.iter_mut().zip(row).for_each(|(sum, p)| *sum += f64::from(*p) / ways.len() as f64);
            }
        }
        let answer = ask(&volume, true);
        let found = answer.probabilities.unwrap();
        let error = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs();
        let worst = found.iter().zip(&expected).map(error).fold(0.0, f64::max);
        // Eight rounded products of at most 1/8, of up to two classes; a softmax sums to one within 2e-7.
        assert!(answer.passes == ways.len() as u64 && worst < 2e-6, "{dimensions}D, {outputs}: {worst}");
    }
}

/// In strips or at once, in windows or whole: the answer on the scan's grid is the class of the interpolated probabilities, to
/// the bit. Along the axes the scan is finer, coarser and of other padding.
#[test]
fn answers_on_the_scans_grid_are_those_of_interpolated_probabilities() {
    let (device, shape) = (Device::cpu(2, 1 << 28).unwrap(), [16, 20, 12]);
    let padding = Padding { before: [1, 2, 0], after: [1, 0, 3] };
    for (scan, dimensions, outputs, size, mirror) in [
        ([23, 31, 17], 3, 5, Some([8, 8, 8]), false),
        ([5, 7, 4], 3, 1, Some([8, 12, 8]), true),
        ([14, 40, 9], 2, 3, Some([8, 20, 8]), false),
        ([29, 18, 20], 3, 40, None, false),
        ([1, 1, 33], 3, 3, Some([8, 8, 12]), false),
    ] {
        let (network, parameters) = network(&device, dimensions, outputs);
        let geometry = Geometry::from_affine(Affine::from_spacing([1.0; 3]), scan);
        let way = GridTransform { shape: scan, geometry, resampled: [14, 18, 9], padding };
        let windows = SlidingWindow { size, mirror, overlap: 0.5 };
        let decision = Decision { threshold: 0.5, keep: true };
        let ask = |destination| {
            predict_on(&network, &parameters, &noise(shape), &windows, destination, &mut || Ok(())).unwrap()
        };
        let kept = ask(Destination { decision, way: None, strips: 1 });
        let whole = Volume::new(shape, outputs, kept.probabilities.unwrap());
        let expected = way.restore(&whole).unwrap().voxels;
        for strips in [1, 2, 5, 1000] {
            let destination = Destination { decision, way: Some(&way), strips };
            let found = ask(destination);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let told = found.probabilities.unwrap();
            assert!(bits(&told) == bits(&expected), "{scan:?} in {strips} strips");
            let classes = expected.chunks_exact(outputs).map(|row| lattice::class_of(row, 0.5));
            assert!(found.classes.iter().copied().eq(classes), "{scan:?} in {strips} strips");
            let (passes, _) = cost_of(&network, shape, &windows, destination).unwrap();
            assert_eq!(found.passes, passes, "{scan:?} in {strips} strips");
            // Windows of padding alone are not asked.
            assert!(strips > 1 || passes <= kept.passes);
        }
    }
}

/// Strips hold less, by as much as is told beforehand.
#[test]
fn strips_hold_what_is_told() {
    let (shape, scan, outputs) = ([16, 24, 8], [20, 36, 12], 7);
    let geometry = Geometry::from_affine(Affine::from_spacing([1.0; 3]), scan);
    let way = GridTransform { shape: scan, geometry, resampled: shape, padding: Padding::default() };
    let windows = SlidingWindow { size: Some([8, 8, 8]), ..SlidingWindow::default() };
    let mut before = u64::MAX;
    for strips in [1, 3, 9] {
        let device = Device::cpu(1, 1 << 28).unwrap();
        let (network, parameters) = network(&device, 3, outputs);
        let destination = Destination { decision: Decision::class(), way: Some(&way), strips };
        let weights = device.live().total();
        let mut held = 0;
        // Between passes nothing else is there.
        let mut tick = || {
            held = held.max(device.live().total() - weights);
            Ok(())
        };
        predict_on(&network, &parameters, &noise(shape), &windows, destination, &mut tick).unwrap();
        let (_, told) = cost_of(&network, shape, &windows, destination).unwrap();
        assert_eq!(held, told, "{strips} strips");
        assert!(held < before, "{strips} strips");
        before = held;
    }
}

/// Whatever the way, the sums of all classes but one are held and lie in the ledger, which a plan predicts.
#[test]
fn sums_are_in_the_ledger() {
    let cpu = Device::cpu(2, 1 << 28).unwrap();
    let shape = [32, 16, 16];
    let plane = 4 * 16 * 16;
    for (outputs, maps) in [(1, 1), (2, 1), (4, 3)] {
        for (size, thickness) in [(None, 32), (Some([8, 16, 16]), 8)] {
            let held = [cpu.clone(), cpu.planned()].map(|device| {
                let (network, parameters) = network(&device, 3, outputs);
                let windows = SlidingWindow { size, mirror: true, ..SlidingWindow::default() };
                let decision = Decision { threshold: 0.5, keep: false };
                let mut most = 0;
                let mut tick = || {
                    most = most.max(device.live().get(Role::Output));
                    Ok(())
                };
                device.ledger(|ledger| ledger.reset_peak());
                predict(&network, &parameters, &noise(shape), &windows, decision, &mut tick).unwrap();
                (most, device.ledger(|ledger| ledger.peak().by_role.total()))
            });
            assert_eq!(held[0], held[1], "{outputs} outputs, {size:?}");
            assert_eq!(held[0].0, thickness * plane * maps, "{outputs} outputs, {size:?}");
        }
    }
}
