//! Simplification to a number of triangles by collapsing edges, the cheapest first.
//!
//! The cost of moving a vertex to `x` is the sum over the triangles merged into it of `area · distance(x, plane)²`, a
//! quadric. A collapse puts the vertex where the sum of both ends' quadrics is least.
//!
//! The surface stays closed: an edge is collapsed only if its ends have just the two neighbours in common that its
//! triangles name, neither of which would be left with two triangles (the link condition). And it does not fold: no
//! triangle may turn by more than about 80°.
//!
//! Own code, as the well-kept crates bind C++ and the build needs a Rust toolchain alone. Source: Garland and Heckbert,
//! *Surface simplification using quadric error metrics*, 1997.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{Mesh, dot, norm, normal, sub};

/// Least cosine between a triangle's normals before and after a collapse.
const LEAST_COSINE: f64 = 0.2;

/// The closed mesh with at most `triangles` triangles, or as few as can be had without opening or folding it.
pub fn simplify(mesh: &Mesh, triangles: usize) -> Mesh {
    if mesh.triangles.len() <= triangles {
        return mesh.clone();
    }
    let mut work = Work::new(mesh);
    while work.alive > triangles && work.step() {}
    work.finish()
}

/// `xᵀAx + 2bᵀx + c`: the upper triangle of A by rows, b, c.
#[derive(Clone, Copy, Default)]
struct Quadric([f64; 10]);

impl Quadric {
    fn of_triangle(corners: [[f64; 3]; 3]) -> Self {
        let n = normal(corners);
        let length = norm(n);
        if length == 0.0 {
            return Self::default();
        }
        let [x, y, z] = n.map(|v| v / length);
        let d = -dot([x, y, z], corners[0]);
        let area = length / 2.0;
        Self([x * x, x * y, x * z, y * y, y * z, z * z, x * d, y * d, z * d, d * d].map(|v| v * area))
    }

    fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    fn at(&self, [x, y, z]: [f64; 3]) -> f64 {
        let q = &self.0;
        let squares = q[0] * x * x + q[3] * y * y + q[5] * z * z + 2.0 * (q[1] * x * y + q[2] * x * z + q[4] * y * z);
        squares + 2.0 * (q[6] * x + q[7] * y + q[8] * z) + q[9]
    }

    /// Where it is least, if that is well determined.
    fn minimum(&self) -> Option<[f64; 3]> {
        let [a, b, c, d, e, f, x, y, z, _] = self.0;
        // Cofactors of the symmetric matrix.
        let [p, q, r] = [d * f - e * e, c * e - b * f, b * e - c * d];
        let [s, t, u] = [a * f - c * c, b * c - a * e, a * d - b * b];
        let determinant = a * p + b * q + c * r;
        // Flat and straight surroundings leave a plane or a line of minima: relative to the trace, two or one
        // eigenvalues vanish.
        let trace = a + d + f;
        (determinant > 1e-6 * trace.powi(3)).then(|| {
            [-(p * x + q * y + r * z), -(q * x + s * y + t * z), -(r * x + t * y + u * z)].map(|v| v / determinant)
        })
    }
}

/// A collapse to come: valid while its ends have not changed.
struct Candidate {
    cost: f64,
    ends: [u32; 2],
    versions: [u32; 2],
    target: [f64; 3],
}

/// The cheapest is the greatest; equal costs in the order of the vertices, so that the result is one.
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other.cost.total_cmp(&self.cost).then_with(|| other.ends.cmp(&self.ends))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

struct Work {
    positions: Vec<[f64; 3]>,
    quadrics: Vec<Quadric>,
    /// Raised whenever a vertex moves or vanishes.
    versions: Vec<u32>,
    /// Triangles; the three vertices of one that is gone are equal.
    triangles: Vec<[u32; 3]>,
    alive: usize,
    /// The triangles around each vertex, some of which may be gone.
    around: Vec<Vec<u32>>,
    heap: BinaryHeap<Candidate>,
}

impl Work {
    fn new(mesh: &Mesh) -> Self {
        let count = mesh.vertices.len();
        let (mut quadrics, mut around) = (vec![Quadric::default(); count], vec![Vec::new(); count]);
        for (index, &triangle) in mesh.triangles.iter().enumerate() {
            let quadric = Quadric::of_triangle(mesh.corners(triangle));
            for vertex in triangle {
                quadrics[vertex as usize] = quadrics[vertex as usize].plus(quadric);
                around[vertex as usize].push(index as u32);
            }
        }
        let mut work = Self {
            positions: mesh.vertices.iter().map(|vertex| vertex.map(f64::from)).collect(),
            quadrics,
            versions: vec![0; count],
            triangles: mesh.triangles.clone(),
            alive: mesh.triangles.len(),
            around,
            heap: BinaryHeap::new(),
        };
        for &[a, b, c] in &mesh.triangles {
            for [from, to] in [[a, b], [b, c], [c, a]] {
                // Each edge occurs in both directions.
                if from < to {
                    work.push(from, to);
                }
            }
        }
        work
    }

