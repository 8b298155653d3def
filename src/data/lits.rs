//! LiTS: `volume-N.nii` with `segmentation-N.nii`, in the official code's folders `input/` and `segmentation/` (beside
//! `border/`, see [`super::border_file`]), or flat as the challenge distributes them, in one folder or in several called
//! `Training Batch 1`, `Training Batch 2`. Files are paired by number, never by order.

use std::collections::BTreeMap;

use super::ct_window;
use super::dataset::{Case, Class, Dataset, Layout, Scanned, Split, draw_split};
use super::nifti::split_ending;
use super::source::Folder;
use crate::{Error, Result};

/// How the folders of the challenge's download begin, in lower case.
const BATCH: &str = "training batch";

/// Scans a folder; `None` if it holds neither a `volume-N` nor a `segmentation-N`. One without the other is a problem.
///
/// # Errors
/// If a folder cannot be read.
pub fn scan(folder: &Folder, seed: u64) -> Result<Option<Scanned>> {
    let Folder::Disk(root) = folder else { return Ok(None) };
    let nested = root.join("input").is_dir() && root.join("segmentation").is_dir();
    let parts = if nested { vec![("input".to_owned(), "segmentation".to_owned())] } else { flat_folders(folder)? };
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    let (mut volumes, mut segmentations) = (BTreeMap::new(), BTreeMap::new());
    for (images, labels) in &parts {
        for (below, prefix, all) in [(images, "volume-", &mut volumes), (labels, "segmentation-", &mut segmentations)] {
            for (number, path) in numbered(folder, below, prefix)? {
                if let Some(first) = all.insert(number.clone(), path.clone()) {
                    let problem = format!("and {} are both {prefix}{number}", root.join(&first).display());
                    problems.push(Error::data(root.join(path), problem, "remove one of them"));
                }
            }
        }
    }
    if volumes.is_empty() && segmentations.is_empty() {
        return Ok(None);
    }
    let file = |relative: &str| Ok::<_, Error>(folder.file(relative)?.into_iter().collect::<Vec<_>>());
    let wanted = |beside: &str, name: String| match (nested, beside.rsplit_once('/')) {
        (true, _) | (_, None) => name,
        (false, Some((below, _))) => format!("{below}/{name}"),
    };
    for (number, volume) in volumes {
        let images = file(&volume)?;
        match segmentations.remove(&number) {
            Some(segmentation) => {
                cases.push(Case { name: format!("volume-{number}"), images, label: file(&segmentation)?.pop() })
            }
            None => {
                let partner = if nested {
                    format!("segmentation/segmentation-{number}.nii")
                } else {
                    format!("segmentation-{number}.nii")
                };
                let problem = format!("has no partner {}", wanted(&volume, partner));
                problems.push(Error::data(root.join(volume), problem, "add it, or move the volume elsewhere"));
            }
        }
    }
    for (number, segmentation) in segmentations {
        let partner = if nested { format!("input/volume-{number}.nii") } else { format!("volume-{number}.nii") };
        let problem = format!("has no partner {}", wanted(&segmentation, partner));
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
        ignore: None,
        aliases: Vec::new(),
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

/// The folders of a flat data set: its own, or those that it was downloaded in (`Training Batch 1`, `Training Batch 2`).
fn flat_folders(folder: &Folder) -> Result<Vec<(String, String)>> {
    let holds = |below: &str| -> Result<bool> {
        Ok(!numbered(folder, below, "volume-")?.is_empty() || !numbered(folder, below, "segmentation-")?.is_empty())
    };
    let twice = |below: String| (below.clone(), below);
    if holds("")? {
        return Ok(vec![twice(String::new())]);
    }
    let Folder::Disk(root) = folder else { return Ok(Vec::new()) };
    let is_batch = |name: &String| name.to_lowercase().starts_with(BATCH) && root.join(name).is_dir();
    let mut found = Vec::new();
    for name in folder.list("")?.into_iter().filter(is_batch) {
        if holds(&name)? {
            found.push(twice(name));
        }
    }
    Ok(found)
}

/// The files `below/{prefix}N.nii` or `.nii.gz`: paths by what stands for N.
fn numbered(folder: &Folder, below: &str, prefix: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for name in folder.images(below)? {
        if let Some(number) = split_ending(&name).0.strip_prefix(prefix) {
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            found.push((number.to_owned(), path));
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
