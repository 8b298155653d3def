//! What other programs show segmentations with: names and colours of label values, as 3D Slicer and ITK-SNAP read them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::Result;
use crate::files::name::file_name;
use crate::files::{read_text, write_atomic};
use crate::task::Task;

/// Colours of classes everywhere, in their order: light shades of Okabe and Ito, told apart with any colour vision and seen on
/// grey slices. Those of the page are the same.
pub const COLOURS: [[u8; 3]; 8] = [
    [0x56, 0xb4, 0xe9],
    [0xe6, 0x9f, 0x00],
    [0x2f, 0xc2, 0x9a],
    [0xf0, 0xe4, 0x42],
    [0xe3, 0x9a, 0xc2],
    [0xf0, 0x7e, 0x3c],
    [0xa9, 0x95, 0xdd],
    [0xd9, 0xdd, 0xe0],
];

/// A label value that may occur.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// As it stands in the file.
    pub value: u8,
    /// What it stands for.
    pub name: String,
    /// Red, green, blue.
    pub colour: [u8; 3],
}

/// The labels of a task, background left out.
pub fn labels(task: &Task) -> Vec<Label> {
    let values = task.preprocessing.classes.iter().enumerate().skip(1);
    let name = |class: usize, value: u8| {
        let given = task.class_names.get(class).filter(|name| !name.trim().is_empty());
        given.cloned().unwrap_or_else(|| format!("class {value}"))
    };
    let colours = COLOURS.iter().cycle();
    values.zip(colours).map(|((class, &value), &colour)| Label { value, name: name(class, value), colour }).collect()
}

/// The two files beside a segmentation (or for a folder of them) whose names begin with `stem`: `.ctbl` for 3D Slicer, `.label`
/// for ITK-SNAP.
pub fn files(folder: &Path, stem: &str) -> [PathBuf; 2] {
    ["ctbl", "label"].map(|ending| folder.join(format!("{stem}.{ending}")))
}

/// Writes them.
///
/// # Errors
/// A folder that refuses, or a full disk.
pub fn write(folder: &Path, stem: &str, labels: &[Label]) -> Result<()> {
    let [slicer, snap] = files(folder, stem);
    write_atomic(slicer, colour_table(labels).as_bytes())?;
    write_atomic(snap, label_descriptions(labels).as_bytes())
}

/// 3D Slicer's colour table (its developers' guide, "Colors"): value, name with underscores for spaces, red, green, blue, opacity
/// from 0 to 255. The first line tells it from tables of continuous scales.
fn colour_table(labels: &[Label]) -> String {
    let mut text = String::from("# Color table file: ossnet\n0 background 0 0 0 0\n");
    for Label { value, name, colour: [red, green, blue] } in labels {
        let name = name.replace(|c: char| c.is_whitespace() || c.is_control(), "_");
        text += &format!("{value} {name} {red} {green} {blue} 255\n");
    }
    text
}

/// ITK-SNAP's label descriptions: value, red, green, blue, opacity from 0 to 1, visible, visible in 3D, name in quotes. The header
/// is that of its own files: some readers look for its second line.
fn label_descriptions(labels: &[Label]) -> String {
    let rule = "################################################\n";
    let mut text = format!(
        "{rule}# ITK-SnAP Label Description File\n# File format: \n# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL\n{rule}    \
         0     0    0    0        0  0  0    \"Clear Label\"\n"
    );
    for Label { value, name, colour: [red, green, blue] } in labels {
        // A line a label, whatever it is called.
        let name = name.replace('"', "'").replace(char::is_control, " ");
        text += &format!("{value:5} {red:5} {green:4} {blue:4}        1  1  1    \"{name}\"\n");
    }
    text
}

/// Most bytes of a file of names.
const MOST: u64 = 1 << 20;

/// What the values of a segmentation are called, as far as a file tells: ITK-SNAP's label descriptions beside it, under its own
/// name or that of the folder (`labels.label`), else the `dataset.json` of its folder or of the one above. Names are a courtesy:
/// a file that cannot be read tells none.
pub fn names_beside(segmentation: &Path) -> BTreeMap<i64, String> {
    let folder = segmentation.parent().unwrap_or(Path::new(""));
    let name = file_name(segmentation);
    let stem = name.trim_end_matches(".gz").trim_end_matches(".nii");
    let described = [stem, FOLDER].map(|stem| folder.join(format!("{stem}.label")));
    let described = described.iter().filter_map(|path| Some(from_descriptions(&read_text(path, MOST).ok()?)));
    let listed = [folder.join("dataset.json"), folder.join("..").join("dataset.json")];
    let listed = listed.into_iter().filter_map(|path| Some(from_dataset(&read_text(path, MOST).ok()?)));
    described.chain(listed).find(|names| !names.is_empty()).unwrap_or_default()
}

/// What the tables of a folder of segmentations are called.
pub const FOLDER: &str = "labels";

