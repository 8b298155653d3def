//! The header: parsed, checked, and reduced to what the engine uses.

use std::path::Path;

use nifti::NiftiHeader;

use crate::data::geometry::{Affine, StoredGrid};
use crate::{Error, Result};

/// Bytes of a NIfTI-1 header.
pub(super) const SIZE_1: usize = 348;
/// Bytes of a NIfTI-2 header.
pub(super) const SIZE_2: usize = 540;

const CONVERT: &str = "save it again as NIfTI with your imaging tool";

/// Type of the stored voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Datatype {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Datatype {
    /// Bytes of one voxel.
    pub fn bytes(self) -> u64 {
        match self {
            Datatype::U8 | Datatype::I8 => 1,
            Datatype::U16 | Datatype::I16 => 2,
            Datatype::U32 | Datatype::I32 | Datatype::F32 => 4,
            Datatype::U64 | Datatype::I64 | Datatype::F64 => 8,
        }
    }

    /// Its name as NumPy has it.
    pub fn name(self) -> &'static str {
        match self {
            Datatype::U8 => "uint8",
            Datatype::I8 => "int8",
            Datatype::U16 => "uint16",
            Datatype::I16 => "int16",
            Datatype::U32 => "uint32",
            Datatype::I32 => "int32",
            Datatype::U64 => "uint64",
            Datatype::I64 => "int64",
            Datatype::F32 => "float32",
            Datatype::F64 => "float64",
        }
    }

    /// The type of a NIfTI code, or the name of what the code means.
    fn from_code(code: i16) -> std::result::Result<Self, &'static str> {
        Ok(match code {
            2 => Datatype::U8,
            4 => Datatype::I16,
            8 => Datatype::I32,
            16 => Datatype::F32,
            64 => Datatype::F64,
            256 => Datatype::I8,
            512 => Datatype::U16,
            768 => Datatype::U32,
            1024 => Datatype::I64,
            1280 => Datatype::U64,
            1 => return Err("single bits"),
            32 | 1792 | 2048 => return Err("complex numbers"),
            128 | 2304 => return Err("colours"),
            1536 => return Err("128-bit floats"),
            _ => return Err("no known type"),
        })
    }
}

/// A checked header.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// 1 or 2.
    pub version: u8,
    /// True if numbers are stored most significant byte first.
    pub big_endian: bool,
    /// Lengths of the axes, 1 to 7 of them, all positive.
    pub dims: Vec<usize>,
    /// Type of the stored voxels.
    pub datatype: Datatype,
    /// True for `.nii`, false for the `.hdr` of a pair.
    pub single_file: bool,
    /// Where the voxels begin, in bytes.
    pub offset: u64,
    /// Value = stored · slope + intercept; `None` if the header asks for no scaling.
    pub scaling: Option<(f64, f64)>,
    /// The first three axes and where they lie, in mm whatever the file's unit.
    pub grid: StoredGrid,
}

/// How far from a whole number a label stored as a float may lie: rounding of a program that computed it.
const ROUNDING: f32 = 1e-3;

impl Header {
    /// How far from a whole number a value may lie that is a label: half a step of what the file can store, if it stores
    /// integers with a slope, but never so much that a step could mean two labels.
    pub fn label_tolerance(&self) -> f32 {
        let is_float = matches!(self.datatype, Datatype::F32 | Datatype::F64);
        match self.scaling {
            // A little more than half, for the rounding of the product.
            Some((slope, _)) if !is_float => ((slope.abs() * 0.5001) as f32).clamp(ROUNDING, 0.25),
            _ => ROUNDING,
        }
    }

