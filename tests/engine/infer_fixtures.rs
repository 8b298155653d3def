//! Hierarchical inference against the official algorithm's grids and point counts, voxel for voxel.

use crate::common::fixture::{self, Fixture};
use crate::common::network::{channels_last, configuration, official};
use ossnet::checkpoint::Data;
use ossnet::data::preprocess::GridTransform;
use ossnet::data::{Padding, Preprocessing, Volume};
use ossnet::device::Device;
use ossnet::infer::{Search, Segmentation, Segmenter, SegmenterOptions};
use ossnet::models::OssNet;
use ossnet::nn::Parameters;
use ossnet::task::Task;

/// Closer to the threshold than this, f32 rounding may decide either way: the prediction's own error is some 1e-6.
const TIE: f32 = 1e-5;

/// A golden file of inference with its network and volume.
struct Case {
    fixture: Fixture,
    network: OssNet,
    parameters: Parameters,
    task: Task,
    volume: Volume,
    threshold: f32,
}

/// The cases whose network is among the model fixtures, which state the configuration.
fn cases() -> Vec<Case> {
    let inputs = Fixture::open(&fixture::path("infer_inputs.npz"));
    let shape = [&[1], inputs.array("full_volume").shape()].concat();
    let (shape, voxels) = channels_last(&inputs.f32("full_volume"), &shape);
    let volume = Volume::new([shape[1], shape[2], shape[3]], shape[4], voxels);
    let cases: Vec<Case> = Fixture::all("infer_tiny_*.npz")
        .into_iter()
        .map(|fixture| {
            let name = fixture.name.trim_start_matches("infer_");
            let model = Fixture::open(&fixture::path(&format!("{name}_brats.npz")));
            let device = Device::cpu(2, 2 << 30).unwrap();
            let (network, parameters) = official(&device, configuration(&model), &fixture.path.with_extension("pt"));
            let threshold = fixture.f64("threshold")[0] as f32;
            let official = Task::official_brats();
            let preprocessing = Preprocessing { multiple: [1; 3], ..official.preprocessing };
            let task = Task { preprocessing, ..official };
            Case { fixture, network, parameters, task, volume: volume.clone(), threshold }
        })
        .collect();
    assert!(!cases.is_empty());
    cases
}

impl Case {
    fn segment(&self, options: SegmenterOptions) -> Segmentation {
        let segmenter = Segmenter::new(&self.network, &self.parameters, &self.task, options).unwrap();
        let (shape, geometry) = (self.volume.shape, self.volume.geometry);
        let way = GridTransform { shape, geometry, resampled: shape, padding: Padding::default() };
        segmenter.prepared(self.volume.clone(), &way, &mut || Ok(())).unwrap()
    }

    fn options(&self, search: Search) -> SegmenterOptions {
        SegmenterOptions { search, threshold: self.threshold, ..SegmenterOptions::default() }
    }

    /// Bits as NumPy packs them.
    fn bits(&self, name: &str) -> Vec<u8> {
        let Data::U8(bytes) = self.fixture.array(name).data() else { panic!("packed bits") };
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect()
    }

    fn counts(&self, name: &str) -> Vec<u64> {
        self.fixture.f32(name).iter().map(|&count| count as u64).collect()
    }

    /// Fails if a grid differs from the golden one where it is no tie.
    fn same(&self, what: &str, ours: &[u8], probabilities: &[f32]) {
        let theirs = self.bits(what);
        assert_eq!(ours.len(), theirs.len());
        let differ = (0..ours.len()).filter(|&at| ours[at] != theirs[at]);
        let wrong = differ.filter(|&at| (probabilities[at] - self.threshold).abs() >= TIE).count();
        assert_eq!(wrong, 0, "{}: voxels of {what} that differ", self.fixture.name);
    }
}

#[test]
fn the_official_grids_and_points() {
    for case in cases() {
        let dense = case.segment(SegmenterOptions { probabilities: true, ..case.options(Search::dense()) });
        let probabilities = dense.probabilities.unwrap().voxels;
        let stored = case.fixture.f32("dense_pred_f16");
        let worst = probabilities.iter().zip(&stored).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        // Half precision rounds numbers below 1 by up to 2^-12.
        assert!(worst < 2f32.powi(-12) + 1e-5, "{}: {worst}", case.fixture.name);
        case.same("dense_bits", &dense.labels.voxels, &probabilities);

        let reference = case.segment(case.options(Search::reference()));
        case.same("grid_bits", &reference.labels.voxels, &probabilities);
        assert_eq!(reference.evaluated, case.counts("evaluated"), "{}", case.fixture.name);

        if case.fixture.get("opt_bits").is_some() {
            let seed_threshold = case.fixture.f64("low_thr")[0] as f32;
            let search = Search { seeded: true, ..Search::reference() };
            let seeded = case.segment(SegmenterOptions { seed_threshold, ..case.options(search) });
            case.same("opt_bits", &seeded.labels.voxels, &probabilities);
            assert_eq!(seeded.evaluated, case.counts("opt_evaluated"), "{}", case.fixture.name);
        }
    }
}

/// The default rule on the same networks: no more points than the official one, and no voxel that differs from dense
/// evaluation.
#[test]
fn the_default_rule_is_cheaper_and_right() {
    for case in cases() {
        let found = case.segment(SegmenterOptions { verify: true, ..case.options(Search::hierarchical()) });
        let (ours, official) = (found.evaluated.iter().sum::<u64>(), case.counts("evaluated").iter().sum::<u64>());
        println!("{}: {ours} points, official {official}", case.fixture.name);
        assert!(ours <= official, "{}: {ours} points, official {official}", case.fixture.name);
        let verification = found.verification.unwrap();
        assert_eq!((verification.different_voxels, verification.points), (0, 64 * 64 * 40));
    }
}

/// However few points are decoded at once, the answer is the same.
#[test]
fn chunks_do_not_matter() {
    for case in cases() {
        let of = |most_points| {
            let options = SegmenterOptions { probabilities: true, most_points, ..case.options(Search::hierarchical()) };
            case.segment(options).probabilities.unwrap().voxels
        };
        // Products of other row counts may be summed in another order: a few roundings of numbers up to 1.
        let worst = of(1024).iter().zip(&of(5000)).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst < 1e-6, "{}: {worst}", case.fixture.name);
    }
}

/// A network without low-resolution segmentation cannot be seeded, and says so.
#[test]
fn seeds_need_an_auxiliary_output() {
    for case in cases().into_iter().filter(|case| case.fixture.get("opt_bits").is_none()) {
        let search = Search { seeded: true, ..Search::hierarchical() };
        let segmenter = Segmenter::new(&case.network, &case.parameters, &case.task, case.options(search));
        let message = segmenter.err().unwrap().to_string();
        assert!(message.contains("--seeded"), "{message}");
    }
}
