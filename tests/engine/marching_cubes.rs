//! Surfaces are closed and oriented whatever the grid, have the Euler characteristic and the volume of what they enclose,
//! and are those of PyMCubes where no cell is ambiguous.

use std::collections::BTreeSet;

use crate::common::fixture::{self, Fixture};
use crate::common::surface::{assert_closed, euler};
use ossnet::device::Device;
use ossnet::memory::Role;
use ossnet::mesh::Mesh;
use ossnet::ops::marching_cubes;
use ossnet::rng::Rng;
use ossnet::tensor::Tensor;

/// A field of doubles or so, last axis fastest.
struct Grid {
    shape: [usize; 3],
    values: Vec<f32>,
}

impl Grid {
    fn new(shape: [usize; 3], value: impl FnMut([usize; 3]) -> f32) -> Self {
        let [d, h, w] = shape;
        let values = (0..d * h * w).map(|i| [i / (h * w), i / w % h, i % w]).map(value).collect();
        Self { shape, values }
    }

    fn random(shape: [usize; 3], rng: &mut Rng, value: impl Fn(f32) -> f32) -> Self {
        Self::new(shape, |_| value(rng.uniform()))
    }

    /// A function of the position relative to the grid's middle.
    fn around_middle(shape: [usize; 3], value: impl Fn([f64; 3]) -> f64) -> Self {
        Self::new(shape, |p| value([0, 1, 2].map(|a| p[a] as f64 - (shape[a] as f64 - 1.0) / 2.0)) as f32)
    }

    /// The value at signed indices; 0 beside the grid.
    fn at(&self, p: [isize; 3]) -> f32 {
        match (0..3).all(|a| (0..self.shape[a] as isize).contains(&p[a])) {
            true => self.values[((p[0] as usize * self.shape[1]) + p[1] as usize) * self.shape[2] + p[2] as usize],
            false => 0.0,
        }
    }

    fn mesh(&self, threshold: f32) -> Mesh {
        let device = Device::cpu(2, 1 << 28).unwrap();
        let field = Tensor::from_slice(&device, &self.shape, Role::Data, &self.values).unwrap();
        Mesh::from_surface(&marching_cubes(&field, threshold, 0.0).unwrap()).unwrap()
    }

    /// Corners of the cell above `p`, one bit each.
    fn case(&self, p: [isize; 3], threshold: f32) -> u8 {
        let inside = |c: isize| self.at([p[0] + (c >> 2 & 1), p[1] + (c >> 1 & 1), p[2] + (c & 1)]) > threshold;
        (0..8).filter(|&c| inside(c)).map(|c| 1 << c).sum()
    }

    /// All cells, those that reach beyond the grid included.
    fn cells(&self) -> impl Iterator<Item = [isize; 3]> {
        let [d, h, w] = self.shape.map(|length| length as isize);
        (-1..d).flat_map(move |z| (-1..h).flat_map(move |y| (-1..w).map(move |x| [z, y, x])))
    }

    /// The Euler characteristic of what is inside, by inclusion and exclusion over the closed cells, faces, edges and points
    /// of the lattice: each holds as many contractible pieces as its inside corners have components.
    fn euler(&self, threshold: f32) -> i64 {
        let mut sum = 0;
        for cell in self.cells() {
            let case = self.case(cell, threshold);
            // Sub-cubes at the cell's lower corner, by the axes they span; each sub-cube of the lattice occurs once.
            for span in 0..8u8 {
                let corners = (0..8u8).filter(|c| c & !span == 0 && case >> c & 1 == 1).collect();
                let sign = if (3 - span.count_ones()) % 2 == 0 { 1 } else { -1 };
                sum += sign * pieces(corners);
            }
        }
        sum
    }
}

/// Components of corners of a cell that its edges join.
fn pieces(mut corners: BTreeSet<u8>) -> i64 {
    let mut count = 0;
    while let Some(first) = corners.pop_first() {
        count += 1;
        let mut front = vec![first];
        while let Some(corner) = front.pop() {
            front.extend([1, 2, 4].map(|bit| corner ^ bit).into_iter().filter(|next| corners.remove(next)));
        }
    }
    count
}

/// How often the mesh winds around `p`: the sum of the triangles' solid angles (van Oosterom and Strackee) over 4π.
fn winding(mesh: &Mesh, p: [f64; 3]) -> f64 {
    let dot = |a: [f64; 3], b: [f64; 3]| (0..3).map(|i| a[i] * b[i]).sum::<f64>();
    let angle = |triangle: &[u32; 3]| {
        let [a, b, c] = triangle.map(|v| [0, 1, 2].map(|i| f64::from(mesh.vertices[v as usize][i]) - p[i]));
        let [la, lb, lc] = [a, b, c].map(|v| dot(v, v).sqrt());
        let bc = [b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]];
        2.0 * dot(a, bc).atan2(la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb)
    };
    mesh.triangles.iter().map(angle).sum::<f64>() / (4.0 * std::f64::consts::PI)
}

