//! Reading: header, then voxels as f32 in the file's order.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::header::{Datatype, Header, SIZE_2};
use crate::data::source::Source;
use crate::files::name::file_name;
use crate::memory::size;
use crate::text::plural;
use crate::{Error, Result};

/// The most elements (voxels times channels) that one file may declare: 2³², 16 GiB as f32.
pub const MAX_ELEMENTS: u64 = 1 << 32;

/// The most channels of one file: each has a name, statistics and a place in tables.
pub const MAX_CHANNELS: usize = 1 << 16;

/// Deflate cannot expand its input by more than this factor (258 bytes from 2 bits).
const MAX_EXPANSION: u64 = 1032;

/// Bytes decoded at a time; a multiple of every voxel size.
const CHUNK: usize = 1 << 16;

/// How a gzip member begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

const AGAIN: &str = "copy or download it again";

/// A file's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The header, checked.
    pub header: Header,
    /// Scaled voxels in the file's order: first axis fastest.
    pub voxels: Vec<f32>,
}

/// Reads the header alone (of a `.hdr` or `.img`, the pair's).
///
/// # Errors
/// [`Error::File`] if the file cannot be opened, [`Error::Data`] if it is no NIfTI file.
pub fn read_header(source: &Source) -> Result<Header> {
    Ok(Opened::new(source)?.header)
}

/// As [`read_header`], and checks that the file can hold the voxels that its header declares, without reading them.
///
/// # Errors
/// As there, and [`Error::Data`] if the file, or the other half of a pair, is too short or missing.
pub fn probe(source: &Source) -> Result<Header> {
    let Opened { header, mut stream } = Opened::new(source)?;
    if !header.single_file {
        stream = Stream::new(mate(source, "img")?)?;
    }
    stream.check_size(&header)?;
    Ok(header)
}

/// Reads a whole file (a pair by the name of either part). All voxels are finite.
///
/// # Errors
/// [`Error::File`] if the file cannot be opened; [`Error::Data`] if it is no NIfTI file, is truncated or damaged, declares
/// more than it holds, more than [`MAX_ELEMENTS`] or more than the memory budget holds, or holds NaN or infinity.
pub fn read(source: &Source) -> Result<Image> {
    let Opened { header, mut stream } = Opened::new(source)?;
    if !header.single_file {
        stream = Stream::new(mate(source, "img")?)?;
    }
    let elements = stream.check_size(&header)?;
    // As read and as turned, both f32.
    afford(&header, elements, 2 * size_of::<f32>(), &stream.source)?;
    stream.skip_to(header.offset)?;
    let voxels = stream.voxels(&header, elements, |value| value as f32)?;
    check_finite(&voxels, &header, &stream.source)?;
    Ok(Image { header, voxels })
}

/// The voxels of [`read`] in 64-bit floats, which tell apart the large numbers of atlases that 32-bit floats do not.
///
/// # Errors
/// As there.
pub fn read_wide(source: &Source) -> Result<Vec<f64>> {
    let Opened { header, mut stream } = Opened::new(source)?;
    if !header.single_file {
        stream = Stream::new(mate(source, "img")?)?;
    }
    let elements = stream.check_size(&header)?;
    afford(&header, elements, size_of::<f64>(), &stream.source)?;
    stream.skip_to(header.offset)?;
    stream.voxels(&header, elements, |value| value)
}

/// True if both files can be read and hold the same bytes, once unpacked.
pub fn same_bytes(a: &Source, b: &Source) -> bool {
    let part = |reader: &mut Box<dyn Read>| {
        let mut part = Vec::with_capacity(CHUNK);
        reader.take(CHUNK as u64).read_to_end(&mut part).map(|_| part)
    };
    let (Ok(mut a), Ok(mut b)) = (Stream::new(a.clone()), Stream::new(b.clone())) else { return false };
    loop {
        match (part(&mut a.reader), part(&mut b.reader)) {
            (Ok(a), Ok(b)) if a != b => return false,
            (Ok(a), Ok(_)) if a.is_empty() => return true,
            (Ok(_), Ok(_)) => {}
            _ => return false,
        }
    }
}

