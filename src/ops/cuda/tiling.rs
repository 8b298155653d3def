//! How `[items, rows, channels]` is cut on CUDA: the twin of `kernels/tiles.cuh`, whose page says how.

use bytemuck::{Pod, Zeroable};

use crate::device::{LaunchConfig, THREADS};

/// Blocks along the rows of an item that are aimed at.
const PIECES: usize = 1024;

/// Rows of one thread, at least: a piece's sums are then few beside its elements.
const LEAST_STEPS: usize = 16;

/// Rows of one thread, at most: it sums four elements of each in f32.
const MOST_STEPS: usize = 64;

/// Rows that the kernels take at a time.
const BATCH: usize = 8;

/// The cut of one problem; it depends on nothing else.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct CudaTiling {
    /// Elements of an item.
    length: u64,
    /// Real channels.
    channels: u32,
    /// Virtual channels: the least common multiple of 4 and the real ones.
    width: u32,
    /// Fours that a block handles side by side.
    columns: u32,
    /// Rows that it handles at once.
    lanes: u32,
    /// Rows that a thread handles.
    steps: u32,
    /// Blocks along the rows.
    pieces: u32,
}

impl CudaTiling {
    /// `rows` rows of `channels` elements in each item, at least one of both.
    pub(crate) fn new(rows: usize, channels: usize) -> Self {
        let threads = THREADS as usize;
        let width = channels * [1, 4, 2, 4][channels % 4];
        let fours = width / 4;
        let columns = fours.div_ceil(fours.div_ceil(threads));
        let lanes = threads / columns;
        let virtual_rows = (rows * channels).div_ceil(width);
        let steps = virtual_rows.div_ceil(lanes * PIECES).next_multiple_of(BATCH).clamp(LEAST_STEPS, MOST_STEPS);
        let pieces = virtual_rows.div_ceil(lanes * steps);
        Self {
            length: (rows * channels) as u64,
            channels: channels as u32,
            width: width as u32,
            columns: columns as u32,
            lanes: lanes as u32,
            steps: steps as u32,
            pieces: pieces as u32,
        }
    }

    /// The cut of a product with the item: tiles of `rows` rows and `columns` channels, a multiple of 4.
    pub(crate) fn tiles([rows, channels]: [usize; 2], [tile_rows, tile_columns]: [usize; 2]) -> Self {
        Self {
            length: (rows * channels) as u64,
            channels: channels as u32,
            width: channels as u32,
            columns: (tile_columns / 4) as u32,
            lanes: 1,
            steps: tile_rows as u32,
            pieces: rows.div_ceil(tile_rows) as u32,
        }
    }

    /// Blocks along the rows of an item.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces as usize
    }

    /// Virtual channels.
    pub(crate) fn width(&self) -> usize {
        self.width as usize
    }

    /// Channels that a block of the kernels that join pieces handles side by side, and how many such blocks there are.
    pub(crate) fn chunks(&self) -> (usize, usize) {
        let channels = self.channels as usize;
        let span = channels.next_power_of_two().min(32);
        (span, channels.div_ceil(span))
    }

    /// Blocks of `items` items.
    pub(crate) fn blocks(&self, items: usize) -> usize {
        self.grid(items).blocks.iter().map(|&blocks| blocks as usize).product()
    }

    /// The grid for `items` items.
    pub(crate) fn grid(&self, items: usize) -> LaunchConfig {
        let columns = self.width.div_ceil(4 * self.columns);
        LaunchConfig { blocks: [self.pieces, columns, items as u32], threads: [THREADS, 1, 1], shared: 0 }
    }
}
