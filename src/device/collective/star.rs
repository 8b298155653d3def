//! Processes that meet at the first one's address and talk through it: what they tell each other beside NCCL, its 128-byte id
//! first of all.
//!
//! Each of the others has two connections to the first. One carries exchanges. The other is silent for as long as the
//! process lives: a thread at each end reads it, and what it reads is the end: a farewell, an exit status for all, or
//! nothing, where a process has died. NCCL would wait for that one for ever.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Address, Collective};
use crate::device::Buffer;
use crate::error::{Error, Result};
use crate::interrupt;

/// How long processes wait for the last to come.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long a connection may take to say what it is.
const HELLO: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What a connection begins with: this, the number of ranks, the sender's rank, and which of its two connections it is.
const MAGIC: u64 = u64::from_le_bytes(*b"ossnet/1");

/// What a rank that ends well says last; all else is an exit status.
const FAREWELL: u8 = 0;

/// One of the processes.
pub struct Star {
    rank: usize,
    size: usize,
    /// The first process's connections to the others, in the order of ranks; the others' one to the first.
    talk: RefCell<Vec<TcpStream>>,
    watch: Arc<Watch>,
}

/// The silent connections, in the same order.
struct Watch {
    silent: Mutex<Vec<TcpStream>>,
    /// This process ends well; or another's end was said.
    over: AtomicBool,
    say: fn(String),
}

type Pair = [TcpStream; 2];

impl Star {
    /// Meets the others; `say` tells the user of a process that has died.
    ///
    /// # Errors
    /// [`Error::Device`] if they do not come, or are not of one kind; an interrupt.
    pub fn meet(address: &Address, rank: usize, size: usize, say: fn(String)) -> Result<Self> {
        let listener = (rank == 0).then(|| address.listen()).transpose()?;
        Self::meet_within(PATIENCE, address, listener, rank, size, say)
    }

    /// As [`Star::meet`], where the first process listens already.
    ///
    /// # Errors
    /// As there.
    pub fn meet_within(
        patience: Duration,
        address: &Address,
        listener: Option<TcpListener>,
        rank: usize,
        size: usize,
        say: fn(String),
    ) -> Result<Self> {
        let wait = Wait { address, began: Instant::now(), patience };
        let pairs = match listener {
            Some(listener) => host(&wait, listener, size)?,
            None => vec![reach(&wait, rank, size)?],
        };
        let failed =
            |error: io::Error| Error::Device(format!("the connection to {address} broke ({error}); try again"));
        let (mut talk, mut silent) = (Vec::new(), Vec::new());
        for [one, other] in pairs {
            [&one, &other].into_iter().try_for_each(settle_down).map_err(failed)?;
            keep_alive(&other).map_err(failed)?;
            talk.push(one);
            silent.push(other);
        }
        let readers = silent.iter().map(TcpStream::try_clone).collect::<io::Result<Vec<_>>>().map_err(failed)?;
        let watch = Arc::new(Watch { silent: Mutex::new(silent), over: AtomicBool::new(false), say });
        for (i, mut reader) in readers.into_iter().enumerate() {
            let (watch, other) = (watch.clone(), if rank == 0 { i + 1 } else { 0 });
            std::thread::spawn(move || {
                let mut last = [0];
                let read = reader.read_exact(&mut last).map(|()| last[0]);
                watch.ended(other, read, rank);
            });
        }
        Ok(Self { rank, size, talk: RefCell::new(talk), watch })
    }

    /// Makes an exchange. Where it fails a process has died, which the watch says before it ends this one.
    fn exchange(&self, work: impl FnOnce(&mut [TcpStream]) -> io::Result<()>) -> Result<()> {
        work(&mut self.talk.borrow_mut()).map_err(|error| {
            std::thread::sleep(HELLO);
            Error::Device(format!("the other processes cannot be reached any more ({error}); go on with --resume"))
        })
    }
}

impl Watch {
    /// Process `other` has ended: takes this one with it unless both end well.
    fn ended(&self, other: usize, last: io::Result<u8>, rank: usize) {
        if matches!(last, Ok(FAREWELL)) || self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        // One process says it: the first, or the second where it is the first that has died.
        if last.is_err() && (rank == 0 || rank == 1) {
            (self.say)(format!(
                "rank {other} has died (killed, or its machine lost), and ends all; go on with --resume"
            ));
        }
        end_all(self, last.unwrap_or(1))
    }

    fn tell(&self, last: u8) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.iter_mut().for_each(|other| _ = other.write_all(&[last]));
    }
}

/// Ends this process and all that hear of it at once: nothing waits for a device whose kernels wait for a dead one.
fn end_all(watch: &Watch, code: u8) -> ! {
    watch.tell(code);
    // SAFETY: ends the process.
    unsafe { libc::_exit(code.into()) }
}

impl Collective for Star {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, _: &mut Buffer) -> Result<()> {
        Err(Error::Device("gradients are summed by NCCL or MPI only; report this".into()))
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        let (rank, length) = (self.rank, own.len());
        self.exchange(|talk| {
            if rank > 0 {
                return talk.iter_mut().try_for_each(|first| first.write_all(own).and_then(|()| first.read_exact(all)));
            }
            all[..length].copy_from_slice(own);
            let parts = all[length..].chunks_mut(length.max(1));
            talk.iter_mut().zip(parts).try_for_each(|(other, part)| other.read_exact(part))?;
            talk.iter_mut().try_for_each(|other| other.write_all(all))
        })
    }

    fn barrier(&self) -> Result<()> {
        self.all_gather(&[0], &mut vec![0; self.size])
    }

    fn finish(&self, _: bool) {
        self.watch.over.store(true, Ordering::SeqCst);
        self.watch.tell(FAREWELL);
    }

    fn abort(&self, code: u8) -> ! {
        self.watch.over.store(true, Ordering::SeqCst);
        end_all(&self.watch, code)
    }
}

