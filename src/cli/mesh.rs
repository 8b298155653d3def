//! `ossnet mesh`: the surface of a segmentation or a probability map, as a file that other programs open.

use std::path::{Path, PathBuf};

use clap::Args;

use super::RunArgs;
use super::device_args::DeviceArgs;
use super::output::{note, plural, print};
use super::provenance::print_json;
use crate::data::volume::to_classes;
use crate::data::{Axes, Labels, Source, Volume};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::RunFolder;
use crate::label_table::COLOURS;
use crate::mesh::{self, Dropped, Mesh, MeshFormat, MeshOptions, Part, Space};

/// Most iterations of smoothing: a thousand already take all detail away.
const MOST_SMOOTHING: u64 = 10_000;

/// Flags of `ossnet mesh`.
#[derive(Args, Clone, Debug)]
pub struct MeshArgs {
    /// A segmentation or a probability map (.nii, .nii.gz)
    input: PathBuf,
    /// The mesh: .obj, .ply, .stl, .glb or .pt; of several classes, one file each (NAME_CLASS.ply), or one .glb
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Mesh this class only [default: each that occurs, but 0]
    #[arg(short, long, value_name = "CLASS")]
    label: Option<u8>,
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
    /// Drop pieces of fewer voxels
    #[arg(long, value_name = "VOXELS", default_value_t = MeshOptions::default().smallest)]
    smallest: usize,
    /// Iterations of smoothing
    #[arg(long, value_name = "N", default_value_t = MeshOptions::default().smoothing as u64, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(..=MOST_SMOOTHING))]
    smooth: u64,
    /// Simplify to at most so many triangles (0: keep all)
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

    /// Says so where no triangle is left of `what`.
    pub fn warn(&self, what: &str, mesh: &Mesh, dropped: Dropped) {
        if mesh.triangles.is_empty() {
            let why = match dropped.components {
                0 => "no voxel is inside".into(),
                count => {
                    format!("{} of fewer than {} voxels dropped (--smallest)", plural(count, "piece"), self.smallest)
                }
            };
            note(format!("warning: {what}the mesh is empty; {why}"));
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
/// An unusable file, a class that does not occur, an unknown extension, no memory, a full disk.
pub fn run(args: MeshArgs) -> Result<()> {
    MeshFormat::of(&args.out)?;
    if let Some(threshold) = args.threshold.filter(|threshold| !threshold.is_finite()) {
        return Err(Error::Usage(format!("--threshold {threshold} is no threshold; give a number, for example 0.5")));
    }
    let device = args.device.open(&args.run)?;
    // What was made for the meshes is removed again if none comes of it.
    let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let _folder = folder.map(|folder| RunFolder::claim(folder, |_| true)).transpose()?;
    let volume = Volume::read(&Source::File(args.input.clone()), Axes::Canonical)?;
    if volume.channels != 1 {
        let problem = format!("has {} channels", volume.channels);
        return Err(Error::data(&args.input, problem, "extract the one to be meshed"));
    }
    let options = args.shape.options();
    let classes = if args.threshold.is_none() { to_classes(&volume.voxels).ok() } else { None };
    let Some(voxels) = classes else {
        if args.label.is_some() {
            let problem = "holds values that are no classes (whole numbers from 0 to 255)";
            return Err(Error::data(&args.input, problem, "leave --label out and give --threshold"));
        }
        let options = MeshOptions { threshold: args.threshold.unwrap_or(options.threshold), ..options };
        let affine = volume.geometry.affine;
        let (mesh, dropped) = mesh::of_field(&device, volume.voxels, volume.shape, &affine, &options)?;
        return report(&args, vec![write(&args, &args.out, "", &mesh, dropped)?]);
    };
    let labels = Labels { shape: volume.shape, voxels, geometry: volume.geometry };
    let counts = labels.histogram();
    let present: Vec<u8> = (1..=255).filter(|&class| counts[usize::from(class)] > 0).collect();
    let classes = match args.label {
        Some(label) if counts[usize::from(label)] > 0 => vec![label],
        _ if present.is_empty() => return Err(Error::data(&args.input, "holds nothing but 0", "give a segmentation")),
        Some(label) => {
            let there: Vec<String> = present.iter().map(u8::to_string).collect();
            let problem = format!("has no voxel of class {label}");
            return Err(Error::data(&args.input, problem, format!("--label may be {}", there.join(", "))));
        }
        None => present,
    };
    if MeshFormat::of(&args.out)? == MeshFormat::Glb {
        return report(&args, together(&args, &device, &labels, &classes)?);
    }
    let mut written = Vec::new();
    for &class in &classes {
        let (mesh, dropped) = mesh::of_labels(&device, &labels, class, &options)?;
        let path = if classes.len() == 1 { args.out.clone() } else { of_class(&args.out, class) };
        written.push(write(&args, &path, &format!("class {class}: "), &mesh, dropped)?);
    }
    report(&args, written)
}

/// Meshes all classes into one GLB, each under its name and in its colour.
fn together(args: &MeshArgs, device: &Device, labels: &Labels, classes: &[u8]) -> Result<Vec<serde_json::Value>> {
    let options = args.shape.options();
    let meshes = classes.iter().map(|&class| mesh::of_labels(device, labels, class, &options));
    let meshes = meshes.collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = classes.iter().map(|class| format!("class {class}")).collect();
    let parts = meshes.iter().zip(&names).zip(COLOURS.iter().cycle());
    let parts = parts.map(|(((mesh, _), name), &colour)| Part { name, colour, mesh });
    let files = mesh::write_parts(&args.out, &parts.collect::<Vec<_>>(), args.shape.space())?;
    let said = names
        .iter()
        .zip(&meshes)
        .map(|(name, (mesh, dropped))| said(args, &files, &format!("{name}: "), mesh, *dropped));
    said.collect()
}

/// `liver.ply` of class 2 → `liver_2.ply`.
fn of_class(path: &Path, class: u8) -> PathBuf {
    let [stem, extension] = [path.file_stem(), path.extension()].map(|part| part.unwrap_or_default().to_string_lossy());
    path.with_file_name(format!("{stem}_{class}.{extension}"))
}

/// Writes a mesh and says so.
fn write(args: &MeshArgs, path: &Path, what: &str, mesh: &Mesh, dropped: Dropped) -> Result<serde_json::Value> {
    let files = mesh::write(path, mesh, args.shape.space())?;
    said(args, &files, what, mesh, dropped)
}

/// Says what was written.
fn said(args: &MeshArgs, files: &[PathBuf], what: &str, mesh: &Mesh, dropped: Dropped) -> Result<serde_json::Value> {
    args.shape.warn(what, mesh, dropped);
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
    Ok(serde_json::json!({
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

fn report(args: &MeshArgs, written: Vec<serde_json::Value>) -> Result<()> {
    match args.run.json {
        true => print_json(written.into(), "meshes"),
        false => Ok(()),
    }
}