/// Refuses voxels that the memory budget does not hold, before they are unpacked: a file of a megabyte may make gigabytes.
fn afford(header: &Header, elements: u64, bytes_each: usize, source: &Source) -> Result<()> {
    let told = size::within_host_budget(&[elements as usize, bytes_each]).err();
    told.map_or(Ok(()), |told| {
        let problem = format!("reading its {:?} voxels {told}", header.dims);
        Err(Error::data(source.path(), problem, "crop or resample it, or raise --memory-budget"))
    })
}

/// A file whose header has been read.
struct Opened {
    header: Header,
    /// Just behind the bytes taken for the header.
    stream: Stream,
}

impl Opened {
    fn new(source: &Source) -> Result<Self> {
        let name = source.path().to_string_lossy().to_lowercase();
        let source = if name.trim_end_matches(".gz").ends_with(".img") { mate(source, "hdr")? } else { source.clone() };
        let mut stream = Stream::new(source)?;
        let mut bytes = Vec::with_capacity(SIZE_2);
        let read = stream.reader.by_ref().take(SIZE_2 as u64).read_to_end(&mut bytes);
        // A header of 348 bytes may be all there is, so only a real failure counts.
        read.map_err(|e| stream.failure(e, "its header"))?;
        stream.position = bytes.len() as u64;
        let header = Header::parse(&bytes, stream.source.path())?;
        if header.single_file {
            // An offset may lie inside what was taken: begin again.
            stream = Stream::new(stream.source)?;
        }
        Ok(Self { header, stream })
    }
}

/// The other part of a `.hdr` + `.img` pair.
fn mate(source: &Source, extension: &str) -> Result<Source> {
    let Source::File(path) = source else {
        return Err(Error::data(source.path(), "is one half of a pair", "embed single files"));
    };
    let plain = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
        path.with_extension("")
    } else {
        path.clone()
    };
    let candidates = [plain.with_extension(extension), plain.with_extension(format!("{extension}.gz"))];
    let found = candidates.iter().find(|candidate| candidate.is_file()).cloned();
    match found.or_else(|| in_any_case(&candidates)) {
        Some(found) => Ok(Source::File(found)),
        None => {
            let wanted = file_name(&candidates[0]);
            let problem = format!("is one half of a pair whose other half '{wanted}' is missing");
            Err(Error::data(path, problem, "put both files into one folder"))
        }
    }
}

/// A file beside `candidates` that differs from one of them in the case of letters alone.
fn in_any_case(candidates: &[PathBuf]) -> Option<PathBuf> {
    let wanted: Vec<String> = candidates.iter().map(|path| file_name(path)).collect();
    let folder = candidates.first()?.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut entries = folder.unwrap_or(Path::new(".")).read_dir().ok()?.flatten().map(|entry| entry.path());
    entries.find(|path| {
        let name = file_name(path);
        wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)) && path.is_file()
    })
}

/// Decompressed bytes of a file, with what is needed to judge it.
struct Stream {
    source: Source,
    reader: Box<dyn Read>,
    /// Bytes on disk.
    length: u64,
    compressed: bool,
    position: u64,
}

/// The members of a gzip stream one after the other. What follows the last and begins no other, zeros of a tape's or an
/// archive's blocks for instance, is left alone, as gunzip does.
struct Members {
    member: Option<GzDecoder<Box<dyn BufRead>>>,
}

impl Members {
    fn new(raw: Box<dyn Read>) -> Self {
        Self { member: Some(GzDecoder::new(Box::new(BufReader::new(raw)))) }
    }

