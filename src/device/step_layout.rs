//! Steps whose buffers are placed by their lifetimes.
//!
//! What a step asks for is known before it runs. A plan writes it down and places it afterwards, all at once
//! ([`crate::memory::layout`]). A device that computes has the same step gone through by a plan first, and puts each request
//! where the plan's layout has it. The layout lies above all that lives when the step begins, and depends on the step's
//! requests alone. Where a step asks for something else than was foreseen (a graph that is replayed asks for nothing), the
//! rest of it is placed by best fit: what is live is never given away twice, whatever a layout says.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::{Device, State, UNLIMITED};
use crate::error::{Error, Result};
use crate::memory::layout::{Layout, Lifetime};
use crate::memory::{Arena, Block, EntryId, LayoutMaker, OutOfMemory, Request, Role, RoleBytes, StepLog};

/// Blocks from here on have no place yet: their offset is this and the number of their request in the step.
const UNPLACED: u64 = 1 << 62;

/// Steps whose layouts are kept; more are made again.
const KEPT: usize = 16;

/// How requests are placed.
#[derive(Default)]
pub(super) enum Placing {
    /// One after the other, by best fit.
    #[default]
    BestFit,
    /// When the step is over, above `base`. Its events begin at number `first` of the ledger's log.
    Afterwards { log: Box<StepLog>, base: u64, first: usize },
    /// As foreseen, above `base`; request number `next` comes next.
    Ahead { layout: Arc<Layout>, base: u64, next: usize },
}

/// Layouts that were made and that are known.
#[derive(Default)]
pub(super) struct Layouts {
    maker: LayoutMaker,
    /// Of the steps of a plan that is asked for them.
    made: Option<Vec<Arc<Layout>>>,
    known: HashMap<u64, Foreseen>,
    /// Requests of the last step, of a plan that is [watched](Device::watch) and whose steps need no good places.
    watched: Option<Vec<Request>>,
}

impl Layouts {
    /// True of a plan whose every request somebody will make.
    pub(super) fn are_followed(&self) -> bool {
        self.made.is_some()
    }
}

/// The layouts of steps to come.
#[derive(Clone, Debug, Default)]
pub struct Foreseen(Arc<[Arc<Layout>]>);

impl Foreseen {
    /// That of step `number` (from 0): steps after the last that was rehearsed are like it.
    fn of_step(&self, number: usize) -> Option<&Arc<Layout>> {
        self.0.get(number).or(self.0.last())
    }
}

impl State {
    /// A block for a request that the budget admits.
    pub(super) fn block(&mut self, bytes: u64) -> Option<Block> {
        let granted = Arena::granted(bytes)?;
        match &mut self.placing {
            Placing::BestFit => {}
            Placing::Afterwards { log, .. } => {
                return Some(Block { offset: UNPLACED + log.asked() as u64, bytes: granted });
            }
            Placing::Ahead { layout, base, next } => {
                let foreseen = layout.requests.get(*next).filter(|(bytes, _)| *bytes == granted);
                let place = foreseen.and_then(|(_, offset)| base.checked_add(*offset));
                *next += 1;
                if let Some(offset) = place {
                    if offset.saturating_add(granted) > self.arena.capacity() {
                        return None;
                    }
                    if let Some(block) = self.arena.allocate_at(offset, granted) {
                        return Some(block);
                    }
                }
                self.placing = Placing::BestFit;
            }
        }
        self.arena.allocate(bytes)
    }

    /// Enters a block in the ledger.
    pub(super) fn enter(&mut self, role: Role, bytes: u64, block: Block) -> EntryId {
        let live = self.ledger.live();
        let entry = self.ledger.allocate(role, bytes, block);
        if let Placing::Afterwards { log, .. } = &mut self.placing {
            let ledger = &self.ledger;
            log.allocated(entry, |from| Request {
                lifetime: Lifetime { bytes: block.bytes, from, until: from + 1 },
                op: ledger.op(),
                layer: ledger.layer(),
                phase: ledger.phase(),
                live,
            });
        }
        entry
    }

    /// Gives a buffer's block back.
    pub(super) fn release(&mut self, entry: EntryId) {
        let Some(block) = self.ledger.free(entry) else { return };
        if let Placing::Afterwards { log, .. } = &mut self.placing {
            log.freed(entry);
        }
        if block.offset < UNPLACED {
            self.arena.free(block);
        }
    }

    /// What decides where the next requests of a step go, beside the holes.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        self.arena.fingerprint().hash(&mut hash);
        if let Placing::Ahead { base, next, .. } = &self.placing {
            (base, next).hash(&mut hash);
        }
        hash.finish()
    }

    /// Places what a step has asked for; the error if the budget has no room for it.
    fn place_afterwards(&mut self, mut log: StepLog, base: u64, first: usize) -> Result<(), Box<OutOfMemory>> {
        let lifetimes = log.end();
        let (offsets, height) = match self.layouts.watched {
            None => self.layouts.maker.place(lifetimes),
            Some(_) => self.layouts.maker.stack(lifetimes),
        };
        let room = self.arena.capacity().saturating_sub(base);
        if height > room {
            let request = log.at_the_peak();
            return Err(Box::new(OutOfMemory {
                op: request.map_or("", |request| request.op),
                layer: request.map_or_else(|| "".into(), |request| request.layer.clone()),
                phase: request.map_or(self.ledger.phase(), |request| request.phase),
                requested: request.map_or(height, |request| request.lifetime.bytes),
                budget: self.budget,
                promised: self.promised,
                largest_hole: self.arena.largest_hole(),
                live: request.map_or(RoleBytes::default(), |request| request.live),
                remedies: Vec::new(),
                needs: None,
            }));
        }
        let layout = log.layout(offsets, height);
        let place = |offset: u64| match offset.checked_sub(UNPLACED) {
            Some(request) => base + layout.requests.get(request as usize).map_or(0, |(_, offset)| *offset),
            None => offset,
        };
        let arena = &mut self.arena;
        self.ledger.relocate_log(first, place);
        self.ledger.relocate_live(|block| match block.offset < UNPLACED {
            true => Some(block),
            false => arena.allocate_at(place(block.offset), block.bytes).or_else(|| arena.allocate(block.bytes)),
        });
        arena.reserve(base + height);
        if let Some(made) = &mut self.layouts.made {
            made.push(Arc::new(layout));
        }
        if let Some(watched) = &mut self.layouts.watched {
            *watched = log.into_requests();
        }
        Ok(())
    }
}

