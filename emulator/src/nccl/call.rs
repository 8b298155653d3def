//! What a rank asks of the hub, and how it travels.

use std::fmt;
use std::io::{self, Read, Write};

/// Which function was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The communicator is destroyed.
    Leave = 0,
    /// Sums over all ranks.
    AllReduce = 1,
    /// What all ranks have, in their order.
    AllGather = 2,
}

/// A call that all ranks must make alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function.
    pub kind: Kind,
    /// `ncclDataType_t`.
    pub datatype: u32,
    /// Elements of a rank.
    pub count: u64,
}

impl Call {
    /// Bytes of a rank's elements.
    pub fn bytes(&self) -> usize {
        self.count as usize * size_of_type(self.datatype).unwrap_or(0)
    }

    /// Sends it.
    pub fn send(&self, mut to: impl Write) -> io::Result<()> {
        let words = [self.kind as u64, u64::from(self.datatype), self.count];
        to.write_all(&words.map(u64::to_le_bytes).concat())
    }

    /// Receives one.
    pub fn receive(mut from: impl Read) -> io::Result<Self> {
        let mut words = [[0; 8]; 3];
        words.iter_mut().try_for_each(|word| from.read_exact(word))?;
        let [kind, datatype, count] = words.map(u64::from_le_bytes);
        let kind = [Kind::Leave, Kind::AllReduce, Kind::AllGather].into_iter().find(|known| *known as u64 == kind);
        let kind = kind.ok_or_else(|| io::Error::other("no call of this emulator's"))?;
        Ok(Self { kind, datatype: datatype as u32, count })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Leave => write!(f, "ncclCommDestroy"),
            kind => write!(f, "nccl{kind:?} of {} elements of type {}", self.count, self.datatype),
        }
    }
}

/// Bytes of an element of `ncclDataType_t`.
pub fn size_of_type(datatype: u32) -> Option<usize> {
    [1, 1, 4, 4, 8, 8, 2, 4, 8, 2].get(datatype as usize).copied()
}

/// Sends a status and what belongs to it.
pub fn answer(mut to: impl Write, status: u32, content: &[u8]) -> io::Result<()> {
    to.write_all(&status.to_le_bytes())?;
    to.write_all(&(content.len() as u64).to_le_bytes())?;
    to.write_all(content)
}

/// Receives them.
pub fn answered(mut from: impl Read) -> io::Result<(u32, Vec<u8>)> {
    let (mut status, mut length) = ([0; 4], [0; 8]);
    from.read_exact(&mut status)?;
    from.read_exact(&mut length)?;
    let mut content = vec![0; u64::from_le_bytes(length) as usize];
    from.read_exact(&mut content)?;
    Ok((u32::from_le_bytes(status), content))
}
