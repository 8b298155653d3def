//! What kernels did, counted. The numbers are those of the PTX, exact and repeatable; none of them is a time.

use crate::decode::ir::{Class, Kernel};
use crate::exec::lanes::{LANES, active};

/// Requests of one kind to memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Warp-wide requests.
    pub requests: u64,
    /// Bytes the lanes asked for.
    pub bytes: u64,
    /// Different 32-byte sectors, summed over the requests.
    pub sectors: u64,
}

impl Requests {
    fn add(&mut self, other: &Requests) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.sectors += other.sectors;
    }

    /// Sectors a request, on average; 4 where 32 lanes read 4 bytes each side by side.
    pub fn sectors_per_request(&self) -> f64 {
        self.sectors as f64 / self.requests.max(1) as f64
    }
}

/// Different numbers out of at most 64.
struct Distinct([u64; 64], usize);

impl Distinct {
    fn of(numbers: impl Iterator<Item = u64>) -> Distinct {
        let (mut items, mut count, mut ascending) = ([0; 64], 0, true);
        for number in numbers {
            if count > 0 && items[count - 1] == number {
                continue;
            }
            ascending &= count == 0 || items[count - 1] < number;
            items[count] = number;
            count += 1;
        }
        let mut out = Distinct(items, count);
        if !ascending {
            out.0[..count].sort_unstable();
            out.1 = 1;
            for k in 1..count {
                if out.0[k] != out.0[out.1 - 1] {
                    out.0[out.1] = out.0[k];
                    out.1 += 1;
                }
            }
        }
        out
    }

    fn items(&self) -> &[u64] {
        &self.0[..self.1]
    }
}

/// Sectors and bank conflicts; only counted where the configuration asks for traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Global loads.
    pub loads: Requests,
    /// Global stores and atomics.
    pub stores: Requests,
    /// Requests to shared memory.
    pub shared_requests: u64,
    /// Passes over the 32 banks these took.
    pub shared_passes: u64,
    /// Passes they would take without conflicts.
    pub shared_ideal: u64,
    /// Different bytes loaded by a launch, summed over launches; only where the configuration asks for the footprint.
    pub loaded: u64,
    /// Different bytes stored.
    pub stored: u64,
}

impl Traffic {
    /// Passes caused by bank conflicts.
    pub fn bank_conflicts(&self) -> u64 {
        self.shared_passes - self.shared_ideal
    }

    fn add(&mut self, other: &Traffic) {
        self.loads.add(&other.loads);
        self.stores.add(&other.stores);
        self.shared_requests += other.shared_requests;
        self.shared_passes += other.shared_passes;
        self.shared_ideal += other.shared_ideal;
        self.loaded += other.loaded;
        self.stored += other.stored;
    }

    /// Counts one global request.
    pub fn global(&mut self, addresses: &[u64; LANES], mask: u32, bytes: u64, store: bool) {
        let sectors = Distinct::of(active(mask).flat_map(|k| addresses[k] / 32..=(addresses[k] + bytes - 1) / 32));
        let side = if store { &mut self.stores } else { &mut self.loads };
        side.requests += 1;
        side.bytes += bytes * u64::from(mask.count_ones());
        side.sectors += sectors.items().len() as u64;
    }

    /// Counts one shared request: lanes are served in groups of 32, 16 or 8 for accesses of up to 4, 8 or 16 bytes; a
    /// group takes as many passes as its fullest bank has different words.
    pub fn shared(&mut self, addresses: &[u64; LANES], mask: u32, bytes: u64) {
        self.shared_requests += 1;
        let group = match bytes {
            0..=4 => 32,
            5..=8 => 16,
            _ => 8,
        };
        for from in (0..LANES).step_by(group) {
            let lanes = mask & ((((1u64 << group) - 1) << from) as u32);
            if lanes == 0 {
                continue;
            }
            let words = Distinct::of(active(lanes).flat_map(|k| addresses[k] / 4..=(addresses[k] + bytes - 1) / 4));
            let mut banks = [0u64; 32];
            words.items().iter().for_each(|w| banks[(w % 32) as usize] += 1);
            self.shared_passes += banks.iter().max().copied().unwrap_or(0);
            self.shared_ideal += 1;
        }
    }
}

