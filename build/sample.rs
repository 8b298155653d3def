//! The scans that ship inside the program: `assets/sample` as a table, its images unpacked and packed anew, a fifth smaller.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::read::GzDecoder;

/// Writes the table of all files below `assets/sample` into `out`.
pub fn write(out: &Path) -> Result<(), String> {
    let assets = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?).join("assets");
    let mut files = Vec::new();
    walk(&assets.join("sample"), &mut files)?;
    files.sort();
    let mut text = String::from("pub static FILES: &[Asset] = &[\n");
    for path in files {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let name = path.strip_prefix(&assets).map_err(|e| told(&e))?.to_string_lossy().replace('\\', "/");
        let (bytes, unpacked) = match name.ends_with(".nii.gz") {
            false => (path.clone(), None),
            true => {
                let mut image = Vec::new();
                let packed = fs::File::open(&path).map_err(|e| told(&e))?;
                GzDecoder::new(packed).read_to_end(&mut image).map_err(|e| told(&e))?;
                let packed = out.join(name.replace('/', "-") + ".xz");
                super::pack(&image, &packed, (3, 2)).map_err(|e| told(&e))?;
                (packed, Some(image.len()))
            }
        };
        let bytes = bytes.display().to_string();
        writeln!(text, "    Asset {{ name: {name:?}, bytes: include_bytes!({bytes:?}), unpacked: {unpacked:?} }},")
            .map_err(|e| told(&e))?;
    }
    fs::write(out.join("sample.rs"), text + "];\n").map_err(|e| format!("{}: {e}", out.display()))
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        match path.is_dir() {
            true => walk(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
