//! Kernels: the committed PTX is checked against its sources, or compiled anew on request.
//!
//! By default `kernels/ptx` is used as it is, and no compiler is needed; a source whose hash differs from the manifest's is
//! an error, for then tests would run what nobody wrote. `OSSNET_NVCC=1` compiles with the first nvcc of `$NVCC`,
//! `$CUDA_HOME/bin`, `$PATH`, `.venv` (PyPI's wheels); `OSSNET_NVCC=/path/to/nvcc` with that one.
//! Either way `$OUT_DIR/kernels.rs` lists the modules and the kernels in them; PTX is packed to a twentieth of its size.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use lzma_rust2::{XzOptions, XzWriter};
use sha2::{Digest, Sha256};

/// Writes what the program reads; of its two functions one is used here.
#[allow(dead_code)]
#[path = "src/device/cuda/ptx_codec.rs"]
mod ptx_codec;

fn main() {
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=src/device/cuda/ptx_codec.rs");
    for variable in ["OSSNET_NVCC", "NVCC", "CUDA_HOME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    if let Err(problem) = kernels() {
        println!("cargo:error={problem}");
        std::process::exit(1);
    }
}

fn kernels() -> Result<(), String> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?).join("kernels");
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?);
    let sources = sources(&root)?;
    let ptx = match env::var("OSSNET_NVCC") {
        Ok(wish) if !wish.is_empty() && wish != "0" => compile(&wish, &root, &sources, &out)?,
        _ => committed(&root, &sources)?,
    };
    let table = out.join("kernels.rs");
    fs::write(&table, listing(&ptx, &out)?).map_err(|e| format!("{}: {e}", table.display()))
}

/// Names and contents of the sources and headers.
fn sources(root: &Path) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(root).map_err(|e| format!("{}: {e}", root.display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|ending| ending == "cu" || ending == "cuh") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            sources.insert(name, fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?);
        }
    }
    Ok(sources)
}

/// The names of the kernel files, without their ending.
fn families(sources: &BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = &str> {
    sources.keys().filter_map(|name| name.strip_suffix(".cu"))
}

/// The committed PTX, if every source still has the hash that the manifest notes.
fn committed(root: &Path, sources: &BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<String, PathBuf>, String> {
    let path = root.join("ptx/MANIFEST");
    let manifest = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    for (name, content) in sources {
        let hash = Sha256::digest(content).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        if !manifest.lines().any(|line| line == format!("{hash}  {name}")) {
            return Err(format!("kernels/{name} is not what kernels/ptx was made of; run scripts/kernels.sh"));
        }
    }
    Ok(families(sources).map(|name| (name.to_string(), root.join(format!("ptx/{name}.ptx")))).collect())
}

/// The PTX that a compiler found here makes.
fn compile(
    wish: &str,
    root: &Path,
    sources: &BTreeMap<String, Vec<u8>>,
    out: &Path,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let nvcc = if wish == "1" { find_nvcc(root)? } else { PathBuf::from(wish) };
    let mut made = BTreeMap::new();
    // As many at once as cargo allows.
    let most = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1).max(1);
    let (mut names, mut running) = (families(sources), VecDeque::new());
    loop {
        if running.len() < most
            && let Some(name) = names.next()
        {
            let target = out.join(format!("{name}.ptx"));
            let child = Command::new(&nvcc)
                .args(["-O3", "-std=c++17", "-arch=compute_80", "-ptx", "-o"])
                .arg(&target)
                .arg(root.join(format!("{name}.cu")))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn();
            running.push_back((name, child.map_err(|e| missing(&nvcc, &e))?));
            made.insert(name.to_string(), target);
            continue;
        }
        let Some((name, child)) = running.pop_front() else { return Ok(made) };
        let output = child.wait_with_output().map_err(|e| missing(&nvcc, &e))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
            return Err(format!("{} cannot compile kernels/{name}.cu: {said}", nvcc.display()));
        }
    }
}

fn missing(nvcc: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}; unset OSSNET_NVCC to use the committed PTX", nvcc.display())
}

fn find_nvcc(root: &Path) -> Result<PathBuf, String> {
    let named = env::var_os("NVCC").map(PathBuf::from);
    let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("nvcc"));
    let wheels = fs::read_dir(root.join("../.venv/lib")).into_iter().flatten().flatten();
    let wheels = wheels.map(|python| python.path().join("site-packages/nvidia/cu13/bin/nvcc"));
    named.into_iter().chain(home).chain(on_path).chain(wheels).find(|nvcc| nvcc.is_file()).ok_or_else(|| {
        "no nvcc in $NVCC, $CUDA_HOME/bin, $PATH or .venv; run scripts/install-nvcc.sh, or unset OSSNET_NVCC".into()
    })
}

/// Rust source of the table of modules.
fn listing(ptx: &BTreeMap<String, PathBuf>, out: &Path) -> Result<String, String> {
    let mut text = String::from("pub static MODULES: &[Module] = &[\n");
    for (name, path) in ptx {
        let source = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let entries = source.lines().filter_map(|line| line.trim_start().strip_prefix(".visible .entry "));
        let kernels: Vec<&str> = entries.filter_map(|rest| rest.split('(').next()).collect();
        let packed = out.join(format!("{name}.ptx.xz"));
        pack(ptx_codec::encode(&source).as_bytes(), &packed).map_err(|e| format!("{}: {e}", packed.display()))?;
        let include = format!("include_bytes!({:?})", packed.display().to_string());
        writeln!(text, "    Module {{ name: {name:?}, ptx: {include}, kernels: &{kernels:?} }},")
            .map_err(|e| e.to_string())?;
    }
    Ok(text + "];\n")
}

fn pack(text: &[u8], path: &Path) -> std::io::Result<()> {
    // Small where the program is given away, quick where it is tested.
    let small = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let mut options = XzOptions::with_preset(if small { 6 } else { 1 });
    if small {
        // Text: the byte before says more than the place in a word.
        (options.lzma_options.lc, options.lzma_options.pb, options.lzma_options.nice_len) = (4, 0, 273);
    }
    let mut packed = XzWriter::new(fs::File::create(path)?, options)?;
    packed.write_all(text)?;
    packed.finish()?.flush()
}
