//! BraTS 2020: a folder a subject holding `*_flair`, `*_t1`, `*_t1ce`, `*_t2` and `*_seg` as `.nii` or `.nii.gz`.
//!
//! Channels are in the official code's order. Labels 0, 1, 2, 4 are kept as stored.

use super::check::Warning;
use super::dataset::{Case, Class, Dataset, Split, draw_split};
use super::source::{Folder, Source};
use crate::{Error, Result};

/// Modalities in channel order; the file names end in `_` and these.
pub const MODALITIES: [&str; 4] = ["flair", "t1", "t1ce", "t2"];

/// Label values and what they stand for.
const CLASSES: [(u8, &str); 4] = [(0, "background"), (1, "necrotic core"), (2, "oedema"), (4, "enhancing tumour")];

/// Scans a folder of subjects; `None` if no folder in it holds a `*_flair` image.
///
/// # Errors
/// [`Error::Data`] if a subject lacks a modality or its segmentation.
pub fn open(folder: &Folder, seed: u64) -> Result<Option<Dataset>> {
    let Folder::Disk(root) = folder else { return Ok(None) };
    let mut cases = Vec::new();
    for subject in folder.list("")?.into_iter().filter(|name| root.join(name).is_dir()) {
        let names = folder.list(&subject)?;
        let find = |part: &str| -> Option<Source> {
            let endings = [format!("_{part}.nii.gz"), format!("_{part}.nii")];
            let name = names.iter().find(|name| endings.iter().any(|ending| name.ends_with(ending.as_str())))?;
            Some(Source::File(root.join(&subject).join(name)))
        };
        if find("flair").is_none() {
            continue;
        }
        let need = |part: &str| {
            find(part).ok_or_else(|| {
                let problem = format!("holds no file *_{part}.nii or *_{part}.nii.gz");
                Error::data(root.join(&subject), problem, "complete the subject, or move it elsewhere")
            })
        };
        let images = MODALITIES.iter().map(|modality| need(modality)).collect::<Result<_>>()?;
        cases.push(Case { name: subject.clone(), images, label: Some(need("seg")?) });
    }
    if cases.is_empty() {
        return Ok(None);
    }
    let (training, validation) = draw_split(cases, seed);
    let mut dataset = Dataset {
        name: "BraTS".into(),
        path: root.clone(),
        channels: MODALITIES.map(str::to_owned).to_vec(),
        classes: CLASSES.map(|(value, name)| Class { value, name: name.into() }).to_vec(),
        training,
        validation,
        split: Split::Drawn { seed },
        warnings: Vec::<Warning>::new(),
    };
    dataset.warn_of_overlap();
    Ok(Some(dataset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::volume::{Axes, Labels};

    #[test]
    fn subjects_are_found_and_must_be_complete() {
        let root = tempfile::tempdir().unwrap();
        for subject in ["S_001", "S_002"] {
            std::fs::create_dir(root.path().join(subject)).unwrap();
            for (value, part) in MODALITIES.iter().chain(&["seg"]).enumerate() {
                let ending = if subject == "S_001" { "nii" } else { "nii.gz" };
                let path = root.path().join(subject).join(format!("{subject}_{part}.{ending}"));
                Labels::new([2, 2, 2], vec![value as u8; 8]).write(&path).unwrap();
            }
        }
        std::fs::write(root.path().join("name_mapping.csv"), "").unwrap();
        let dataset = Dataset::open(root.path(), 1).unwrap();
        assert_eq!((dataset.training.len(), dataset.validation.len()), (1, 1));
        let scan = dataset.read(&dataset.training[0], Axes::Canonical).unwrap();
        assert_eq!(scan.image.voxels[..4], [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(scan.labels.unwrap().voxels, [4; 8]);

        std::fs::remove_file(root.path().join("S_002/S_002_t1.nii.gz")).unwrap();
        let message = Dataset::open(root.path(), 1).unwrap_err().to_string();
        assert!(message.contains("S_002") && message.contains("_t1.nii"), "{message}");
    }
}
