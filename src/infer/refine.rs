//! Meshes drawn to where the network itself says that the surface is, as in the official code: gradient descent (RMSprop) of
//!
//! `L = mean (f(p) − τ)² + λ·mean ‖n(p) + ∇f(p)/‖∇f(p)‖‖²`
//!
//! over the vertices, where `p` is a random point of each triangle, `n(p)` the triangle's normal, `f` the network's probability
//! between voxels and `τ` its threshold. The first term pulls the surface onto the level set, the second turns it along.
//!
//! The derivative of the second term contains the Hessian: with `g = ∇f`, `∂/∂p ‖n + ĝ‖² = 2·H·(1 − ĝĝᵀ)n/‖g‖`. As `f = σ(z)`
//! and `σ` grows, `ĝ` is the direction of the logit's gradient, and `H` the logit's Hessian does as well. Both are exact
//! ([`Occupancy::jets_at`](super::Occupancy::jets_at)); the official code's own second derivative is not, for its Padé unit
//! has none.
//!
//! Source: OSS-Net's `model_wrapper.py`; Mescheder et al. 2019, section 3.3.

use super::occupancy::jets::Jet;
use crate::error::Result;
use crate::mesh::{cross, dot, norm, sub};
use crate::models::ossnet::jets::SECOND;
use crate::rng::Rng;

/// How a mesh is refined. The defaults are the official code's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refinement {
    /// Steps.
    pub steps: usize,
    /// Learning rate, in voxels.
    pub rate: f64,
    /// Weight λ of the normals.
    pub normals: f64,
    /// Probability τ on the surface.
    pub threshold: f64,
    /// Triangles that a step draws points on, each at random (0: every triangle).
    pub triangles: usize,
    /// Seed of the points.
    pub seed: u64,
}

impl Default for Refinement {
    fn default() -> Self {
        Self { steps: 200, rate: 1e-3, normals: 0.01, threshold: 0.5, triangles: 0, seed: 0 }
    }
}

/// Forgetting of RMSprop's mean square, and what is added to its root (PyTorch's defaults).
const DECAY: f64 = 0.99;
const EPSILON: f64 = 1e-8;

/// A random point of a triangle.
#[derive(Clone, Copy, Debug)]
struct Draw {
    triangle: [u32; 3],
    /// Its weights of the corners.
    weights: [f64; 3],
}

