//! Steps whose passes have the batch norms' statistics of all of them (`--sync-norm`), whoever makes which pass.
//!
//! Every pass meets the others at each norm: in the forward pass with the moments of its own elements, in the backward pass with
//! the two sums of the norm's gradient. What they bring is gathered from all ranks and put together in the order of the
//! passes, so that the results are the same bits however the passes are divided. A rank with several passes makes them side by
//! side, each as a coroutine that waits at the norms: all of them are in memory at once.
//!
//! Before anything is gathered the ranks settle that all have come: one that has failed says so instead.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::passes::share_of_loss;
use super::{NextBatch, Trainer};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::memory::{Phase, Role};
use crate::models::loss::{Batch, Targets};
use crate::ops::moments::Merged;
use crate::ops::workspace;
use crate::tape::{ParamId, RunningUpdate, SyncGroup};
use crate::tensor::{DType, Tensor};
use crate::train::ranks::Ranks;

/// Address range of a pass's stack, of which only what is used takes memory: as much as a main thread has.
const STACK: usize = 8 << 20;

/// A pass that has been made.
pub(super) struct Made {
    gradients: Vec<(ParamId, Tensor)>,
    /// Of the step's loss.
    share: f32,
    updates: Vec<RunningUpdate>,
}

/// What passes meet for.
#[derive(Clone, Copy)]
enum Meeting {
    Moments,
    Sum,
}

/// The passes of a step.
struct Meetings {
    device: Device,
    ranks: Ranks,
    /// How many ranks there are, in a plan too.
    size: usize,
    /// Passes of this rank.
    own: usize,
}

impl Meetings {
    /// What the passes of all ranks make together of what those of this one have `brought`.
    fn hold(&self, brought: &[Tensor], meeting: Meeting) -> Result<Tensor> {
        self.device.in_op("sync_norm", || {
            // Whatever can be refused is asked for before the others rely on this rank.
            let mut room = self.ranks.all(self.room(brought, meeting))?;
            let bytes = room.piece.buffer().len();
            if !self.device.is_plan() {
                let own = room.flat.as_ref().unwrap_or(&brought[0]).buffer();
                self.ranks.collective().gather_part(own, 0..self.own as u64 * bytes, room.gathered.unshared())?;
            }
            for pass in 0..self.own * self.size {
                // Rank r of N makes the passes r, r + N, …
                let place = (pass % self.size * self.own + pass / self.size) as u64 * bytes;
                room.piece.unshared().copy_part(0, room.gathered.buffer(), place..place + bytes)?;
                room.total.add(&room.piece)?;
            }
            Ok(room.total.made())
        })
    }

    fn room(&self, brought: &[Tensor], meeting: Meeting) -> Result<Room> {
        let (device, shape, length) = (&self.device, brought[0].shape(), brought[0].len());
        let mut flat = (self.own > 1).then(|| workspace(device, self.own * length)).transpose()?;
        if let Some(flat) = &mut flat {
            for (i, own) in brought.iter().enumerate() {
                let bytes = own.buffer().len();
                flat.unshared().copy_part(i as u64 * bytes, own.buffer(), 0..bytes)?;
            }
        }
        let piece = Tensor::empty(device, shape, DType::F32, Role::Workspace)?;
        let total = match meeting {
            Meeting::Moments => Total::Moments(Merged::new(device, piece.channels())?),
            Meeting::Sum => Total::Sum(Tensor::empty(device, shape, DType::F32, Role::Transient)?, false),
        };
        Ok(Room { flat, piece, total, gathered: workspace(device, self.own * self.size * length)? })
    }
}

/// What a meeting needs.
struct Room {
    /// What several passes of this rank bring, one behind the other.
    flat: Option<Tensor>,
    /// The same of all ranks.
    gathered: Tensor,
    /// That of one pass.
    piece: Tensor,
    total: Total,
}

/// What is put together, pass by pass.
enum Total {
    Moments(Merged),
    /// A sum, and whether it holds something.
    Sum(Tensor, bool),
}

impl Total {
    fn add(&mut self, piece: &Tensor) -> Result<()> {
        match self {
            // All passes have as many elements.
            Self::Moments(merged) => merged.add(piece, 1),
            Self::Sum(sum, begun) => match std::mem::replace(begun, true) {
                true => sum.add_part(0, piece, 0, piece.len()),
                false => sum.copy_from(piece),
            },
        }
    }

