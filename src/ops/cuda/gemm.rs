//! How products are cut into blocks on CUDA: the host's side of `kernels/gemm.cuh` and `kernels/sums.cu`.
//!
//! Tile and splits depend on the sizes alone, so results are the same on every device, and plan and run ask for the same
//! workspace.

use bytemuck::{Pod, Zeroable};

use crate::device::cuda::Kernel;
use crate::device::{Cuda, LaunchConfig, THREADS};
use crate::error::{Error, Result};
use crate::tape::Precision;
use crate::tensor::{DType, Tensor};

/// One product: `[rows, inner]·[inner, columns]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// Rows of the result.
    pub rows: usize,
    /// Columns of the result.
    pub columns: usize,
    /// Length of the sums.
    pub inner: usize,
    /// Products of these sizes that one launch makes.
    pub count: usize,
}

/// Rows and columns of a tile, and its threads (`Tile16` … `Tile128` of `gemm.cuh` and of `mma.cuh`).
const TILES: [(usize, usize, u32); 4] = [(256, 16, 128), (128, 32, 128), (64, 64, 128), (128, 128, 256)];

/// Blocks that fill a large device twice.
const BLOCKS: usize = 256;
/// Shortest sum that is worth a block of its own.
const SHORTEST: usize = 256;
/// Most splits, and most floats (16 MiB) of all splits' sums unless two splits are more.
const SPLITS: usize = 512;
const PARTS: usize = 4 << 20;

impl Product {
    /// Which of the tiles: narrow ones for few columns, the largest one if there is work for many of them.
    fn tile(self) -> usize {
        let (rows, columns, _) = TILES[3];
        let tiles = self.rows.div_ceil(rows) * self.columns.div_ceil(columns) * self.count;
        match self.columns {
            0..=16 => 0,
            17..=32 => 1,
            65.. if self.rows > 64 && tiles * (self.inner / (2 * SHORTEST)).max(1) >= BLOCKS / 2 => 3,
            _ => 2,
        }
    }

    /// Rows and columns of a tile.
    pub fn tile_sides(self) -> [usize; 2] {
        let (rows, columns, _) = TILES[self.tile()];
        [rows, columns]
    }

    fn tiles(self) -> [usize; 2] {
        let [rows, columns] = self.tile_sides();
        [self.rows.div_ceil(rows), self.columns.div_ceil(columns)]
    }

    /// Parts that the sums are cut into, each a block's.
    pub fn splits(self) -> usize {
        let [rows, columns] = self.tiles();
        splits(rows * columns * self.count, self.inner, self.rows * self.columns * self.count, BLOCKS)
    }

    /// Floats of the splits' sums for a result of `len` floats: none for one split, which writes the result itself.
    pub fn parts(self, len: usize) -> usize {
        if self.splits() > 1 { self.splits() * len } else { 0 }
    }

    /// The kernel of this family for this product.
    pub fn kernel(self, family: &str, math: Math) -> String {
        let (math, (_, columns, _)) = (math.suffix(), TILES[self.tile()]);
        format!("{family}{math}_{columns}")
    }

    /// Blocks: tiles of rows, tiles of columns, splits of each of the products.
    pub fn grid(self) -> LaunchConfig {
        let ([rows, columns], (_, _, threads)) = (self.tiles(), TILES[self.tile()]);
        LaunchConfig {
            blocks: [rows as u32, columns as u32, (self.splits() * self.count) as u32],
            threads: [threads, 1, 1],
            shared: 0,
        }
    }
}

/// What a product computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Math {
    /// f32.
    Exact,
    /// f32 rounded to 11 bits, summed in f32, on tensor cores.
    Tf32,
    /// bf16, summed in f32, on tensor cores.
    Bf16,
}

impl Math {
    /// Of a product of tensors of activations (a weight beside them takes what they have) that makes `output`.
    pub fn of(precision: Precision, activations: &[&Tensor], output: &Tensor) -> Self {
        Self::of_stored(precision, activations.iter().map(|operand| operand.dtype()), output.dtype())
    }

    /// The same of what they are stored in.
    pub fn of_stored(precision: Precision, activations: impl Iterator<Item = DType> + Clone, output: DType) -> Self {
        let all = |dtype| activations.clone().all(|operand| operand == dtype);
        match precision {
            _ if all(DType::Bf16) => Self::Bf16,
            Precision::F32 | Precision::Bf16 if all(DType::F32) && output == DType::F32 => Self::Exact,
            _ => Self::Tf32,
        }
    }

