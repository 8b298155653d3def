//! A safetensors file, with checksums or without.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use ossnet::checkpoint::{self, convert, sound};

fuzz_target!(|bytes: &[u8]| {
    let path = std::path::Path::new("w.safetensors");
    if let Ok(read) = checkpoint::read(Cursor::new(bytes), path) {
        let held: usize = read.state.iter().map(|(_, array)| array.data().bytes().len()).sum();
        assert!(held <= bytes.len(), "more than the file has");
        let _ = sound::check(&read.state, path);
        let _ = convert::unet_of(&read.state);
    }
});
