//! Which files of a folder are the channels of one case: `CASE_0000`, `CASE_0001`, …, as nnU-Net names them.
//!
//! A number below the number of channels is a channel's; any other belongs to the case's name (`amos_0507` of two channels). A
//! case has each channel exactly once; a file that is short of partners, or has one too many, is a problem and no case.

use std::collections::BTreeMap;
use std::path::Path;

use super::nifti::split_ending;
use crate::Error;

/// The name of a case and its files in the order of the channels.
pub type Named = (String, Vec<String>);

/// The case's name and the channel in `CASE_0002`, if the number is one of `channels` channels.
pub fn channel_of(stem: &str, channels: usize) -> Option<(&str, usize)> {
    let (case, number) = stem.rsplit_once('_')?;
    let is_number = number.len() == 4 && number.bytes().all(|digit| digit.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_number && !case.is_empty())?;
    (number < channels).then_some((case, number))
}

/// The cases among the image files `names` of `folder`, by name, and the files that make no case. `is_whole` says whether a
/// file holds all channels by itself.
pub fn group(
    folder: &Path,
    names: &[String],
    channels: usize,
    is_whole: impl Fn(&str) -> bool,
) -> (Vec<Named>, Vec<Error>) {
    // By name of the case: the files of each channel. A file of its own is channel 0 of 1.
    let mut found: BTreeMap<&str, BTreeMap<usize, Vec<&str>>> = BTreeMap::new();
    let mut alone: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        let stem = split_ending(name).0;
        match channel_of(stem, channels) {
            Some((case, channel)) => found.entry(case).or_default().entry(channel).or_default().push(name),
            None => alone.entry(stem).or_default().push(name),
        }
    }
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    let mut wrong = |file: &str, problem: String, remedy: &str| {
        problems.push(Error::data(folder.join(file), problem, remedy));
    };
    for (case, mut files) in found {
        // A file with all channels whose own name ends in a number of four digits.
        if files.len() < channels {
            let whole: Vec<usize> =
                files.iter().filter(|(_, files)| files.iter().all(|file| is_whole(file))).map(|(&c, _)| c).collect();
            for channel in whole {
                for file in files.remove(&channel).into_iter().flatten() {
                    alone.entry(split_ending(file).0).or_default().push(file);
                }
            }
        }
        if let Some((channel, twice)) = files.iter().find(|(_, files)| files.len() > 1) {
            let problem = format!("and {} are both channel {channel} of {case}", twice[0]);
            wrong(twice[1], problem, "remove one of them");
        } else if files.len() == channels {
            cases.push((case.to_owned(), files.into_values().flatten().map(str::to_owned).collect()));
        } else if let Some((channel, file)) = files.iter().next() {
            let missing: Vec<String> =
                (0..channels).filter(|c| !files.contains_key(c)).map(|c| format!("{case}_{c:04}")).collect();
            let problem =
                format!("is channel {channel} of the {channels} of {case}, which lacks {}", missing.join(", "));
            wrong(file[0], problem, "add it, or give each case as one file with all channels");
        }
    }
    for (stem, files) in alone {
        match files[..] {
            [file] => cases.push((stem.to_owned(), vec![file.to_owned()])),
            [first, ref others @ ..] => {
                for other in others {
                    wrong(other, format!("and {first} are both called {stem}"), "remove one of them, or rename it");
                }
            }
            [] => {}
        }
    }
    cases.sort_unstable();
    (cases, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(names: &[&str], channels: usize) -> (Vec<(String, usize)>, Vec<String>) {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let (cases, problems) = group(Path::new("in"), &names, channels, |name| name.starts_with("whole"));
        let cases = cases.into_iter().map(|(name, files)| (name, files.len())).collect();
        (cases, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn complete_cases() {
        let (cases, problems) = grouped(&["a_0000.nii", "a_0001.nii.gz", "ü_0001.NII", "ü_0000.nii", "b.nii"], 2);
        assert_eq!(cases, [("a".into(), 2), ("b".into(), 1), ("ü".into(), 2)]);
        assert!(problems.is_empty(), "{problems:?}");
        // A higher number is part of the name, whatever the number of channels.
        let (cases, _) = grouped(&["amos_0101.nii.gz", "amos_0507.nii.gz", "x_0001.nii"], 1);
        assert_eq!(cases, [("amos_0101".into(), 1), ("amos_0507".into(), 1), ("x_0001".into(), 1)]);
        assert_eq!(
            grouped(&["whole_0001.nii", "whole_0000.nii"], 3).0,
            [("whole_0000".into(), 1), ("whole_0001".into(), 1)]
        );
    }

    #[test]
    fn incomplete_cases_are_problems() {
        for (files, file, problem) in [
            (&["p_0000.nii", "p_0002.nii"][..], "in/p_0000.nii", "lacks p_0001"),
            (&["p_0001.nii", "p_0002.nii"], "in/p_0001.nii", "lacks p_0000"),
            (&["p_0000.nii", "p_0000.nii.gz"], "in/p_0000.nii.gz", "both channel 0 of p"),
            (&["p_0000.nii", "p_0000.nii.gz", "p_0001.nii"], "in/p_0000.nii.gz", "both channel 0 of p"),
            (&["amos_0001.nii", "amos_0507.nii"], "in/amos_0001.nii", "lacks amos_0000"),
            (&["a.nii", "a.nii.gz"], "in/a.nii.gz", "both called a"),
        ] {
            let (cases, problems) = grouped(files, 2);
            assert!(cases.iter().all(|(name, count)| *count == 1 && name != "p" && name != "amos"), "{cases:?}");
            assert!(
                problems.len() == 1 && problems[0].starts_with(file) && problems[0].contains(problem),
                "{problems:?}"
            );
        }
    }
}
