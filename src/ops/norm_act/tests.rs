use super::{NormActArgs, ResidualPlace, norm_act};
use crate::device::Device;
use crate::memory::Role;
use crate::nn::Parameters;
use crate::ops::activation::Activation;
use crate::ops::activation::tests::value;
use crate::ops::moments::{Grouping, moments};
use crate::ops::testing::{
    Array, CLASSIC_ACTIVATIONS, Tolerance, assert_clean, check_bf16, check_op, counting_device, dot, every_device,
};
use crate::tape::{Mode, Tape, Var};
use crate::tensor::Tensor;

const EPSILON: f32 = 1e-3;

/// Which parts a case has.
#[derive(Clone, Copy, Debug)]
struct Case {
    shape: &'static [usize],
    grouping: Option<Grouping>,
    /// Statistics of the batch, or given ones.
    training: bool,
    /// Leading axis of scale and shift; none: `[C]`.
    affine: Option<Option<usize>>,
    residual: Option<ResidualPlace>,
    activation: Activation,
}

impl Case {
    fn channels(&self) -> usize {
        *self.shape.last().unwrap()
    }

    /// `x`, then those of statistics (given ones only), scale, shift, residual that are there, then parameters.
    fn inputs(&self) -> Vec<Array> {
        // The seeds leave no argument within a finite step of the activations' corner at zero.
        let mut inputs = vec![Array::random(self.shape, 6).map(|x| 2.0 * x + 0.3)];
        if let Some(grouping) = self.grouping.filter(|_| !self.training) {
            let groups = grouping.groups(self.channels());
            let mut statistics = Array::random(&[2, groups], 2);
            statistics.data[groups..]
                .iter_mut()
                .for_each(|variance| *variance = f64::from(variance.abs() as f32 + 0.5));
            inputs.push(statistics);
        }
        if let Some(batch) = self.affine {
            let shape: Vec<usize> = batch.into_iter().chain([self.channels()]).collect();
            inputs.push(Array::random(&shape, 3).map(|x| x + 1.5));
            inputs.push(Array::random(&shape, 4));
        }
        if self.residual.is_some() {
            inputs.push(Array::random(self.shape, 5));
        }
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

    /// Positions in [`Case::inputs`] of statistics, scale, shift, residual, first parameter.
    fn positions(&self) -> (Option<usize>, Option<usize>, Option<usize>, usize) {
        let mut next = 1;
        let mut place = |there: bool, count: usize| {
            let position = there.then_some(next);
            next += if there { count } else { 0 };
            position
        };
        let statistics = place(self.grouping.is_some() && !self.training, 1);
        let gamma = place(self.affine.is_some(), 2);
        let residual = place(self.residual.is_some(), 1);
        (statistics, gamma, residual, next)
    }

    fn run(&self, tape: &Tape, v: &[Var]) -> crate::Result<Var> {
        let (statistics, gamma, residual, parameters) = self.positions();
        let made = match self.grouping {
            Some(grouping) if self.training => Some(moments(tape, &v[0], grouping)?),
            // Given statistics carry no gradient.
            _ => statistics.map(|i| tape.constant(v[i].tensor())),
        };
        let parts = NormActArgs {
            statistics: made.as_ref().zip(self.grouping),
            through_statistics: self.training,
            epsilon: EPSILON,
            gamma: gamma.map(|i| &v[i]),
            beta: gamma.map(|i| &v[i + 1]),
            residual: residual.map(|i| &v[i]).zip(self.residual),
            activation: self.activation,
            parameters: &v[parameters..].iter().collect::<Vec<_>>(),
        };
        norm_act(tape, &v[0], &parts)
    }

    /// The op by definition, in f64.
    fn twin(&self, inputs: &[Array]) -> Array {
        let (statistics, gamma, residual, parameters) = self.positions();
        let (x, channels) = (&inputs[0].data, self.channels());
        let rows = x.len() / channels;
        let pick = |array: &Array, i: usize| {
            let items = array.data.len() / channels;
            array.data[i / channels / (rows / items) * channels + i % channels]
        };
        let group = |i: usize| match self.grouping {
            None | Some(Grouping::Scalar) => 0,
            Some(Grouping::Channel) => i % channels,
            Some(Grouping::Instance { batch }) => i / channels / (rows / batch) * channels + i % channels,
        };
        let groups = self.grouping.map_or(0, |grouping| grouping.groups(channels));
        let (mut means, mut variances) = (vec![0.0; groups], vec![0.0; groups]);
        if let Some(i) = statistics {
            means.copy_from_slice(&inputs[i].data[..groups]);
            variances.copy_from_slice(&inputs[i].data[groups..]);
        } else if self.grouping.is_some() {
            let count = (x.len() / groups) as f64;
            x.iter().enumerate().for_each(|(i, x)| means[group(i)] += x / count);
            x.iter().enumerate().for_each(|(i, x)| variances[group(i)] += (x - means[group(i)]).powi(2) / count);
        }
        let y = (0..x.len()).map(|i| {
            let mut v = x[i];
            if self.grouping.is_some() {
                v = (v - means[group(i)]) / (variances[group(i)] + f64::from(EPSILON)).sqrt();
            }
            if let Some(position) = gamma {
                v = pick(&inputs[position], i) * v + pick(&inputs[position + 1], i);
            }
            let r = residual.map_or(0.0, |position| inputs[position].data[i]);
            match self.residual {
                Some(ResidualPlace::BeforeActivation) => value(self.activation, &inputs[parameters..], v + r),
                _ => value(self.activation, &inputs[parameters..], v) + r,
            }
        });
        Array { shape: self.shape.to_vec(), data: y.collect() }
    }

    fn check(&self, tolerance: Tolerance) {
        let inputs = self.inputs();
        let (statistics, ..) = self.positions();
        let differentiable: Vec<usize> = (0..inputs.len()).filter(|&i| Some(i) != statistics).collect();
        check_op(&inputs, &differentiable, tolerance, |tape, v| self.run(tape, v), |arrays| self.twin(arrays));
    }
}

/// A case with every part.
const FULL: Case = Case {
    shape: &[2, 3, 2, 5, 6],
    grouping: Some(Grouping::Channel),
    training: true,
    affine: Some(None),
    residual: Some(ResidualPlace::BeforeActivation),
    activation: Activation::PADE,
};

const GROUPINGS: [Grouping; 3] = [Grouping::Scalar, Grouping::Channel, Grouping::Instance { batch: 2 }];

const PLACES: [Option<ResidualPlace>; 3] =
    [None, Some(ResidualPlace::BeforeActivation), Some(ResidualPlace::AfterActivation)];

/// Some tens of roundings of 2^-24 on the way to a value. Gradients are sums whose terms cancel by about ten; a Padé
/// unit's slope is a difference, and so are the gradients through the statistics.
const TOLERANCE: Tolerance = Tolerance { forward: 2e-6, backward: 2e-5 };

#[test]
fn groupings_affine_shapes_residual_places_and_modes() {
    for grouping in GROUPINGS.map(Some).into_iter().chain([None]) {
        for affine in [None, Some(None), Some(Some(2))] {
            for residual in PLACES {
                for training in [true, false] {
                    Case { grouping, affine, residual, training, ..FULL }.check(TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn activations() {
    let deep = Activation::Pade { numerator: 8, denominator: 8 };
    for activation in CLASSIC_ACTIVATIONS.into_iter().chain([Activation::PADE, deep]) {
        for residual in PLACES {
            Case { activation, residual, ..FULL }.check(TOLERANCE);
        }
    }
}

#[test]
fn several_pieces_and_columns() {
    // Pieces of one item's rows, and rows longer than a tile. The twin is evaluated 96 times a gradient and device, so
    // it had better be simple.
    let swish = Activation::Swish;
    for (shape, grouping, affine, activation) in [
        (&[2, 140, 512][..], Grouping::Scalar, Some(2), swish),
        (&[2, 2100, 8], Grouping::Instance { batch: 2 }, Some(2), swish),
        (&[140, 530], Grouping::Channel, None, swish),
        (&[17_001, 1], Grouping::Channel, None, Activation::PADE),
    ] {
        // Sums of up to 140 000 terms of random sign cancel by some hundreds.
        let tolerance = Tolerance { forward: 2e-6, backward: 1e-4 };
        let case = Case { shape, grouping: Some(grouping), affine: Some(affine), residual: None, activation, ..FULL };
        case.check(tolerance);
    }
}

#[test]
fn instances_of_one_voxel_are_finite() {
    for device in every_device() {
        let tape = Tape::new(&device, Mode::Train);
        let values = [1.0, -2.0, 3e4, 0.0, 5.0, 6.0];
        let x = tape.input(Tensor::from_slice(&device, &[2, 1, 3], Role::Data, &values).unwrap());
        let grouping = Grouping::Instance { batch: 2 };
        let statistics = moments(&tape, &x, grouping).unwrap();
        let parts =
            NormActArgs { statistics: Some((&statistics, grouping)), through_statistics: true, ..Default::default() };
        let y = norm_act(&tape, &x, &parts).unwrap();
        assert_eq!(y.tensor().to_vec().unwrap(), [0.0; 6]);
        let weights = Tensor::from_slice(&device, &[2, 1, 3], Role::Data, &[1.0; 6]).unwrap();
        let loss = dot(&tape, &y, weights).unwrap();
        drop((y, statistics));
        tape.backward(loss, &mut Parameters::new(&device)).unwrap();
        assert_eq!(tape.gradient(&x).unwrap().to_vec().unwrap(), [0.0; 6]);
        assert_clean();
    }
}

/// `dot(norm_act(2·x))` with every combination of buffers that are free or shared, against the same with fresh ones.
#[test]
fn buffers_are_reused_only_if_nobody_reads_them() {
    let case = FULL;
    let inputs = case.inputs();
    for device in every_device() {
        let gradients = |hold: bool, share_gradient: bool| {
            let tape = Tape::new(&device, Mode::Train);
            let leaf = |array: &Array| {
                tape.input(Tensor::from_slice(&device, &array.shape, Role::Data, &array.f32s()).unwrap())
            };
            let leaves: Vec<Var> = inputs.iter().map(leaf).collect();
            // x and the residual are made by ops, so that their buffers may be taken; here a scale by two.
            let double = tape.constant(Tensor::from_slice(&device, &[case.channels()], Role::Data, &[2.0; 6]).unwrap());
            let doubled =
                |x: &Var| norm_act(&tape, x, &NormActArgs { gamma: Some(&double), ..Default::default() }).unwrap();
            let mut vars = leaves.clone();
            vars[0] = doubled(&leaves[0]);
            vars[3] = doubled(&leaves[3]);
            tape.keep(&vars[0]);
            let mut y = case.run(&tape, &vars).unwrap();
            let held = hold.then(|| vars.clone());
            drop(vars);
            if share_gradient {
                // Adding y to itself hands one gradient to both sides.
                let residual = Some((&y, ResidualPlace::AfterActivation));
                y = norm_act(&tape, &y, &NormActArgs { residual, ..Default::default() }).unwrap();
            }
            let weights = Array::random(case.shape, 11).map(|w| if share_gradient { 0.5 * w } else { w });
            let weights = Tensor::from_slice(&device, case.shape, Role::Data, &weights.f32s()).unwrap();
            let loss = dot(&tape, &y, weights).unwrap();
            drop(y);
            tape.backward(loss, &mut Parameters::new(&device)).unwrap();
            drop(held);
            assert_clean();
            leaves.iter().map(|leaf| tape.gradient(leaf).unwrap().to_vec().unwrap()).collect::<Vec<_>>()
        };
        let fresh = gradients(true, false);
        // Powers of two: halving and doubling change no bit.
        assert_eq!(fresh, gradients(false, false));
        assert_eq!(fresh, gradients(false, true));
        assert_eq!(fresh, gradients(true, true));
    }
}

#[test]
fn cuda_moves_little_more_than_it_must() {
    let shapes = [
        (&[1, 16, 16, 32, 32][..], Grouping::Channel, None),
        (&[1, 512, 256], Grouping::Scalar, Some(1)),
        (&[2, 65_536, 1], Grouping::Instance { batch: 2 }, None),
    ];
    for (shape, grouping, affine) in shapes {
        let Some(device) = counting_device() else { return };
        let case = Case { shape, grouping: Some(grouping), affine: Some(affine), ..FULL };
        let tensor = |array: &Array| Tensor::from_slice(&device, &array.shape, Role::Data, &array.f32s()).unwrap();
        let tape = Tape::new(&device, Mode::Train);
        let vars: Vec<Var> = case.inputs().iter().map(|array| tape.input(tensor(array))).collect();
        let y = case.run(&tape, &vars).unwrap();
        let loss = dot(&tape, &y, tensor(&Array::random(shape, 3))).unwrap();
        drop(y);
        tape.backward(loss, &mut Parameters::new(&device)).unwrap();
        let elements = shape.iter().product::<usize>() as f64;
        // Tensors that each kernel reads or writes; the residual is among them.
        let tensors =
            [("moments", 1.0), ("norm_act_pade54", 3.0), ("norm_act_first_pade54", 4.0), ("norm_act_second", 3.0)];
        for (kernel, tensors) in tensors {
            let counters = cuemu::preload().unwrap().counters_of(kernel);
            let moved = (counters.global_load_bytes + counters.global_store_bytes) as f64 / (4.0 * elements * tensors);
            // A thread's own vectors and coefficients, at 64 elements a thread.
            assert!(counters.launches == 1 && moved <= 1.2, "{kernel} of {shape:?} moves {moved:.2} times its tensors");
            assert_eq!(counters.traffic.bank_conflicts(), 0, "{kernel} of {shape:?}");
        }
    }
}

#[test]
fn only_the_preactivation_is_kept_and_two_buffers_suffice() {
    // With shared numbers of elements: x is saved; the backward pass holds x and the gradient, and nothing else of size.
    let device = Device::cpu(1, 1 << 28).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let elements = 1 << 20;
    let bytes = 4 * elements as u64;
    let leaf = tape.input(Tensor::zeros(&device, &[elements / 16, 16], Role::Data).unwrap());
    let scale = tape.input(Tensor::from_slice(&device, &[16], Role::Data, &[1.0; 16]).unwrap());
    let x = norm_act(&tape, &leaf, &NormActArgs { gamma: Some(&scale), ..Default::default() }).unwrap();
    tape.keep(&x);
    let statistics = moments(&tape, &x, Grouping::Channel).unwrap();
    let parts = NormActArgs {
        statistics: Some((&statistics, Grouping::Channel)),
        through_statistics: true,
        activation: Activation::Tanh,
        ..Default::default()
    };
    let y = norm_act(&tape, &x, &parts).unwrap();
    drop((x, statistics));
    let weights = Tensor::zeros(&device, y.shape(), Role::Data).unwrap();
    let loss = dot(&tape, &y, weights).unwrap();
    drop(y);
    assert_eq!(device.live().get(Role::Saved), bytes);
    tape.backward(loss, &mut Parameters::new(&device)).unwrap();
    let peak = device.ledger(|ledger| ledger.peak().by_role.total());
    // The leaf, the weights, x and one gradient, then the leaf's own gradient; 1/16 for everything small.
    assert!(peak <= 4 * bytes + bytes / 16, "{peak} bytes at the peak, tensors of {bytes}");
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    let x = var(&[6, 4]);
    let fails = |parts: NormActArgs<'_>| assert!(norm_act(&tape, &x, &parts).is_err());
    let (three, five, items) = (var(&[3]), var(&[5, 4]), var(&[2, 4]));
    fails(NormActArgs { gamma: Some(&three), ..Default::default() });
    fails(NormActArgs { beta: Some(&five), ..Default::default() });
    fails(NormActArgs { statistics: Some((&items, Grouping::Scalar)), ..Default::default() });
    fails(NormActArgs { statistics: Some((&items, Grouping::Instance { batch: 4 })), ..Default::default() });
    fails(NormActArgs { residual: Some((&items, ResidualPlace::AfterActivation)), ..Default::default() });
    fails(NormActArgs { parameters: &[&three], ..Default::default() });
    let instances = var(&[2, 12]);
    let grouping = Grouping::Instance { batch: 3 };
    fails(NormActArgs { statistics: Some((&instances, grouping)), gamma: Some(&items), ..Default::default() });
}

#[test]
fn in_bf16() {
    let cases = GROUPINGS.map(|grouping| Case { grouping: Some(grouping), affine: Some(Some(2)), ..FULL });
    let places = PLACES.map(|residual| Case { residual, ..FULL });
    let given = Case { training: false, ..FULL };
    let rectifier = Case { activation: Activation::PRelu, residual: PLACES[2], affine: None, ..FULL };
    let norm_alone = Case { activation: Activation::Identity, ..FULL };
    for case in cases.into_iter().chain(places).chain([given, rectifier, norm_alone]) {
        let inputs = case.inputs();
        let (statistics, _, residual, _) = case.positions();
        let stored: Vec<usize> = [0].into_iter().chain(residual).collect();
        let differentiable: Vec<usize> = (0..inputs.len()).filter(|&i| Some(i) != statistics).collect();
        check_bf16(&inputs, &stored, &differentiable, TOLERANCE, |tape, v| case.run(tape, v));
    }
}
