//! A request that does not fit, in words: who holds what, and what would help.

use std::sync::Arc;

use super::budget::format_bytes;
use super::role::{Phase, RoleBytes};
use crate::order;

/// A request that does not fit in the budget.
#[derive(Debug)]
pub struct OutOfMemory {
    /// The op that asked.
    pub op: &'static str,
    /// Its layer.
    pub layer: Arc<str>,
    /// Its phase.
    pub phase: Phase,
    /// Bytes it asked for.
    pub requested: u64,
    /// The device's budget in bytes.
    pub budget: u64,
    /// The budget that the device was given, where it turned out to have less: its driver refused.
    pub promised: Option<u64>,
    /// The largest free piece.
    pub largest_hole: u64,
    /// Live bytes by role.
    pub live: RoleBytes,
    /// What would fit, where someone who knows the model has asked a plan.
    pub remedies: Vec<Remedy>,
    /// The budget that would do, where it was asked of a plan.
    pub needs: Option<u64>,
}

/// A change that would fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The flags that ask for it.
    pub change: String,
    /// Bytes that it would reserve.
    pub needs: u64,
}

impl std::error::Error for OutOfMemory {}

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if self.layer.is_empty() { String::new() } else { format!(" of {}", self.layer) };
        // What is brought to the device before any op is of no network.
        let what = if self.op.is_empty() { "the data" } else { self.op };
        write!(f, "out of memory: {what}{place} wants {}", format_bytes(self.requested))?;
        write!(f, " but {} of {} are in use", format_bytes(self.live.total()), format_bytes(self.budget))?;
        let mut held: Vec<_> = self.live.iter().filter(|(_, bytes)| *bytes > 0).collect();
        order::by_key_descending(&mut held, |(_, bytes)| (*bytes).into());
        let held = held.iter().take(4).map(|(role, bytes)| format!("{} {}", role.name(), format_bytes(*bytes)));
        let more = self
            .promised
            .map(|promised| format!("the device has no more, whatever the budget of {}", format_bytes(promised)));
        let held = Some(held.collect::<Vec<_>>().join(", ")).filter(|held| !held.is_empty());
        let aside = held.into_iter().chain(more).collect::<Vec<_>>().join("; ");
        write!(f, "{}; ", if aside.is_empty() { aside } else { format!(" ({aside})") })?;
        if self.remedies.is_empty() {
            // Of what is there before the first step, and of inference, no setting takes less.
            match self.phase {
                Phase::Setup if self.op.is_empty() => {}
                Phase::Setup => write!(f, "choose a smaller network, or ")?,
                Phase::Evaluate => {}
                _ => write!(f, "use fewer points, a smaller batch or volume, or ")?,
            }
            return match (self.promised, self.needs) {
                (Some(_), _) => write!(f, "free memory that other programs hold"),
                (None, None) => write!(f, "raise --memory-budget"),
                (None, Some(bytes)) => write!(f, "raise --memory-budget to {}MiB", bytes.div_ceil(1 << 20)),
            };
        }
        write!(f, "it fits with ")?;
        for (i, remedy) in self.remedies.iter().enumerate() {
            let between = if i == 0 { "" } else { ", or with " };
            write!(f, "{between}{} ({})", remedy.change, format_bytes(remedy.needs))?;
        }
        match (self.promised, self.needs) {
            (_, None) => Ok(()),
            (None, Some(bytes)) => write!(f, "; as it is it needs --memory-budget {}MiB", bytes.div_ceil(1 << 20)),
            (Some(_), Some(bytes)) => write!(f, "; as it is it needs {}", format_bytes(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::error::Error;
    use crate::memory::Role;
    use crate::tensor::{DType, Tensor};

    #[test]
    fn data_alone_that_do_not_fit_are_of_no_network() {
        let device = Device::cpu(1, 1000).unwrap();
        let refused = Tensor::empty(&device, &[500], DType::F32, Role::Data).err().unwrap();
        let line = refused.to_string();
        assert_eq!(line, "out of memory: the data wants 2.0 KiB but 0 B of 1000 B are in use; raise --memory-budget");
        let Error::OutOfMemory(mut refused) = refused else { panic!("{line}") };
        refused.promised = Some(2000);
        let line = refused.to_string();
        assert!(
            line.contains("in use (the device has no more, whatever the budget of 2.0 KiB); free memory"),
            "{line}"
        );
    }
}
