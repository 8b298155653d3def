//! `ossnet mesh`: the surface of a segmentation or a probability map, as a file that other programs open.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::RunArgs;
use super::device_args::DeviceArgs;
use super::output::{new_files, note, plural, print, refuse_existing};
use super::provenance::{data_hash, print_json};
use crate::data::{Axes, Case, Labels, Source, Volume, nifti, validate};
use crate::error::{Error, Result};
use crate::files::name::text_of;
use crate::label_table::{self, COLOURS};
use crate::mesh::{self, Dropped, Mesh, MeshFormat, MeshOptions, Part, Space};

/// Most iterations of smoothing. One lets the longest waves of a mesh grow by up to 0.066 % (`mesh::smooth`: `(1 − k/2)(1 + k/1.9)`
/// is largest at k = 0.05): a hundred by 7 %, ten thousand without bounds.
const MOST_SMOOTHING: u64 = 100;

/// Flags of `ossnet mesh`.
#[derive(Args, Clone, Debug)]
pub struct MeshArgs {
    /// A segmentation or a probability map (.nii, .nii.gz)
    input: PathBuf,
    /// The mesh: .obj, .ply, .stl, .glb or .pt; of several classes, one file each (NAME_CLASS.ply), or one .glb. Classes are called
    /// as the .label file or the dataset.json beside the segmentation says
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Replace meshes that exist
    #[arg(long)]
    overwrite: bool,
    /// Mesh this class only [default: each that occurs, but 0]
    #[arg(short, long, value_name = "CLASS", allow_negative_numbers = true)]
    label: Option<i64>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Probability above which a voxel is inside; whole numbers are then values too, not classes
    #[arg(long, value_name = "P", allow_negative_numbers = true, conflicts_with = "label")]
    threshold: Option<f32>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Flags of every command that makes meshes.
#[derive(Args, Clone, Debug)]
pub struct ShapeArgs {
    /// Drop pieces of fewer voxels; where all are that small, the largest stays
    #[arg(long, value_name = "VOXELS", default_value_t = MeshOptions::default().smallest)]
    smallest: usize,
    /// Iterations of smoothing
    #[arg(long, value_name = "N", default_value_t = MeshOptions::default().smoothing as u64, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(..=MOST_SMOOTHING))]
    smooth: u64,
    /// Simplify to at most so many triangles, as far as the surface stays closed (0: keep all)
    #[arg(long, value_name = "N", default_value_t = MeshOptions::default().triangles)]
    triangles: usize,
    /// Write positions in LPS (ITK, DICOM) instead of RAS
    #[arg(long)]
    lps: bool,
}

impl ShapeArgs {
    /// How meshes are made.
    pub fn options(&self) -> MeshOptions {
        MeshOptions {
            smallest: self.smallest,
            smoothing: self.smooth as usize,
            triangles: self.triangles,
            ..MeshOptions::default()
        }
    }

    /// Says so where `what` is not as the flags ask for: no triangle, a piece that is too small, or more triangles.
    pub fn warn(&self, what: &str, mesh: &Mesh, dropped: Dropped) {
        let triangles = mesh.triangles.len();
        if triangles == 0 {
            note(format!("warning: {what}the mesh is empty; no voxel is inside"));
        }
        if dropped.spared > 0 {
            let least = plural(self.smallest, "voxel");
            note(format!(
                "warning: {what}all pieces have fewer than {least} (--smallest); the largest stays, of {}",
                plural(dropped.spared, "voxel")
            ));
        }
        if self.triangles > 0 && triangles > self.triangles {
            note(format!(
                "warning: {what}{triangles} triangles are the fewest that neither open nor fold the surface, more than --triangles {}",
                self.triangles
            ));
        }
    }

