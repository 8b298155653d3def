//! Each marking op against its definition, point by point, on random lattices of awkward shapes.

use super::*;
use crate::rng::Rng;

const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [1, 5, 2], [7, 6, 9], [9, 8, 5], [4, 1, 13], [16, 12, 17]];

fn device() -> Device {
    Device::cpu(2, 64 << 20).unwrap()
}

/// A lattice whose points have classes and were evaluated at random; background is `background` of 4 points.
fn random(shape: [usize; 3], background: u64, seed: u64) -> Lattice {
    let mut lattice = Lattice::new(&device(), shape).unwrap();
    let mut rng = Rng::new(seed);
    let class = |rng: &mut Rng| if rng.below(4) < background { 0 } else { 1 + rng.below(3) as u8 };
    lattice.classes.typed_mut::<u8>().iter_mut().for_each(|value| *value = class(&mut rng));
    lattice.status.typed_mut::<u8>().iter_mut().for_each(|value| *value = rng.below(2) as u8 * EVALUATED);
    lattice
}

/// Indices of all points.
fn points([nx, ny, nz]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..nx * ny * nz).map(move |at| [at / (ny * nz), at / nz % ny, at % nz])
}

fn class(lattice: &Lattice, [x, y, z]: [usize; 3]) -> u8 {
    lattice.classes.typed::<u8>()[(x * lattice.shape[1] + y) * lattice.shape[2] + z]
}

/// Which points are due.
fn marked(lattice: &Lattice) -> Vec<bool> {
    lattice.status.typed::<u8>().iter().map(|status| status & DUE != 0).collect()
}

/// True if the points of the box `low..=high`, cut to the lattice, do not all have one class.
fn mixed(lattice: &Lattice, low: [isize; 3], high: [isize; 3]) -> bool {
    let inside = |point: &[usize; 3]| (0..3).all(|k| (low[k]..=high[k]).contains(&(point[k] as isize)));
    let classes: Vec<u8> = points(lattice.shape).filter(inside).map(|point| class(lattice, point)).collect();
    classes.windows(2).any(|pair| pair[0] != pair[1])
}

#[test]
fn neighbours() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let mut lattice = random(shape, 3, seed as u64);
        let evaluated = lattice.to_evaluated().unwrap();
        lattice.mark_mixed_neighbours().unwrap();
        let due = marked(&lattice);
        for (at, point) in points(shape).enumerate() {
            let point = point.map(|index| index as isize);
            let expected = !evaluated[at] && mixed(&lattice, point.map(|i| i - 1), point.map(|i| i + 1));
            assert_eq!(due[at], expected, "{shape:?} {point:?}");
        }
    }
}

#[test]
fn cells() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        for (side, margin) in [(1, 0), (2, 0), (2, 1), (3, 1), (4, 2), (20, 1)] {
            let mut lattice = random(shape, 4, seed as u64);
            // A few spots, so that not every cell is mixed.
            lattice.classes.typed_mut::<u8>().iter_mut().step_by(97).skip(1).for_each(|class| *class = 2);
            let evaluated = lattice.to_evaluated().unwrap();
            lattice.mark_mixed_cells(side, margin).unwrap();
            let due = marked(&lattice);
            let counts = shape.map(|points| (points - 1).div_ceil(side).max(1));
            let active: Vec<[usize; 3]> = points(counts)
                .filter(|cell| {
                    let low = cell.map(|c| (c * side) as isize);
                    mixed(&lattice, low, low.map(|start| start + side as isize))
                })
                .collect();
            for (at, point) in points(shape).enumerate() {
                let near = |cell: &[usize; 3]| {
                    (0..3).all(|k| {
                        let (first, last) = (cell[k].saturating_sub(margin), (cell[k] + margin).min(counts[k] - 1));
                        (first * side..=(last + 1) * side).contains(&point[k])
                    })
                };
                assert_eq!(due[at], !evaluated[at] && active.iter().any(near), "{shape:?} {side} {margin} {point:?}");
            }
        }
    }
}

#[test]
fn dilation() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        for radius in [1, 2, 10] {
            let mut lattice = random(shape, 4, seed as u64);
            lattice.classes.typed_mut::<u8>().iter_mut().step_by(53).for_each(|class| *class = 1);
            lattice.mark_dilated(radius).unwrap();
            let set: Vec<[usize; 3]> = points(shape).filter(|&point| class(&lattice, point) != 0).collect();
            for (point, due) in points(shape).zip(marked(&lattice)) {
                let near = set.iter().any(|other| (0..3).all(|k| point[k].abs_diff(other[k]) <= radius));
                assert_eq!(due, near && class(&lattice, point) == 0, "{shape:?} {radius} {point:?}");
            }
        }
    }
}

#[test]
fn due_points_come_in_order_and_once() {
    let mut lattice = random([13, 21, 34], 2, 5);
    lattice.mark_all().unwrap();
    let evaluated = lattice.to_evaluated().unwrap();
    let expected: Vec<[usize; 3]> =
        points(lattice.shape()).zip(&evaluated).filter(|(_, evaluated)| !**evaluated).map(|(point, _)| point).collect();
    let mut found: Vec<[usize; 3]> = Vec::new();
    for (range, count) in lattice.stretches(1500).unwrap() {
        assert!(count <= 1500 && count > 0);
        let points = lattice.due(range, count).unwrap();
        found.extend(
            points.to_vec().unwrap().chunks(3).map(|point| [point[0] as usize, point[1] as usize, point[2] as usize]),
        );
        let mut answers = Tensor::empty(&device(), &[count], DType::U8, Role::Transient).unwrap();
        answers.typed_mut::<u8>().fill(7);
        lattice.write(&points, &answers).unwrap();
    }
    assert_eq!(found, expected);
    assert!(
        lattice.stretches(1).unwrap().is_empty() && lattice.to_evaluated().unwrap().iter().all(|&evaluated| evaluated)
    );
    let classes = lattice.to_classes().unwrap();
    assert!(classes.iter().zip(&evaluated).all(|(&class, &before)| before || class == 7));
}

