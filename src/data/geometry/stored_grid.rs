//! The grid as a NIfTI header states it.

use super::Affine;

/// The bits of a NIfTI unit code that are of space, and three of their values.
const UNITS_OF_SPACE: u8 = 7;
const METRES: u8 = 1;
const MILLIMETRES: u8 = 2;
const MICRONS: u8 = 3;

/// The grid as a NIfTI header states it, kept to write it back unchanged. Lengths in mm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoredGrid {
    /// Voxels along the file's axes.
    pub shape: [usize; 3],
    /// `qfac` and the three spacings.
    pub pixdim: [f64; 4],
    /// Code of the units of space and time.
    pub units: u8,
    /// What the quaternion's space is; 0: there is none.
    pub qform_code: i32,
    /// Rotation quaternion b, c, d.
    pub quaternion: [f64; 3],
    /// Position of the first voxel under the quaternion.
    pub offset: [f64; 3],
    /// What the affine's space is; 0: there is none.
    pub sform_code: i32,
    /// The affine's rows.
    pub sform: Affine,
}

impl StoredGrid {
    /// A grid given by an affine alone (as `sform`, code 2: aligned to some other image).
    pub fn from_affine(affine: Affine, shape: [usize; 3]) -> Self {
        let [x, y, z] = affine.spacing();
        Self {
            shape,
            pixdim: [1.0, x, y, z],
            units: 2,
            qform_code: 0,
            quaternion: [0.0; 3],
            offset: [0.0; 3],
            sform_code: 2,
            sform: affine,
        }
    }

    /// The same grid with its lengths in mm, as the code of its units says: metres (1) and microns (3) are converted; any
    /// other code is taken as mm.
    pub fn in_millimetres(mut self) -> Self {
        let factor = match self.units & UNITS_OF_SPACE {
            METRES => 1000.0,
            MICRONS => 0.001,
            _ => return self,
        };
        self.pixdim[1..].iter_mut().chain(&mut self.offset).for_each(|length| *length *= factor);
        self.sform.0.iter_mut().flatten().for_each(|length| *length *= factor);
        self.units = self.units & !UNITS_OF_SPACE | MILLIMETRES;
        self
    }

    /// True if the file says in which unit its lengths are.
    pub fn has_units(&self) -> bool {
        self.units & UNITS_OF_SPACE == MILLIMETRES
    }

    /// The affine that the quaternion and the spacings give, if the file says that there is one.
    pub fn qform(&self) -> Option<Affine> {
        (self.qform_code > 0).then(|| self.quaternion_affine())
    }

    /// The affine by the standard's rule: `sform` if its code is positive, else the quaternion, else the spacing.
    pub fn affine(&self) -> Affine {
        if self.sform_code > 0 {
            self.sform
        } else if self.qform_code > 0 {
            self.quaternion_affine()
        } else {
            Affine::from_spacing(self.spacing())
        }
    }

    /// The same box divided into `shape` voxels.
    pub fn resized(&self, shape: [usize; 3]) -> Self {
        let step = [0, 1, 2].map(|k| self.shape[k] as f64 / shape[k] as f64);
        let first = step.map(|step| 0.5 * step - 0.5);
        let (spacing, mut pixdim) = (self.spacing(), self.pixdim);
        (0..3).for_each(|k| pixdim[k + 1] = spacing[k] * step[k]);
        let offset = if self.qform_code > 0 { self.quaternion_affine().apply(first) } else { self.offset };
        let (sform_code, sform) = match (self.sform_code, self.qform_code) {
            // A grid that says nothing of its place begins at 0; the new one begins elsewhere and must say so.
            (..=0, ..=0) => (2, self.affine()),
            (code, _) => (code, self.sform),
        };
        Self { shape, pixdim, offset, sform_code, sform: sform.regrid(first, step), ..*self }
    }

    /// Spacings as the standard's reader takes them: the sign dropped, 0 read as 1.
    pub(super) fn spacing(&self) -> [f64; 3] {
        [1, 2, 3].map(|k| if self.pixdim[k] == 0.0 { 1.0 } else { self.pixdim[k].abs() })
    }

    fn quaternion_affine(&self) -> Affine {
        let [mut b, mut c, mut d] = self.quaternion;
        let squared = b * b + c * c + d * d;
        let a = if squared > 1.0 {
            // Rounding of a half turn: a is 0 and the rest is brought back to length 1.
            let length = squared.sqrt();
            (b, c, d) = (b / length, c / length, d / length);
            0.0
        } else {
            (1.0 - squared).sqrt()
        };
        let rotation = [
            [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
            [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
            [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ];
        let spacing = self.spacing();
        let hand = if self.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
        Affine([0, 1, 2].map(|r| {
            let row = rotation[r];
            [row[0] * spacing[0], row[1] * spacing[1], row[2] * spacing[2] * hand, self.offset[r]]
        }))
    }
}
