//! Writing: NIfTI-1 on the grid of the scan that the data belong to.

use std::io::{self, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};

use super::header::SIZE_1;
use crate::data::geometry::Geometry;
use crate::data::volume::{Labels, Volume};
use crate::files::write_atomic_with;
use crate::{Error, Result};

/// Where voxels begin: the header, and four bytes that say that no extension follows.
const OFFSET: usize = SIZE_1 + 4;

/// Where the header says what voxels mean …
const INTENT: usize = 68;

/// … and that they are indices of labels (`NIFTI_INTENT_LABEL`).
const LABEL: i16 = 1002;

/// Writes labels as unsigned bytes, on the file grid that `labels.geometry` remembers (its shape, axes, `sform`, `qform`
/// and spacing). Compressed if the name ends in `.gz`. The file appears whole or not at all.
///
/// # Errors
/// If the name does not end in `.nii` or `.nii.gz`, an axis exceeds 32,767, or the file cannot be written.
pub fn write_labels(path: &Path, labels: &Labels) -> Result<()> {
    let mut header = header(path, &labels.geometry, labels.shape, 1, 2, 8)?;
    header[INTENT..INTENT + 2].copy_from_slice(&LABEL.to_le_bytes());
    let voxels = labels.geometry.orientation.pack(&labels.voxels, labels.geometry.stored.shape, 1);
    write(path, &header, |out| out.write_all(&voxels))
}

/// Writes a volume as 32-bit floats, channels along a fourth axis; else as [`write_labels`].
///
/// # Errors
/// As for [`write_labels`].
pub fn write_volume(path: &Path, volume: &Volume) -> Result<()> {
    let header = header(path, &volume.geometry, volume.shape, volume.channels, 16, 32)?;
    let voxels = volume.geometry.orientation.pack(&volume.voxels, volume.geometry.stored.shape, volume.channels);
    write(path, &header, |out| {
        let mut bytes = Vec::with_capacity(4 << 14);
        for part in voxels.chunks(1 << 14) {
            bytes.clear();
            part.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
            out.write_all(&bytes)?;
        }
        Ok(())
    })
}

/// Header, then voxels, compressed by name.
fn write(path: &Path, header: &[u8], voxels: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let compressed = path.extension().is_some_and(|e| e == "gz");
    write_atomic_with(path, |file| {
        if !compressed {
            file.write_all(header)?;
            return voxels(file);
        }
        // No time and no name in the gzip header: the same data give the same bytes.
        let mut out = GzBuilder::new().mtime(0).write(file, Compression::default());
        out.write_all(header)?;
        voxels(&mut out)?;
        out.finish().map(|_| ())
    })
}

fn header(
    path: &Path,
    geometry: &Geometry,
    shape: [usize; 3],
    channels: usize,
    code: i16,
    bits: i16,
) -> Result<Vec<u8>> {
    let name = path.to_string_lossy();
    if !(name.ends_with(".nii") || name.ends_with(".nii.gz")) {
        return Err(Error::data(path, "is not the name of a NIfTI file", "let it end in .nii or .nii.gz"));
    }
    let grid = &geometry.stored;
    if geometry.orientation.shape(grid.shape) != shape {
        let problem = format!("voxels {shape:?} do not fit the file grid {:?}", grid.shape);
        return Err(Error::shape("write_nifti", problem));
    }
    let mut dim = [1i16; 8];
    let axes = if channels == 1 { 3 } else { 4 };
    dim[0] = axes;
    for (field, n) in dim[1..].iter_mut().zip(grid.shape.into_iter().chain([channels])) {
        *field = i16::try_from(n).map_err(|_| {
            Error::data(path, format!("cannot hold {n} voxels along one axis (at most 32767)"), "crop or resample it")
        })?;
    }
    let mut bytes = vec![0u8; OFFSET];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &(SIZE_1 as i32).to_le_bytes());
    put(38, b"r");
    put(40, bytemuck::cast_slice(&dim.map(i16::to_le_bytes)));
    put(70, &code.to_le_bytes());
    put(72, &bits.to_le_bytes());
    let mut pixdim = [1f32; 8];
    (0..4).for_each(|k| pixdim[k] = grid.pixdim[k] as f32);
    let mut floats = |at: usize, values: &[f64]| {
        values.iter().enumerate().for_each(|(k, &v)| put(at + 4 * k, &(v as f32).to_le_bytes()));
    };
    floats(76, &pixdim.map(f64::from));
    floats(108, &[OFFSET as f64, 1.0, 0.0]);
    floats(256, &grid.quaternion);
    floats(268, &grid.offset);
    (0..3).for_each(|r| floats(280 + 16 * r, &grid.sform.0[r]));
    put(123, &[grid.units]);
    // NIfTI-2's codes are wider; only their sign tells what is used.
    let code = |code: i32| code.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
    put(252, &code(grid.qform_code).to_le_bytes());
    put(254, &code(grid.sform_code).to_le_bytes());
    put(344, b"n+1\0");
    Ok(bytes)
}
