//! Where the time of a run goes: seconds of each op in each layer and phase, beside the work that its page states.
//!
//! A profile takes the time between two notes of the device's record of work ([`Device::record_cost`]). What no op accounts for
//! (waiting for a batch, updates of weights, a search's own steps) is noted where a phase begins or ends, so that all seconds
//! since the profile's start belong to some row. On CUDA time is taken by events of the stream, which [`Device::read_profile`]
//! reads after each step: this waits for the device, and a profiled run is slower by it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Backend, Device};
use crate::error::Result;
use crate::memory::{OpCost, Phase};

/// Passes that a profile keeps one by one, for a timeline; all later ones are in the sums only.
pub const MOST_PASSES: usize = 20_000;

/// All passes of one op in one layer and phase.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRow {
    /// The op; empty for what is none.
    pub op: &'static str,
    /// The layer; empty outside of layers.
    pub layer: Arc<str>,
    /// When.
    pub phase: Phase,
    /// How often.
    pub passes: u64,
    /// Seconds of all of them.
    pub seconds: f64,
    /// Floating-point operations of all of them, a fused multiply-add being two.
    pub flops: f64,
    /// Bytes that all of them must move whatever the implementation.
    pub bytes: f64,
}

/// One pass, for a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// Its work.
    pub cost: OpCost,
    /// Seconds from the profile's start to its own.
    pub start: f64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Where the time went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Sums, those of the most seconds first.
    pub rows: Vec<ProfileRow>,
    /// The first [`MOST_PASSES`] passes in their order.
    pub passes: Vec<Pass>,
    /// Seconds of all rows.
    pub seconds: f64,
}

/// A profile that is being taken.
pub(super) struct Recording {
    last: Instant,
    sums: HashMap<(&'static str, Arc<str>, &'static str), ProfileRow>,
    passes: Vec<Pass>,
    seconds: f64,
    /// On CUDA, passes whose events were not read yet.
    unread: Vec<OpCost>,
}

impl Recording {
    fn new() -> Self {
        Self { last: Instant::now(), sums: HashMap::new(), passes: Vec::new(), seconds: 0.0, unread: Vec::new() }
    }

    /// Notes a pass that ends now.
    fn note(&mut self, cost: OpCost) {
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        self.add(cost, seconds);
    }

    fn add(&mut self, cost: OpCost, seconds: f64) {
        let row = self.sums.entry((cost.op, cost.layer.clone(), cost.phase.name())).or_insert_with(|| ProfileRow {
            op: cost.op,
            layer: cost.layer.clone(),
            phase: cost.phase,
            passes: 0,
            seconds: 0.0,
            flops: 0.0,
            bytes: 0.0,
        });
        row.passes += 1;
        row.seconds += seconds;
        row.flops += cost.flops as f64;
        row.bytes += cost.bytes as f64;
        if self.passes.len() < MOST_PASSES {
            self.passes.push(Pass { cost, start: self.seconds, seconds });
        }
        self.seconds += seconds;
    }

    fn finish(self) -> Profile {
        let mut rows: Vec<ProfileRow> = self.sums.into_values().collect();
        // By name where the time is the same, for a map has no order.
        rows.sort_unstable_by(|a, b| {
            let names = |row: &ProfileRow| (row.layer.clone(), row.op, row.phase.name());
            b.seconds.total_cmp(&a.seconds).then_with(|| names(a).cmp(&names(b)))
        });
        Profile { rows, passes: self.passes, seconds: self.seconds }
    }
}

impl Device {
    /// Starts a profile; one that is being taken is dropped.
    pub fn start_profile(&self) {
        self.state().profile = Some(Recording::new());
        self.start_clock();
    }

    /// Ends the profile and gives it; an empty one if none was started.
    ///
    /// # Errors
    /// What the driver says.
    pub fn take_profile(&self) -> Result<Profile> {
        self.note_rest();
        self.read_events()?;
        Ok(self.state().profile.take().map_or_else(Profile::default, Recording::finish))
    }

