//! From what a user names to cases: files, several files a case, folders.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::data::channels::{channel_of, group};
use crate::data::nifti::{read_header, split_ending};
use crate::data::{Case, Folder, Source, brats};
use crate::error::{Error, Result};
use crate::files::name::{file_name, path_of, text_of};
use crate::files::read_text;
use crate::order;

/// Most bytes of a list of scans.
const LONGEST_LIST: u64 = 1 << 28;

/// What `--input` names.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The cases, each with all its files.
    pub cases: Vec<Case>,
    /// What makes no case, and why.
    pub problems: Vec<Error>,
}

/// The cases that `inputs` name, for a network of the given image channels; see [`find`].
///
/// # Errors
/// Those of [`find`], and its first problem.
pub fn cases(inputs: &[String], channels: &[String]) -> Result<Vec<Case>> {
    let Inputs { cases, problems } = find(inputs, channels)?;
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(cases),
    }
}

/// The cases that `inputs` name, for a network of the given image channels:
///
/// * a file is a case; so are several, joined by commas, one a channel in the network's order;
/// * a file that ends in `.txt` is a list of any of these, one a line; empty lines and what follows a `#` at a line's beginning do
///   not count, and relative paths are relative to the current folder;
/// * a folder that holds a file ending in `_NAME` for each channel (a BraTS subject) is a case;
/// * any other folder holds cases: files, groups of `X_0000`, `X_0001`, … (one a channel, as nnU-Net names them, if the network
///   takes several; see [`group`]), subjects.
///
/// What nnU-Net calls `X_0000` is case X, unless that name or the number is another file's (see `without_channels`).
///
/// # Errors
/// [`Error::File`] for a folder that cannot be read, [`Error::Data`] for a folder that holds no scan, [`Error::Usage`] for two
/// cases of one name.
pub fn find(inputs: &[String], channels: &[String]) -> Result<Inputs> {
    let mut found = Inputs::default();
    let mut named = Vec::new();
    for input in inputs {
        let path = path_of(Path::new(""), input);
        match is_list(&path) {
            true => named.extend(listed(&path)?),
            false => named.push(input.clone()),
        }
    }
    for input in &named {
        let path = path_of(Path::new(""), input);
        match path.is_dir() {
            true => in_folder(&path, channels, &mut found)?,
            false if input.contains(',') && !path.exists() => {
                found.cases.push(case(input.split(',').map(|part| path_of(Path::new(""), part.trim())).collect()));
            }
            false => found.cases.push(case(vec![path])),
        }
    }
    without_channels(&mut found.cases, channels.len());
    name_by_folder(&mut found.cases);
    let mut seen = HashSet::new();
    for case in &found.cases {
        if !seen.insert(case.name.as_str()) {
            let problem =
                format!("--input names two scans called {}, whose segmentations would be one file", case.name);
            return Err(Error::Usage(format!("{problem}; segment them one by one, each with its own --out")));
        }
    }
    Ok(found)
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt")) && !path.is_dir()
}

/// The lines of a list of scans.
fn listed(path: &Path) -> Result<Vec<String>> {
    let text = read_text(path, LONGEST_LIST)?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let named: Vec<String> =
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(String::from).collect();
    match named.is_empty() {
        true => Err(Error::data(path, "lists no scan", "write the path of a scan or a folder into each line")),
        false => Ok(named),
    }
}

/// Names cases that nnU-Net's rule names, `X_0000` for the first channel, X: of several files those that are channels in order;
/// a single one for a network of one channel, if no other of its folder is numbered so (`X_0001`: a series, not channels), and
/// no other case is called X there.
fn without_channels(cases: &mut [Case], channels: usize) {
    let at = |case: &Case| {
        (case.images.first().and_then(|image| image.path().parent()).map(PathBuf::from), case.name.clone())
    };
    let taken: HashSet<_> = cases.iter().map(at).collect();
    let mut series = HashMap::new();
    for case in cases.iter_mut().filter(|case| !case.images.is_empty()) {
        let stems: Vec<String> = case.images.iter().map(|image| stem(image.path())).collect();
        let Some((name, 0)) = channel_of(&stems[0], 1) else { continue };
        let (folder, own) = at(case);
        let in_order = |(channel, stem): (usize, &String)| channel_of(stem, channels) == Some((name, channel));
        let is_alone = |folder: &PathBuf| {
            let numbered: &Vec<String> = series.entry(folder.clone()).or_insert_with(|| numbered(folder));
            numbered.iter().filter(|numbered| *numbered == name).count() == 1
        };
        let applies = stems.len() == channels && stems.iter().enumerate().all(in_order);
        if own == stems[0]
            && applies
            && (channels > 1 || folder.as_ref().is_some_and(is_alone))
            && !taken.contains(&(folder, name.to_owned()))
        {
            case.name = name.to_owned();
        }
    }
}

