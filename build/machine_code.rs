//! Machine code made of the committed PTX by an nvcc of this machine, so that the driver has nothing to compile.
//!
//! The PTX is what the tests execute; only its assembly is left to the compiler found here. Nothing in here fails a build.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{env, fs};

/// What code is made for where no GPU is found: A100, RTX 30, RTX 40, H100, B200, RTX 50.
const ARCHITECTURES: [(u32, u32); 6] = [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)];

/// By kernel file: compute capability and place of the code.
pub type Files = BTreeMap<String, Vec<((u32, u32), PathBuf)>>;

/// Machine code of all of `ptx`, or of none. Says in one line what was done, and in a warning why it was not.
pub fn make(ptx: &BTreeMap<String, PathBuf>, out: &Path) -> Files {
    let wish = env::var("OSSNET_NVCC").unwrap_or_default();
    let by_default = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if wish == "0" || (wish.is_empty() && !by_default) {
        return Files::new();
    }
    let named = (!wish.is_empty() && wish != "1").then(|| PathBuf::from(&wish));
    let Some(nvcc) = named.clone().or_else(find) else {
        if wish == "1" {
            say(
                "OSSNET_NVCC=1, but there is no nvcc in $NVCC, $CUDA_HOME/bin or $PATH: the driver compiles the committed PTX",
            );
        }
        return Files::new();
    };
    let started = Instant::now();
    let architectures = present().unwrap_or_else(|| ARCHITECTURES.to_vec());
    match assemble(&nvcc, ptx, &architectures, out) {
        Ok(files) => {
            let size = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
            let bytes: u64 = files.values().flatten().map(|(_, path)| size(path)).sum();
            let names: Vec<String> = architectures.iter().map(|(major, minor)| format!("sm_{major}{minor}")).collect();
            say(&format!(
                "{} compiled the kernels for {}: {:.1} MB before packing, {:.0} s (OSSNET_NVCC=0 leaves it to the driver)",
                nvcc.display(),
                names.join(", "),
                bytes as f64 / 1e6,
                started.elapsed().as_secs_f64()
            ));
            files
        }
        Err(problem) => {
            say(&format!("{problem}; the driver compiles the committed PTX instead (OSSNET_NVCC=0 does not try)"));
            Files::new()
        }
    }
}

/// Cargo prints warnings of a crate that is built here, and nothing else that a build script says.
fn say(line: &str) {
    println!("cargo:warning={}", line.replace('\n', " "));
}

fn find() -> Option<PathBuf> {
    let named = env::var_os("NVCC").map(PathBuf::from);
    let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("nvcc"));
    named.into_iter().chain(home).chain(on_path).find(|nvcc| nvcc.is_file())
}

/// Compute capabilities of this machine's GPUs; `None` where there are none, or none that the kernels run on.
fn present() -> Option<Vec<(u32, u32)>> {
    let query = Command::new("nvidia-smi").args(["--query-gpu=compute_cap", "--format=csv,noheader"]).output().ok()?;
    let text = query.status.success().then(|| String::from_utf8(query.stdout).ok())??;
    let capability = |line: &str| {
        let (major, minor) = line.trim().split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?)).filter(|&(major, _): &(u32, u32)| major >= 8)
    };
    let mut found: Vec<_> = text.lines().filter_map(capability).collect();
    found.sort_unstable();
    found.dedup();
    (!found.is_empty()).then_some(found)
}

fn assemble(
    nvcc: &Path,
    ptx: &BTreeMap<String, PathBuf>,
    architectures: &[(u32, u32)],
    out: &Path,
) -> Result<Files, String> {
    let mut jobs: Vec<_> =
        ptx.iter().flat_map(|(name, path)| architectures.iter().map(move |&of| (name, path, of))).collect();
    // The longest first, so that no thread is left with one at the end.
    jobs.sort_by_key(|(_, path, _)| std::cmp::Reverse(fs::metadata(path).map_or(0, |data| data.len())));
    let (next, made) = (AtomicUsize::new(0), Mutex::new(Ok(Files::new())));
    let threads = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1usize);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, 64) {
            scope.spawn(|| {
                while let Some(&(name, path, of)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let cubin = out.join(format!("{name}.sm_{}{}.cubin", of.0, of.1));
                    let outcome = one(nvcc, path, of, &cubin);
                    let mut made = made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match (&mut *made, outcome) {
                        (Ok(files), Ok(())) => files.entry(name.clone()).or_default().push((of, cubin)),
                        (all, Err(problem)) => *all = Err(problem),
                        (Err(_), Ok(())) => {}
                    }
                    if made.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut files = made.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
    files.values_mut().for_each(|code| code.sort());
    Ok(files)
}

/// Assembles a file for an architecture.
fn one(nvcc: &Path, ptx: &Path, (major, minor): (u32, u32), cubin: &Path) -> Result<(), String> {
    let output = Command::new(nvcc)
        .arg(format!("-arch=sm_{major}{minor}"))
        .args([OsStr::new("-cubin"), OsStr::new("-o"), cubin.as_os_str(), ptx.as_os_str()])
        .output()
        .map_err(|e| format!("{}: {e}", nvcc.display()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
            let file = ptx.file_name().unwrap_or_default().to_string_lossy();
            Err(format!("{} cannot compile {file} for sm_{major}{minor}: {first}", nvcc.display()))
        }
    }
}
