//! The autodiff tape: reverse mode, define by run, with recomputation built in.
//!
//! A [`Var`] is a *promise* of a tensor. While the user holds it the tensor is there. Afterwards the tape keeps it only if
//! a later op said that its backward needs it ([`Op::needs`]), and even then not if the op that made it is cheap to run
//! again ([`Op::recompute`]): then the backward pass recomputes it from its inputs, recursively, just before use. So the
//! default step stores pre-activations only, and a stricter policy is a matter of marking more vars, not of other code.
//!
//! An op may have several outputs: each has a gradient of its own, or is a constant, and is recomputed for itself.
//! Ops are pure functions of their inputs: running one again gives the same bits (dropout draws from a counter, norm
//! statistics are inputs). Buffers are freed at their last use, in the forward as in the backward pass, and a backward
//! that is the last user of a value may overwrite it ([`Backward::take_value`]).

mod backward;
mod cost;
mod op;
mod parameters;
mod precision;
mod running_stats;
mod sync_group;
mod var;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::{Phase, Role};
use crate::rng::Rng;
use crate::tensor::{DType, Tensor, first_not_finite};
pub use backward::Backward;
pub use cost::TapeCost;
pub use op::{Cost, Needs, Op, OutputSpec};
pub use parameters::{BufferId, ParamId, Parameter, ParameterKind, Parameters};
pub use precision::Precision;
pub(crate) use running_stats::RunningUpdate;
pub use sync_group::SyncGroup;
pub use var::Var;
use var::{Handle, Slot};

struct Node {
    op: Box<dyn Op>,
    inputs: Vec<Rc<Slot>>,
    outputs: Vec<Rc<Slot>>,
    layer: Arc<str>,
}

impl Node {
    /// True if an output is recomputed: then the op's inputs are read in the backward pass, all of them.
    fn is_recomputed(&self) -> bool {
        self.outputs.iter().any(|output| output.recompute.get())
    }
}

/// What a tape is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, dropout on, gradients recorded.
    Train,
    /// Running statistics, dropout off, gradients recorded.
    EvalWithGradients,
    /// Running statistics, dropout off, nothing recorded.
    Eval,
}

/// Records ops and plays them backwards.
pub struct Tape {
    device: Device,
    mode: Mode,
    nodes: RefCell<Vec<Node>>,
    parameters: RefCell<Vec<Rc<Slot>>>,
    updates: RefCell<Vec<RunningUpdate>>,
    first_not_finite: RefCell<Option<String>>,
    check_finite: Cell<bool>,
    recompute_all: Cell<bool>,
    precision: Cell<Precision>,
    /// Seed of the tape's random ops, and how many were handed out.
    seeds: Cell<(u64, u64)>,
    sync_group: Option<Rc<dyn SyncGroup>>,
}

impl Tape {
    /// An empty tape.
    pub fn new(device: &Device, mode: Mode) -> Self {
        Self {
            device: device.clone(),
            mode,
            nodes: RefCell::default(),
            parameters: RefCell::default(),
            updates: RefCell::default(),
            first_not_finite: RefCell::default(),
            check_finite: Cell::new(false),
            recompute_all: Cell::new(false),
            precision: Cell::default(),
            seeds: Cell::new((0, 0)),
            sync_group: None,
        }
    }

    /// The same tape with another seed for its random ops.
    pub fn with_seed(self, seed: u64) -> Self {
        self.seeds.set((seed, 0));
        self
    }

