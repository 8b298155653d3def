//! Batches travel while the step before runs, losses are read one step late, and nothing of that changes what is computed.

use crate::common::cuda::{assert_clean, cuda_device};
use crate::support::cli::{Place, data_set};
use cuemu::{Call, CallKind};
use ossnet::Error;
use ossnet::data::Dataset;
use ossnet::device::Device;
use ossnet::memory::Role;
use ossnet::models::loss::IGNORED;
use ossnet::models::{NetworkConfig, OssNetConfig};
use ossnet::task::{PreparedCase, Task};
use ossnet::tensor::{DType, Tensor};
use ossnet::train::batch::{self, HostArray, HostBatch, HostTargets, widened};
use ossnet::train::presets;
use ossnet::train::settings::TrainSettings;
use ossnet::train::trainer::Trainer;
use ossnet::train::training_state;

const SHAPE: [usize; 3] = [16; 3];

fn network() -> NetworkConfig {
    NetworkConfig::OssNet(OssNetConfig { width: 24, blocks: 2, ..OssNetConfig::sample("oss-net-c", 1, SHAPE).unwrap() })
}

/// A step for each case and epoch.
fn settings(epochs: u64, seed: u64) -> TrainSettings {
    let few = TrainSettings {
        batch_size: 1,
        points: 40,
        average_decay: Some(0.9),
        ..presets::sample(&network(), epochs, seed)
    };
    TrainSettings { accumulate: 1, clip_norm: None, ..few }
}

fn cases(place: &Place) -> (Task, Vec<PreparedCase>) {
    data_set(place.path(), 16, &["a", "b"], &["c"]);
    let dataset = Dataset::open(place.path(), 0).unwrap();
    let task = Task::of(&dataset, SHAPE);
    let read = |case| task.prepare(dataset.read(case, task.preprocessing.axes).unwrap(), None).unwrap();
    let cases = dataset.training.iter().map(read).collect();
    (task, cases)
}

/// Weights and their averages.
fn state(trainer: &Trainer) -> Vec<Vec<f32>> {
    let weights = trainer.parameters().iter().map(|parameter| parameter.value());
    let averages = trainer.average().into_iter().flat_map(|average| average.weights());
    weights.chain(averages).map(|tensor| tensor.to_vec().unwrap()).collect()
}

/// The calls of a run of ten steps of one pass, and where in them each pass begins to wait for its batch.
struct Run {
    calls: Vec<Call>,
    kernels: u64,
    begins: Vec<usize>,
}

impl Run {
    /// `None` on a GPU, whose calls nobody keeps. Nothing is computed: the order is the same.
    fn of_ten_steps() -> Option<Self> {
        if cuemu::gpu_present() {
            return None;
        }
        let (place, emulator) = (Place::new(), cuemu::preload().unwrap());
        emulator.configure(cuemu::Config { idle: true, ..cuemu::Config::default() });
        let device = Device::cuda(0, 1 << 30).unwrap();
        let mut trainer = Trainer::new(&device, &network(), settings(5, 1)).unwrap();
        emulator.keep_calls();
        trainer.train(&cases(&place).1, |_| Ok(())).unwrap();
        let calls = emulator.take_calls();
        assert_eq!((trainer.optimizer().steps(), trainer.losses().len()), (10, 10));
        let kernels = calls.iter().find(|call| call.kind == CallKind::Launch).unwrap().stream;
        let waits = |call: &Call| call.kind == CallKind::StreamWaits && call.stream == kernels;
        let begins = (0..calls.len()).filter(|&i| waits(&calls[i])).collect();
        Some(Self { calls, kernels, begins })
    }

    /// The calls from when pass `pass` waits for its batch until the next does.
    fn pass(&self, pass: usize) -> std::ops::Range<usize> {
        self.begins[pass]..self.begins.get(pass + 1).copied().unwrap_or(self.calls.len())
    }

    /// The last call before call `at` that records `event`.
    fn recorded(&self, event: u64, at: usize) -> Option<usize> {
        (0..at).rfind(|&i| self.calls[i].kind == CallKind::Record && self.calls[i].of == event)
    }

    fn first(&self, among: std::ops::Range<usize>, is: impl Fn(&Call) -> bool) -> Option<usize> {
        among.into_iter().find(|&i| is(&self.calls[i]))
    }
}

/// Copy → compute: a pass waits for the event behind the copies of its batch. Compute → reuse: copies to a place wait for the
/// event behind the pass that has read it. Each batch but the first of a window is sent while the pass before runs.
#[test]
fn a_batch_travels_while_the_pass_before_runs() {
    let Some(run) = Run::of_ten_steps() else { return };
    assert_eq!(run.begins.len(), 10);
    let mut places = Vec::new();
    for pass in 0..10 {
        let arrived = run.recorded(run.calls[run.begins[pass]].of, run.begins[pass]).unwrap();
        let copies = run.calls[arrived].stream;
        assert_ne!(copies, run.kernels);
        let before = |kind| (0..arrived).rfind(|&i| run.calls[i].stream == copies && run.calls[i].kind == kind);
        let free = before(CallKind::StreamWaits).unwrap();
        // Volumes and coordinates as numbers, classes as bytes.
        let sent = run.calls[free..arrived].iter().filter(|call| call.kind == CallKind::ToDevice);
        let (to, bytes): (Vec<u64>, Vec<u64>) = sent.map(|call| (call.of, call.bytes)).unzip();
        assert_eq!(bytes, [4 * 4096, 4 * 3 * 40, 40, 4096], "pass {pass}");
        places.push(to);
        // The first two steps draw their batches when they need them; so does the first that is drawn ahead.
        if pass != 0 && pass != 2 {
            let of_the_one_before = run.pass(pass - 1);
            assert!(of_the_one_before.contains(&free), "pass {pass}");
            let launched = run.calls[of_the_one_before.start..free].iter().filter(|call| call.kind == CallKind::Launch);
            assert!(launched.count() > 100, "pass {pass} is sent before the one before was launched");
        }
        if pass >= 2 {
            assert_eq!(places[pass], places[pass - 2]);
            assert_ne!(places[pass][0], places[pass - 1][0]);
            let passed = run.recorded(run.calls[free].of, free).unwrap();
            assert_eq!(run.calls[passed].stream, run.kernels);
            let reader = run.pass(pass - 2);
            assert!(reader.contains(&passed), "pass {pass} waits for {passed}, its place is read in {reader:?}");
            let optimizer = run.first(reader, |call| call.kernel == "optimizer_step").unwrap();
            let last =
                (0..optimizer).rfind(|&i| run.calls[i].kind == CallKind::Launch && run.calls[i].kernel == "guard_loss");
            assert!(last.unwrap() < passed, "the place is given away before the pass was launched");
        }
    }
}

