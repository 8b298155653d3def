//! `ossnet evaluate`: scores of a checkpoint on labelled cases.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RunArgs;
use super::run::{Grid, load_cases, open_dataset};
use crate::error::{Error, Result};
use crate::train::cases::Case;
use crate::train::{evaluate, metrics, state};

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
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    run: RunArgs,
}

/// Scores.
///
/// # Errors
/// An unusable checkpoint or data set, or no memory.
pub fn run(args: EvaluateArgs) -> Result<()> {
    let verbosity = args.run.verbosity();
    let device = args.run.device()?;
    let model = state::load(&device, &args.load_model)?;
    let dataset = open_dataset(args.data.as_deref(), args.seed)?;
    let (training, validation) = load_cases(&dataset, &model.task, Grid::of(&model.network.config()), verbosity)?;
    let cases: Vec<Case> = match args.part {
        Part::Validation => validation,
        Part::Training => training,
        Part::All => [training, validation].concat(),
    };
    if cases.is_empty() {
        return Err(Error::data(&dataset.path, "has no such case", "choose another --part"));
    }
    let mut bar = verbosity.task("evaluating", cases.len() as u64);
    let mut scores = Vec::new();
    for case in &cases {
        let predicted = evaluate::predict(&device, &model.network, &model.parameters, &model.task, case)?;
        scores.push(evaluate::score(&model.task, case, &predicted)?);
        bar.advance(&case.name);
    }
    bar.finish("done");
    let dice = metrics::mean(&scores.iter().map(|case| case.dice).collect::<Vec<_>>());
    let iou = metrics::mean(&scores.iter().map(|case| case.iou).collect::<Vec<_>>());
    if args.run.json {
        let title = model.network.config().title();
        println!("{:#}", serde_json::json!({ "model": title, "dice": dice, "iou": iou, "cases": scores }));
        return Ok(());
    }
    println!("{:<24} {:>8} {:>8}", "case", "Dice", "IoU");
    for score in &scores {
        println!("{:<24} {:>8.4} {:>8.4}", score.name, score.dice, score.iou);
        for class in &score.classes {
            println!("  {:<22} {:>8.4} {:>8.4}", class.name, class.dice, class.iou);
        }
    }
    println!("{:<24} {dice:>8.4} {iou:>8.4}", "mean");
    Ok(())
}
