//! Names and lines of help of the library's choices that are flags: only this module knows clap.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::tape::Precision;
#[cfg(feature = "train")]
use crate::train::{
    config::{OptimizerName, Preset, ScheduleName},
    settings::{Augment, SyncNorm},
};

macro_rules! flag_values {
    ($type:ty { $($variant:ident: $name:literal, $help:literal;)+ }) => {
        impl ValueEnum for $type {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$variant),+]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                Some(match self { $(Self::$variant => PossibleValue::new($name).help($help)),+ })
            }
        }
    };
}

flag_values!(Precision {
    F32: "f32", "Everything in f32";
    Tf32: "tf32", "Stored in f32; products of numbers rounded to 11 bits, on tensor cores (CUDA)";
    Bf16: "bf16", "Activations stored in bf16; products of bf16 numbers, summed in f32, on tensor cores (CUDA)";
});

#[cfg(feature = "train")]
flag_values!(Preset {
    Auto: "auto", "For your own data: the whole configuration is chosen as `ossnet plan` chooses it";
    Sample: "sample", "High rates, few points: for volumes of some hundred thousand voxels";
    Brats: "brats", "The official defaults for BraTS (four encoder blocks)";
    Lits: "lits", "The official defaults for LiTS (five encoder blocks)";
});

#[cfg(feature = "train")]
flag_values!(OptimizerName {
    Sgd: "sgd", "Stochastic gradient descent with momentum";
    Adam: "adam", "Kingma & Ba 2015";
    AdamW: "adamw", "Loshchilov & Hutter 2019";
    RAdam: "radam", "Liu et al. 2020";
});

#[cfg(feature = "train")]
flag_values!(ScheduleName {
    Constant: "constant", "Always the same";
    MultiStep: "multi-step", "In steps at epochs";
    Cosine: "cosine", "Half a cosine after a rise";
    Poly: "poly", "nnU-Net's";
});

#[cfg(feature = "train")]
flag_values!(Augment {
    None: "none", "None";
    Reference: "reference", "The official three: flips, brightness, noise";
    Sample: "sample", "For the embedded heads: left-right flips, shifts, brightness, noise";
    Strong: "strong", "nnU-Net's, with elastic deformation and bias fields besides";
});

#[cfg(feature = "train")]
flag_values!(SyncNorm {
    Auto: "auto", "Where each of several processes makes one pass a step, of fewer than four cases";
    On: "on", "The statistics of all cases of a step, which are then in memory at once";
    Off: "off", "The statistics of a pass, as PyTorch's DataParallel does";
});
