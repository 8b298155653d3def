//! Launch of `kernels/optimizer.cu`: one step of all tensors.

use bytemuck::{Pod, Zeroable};

use super::{Lookahead, OptimizerSettings, Part, UpdateRule};
use crate::device::{Cuda, LaunchConfig, THREADS};
use crate::error::Result;
use crate::nn::multi_tensor::{CHUNK, TENSORS};
use crate::tensor::Tensor;

/// The twin of `Entry` in the kernel's file.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    value: u64,
    gradient: u64,
    state: u64,
    length: u64,
    first_block: u32,
    group: u32,
}

/// The twin of `Table` in the kernel's file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Table {
    entries: [Entry; TENSORS],
    guard: u64,
    count: u32,
    rule: u32,
    slots: u32,
    lookahead: u32,
    alpha: f32,
    first: f32,
    second: f32,
    first_new: f32,
    second_new: f32,
    added_decay: f32,
    epsilon: f32,
    adaptive: f32,
    size: [f32; 2],
    shrink: [f32; 2],
    correction: [f32; 2],
}

impl Table {
    /// What all tensors share in step `step`; `rates` are those of weights and of Padé coefficients.
    fn new(settings: &OptimizerSettings, step: u64, rates: [f32; 2]) -> Self {
        let prepared = rates.map(|rate| settings.rule.prepare(rate, step));
        let mut table =
            Self { slots: settings.slots() as u32, shrink: [1.0; 2], correction: [1.0; 2], ..Zeroable::zeroed() };
        table.size = prepared.each_ref().map(|prepared| prepared.size);
        if let Some(Lookahead { every, alpha }) = settings.lookahead {
            table.alpha = alpha;
            table.lookahead = match step {
                1 => 1,
                _ if (step - 1).is_multiple_of(every.max(1)) => 2,
                _ => 0,
            };
        }
        match settings.rule {
            UpdateRule::Sgd { momentum, weight_decay } => {
                (table.rule, table.first, table.added_decay) = (0, momentum, weight_decay);
            }
            UpdateRule::Adam { betas, epsilon, weight_decay, decoupled } => {
                (table.rule, table.first, table.second, table.epsilon) = (1, betas.0, betas.1, epsilon);
                (table.first_new, table.second_new) = (1.0 - betas.0, 1.0 - betas.1);
                table.correction = prepared.each_ref().map(|prepared| prepared.adaptive.unwrap_or(1.0));
                match decoupled {
                    true => table.shrink = rates.map(|rate| 1.0 - rate * weight_decay),
                    false => table.added_decay = weight_decay,
                }
            }
            UpdateRule::RAdam { betas, epsilon } => {
                (table.rule, table.first, table.second, table.epsilon) = (2, betas.0, betas.1, epsilon);
                (table.first_new, table.second_new) = super::rule::shares(betas);
                table.adaptive = if prepared[0].adaptive.is_some() { 1.0 } else { 0.0 };
            }
        }
        table
    }
}

/// Step `step` (from 1) of all `parts`, unless `guard` is not finite.
pub(super) fn step(
    cuda: &Cuda,
    settings: &OptimizerSettings,
    step: u64,
    rates: [f32; 2],
    parts: &mut [Part<'_>],
    guard: Option<&Tensor>,
) -> Result<()> {
    let mut table = Table { guard: guard.map_or(0, Tensor::address), ..Table::new(settings, step, rates) };
    for parts in parts.chunks_mut(TENSORS) {
        let mut blocks = 0;
        for (entry, part) in table.entries.iter_mut().zip(parts.iter_mut()) {
            *entry = Entry {
                value: part.value.address(),
                gradient: part.gradient.address(),
                state: part.state.address(),
                length: part.value.len() as u64,
                first_block: blocks as u32,
                group: u32::from(part.activation),
            };
            blocks += part.value.len().div_ceil(CHUNK);
        }
        table.count = parts.len() as u32;
        cuda.kernel("optimizer_step").value(table).launch(LaunchConfig::new(blocks, THREADS))?;
    }
    Ok(())
}
