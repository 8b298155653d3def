//! The configurations of OSS-Net: the official twelve, their published names, and a small variant of each.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ops::activation::Activation;
use crate::ops::patch_sample::{PatchOptions, Pooling};

/// Side of a patch in voxels.
pub const PATCH: usize = 7;

/// Voxels of a patch: what its mapping hands to the decoder.
pub const PATCH_FEATURES: usize = PATCH * PATCH * PATCH;

/// Everything that determines an OSS-Net's parameters and what it computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OssNetConfig {
    /// The configuration's name, for example `full`.
    pub name: String,
    /// Channels of the volume.
    pub image_channels: usize,
    /// Outputs of the decoder: 1 for inside against outside, else one a class (background included).
    pub classes: usize,
    /// Shape of the full-resolution volume, padded to the encoder's multiple.
    pub volume_shape: [usize; 3],
    /// Input and output channels of each encoder block.
    pub encoder_channels: Vec<(usize, usize)>,
    /// Each encoder block feeds the latents, not only the last.
    pub skip_encoder: bool,
    /// Grid of the skip encoder's latents; by default the last block's.
    pub encoder_output_shape: Option<[usize; 3]>,
    /// Low-resolution segmentation from the encoder's last block. The official code ignores it without skip encoder;
    /// so do we under `reference`.
    pub auxiliary: bool,
    /// Local patches at full resolution.
    pub patches: bool,
    /// Mid-range patches beside them.
    pub mid_range: bool,
    /// Fourier features of the coordinates.
    pub fourier: bool,
    /// Features of each decoder block.
    pub width: usize,
    /// Decoder blocks.
    pub blocks: usize,
    /// Activation everywhere.
    pub activation: Activation,
    /// Dropout probability everywhere.
    pub dropout: f32,
    /// Behave as the official code where the two differ (see the README).
    pub reference: bool,
}

/// The data sets that official configurations exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Four channels, 256×256×160, four encoder blocks.
    Brats,
    /// One channel, 512³, five encoder blocks.
    Lits,
}

impl Family {
    /// Shape of the full-resolution volumes that the published networks take.
    pub fn volume_shape(self) -> [usize; 3] {
        match self {
            Family::Brats => [256, 256, 160],
            Family::Lits => [512; 3],
        }
    }

    /// Channels of the image, then those of each block of the encoder.
    fn channels(self) -> &'static [usize] {
        match self {
            Family::Brats => &[4, 16, 32, 64, 128],
            Family::Lits => &[1, 8, 16, 32, 64, 128],
        }
    }
}

/// Columns: name, published name, patches, mid-range, skip encoder, Fourier, auxiliary, width.
type Row = (&'static str, &'static str, bool, bool, bool, bool, bool, usize);

/// The official code's configurations.
const TABLE: [Row; 12] = [
    ("vanilla_o_net", "", false, false, false, false, false, 256),
    ("vanilla_o_net_wide", "o-net", false, false, false, false, false, 512),
    ("A", "oss-net-a", true, false, false, false, false, 512),
    ("B", "oss-net-b", true, true, false, false, false, 512),
    ("C1", "", true, false, true, false, false, 512),
    ("C2", "", true, true, true, false, false, 512),
    ("D1", "", true, false, false, true, false, 512),
    ("D2", "", true, true, false, true, false, 512),
    ("E1", "", true, false, false, false, true, 512),
    ("E2", "", true, true, false, false, true, 512),
    ("full", "oss-net-c", true, false, true, false, true, 512),
    ("full2", "oss-net-d", true, true, true, false, true, 512),
];

/// Small variants of the published networks.
const SMALL: [&str; 5] = ["o-net-small", "oss-net-a-small", "oss-net-b-small", "oss-net-c-small", "oss-net-d-small"];

/// What the name of a small variant ends in.
const SMALL_ENDING: &str = "-small";

/// Output channels of a small variant's encoder blocks; small volumes have the first of them only.
const SMALL_CHANNELS: [usize; 3] = [16, 32, 64];

