//! The decoder with its first and second derivatives by the coordinates, exactly: Taylor arithmetic.
//!
//! A *jet* is a value with its three first and six second derivatives by position. Linear layers act on each of the ten
//! components alike (biases on the value only) and run on the device as products of ten times the rows; normalisations are
//! linear in evaluation; an activation mixes components by the chain rule,
//! `y_i = f'(x)·x_i`, `y_ij = f'(x)·x_ij + f''(x)·x_i·x_j`, on the host in f64. So one pass costs ten of the plain decoder's
//! and gives gradient and Hessian; a backward pass through a backward pass would cost about as much.

use super::{Decoder, DecoderBlock, Encoding, OssNet, PatchMapping};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::models::config::{FOURIER_FREQUENCIES, PATCH_FEATURES};
use crate::nn::Parameters;
use crate::nn::layers::{Act, Conv, Linear, NormAct};
use crate::ops;
use crate::ops::patch_conv::PatchSource;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Components of a jet: the value, the derivatives by x, y, z, and those by xx, xy, xz, yy, yz, zz.
pub const COMPONENTS: usize = 10;

/// The axes of the second derivatives, in order.
pub const SECOND: [(usize, usize); 6] = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];

/// Jets of several features at several points: `[10, points, features]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Jets {
    /// Points.
    pub points: usize,
    /// Features of each.
    pub features: usize,
    /// The components.
    pub data: Vec<f32>,
}

impl Jets {
    /// Zeros.
    pub fn zeros(points: usize, features: usize) -> Self {
        Self { points, features, data: vec![0.0; COMPONENTS * points * features] }
    }

    /// One component, `[points, features]`.
    pub fn component(&self, k: usize) -> &[f32] {
        &self.data[k * self.points * self.features..][..self.points * self.features]
    }

    /// One component for writing.
    pub fn component_mut(&mut self, k: usize) -> &mut [f32] {
        let size = self.points * self.features;
        &mut self.data[k * size..][..size]
    }

    /// The ten components of one feature of one point.
    pub fn at(&self, point: usize, feature: usize) -> [f64; COMPONENTS] {
        std::array::from_fn(|k| f64::from(self.component(k)[point * self.features + feature]))
    }

    /// Adds a vector to the values of every point.
    fn shift(&mut self, bias: &[f32]) {
        let features = self.features;
        for row in self.component_mut(0).chunks_exact_mut(features) {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
    }

    /// Each element `x` becomes `f(x)` by the chain rule.
    fn apply(&mut self, f: impl Fn(f64) -> [f64; 3]) {
        let size = self.points * self.features;
        for i in 0..size {
            let x: [f64; COMPONENTS] = std::array::from_fn(|k| f64::from(self.data[k * size + i]));
            let [value, slope, curvature] = f(x[0]);
            self.data[i] = value as f32;
            for (k, x) in x.iter().enumerate().skip(1).take(3) {
                self.data[k * size + i] = (slope * x) as f32;
            }
            for (k, (a, b)) in SECOND.into_iter().enumerate() {
                self.data[(4 + k) * size + i] = (slope * x[4 + k] + curvature * x[1 + a] * x[1 + b]) as f32;
            }
        }
    }

    /// Features of several jets side by side.
    fn concat(parts: &[&Jets]) -> Self {
        let (points, features) = (parts[0].points, parts.iter().map(|part| part.features).sum());
        let mut data = Vec::with_capacity(COMPONENTS * points * features);
        for row in 0..COMPONENTS * points {
            parts.iter().for_each(|part| data.extend_from_slice(&part.data[row * part.features..][..part.features]));
        }
        Self { points, features, data }
    }
}

/// What evaluates a decoder.
struct Pass<'a> {
    tape: &'a Tape,
    parameters: &'a Parameters,
}

impl OssNet {
    /// Jets of the logits, given those of the coordinates (`[10, points, 3]`, voxel indices of the network's own shape)
    /// and of the patches (`[10, points, channels·343]`; `None` for an O-Net). Derivatives are by whatever those of the inputs
    /// are by. One volume.
    ///
    /// # Errors
    /// Missing patches, or no memory.
    pub fn decode_jets(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        encoding: &Encoding,
        coordinates: Jets,
        patches: Option<&Jets>,
    ) -> Result<Jets> {
        let pass = Pass { tape, parameters };
        let (config, decoder) = (&self.config, &self.decoder);
        let coordinates = match config.reference {
            true => coordinates,
            false => normalised(coordinates, config.volume_shape),
        };
        let mut parts = Vec::new();
        if let Some(table) = decoder.frequencies {
            parts.push(waves(&coordinates, &parameters.buffer(table).to_vec()?));
        }
        parts.push(coordinates);
        match (&decoder.patch_mapping, patches) {
            (None, _) => {}
            (Some(mapping), Some(patches)) => parts.push(pass.patch_features(mapping, patches)?),
            (Some(_), None) => {
                return Err(Error::Model(format!("configuration {} needs patches or a volume", config.name)));
            }
        }
        let x = Jets::concat(&parts.iter().collect::<Vec<_>>());
        pass.blocks(decoder, config.skip_encoder, &encoding.latents, x)
    }
}

