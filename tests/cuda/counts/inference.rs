//! What only inference and data preparation run: lattices, surfaces, border maps.

use ossnet::error::Result;
use ossnet::ops::lattice::{Lattice, classify};
use ossnet::ops::{self};

use super::bench::{Bench, Case};

/// One case for each.
pub const CASES: [Case; 4] = [
    Case { name: "lattice 32³ to 63³", run: lattice, only: &[] },
    Case { name: "marching_cubes 32³ f32", run: |b| surface(b, false), only: &[] },
    Case { name: "marching_cubes 32³ u8", run: |b| surface(b, true), only: &[] },
    Case { name: "border_map 32³", run: border_map, only: &[] },
];

/// True inside a ball in the middle of a cube.
fn inside(i: usize, side: usize) -> bool {
    let at = [i / (side * side), i / side % side, i % side].map(|x| x as isize - side as isize / 2);
    at.iter().map(|x| x * x).sum::<isize>() < (side * side / 9) as isize
}

/// Every marking op once, then the points of the first stretch are classified and written.
fn lattice(b: &Bench) -> Result<()> {
    let logits = b.filled(&[32 * 32 * 32, 1], |i| if inside(i, 32) { 1.0 } else { -1.0 })?;
    let values = b.filled(&[63 * 63 * 63], |i| if inside(i, 63) { 1.0 } else { -1.0 })?;
    b.start();
    let mut coarse = Lattice::new(&b.device, [32; 3])?;
    coarse.mark_all()?;
    let count = coarse.stretches(1 << 20)?.first().map_or(0, |(_, count)| *count);
    let due = coarse.due(0..coarse.len(), count)?;
    coarse.write(&due, &classify(&logits, 0.0)?)?;
    let mut fine = coarse.refined(2, [63; 3], true)?;
    fine.mark_mixed_neighbours()?;
    fine.mark_mixed_cells(2, 1)?;
    fine.mark_dilated(2)?;
    fine.mark_above(&values, 0.0)
}

fn surface(b: &Bench, bytes: bool) -> Result<()> {
    let field = match bytes {
        false => b.filled(&[32; 3], |i| if inside(i, 32) { 1.0 } else { -1.0 })?,
        true => b.bytes(&[32; 3], |i| u8::from(inside(i, 32)))?,
    };
    b.start();
    ops::marching_cubes(&field, 0.0, -1.0).map(|_| ())
}

fn border_map(b: &Bench) -> Result<()> {
    let label = b.bytes(&[32; 3], |i| u8::from(inside(i, 32)))?;
    b.start();
    ops::border_map::border_map(&label).map(|_| ())
}