/// Names that [`OssNetConfig::official`] knows: those of the official code, those published, and those of small variants.
/// (`full-small` and the like are known too.)
pub fn names() -> Vec<&'static str> {
    TABLE.iter().flat_map(|row| [row.0, row.1]).filter(|name| !name.is_empty()).chain(SMALL).collect()
}

/// The row of a configuration by either name.
fn row_of(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| !name.is_empty() && (row.0 == name || row.1.eq_ignore_ascii_case(name)))
}

/// The name without the ending of small variants, if it has that.
fn without_ending(name: &str) -> Option<&str> {
    let at = name.len().checked_sub(SMALL_ENDING.len()).filter(|&at| name.is_char_boundary(at))?;
    name[at..].eq_ignore_ascii_case(SMALL_ENDING).then_some(&name[..at])
}

impl OssNetConfig {
    /// A configuration by its config name (`full`) or published name (`oss-net-c`), at its published size; with `-small`
    /// behind it, the small variant for the volumes of `family`.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the names.
    pub fn official(name: &str, family: Family) -> Result<Self> {
        if let Some(name) = without_ending(name) {
            let channels = Self::official(name, family)?.image_channels;
            return Self::sample(name, channels, family.volume_shape());
        }
        let Some(&(name, _, patches, mid_range, skip_encoder, fourier, auxiliary, width)) = row_of(name) else {
            return Err(Error::Usage(format!(
                "unknown network configuration '{name}'; use one of {}",
                names().join(", ")
            )));
        };
        Ok(Self {
            name: name.into(),
            image_channels: family.channels()[0],
            classes: 1,
            volume_shape: family.volume_shape(),
            encoder_channels: pairs(family.channels()),
            skip_encoder,
            encoder_output_shape: None,
            auxiliary,
            patches,
            mid_range,
            fourier,
            width,
            blocks: BLOCKS,
            activation: Activation::PADE,
            dropout: 0.0,
            reference: false,
        })
    }

    /// The small variant of a configuration (with or without `-small` behind its name): for volumes of a few hundred thousand
    /// voxels, as the embedded sample's.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the names.
    pub fn sample(name: &str, image_channels: usize, volume_shape: [usize; 3]) -> Result<Self> {
        let official = Self::official(without_ending(name).unwrap_or(name), Family::Brats)?;
        let width = small_width(official.width);
        let encoder_channels = pairs(&[&[image_channels][..], &SMALL_CHANNELS].concat());
        Ok(Self { width, encoder_channels, ..official }.adapted(image_channels, 1, volume_shape))
    }

    /// The same network for other channels, classes and volumes. Small variants have as many encoder blocks as the volume
    /// admits, up to three; others keep theirs.
    pub fn adapted(mut self, image_channels: usize, classes: usize, volume_shape: [usize; 3]) -> Self {
        if self.is_small() {
            let blocks = usable_blocks(volume_shape.map(|side| side / 2), SMALL_CHANNELS.len());
            let channels = [&[image_channels][..], &SMALL_CHANNELS[..blocks]].concat();
            self.encoder_channels = pairs(&channels);
        }
        if let Some(first) = self.encoder_channels.first_mut() {
            first.0 = image_channels;
        }
        Self { image_channels, classes, volume_shape, ..self }
    }

    /// True if the network has the sizes of a small variant: its width, and all of its encoder's blocks or the first of them.
    pub fn is_small(&self) -> bool {
        let width = row_of(&self.name).map(|row| small_width(row.7));
        width == Some(self.width)
            && SMALL_CHANNELS.starts_with(&self.encoder_outputs())
            && !self.encoder_channels.is_empty()
    }

    /// Output channels of each encoder block.
    fn encoder_outputs(&self) -> Vec<usize> {
        self.encoder_channels.iter().map(|pair| pair.1).collect()
    }

    /// The name for files and flags: the published one, else the official code's, with `-small` behind it for a small variant.
    pub fn slug(&self) -> String {
        let name = match row_of(&self.name) {
            Some(row) if !row.1.is_empty() => row.1,
            _ => &self.name,
        };
        format!("{name}{}", if self.is_small() { SMALL_ENDING } else { "" }).to_lowercase()
    }

