//! What `ossnet infer` leaves to be looked at: meshes as files, and the page of all scans.

use std::path::{Path, PathBuf};

use clap::Args;

use super::mesh::ShapeArgs;
use crate::data::{Labels, Volume};
use crate::device::Device;
use crate::error::Result;
use crate::infer::Refinement;
use crate::label_table;
use crate::mesh::{self, Dropped, Mesh, MeshFormat, MeshOptions, Part};
use crate::task::Task;

/// Most steps of refinement: a vertex moves at most this many thousandths of a voxel.
const MOST_REFINEMENT: u64 = 1_000_000;

/// Flags of meshes and of the page.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Meshes")]
pub struct MeshOutputArgs {
    /// Write meshes as well, one a class: obj, ply, stl, glb or pt
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    mesh: Option<String>,
    #[command(flatten)]
    pub(super) shape: ShapeArgs,
    /// Steps in which the meshes' vertices are moved to where the network sees the surface (the official code: 200)
    #[arg(long, value_name = "STEPS", default_value_t = 0, requires = "mesh", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(..=MOST_REFINEMENT))]
    refine: u64,
    /// Write report.html, which shows slices with outlines and meshes that turn, of all scans in --out
    #[cfg(feature = "report")]
    #[arg(long)]
    pub(super) report: bool,
}

/// Reads the name of a format.
fn parse_format(text: &str) -> Result<String, String> {
    let known = MeshFormat::of(&Path::new("mesh").with_extension(text)).is_ok();
    known.then(|| text.to_string()).ok_or_else(|| format!("'{text}' is no mesh format; write obj, ply, stl, glb or pt"))
}

impl MeshOutputArgs {
    /// The mesh files of a case, with the class of each: `NAME.ply`, or `NAME_CLASS.ply` where a network knows several.
    fn meshes(&self, folder: &Path, name: &str, task: &Task) -> Vec<(u8, PathBuf)> {
        let Some(extension) = &self.mesh else { return Vec::new() };
        let values = task.preprocessing.classes.get(1..).unwrap_or(&[]);
        let names = file_names(task);
        let file = |class: usize| match values.len() {
            1 => format!("{name}.{extension}"),
            _ => format!("{name}_{}.{extension}", names[class]),
        };
        // A GLB holds all classes.
        let file = |class: usize| if extension == "glb" { format!("{name}.glb") } else { file(class) };
        values.iter().enumerate().map(|(class, &value)| (value, folder.join(file(class)))).collect()
    }

    /// Every file that a case's meshes take.
    pub(super) fn files(&self, folder: &Path, name: &str, task: &Task) -> Vec<PathBuf> {
        let files =
            |(_, path): &(u8, PathBuf)| MeshFormat::of(path).map(|format| format.files(path)).unwrap_or_default();
        let mut files: Vec<PathBuf> = self.meshes(folder, name, task).iter().flat_map(files).collect();
        files.dedup();
        files
    }

    /// True if the network is to refine meshes.
    pub(super) fn refines(&self) -> bool {
        self.refine > 0
    }

    /// Writes a case's meshes: of the probabilities where a network has one output and they were kept, else of the labels;
    /// `refined` is asked for each mesh if [`MeshOutputArgs::refines`]. Returns what was written, for the summary.
    ///
    /// # Errors
    /// What `refined` reports, no memory, a full disk.
    pub(super) fn write(
        &self,
        (device, folder, name): (&Device, &Path, &str),
        task: &Task,
        labels: &Labels,
        probabilities: Option<(&Volume, f32)>,
        mut refined: impl FnMut(Mesh, &Refinement) -> Result<(Mesh, Vec<f64>)>,
    ) -> Result<Vec<serde_json::Value>> {
        let options = self.shape.options();
        let table = label_table::labels(task);
        let (mut written, mut together) = (Vec::new(), Vec::new());
        for (class, path) in self.meshes(folder, name, task) {
            let (mut mesh, dropped) = match probabilities.filter(|(volume, _)| volume.channels == 1) {
                Some((volume, threshold)) => {
                    let options = MeshOptions { threshold, ..options };
                    mesh::of_field(device, volume.voxels.clone(), volume.shape, &volume.geometry.affine, &options)?
                }
                None => mesh::of_labels(device, labels, class, &options)?,
            };
            let mut losses = Vec::new();
            if self.refines() {
                (mesh, losses) = refined(mesh, &Refinement { steps: self.refine as usize, ..Refinement::default() })?;
            }
            let files = MeshFormat::of(&path)?.files(&path);
            let known = table.iter().find(|label| label.value == class);
            let called = known.map_or_else(|| format!("class {class}"), |label| label.name.clone());
            self.shape.warn(&format!("{}: {called}: ", files[0].display()), &mesh, dropped);
            let mut entry = described(&files, class, &mesh, dropped);
            if let [first, .., last] = losses[..] {
                entry["refinement_loss"] = serde_json::json!([first, last]);
            }
            written.push(entry);
            match MeshFormat::of(&path)? {
                MeshFormat::Glb => together.push((path, class, mesh)),
                _ => drop(mesh::write(&path, &mesh, self.shape.space())?),
            }
        }
        let parts: Vec<Part<'_>> = together
            .iter()
            .filter_map(|(_, class, mesh)| {
                let label = table.iter().find(|label| label.value == *class)?;
                Some(Part { name: &label.name, colour: label.colour, mesh })
            })
            .collect();
        if let Some((path, ..)) = together.first() {
            mesh::write_parts(path, &parts, self.shape.space())?;
        }
        Ok(written)
    }
}

