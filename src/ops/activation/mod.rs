//! Activations: `y = f(x)`, element by element.
//!
//! * [`Activation::Pade`], the learnable Padé unit `F(x) = P(x)/Q(x)`, `Q(x) = 1 + Σ |d_j||x|^{j+1}` (Molina, Schramowski,
//!   Kersting, *Padé Activation Units*, 2020); formulas and the treatment of large arguments are in `pade.rs`.
//! * The usual ones, as PyTorch defines them.
//!
//! Gradients: `dx = dy·f'(x)`, `dc_k = Σ dy·∂f/∂c_k`; the sums are f32 over a few thousand terms, f64 beyond. Only `x` is
//! kept: values and slopes are recomputed in the backward pass, in the gradient's own buffer.
//! Work: about two FLOPs a coefficient forward, twice that backward; `x` and `y` move once.

mod cpu;
mod derivatives;
mod name;
mod pade;
mod scalar_fn;
mod standard;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use scalar_fn::{BoundActivation, CoefficientSums};

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::norm_act::cuda;
use crate::ops::{Cost, Needs, Op, workspace};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

/// A function of one variable, with learnt coefficients or without.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Padé unit; the orders are those of the polynomials: 5/4, 3/3, 4/4, 5/5, 6/6, 7/7 or 8/8. Learnt.
    Pade {
        /// Order of the numerator.
        numerator: usize,
        /// Order of the denominator.
        denominator: usize,
    },
    /// `max(x, 0)`.
    Relu,
    /// `x` if positive, else `slope·x`.
    LeakyRelu(f32),
    /// Leaky rectifier with a learnt slope.
    PRelu,
    /// Scaled exponential linear unit (Klambauer et al. 2017).
    Selu,
    /// `x·σ(x)`, also called SiLU.
    Swish,
    /// `ln(1 + e^x)`.
    Softplus,
    /// `tanh x`.
    Tanh,
    /// `σ(x) = 1/(1 + e^−x)`.
    Sigmoid,
    /// `x`.
    #[default]
    Identity,
}

/// Numerator and denominator coefficients.
type Coefficients = (&'static [f32], &'static [f32]);

/// Leaky ReLU (slope 0.01) on [−3, 3] as Padé units: 5/4 as published with OSS-Net, the others by
/// `python3 scripts/fit_pade.py`, which prints these lines.
const LEAKY_RELU_FITS: [((usize, usize), Coefficients); 7] = [
    (
        (5, 4),
        (
            &[3.355_836e-2, 5.050_003_6e-1, 1.653_439_3, 2.010_010_5, 9.319_02e-1, 1.524_241_2e-1],
            &[3.308_474_8e-6, 3.980_215_8, 5.124_712e-7, 3.018_301e-1],
        ),
    ),
    // rms error 3.3e-02
    (
        (3, 3),
        (&[1.100_576_9e-1, 6.311_583e-1, 6.036_258_3e-1, 1.507_896_5e-1], &[3.140_764_5e-1, 2.136_478e-1, 1.0e-6]),
    ),
    // rms error 1.2e-02
    (
        (4, 4),
        (
            &[5.495_543e-2, 5.969_376e-1, 1.182_724_7, 7.720_572_4e-1, 1.470_997_6e-1],
            &[4.384_573e-1, 1.291_086_3, 1.0e-6, 1.389_539_7e-2],
        ),
    ),
    // rms error 5.0e-03
    (
        (5, 5),
        (
            &[2.979_726_7e-2, 6.183_759_6e-1, 2.322_953_7, 3.050_987_7, 1.484_724_3, 2.508_673_4e-1],
            &[1.141_803_6, 4.391_751_3, 8.710_913_7e-1, 3.469_732_7e-1, 1.0e-6],
        ),
    ),
    // rms error 2.2e-03
    (
        (6, 6),
        (
            &[1.682_073_4e-2, 6.168_118e-1, 4.103_280_5, 9.745_982, 9.241_776, 3.905_452, 5.607_292_7e-1],
            &[1.937_989, 1.450_147_7e1, 4.423_373, 6.298_096, 1.0e-6, 4.898_083_6e-2],
        ),
    ),
    // rms error 1.1e-03
    (
        (7, 7),
        (
            &[
                1.054_656_8e-2,
                6.258_427_5e-1,
                6.768_841,
                2.653_251e1,
                4.301_278_3e1,
                3.394_276e1,
                1.181_076_6e1,
                1.579_504_6,
            ],
            &[3.578_759_2, 3.683_819e1, 2.798_016_7e1, 4.452_894_2e1, 8.312_407, 2.013_260_4, 1.0e-6],
        ),
    ),
    // rms error 8.8e-04
    (
        (8, 8),
        (
            &[
                1.093_187_5e-2,
                5.833_388_6e-1,
                6.272_087,
                2.596_557_4e1,
                4.727_060_7e1,
                4.531_055_5e1,
                2.174_350_4e1,
                5.377_197_3,
                4.982_396e-1,
            ],
            &[
                2.559_146,
                3.838_268_7e1,
                2.864_138_4e1,
                5.872_486_5e1,
                1.723_825_6e1,
                5.938_999_7,
                4.993_890_8e-1,
                1.0e-6,
            ],
        ),
    ),
];

