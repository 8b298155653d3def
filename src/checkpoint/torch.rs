//! The official weights: archives written by `torch.save`, since PyTorch 1.6.
//!
//! An archive is a zip file without compression. All members lie in one folder: `data.pkl`, a pickle of a dictionary
//! from names to tensors; `data/0`, `data/1` …, the elements of the storages that the tensors are windows on;
//! `byteorder`. The format is described in PyTorch's
//! [serialization notes](https://pytorch.org/docs/stable/notes/serialization.html).

use std::io::{self, Read, Seek, Write};
use std::path::Path;

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::pickle::{Fault, Id, Pickle, Tensor};
use super::prefix::without_wrappers;
use super::sink::Sink;
use super::state::elements;
use super::{Array, DAMAGED, Data, Dtype, StateDict, View};
use crate::files::{open, write_atomic_with};
use crate::{Error, Result};

/// Longest `data.pkl` that is read. Official ones take 160 bytes a tensor.
const MAX_PICKLE: u64 = 16 << 20;

/// Most axes of a tensor, as in PyTorch.
const MAX_RANK: usize = 64;

/// Keys under which training scripts wrap the state among other things.
const WRAPPERS: [&str; 5] = ["model_state_dict", "state_dict", "model", "network", "net"];

/// Reads the state in an archive: its tensors, by official names, in the order of the archive.
///
/// The state may be wrapped in a dictionary, under one of the usual keys or as its only member that holds tensors.
/// What `DataParallel` and `torch.compile` put before names is taken off. Entries that are no tensors are passed over.
///
/// # Errors
/// [`Error::File`] if the file cannot be read; [`Error::Data`] if it is not such an archive, is damaged, asks for a
/// function to be called that has nothing to do with tensors, or holds no state.
pub fn read(path: impl AsRef<Path>) -> Result<StateDict> {
    let path = path.as_ref();
    read_from(open(path)?, path)
}

/// As [`read`], from an open file; `path` is for messages only.
pub(super) fn read_from(file: impl Read + Seek, path: &Path) -> Result<StateDict> {
    let (mut archive, pickle) = opened(file, path)?;
    let entries = state_entries(&pickle)
        .map_err(|problem| Error::data(path, problem, "save model.state_dict() with torch.save and load that"))?;
    let mut state = StateDict::new();
    for (name, id) in entries {
        let tensor = pickle
            .tensor(id)
            .ok_or_else(|| Error::data(path, format!("tensor {} is malformed", name.escape_debug()), DAMAGED))?;
        let array = archive.array(name, &tensor)?;
        state.insert(name, array);
    }
    Ok(without_wrappers(state))
}

/// The archive and what its pickle says.
fn opened<R: Read + Seek>(mut file: R, path: &Path) -> Result<(Archive<'_, R>, Pickle)> {
    let length = file.seek(io::SeekFrom::End(0)).map_err(|error| Error::file(path, error))?;
    let zip = ZipArchive::new(file).map_err(|error| zip_error(path, "the archive", error))?;
    let mut archive = Archive::new(zip, length, path)?;
    let pickle = Pickle::load(&archive.member("data.pkl", MAX_PICKLE)?)
        .map_err(|Fault { problem, remedy }| Error::data(path, problem, remedy))?;
    Ok((archive, pickle))
}

/// Reads the one tensor that was saved bare: `torch.save(tensor, path)`, as the official border maps and grids are.
///
/// # Errors
/// As for [`read`], and [`Error::Data`] if the archive holds anything but a tensor.
pub fn read_tensor(path: impl AsRef<Path>) -> Result<Array> {
    let path = path.as_ref();
    let (mut archive, pickle) = opened(open(path)?, path)?;
    let Some(tensor) = pickle.tensor(pickle.root()) else {
        return Err(Error::data(path, "it does not hold one bare tensor", "save it with torch.save(tensor, path)"));
    };
    archive.array("of the file", &tensor)
}

