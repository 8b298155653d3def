//! Steps whose passes several ranks divide among themselves, or whose gradients are added in the order of the passes.
//!
//! Rank `r` of `N` makes the passes `r`, `r + N`, … of a step. Its gradients go into one flat buffer. By default it adds those
//! of its own passes as one process does, and the buffers of all ranks are summed once a step, in the transport's order.
//! With `deterministic_reduce` each pass has gradients of its own, and after each turn of all ranks these are added to the
//! step's in the order of the passes: the same additions whoever has made the passes, and so the same bits.
//!
//! The loss and the running statistics follow the order of the passes in either case.

use std::collections::VecDeque;
use std::ops::Range;

use super::sync_norm::Made;
use super::{NextBatch, Trainer};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::memory::{Phase, Role};
use crate::nn::{Parameter, Parameters};
use crate::ops::workspace;
use crate::tape::RunningUpdate;
use crate::tensor::{DType, Tensor};
use sha2::{Digest, Sha256};

/// Numbers of a rank that are exchanged at once where all ranks see each other's: 256 KiB.
const PIECE: usize = 1 << 16;

impl Trainer {
    /// The `own` passes of this rank and what the others have made; gradients of the whole step in the parameters, and its loss.
    pub(super) fn reduced_gradients<'a>(
        &mut self,
        own: usize,
        next: &mut NextBatch<'_, 'a>,
        updates: &mut Vec<RunningUpdate>,
    ) -> Result<f32> {
        let in_order = self.settings.deterministic_reduce;
        let passes = self.passes_a_turn();
        let turns = own / passes;
        let mut ahead = self.made_together(own, next, updates)?;
        let (mut loss, mut step) = (0.0, None);
        for _ in 0..turns {
            let made = self.turn(passes, &mut ahead, next, updates);
            let (mut flat, shares) = self.settle(made, passes)?;
            shares.iter().for_each(|share| loss += share);
            let device = self.device.clone();
            device.in_phase(Phase::Optimizer, || {
                device.in_op("all_reduce", || match (in_order, &mut step) {
                    (true, Some(sum)) => self.add_in_order(&flat, sum, false),
                    (true, none) => {
                        let mut sum = Tensor::empty(&device, flat.shape(), DType::F32, Role::Gradient)?;
                        self.add_in_order(&flat, &mut sum, true)?;
                        *none = Some(sum);
                        Ok(())
                    }
                    (false, sum) => {
                        if !device.is_plan() {
                            self.ranks.collective().all_reduce(flat.unshared())?;
                        }
                        *sum = Some(flat);
                        Ok(())
                    }
                })
            })?;
        }
        let step = step.ok_or_else(|| Error::Model("a step without passes; report this".into()))?;
        spread(&mut self.parameters, &step)?;
        Ok(loss)
    }

    /// Passes that a rank makes before ranks settle that all can go on.
    fn passes_a_turn(&self) -> usize {
        let own = self.accumulate() / self.settings.ranks.max(1);
        if self.settings.deterministic_reduce { 1 } else { own }
    }

    /// Tells the others, in a step that this rank cannot begin, why not.
    ///
    /// # Errors
    /// The error of the first rank that has one, which may be `error`.
    pub(super) fn take_no_part<T>(&mut self, error: Error) -> Result<T> {
        let Err(error) = self.settle(Err(error), self.passes_a_turn()) else {
            return Err(Error::Model("a step has lost its error; report this".into()));
        };
        Err(error)
    }

    /// Some passes of this rank, of which some may have been made `ahead`: their gradients in a flat buffer, and their shares of the loss.
    fn turn<'a>(
        &mut self,
        passes: usize,
        ahead: &mut VecDeque<Made>,
        next: &mut NextBatch<'_, 'a>,
        updates: &mut Vec<RunningUpdate>,
    ) -> Result<(Tensor, Vec<f32>)> {
        self.parameters.clear_gradients();
        let mut pass = |_| match ahead.pop_front() {
            Some(made) => self.take_in(made),
            None => self.pass(next, updates),
        };
        let shares = (0..passes).map(&mut pass).collect::<Result<_>>()?;
        let device = self.device.clone();
        let flat = || device.in_op("all_reduce", || flattened(&device, &self.parameters));
        Ok((device.in_phase(Phase::Optimizer, flat)?, shares))
    }

    /// Goes on if every rank can, with the shares of the loss in the order of the passes. Whether some rank was asked to stop is
    /// known afterwards.
    fn settle(&mut self, made: Result<(Tensor, Vec<f32>)>, passes: usize) -> Result<(Tensor, Vec<f32>)> {
        if self.device.is_plan() {
            return made;
        }
        // Others may be waiting at a norm, where all begin with this.
        let made = if self.joins_statistics() { Ok(self.ranks.all(made)?) } else { made };
        let with_facts = |(flat, shares): (Tensor, Vec<f32>)| {
            let stop = [f32::from(u8::from(interrupt::is_asked_for()))];
            let facts = bytemuck::cast_slice(&[&stop[..], &shares].concat()).to_vec();
            (flat, facts)
        };
        let (flat, facts) = self.ranks.exchange(made.map(with_facts), size_of::<f32>() * (1 + passes))?;
        let facts: Vec<f32> = bytemuck::pod_collect_to_vec(&facts);
        let of_ranks: Vec<&[f32]> = facts.chunks(1 + passes).collect();
        self.stopping |= of_ranks.iter().any(|facts| facts[0] > 0.0);
        let in_turns = (0..passes).flat_map(|pass| of_ranks.iter().map(move |facts| facts[1 + pass]));
        Ok((flat, in_turns.collect()))
    }

    /// Adds the flat gradients of all ranks to `sum`, in the order of ranks; the `first` of all take its place.
    fn add_in_order(&self, flat: &Tensor, sum: &mut Tensor, first: bool) -> Result<()> {
        let ranks = self.settings.ranks.max(1);
        let mut gathered = workspace(&self.device, ranks * PIECE.min(flat.len()))?;
        if self.device.is_plan() {
            return Ok(());
        }
        for begin in (0..flat.len()).step_by(PIECE) {
            let length = PIECE.min(flat.len() - begin);
            self.ranks.collective().gather_part(flat.buffer(), bytes(begin, length), gathered.unshared())?;
            for rank in 0..ranks {
                match first && rank == 0 {
                    true => sum.unshared().copy_part(bytes(begin, 0).start, gathered.buffer(), bytes(0, length))?,
                    false => sum.add_part(begin, &gathered, rank * length, length)?,
                }
            }
        }
        Ok(())
    }

    /// Lets the running statistics follow those of the passes of all ranks, in the passes' order; `updates` are of the `own`
    /// passes of this one.
    pub(super) fn update_running(&mut self, updates: &mut [RunningUpdate], own: usize) -> Result<()> {
        let alike = self.device.is_plan() || !self.ranks.are_several() || self.joins_statistics();
        if alike || updates.is_empty() {
            return self.parameters.update_running_if(updates, self.late.as_ref().map(|late| &late.guard));
        }
        let told = updates.iter().map(RunningUpdate::to_bytes).collect::<Result<Vec<_>>>()?.concat();
        let mut all = vec![0; self.ranks.size() * told.len()];
        self.ranks.collective().all_gather(&told, &mut all)?;
        let of_ranks: Vec<&[u8]> = all.chunks(told.len()).collect();
        let (updates_a_pass, bytes_a_pass) = (updates.len() / own.max(1), told.len() / own.max(1));
        for pass in 0..own {
            for told in &of_ranks {
                let updates = &mut updates[pass * updates_a_pass..][..updates_a_pass];
                self.parameters.update_running_as_told(updates, &told[pass * bytes_a_pass..][..bytes_a_pass])?;
            }
        }
        Ok(())
    }

    /// Weights, running statistics and the optimiser's state are the same bits on every rank: nothing but equal arithmetic keeps
    /// them so.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first rank that has others.
    pub fn check_replicas(&self) -> Result<()> {
        if !self.ranks.are_several() {
            return Ok(());
        }
        let mut digest = Sha256::new();
        let values = self.parameters.iter().map(Parameter::value);
        let buffers = self.parameters.buffers().map(|(_, value, _)| value);
        for tensor in values.chain(buffers).chain(self.optimizer.state()) {
            digest.update(bytemuck::cast_slice::<f32, u8>(&tensor.to_vec()?));
        }
        let hash: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("the hash of all weights after step {}", self.optimizer.steps());
        self.ranks.agree_on(&[(&name, hash)], "all machines must compute alike: see docs/distributed.md")
    }
}

