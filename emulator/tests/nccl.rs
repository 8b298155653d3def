//! The emulated NCCL: ranks that are threads with a device each move real data, and what they call differently is found.

use std::ffi::{CString, c_void};
use std::sync::{Arc, Once};

use cudarc::driver::sys::CUstreamCaptureMode;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use cuemu::{Config, Emulator, FindingKind};

type Handle = *mut c_void;
type Id = [u8; 128];

/// `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
struct UniqueId(Id);

/// The functions as a loader finds them.
#[derive(Clone, Copy)]
struct Nccl {
    id: unsafe extern "C" fn(*mut UniqueId) -> i32,
    init: unsafe extern "C" fn(*mut Handle, i32, UniqueId, i32) -> i32,
    destroy: unsafe extern "C" fn(Handle) -> i32,
    all_reduce: unsafe extern "C" fn(u64, u64, usize, i32, i32, Handle, Handle) -> i32,
    all_gather: unsafe extern "C" fn(u64, u64, usize, i32, Handle, Handle) -> i32,
}

const BYTES: i32 = 1;
const FLOATS: i32 = 7;
const SUM: i32 = 0;

/// What the functions answer.
const INVALID_ARGUMENT: i32 = 4;
const INVALID_USAGE: i32 = 5;
const SYSTEM: i32 = 2;

impl Nccl {
    fn load() -> (Self, &'static Emulator) {
        static ONCE: Once = Once::new();
        // SAFETY: the only writer of the environment, before the library reads it.
        ONCE.call_once(|| unsafe { std::env::set_var("CUEMU_DEVICES", "4") });
        let emulator = cuemu::preload().unwrap();
        let path = CString::new(cuemu::library().unwrap().to_str().unwrap()).unwrap();
        // SAFETY: the library that was loaded before, and functions of these signatures.
        let nccl = unsafe {
            let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            let symbol = |name: &std::ffi::CStr| libc::dlsym(library, name.as_ptr());
            use std::mem::transmute;
            Self {
                id: transmute::<Handle, unsafe extern "C" fn(*mut UniqueId) -> i32>(symbol(c"ncclGetUniqueId")),
                init: transmute::<Handle, unsafe extern "C" fn(*mut Handle, i32, UniqueId, i32) -> i32>(symbol(
                    c"ncclCommInitRank",
                )),
                destroy: transmute::<Handle, unsafe extern "C" fn(Handle) -> i32>(symbol(c"ncclCommDestroy")),
                all_reduce: transmute::<Handle, unsafe extern "C" fn(u64, u64, usize, i32, i32, Handle, Handle) -> i32>(
                    symbol(c"ncclAllReduce"),
                ),
                all_gather: transmute::<Handle, unsafe extern "C" fn(u64, u64, usize, i32, Handle, Handle) -> i32>(
                    symbol(c"ncclAllGather"),
                ),
            }
        };
        (nccl, emulator)
    }

    fn new_id(self) -> Id {
        let mut id = UniqueId([0; 128]);
        // SAFETY: an out pointer.
        assert_eq!(unsafe { (self.id)(&mut id) }, 0);
        id.0
    }

    /// Joins with the current context; the communicator or the code.
    fn join(self, id: Id, size: i32, rank: i32) -> Result<Handle, i32> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: an out pointer.
        match unsafe { (self.init)(&mut handle, size, UniqueId(id), rank) } {
            0 => Ok(handle),
            code => Err(code),
        }
    }
}

/// A rank at work.
struct Rank {
    nccl: Nccl,
    rank: usize,
    communicator: Handle,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
}

impl Rank {
    fn upload(&self, values: &[f32]) -> CudaSlice<f32> {
        self.stream.clone_htod(values).unwrap()
    }

    fn address<T>(&self, slice: &CudaSlice<T>) -> u64 {
        slice.device_ptr(&self.stream).0
    }

    /// Sums in place on a stream.
    fn sum_on(&self, stream: &CudaStream, address: u64, count: usize) -> i32 {
        // SAFETY: the emulator checks the addresses.
        unsafe {
            (self.nccl.all_reduce)(address, address, count, FLOATS, SUM, self.communicator, stream.cu_stream().cast())
        }
    }

    fn sum(&self, address: u64, count: usize) -> i32 {
        self.sum_on(&self.stream, address, count)
    }

    fn gather(&self, from: u64, to: u64, bytes: usize) -> i32 {
        // SAFETY: as above.
        unsafe { (self.nccl.all_gather)(from, to, bytes, BYTES, self.communicator, self.stream.cu_stream().cast()) }
    }

    fn leave(&self) -> i32 {
        // SAFETY: as above.
        unsafe { (self.nccl.destroy)(self.communicator) }
    }
}