    fn made(self) -> Tensor {
        match self {
            Self::Moments(merged) => merged.moments(),
            Self::Sum(sum, _) => sum,
        }
    }
}

/// The only pass of its rank.
impl SyncGroup for Meetings {
    fn passes(&self) -> usize {
        self.own * self.size
    }

    fn is_leader(&self) -> bool {
        true
    }

    fn moments(&self, own: Tensor) -> Result<Tensor> {
        self.hold(&[own], Meeting::Moments)
    }

    fn sum(&self, own: Tensor) -> Result<Tensor> {
        self.hold(&[own], Meeting::Sum)
    }
}

/// What a waiting pass is told: what all have made together, or nothing, where they have not.
type Reply = Option<Tensor>;

type Brought = (Tensor, Meeting);

/// One of several passes of a rank.
struct OneOfSeveral {
    yielder: NonNull<Yielder<Reply, Brought>>,
    passes: usize,
    first: bool,
}

impl OneOfSeveral {
    fn wait(&self, own: Tensor, meeting: Meeting) -> Result<Tensor> {
        // SAFETY: this belongs to the tape of a pass, which lives and dies inside the coroutine whose yielder this is.
        let reply = unsafe { self.yielder.as_ref() }.suspend((own, meeting));
        reply.ok_or_else(|| Error::Device("another pass of the step has failed".into()))
    }
}

impl SyncGroup for OneOfSeveral {
    fn passes(&self) -> usize {
        self.passes
    }

    fn is_leader(&self) -> bool {
        self.first
    }

    fn moments(&self, own: Tensor) -> Result<Tensor> {
        self.wait(own, Meeting::Moments)
    }

    fn sum(&self, own: Tensor) -> Result<Tensor> {
        self.wait(own, Meeting::Sum)
    }
}

/// A pass that is being made.
struct Running {
    coroutine: Coroutine<Reply, Brought, Result<Made>>,
    /// What the ledger is to call its buffers: phase, op and layer.
    place: (Phase, &'static str, Arc<str>),
}

impl Running {
    fn go_on(&mut self, device: &Device, reply: Reply) -> CoroutineResult<Brought, Result<Made>> {
        self.change_place(device);
        let result = self.coroutine.resume(reply);
        self.change_place(device);
        result
    }

    fn change_place(&mut self, device: &Device) {
        let (phase, op, layer) = &mut self.place;
        device.ledger(|ledger| {
            *phase = ledger.set_phase(*phase);
            *op = ledger.set_op(op);
            *layer = ledger.set_layer(layer.clone());
        });
    }
}

impl Trainer {
    /// True if the batch norms of a step take the statistics of all its passes.
    pub(super) fn joins_statistics(&self) -> bool {
        self.settings.joins_statistics() && self.parameters.buffers().next().is_some()
    }

    /// The `own` passes of this rank, in their order, if they take part in the statistics of all; else none.
    pub(super) fn made_together<'a>(
        &mut self,
        own: usize,
        next: &mut NextBatch<'_, 'a>,
        updates: &mut Vec<RunningUpdate>,
    ) -> Result<VecDeque<Made>> {
        if !self.joins_statistics() {
            return Ok(VecDeque::new());
        }
        match self.meet(own, next) {
            Ok(mut made) => {
                made.iter_mut().for_each(|made| updates.append(&mut made.updates));
                Ok(made)
            }
            // All have heard of it where they met.
            Err(error) if self.ranks.know_the_error() => Err(error),
            Err(error) => self.take_no_part(error),
        }
    }