    /// Reads the events that a profile on CUDA has set so far, so that a long run keeps few of them.
    ///
    /// # Errors
    /// What the driver says.
    pub fn read_profile(&self) -> Result<()> {
        if matches!(self.backend(), Backend::Cuda(_)) && self.state().profile.is_some() {
            self.read_events()?;
            self.start_clock();
        }
        Ok(())
    }

    fn read_events(&self) -> Result<()> {
        if self.state().profile.is_none() {
            return Ok(());
        }
        let seconds = self.stop_clock()?;
        if let Some(recording) = &mut self.state().profile {
            // The last time is that after the last pass.
            let rest = OpCost { op: "", layer: "".into(), phase: Phase::Setup, flops: 0, bytes: 0 };
            let costs: Vec<OpCost> = recording.unread.drain(..).chain([rest]).collect();
            costs.into_iter().zip(seconds).for_each(|(cost, seconds)| recording.add(cost, seconds));
        }
        Ok(())
    }

    /// Where a profile is taken, gives the seconds since its last note to what runs now, which is no op.
    pub(super) fn note_rest(&self) {
        if self.state().profile.is_some() {
            self.profile_cost(self.ledger(|ledger| OpCost {
                op: ledger.op(),
                layer: ledger.layer(),
                phase: ledger.phase(),
                flops: 0,
                bytes: 0,
            }));
            if let Backend::Cuda(cuda) = self.backend() {
                cuda.mark();
            }
        }
    }

    /// Notes a pass in the profile that is being taken; on CUDA its end is then to be marked.
    pub(super) fn profile_cost(&self, cost: OpCost) {
        let on_cuda = matches!(self.backend(), Backend::Cuda(_));
        match &mut self.state().profile {
            Some(recording) if on_cuda => recording.unread.push(cost),
            Some(recording) => recording.note(cost),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::SimdLevel;

    fn sum(profile: &Profile, of: impl Fn(&ProfileRow) -> f64) -> f64 {
        profile.rows.iter().map(of).sum()
    }

    #[test]
    fn every_second_belongs_to_a_row_and_work_to_its_layer() {
        let device = Device::cpu(1, 1 << 20).unwrap();
        let pause = || std::thread::sleep(std::time::Duration::from_millis(4));
        let started = Instant::now();
        device.start_profile();
        pause();
        device.in_phase(Phase::Forward, || {
            for layer in ["a", "b", "a"] {
                device.in_layer(layer, || {
                    pause();
                    device.record_cost("linear", || [100, 20]);
                });
            }
            pause();
        });
        let profile = device.take_profile().unwrap();
        let wall = started.elapsed().as_secs_f64();

        let row = |op, layer, phase| {
            let found = profile.rows.iter().find(|row| (row.op, &*row.layer, row.phase) == (op, layer, phase));
            found.unwrap_or_else(|| panic!("no row {op} of {layer}: {profile:?}"))
        };
        let twice = row("linear", "a", Phase::Forward);
        assert_eq!((twice.passes, twice.flops, twice.bytes), (2, 200.0, 40.0));
        assert!(twice.seconds >= 0.008 && row("linear", "b", Phase::Forward).seconds >= 0.004);
        // What came before the phase belongs to no forward pass; what came after its last op does.
        assert!(row("", "", Phase::Setup).seconds >= 0.004);
        assert!(row("", "", Phase::Forward).seconds >= 0.004);
        assert!((sum(&profile, |row| row.seconds) - profile.seconds).abs() < 1e-9);
        assert!(profile.seconds >= 0.02 && profile.seconds <= wall, "{} of {wall}", profile.seconds);
        assert_eq!(profile.passes.len() as f64, sum(&profile, |row| row.passes as f64));
        assert!(profile.passes.windows(2).all(|pair| (pair[0].start + pair[0].seconds - pair[1].start).abs() < 1e-9));
        assert!(profile.rows.is_sorted_by(|a, b| a.seconds >= b.seconds));
    }

    #[test]
    fn without_a_start_nothing_is_kept() {
        let device = Device::plan(1, SimdLevel::Portable, 1 << 20);
        device.in_phase(Phase::Forward, || device.record_cost("linear", || [1, 1]));
        assert_eq!(device.take_profile().unwrap(), Profile::default());
    }
}