    /// Length of a slice along the sums: `SLICE` of the kernels.
    fn slice(self) -> usize {
        match self {
            Self::Exact => 8,
            Self::Tf32 => 16,
            Self::Bf16 => 32,
        }
    }

    /// In the names of kernels.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::Tf32 => "_tf32",
            Self::Bf16 => "_bf16",
        }
    }

    /// The last argument of kernels on tensor cores: which of the tensors are stored in bf16, the first in the lowest bit.
    pub fn stored<'a>(self, kernel: Kernel<'a>, tensors: &[&Tensor]) -> Kernel<'a> {
        let narrow =
            tensors.iter().rev().fold(0u32, |bits, tensor| (bits << 1) | u32::from(tensor.dtype() == DType::Bf16));
        if self == Self::Exact { kernel } else { kernel.value(narrow) }
    }
}

/// Parts that sums of `inner` terms are cut into, so that `tiles` of a result of `len` floats make `blocks` blocks.
pub(crate) fn splits(tiles: usize, inner: usize, len: usize, blocks: usize) -> usize {
    let most = (PARTS / len.max(1)).clamp(2, SPLITS);
    blocks.div_ceil(tiles.max(1)).min(inner / SHORTEST).clamp(1, most)
}

/// Lengths as the kernels take them.
///
/// # Errors
/// [`Error::Shape`] in the name of `op` for one of 2³¹ or more.
pub(crate) fn lengths<const N: usize>(op: &'static str, lengths: [usize; N]) -> Result<[u32; N]> {
    match lengths.iter().find(|&&length| length > i32::MAX as usize) {
        Some(length) => {
            Err(Error::shape(op, format!("CUDA kernels count up to 2³¹ − 1 rows, not {length}; use a smaller batch")))
        }
        None => Ok(lengths.map(|length| length as u32)),
    }
}

/// Where the only split of a weight's gradient puts it: the twin of `Whole` in `common.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Whole {
    /// Distance between rows.
    pub pitch: u32,
    /// Whether it is added to what is there.
    pub accumulate: u32,
}

/// The gradient of a bias, which the kernel of the weight's gradient sums on its way over `dy`.
pub(crate) struct BiasGradient<'a> {
    pub tensor: &'a mut Tensor,
    /// Whether it is added to what is there.
    pub accumulate: bool,
    /// Splits of the rows of each row of the bias, from [`bias_splits`].
    pub splits: usize,
}

impl<'a> BiasGradient<'a> {
    /// Of an open gradient, if there are splits to sum it in.
    pub fn of(open: &'a mut Option<(Tensor, bool)>, splits: Option<usize>) -> Option<Self> {
        let ((tensor, accumulate), splits) = open.as_mut().zip(splits)?;
        Some(Self { tensor, accumulate: *accumulate, splits })
    }
}

/// Splits of each `rows_per_bias` rows, if the kernel of a weight's gradient in `splits` can sum the bias's: where every split
/// lies in one of them, and `dy` is multiplied as it is stored, not rounded first.
pub(crate) fn bias_splits(
    (math, dy): (Math, DType),
    splits: usize,
    [rows, rows_per_bias]: [usize; 2],
) -> Option<usize> {
    let split = rows.div_ceil(math.slice()).div_ceil(splits) * math.slice();
    match rows_per_bias {
        _ if math == Math::Tf32 && dy == DType::F32 => None,
        all if all == rows => Some(splits),
        some => some.is_multiple_of(split).then(|| some / split),
    }
}

/// Where that kernel puts them: the twin of `ColumnSums` in `column_sums.cuh`. Nowhere by default.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ColumnSums {
    address: u64,
    accumulate: u64,
}

impl ColumnSums {
    /// For a gradient, if it is wanted: in place, or behind so many floats of the splits' `scratch`.
    pub fn of(bias: Option<&BiasGradient<'_>>, scratch: Option<(&Tensor, usize)>) -> Self {
        match (bias, scratch) {
            (None, _) => Self::default(),
            (Some(_), Some((scratch, first))) => Self { address: scratch.address() + 4 * first as u64, accumulate: 0 },
            (Some(bias), None) => Self { address: bias.tensor.address(), accumulate: u64::from(bias.accumulate) },
        }
    }
}

/// What `sum_splits` makes of the parts behind the others: the twin of `Beside` in `sums.cu`. Nothing by default.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Beside {
    address: u64,
    items: u32,
    splits: u32,
    accumulate: u64,
}