    fn push(&mut self, a: u32, b: u32) {
        let [u, v] = [a, b].map(|vertex| vertex as usize);
        let quadric = self.quadrics[u].plus(self.quadrics[v]);
        let (from, to) = (self.positions[u], self.positions[v]);
        let middle = [0, 1, 2].map(|i| (from[i] + to[i]) / 2.0);
        let length = norm(sub(to, from));
        // A minimum far from the edge comes from nearly parallel planes.
        let minimum = quadric.minimum().filter(|&x| norm(sub(x, middle)) <= 2.0 * length);
        let target = minimum.unwrap_or_else(|| {
            [middle, from, to]
                .into_iter()
                .reduce(|best, x| if quadric.at(x) < quadric.at(best) { x } else { best })
                .unwrap_or(middle)
        });
        // Rounding may bring the cost of a plane below nothing.
        let cost = quadric.at(target).max(0.0);
        self.heap.push(Candidate { cost, ends: [a, b], versions: [self.versions[u], self.versions[v]], target });
    }

    /// Collapses the cheapest edge that may be; false if there is none.
    fn step(&mut self) -> bool {
        while let Some(candidate) = self.heap.pop() {
            let current = (0..2).all(|i| self.versions[candidate.ends[i] as usize] == candidate.versions[i]);
            if current && self.may_collapse(candidate.ends, candidate.target) {
                self.collapse(candidate.ends, candidate.target);
                return true;
            }
        }
        false
    }

    /// The triangles around a vertex.
    fn fan(&self, vertex: u32) -> impl Iterator<Item = (u32, [u32; 3])> {
        let fan = self.around[vertex as usize].iter().map(|&index| (index, self.triangles[index as usize]));
        fan.filter(move |(_, triangle)| triangle.contains(&vertex) && triangle[0] != triangle[1])
    }

    fn neighbours(&self, vertex: u32) -> Vec<u32> {
        let mut all: Vec<u32> = self.fan(vertex).flat_map(|(_, triangle)| triangle).filter(|&v| v != vertex).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn may_collapse(&self, ends: [u32; 2], target: [f64; 3]) -> bool {
        let others = self.neighbours(ends[1]);
        let common: Vec<u32> =
            self.neighbours(ends[0]).into_iter().filter(|v| others.binary_search(v).is_ok()).collect();
        if common.len() != 2 || common.iter().any(|&vertex| self.fan(vertex).count() <= 3) {
            return false;
        }
        // No triangle that stays may turn over or vanish.
        ends.iter().all(|&end| {
            self.fan(end).filter(|(_, triangle)| !ends.iter().all(|end| triangle.contains(end))).all(|(_, triangle)| {
                let before = triangle.map(|vertex| self.positions[vertex as usize]);
                let after = triangle.map(|vertex| if vertex == end { target } else { self.positions[vertex as usize] });
                let (before, after) = (normal(before), normal(after));
                let (lengths, cosine) = (norm(before) * norm(after), dot(before, after));
                // A triangle without area has no direction to keep.
                norm(before) == 0.0 || cosine > LEAST_COSINE * lengths
            })
        })
    }

    fn collapse(&mut self, [stays, goes]: [u32; 2], target: [f64; 3]) {
        let (s, g) = (stays as usize, goes as usize);
        self.positions[s] = target;
        self.quadrics[s] = self.quadrics[s].plus(self.quadrics[g]);
        self.versions[s] += 1;
        self.versions[g] += 1;
        let moved: Vec<u32> = self.fan(goes).map(|(index, _)| index).collect();
        for index in moved {
            let triangle = &mut self.triangles[index as usize];
            if triangle.contains(&stays) {
                *triangle = [stays; 3];
                self.alive -= 1;
            } else {
                triangle.iter_mut().filter(|vertex| **vertex == goes).for_each(|vertex| *vertex = stays);
                self.around[s].push(index);
            }
        }
        self.around[g] = Vec::new();
        let fan: Vec<u32> = self.fan(stays).map(|(index, _)| index).collect();
        self.around[s] = fan;
        for neighbour in self.neighbours(stays) {
            self.push(stays.min(neighbour), stays.max(neighbour));
        }
    }

    /// What is left, vertices and triangles in their former order.
    fn finish(self) -> Mesh {
        let mut indices = vec![u32::MAX; self.positions.len()];
        let alive = || self.triangles.iter().filter(|triangle| triangle[0] != triangle[1]);
        alive().flatten().for_each(|&vertex| indices[vertex as usize] = 0);
        let mut vertices = Vec::new();
        for (index, position) in indices.iter_mut().zip(&self.positions).filter(|(index, _)| **index == 0) {
            *index = vertices.len() as u32;
            vertices.push(position.map(|v| v as f32));
        }
        Mesh { vertices, triangles: alive().map(|triangle| triangle.map(|vertex| indices[vertex as usize])).collect() }
    }
}
