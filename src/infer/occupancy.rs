//! An occupancy network that has seen a volume: a function of space.

pub mod jets;

use super::{QueryGrid, sound};
use crate::device::{Device, Foreseen};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::models::{Encoding, Network, OssNet, OssNetConfig};
use crate::nn::Parameters;
use crate::ops::fused_decoder::FoldedDecoder;
use crate::ops::patch_conv::PatchSource;
use crate::ops::{self, AlignCorners, lattice};
use crate::rng::Rng;
use crate::tape::{Mode, Tape, Var};
use crate::tensor::{DType, Tensor};

/// Most points that are decoded at once: more is no faster, and costs memory.
pub const MOST_POINTS: usize = 1 << 13;

/// The network, and what it needs of the volume to answer anywhere in it.
pub struct Occupancy<'a> {
    network: &'a OssNet,
    parameters: &'a Parameters,
    tape: Tape,
    volume: Var,
    encoding: Encoding,
    /// The decoder for this volume in one op, where it can be.
    folded: Option<FoldedDecoder>,
    most_points: usize,
}

impl<'a> Occupancy<'a> {
    /// Encodes `volume` `[1, X, Y, Z, channels]`, normalised and of the shape that [`fitting_shape`] gives. A volume of another
    /// shape than the network's own is brought to it for the encoder; patches are cut from it as it is. `most_points` are
    /// decoded at once; 0 stands for as many as the device's free memory admits, up to [`MOST_POINTS`].
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn new(network: &'a OssNet, parameters: &'a Parameters, volume: Tensor, most_points: usize) -> Result<Self> {
        let (device, config) = (volume.device().clone(), network.config());
        let tape = Tape::new(&device, Mode::Eval);
        let volume = tape.constant(volume);
        let (precision, shape) = (network.precision(), volume.shape());
        let foreseen = device.foresee(("encoding", format!("{config:?} {precision:?} {shape:?}")), |plan| {
            let mut parameters = Parameters::new(plan);
            let mut same = OssNet::new(config.clone(), &mut parameters, &mut Rng::new(0))?;
            same.set_precision(precision);
            let tape = Tape::new(plan, Mode::Eval);
            let volume = tape.constant(Tensor::empty(plan, shape, DType::F32, Role::Data)?);
            let encode = || encode(&same, &tape, &parameters, &volume);
            plan.place_ahead(&Foreseen::default(), 0, encode).map(drop)
        });
        let (encoding, folded) = device.place_ahead(&foreseen, 0, || encode(network, &tape, parameters, &volume))?;
        let most_points = match most_points {
            0 => points_within(&device, network, volume.shape())?,
            points => points,
        };
        Ok(Self { network, parameters, tape, volume, encoding, folded, most_points })
    }

    /// Where the volume lies and the answers are computed.
    pub fn device(&self) -> &Device {
        self.tape.device()
    }

    /// The network's configuration.
    pub fn config(&self) -> &OssNetConfig {
        self.network.config()
    }

    /// Shape of the volume.
    pub fn shape(&self) -> [usize; 3] {
        [1, 2, 3].map(|axis| self.volume.shape()[axis])
    }

    /// Points that are decoded at once.
    pub fn most_points(&self) -> usize {
        self.most_points
    }

    /// What the encoder found.
    pub fn encoding(&self) -> &Encoding {
        &self.encoding
    }

