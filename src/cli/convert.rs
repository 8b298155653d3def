//! `ossnet convert`: between official or MONAI `.pt` weights and the engine's `.safetensors` checkpoints.

use std::path::{Path, PathBuf};

use clap::Args;

use super::RunArgs;
use super::official::{self, OfficialArgs};
use super::output::{new_files, print};
use super::provenance::print_json;
use crate::checkpoint::{self, Checkpoint, CheckpointFormat, convert, model::Model, safetensors, sound, torch};
use crate::error::{Error, Result};

/// Flags of `ossnet convert`.
#[derive(Args, Clone, Debug)]
pub struct ConvertArgs {
    /// Weights to read: a .pt of torch.save, or a .safetensors
    input: PathBuf,
    /// File to write; its ending, .pt or .safetensors, says as what
    output: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    official: OfficialArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Converts.
///
/// # Errors
/// An unreadable input, weights that are not finite, an output that exists or has another ending, a full disk.
pub fn run(args: ConvertArgs) -> Result<()> {
    let ConvertArgs { input, output, official, overwrite, run } = &args;
    let _folders = new_files([output], *overwrite)?;
    let ending = output.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match (ending, official.is_given()) {
        ("safetensors", true) => {
            let device = run.device()?;
            let model = official::load(&device, input, official, None)?;
            Model::save(&*model.network, &model.parameters, &model.task, output)?;
        }
        ("safetensors", false) => to_safetensors(load(input)?, output)?,
        ("pt" | "pth", false) => torch::write(output, &convert::to_torch(load(input)?).views())?,
        ("pt" | "pth", true) => {
            return Err(Error::Usage("--model says what a .pt is; omit it to write one".into()));
        }
        _ => {
            return Err(Error::Usage(format!(
                "{}: the ending says what is written; name the output .safetensors or .pt",
                output.display()
            )));
        }
    }
    match run.json {
        true => {
            let [from, to] = [input, output].map(|path| path.display().to_string());
            print_json(serde_json::json!({ "input": from, "output": to }), "files")
        }
        false => print(format!("{}", output.display())),
    }
}

/// Reads weights, which must be ones that a network can compute with.
fn load(input: &Path) -> Result<Checkpoint> {
    let checkpoint = checkpoint::load(input)?;
    sound::check(&checkpoint.state, input)?;
    Ok(checkpoint)
}

/// Writes the tensors and what the checkpoint says of itself.
fn to_safetensors(checkpoint: Checkpoint, output: &Path) -> Result<()> {
    let state = match checkpoint.format {
        CheckpointFormat::Torch => checkpoint.state,
        CheckpointFormat::Safetensors => {
            convert::to_torch(Checkpoint { metadata: Default::default(), ..checkpoint.clone() })
        }
    };
    safetensors::write(output, &state.views(), &checkpoint.metadata)
}
