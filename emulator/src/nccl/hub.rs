//! Where the ranks of one communicator meet.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Code;
use super::call::{Call, Kind, answer, answered};

/// What an id of this emulator begins with.
const MAGIC: &[u8] = b"cuemu nccl ";

/// Bytes of an id.
pub const ID: usize = 128;

/// How long a rank looks for the hub of an id: an id that nobody made has none.
const PATIENCE: Duration = Duration::from_secs(2);

/// The address that an id names.
fn address(id: &[u8; ID]) -> io::Result<SocketAddr> {
    let end = id.iter().position(|&byte| byte == 0).unwrap_or(ID);
    match id.starts_with(MAGIC) {
        true => SocketAddr::from_abstract_name(&id[..end]),
        false => Err(io::Error::other("no id of this emulator's")),
    }
}

/// A new id, and a thread that serves it.
pub fn open() -> io::Result<[u8; ID]> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let name = format!("{} {} {since}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut id = [0; ID];
    id.iter_mut().zip(MAGIC.iter().chain(name.as_bytes())).for_each(|(to, &from)| *to = from);
    let listener = UnixListener::bind_addr(&address(&id)?)?;
    std::thread::spawn(move || serve(&listener));
    Ok(id)
}

/// Joins the ranks of `id`: the connection, or what is wrong.
pub fn join(id: &[u8; ID], size: u32, rank: u32, device: u32) -> Result<UnixStream, (Code, String)> {
    let system = |error: io::Error| (Code::System, error.to_string());
    let address = address(id).map_err(|error| (Code::InvalidArgument, error.to_string()))?;
    let began = Instant::now();
    let mut hub = loop {
        match UnixStream::connect_addr(&address) {
            Ok(hub) => break hub,
            Err(error) if began.elapsed() > PATIENCE => return Err(system(error)),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    hub.write_all(&[size, rank, device].map(u32::to_le_bytes).concat()).map_err(system)?;
    match answered(&hub).map_err(system)? {
        (0, _) => Ok(hub),
        (_, told) => Err((Code::InvalidUsage, String::from_utf8_lossy(&told).into_owned())),
    }
}

/// A rank that has come.
struct Member {
    rank: u32,
    device: u32,
    stream: UnixStream,
}

/// Takes in all ranks, in their order; or tells those that came why they cannot be a communicator.
fn gather(listener: &UnixListener) -> io::Result<Option<Vec<Member>>> {
    let mut members: Vec<Member> = Vec::new();
    let mut wanted = None;
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut words = [[0; 4]; 3];
        words.iter_mut().try_for_each(|word| stream.read_exact(word))?;
        let [size, rank, device] = words.map(u32::from_le_bytes);
        let of = *wanted.get_or_insert(size);
        let problem = match () {
            () if of != size => Some(format!("ranks of {of} and of {size}")),
            () if rank >= size => Some(format!("rank {rank} of {size}")),
            () if members.iter().any(|member| member.rank == rank) => Some(format!("rank {rank} twice")),
            // NCCL refuses that by bus address; all processes see the same devices here.
            () if members.iter().any(|member| member.device == device) => {
                Some(format!("Duplicate GPU detected : device {device} of rank {rank}"))
            }
            () => None,
        };
        members.push(Member { rank, device, stream });
        if let Some(problem) = problem {
            members.iter().try_for_each(|member| answer(&member.stream, 1, problem.as_bytes()))?;
            return Ok(None);
        }
        if members.len() == of as usize {
            members.sort_by_key(|member| member.rank);
            members.iter().try_for_each(|member| answer(&member.stream, 0, &[]))?;
            return Ok(Some(members));
        }
    }
}

fn serve(listener: &UnixListener) {
    let Ok(Some(members)) = gather(listener) else { return };
    if rounds(&members).is_err() {
        // A rank has died. The others' kernels wait for it for ever.
        loop {
            std::thread::park();
        }
    }
}

/// Serves calls until all ranks have left.
fn rounds(members: &[Member]) -> io::Result<()> {
    loop {
        let mut calls = Vec::new();
        for member in members {
            let call = Call::receive(&member.stream)?;
            let mut content = vec![0; call.bytes()];
            (&member.stream).read_exact(&mut content)?;
            calls.push((call, content));
        }
        let first = calls[0].0;
        if let Some((rank, (other, _))) = calls.iter().enumerate().find(|(_, (call, _))| *call != first) {
            let problem = format!("rank {rank} calls {other} where rank 0 calls {first}");
            return members.iter().try_for_each(|member| answer(&member.stream, 1, problem.as_bytes()));
        }
        let contents = || calls.iter().map(|(_, content)| content.as_slice());
        let made = match first.kind {
            // Rank 0 last: its process, which this thread is of, may end as soon as it has left.
            Kind::Leave => return members.iter().rev().try_for_each(|member| answer(&member.stream, 0, &[])),
            Kind::AllReduce => sum(contents().rev()),
            Kind::AllGather => contents().collect::<Vec<_>>().concat(),
        };
        members.iter().try_for_each(|member| answer(&member.stream, 0, &made))?;
    }
}

/// Sums of f32 in the order of `parts`.
fn sum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let floats = |part: &'a [u8]| part.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]));
    let mut sums: Vec<f32> = Vec::new();
    for part in parts {
        match sums.is_empty() {
            true => sums = floats(part).collect(),
            false => sums.iter_mut().zip(floats(part)).for_each(|(sum, value)| *sum += value),
        }
    }
    sums.into_iter().flat_map(f32::to_le_bytes).collect()
}
