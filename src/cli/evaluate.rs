//! `ossnet evaluate`: scores of a checkpoint on labelled cases.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RunArgs;
use super::course::{load_cases, open_dataset, score_cases};
use super::output::print;
use super::run::DeviceArgs;
use crate::checkpoint::model;
use crate::error::{Error, Result};
use crate::report::CaseScore;
use crate::task::Grid;
use crate::{evaluate, interrupt};

/// Which cases are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Those kept from training
    Validation,
    /// Those trained on
    Training,
    /// All
    All,
}

/// Flags of `ossnet evaluate`.
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// The checkpoint (.safetensors)
    #[arg(long, value_name = "FILE")]
    load_model: PathBuf,
    /// A data set's folder (Decathlon, BraTS or LiTS layout) [default: the embedded head MRIs]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which cases
    #[arg(long, value_enum, default_value_t = Part::Validation)]
    part: Part,
    /// Seed of the division into training and validation, where the data set states none
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// Scores.
///
/// # Errors
/// An unusable checkpoint or data set, an interrupt, or no memory.
pub fn run(args: EvaluateArgs) -> Result<()> {
    interrupt::listen();
    let verbosity = args.run.verbosity();
    let device = args.device.open(&args.run)?;
    let model = model::load(&device, &args.load_model)?;
    let config = model.network.config();
    let mut dataset = open_dataset(args.data.as_deref(), args.seed)?;
    let known = &model.task.preprocessing.classes;
    if dataset.class_values() != *known {
        return Err(Error::data(
            &dataset.path,
            format!("declares the labels {:?}, but the checkpoint was trained on {known:?}", dataset.class_values()),
            "give the --data that it was trained on, or one with the same labels",
        ));
    }
    match args.part {
        Part::Validation => dataset.training.clear(),
        Part::Training => dataset.validation.clear(),
        Part::All => {}
    }
    let (training, validation) = load_cases(&dataset, &model.task, Grid::of(&config), verbosity)?;
    let cases = [training, validation].concat();
    if cases.is_empty() {
        return Err(Error::data(&dataset.path, "has no such case", "choose another --part"));
    }
    let again = "run the command again";
    let scored = score_cases(&model.network, &model.parameters, &model.task, &cases, verbosity, again)?;
    let scores: Vec<CaseScore> = scored.into_iter().map(|(score, _)| score).collect();
    let (dice, iou) = evaluate::means(&scores);
    if args.run.json {
        let result = serde_json::json!({ "model": config.title(), "dice": dice, "iou": iou, "cases": scores });
        return print(format!("{result:#}"));
    }
    let row = |name: &str, dice: f64, iou: f64| format!("{name:<24} {dice:>8.4} {iou:>8.4}\n");
    let mut table = format!("{:<24} {:>8} {:>8}\n", "case", "Dice", "IoU");
    for score in &scores {
        table += &row(&score.name, score.dice, score.iou);
        score.classes.iter().for_each(|class| table += &row(&format!("  {}", class.name), class.dice, class.iou));
    }
    print(table + &row("mean", dice, iou))
}