    /// The axes that files are written in.
    pub fn space(&self) -> Space {
        if self.lps { Space::Lps } else { Space::Ras }
    }
}

/// Meshes.
///
/// # Errors
/// An unusable file, a class that does not occur, an unknown extension, an output that exists, no memory, a full disk.
pub fn run(args: MeshArgs) -> Result<()> {
    let format = MeshFormat::of(&args.out)?;
    let _folders = new_files(format.files(&args.out), args.overwrite)?;
    if let Some(threshold) = args.threshold.filter(|threshold| !threshold.is_finite()) {
        return Err(Error::Usage(format!("--threshold {threshold} is no threshold; give a number, for example 0.5")));
    }
    let device = args.device.open(&args.run)?;
    let source = Source::File(args.input.clone());
    let (volume, tolerance) = Volume::read_with_tolerance(&source, Axes::Canonical)?;
    if volume.channels != 1 {
        let problem = format!("has {} channels", volume.channels);
        return Err(Error::data(&args.input, problem, "extract the one to be meshed"));
    }
    let odd = validate::geometry(&volume.geometry.stored, &args.input);
    odd.iter().for_each(|warning| args.run.verbosity().warn(warning));
    let options = args.shape.options();
    let classes = if args.threshold.is_none() { Classes::of(&source, &volume, tolerance)? } else { None };
    let Some(found) = classes else {
        if args.label.is_some() {
            let problem = "holds values that are no classes (whole numbers)";
            return Err(Error::data(&args.input, problem, "leave --label out and give --threshold"));
        }
        let threshold = match args.threshold {
            Some(threshold) => threshold,
            None => probability_threshold(&args.input, &volume.voxels, options.threshold)?,
        };
        let options = MeshOptions { threshold, ..options };
        let affine = volume.geometry.affine;
        let (mesh, dropped) = mesh::of_field(&device, volume.voxels, volume.shape, &affine, &options)?;
        return report(&args, vec![write(&args, &args.out, None, &mesh, dropped)?]);
    };
    let classes = found.chosen(&args.input, args.label)?;
    let names = label_table::names_beside(&args.input);
    let called: Vec<String> =
        classes.iter().map(|class| names.get(class).cloned().unwrap_or_else(|| format!("class {class}"))).collect();
    let mut labels = Labels { shape: volume.shape, voxels: Vec::new(), geometry: volume.geometry };
    if format == MeshFormat::Glb {
        let meshes = classes.iter().map(|&class| {
            labels.voxels = found.mask(&volume.voxels, class);
            mesh::of_labels(&device, &labels, 1, &options)
        });
        return report(&args, together(&args, &meshes.collect::<Result<Vec<_>>>()?, &classes, &called)?);
    }
    let named: Vec<_> = classes.iter().map(|class| (*class, names.get(class).map(String::as_str))).collect();
    let paths: Vec<PathBuf> = match classes.len() {
        1 => vec![args.out.clone()],
        _ => label_table::file_names(&named).iter().map(|class| of_class(&args.out, class)).collect(),
    };
    refuse_existing(paths.iter().flat_map(|path| format.files(path)), args.overwrite)?;
    let mut written = Vec::new();
    for ((&class, path), called) in classes.iter().zip(&paths).zip(&called) {
        labels.voxels = found.mask(&volume.voxels, class);
        let (mesh, dropped) = mesh::of_labels(&device, &labels, 1, &options)?;
        written.push(write(&args, path, Some((class, called.as_str())), &mesh, dropped)?);
    }
    report(&args, written)
}

/// The threshold of a file that holds probabilities and nothing else.
fn probability_threshold(path: &Path, values: &[f32], threshold: f32) -> Result<f32> {
    // Interpolation leaves its range by rounding.
    const ROUNDING: f32 = 1e-3;
    let (low, high) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
    if low >= -ROUNDING && high <= 1.0 + ROUNDING {
        return Ok(threshold);
    }
    let problem = format!(
        "holds values from {low} to {high} that are neither classes (whole numbers) nor probabilities (0 to 1)"
    );
    Err(Error::data(path, problem, "give a segmentation, or --threshold for the surface at a value"))
}

/// The values of a label map, whatever whole numbers they are.
struct Classes {
    values: BTreeSet<i64>,
    /// The voxels, if 32-bit floats do not tell them apart.
    wide: Option<Vec<f64>>,
    /// Whether neighbours are seldom of one class, along whichever axis.
    noisy: bool,
}

/// More classes than any segmentation has: an atlas of the brain's areas has some two hundred.
const MOST_CLASSES: usize = 512;

/// More classes than this are believed if a quarter of all neighbours are of one class: noise has hundreds of values, and
/// neighbours are seldom alike.
const FEW_CLASSES: usize = 32;

/// From here on 32-bit floats do not hold every whole number.
const EXACT: f32 = 16_777_216.0;

/// From here on 64-bit floats do not.
const EXACT_WIDE: f64 = 9_007_199_254_740_992.0;

impl Classes {
    /// The classes of a file all of whose voxels are whole numbers, to `tolerance`; `None` for any other file. Those beyond
    /// [`MOST_CLASSES`] are left out.
    fn of(source: &Source, volume: &Volume, tolerance: f32) -> Result<Option<Self>> {
        let wide = volume.voxels.iter().any(|value| value.abs() >= EXACT);
        let wide = wide.then(|| nifti::read_wide(source)).transpose()?.map(|stored| {
            let geometry = &volume.geometry;
            geometry.orientation.unpack(&stored, geometry.stored.shape, 1)
        });
        // A merged class would be a wrong mesh.
        if wide.iter().flatten().any(|value| value.abs() >= EXACT_WIDE) {
            let problem = "holds whole numbers of 2^53 and more, which 64-bit floats do not tell apart";
            return Err(Error::data(source.path(), problem, "renumber its classes"));
        }
        let mut values = BTreeSet::new();
        let mut last = None;
        let mut all_whole = true;
        let mut look = |value: f64| {
            all_whole &= (value - value.round()).abs() <= f64::from(tolerance);
            let class = value.round() as i64;
            if last != Some(class) && values.len() <= MOST_CLASSES {
                values.insert(class);
            }
            last = Some(class);
        };
        match &wide {
            Some(voxels) => voxels.iter().copied().for_each(&mut look),
            None => volume.voxels.iter().map(|&value| f64::from(value)).for_each(&mut look),
        }
        let [_, y, z] = volume.shape;
        let noisy = [y * z, z, 1].iter().all(|&stride| {
            let neighbours = volume.voxels.iter().zip(volume.voxels.iter().skip(stride));
            let pairs = neighbours.map(|(a, b)| (a.round(), b.round())).filter(|pair| *pair != (0.0, 0.0));
            let (all, alike) =
                pairs.fold((0usize, 0usize), |(all, alike), (a, b)| (all + 1, alike + usize::from(a == b)));
            alike < all / 4
        });
        Ok(all_whole.then_some(Self { values, wide, noisy }))
    }

