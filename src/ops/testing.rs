//! How an op is tested: against a naive twin in f64, on every device.
//!
//! [`check_op`] runs an op forward and backward and compares both with the twin: the output with the twin's, each
//! gradient with central differences of the twin. The twin is plain f64 code without any of the engine's parts.
//! [`check_bf16`] does the same for tensors stored in bf16.

use half::bf16;

use crate::device::cpu::{Pool, SimdLevel};
use crate::device::{Device, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::nn::Parameters;
use crate::ops::activation::Activation;
use crate::ops::cast;
use crate::tape::{Mode, Precision, Tape, Var};
use crate::tensor::{DType, Tensor};

pub use cuda::{assert_clean, counting_device, cuda_device};
pub use dot::dot;

#[path = "../../tests/common/cuda.rs"]
mod cuda;
#[path = "../../tests/common/dot.rs"]
mod dot;

/// Every activation but Padé units.
pub const CLASSIC_ACTIVATIONS: [Activation; 9] = [
    Activation::Relu,
    Activation::LeakyRelu(0.1),
    Activation::PRelu,
    Activation::Selu,
    Activation::Swish,
    Activation::Softplus,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::Identity,
];

/// Occupancy networks that take part where one of each kind must: with the feature `exhaustive` the official twelve, else four
/// of them, in which every part of the networks is once there and once not.
pub fn oss_nets() -> Vec<&'static str> {
    let published = |name: &&str| name.contains("o-net") || name.contains("oss-net");
    match cfg!(feature = "exhaustive") {
        true => crate::models::config::names().into_iter().filter(|name| !published(name)).collect(),
        false => vec!["vanilla_o_net", "C2", "D2", "E1"],
    }
}

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

    /// The nearest numbers of bf16.
    pub fn in_bf16(&self) -> Self {
        let data = self.data.iter().map(|&x| bf16::from_f64(x).to_f64()).collect();
        Self { shape: self.shape.clone(), data }
    }

    /// The elements in f32.
    pub fn f32s(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }
}

/// Bytes of a device. Miri fills them, and is slow.
const BUDGET: u64 = if cfg!(miri) { 1 << 22 } else { 1 << 30 };

