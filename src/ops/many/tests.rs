//! Against plain loops in f64, on every device; more tensors than one launch takes, and empty ones among them.

use super::{approach_all, scale_all, sums_of_squares, zero_all};
use crate::device::Device;
use crate::memory::Role;
use crate::ops::testing::{Array, assert_clean, every_device};
use crate::tensor::Tensor;

/// Lengths around those of a vector access, a block and a piece of the CPU's; then many short ones.
fn lengths() -> Vec<usize> {
    [0, 1, 3, 4, 5, 4095, 4096, 4097, 20_000].into_iter().chain((0..600).map(|i| i % 7)).collect()
}

fn arrays(seed: u64) -> Vec<Array> {
    lengths().iter().enumerate().map(|(i, &length)| Array::random(&[length], seed + i as u64)).collect()
}

fn tensors(device: &Device, arrays: &[Array]) -> Vec<Tensor> {
    let tensor = |array: &Array| Tensor::from_slice(device, &array.shape, Role::Data, &array.f32s()).unwrap();
    arrays.iter().map(tensor).collect()
}

#[test]
fn squares_are_summed_a_tensor() {
    let arrays = arrays(1);
    for device in every_device() {
        let tensors = tensors(&device, &arrays);
        let sums = sums_of_squares(&device, &tensors.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(sums.len(), arrays.len());
        for (sum, array) in sums.iter().zip(&arrays) {
            let exact: f64 = array.data.iter().map(|x| x * x).sum();
            // Sums of up to 20,000 positive f64 in two orders: at most 20,000 roundings apart.
            assert!((sum - exact).abs() <= 20_000.0 * f64::EPSILON * exact, "{sum} for {exact}");
        }
        assert_clean();
    }
}

#[test]
fn all_are_scaled_and_cleared() {
    let arrays = arrays(1000);
    for device in every_device() {
        let mut tensors = tensors(&device, &arrays);
        scale_all(&device, &mut tensors.iter_mut().collect::<Vec<_>>(), 0.3).unwrap();
        for (tensor, array) in tensors.iter().zip(&arrays) {
            let expected: Vec<f32> = array.f32s().iter().map(|x| x * 0.3).collect();
            assert_eq!(tensor.to_vec().unwrap(), expected);
        }
        zero_all(&device, &mut tensors.iter_mut().collect::<Vec<_>>()).unwrap();
        assert!(tensors.iter().all(|tensor| tensor.to_vec().unwrap().iter().all(|x| *x == 0.0)));
        assert_clean();
    }
}

#[test]
fn all_approach_their_goals() {
    let (arrays, goals) = (arrays(2000), arrays(3000));
    for device in every_device() {
        let (mut tensors, targets) = (tensors(&device, &arrays), tensors(&device, &goals));
        let mut pairs: Vec<_> = tensors.iter_mut().zip(&targets).collect();
        approach_all(&device, &mut pairs, 0.3).unwrap();
        for ((tensor, array), goal) in tensors.iter().zip(&arrays).zip(&goals) {
            let (from, to) = (array.f32s(), goal.f32s());
            let expected: Vec<f32> = from.iter().zip(&to).map(|(x, goal)| x + 0.3 * (goal - x)).collect();
            assert_eq!(tensor.to_vec().unwrap(), expected);
        }
        assert_clean();
    }
}
