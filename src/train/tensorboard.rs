//! Event files that TensorBoard reads.
//!
//! A file is a row of [TFRecords](https://www.tensorflow.org/tutorials/load_data/tfrecord): length (u64), masked CRC-32C of
//! the length, the record, masked CRC-32C of the record, all little-endian. Each record is an `Event` message of
//! [event.proto](https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto): wall time (field 1,
//! double), step (2, varint), then one of file version (3), summary (5), session log (7).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::protobuf::{bytes, double, float, varint};

/// Writes scalars to one event file.
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// A new event file in `folder`, which TensorBoard reads together with those of earlier processes. What they wrote of
    /// later steps than `step` is superseded.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        let time = now();
        let path = folder.join(format!("events.out.tfevents.{:010}.ossnet.{}", time as u64, std::process::id()));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|error| Error::file(&path, error))?;
        let mut events = Self { path, file };
        events.write(&event(time, 0, &bytes(3, b"brain.Event:2")))?;
        // SessionLog { status: START } makes TensorBoard forget what lies at or behind this step.
        events.write(&event(time, step + 1, &bytes(7, &varint(1, 1))))?;
        Ok(events)
    }

    /// Writes `scalars` of one step.
    ///
    /// # Errors
    /// [`Error::File`] on a full disk.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        self.write(&event(now(), step, &summary(scalars)))
    }

    fn write(&mut self, record: &[u8]) -> Result<()> {
        self.file.write_all(&framed(record)).map_err(|error| Error::file(&self.path, error))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// An `Event` with one further field.
fn event(wall_time: f64, step: u64, field: &[u8]) -> Vec<u8> {
    [&double(1, wall_time), &varint(2, step), field].concat()
}

/// Field 5 of an `Event`: a `Summary` of values (field 1), each a tag (1) and a simple value (2, float).
fn summary(scalars: &[(&str, f64)]) -> Vec<u8> {
    let values =
        scalars.iter().flat_map(|(tag, value)| bytes(1, &[bytes(1, tag.as_bytes()), float(2, *value as f32)].concat()));
    bytes(5, &values.collect::<Vec<u8>>())
}

/// A TFRecord.
fn framed(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u64).to_le_bytes();
    [&length[..], &masked(crc32c(&length)).to_le_bytes(), record, &masked(crc32c(record)).to_le_bytes()].concat()
}

/// TensorFlow's mask, which keeps a checksum of checksums from being trivial.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with the Castagnoli polynomial (reflected 0x82f63b78), bit by bit: records are a few dozen bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_standard_and_its_mask() {
        // RFC 3720, appendix B.4, and its check value of "123456789".
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked(0), 0xa282_ead8);
    }

    /// The bytes that Google's protobuf gives for Event(wall_time=1.5, step=300, summary=[("a", 2.0)]).
    #[test]
    fn an_event_is_the_message_that_protobuf_writes() {
        let expected = [
            &[0x09][..],
            &1.5f64.to_le_bytes(),
            &[0x10, 0xac, 0x02, 0x2a, 0x0a, 0x0a, 0x08, 0x0a, 0x01, b'a', 0x15],
            &2.0f32.to_le_bytes(),
        ];
        assert_eq!(event(1.5, 300, &summary(&[("a", 2.0)])), expected.concat());
    }
}
