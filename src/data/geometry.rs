//! Where voxels lie in the patient: affines, stored axes, and the canonical (RAS) order used inside the engine.
//!
//! A scan stores its axes in any order and direction. Inside, axis 0 runs to the patient's right, 1 to anterior, 2 to
//! superior (as nearly as a permutation and flips of the stored axes allow; nothing is interpolated). [`Orientation`]
//! remembers the way back, so that what is computed on a scan is written on the scan's own grid.

mod stored_grid;

use std::fmt;

pub use stored_grid::StoredGrid;

/// Voxel index to millimetres: `mm[r] = Σ a[r][c]·index[c] + a[r][3]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine(pub [[f64; 4]; 3]);

/// Voxels along a side of a tile that is turned at once: 32 cache lines on each side.
const TILE: usize = 32;

/// Largest distance, in voxels of the finer grid, by which corners of an image and of its label may lie apart.
pub const GEOMETRY_TOLERANCE: f64 = 0.1;

impl Affine {
    /// Axes along the patient's, first voxel at the origin.
    pub fn from_spacing(spacing: [f64; 3]) -> Self {
        let [x, y, z] = spacing;
        Affine([[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0]])
    }

    /// The position of a (possibly fractional) voxel index, in mm.
    pub fn apply(&self, index: [f64; 3]) -> [f64; 3] {
        self.0.map(|row| row[0] * index[0] + row[1] * index[1] + row[2] * index[2] + row[3])
    }

    /// Distance between neighbours along each axis, in mm.
    pub fn spacing(&self) -> [f64; 3] {
        [0, 1, 2].map(|c| self.column(c).iter().map(|v| v * v).sum::<f64>().sqrt())
    }

    /// Signed volume of one voxel in mm³; negative for a left-handed grid.
    pub fn determinant(&self) -> f64 {
        let [a, b, c] = [0, 1, 2].map(|c| self.column(c));
        a[0] * (b[1] * c[2] - b[2] * c[1]) - b[0] * (a[1] * c[2] - a[2] * c[1]) + c[0] * (a[1] * b[2] - a[2] * b[1])
    }

    /// Volume of so many voxels in millilitres: a whole number of mm³ is divided once, so 235 voxels of 1 mm³ are 0.235.
    pub fn millilitres(&self, voxels: u64) -> f64 {
        voxels as f64 * self.determinant().abs() / 1000.0
    }

    /// Cosine of the angle between two axes of the grid.
    pub fn cosine(&self, a: usize, b: usize) -> f64 {
        let (u, v) = (self.column(a), self.column(b));
        let product: f64 = u.iter().zip(&v).map(|(u, v)| u * v).sum();
        let spacing = self.spacing();
        product / (spacing[a] * spacing[b])
    }

    /// Millimetres to voxel index; the axes must span space ([`Affine::is_valid`]).
    pub fn inverse(&self) -> Self {
        let determinant = self.determinant();
        let entry = |r: usize, c: usize| {
            // Cofactor of the transposed place, by cyclic indices.
            let [r1, r2, c1, c2] = [(r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3];
            (self.0[c1][r1] * self.0[c2][r2] - self.0[c1][r2] * self.0[c2][r1]) / determinant
        };
        let mut out = Affine([0, 1, 2].map(|r| [entry(r, 0), entry(r, 1), entry(r, 2), 0.0]));
        let origin = out.apply([0, 1, 2].map(|r| self.0[r][3]));
        (0..3).for_each(|r| out.0[r][3] = -origin[r]);
        out
    }

    /// The affine of a grid whose voxel `i` is this grid's `start + step·i` on each axis.
    pub fn regrid(&self, start: [f64; 3], step: [f64; 3]) -> Self {
        let origin = self.apply(start);
        let mut out = *self;
        for (row, &shift) in out.0.iter_mut().zip(&origin) {
            (0..3).for_each(|c| row[c] *= step[c]);
            row[3] = shift;
        }
        out
    }

    /// The largest distance in mm between where `self` and `other` put one of the eight corner voxels of `shape`.
    pub fn corner_distance(&self, other: &Affine, shape: [usize; 3]) -> f64 {
        (0..8)
            .map(|corner: usize| {
                let index = [0, 1, 2].map(|c| if corner >> c & 1 == 1 { shape[c] as f64 - 1.0 } else { 0.0 });
                let (a, b) = (self.apply(index), other.apply(index));
                (0..3).map(|r| (a[r] - b[r]).powi(2)).sum::<f64>().sqrt()
            })
            .fold(0.0, f64::max)
    }

    /// True if all entries are finite and the axes span space.
    pub fn is_valid(&self) -> bool {
        let spacing = self.spacing();
        let product = spacing.iter().product::<f64>();
        self.0.iter().flatten().all(|v| v.is_finite()) && product > 0.0 && self.determinant().abs() > 1e-6 * product
    }

    fn column(&self, c: usize) -> [f64; 3] {
        [self.0[0][c], self.0[1][c], self.0[2][c]]
    }
}

impl fmt::Display for Affine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (r, row) in self.0.iter().enumerate() {
            let [a, b, c, d] = row.map(|v| (v * 1e4).round() / 1e4 + 0.0);
            write!(f, "{}[{a} {b} {c} {d}]", if r > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// How the axes in memory run along the axes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orientation {
    /// Axis `k` in memory is the file's axis `axes[k]` …
    pub axes: [usize; 3],
    /// … in the opposite direction if `flips[k]`.
    pub flips: [bool; 3],
}

impl Orientation {
    /// The file's own axes.
    pub const STORED: Orientation = Orientation { axes: [0, 1, 2], flips: [false; 3] };

