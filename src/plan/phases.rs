//! A run from its first scan to its last checkpoint, in phases: what each holds.

use serde_json::{Value, json};

use crate::device::Target;
use crate::planner::HostOverhead;

/// Bytes that a phase holds at most, where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPhase {
    /// Reading, training, validation or writing.
    pub name: &'static str,
    /// On the device.
    pub device: u64,
    /// On the host beside it: of the CPU the same memory.
    pub host: u64,
}

impl RunPhase {
    /// What decides whether the phase fits: on the CPU both sums, on CUDA the device's.
    pub fn counts(&self, target: Target) -> u64 {
        match target {
            Target::Cpu { .. } => self.device.saturating_add(self.host),
            Target::Cuda(_) => self.device,
        }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({ "name": self.name, "device_bytes": self.device, "host_bytes": self.host })
    }
}

/// What the phases of a run are made of.
pub(super) struct Parts {
    /// Beside the ledger while steps are taken.
    pub host: HostOverhead,
    /// The same while a case is scored.
    pub scoring: HostOverhead,
    /// Bytes of cases that are held through the whole run.
    pub held: u64,
    /// What reading one case takes beside those, and the case.
    pub reading: u64,
    /// What training steps reserve.
    pub steps: u64,
    /// The largest of the tensors that are saved.
    pub largest: u64,
    /// What lives between steps: weights, the optimiser's state, averages.
    pub lasting: u64,
    /// The weights alone.
    pub weights: u64,
    /// What the validation of a case reserves, the weights included.
    pub validation: Option<u64>,
}

impl Parts {
    /// The phases in their order.
    pub fn phases(&self, target: Target) -> Vec<RunPhase> {
        let program = self.host.machinery(target);
        let context = self.host.on_device(target);
        let phase = |name, device: u64, host: u64| RunPhase { name, device: device + context, host: host + program };
        // A case that is read again for its score stays beside those that are held.
        let beside = |case: u64| self.held.max(case);
        let mut phases = vec![
            phase("reading", 0, self.held + self.reading),
            phase("training", self.steps, beside(self.host.cases) + self.host.staging),
        ];
        if let Some(validation) = self.validation {
            let device = validation.saturating_sub(self.weights) + self.lasting;
            let host = beside(self.scoring.cases) + self.scoring.staging + self.scoring.results;
            phases.push(phase("validation", device, host));
        }
        let copied = match target {
            Target::Cpu { .. } => 0,
            // Tensors are copied to the host one by one.
            Target::Cuda(_) => self.largest,
        };
        phases.push(phase("writing", self.lasting, self.held + copied));
        if let Target::Cpu { .. } = target {
            // What a process once held of its arena it keeps.
            let mut most = 0;
            for phase in &mut phases {
                most = phase.device.max(most);
                phase.device = most;
            }
        }
        phases
    }
}

/// The phase that needs most.
pub fn largest(phases: &[RunPhase], target: Target) -> Option<&RunPhase> {
    // The first of equals.
    phases.iter().rev().max_by_key(|phase| phase.counts(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::CudaTarget;
    use crate::device::cpu::SimdLevel;

    #[test]
    fn each_phase_holds_its_own() {
        let host = HostOverhead { cases: 100, staging: 20, overhead: 7, ..HostOverhead::default() };
        let scoring = HostOverhead { cases: 60, staging: 30, results: 40, overhead: 7, ..HostOverhead::default() };
        let parts = Parts {
            host,
            scoring,
            held: 100,
            reading: 500,
            steps: 1000,
            largest: 60,
            lasting: 300,
            weights: 80,
            validation: Some(900),
        };
        let cpu = Target::Cpu { threads: 2, simd: SimdLevel::Portable };
        let phases = parts.phases(cpu);
        let bytes: Vec<_> = phases.iter().map(|phase| (phase.name, phase.device, phase.host)).collect();
        let expected =
            [("reading", 0, 607), ("training", 1000, 127), ("validation", 1120, 177), ("writing", 1120, 107)];
        assert_eq!(bytes, expected);
        assert_eq!(largest(&phases, cpu).unwrap().name, "validation");
        // Without validation cases there is no such phase; on a GPU its own memory decides.
        let cuda = Target::Cuda(CudaTarget::KNOWN[0].1);
        let phases = Parts { validation: None, held: 5000, ..parts }.phases(cuda);
        assert_eq!((phases.len(), phases[2].host), (3, 5060));
        assert_eq!(largest(&phases, cuda).unwrap().name, "training");
        assert_eq!(largest(&parts_of_large_cases().phases(cpu), cpu).unwrap().name, "reading");
    }

    fn parts_of_large_cases() -> Parts {
        let nothing = HostOverhead::default();
        let (steps, reading) = (10, 500);
        Parts {
            reading,
            steps,
            lasting: 1,
            weights: 1,
            host: nothing,
            scoring: nothing,
            held: 0,
            largest: 1,
            validation: None,
        }
    }
}