/// Runs `work` on ranks that are threads, each on a device of its own; what each returns, and the kinds and words of what was
/// found in its calls.
fn on_ranks<T: Send>(size: usize, work: impl Fn(&Rank) -> T + Sync) -> Vec<(T, Vec<(FindingKind, String)>)> {
    let (nccl, emulator) = Nccl::load();
    let id = nccl.new_id();
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..size)
            .map(|rank| {
                let work = &work;
                scope.spawn(move || {
                    emulator.configure(Config::checked());
                    let context = CudaContext::new(rank).unwrap();
                    let communicator = nccl.join(id, size as i32, rank as i32).unwrap();
                    let stream = context.new_stream().unwrap();
                    let done = work(&Rank { nccl, rank, communicator, context, stream });
                    (done, emulator.findings().into_iter().map(|finding| (finding.kind, finding.detail)).collect())
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Asserts that all ranks were refused, and that `part` was found on each.
fn assert_found(told: Vec<(i32, Vec<(FindingKind, String)>)>, code: i32, part: &str) {
    for (answer, found) in told {
        assert_eq!(answer, code, "{found:?}");
        assert!(
            found.iter().any(|(kind, text)| *kind == FindingKind::BadCollective && text.contains(part)),
            "{found:?}"
        );
    }
}

#[test]
fn sums_and_gathers() {
    // Sums whose order shows: the largest first swallows the others.
    let told = on_ranks(3, |rank| {
        let own = [[1e8f32, 1.0], [1.0, 2.0], [-1e8, 3.0]][rank.rank];
        let (values, all) = (rank.upload(&own), rank.stream.alloc_zeros::<f32>(6).unwrap());
        assert_eq!(rank.gather(rank.address(&values), rank.address(&all), 8), 0);
        assert_eq!(rank.sum(rank.address(&values), 2), 0);
        let told = (rank.stream.clone_dtoh(&values).unwrap(), rank.stream.clone_dtoh(&all).unwrap());
        assert_eq!(rank.leave(), 0);
        told
    });
    let sum = (-1e8f32 + 1.0) + 1e8;
    for ((sums, all), found) in told {
        assert!(found.is_empty(), "{found:?}");
        assert_eq!((sums.as_slice(), all.as_slice()), (&[sum, 6.0][..], &[1e8, 1.0, 1.0, 2.0, -1e8, 3.0][..]));
    }
}

#[test]
fn calls_that_differ_are_found() {
    let told = on_ranks(2, |rank| {
        let values = rank.upload(&[1.0; 8]);
        let address = rank.address(&values);
        match rank.rank {
            0 => rank.sum(address, 4),
            _ => rank.gather(address, address + 8, 4),
        }
    });
    assert_found(
        told,
        INVALID_USAGE,
        "rank 1 calls ncclAllGather of 4 elements of type 1 where rank 0 calls ncclAllReduce",
    );
    let told = on_ranks(2, |rank| {
        let values = rank.upload(&[1.0; 8]);
        rank.sum(rank.address(&values), 4 + rank.rank)
    });
    assert_found(told, INVALID_USAGE, "of 5 elements of type 7 where rank 0 calls ncclAllReduce of 4");
    // A call that a rank leaves out.
    let told = on_ranks(2, |rank| {
        let values = rank.upload(&[1.0; 8]);
        let first = rank.sum(rank.address(&values), 8);
        assert_eq!(first, 0);
        if rank.rank == 0 { rank.sum(rank.address(&values), 8) } else { rank.leave() }
    });
    assert_found(told, INVALID_USAGE, "rank 1 calls ncclCommDestroy where rank 0");
}

#[test]
fn streams_and_memory_are_checked() {
    let told = on_ranks(2, |rank| {
        let values = rank.upload(&[1.0; 8]);
        assert_eq!(rank.sum(rank.address(&values), 8), 0);
        rank.sum_on(&rank.context.new_stream().unwrap(), rank.address(&values), 8)
    });
    assert_found(told, INVALID_USAGE, "on another stream than the calls before");
    let told = on_ranks(2, |rank| {
        let values = rank.upload(&[1.0; 8]);
        rank.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
        rank.sum(rank.address(&values), 8)
    });
    assert_found(told, INVALID_USAGE, "while its stream is captured");
    let told = on_ranks(2, |rank| {
        let other = CudaContext::new(2 + rank.rank).unwrap();
        let theirs = other.default_stream().clone_htod(&[1.0f32; 8]).unwrap();
        rank.context.bind_to_thread().unwrap();
        rank.sum(theirs.device_ptr(&other.default_stream()).0, 8)
    });
    assert_found(told, INVALID_ARGUMENT, "lies on another device");
    // Numbers that nobody wrote are summed and found.
    let told = on_ranks(2, |rank| {
        // SAFETY: never read by this program.
        let values = unsafe { rank.stream.alloc::<f32>(8) }.unwrap();
        rank.sum(rank.address(&values), 8)
    });
    for (answer, found) in told {
        assert_eq!(answer, 0);
        assert!(found.iter().any(|(kind, _)| *kind == FindingKind::UninitialisedMemory), "{found:?}");
    }
}

#[test]
fn ids_and_devices_are_checked() {
    let (nccl, _) = Nccl::load();
    let context = CudaContext::new(0).unwrap();
    context.bind_to_thread().unwrap();
    assert_eq!(nccl.join([7; 128], 2, 0), Err(INVALID_ARGUMENT));
    // An id that nobody made, or whose maker is gone: no other id's ranks are joined.
    let mut id = nccl.new_id();
    id[20] ^= 1;
    assert_eq!(nccl.join(id, 2, 0), Err(SYSTEM));
    // One device for two ranks.
    let id = nccl.new_id();
    let join = |rank| {
        let context = CudaContext::new(0).unwrap();
        context.bind_to_thread().unwrap();
        nccl.join(id, 2, rank).map(drop)
    };
    let told =
        std::thread::scope(|scope| [0, 1].map(|rank| scope.spawn(move || join(rank))).map(|t| t.join().unwrap()));
    assert_eq!(told, [Err(INVALID_USAGE); 2]);
}
