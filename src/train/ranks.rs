//! What the processes of one training run settle together: who writes, whether all can go on, what was decided.
//!
//! Ranks have the same program, data and settings and take the same decisions by themselves wherever these depend on nothing
//! else. What depends on a machine or a moment (memory, files, signals, clocks) is exchanged here before anybody acts on it, so
//! that no rank waits for one that has gone another way. One process alone exchanges nothing.

use std::cell::Cell;
use std::rc::Rc;

use crate::device::Device;
use crate::device::collective::{Alone, Collective};
use crate::error::{Error, Result};
use crate::memory::Phase;

/// The processes of a run.
#[derive(Clone)]
pub struct Ranks {
    collective: Rc<dyn Collective>,
    /// The last exchange was of an error, which all of them know.
    failed: Rc<Cell<bool>>,
}

/// Whether a rank can go on: its first byte in an exchange.
const CAN_GO_ON: u8 = 0;

/// Between texts that are told as one: no fact and no configuration holds it.
pub const SEPARATOR: &str = "\u{1e}";

/// Bytes before the facts of a rank: exit status, and whether memory was refused.
const STATUS: usize = 2;

impl Ranks {
    /// One process.
    pub fn alone() -> Self {
        Self::of(Rc::new(Alone))
    }

    /// The processes that `collective` joins.
    pub fn of(collective: Rc<dyn Collective>) -> Self {
        Self { collective, failed: Rc::default() }
    }

    /// How they talk.
    pub fn collective(&self) -> &dyn Collective {
        &*self.collective
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.collective.rank()
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.collective.size()
    }

    /// True if there are several.
    pub fn are_several(&self) -> bool {
        self.size() > 1
    }

    /// True for the one that writes files and speaks to the user.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// True if all ranks know the error with which the run ends.
    pub fn know_the_error(&self) -> bool {
        self.failed.get()
    }

    /// Ends here with an error that all ranks know, for they have the same.
    ///
    /// # Errors
    /// That.
    pub fn end_together<T>(&self, error: Error) -> Result<T> {
        self.failed.set(true);
        Err(error)
    }

    /// Makes buffers of `device` known to the transport, which is to sum them.
    ///
    /// # Errors
    /// Those of the first rank whose device cannot join, on every rank.
    pub fn join(&self, device: &Device) -> Result<()> {
        if !self.are_several() {
            return Ok(());
        }
        let own = self.all(self.collective.invitation())?;
        let mut all = vec![0; self.size() * own.len()];
        if !own.is_empty() {
            self.collective.all_gather(&own, &mut all)?;
        }
        self.all(self.collective.join(device, &all[..own.len()]))
    }

    /// What `own` is, if it is no error on any rank; else the error of the first rank that has one, on every rank.
    ///
    /// # Errors
    /// That, as [`Error::Rank`] on the others.
    pub fn all<T>(&self, own: Result<T>) -> Result<T> {
        self.exchange(own.map(|value| (value, Vec::new())), 0).map(|(value, _)| value)
    }

    /// The same, with `length` bytes from each rank, in the order of ranks.
    ///
    /// # Errors
    /// As there.
    pub fn exchange<T>(&self, own: Result<(T, Vec<u8>)>, length: usize) -> Result<(T, Vec<u8>)> {
        if !self.are_several() {
            return own;
        }
        let mut message = vec![0; STATUS + length];
        match &own {
            Ok((_, facts)) => message[STATUS..].copy_from_slice(facts),
            Err(error) => {
                message[0] = error.exit_code();
                message[1] = u8::from(is_out_of_memory(error));
            }
        }
        let mut all = vec![0; self.size() * message.len()];
        self.collective.all_gather(&message, &mut all)?;
        let of_ranks: Vec<&[u8]> = all.chunks(message.len()).collect();
        let failed = of_ranks.iter().position(|message| message[0] != CAN_GO_ON);
        self.failed.set(failed.is_some());
        let Some(rank) = failed else {
            let (value, _) = own?;
            return Ok((value, of_ranks.iter().flat_map(|message| &message[STATUS..]).copied().collect()));
        };
        let told = self.texts(&own.as_ref().map_or_else(Error::to_string, |_| String::new()))?.swap_remove(rank);
        match own {
            Err(error) if rank == self.rank() => Err(error),
            _ => Err(Error::Rank { rank, told, code: of_ranks[rank][0], out_of_memory: of_ranks[rank][1] > 0 }),
        }
    }

