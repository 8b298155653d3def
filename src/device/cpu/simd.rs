//! Run-time choice of the instruction set.
//!
//! Kernels are written once, generic over [`pulp::Simd`], and entered through [`SimdLevel::dispatch`], which compiles
//! them for AVX-512, AVX2 + FMA and plain scalar code. `OSSNET_SIMD=avx512|avx2|portable` forces a lower level, so that
//! every path can be tested on one machine.

use pulp::WithSimd;

use crate::error::{Error, Result};

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimdLevel {
    /// One lane, no explicit SIMD.
    Portable,
    /// Eight f32 lanes.
    Avx2,
    /// Sixteen f32 lanes.
    Avx512,
}

impl SimdLevel {
    /// The best level of this machine, or the one that `OSSNET_SIMD` names if the machine has it.
    pub fn detect() -> Self {
        let best = Self::best();
        Self::wish().ok().flatten().unwrap_or(best).min(best)
    }

    /// The level that `OSSNET_SIMD` names, if it is set.
    ///
    /// # Errors
    /// [`Error::Usage`] for another value.
    pub fn wish() -> Result<Option<Self>> {
        match std::env::var("OSSNET_SIMD").as_deref() {
            Err(std::env::VarError::NotPresent) | Ok("") => Ok(None),
            Ok("avx512") => Ok(Some(Self::Avx512)),
            Ok("avx2") => Ok(Some(Self::Avx2)),
            Ok("portable") => Ok(Some(Self::Portable)),
            other => {
                let value = other.unwrap_or("what is no text").escape_debug();
                Err(Error::Usage(format!(
                    "OSSNET_SIMD={value} names no level; use avx512, avx2 or portable, or unset it"
                )))
            }
        }
    }

    /// Every level this machine can run, lowest first (for tests).
    pub fn available() -> Vec<Self> {
        let best = Self::best();
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|level| *level <= best).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn best() -> Self {
        if pulp::x86::V4::try_new().is_some() {
            Self::Avx512
        } else if pulp::x86::V3::try_new().is_some() {
            Self::Avx2
        } else {
            Self::Portable
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn best() -> Self {
        Self::Portable
    }

    /// f32 lanes of one vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Portable => 1,
            Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
    }

    /// Runs `kernel` compiled for this level.
    pub fn dispatch<K: WithSimd>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Avx512 => {
                if let Some(simd) = pulp::x86::V4::try_new() {
                    return pulp::Simd::vectorize(simd, kernel);
                }
            }
            Self::Avx2 => {
                if let Some(simd) = pulp::x86::V3::try_new() {
                    return pulp::Simd::vectorize(simd, kernel);
                }
            }
            Self::Portable => {}
        }
        pulp::Simd::vectorize(pulp::Scalar::new(), kernel)
    }
}