/// Values and names of [`label_descriptions`].
fn from_descriptions(text: &str) -> BTreeMap<i64, String> {
    let line = |line: &str| {
        let (numbers, name) = line.split_once('"')?;
        let value = numbers.split_whitespace().next()?.parse().ok()?;
        Some((value, name.trim_end().trim_end_matches('"').to_string()))
    };
    text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(line).collect()
}

/// Values and names of a Decathlon `dataset.json` (value → name) or nnU-Net's (name → value).
fn from_dataset(text: &str) -> BTreeMap<i64, String> {
    let json: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap_or_default();
    let none = Map::new();
    let labels = json["labels"].as_object().unwrap_or(&none);
    let entry = |(key, value): (&String, &Value)| match (key.parse(), value.as_i64(), value.as_str()) {
        (Ok(number), _, Some(name)) => Some((number, name.to_string())),
        (_, Some(number), _) => Some((number, key.clone())),
        _ => None,
    };
    labels.iter().filter_map(entry).collect()
}

/// What each of some classes (value, name) is called in names of files: its name where that tells it from all others and is no
/// number, as their values are; else its value.
pub fn file_names(classes: &[(i64, Option<&str>)]) -> Vec<String> {
    let slug = |name: &str| -> String {
        let plain: String =
            name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
    };
    let slugs: Vec<String> = classes.iter().map(|(_, name)| slug(name.unwrap_or_default())).collect();
    let is_number = |own: &String| own.parse::<i64>().is_ok();
    let told =
        |own: &String| !own.is_empty() && !is_number(own) && slugs.iter().filter(|other| *other == own).count() == 1;
    let pairs = slugs.iter().zip(classes);
    pairs.map(|(own, (value, _))| if told(own) { own.clone() } else { value.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Label> {
        vec![
            Label { value: 1, name: "left lung".into(), colour: COLOURS[0] },
            Label { value: 7, name: "the\n\"aorta\"".into(), colour: COLOURS[1] },
        ]
    }

    #[test]
    fn slicer_reads_six_columns() {
        let table = colour_table(&two());
        let rows: Vec<Vec<&str>> =
            table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect()).collect();
        assert!(rows.iter().all(|row| row.len() == 6), "{table}");
        assert_eq!(rows[1], ["1", "left_lung", "86", "180", "233", "255"]);
        assert_eq!(rows[2][0], "7");
    }

    #[test]
    fn names_are_found_beside_a_segmentation() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let names = |path: &Path| names_beside(path).into_iter().collect::<Vec<_>>();
        assert_eq!(names(&at("a.nii.gz")), []);
        std::fs::create_dir(at("labelsTr")).unwrap();
        std::fs::write(at("dataset.json"), r#"{"labels": {"background": 0, "liver": 1, "tumour": [1, 2]}}"#).unwrap();
        let liver = [(0, "background".to_string()), (1, "liver".into())];
        for path in ["a.nii.gz", "labelsTr/a.nii"] {
            assert_eq!(names(&at(path)), liver, "{path}");
        }
        std::fs::write(at("dataset.json"), "\u{feff}{\"labels\": {\"0\": \"background\", \"1\": \"liver\"}}").unwrap();
        assert_eq!(names(&at("a.nii.gz")), liver);
        write(folder.path(), "labels", &two()).unwrap();
        let [lung, aorta] = [(1, "left lung".to_string()), (7, "the 'aorta'".into())].map(Some);
        let clear = Some((0, "Clear Label".to_string()));
        assert_eq!(names(&at("a.nii.gz")), [clear.clone(), lung, aorta].map(Option::unwrap));
        std::fs::write(at("a.label"), "# x\nnothing\n 2035 1 2 3 1 1 1 \"insula\"\n").unwrap();
        assert_eq!(names(&at("a.nii.gz")), [(2035, "insula".to_string())]);
        std::fs::write(at("a.label"), [0xff, 0xfe]).unwrap();
        assert_eq!(names(&at("a.nii.gz")).len(), 3, "the folder's, where the own is no text");
    }

    #[test]
    fn files_are_named_by_what_tells_classes_apart() {
        let classes =
            [(1, Some("Left lung")), (2, Some("left  lung")), (3, Some("Aorta ")), (4, None), (-5, Some("?"))];
        assert_eq!(file_names(&classes), ["1", "2", "aorta", "4", "-5"]);
        // A file of class 3 in the place of that of class 1.
        assert_eq!(file_names(&[(1, Some("3")), (3, None)]), ["1", "3"]);
    }

    /// ITK-SNAP reads seven numbers and a name in quotes.
    #[test]
    fn snap_reads_seven_numbers_and_a_name() {
        let text = label_descriptions(&two());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (numbers, name) = line.split_once('"').unwrap();
            let numbers: Vec<u8> = numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
            assert_eq!(numbers.len(), 7, "{line}");
            assert!(name.ends_with('"') && !name[..name.len() - 1].contains('"'), "{line}");
        }
        assert!(text.contains("\"left lung\"") && text.contains("\"the 'aorta'\""));
    }
}