impl Activation {
    /// The Padé unit that OSS-Net uses.
    pub const PADE: Self = Activation::Pade { numerator: 5, denominator: 4 };

    /// Initial values of the learnt parameters: numerator `[m + 1]` and denominator `[n]` (a leaky ReLU's fit), or the
    /// slope `[1]` (0.25, as PyTorch). Empty if nothing is learnt.
    ///
    /// # Errors
    /// [`Error::Model`] for Padé orders that are not offered.
    pub fn initial_parameters(self) -> Result<Vec<Vec<f32>>> {
        match self {
            Activation::Pade { numerator, denominator } => {
                let (n, d) = pade_fit(numerator, denominator)?;
                Ok(vec![n.to_vec(), d.to_vec()])
            }
            Activation::PRelu => Ok(vec![vec![0.25]]),
            _ => Ok(Vec::new()),
        }
    }

    /// Lengths of the learnt parameters, in the order that [`activation`] takes them.
    pub(crate) fn parameter_lengths(self) -> Vec<usize> {
        match self {
            Activation::Pade { numerator, denominator } => vec![numerator + 1, denominator],
            Activation::PRelu => vec![1],
            _ => Vec::new(),
        }
    }

    /// Number of learnt numbers.
    pub(crate) fn coefficients(self) -> usize {
        self.parameter_lengths().iter().sum()
    }

    /// Checks orders and the shapes of the parameters for the op `op`.
    pub(crate) fn check(self, op: &'static str, parameters: &[&[usize]]) -> Result<()> {
        if let Activation::Pade { numerator, denominator } = self {
            pade_fit(numerator, denominator)?;
        }
        let expected = self.parameter_lengths();
        let fits = parameters.len() == expected.len()
            && parameters.iter().zip(&expected).all(|(shape, &len)| **shape == [len]);
        match fits {
            true => Ok(()),
            false => Err(Error::shape(
                op,
                format!("{self:?} takes parameters of lengths {expected:?}, not of shapes {parameters:?}"),
            )),
        }
    }

    /// FLOPs of one value, as we count them: a polynomial's coefficients, or ten for an exponential.
    pub(crate) fn flops(self) -> u64 {
        match self {
            Activation::Identity => 0,
            Activation::Relu | Activation::LeakyRelu(_) | Activation::PRelu => 1,
            Activation::Pade { .. } => 2 * self.coefficients() as u64,
            _ => 10,
        }
    }
}

/// The fit for these orders.
fn pade_fit(numerator: usize, denominator: usize) -> Result<Coefficients> {
    LEAKY_RELU_FITS.iter().find(|(orders, _)| *orders == (numerator, denominator)).map(|(_, fit)| *fit).ok_or_else(
        || {
            Error::Model(format!(
                "no Padé unit of orders {numerator}/{denominator}; use 3/3, 4/4, 5/4, 5/5, 6/6, 7/7 or 8/8"
            ))
        },
    )
}