/// Many small grids of two values at every density, so that all cases occur beside all others: closed, of the right Euler
/// characteristic, and around exactly the points that are inside.
#[test]
fn random_grids_of_two_values() {
    let mut rng = Rng::new(1);
    let mut seen = BTreeSet::new();
    for round in 0..300 {
        let shape = [0; 3].map(|_| 1 + rng.below(6) as usize);
        let share = rng.uniform();
        let grid = Grid::random(shape, &mut rng, |u| f32::from(u < share));
        seen.extend(grid.cells().map(|cell| grid.case(cell, 0.5)));
        let (mesh, what) = (grid.mesh(0.5), format!("round {round}, {shape:?}"));
        assert_closed(&mesh, &what);
        // The boundary of a solid has twice its characteristic.
        assert_eq!(euler(&mesh), 2 * grid.euler(0.5), "{what}");
        if round % 10 == 0 {
            for p in grid.cells() {
                let expected = f64::from(u8::from(grid.at(p) > 0.5));
                assert!((winding(&mesh, p.map(|i| i as f64)) - expected).abs() < 1e-9, "{what} at {p:?}");
            }
        }
    }
    assert_eq!(seen.len(), 256, "the grids hold every case");
}

/// Fields of many values, values on the threshold among them.
#[test]
fn random_fields() {
    let mut rng = Rng::new(2);
    for round in 0..100 {
        let shape = [0; 3].map(|_| 1 + rng.below(7) as usize);
        let threshold = [0.3, 0.5, 0.75][round % 3];
        let grid = Grid::random(shape, &mut rng, |u| (u * 8.0).floor() / 8.0);
        let (mesh, what) = (grid.mesh(threshold), format!("round {round}, {shape:?}"));
        assert_closed(&mesh, &what);
        assert_eq!(euler(&mesh), 2 * grid.euler(threshold), "{what}");
    }
}

/// A box of ones: its edges are cut by prisms of 1/8 a voxel's length, its corners from 1/8 to 1/48.
#[test]
fn the_volume_of_boxes() {
    for [a, b, c] in [[1, 1, 1], [2, 3, 4], [7, 1, 5], [10, 11, 12]] {
        let mesh = Grid::new([a, b, c], |_| 1.0).mesh(0.5);
        assert_closed(&mesh, "box");
        assert_eq!(euler(&mesh), 2);
        let edges = 4 * (a + b + c - 3);
        let exact = (a * b * c) as f64 - edges as f64 / 8.0 - 8.0 * (1.0 / 8.0 - 1.0 / 48.0);
        assert!((mesh.volume() - exact).abs() < 1e-9 * exact, "{} against {exact}", mesh.volume());
    }
}

/// Distance fields: genus as known; volume and area come from inside and converge at second order. A facet's chord is at most
/// √3 voxels long and lies within 3/8r of the ball; interpolating the distance along an edge adds 1/8r at most. A shell of
/// thickness 1/2r is at most 1.5/r² of the ball.
#[test]
fn spheres_and_tori() {
    use std::f64::consts::PI;
    let sphere = |r: f64| {
        let grid =
            Grid::around_middle([2 * r as usize + 5; 3], |p| 0.5 + r - p.iter().map(|x| x * x).sum::<f64>().sqrt());
        (grid, 2i64, 4.0 / 3.0 * PI * r.powi(3), 4.0 * PI * r * r)
    };
    let torus = |r: f64| {
        let distance = |p: [f64; 3]| 0.5 + r - ((p[0].hypot(p[1]) - 2.0 * r).powi(2) + p[2] * p[2]).sqrt();
        let (long, short) = (6 * r as usize + 9, 2 * r as usize + 5);
        let grid = Grid::around_middle([long, long + 1, short], distance);
        (grid, 0i64, 4.0 * PI * PI * r.powi(3), 8.0 * PI * PI * r * r)
    };
    for (name, shape) in [("sphere", &sphere as &dyn Fn(f64) -> (Grid, i64, f64, f64)), ("torus", &torus)] {
        let errors = [6.3, 12.6].map(|r| {
            let (grid, characteristic, volume, area) = shape(r);
            let mesh = grid.mesh(0.5);
            assert_closed(&mesh, name);
            assert_eq!(euler(&mesh), characteristic, "{name}");
            let errors = [1.0 - mesh.volume() / volume, 1.0 - mesh.area() / area];
            assert!(errors.iter().all(|error| (0.0..1.5 / (r * r)).contains(error)), "{name}: {errors:?}");
            errors
        });
        assert!((0..2).all(|i| errors[1][i] < errors[0][i] / 3.5), "{name}: {errors:?}");
    }
}

