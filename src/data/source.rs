//! Where bytes come from: files on disk and files embedded in the binary.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use lzma_rust2::LzmaReader;

use super::copies::without_copies;
use super::nifti::{is_image, split_ending};
use super::scan_codec;
use crate::files::name::{path_of, text_of};
use crate::files::open;
use crate::{Error, Result};

/// What may stand before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A readable file: on disk, or embedded in the binary. Everything downstream treats both alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file on disk.
    File(PathBuf),
    /// A file compiled into the binary.
    Embedded(&'static Asset),
}

/// A file compiled into the binary.
#[derive(Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its path below `assets/`, for messages. An image's ends in `.nii.gz`, and its content is what that holds.
    pub name: &'static str,
    /// Its content, or that packed: an image as `scan_codec.rs` says, anything else as LZMA.
    pub bytes: &'static [u8],
    /// The content's length, if it is packed.
    pub unpacked: Option<usize>,
}

impl Source {
    /// The path to show in messages.
    pub fn path(&self) -> &Path {
        match self {
            Source::File(path) => path,
            Source::Embedded(asset) => Path::new(asset.name),
        }
    }

    /// Length in bytes.
    ///
    /// # Errors
    /// If the file cannot be looked up, or is a folder, pipe or device.
    pub fn len(&self) -> Result<u64> {
        match self {
            Source::File(path) => {
                let found = path.metadata().map_err(|e| Error::file(path, e))?;
                // Opening a pipe would wait for a writer for ever.
                if !found.is_file() {
                    return Err(Error::data(path, "is not a regular file", "give the path of a file"));
                }
                Ok(found.len())
            }
            Source::Embedded(asset) => Ok(asset.unpacked.unwrap_or(asset.bytes.len()) as u64),
        }
    }

    /// True if there are no bytes.
    ///
    /// # Errors
    /// As for [`Source::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// A buffered reader at the first byte.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(&self) -> Result<Box<dyn Read>> {
        self.len()?;
        match self {
            Source::File(path) => Ok(Box::new(BufReader::with_capacity(1 << 16, open(path)?))),
            Source::Embedded(Asset { bytes, unpacked: None, .. }) => Ok(Box::new(*bytes)),
            Source::Embedded(Asset { name, bytes, .. }) if name.ends_with(".nii.gz") => Ok(Box::new(unpacked(bytes))),
            Source::Embedded(Asset { bytes, .. }) => match LzmaReader::new_mem_limit(*bytes, u32::MAX, None) {
                Ok(reader) => Ok(Box::new(reader)),
                Err(error) => Err(Error::file(self.path(), error)),
            },
        }
    }

    /// The whole content as text, if it is at most `limit` bytes of UTF-8.
    ///
    /// # Errors
    /// If the file cannot be read, is longer, or is not UTF-8.
    pub fn text(&self, limit: u64) -> Result<String> {
        let length = self.len()?;
        if length > limit {
            let problem = format!("has {length} bytes where a text of at most {limit} is expected");
            return Err(Error::data(self.path(), problem, "check that it is the right file"));
        }
        let mut text = String::new();
        self.open()?.take(limit).read_to_string(&mut text).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => Error::data(self.path(), "is not UTF-8 text", "save it as UTF-8"),
            _ => Error::file(self.path(), e),
        })?;
        // Editors of one system put it before UTF-8; it is no text.
        Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_owned).unwrap_or(text))
    }
}

/// An embedded image. Its voxels are unpacked when they are asked for: most readers want the header alone.
fn unpacked(packed: &'static [u8]) -> impl Read {
    struct Voxels(&'static [u8], Option<io::Cursor<Vec<u8>>>);
    impl Read for Voxels {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.1.is_none() {
                self.1 = Some(io::Cursor::new(scan_codec::voxels(self.0).ok_or(io::ErrorKind::InvalidData)?));
            }
            self.1.as_mut().map_or(Ok(0), |voxels| voxels.read(into))
        }
    }
    io::Cursor::new(scan_codec::header(packed)).chain(Voxels(packed, None))
}

/// A folder of a data set: on disk, or embedded in the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folder {
    /// A folder on disk.
    Disk(PathBuf),
    /// The embedded files whose names begin with `prefix` (which ends with `/`).
    Embedded {
        /// Start of the names.
        prefix: String,
        /// All embedded files.
        files: &'static [Asset],
    },
}

impl Folder {
    /// The path to show in messages.
    pub fn path(&self) -> &Path {
        match self {
            Folder::Disk(path) => path,
            Folder::Embedded { prefix, .. } => Path::new(prefix.trim_end_matches('/')),
        }
    }

