//! How `[items, rows, channels]` is cut into pieces for passes that treat each channel of each item on its own.
//!
//! ```text
//! item 0   | piece 0: piece_rows rows | piece 1 | …        one thread a piece, sums of one piece in f32
//!            └ block, block, …                             a block is at most TILE elements
//! ```
//!
//! A block is a whole number of rows (one *tile*), so that per-channel vectors, repeated to the tile's length, line up
//! with it element by element whatever the number of channels. Rows longer than a tile are cut into columns of a tile's
//! width, one row a block.

use std::ops::Range;

/// Most elements of one block.
pub(crate) const TILE: usize = 512;

/// Elements that a piece has at least, if there are as many.
const PIECE: usize = 1 << 14;

/// Rows that a piece has at least, if there are as many: its sums, two a channel, are then below 2 % of its elements.
const PIECE_ROWS: usize = 128;

/// The cut of one problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTiling {
    /// Items: stretches of rows that have their own per-channel vectors.
    pub items: usize,
    /// Rows of an item.
    pub rows: usize,
    /// Elements of a row.
    pub channels: usize,
    /// Rows of a block.
    tile_rows: usize,
    /// Rows of a piece.
    piece_rows: usize,
    /// Pieces along the rows of an item.
    row_pieces: usize,
    /// Pieces along a row.
    columns: usize,
}

/// One piece: blocks at equal distances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Its item.
    pub item: usize,
    /// Its first channel.
    pub channel: usize,
    /// Its number of channels.
    pub width: usize,
    /// Its number of rows.
    pub rows: usize,
    start: usize,
    step: usize,
    block: usize,
    end: usize,
}

impl CpuTiling {
    /// `items·rows` rows of `channels` elements.
    pub(crate) fn new(items: usize, rows: usize, channels: usize) -> Self {
        let tile_rows = (TILE / channels.max(1)).max(1);
        let piece_rows = (PIECE / channels.clamp(1, TILE)).max(PIECE_ROWS).next_multiple_of(tile_rows);
        let row_pieces = rows.div_ceil(piece_rows);
        Self { items, rows, channels, tile_rows, piece_rows, row_pieces, columns: channels.div_ceil(TILE) }
    }

    /// Number of pieces.
    pub(crate) fn pieces(&self) -> usize {
        self.items * self.pieces_of_item()
    }

    /// Number of pieces of one item.
    pub(crate) fn pieces_of_item(&self) -> usize {
        self.row_pieces * self.columns
    }

    /// Length of a per-channel vector repeated to a block's length.
    pub(crate) fn tile(&self) -> usize {
        self.tile_rows * self.channels
    }

    /// The most channels of a piece.
    pub(crate) fn width(&self) -> usize {
        self.channels.min(TILE)
    }

    /// Piece `index`; those of an item follow each other, those of a column within the item as well.
    pub(crate) fn piece(&self, index: usize) -> Piece {
        let (item, inner) = (index / self.pieces_of_item(), index % self.pieces_of_item());
        let (column, row) = (inner / self.row_pieces, inner % self.row_pieces * self.piece_rows);
        let channel = column * TILE;
        let width = TILE.min(self.channels - channel);
        let rows = self.piece_rows.min(self.rows - row);
        let start = (item * self.rows + row) * self.channels + channel;
        let step = self.tile();
        let end = start + (rows - 1) * self.channels + width;
        Piece { item, channel, width, rows, start, step, block: self.tile_rows * width, end }
    }

    /// Indices of the pieces of `item` that hold `channel`.
    pub(crate) fn pieces_with(&self, item: usize, channel: usize) -> Range<usize> {
        let first = item * self.pieces_of_item() + channel / TILE * self.row_pieces;
        first..first + self.row_pieces
    }
}

impl Piece {
    /// The element ranges of the blocks.
    pub(crate) fn blocks(self) -> impl Iterator<Item = Range<usize>> {
        (self.start..self.end).step_by(self.step).map(move |start| start..(start + self.block).min(self.end))
    }

    /// The part of a repeated per-channel vector that lines up with the blocks.
    pub(crate) fn tile(self) -> Range<usize> {
        self.channel..self.channel + self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_each_element_once_and_tiles_line_up() {
        for (items, rows, channels) in
            [(2, 5000, 3), (1, 700, 512), (3, 300, 1300), (2, 1, 1), (1, 40_000, 1), (1, 0, 4)]
        {
            let layout = CpuTiling::new(items, rows, channels);
            let mut seen = vec![0; items * rows * channels];
            for index in 0..layout.pieces() {
                let piece = layout.piece(index);
                assert!(layout.pieces_with(piece.item, piece.channel).contains(&index));
                for block in piece.blocks() {
                    assert!(block.len() <= TILE && block.len() <= piece.tile().len());
                    for (element, slot) in block.zip(piece.tile()) {
                        assert_eq!(element % channels, slot % channels);
                        assert_eq!(element / (rows * channels), piece.item);
                        seen[element] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|&times| times == 1), "{items} {rows} {channels}");
        }
    }
}
