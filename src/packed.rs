//! Texts that ship inside the program: `build.rs` packs them, for they are read seldom.

use std::io::Read;

use lzma_rust2::LzmaReader;

/// A text that `build.rs` packed, by its path in the repository with `-` for `/`.
macro_rules! packed {
    ($name:literal) => {
        $crate::packed::unpack(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".lzma")))
    };
}
pub(crate) use packed;

/// The text that was packed.
pub(crate) fn unpack(bytes: &[u8]) -> String {
    let mut text = String::new();
    let read = LzmaReader::new_mem_limit(bytes, u32::MAX, None).map(|mut reader| reader.read_to_string(&mut text));
    read.flatten().expect("build.rs packed a text");
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_unpacked_is_the_file() {
        assert_eq!(packed!("assets-brats_2020_split.txt"), include_str!("../assets/brats_2020_split.txt"));
        // Of the counts only the lines of whole ops.
        let (all, ops) = (include_str!("../kernels/counts.tsv"), packed!("kernels-counts.tsv"));
        assert!(all.lines().filter(|line| line.contains("\t(op)\t")).eq(ops.lines()) && !ops.is_empty());
    }
}
