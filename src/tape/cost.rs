//! What a recorded tape amounts to in floating-point operations and bytes.

use super::{Cost, Node, Tape};
use crate::tensor::DType;

/// Work of all recorded ops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapeCost {
    /// Of the forward pass that was recorded.
    pub forward: Cost,
    /// Of the backward pass if all gradients are wanted, without what is recomputed.
    pub backward: Cost,
}

impl Tape {
    /// The work of all ops recorded so far and not yet played backwards. Detached ops, and ops that no gradient flows
    /// through, are not recorded.
    pub fn work(&self) -> TapeCost {
        let nodes = self.nodes.borrow();
        TapeCost {
            forward: nodes.iter().map(|node| node.stored(node.op.forward_cost(&node.shapes()))).sum(),
            backward: nodes.iter().map(|node| node.stored(node.op.backward_cost(&node.shapes()))).sum(),
        }
    }
}

impl Node {
    pub(super) fn shapes(&self) -> Vec<&[usize]> {
        self.inputs.iter().map(|input| input.shape.as_slice()).collect()
    }

    /// `cost` as the op's tensors are stored; constant outputs do not count.
    pub(super) fn stored(&self, cost: Cost) -> Cost {
        let slots = self.inputs.iter().chain(self.outputs.iter().filter(|output| output.producer.is_some()));
        stored(cost, slots.map(|slot| (slot.shape.as_slice(), slot.dtype)))
    }
}

/// `cost` with fewer bytes where `tensors` are stored in less than the f32 that ops speak of: by their share.
pub(super) fn stored<'a>(cost: Cost, tensors: impl Iterator<Item = (&'a [usize], DType)>) -> Cost {
    let (mut wide, mut narrow) = (0u128, 0u128);
    for (shape, dtype) in tensors {
        let elements = shape.iter().product::<usize>() as u128;
        wide += elements * u128::from(DType::F32.size());
        narrow += elements * u128::from(dtype.size());
    }
    Cost { bytes: (u128::from(cost.bytes) * narrow / wide.max(1)) as u64, ..cost }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{CudaTarget, Device, Target};
    use crate::memory::Role;
    use crate::ops;
    use crate::tape::{Mode, Precision};
    use crate::tensor::Tensor;

    #[test]
    fn two_products_are_the_sum_of_both() {
        let device = Device::cpu(1, 1 << 20).unwrap();
        let tape = Tape::new(&device, Mode::Train);
        let input = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
        let hidden = ops::linear(&tape, &input(&[5, 3]), &input(&[4, 3]), None, None).unwrap();
        ops::linear(&tape, &hidden, &input(&[2, 4]), None, None).unwrap();
        let work = tape.work();
        // Multiply-adds: 5 rows, 3 → 4 → 2 features.
        assert_eq!(work.forward.flops, 2 * 5 * (3 * 4 + 4 * 2));
        assert_eq!(work.backward.flops, 2 * work.forward.flops);
        assert_eq!(work.forward.bytes, 4 * ((5 * 3 + 3 * 4 + 5 * 4) + (5 * 4 + 4 * 2 + 5 * 2)));
    }

    #[test]
    fn tensors_in_bf16_move_half_their_bytes() {
        let device = Device::plan_for(Target::Cuda(CudaTarget::KNOWN[0].1), 1 << 20);
        let tape = Tape::new(&device, Mode::Train).with_precision(Precision::Bf16);
        let x = tape.input(Tensor::zeros_of(&device, &[5, 3], DType::Bf16, Role::Data).unwrap());
        let weight = tape.input(Tensor::zeros(&device, &[4, 3], Role::Data).unwrap());
        ops::linear(&tape, &x, &weight, None, None).unwrap();
        assert_eq!(tape.work().forward.bytes, 2 * 5 * 3 + 4 * 3 * 4 + 2 * 5 * 4);
    }
}
