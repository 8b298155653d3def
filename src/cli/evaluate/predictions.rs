//! Scores of label files, whatever program wrote them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{AGAIN, EvaluateArgs, Part, Scored, write};
use crate::cli::failures::{Failures, is_of_case};
use crate::cli::output::plural;
#[cfg(feature = "report")]
use crate::cli::pictures::{slices, worst_and_median};
use crate::cli::training::scan_folder;
use crate::data::dataset::{Layout, Split};
use crate::data::nifti::split_ending;
use crate::data::{Axes, Case, Class, Dataset, Folder, Labels, Scanned, Source, Warning, validate};
use crate::error::{Error, Result};
use crate::evaluate::metrics::ScoreRule;
use crate::evaluate::scores::CaseScores;
use crate::files::name::{file_name, path_of};
use crate::order;
use crate::report::CaseScore;
use crate::task::{PreparedCase, Task};
use crate::{evaluate, interrupt};

/// Scores the files in `folder`.
///
/// # Errors
/// Folders without label files, an interrupt, a full disk; at the end, cases that could not be scored.
pub(super) fn run(args: &EvaluateArgs, folder: &Path) -> Result<()> {
    let verbosity = args.run.verbosity();
    let files = label_files(folder)?;
    let Scanned { mut dataset, mut problems } = match (&args.labels, &args.data) {
        (Some(labels), _) => of_labels(labels)?,
        (None, Some(data)) => scan_folder(Some(data), args.seed.unwrap_or(0))?,
        (None, None) => {
            let problem = "--predictions has nothing to be compared with";
            return Err(Error::Usage(format!("{problem}; name the data set with --data, or the labels with --labels")));
        }
    };
    let mut cases: Vec<Case> = match args.part {
        Part::Validation => dataset.validation.clone(),
        Part::Training => dataset.training.clone(),
        Part::All => dataset.training.iter().chain(&dataset.validation).cloned().collect(),
    };
    // A case may be in both parts.
    let mut names = BTreeSet::new();
    cases.retain(|case| names.insert(case.name.clone()));
    if cases.is_empty() {
        // Of files none of which is a case the first says why.
        let told = problems.drain(..).next();
        return Err(told.unwrap_or_else(|| Error::data(&dataset.path, "has no such case", "choose another --part")));
    }
    let all: Vec<Case> = dataset.training.iter().chain(&dataset.validation).cloned().collect();
    let others: BTreeSet<&str> = order::set(
        all.iter()
            .filter(|case| !names.contains(&case.name) && file_of(case, &all, &files, folder).is_ok())
            .map(|case| case.name.as_str()),
    );
    if !others.is_empty() {
        let problem = format!("holds {} of cases that are not scored; add --part all", plural(others.len(), "file"));
        verbosity.warn(&Warning::new(folder, problem));
    }
    let task = Task::of(&dataset, [1; 3]);
    let mut failures = Failures::new(cases.len() + problems.len());
    problems.into_iter().try_for_each(|problem| failures.pass_over_file(problem))?;
    let title = folder.display().to_string();
    let what = plural(cases.len(), args.part.of_cases());
    verbosity.say(format!("scoring {title} on {what} of {} ({})", dataset.name, dataset.path.display()));
    let out = args.folder()?;
    let (mut scores, mut measured) = (Vec::new(), Vec::new());
    let mut bar = verbosity.task("evaluating", cases.len() as u64);
    for case in &cases {
        interrupt::check(|| format!("{} of {} cases are scored; run the command again", scores.len(), cases.len()))?;
        let file = file_of(case, &cases, &files, folder);
        match file.and_then(|file| one(case, &dataset, &task, file, args.tolerance)) {
            Ok((score, all)) => {
                scores.push(score);
                measured.push(all);
            }
            Err(error) => {
                let passed = is_of_case(&error, case, Path::new(""));
                failures.pass_over(&case.name, error, passed)?;
            }
        }
        bar.advance(&case.name);
    }
    bar.finish("done");
    if scores.is_empty() {
        return failures.finish(
            &dataset.path,
            "scored",
            "check that --predictions holds files called as the cases are",
        );
    }
    #[cfg(feature = "report")]
    let pictures = {
        let mut pictures = Vec::new();
        // Where there are only labels, there is no scan to look at.
        for (i, heading) in worst_and_median(&scores).into_iter().filter(|_| args.labels.is_none()) {
            let case = cases.iter().find(|case| case.name == scores[i].name);
            let case = case
                .ok_or_else(|| Error::Model(format!("case {} is not in the data set; report this", scores[i].name)))?;
            let (prepared, found) = read(case, &dataset, &task, file_of(case, &cases, &files, folder)?)?;
            let slices = slices(&task, &prepared, &[(&title, &found)])?;
            pictures.push(crate::report::PicturedCase { heading, slices });
        }
        pictures
    };
    // What was scored is what the hash of the data is of.
    (dataset.training, dataset.validation) = (Vec::new(), cases);
    let scored = Scored {
        title,
        dataset: &dataset,
        scores,
        measured,
        #[cfg(feature = "report")]
        pictures,
    };
    write(args, out.path(), &scored)?;
    failures.finish(&dataset.path, "scored", AGAIN)
}

