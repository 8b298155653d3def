//! `ossnet inspect`: what a data set holds, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use clap::Args;

use super::RunArgs;
use super::output::{NAME_A_FOLDER, check_folder_name, plural, print, refuse_existing};
use super::provenance::stamped_text;
use crate::data::Dataset;
use crate::data::inspect::{CaseInspection, InspectOptions, Inspection, inspect, millimetres};
use crate::error::Result;
use crate::evaluate::statistics::quantile;
use crate::files::{RunFolder, write_atomic};
use crate::memory::size;
use crate::order;
use crate::text::visible_line;

/// Cases and problems of which the text lists each; `--json` and `--out` have all.
const LISTED: usize = 20;

/// The whole as a file.
const INSPECTION: &str = "inspection.json";

/// Flags of `ossnet inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// A data set's folder (Decathlon, nnU-Net, BraTS or LiTS layout), sample:TASK for an embedded one, or an image file
    path: PathBuf,
    /// Read every voxel: label values, class volumes, intensities, damaged files
    #[arg(long)]
    full: bool,
    /// Folder for inspection.json, a montage of slices (montage.png) and a page on which they scroll (report.html)
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the inspection that --out holds
    #[arg(long, requires = "out")]
    overwrite: bool,
    /// Do not compare where the files of a case lie in space
    #[arg(long)]
    ignore_geometry: bool,
    /// Seed of the drawn validation cases
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    seed: u64,
    /// End with status 1 if there is a problem; otherwise problems are results, and the status is 0
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Inspects.
///
/// # Errors
/// A path that is no data set and no image, an output folder that cannot be written. Faults of single cases are results.
pub fn run(args: InspectArgs) -> Result<()> {
    let verbosity = args.run.verbosity();
    args.run.memory_budget.into_iter().for_each(size::set_host_budget);
    refuse_existing(args.out.iter().map(|out| out.join(INSPECTION)), args.overwrite)?;
    args.out.iter().try_for_each(|out| check_folder_name(out, NAME_A_FOLDER))?;
    let folder = args.out.as_ref().map(|out| RunFolder::claim(out, |_| true)).transpose()?;
    let options = InspectOptions { full: args.full, ignore_geometry: args.ignore_geometry, seed: args.seed };
    let started = Instant::now();
    let bar = Mutex::new(verbosity.task("inspecting", 0));
    let (found, dataset) = inspect(&args.path, options, |case, count| {
        let mut bar = bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        bar.set_length(count as u64);
        bar.advance(case);
    })?;
    let seconds = started.elapsed().as_secs_f64();
    if let Ok(bar) = bar.into_inner() {
        bar.finish("done");
    }
    let json = serde_json::to_string_pretty(&found)
        .map_err(|error| crate::Error::data(&args.path, error.to_string(), "report this as a bug"))?;
    let json = stamped_text(&json, "cases", Some(&dataset))?;
    let mut shown = None;
    if let Some(folder) = &folder {
        write_atomic(folder.path().join(INSPECTION), json.as_bytes())?;
        shown = picture(&dataset, &found, folder)?;
    }
    let problems = found.problems.len() + found.cases.iter().map(|case| case.problems.len()).sum::<usize>();
    let outcome = match args.check && problems > 0 {
        true => {
            Err(crate::Error::data(&args.path, format!("has {}", plural(problems, "problem")), "mend what is listed"))
        }
        false => Ok(()),
    };
    if args.run.json {
        print(json)?;
        return outcome;
    }
    let mut text = text(&found, seconds);
    if let Some((path, cases)) = shown {
        let _ = writeln!(text, "montage: {} (rows: {})", path.display(), cases.join(", "));
    }
    print(text)?;
    outcome
}