/// The gradients of all parameters that have one, in the parameters' order.
fn flattened(device: &Device, parameters: &Parameters) -> Result<Tensor> {
    let gradients = || parameters.iter().filter_map(Parameter::gradient);
    let length = gradients().map(Tensor::len).sum();
    let mut flat = Tensor::empty(device, &[length], DType::F32, Role::Gradient)?;
    let mut begin = 0;
    for gradient in gradients() {
        flat.unshared().copy_part(bytes(begin, 0).start, gradient.buffer(), bytes(0, gradient.len()))?;
        begin += gradient.len();
    }
    Ok(flat)
}

/// Puts the parts of `flat` in the places of the gradients that it was made of.
fn spread(parameters: &mut Parameters, flat: &Tensor) -> Result<()> {
    let mut begin = 0;
    for parameter in parameters.iter_mut() {
        let Some(gradient) = parameter.take_gradient() else { continue };
        // A gradient that somebody else holds too is not to change for them.
        let mut gradient = if gradient.is_unique() { gradient } else { gradient.copied(Role::Gradient)? };
        let length = gradient.len();
        gradient.unshared().copy_part(0, flat.buffer(), bytes(begin, length))?;
        begin += length;
        parameter.set_gradient(gradient);
    }
    Ok(())
}

/// Where `length` f32 from number `begin` on lie.
fn bytes(begin: usize, length: usize) -> Range<u64> {
    let of = |count: usize| (size_of::<f32>() * count) as u64;
    of(begin)..of(begin + length)
}