impl Device {
    /// The layouts of steps that `rehearse` takes on a plan, to be given to [`Device::place_ahead`] when they are taken here.
    /// They are rehearsed once for each `key`. None on a plan, which needs none, and where the rehearsal fails: the step itself
    /// says why.
    pub fn foresee(&self, key: impl Hash, rehearse: impl FnOnce(&Device) -> Result<()>) -> Foreseen {
        if self.is_plan() {
            return Foreseen::default();
        }
        let mut hash = DefaultHasher::new();
        key.hash(&mut hash);
        let key = hash.finish();
        if let Some(known) = self.state().layouts.known.get(&key) {
            return known.clone();
        }
        let plan = Device::plan_for(self.target(), UNLIMITED);
        plan.state().layouts.made = Some(Vec::new());
        let rehearsed = rehearse(&plan);
        let made = plan.state().layouts.made.take().unwrap_or_default();
        let foreseen = Foreseen(if rehearsed.is_ok() { made.into() } else { Arc::default() });
        let known = &mut self.state().layouts.known;
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(key, foreseen.clone());
        foreseen
    }

    /// Runs `work`, step `number` (from 0) of those that were foreseen, with its buffers placed by their lifetimes. A step
    /// within a step belongs to it.
    ///
    /// # Errors
    /// What `work` reports, or [`Error::OutOfMemory`] of a plan whose budget does not hold the layout.
    pub fn place_ahead<T>(&self, foreseen: &Foreseen, number: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.begin_placing(foreseen, number) {
            return work();
        }
        let result = work();
        self.end_placing(result.is_ok())?;
        result
    }

    /// False if a step within a step begins.
    fn begin_placing(&self, foreseen: &Foreseen, number: usize) -> bool {
        let mut state = self.state();
        if !matches!(state.placing, Placing::BestFit) {
            return false;
        }
        if state.layouts.watched.is_some() {
            drop(state.work.take());
        }
        let base = state.arena.end();
        state.placing = match (self.is_plan(), foreseen.of_step(number)) {
            (true, _) => Placing::Afterwards { log: Box::default(), base, first: state.ledger.recorded() },
            // A layout that does not fit is not followed: memory then runs out where most is live, not early on.
            (false, Some(layout)) if base.saturating_add(layout.height) <= state.arena.capacity() => {
                Placing::Ahead { layout: layout.clone(), base, next: 0 }
            }
            (false, _) => Placing::BestFit,
        };
        true
    }

    fn end_placing(&self, done: bool) -> Result<()> {
        let mut state = self.state();
        match std::mem::take(&mut state.placing) {
            Placing::Afterwards { log, base, first } if done => {
                state.place_afterwards(*log, base, first).map_err(Error::OutOfMemory)
            }
            _ => Ok(()),
        }
    }

    /// From now on keeps what the last step asked for and what its ops did; repeated pieces are left out, but for their costs.
    /// Buffers are given any place: what is reserved means nothing.
    #[cfg(feature = "train")]
    pub(crate) fn watch(&self) {
        let mut state = self.state();
        state.layouts.watched = Some(Vec::new());
        state.work.record(true);
    }

    /// The requests and costs of the last step since [`Device::watch`].
    #[cfg(feature = "train")]
    pub(crate) fn watched(&self) -> (Vec<Request>, Vec<crate::memory::OpCost>) {
        let mut state = self.state();
        (state.layouts.watched.take().unwrap_or_default(), state.work.take())
    }

    /// Of a plan: what it holds and where it has room. A piece of work that begins as the last one of its size did repeats
    /// it. `None` where pieces are not compared.
    pub(crate) fn piece_state(&self) -> Option<(RoleBytes, u64)> {
        if let Placing::Afterwards { log, .. } = &self.state().placing {
            return Some((RoleBytes::default(), log.held()));
        }
        self.unread_state()
    }

    /// Writes down that a loop over pieces begins.
    pub(crate) fn loop_begins(&self) {
        if let Placing::Afterwards { log, .. } = &mut self.state().placing {
            log.loop_begins();
        }
    }

    /// Writes down that a piece begins, which may repeat the last.
    pub(crate) fn piece_begins(&self, repeated: bool) {
        if let Placing::Afterwards { log, .. } = &mut self.state().placing {
            log.piece_begins(repeated);
        }
    }

    /// Writes down that the loop ends.
    pub(crate) fn loop_ends(&self) {
        if let Placing::Afterwards { log, .. } = &mut self.state().placing {
            log.loop_ends();
        }
    }
}
