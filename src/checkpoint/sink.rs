//! A writer that fails once, at the end.
//!
//! The `zip` crate tries to finish an archive when its writer is dropped, and prints to standard error where that fails. Over
//! a full disk this would come before the one line that tells of it. Here the first failure is kept, everything after it is
//! let pass without being written, and whoever opened the file asks for it.

use std::io::{self, Seek, SeekFrom, Write};

/// See the module.
pub(super) struct Sink<W> {
    inner: W,
    failure: Option<io::Error>,
    /// Where the next byte goes, and the end of what went before.
    position: u64,
    end: u64,
}

impl<W: Write + Seek> Sink<W> {
    /// Writes to `inner`, which is at its start.
    pub(super) fn new(inner: W) -> Self {
        Self { inner, failure: None, position: 0, end: 0 }
    }

    /// The first failure, if there was one.
    pub(super) fn outcome(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Does something with the writer unless it has failed already.
    fn attempt<T>(&mut self, act: impl FnOnce(&mut W) -> io::Result<T>) -> Option<T> {
        if self.failure.is_some() {
            return None;
        }
        act(&mut self.inner).map_err(|error| self.failure = Some(error)).ok()
    }
}

impl<W: Write + Seek> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|inner| inner.write_all(bytes));
        self.position += bytes.len() as u64;
        self.end = self.end.max(self.position);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(Write::flush);
        Ok(())
    }
}

impl<W: Write + Seek> Seek for Sink<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        let place = place.ok_or(io::ErrorKind::InvalidInput)?;
        self.attempt(|inner| inner.seek(SeekFrom::Start(place)));
        self.position = place;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Holds so many bytes.
    struct Full(Cursor<Vec<u8>>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.position() as usize + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Full {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn the_first_failure_is_kept_and_nothing_else_fails() {
        for room in [0, 3, 7, 8] {
            let mut full = Full(Cursor::new(Vec::new()), room);
            let mut sink = Sink::new(&mut full);
            sink.write_all(b"abcd").unwrap();
            assert_eq!(sink.seek(SeekFrom::Current(-2)).unwrap(), 2);
            sink.write_all(b"xy1234").unwrap();
            assert_eq!(sink.seek(SeekFrom::End(0)).unwrap(), 8);
            sink.flush().unwrap();
            assert_eq!(sink.outcome().is_ok(), room == 8, "{room}");
            if room == 8 {
                assert_eq!(full.0.into_inner(), b"abxy1234");
            }
        }
    }
}