/// X of each image `X_0123` of a folder.
fn numbered(folder: &Path) -> Vec<String> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let names = Folder::Disk(here.into()).images("").unwrap_or_default();
    let case = |name: &String| Some(channel_of(split_ending(name).0, usize::MAX)?.0.to_owned());
    names.iter().filter_map(case).collect()
}

/// Cases that are called alike and lie in different folders get the folder's name before their own.
fn name_by_folder(cases: &mut [Case]) {
    let mut count: HashMap<String, usize> = HashMap::new();
    cases.iter().for_each(|case| *count.entry(case.name.clone()).or_default() += 1);
    for case in cases.iter_mut().filter(|case| count[&case.name] > 1) {
        let folder = case.images.first().and_then(|image| image.path().parent()?.canonicalize().ok());
        if let Some(folder) = folder.as_deref().and_then(Path::file_name) {
            case.name = format!("{}_{}", text_of(folder), case.name);
        }
    }
}

/// A case of these files, named after the first.
fn case(files: Vec<PathBuf>) -> Case {
    let name = files.first().map(|file| stem(file)).unwrap_or_default();
    Case { name, images: files.into_iter().map(Source::File).collect(), label: None }
}

/// Adds what a folder holds.
fn in_folder(folder: &Path, channels: &[String], found: &mut Inputs) -> Result<()> {
    if let Some(subject) = subject(folder, channels)? {
        found.cases.push(subject);
        return Ok(());
    }
    let before = found.cases.len() + found.problems.len();
    let at = |name: &str| path_of(folder, name);
    let below = Folder::Disk(folder.into());
    for path in below.list("")?.iter().map(|name| at(name)).filter(|path| path.is_dir()) {
        match subject(&path, channels) {
            Ok(subject) => found.cases.extend(subject),
            Err(problem @ Error::Data { .. }) => found.problems.push(problem),
            Err(error) => return Err(error),
        }
    }
    let mut names = below.images("")?;
    names.retain(|name| !at(name).is_dir());
    let is_whole = |name: &str| {
        let header = read_header(&Source::File(at(name)));
        header.is_ok_and(|header| header.channels() == channels.len())
    };
    // A network of one channel takes each file as it is called.
    let several = if channels.len() > 1 { channels.len() } else { 0 };
    let (cases, problems) = group(folder, &names, several, is_whole);
    let named =
        |(name, files): (String, Vec<String>)| Case { name, ..case(files.iter().map(|file| at(file)).collect()) };
    found.cases.extend(cases.into_iter().map(named));
    found.problems.extend(problems);
    if found.cases.len() + found.problems.len() == before {
        let problem = format!(
            "holds no .nii, .nii.gz or .hdr file, and no subject with a file for each of {}",
            channels.join(", ")
        );
        return Err(Error::data(folder, problem, "give scans, or a folder of them"));
    }
    order::by_name(&mut found.cases, |case| &case.name);
    Ok(())
}