/// Names and tensors of the state within the pickle.
fn state_entries(pickle: &Pickle) -> Result<Vec<(&str, Id)>, String> {
    let tensors = |id: Id| -> Vec<(&str, Id)> {
        let entries = pickle.dict(id).unwrap_or_default().iter();
        entries
            .filter(|&&(_, value)| pickle.is_tensor(value))
            .filter_map(|&(key, value)| Some((pickle.text(key)?, value)))
            .collect()
    };
    let root = pickle.dict(pickle.root()).ok_or("it does not hold a dictionary of tensors")?;
    for wrapper in WRAPPERS {
        let wrapped = root.iter().rev().find(|&&(key, _)| pickle.text(key) == Some(wrapper));
        if let Some(found) = wrapped.map(|&(_, value)| tensors(value)).filter(|found| !found.is_empty()) {
            return Ok(found);
        }
    }
    let direct = tensors(pickle.root());
    if !direct.is_empty() {
        return Ok(direct);
    }
    let holds_tensors = |id: Id| pickle.dict(id).is_some_and(|dict| dict.iter().any(|&(_, id)| pickle.is_tensor(id)));
    let mut nested = root.iter().filter(|&&(_, value)| holds_tensors(value));
    match (nested.next(), nested.next()) {
        (Some(&(_, only)), None) => Ok(tensors(only)),
        (None, _) => Err("its dictionary holds no tensors".into()),
        (Some(&(first, _)), Some(&(second, _))) => {
            let name = |id| pickle.text(id).unwrap_or("an unnamed one").escape_debug().to_string();
            Err(format!("it holds several dictionaries of tensors, {} and {} among them", name(first), name(second)))
        }
    }
}

/// An archive being read.
struct Archive<'a, R> {
    zip: ZipArchive<R>,
    path: &'a Path,
    /// The folder that all members lie in, with its slash.
    folder: String,
    big_endian: bool,
    /// The storage that was read last: tensors that share one mostly follow each other.
    last: Option<(String, Vec<u8>)>,
    /// Bytes that may still be read or allocated. Shared storages and repeated elements (stride 0) make a state larger
    /// than its file; without a bound, a small file could ask for any amount of memory.
    allowance: u64,
}

impl<'a, R: Read + Seek> Archive<'a, R> {
    /// `length` is the file's, in bytes.
    fn new(zip: ZipArchive<R>, length: u64, path: &'a Path) -> Result<Self> {
        let pickle = zip.file_names_raw().filter(|name| name.ends_with(b"/data.pkl")).min_by_key(|name| name.len());
        let folder = match pickle.map(|name| String::from_utf8(name[..name.len() - b"data.pkl".len()].to_vec())) {
            Some(Ok(folder)) => folder,
            _ => {
                return Err(Error::data(
                    path,
                    "this zip archive has no member data.pkl, so it is not PyTorch's",
                    "give a .pt written by torch.save",
                ));
            }
        };
        let allowance = length.saturating_mul(4).saturating_add(64 << 20);
        let mut archive = Archive { zip, path, folder, big_endian: false, last: None, allowance };
        // Archives from before PyTorch 2.1 do not say; all machines they came from were little-endian.
        let byte_order = format!("{}byteorder", archive.folder);
        if archive.zip.index_for_name(&byte_order).is_some() {
            archive.big_endian = archive.member("byteorder", 16)? == b"big";
        }
        Ok(archive)
    }

