//! Launches of `kernels/norm_act_pool.cu`.

use bytemuck::{Pod, Zeroable};

use super::{BETA, COEFFICIENTS, GAMMA, NAME, Volume};
use crate::device::cuda::Kernel;
use crate::device::{Cuda, Device};
use crate::error::Result;
use crate::ops::activation::Activation;
use crate::ops::cuda::gemm::lengths;
use crate::ops::moments::Grouping;
use crate::ops::norm_act::cuda::{Cut, Inputs, Summed, write_gradients};
use crate::tape::Backward;
use crate::tensor::{DType, Tensor};

/// The twin of `Volume` in the kernels' file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Windows {
    sides: [u32; 3],
    windows: [u32; 3],
    pooled: [u32; 3],
}

/// How the windows are cut, and where the backward passes leave their sums.
pub(super) fn cut(volume: &Volume, epsilon: f32) -> Cut {
    let windows = volume.batch * volume.windows().iter().product::<usize>();
    Cut::affine([1, windows, volume.channels], Some(Grouping::Channel), epsilon, [false; 2])
}

/// What all passes read.
pub(super) struct PassInputs<'a> {
    pub volume: Volume,
    pub epsilon: f32,
    /// Statistics, scale and shift.
    pub vectors: [&'a Tensor; 3],
    /// Numerator and denominator of the Padé units.
    pub parameters: &'a [&'a Tensor],
}

impl PassInputs<'_> {
    fn cut(&self) -> Cut {
        cut(&self.volume, self.epsilon)
    }

    /// The kernel `name`, of `x` and the parameters of norm and activation.
    fn kernel<'k>(&self, cuda: &'k Cuda, name: &'static str, dtype: DType, x: u64) -> Kernel<'k> {
        let kernel = cuda.kernel_of(name, dtype).value(x);
        let kernel = self.vectors.iter().fold(kernel, |kernel, vector| kernel.input(vector)).value(self.cut().norm);
        self.parameters.iter().fold(kernel, |kernel, parameter| kernel.input(parameter))
    }

    fn launch(&self, kernel: Kernel<'_>) -> Result<()> {
        let sides = self.volume.sides;
        let windows = Windows {
            sides: lengths(NAME, sides)?,
            windows: lengths(NAME, self.volume.windows())?,
            pooled: lengths(NAME, self.volume.pooled())?,
        };
        lengths(NAME, [self.volume.voxels()])?;
        let cut = self.cut();
        kernel.value(windows).value(cut.tiling()).launch(cut.grid())
    }

    /// `y`.
    pub(super) fn forward(&self, cuda: &Cuda, x: &Tensor, y: &mut Tensor) -> Result<()> {
        self.launch(self.kernel(cuda, "norm_act_pool_pade54", y.dtype(), x.address()).output(y))
    }

    /// The sums of pieces.
    pub(super) fn first(&self, cuda: &Cuda, x: &Tensor, dy: &Tensor, scratch: &mut Tensor) -> Result<()> {
        let [.., pieces, blocks] = self.cut().starts(Activation::PADE.coefficients());
        let kernel = self.kernel(cuda, "norm_act_pool_first_pade54", dy.dtype(), x.address()).input(dy);
        self.launch(kernel.output_from(scratch, pieces).output_from(scratch, blocks))
    }

    /// The gradients of scale, shift and coefficients from the sums.
    pub(super) fn write_gradients(
        &self,
        backward: &mut Backward<'_>,
        device: &Device,
        scratch: &mut Tensor,
    ) -> Result<()> {
        let (cut, vectors) = (self.cut(), self.vectors.map(Some));
        let inputs = Inputs { cut, x: None, vectors, before: None, activation: Activation::PADE, parameters: &[] };
        let of = Summed { beta: Some(BETA), gamma: Some(GAMMA), parameters: COEFFICIENTS };
        write_gradients(&inputs, backward, device, of, true, scratch)
    }

    /// `dx` from the address of `x`, which may be that of `dx`, and from `dy`.
    pub(super) fn second(
        &self,
        cuda: &Cuda,
        (x, dy): (u64, &Tensor),
        through: bool,
        accumulate: bool,
        scratch: &Tensor,
        dx: &mut Tensor,
    ) -> Result<()> {
        let kernel = self.kernel(cuda, "norm_act_pool_second_pade54", dy.dtype(), x).input(dy).input(scratch);
        let kernel = kernel.value(self.volume.voxels() as u64).value(u32::from(through));
        self.launch(kernel.output(dx).value(u32::from(accumulate)))
    }
}
