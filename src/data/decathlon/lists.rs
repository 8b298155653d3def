//! Lists of cases in a `dataset.json`: the Decathlon's, MONAI's (several images an entry, folds), nnU-Net's dictionary
//! `dataset`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::data::nifti::split_ending;
use crate::order;

/// What is to be written.
pub const REMEDY: &str =
    "write entries as {\"image\": \"./imagesTr/CASE.nii.gz\", \"label\": \"./labelsTr/CASE.nii.gz\"}";

/// A case as it is listed; paths with forward slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key, where the list is a dictionary.
    pub key: Option<String>,
    /// One file with all channels, or one a channel.
    pub images: Vec<String>,
    /// The label file; empty where cases have none.
    pub label: String,
    /// Which fold it validates.
    pub fold: Option<u64>,
}

/// The entries of `value`, which the description calls `list`; with `labelled`, each must have a label.
///
/// # Errors
/// What is wrong.
pub fn entries(value: &Value, list: &str, labelled: bool) -> Result<Vec<Entry>, String> {
    let listed: Vec<(Option<&String>, &Value)> = match value {
        Value::Array(entries) => entries.iter().map(|entry| (None, entry)).collect(),
        Value::Object(entries) => entries.iter().map(|(key, entry)| (Some(key), entry)).collect(),
        _ => return Err(format!("has a '{list}' that is not a list")),
    };
    let read = |(number, (key, entry)): (usize, (Option<&String>, &Value))| {
        let images = files(entry.get("image").or_else(|| entry.get("images")).unwrap_or(entry));
        let mut labels = entry.get("label").and_then(files).unwrap_or_default();
        match images.filter(|images| !images.is_empty()) {
            Some(images) if labels.len() == 1 || (labels.is_empty() && !labelled) => Ok(Entry {
                key: key.cloned(),
                images,
                label: labels.pop().unwrap_or_default(),
                fold: entry.get("fold").and_then(Value::as_u64),
            }),
            _ => {
                let which = key.map_or_else(|| format!("entry {number}"), |key| format!("entry {key}"));
                Err(format!("has an {which} of '{list}' without image and label"))
            }
        }
    };
    listed.into_iter().enumerate().map(read).collect()
}

/// A file, or a list of files.
fn files(value: &Value) -> Option<Vec<String>> {
    let file = |value: &Value| Some(value.as_str()?.replace('\\', "/"));
    match value {
        Value::String(_) => Some(vec![file(value)?]),
        Value::Array(several) => several.iter().map(file).collect(),
        _ => None,
    }
}

/// A name for each label file: its own where it is the only one of that name, else its folders' (and its own, where that is
/// still not enough).
pub fn names(labels: &BTreeSet<&str>) -> BTreeMap<String, String> {
    let stem = |label: &str| split_ending(label.rsplit('/').next().unwrap_or(label)).0.to_owned();
    let folder = |label: &str| {
        let parts: Vec<&str> = label.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        parts[..parts.len().saturating_sub(1)].join("_")
    };
    let candidates: [&dyn Fn(&str) -> String; 3] =
        [&stem, &folder, &|label| format!("{}_{}", folder(label), stem(label))];
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    labels.iter().for_each(|label| *count.entry(stem(label)).or_default() += 1);
    let repeated: Vec<&str> = labels.iter().copied().filter(|label| count[&stem(label)] > 1).collect();
    let taken: BTreeSet<String> =
        order::set(count.iter().filter(|(_, count)| **count == 1).map(|(name, _)| name.clone()));
    let fits = |name: &dyn Fn(&str) -> String| {
        let named: BTreeSet<String> = order::set(repeated.iter().map(|label| name(label)));
        named.len() == repeated.len() && named.iter().all(|name| !name.is_empty() && !taken.contains(name))
    };
    let chosen = candidates[1..].iter().find(|name| fits(**name)).unwrap_or(&candidates[2]);
    let name = |label: &&str| match count[&stem(label)] {
        1 => stem(label),
        _ => chosen(label),
    };
    labels.iter().map(|label| (label.to_string(), name(label))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(labels: &[&str]) -> Vec<String> {
        let all = names(&labels.iter().copied().collect());
        labels.iter().map(|label| all[*label].clone()).collect()
    }

    #[test]
    fn names_are_those_of_files_or_else_of_folders() {
        assert_eq!(named(&["./labelsTr/colin27.nii.gz", "labelsTr/x.nii"]), ["colin27", "x"]);
        assert_eq!(named(&["p0/seg.nii.gz", "p1/seg.nii.gz", "other/q.nii"]), ["p0", "p1", "q"]);
        // A folder that holds two of them, or a folder called like another file.
        let several = named(&["p0/a.nii", "p0/b.nii", "p1/a.nii", "p1/b.nii"]);
        assert_eq!(several, ["p0_a", "p0_b", "p1_a", "p1_b"]);
        assert_eq!(named(&["p0/seg.nii", "p1/seg.nii", "x/p0.nii"]), ["p0_seg", "p1_seg", "p0"]);
    }

    #[test]
    fn forms_of_lists() {
        let read = |text: &str| entries(&serde_json::from_str(text).unwrap(), "training", true);
        let one = |key: Option<&str>, images: &[&str], fold| Entry {
            key: key.map(Into::into),
            images: images.iter().map(ToString::to_string).collect(),
            label: "l.nii".into(),
            fold,
        };
        assert_eq!(read(r#"[{"image": "a.nii", "label": "l.nii"}]"#), Ok(vec![one(None, &["a.nii"], None)]));
        let monai = r#"[{"fold": 2, "image": ["p\\a.nii", "p/b.nii"], "label": ["l.nii"]}]"#;
        assert_eq!(read(monai), Ok(vec![one(None, &["p/a.nii", "p/b.nii"], Some(2))]));
        let nnunet = r#"{"p0": {"images": ["a.nii", "b.nii"], "label": "l.nii"}}"#;
        assert_eq!(read(nnunet), Ok(vec![one(Some("p0"), &["a.nii", "b.nii"], None)]));
        for (bad, said) in [("4", "not a list"), (r#"["p"]"#, "entry 0"), (r#"{"p0": {"images": []}}"#, "entry p0")] {
            assert!(read(bad).unwrap_err().contains(said), "{bad}");
        }
        let tests = entries(&serde_json::json!(["./imagesTs/a.nii", {"image": "b.nii"}]), "test", false).unwrap();
        assert_eq!(
            tests.iter().map(|entry| entry.images[0].as_str()).collect::<Vec<_>>(),
            ["./imagesTs/a.nii", "b.nii"]
        );
    }
}