/// Writes the montage; `None` without a case that can be shown.
#[cfg(feature = "report")]
fn picture(dataset: &Dataset, found: &Inspection, folder: &RunFolder) -> Result<Option<(PathBuf, Vec<String>)>> {
    use crate::data::Axes;
    use crate::report::{ImageVolume, SegmentedClass, SegmentedScan, case_slices, inspection_page, montage};

    /// Rows of the picture.
    const ROWS: usize = 6;
    /// Channels that are shown beyond the first.
    const MORE_CHANNELS: usize = 5;

    let sound = |name: &str| found.cases.iter().any(|case| case.name == name && case.problems.is_empty());
    let cases: Vec<_> = dataset.cases().filter(|(_, case)| sound(&case.name)).collect();
    let shown: Vec<_> = dataset.classes.iter().filter(|class| class.value > 0).collect();
    let (mut rows, mut names, mut scans) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..cases.len().min(ROWS) {
        let (_, case) = cases[row * cases.len() / cases.len().min(ROWS)];
        let Ok(scan) = dataset.read(case, Axes::Canonical) else { continue };
        let (image, background) = (&scan.image, vec![0; scan.image.len()]);
        let label = scan.labels.as_ref().map_or(&background, |labels| &labels.voxels);
        let mut slices = Vec::new();
        for channel in 0..image.channels.min(1 + MORE_CHANNELS) {
            let values: Vec<f32> = image.voxels.iter().skip(channel).step_by(image.channels).copied().collect();
            let spacing = image.geometry.spacing();
            let volume = ImageVolume { image: &values, label, shape: image.shape, spacing, axes: ['R', 'A', 'S'] };
            let cut = case_slices(&case.name, &volume, &[])?;
            let [sagittal, coronal, axial] = cut.slices.clone();
            if channel == 0 {
                slices.extend([sagittal, coronal]);
                let affine = &image.geometry.affine;
                let class = |class: &&crate::data::Class| SegmentedClass {
                    value: class.value,
                    name: class.name.clone(),
                    volume: affine.millilitres(label.iter().filter(|&&value| value == class.value).count() as u64),
                    mesh: Default::default(),
                };
                let facts = [
                    ("voxels", image.shape.map(|side| side.to_string()).join(" × ")),
                    ("mm", millimetres(spacing)),
                    ("channel", dataset.channels.first().cloned().unwrap_or_default()),
                ];
                scans.push(SegmentedScan {
                    name: case.name.clone(),
                    facts: facts.map(|(what, value)| (what.to_string(), value)).to_vec(),
                    classes: shown.iter().map(class).collect(),
                    slices: cut,
                });
            }
            slices.push(axial);
        }
        rows.push(slices);
        names.push(case.name.clone());
    }
    if rows.is_empty() {
        return Ok(None);
    }
    let path = folder.path().join("montage.png");
    let values: Vec<u8> = shown.iter().map(|class| class.value).collect();
    write_atomic(&path, &montage(&rows, &values)?)?;
    let conclusion = format!("{} of {} cases, with their labels.", scans.len(), cases.len());
    let run = format!("{}, ossnet {}", dataset.path.display(), super::VERSION);
    let page = inspection_page(&dataset.name, &scans, &conclusion, &run)?;
    write_atomic(folder.path().join("report.html"), page.as_bytes())?;
    Ok(Some((path, names)))
}

/// Pictures are part of the reports.
#[cfg(not(feature = "report"))]
fn picture(_: &Dataset, _: &Inspection, _: &RunFolder) -> Result<Option<(PathBuf, Vec<String>)>> {
    Ok(None)
}

/// The whole in words.
fn text(found: &Inspection, seconds: f64) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<13}{value}");
    };
    line("name", visible_line(&found.name).into_owned());
    line("layout", found.layout.map_or("single file", |layout| layout.name()).into());
    let count = |part: &str| found.cases.iter().filter(|case| case.part == part).count();
    if found.layout.is_some() {
        line(
            "cases",
            format!(
                "{} training, {} validation (division {}), {} without labels",
                count("training"),
                count("validation"),
                found.split,
                count("test")
            ),
        );
    }
    line("channels", visible_line(&found.channels.join(", ")).into_owned());
    if !found.classes.is_empty() {
        let classes = found.classes.iter().map(|(value, name)| format!("{value} {name}"));
        let ignored = found.ignore.map(|value| format!("{value} (ignored)"));
        line("classes", visible_line(&classes.chain(ignored).collect::<Vec<_>>().join(", ")).into_owned());
    }
    let read: Vec<&CaseInspection> = found.cases.iter().filter(|case| case.channels > 0).collect();
    line("shapes", extent(&read, |case| case.shape.map(|n| n as f64)));
    line("spacings", format!("{} mm", extent(&read, |case| case.spacing)));
    if let Some(usual) = usual_spacing(&read) {
        let asked = usual.map(|mm| mm.to_string()).join("x");
        let what = format!("spacings differ: train --preset auto, or --spacing {asked}, resamples all scans");
        line("", what);
    }
    line("orientations", tally(&read, |case| case.orientation.clone()));
    line("types", tally(&read, |case| case.datatype.into()));
    if found.full {
        volumes(found, &mut text);
    }
    list(found, &mut text);
    problems(found, &mut text);
    let _ = writeln!(text, "{} in {seconds:.2} s", plural(found.cases.len(), "case"));
    text
}

/// Lowest and highest along each axis: `240 × 240 × 155`, `512 × 512 × 74–685`.
fn extent(cases: &[&CaseInspection], value: impl Fn(&CaseInspection) -> [f64; 3]) -> String {
    let values: Vec<[f64; 3]> = cases.iter().map(|case| value(case)).collect();
    if values.is_empty() {
        return "–".into();
    }
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let axis = |k: usize| {
        let low = round(values.iter().map(|value| value[k]).fold(f64::INFINITY, f64::min));
        let high = round(values.iter().map(|value| value[k]).fold(0.0, f64::max));
        if low == high { format!("{low}") } else { format!("{low}–{high}") }
    };
    [0, 1, 2].map(axis).join(" × ")
}

