//! Double-buffered batches: the next one is uploaded while a CUDA device works on the one before.
//!
//! The thread that draws a batch also packs it into page-locked memory, labels as bytes. When a pass has been launched, the next
//! batch is uploaded beside it into the other of two buffers (places) on the device, and the next pass waits for it there. A place is
//! written again when the pass that reads it is done. On other devices a batch is uploaded when its pass begins.

use std::borrow::Borrow;
use std::ops::Range;
use std::time::Duration;

use super::passes::out_of_batches;
use super::{NextBatch, Trainer};
use crate::data::prefetch::Queue;
use crate::device::cuda::{Pinned, StreamEvent, Upload};
use crate::device::{Backend, Device, Foreseen, Target};
use crate::error::{Error, Result};
use crate::memory::{Phase, Role};
use crate::models::loss::{Batch, Targets};
use crate::tensor::{DType, Tensor};
use crate::train::batch::{HostBatch, widened};

/// Steps of a process after which all are alike.
const DIFFERENT_STEPS: usize = 2;

/// A batch as it was drawn.
pub(super) struct Drawn {
    /// Without its numbers, if they are packed.
    host: HostBatch,
    pinned: Option<Pinned>,
    sent: Option<Upload>,
}

impl Drawn {
    /// Shapes and, if they are not packed, numbers.
    pub(super) fn host(&self) -> &HostBatch {
        &self.host
    }

    /// Packs `host` for `device`; any thread may.
    pub(super) fn new(device: &Device, host: HostBatch) -> Result<Self> {
        let Backend::Cuda(cuda) = device.backend() else { return Ok(Self { host, pinned: None, sent: None }) };
        let parts = host.parts();
        let pinned = cuda.pin(parts.last().map_or(0, |part| part.end), |bytes| host.pack(bytes))?;
        Ok(Self { host: host.emptied(), pinned: Some(pinned), sent: None })
    }
}

/// A batch for a pass: drawn for it, or one of a plan, which has many uses.
pub(super) enum Given<'a> {
    Own(Box<Drawn>),
    Lent(&'a HostBatch),
}

impl Borrow<HostBatch> for Given<'_> {
    fn borrow(&self) -> &HostBatch {
        match self {
            Self::Own(drawn) => &drawn.host,
            Self::Lent(host) => host,
        }
    }
}

/// Where a batch lies on the device.
struct Place {
    /// As [`HostBatch::arrays`] has them, classes as bytes.
    arrays: Vec<Tensor>,
    /// From here on nothing reads them.
    passed: Option<StreamEvent>,
}

/// What is between the host's batches and the device.
#[derive(Default)]
pub(super) struct Feed {
    /// None, or two.
    places: Vec<Place>,
    /// The place of the next pass.
    turn: usize,
    /// The next pass's batch, or why there is none.
    coming: Option<Result<Drawn>>,
    /// The copies of the batches of the last two passes, the older one first, each with the end of the pass before it.
    copies: [Option<(StreamEvent, Upload)>; 2],
    /// [`Batch::known`] of the batches that lie in the places.
    known: [Option<f32>; 2],
}

impl Feed {
    /// The batch of the next pass, if it was asked for.
    pub(super) fn take(&mut self) -> Option<Result<Drawn>> {
        self.coming.take()
    }

    /// The next pass's batch is `next`.
    pub(super) fn expect(&mut self, next: Drawn) {
        self.coming = Some(Ok(next));
    }

    /// Forgets the batch of the next pass.
    pub(super) fn forget(&mut self) {
        (self.coming, self.copies) = (None, [None, None]);
    }

    fn fits(&self, host: &HostBatch) -> bool {
        let place = self.places.first();
        place.is_some_and(|place| {
            place.arrays.iter().map(Tensor::shape).eq(host.arrays().map(|(array, _)| &*array.shape))
        })
    }

