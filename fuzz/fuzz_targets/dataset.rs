//! A `dataset.json` beside two small scans: the data set is opened, inspected, and its cases are read.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ossnet::data::inspect::{InspectOptions, inspect};
use ossnet::data::{Axes, Dataset, Labels};

/// A folder with images and labels.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir_in("/dev/shm").expect("room in memory");
        let scan = Labels::new([2, 3, 2], vec![0, 1, 2, 0, 1, 0, 0, 0, 1, 1, 0, 2]);
        for part in ["imagesTr", "labelsTr", "imagesTs"] {
            std::fs::create_dir(folder.path().join(part)).expect("room in memory");
            for name in ["a.nii", "b.nii", "a_0000.nii", "a_0001.nii", "b_0000.nii"] {
                scan.write(&folder.path().join(part).join(name)).expect("room in memory");
            }
        }
        folder
    });
    folder.path()
}

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(folder().join("dataset.json"), bytes).expect("room in memory");
    if let Ok(dataset) = Dataset::open(folder(), 1) {
        for (_, case) in dataset.cases() {
            assert!(!case.name.contains('/'), "{}", case.name);
            let _ = dataset.read(case, Axes::Canonical);
        }
    }
    let _ = inspect(folder(), InspectInspectOptions { full: true, ignore_geometry: false, seed: 1 }, |_, _| {});
});
