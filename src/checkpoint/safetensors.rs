//! The engine's own checkpoints: [safetensors](https://github.com/huggingface/safetensors) files.
//!
//! A file is the length of a JSON header (u64, little-endian), the header, and the tensors' bytes. The header lists the
//! tensors in the order of the state; the bytes lie by falling element size, which keeps each tensor aligned as the
//! format's readers expect.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use safetensors::Dtype as FileDtype;
use safetensors::tensor::Metadata as Header;
use serde_json::{Map, Value, json};

use super::{Array, DAMAGED, Data, Dtype, Metadata, StateDict, View};
use crate::files::write_atomic_with;
use crate::{Error, Result};

/// The header's one name that is not a tensor's.
const METADATA: &str = "__metadata__";

/// Writes `tensors` and `metadata` to `path`: completely or not at all.
///
/// # Errors
/// [`Error::File`] if the operating system refuses, the disk being full included. [`Error::Usage`] if two tensors have
/// the same name, or one has the name that the format reserves.
pub fn write(path: impl AsRef<Path>, tensors: &[(&str, View<'_>)], metadata: &Metadata) -> Result<()> {
    let path = path.as_ref();
    let mut by_size: Vec<usize> = (0..tensors.len()).collect();
    by_size.sort_by_key(|&index| Reverse(tensors[index].1.dtype.size()));
    let mut starts = vec![0; tensors.len()];
    let mut end = 0;
    for &index in &by_size {
        starts[index] = end;
        end += tensors[index].1.bytes.len();
    }

    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.into(), json!(metadata));
    }
    for ((name, view), &start) in tensors.iter().zip(&starts) {
        let entry = json!({
            "dtype": file_dtype(view.dtype),
            "shape": view.shape,
            "data_offsets": [start, start + view.bytes.len()],
        });
        if *name == METADATA || header.insert((*name).into(), entry).is_some() {
            return Err(Error::Usage(format!("a checkpoint cannot hold two tensors named {name}; rename one")));
        }
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    write_atomic_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        by_size.iter().try_for_each(|&index| file.write_all(tensors[index].1.bytes))
    })
}

/// Reads the tensors, in the order of the header, and the metadata.
///
/// # Errors
/// [`Error::File`] if the file cannot be read; [`Error::Data`] if it is cut short, its header contradicts its length,
/// or it holds an element type that the engine does not know.
pub fn read(path: impl AsRef<Path>) -> Result<(StateDict, Metadata)> {
    let path = path.as_ref();
    read_from(File::open(path).map_err(|error| Error::file(path, error))?, path, &|_| true)
}

/// As [`read`], from the start of an open file, those tensors alone whose names are `wanted`; `path` is for messages only.
pub(super) fn read_from(
    mut file: impl Read + Seek,
    path: &Path,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<(StateDict, Metadata)> {
    let named = |error| Error::file(path, error);
    let damaged = |problem: String| Error::data(path, format!("not a usable safetensors file ({problem})"), DAMAGED);
    let length = file.seek(SeekFrom::End(0)).map_err(named)?;
    file.rewind().map_err(named)?;
    let mut size = Vec::with_capacity(8);
    file.by_ref().take(8).read_to_end(&mut size).map_err(named)?;
    let size = size.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let size = size.filter(|size| *size <= length - 8).ok_or_else(|| damaged("the header is cut".into()))?;
    let mut text = Vec::new();
    file.by_ref().take(size).read_to_end(&mut text).map_err(named)?;
    let header: Header = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let (first, told) = (8 + size, header.data_len() as u64);
    // Not their sum: a header can tell of more bytes than 64 bits count.
    if told != length - first {
        return Err(damaged(format!("{} bytes of tensors where the header tells of {told}", length - first)));
    }

    // The crate keeps the order of the bytes; the order of the state is that of the header's names.
    let names: Map<String, Value> = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let mut state = StateDict::new();
    for name in names.keys().filter(|name| *name != METADATA && wanted(name)) {
        let tensor = header.info(name).ok_or_else(|| damaged(format!("no tensor {name}")))?;
        let dtype = dtype(tensor.dtype).ok_or_else(|| {
            Error::data(
                path,
                format!("tensor {name} has elements of type {:?}, which is not supported", tensor.dtype),
                "convert it to F32",
            )
        })?;
        let (from, to) = tensor.data_offsets;
        let mut bytes = vec![0; to - from];
        file.seek(SeekFrom::Start(first + from as u64)).map_err(named)?;
        file.read_exact(&mut bytes).map_err(named)?;
        let array = Array::new(tensor.shape.as_slice(), Data::from_bytes(dtype, &bytes))
            .ok_or_else(|| damaged(format!("the shape of {name} does not fit its bytes")))?;
        state.insert(name, array);
    }
    Ok((state, header.metadata().clone().unwrap_or_default().into_iter().collect()))
}

/// The format's name of an element type.
fn file_dtype(dtype: Dtype) -> FileDtype {
    match dtype {
        Dtype::F64 => FileDtype::F64,
        Dtype::F32 => FileDtype::F32,
        Dtype::F16 => FileDtype::F16,
        Dtype::Bf16 => FileDtype::BF16,
        Dtype::I64 => FileDtype::I64,
        Dtype::I32 => FileDtype::I32,
        Dtype::I16 => FileDtype::I16,
        Dtype::I8 => FileDtype::I8,
        Dtype::U8 => FileDtype::U8,
        Dtype::Bool => FileDtype::BOOL,
    }
}

/// The element type under the format's name, if the engine has it.
fn dtype(file: FileDtype) -> Option<Dtype> {
    Dtype::ALL.iter().copied().find(|&dtype| file_dtype(dtype) == file)
}