#[test]
fn refinement_keeps_points_and_fills_by_the_nearest() {
    for (factor, coarse, fine) in [(2, [3, 2, 4], [5, 3, 8]), (3, [2, 1, 3], [6, 1, 7]), (1, [2, 3, 4], [2, 3, 4])] {
        let lattice = random(coarse, 2, 3);
        let (filled, bare) =
            (lattice.refined(factor, fine, true).unwrap(), lattice.refined(factor, fine, false).unwrap());
        let evaluated = filled.to_evaluated().unwrap();
        for (at, point) in points(fine).enumerate() {
            let own = point.iter().all(|index| index.is_multiple_of(factor));
            let nearest = [0, 1, 2].map(|k| ((point[k] + factor / 2) / factor).min(coarse[k] - 1));
            assert_eq!(class(&filled, point), class(&lattice, nearest));
            assert_eq!(class(&bare, point), if own { class(&lattice, nearest) } else { 0 });
            let place = (nearest[0] * coarse[1] + nearest[1]) * coarse[2] + nearest[2];
            assert_eq!(evaluated[at], own && lattice.to_evaluated().unwrap()[place]);
        }
    }
    assert!(random([3, 3, 3], 2, 1).refined(2, [7, 5, 5], true).is_err());
}

#[test]
fn classes_of_logits() {
    let device = device();
    let of = |outputs: usize, values: &[f32], threshold| {
        let logits = Tensor::from_slice(&device, &[values.len() / outputs, outputs], Role::Transient, values).unwrap();
        classify(&logits, threshold).unwrap().typed::<u8>().to_vec()
    };
    assert_eq!(of(1, &[-1.0, 0.0, 1.0, f32::NAN], 0.5), [0, 0, 1, 0]);
    assert_eq!(of(1, &[0.0, 3.0], 0.9), [0, 1]);
    assert_eq!(of(3, &[0.0, 2.0, 2.0, -1.0, -2.0, -0.5, f32::NAN, 1.0, 2.0], 0.5), [1, 2, 0]);
}

#[test]
fn impossible_lattices() {
    assert!(Lattice::new(&device(), [4, 0, 4]).is_err());
    assert!(Lattice::new(&device(), [1 << 17, 1, 1]).is_err());
}

/// The same lattice on another device.
fn copied(lattice: &Lattice, device: &Device) -> Lattice {
    let bytes = |tensor: &Tensor| {
        Tensor::from_typed(device, &lattice.shape, DType::U8, Role::Output, &tensor.to_typed::<u8>().unwrap()).unwrap()
    };
    let (classes, status) = (bytes(&lattice.classes), bytes(&lattice.status));
    Lattice { classes, status, ..Lattice::new(device, lattice.shape).unwrap() }
}

/// Every step on CUDA leaves the bytes that it leaves on the CPU, whatever the order of blocks.
#[test]
fn cuda_equals_the_cpu() {
    use crate::ops::testing::{assert_clean, cuda_device};
    let steps: [fn(&mut Lattice); 6] = [
        |lattice| lattice.mark_all().unwrap(),
        |lattice| {
            let values: Vec<f32> = (0..lattice.len()).map(|i| (i * 7 % 11) as f32).collect();
            let values = Tensor::from_slice(lattice.status.device(), &lattice.shape, Role::Data, &values).unwrap();
            lattice.mark_above(&values, 5.0).unwrap();
        },
        |lattice| lattice.mark_mixed_neighbours().unwrap(),
        |lattice| lattice.mark_mixed_cells(3, 1).unwrap(),
        |lattice| lattice.mark_dilated(2).unwrap(),
        |lattice| {
            let fine = lattice.shape.map(|side| side * 2);
            *lattice = lattice.refined(2, fine, true).unwrap();
        },
    ];
    for (seed, shape) in [[7, 6, 9], [4, 1, 13], [13, 21, 34]].into_iter().enumerate() {
        let original = random(shape, 3, seed as u64);
        for (i, step) in steps.iter().enumerate() {
            let Some(device) = cuda_device(seed as u64) else { return };
            let (mut cpu, mut cuda) = (copied(&original, original.status.device()), copied(&original, &device));
            step(&mut cpu);
            step(&mut cuda);
            assert_eq!(cpu.to_classes().unwrap(), cuda.to_classes().unwrap(), "step {i}, {shape:?}");
            let status = |lattice: &Lattice| lattice.status.to_typed::<u8>().unwrap();
            assert_eq!(status(&cpu), status(&cuda), "step {i}, {shape:?}");
            let stretches = cuda.stretches(2000).unwrap();
            assert_eq!(cpu.stretches(2000).unwrap(), stretches);
            for (range, count) in stretches {
                let points = cuda.due(range.clone(), count).unwrap();
                assert_eq!(points.to_vec().unwrap(), cpu.due(range, count).unwrap().to_vec().unwrap());
                let logits: Vec<f32> = (0..count).map(|i| (i % 5) as f32 - 2.5).collect();
                let logits = Tensor::from_slice(&device, &[count, 1], Role::Transient, &logits).unwrap();
                let answers = classify(&logits, 0.5).unwrap();
                assert!(answers.to_typed::<u8>().unwrap().iter().enumerate().all(|(i, &c)| c == u8::from(i % 5 > 2)));
                cuda.write(&points, &answers).unwrap();
            }
            assert!(cuda.stretches(2000).unwrap().is_empty());
            assert_clean();
        }
    }
}
