//! The scans that ship inside the program: `assets/sample` as a table, its images unpacked and packed anew, a third smaller,
//! its licences packed.

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
        let place = out.join(name.replace('/', "-"));
        let content = fs::read(&path).map_err(|e| told(&e))?;
        let (bytes, unpacked) = if name.ends_with(".nii.gz") {
            let mut image = Vec::new();
            GzDecoder::new(&content[..]).read_to_end(&mut image).map_err(|e| told(&e))?;
            let wanted = "is no 3D NIfTI-1 file of little-endian uint8 or int16 with at most 256 values";
            let packed = super::scan_codec::encode(&image).ok_or_else(|| told(&wanted))?;
            fs::write(&place, packed).map_err(|e| told(&e))?;
            (place, Some(image.len()))
        } else if name.contains("/LICENCES/") {
            super::pack(&content, &place)?;
            (place, Some(content.len()))
        } else {
            (path.clone(), None)
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
