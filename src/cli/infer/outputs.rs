//! The files of each case: how they are called and what is in them.

use std::path::{Path, PathBuf};

use super::InferArgs;
use crate::checkpoint::{Array, Data, torch};
use crate::cli::output::check_folder_name;
use crate::data::{Labels, Source, nifti};
use crate::error::{Error, Result};
use crate::files::name::file_name;
use crate::label_table;
use crate::task::Task;

/// Where segmentations go.
pub(super) struct Target {
    pub(super) folder: PathBuf,
    /// The file of the only one.
    pub(super) file: Option<PathBuf>,
}

impl Target {
    /// What `--out` means for so many cases.
    pub(super) fn of(args: &InferArgs, cases: usize, sharded: bool) -> Result<Self> {
        let out = args.out();
        let name = file_name(out);
        if !(name.ends_with(".nii") || name.ends_with(".nii.gz")) || out.is_dir() {
            check_folder_name(out, "segmentations are .nii or .nii.gz; end the name so, or name a folder")?;
            return Ok(Self { folder: out.into(), file: None });
        }
        if cases != 1 || sharded {
            let what =
                if sharded { "a shard has any number of scans".into() } else { format!("there are {cases} scans") };
            let problem = format!("--out {} is one file, and {what}", out.display());
            return Err(Error::Usage(format!("{problem}; name a folder")));
        }
        #[cfg(feature = "report")]
        if args.seen.report {
            return Err(Error::Usage("--report needs a folder for report.html; let --out be one".into()));
        }
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { folder: folder.into(), file: Some(out.into()) })
    }

    /// The file beside a single segmentation that tells how it was made: `seg.json` of `seg.nii.gz`.
    pub(super) fn sidecar(&self) -> Option<PathBuf> {
        self.file.as_ref().map(|file| file.with_file_name(format!("{}.json", self.stem(""))))
    }

    /// What a case's files are called.
    fn stem(&self, name: &str) -> String {
        let Some(file) = &self.file else { return name.into() };
        let file = file_name(file);
        file.trim_end_matches(".gz").trim_end_matches(".nii").into()
    }
}

/// The files of one case.
pub(super) struct Outputs {
    /// What their names begin with.
    pub(super) name: String,
    /// What the names of the label tables begin with.
    pub(super) table: String,
    pub(super) labels: PathBuf,
    pub(super) probabilities: Option<PathBuf>,
    pub(super) occupancy: Option<PathBuf>,
    meshes: Vec<PathBuf>,
}

impl Outputs {
    pub(super) fn of(args: &InferArgs, target: &Target, name: &str, task: &Task) -> Self {
        let (folder, name) = (target.folder.as_path(), target.stem(name));
        let name = name.as_str();
        Self {
            name: name.into(),
            meshes: args.seen.files(folder, name, task),
            table: if target.file.is_some() { name.into() } else { label_table::FOLDER.into() },
            labels: target.file.clone().unwrap_or_else(|| folder.join(format!("{name}.nii.gz"))),
            probabilities: args.asked.probabilities.then(|| folder.join(format!("{name}_probabilities.nii.gz"))),
            occupancy: args.asked.occupancy_grid.then(|| folder.join(format!("{name}_occupancy.pt"))),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<&Path> {
        [Some(&self.labels), self.probabilities.as_ref(), self.occupancy.as_ref()]
            .into_iter()
            .flatten()
            .chain(&self.meshes)
            .map(PathBuf::as_path)
            .collect()
    }

    /// Whether all are there and the segmentation is one, by its header and length. Ours are whole or absent; a file that was
    /// copied or cut off may be neither.
    pub(super) fn are_there(&self) -> bool {
        self.all().iter().all(|path| path.exists()) && nifti::probe(&Source::File(self.labels.clone())).is_ok()
    }

    /// The folder that they lie in.
    pub(super) fn folder(&self) -> &Path {
        self.labels.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

/// What is not background, as a bool tensor `[X, Y, Z]` along the axes of the scan's file.
pub(super) fn write_occupancy(path: &Path, task: &Task, labels: &Labels) -> Result<()> {
    let background = task.preprocessing.classes.first().copied().unwrap_or(0);
    let shape = labels.geometry.stored.shape;
    let packed = labels.geometry.orientation.pack(&labels.voxels, shape, 1);
    let [nx, ny, nz] = shape;
    let value = |at: usize| packed[at / (ny * nz) + nx * (at / nz % ny + ny * (at % nz))];
    let occupied = (0..nx * ny * nz).map(|at| u8::from(value(at) != background)).collect();
    match Array::new(shape, Data::Bool(occupied)) {
        Some(array) => torch::write_tensor(path, array.view()),
        None => Err(Error::shape("occupancy grid", format!("{shape:?} voxels do not fit {}", labels.len()))),
    }
}
