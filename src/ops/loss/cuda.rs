//! Launches of `kernels/loss.cu`, `worst.cu` and `dice.cu`. Each function also allocates what a plan is to allocate.

use bytemuck::{Pod, Zeroable};

use super::SoftDice;
use crate::device::cuda::Kernel;
use crate::device::{Backend, Device, LaunchConfig, THREADS};
use crate::error::Result;
use crate::ops::cuda::tiling::CudaTiling;
use crate::ops::workspace;
use crate::tensor::Tensor;

/// Elements of a block of the kernels that choose: `CHUNK` in the kernels' file.
const CHUNK: usize = 1 << 12;

/// Floats of the bins of a selection, 64-bit counts, and of its state.
const COUNTS: usize = 2 * (1 << 11);
const STATE: usize = 4;

/// The lowest bit of the digits that the passes after the first look at.
const SHIFTS: [i32; 2] = [10, 0];

/// A loss of two classes, rules resolved: the twin of `Binary` in the kernels' file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Binary {
    pub w0: f32,
    pub w1: f32,
    pub gamma: f32,
    pub smoothing: f32,
    pub lift: f32,
    pub probabilities: u32,
}

/// A loss of several classes: the twin of `Classes` in the kernels' file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Classes {
    pub rows: u64,
    pub classes: u32,
    pub span: u32,
    pub gamma: f32,
    pub probabilities: u32,
}

/// The reference rule: the twin of `Reference` in the kernels' file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Reference {
    pub batch: u64,
    pub rows: u64,
    pub classes: u32,
    pub gamma: f32,
}

/// Scratch for the sums of a grid's blocks, in f64.
fn partial_sums(device: &Device, grid: LaunchConfig) -> Result<Tensor> {
    workspace(device, 2 * grid.blocks[0] as usize)
}

/// The kernel with where its sum goes, the twin of `Mean` in the kernels' file, as its last parameter: `out = Σ/count`.
fn mean<'a>(kernel: Kernel<'a>, partials: &mut Tensor, count: usize, out: &mut Tensor) -> Result<Kernel<'a>> {
    let tickets = kernel.ticket_address(1)?;
    Ok(kernel.value([partials.address(), (1.0 / count as f64).to_bits(), out.address(), tickets]))
}

/// Mean of the `kept` largest losses, or of all.
pub(super) fn binary(
    device: &Device,
    options: Binary,
    kept: Option<usize>,
    [x, label]: [&Tensor; 2],
    out: &mut Tensor,
) -> Result<()> {
    let len = x.len();
    let grid = LaunchConfig::cover(len.div_ceil(4));
    let mut partials = partial_sums(device, grid)?;
    if let Some(kept) = kept {
        let mut selection = Selection::new(device, len, kept)?;
        selection.run(device, options, [x, label])?;
        return selection.mean(device, grid, &mut partials, out);
    }
    let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
    let kernel = cuda.kernel("binary_loss").input(x).input(label).value(len as u64).value(options);
    mean(kernel, &mut partials, len, out)?.launch(grid)
}

/// `dx (+)= dy·slope/kept` where an element counts.
pub(super) fn binary_backward(
    device: &Device,
    options: Binary,
    kept: Option<usize>,
    [x, label, dy]: [&Tensor; 3],
    dx: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let len = x.len();
    if let Some(kept) = kept {
        let mut selection = Selection::new(device, len, kept)?;
        selection.run(device, options, [x, label])?;
        return selection.gradients(device, options, [x, label, dy], dx, accumulate);
    }
    let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
    cuda.kernel("binary_loss_backward")
        .input(x)
        .input(label)
        .input(dy)
        .value(len as f32)
        .value(len as u64)
        .value(options)
        .output(dx)
        .value(u32::from(accumulate))
        .launch(LaunchConfig::cover(len.div_ceil(4)))
}

/// The search for the `kept` largest losses.
struct Selection {
    kept: u64,
    losses: Tensor,
    /// Counts, then the state.
    bins: Tensor,
}

impl Selection {
    fn new(device: &Device, len: usize, kept: usize) -> Result<Self> {
        let (losses, bins) = (workspace(device, len)?, workspace(device, COUNTS + STATE)?);
        Ok(Self { kept: kept as u64, losses, bins })
    }

