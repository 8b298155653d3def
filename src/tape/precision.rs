//! What a step computes in, and what it stores its activations in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::device::Target;
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Number format of a step. Parameters, their gradients, statistics, the optimiser's state, logits and losses are f32 in
/// every one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in f32
    #[default]
    F32,
    /// Stored in f32; products of numbers rounded to 11 bits, on tensor cores (CUDA)
    Tf32,
    /// Activations stored in bf16; products of bf16 numbers, summed in f32, on tensor cores (CUDA)
    Bf16,
}

impl Precision {
    /// What activations are stored in.
    pub fn storage(self) -> DType {
        match self {
            Self::F32 | Self::Tf32 => DType::F32,
            Self::Bf16 => DType::Bf16,
        }
    }

    /// Refuses what `target` cannot compute in; `flag` chooses the device.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the flag.
    pub fn check(self, target: Target, flag: &str) -> Result<()> {
        match (self, target) {
            (Self::F32, _) | (_, Target::Cuda(_)) => Ok(()),
            (_, Target::Cpu { .. }) => {
                Err(Error::Usage(format!("--precision {self} needs a CUDA device; add {flag}, or omit it for f32")))
            }
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        })
    }
}
