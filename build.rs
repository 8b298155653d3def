//! Scans and kernels. `$OUT_DIR/sample.rs` is the table of the scans that ship inside the program (`build/sample.rs`).
//!
//! Kernels: the committed PTX is checked against its sources and packed; machine code is made beside it where a compiler is.
//!
//! `kernels/ptx` is used as it is, and no compiler is needed; a source whose hash differs from the manifest's is an error, for
//! then tests would run what nobody wrote. Where `$NVCC`, `$CUDA_HOME/bin` or `$PATH` has an nvcc, a release build also
//! assembles that PTX for the GPU that is there, or for [`ARCHITECTURES`] (`build/machine_code.rs`). `OSSNET_NVCC=0` forbids
//! it, `OSSNET_NVCC=/path/to/nvcc` names the compiler, `OSSNET_NVCC=1` asks for it in other builds too. What fails there is a
//! warning.
//! `$OUT_DIR/kernels.rs` lists the files and the kernels in them; the PTX of all is packed together, to a fortieth of its size.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use lzma_rust2::{LzmaOptions, LzmaWriter};
use sha2::{Digest, Sha256};

#[path = "src/device/cuda/cut.rs"]
mod cut;
#[path = "build/machine_code.rs"]
mod machine_code;
/// Writes what the program reads; of its two functions one is used here.
#[allow(dead_code)]
#[path = "src/device/cuda/ptx_codec.rs"]
mod ptx_codec;
#[path = "build/sample.rs"]
mod sample;
/// As above: what is read by the program alone is not used here.
#[allow(dead_code)]
#[path = "src/data/scan_codec.rs"]
mod scan_codec;

/// What is packed for `src/packed.rs`.
const TEXTS: [&str; 7] = [
    "assets/brats_2020_split.txt",
    "kernels/counts.tsv",
    "kernels/resources.tsv",
    "src/report/meshes.css",
    "src/report/meshes.js",
    "src/report/style.css",
    "src/report/viewer.js",
];

fn main() {
    for path in ["assets/sample", "kernels", "build"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for path in ["src/data/scan_codec.rs", "src/device/cuda/ptx_codec.rs", "src/device/cuda/cut.rs"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for variable in ["OSSNET_NVCC", "NVCC", "CUDA_HOME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let cuda = env::var_os("CARGO_FEATURE_CUDA").is_some();
    let made = out()
        .and_then(|out| sample::write(&out).and_then(|()| texts(&out)))
        .and_then(|()| if cuda { kernels() } else { Ok(()) });
    if let Err(problem) = made {
        println!("cargo:error={problem}");
        std::process::exit(1);
    }
}

/// Where what is made goes.
fn out() -> Result<PathBuf, String> {
    env::var("OUT_DIR").map(PathBuf::from).map_err(|e| e.to_string())
}

fn kernels() -> Result<(), String> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?).join("kernels");
    let out = out()?;
    let ptx = committed(&root, &sources(&root)?)?;
    let code = machine_code::make(&ptx, &out);
    let table = out.join("kernels.rs");
    fs::write(&table, listing(&ptx, &code, &out)?).map_err(|e| format!("{}: {e}", table.display()))
}

/// Packs texts that the program seldom reads (`src/packed.rs`); of the counts it reads the lines of whole ops.
fn texts(out: &Path) -> Result<(), String> {
    for path in TEXTS {
        println!("cargo:rerun-if-changed={path}");
        let mut text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        if path.ends_with("counts.tsv") {
            text = text.lines().filter(|line| line.contains("\t(op)\t")).map(|line| format!("{line}\n")).collect();
        }
        pack(text.as_bytes(), &out.join(path.replace('/', "-") + ".lzma"))?;
    }
    Ok(())
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

/// The committed PTX by the name of its file, if every source still has the hash that the manifest notes.
fn committed(root: &Path, sources: &BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<String, PathBuf>, String> {
    let path = root.join("ptx/MANIFEST");
    let manifest = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    for (name, content) in sources {
        let hash = Sha256::digest(content).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        if !manifest.lines().any(|line| line == format!("{hash}  {name}")) {
            return Err(format!("kernels/{name} is not what kernels/ptx was made of; run scripts/kernels.sh"));
        }
    }
    let families = sources.keys().filter_map(|name| name.strip_suffix(".cu"));
    Ok(families.map(|name| (name.to_string(), root.join(format!("ptx/{name}.ptx")))).collect())
}

/// Rust source of the table of kernel files. Kernels are encoded one by one, so that each can be decoded alone, and packed
/// together: those of different files have much in common.
fn listing(ptx: &BTreeMap<String, PathBuf>, code: &machine_code::Files, out: &Path) -> Result<String, String> {
    let mut text = String::from("pub static FILES: &[File] = &[\n");
    let failed = |error: std::fmt::Error| error.to_string();
    let include = |path: &Path| format!("include_bytes!({:?})", path.display().to_string());
    let mut all = String::new();
    for (name, path) in ptx {
        let source = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let pieces = cut::cut(&source).map_err(|e| format!("{}: {e}", path.display()))?;
        let (head, mut kernels) = (pieces.head, String::new());
        for (kernel, piece) in &pieces.kernels {
            let start = all.len();
            all += &ptx_codec::encode(piece, kernel);
            write!(kernels, "Kernel {{ name: {kernel:?}, place: ({start}, {}) }}, ", all.len()).map_err(failed)?;
        }
        let mut made = String::new();
        for ((major, minor), cubin) in code.get(name).into_iter().flatten() {
            let packed = cubin.with_extension("cubin.lzma");
            pack(&fs::read(cubin).map_err(|e| format!("{}: {e}", cubin.display()))?, &packed)?;
            write!(made, "Code {{ capability: ({major}, {minor}), cubin: {} }}, ", include(&packed)).map_err(failed)?;
        }
        writeln!(text, "    File {{ name: {name:?}, head: {head:?}, kernels: &[{kernels}], code: &[{made}] }},")
            .map_err(failed)?;
    }
    let packed = out.join("ptx.lzma");
    pack(all.as_bytes(), &packed)?;
    Ok(text + &format!("];\nstatic PTX: &[u8] = {};\n", include(&packed)))
}

/// Packs `bytes` for the program.
fn pack(bytes: &[u8], path: &Path) -> Result<(), String> {
    // Small where the program is given away, quick where it is tested.
    let small = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let mut options = LzmaOptions::with_preset(if small { 6 } else { 1 });
    if small {
        // Text: the byte before says more of a literal than its place in a word. A dictionary that holds all.
        (options.lc, options.pb, options.nice_len) = (4, 0, 273);
        options.dict_size = bytes.len().clamp(1 << 12, 1 << 24).next_power_of_two() as u32;
    }
    let written = fs::File::create(path).and_then(|file| {
        let mut packed = LzmaWriter::new_use_header(file, &options, Some(bytes.len() as u64))?;
        packed.write_all(bytes)?;
        packed.finish()?.flush()
    });
    written.map_err(|e| format!("{}: {e}", path.display()))
}