    /// 1 where a voxel is of `class`.
    fn mask(&self, voxels: &[f32], class: i64) -> Vec<u8> {
        match &self.wide {
            Some(voxels) => voxels.iter().map(|value| u8::from(value.round() as i64 == class)).collect(),
            None => voxels.iter().map(|value| u8::from(value.round() as i64 == class)).collect(),
        }
    }

    /// The class that is asked for, or all but 0.
    fn chosen(&self, path: &Path, label: Option<i64>) -> Result<Vec<i64>> {
        let present: Vec<i64> = self.values.iter().copied().filter(|&class| class != 0).collect();
        let crowded = self.values.len() > MOST_CLASSES;
        match label {
            Some(label) if self.values.contains(&label) || crowded => return Ok(vec![label]),
            _ if present.is_empty() => return Err(Error::data(path, "holds nothing but 0", "give a segmentation")),
            Some(label) => {
                let there: Vec<String> = present.iter().map(i64::to_string).collect();
                let problem = format!("has no voxel of class {label}");
                return Err(Error::data(path, problem, format!("--label may be {}", there.join(", "))));
            }
            None => {}
        }
        const REMEDY: &str = "give a segmentation, --label for one value, or --threshold for the surface at a value";
        let (lowest, highest) = (present[0], present[present.len() - 1]);
        if crowded {
            let problem =
                format!("holds more than {MOST_CLASSES} different values, as scans do and segmentations do not");
            return Err(Error::data(path, problem, REMEDY));
        }
        if present.len() > FEW_CLASSES && self.noisy {
            let problem = format!(
                "holds {} different values, and neighbours are seldom alike, as in scans and not in segmentations",
                self.values.len()
            );
            return Err(Error::data(path, problem, REMEDY));
        }
        if let [only] = present[..]
            && self.values.len() == 1
        {
            return Err(Error::data(path, format!("is {only} everywhere: there is no surface"), REMEDY));
        }
        if lowest < 0 && !self.values.contains(&0) {
            let problem = format!("holds whole numbers from {lowest} to {highest} but no background (0), as scans do");
            return Err(Error::data(path, problem, REMEDY));
        }
        Ok(present)
    }
}

/// A class: its value and its name.
type Called<'a> = (i64, &'a str);

