//! The folded decoder against the layers one by one in f64, on every device.

use super::{Decoder, DecoderLayer, DecoderNorm, FoldedDecoder};
use crate::device::Device;
use crate::memory::Role;
use crate::ops::activation::Activation;
use crate::ops::activation::tests::value as activated;
use crate::ops::testing::{
    Array, CLASSIC_ACTIVATIONS, assert_clean, compare, counting_device, cuda_device, every_device, kind,
};
use crate::tensor::{DType, Tensor};

const EPSILON: f64 = 1e-5;

/// A decoder's numbers.
#[derive(Clone, Copy)]
struct Case {
    features: usize,
    coordinates: usize,
    width: usize,
    blocks: usize,
    classes: usize,
    activation: Activation,
}

/// A layer: weight `[width, inputs + 5]`, bias, then mean, variance, scale and shift if it is normalised.
struct Numbers {
    weight: Array,
    bias: Array,
    norm: Option<[Array; 3]>,
    coefficients: Vec<Array>,
}

impl Case {
    /// Product `i` of the decoder, the residual's first.
    fn numbers(&self, i: usize) -> Numbers {
        let inputs = if i < 2 { self.features + 5 } else { self.width };
        let seed = 10 * i as u64;
        let bound = 3.0 / (inputs as f64).sqrt();
        let vector = |seed: u64| Array::random(&[1, self.width], seed);
        let coefficients = self.activation.initial_parameters().unwrap().into_iter().enumerate().map(|(k, initial)| {
            let mut values = Array::random(&[initial.len()], seed + 7 + k as u64);
            values
                .data
                .iter_mut()
                .zip(initial)
                .for_each(|(x, initial)| *x = f64::from(initial + 0.02 * x.abs() as f32));
            values
        });
        Numbers {
            weight: Array::random(&[self.width, inputs], seed + 1).map(|x| bound * x),
            bias: vector(seed + 2),
            norm: (i > 0).then(|| {
                let statistics = Array { shape: vec![2, 1], data: vec![0.25, 0.5] };
                [statistics, vector(seed + 3).map(|x| 1.0 + 0.5 * x), vector(seed + 4)]
            }),
            coefficients: if i > 0 { coefficients.collect() } else { Vec::new() },
        }
    }

    fn last(&self) -> Array {
        Array::random(&[self.classes, self.width], 5).map(|x| x / (self.width as f64).sqrt())
    }

    fn fold(&self, device: &Device, storage: DType) -> FoldedDecoder {
        let tensor = |array: &Array| Tensor::from_slice(device, &array.shape, Role::Data, &array.f32s()).unwrap();
        let layer = |i: usize| {
            let Numbers { weight, bias, norm, coefficients } = self.numbers(i);
            DecoderLayer {
                weight: tensor(&weight),
                bias: tensor(&bias),
                norm: norm.map(|[statistics, gamma, beta]| DecoderNorm {
                    statistics: tensor(&statistics),
                    epsilon: EPSILON as f32,
                    gamma: tensor(&gamma),
                    beta: tensor(&beta),
                }),
                coefficients: coefficients.iter().map(tensor).collect(),
            }
        };
        let decoder = Decoder {
            features: self.features,
            coordinates: self.coordinates,
            residual: layer(0),
            layers: (1..=2 * self.blocks).map(layer).collect(),
            last: tensor(&self.last()),
            activation: self.activation,
        };
        FoldedDecoder::new(device, &decoder, storage).unwrap()
    }

    /// Logits of one point by definition, every array between layers and every factor but coordinates, offsets and the last
    /// layer rounded by `round`.
    fn twin(&self, x: &[f64], round: impl Fn(f64) -> f64) -> Vec<f64> {
        let is_exact = |k: usize| (self.coordinates..self.coordinates + 3).contains(&k);
        let product = |numbers: &Numbers, x: &[f64], first: bool| -> Vec<f64> {
            let stride = numbers.weight.shape[1];
            (0..self.width)
                .map(|n| {
                    let row = &numbers.weight.data[n * stride..][..x.len()];
                    let terms = row.iter().zip(x).enumerate();
                    let terms =
                        terms.map(|(k, (w, x))| if first && is_exact(k) { w * x } else { round(*w) * round(*x) });
                    round(terms.sum::<f64>() + numbers.bias.data[n])
                })
                .collect()
        };
        // Normalised, the residual added, activated.
        let act = |numbers: &Numbers, x: Vec<f64>, residual: Option<&[f64]>| -> Vec<f64> {
            let [statistics, gamma, beta] = numbers.norm.as_ref().unwrap();
            let deviation = (statistics.data[1] + EPSILON).sqrt();
            let map = |(n, x): (usize, f64)| {
                let v = gamma.data[n] * (x - statistics.data[0]) / deviation + beta.data[n];
                round(activated(self.activation, &numbers.coefficients, v + residual.map_or(0.0, |r| r[n])))
            };
            x.into_iter().enumerate().map(map).collect()
        };
        let mut y = Vec::new();
        for block in 0..self.blocks {
            let [first, second] = [self.numbers(2 * block + 1), self.numbers(2 * block + 2)];
            let input = if block == 0 { x } else { &y };
            let hidden = act(&first, product(&first, input, block == 0), None);
            let residual = if block == 0 { product(&self.numbers(0), x, true) } else { y };
            y = act(&second, product(&second, &hidden, false), Some(&residual));
        }
        let last = self.last();
        last.data.chunks_exact(self.width).map(|row| row.iter().zip(&y).map(|(a, b)| a * b).sum()).collect()
    }

