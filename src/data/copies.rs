//! Scans that lie in a folder twice, compressed and not, as `gunzip -k` leaves them.

use std::collections::BTreeSet;
use std::path::Path;

use super::nifti::{same_bytes, split_ending};
use super::source::Source;
use crate::files::name::path_of;
use crate::order;

/// `names` without those of compressed files beside a plain one that holds the same bytes. Where the bytes differ, both stay:
/// nobody can tell which is meant.
pub fn without_copies(folder: &Path, names: Vec<String>) -> Vec<String> {
    let plain: BTreeSet<&str> = order::set(names.iter().map(String::as_str));
    let is_copy = |name: &String| {
        let ending = split_ending(name).1;
        let Some(beside) = ending.len().checked_sub(3).map(|length| &ending[..length]) else { return false };
        if !ending.to_ascii_lowercase().ends_with(".gz") {
            return false;
        }
        let beside = format!("{}{beside}", split_ending(name).0);
        let at = |name: &str| Source::File(path_of(folder, name));
        plain.contains(beside.as_str()) && same_bytes(&at(&beside), &at(name))
    };
    let copies: BTreeSet<String> = order::set(names.iter().filter(|name| is_copy(name)).cloned());
    names.into_iter().filter(|name| !copies.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Labels;

    #[test]
    fn a_file_and_its_copy_are_one() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: u8| {
            Labels::new([2, 2, 2], vec![value; 8]).write(&folder.path().join(name)).unwrap();
        };
        for (name, value) in [("a.nii", 1), ("a.nii.gz", 1), ("b.nii", 1), ("b.nii.gz", 2), ("c.nii.gz", 1)] {
            write(name, value);
        }
        std::fs::write(folder.path().join("d.nii.gz"), "x").unwrap();
        write("d.nii", 1);
        let names =
            ["a.nii", "a.nii.gz", "b.nii", "b.nii.gz", "c.nii.gz", "d.nii", "d.nii.gz"].map(String::from).to_vec();
        let kept = without_copies(folder.path(), names);
        assert_eq!(kept, ["a.nii", "b.nii", "b.nii.gz", "c.nii.gz", "d.nii", "d.nii.gz"]);
    }
}
