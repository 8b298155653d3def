use super::cpu::border_map as on_cpu;
use super::*;
use crate::ops::testing::{assert_clean, cuda_device};
use crate::rng::Rng;

/// Straight from the definition: 27 taps, then a cube of 13.
fn naive(label: &[u8], shape: [usize; 3]) -> Vec<u8> {
    let [a, b, c] = shape.map(|n| n as i64);
    let clamp = |x: i64, n: i64| x.clamp(0, n - 1);
    let at = |x: i64, y: i64, z: i64| label[((clamp(x, a) * b + clamp(y, b)) * c + clamp(z, c)) as usize] as i64;
    let mut edges = Vec::new();
    for (x, y, z) in (0..a).flat_map(|x| (0..b).flat_map(move |y| (0..c).map(move |z| (x, y, z)))) {
        let mut g = [0; 3];
        for d in 0..27 {
            let d = [d / 9 - 1, d / 3 % 3 - 1, d % 3 - 1];
            let v = at(x + d[0], y + d[1], z + d[2]);
            let smooth = d.map(|d| 2 - d.abs());
            g[0] += v * d[0] * smooth[1] * smooth[2];
            g[1] += v * d[1] * smooth[0] * smooth[2];
            g[2] += v * d[2] * smooth[0] * smooth[1];
        }
        if g != [0; 3] {
            edges.push([x, y, z]);
        }
    }
    let mut out = vec![0; label.len()];
    for (x, y, z) in (0..a).flat_map(|x| (0..b).flat_map(move |y| (0..c).map(move |z| (x, y, z)))) {
        let near = |e: &[i64; 3]| (e[0] - x).abs() <= 6 && (e[1] - y).abs() <= 6 && (e[2] - z).abs() <= 6;
        out[((x * b + y) * c + z) as usize] = edges.iter().any(near) as u8;
    }
    out
}

#[test]
fn agrees_with_the_definition() {
    let mut rng = Rng::new(1);
    for shape in [[17, 9, 20], [1, 25, 24], [3, 1, 40], [1, 1, 1], [30, 14, 2]] {
        let mut label = vec![0u8; shape.iter().product()];
        for _ in 0..3 {
            let place = rng.below(label.len() as u64) as usize;
            label[place] = 1;
        }
        let expected = naive(&label, shape);
        assert_eq!(on_cpu(&label, shape), expected, "{shape:?}");
        for device in [Device::cpu(2, 1 << 20).unwrap()].into_iter().chain(cuda_device(1)) {
            let label = Tensor::from_typed(&device, &shape, DType::U8, Role::Data, &label).unwrap();
            assert_eq!(border_map(&label).unwrap().to_typed::<u8>().unwrap(), expected, "{device:?} {shape:?}");
            assert_clean();
        }
    }
    // A structure that is small beside the volume, within it and in each corner.
    let shape = [34, 31, 37];
    for place in 0..9 {
        let mut label = vec![0u8; shape.iter().product()];
        for voxel in 0..8 {
            let begin = |k: usize| if place == 8 { 15 } else { (place >> k & 1) * (shape[k] - 2) };
            let [i, j, l] = [0, 1, 2].map(|k| begin(k) + (voxel >> k & 1));
            label[(i * shape[1] + j) * shape[2] + l] = u8::from(rng.below(3) > 0);
        }
        assert_eq!(on_cpu(&label, shape), naive(&label, shape), "{place}");
    }
    assert!(on_cpu(&[0; 64], [4, 4, 4]).iter().all(|&v| v == 0), "nor has an empty one");
    assert!(on_cpu(&[1; 64], [4, 4, 4]).iter().all(|&v| v == 0), "a full volume has no border");
}

#[test]
fn other_tensors_are_errors() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    assert!(border_map(&Tensor::zeros(&device, &[2, 2, 2], Role::Data).unwrap()).is_err());
    let flat = Tensor::from_typed(&device, &[4], DType::U8, Role::Data, &[0u8; 4]).unwrap();
    assert!(border_map(&flat).is_err());
}