    /// The bytes behind a member, if they begin another one.
    fn next(mut behind: Box<dyn BufRead>) -> io::Result<Option<GzDecoder<Box<dyn BufRead>>>> {
        if behind.fill_buf()?.len() < GZIP.len() {
            // The end, or the edge of a buffer.
            let mut start = Vec::with_capacity(GZIP.len());
            behind.by_ref().take(GZIP.len() as u64).read_to_end(&mut start)?;
            behind = Box::new(Cursor::new(start).chain(behind));
        }
        let begins = behind.fill_buf()?.starts_with(&GZIP);
        Ok(begins.then(|| GzDecoder::new(behind)))
    }
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.member = self.member.take().map(|member| Self::next(member.into_inner())).transpose()?.flatten();
        }
        Ok(0)
    }
}

impl Stream {
    /// Opens `source`; compression is recognised by content, not by name.
    fn new(source: Source) -> Result<Self> {
        let length = source.len()?;
        if length == 0 {
            return Err(Error::data(source.path(), "is empty (0 bytes)", AGAIN));
        }
        let mut start = Vec::with_capacity(2);
        source.open()?.take(2).read_to_end(&mut start).map_err(|e| Error::file(source.path(), e))?;
        let compressed = start == GZIP;
        let raw = source.open()?;
        let reader: Box<dyn Read> = if compressed { Box::new(Members::new(raw)) } else { raw };
        Ok(Self { source, reader, length, compressed, position: 0 })
    }

    /// Elements that the header declares, if the file can hold them.
    fn check_size(&self, header: &Header) -> Result<u64> {
        let path = self.source.path();
        let dims = &header.dims;
        let elements = header.elements().filter(|&n| n <= MAX_ELEMENTS).ok_or_else(|| {
            let problem = format!("declares {dims:?} voxels, more than the limit of {MAX_ELEMENTS}");
            Error::data(path, problem, "if the header is right, crop or resample the scan")
        })?;
        if header.channels() > MAX_CHANNELS {
            let problem = format!("declares {} channels, more than the limit of {MAX_CHANNELS}", header.channels());
            return Err(Error::data(path, problem, "extract the images that are meant"));
        }
        let wanted = elements * header.datatype.bytes() + header.offset;
        let possible = if self.compressed { self.length.saturating_mul(MAX_EXPANSION) } else { self.length };
        if wanted > possible {
            let (held, what) = if self.compressed {
                (possible, "its compressed size can hold at most")
            } else {
                (self.length, "it has")
            };
            let problem = format!("is truncated: {dims:?} voxels need {wanted} bytes, {what} {held}");
            return Err(Error::data(path, problem, AGAIN));
        }
        Ok(elements)
    }

    fn skip_to(&mut self, offset: u64) -> Result<()> {
        let distance = offset - self.position;
        let skipped = io::copy(&mut self.reader.by_ref().take(distance), &mut io::sink());
        let skipped = skipped.map_err(|e| self.failure(e, "the bytes before its voxels"))?;
        if skipped < distance {
            return Err(self.failure(io::ErrorKind::UnexpectedEof.into(), "the bytes before its voxels"));
        }
        Ok(())
    }

    /// Decodes `elements` voxels, then reads to the end so that a damaged checksum is noticed.
    fn voxels<T>(&mut self, header: &Header, elements: u64, number: impl Fn(f64) -> T + Copy) -> Result<Vec<T>> {
        let path = self.source.path().to_owned();
        let mut voxels: Vec<T> = Vec::new();
        let bytes = elements * header.datatype.bytes();
        // Memory is taken as the file proves that it has the voxels: at once if it is not compressed.
        let first = if self.compressed { elements.min(64 << 20) } else { elements } as usize;
        let refused = |_| {
            let problem = format!("needs {} MiB of memory for {:?} voxels", elements >> 18, header.dims);
            Error::data(&path, problem, "close other programs, or crop or resample the scan")
        };
        voxels.try_reserve_exact(first).map_err(refused)?;
        let mut chunk = vec![0u8; CHUNK];
        let mut left = bytes;
        while left > 0 {
            let part = &mut chunk[..left.min(CHUNK as u64) as usize];
            self.reader.read_exact(part).map_err(|e| self.failure(e, &format!("{:?} voxels", header.dims)))?;
            let more = part.len() / header.datatype.bytes() as usize;
            if voxels.capacity() - voxels.len() < more {
                let step = voxels.len().min(elements as usize - voxels.len());
                voxels.try_reserve_exact(step).map_err(refused)?;
            }
            decode(part, header, number, &mut voxels);
            left -= part.len() as u64;
        }
        if self.compressed {
            // What follows the voxels is not used; 1 MiB of it is enough to reach the checksum of any honest file.
            let rest = io::copy(&mut self.reader.by_ref().take(1 << 20), &mut io::sink());
            rest.map_err(|e| self.failure(e, "its checksum"))?;
        }
        Ok(voxels)
    }