    /// The file at `relative` (parts joined by `/`, a leading `./` is ignored), or `None` if there is none. Where there is
    /// none, backslashes join parts too, as lists made on Windows have them.
    ///
    /// # Errors
    /// If `relative` leaves the folder.
    pub fn file(&self, relative: &str) -> Result<Option<Source>> {
        let found = self.file_at(relative)?;
        match found.is_none() && relative.contains('\\') {
            true => self.file_at(&relative.replace('\\', "/")),
            false => Ok(found),
        }
    }

    /// An image or label file as [`Folder::file`] finds it, or else the one of the same name with another of NIfTI's
    /// endings, written in any case.
    ///
    /// # Errors
    /// If `relative` leaves the folder, or several files may be meant.
    pub fn image(&self, relative: &str) -> Result<Option<Source>> {
        if let Some(found) = self.file(relative)? {
            return Ok(Some(found));
        }
        let relative = relative.replace('\\', "/");
        let (below, name) = relative.rsplit_once('/').unwrap_or(("", &relative));
        let stem = split_ending(name).0;
        let mut names = self.images(below).unwrap_or_default();
        names.retain(|name| split_ending(name).0 == stem);
        match &names[..] {
            [] => Ok(None),
            [name] => self.file(&format!("./{below}/{name}")),
            [first, second, ..] => {
                let problem = format!("and {second} may both be meant by {relative}");
                Err(Error::data(self.path().join(below).join(first), problem, "remove one of them"))
            }
        }
    }

    fn file_at(&self, relative: &str) -> Result<Option<Source>> {
        let parts: Vec<&str> = relative.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.is_empty() || parts.contains(&"..") || relative.starts_with('/') {
            let problem = format!("names the file '{relative}', which is not below the folder");
            return Err(Error::data(self.path(), problem, "use paths relative to the data set's folder"));
        }
        Ok(match self {
            Folder::Disk(path) => {
                let path = parts.iter().fold(path.clone(), |path, part| path_of(&path, part));
                path.is_file().then_some(Source::File(path))
            }
            Folder::Embedded { prefix, files } => {
                let name = format!("{prefix}{}", parts.join("/"));
                files.iter().find(|file| file.name == name).map(Source::Embedded)
            }
        })
    }

    /// Names of the images and label files directly inside `relative`, as [`Folder::list`] gives them. Of a file that lies there
    /// compressed and plain, the plain one.
    ///
    /// # Errors
    /// If the folder does not exist or cannot be read.
    pub fn images(&self, relative: &str) -> Result<Vec<String>> {
        let mut names = self.list(relative)?;
        names.retain(|name| is_image(name));
        Ok(match self {
            Folder::Disk(path) => without_copies(&path_of(path, relative), names),
            Folder::Embedded { .. } => names,
        })
    }

    /// Names of the files and folders directly inside `relative` (empty for the folder itself), sorted; hidden ones left
    /// out. They are text as `crate::files::name` makes it, from which [`Folder::file`] finds the file again.
    ///
    /// # Errors
    /// If the folder does not exist or cannot be read.
    pub fn list(&self, relative: &str) -> Result<Vec<String>> {
        let mut names: Vec<String> = match self {
            Folder::Disk(path) => {
                let path = path_of(path, relative);
                let entries = path.read_dir().map_err(|e| Error::file(&path, e))?;
                entries
                    .map(|entry| Ok(text_of(entry?.file_name())))
                    .collect::<io::Result<_>>()
                    .map_err(|e| Error::file(&path, e))?
            }
            Folder::Embedded { prefix, files } => {
                let start = if relative.is_empty() { prefix.clone() } else { format!("{prefix}{relative}/") };
                let below = files.iter().filter_map(|file| file.name.strip_prefix(start.as_str()));
                below.map(|rest| rest.split('/').next().unwrap_or(rest).to_owned()).collect()
            }
        };
        names.retain(|name| !name.starts_with('.'));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_outside_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::Disk(folder.path().into());
        for bad in ["../x", "/etc/passwd", "a/../../x", "", "./"] {
            assert!(folder.file(bad).is_err(), "{bad}");
        }
        assert_eq!(folder.file("./not/here.nii").unwrap(), None);
    }

    #[test]
    fn a_folder_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let message = Source::File(folder.path().into()).open().err().unwrap().to_string();
        assert!(message.contains("not a regular file"), "{message}");
    }
}
