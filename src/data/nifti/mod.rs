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
pub use read::{Image, MAX_CHANNELS, MAX_ELEMENTS, probe, read, read_header, read_wide, same_bytes};
pub use write::{write_labels, write_volume};

/// True for a name that is read as an image (of a pair, its header's), whatever the case of its ending.
pub fn is_image(name: &str) -> bool {
    let ending = split_ending(name).1;
    [".nii", ".nii.gz", ".hdr", ".hdr.gz"].iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// Stem and ending of a name, `.gz` being part of the ending, in any case.
pub fn split_ending(file: &str) -> (&str, &str) {
    let plain = without(file, ".gz").unwrap_or(file);
    let end = [".nii", ".hdr", ".img"].iter().find_map(|ending| without(plain, ending)).map_or(plain.len(), str::len);
    file.split_at(end)
}

/// The text without an ending of ASCII letters in any case.
fn without<'a>(text: &'a str, ending: &str) -> Option<&'a str> {
    let (start, end) = text.split_at_checked(text.len().checked_sub(ending.len())?)?;
    end.eq_ignore_ascii_case(ending).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        assert_eq!(split_ending("a/b.c.nii.gz"), ("a/b.c", ".nii.gz"));
        assert_eq!(split_ending("b.hdr"), ("b", ".hdr"));
        assert_eq!(split_ending("plain"), ("plain", ""));
        assert_eq!(split_ending("größe.NII.GZ"), ("größe", ".NII.GZ"));
        assert_eq!(split_ending("ü"), ("ü", ""));
        assert!(is_image("a.Nii.gz") && is_image("A.HDR") && !is_image("nii.gz.txt"));
        assert!(is_image("a.nii") && is_image("b.hdr") && !is_image("b.img") && !is_image("a.gz"));
    }
}