    /// The same tape with products of another precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        self.precision.set(precision);
        self
    }

    /// How precise products are, and what they store.
    pub fn precision(&self) -> Precision {
        self.precision.get()
    }

    /// Products that are recorded inside `work` have this precision.
    pub fn at<T>(&self, precision: Precision, work: impl FnOnce() -> T) -> T {
        let former = self.precision.replace(precision);
        let result = work();
        self.precision.set(former);
        result
    }

    /// A fresh seed for a random op (dropout): a function of the tape's seed and of how many were asked for.
    pub fn next_seed(&self) -> u64 {
        let (seed, count) = self.seeds.get();
        self.seeds.set((seed, count + 1));
        Rng::new(seed).split(count).next_u64()
    }

    /// The device that ops run on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the tape is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// True if normalisations use the batch's statistics and dropout drops.
    pub fn is_training(&self) -> bool {
        self.mode == Mode::Train
    }

    /// A leaf that no gradient flows to: data.
    pub fn constant(&self, tensor: Tensor) -> Var {
        self.leaf(tensor, false, None)
    }

    /// A leaf whose gradient is wanted: see [`Tape::gradient`].
    pub fn input(&self, tensor: Tensor) -> Var {
        self.leaf(tensor, self.mode != Mode::Eval, None)
    }

    /// A parameter. Repeated calls with one id give one leaf.
    pub fn parameter(&self, parameters: &Parameters, id: ParamId) -> Var {
        let known = self.parameters.borrow().iter().find(|slot| slot.parameter == Some(id)).cloned();
        match known {
            Some(slot) => Var(Rc::new(Handle(slot))),
            None => {
                let parameter = parameters.get(id);
                let wanted = self.mode != Mode::Eval && parameter.trainable();
                let var = self.leaf(parameter.value().clone(), wanted, Some(id));
                self.parameters.borrow_mut().push(var.0.0.clone());
                var
            }
        }
    }

    fn leaf(&self, tensor: Tensor, needs_gradient: bool, parameter: Option<ParamId>) -> Var {
        let slot = self.slot(tensor, needs_gradient, None, parameter);
        // A parameter may be asked for again at any time: the tape itself counts as a reader.
        slot.pending.set(usize::from(parameter.is_some()));
        Var(Rc::new(Handle(slot)))
    }

    fn slot(
        &self,
        tensor: Tensor,
        needs_gradient: bool,
        producer: Option<(usize, usize)>,
        parameter: Option<ParamId>,
    ) -> Rc<Slot> {
        Rc::new(Slot {
            shape: tensor.shape().to_vec(),
            dtype: tensor.dtype(),
            value: RefCell::new(Some(tensor)),
            gradient: RefCell::default(),
            needs_gradient,
            producer,
            pending: Cell::new(0),
            recompute: Cell::new(false),
            held: Cell::new(true),
            parameter,
        })
    }

    /// Runs `op` on `inputs` and records it; its first output.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn apply(&self, op: impl Op + 'static, inputs: &[&Var]) -> Result<Var> {
        Ok(self.apply_boxed(Box::new(op), inputs)?.swap_remove(0))
    }

    /// Runs `op` on `inputs` and records it; all its outputs, of which there is at least one.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn apply_several(&self, op: impl Op + 'static, inputs: &[&Var]) -> Result<Vec<Var>> {
        self.apply_boxed(Box::new(op), inputs)
    }

    fn apply_boxed(&self, op: Box<dyn Op>, inputs: &[&Var]) -> Result<Vec<Var>> {
        let slots: Vec<Rc<Slot>> = inputs.iter().map(|var| var.0.0.clone()).collect();
        let tensors: Vec<Tensor> = inputs.iter().map(|var| var.tensor()).collect();
        let specs = self.outputs_of(&*op, &tensors)?;
        let outputs = self.run(&*op, &tensors, &specs, &|_| true)?;
        drop(tensors);
        let outputs = outputs.into_iter().flatten().zip(specs.iter().map(|spec| spec.constant)).collect();
        Ok(self.record(op, slots, outputs))
    }

    /// Records `op` with an `output` that was made by other means: it equals what [`Op::forward`] makes of the inputs.
    ///
    /// # Errors
    /// What the device's driver says when the output is looked at.
    pub fn apply_made(&self, op: impl Op + 'static, inputs: &[&Var], output: Tensor) -> Result<Var> {
        self.look_at(op.name(), &output)?;
        let slots = inputs.iter().map(|var| var.0.0.clone()).collect();
        Ok(self.record(Box::new(op), slots, vec![(output, false)]).swap_remove(0))
    }

    /// Records an op that made `outputs`, each with whether it is constant.
    fn record(&self, op: Box<dyn Op>, slots: Vec<Rc<Slot>>, outputs: Vec<(Tensor, bool)>) -> Vec<Var> {
        let needs_gradient = self.mode != Mode::Eval && slots.iter().any(|slot| slot.needs_gradient);
        // What no gradient flows through is a constant, and is recorded only if it is to be recomputed.
        let promised = self.mode != Mode::Eval && self.recompute_all.get();
        let recorded = (needs_gradient || promised) && outputs.iter().any(|(_, constant)| !constant);
        let (node, again) = (self.nodes.borrow().len(), op.recompute() || promised);
        let outputs: Vec<Rc<Slot>> = (0..)
            .zip(outputs)
            .map(|(k, (output, constant))| {
                let flows = recorded && !constant;
                let slot = self.slot(output, flows && needs_gradient, flows.then_some((node, k)), None);
                slot.recompute.set(flows && again);
                slot
            })
            .collect();
        if recorded {
            let needs = op.needs();
            for (i, input) in slots.iter().enumerate() {
                if needs.input(i) || again {
                    input.add_reader();
                }
            }
            if needs.output {
                outputs[0].add_reader();
            }
            let layer = self.device.ledger(|ledger| ledger.layer());
            self.nodes.borrow_mut().push(Node { op, inputs: slots, outputs: outputs.clone(), layer });
        }
        outputs.into_iter().map(|slot| Var(Rc::new(Handle(slot)))).collect()
    }

    /// Keeps `var` for the backward pass even if its op is cheap to run again: the end of a recomputed stretch.
    pub fn keep(&self, var: &Var) {
        let slot = &var.0.0;
        if !slot.recompute.replace(false) {
            return;
        }
        if slot.pending.get() > 0 {
            slot.mark_saved();
        }
        // Inputs that were kept only to recompute it are kept no longer.
        if let Some((producer, _)) = slot.producer
            && let Some(node) = self.nodes.borrow().get(producer)
            && !node.is_recomputed()
        {
            let needs = node.op.needs();
            node.inputs
                .iter()
                .enumerate()
                .filter(|(i, _)| !needs.input(*i))
                .for_each(|(_, input)| input.remove_reader());
        }
    }

    /// Ops recorded inside `work` are run again in the backward pass instead of keeping their outputs.
    pub fn recomputed<T>(&self, work: impl FnOnce() -> T) -> T {
        let former = self.recompute_all.replace(true);
        let result = work();
        self.recompute_all.set(former);
        result
    }

    /// Notes that a running statistic is to be updated from `statistics` (`[2, groups]`: mean, biased variance, each of
    /// `count` elements) once the step is done.
    pub fn update_buffer(&self, buffer: BufferId, statistics: &Var, count: usize, momentum: f32) {
        let statistics = statistics.tensor();
        self.updates.borrow_mut().push(RunningUpdate { buffer, statistics, count, momentum });
    }

    /// Applies the updates noted by [`Tape::update_buffer`]. [`Tape::backward`] does so by itself.
    ///
    /// # Errors
    /// What the device's driver says.
    pub fn apply_buffer_updates(&self, parameters: &mut Parameters) -> Result<()> {
        parameters.update_running(&self.take_buffer_updates())
    }

    /// Takes away the updates noted by [`Tape::update_buffer`], so that [`Tape::backward`] leaves the statistics as they are.
    pub(crate) fn take_buffer_updates(&self) -> Vec<RunningUpdate> {
        self.updates.take()
    }

    /// From now on looks at every op's output for NaN and infinity; see [`Tape::first_not_finite`].
    pub fn check_finite(&self) {
        self.check_finite.set(true);
    }

    /// Layer and name of the first op whose output was not finite, if [`Tape::check_finite`] was called.
    pub fn first_not_finite(&self) -> Option<String> {
        self.first_not_finite.borrow().clone()
    }

    /// Plays the tape backwards from `loss` (one element) and adds the gradients to the parameters' own.
    ///
    /// # Errors
    /// No memory, or a `loss` that is not a scalar of this tape.
    pub fn backward(&self, loss: Var, parameters: &mut Parameters) -> Result<()> {
        if loss.shape().iter().product::<usize>() != 1 {
            return Err(Error::shape("backward", format!("the loss has shape {:?}, not one element", loss.shape())));
        }
        self.device.in_phase(Phase::Backward, || self.backward_from(loss, parameters))
    }

    fn backward_from(&self, loss: Var, parameters: &mut Parameters) -> Result<()> {
        let seed = Tensor::from_slice(&self.device, loss.shape(), Role::Transient, &[1.0])?;
        *loss.0.0.gradient.borrow_mut() = Some(seed);
        drop(loss);
        for slot in self.parameters.borrow().iter() {
            if let Some(id) = slot.parameter {
                *slot.gradient.borrow_mut() = parameters.take_gradient(id);
            }
        }
        let result = self.play_backwards();
        for slot in self.parameters.take() {
            if let (Some(id), Some(gradient)) = (slot.parameter, slot.gradient.take()) {
                parameters.set_gradient(id, gradient);
            }
        }
        result?;
        self.apply_buffer_updates(parameters)
    }

    /// Plays the tape backwards from `outputs` with their gradients; those of the leaves are then to be had by
    /// [`Tape::take_gradient`]. For ops that are made of ops, which run on a tape of their own.
    ///
    /// # Errors
    /// No memory, or a gradient of another shape than its output's.
    pub fn pull(&self, outputs: Vec<(Var, Tensor)>) -> Result<()> {
        for (output, gradient) in outputs {
            *output.0.0.gradient.borrow_mut() = Some(gradient.reshaped(output.shape())?);
        }
        self.play_backwards()
    }

    /// The gradient that was left at a leaf made by [`Tape::input`], which then has none.
    pub fn take_gradient(&self, var: &Var) -> Option<Tensor> {
        var.0.0.gradient.take()
    }

    /// The gradient that [`Tape::backward`] left at a leaf made by [`Tape::input`].
    pub fn gradient(&self, var: &Var) -> Option<Tensor> {
        var.0.0.gradient.borrow().clone()
    }

    fn play_backwards(&self) -> Result<()> {
        while let Some(node) = { self.nodes.borrow_mut().pop() } {
            let gradients: Vec<_> = node.outputs.iter().map(|output| output.gradient.take()).collect();
            let needs = node.op.needs();
            if gradients.iter().any(Option::is_some) {
                let layer = self.device.ledger(|ledger| ledger.set_layer(node.layer.clone()));
                let mut backward = Backward::new(self, &node, gradients);
                let result = self.device.in_op(node.op.name(), || node.op.backward(&mut backward));
                self.device.record_cost(node.op.name(), || node.stored(node.op.backward_cost(&node.shapes())).into());
                self.device.ledger(|ledger| ledger.set_layer(layer));
                result?;
            }
            let again = node.is_recomputed();
            for (i, input) in node.inputs.iter().enumerate() {
                if needs.input(i) || again {
                    input.remove_reader();
                }
            }
            if needs.output {
                node.outputs[0].remove_reader();
            }
        }
        Ok(())
    }

    /// The outputs of an op, the first in front.
    fn outputs_of(&self, op: &dyn Op, inputs: &[Tensor]) -> Result<Vec<OutputSpec>> {
        let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
        let dtypes: Vec<DType> = inputs.iter().map(Tensor::dtype).collect();
        let (shape, dtype) = (op.output_shape(&shapes)?, op.output_dtype(&dtypes));
        let first = OutputSpec { shape, dtype, constant: op.is_constant() };
        Ok([first].into_iter().chain(op.further_outputs(&shapes)).collect())
    }

    /// Allocates the `wanted` outputs and runs the op.
    fn run(
        &self,
        op: &dyn Op,
        inputs: &[Tensor],
        specs: &[OutputSpec],
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Option<Tensor>>> {
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let outputs = self.device.in_op(op.name(), || {
            let empty = |k: usize| {
                let OutputSpec { shape, dtype, .. } = &specs[k];
                wanted(k).then(|| Tensor::empty(&self.device, shape, *dtype, Role::Transient)).transpose()
            };
            // Statistics, which are kept, before the first output, which may be gone soon.
            let further = (1..specs.len()).map(empty).collect::<Result<Vec<_>>>()?;
            let mut outputs: Vec<Option<Tensor>> = [empty(0)?].into_iter().chain(further).collect();
            op.forward_several(&self.device, &inputs, &mut outputs)?;
            outputs.iter_mut().flatten().for_each(Tensor::imitate_bf16);
            Ok::<_, Error>(outputs)
        })?;
        self.device.record_cost(op.name(), || {
            let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
            // Statistics beside the first output are a few numbers, always f32: they do not count.
            let counted = outputs.iter().zip(specs).enumerate().filter(|(k, (_, spec))| *k == 0 || !spec.constant);
            let tensors = inputs.iter().copied().chain(counted.filter_map(|(_, (output, _))| output.as_ref()));
            cost::stored(op.forward_cost(&shapes), tensors.map(|tensor| (tensor.shape(), tensor.dtype()))).into()
        });
        outputs.iter().flatten().try_for_each(|output| self.look_at(op.name(), output))?;
        Ok(outputs)
    }

    /// Runs a recorded op for its output `k` alone.
    fn run_one(&self, op: &dyn Op, inputs: &[Tensor], k: usize) -> Result<Tensor> {
        let specs = self.outputs_of(op, inputs)?;
        Ok(self.run(op, inputs, &specs, &|other| other == k)?.swap_remove(k).expect("what was asked for"))
    }

    /// Remembers where an output was not finite for the first time, if asked to.
    fn look_at(&self, op: &str, output: &Tensor) -> Result<()> {
        if self.check_finite.get() && first_not_finite(&self.device, &[output])?.is_some() {
            let layer = self.device.ledger(|ledger| ledger.layer());
            let place = if layer.is_empty() { op.to_string() } else { format!("{op} of {layer}") };
            self.first_not_finite.borrow_mut().get_or_insert(place);
        }
        Ok(())
    }

    /// The value of a slot, recomputed if it was not kept; it then stays until its last reader is done.
    fn materialise(&self, slot: &Rc<Slot>) -> Result<Tensor> {
        let value = self.value_of(slot)?;
        if slot.pending.get() > 0 {
            slot.value.borrow_mut().get_or_insert_with(|| value.clone());
        }
        Ok(value)
    }

    /// The value of a slot. What is made on the way stays if it was dear; a cheap op's output is recomputed when its own
    /// turn comes.
    fn value_of(&self, slot: &Rc<Slot>) -> Result<Tensor> {
        if let Some(value) = slot.value.borrow().as_ref() {
            return Ok(value.clone());
        }
        let (producer, which) = slot.producer.expect("only produced values are recomputed");
        let dear = |slot: &Rc<Slot>| slot.producer.is_some_and(|(node, _)| !self.nodes.borrow()[node].op.recompute());
        // The op and its inputs are cloned out of reach of the borrow, for the inputs may have to be recomputed as well.
        let inputs: Vec<Rc<Slot>> = self.nodes.borrow()[producer].inputs.clone();
        let inputs = inputs
            .iter()
            .map(|input| if dear(input) { self.materialise(input) } else { self.value_of(input) })
            .collect::<Result<Vec<_>>>()?;
        let nodes = self.nodes.borrow();
        let node = &nodes[producer];
        let layer = self.device.ledger(|ledger| ledger.set_layer(node.layer.clone()));
        let value = self.run_one(node.op.as_ref(), &inputs, which);
        self.device.ledger(|ledger| ledger.set_layer(layer));
        value
    }
}