    /// The bytes of a member of at most `limit` bytes, their checksum verified.
    fn member(&mut self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let path = self.path;
        let mut file = self
            .zip
            .by_name(&format!("{}{name}", self.folder))
            .map_err(|error| zip_error(path, &format!("its member {}", name.escape_debug()), error))?;
        if file.compression() != CompressionMethod::Stored {
            let problem = format!("its member {name} is compressed, which torch.save never does");
            return Err(Error::data(path, problem, "zip it again without compression (zip -0)"));
        }
        let size = file.size();
        if size > limit.min(self.allowance) {
            let problem = format!("its member {} claims {size} bytes, more than it can have", name.escape_debug());
            return Err(Error::data(path, problem, DAMAGED));
        }
        self.allowance -= size;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| zip_error(path, &format!("its member {}", name.escape_debug()), error.into()))?;
        Ok(bytes)
    }

    /// The elements of `tensor`, gathered into C order.
    fn array(&mut self, name: &str, tensor: &Tensor<'_>) -> Result<Array> {
        let path = self.path;
        let damaged = |problem: &str| Error::data(path, format!("tensor {} {problem}", name.escape_debug()), DAMAGED);
        let size = tensor.dtype.size();
        let storage_bytes =
            tensor.storage_length.checked_mul(size).ok_or_else(|| damaged("lies in an impossible storage"))?;
        let count = elements(&tensor.shape)
            .filter(|_| tensor.shape.len() <= MAX_RANK)
            .ok_or_else(|| damaged("has an impossible shape"))?;
        let end = end_of(tensor).ok_or_else(|| damaged("has impossible strides"))?;
        if end > tensor.storage_length {
            return Err(damaged("reaches beyond the end of its storage"));
        }
        let bytes = (count as u64).checked_mul(size as u64).filter(|&bytes| bytes <= self.allowance);
        self.allowance -= bytes.ok_or_else(|| damaged("claims more memory than its file can back"))?;

        let storage = match self.last.take() {
            Some((key, storage)) if key == tensor.key => storage,
            _ => self.member(&format!("data/{}", tensor.key), u64::MAX)?,
        };
        if storage.len() < storage_bytes {
            return Err(damaged("lies in a storage that is shorter than it claims"));
        }
        let mut gathered = gather(&storage, tensor, count);
        if self.big_endian {
            gathered.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        if tensor.dtype == Dtype::Bool {
            gathered.iter_mut().for_each(|value| *value = u8::from(*value != 0));
        }
        self.last = Some((tensor.key.to_owned(), storage));
        Array::new(tensor.shape.clone(), Data::from_bytes(tensor.dtype, &gathered))
            .ok_or_else(|| damaged("has an impossible shape"))
    }
}

/// One past the last element of the storage that the tensor touches, unless that overflows. 0 if it has no elements.
fn end_of(tensor: &Tensor<'_>) -> Option<usize> {
    if tensor.shape.contains(&0) {
        return Some(0);
    }
    let mut last = tensor.offset;
    for (length, stride) in tensor.shape.iter().zip(&tensor.stride) {
        last = last.checked_add((length - 1).checked_mul(*stride)?)?;
    }
    last.checked_add(1)
}

/// The bytes of the tensor's `count` elements in C order. All of them must lie within `storage`.
fn gather(storage: &[u8], tensor: &Tensor<'_>, count: usize) -> Vec<u8> {
    let size = tensor.dtype.size();
    if count == 0 {
        return Vec::new();
    }
    // The innermost axes that lie in C order already are copied as one run.
    let mut run = 1;
    let mut outer = tensor.shape.len();
    while outer > 0 && (tensor.stride[outer - 1] == run || tensor.shape[outer - 1] == 1) {
        run *= tensor.shape[outer - 1];
        outer -= 1;
    }
    let mut gathered = Vec::with_capacity(count * size);
    let mut index = vec![0; outer];
    let mut position = tensor.offset;
    for _ in 0..count / run {
        gathered.extend_from_slice(&storage[position * size..(position + run) * size]);
        // The next index in C order, like an odometer.
        for axis in (0..outer).rev() {
            index[axis] += 1;
            position += tensor.stride[axis];
            if index[axis] < tensor.shape[axis] {
                break;
            }
            position -= index[axis] * tensor.stride[axis];
            index[axis] = 0;
        }
    }
    gathered
}

/// What went wrong in reading `part` of the archive at `path`.
fn zip_error(path: &Path, part: &str, error: ZipError) -> Error {
    match error {
        ZipError::Io(error) if error.raw_os_error().is_some() => Error::file(path, error),
        error => Error::data(path, format!("{part} cannot be read ({error})"), DAMAGED),
    }
}

