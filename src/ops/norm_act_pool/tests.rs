use super::{NAME, norm_act_pool};
use crate::device::Device;
use crate::memory::Role;
use crate::nn::Parameters;
use crate::ops::activation::Activation;
use crate::ops::activation::tests::value;
use crate::ops::moments::{Grouping, moments};
use crate::ops::testing::{
    Array, Tolerance, assert_clean, check_bf16, check_cuda, check_op, counting_device, cuda_device, dot, every_device,
};
use crate::ops::{NormActArgs, avg_pool, cast, norm_act};
use crate::tape::{Mode, Precision, Tape, Var};
use crate::tensor::{DType, Tensor};

const EPSILON: f32 = 1e-3;

#[derive(Clone, Copy, Debug)]
struct Case {
    shape: [usize; 5],
    /// Statistics of the batch, or given ones.
    training: bool,
    activation: Activation,
    /// What `x` is multiplied by.
    spread: f64,
}

const CASE: Case = Case { shape: [2, 4, 5, 6, 8], training: true, activation: Activation::PADE, spread: 2.0 };

/// As of `norm_act`, whose sums are the same; the mean of eight cancels by three more.
const TOLERANCE: Tolerance = Tolerance { forward: 4e-6, backward: 4e-5 };

impl Case {
    fn channels(&self) -> usize {
        self.shape[4]
    }

    /// `x`, given statistics, scale, shift, parameters.
    fn inputs(&self) -> Vec<Array> {
        let channels = self.channels();
        let mut statistics = Array::random(&[2, channels], 2);
        statistics.data[channels..].iter_mut().for_each(|variance| *variance = variance.abs() + 0.5);
        let mut inputs = vec![
            Array::random(&self.shape, 6).map(|x| self.spread * x + 0.3),
            statistics,
            Array::random(&[channels], 3).map(|x| x + 1.5),
            Array::random(&[channels], 4),
        ];
        let mut parameters = self.activation.initial_parameters().unwrap();
        if let Activation::Pade { .. } = self.activation {
            // Away from the corner of |d| at zero, and of both signs.
            parameters[1].iter_mut().enumerate().for_each(|(j, d)| *d = if j % 2 == 1 { -*d - 0.1 } else { *d + 0.1 });
        }
        inputs.extend(
            parameters.iter().map(|p| Array { shape: vec![p.len()], data: p.iter().map(|&p| f64::from(p)).collect() }),
        );
        inputs
    }

    /// Statistics have no gradient: given ones are constants, others belong to `x`.
    fn differentiable(&self) -> Vec<usize> {
        (0..self.inputs().len()).filter(|&i| i != 1).collect()
    }