    /// The name people know the network by, with the sizes that differ from those the name stands for:
    /// `OSS-Net C (width 128)`. The volume, which the published code too takes from the data, is not among them.
    pub fn title(&self) -> String {
        let name = match self.name.as_str() {
            "vanilla_o_net" => "O-Net (narrow)".into(),
            "vanilla_o_net_wide" => "O-Net".into(),
            "full" => "OSS-Net C".into(),
            "full2" => "OSS-Net D".into(),
            name @ ("A" | "B") => format!("OSS-Net {name}"),
            name => format!("OSS-Net ({name})"),
        };
        let small = if self.is_small() { " small" } else { "" };
        let sizes = self.changed_sizes();
        let sizes = if sizes.is_empty() { String::new() } else { format!(" ({})", sizes.join(", ")) };
        format!("{name}{small}{sizes}")
    }

    /// Sizes that differ from those that the name stands for.
    fn changed_sizes(&self) -> Vec<String> {
        let Some(row) = row_of(&self.name) else { return Vec::new() };
        let (mut sizes, outputs) = (Vec::new(), self.encoder_outputs());
        if self.is_small() {
            if outputs.len() < SMALL_CHANNELS.len() {
                let plural = if outputs.len() == 1 { "" } else { "s" };
                sizes.push(format!("{} encoder block{plural}", outputs.len()));
            }
        } else {
            if self.width != row.7 {
                sizes.push(format!("width {}", self.width));
            }
            if ![Family::Brats, Family::Lits].iter().any(|family| family.channels()[1..] == outputs) {
                sizes.push(format!("encoder {}", joined(&outputs)));
            }
        }
        if self.activation != Activation::PADE {
            sizes.push(format!("activation {}", self.activation));
        }
        if self.blocks != BLOCKS {
            sizes.push(format!("{} decoder blocks", self.blocks));
        }
        if let (Some(grid), true) = (self.encoder_output_shape, self.skip_encoder) {
            sizes.push(format!("latents {}", grid.map(|side| side.to_string()).join("×")));
        }
        sizes
    }

    /// Shape that the encoder sees: half of the volume's.
    pub fn encoder_input(&self) -> [usize; 3] {
        self.volume_shape.map(|side| side / 2)
    }

    /// Grid of the encoder's last block.
    pub fn last_grid(&self) -> [usize; 3] {
        self.encoder_input().map(|side| side >> self.encoder_channels.len())
    }

    /// Grid of the latents.
    pub fn latent_grid(&self) -> [usize; 3] {
        match self.encoder_output_shape {
            Some(shape) if self.skip_encoder => shape,
            _ => self.last_grid(),
        }
    }

    /// Length of one latent.
    pub fn latent_features(&self) -> usize {
        self.latent_grid().iter().product()
    }

    /// Number of latents a volume: with the skip encoder one for the input and one for each decoder block.
    pub fn latents(&self) -> usize {
        if self.skip_encoder { self.blocks + 1 } else { 1 }
    }

    /// True if the encoder has an auxiliary output.
    pub fn has_auxiliary(&self) -> bool {
        self.auxiliary && (self.skip_encoder || !self.reference)
    }

    /// Channels of the auxiliary output.
    pub fn auxiliary_channels(&self) -> usize {
        self.classes
    }

    /// Channels of one patch.
    pub fn patch_channels(&self) -> usize {
        self.image_channels * if self.mid_range { 2 } else { 1 }
    }

    /// How patches are cut. The official inference pools mid-range patches by their maximum, its training by their mean.
    pub fn patch_options(&self, training: bool) -> PatchOptions {
        PatchOptions {
            mid_range: self.mid_range.then_some(match self.reference && !training {
                true => Pooling::Max,
                false => Pooling::Average,
            }),
        }
    }

    /// Features a point brings by itself: coordinates and patch.
    pub fn point_features(&self) -> usize {
        let coordinates = if self.fourier { 2 * FOURIER_FREQUENCIES + 3 } else { 3 };
        coordinates + if self.patches { PATCH_FEATURES } else { 0 }
    }