    /// [`Case::twin`] of several points.
    fn twins(&self, x: &Array, round: impl Fn(f64) -> f64 + Copy) -> Vec<f64> {
        x.data.chunks_exact(self.features).flat_map(|x| self.twin(x, round)).collect()
    }

    fn check(&self, points: usize) {
        let x = Array::random(&[points, self.features], 3);
        let expected = self.twins(&x, |x| x);
        let mut earlier: Option<(crate::device::Target, Vec<f32>)> = None;
        for device in every_device() {
            device.ledger(|ledger| ledger.record(true));
            let run = |device: &Device| {
                let folded = self.fold(device, DType::F32);
                let x = Tensor::from_slice(device, &x.shape, Role::Data, &x.f32s()).unwrap();
                let logits = folded.logits(&x).unwrap();
                assert_eq!(logits.shape(), [points, self.classes]);
                logits.to_vec().unwrap()
            };
            let logits = run(&device);
            assert_clean();
            let events = device.ledger(|ledger| ledger.take_events());
            // Each layer rounds its sums, of random sign, by a few units of 2^-24 and hands errors on with a slope of about
            // one (two for the residual): after ten layers some tens of units.
            compare(&format!("{device:?}"), &logits, &expected, 4e-6);
            let plan = device.planned();
            plan.ledger(|ledger| ledger.record(true));
            run(&plan);
            assert!(plan.ledger(|ledger| ledger.take_events()) == events, "plan and run allocate differently");
            let kind = kind(&device);
            if let Some((other, earlier)) = &earlier
                && *other == kind
            {
                assert_eq!(*earlier, logits, "{kind:?}: threads or the order of blocks change the result");
            }
            earlier = Some((kind, logits));
        }
    }
}

/// Points of less than a tile, of one and a bit; features of several chunks, of a part of one, of no whole slice.
const WIDTHS: [([usize; 5], usize); 5] = [
    ([346, 0, 24, 2, 1], 20),
    ([3, 0, 64, 3, 3], 260),
    ([346, 0, 128, 2, 1], 130),
    ([378, 32, 200, 1, 2], 70),
    ([346, 0, 512, 1, 1], 65),
];

fn case([features, coordinates, width, blocks, classes]: [usize; 5], activation: Activation) -> Case {
    Case { features, coordinates, width, blocks, classes, activation }
}

#[test]
fn every_width_of_tiles() {
    for (sizes, points) in WIDTHS {
        case(sizes, Activation::PADE).check(points);
    }
}

#[test]
fn every_width_of_tiles_with_another_activation() {
    for (sizes, points) in WIDTHS {
        case(sizes, Activation::Swish).check(points);
    }
}

/// In bf16 the error may be twice that of the layers one by one with each array between them rounded, which are wrong by a
/// percent; and coordinates must not be rounded at all.
#[test]
fn half_as_many_bytes() {
    let bf16 = |x: f64| f64::from(half::bf16::from_f32(x as f32).to_f32());
    for (sizes, points) in WIDTHS {
        let case = case(sizes, Activation::PADE);
        let mut x = Array::random(&[points, case.features], 3);
        x.data.chunks_exact_mut(case.features).for_each(|x| x[case.coordinates] += 200.0 / 256.0);
        let (exact, rounded) = (case.twins(&x, |x| x), case.twins(&x, bf16));
        let off = |logits: &[f64]| logits.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let mut earlier: Option<Vec<f32>> = None;
        for seed in [0, 1] {
            let Some(device) = cuda_device(seed) else { return };
            let mut folded = case.fold(&device, DType::Bf16);
            if seed == 1 {
                folded.tile = super::TILE;
            }
            let x = Tensor::from_slice(&device, &x.shape, Role::Data, &x.f32s()).unwrap();
            let logits = folded.logits(&x).unwrap().to_vec().unwrap();
            assert_clean();
            let ours: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
            assert!(off(&ours) <= 2.0 * off(&rounded), "{sizes:?}: off by {} and {}", off(&ours), off(&rounded));
            let earlier = earlier.get_or_insert_with(|| logits.clone());
            assert_eq!(*earlier, logits, "{sizes:?}: the size of tiles, or the order of blocks, changes the result");
        }
    }
}