/// The folder as one case, if it holds exactly one file for each of several channels by name. Files for some of them alone
/// are no case of their own but an error.
fn subject(folder: &Path, channels: &[String]) -> Result<Option<Case>> {
    if channels.len() < 2 {
        return Ok(None);
    }
    let scans = Folder::Disk(folder.into()).images("")?;
    let (mut images, mut missing, mut patients) = (Vec::new(), Vec::new(), BTreeSet::new());
    for channel in channels {
        let endings = brats::endings(channel);
        let before = |name: &String| {
            let stem = split_ending(name).0.to_lowercase();
            endings.iter().find_map(|ending| stem.strip_suffix(ending.as_str()).map(str::to_owned))
        };
        let mut matching = scans.iter().filter_map(|name| Some((name, before(name)?)));
        match (matching.next(), matching.next()) {
            (Some((name, patient)), None) => {
                images.push(Source::File(path_of(folder, name)));
                patients.insert(patient);
            }
            (Some(_), Some(_)) => return Ok(None),
            (None, _) => missing.push(endings.into_iter().next().unwrap_or_default()),
        }
    }
    match (images.len(), missing.is_empty()) {
        (_, true) => {}
        (0 | 1, _) => return Ok(None),
        (some, _) => {
            let problem = format!(
                "holds {some} of the {} channels of the network, but no scan ending in {}",
                channels.len(),
                missing.join(" or ")
            );
            return Err(Error::data(folder, problem, "add it, or name other scans with --input"));
        }
    }
    if patients.len() > 1 {
        let named = patients.into_iter().collect::<Vec<_>>().join(", ");
        let problem = format!("holds channels of {named}, which are not one subject by their names");
        return Err(Error::data(folder, problem, "name the files of a case alike, or give them joined by commas"));
    }
    let name = folder.canonicalize().map_err(|error| Error::file(folder, error))?;
    Ok(Some(Case { name: file_name(&name), images, label: None }))
}