    /// Parses the first bytes of a file (348 or more for NIfTI-1, 540 for NIfTI-2).
    ///
    /// # Errors
    /// If the bytes are no NIfTI header, or the header contradicts itself.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let fail = |problem: String, remedy: &str| Err(Error::data(path, problem, remedy));
        if bytes.len() < SIZE_1 {
            let problem = format!("is no NIfTI file: it has {} bytes, a header alone has {SIZE_1}", bytes.len());
            return fail(problem, "copy or download it again");
        }
        let size = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let (version, big_endian) = match (i32::from_le_bytes(size), i32::from_be_bytes(size)) {
            (348, _) => (1, false),
            (_, 348) => (1, true),
            (540, _) => (2, false),
            (_, 540) => (2, true),
            _ => return fail("is no NIfTI file (the header's size is neither 348 nor 540)".into(), CONVERT),
        };
        let raw =
            if version == 1 { Raw::nifti1(bytes, big_endian, path)? } else { Raw::nifti2(bytes, big_endian, path)? };
        raw.check(version, big_endian, path)
    }

    /// Voxels along the three spatial axes.
    pub fn shape(&self) -> [usize; 3] {
        self.grid.shape
    }

    /// Channels: what lies along the axes beyond the third; the largest number if there are more than 64 bits count.
    pub fn channels(&self) -> usize {
        self.dims.iter().skip(3).fold(1, |product, &n| product.saturating_mul(n))
    }

    /// Elements of all axes; `None` if the product exceeds u64.
    pub fn elements(&self) -> Option<u64> {
        self.dims.iter().try_fold(1u64, |product, &n| product.checked_mul(n as u64))
    }
}

/// The fields used, as stored.
struct Raw {
    magic: [u8; 4],
    dim: [i64; 8],
    datatype: i16,
    offset: f64,
    slope: f64,
    intercept: f64,
    grid: StoredGrid,
}

impl Raw {
    fn nifti1(bytes: &[u8], big_endian: bool, path: &Path) -> Result<Self> {
        let magic: [u8; 4] = [bytes[344], bytes[345], bytes[346], bytes[347]];
        // The `nifti` crate infers the byte order from dim[0], which is only sound once dim[0] is known to be in 1..=7.
        let axes = field::<2, _>(bytes, 40, big_endian, i16::from_le_bytes) as i64;
        check_axes(axes, path)?;
        check_magic(magic, path)?;
        let header = NiftiHeader::from_reader(&bytes[..SIZE_1]).map_err(|e| {
            Error::data(path, format!("has a header that cannot be read ({})", one_line(&e.to_string())), CONVERT)
        })?;
        Ok(Raw {
            magic,
            // The crate reads the dimensions as unsigned; the standard's are signed.
            dim: header.dim.map(|n| n as i16 as i64),
            datatype: header.datatype,
            offset: header.vox_offset as f64,
            slope: header.scl_slope as f64,
            intercept: header.scl_inter as f64,
            grid: StoredGrid {
                shape: [0; 3],
                pixdim: [0, 1, 2, 3].map(|k| header.pixdim[k] as f64),
                units: header.xyzt_units,
                qform_code: header.qform_code as i32,
                quaternion: [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from),
                offset: [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from),
                sform_code: header.sform_code as i32,
                sform: Affine([header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from))),
            },
        })
    }

    /// NIfTI-2 has the same fields, wider and in another order; the `nifti` crate does not read it.
    fn nifti2(bytes: &[u8], big_endian: bool, path: &Path) -> Result<Self> {
        if bytes.len() < SIZE_2 {
            let problem = format!("ends after {} bytes, inside the {SIZE_2} of its NIfTI-2 header", bytes.len());
            return Err(Error::data(path, problem, "copy or download it again"));
        }
        let float = |at: usize| field::<8, _>(bytes, at, big_endian, f64::from_le_bytes);
        let long = |at: usize| field::<8, _>(bytes, at, big_endian, i64::from_le_bytes);
        let int = |at: usize| field::<4, _>(bytes, at, big_endian, i32::from_le_bytes);
        let dim: [i64; 8] = std::array::from_fn(|k| long(16 + 8 * k));
        check_axes(dim[0], path)?;
        let magic = [bytes[4], bytes[5], bytes[6], bytes[7]];
        check_magic(magic, path)?;
        Ok(Raw {
            magic,
            dim,
            datatype: field::<2, _>(bytes, 12, big_endian, i16::from_le_bytes),
            offset: long(168) as f64,
            slope: float(176),
            intercept: float(184),
            grid: StoredGrid {
                shape: [0; 3],
                pixdim: std::array::from_fn(|k| float(104 + 8 * k)),
                units: int(500) as u8,
                qform_code: int(344),
                quaternion: [float(352), float(360), float(368)],
                offset: [float(376), float(384), float(392)],
                sform_code: int(348),
                sform: Affine(std::array::from_fn(|r| std::array::from_fn(|c| float(400 + 32 * r + 8 * c)))),
            },
        })
    }

    fn check(self, version: u8, big_endian: bool, path: &Path) -> Result<Header> {
        let fail = |problem: String, remedy: &str| Err(Error::data(path, problem, remedy));
        let axes = self.dim[0] as usize;
        let mut dims = Vec::with_capacity(axes);
        for (axis, &n) in self.dim[1..=axes].iter().enumerate() {
            match usize::try_from(n) {
                Ok(n) if n > 0 => dims.push(n),
                _ => {
                    let problem = format!("declares {n} voxels along axis {axis}; its header is damaged");
                    return fail(problem, "copy or download it again, or repair the header's dim field");
                }
            }
        }
        let datatype = match Datatype::from_code(self.datatype) {
            Ok(datatype) => datatype,
            Err(meaning) => {
                let problem = format!("stores voxels of type code {} ({meaning}), which cannot be read", self.datatype);
                return fail(problem, "convert it to integers or 32-bit floats");
            }
        };
        let single_file = self.magic[1] == b'+';
        let least = match (single_file, version) {
            (false, _) => 0.0,
            (true, 1) => 352.0,
            (true, _) => 544.0,
        };
        // Some writers leave 0 and mean the least possible.
        let offset = if self.offset == 0.0 { least } else { self.offset };
        if !(offset >= least && offset.fract() == 0.0 && offset < 2f64.powi(53)) {
            let problem = format!("places its voxels at byte {}, at least {least} is possible", self.offset);
            return fail(problem, CONVERT);
        }
        // The standard: a slope of 0 means that the numbers are as they are.
        let scaling = (self.slope.is_finite() && self.slope != 0.0).then_some((self.slope, self.intercept));
        if scaling.is_some() && !self.intercept.is_finite() {
            return fail(format!("scales its voxels with intercept {}", self.intercept), CONVERT);
        }
        let grid = StoredGrid { shape: [0, 1, 2].map(|k| dims.get(k).copied().unwrap_or(1)), ..self.grid };
        let grid = grid.in_millimetres();
        let affine = grid.affine();
        if !affine.is_valid() || !as_written(&grid).affine().is_valid() {
            let source = if grid.sform_code > 0 { "sform" } else { "qform or pixdim" };
            let problem = format!("has a {source} that does not span space ({affine})");
            return fail(problem, "repair the header's geometry (for example with fslorient or nibabel)");
        }
        let scaling = scaling.filter(|&scaling| scaling != (1.0, 0.0));
        Ok(Header { version, big_endian, dims, datatype, single_file, offset: offset as u64, scaling, grid })
    }
}