/// Where `sum_splits` puts the rows of a result: the tensor, its first element, the distance between rows.
pub(crate) struct SumTarget<'a> {
    pub tensor: &'a mut Tensor,
    pub first: usize,
    pub pitch: usize,
}

/// `target (+)= Σ_split parts + bias`, the result `[rows, columns]`, one row of the bias for each so many rows. The parts
/// begin at an element of their tensor.
pub(crate) fn sum_splits(
    cuda: &Cuda,
    (parts, first): (&Tensor, usize),
    splits: usize,
    [rows, columns]: [usize; 2],
    target: SumTarget<'_>,
    bias: Option<(&Tensor, usize)>,
    accumulate: bool,
) -> Result<()> {
    split_sums(cuda, (parts, first), splits, [rows, columns], target)
        .optional(bias.map(|(bias, _)| bias))
        .value(bias.map_or(1, |(_, rows)| rows) as u64)
        .value(u32::from(accumulate))
        .value(Beside::default())
        .launch(LaunchConfig::cover(rows * columns))
}

/// `dW (+)= Σ_split parts`, `dW` `[outputs, features]`, and the gradient of the bias of the column sums behind them.
pub(crate) fn sum_gradient_splits(
    cuda: &Cuda,
    parts: &Tensor,
    splits: usize,
    [outputs, features]: [usize; 2],
    (target, accumulate): (SumTarget<'_>, bool),
    bias: Option<BiasGradient<'_>>,
) -> Result<()> {
    let beside = bias.map_or_else(Beside::default, |bias| Beside {
        address: bias.tensor.address(),
        items: (bias.tensor.len() / outputs) as u32,
        splits: bias.splits as u32,
        accumulate: u64::from(bias.accumulate),
    });
    split_sums(cuda, (parts, 0), splits, [outputs, features], target)
        .optional(None)
        .value(1u64)
        .value(u32::from(accumulate))
        .value(beside)
        .launch(LaunchConfig::cover(outputs * (features + beside.items as usize)))
}

/// What both have in common.
fn split_sums<'a>(
    cuda: &'a Cuda,
    (parts, first): (&Tensor, usize),
    splits: usize,
    [rows, columns]: [usize; 2],
    target: SumTarget<'_>,
) -> Kernel<'a> {
    cuda.kernel_of("sum_splits", target.tensor.dtype())
        .input_from(parts, first)
        .value(splits as u32)
        .value(rows as u64)
        .value(columns as u32)
        .output_from(target.tensor, target.first)
        .value(target.pitch as u64)
}

/// Neighbours of a weight's gradient that a block of `sum_weight_splits` adds, and outputs: `RUN` of the kernel.
const RUN: usize = 8;

/// The grid of `sum_weight_splits` for `run` weights of each output.
pub(crate) fn weight_splits_grid(run: usize, outputs: usize) -> LaunchConfig {
    let tiles = outputs.div_ceil(THREADS as usize / RUN);
    LaunchConfig { blocks: [run.div_ceil(RUN) as u32, tiles as u32, 1], threads: [THREADS, 1, 1], shared: 0 }
}

/// Rows of a piece of [`column_sums`]: at most 256 pieces, none shorter than 1024 rows.
fn piece(rows: usize) -> usize {
    rows.div_ceil(256).max(1024)
}

/// Floats of scratch of [`column_sums`].
pub(crate) fn column_sums_workspace(items: usize, rows: usize, columns: usize) -> usize {
    items * rows.div_ceil(piece(rows)).max(1) * columns
}

/// `y [items, columns] (+)= Σ x [items, rows, columns]` over the rows.
pub(crate) fn column_sums(
    cuda: &Cuda,
    x: &Tensor,
    [items, rows, columns]: [usize; 3],
    y: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    let pieces = rows.div_ceil(piece(rows)).max(1);
    let blocks = [pieces as u32, items as u32, columns.div_ceil(THREADS as usize) as u32];
    cuda.kernel_of("column_sums", x.dtype())
        .input(x)
        .value(rows as u64)
        .value(columns as u32)
        .value(piece(rows) as u64)
        .output(scratch)
        .output(y)
        .value(u32::from(accumulate))
        .tickets((blocks[1] * blocks[2]) as usize)?
        .launch(LaunchConfig { blocks, threads: [THREADS, 1, 1], shared: 0 })
}