/// Moves `positions`, the vertices of `triangles` in voxels, towards the surface of `field`, which gives jets of the logit at
/// points. Returns the loss of each step, before it. `tick` is called before each step and may stop the work.
///
/// # Errors
/// What `field` and `tick` report.
pub fn refine(
    positions: &mut [[f64; 3]],
    triangles: &[[u32; 3]],
    refinement: &Refinement,
    field: impl Fn(&[[f64; 3]]) -> Result<Vec<Jet>>,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<f64>> {
    let mut rng = Rng::named(refinement.seed, "refinement");
    let mut squares = vec![[0.0; 3]; positions.len()];
    let mut losses = Vec::new();
    for _ in 0..refinement.steps {
        tick()?;
        let draws = draw(triangles, refinement.triangles, &mut rng);
        let (loss, gradient) = slope(positions, &draws, refinement, &field)?;
        losses.push(loss);
        for ((position, square), gradient) in positions.iter_mut().zip(&mut squares).zip(&gradient) {
            for k in 0..3 {
                square[k] = DECAY * square[k] + (1.0 - DECAY) * gradient[k] * gradient[k];
                position[k] -= refinement.rate * gradient[k] / (square[k].sqrt() + EPSILON);
            }
        }
    }
    Ok(losses)
}

/// Points on all triangles, or on `count` random ones: corner weights of a Dirichlet distribution of ½ each, which favours
/// edges and corners.
fn draw(triangles: &[[u32; 3]], count: usize, rng: &mut Rng) -> Vec<Draw> {
    let all = count == 0 || count >= triangles.len();
    let count = if all { triangles.len() } else { count };
    let point = |index: usize| {
        let index = if all { index } else { rng.below(triangles.len() as u64) as usize };
        // Squares of normal numbers have Gamma distributions of ½.
        let squares = [0; 3].map(|_| f64::from(rng.normal()).powi(2).max(f64::MIN_POSITIVE));
        let sum: f64 = squares.iter().sum();
        Draw { triangle: triangles[index], weights: squares.map(|square| square / sum) }
    };
    (0..count).map(point).collect()
}

/// The loss and its gradient by the positions.
fn slope(
    positions: &[[f64; 3]],
    draws: &[Draw],
    refinement: &Refinement,
    field: impl Fn(&[[f64; 3]]) -> Result<Vec<Jet>>,
) -> Result<(f64, Vec<[f64; 3]>)> {
    let corners = |draw: &Draw| draw.triangle.map(|vertex| positions[vertex as usize]);
    let points: Vec<[f64; 3]> = draws
        .iter()
        .map(|draw| {
            let corners = corners(draw);
            [0, 1, 2].map(|k| (0..3).map(|corner| draw.weights[corner] * corners[corner][k]).sum())
        })
        .collect();
    let share = 1.0 / draws.len().max(1) as f64;
    let mut gradient = vec![[0.0; 3]; positions.len()];
    let mut loss = 0.0;
    for (draw, jet) in draws.iter().zip(field(&points)?) {
        let inside = 1.0 / (1.0 + (-jet[0]).exp());
        let error = inside - refinement.threshold;
        loss += share * error * error;
        let pull = 2.0 * share * error * inside * (1.0 - inside);
        let mut by_point = [1, 2, 3].map(|k| pull * jet[k]);

        let [a, b, c] = corners(draw);
        let (ab, ac) = (sub(b, a), sub(c, a));
        let across = cross(ab, ac);
        let (area, steepness) = (norm(across), norm([jet[1], jet[2], jet[3]]));
        if area > 0.0 && steepness > 0.0 {
            let (n, towards) = (across.map(|v| v / area), [1, 2, 3].map(|k| jet[k] / steepness));
            let cosine = dot(n, towards);
            let weight = share * refinement.normals;
            // ‖n + ĝ‖² of unit vectors.
            loss += weight * (2.0 + 2.0 * cosine);
            let turn = [0, 1, 2].map(|k| 2.0 * weight * (n[k] - cosine * towards[k]) / steepness);
            let bent = hessian_times(&jet, turn);
            (0..3).for_each(|k| by_point[k] += bent[k]);
            // By the normal, and through it by the corners: d(b − a)×(c − a).
            let q = [0, 1, 2].map(|k| 2.0 * weight * (towards[k] - cosine * n[k]) / area);
            let (by_b, by_c) = (cross(ac, q), cross(q, ab));
            let shares = [[0, 1, 2].map(|k| -by_b[k] - by_c[k]), by_b, by_c];
            for (vertex, share) in draw.triangle.iter().zip(shares) {
                (0..3).for_each(|k| gradient[*vertex as usize][k] += share[k]);
            }
        }
        for (vertex, weight) in draw.triangle.iter().zip(draw.weights) {
            (0..3).for_each(|k| gradient[*vertex as usize][k] += weight * by_point[k]);
        }
    }
    Ok((loss, gradient))
}

fn hessian_times(jet: &Jet, v: [f64; 3]) -> [f64; 3] {
    let mut product = [0.0; 3];
    for (k, (a, b)) in SECOND.into_iter().enumerate() {
        product[a] += jet[4 + k] * v[b];
        if a != b {
            product[b] += jet[4 + k] * v[a];
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ball of radius 3 with a wave on it: logit `9 − |p|² + sin(x·y) + z³/20`, with derivatives by hand.
    fn ball(points: &[[f64; 3]]) -> Result<Vec<Jet>> {
        let jet = |&[x, y, z]: &[f64; 3]| {
            let (s, c) = (x * y).sin_cos();
            let value = 9.0 - x * x - y * y - z * z + s + z.powi(3) / 20.0;
            let gradient = [y * c - 2.0 * x, x * c - 2.0 * y, 0.15 * z * z - 2.0 * z];
            let hessian = [-2.0 - y * y * s, c - x * y * s, 0.0, -2.0 - x * x * s, 0.0, 0.3 * z - 2.0];
            [
                value,
                gradient[0],
                gradient[1],
                gradient[2],
                hessian[0],
                hessian[1],
                hessian[2],
                hessian[3],
                hessian[4],
                hessian[5],
            ]
        };
        Ok(points.iter().map(jet).collect())
    }

    /// An octahedron of corners at distance 2.6, facing outwards.
    fn octahedron() -> (Vec<[f64; 3]>, Vec<[u32; 3]>) {
        let r = 2.6;
        let positions =
            vec![[r, 0.0, 0.0], [-r, 0.1, 0.0], [0.0, r, 0.2], [0.3, -r, 0.0], [0.0, 0.0, r], [0.0, 0.1, -r]];
        let triangles = vec![[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]];
        (positions, triangles)
    }

    /// The slope, second derivatives included, is that of central differences of the loss.
    #[test]
    fn slopes_are_exact() {
        let (mut positions, triangles) = octahedron();
        // The normals' term must not drown.
        let refinement = Refinement { normals: 0.7, threshold: 0.4, ..Refinement::default() };
        let draws = draw(&triangles, 0, &mut Rng::new(4));
        let (_, gradient) = slope(&positions, &draws, &refinement, ball).unwrap();
        for vertex in 0..positions.len() {
            for axis in 0..3 {
                let h = 1e-5;
                let mut at = |shift: f64| {
                    positions[vertex][axis] += shift;
                    let loss = slope(&positions, &draws, &refinement, ball).unwrap().0;
                    positions[vertex][axis] -= shift;
                    loss
                };
                let difference = (at(h) - at(-h)) / (2.0 * h);
                // h² times third derivatives of some tens.
                assert!((difference - gradient[vertex][axis]).abs() < 1e-8, "{difference} {:?}", gradient[vertex]);
            }
        }
    }

    #[test]
    fn steps_lead_to_the_surface() {
        let (mut positions, triangles) = octahedron();
        let refinement = Refinement { steps: 200, rate: 1e-2, triangles: 6, ..Refinement::default() };
        let mut ticks = 0;
        let mut tick = || {
            ticks += 1;
            Ok(())
        };
        let losses = refine(&mut positions, &triangles, &refinement, ball, &mut tick).unwrap();
        assert_eq!((losses.len(), ticks), (200, 200));
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        // Eight flat faces cannot lie on a ball: what is left is the share that they cut off.
        assert!(mean(&losses[180..]) < 0.7 * mean(&losses[..20]), "{:?}", (mean(&losses[..20]), mean(&losses[180..])));
    }
}
