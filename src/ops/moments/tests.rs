use super::{Grouping, moments};
use crate::device::{Device, Target};
use crate::memory::Role;
use crate::ops::testing::{Array, assert_clean, compare, every_device, kind};
use crate::tape::{Mode, Tape};
use crate::tensor::Tensor;

/// Mean and biased variance by definition, in f64.
fn twin(x: &Array, grouping: Grouping) -> (Vec<f64>, Vec<f64>) {
    let channels = *x.shape.last().unwrap();
    let rows = x.data.len() / channels;
    let groups = grouping.groups(channels);
    let item_rows = rows / grouping.items();
    let mut members = vec![Vec::new(); groups];
    for (i, &value) in x.data.iter().enumerate() {
        let group = match grouping {
            Grouping::Scalar => 0,
            Grouping::Channel => i % channels,
            Grouping::Instance { .. } => i / channels / item_rows * channels + i % channels,
        };
        members[group].push(value);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let means: Vec<f64> = members.iter().map(|values| mean(values)).collect();
    let variance =
        |(values, &m): (&Vec<f64>, &f64)| mean(&values.iter().map(|v| (v - m) * (v - m)).collect::<Vec<_>>());
    let variances = members.iter().zip(&means).map(variance).collect();
    (means, variances)
}

fn check(x: &Array, grouping: Grouping) {
    let (means, variances) = twin(x, grouping);
    let mut earlier: Option<(Target, Vec<f32>)> = None;
    for device in every_device() {
        let tape = Tape::new(&device, Mode::Train);
        let var = tape.input(Tensor::from_slice(&device, &x.shape, Role::Data, &x.f32s()).unwrap());
        let statistics = moments(&tape, &var, grouping).unwrap();
        assert_eq!(statistics.shape(), [2, means.len()]);
        assert!(!statistics.needs_gradient());
        let ours = statistics.tensor().to_vec().unwrap();
        // A mean is right to the last bit of the largest element, whatever its own size; a variance to the errors of sums
        // of some tens of terms in f32, all of the same sign.
        let largest = x.data.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        for (&ours, &exact) in ours.iter().zip(&means) {
            assert!((f64::from(ours) - exact).abs() <= 1.2e-7 * largest, "mean {ours}, expected {exact}");
        }
        compare("variances", &ours[means.len()..], &variances, 1e-6);
        assert_clean();
        let kind = kind(&device);
        if let Some((other, earlier)) = &earlier
            && *other == kind
        {
            assert_eq!(earlier, &ours, "{kind:?}: threads or the order of blocks change the result");
        }
        earlier = Some((kind, ours));
    }
}

#[test]
fn all_groupings_of_many_shapes() {
    for (seed, shape) in
        [&[2, 9, 7, 5, 3][..], &[2, 2100, 16], &[300, 512], &[4, 150, 600], &[2, 3, 1], &[40_000, 1]].iter().enumerate()
    {
        let x = Array::random(shape, seed as u64 + 1);
        for grouping in [Grouping::Scalar, Grouping::Channel, Grouping::Instance { batch: 2 }] {
            check(&x, grouping);
        }
    }
}

#[test]
fn a_large_mean_costs_no_accuracy() {
    // Values near 4096 with a step of 2^-11: the textbook formula would lose all digits of the variance, 1/3.
    let x = Array::random(&[2, 3000, 6], 9).map(|x| x + 4096.0);
    for grouping in [Grouping::Scalar, Grouping::Channel, Grouping::Instance { batch: 2 }] {
        check(&x, grouping);
    }
}

#[test]
fn one_row_has_no_variance() {
    let x = Array::random(&[2, 1, 5], 3);
    check(&x, Grouping::Instance { batch: 2 });
    let (_, variances) = twin(&x, Grouping::Instance { batch: 2 });
    assert!(variances.iter().all(|&variance| variance == 0.0));
}

#[test]
fn nan_is_not_hidden() {
    for device in every_device() {
        let tape = Tape::new(&device, Mode::Train);
        let var = tape.input(Tensor::from_slice(&device, &[2, 2], Role::Data, &[1.0, f32::NAN, 3.0, 4.0]).unwrap());
        let statistics = moments(&tape, &var, Grouping::Channel).unwrap().tensor().to_vec().unwrap();
        assert_eq!((statistics[0], statistics[2]), (2.0, 1.0));
        assert!(statistics[1].is_nan() && statistics[3].is_nan());
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    assert!(moments(&tape, &var(&[3, 5]), Grouping::Instance { batch: 2 }).is_err());
    assert!(moments(&tape, &var(&[3, 5]), Grouping::Instance { batch: 0 }).is_err());
    assert!(moments(&tape, &var(&[0, 5]), Grouping::Channel).is_err());
}
