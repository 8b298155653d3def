//! NIfTI-1 and NIfTI-2 files: `.nii`, `.nii.gz` and `.hdr` + `.img` pairs, of either byte order, with any integer or
//! floating-point voxels. Written: NIfTI-1, `.nii` or `.nii.gz`.
//!
//! Nothing is believed before it is checked: dimensions against the file's size (or, compressed, against what deflate can
//! expand), codes against the standard, voxels against NaN and infinity.
//!
//! Source: the NIfTI-1.1 and NIfTI-2 headers (<https://nifti.nimh.nih.gov>).

mod header;
mod read;
mod write;

pub use header::{Datatype, Header};
pub use read::{Image, MAX_ELEMENTS, probe, read, read_header};
pub use write::{write_labels, write_volume};