#[test]
fn every_activation() {
    let orders = [(3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8)];
    let pade = orders.map(|(numerator, denominator)| Activation::Pade { numerator, denominator });
    for activation in pade.into_iter().chain(CLASSIC_ACTIVATIONS) {
        case([10, 0, 24, 2, 1], activation).check(20);
    }
}

#[test]
fn arguments_of_any_size() {
    // Points a million times as far: beyond the bound of the plain formula of a Padé unit.
    for activation in [Activation::PADE, Activation::Pade { numerator: 4, denominator: 4 }] {
        let case = case([10, 0, 24, 1, 1], activation);
        let x = Array::random(&[20, 10], 3).map(|x| x * 1e6);
        let expected = case.twins(&x, |x| x);
        for device in every_device() {
            let x = Tensor::from_slice(&device, &x.shape, Role::Data, &x.f32s()).unwrap();
            let logits = case.fold(&device, DType::F32).logits(&x).unwrap().to_vec().unwrap();
            assert_clean();
            compare(&format!("{device:?}"), &logits, &expected, 4e-6);
        }
    }
}

/// The official width: no bank conflicts, points and logits once, weights once a tile, no arithmetic but what is stated.
#[test]
fn what_the_kernels_move() {
    for (storage, kernel, points, blocks) in
        [(DType::F32, "occupancy_pade54_512", 64, 2), (DType::Bf16, "occupancy_half_512_32768", 128, 2)]
    {
        let Some(device) = counting_device() else { return };
        // A multiple of 16 features: tensor cores multiply no zeros.
        let case = case([352, 0, 512, 2, 1], Activation::PADE);
        let folded = case.fold(&device, storage);
        let x = Array::random(&[points, case.features], 3);
        let x = Tensor::from_slice(&device, &x.shape, Role::Data, &x.f32s()).unwrap();
        folded.logits(&x).unwrap();
        let counters = cuemu::preload().unwrap().counters_of(kernel);
        assert_eq!((counters.launches, counters.blocks), (1, blocks), "{kernel}");
        assert_eq!(counters.traffic.bank_conflicts(), 0, "{kernel}");
        let weights = folded.packed.len() as u64 * storage.size() + 4 * folded.last.len() as u64;
        let own = 4 * (points * (case.features + 1)) as u64;
        let moved = (counters.global_load_bytes + counters.global_store_bytes) as f64 / (blocks * weights + own) as f64;
        // Every thread reads offsets, coefficients and, in bf16, its points' coordinates: through the first-level cache.
        let most = if storage == DType::F32 { 1.05 } else { 1.6 };
        assert!((1.0..most).contains(&moved), "{kernel} moves {moved:.3} of the compulsory bytes");
        let products = 2 * points as u64 * 512 * (2 * 352 + 3 * 512 + 1);
        match storage {
            // Quotients and the comparison with an activation's bound count besides.
            DType::F32 => {
                let work = counters.flops() as f64 / folded.cost(points).flops as f64;
                assert!((1.0..1.02).contains(&work), "{kernel}: {work:.3} of the stated work");
            }
            _ => {
                let share = counters.flops_matrix_half as f64 / products as f64;
                assert!(share > 0.98 && share < 1.0, "{kernel}: {share:.4} of the products on tensor cores");
            }
        }
    }
}

#[test]
fn decoders_that_do_not_fit_are_errors() {
    let device = Device::cpu(1, 1 << 24).unwrap();
    let case = case([10, 0, 24, 1, 1], Activation::PADE);
    let zeros = |shape: &[usize]| Tensor::zeros(&device, shape, Role::Data).unwrap();
    let problem = case.fold(&device, DType::F32).logits(&zeros(&[4, 11])).unwrap_err().to_string();
    assert!(problem.starts_with("occupancy: "), "{problem}");
    let layer = |weight: &[usize]| DecoderLayer {
        weight: zeros(weight),
        bias: zeros(&[24]),
        norm: None,
        coefficients: Vec::new(),
    };
    let decoder = |second: &[usize]| Decoder {
        features: 10,
        coordinates: 0,
        residual: layer(&[24, 10]),
        layers: vec![layer(&[24, 10]), layer(second)],
        last: zeros(&[1, 24]),
        activation: Activation::Tanh,
    };
    let fold = |decoder: Decoder, storage| FoldedDecoder::new(&device, &decoder, storage);
    assert!(fold(decoder(&[24, 24]), DType::F32).is_ok());
    assert!(fold(decoder(&[24, 23]), DType::F32).is_err());
    assert!(fold(decoder(&[23, 24]), DType::F32).is_err());
    assert!(fold(Decoder { coordinates: 8, ..decoder(&[24, 24]) }, DType::F32).is_err());
    assert!(fold(decoder(&[24, 24]), DType::Bf16).is_err());
}