    /// The permutation and flips that bring the axes of a stored grid nearest to right, anterior, superior: the
    /// permutation with the largest sum of direction cosines (the first of equal ones).
    pub fn canonical(stored: &Affine) -> Self {
        const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let spacing = stored.spacing();
        let cosine = |world: usize, axis: usize| stored.0[world][axis] / spacing[axis];
        let score = |axes: &[usize; 3]| (0..3).map(|k| cosine(k, axes[k]).abs()).sum::<f64>();
        let mut axes = ORDERS[0];
        for order in &ORDERS[1..] {
            // Rounding in a 45° scan must not decide: only a real gain does.
            if score(order) > score(&axes) + 1e-9 {
                axes = *order;
            }
        }
        Orientation { axes, flips: [0, 1, 2].map(|k| cosine(k, axes[k]) < 0.0) }
    }

    /// Where the axes of a stored grid run, a letter each (R, A, S or L, P, I), as `nibabel.aff2axcodes` has it: `LPS` for
    /// a scan stored from right to left, from front to back, from foot to head.
    pub fn letters(stored: &Affine) -> String {
        let orientation = Self::canonical(stored);
        let mut letters = ['R'; 3];
        for world in 0..3 {
            let pair = [['R', 'L'], ['A', 'P'], ['S', 'I']][world];
            letters[orientation.axes[world]] = pair[usize::from(orientation.flips[world])];
        }
        letters.iter().collect()
    }

    /// Shape in memory of a stored shape.
    pub fn shape(&self, stored: [usize; 3]) -> [usize; 3] {
        self.axes.map(|axis| stored[axis])
    }

    /// Affine of the grid in memory.
    pub fn affine(&self, stored: &Affine, stored_shape: [usize; 3]) -> Affine {
        let mut start = [0.0; 3];
        for k in 0..3 {
            if self.flips[k] {
                start[self.axes[k]] = stored_shape[self.axes[k]] as f64 - 1.0;
            }
        }
        let origin = stored.apply(start);
        Affine([0, 1, 2].map(|r| {
            let [x, y, z] = [0, 1, 2].map(|k| stored.0[r][self.axes[k]] * if self.flips[k] { -1.0 } else { 1.0 });
            [x, y, z, origin[r]]
        }))
    }

    /// From a file's order (first axis fastest, channels slowest) to the engine's: `[shape…, channels]`, last fastest.
    ///
    /// # Panics
    /// If `stored.len()` is not the product of `stored_shape` and `channels`.
    pub fn unpack<T: Copy + Default>(&self, stored: &[T], stored_shape: [usize; 3], channels: usize) -> Vec<T> {
        let mut out = vec![T::default(); stored.len()];
        self.walk(stored_shape, channels, stored.len(), |inside, outside| out[inside] = stored[outside]);
        out
    }

    /// The inverse of [`Orientation::unpack`].
    ///
    /// # Panics
    /// If `voxels.len()` is not the product of `stored_shape` and `channels`.
    pub fn pack<T: Copy + Default>(&self, voxels: &[T], stored_shape: [usize; 3], channels: usize) -> Vec<T> {
        let mut out = vec![T::default(); voxels.len()];
        self.walk(stored_shape, channels, voxels.len(), |inside, outside| out[outside] = voxels[inside]);
        out
    }

