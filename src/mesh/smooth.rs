//! Smoothing that does not shrink: Taubin's low-pass filter.
//!
//! An iteration moves each vertex by `λ` of the way to the mean of its neighbours, then by `μ < −λ` of the way back from
//! it. Waves over the mesh with an eigenvalue `k` of the graph's Laplacian (0: constant, 2: the finest) are scaled by
//! `(1 − λk)(1 − μk)`, which is 1 at 0 and at the pass band `1/λ + 1/μ = 0.1` and falls beyond.
//!
//! Source: Taubin, *A signal processing approach to fair surface design*, 1995.

use super::Mesh;

const FORTH: f64 = 0.5;
const BACK: f64 = 1.0 / (0.1 - 1.0 / FORTH);

/// Smooths a mesh; its triangles stay.
pub fn smooth(mesh: &mut Mesh, iterations: usize) {
    // Each edge of a closed mesh occurs once in each direction, so its directed edges are the neighbours.
    let mut counts = vec![0u32; mesh.vertices.len()];
    mesh.triangles.as_flattened().iter().for_each(|&vertex| counts[vertex as usize] += 1);
    let mut sums = vec![[0.0f64; 3]; mesh.vertices.len()];
    for step in 0..2 * iterations {
        sums.fill([0.0; 3]);
        for &[a, b, c] in &mesh.triangles {
            for [from, to] in [[a, b], [b, c], [c, a]] {
                let position = mesh.vertices[to as usize];
                (0..3).for_each(|i| sums[from as usize][i] += f64::from(position[i]));
            }
        }
        let factor = if step % 2 == 0 { FORTH } else { BACK };
        for ((vertex, sum), &count) in mesh.vertices.iter_mut().zip(&sums).zip(&counts) {
            for i in 0..3 {
                let position = f64::from(vertex[i]);
                vertex[i] = (position + factor * (sum[i] / f64::from(count.max(1)) - position)) as f32;
            }
        }
    }
}
