//! The real scans that ship inside the binary, with the licences under which they may.
//!
//! Six small tasks in the Decathlon's layout; `assets/sample/SOURCE.md` says where each file comes from.

use std::io::Read;
use std::path::Path;

use super::dataset::Dataset;
use super::decathlon;
use super::source::{Folder, Source};
use crate::{Error, Result};

/// The embedded tasks; [`open`] takes their names.
pub const TASKS: [&str; 6] = ["heads", "tissue", "tumour", "abdomen", "chest", "lung"];

/// What precedes the name of a task where a folder may be given.
pub const SAMPLE: &str = "sample:";

/// Every file of `assets/sample`, as `build/sample.rs` lists them.
mod files {
    use crate::data::source::Asset;

    include!(concat!(env!("OUT_DIR"), "/sample.rs"));
}

/// Scans an embedded task; its cases are read like files.
///
/// # Errors
/// [`Error::Usage`] if there is no such task.
pub fn open(task: &str) -> Result<Dataset> {
    if !TASKS.contains(&task) {
        return Err(Error::Usage(format!("there is no embedded task '{task}'; choose one of {}", TASKS.join(", "))));
    }
    // Each task states its division, so that no seed is used.
    Ok(decathlon::scan(&Folder::Embedded { prefix: format!("sample/{task}/"), files: files::FILES }, 0)?.dataset)
}

/// The notices of the embedded data: where each file comes from, and every licence in full.
pub fn licences() -> String {
    let mut text = String::new();
    let notices =
        files::FILES.iter().filter(|file| file.name.ends_with("SOURCE.md") || file.name.contains("/LICENCES/"));
    let (source, licences): (Vec<_>, Vec<_>) = notices.partition(|file| file.name.ends_with("SOURCE.md"));
    for file in source.into_iter().chain(licences) {
        let title = Path::new(file.name).file_name().unwrap_or_default().to_string_lossy();
        let mut notice = Vec::new();
        // Memory is read, and a test reads each of them.
        _ = Source::Embedded(file).open().map(|mut file| file.read_to_end(&mut notice));
        text.push_str(&format!("==== {title} ====\n\n{}\n\n", String::from_utf8_lossy(&notice).trim_end()));
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
        assert_eq!(files::FILES.iter().map(|file| file.name.to_string()).collect::<BTreeSet<_>>(), found);
    }

    /// What is read is what the packed file in `assets` holds, and as long as is said.
    #[test]
    fn images_are_those_of_the_assets() {
        let mut images = 0;
        for file in files::FILES.iter().filter(|file| file.name.ends_with(".nii.gz")) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(file.name);
            let (mut ours, mut theirs, source) = (Vec::new(), Vec::new(), Source::Embedded(file));
            source.open().unwrap().read_to_end(&mut ours).unwrap();
            flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut theirs).unwrap();
            assert!(ours == theirs && source.len().unwrap() == theirs.len() as u64, "{}", file.name);
            images += 1;
        }
        assert_eq!(images, 30);
    }

    /// Shapes, spacings and label counts of every case are those that `index.json` states.
    #[test]
    fn every_case_reads_as_its_index_says() {
        let index = files::FILES.iter().find(|file| file.name == "sample/index.json").unwrap().bytes;
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