/// `y = f(x)`; `x` of any shape. `parameters`: see [`Activation::initial_parameters`].
///
/// # Errors
/// Parameters or Padé orders that do not fit, or no memory.
pub fn activation(tape: &Tape, x: &Var, function: Activation, parameters: &[&Var]) -> Result<Var> {
    if function == Activation::Identity && parameters.is_empty() {
        return Ok(x.clone());
    }
    let inputs: Vec<&Var> = std::iter::once(x).chain(parameters.iter().copied()).collect();
    tape.apply(Elementwise { function }, &inputs)
}

struct Elementwise {
    function: Activation,
}

impl Elementwise {
    /// The inputs of CUDA's kernels, which are those of normalisation with nothing but an activation.
    fn inputs<'a>(&self, x: &'a Tensor, parameters: &'a [&'a Tensor]) -> cuda::Inputs<'a> {
        let cut = cuda::Cut::flat(x.len());
        cuda::Inputs { cut, x: Some(x), vectors: [None; 3], before: None, activation: self.function, parameters }
    }
}

/// Adds `sums`, the coefficients' gradients one after the other, to the gradients of the inputs from `first` on.
pub(crate) fn write_coefficient_gradients(
    backward: &mut Backward<'_>,
    function: Activation,
    first: usize,
    sums: &[f32],
) -> Result<()> {
    let mut start = 0;
    for (i, len) in function.parameter_lengths().into_iter().enumerate() {
        backward.write_gradient(first + i, |device, gradient, accumulate| {
            if !device.is_plan() {
                for (gradient, &sum) in gradient.data_mut().iter_mut().zip(&sums[start..start + len]) {
                    *gradient = if accumulate { *gradient + sum } else { sum };
                }
            }
            Ok(())
        })?;
        start += len;
    }
    Ok(())
}

impl Op for Elementwise {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        self.function.check(self.name(), &inputs[1..])?;
        Ok(inputs[0].to_vec())
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let function =
                    BoundActivation::new(self.function, inputs[1..].iter().map(|parameter| parameter.data()));
                cpu::forward(pool, &function, inputs[0].data(), output.data_mut());
            }
            Backend::Cuda(cuda) => self.inputs(inputs[0], &inputs[1..]).forward(cuda, None, output)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let x = backward.value(0)?;
        let learnt = self.function.parameter_lengths().len();
        let parameters = (1..=learnt).map(|i| backward.value(i)).collect::<Result<Vec<_>>>()?;
        let mut gradient = backward.take_gradient()?;
        let device = backward.device().clone();
        let count = self.function.coefficients();
        let parameters: Vec<&Tensor> = parameters.iter().collect();
        let inputs = self.inputs(&x, &parameters);
        let size = match device.target() {
            Target::Cpu { .. } => cpu::backward_workspace(x.len(), count),
            Target::Cuda(_) => inputs.cut.workspace(count),
        };
        let mut scratch = workspace(&device, size)?;
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let function = BoundActivation::new(self.function, parameters.iter().map(|parameter| parameter.data()));
                cpu::backward(pool, &function, count, x.data(), gradient.data_mut(), scratch.data_mut());
            }
            Backend::Cuda(cuda) => inputs.first(cuda, None, Some(&mut gradient), false, &mut scratch)?,
            Backend::Plan { .. } => {}
        }
        match device.target() {
            Target::Cpu { .. } => write_coefficient_gradients(backward, self.function, 1, scratch.data())?,
            Target::Cuda(_) => {
                let of = cuda::Summed { beta: None, gamma: None, parameters: 1 };
                cuda::write_gradients(&inputs, backward, &device, of, false, &mut scratch)?;
            }
        }
        backward.accumulate(0, gradient)
    }

    fn needs(&self) -> Needs {
        let learnt = self.function.parameter_lengths().len();
        Needs::inputs(&(0..=learnt).collect::<Vec<_>>())
    }

    fn recompute(&self) -> bool {
        true
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let elements = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: elements * self.function.flops(), bytes: 8 * elements }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let elements = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: 2 * elements * self.function.flops(), bytes: 12 * elements }
    }
}