impl Pass<'_> {
    fn blocks(&self, decoder: &Decoder, skip_encoder: bool, latents: &Var, mut x: Jets) -> Result<Jets> {
        let input_latent = ops::select(self.tape, latents, 0)?;
        for (i, block) in decoder.blocks.iter().enumerate() {
            let latent = if skip_encoder { ops::select(self.tape, latents, i + 1)? } else { input_latent.clone() };
            let shared = (i == 0).then_some(&input_latent);
            x = self.block(block, &x, shared, &latent)?;
        }
        self.linear(&decoder.last, &x, None)
    }

    fn block(&self, block: &DecoderBlock, x: &Jets, shared: Option<&Var>, latent: &Var) -> Result<Jets> {
        let y = self.linear(&block.first, x, shared)?;
        let y = self.norm_act(&block.first_norm, &block.act, y, latent, None)?;
        let y = self.linear(&block.second, &y, None)?;
        let residual = block.residual.as_ref().map(|layer| self.linear(layer, x, shared)).transpose()?;
        self.norm_act(&block.second_norm, &block.final_act, y, latent, Some(residual.as_ref().unwrap_or(x)))
    }

    /// A linear layer, whose input may go on with features that are equal for all points.
    fn linear(&self, layer: &Linear, x: &Jets, shared: Option<&Var>) -> Result<Jets> {
        let weight = self.tape.parameter(self.parameters, layer.weight);
        let rows = self.tape.constant(self.tensor(&[COMPONENTS * x.points, x.features], &x.data)?);
        let y = ops::linear(self.tape, &rows, &weight, Some(0..x.features), None)?;
        let mut y = Jets { points: x.points, features: weight.shape()[0], data: y.tensor().to_vec()? };
        let bias = layer.bias.map(|bias| self.tape.parameter(self.parameters, bias));
        if let Some(shared) = shared {
            let columns = Some(x.features..weight.shape()[1]);
            y.shift(&ops::linear(self.tape, shared, &weight, columns, bias.as_ref())?.tensor().to_vec()?);
        } else if let Some(bias) = bias {
            y.shift(&bias.tensor().to_vec()?);
        }
        Ok(y)
    }

    fn norm_act(&self, norm: &NormAct, act: &Act, mut x: Jets, latent: &Var, residual: Option<&Jets>) -> Result<Jets> {
        let (scale, shift) = norm.folded(self.tape, self.parameters, latent)?;
        for row in x.data.chunks_exact_mut(scale.len()) {
            row.iter_mut().zip(&scale).for_each(|(x, scale)| *x *= scale);
        }
        x.shift(&shift);
        if let Some(residual) = residual {
            x.data.iter_mut().zip(&residual.data).for_each(|(x, residual)| *x += residual);
        }
        self.activate(act, &mut x)?;
        Ok(x)
    }

    fn activate(&self, act: &Act, x: &mut Jets) -> Result<()> {
        let (activation, coefficients) = act.taylor(self.parameters)?;
        x.apply(|x| activation.taylor(&coefficients, x));
        Ok(())
    }

    fn patch_features(&self, mapping: &PatchMapping, patches: &Jets) -> Result<Jets> {
        let mut hidden = self.patch_conv(&mapping.first, patches)?;
        self.activate(&mapping.first_act, &mut hidden)?;
        let mut features = self.patch_conv(&mapping.second, &hidden)?;
        self.activate(&mapping.second_act, &mut features)?;
        Ok(features)
    }

    fn patch_conv(&self, conv: &Conv, x: &Jets) -> Result<Jets> {
        let weight = self.tape.parameter(self.parameters, conv.weight);
        let shape = [COMPONENTS * x.points, x.features / PATCH_FEATURES, PATCH_FEATURES];
        let patches = self.tape.constant(self.tensor(&shape, &x.data)?);
        let y = ops::patch_conv(self.tape, PatchSource::Patches(&patches), &weight, None)?;
        let mut y = Jets { points: x.points, features: y.shape()[1] * PATCH_FEATURES, data: y.tensor().to_vec()? };
        if let Some(bias) = conv.bias {
            let bias = self.parameters.get(bias).value().to_vec()?;
            let bias: Vec<f32> = bias.iter().flat_map(|&bias| [bias; PATCH_FEATURES]).collect();
            y.shift(&bias);
        }
        Ok(y)
    }

    fn tensor(&self, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        Tensor::from_slice(self.tape.device(), shape, Role::Transient, values)
    }
}

/// Voxel indices → `[−1, 1]` in each axis.
fn normalised(mut coordinates: Jets, shape: [usize; 3]) -> Jets {
    let scale = shape.map(|side| 2.0 / side.saturating_sub(1).max(1) as f32);
    coordinates.data.iter_mut().enumerate().for_each(|(i, x)| *x *= scale[i % 3]);
    coordinates.shift(&[-1.0; 3]);
    coordinates
}

/// `[cos(2π·c·b) | sin(2π·c·b)]` for the frequencies `b` `[3, F]`.
fn waves(coordinates: &Jets, table: &[f32]) -> Jets {
    let mut phases = Jets::zeros(coordinates.points, FOURIER_FREQUENCIES);
    for (row, phases) in phases.data.chunks_exact_mut(FOURIER_FREQUENCIES).enumerate() {
        for (f, phase) in phases.iter_mut().enumerate() {
            let part = |axis: usize| {
                f64::from(coordinates.data[3 * row + axis]) * f64::from(table[axis * FOURIER_FREQUENCIES + f])
            };
            let cycles: f64 = (0..3).map(part).sum();
            // Whole cycles are dropped from values, as the op does before f32 loses them.
            *phase = (if row < coordinates.points { cycles - cycles.round() } else { cycles }) as f32;
        }
    }
    let mut sines = phases.clone();
    let tau = std::f64::consts::TAU;
    let turned = |s: f64, c: f64| [c, -tau * s, -tau * tau * c];
    phases.apply(|x| turned((tau * x).sin(), (tau * x).cos()));
    sines.apply(|x| {
        let (s, c) = (tau * x).sin_cos();
        [s, tau * c, -tau * tau * s]
    });
    Jets::concat(&[&phases, &sines])
}