/// What each class but background is called in names of files.
fn file_names(task: &Task) -> Vec<String> {
    let values = task.preprocessing.classes.iter().enumerate().skip(1);
    let classes = values.map(|(class, &value)| (i64::from(value), task.class_names.get(class).map(String::as_str)));
    label_table::file_names(&classes.collect::<Vec<_>>())
}

/// What is said of a mesh in a summary.
fn described(files: &[PathBuf], class: u8, mesh: &Mesh, dropped: Dropped) -> serde_json::Value {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    serde_json::json!({
        "files": names,
        "class": class,
        "triangles": mesh.triangles.len(),
        "volume_ml": mesh.volume() / 1000.0,
        "area_cm2": mesh.area() / 100.0,
        "pieces_dropped": dropped.components,
    })
}

#[cfg(feature = "report")]
pub(super) mod page {
    //! `report.html` of segmented scans. It is made of the files on the disk, so that resumed runs show all scans, and
    //! nothing is held for it while networks run.

    use std::path::{Path, PathBuf};

    use crate::data::{Affine, Axes, Case, Labels, Source, Volume};
    use crate::device::Device;
    use crate::error::{Error, Result};
    use crate::evaluate::statistics::Summary;
    use crate::files::write_atomic;
    use crate::memory::format_bytes;
    use crate::mesh::{self, MeshOptions};
    use crate::report::{self, SegmentedClass, SegmentedScan};
    use crate::task::Task;