    /// Calls `visit(index in memory, index in the file)` for each element. Tile by tile along the two axes that are fastest in
    /// memory and in the file: element by element, one of the two would touch another cache line each time.
    fn walk(&self, stored: [usize; 3], channels: usize, len: usize, mut visit: impl FnMut(usize, usize)) {
        assert_eq!(stored.iter().product::<usize>() * channels, len, "array of {stored:?} × {channels} channels");
        let strides = [1, stored[0], stored[0] * stored[1]];
        let volume = strides[2] * stored[2];
        let shape = self.shape(stored);
        let place = |k: usize, i: usize| strides[self.axes[k]] * if self.flips[k] { shape[k] - 1 - i } else { i };
        // The slow axis has tiles of one, so that a tile is a square.
        let tile = [0, 1, 2].map(|k| if k == 2 || self.axes[k] == 0 { TILE } else { 1 });
        let tiles = |k: usize| {
            let begins = (0..shape[k]).step_by(tile[k]);
            begins.map(move |begin| begin..(begin + tile[k]).min(shape[k]))
        };
        for (rows, columns) in tiles(0).flat_map(|rows| tiles(1).map(move |columns| (rows.clone(), columns))) {
            for layers in tiles(2) {
                for (i, j) in rows.clone().flat_map(|i| columns.clone().map(move |j| (i, j))) {
                    let row = place(0, i) + place(1, j);
                    let mut inside = ((i * shape[1] + j) * shape[2] + layers.start) * channels;
                    for k in layers.clone() {
                        let voxel = row + place(2, k);
                        for channel in 0..channels {
                            visit(inside, voxel + channel * volume);
                            inside += 1;
                        }
                    }
                }
            }
        }
    }
}

/// The grid of a volume in memory and the way back to its file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Voxel index in memory to mm.
    pub affine: Affine,
    /// Axes in memory along the axes of the file.
    pub orientation: Orientation,
    /// The file's own statement.
    pub stored: StoredGrid,
}

impl Geometry {
    /// The grid of a file, canonical inside, or on the file's own axes.
    pub fn new(stored: StoredGrid, canonical: bool) -> Self {
        let affine = stored.affine();
        let orientation = if canonical { Orientation::canonical(&affine) } else { Orientation::STORED };
        Self { affine: orientation.affine(&affine, stored.shape), orientation, stored }
    }

    /// A grid that belongs to no file, stored as it is in memory.
    pub fn from_affine(affine: Affine, shape: [usize; 3]) -> Self {
        Self { affine, orientation: Orientation::STORED, stored: StoredGrid::from_affine(affine, shape) }
    }

    /// The grid whose voxel `i` is this one's `start + step·i`, of another `shape` (after padding, cropping, resampling).
    pub fn regrid(&self, start: [f64; 3], step: [f64; 3], shape: [usize; 3]) -> Self {
        Self::from_affine(self.affine.regrid(start, step), shape)
    }

    /// The same box divided into `shape` voxels (along the axes in memory), its axes in the same order and direction.
    pub fn resized(&self, shape: [usize; 3]) -> Self {
        let mut stored_shape = shape;
        (0..3).for_each(|k| stored_shape[self.orientation.axes[k]] = shape[k]);
        let stored = self.stored.resized(stored_shape);
        Self { affine: self.orientation.affine(&stored.affine(), stored_shape), orientation: self.orientation, stored }
    }

    /// Distance between neighbours along each axis in memory, in mm.
    pub fn spacing(&self) -> [f64; 3] {
        self.affine.spacing()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &Affine, b: &Affine) {
        for (x, y) in a.0.iter().flatten().zip(b.0.iter().flatten()) {
            assert!((x - y).abs() < 1e-12, "{a} is not {b}");
        }
    }

    /// A quarter turn about z: b = c = 0, d = sin 45°.
    #[test]
    fn the_quaternion_rule() {
        let mut grid = StoredGrid::from_affine(Affine::from_spacing([2.0, 3.0, 4.0]), [5, 6, 7]);
        grid.sform_code = 0;
        close(&grid.affine(), &Affine::from_spacing([2.0, 3.0, 4.0]));
        grid.qform_code = 1;
        grid.pixdim[0] = -1.0;
        grid.quaternion = [0.0, 0.0, 0.5f64.sqrt()];
        grid.offset = [1.0, 2.0, 3.0];
        close(&grid.affine(), &Affine([[0.0, -3.0, 0.0, 1.0], [2.0, 0.0, 0.0, 2.0], [0.0, 0.0, -4.0, 3.0]]));
        grid.sform_code = 1;
        close(&grid.affine(), &Affine::from_spacing([2.0, 3.0, 4.0]));
        grid.pixdim = [1.0, 0.0, -2.0, 1.0];
        (grid.sform_code, grid.qform_code) = (0, 0);
        close(&grid.affine(), &Affine::from_spacing([1.0, 2.0, 1.0]));
    }