    /// Logits `[points, outputs]` at the points of `grid` with the given indices `[points, 3]`.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn logits(&self, grid: &QueryGrid, indices: Tensor) -> Result<Var> {
        let indices = self.tape.constant(indices);
        let coordinates = self.affine(&indices, grid.step, grid.start)?;
        drop(indices);
        self.logits_at(&coordinates)
    }

    /// Logits `[points, outputs]` at `coordinates` `[points, 3]` in voxels of the volume.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn logits_at(&self, coordinates: &Var) -> Result<Var> {
        let config = self.network.config();
        // Where the point would be in a volume of the shape that the decoder knows: voxels are cells.
        let (own, shape) = (config.volume_shape, self.shape());
        let scale = [0, 1, 2].map(|k| own[k] as f64 / shape[k] as f64);
        let known = self.affine(coordinates, scale, scale.map(|scale| 0.5 * scale - 0.5))?;
        let source = config.patches.then_some(PatchSource::Volume {
            volume: &self.volume,
            coordinates,
            options: config.patch_options(false),
        });
        let (network, tape, parameters) = (self.network, &self.tape, self.parameters);
        match &self.folded {
            Some(folded) => network.decode_folded(tape, parameters, folded, &known, source),
            None => network.decode(tape, parameters, &self.encoding, &known, source),
        }
    }

    /// The probabilities of those points, on the host: `[points, outputs]`.
    ///
    /// # Errors
    /// Logits that are not finite, or no memory.
    pub fn probabilities(&self, logits: &Var) -> Result<Vec<f32>> {
        probabilities(&self.tape, logits)
    }

    /// The low-resolution probability of not being background, on the host, with its shape; `None` if the encoder has no
    /// auxiliary output.
    ///
    /// # Errors
    /// Logits that are not finite, or no memory.
    pub fn low_resolution(&self) -> Result<Option<([usize; 3], Vec<f32>)>> {
        let Some(logits) = &self.encoding.auxiliary else { return Ok(None) };
        let (shape, outputs) = ([1, 2, 3].map(|axis| logits.shape()[axis]), logits.shape()[4]);
        let found = probabilities(&self.tape, logits)?;
        let occupied = match outputs {
            1 => found,
            _ => found.chunks_exact(outputs).map(|row| 1.0 - row[0]).collect(),
        };
        Ok(Some((shape, occupied)))
    }

    /// `scale·x + shift` along each axis.
    fn affine(&self, x: &Var, scale: [f64; 3], shift: [f64; 3]) -> Result<Var> {
        if scale == [1.0; 3] && shift == [0.0; 3] {
            return Ok(x.clone());
        }
        let mut diagonal = [0.0; 9];
        (0..3).for_each(|k| diagonal[4 * k] = scale[k] as f32);
        let device = self.tape.device();
        let diagonal = Tensor::from_slice(device, &[3, 3], Role::Transient, &diagonal)?;
        let shift = Tensor::from_slice(device, &[3], Role::Transient, &shift.map(|shift| shift as f32))?;
        ops::linear(&self.tape, x, &self.tape.constant(diagonal), None, Some(&self.tape.constant(shift)))
    }
}

/// What the encoder finds in `volume`, and the decoder folded for it.
fn encode(
    network: &OssNet,
    tape: &Tape,
    parameters: &Parameters,
    volume: &Var,
) -> Result<(Encoding, Option<FoldedDecoder>)> {
    let input = network.config().encoder_input();
    let mut half = ops::avg_pool(tape, volume, [2; 3], [2; 3])?;
    if half.shape()[1..4] != input {
        half = ops::resize(tape, &half, input, AlignCorners::Free)?;
    }
    let encoding = network.encode(tape, parameters, &half)?;
    drop(half);
    let folded = network.fold(tape, parameters, &encoding)?;
    Ok((encoding, folded))
}

/// The probabilities of logits `[rows…, outputs]`, on the host.
pub(super) fn probabilities(tape: &Tape, logits: &Var) -> Result<Vec<f32>> {
    sound::check(&logits.tensor())?;
    ops::probabilities(tape, logits)?.tensor().to_vec()
}