/// Writes `tensors` as `torch.save(state_dict)` does: `torch.load` reads the file, with `weights_only` too.
///
/// # Errors
/// [`Error::File`] if the operating system refuses; the previous file is then still there.
pub fn write(path: impl AsRef<Path>, tensors: &[(&str, View<'_>)]) -> Result<()> {
    let views: Vec<View<'_>> = tensors.iter().map(|(_, view)| *view).collect();
    write_archive(path.as_ref(), &pickle_of_state(tensors), &views)
}

/// Writes one bare tensor as `torch.save(tensor)` does: `torch.load` gives the tensor itself.
///
/// # Errors
/// As for [`write()`].
pub fn write_tensor(path: impl AsRef<Path>, tensor: View<'_>) -> Result<()> {
    let mut pickle = b"\x80\x02".to_vec();
    rebuild(&mut pickle, 0, &tensor);
    pickle.push(b'.');
    write_archive(path.as_ref(), &pickle, &[tensor])
}

/// An archive of a pickle and the storages that it names by their place.
fn write_archive(path: &Path, pickle: &[u8], storages: &[View<'_>]) -> Result<()> {
    // PyTorch calls the folder like the file.
    let folder = path.file_stem().map_or_else(|| "archive".into(), |stem| stem.to_string_lossy().into_owned());
    write_atomic_with(path, |file| {
        let mut sink = Sink::new(file);
        let mut zip = ZipWriter::new(&mut sink);
        let mut member = |name: &str, content: &[u8]| -> io::Result<()> {
            // PyTorch aligns the storages so that they can be mapped into memory. A fixed date makes equal weights
            // equal files.
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .last_modified_time(DateTime::default())
                .large_file(content.len() as u64 >= u64::from(u32::MAX))
                .with_alignment(64);
            zip.start_file(format!("{folder}/{name}"), options)?;
            zip.write_all(content)
        };
        member("data.pkl", pickle)?;
        member("byteorder", b"little")?;
        for (index, view) in storages.iter().enumerate() {
            member(&format!("data/{index}"), view.bytes)?;
        }
        member("version", b"3\n")?;
        zip.finish()?;
        sink.outcome()
    })
}

/// The pickle, protocol 2, of an `OrderedDict` of tensors, the storage of each named by its place.
fn pickle_of_state(tensors: &[(&str, View<'_>)]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (index, (name, view)) in tensors.iter().enumerate() {
        text(&mut out, name);
        rebuild(&mut out, index, view);
    }
    out.extend(b"u.");
    out
}

/// Leaves a tensor on the stack whose elements are the storage of the name `index`.
fn rebuild(out: &mut Vec<u8>, index: usize, view: &View<'_>) {
    let storage = match view.dtype {
        Dtype::F64 => "DoubleStorage",
        Dtype::F32 => "FloatStorage",
        Dtype::F16 => "HalfStorage",
        Dtype::Bf16 => "BFloat16Storage",
        Dtype::I64 => "LongStorage",
        Dtype::I32 => "IntStorage",
        Dtype::I16 => "ShortStorage",
        Dtype::I8 => "CharStorage",
        Dtype::U8 => "ByteStorage",
        Dtype::Bool => "BoolStorage",
    };
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(out, "storage");
    out.extend(format!("ctorch\n{storage}\n").bytes());
    text(out, &index.to_string());
    text(out, "cpu");
    integer(out, view.bytes.len() / view.dtype.size());
    // The storage, offset 0, the shape, the strides of C order, no gradient, no hooks.
    out.extend(b"tQK\x00(");
    view.shape.iter().for_each(|&length| integer(out, length));
    out.extend(b"t(");
    for axis in 0..view.shape.len() {
        integer(out, view.shape[axis + 1..].iter().product());
    }
    out.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
}

/// `BINUNICODE`.
fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

/// The shortest of `BININT1`, `BININT2`, `BININT` and `LONG1`, as Python chooses.
fn integer(out: &mut Vec<u8>, value: usize) {
    match value {
        0..=0xff => out.extend([b'K', value as u8]),
        0x100..=0xffff => {
            out.push(b'M');
            out.extend((value as u16).to_le_bytes());
        }
        0x1_0000..=0x7fff_ffff => {
            out.push(b'J');
            out.extend((value as u32).to_le_bytes());
        }
        _ => {
            out.extend([0x8a, 8]);
            out.extend((value as u64).to_le_bytes());
        }
    }
}