/// Every CPU device that tests run on: each instruction set, with one and with two threads. None if
/// `OSSNET_TEST_DEVICES=cuda` leaves CUDA only, for a machine with a GPU or a change of kernels.
pub fn devices() -> Vec<Device> {
    let mut devices = Vec::new();
    if std::env::var("OSSNET_TEST_DEVICES").is_ok_and(|wish| wish == "cuda") {
        return devices;
    }
    for simd in SimdLevel::available() {
        for threads in [1, 2] {
            devices.push(Device::cpu_with_pool(Pool::start_with_simd(threads, simd).unwrap(), BUDGET).unwrap());
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

/// The op under test: not generic, for hundreds of tests would each compile all that is below.
type Op<'a> = &'a dyn Fn(&Tape, &[Var]) -> Result<Var>;

/// What it is compared with.
type Twin<'a> = &'a dyn Fn(&[Array]) -> Array;

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
    check_op_and_twin(inputs, differentiable, tolerance, &op, &twin);
}

fn check_op_and_twin(inputs: &[Array], differentiable: &[usize], tolerance: Tolerance, op: Op, twin: Twin) {
    let expected = twin(inputs);
    let weights = Array::random(&expected.shape, 0xC0FFEE);
    let elements = |i: usize| (0..inputs[i].data.len()).step_by((inputs[i].data.len() / 48).max(1));
    let of_twin = |&i: &usize| elements(i).map(|element| slope(inputs, (i, element), &weights, twin)).collect();
    let slopes: Vec<Vec<f64>> = differentiable.iter().map(of_twin).collect();
    let mut earlier: Option<(Target, Vec<Vec<f32>>)> = None;
    for device in every_device() {
        device.ledger(|ledger| ledger.record(true));
        let Run { output, gradients } = run(&device, inputs, differentiable, &weights, op).unwrap();
        let events = device.ledger(|ledger| ledger.take_events());
        assert_clean();
        assert_eq!(output.0, expected.shape, "output shape");
        compare(&format!("{device:?}: output"), &output.1, &expected.data, tolerance.forward);
        for ((gradient, slopes), &i) in gradients.iter().zip(&slopes).zip(differentiable) {
            assert_eq!(gradient.len(), inputs[i].data.len(), "{device:?}: gradient of input {i}");
            let ours: Vec<f32> = elements(i).map(|element| gradient[element]).collect();
            compare(&format!("{device:?}: gradient of input {i}"), &ours, slopes, tolerance.backward);
        }
        let plan = Device::plan_for(device.target(), device.budget());
        plan.ledger(|ledger| ledger.record(true));
        run(&plan, inputs, differentiable, &weights, op).unwrap();
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
    check_on_cuda(inputs, differentiable, tolerance, &op);
}

fn check_on_cuda(inputs: &[Array], differentiable: &[usize], tolerance: Tolerance, op: Op) {
    let cpu = Device::cpu(1, BUDGET).unwrap();
    let mut earlier: Option<Run> = None;
    for seed in [0, 1] {
        let Some(device) = cuda_device(seed) else { return };
        device.ledger(|ledger| ledger.record(true));
        let mut weights = Array { shape: Vec::new(), data: Vec::new() };
        let mut pass = |device: &Device| {
            if weights.data.is_empty() {
                let tape = Tape::new(&Device::plan_for(device.target(), BUDGET), Mode::Train);
                let zeros = |array: &Array| Tensor::zeros(tape.device(), &array.shape, Role::Data).unwrap();
                let vars: Vec<Var> = inputs.iter().map(|array| tape.input(zeros(array))).collect();
                weights = Array::random(op(&tape, &vars).unwrap().shape(), 0xC0FFEE);
            }
            run(device, inputs, differentiable, &weights, op).unwrap()
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

/// Runs `op` in bf16 on a CUDA device, in two orders of blocks, with the inputs `stored` in bf16 and the others in f32, and
/// compares output and gradients with the CPU's in f32; allocations as planned. All inputs are numbers of bf16.
///
/// What is stored in bf16 may be off by twice what rounding the exact result makes, for that is the least that a computation
/// with intermediate results in bf16 is off by; and by `tolerance`, as what is stored in f32 and as the CPU's results are.
pub fn check_bf16(
    inputs: &[Array],
    stored: &[usize],
    differentiable: &[usize],
    tolerance: Tolerance,
    op: impl Fn(&Tape, &[Var]) -> Result<Var>,
) {
    check_in_bf16(inputs, stored, differentiable, tolerance, &op);
}

fn check_in_bf16(inputs: &[Array], stored: &[usize], differentiable: &[usize], tolerance: Tolerance, op: Op) {
    let inputs: Vec<Array> = inputs.iter().map(Array::in_bf16).collect();
    let pass = |device: &Device, precision: Precision| -> Result<Vec<Stored>> {
        let tape = Tape::new(device, Mode::Train).with_precision(precision);
        let var = |(i, array): (usize, &Array)| match stored.contains(&i) && precision == Precision::Bf16 {
            true => {
                let values: Vec<bf16> = array.data.iter().map(|&x| bf16::from_f64(x)).collect();
                Tensor::from_typed(device, &array.shape, DType::Bf16, Role::Data, &values).map(|x| tape.input(x))
            }
            false => Tensor::from_slice(device, &array.shape, Role::Data, &array.f32s()).map(|x| tape.input(x)),
        };
        let vars = inputs.iter().enumerate().map(var).collect::<Result<Vec<_>>>()?;
        let y = op(&tape, &vars)?;
        let mut results = vec![Stored::of(&y.tensor())?];
        let wide = cast(&tape, &y, DType::F32)?;
        drop(y);
        let weights = Array::random(wide.shape(), 0xC0FFEE).in_bf16().f32s();
        let loss = dot(&tape, &wide, Tensor::from_slice(device, wide.shape(), Role::Data, &weights)?)?;
        drop(wide);
        tape.backward(loss, &mut Parameters::new(device))?;
        for &i in differentiable {
            results.push(Stored::of(&tape.gradient(&vars[i]).unwrap_or_else(|| panic!("no gradient for input {i}")))?);
        }
        Ok(results)
    };
    let expected = pass(&Device::cpu(1, BUDGET).unwrap(), Precision::F32).unwrap();
    let mut earlier = None;
    for seed in [0, 1] {
        let Some(device) = cuda_device(seed) else { return };
        device.ledger(|ledger| ledger.record(true));
        let ours = pass(&device, Precision::Bf16).unwrap();
        let events = device.ledger(|ledger| ledger.take_events());
        assert_clean();
        let plan = Device::plan_for(device.target(), device.budget());
        plan.ledger(|ledger| ledger.record(true));
        pass(&plan, Precision::Bf16).unwrap();
        assert!(plan.ledger(|ledger| ledger.take_events()) == events, "plan and run allocate differently");
        if let Some(earlier) = &earlier {
            assert!(*earlier == ours, "the order of blocks changes the result");
            continue;
        }
        for (n, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
            let (what, tolerance) = match n {
                0 => ("the output".to_string(), tolerance.forward),
                n => (format!("the gradient of input {}", differentiable[n - 1]), tolerance.backward),
            };
            ours.compare(&what, &expected.values, tolerance);
        }
        earlier = Some(ours);
    }
}

/// The central difference of `Σ twin·weights` in one element of one input.
fn slope(inputs: &[Array], (input, element): (usize, usize), weights: &Array, twin: Twin) -> f64 {
    let step = 1e-5;
    let at = |delta: f64| {
        let mut moved = inputs.to_vec();
        moved[input].data[element] += delta;
        twin(&moved).data.iter().zip(&weights.data).map(|(a, b)| a * b).sum::<f64>()
    };
    (at(step) - at(-step)) / (2.0 * step)
}

/// Elements read back, and what they were stored in.
#[derive(PartialEq)]
struct Stored {
    values: Vec<f32>,
    dtype: DType,
}

impl Stored {
    fn of(tensor: &Tensor) -> Result<Self> {
        let values = match tensor.dtype() {
            DType::Bf16 => tensor.to_typed::<bf16>()?.into_iter().map(bf16::to_f32).collect(),
            _ => tensor.to_vec()?,
        };
        Ok(Self { values, dtype: tensor.dtype() })
    }

    fn compare(&self, what: &str, expected: &[f32], tolerance: f64) {
        let largest = |errors: &mut dyn Iterator<Item = f32>| errors.fold(0.0, f32::max);
        let scale = largest(&mut expected.iter().map(|x| x.abs()));
        let rounding = match self.dtype {
            DType::Bf16 => largest(&mut expected.iter().map(|&x| (bf16::from_f32(x).to_f32() - x).abs())),
            _ => 0.0,
        };
        assert_eq!(self.values.len(), expected.len(), "{what}");
        assert!(self.values.iter().all(|x| x.is_finite()), "{what} is not finite");
        let error = largest(&mut self.values.iter().zip(expected).map(|(a, b)| (a - b).abs()));
        let bound = f64::from(2.0 * rounding) + tolerance * f64::from(scale);
        assert!(f64::from(error) <= bound, "{what}: off by {error:.2e} of {scale:.2e}; roundings are {rounding:.2e}");
    }
}

/// What one forward and backward pass leave.
#[derive(PartialEq)]
struct Run {
    output: (Vec<usize>, Vec<f32>),
    gradients: Vec<Vec<f32>>,
}

/// One training step of `op` on `device` with the loss `Σ output·weights`.
fn run(device: &Device, inputs: &[Array], differentiable: &[usize], weights: &Array, op: Op) -> Result<Run> {
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
    refuses(name, shapes, &op);
}

fn refuses(name: &str, shapes: &[&[usize]], op: Op) {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let inputs = shapes.iter().map(|shape| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap()));
    match op(&tape, &inputs.collect::<Vec<_>>()) {
        Ok(y) => panic!("{name} took {shapes:?} and gave {:?}", y.shape()),
        Err(error) => assert!(error.to_string().starts_with(&format!("{name}: ")), "{error}"),
    }
}
