//! What the folded decoder is made of: layers with the values that they have for one volume.

use super::Parameters;
use super::layers::{Act, EPSILON, Linear, NormAct};
use crate::error::Result;
use crate::ops::fused_decoder::{DecoderLayer, DecoderNorm};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// The layer `linear`, with the share of a `shared` `[1, features]` end of its input in its bias, then `norm` under a
/// condition `[1, latent]` with its running statistics, then `act`.
///
/// # Errors
/// Another kind of normalisation than the conditional one, a layer without bias, or no memory.
pub fn folded_layer(
    tape: &Tape,
    parameters: &Parameters,
    linear: &Linear,
    shared: Option<&Var>,
    norm: Option<(&NormAct, &Var)>,
    act: Option<&Act>,
) -> Result<DecoderLayer> {
    let [weight, bias] = linear.weight_and_bias(tape, parameters, shared)?.map(|var| var.tensor());
    let norm = norm.map(|(norm, latent)| {
        let statistics = norm.running(parameters)?.clone();
        let [gamma, beta] = norm.conditional_affine(tape, parameters, latent)?.map(|var| var.tensor());
        Ok::<_, crate::Error>(DecoderNorm { statistics, epsilon: EPSILON, gamma, beta })
    });
    let coefficients = act.map(|act| act.vars(tape, parameters)).unwrap_or_default();
    let coefficients: Vec<Tensor> = coefficients.iter().map(Var::tensor).collect();
    Ok(DecoderLayer { weight, bias, norm: norm.transpose()?, coefficients })
}