    /// A scan that was segmented.
    pub struct Segmented<'a> {
        pub case: &'a Case,
        /// The segmentation's file.
        pub labels: PathBuf,
        /// Its entry of the summary.
        pub entry: &'a serde_json::Value,
    }

    /// A class that may be found: its label value and its name.
    struct Sought {
        value: u8,
        name: String,
    }

    /// All classes of a task but the background.
    fn sought(task: &Task) -> Vec<Sought> {
        let classes = task.preprocessing.classes.iter().enumerate().skip(1);
        let name =
            |class: usize, value: u8| task.class_names.get(class).cloned().unwrap_or_else(|| format!("class {value}"));
        classes.map(|(class, &value)| Sought { value, name: name(class, value) }).collect()
    }

    /// Meshes of the page: stairs are smoothed, and ten thousand triangles are plenty on a screen.
    fn shown(options: MeshOptions) -> MeshOptions {
        let triangles = if options.triangles == 0 { 10_000 } else { options.triangles.min(10_000) };
        MeshOptions { smoothing: options.smoothing.max(15), triangles, ..options }
    }

    /// Writes `report.html` into `folder`. `title` names the network; `tick` is called before each scan and may stop the work.
    ///
    /// # Errors
    /// A file that cannot be read again, what `tick` reports, no memory, a full disk.
    pub fn write(
        device: &Device,
        folder: &Path,
        title: &str,
        task: &Task,
        options: MeshOptions,
        scans: &[Segmented<'_>],
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let classes = sought(task);
        let mut shown_scans = Vec::new();
        for scan in scans {
            tick()?;
            shown_scans.push(section(device, task, &classes, shown(options), scan)?);
        }
        let seconds: f64 = scans.iter().map(|scan| scan.entry["seconds"].as_f64().unwrap_or(0.0)).sum();
        let conclusion = match scans.len() {
            1 => format!("One scan was segmented by {title} in {seconds:.1} s: {}.", volumes(&shown_scans)),
            count => format!("{count} scans were segmented by {title} in {seconds:.1} s; {}.", volumes(&shown_scans)),
        };
        let threads = crate::cli::output::plural(device.threads(), "thread");
        let run = format!("{}, {threads}, ossnet {}", device.name(), env!("CARGO_PKG_VERSION"));
        write_atomic(folder.join("report.html"), report::scans_page(&shown_scans, &conclusion, &run)?.as_bytes())
    }

    /// What was found of each class: `heart 512.3 ml`, of several scans the median and the range.
    fn volumes(scans: &[SegmentedScan]) -> String {
        let classes = scans.first().map_or(&[][..], |scan| &scan.classes);
        let of_class = |(k, class): (usize, &SegmentedClass)| {
            let found = Summary::of(scans.iter().map(|scan| scan.classes[k].volume));
            match (scans.len(), found.median, found.range) {
                (2.., Some(median), Some([low, high])) => {
                    format!("{} {median:.1} ml (median, {low:.1} to {high:.1})", class.name)
                }
                _ => format!("{} {:.1} ml", class.name, class.volume),
            }
        };
        classes.iter().enumerate().map(of_class).collect::<Vec<_>>().join(", ")
    }

    fn section(
        device: &Device,
        task: &Task,
        classes: &[Sought],
        options: MeshOptions,
        scan: &Segmented<'_>,
    ) -> Result<SegmentedScan> {
        let labels = Labels::read(&Source::File(scan.labels.clone()), Axes::Canonical)?;
        let image = {
            let image = scan.case.read(&[], Axes::Canonical)?.image;
            on_grid(&image, labels.shape)
        };
        let counts = labels.histogram();
        let found = classes.iter().map(|class| {
            let (mesh, _) = mesh::of_labels(device, &labels, class.value, &options)?;
            let volume = labels.geometry.affine.millilitres(counts[usize::from(class.value)]);
            Ok(SegmentedClass { value: class.value, name: class.name.clone(), volume, mesh })
        });
        let classes = found.collect::<Result<Vec<_>>>()?;
        // Slices know 0 as background; the label files may have another value there.
        let background = task.preprocessing.classes.first().copied().unwrap_or(0);
        let mut mask = labels.voxels.clone();
        mask.iter_mut().filter(|value| **value == background).for_each(|value| *value = 0);
        let volume = report::ImageVolume {
            image: &image,
            label: &mask,
            shape: labels.shape,
            spacing: labels.geometry.spacing(),
            axes: ['R', 'A', 'S'],
        };
        let slices = report::case_slices(&scan.case.name, &volume, &[])?;
        Ok(SegmentedScan {
            name: scan.case.name.clone(),
            facts: facts(scan.entry, &labels.geometry.affine),
            slices,
            classes,
        })
    }

    /// The first channel at the voxels of another grid on the same box.
    fn on_grid(image: &Volume, shape: [usize; 3]) -> Vec<f32> {
        let own = image.shape;
        let nearest: [Vec<usize>; 3] = [0, 1, 2].map(|axis| {
            (0..shape[axis])
                .map(|i| ((i as f64 + 0.5) * own[axis] as f64 / shape[axis] as f64) as usize)
                .map(|i| i.min(own[axis] - 1))
                .collect()
        });
        let mut values = Vec::with_capacity(shape.iter().product());
        for &x in &nearest[0] {
            for &y in &nearest[1] {
                let row = (x * own[1] + y) * own[2];
                values.extend(nearest[2].iter().map(|&z| image.voxels[(row + z) * image.channels]));
            }
        }
        values
    }

    /// What the summary says of a scan, for a reader.
    fn facts(entry: &serde_json::Value, affine: &Affine) -> Vec<(String, String)> {
        let sides = |values: Vec<String>| values.join(" × ");
        let shape = entry["shape"].as_array().into_iter().flatten().map(ToString::to_string).collect();
        let spacing =
            affine.spacing().map(|mm| format!("{:.2}", mm).trim_end_matches('0').trim_end_matches('.').to_string());
        let mut facts = vec![
            ("voxels".to_string(), sides(shape)),
            ("mm".to_string(), sides(spacing.to_vec())),
            ("seconds".to_string(), format!("{:.1}", entry["seconds"].as_f64().unwrap_or(0.0))),
            ("memory".to_string(), format_bytes(entry["peak_bytes"].as_u64().unwrap_or(0))),
        ];
        if let Some(points) = entry["points"].as_u64() {
            facts.push(("points".to_string(), points.to_string()));
        }
        let warnings = entry["warnings"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        facts.extend(warnings.map(|warning| ("warning".to_string(), warning.to_string())));
        facts
    }

    /// The error of an entry that a summary lacks.
    pub fn missing(folder: &Path, name: &str) -> Error {
        Error::data(
            folder.join("inference.json"),
            format!("has no entry of {name}"),
            "choose another --out, or segment it again",
        )
    }
}