/// The grid as NIfTI-1 holds it, in which everything is written that is made of a scan: its numbers are f32.
fn as_written(grid: &StoredGrid) -> StoredGrid {
    let narrow = |number: f64| f64::from(number as f32);
    StoredGrid {
        pixdim: grid.pixdim.map(narrow),
        quaternion: grid.quaternion.map(narrow),
        offset: grid.offset.map(narrow),
        sform: Affine(grid.sform.0.map(|row| row.map(narrow))),
        ..*grid
    }
}

fn check_axes(axes: i64, path: &Path) -> Result<()> {
    if (1..=7).contains(&axes) {
        return Ok(());
    }
    let problem = format!("declares {axes} axes where 1 to 7 are possible; its header is damaged");
    Err(Error::data(path, problem, "copy or download it again"))
}

fn check_magic(magic: [u8; 4], path: &Path) -> Result<()> {
    match &magic {
        b"n+1\0" | b"ni1\0" | b"n+2\0" | b"ni2\0" => Ok(()),
        [0, 0, 0, 0] => Err(Error::data(
            path,
            "is an ANALYZE 7.5 file (no NIfTI magic), which has no reliable orientation",
            CONVERT,
        )),
        _ => {
            let text = magic.escape_ascii();
            Err(Error::data(
                path,
                format!("is no NIfTI file (magic '{text}' where 'n+1' or 'ni1' is expected)"),
                CONVERT,
            ))
        }
    }
}

/// The number of `N` bytes at `at`, by its little-endian decoder.
fn field<const N: usize, T>(bytes: &[u8], at: usize, big_endian: bool, decode: impl Fn([u8; N]) -> T) -> T {
    let mut raw = [0; N];
    raw.copy_from_slice(&bytes[at..at + N]);
    if big_endian {
        raw.reverse();
    }
    decode(raw)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
