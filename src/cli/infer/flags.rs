//! The flags of `ossnet infer`, and what they mean for a network.

use clap::Args;

use super::InferArgs;
use crate::checkpoint::model::Model;
use crate::data::Geometry;
use crate::error::{Error, Result};
use crate::infer::{Search, SearchRule, SegmenterOptions, SlidingWindow};
use crate::models::Architecture;
use crate::quantities::{parse_shape, parse_spacing};
use crate::text::plural;

/// What is written.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Results")]
pub(super) struct OutputArgs {
    /// Write the probabilities of all voxels as well, which evaluates each of them
    #[arg(long)]
    pub(super) probabilities: bool,
    /// Write the foreground as PyTorch's bool tensor (.pt) as well
    #[arg(long)]
    pub(super) occupancy_grid: bool,
    /// Probability above which a voxel is inside, of networks with one output [default: 0.5]
    #[arg(long, value_name = "P", value_parser = parse_probability)]
    threshold: Option<f32>,
}

impl OutputArgs {
    /// The threshold, whether asked for or not.
    pub(super) fn threshold(&self) -> f32 {
        self.threshold.unwrap_or(SegmenterOptions::default().threshold)
    }
}

/// How occupancy networks are asked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Occupancy networks")]
pub(super) struct SpaceArgs {
    /// Grid strides, coarse to fine; each level is evaluated only where the previous one found a boundary [default: 4,2,1]
    #[arg(long, value_name = "S,..,1", value_delimiter = ',')]
    stages: Option<Vec<usize>>,
    /// Evaluate every voxel
    #[arg(long, conflicts_with_all = ["stages", "reference_rule", "seeded"])]
    dense: bool,
    /// Choose points as the official code does [default with official weights]
    #[arg(long)]
    reference_rule: bool,
    /// Begin where the encoder's low-resolution segmentation finds something
    #[arg(long)]
    seeded: bool,
    /// Probability threshold for --seeded
    #[arg(long, default_value_t = 0.5, value_name = "P", value_parser = parse_probability, requires = "seeded")]
    seed_threshold: f32,
    /// Cells around a mixed one that are evaluated too, on all lattices but the last [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "reference_rule")]
    margin: Option<usize>,
    /// Evaluate every voxel as well, and tell how many differ
    #[arg(long)]
    verify: bool,
    /// Voxels of the answer along the scan's axes, which may be more than the scan has
    #[arg(long, value_name = "XxYxZ", value_parser = parse_shape, conflicts_with = "spacing")]
    resolution: Option<[usize; 3]>,
    /// Spacing of the answer in mm along the scan's axes, one number or three
    #[arg(long, value_name = "MM[xMMxMM]", value_parser = parse_spacing, allow_hyphen_values = true)]
    spacing: Option<[f64; 3]>,
    /// Points decoded at once [default: as many as the memory budget admits, up to 8192]
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    points_at_once: usize,
}

/// Most voxels along an axis of a NIfTI-1 file.
const LONGEST: f64 = 32_767.0;

/// Flags and whether each is given, for those that are not for every network.
type Flags = Vec<(&'static str, bool)>;

impl SpaceArgs {
    fn flags(&self) -> Flags {
        vec![
            ("--stages", self.stages.is_some()),
            ("--dense", self.dense),
            ("--reference-rule", self.reference_rule),
            ("--seeded", self.seeded),
            ("--margin", self.margin.is_some()),
            ("--verify", self.verify),
            ("--resolution", self.resolution.is_some()),
            ("--spacing", self.spacing.is_some()),
            ("--points-at-once", self.points_at_once > 0),
        ]
    }
}

/// How U-Nets go through a volume.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "U-Nets")]
pub(super) struct WindowArgs {
    /// Go through the volume in windows of this size [default: the shape that the network was trained on]
    #[arg(long, value_name = "XxYxZ", value_parser = parse_shape)]
    window: Option<[usize; 3]>,
    /// Share of a window that neighbouring ones have in common
    #[arg(long, default_value_t = 0.5, value_name = "SHARE", requires = "window")]
    overlap: f64,
    /// Average over mirrored volumes (test-time augmentation)
    #[arg(long)]
    tta: bool,
}

impl WindowArgs {
    fn flags(&self) -> Flags {
        vec![("--window", self.window.is_some()), ("--tta", self.tta)]
    }
}

/// Reads a number from 0 to 1.
fn parse_probability(text: &str) -> Result<f32, String> {
    let value = text.parse::<f32>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| format!("'{text}' is no probability; write for example 0.5"))
}

