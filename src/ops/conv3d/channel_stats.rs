//! How a convolution's product measures the channels of its result on CUDA: the twin of `kernels/channel_stats.cuh`.

use bytemuck::{Pod, Zeroable};

use crate::device::TICKETS;
use crate::ops::Grouping;
use crate::ops::cuda::gemm::Product;

/// Fewest tiles that one block joins.
const GROUP: usize = 32;

/// Numbers that a tile, and a group of them, leaves of a channel.
const PARTS: usize = 3;

/// The cut of one product. Each tile of rows is one item's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channels {
    items: usize,
    /// Tiles of rows in an item.
    tiles: usize,
    /// Tiles that one block joins.
    group: usize,
    columns: usize,
    column_tiles: usize,
}

/// `Channels` of the kernels' file; all zeros measure nothing.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Arguments {
    parts: u64,
    statistics: u64,
    tickets: u64,
    tiles: u32,
    group: u32,
}

impl Channels {
    /// Of a product's columns in these groups of rows, if each sum is one block's from its first term to its last.
    pub fn of(product: Product, grouping: Grouping) -> Option<Self> {
        let ([tile_rows, tile_columns], items) = (product.tile_sides(), grouping.items());
        let rows = product.rows / items.max(1);
        let tiles = rows.div_ceil(tile_rows);
        // About as many groups as tiles of a group: neither level has many.
        let group = tiles.isqrt().next_power_of_two().max(GROUP);
        let column_tiles = product.columns.div_ceil(tile_columns);
        let cut = Self { items, tiles, group, columns: product.columns, column_tiles };
        let whole = product.rows.is_multiple_of(items) && rows.is_multiple_of(tile_rows);
        let by_channel = grouping != Grouping::Scalar && tiles > 0 && (items == 1 || whole);
        (by_channel && product.splits() == 1 && cut.tickets() <= TICKETS).then_some(cut)
    }

    fn groups(self) -> usize {
        self.tiles.div_ceil(self.group)
    }

    /// Counters that say which block comes last.
    pub fn tickets(self) -> usize {
        self.items * self.column_tiles * (1 + self.groups())
    }

    /// Floats of scratch.
    pub fn workspace(self) -> usize {
        self.items * (self.tiles + self.groups()) * PARTS * self.columns
    }

    /// What the kernel is told, with addresses of the scratch, the statistics and the tickets.
    pub fn arguments(self, [parts, statistics, tickets]: [u64; 3]) -> Arguments {
        Arguments { parts, statistics, tickets, tiles: self.tiles as u32, group: self.group as u32 }
    }
}
