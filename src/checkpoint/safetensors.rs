//! The engine's own checkpoints: [safetensors](https://github.com/huggingface/safetensors) files.
//!
//! A file is the length of a JSON header (u64, little-endian), the header, and the tensors' bytes. The header lists the
//! tensors in the order of the state; the bytes lie by falling element size, which keeps each tensor aligned as the
//! format's readers expect.
//!
//! The entry `checksums` of the metadata holds a CRC-32 of each tensor and one of the metadata, as a JSON object from names
//! to eight hexadecimal digits. Of a tensor it covers the text of type and shape, as in `F32[2,3]`, and then the bytes; under
//! `__metadata__` it covers keys and values of all other entries in the order of the keys, a zero byte behind each. A file
//! that has checksums is held to them: every flipped bit is found. Files without (of earlier versions, of other tools) are
//! read as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::Crc;
use safetensors::Dtype as FileDtype;
use safetensors::tensor::Metadata as Header;
use serde_json::{Map, Value, json};

use super::{Array, DAMAGED, Data, Dtype, FORMAT, Metadata, StateDict, View};
use crate::files::{open, write_atomic_with};
use crate::order;
use crate::{Error, Result};

/// The header's one name that is not a tensor's.
const METADATA: &str = "__metadata__";

/// The entry of the metadata that holds the checksums.
const CHECKSUMS: &str = "checksums";

/// The entry of the metadata that holds the version of its layout. Other tools put a word there, as in `pt`.
const VERSION: &str = "format";

/// Checksums by name; that of the metadata is under [`METADATA`].
type Checksums = BTreeMap<String, String>;

/// A tensor that is asked for its bytes when they are written, twice: so no more than one is copied from its device at a time.
pub struct Entry<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Box<dyn Fn() -> Result<Cow<'a, [u8]>> + 'a>,
}