    fn meet<'a>(&mut self, own: usize, next: &mut NextBatch<'_, 'a>) -> Result<VecDeque<Made>> {
        let (device, ranks) = (self.device.clone(), self.ranks.clone());
        let meetings = Meetings { device, ranks, size: self.settings.ranks.max(1), own };
        let made = if own == 1 {
            let batch = self.arrive(next)?;
            let made = self.pass_among(&batch, Rc::new(meetings))?;
            self.look_ahead(next)?;
            [made].into()
        } else {
            let mut batches = Vec::new();
            for _ in 0..own {
                let batch = self.arrive(next)?;
                batches.push(self.apart(batch)?);
                self.look_ahead(next)?;
            }
            self.side_by_side(&batches, &meetings)?.into()
        };
        self.waited += self.feed.waited(&self.device)?;
        Ok(made)
    }

    /// A batch that stays: on a CUDA device the next ones come to where it lies.
    fn apart(&self, batch: Batch) -> Result<Batch> {
        if let Target::Cpu { .. } = self.device.target() {
            return Ok(batch);
        }
        let copy = |tensor: Tensor| tensor.copied(Role::Data);
        self.device.in_phase(Phase::Data, || {
            self.device.in_op("batch", || {
                let targets = match batch.targets {
                    Targets::Dense(labels) => Targets::Dense(copy(labels)?),
                    Targets::Points { coordinates, labels, label_volumes } => Targets::Points {
                        coordinates: copy(coordinates)?,
                        labels: copy(labels)?,
                        label_volumes: label_volumes.map(copy).transpose()?,
                    },
                };
                Ok(Batch { volumes: copy(batch.volumes)?, targets, known: batch.known })
            })
        })
    }

    /// Makes the passes of all `batches`, each of which goes on when all have come to a meeting.
    fn side_by_side(&self, batches: &[Batch], meetings: &Meetings) -> Result<Vec<Made>> {
        let mut running = Vec::new();
        for (i, batch) in batches.iter().enumerate() {
            let stack = DefaultStack::new(STACK);
            let stack =
                stack.map_err(|error| Error::Device(format!("no address range for a pass's stack ({error})")))?;
            let (passes, first) = (meetings.passes(), i == 0);
            let body = move |yielder: &Yielder<Reply, Brought>, _: Reply| {
                self.pass_among(batch, Rc::new(OneOfSeveral { yielder: NonNull::from(yielder), passes, first }))
            };
            // SAFETY: what the body borrows outlives this function, and the coroutine is dropped in it.
            let coroutine = unsafe { Coroutine::with_stack_unchecked(stack, body) };
            let place = self.device.ledger(|ledger| (ledger.phase(), ledger.op(), ledger.layer()));
            running.push(Running { coroutine, place });
        }
        let mut reply = None;
        loop {
            let (mut brought, mut ended, mut meeting) = (Vec::new(), Vec::new(), Meeting::Sum);
            for pass in &mut running {
                match pass.go_on(&self.device, reply.clone()) {
                    CoroutineResult::Yield((own, of)) => {
                        brought.push(own);
                        meeting = of;
                    }
                    CoroutineResult::Return(made) => ended.push(made),
                }
            }
            drop(reply.take());
            if brought.is_empty() {
                return ended.into_iter().collect();
            }
            let failed = ended.into_iter().find_map(Result::err);
            match failed.map_or_else(|| meetings.hold(&brought, meeting), Err) {
                Ok(made) => reply = Some(made),
                Err(error) => {
                    // Whoever waits ends with an error of its own, which says nothing new.
                    for pass in running.iter_mut().filter(|pass| !pass.coroutine.done()) {
                        while pass.go_on(&self.device, None).as_yield().is_some() {}
                    }
                    return Err(error);
                }
            }
        }
    }

    /// One pass among the others.
    fn pass_among(&self, batch: &Batch, others: Rc<dyn SyncGroup>) -> Result<Made> {
        let tape = self.tape().in_sync_group(others);
        let loss = share_of_loss(&tape, &self.parameters, &*self.network, batch, &self.settings)?;
        let value = loss.tensor().fetch()?;
        let updates = tape.take_buffer_updates();
        let gradients = tape.gradients(loss)?;
        let share = value.wait::<f32>()?.first().copied().unwrap_or(f32::NAN);
        if share.is_finite() { Ok(Made { gradients, share, updates }) } else { Err(self.find_non_finite(batch)) }
    }

    /// Adds the gradients of a pass to those in the parameters; its share of the loss.
    pub(super) fn take_in(&mut self, made: Made) -> Result<f32> {
        for (id, gradient) in made.gradients {
            let sum = match self.parameters.take_gradient(id) {
                Some(sum) => sum.plus(&gradient)?,
                None => gradient,
            };
            self.parameters.set_gradient(id, sum);
        }
        Ok(made.share)
    }
}