/// The golden grids, with their thresholds moved to 0.5 so that what lies beside them is outside.
fn golden(fixture: &Fixture, name: &str) -> Grid {
    let (volume, iso) = (fixture.array(name), format!("iso_{}", name.trim_start_matches("vol_")));
    let iso = fixture.get(&iso).map_or(0.0, |iso| iso.to_f32()[0]);
    let shape = <[usize; 3]>::try_from(volume.shape()).unwrap();
    Grid { shape, values: volume.to_f32().iter().map(|value| value - iso + 0.5).collect() }
}

/// Cells with a face whose inside corners lie on one diagonal.
fn ambiguous_cells(grid: &Grid) -> usize {
    let face = |case: u8, corners: [u8; 4]| {
        let inside = corners.map(|corner| case >> corner & 1 == 1);
        inside[0] == inside[2] && inside[1] == inside[3] && inside[0] != inside[1]
    };
    let faces = [[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]];
    grid.cells().filter(|&cell| faces.iter().any(|&corners| face(grid.case(cell, 0.5), corners))).count()
}

/// PyMCubes' surfaces where no cell is ambiguous: as many vertices and triangles, the same area and volume. Grids of two
/// values are cut in halves, where the fillings agree to rounding. In fields, loops of more than three vertices are hardly
/// plane, and a plane one may be filled by another diagonal: second order in the distance, 1e-4 is the promise.
#[test]
fn pymcubes() {
    let fixture = Fixture::open(&fixture::path("mcubes.npz"));
    for name in ["torus", "sphere", "torus_binary", "sphere_binary", "label_padded", "smooth_label_padded"] {
        let member = if name.starts_with("smooth") { name.to_string() } else { format!("vol_{name}") };
        let grid = golden(&fixture, &member);
        assert_eq!(ambiguous_cells(&grid), 0, "{name}");
        let (mesh, stats) = (grid.mesh(0.5), fixture.json(&format!("stats_{name}")));
        assert_closed(&mesh, name);
        let stat = |key: &str| stats[key].as_f64().unwrap();
        assert_eq!([mesh.vertices.len() as f64, mesh.triangles.len() as f64], [stat("nv"), stat("nt")], "{name}");
        let bound = if grid.values.iter().all(|&v| v == 0.0 || v == 1.0) { 1e-12 } else { 1e-4 };
        for (ours, theirs) in [(mesh.area(), stat("area")), (mesh.volume(), stat("signed_volume"))] {
            assert!((ours / theirs - 1.0).abs() < bound, "{name}: {ours} against {theirs}");
        }
    }
}

/// The same vertices as PyMCubes, whose order is another. Its grid is f64; ours loses 2⁻²⁴ of values up to 10, over slopes of
/// about 1 a voxel. In a grid of two values, full of ambiguous cells and cut by the border, theirs (some twice) are among ours:
/// the same edges are cut, and joined otherwise.
#[test]
fn vertices_of_pymcubes() {
    let fixture = Fixture::open(&fixture::path("mcubes.npz"));
    for (name, bound) in [("torus", 1e-5), ("binrand", 0.0)] {
        let ours = golden(&fixture, &format!("vol_{name}")).mesh(0.5).vertices;
        let theirs = fixture.f32(&format!("v_{name}"));
        assert!(name != "torus" || 3 * ours.len() == theirs.len());
        for theirs in theirs.as_chunks::<3>().0 {
            let distance = |ours: &[f32; 3]| (0..3).map(|i| (ours[i] - theirs[i]).powi(2)).sum::<f32>().sqrt();
            assert!(ours.iter().map(distance).fold(f32::MAX, f32::min) <= bound, "{name}: {theirs:?}");
        }
    }
}

/// Where cells are ambiguous or the label touches the border, PyMCubes' surfaces are open or joined otherwise; ours are closed
/// and bound what is inside.
#[test]
fn grids_that_pymcubes_leaves_open() {
    let fixture = Fixture::open(&fixture::path("mcubes.npz"));
    for name in ["noise", "binrand", "label_unpadded"] {
        let grid = golden(&fixture, &format!("vol_{name}"));
        let mesh = grid.mesh(0.5);
        assert_closed(&mesh, name);
        assert_eq!(euler(&mesh), 2 * grid.euler(0.5), "{name}");
    }
    // Padding changes nothing but the indices.
    let [unpadded, padded] =
        ["label_unpadded", "label_padded"].map(|name| golden(&fixture, &format!("vol_{name}")).mesh(0.5));
    assert_eq!(unpadded.triangles, padded.triangles);
    let moved: Vec<[f32; 3]> = unpadded.vertices.iter().map(|vertex| vertex.map(|v| v + 1.0)).collect();
    assert_eq!(moved, padded.vertices);
}
