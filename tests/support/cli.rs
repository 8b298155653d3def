//! The real binary, run in a folder of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Nifti;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ossnet");

/// A folder that commands are run in.
pub struct Place {
    folder: tempfile::TempDir,
}

/// What a command printed with `--json`.
pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Leaves a page in the build's folder for temporary files, where `scripts/check_pages.py` opens it in a browser.
pub fn keep_page(name: &str, page: impl AsRef<[u8]>) {
    let pages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&pages).unwrap();
    std::fs::write(pages.join(format!("{name}.html")), page).unwrap();
}

/// What a command said and how it ended.
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Outcome {
    /// Asserts success and returns what was printed.
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// Asserts a failure as a user should meet one: the exit status, nothing on standard output, and one line that
    /// holds all of `parts` and a remedy. Lines that begin with `warning: ` do not count.
    pub fn refused(&self, code: i32, parts: &[&str]) {
        let Self { err, out, .. } = self;
        assert_eq!(self.code, Some(code), "{err}");
        assert!(!err.contains("panicked"), "{err}");
        assert_eq!(out, "", "a result was printed beside: {err}");
        let lines: Vec<&str> = err.lines().filter(|line| !line.starts_with("warning: ")).collect();
        assert_eq!(lines.len(), 1, "not one line: {err}");
        assert!(lines[0].starts_with("ossnet: "), "{err}");
        // The argument parser's own refusals end with where to read more.
        assert!(err.contains("; ") || err.contains(", for example ") || lines[0].ends_with(')'), "no remedy: {err}");
        parts.iter().for_each(|part| assert!(err.contains(part), "'{part}' is missing: {err}"));
    }
}

impl Outcome {
    /// Asserts a failure for which the operating system gives the reason: one line, without a remedy of ours.
    pub fn refused_by_the_system(&self, parts: &[&str]) {
        assert_eq!((self.code, self.out.as_str(), self.err.lines().count()), (Some(1), "", 1), "{}", self.err);
        parts.iter().for_each(|part| assert!(self.err.contains(part), "'{part}' is missing: {}", self.err));
    }
}

impl Place {
    /// An empty folder.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the folder.
    pub fn at(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// A command in the folder; arguments are separated by white space.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments.split_whitespace()).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &str) -> Outcome {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs the program behind a line of shell, where it is called `$ossnet`.
    pub fn shell(&self, script: &str) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("ossnet", PROGRAM).current_dir(self.folder.path()).stdin(Stdio::null());
        command.output().unwrap().into()
    }

    /// Every file and folder below with its length.
    pub fn files(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut pending = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = pending.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let data = path.symlink_metadata().unwrap();
                if data.is_dir() {
                    pending.push(path.clone());
                }
                found.insert(path, if data.is_file() { data.len() } else { 0 });
            }
        }
        found
    }

    /// Runs the program and asserts that it refuses (see [`Outcome::refused`]) and leaves no trace.
    pub fn refuses(&self, arguments: &str, code: i32, parts: &[&str]) {
        let before = self.files();
        let outcome = self.run(arguments);
        outcome.refused(code, parts);
        assert_eq!(self.files(), before, "something was left behind by: {arguments}\n{}", outcome.err);
    }
}

/// A bright ball off the centre of a dark, noisy cube, and the ball alone; `number` moves it and seeds the noise.
pub fn ball(side: i64, number: u64) -> [Nifti; 2] {
    let (mut image, mut label) = (Nifti::filled([side; 3], 0), Nifti::filled([side; 3], 0));
    let (centre, radius) = (side as f64 * (0.4 + 0.05 * (number % 4) as f64), side as f64 * 0.3);
    let mut state = number;
    for voxel in 0..side * side * side {
        let at = [voxel % side, voxel / side % side, voxel / (side * side)];
        let inside = at.map(|k| (k as f64 + 0.5 - centre).powi(2)).iter().sum::<f64>() <= radius * radius;
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        image.voxels[voxel as usize] = if inside { 150 } else { 50 } + (state >> 59) as u8;
        label.voxels[voxel as usize] = u8::from(inside);
    }
    [image, label]
}

/// A Decathlon data set of cubes with balls, in `root`.
pub fn data_set(root: &Path, side: i64, training: &[&str], validation: &[&str]) {
    let list = |names: &[&str]| {
        let entries = names
            .iter()
            .map(|name| format!(r#"{{"image": "./imagesTr/{name}.nii.gz", "label": "./labelsTr/{name}.nii.gz"}}"#));
        entries.collect::<Vec<_>>().join(", ")
    };
    for (number, name) in training.iter().chain(validation).enumerate() {
        let [image, label] = ball(side, number as u64);
        image.write(&root.join(format!("imagesTr/{name}.nii.gz")));
        label.write(&root.join(format!("labelsTr/{name}.nii.gz")));
    }
    let json = format!(
        r#"{{"name": "balls", "modality": {{"0": "X"}}, "labels": {{"0": "background", "1": "ball"}},
            "training": [{}], "validation": [{}]}}"#,
        list(training),
        list(validation)
    );
    std::fs::write(root.join("dataset.json"), json).unwrap();
}

/// Makes a checkpoint one of an earlier version: without checksums and format, and without what the metadata says in `forgotten`.
pub fn earlier_version(path: &Path, forgotten: &str) {
    let bytes = std::fs::read(path).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    let metadata = header["__metadata__"].as_object_mut().unwrap();
    for key in ["checksums", "format"] {
        assert!(metadata.remove(key).is_some(), "{key}");
    }
    assert!(metadata.values().any(|value| value.as_str().unwrap().contains(forgotten)), "{forgotten}");
    metadata.values_mut().for_each(|value| *value = value.as_str().unwrap().replace(forgotten, "").into());
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&length[..], &header, &bytes[end..]].concat()).unwrap();
}
