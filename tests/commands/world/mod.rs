//! Files as they are in the world: situations that users of this field's tools met and reported, each with the value that is
//! right.

mod batches;
mod containers;
#[cfg(unix)]
mod file_names;
mod headers;
mod ignored;
mod label_maps;
mod lists;
mod weights;

use crate::support::Nifti;
use ossnet::data::{Axes, Case, Scan, Source, validate};

/// An image and a label in a folder of their own, read.
fn read_pair(image: &Nifti, label: &Nifti) -> ossnet::Result<Scan> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &Nifti| {
        content.write(&folder.path().join(name));
        Source::File(folder.path().join(name))
    };
    let case =
        Case { name: "p".into(), images: vec![file("image.nii", image)], label: Some(file("label.nii.gz", label)) };
    case.read(&[], Axes::Canonical)
}

/// Everything that is odd about a scan, in one line.
fn warnings(scan: &Scan) -> String {
    validate::grouped(scan.warnings.clone()).iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}