/// Nothing waits for the loss of a pass before the next one was launched; a pass is launched from end to end without a wait.
#[test]
fn nothing_waits_for_a_loss_inside_a_step() {
    let Some(run) = Run::of_ten_steps() else { return };
    for pass in 0..10 {
        let of_pass = run.pass(pass);
        let loss = |call: &Call| call.kind == CallKind::ToHost && call.stream == run.kernels;
        let read: Vec<usize> = of_pass.clone().filter(|&i| loss(&run.calls[i])).collect();
        assert_eq!(read.len(), 1, "pass {pass}");
        let note = run.first(of_pass.clone(), |call| call.kernel == "guard_loss").unwrap();
        let backward = of_pass.start..note;
        assert!(note < read[0] && backward.len() > 100);
        // Where a window ends, the last loss is read before the next begins.
        let ends_window = pass == 1 || pass == 9;
        for i in of_pass {
            let call = &run.calls[i];
            assert_ne!(call.kind, CallKind::HostWaitsForStream, "pass {pass}");
            // An event that was never recorded is none to wait for.
            let Some(event) = run.recorded(call.of, i).filter(|_| call.kind == CallKind::HostWaitsForEvent) else {
                continue;
            };
            assert!(i > read[0], "pass {pass} waits before it was launched");
            assert!(ends_window || event < run.begins[pass], "pass {pass} waits for itself");
        }
    }
}

/// A loss that is not finite is told with its step and op one step late, and has changed nothing: neither its step nor the one
/// that was launched meanwhile. A step whose loss was not read is in no checkpoint.
#[test]
fn a_loss_that_is_not_finite_changes_nothing() {
    let Some(device) = cuda_device(0) else { return };
    let place = Place::new();
    let (task, good) = cases(&place);
    let seed = (0..).find(|&seed| batch::order(2, seed, 0) == [0, 1]).unwrap();
    let path = place.path().join("checkpoint.safetensors");
    let mut expected = Vec::new();
    let mut trainer = Trainer::new(&device, &network(), settings(5, seed)).unwrap();
    let stop = trainer.train(&good.as_slice(), |trainer| {
        let refused = training_state::save(trainer, &task, &path).unwrap_err().to_string();
        assert!(refused.contains("catch_up") && !path.exists(), "{refused}");
        trainer.catch_up()?;
        training_state::save(trainer, &task, &path)?;
        expected = state(trainer);
        Err(Error::Interrupted("after one step".into()))
    });
    assert!(matches!(stop, Err(Error::Interrupted(_))));
    let mut bad = good.clone();
    bad[1].volume.voxels.fill(f32::NAN);
    let mut trainer = Trainer::new(&device, &network(), settings(5, seed)).unwrap();
    let mut seen = 0;
    let error = trainer.train(&bad.as_slice(), |_| {
        seen += 1;
        Ok(())
    });
    // The second step was made without its loss; the end of its window reads it.
    let Err(Error::NotFinite { step, op, .. }) = error else { panic!("{error:?}") };
    assert_eq!((step, seen), (2, 2));
    assert!(!op.is_empty() && op != "the loss", "{op}");
    assert_eq!((trainer.optimizer().steps(), trainer.losses().len()), (1, 1));
    assert!(state(&trainer) == expected, "weights or averages were changed");
    assert_clean();
}

/// Classes and voxels that nobody has looked at come back from their bytes as the numbers they were.
#[test]
fn classes_travel_as_bytes() {
    let Some(device) = cuda_device(0) else { return };
    let classes: Vec<f32> = (0..1027).map(|i| if i % 5 == 0 { IGNORED } else { (i % 255) as f32 }).collect();
    let array = |values: &[f32]| HostArray { shape: vec![values.len(), 1], values: values.to_vec() };
    let (volumes, targets) = (array(&[0.5, f32::MAX, -0.0]), HostTargets::Dense(array(&classes)));
    let batch = HostBatch { volumes, targets, known: Some(0.8) };
    let parts = batch.parts();
    let mut bytes = vec![0; parts[1].end];
    batch.pack(&mut bytes);
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes[parts[0].clone()]), batch.volumes.values);
    let packed =
        Tensor::from_typed(&device, &[classes.len(), 1], DType::U8, Role::Data, &bytes[parts[1].clone()]).unwrap();
    assert_eq!(widened(&packed).unwrap().to_vec().unwrap(), classes);
    assert_clean();
}
