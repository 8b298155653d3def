//! How an op is tested: against a naive twin in f64, on every device.
//!
//! [`check_op`] runs an op forward and backward and compares both with the twin: the output with the twin's, each
//! gradient with central differences of the twin. The twin is plain f64 code without any of the engine's parts.

use crate::device::cpu::{Pool, SimdLevel};
use crate::device::{Device, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::nn::Parameters;
use crate::tape::{Mode, Tape, Var};
use crate::tensor::Tensor;

pub use cuda::{assert_clean, cuda_device};
pub use dot::dot;

#[path = "../../tests/common/cuda.rs"]
mod cuda;
#[path = "../../tests/common/dot.rs"]
mod dot;

/// A tensor of a test: shape and elements.
#[derive(Clone, Debug)]
pub struct Array {
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// Elements in C order.
    pub data: Vec<f64>,
}

impl Array {
    /// Uniform numbers in `[-1, 1)` that depend on `seed` only; representable in f32.
    pub fn random(shape: &[usize], seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
        let data = (0..shape.iter().product())
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                f64::from(((state >> 40) as f32 / (1u64 << 24) as f32) * 2.0 - 1.0)
            })
            .collect();
        Self { shape: shape.to_vec(), data }
    }

    /// Element-wise map (results rounded to f32).
    pub fn map(mut self, f: impl Fn(f64) -> f64) -> Self {
        self.data.iter_mut().for_each(|x| *x = f64::from(f(*x) as f32));
        self
    }

    /// The elements in f32.
    pub fn f32s(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }
}

/// Every CPU device that tests run on: each instruction set, with one and with two threads. None if
/// `OSSNET_TEST_DEVICES=cuda` leaves CUDA only, for a machine with a GPU or a change of kernels.
pub fn devices() -> Vec<Device> {
    let mut devices = Vec::new();
    if std::env::var("OSSNET_TEST_DEVICES").is_ok_and(|wish| wish == "cuda") {
        return devices;
    }
    for simd in SimdLevel::available() {
        for threads in [1, 2] {
            devices.push(Device::cpu_with_pool(Pool::start_with_simd(threads, simd).unwrap(), 1 << 30).unwrap());
        }
    }
    devices
}

/// [`devices`], then a CUDA device twice, with blocks in two orders; [`assert_clean`] is to follow its use.
pub fn every_device() -> impl Iterator<Item = Device> {
    devices().into_iter().chain([0, 1].into_iter().filter_map(cuda_device))
}

/// Devices of one kind must agree to the bit: a CPU whatever its threads, a CUDA device whatever the order of blocks.
pub fn kind(device: &Device) -> Target {
    match device.target() {
        Target::Cpu { simd, .. } => Target::Cpu { threads: 0, simd },
        target @ Target::Cuda(_) => target,
    }
}

/// Tolerances of [`check_op`], relative to the largest magnitude of what is compared.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Of the output.
    pub forward: f64,
    /// Of each gradient.
    pub backward: f64,
}

/// Runs `op` on `inputs` on every device and compares output and gradients with `twin`.
///
/// `op` gets the inputs as vars; `twin` gets them as arrays and returns the output. Gradients are those of the output's
/// product with fixed random numbers, for each input that `differentiable` names, at up to 48 elements each.
/// All devices of one instruction set must agree to the bit, and a plan of each must allocate exactly what it did.
pub fn check_op(
    inputs: &[Array],
    differentiable: &[usize],
    tolerance: Tolerance,
    op: impl Fn(&Tape, &[Var]) -> Result<Var>,
    twin: impl Fn(&[Array]) -> Array,
) {
    let expected = twin(inputs);
    let weights = Array::random(&expected.shape, 0xC0FFEE);
    let project = |array: &Array| -> f64 { array.data.iter().zip(&weights.data).map(|(a, b)| a * b).sum() };
    let mut earlier: Option<(Target, Vec<Vec<f32>>)> = None;
    for device in every_device() {
        device.ledger(|ledger| ledger.record(true));
        let Run { output, gradients } = run(&device, inputs, differentiable, &weights, &op).unwrap();
        let events = device.ledger(|ledger| ledger.take_events());
        assert_clean();
        assert_eq!(output.0, expected.shape, "output shape");
        compare(&format!("{device:?}: output"), &output.1, &expected.data, tolerance.forward);
        for (gradient, &i) in gradients.iter().zip(differentiable) {
            let stride = (gradient.len() / 48).max(1);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for element in (0..gradient.len()).step_by(stride) {
                let step = 1e-5;
                let at = |delta: f64| {
                    let mut moved = inputs.to_vec();
                    moved[i].data[element] += delta;
                    project(&twin(&moved))
                };
                theirs.push((at(step) - at(-step)) / (2.0 * step));
                ours.push(gradient[element]);
            }
            compare(&format!("{device:?}: gradient of input {i}"), &ours, &theirs, tolerance.backward);
        }
        let plan = Device::plan_for(device.target(), device.budget());
        plan.ledger(|ledger| ledger.record(true));
        run(&plan, inputs, differentiable, &weights, &op).unwrap();
        assert!(plan.ledger(|ledger| ledger.take_events()) == events, "{device:?}: plan and run allocate differently");
        let kind = kind(&device);
        let results = [vec![output.1], gradients].concat();
        if let Some((other, earlier)) = &earlier
            && *other == kind
        {
            assert_eq!(
                earlier, &results,
                "{kind:?}: the number of threads, or the order of blocks, changes the result"
            );
        }
        earlier = Some((kind, results));
    }
}

