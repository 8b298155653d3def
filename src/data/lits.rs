//! LiTS: `volume-N.nii` with `segmentation-N.nii`, in the official code's folders `input/` and `segmentation/`, or flat as
//! the challenge distributes them. Files are paired by number, never by order.

use super::dataset::{Case, Class, Dataset, Split, draw_split};
use super::decathlon::split_ending;
use super::source::Folder;
use crate::{Error, Result};

/// Scans a folder; `None` if it holds no `volume-N`.
///
/// # Errors
/// [`Error::Data`] if a volume has no segmentation.
pub fn open(folder: &Folder, seed: u64) -> Result<Option<Dataset>> {
    let Folder::Disk(root) = folder else { return Ok(None) };
    let nested = root.join("input").is_dir() && root.join("segmentation").is_dir();
    let (images, labels) = if nested { ("input/", "segmentation/") } else { ("", "") };
    let label_names = folder.list(labels.trim_end_matches('/'))?;
    let mut cases = Vec::new();
    for name in folder.list(images.trim_end_matches('/'))? {
        let (stem, ending) = split_ending(&name);
        let Some(number) = stem.strip_prefix("volume-").filter(|_| matches!(ending, ".nii" | ".nii.gz")) else {
            continue;
        };
        let wanted = format!("segmentation-{number}");
        let label = label_names.iter().find(|label| {
            let (stem, ending) = split_ending(label);
            stem == wanted && matches!(ending, ".nii" | ".nii.gz")
        });
        let image = folder.file(&format!("{images}{name}"))?;
        let label = label.map(|label| folder.file(&format!("{labels}{label}"))).transpose()?.flatten();
        let (Some(image), Some(label)) = (image, label) else {
            let problem = format!("has no partner {labels}{wanted}.nii");
            return Err(Error::data(root.join(images).join(&name), problem, "add it, or move the volume elsewhere"));
        };
        cases.push(Case { name: format!("volume-{number}"), images: vec![image], label: Some(label) });
    }
    if cases.is_empty() {
        return Ok(None);
    }
    let (training, validation) = draw_split(cases, seed);
    let mut dataset = Dataset {
        name: "LiTS".into(),
        path: root.clone(),
        channels: vec!["CT".into()],
        classes: [(0, "background"), (1, "liver"), (2, "tumour")]
            .map(|(value, name)| Class { value, name: name.into() })
            .to_vec(),
        training,
        validation,
        split: Split::Drawn { seed },
        warnings: Vec::new(),
    };
    dataset.warn_of_overlap();
    Ok(Some(dataset))
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
        }
    }
}
