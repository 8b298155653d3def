//! What other programs show segmentations with: names and colours of label values, as 3D Slicer and ITK-SNAP read them.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::files::write_atomic;
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