/// Counters of one kernel, summed over its launches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Its name.
    pub kernel: String,
    /// Launches.
    pub launches: u64,
    /// Blocks run.
    pub blocks: u64,
    /// Instructions, a warp counting once.
    pub warp_instructions: u64,
    /// Instructions, a lane counting once.
    pub lane_instructions: u64,
    /// Lane instructions by class, in the order of [`Class::ALL`].
    pub by_class: [u64; Class::ALL.len()],
    /// Floating-point operations in f32, an FMA being two.
    pub flops_f32: u64,
    /// In f64.
    pub flops_f64: u64,
    /// In f16 and bf16.
    pub flops_half: u64,
    /// Of matrix operations on f16 and bf16.
    pub flops_matrix_half: u64,
    /// Of matrix operations on tf32.
    pub flops_matrix_tf32: u64,
    /// Bytes loaded from global memory by all lanes (asynchronous copies included).
    pub global_load_bytes: u64,
    /// Bytes stored to global memory, atomics included.
    pub global_store_bytes: u64,
    /// Bytes loaded from and stored to shared memory.
    pub shared_bytes: u64,
    /// Bytes loaded from and stored to local memory: spills and arrays.
    pub local_bytes: u64,
    /// Branches executed by warps.
    pub branches: u64,
    /// Of these, those whose lanes went both ways.
    pub divergent_branches: u64,
    /// Sectors and banks.
    pub traffic: Traffic,
}

impl KernelCounters {
    /// Mean share of the 32 lanes that took part in an instruction.
    pub fn lane_efficiency(&self) -> f64 {
        self.lane_instructions as f64 / (32 * self.warp_instructions).max(1) as f64
    }

    /// Lane instructions of a class.
    pub fn class(&self, class: Class) -> u64 {
        self.by_class[class as usize]
    }

    /// All floating-point operations.
    pub fn flops(&self) -> u64 {
        self.flops_f32 + self.flops_f64 + self.flops_half + self.flops_matrix_half + self.flops_matrix_tf32
    }

    /// Adds what the instructions of `kernel` did, given executions and lanes of each.
    pub fn add_counts(&mut self, kernel: &Kernel, counts: &[(u64, u64)]) {
        for (note, &(warps, lanes)) in kernel.notes.iter().zip(counts) {
            let work = note.work;
            self.warp_instructions += warps;
            self.lane_instructions += lanes;
            self.by_class[work.class as usize] += lanes;
            let flops = u64::from(work.flops);
            match work.class {
                Class::F32 | Class::Special => self.flops_f32 += flops * lanes,
                Class::F64 => self.flops_f64 += flops * lanes,
                Class::Half => self.flops_half += flops * lanes,
                Class::Matrix => self.flops_matrix_half += flops * warps,
                Class::MatrixTf32 => self.flops_matrix_tf32 += flops * warps,
                _ => {}
            }
            let bytes = u64::from(work.bytes) * lanes;
            match work.class {
                Class::Copy => {
                    self.global_load_bytes += bytes;
                    self.shared_bytes += bytes;
                }
                Class::Global if !work.store => self.global_load_bytes += bytes,
                Class::Global | Class::Atomic => self.global_store_bytes += bytes,
                Class::Shared | Class::SharedAtomic => self.shared_bytes += bytes,
                Class::Local => self.local_bytes += bytes,
                _ => {}
            }
        }
    }

    /// Adds another's numbers.
    pub fn add(&mut self, other: &KernelCounters) {
        for (mine, theirs) in self.numbers_mut().into_iter().zip(other.clone().numbers_mut()) {
            *mine += *theirs;
        }
        for (mine, theirs) in self.by_class.iter_mut().zip(other.by_class) {
            *mine += theirs;
        }
        self.traffic.add(&other.traffic);
    }

    fn numbers_mut(&mut self) -> [&mut u64; 15] {
        [
            &mut self.launches,
            &mut self.blocks,
            &mut self.warp_instructions,
            &mut self.lane_instructions,
            &mut self.flops_f32,
            &mut self.flops_f64,
            &mut self.flops_half,
            &mut self.flops_matrix_half,
            &mut self.flops_matrix_tf32,
            &mut self.global_load_bytes,
            &mut self.global_store_bytes,
            &mut self.shared_bytes,
            &mut self.local_bytes,
            &mut self.branches,
            &mut self.divergent_branches,
        ]
    }