    fn run(
        &self,
        tape: &Tape,
        v: &[Var],
        op: impl Fn(&Tape, &Var, &NormActArgs<'_>) -> crate::Result<Var>,
    ) -> crate::Result<Var> {
        let statistics = match self.training {
            true => moments(tape, &v[0], Grouping::Channel)?,
            false => tape.constant(v[1].tensor()),
        };
        let parts = NormActArgs {
            statistics: Some((&statistics, Grouping::Channel)),
            through_statistics: self.training,
            epsilon: EPSILON,
            gamma: Some(&v[2]),
            beta: Some(&v[3]),
            activation: self.activation,
            parameters: &v[4..].iter().collect::<Vec<_>>(),
            ..NormActArgs::default()
        };
        op(tape, &v[0], &parts)
    }

    fn fused(&self, tape: &Tape, v: &[Var]) -> crate::Result<Var> {
        self.run(tape, v, norm_act_pool)
    }

    /// The op by definition, in f64.
    fn twin(&self, inputs: &[Array]) -> Array {
        let [batch, d, h, w, channels] = self.shape;
        let x = &inputs[0].data;
        let (mut means, mut variances) = (vec![0.0; channels], vec![0.0; channels]);
        if self.training {
            let count = (x.len() / channels) as f64;
            x.iter().enumerate().for_each(|(i, x)| means[i % channels] += x / count);
            x.iter()
                .enumerate()
                .for_each(|(i, x)| variances[i % channels] += (x - means[i % channels]).powi(2) / count);
        } else {
            means.copy_from_slice(&inputs[1].data[..channels]);
            variances.copy_from_slice(&inputs[1].data[channels..]);
        }
        let shape = vec![batch, d / 2, h / 2, w / 2, channels];
        let mut data = vec![0.0; shape.iter().product()];
        for (i, y) in data.iter_mut().enumerate() {
            let (c, voxel) = (i % channels, i / channels);
            let at = [voxel / (w / 2) / (h / 2) % (d / 2), voxel / (w / 2) % (h / 2), voxel % (w / 2)];
            let item = voxel / shape[1..4].iter().product::<usize>();
            for m in 0..8 {
                let [a, b, e] = [2 * at[0] + m / 4, 2 * at[1] + m / 2 % 2, 2 * at[2] + m % 2];
                let x = x[(((item * d + a) * h + b) * w + e) * channels + c];
                let normal = (x - means[c]) / (variances[c] + f64::from(EPSILON)).sqrt();
                let v = inputs[2].data[c] * normal + inputs[3].data[c];
                *y += value(self.activation, &inputs[4..], v) / 8.0;
            }
        }
        Array { shape, data }
    }

    fn check(&self) {
        check_op(&self.inputs(), &self.differentiable(), TOLERANCE, |tape, v| self.fused(tape, v), |a| self.twin(a));
    }
}

#[test]
fn even_and_odd_sides_with_own_and_given_statistics() {
    // Channels in fours have a kernel, others take the way of the two ops on CUDA.
    for shape in [[2, 4, 5, 6, 8], [1, 2, 2, 2, 4], [1, 3, 5, 7, 4], [2, 2, 3, 4, 3]] {
        for training in [true, false] {
            Case { shape, training, ..CASE }.check();
        }
    }
}

#[test]
fn activations() {
    for activation in [Activation::Swish, Activation::PRelu, Activation::Pade { numerator: 4, denominator: 4 }] {
        Case { activation, ..CASE }.check();
    }
}

#[test]
fn many_blocks_and_the_most_channels_of_the_cpu() {
    // 3·17·9 windows of 64 channels, several blocks of windows; 256 and more channels, which the CPU pools in two ops.
    for shape in [[3, 4, 35, 18, 64], [1, 4, 4, 4, 256], [1, 2, 4, 4, 260]] {
        let case = Case { shape, ..CASE };
        // Sums of some thousand terms of random sign in another order.
        let tolerance = Tolerance { forward: 4e-6, backward: 2e-4 };
        check_cuda(&case.inputs(), &case.differentiable(), tolerance, |tape, v| case.fused(tape, v));
    }
}

/// Arguments beyond 1024, where a Padé unit is evaluated in powers of 1/x.
#[test]
fn extreme_arguments() {
    let case = Case { training: false, spread: 3000.0, shape: [1, 3, 4, 4, 4], ..CASE };
    check_op(
        &case.inputs(),
        // The coefficients' gradients are sums of fourth powers of 3000, which finite differences do not resolve.
        &[0, 2, 3],
        TOLERANCE,
        |tape, v| case.fused(tape, v),
        |arrays| case.twin(arrays),
    );
    check_cuda(&case.inputs(), &case.differentiable(), TOLERANCE, |tape, v| case.fused(tape, v));
}

#[test]
fn in_bf16() {
    for training in [true, false] {
        let case = Case { training, shape: [2, 4, 5, 6, 8], ..CASE };
        check_bf16(&case.inputs(), &[0], &case.differentiable(), TOLERANCE, |tape, v| case.fused(tape, v));
    }
}

/// The FlashAttention rule: output and gradients are off by at most twice what they are op by op, by the root of the mean square.
#[test]
fn no_less_exact_than_apart_in_bf16() {
    let case = Case { shape: [2, 8, 8, 12, 16], ..CASE };
    let inputs: Vec<Array> = case.inputs().iter().map(Array::in_bf16).collect();
    let run = |device: &Device, precision: Precision, fused: bool| {
        let tape = Tape::new(device, Mode::Train).with_precision(precision);
        let tensor = |array: &Array| Tensor::from_slice(device, &array.shape, Role::Data, &array.f32s()).unwrap();
        let leaves: Vec<Var> = inputs.iter().map(|array| tape.input(tensor(array))).collect();
        let mut v = leaves.clone();
        v[0] = cast(&tape, &leaves[0], precision.storage()).unwrap();
        let y = match fused {
            true => case.fused(&tape, &v).unwrap(),
            false => case
                .run(&tape, &v, |tape, x, parts| avg_pool(tape, &norm_act(tape, x, parts)?, [2; 3], [2; 3]))
                .unwrap(),
        };
        let y = cast(&tape, &y, DType::F32).unwrap();
        let values = y.tensor().to_vec().unwrap();
        let seed = tensor(&Array::random(y.shape(), 9).in_bf16());
        tape.pull(vec![(y, seed)]).unwrap();
        let gradients = case.differentiable().into_iter().map(|i| tape.take_gradient(&leaves[i]).unwrap());
        [values].into_iter().chain(gradients.map(|gradient| gradient.to_vec().unwrap())).collect::<Vec<_>>()
    };
    let Some(device) = cuda_device(0) else { return };
    let truth = run(&Device::cpu(1, 1 << 28).unwrap(), Precision::F32, false);
    let (fused, apart) = (run(&device, Precision::Bf16, true), run(&device, Precision::Bf16, false));
    assert_clean();
    for (i, ((fused, apart), truth)) in fused.iter().zip(&apart).zip(&truth).enumerate() {
        let root = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let off =
            |ours: &[f32]| root(&mut ours.iter().zip(truth).map(|(a, b)| a - b)) / root(&mut truth.iter().copied());
        let (fused, apart) = (off(fused), off(apart));
        // Both may be as exact as f32 is.
        assert!(fused <= 2.0 * apart + 1e-6, "{i}: {fused} fused, {apart} apart");
        assert!(apart < 0.02, "{i}: {apart}");
    }
}

/// Output and gradients of `op` behind a doubling of `x`, whose result may be overwritten unless somebody `holds` it.
fn gradients(
    device: &Device,
    case: Case,
    hold: bool,
    op: impl Fn(&Tape, &Var, &NormActArgs<'_>) -> crate::Result<Var>,
) -> Vec<Vec<f32>> {
    let tape = Tape::new(device, Mode::Train);
    let tensor = |array: &Array| Tensor::from_slice(device, &array.shape, Role::Data, &array.f32s()).unwrap();
    let leaves: Vec<Var> = case.inputs().iter().map(|array| tape.input(tensor(array))).collect();
    let double = tape.constant(tensor(&Array { shape: vec![case.channels()], data: vec![2.0; case.channels()] }));
    let mut vars = leaves.clone();
    vars[0] = norm_act(&tape, &leaves[0], &NormActArgs { gamma: Some(&double), ..NormActArgs::default() }).unwrap();
    tape.keep(&vars[0]);
    let y = case.run(&tape, &vars, op).unwrap();
    let held = hold.then(|| vars.clone());
    drop(vars);
    let mut all = vec![y.tensor().to_vec().unwrap()];
    let weights = tensor(&Array::random(y.shape(), 11));
    let loss = dot(&tape, &y, weights).unwrap();
    drop(y);
    tape.backward(loss, &mut Parameters::new(device)).unwrap();
    drop(held);
    assert_clean();
    all.extend(case.differentiable().iter().map(|&i| tape.gradient(&leaves[i]).unwrap().to_vec().unwrap()));
    all
}

#[test]
fn x_is_overwritten_only_if_nobody_reads_it() {
    for device in every_device() {
        assert_eq!(
            gradients(&device, CASE, true, norm_act_pool),
            gradients(&device, CASE, false, norm_act_pool),
            "{device:?}"
        );
    }
}

#[test]
fn the_same_as_the_two_ops() {
    let case = Case { shape: [2, 6, 10, 12, 32], ..CASE };
    for device in every_device() {
        let fused = gradients(&device, case, false, norm_act_pool);
        let apart = gradients(&device, case, false, |tape, x, parts| {
            avg_pool(tape, &norm_act(tape, x, parts)?, [2; 3], [2; 3])
        });
        for (i, (fused, apart)) in fused.iter().zip(&apart).enumerate() {
            let largest = apart.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            for (a, b) in fused.iter().zip(apart) {
                // Sums of 1,440 terms of either sign in another order.
                assert!((a - b).abs() <= 2e-5 * largest, "{device:?}: {i}: {a} fused, {b} apart, largest {largest}");
            }
        }
    }
}

#[test]
fn cuda_moves_little_more_than_it_must() {
    let Some(device) = counting_device() else { return };
    let case = Case { shape: [1, 16, 32, 64, 32], ..CASE };
    gradients(&device, case, false, norm_act_pool);
    let elements = case.shape.iter().product::<usize>() as f64;
    for (kernel, tensors) in
        [("norm_act_pool_pade54", 1.125), ("norm_act_pool_first_pade54", 1.125), ("norm_act_pool_second_pade54", 2.125)]
    {
        let counters = cuemu::preload().unwrap().counters_of(kernel);
        let moved = (counters.global_load_bytes + counters.global_store_bytes) as f64 / (4.0 * elements * tensors);
        // A thread's own vectors and coefficients, at 16 windows a thread.
        assert!(counters.launches == 1 && moved <= 1.15, "{kernel} moves {moved:.2} times its tensors");
        assert_eq!(counters.traffic.bank_conflicts(), 0, "{kernel}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    let (four, three) = (var(&[4]), var(&[3]));
    let (fits, misfits) = (var(&[2, 4]), var(&[2, 3]));
    let fails = |shape: &[usize], statistics: &Var, gamma: &Var| {
        let parts = NormActArgs {
            statistics: Some((statistics, Grouping::Channel)),
            gamma: Some(gamma),
            beta: Some(&four),
            ..NormActArgs::default()
        };
        let error = norm_act_pool(&tape, &var(shape), &parts).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(NAME), "{error}");
    };
    fails(&[1, 2, 1, 2, 4], &fits, &four);
    fails(&[2, 2, 2, 4], &fits, &four);
    fails(&[1, 2, 2, 2, 4], &misfits, &four);
    fails(&[1, 2, 2, 2, 4], &fits, &three);
}