    /// Two places for batches like `host`.
    fn prepare(&mut self, device: &Device, host: &HostBatch) -> Result<()> {
        self.places.clear();
        let kind = |is_class| if is_class { DType::U8 } else { DType::F32 };
        let place = || -> Result<Place> {
            let arrays =
                host.arrays().map(|(array, is_class)| Tensor::empty(device, &array.shape, kind(is_class), Role::Data));
            Ok(Place { arrays: arrays.collect::<Result<_>>()?, passed: None })
        };
        self.places =
            device.in_phase(Phase::Data, || device.in_op("batch", || Ok::<_, Error>(vec![place()?, place()?])))?;
        self.pass(device, 0)?;
        self.pass(device, 1)
    }

    /// Nothing that is launched from now on reads place `which`.
    fn pass(&mut self, device: &Device, which: usize) -> Result<()> {
        if let (Backend::Cuda(cuda), Some(place)) = (device.backend(), self.places.get_mut(which)) {
            place.passed = Some(cuda.record_event()?);
        }
        Ok(())
    }

    /// Sends `drawn` to the place of the next pass, which fits.
    fn send(&self, device: &Device, drawn: &mut Drawn) -> Result<()> {
        if let (Backend::Cuda(cuda), Some(pinned)) = (device.backend(), drawn.pinned.take()) {
            let place = &self.places[self.turn];
            let parts: Vec<(u64, Range<usize>)> =
                place.arrays.iter().map(Tensor::address).zip(drawn.host.parts()).collect();
            let passed =
                place.passed.as_ref().ok_or_else(|| Error::Device("a place without an event; report this".into()))?;
            drawn.sent = Some(cuda.begin_upload(pinned, &parts, passed)?);
        }
        Ok(())
    }

    /// The batch `given` as tensors, for what is launched from now on.
    fn receive(&mut self, device: &Device, given: Given<'_>) -> Result<Batch> {
        self.known[self.turn] = Borrow::<HostBatch>::borrow(&given).known;
        if let (Given::Own(mut drawn), Backend::Cuda(cuda)) = (given, device.backend()) {
            self.send(device, &mut drawn)?;
            // A pass that follows another begins when that one has passed.
            let before = self.places[1 - self.turn].passed.clone();
            if let (Some(sent), Some(before)) = (drawn.sent, before) {
                cuda.wait_in_stream(&sent)?;
                self.copies.swap(0, 1);
                self.copies[1] = Some((before, sent));
            }
        }
        self.turn = 1 - self.turn;
        self.batch(1 - self.turn)
    }

    /// How long the device waited for the batch of the oldest pass that this was not asked of, which is done.
    pub(super) fn waited(&mut self, device: &Device) -> Result<Duration> {
        let copy = self.copies[0].take().or_else(|| self.copies[1].take());
        match (device.backend(), copy) {
            (Backend::Cuda(cuda), Some((before, sent))) => Ok(Duration::from_secs_f64(cuda.stall(&before, &sent)?)),
            _ => Ok(Duration::ZERO),
        }
    }

    /// The place of the batch of the last pass.
    pub(super) fn last_place(&self) -> usize {
        1 - self.turn
    }

    /// What lies in place `which`.
    pub(super) fn batch(&self, which: usize) -> Result<Batch> {
        let mut arrays = self.places[which].arrays.iter().map(|array| match array.dtype() {
            DType::U8 => widened(array),
            _ => Ok(array.clone()),
        });
        let mut next = || arrays.next().transpose();
        let missing = || Error::Model("a batch without labels; report this".into());
        let (volumes, first) = (next()?.ok_or_else(missing)?, next()?.ok_or_else(missing)?);
        let targets = match next()? {
            None => Targets::Dense(first),
            Some(labels) => Targets::Points { coordinates: first, labels, label_volumes: next()? },
        };
        Ok(Batch { volumes, targets, known: self.known[which] })
    }
}