    fn traffic_mut(&mut self) -> [&mut u64; 11] {
        let t = &mut self.traffic;
        [
            &mut t.loads.requests,
            &mut t.loads.bytes,
            &mut t.loads.sectors,
            &mut t.stores.requests,
            &mut t.stores.bytes,
            &mut t.stores.sectors,
            &mut t.shared_requests,
            &mut t.shared_passes,
            &mut t.shared_ideal,
            &mut t.loaded,
            &mut t.stored,
        ]
    }

    /// One line for [`KernelCounters::parse`].
    pub fn to_line(&self) -> String {
        let mut copy = self.clone();
        let mut fields = vec![self.kernel.clone()];
        fields.extend(copy.numbers_mut().iter().map(|v| v.to_string()));
        fields.extend(self.by_class.iter().map(u64::to_string));
        fields.extend(copy.traffic_mut().iter().map(|v| v.to_string()));
        fields.join("\t")
    }

    /// Reads what [`KernelCounters::to_line`] wrote.
    pub fn parse(line: &str) -> Option<KernelCounters> {
        let mut fields = line.split('\t');
        let mut out = KernelCounters { kernel: fields.next()?.to_string(), ..KernelCounters::default() };
        for number in out.numbers_mut() {
            *number = fields.next()?.parse().ok()?;
        }
        for number in &mut out.by_class {
            *number = fields.next()?.parse().ok()?;
        }
        for number in out.traffic_mut() {
            *number = fields.next()?.parse().ok()?;
        }
        fields.next().is_none().then_some(out)
    }
}

/// What the host did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HostCounters {
    /// Kernel launches.
    pub launches: u64,
    /// Times the host waited: stream, event and context synchronisation, blocking copies.
    pub synchronisations: u64,
    /// Bytes copied to the device.
    pub bytes_to_device: u64,
    /// Bytes copied to the host.
    pub bytes_to_host: u64,
    /// Bytes copied or filled on the device.
    pub bytes_on_device: u64,
    /// Allocations made.
    pub allocations: u64,
    /// Copies, whatever the direction, and fills.
    pub copies: u64,
}

impl HostCounters {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &HostCounters) {
        self.launches += other.launches;
        self.synchronisations += other.synchronisations;
        self.bytes_to_device += other.bytes_to_device;
        self.bytes_to_host += other.bytes_to_host;
        self.bytes_on_device += other.bytes_on_device;
        self.allocations += other.allocations;
        self.copies += other.copies;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(stride: u64) -> [u64; LANES] {
        std::array::from_fn(|k| 4096 + k as u64 * stride)
    }

    #[test]
    fn sectors_of_known_patterns() {
        for (stride, bytes, sectors) in [(4, 4, 4), (16, 16, 16), (32, 4, 32), (0, 4, 1), (1, 1, 1)] {
            let mut t = Traffic::default();
            t.global(&strided(stride), !0, bytes, false);
            assert_eq!(t.loads.sectors, sectors, "stride {stride}, {bytes} bytes");
        }
    }

    #[test]
    fn conflicts_of_known_patterns() {
        for (stride, bytes, conflicts) in
            [(4, 4, 0), (128, 4, 31), (132, 4, 0), (0, 4, 0), (8, 4, 1), (8, 8, 0), (16, 16, 0)]
        {
            let mut t = Traffic::default();
            t.shared(&strided(stride), !0, bytes);
            assert_eq!(t.bank_conflicts(), conflicts, "stride {stride}, {bytes} bytes");
        }
    }

    #[test]
    fn lines_read_back() {
        let mut c = KernelCounters { kernel: "k".into(), ..KernelCounters::default() };
        for (k, n) in c.numbers_mut().into_iter().enumerate() {
            *n = k as u64 + 1;
        }
        c.by_class[3] = 99;
        c.traffic.stores.sectors = 7;
        assert_eq!(KernelCounters::parse(&c.to_line()).unwrap(), c);
        let mut twice = c.clone();
        twice.add(&c);
        assert_eq!((twice.launches, twice.by_class[3], twice.traffic.stores.sectors), (2, 198, 14));
    }
}