    /// Features that enter the first decoder block: a point's own, then the latent.
    pub fn decoder_inputs(&self) -> usize {
        self.point_features() + self.latent_features()
    }

    /// Voxels that every side of the full volume must be a multiple of.
    pub fn multiple(&self) -> usize {
        2usize.saturating_mul(2usize.saturating_pow(self.encoder_channels.len() as u32))
    }

    /// Checks that the encoder admits the volume, and the decoder its features.
    ///
    /// # Errors
    /// [`Error::Model`] that states the smallest side, or what else is impossible.
    pub fn check(&self) -> Result<()> {
        // Before anything is computed from them: a checkpoint or a file may say anything.
        let sizes = [self.image_channels, self.classes, self.blocks, self.width];
        if sizes.contains(&0) {
            return Err(Error::Model("channels, classes, blocks and width must be at least 1".into()));
        }
        let pairs = self.encoder_channels.iter().flat_map(|&(inputs, outputs)| [inputs, outputs]);
        let largest = sizes.into_iter().chain(pairs.clone()).max().unwrap_or(0);
        if largest > MOST_FEATURES || self.classes > MOST_CLASSES || self.blocks > MOST_BLOCKS {
            return Err(Error::Model(format!(
                "a network of {} classes, {} decoder blocks and up to {largest} features is too large; there may be \
                 {MOST_CLASSES}, {MOST_BLOCKS} and {MOST_FEATURES}",
                self.classes, self.blocks
            )));
        }
        let least = if self.skip_encoder { 2 } else { 1 };
        let joined = self.encoder_channels.windows(2).all(|pair| pair[0].1 == pair[1].0)
            && self.encoder_channels.first().is_some_and(|first| first.0 == self.image_channels)
            && self.encoder_channels.iter().all(|pair| pair.1 >= least);
        if !joined || self.encoder_channels.len() > MOST_LEVELS {
            return Err(Error::Model(format!(
                "encoder blocks of channels {:?} on an image of {} cannot follow each other; each takes what the one before \
                 gives, {least} or more, and there are 1 to {MOST_LEVELS}",
                self.encoder_channels, self.image_channels
            )));
        }
        if self.latent_grid().iter().any(|&side| side > LARGEST_SIDE) {
            return Err(Error::Model(format!(
                "a latent of {:?} features is too large; a side has at most {LARGEST_SIDE}",
                self.latent_grid()
            )));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::Model(format!(
                "a dropout of {} is out of range; give 0 or more and below 1",
                self.dropout
            )));
        }
        let smallest = self.multiple();
        if self.last_grid().contains(&0) {
            return Err(Error::Model(format!(
                "a volume of {:?} voxels is too small for {} encoder blocks; every side needs {smallest} voxels or more, \
                 so resample it, use fewer blocks ([network] encoder_channels) or a network that ends in -small",
                self.volume_shape,
                self.encoder_channels.len()
            )));
        }
        if self.volume_shape.iter().any(|&side| side > LARGEST_SIDE) {
            return Err(Error::Model(format!(
                "a volume of {:?} voxels is too large; a side has at most {LARGEST_SIDE} voxels",
                self.volume_shape
            )));
        }
        if self.reference && self.decoder_inputs() == self.width {
            return Err(Error::Model(format!(
                "the official code's first decoder block has no residual layer where as many features enter as it has, \
                 {}, which no published configuration does; choose another width",
                self.width
            )));
        }
        Ok(())
    }
}

/// Most voxels of a side: products of three sides with channels and bytes then fit 64 bits.
pub const LARGEST_SIDE: usize = 1 << 16;

/// Most features of a layer, channels of an image included.
pub const MOST_FEATURES: usize = 1 << 16;

/// Most classes: a byte names one.
pub const MOST_CLASSES: usize = 256;

/// Most blocks of a decoder.
pub const MOST_BLOCKS: usize = 1 << 10;

/// Most levels of an encoder: each halves the sides.
pub const MOST_LEVELS: usize = 16;