/// Writes the meshes of all classes into one GLB, each under its name and in its colour.
fn together(args: &MeshArgs, meshes: &[(Mesh, Dropped)], classes: &[i64], names: &[String]) -> Result<Vec<Value>> {
    let parts = meshes.iter().zip(names).zip(COLOURS.iter().cycle());
    let parts = parts.map(|(((mesh, _), name), &colour)| Part { name, colour, mesh });
    let files = mesh::write_parts(&args.out, &parts.collect::<Vec<_>>(), args.shape.space())?;
    let called = classes.iter().copied().zip(names.iter().map(String::as_str));
    called.zip(meshes).map(|(called, (mesh, dropped))| said(args, &files, Some(called), mesh, *dropped)).collect()
}

/// `organs.ply` of the class `liver` → `organs_liver.ply`.
fn of_class(path: &Path, class: &str) -> PathBuf {
    let [stem, extension] = [path.file_stem(), path.extension()].map(|part| text_of(part.unwrap_or_default()));
    path.with_file_name(format!("{stem}_{class}.{extension}"))
}

/// Writes a mesh and says so.
fn write(args: &MeshArgs, path: &Path, called: Option<Called<'_>>, mesh: &Mesh, dropped: Dropped) -> Result<Value> {
    let files = mesh::write(path, mesh, args.shape.space())?;
    said(args, &files, called, mesh, dropped)
}

/// Says what was written.
fn said(
    args: &MeshArgs,
    files: &[PathBuf],
    called: Option<Called<'_>>,
    mesh: &Mesh,
    dropped: Dropped,
) -> Result<Value> {
    let what = called.map_or(String::new(), |(_, name)| format!("{name}: "));
    args.shape.warn(&what, mesh, dropped);
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let (volume, area) = (mesh.volume() / 1000.0, mesh.area() / 100.0);
    if !args.run.json {
        let dropped = match dropped.components {
            0 => String::new(),
            count => format!(", {} dropped", plural(count, "small piece")),
        };
        let [vertices, triangles] = [mesh.vertices.len(), mesh.triangles.len()];
        let names = names.join(", ");
        print(format!(
            "{names}: {what}{triangles} triangles, {vertices} vertices, {volume:.1} ml, {area:.1} cm²{dropped}"
        ))?;
    }
    Ok(json!({
        "class": called.map(|(value, _)| value),
        "name": called.map(|(_, name)| name),
        "files": names,
        "triangles": mesh.triangles.len(),
        "vertices": mesh.vertices.len(),
        "volume_ml": volume,
        "area_cm2": area,
        "pieces_kept": dropped.kept,
        "pieces_dropped": dropped.components,
        "voxels_dropped": dropped.voxels,
    }))
}

fn report(args: &MeshArgs, written: Vec<Value>) -> Result<()> {
    if !args.run.json {
        return Ok(());
    }
    let image = Source::File(args.input.clone());
    let read = Case { name: String::new(), images: vec![image], label: None };
    let hash = data_hash(std::iter::once(&read))?;
    print_json(json!({ "input": args.input.display().to_string(), "input_hash": hash, "meshes": written }), "meshes")
}