impl Trainer {
    /// Makes places for batches like `host`, if those that are there do not fit. The pass before must not need them any more.
    pub(super) fn prepare(&mut self, host: &HostBatch) -> Result<()> {
        let device = self.device.clone();
        if matches!(device.target(), Target::Cuda(_)) && !self.feed.fits(host) {
            self.catch_up()?;
            self.feed.prepare(&device, host)?;
        }
        Ok(())
    }

    /// The batch of the pass that begins, on the device.
    pub(super) fn arrive<'a>(&mut self, next: &mut NextBatch<'_, 'a>) -> Result<Batch> {
        let given = match self.feed.coming.take() {
            Some(drawn) => Given::Own(Box::new(drawn?)),
            None => next(self).ok_or_else(out_of_batches)??,
        };
        let given = match (given, self.device.backend()) {
            // A batch that is lent to a real device travels as any other.
            (Given::Lent(host), Backend::Cuda(_)) => Given::Own(Box::new(Drawn::new(&self.device, host.clone())?)),
            (given, _) => given,
        };
        self.prepare(given.borrow())?;
        let (device, feed) = (self.device.clone(), &mut self.feed);
        device.in_phase(Phase::Data, || {
            device.in_op("batch", || match device.target() {
                Target::Cpu { .. } => Borrow::<HostBatch>::borrow(&given).upload(&device),
                Target::Cuda(_) => feed.receive(&device, given),
            })
        })
    }

    /// A pass was launched: sends the next batch on its way, if there is one. Only a real CUDA device is ahead of its host.
    pub(super) fn look_ahead<'a>(&mut self, next: &mut NextBatch<'_, 'a>) -> Result<()> {
        let device = self.device.clone();
        let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
        self.feed.pass(&device, 1 - self.feed.turn)?;
        // Page-locked memory goes back before another batch is asked for: no more exist than were counted.
        for (_, sent) in self.feed.copies.iter_mut().flatten() {
            cuda.reclaim(sent)?;
        }
        self.feed.coming = next(self).map(|given| match given? {
            Given::Own(mut drawn) => {
                if self.feed.fits(&drawn.host) {
                    self.feed.send(&device, &mut drawn)?;
                }
                Ok(*drawn)
            }
            Given::Lent(host) => Drawn::new(&device, host.clone()),
        });
        Ok(())
    }

    /// Where the buffers of steps on batches like `first` will lie.
    pub(super) fn foresee(&self, first: &HostBatch) -> Foreseen {
        let (architecture, settings, graph) = (self.network.architecture(), &self.settings, self.graph.is_some());
        let of = format!("{architecture:?} {settings:?} {graph} {:?}", first.shapes());
        self.device.foresee(("training step", of), |plan| {
            let mut same = Self::new(plan, architecture, settings.clone())?;
            if graph {
                same.use_graphs()?;
            }
            same.prepare(first)?;
            (0..DIFFERENT_STEPS).try_for_each(|number| {
                plan.place_ahead(&Foreseen::default(), number, || {
                    same.take(1.0, &mut |_| Some(Ok(Given::Lent(first)))).map(drop)
                })
            })
        })
    }

    /// Draws the first batch of a step, unless that was done, and makes room for it; where the step's buffers will lie.
    pub(super) fn first_batch(&mut self, queue: &mut Queue<'_, Result<Drawn>>) -> Result<Foreseen> {
        let first = self.feed.take().or_else(|| self.next_batch(queue)).ok_or_else(out_of_batches)??;
        self.prepare(first.host())?;
        let foreseen = self.foresee(first.host());
        self.feed.expect(first);
        Ok(foreseen)
    }

    /// The next batch; none after the last.
    pub(super) fn next_batch(&mut self, queue: &mut Queue<'_, Result<Drawn>>) -> Option<Result<Drawn>> {
        let before = queue.waited();
        let batch = self.device.in_phase(Phase::Data, || queue.next());
        if !matches!(self.device.backend(), Backend::Cuda(_)) {
            self.waited += queue.waited() - before;
        }
        batch
    }
}
