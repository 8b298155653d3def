//! LiTS: `volume-N.nii` with `segmentation-N.nii`, in the official code's folders `input/` and `segmentation/` (beside
//! `border/`, see [`super::border_file`]), or flat as the challenge distributes them. Files are paired by number, never by
//! order.

use std::collections::BTreeMap;

use super::ct_window;
use super::dataset::{Case, Class, Dataset, Layout, Scanned, Split, draw_split};
use super::nifti::split_ending;
use super::source::Folder;
use crate::{Error, Result};

/// Scans a folder; `None` if it holds neither a `volume-N` nor a `segmentation-N`. One without the other is a problem.
///
/// # Errors
/// If a folder cannot be read.
pub fn scan(folder: &Folder, seed: u64) -> Result<Option<Scanned>> {
    let Folder::Disk(root) = folder else { return Ok(None) };
    let nested = root.join("input").is_dir() && root.join("segmentation").is_dir();
    let (images, labels) = if nested { ("input", "segmentation") } else { ("", "") };
    let volumes = numbered(folder, images, "volume-")?;
    let mut segmentations = numbered(folder, labels, "segmentation-")?;
    if volumes.is_empty() && segmentations.is_empty() {
        return Ok(None);
    }
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    let file = |relative: &str| Ok::<_, Error>(folder.file(relative)?.into_iter().collect::<Vec<_>>());
    let wanted = |folder: &str, name: String| if folder.is_empty() { name } else { format!("{folder}/{name}") };
    for (number, volume) in volumes {
        let images = file(&volume)?;
        match segmentations.remove(&number) {
            Some(segmentation) => {
                cases.push(Case { name: format!("volume-{number}"), images, label: file(&segmentation)?.pop() })
            }
            None => {
                let problem = format!("has no partner {}", wanted(labels, format!("segmentation-{number}.nii")));
                problems.push(Error::data(root.join(volume), problem, "add it, or move the volume elsewhere"));
            }
        }
    }
    for (number, segmentation) in segmentations {
        let problem = format!("has no partner {}", wanted(images, format!("volume-{number}.nii")));
        problems.push(Error::data(root.join(segmentation), problem, "add it, or move the segmentation elsewhere"));
    }
    let (training, validation) = draw_split(cases, seed);
    let mut dataset = Dataset {
        name: "LiTS".into(),
        path: root.clone(),
        layout: if nested { Layout::LitsFolders } else { Layout::LitsFlat },
        channels: vec!["CT".into()],
        classes: [(0, "background"), (1, "liver"), (2, "tumour")]
            .map(|(value, name)| Class { value, name: name.into() })
            .to_vec(),
        training,
        validation,
        test: Vec::new(),
        split: Split::Drawn { seed },
        clip: Some(ct_window::limits("abdomen")),
        ignore_geometry: false,
        warnings: Vec::new(),
    };
    dataset.warn_of_overlap();
    Ok(Some(Scanned { dataset, problems }))
}

/// The files `below/{prefix}N.nii` or `.nii.gz`: paths by what stands for N.
fn numbered(folder: &Folder, below: &str, prefix: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for name in folder.list(below)? {
        let (stem, ending) = split_ending(&name);
        let number = stem.strip_prefix(prefix).filter(|_| matches!(ending, ".nii" | ".nii.gz"));
        if let Some(number) = number {
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            found.insert(number.to_owned(), path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::volume::{Axes, Labels};
    use std::path::Path;

    fn write(path: &Path, value: u8) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        Labels::new([2, 2, 2], vec![value; 8]).write(path).unwrap();
    }

    #[test]
    fn both_layouts_pair_by_number() {
        for (images, labels) in [("input", "segmentation"), (".", ".")] {
            let root = tempfile::tempdir().unwrap();
            for number in [2u8, 10] {
                write(&root.path().join(images).join(format!("volume-{number}.nii")), number);
                write(&root.path().join(labels).join(format!("segmentation-{number}.nii")), number / 8);
            }
            let dataset = Dataset::open(root.path(), 0).unwrap();
            for case in dataset.training.iter().chain(&dataset.validation) {
                let scan = dataset.read(case, Axes::Canonical).unwrap();
                let number = scan.image.voxels[0] as u8;
                assert_eq!(scan.name, format!("volume-{number}"));
                assert_eq!(scan.labels.unwrap().voxels[0], number / 8);
            }
            std::fs::remove_file(root.path().join(labels).join("segmentation-2.nii")).unwrap();
            let message = Dataset::open(root.path(), 0).unwrap_err().to_string();
            assert!(message.contains("volume-2.nii") && message.contains("segmentation-2"), "{message}");
            std::fs::remove_file(root.path().join(images).join("volume-2.nii")).unwrap();
            write(&root.path().join(labels).join("segmentation-7.nii"), 0);
            let message = Dataset::open(root.path(), 0).unwrap_err().to_string();
            assert!(message.contains("segmentation-7.nii: has no partner"), "{message}");
        }
    }
}
