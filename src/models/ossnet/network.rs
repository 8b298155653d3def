//! OSS-Net as training, inference and plans see it.

use std::sync::Arc;

use super::OssNet;
use crate::error::{Error, Result};
use crate::models::loss::{self, Batch, LossSettings, Targets};
use crate::models::{Architecture, Network, NetworkConfig, OssNetConfig, Recompute, Supervision, Unit, UnitChoice};
use crate::nn::Parameters;
use crate::ops::patch_conv::PatchSource;
use crate::ops::{self, SoftDice};
use crate::rng::Rng;
use crate::tape::{Precision, Tape, Var};

impl Architecture for OssNetConfig {
    fn build(&self, parameters: &mut Parameters, rng: &mut Rng) -> Result<Box<dyn Network>> {
        Ok(Box::new(OssNet::new(self.clone(), parameters, rng)?))
    }

    fn title(&self) -> String {
        self.title()
    }

    fn slug(&self) -> String {
        self.slug()
    }

    fn image_channels(&self) -> usize {
        self.image_channels
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn for_data(&self, channels: usize, classes: usize, shape: [usize; 3]) -> Option<Arc<dyn Architecture>> {
        Some(Arc::new(self.clone().adapted(channels, classes, shape)))
    }

    fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&NetworkConfig::OssNet(self.clone()))
    }

    fn supervision(&self) -> Supervision {
        Supervision::Points { label_volumes: self.has_auxiliary(), last_index: !self.reference }
    }

    fn multiples(&self) -> [usize; 3] {
        [2; 3]
    }

    fn volume_shape(&self) -> Option<[usize; 3]> {
        Some(self.volume_shape)
    }

    fn levels(&self) -> &'static [Recompute] {
        &Recompute::LEVELS
    }

    /// The encoder's blocks and the decoder's.
    ///
    /// An encoder's block in pieces (slabs) keeps what its second half makes. A decoder's block in pieces (chunks of points) keeps
    /// its boundaries only. The last block, which is played backwards first, is not worth being recomputed as a whole.
    fn units(&self) -> Vec<Unit> {
        use UnitChoice::{Keep, Lean, Pieces, Recompute};
        let unit = |layer, choices, levels| Unit { layer, choices, levels };
        let encoder = (0..self.encoder_channels.len())
            .map(|i| unit(format!("encoder.blocks.{i}"), &UnitChoice::ALL[..], [Keep, Keep, Lean, Lean]));
        let decoder = (0..self.blocks).map(|i| {
            let layer = format!("decoder.blocks.{i}");
            if i + 1 == self.blocks {
                return unit(layer, &[Keep, Pieces], [Keep, Pieces, Pieces, Pieces]);
            }
            let boundary = if i % 2 == 1 { Pieces } else { Lean };
            unit(layer, &UnitChoice::ALL, [Keep, Recompute, Recompute, boundary])
        });
        encoder.chain(decoder).collect()
    }

    fn dropout(&self) -> f32 {
        self.dropout
    }

    fn is_reference(&self) -> bool {
        self.reference
    }

    fn check(&self) -> Result<()> {
        self.check()
    }
}

impl Network for OssNet {
    fn architecture(&self) -> &dyn Architecture {
        &self.config
    }

    fn logits(&self, tape: &Tape, parameters: &Parameters, volumes: &Var, points: Option<&Var>) -> Result<Var> {
        let Some(points) = points else {
            return Err(Error::Model("an occupancy network answers at points, not for all voxels".into()));
        };
        let half = ops::avg_pool(tape, volumes, [2; 3], [2; 3])?;
        let encoding = self.encode(tape, parameters, &half)?;
        drop(half);
        let source = self.config.patches.then_some(PatchSource::Volume {
            volume: volumes,
            coordinates: points,
            options: self.config.patch_options(false),
        });
        self.decode(tape, parameters, &encoding, points, source)
    }

    fn loss(&self, tape: &Tape, parameters: &Parameters, batch: &Batch, settings: LossSettings) -> Result<Var> {
        let Targets::Points { coordinates, labels, label_volumes } = &batch.targets else {
            return Err(Error::Model("an occupancy network learns from points, not from dense labels".into()));
        };
        let (config, volumes) = (&self.config, tape.constant(batch.volumes.clone()));
        // One pass over the volumes away from them: not worth its bytes while the decoder works.
        let half = tape.recomputed(|| ops::avg_pool(tape, &volumes, [2; 3], [2; 3]))?;
        let encoding = self.encode(tape, parameters, &half)?;
        drop(half);
        let auxiliary = match (&encoding.auxiliary, label_volumes) {
            (Some(logits), Some(labels)) if settings.segmentation_factor != 0.0 => {
                let (labels, known) = (tape.constant(labels.clone()), batch.known.map(|_| 1.0));
                Some(loss::auxiliary(tape, logits, labels, config.classes, settings, known)?)
            }
            _ => None,
        };
        let coordinates = tape.constant(coordinates.clone());
        let source = config.patches.then_some(PatchSource::Volume {
            volume: &volumes,
            coordinates: &coordinates,
            options: config.patch_options(true),
        });
        let logits = self.decode(tape, parameters, &encoding, &coordinates, source)?;
        drop(encoding);
        let labels = tape.constant(labels.clone());
        // Points are drawn where somebody has looked.
        let dice = SoftDice::default();
        let loss = loss::classification(tape, &logits, &labels, config.classes, settings, dice, None)?;
        match auxiliary {
            Some(auxiliary) => ops::scale_add(tape, &loss, &auxiliary, settings.segmentation_factor),
            None => Ok(loss),
        }
    }

    fn occupancy(&self) -> Option<&OssNet> {
        Some(self)
    }

    fn set_recompute(&mut self, recompute: Recompute) {
        self.choices = recompute.choices(&self.config.units()).unwrap_or_default();
    }

    /// Latents and their share of the decoder, coordinates and logits stay f32.
    fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    fn precision(&self) -> Precision {
        self.precision
    }
}
