//! A pickle in an archive whose checksums are right: an official `.pt`. The first byte says how long the storage is.
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use ossnet::checkpoint::{self, convert, sound};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fuzz_target!(|bytes: &[u8]| {
    let Some((&length, pickle)) = bytes.split_first() else { return };
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in [("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", &vec![1; length.into()])] {
        archive.start_file(name, options).expect("in memory");
        archive.write_all(content).expect("in memory");
    }
    let archive = archive.finish().expect("in memory").into_inner();
    let path = std::path::Path::new("w.pt");
    if let Ok(read) = checkpoint::read(Cursor::new(archive), path) {
        let _ = sound::check(&read.state, path);
        let _ = convert::unet_of(&read.state);
        convert::to_torch(read);
    }
});
