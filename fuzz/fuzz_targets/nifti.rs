//! A NIfTI file (single, compressed or not): probed, read as an image and as labels, normalised, written and read again.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ossnet::data::{Axes, Labels, Source, Volume, nifti};
use ossnet::memory::size::set_host_budget;

/// A folder in memory.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir_in("/dev/shm").expect("room in memory")).path()
}

fuzz_target!(|bytes: &[u8]| {
    // Sizes that fit this are read, larger ones refused.
    set_host_budget(64 << 20);
    let path = folder().join("scan.nii");
    std::fs::write(&path, bytes).expect("room in memory");
    let source = Source::File(path);
    let probed = nifti::probe(&source);
    for axes in [Axes::Canonical, Axes::Stored] {
        if let Ok(mut volume) = Volume::read(&source, axes) {
            assert!(probed.is_ok(), "read, but not probed");
            assert_eq!(volume.voxels.len(), volume.len() * volume.channels);
            let labels = Labels::read(&source, axes);
            volume.normalise();
            let copy = folder().join("copy.nii.gz");
            if let Ok(labels) = labels
                && labels.write(&copy).is_ok()
            {
                let again = Labels::read(&Source::File(copy), axes).expect("what was written is read");
                assert_eq!(again.voxels, labels.voxels);
            }
        }
    }
});