/// The shape that a volume of `shape` is padded to before a network sees it: the network's own if it fits, as in training,
/// else that shape scaled by one factor, so that nothing is distorted, to the next even numbers.
pub fn fitting_shape(config: &OssNetConfig, shape: [usize; 3]) -> [usize; 3] {
    let own = config.volume_shape;
    let factor = (0..3).map(|k| shape[k] as f64 / own[k] as f64).fold(1.0, f64::max);
    // Rounding must not leave a voxel out.
    [0, 1, 2].map(|k| ((own[k] as f64 * factor).ceil() as usize).max(shape[k]).next_multiple_of(2))
}

/// How many points, up to [`MOST_POINTS`], can be decoded at once in the device's free memory. Asked of a plan: decoding
/// some points and twice as many tells what each costs.
fn points_within(device: &Device, network: &OssNet, volume: &[usize]) -> Result<usize> {
    let (config, precision) = (network.config(), network.precision());
    let plan = Device::plan_for(device.target(), 1 << 60);
    let mut parameters = Parameters::new(&plan);
    let mut network = OssNet::new(config.clone(), &mut parameters, &mut Rng::new(0))?;
    network.set_precision(precision);
    let tape = Tape::new(&plan, Mode::Eval);
    let latents = [volume[0], config.latents(), config.latent_features()];
    let empty = |shape: &[usize]| Tensor::empty(&plan, shape, DType::F32, Role::Data);
    let encoding = Encoding { latents: tape.constant(empty(&latents)?), auxiliary: None };
    let occupancy = Occupancy {
        folded: network.fold(&tape, &parameters, &encoding)?,
        encoding,
        volume: tape.constant(empty(volume)?),
        network: &network,
        parameters: &parameters,
        tape,
        most_points: 0,
    };
    let cost = |points: usize| {
        plan.ledger(|ledger| ledger.reset_peak());
        let before = plan.live().total();
        let logits = occupancy.logits(&QueryGrid::voxels([2; 3]), empty(&[points, 3])?)?;
        lattice::classify(&logits.tensor(), 0.5)?;
        Ok::<_, Error>(plan.ledger(|ledger| ledger.peak().by_role.total()) - before)
    };
    let (some, twice) = (cost(lattice::BLOCK)?, cost(2 * lattice::BLOCK)?);
    let each = (twice - some).div_ceil(lattice::BLOCK as u64).max(1);
    let fixed = some.saturating_sub(each * lattice::BLOCK as u64);
    // The arena's holes may be too small for a buffer: a quarter of the free memory is left to them.
    let free = (device.budget() - device.live().total()) / 4 * 3;
    let points = free.saturating_sub(fixed) / each;
    Ok((points as usize).clamp(lattice::BLOCK, MOST_POINTS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Family;

    #[test]
    fn volumes_are_padded_to_the_networks_shape_or_a_multiple_of_it() {
        let config = OssNetConfig::official("full", Family::Brats).unwrap();
        assert_eq!(fitting_shape(&config, [240, 240, 155]), [256, 256, 160]);
        assert_eq!(fitting_shape(&config, [512, 512, 100]), [512, 512, 320]);
        assert_eq!(fitting_shape(&config, [300, 256, 160]), [300, 300, 188]);
        assert_eq!(fitting_shape(&config, [1, 1, 161]), [258, 258, 162]);
    }

    #[test]
    fn fewer_points_are_decoded_at_once_in_less_memory() {
        let config = OssNetConfig::official("full", Family::Brats).unwrap();
        let points = |mib: u64| {
            let device = Device::plan(2, crate::device::cpu::SimdLevel::detect(), mib << 20);
            let network = OssNet::new(
                config.clone(),
                &mut Parameters::new(&Device::plan_for(device.target(), 1 << 40)),
                &mut Rng::new(0),
            );
            points_within(&device, &network.unwrap(), &[1, 256, 256, 160, 4]).unwrap()
        };
        assert_eq!(points(4096), MOST_POINTS);
        assert_eq!(points(1), lattice::BLOCK);
        let some = points(30);
        assert!(some > lattice::BLOCK && some < MOST_POINTS, "{some}");
    }
}