    /// The kernel with the twin of `Digits` in the kernels' file as its last parameter.
    fn digits<'a>(&self, kernel: Kernel<'a>) -> Result<Kernel<'a>> {
        let tickets = kernel.ticket_address(1)?;
        Ok(kernel.value([self.bins.address(), self.state(), tickets]))
    }

    fn state(&self) -> u64 {
        self.bins.address() + 4 * COUNTS as u64
    }

    /// Makes the losses and finds the smallest that counts.
    fn run(&mut self, device: &Device, options: Binary, [x, label]: [&Tensor; 2]) -> Result<()> {
        self.bins.zero()?;
        let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
        let len = x.len();
        let grid = LaunchConfig::cover(len.div_ceil(PER_THREAD));
        let kernel = cuda.kernel("worst_losses").input(x).input(label).value(len as u64).value(options);
        let kernel = kernel.output(&mut self.losses).value(self.kept);
        self.digits(kernel)?.launch(grid)?;
        for shift in SHIFTS {
            let kernel = cuda.kernel("worst_count").input(&self.losses).value(len as u64).value(shift);
            self.digits(kernel)?.launch(grid)?;
        }
        Ok(())
    }

    /// The mean of the chosen.
    fn mean(&mut self, device: &Device, grid: LaunchConfig, partials: &mut Tensor, out: &mut Tensor) -> Result<()> {
        let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
        let kernel = cuda.kernel("worst_sum").input(&self.losses).value(self.losses.len() as u64).value(self.state());
        mean(kernel, partials, self.kept as usize, out)?.launch(grid)
    }

    fn gradients(
        &mut self,
        device: &Device,
        options: Binary,
        [x, label, dy]: [&Tensor; 3],
        dx: &mut Tensor,
        accumulate: bool,
    ) -> Result<()> {
        let len = x.len();
        let chunks = len.div_ceil(CHUNK);
        let mut ties = workspace(device, chunks)?;
        let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
        cuda.kernel("worst_ties")
            .input(&self.losses)
            .value(len as u64)
            .value(self.state())
            .output(&mut ties)
            .launch(LaunchConfig::new(chunks, THREADS))?;
        cuda.kernel("worst_gradients")
            .input(&self.losses)
            .input(x)
            .input(label)
            .input(dy)
            .value(len as u64)
            .value(options)
            .value(self.kept)
            .value(self.state())
            .input(&ties)
            .output(dx)
            .value(u32::from(accumulate))
            .launch(LaunchConfig::new(chunks, THREADS))
    }
}

/// Elements that a thread of the counting kernels handles, about.
const PER_THREAD: usize = 8;

/// Mean loss of the rows.
pub(super) fn classes(device: &Device, options: Classes, [x, labels]: [&Tensor; 2], out: &mut Tensor) -> Result<()> {
    let grid = LaunchConfig::cover(options.rows as usize * options.span as usize);
    let mut partials = partial_sums(device, grid)?;
    let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
    let kernel = cuda.kernel("cross_entropy").input(x).input(labels).value(options);
    mean(kernel, &mut partials, options.rows as usize, out)?.launch(grid)
}

/// `dx (+)= dy·slope/rows`.
pub(super) fn classes_backward(
    device: &Device,
    options: Classes,
    [x, labels, dy]: [&Tensor; 3],
    dx: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
    let kernel = cuda.kernel("cross_entropy_backward").input(x).input(labels).input(dy).value(options).output(dx);
    kernel.value(u32::from(accumulate)).launch(LaunchConfig::cover(options.rows as usize * options.span as usize))
}

impl Reference {
    fn grid(&self) -> LaunchConfig {
        LaunchConfig::cover(self.rows as usize * self.classes as usize)
    }
}

/// Mean loss by the reference rule.
pub(super) fn reference(
    device: &Device,
    options: Reference,
    [p, labels]: [&Tensor; 2],
    out: &mut Tensor,
) -> Result<()> {
    let mut partials = partial_sums(device, options.grid())?;
    let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
    let kernel = cuda.kernel("reference_entropy").input(p).input(labels).value(options);
    mean(kernel, &mut partials, p.len(), out)?.launch(options.grid())
}

/// `dp (+)= dy·slope/|p|`.
pub(super) fn reference_backward(
    device: &Device,
    options: Reference,
    [p, labels, dy]: [&Tensor; 3],
    dp: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
    let kernel = cuda.kernel("reference_entropy_backward").input(p).input(labels).input(dy).value(options).output(dp);
    kernel.value(u32::from(accumulate)).launch(options.grid())
}

/// How `kernels/dice.cu` cuts probabilities `[batch, …, C]`: the number of items, and each item.
fn dice_tiling(options: SoftDice, p: &Tensor) -> (usize, CudaTiling) {
    let (items, classes) = (options.items(p.shape()), p.channels());
    (items, CudaTiling::new(p.len() / items / classes, classes))
}

/// Sums of the pieces, joined to the loss or, from its gradient, to the slopes of each item and channel.
fn dice_sums(
    device: &Device,
    options: SoftDice,
    [p, labels]: [&Tensor; 2],
    dy: Option<&Tensor>,
    loss: Option<&mut Tensor>,
    slopes: Option<&mut Tensor>,
) -> Result<()> {
    let (items, tiling) = dice_tiling(options, p);
    let mut partials = workspace(device, 2 * items * tiling.pieces() * 2 * tiling.width())?;
    let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
    let kernel = cuda.kernel("dice_pieces").input(p).input(labels).output(&mut partials).value(tiling);
    kernel.launch(tiling.grid(items))?;
    cuda.kernel("dice_join")
        .input(&partials)
        .value(items as u32)
        .value(options.first(p.channels()) as u32)
        .optional(dy)
        .optional(loss.as_deref())
        .optional(slopes.as_deref())
        .value(tiling)
        .launch(LaunchConfig::new(1, THREADS))
}

/// Soft Dice loss.
pub(super) fn dice(device: &Device, options: SoftDice, inputs: [&Tensor; 2], out: &mut Tensor) -> Result<()> {
    dice_sums(device, options, inputs, None, Some(out), None)
}

/// `dp (+)= dy·slope`.
pub(super) fn dice_backward(
    device: &Device,
    options: SoftDice,
    [p, labels, dy]: [&Tensor; 3],
    dp: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let (items, tiling) = dice_tiling(options, p);
    let mut slopes = workspace(device, 2 * items * p.channels())?;
    dice_sums(device, options, [p, labels], Some(dy), None, Some(&mut slopes))?;
    let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
    let kernel = cuda.kernel("dice_backward").input(labels).input(&slopes).output(dp).value(u32::from(accumulate));
    kernel.value(tiling).launch(tiling.grid(items))
}
