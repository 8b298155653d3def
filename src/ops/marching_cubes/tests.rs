use super::*;
use crate::device::cpu::SimdLevel;
use crate::ops::testing::{assert_clean, cuda_device};
use crate::rng::Rng;

fn field(device: &Device, shape: [usize; 3], values: &[f32]) -> Tensor {
    Tensor::from_slice(device, &shape, Role::Data, values).unwrap()
}

/// A naive twin: slot by slot, with a table of vertices.
fn naive(shape: [usize; 3], values: &[f32], threshold: f32, outside: f32) -> (Vec<[f32; 3]>, Vec<[u32; 3]>) {
    let value = |p: [usize; 3]| {
        let within = (0..3).all(|axis| (1..=shape[axis]).contains(&p[axis]));
        if within { values[((p[0] - 1) * shape[1] + p[1] - 1) * shape[2] + p[2] - 1] } else { outside }
    };
    let corner = |p: [usize; 3], c: usize| [p[0] + (c >> 2 & 1), p[1] + (c >> 1 & 1), p[2] + (c & 1)];
    let slots: Vec<[usize; 3]> =
        (0..=shape[0]).flat_map(|z| (0..=shape[1]).flat_map(move |y| (0..=shape[2]).map(move |x| [z, y, x]))).collect();
    let mut index = std::collections::BTreeMap::new();
    let (mut vertices, mut triangles) = (Vec::new(), Vec::new());
    for &p in &slots {
        for axis in 0..3 {
            let (a, b) = (value(p), value(corner(p, 4 >> axis)));
            if (a > threshold) != (b > threshold) {
                index.insert((p, axis), vertices.len() as u32);
                let mut position = p.map(|i| i as f32 - 1.0);
                position[axis] += (threshold - a) / (b - a);
                vertices.push(position);
            }
        }
    }
    for &p in &slots {
        let case = (0..8).filter(|&c| value(corner(p, c)) > threshold).map(|c| 1 << c).sum::<usize>();
        for triangle in table::TRIANGLES[case][1..].chunks_exact(3).take(usize::from(table::TRIANGLES[case][0])) {
            let vertex = |edge: u8| {
                let (lower, axis) = table::EDGES[usize::from(edge)];
                index[&(corner(p, usize::from(lower)), usize::from(axis))]
            };
            triangles.push([vertex(triangle[0]), vertex(triangle[1]), vertex(triangle[2])]);
        }
    }
    (vertices, triangles)
}

/// Sides around the word length, whatever the number of threads and on CUDA whatever the order of blocks: the same arrays as
/// the naive twin, to the bit.
#[test]
fn equals_the_naive_twin() {
    let mut rng = Rng::new(7);
    for (threads, shape) in [
        (1, [3, 4, 5]),
        (2, [4, 3, 31]),
        (2, [2, 5, 32]),
        (3, [3, 2, 33]),
        (2, [1, 1, 64]),
        (1, [1; 3]),
        (1, [40, 40, 3]),
    ] {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.uniform()).collect();
        let (vertices, triangles) = naive(shape, &values, 0.5, 0.0);
        let cuda = [0, 1].into_iter().filter_map(cuda_device);
        for device in [Device::cpu(threads, 1 << 20).unwrap()].into_iter().chain(cuda) {
            let surface = marching_cubes(&field(&device, shape, &values), 0.5, 0.0).unwrap();
            assert_eq!(surface.vertices.shape(), [vertices.len(), 3]);
            assert_eq!(surface.vertices.to_vec().unwrap(), vertices.as_flattened(), "{device:?} {shape:?}");
            assert_eq!(surface.triangles.to_typed::<u32>().unwrap(), triangles.as_flattened(), "{device:?} {shape:?}");
            assert_clean();
        }
    }
}

/// Two values in bytes: CUDA's arrays are the CPU's.
#[test]
fn bytes_on_cuda() {
    let Some(cuda) = cuda_device(3) else { return };
    let mut rng = Rng::new(8);
    let shape = [5, 6, 37];
    let values: Vec<u8> = (0..shape.iter().product()).map(|_| rng.below(2) as u8).collect();
    let surface = |device: &Device| {
        let field = Tensor::from_typed(device, &shape, DType::U8, Role::Data, &values).unwrap();
        let surface = marching_cubes(&field, 0.5, 0.0).unwrap();
        (surface.vertices.to_vec().unwrap(), surface.triangles.to_typed::<u32>().unwrap())
    };
    assert_eq!(surface(&cuda), surface(&Device::cpu(1, 1 << 20).unwrap()));
    assert_clean();
}

/// Bytes are read as their values: a mask of 0 and 1 meshes as the same field in floats.
#[test]
fn masks_of_bytes() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let mut rng = Rng::new(3);
    let mask: Vec<u8> = (0..60).map(|_| u8::from(rng.uniform() > 0.6)).collect();
    let mut bytes = Tensor::empty(&device, &[3, 4, 5], DType::U8, Role::Data).unwrap();
    bytes.typed_mut::<u8>().copy_from_slice(&mask);
    let floats: Vec<f32> = mask.iter().map(|&v| f32::from(v)).collect();
    let [a, b] = [bytes, field(&device, [3, 4, 5], &floats)].map(|field| marching_cubes(&field, 0.5, 0.0).unwrap());
    assert_eq!(a.vertices.data(), b.vertices.data());
    assert_eq!(a.triangles.typed::<u32>(), b.triangles.typed::<u32>());
}

#[test]
fn nothing_inside_gives_an_empty_surface_and_values_that_are_not_finite_stay_on_their_edges() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let none = marching_cubes(&field(&device, [2, 2, 2], &[0.0; 8]), 0.5, 0.0).unwrap();
    assert_eq!((none.vertices.shape(), none.triangles.shape()), ([0, 3].as_slice(), [0, 3].as_slice()));
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0, f32::MAX, f32::MIN, 0.5, f32::INFINITY];
    let odd = marching_cubes(&field(&device, [2, 2, 2], &odd), 0.5, 0.0).unwrap();
    assert!(!odd.vertices.is_empty());
    assert!(odd.vertices.data().iter().all(|v| (-1.0..=2.0).contains(v)));
}

/// Bytes of the workspace are those that the documentation promises, on a plan as well.
#[test]
fn workspace() {
    let cpu = Device::cpu(1, 1 << 24).unwrap();
    let plan = Device::plan(1, SimdLevel::detect(), 1 << 24);
    for device in [cpu, plan] {
        let field = Tensor::zeros(&device, &[63, 63, 63], Role::Data).unwrap();
        device.ledger(|ledger| ledger.record(true));
        marching_cubes(&field, 0.5, 0.0).unwrap();
        let events = device.ledger(|ledger| ledger.take_events());
        let peak = events.iter().map(|event| event.live.get(Role::Workspace)).max().unwrap();
        assert_eq!(peak, 12 * 64 * 64 * 2, "{}", device.name());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let good = field(&device, [2, 2, 2], &[0.0; 8]);
    let message =
        |field: &Tensor, threshold, outside| marching_cubes(field, threshold, outside).unwrap_err().to_string();
    assert!(message(&good, 0.5, 0.6).contains("outside 0.6"));
    assert!(message(&good, f32::NAN, 0.0).contains("finite"));
    assert!(message(&good.clone().reshaped(&[8]).unwrap(), 0.5, 0.0).contains("[8]"));
    let halves = Tensor::empty(&device, &[2, 2, 2], DType::F16, Role::Data).unwrap();
    assert!(message(&halves, 0.5, 0.0).contains("F16"));
}