/// Runs `op` on a CUDA device in two orders of blocks: equal to the bit, the CPU's output and gradients within `tolerance`,
/// allocations as planned. For sizes that finite differences would take too long for.
pub fn check_cuda(
    inputs: &[Array],
    differentiable: &[usize],
    tolerance: Tolerance,
    op: impl Fn(&Tape, &[Var]) -> Result<Var>,
) {
    let cpu = Device::cpu(1, 1 << 30).unwrap();
    let mut earlier: Option<Run> = None;
    for seed in [0, 1] {
        let Some(device) = cuda_device(seed) else { return };
        device.ledger(|ledger| ledger.record(true));
        let mut weights = Array { shape: Vec::new(), data: Vec::new() };
        let mut pass = |device: &Device| {
            if weights.data.is_empty() {
                let tape = Tape::new(&Device::plan_for(device.target(), 1 << 30), Mode::Train);
                let zeros = |array: &Array| Tensor::zeros(tape.device(), &array.shape, Role::Data).unwrap();
                let vars: Vec<Var> = inputs.iter().map(|array| tape.input(zeros(array))).collect();
                weights = Array::random(op(&tape, &vars).unwrap().shape(), 0xC0FFEE);
            }
            run(device, inputs, differentiable, &weights, &op).unwrap()
        };
        let ours = pass(&device);
        let events = device.ledger(|ledger| ledger.take_events());
        assert_clean();
        let plan = Device::plan_for(device.target(), device.budget());
        plan.ledger(|ledger| ledger.record(true));
        pass(&plan);
        assert!(plan.ledger(|ledger| ledger.take_events()) == events, "plan and run allocate differently");
        match &earlier {
            Some(earlier) => assert!(*earlier == ours, "the order of blocks changes the result"),
            None => {
                let theirs = pass(&cpu);
                let exact = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                compare("output", &ours.output.1, &exact(&theirs.output.1), tolerance.forward);
                for ((ours, theirs), i) in ours.gradients.iter().zip(&theirs.gradients).zip(differentiable) {
                    compare(&format!("gradient of input {i}"), ours, &exact(theirs), tolerance.backward);
                }
            }
        }
        earlier = Some(ours);
    }
}

/// What one forward and backward pass leave.
#[derive(PartialEq)]
struct Run {
    output: (Vec<usize>, Vec<f32>),
    gradients: Vec<Vec<f32>>,
}

/// One training step of `op` on `device` with the loss `Σ output·weights`.
fn run(
    device: &Device,
    inputs: &[Array],
    differentiable: &[usize],
    weights: &Array,
    op: impl Fn(&Tape, &[Var]) -> Result<Var>,
) -> Result<Run> {
    let tensor = |array: &Array| Tensor::from_slice(device, &array.shape, Role::Data, &array.f32s()).unwrap();
    let tape = Tape::new(device, Mode::Train);
    let vars: Vec<Var> = inputs.iter().map(|array| tape.input(tensor(array))).collect();
    let y = op(&tape, &vars)?;
    let output = (y.shape().to_vec(), y.tensor().to_vec()?);
    let loss = dot(&tape, &y, tensor(weights))?;
    drop(y);
    tape.backward(loss, &mut Parameters::new(device))?;
    let gradient = |&i: &usize| tape.gradient(&vars[i]).unwrap_or_else(|| panic!("no gradient for input {i}")).to_vec();
    Ok(Run { output, gradients: differentiable.iter().map(gradient).collect::<Result<_>>()? })
}

/// Fails if any element differs by more than `tolerance` times the largest expected magnitude.
pub fn compare(what: &str, ours: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), expected.len(), "{what}: lengths");
    let scale = expected.iter().fold(1e-12f64, |max, x| max.max(x.abs()));
    for (i, (&a, &b)) in ours.iter().zip(expected).enumerate() {
        let error = (f64::from(a) - b).abs() / scale;
        assert!(error <= tolerance, "{what}[{i}] = {a}, expected {b}: off by {error:.2e} of {scale:.3e}");
    }
}

/// Fails unless `op` refuses inputs of these shapes with an error that begins with its `name`.
pub fn refused(name: &str, shapes: &[&[usize]], op: impl Fn(&Tape, &[Var]) -> Result<Var>) {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let inputs = shapes.iter().map(|shape| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap()));
    match op(&tape, &inputs.collect::<Vec<_>>()) {
        Ok(y) => panic!("{name} took {shapes:?} and gave {:?}", y.shape()),
        Err(error) => assert!(error.to_string().starts_with(&format!("{name}: ")), "{error}"),
    }
}