/// Scans whose spacings differ by more than this share are no longer of one kind to a network.
const SPACINGS_APART: f64 = 0.1;

/// The median spacing along each axis in hundredths of a mm, where the spacings differ.
fn usual_spacing(cases: &[&CaseInspection]) -> Option<[f64; 3]> {
    let axes = [0, 1, 2].map(|axis| {
        let mut found: Vec<f64> = cases.iter().map(|case| case.spacing[axis]).collect();
        found.sort_unstable_by(f64::total_cmp);
        found
    });
    let apart = axes.iter().any(|found| match found[..] {
        [low, .., high] => high > low * (1.0 + SPACINGS_APART),
        _ => false,
    });
    apart.then(|| axes.map(|found| (found[found.len() / 2] * 100.0).round() / 100.0))
}

/// How many cases have which value: `RAS (3), LPS (1)`.
fn tally(cases: &[&CaseInspection], value: impl Fn(&CaseInspection) -> String) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    cases.iter().for_each(|case| *counts.entry(value(case)).or_default() += 1);
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    order::by_key_descending(&mut counts, |(_, count)| *count as u128);
    counts.iter().map(|(value, count)| format!("{value} ({count})")).collect::<Vec<_>>().join(", ")
}

/// Volume of each class over the cases that hold it, and the range of each channel.
fn volumes(found: &Inspection, text: &mut String) {
    let mut by_value: BTreeMap<u8, Vec<f64>> = BTreeMap::new();
    for label in found.cases.iter().flat_map(|case| &case.labels) {
        by_value.entry(label.value).or_default().push(label.millilitres);
    }
    let labelled = found.cases.iter().filter(|case| !case.labels.is_empty()).count();
    for (value, mut volumes) in by_value {
        volumes.sort_unstable_by(f64::total_cmp);
        let ignored = if found.ignore == Some(value) { "(ignored)" } else { "" };
        let name = found.classes.iter().find(|class| class.0 == value).map_or(ignored, |class| class.1.as_str());
        let name = visible_line(name);
        let median = quantile(&volumes, 0.5);
        let _ = writeln!(
            text,
            "{:<13}{value} {name}: in {} of {}, {:.1} ml (median), {:.1} to {:.1}",
            "label",
            volumes.len(),
            plural(labelled, "case"),
            median,
            volumes[0],
            volumes[volumes.len() - 1]
        );
    }
    for (channel, name) in found.channels.iter().enumerate() {
        let name = visible_line(name);
        let values: Vec<_> = found.cases.iter().filter_map(|case| case.intensities.get(channel)).collect();
        if values.is_empty() {
            continue;
        }
        let low = values.iter().map(|value| value.low).fold(f32::INFINITY, f32::min);
        let high = values.iter().map(|value| value.high).fold(f32::NEG_INFINITY, f32::max);
        let mean = values.iter().map(|value| value.mean).sum::<f64>() / values.len() as f64;
        let _ = writeln!(text, "{:<13}{name}: {low} to {high}, mean {mean:.1}", "intensities");
    }
}

/// The first cases, a line each.
fn list(found: &Inspection, text: &mut String) {
    let width = found.cases.iter().take(LISTED).map(|case| case.name.chars().count()).max().unwrap_or(0);
    for case in found.cases.iter().take(LISTED) {
        let mark = if case.problems.is_empty() { ' ' } else { '!' };
        let mut line = format!("{mark} {:<width$}  {:<10}", case.name, case.part);
        if case.channels > 0 {
            let shape = case.shape.map(|n| n.to_string()).join(" × ");
            let _ = write!(line, "  {shape}, {} mm, {}", millimetres(case.spacing), case.orientation);
        }
        for label in case.labels.iter().filter(|label| label.value > 0) {
            let _ = write!(line, ", {}: {:.1} ml", label.value, label.millilitres);
        }
        let _ = writeln!(text, "{}", visible_line(line.trim_end()));
    }
    if found.cases.len() > LISTED {
        let _ = writeln!(text, "  … and {} more (all of them with --json or --out)", found.cases.len() - LISTED);
    }
}

/// What is wrong, a line each.
fn problems(found: &Inspection, text: &mut String) {
    let all: Vec<&String> = found.problems.iter().chain(found.cases.iter().flat_map(|case| &case.problems)).collect();
    if all.is_empty() {
        text.push_str(match found.full {
            true => "no problems found\n",
            false => "no problems found in names and headers; --full reads all voxels\n",
        });
        return;
    }
    let _ = writeln!(text, "{}:", plural(all.len(), "problem"));
    for problem in all.iter().take(LISTED) {
        let _ = writeln!(text, "  {}", visible_line(problem));
    }
    if all.len() > LISTED {
        let _ = writeln!(text, "  … and {} more (all of them with --json or --out)", all.len() - LISTED);
    }
}
