//! One case: an op at one size, run once on the emulator, and what its kernels did.

use cuemu::{Config, Emulator};
use ossnet::device::Device;
use ossnet::error::Result;
use ossnet::memory::Role;
use ossnet::ops::cast;
use ossnet::tape::{Mode, Precision, Tape, Var};
use ossnet::tensor::{DType, Tensor};

use super::table::{Row, Table};

/// Columns of kernels/counts.tsv.
pub const HEADS: [&str; 16] = [
    "case",
    "kernel",
    "launches",
    "moved",
    "touched",
    "moved/touched",
    "stated",
    "sectors/128",
    "conflicts",
    "local",
    "flops",
    "instructions",
    "threads",
    "registers sm_90",
    "shared",
    "occupancy % sm_90",
];

/// An op at a size.
pub struct Case {
    /// Its line in the table: the op and the size.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&Bench) -> Result<()>,
    /// The kernels that are counted; none stands for all, and the op.
    pub only: &'static [&'static str],
}

/// Where cases run.
pub struct Bench {
    /// The emulated device.
    pub device: Device,
    emulator: &'static Emulator,
}

impl Bench {
    /// A tensor of small numbers that depend on their place only.
    pub fn tensor(&self, shape: &[usize]) -> Result<Tensor> {
        self.filled(shape, |i| (i * 2_654_435_761 % 1009) as f32 / 504.0 - 1.0)
    }

    /// A tensor of given numbers.
    pub fn filled(&self, shape: &[usize], value: impl Fn(usize) -> f32) -> Result<Tensor> {
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        Tensor::from_slice(&self.device, shape, Role::Data, &values)
    }

    /// A tensor of bytes.
    pub fn bytes(&self, shape: &[usize], value: impl Fn(usize) -> u8) -> Result<Tensor> {
        let mut tensor = Tensor::empty(&self.device, shape, DType::U8, Role::Data)?;
        tensor.write(&(0..shape.iter().product()).map(value).collect::<Vec<u8>>())?;
        Ok(tensor)
    }

    /// Launches wait for their kernels: what counters say is true when nothing waits any more.
    fn settle(&self) {
        self.device.synchronize().unwrap();
    }

    /// What was launched so far does not count.
    pub fn start(&self) {
        self.settle();
        self.emulator.reset();
        self.device.cost_log(|log| log.take());
    }

    /// An op forward and backward; gradients go to the inputs of the shapes `inputs`, not to `constants`.
    pub fn op(
        &self,
        inputs: &[&[usize]],
        constants: Vec<Tensor>,
        op: impl Fn(&Tape, &[Var]) -> Result<Var>,
    ) -> Result<()> {
        let tape = Tape::new(&self.device, Mode::Train);
        let mut vars = Vec::new();
        for shape in inputs {
            vars.push(tape.input(self.tensor(shape)?));
        }
        vars.extend(constants.into_iter().map(|tensor| tape.constant(tensor)));
        self.both_ways(&tape, &vars, op)
    }

    /// The same in another precision: the first input is stored in it.
    pub fn op_in(
        &self,
        precision: Precision,
        inputs: &[&[usize]],
        op: impl Fn(&Tape, &[Var]) -> Result<Var>,
    ) -> Result<()> {
        let tape = Tape::new(&self.device, Mode::Train).with_precision(precision);
        let mut vars = Vec::new();
        for (i, shape) in inputs.iter().enumerate() {
            let dtype = if i == 0 { precision.storage() } else { DType::F32 };
            vars.push(tape.input(self.stored(self.tensor(shape)?, dtype)?));
        }
        self.both_ways(&tape, &vars, op)
    }

    /// In this storage type.
    fn stored(&self, x: Tensor, dtype: DType) -> Result<Tensor> {
        let tape = Tape::new(&self.device, Mode::Eval);
        Ok(cast(&tape, &tape.constant(x), dtype)?.tensor())
    }

    fn both_ways(&self, tape: &Tape, vars: &[Var], op: impl Fn(&Tape, &[Var]) -> Result<Var>) -> Result<()> {
        self.start();
        let y = op(tape, vars)?;
        self.settle();
        let forward = self.emulator.counters();
        assert!(!forward.is_empty(), "nothing was launched");
        // The output's gradient is made between the passes: in f32 it launches nothing.
        let dy = self.stored(self.tensor(y.shape())?, y.dtype())?;
        tape.pull(vec![(y, dy)])
    }
}

/// A line for each kernel of the case, and one for the op.
pub fn measure(case: &Case, resources: &Table) -> Vec<Row> {
    let emulator = cuemu::preload().unwrap();
    emulator.configure(Config { traffic: true, footprint: true, threads: 2, ..Config::default() });
    let bench = Bench { device: Device::cuda(0, 1 << 30).unwrap(), emulator };
    bench.device.cost_log(|log| log.record(true));
    (case.run)(&bench).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    bench.settle();
    let stated: u64 = bench.device.cost_log(|log| log.take()).iter().map(|work| work.bytes).sum();
    let mut counters = emulator.counters();
    counters.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    counters.retain(|kernel| case.only.is_empty() || case.only.contains(&kernel.kernel.as_str()));
    let mut rows = Vec::new();
    let (mut launches, mut all_moved, mut all_touched, mut flops, mut instructions) = (0u64, 0u64, 0u64, 0u64, 0u64);
    for kernel in &counters {
        let traffic = &kernel.traffic;
        let sectors = traffic.loads.sectors + traffic.stores.sectors;
        let asked = traffic.loads.bytes + traffic.stores.bytes;
        let (moved, touched) = (32 * sectors, traffic.loaded + traffic.stored);
        launches += kernel.launches;
        all_moved += moved;
        all_touched += touched;
        flops += kernel.flops();
        instructions += kernel.warp_instructions;
        let of = resources.rows().find(|row| row.get("kernel") == kernel.kernel);
        let of = of.unwrap_or_else(|| {
            panic!("{} is not in kernels/resources.tsv; scripts/kernel_resources.py", kernel.kernel)
        });
        let figures = [
            kernel.launches.to_string(),
            moved.to_string(),
            touched.to_string(),
            ratio(moved, touched),
            "-".into(),
            format!("{:.2}", sectors as f64 * 128.0 / asked.max(1) as f64),
            traffic.bank_conflicts().to_string(),
            kernel.local_bytes.to_string(),
            kernel.flops().to_string(),
            kernel.warp_instructions.to_string(),
            of.get("threads").into(),
            of.get("registers sm_90").into(),
            of.get("shared").into(),
            of.get("occupancy % sm_90").into(),
        ];
        rows.push(Row { names: vec![case.name.into(), kernel.kernel.clone()], figures: figures.to_vec() });
    }
    if stated > 0 && case.only.is_empty() {
        let mut figures = vec![launches.to_string(), all_moved.to_string(), all_touched.to_string()];
        figures.extend([ratio(all_moved, all_touched), stated.to_string()]);
        figures.extend(["-"; 3].map(String::from));
        figures.extend([flops.to_string(), instructions.to_string()]);
        figures.extend(["-"; 4].map(String::from));
        rows.push(Row { names: vec![case.name.into(), "(op)".into()], figures });
    }
    rows
}

fn ratio(a: u64, b: u64) -> String {
    format!("{:.2}", a as f64 / b.max(1) as f64)
}
