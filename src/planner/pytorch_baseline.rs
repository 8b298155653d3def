//! Recorded figures of the peers: measured once with PyTorch and MONAI, not by this program.
//!
//! `docs/memory.md` says with what they were made and how to repeat them.

/// What made the figures.
pub const SOURCE: &str = "PyTorch 2.9.1 and MONAI 1.6.1, CPU, f32, batch 1, recorded";

const MIB: f64 = (1 << 20) as f64;

/// Peak activation bytes of a peer's training step against the side of the volume.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// What was measured.
    pub name: &'static str,
    /// The model of this program that it compares with.
    pub model: &'static str,
    /// Points a volume, of occupancy networks.
    pub points: Option<usize>,
    /// Side and MiB. Only what was measured: no extrapolated figure is here.
    mebibytes: &'static [(usize, u32)],
}

/// All recorded curves.
pub const CURVES: [Recorded; 3] = [
    Recorded {
        name: "PyTorch 3D U-Net",
        model: "unet3d",
        points: None,
        mebibytes: &[(64, 89), (96, 225), (128, 534), (160, 1105), (192, 1909)],
    },
    Recorded {
        name: "PyTorch OSS-Net C",
        model: "oss-net-c",
        points: Some(16384),
        mebibytes: &[(64, 1794), (96, 1823), (128, 1878), (192, 2105), (256, 2547)],
    },
    Recorded {
        name: "PyTorch OSS-Net C",
        model: "oss-net-c",
        points: Some(2048),
        mebibytes: &[(64, 236), (96, 264), (128, 320), (192, 547), (256, 989)],
    },
];

impl Recorded {
    /// Side and bytes of each figure.
    pub fn points(&self) -> Vec<(f64, f64)> {
        self.mebibytes.iter().map(|&(side, mebibytes)| (side as f64, f64::from(mebibytes) * MIB)).collect()
    }
}

/// What was recorded of the peers of a model (its [`slug`](crate::models::Architecture::slug)) with so many points.
pub fn beside(model: &str, points: usize) -> Vec<Recorded> {
    let wanted = |curve: &&Recorded| curve.model == model && curve.points.is_none_or(|recorded| recorded == points);
    CURVES.iter().filter(wanted).copied().collect()
}