    /// A text from each rank, in the order of ranks.
    ///
    /// # Errors
    /// What the transport says.
    pub fn texts(&self, own: &str) -> Result<Vec<String>> {
        let mut lengths = vec![0; self.size() * size_of::<u64>()];
        self.collective.all_gather(&(own.len() as u64).to_le_bytes(), &mut lengths)?;
        let lengths: Vec<usize> =
            bytemuck::pod_collect_to_vec::<u8, u64>(&lengths).into_iter().map(|length| length as usize).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
        let mut padded = own.as_bytes().to_vec();
        padded.resize(longest, 0);
        let mut all = vec![0; self.size() * longest];
        self.collective.all_gather(&padded, &mut all)?;
        let texts = all.chunks(longest).zip(lengths);
        Ok(texts.map(|(text, length)| String::from_utf8_lossy(&text[..length]).into_owned()).collect())
    }

    /// What rank `root` makes, on every rank; `make` is called there only.
    ///
    /// # Errors
    /// That of `make`, on every rank.
    pub fn from(&self, root: usize, make: impl FnOnce() -> Result<String>) -> Result<String> {
        let own = if self.rank() == root { make() } else { Ok(String::new()) };
        let own = self.all(own)?;
        if !self.are_several() {
            return Ok(own);
        }
        Ok(self.texts(&own)?.swap_remove(root))
    }

    /// What the first rank does alone, of which the others hear if it fails; they get nothing else of it.
    ///
    /// # Errors
    /// That of `act`, on every rank.
    pub fn first<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        self.all(if self.is_first() { act().map(Some) } else { Ok(None) })
    }

    /// Whether the first rank finds it so, on every rank.
    ///
    /// # Errors
    /// That of `look`, on every rank.
    pub fn first_finds(&self, look: impl FnOnce() -> Result<bool>) -> Result<bool> {
        let own = if self.is_first() { look() } else { Ok(false) };
        let ((), facts) = self.exchange(own.map(|found| ((), vec![u8::from(found)])), 1)?;
        Ok(facts[0] > 0)
    }

    /// Refuses ranks whose named `facts` differ from those of the first.
    ///
    /// # Errors
    /// [`Error::Usage`] naming rank and fact, on every rank.
    pub fn agree_on(&self, facts: &[(&str, String)], remedy: &str) -> Result<()> {
        if !self.are_several() {
            return Ok(());
        }
        let own = facts.iter().map(|(_, fact)| fact.as_str()).collect::<Vec<_>>().join(SEPARATOR);
        let told = self.texts(&own)?;
        let split = |text: &str| text.split(SEPARATOR).map(str::to_owned).collect::<Vec<_>>();
        let first = split(&told[0]);
        for (rank, text) in told.iter().enumerate().skip(1) {
            let differs = split(text).into_iter().zip(&first).zip(facts).find(|((own, first), _)| own != *first);
            if let Some(((own, first), (name, _))) = differs {
                self.failed.set(true);
                return Err(Error::Usage(format!("{name} of rank {rank} is {own}, of rank 0 {first}; {remedy}")));
            }
        }
        Ok(())
    }
}

/// True if memory was refused for a step, so that smaller settings may do.
fn is_out_of_memory(error: &Error) -> bool {
    matches!(error, Error::OutOfMemory(refusal) if refusal.phase != Phase::Evaluate)
}