/// Small messages leave at once.
fn settle_down(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(None)?;
    stream.set_nodelay(true)
}

/// A machine that is gone is noticed within ten seconds.
#[cfg(target_os = "linux")]
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    for (level, option, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 2),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 2),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3),
    ] {
        let (value, length): (libc::c_int, _) = (value, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: an open socket, and an option of this type and length.
        let set = unsafe { libc::setsockopt(stream.as_raw_fd(), level, option, (&raw const value).cast(), length) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn keep_alive(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// Waiting for processes that may not come.
struct Wait<'a> {
    address: &'a Address,
    began: Instant,
    patience: Duration,
}

impl Wait<'_> {
    /// Fails when time is up or the user has enough.
    fn go_on(&self, missing: impl FnOnce() -> String) -> Result<()> {
        interrupt::check(|| "nothing was begun".into())?;
        if self.began.elapsed() > self.patience {
            let problem = format!("{} after {} s", missing(), self.patience.as_secs());
            return Err(Error::Device(format!("{problem}; {}", self.address.remedy())));
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

/// Waits for all the others; their connections, in the order of ranks.
fn host(wait: &Wait<'_>, listener: TcpListener, size: usize) -> Result<Vec<Pair>> {
    let address = wait.address;
    let mut come: Vec<[Option<TcpStream>; 2]> = (1..size).map(|_| [None, None]).collect();
    while come.iter().flatten().any(Option::is_none) {
        let Ok((mut stream, _)) = listener.accept() else {
            let there = come.iter().filter(|pair| pair.iter().all(Option::is_some)).count() + 1;
            wait.go_on(|| format!("{there} of {size} processes have come to {address}"))?;
            continue;
        };
        // What is no process of ours is let go.
        let Ok([of, rank, which]) = greet(&mut stream, [size as u64, 0, 0]) else { continue };
        let place =
            (rank as usize).checked_sub(1).and_then(|i| come.get_mut(i)).and_then(|pair| pair.get_mut(which as usize));
        match place {
            Some(place @ None) if of == size as u64 => *place = Some(stream),
            _ => {
                let problem =
                    format!("a process that says it is rank {rank} of {of} came to those of {size} at {address}");
                return Err(Error::Device(format!("{problem}; {}", address.remedy())));
            }
        }
    }
    Ok(come.into_iter().filter_map(|[talk, silent]| Some([talk?, silent?])).collect())
}

/// Both connections to the first process.
fn reach(wait: &Wait<'_>, rank: usize, size: usize) -> Result<Pair> {
    let address = wait.address;
    let connect = |which: u64| loop {
        let Ok(mut stream) = address.connect() else {
            wait.go_on(|| format!("nobody listens at {address}"))?;
            continue;
        };
        return match greet(&mut stream, [size as u64, rank as u64, which]) {
            Ok([of, 0, _]) if of == size as u64 => Ok(stream),
            Ok([of, ..]) => {
                let problem = format!("rank {rank} of {size} came to processes of {of} at {address}");
                Err(Error::Device(format!("{problem}; {}", address.remedy())))
            }
            Err(_) => {
                let problem = format!("what listens at {address} is no ossnet that waits for others");
                Err(Error::Device(format!("{problem}; {}", address.remedy())))
            }
        };
    };
    Ok([connect(0)?, connect(1)?])
}

/// Says who this is; who the other is.
fn greet(stream: &mut TcpStream, own: [u64; 3]) -> io::Result<[u64; 3]> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HELLO))?;
    let [size, rank, which] = own;
    stream.write_all(&[MAGIC, size, rank, which].map(u64::to_le_bytes).concat())?;
    let mut words = [[0; 8]; 4];
    words.iter_mut().try_for_each(|word| stream.read_exact(word))?;
    match words.map(u64::from_le_bytes) {
        [MAGIC, size, rank, which] => Ok([size, rank, which]),
        _ => Err(io::Error::other("no ossnet")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Launch, Launcher, RENDEZVOUS};
    use super::*;

    /// Ranks that are threads tell each other everything, whatever the length, and part well.
    #[test]
    fn all_hear_all() {
        const SIZE: usize = 4;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let launch = Launch { launcher: Launcher::Environment, rank: 0, size: SIZE, local: None };
        let said = |name: &str| (name == RENDEZVOUS).then(|| format!("127.0.0.1:{port}"));
        let address = Address::read(&launch, said).unwrap();
        let work = &|rank: usize| {
            let star = Star::meet(&address, rank, SIZE, |line| panic!("{line}")).unwrap();
            assert_eq!((star.rank(), star.size()), (rank, SIZE));
            for length in [0, 1, 1000, 1 << 20] {
                let mut all = vec![0; SIZE * length];
                star.all_gather(&vec![rank as u8 + 1; length], &mut all).unwrap();
                let expected: Vec<u8> = (0..SIZE).flat_map(|rank| vec![rank as u8 + 1; length]).collect();
                assert!(all == expected, "{length} bytes, rank {rank}");
            }
            star.barrier().unwrap();
            star.finish(true);
        };
        std::thread::scope(|scope| (0..SIZE).for_each(|number| _ = scope.spawn(move || work(number))));
    }
}