    /// All 48 axis orders and directions: each voxel keeps its place in the patient, and packing undoes unpacking.
    #[test]
    fn every_orientation_goes_to_ras_and_back() {
        let shape = [2, 3, 4];
        let stored: Vec<u16> = (0..2 * 24).collect();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            for signs in 0..8 {
                let mut rows = [[0.0; 4]; 3];
                for (world, &axis) in order.iter().enumerate() {
                    rows[world][axis] = if signs >> world & 1 == 1 { -1.5 } else { 1.5 };
                    rows[world][(axis + 1) % 3] = 0.1; // slightly oblique
                    rows[world][3] = world as f64;
                }
                let affine = Affine(rows);
                let geometry = Geometry::new(StoredGrid::from_affine(affine, shape), true);
                let orientation = geometry.orientation;
                assert_eq!(orientation.axes, order);
                assert!((0..3).all(|k| geometry.affine.0[k][k] > 0.0));
                let inside = orientation.unpack(&stored, shape, 2);
                let [_, b, c] = orientation.shape(shape);
                for (place, &value) in inside.iter().enumerate() {
                    let voxel = place / 2;
                    let here =
                        geometry.affine.apply([(voxel / (b * c)) as f64, (voxel / c % b) as f64, (voxel % c) as f64]);
                    let v = value as usize % 24;
                    let there = affine.apply([(v % 2) as f64, (v / 2 % 3) as f64, (v / 6) as f64]);
                    assert!((0..3).all(|r| (here[r] - there[r]).abs() < 1e-12));
                    assert_eq!(value as usize / 24, place % 2, "channel");
                }
                assert_eq!(orientation.pack(&inside, shape, 2), stored);
            }
        }
    }

    /// Whatever the axes and whichever of the header's affines counts: the new voxels divide the old box.
    #[test]
    fn another_number_of_voxels_in_the_same_box() {
        let mut grid = StoredGrid::from_affine(
            Affine([[0.0, -3.0, 0.0, 1.0], [2.0, 0.0, 0.0, 2.0], [0.0, 0.0, 4.0, 3.0]]),
            [5, 6, 7],
        );
        grid.pixdim[0] = 1.0;
        grid.quaternion = [0.0, 0.0, 0.5f64.sqrt()];
        grid.offset = [1.0, 2.0, 3.0];
        for codes in [(0, 1), (1, 0), (0, 0)] {
            (grid.sform_code, grid.qform_code) = codes;
            let geometry = Geometry::new(grid, true);
            let old = geometry.orientation.shape(grid.shape);
            let new = [2 * old[0], old[1], 3 * old[2]];
            let resized = geometry.resized(new);
            assert_eq!(resized.orientation.shape(resized.stored.shape), new);
            assert_eq!(
                resized.stored.spacing(),
                [0, 1, 2].map(|k| {
                    let n = resized.stored.shape[k] as f64 / grid.shape[k] as f64;
                    grid.spacing()[k] / n
                })
            );
            // The outer corners of the boxes.
            for corner in 0..8 {
                let at = |shape: [usize; 3]| {
                    [0, 1, 2].map(|k| if corner >> k & 1 == 1 { shape[k] as f64 - 0.5 } else { -0.5 })
                };
                let (a, b) = (geometry.affine.apply(at(old)), resized.affine.apply(at(new)));
                assert!((0..3).all(|r| (a[r] - b[r]).abs() < 1e-12), "{codes:?}: {a:?} {b:?}");
            }
        }
    }

    #[test]
    fn letters_name_where_stored_axes_run() {
        let letters = |rows: [[f64; 4]; 3]| Orientation::letters(&Affine(rows));
        assert_eq!(letters([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]]), "RAS");
        assert_eq!(letters([[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 239.0], [0.0, 0.0, 1.0, 0.0]]), "LPS");
        // Axis 0 of the file runs down, axis 1 to the left, axis 2 forwards.
        assert_eq!(letters([[0.0, -1.0, 0.1, 0.0], [0.0, 0.1, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]), "ILA");
    }

    #[test]
    fn the_inverse_leads_back() {
        let affine = Affine([[-1.2, 0.5, 0.0, 90.0], [0.4, 1.5, 0.3, -126.0], [0.1, -0.4, 3.0, -72.0]]);
        for index in [[0.0; 3], [3.0, -2.0, 7.5]] {
            let back = affine.inverse().apply(affine.apply(index));
            assert!((0..3).all(|k| (back[k] - index[k]).abs() < 1e-12), "{back:?}");
        }
    }

    #[test]
    fn distances_and_validity() {
        let a = Affine::from_spacing([1.0, 1.0, 2.0]);
        let mut b = a;
        b.0[0][0] = 1.01;
        // Only the far corners move, by 0.01 mm for each of 99 steps.
        assert!((a.corner_distance(&b, [100, 5, 5]) - 0.99).abs() < 1e-12);
        assert!(a.is_valid());
        assert!(!Affine([[0.0; 4]; 3]).is_valid());
        b.0[1][3] = f64::NAN;
        assert!(!b.is_valid());
        let half = a.regrid([0.5; 3], [2.0; 3]);
        assert_eq!(half.apply([1.0, 0.0, 0.0]), a.apply([2.5, 0.5, 0.5]));
        assert_eq!(a.to_string(), "[1 0 0 0] [0 1 0 0] [0 0 2 0]");
    }
}