/// One case with what was predicted for it.
fn read(case: &Case, dataset: &Dataset, task: &Task, path: &Path) -> Result<(PreparedCase, Labels)> {
    let prepared = task.prepare(dataset.read(case, Axes::Canonical)?, None)?;
    let truth = evaluate::truth_of(&prepared)?;
    let mut found = Labels::read(&Source::File(path.into()), Axes::Canonical)?;
    let beside = case.label.as_ref().map_or(dataset.path.as_path(), Source::path);
    if dataset.ignore_geometry {
        found.geometry = truth.geometry;
    }
    validate::same_grid((beside, truth.shape, &truth.geometry), (path, found.shape, &found.geometry))?;
    found = found.mapped(&aliased(dataset));
    let known: Vec<u8> = dataset.class_values().into_iter().chain(dataset.ignore).collect();
    validate::declared_classes(&found, &known, path)?;
    Ok((prepared, found))
}

/// The scores of one case.
fn one(case: &Case, dataset: &Dataset, task: &Task, path: &Path, tolerance: f64) -> Result<(CaseScore, CaseScores)> {
    let (prepared, found) = read(case, dataset, task, path)?;
    let rule = ScoreRule::DEFAULT;
    let score = evaluate::score(task, &prepared, &found, rule)?;
    Ok((score, evaluate::measure(task, &prepared, &found, tolerance, rule)?))
}

/// What is read for each stored label.
fn aliased(dataset: &Dataset) -> [u8; 256] {
    let mut table: [u8; 256] = std::array::from_fn(|value| value as u8);
    dataset.aliases.iter().for_each(|[stored, meant]| table[usize::from(*stored)] = *meant);
    table
}

/// The prediction of a case. A file name that would fit several of `cases` belongs to the case of exactly that name only.
///
/// # Errors
/// [`Error::Data`] if there is none, or more than one of that name.
fn file_of<'a>(
    case: &Case,
    cases: &[Case],
    files: &'a BTreeMap<String, Vec<PathBuf>>,
    folder: &Path,
) -> Result<&'a Path> {
    let mut names = names_of(case);
    let is_others = |name: &String| cases.iter().any(|other| other.name != case.name && names_of(other).contains(name));
    names.retain(|name| *name == case.name || !is_others(name));
    match names.iter().find_map(|name| files.get(name)).map(Vec::as_slice) {
        Some([path]) => Ok(path),
        Some([first, second, ..]) => {
            let problem = format!("and {} are both called as the case {}", second.display(), case.name);
            Err(Error::data(first, problem, "remove one of them"))
        }
        _ => {
            let problem = format!("holds no label file of case {}", case.name);
            Err(Error::data(folder, problem, format!("name it {}.nii.gz", case.name)))
        }
    }
}

/// What the prediction of a case may be called, without its ending: as the case, its label file or its first image.
fn names_of(case: &Case) -> Vec<String> {
    let stem = |source: &Source| split_ending(&file_name(source.path())).0.to_owned();
    let mut names = vec![case.name.clone()];
    names.extend(case.label.as_ref().map(stem));
    names.extend(case.images.first().map(stem));
    names
}

/// The images in a folder by their names without ending.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Data`] if it holds none.
fn label_files(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut files = BTreeMap::<String, Vec<PathBuf>>::new();
    for name in Folder::Disk(folder.into()).images("")? {
        files.entry(split_ending(&name).0.to_owned()).or_default().push(path_of(folder, &name));
    }
    match files.is_empty() {
        true => Err(Error::data(folder, "holds no label file", "give a folder of files called CASE.nii.gz")),
        false => Ok(files),
    }
}

/// A folder of label files as a data set without images, whose classes are the values that they hold.
fn of_labels(folder: &Path) -> Result<Scanned> {
    let (mut cases, mut values, mut problems) = (Vec::new(), BTreeSet::from([0u8]), Vec::new());
    for (name, paths) in label_files(folder)? {
        if let [first, second, ..] = &paths[..] {
            let problem = format!("and {} are both called {name}", first.display());
            problems.push(Error::data(second, problem, "remove one of them"));
            continue;
        }
        let source = Source::File(paths.into_iter().next().unwrap_or_default());
        match Labels::read(&source, Axes::Canonical) {
            Ok(labels) => {
                values.extend((0..=255u8).filter(|value| labels.histogram()[usize::from(*value)] > 0));
                cases.push(Case { name, images: vec![source.clone()], label: Some(source) });
            }
            Err(error) => problems.push(error),
        }
    }
    let class =
        |value: u8| Class { value, name: if value == 0 { "background".into() } else { format!("class {value}") } };
    let dataset = Dataset {
        name: file_name(folder),
        path: folder.into(),
        layout: Layout::LitsFlat,
        channels: vec!["labels".into()],
        classes: values.into_iter().map(class).collect(),
        ignore: None,
        aliases: Vec::new(),
        training: Vec::new(),
        validation: cases,
        test: Vec::new(),
        split: Split::Declared,
        clip: None,
        ignore_geometry: false,
        warnings: Vec::new(),
    };
    Ok(Scanned { dataset, problems })
}