impl<'a> Entry<'a> {
    /// One of f32 elements, as many as `shape` has.
    pub fn f32(name: String, shape: Vec<usize>, values: impl Fn() -> Result<Cow<'a, [f32]>> + 'a) -> Self {
        let bytes = move || {
            Ok(match values()? {
                Cow::Borrowed(values) => Cow::Borrowed(bytemuck::cast_slice(values)),
                Cow::Owned(values) => Cow::Owned(bytemuck::cast_slice(&values).to_vec()),
            })
        };
        Self { name, dtype: Dtype::F32, shape, bytes: Box::new(bytes) }
    }

    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its elements as the file holds them, little-endian.
    ///
    /// # Errors
    /// What its device says.
    pub fn bytes(&self) -> Result<Cow<'a, [u8]>> {
        (self.bytes)()
    }

    fn of((name, View { dtype, shape, bytes }): (&str, View<'a>)) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec(), bytes: Box::new(move || Ok(Cow::Borrowed(bytes))) }
    }

    fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// Writes `tensors` and `metadata` to `path`: completely or not at all.
///
/// # Errors
/// As [`write_entries`].
pub fn write(path: impl AsRef<Path>, tensors: &[(&str, View<'_>)], metadata: &Metadata) -> Result<()> {
    write_entries(path, &tensors.iter().copied().map(Entry::of).collect::<Vec<_>>(), metadata)
}

/// The same of tensors wherever they lie.
///
/// # Errors
/// [`Error::File`] if the operating system refuses, the disk being full included. [`Error::Usage`] if two tensors have
/// the same name, or one has the name that the format reserves. What a tensor's device says.
pub fn write_entries(path: impl AsRef<Path>, tensors: &[Entry<'_>], metadata: &Metadata) -> Result<()> {
    let path = path.as_ref();
    let mut by_size: Vec<&Entry<'_>> = tensors.iter().collect();
    order::by_key_descending(&mut by_size, |entry| entry.dtype.size() as u128);
    let (mut starts, mut end, mut checksums) = (BTreeMap::new(), 0, Checksums::new());
    for entry in &by_size {
        starts.insert(&entry.name, end);
        end += entry.len();
        checksums.insert(entry.name.clone(), of_tensor(entry.dtype, &entry.shape, &entry.bytes()?));
    }
    let mut metadata = metadata.clone();
    if version(&metadata).is_some() || !metadata.contains_key(VERSION) {
        metadata.insert(VERSION.into(), FORMAT.into());
    }
    checksums.insert(METADATA.into(), of_metadata(&metadata));
    metadata.insert(CHECKSUMS.into(), json!(checksums).to_string());
    let mut header = Map::new();
    header.insert(METADATA.into(), json!(metadata));
    for entry in tensors {
        let (name, start) = (&entry.name, starts[&entry.name]);
        let told = json!({
            "dtype": file_dtype(entry.dtype),
            "shape": entry.shape,
            "data_offsets": [start, start + entry.len()],
        });
        if name == METADATA || header.insert(name.clone(), told).is_some() {
            return Err(Error::Usage(format!("a checkpoint cannot hold two tensors named {name}; rename one")));
        }
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    write_atomic_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        by_size.iter().try_for_each(|entry| file.write_all(&entry.bytes().map_err(io::Error::other)?))
    })
}

/// Reads the tensors, in the order of the header, and the metadata.
///
/// # Errors
/// [`Error::File`] if the file cannot be read; [`Error::Data`] if it is cut short, its header contradicts its length, its
/// content does not match its checksums, or it holds an element type that the engine does not know.
pub fn read(path: impl AsRef<Path>) -> Result<(StateDict, Metadata)> {
    let path = path.as_ref();
    read_from(open(path)?, path, &|_| true)
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
    let mut metadata: Metadata = order::map(header.metadata().clone().unwrap_or_default());
    let checksums = stated_checksums(&mut metadata, path)?;
    let mut state = StateDict::new();
    let names = names.keys().filter(|name| *name != METADATA);
    if let Some(stated) = &checksums
        && names.clone().count() + 1 != stated.len()
    {
        return Err(damaged("it has not the tensors that its checksums are of".into()));
    }
    for name in names.filter(|name| wanted(name)) {
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
        if let Some(stated) = &checksums
            && stated.get(name) != Some(&of_tensor(dtype, &tensor.shape, &bytes))
        {
            return Err(mismatch(path, &format!("tensor {}", name.escape_debug())));
        }
        let array = Array::new(tensor.shape.as_slice(), Data::from_bytes(dtype, &bytes))
            .ok_or_else(|| damaged(format!("the shape of {name} does not fit its bytes")))?;
        state.insert(name, array);
    }
    Ok((state, metadata))
}

/// The version that the metadata states, if it is of a checkpoint of the engine's.
fn version(metadata: &Metadata) -> Option<u32> {
    metadata.get(VERSION).and_then(|version| version.parse().ok())
}

/// Takes version and checksums out of the metadata, which is held to its own checksum. `None` for a file of a time or tool
/// without any.
fn stated_checksums(metadata: &mut Metadata, path: &Path) -> Result<Option<Checksums>> {
    let text = metadata.remove(CHECKSUMS);
    let checksums = match &text {
        None => None,
        Some(text) => {
            let stated: Option<Checksums> = serde_json::from_str(text).ok();
            let stated = stated.filter(|stated| stated.get(METADATA) == Some(&of_metadata(metadata)));
            Some(stated.ok_or_else(|| mismatch(path, "its metadata"))?)
        }
    };
    let known = FORMAT.parse().unwrap_or(0);
    match version(metadata) {
        Some(version) if version > known => {
            let problem = format!("is a checkpoint of format {version}, where this program reads 1 to {known}");
            return Err(Error::data(path, problem, "update ossnet"));
        }
        // Since 2.
        Some(2..) if checksums.is_none() => return Err(mismatch(path, "its metadata, in which checksums are due,")),
        Some(_) => drop(metadata.remove(VERSION)),
        None => {}
    }
    Ok(checksums)
}

/// The error of content that is not what was written.
fn mismatch(path: &Path, what: &str) -> Error {
    let remedy = "the file is damaged: copy or download it again (a tool that changes it on purpose must take 'checksums' \
                  out of its metadata)";
    Error::data(path, format!("{what} does not match the checksum in the file"), remedy)
}

/// The checksum of a tensor.
fn of_tensor(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> String {
    let mut crc = Crc::new();
    crc.update(format!("{}{}", json!(file_dtype(dtype)).as_str().unwrap_or_default(), json!(shape)).as_bytes());
    crc.update(bytes);
    format!("{:08x}", crc.sum())
}

/// The checksum of the metadata's other entries.
fn of_metadata(metadata: &Metadata) -> String {
    let mut crc = Crc::new();
    for text in metadata.iter().flat_map(|(key, value)| [key, value]) {
        crc.update(text.as_bytes());
        crc.update(&[0]);
    }
    format!("{:08x}", crc.sum())
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
