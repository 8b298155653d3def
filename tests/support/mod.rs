//! NIfTI files made byte by byte, independently of the crate's own writer.
#![allow(dead_code)] // each test file uses a part

pub mod cli;
pub mod cohort;
pub mod processes;

use std::io::Write;
use std::path::Path;

/// The fields of a header that tests vary.
#[derive(Clone)]
pub struct Nifti {
    pub version: u8,
    pub big_endian: bool,
    pub magic: [u8; 4],
    pub dim: [i64; 8],
    pub datatype: i16,
    pub pixdim: [f64; 8],
    pub offset: f64,
    pub slope: f64,
    pub intercept: f64,
    pub qform_code: i32,
    pub quaternion: [f64; 6],
    pub sform_code: i32,
    pub sform: [[f64; 4]; 3],
    /// Code of the units: 1 metre, 2 mm, 3 micron.
    pub units: u8,
    pub voxels: Vec<u8>,
}

impl Nifti {
    /// A little-endian NIfTI-1 file of unsigned bytes 0, 1, 2, … on a 1 mm RAS grid.
    pub fn new(shape: [i64; 3]) -> Self {
        let [x, y, z] = shape;
        Self {
            version: 1,
            big_endian: false,
            magic: *b"n+1\0",
            dim: [3, x, y, z, 1, 1, 1, 1],
            datatype: 2,
            pixdim: [1.0; 8],
            offset: 352.0,
            slope: 0.0,
            intercept: 0.0,
            qform_code: 0,
            quaternion: [0.0; 6],
            sform_code: 1,
            sform: [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
            units: 2,
            voxels: (0..x * y * z).map(|i| i as u8).collect(),
        }
    }

    /// All voxels the same byte.
    pub fn filled(shape: [i64; 3], value: u8) -> Self {
        let mut file = Self::new(shape);
        file.voxels.fill(value);
        file
    }

    /// Voxels of another type, already as little-endian numbers of `size` bytes (reversed here if big-endian).
    pub fn typed(mut self, datatype: i16, size: usize, voxels: Vec<u8>) -> Self {
        self.datatype = datatype;
        self.voxels = voxels;
        if self.big_endian {
            self.voxels.chunks_mut(size).for_each(<[u8]>::reverse);
        }
        self
    }

    /// Header bytes up to the voxels.
    pub fn header(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; if self.version == 1 { 352 } else { 544 }];
        let mut put = |at: usize, mut field: Vec<u8>| {
            if self.big_endian {
                field.reverse();
            }
            bytes[at..at + field.len()].copy_from_slice(&field);
        };
        let short = |v: i64| (v as i16).to_le_bytes().to_vec();
        let int = |v: i32| v.to_le_bytes().to_vec();
        let float = |v: f64| (v as f32).to_le_bytes().to_vec();
        let double = |v: f64| v.to_le_bytes().to_vec();
        if self.version == 1 {
            put(0, int(348));
            (0..8).for_each(|k| put(40 + 2 * k, short(self.dim[k])));
            put(70, short(self.datatype as i64));
            (0..8).for_each(|k| put(76 + 4 * k, float(self.pixdim[k])));
            put(108, float(self.offset));
            put(112, float(self.slope));
            put(116, float(self.intercept));
            put(123, vec![self.units]);
            put(252, short(self.qform_code as i64));
            put(254, short(self.sform_code as i64));
            (0..6).for_each(|k| put(256 + 4 * k, float(self.quaternion[k])));
            (0..12).for_each(|k| put(280 + 4 * k, float(self.sform[k / 4][k % 4])));
            bytes[344..348].copy_from_slice(&self.magic);
        } else {
            put(0, int(540));
            put(12, short(self.datatype as i64));
            (0..8).for_each(|k| put(16 + 8 * k, self.dim[k].to_le_bytes().to_vec()));
            (0..8).for_each(|k| put(104 + 8 * k, double(self.pixdim[k])));
            put(168, (self.offset as i64).to_le_bytes().to_vec());
            put(176, double(self.slope));
            put(184, double(self.intercept));
            put(344, int(self.qform_code));
            put(348, int(self.sform_code));
            (0..6).for_each(|k| put(352 + 8 * k, double(self.quaternion[k])));
            (0..12).for_each(|k| put(400 + 8 * k, double(self.sform[k / 4][k % 4])));
            put(500, int(self.units.into()));
            bytes[4..8].copy_from_slice(&self.magic);
        }
        bytes
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        [self.header(), self.voxels.clone()].concat()
    }

    /// Writes it, compressed if the name ends in `.gz`.
    pub fn write(&self, path: &Path) {
        let bytes = if path.extension().is_some_and(|e| e == "gz") { gzip(&self.bytes()) } else { self.bytes() };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// `bytes` compressed.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
