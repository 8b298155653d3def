//! NIfTI-1 and NIfTI-2 files: `.nii`, `.nii.gz` and `.hdr` + `.img` pairs, of either byte order, with any integer or
//! floating-point voxels. Written: NIfTI-1, `.nii` or `.nii.gz`.
//!
//! Nothing is believed before it is checked: dimensions against the file's size (or, compressed, against what deflate can
//! expand), codes against the standard, voxels against NaN and infinity.
//!
//! Source: the NIfTI-1.1 and NIfTI-2 headers (<https://nifti.nimh.nih.gov>).

mod header;
mod read;
mod write;

pub use header::{Datatype, Header};
pub use read::{Image, MAX_CHANNELS, MAX_ELEMENTS, probe, read, read_header};
pub use write::{write_labels, write_volume};

/// True for a name that is read as an image (of a pair, its header's).
pub fn is_image(name: &str) -> bool {
    [".nii", ".nii.gz", ".hdr"].iter().any(|ending| name.ends_with(ending))
}

/// Stem and ending of a name, `.gz` being part of the ending.
pub fn split_ending(file: &str) -> (&str, &str) {
    let plain = file.strip_suffix(".gz").unwrap_or(file);
    let end =
        [".nii", ".hdr", ".img"].iter().find_map(|ending| plain.strip_suffix(ending)).map_or(plain.len(), str::len);
    file.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        assert_eq!(split_ending("a/b.c.nii.gz"), ("a/b.c", ".nii.gz"));
        assert_eq!(split_ending("b.hdr"), ("b", ".hdr"));
        assert_eq!(split_ending("plain"), ("plain", ""));
        assert!(is_image("a.nii") && is_image("b.hdr") && !is_image("b.img") && !is_image("a.gz"));
    }
}