/// The file's name without its ending.
fn stem(path: &Path) -> String {
    split_ending(&file_name(path)).0.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    /// Names and numbers of files.
    fn found(root: &tempfile::TempDir, inputs: &[&str], channels: &[&str]) -> Result<Vec<(String, usize)>> {
        let inputs: Vec<String> = inputs
            .iter()
            .map(|input| {
                let parts = input.split(',').map(|part| root.path().join(part).to_string_lossy().into_owned());
                parts.collect::<Vec<_>>().join(",")
            })
            .collect();
        let channels: Vec<String> = channels.iter().map(|channel| channel.to_string()).collect();
        Ok(cases(&inputs, &channels)?.into_iter().map(|case| (case.name, case.images.len())).collect())
    }

    const BRATS: [&str; 4] = ["flair", "t1", "t1ce", "t2"];

    #[test]
    fn files_lists_of_files_and_folders() {
        let root = tree(&[
            "a.nii.gz",
            "b.nii",
            "notes.txt",
            ".hidden.nii",
            "n/x_0000.nii.gz",
            "n/x_0001.nii.gz",
            "n/y_0000.nii.gz",
            "pairs/c.hdr",
            "pairs/c.img",
        ]);
        let one = ["CT"];
        assert_eq!(found(&root, &["a.nii.gz", "b.nii"], &one).unwrap(), [("a".into(), 1), ("b".into(), 1)]);
        assert_eq!(found(&root, &["."], &one).unwrap(), [("a".into(), 1), ("b".into(), 1)]);
        for input in ["pairs", "pairs/c.hdr", "pairs/c.img"] {
            assert_eq!(found(&root, &[input], &one).unwrap(), [("c".into(), 1)], "{input}");
        }
        assert_eq!(found(&root, &["a.nii.gz,b.nii"], &["T1", "T2"]).unwrap(), [("a".into(), 2)]);
        // Of one channel X_0000 is X, but of a series; of several, each case must be complete.
        let own = ["x_0000", "x_0001", "y"].map(|name| (name.into(), 1));
        assert_eq!(found(&root, &["n"], &one).unwrap(), own);
        let message = found(&root, &["n"], &["T1", "T2"]).unwrap_err().to_string();
        assert!(message.contains("y_0000.nii.gz: is channel 0") && message.contains("lacks y_0001"), "{message}");
        std::fs::remove_file(root.path().join("n/y_0000.nii.gz")).unwrap();
        assert_eq!(found(&root, &["n"], &["T1", "T2"]).unwrap(), [("x".into(), 2)]);
        let message = found(&root, &["a.nii.gz", "."], &one).unwrap_err().to_string();
        assert!(message.contains("_a, whose segmentations"), "{message}");
        let twins = tree(&["p0/ct.nii.gz", "p1/ct.nii", "p1/mr.nii"]);
        let names = ["p0_ct", "p1_ct", "mr"].map(|name| (name.into(), 1));
        assert_eq!(found(&twins, &["p0", "p1"], &one).unwrap(), names);
    }

    #[test]
    fn no_two_scans_are_called_alike() {
        let root =
            tree(&["a_0000.nii.gz", "b_0000.nii.gz", "b.nii.gz", "c_0000.nii.gz", "c_0007.nii", "d/a_0000.nii.gz"]);
        let one = ["CT"];
        assert_eq!(found(&root, &["a_0000.nii.gz"], &one).unwrap(), [("a".into(), 1)]);
        // Whether the number is a channel does not depend on which scans are named; a name that is free is taken.
        assert_eq!(found(&root, &["c_0000.nii.gz"], &one).unwrap(), [("c_0000".into(), 1)]);
        assert_eq!(found(&root, &["b_0000.nii.gz"], &one).unwrap(), [("b".into(), 1)]);
        let all = ["a", "b", "b_0000", "c_0000", "c_0007"].map(|name| (name.into(), 1));
        assert_eq!(found(&root, &["."], &one).unwrap(), all);
        let twins = found(&root, &["a_0000.nii.gz", "d"], &one).unwrap();
        assert!(twins[0].0.ends_with("_a") && twins[1].0 == "d_a", "{twins:?}");
        assert!(found(&root, &["a_0000.nii.gz", "a_0000.nii.gz"], &one).is_err());
        // A file of all channels keeps its name; files in the order of the channels are one case.
        assert_eq!(found(&root, &["a_0000.nii.gz"], &["T1", "T2"]).unwrap(), [("a_0000".into(), 1)]);
        let pair = tree(&["p_0000.nii", "p_0001.nii", "q_0001.nii"]);
        assert_eq!(found(&pair, &["p_0000.nii,p_0001.nii"], &["T1", "T2"]).unwrap(), [("p".into(), 2)]);
        assert_eq!(found(&pair, &["p_0000.nii,q_0001.nii"], &["T1", "T2"]).unwrap(), [("p_0000".into(), 2)]);
    }

    #[test]
    fn lists() {
        let root = tree(&["a.nii.gz", "b.nii", "more/c.nii"]);
        let at = |name: &str| root.path().join(name).display().to_string();
        let text = format!("\u{feff}# of today\n{}\r\n\n  {}\n{}\n", at("b.nii"), at("a.nii.gz"), at("more"));
        std::fs::write(root.path().join("cases.txt"), text).unwrap();
        let names: Vec<String> =
            found(&root, &["cases.txt"], &["CT"]).unwrap().into_iter().map(|case| case.0).collect();
        // The order is of no account.
        assert_eq!(names, ["a", "b", "c"]);
        std::fs::write(root.path().join("cases.txt"), "# none\n").unwrap();
        let message = found(&root, &["cases.txt"], &["CT"]).unwrap_err().to_string();
        assert!(message.contains("cases.txt: lists no scan"), "{message}");
        assert!(found(&root, &["gone.txt"], &["CT"]).unwrap_err().to_string().contains("gone.txt"));
    }

    #[test]
    fn subjects() {
        let files: Vec<String> = BRATS.iter().chain(&["seg"]).map(|part| format!("s1/B_1_{part}.nii.gz")).collect();
        let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
        files.push("s2/B_2_flair.nii.gz");
        let root = tree(&files);
        assert_eq!(found(&root, &["s1"], &BRATS).unwrap(), [("s1".into(), 4)]);
        assert_eq!(found(&root, &["."], &BRATS).unwrap(), [("s1".into(), 4)]);
        let later = ["t/B-t2f.nii.gz", "t/B-t1n.nii.gz", "t/B-t1c.nii.gz", "t/B-t2w.nii.gz", "t/B-seg.nii.gz"];
        assert_eq!(found(&tree(&later), &["."], &BRATS).unwrap(), [("t".into(), 4)]);
        let incomplete = ["s/a_flair.nii.gz", "s/a_t1.nii.gz", "s/a_t2.nii.gz"];
        for input in ["s", "."] {
            let message = found(&tree(&incomplete), &[input], &BRATS).unwrap_err().to_string();
            assert!(message.contains("/s: holds 3 of the 4") && message.contains("in _t1ce;"), "{message}");
        }
        let message = found(&tree(&["empty/x.txt"]), &["empty"], &BRATS).unwrap_err().to_string();
        assert!(message.contains("no .nii") && message.contains("t1ce"), "{message}");
    }
}