impl InferArgs {
    /// Refuses flags that say nothing to a network of this kind.
    fn check(&self, config: &dyn Architecture) -> Result<()> {
        let refine = ("--refine", self.seen.refines());
        let (others, whose) = match config.supervision().at_points() {
            true => (self.windows.flags(), "U-Nets"),
            false => ([&self.space.flags()[..], &[refine]].concat(), "occupancy networks"),
        };
        let of_one = match config.classes() {
            1 => Vec::new(),
            _ => vec![("--threshold", self.asked.threshold.is_some()), refine],
        };
        for (flags, whose) in [(others, whose), (of_one, "networks with one output")] {
            let given: Vec<&str> = flags.into_iter().filter_map(|(flag, given)| given.then_some(flag)).collect();
            if !given.is_empty() {
                let (file, outputs) = (self.weights().display(), config.classes());
                let network = format!("{file} holds {} with {}", config.title(), plural(outputs, "output"));
                let problem = format!("only {whose} know {}, and {network}", given.join(" and "));
                return Err(Error::Usage(format!("{problem}; omit the flag")));
            }
        }
        Ok(())
    }

    /// The settings for a network.
    pub(super) fn options(&self, model: &Model) -> Result<SegmenterOptions> {
        let config = model.network.architecture();
        let (space, asked) = (&self.space, &self.asked);
        self.check(config)?;
        let staged = space.stages.is_some() || space.reference_rule || space.seeded;
        if asked.probabilities && staged {
            return Err(Error::Usage(
                "--probabilities evaluates every voxel; omit --stages, --reference-rule and --seeded".into(),
            ));
        }
        let usual = SegmenterOptions::of(config).search;
        let search = match space.dense || asked.probabilities {
            true => Search::dense(),
            false => Search {
                stages: space.stages.clone().unwrap_or(usual.stages),
                rule: match space.margin {
                    _ if space.reference_rule => SearchRule::Reference,
                    Some(margin) => SearchRule::Mixed { margin },
                    None => usual.rule,
                },
                seeded: space.seeded,
            },
        };
        Ok(SegmenterOptions {
            search,
            windows: SlidingWindow {
                size: self.windows.window,
                overlap: self.windows.overlap,
                mirror: self.windows.tta,
            },
            threshold: asked.threshold(),
            seed_threshold: space.seed_threshold,
            most_points: space.points_at_once,
            shape: None,
            probabilities: asked.probabilities,
            verify: space.verify,
        })
    }

    /// The shape of a scan's answer along the axes in memory, if it is not the scan's own.
    pub(super) fn shape(&self, geometry: &Geometry) -> Result<Option<[usize; 3]>> {
        let (own, spacing) = (geometry.stored.shape, geometry.stored.affine().spacing());
        let (stored, flag) = match (self.space.resolution, self.space.spacing) {
            (None, None) => return Ok(None),
            (Some(shape), _) => (shape.map(|side| side as f64), "--resolution"),
            (None, Some(mm)) => ([0, 1, 2].map(|k| (own[k] as f64 * spacing[k] / mm[k]).round().max(1.0)), "--spacing"),
        };
        if stored.iter().any(|&side| side > LONGEST) {
            let problem = format!("{flag} makes {stored:.0?} voxels of a scan of {own:?}, and a file holds {LONGEST}");
            return Err(Error::Usage(format!("{problem} along an axis; choose a coarser one")));
        }
        let stored = stored.map(|side| side as usize);
        Ok(Some(geometry.orientation.shape(stored)))
    }
}