/// Frequencies of the Fourier features.
pub const FOURIER_FREQUENCIES: usize = 16;

/// Standard deviation of the Fourier features' frequencies.
pub const FOURIER_DEVIATION: f32 = 4.0;

/// Consecutive pairs: `[4, 16, 32]` → `[(4, 16), (16, 32)]`.
fn pairs(channels: &[usize]) -> Vec<(usize, usize)> {
    channels.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// Blocks of every published decoder.
const BLOCKS: usize = 5;

/// Width of the small variant of a network of that width.
fn small_width(width: usize) -> usize {
    if width == 512 { 128 } else { 64 }
}

/// `16-32-64`.
pub(super) fn joined(channels: &[usize]) -> String {
    channels.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
}

/// Halvings, at most `most`, that leave every side at least 2 voxels, and at least one.
pub(crate) fn usable_blocks(shape: [usize; 3], most: usize) -> usize {
    let side = shape.into_iter().min().unwrap_or(1).max(1);
    (side.ilog2() as usize).saturating_sub(1).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_sizes() {
        for name in names().into_iter().filter(|name| without_ending(name).is_none()) {
            let brats = OssNetConfig::official(name, Family::Brats).unwrap();
            assert_eq!(brats.latent_grid(), [8, 8, 5]);
            assert_eq!(OssNetConfig::official(name, Family::Lits).unwrap().latent_features(), 512);
            brats.check().unwrap();
        }
        let full = OssNetConfig::official("oss-net-c", Family::Brats).unwrap();
        assert_eq!((full.name.as_str(), full.latents()), ("full", 6));
        assert_eq!(full.point_features() + full.latent_features(), 666);
        let o_net = OssNetConfig::official("O-Net", Family::Brats).unwrap();
        assert_eq!(o_net.point_features() + o_net.latent_features(), 323);
    }

    #[test]
    fn unknown_and_empty_names_list_the_known_ones() {
        for name in ["", "resnet"] {
            let message = OssNetConfig::official(name, Family::Brats).unwrap_err().to_string();
            assert!(message.contains("oss-net-d") && message.contains("vanilla_o_net"), "{message}");
        }
    }

    #[test]
    fn a_title_states_the_sizes_that_its_name_does_not() {
        let of = |name: &str| OssNetConfig::official(name, Family::Brats).unwrap();
        let full = || of("full");
        assert_eq!((full().title(), full().slug()), ("OSS-Net C".into(), "oss-net-c".into()));
        assert_eq!(OssNetConfig::official("full", Family::Lits).unwrap().title(), "OSS-Net C");
        assert_eq!(of("oss-net-c-small").title(), "OSS-Net C small");
        assert_eq!(of("oss-net-c-small").slug(), "oss-net-c-small");
        assert_eq!(of("o-net-small"), OssNetConfig::sample("o-net", 4, [256, 256, 160]).unwrap());
        assert_eq!(OssNetConfig { width: 128, ..full() }.title(), "OSS-Net C (width 128)");
        let encoder_channels = vec![(4, 16), (16, 32)];
        let changed = OssNetConfig { encoder_channels, blocks: 3, ..full() };
        assert_eq!(changed.title(), "OSS-Net C (encoder 16-32, 3 decoder blocks)");
        assert_eq!(changed.slug(), "oss-net-c");
        let flat = of("oss-net-c-small").adapted(1, 1, [64, 64, 16]);
        assert_eq!(flat.title(), "OSS-Net C small (2 encoder blocks)");
        assert_eq!(flat.adapted(1, 1, [64; 3]).title(), "OSS-Net C small");
    }

    #[test]
    fn small_volumes_are_refused_with_the_smallest_side() {
        let mut config = OssNetConfig::official("full", Family::Brats).unwrap();
        config.volume_shape = [64, 64, 16];
        assert!(config.check().unwrap_err().to_string().contains("32 voxels"));
        OssNetConfig::sample("full", 1, [64, 80, 64]).unwrap().check().unwrap();
        OssNetConfig::sample("full", 1, [64, 64, 16]).unwrap().check().unwrap();
    }
}
