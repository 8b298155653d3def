//! Weights on disk.
//!
//! The engine's own checkpoints are safetensors files with a metadata map ([`safetensors`]); the official weights are
//! PyTorch archives ([`torch`]), read by an interpreter that cannot run code (`pickle`). Both become a
//! [`StateDict`], and [`load`] tells them apart by their content, never by their name. Files are written under a
//! temporary name and renamed (`write_atomic_with`), so that an interrupted save leaves
//! the previous checkpoint whole.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::files::open;
use crate::{Error, Result};

pub mod convert;
pub mod folder;
pub mod model;
mod pickle;
pub mod prefix;
pub mod safetensors;
mod sink;
pub mod sound;
mod state;
pub mod torch;

pub use state::{Array, Data, Dtype, StateDict, View};

/// What a checkpoint says beside its tensors: configuration, optimiser scalars, random state, epoch. Values are free
/// text, usually JSON.
pub type Metadata = BTreeMap<String, String>;

/// The two formats that [`load`] knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointFormat {
    /// `torch.save`'s zip archive. It has no metadata.
    Torch,
    /// The engine's own checkpoints.
    Safetensors,
}

/// The content of a checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The tensors, in the order of the file.
    pub state: StateDict,
    /// Empty for [`CheckpointFormat::Torch`].
    pub metadata: Metadata,
    /// What the file was.
    pub format: CheckpointFormat,
}

/// Version of the layout of a checkpoint's metadata, its entry `format`. From 2 on every file has checksums.
const FORMAT: &str = "2";

/// Advice for a file that does not hold what its beginning promises.
const DAMAGED: &str = "the file is cut short or damaged: copy or download it again";

/// Reads the checkpoint at `path`, whichever of the two formats it is in.
///
/// # Errors
/// [`Error::File`] if the file cannot be read, [`Error::Data`] if its content is not a checkpoint that can be used.
pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint> {
    load_wanted(path.as_ref(), &|_| true)
}

/// As [`load`], from the start of anything that can be read; `path` is for messages only.
///
/// # Errors
/// As for [`load`].
pub fn read(from: impl Read + Seek, path: &Path) -> Result<Checkpoint> {
    read_wanted(from, path, &|_| true)
}

/// As [`load`]; of [`CheckpointFormat::Safetensors`] only the tensors are read whose names are `wanted`.
fn load_wanted(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Checkpoint> {
    read_wanted(open(path)?, path, wanted)
}

fn read_wanted(mut file: impl Read + Seek, path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Checkpoint> {
    let mut start = Vec::new();
    (&mut file).take(9).read_to_end(&mut start).map_err(|error| Error::file(path, error))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| Error::file(path, error))?;

    const USABLE: &str = "give a .safetensors checkpoint of this program or a .pt written by torch.save";
    match start.as_slice() {
        [] => Err(Error::data(path, "the file is empty", USABLE)),
        [b'P', b'K', 3, 4, ..] => Ok(Checkpoint {
            state: torch::read_from(file, path)?,
            metadata: Metadata::new(),
            format: CheckpointFormat::Torch,
        }),
        // A pickle of a long integer of ten bytes: the magic number of the format before PyTorch 1.6.
        [0x80, _, 0x8a, 0x0a, ..] => Err(Error::data(
            path,
            "this is PyTorch's legacy format, from before version 1.6",
            "load it in PyTorch and torch.save its state_dict() again",
        )),
        [_, _, _, _, _, _, _, _, b'{'] => {
            let (state, metadata) = safetensors::read_from(file, path, wanted)?;
            Ok(Checkpoint { state: prefix::without_wrappers(state), metadata, format: CheckpointFormat::Safetensors })
        }
        _ => Err(Error::data(path, "this is neither a safetensors file nor a PyTorch archive", USABLE)),
    }
}