    /// A failure while reading `what`, in words.
    fn failure(&self, error: io::Error, what: &str) -> Error {
        let path = self.source.path();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Error::data(path, format!("is truncated: the file ends inside {what}"), AGAIN)
            }
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if self.compressed => {
                Error::data(path, format!("is damaged: its gzip stream is not valid at {what}"), AGAIN)
            }
            _ => Error::file(path, error),
        }
    }
}

/// Appends the voxels of `bytes`, scaled, each as `number` makes it.
fn decode<T>(bytes: &[u8], header: &Header, number: impl Fn(f64) -> T + Copy, out: &mut Vec<T>) {
    fn each<const N: usize, T>(
        bytes: &[u8],
        header: &Header,
        out: &mut Vec<T>,
        number: impl Fn(f64) -> T,
        value: impl Fn([u8; N]) -> f64,
    ) {
        let numbers = bytes.as_chunks::<N>().0.iter().map(|&(mut raw)| {
            if header.big_endian {
                raw.reverse();
            }
            value(raw)
        });
        match header.scaling {
            None => out.extend(numbers.map(number)),
            Some((slope, intercept)) => out.extend(numbers.map(|v| number(v * slope + intercept))),
        }
    }
    match header.datatype {
        Datatype::U8 => each(bytes, header, out, number, |b: [u8; 1]| b[0] as f64),
        Datatype::I8 => each(bytes, header, out, number, |b: [u8; 1]| b[0] as i8 as f64),
        Datatype::U16 => each(bytes, header, out, number, |b| u16::from_le_bytes(b) as f64),
        Datatype::I16 => each(bytes, header, out, number, |b| i16::from_le_bytes(b) as f64),
        Datatype::U32 => each(bytes, header, out, number, |b| u32::from_le_bytes(b) as f64),
        Datatype::I32 => each(bytes, header, out, number, |b| i32::from_le_bytes(b) as f64),
        Datatype::U64 => each(bytes, header, out, number, |b| u64::from_le_bytes(b) as f64),
        Datatype::I64 => each(bytes, header, out, number, |b| i64::from_le_bytes(b) as f64),
        Datatype::F32 => each(bytes, header, out, number, |b| f32::from_le_bytes(b) as f64),
        Datatype::F64 => each(bytes, header, out, number, f64::from_le_bytes),
    }
}

/// Refuses NaN and infinity, which would spread to every voxel at the first normalisation.
fn check_finite(voxels: &[f32], header: &Header, source: &Source) -> Result<()> {
    let Some(first) = voxels.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let count = voxels[first..].iter().filter(|v| !v.is_finite()).count();
    let mut rest = first;
    let index: Vec<usize> = header
        .dims
        .iter()
        .map(|&n| {
            let i = rest % n;
            rest /= n;
            i
        })
        .collect();
    let are = if count == 1 { "is" } else { "are" };
    let problem =
        format!("holds {} that {are} NaN or infinite in 32-bit floats, the first at {index:?}", plural(count, "voxel"));
    Err(Error::data(source.path(), problem, "replace them, for example by the background value"))
}
