//! Names of files as text. A byte that is no part of UTF-8 is written `%E4`, so that names that differ in such a byte differ as
//! text, and the file is found again.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A name or a path as text.
pub fn text_of(name: impl AsRef<OsStr>) -> String {
    let name = name.as_ref();
    if let Some(text) = name.to_str() {
        return text.to_owned();
    }
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
    }
    text
}

/// The last part of a path as text.
pub fn file_name(path: &Path) -> String {
    text_of(path.file_name().unwrap_or_default())
}

/// The path below `folder` that `text` stands for: as it is written, or else the one that [`text_of`] made it of.
pub fn path_of(folder: &Path, text: &str) -> PathBuf {
    if text.is_empty() {
        return folder.to_owned();
    }
    let written = folder.join(text);
    match bytes_of(text) {
        Some(name) if written.symlink_metadata().is_err() => {
            let meant = folder.join(name);
            if meant.symlink_metadata().is_ok() { meant } else { written }
        }
        _ => written,
    }
}

/// The name with its bytes in the place of `%80` to `%FF`, if there is any.
#[cfg(unix)]
fn bytes_of(text: &str) -> Option<OsString> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' && byte >= 0x80 => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    (bytes.len() < text.len()).then(|| std::os::unix::ffi::OsStringExt::from_vec(bytes))
}

#[cfg(not(unix))]
fn bytes_of(_: &str) -> Option<OsString> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn names_that_are_no_text_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let names: [&[u8]; 6] =
            [b"gr\xf6\xdfe.nii", b"gr\xf6\xdee.nii", "größe.nii".as_bytes(), b"50%.nii", b"a%20b", b"%F6"];
        for name in names {
            std::fs::write(folder.path().join(OsStr::from_bytes(name)), name).unwrap();
        }
        for name in names {
            let text = text_of(OsStr::from_bytes(name));
            assert_eq!(std::fs::read(path_of(folder.path(), &text)).unwrap(), name, "{text}");
        }
        assert_eq!(text_of(OsStr::from_bytes(names[0])), "gr%F6%DFe.nii");
        // What is not there stays as it is written, and signs that are no byte's are left alone.
        assert_eq!(path_of(folder.path(), "new%F6.nii"), folder.path().join("new%F6.nii"));
        assert_eq!(bytes_of("100%"), None);
        assert_eq!(bytes_of("%é%4é"), None);
    }
}
