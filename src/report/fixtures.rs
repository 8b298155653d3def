//! Made-up results for the tests of this room: three models, two baselines, two cases of a phantom head.

use super::{
    BaselineResult, CaseFacts, CaseScore, CaseSlices, Crossover, Growth, HEADS_CAVEATS, ImageVolume, LossCurve,
    MemoryEvent, ModelResult, ReportData, Resolution, Results, RunFacts, Timeline, case_slices,
};

const CASES: [&str; 2] = ["pycortexS1", "pyradbrain2"];
const ROLES: [&str; 8] =
    ["parameter", "gradient", "optimizer_state", "norm_buffer", "saved", "transient", "workspace", "data"];

fn scores(dice: [f64; 2]) -> Vec<CaseScore> {
    let score = |(name, dice): (&str, f64)| CaseScore {
        name: name.into(),
        dice,
        iou: dice / (2.0 - dice),
        ..CaseScore::default()
    };
    CASES.into_iter().zip(dice).map(score).collect()
}

fn model(name: &str, parameters: u64, dice: [f64; 2], mib: [u64; 8], seconds: [f64; 2]) -> ModelResult {
    let cases = scores(dice);
    let peak_by_role = ROLES.into_iter().zip(mib.map(|mib| mib << 20)).collect::<super::RoleBytes>();
    ModelResult {
        name: name.into(),
        parameters,
        dice: (dice[0] + dice[1]) / 2.0,
        iou: (cases[0].iou + cases[1].iou) / 2.0,
        cases,
        peak_bytes: peak_by_role.total(),
        peak_by_role,
        step_seconds: seconds[0],
        total_seconds: seconds[1],
        scans_per_step: 1,
        scan_peak_bytes: 0,
        epochs: 50,
        steps: 200,
        final_loss: 0.11,
    }
}

/// Figures of an invented comparison.
pub fn results() -> Results {
    let baseline = |name: &str, dice: [f64; 2]| BaselineResult {
        name: name.into(),
        dice: (dice[0] + dice[1]) / 2.0,
        iou: 0.65,
        cases: scores(dice),
    };
    Results {
        models: vec![
            model("O-Net", 412_673, [0.872, 0.850], [2, 2, 4, 0, 52, 18, 6, 4], [0.21, 48.2]),
            model("OSS-Net C", 398_213, [0.911, 0.895], [2, 2, 4, 0, 22, 9, 5, 4], [0.16, 41.7]),
            model("3D residual U-Net", 1_198_034, [0.930, 0.912], [5, 5, 10, 1, 110, 33, 8, 4], [0.39, 136.9]),
        ],
        baselines: vec![baseline("mean training mask", [0.81, 0.77]), baseline("best threshold", [0.64, 0.66])],
        device: "cpu (AVX-512)".into(),
        threads: 2,
        seed: 7,
        budget: String::new(),
        version: "0.1.0 (train, report)".into(),
    }
}

/// Curves, timelines and slices to go with [`results`].
pub fn evidence() -> ReportData {
    let results = results();
    let case =
        |name: &str, validation| CaseFacts { name: name.into(), validation, shape: [80, 96, 80], spacing: [2.5; 3] };
    ReportData {
        resolution: vec![resolution()],
        facts: RunFacts {
            data_set: "heads (embedded sample)".into(),
            description: "T1-weighted head MRI with brain masks".into(),
            cases: ["colin27", "itksubject", "mni2009c", "pyradbrain1"]
                .into_iter()
                .map(|name| case(name, false))
                .chain(CASES.into_iter().map(|name| case(name, true)))
                .collect(),
            epochs: 50,
            command: "ossnet compare --seed 7 --epochs 50 --threads 2".into(),
            caveats: HEADS_CAVEATS.map(String::from).to_vec(),
            warnings: vec!["mni2009c: intensities above the 99.9th percentile were clipped".into()],
        },
        losses: results.models.iter().enumerate().map(|(number, model)| losses(&model.name, number)).collect(),
        timelines: results.models.iter().map(timeline).collect(),
        slices: CASES.into_iter().enumerate().map(|(number, case)| slices(case, number)).collect(),
    }
}

/// A loss that falls from about 0.7, with a ripple in place of noise.
fn losses(model: &str, number: usize) -> LossCurve {
    let loss = |step: u64| {
        let ripple = 1.0 + 0.25 * ((step * step) as f64 * 0.7 + number as f64).sin();
        0.7 * ripple * (-(step as f64) / (40.0 + 15.0 * number as f64)).exp() + 0.06 + 0.02 * number as f64
    };
    LossCurve { model: model.into(), points: (1..=200).map(|step| (step, loss(step))).collect() }
}

/// A step that saves activations layer by layer and gives them back, with the peak of `model` at its turning point.
fn timeline(model: &ModelResult) -> Timeline {
    const LAYERS: u64 = 24;
    let peak = |role: &str| model.peak_by_role.get(role);
    let mut events = Vec::new();
    let mut event = |phase: &str, op: &str, layer: String, saved: u64, transient: u64, gradient: u64| {
        let bytes = ROLES.map(|role| match role {
            "saved" => peak(role) * saved / LAYERS,
            "transient" | "workspace" => peak(role) * transient / 4,
            "gradient" => peak(role) * gradient / LAYERS,
            role => peak(role),
        });
        let index = events.len() as u64;
        events.push(MemoryEvent { index, op: op.into(), layer, phase: phase.into(), bytes: bytes.to_vec() });
    };
    event("data", "read", "batch".into(), 0, 1, 0);
    for layer in 1..=LAYERS {
        for part in [1, 3, 2] {
            event("forward", "conv3d", format!("encoder.block{layer}.conv"), layer, part, 0);
        }
    }
    for layer in (0..LAYERS).rev() {
        for part in [2, 4, 3] {
            event("backward", "conv3d", format!("encoder.block{layer}.conv"), layer + 1, part, LAYERS - layer);
        }
    }
    for layer in 0..8 {
        event("optimizer", "adam", format!("group{layer}"), 0, 1, LAYERS);
    }
    Timeline { model: model.name.clone(), roles: ROLES.map(String::from).to_vec(), events }
}

/// A phantom: skull and brain as ellipsoids on an anisotropic grid; predictions are the brain shifted and scaled.
fn slices(case: &str, number: usize) -> CaseSlices {
    let (shape, spacing) = ([60, 72, 40], [2.5, 2.5, 4.0]);
    let inside = |position: [f64; 3], shift: f64, radius: f64| {
        let radii = [58.0, 72.0, 60.0].map(|length| length * radius);
        let centre = [shift, -6.0 + shift, 4.0];
        (0..3).map(|axis| ((position[axis] - centre[axis]) / radii[axis]).powi(2)).sum::<f64>() < 1.0
    };
    let mut image = Vec::new();
    let mut masks = vec![Vec::new(); 4];
    for voxel in 0..shape[0] * shape[1] * shape[2] {
        let index = [voxel / (shape[1] * shape[2]), voxel / shape[2] % shape[1], voxel % shape[2]];
        let position: [f64; 3] =
            std::array::from_fn(|axis| (index[axis] as f64 - shape[axis] as f64 / 2.0) * spacing[axis]);
        let folds = (position[0] * 0.35).sin() * (position[1] * 0.3).cos() * (position[2] * 0.25 + number as f64).sin();
        image.push(match position {
            p if inside(p, 0.0, 0.35) => 70.0,
            p if inside(p, 0.0, 0.95) => 130.0 + 50.0 * folds as f32,
            p if inside(p, 0.0, 1.05) => 20.0,
            p if inside(p, 0.0, 1.18) => 220.0,
            _ => 4.0,
        });
        for (mask, (shift, radius)) in masks.iter_mut().zip([(0.0, 1.0), (6.0, 0.9), (3.0, 0.98), (0.0, 1.03)]) {
            mask.push(u8::from(inside(position, shift, radius)));
        }
    }
    let volume = ImageVolume { image: &image, label: &masks[0], shape, spacing, axes: ['R', 'A', 'S'] };
    let models = results().models;
    let predictions: Vec<(&str, &[u8])> =
        models.iter().zip(&masks[1..]).map(|(model, mask)| (model.name.as_str(), mask.as_slice())).collect();
    case_slices(case, &volume, &predictions).expect("a phantom of the stated shape")
}

/// Two invented power laws and a recorded one.
fn resolution() -> Resolution {
    let sides = [32.0, 64.0, 128.0, 256.0];
    let curve = |name: &str, bytes: fn(f64) -> f64, recorded_beside| Growth {
        name: name.into(),
        points: sides.map(|side| (side, bytes(side))).to_vec(),
        recorded_beside,
    };
    Resolution {
        heading: "Recompute level 0".into(),
        quantity: "activations".into(),
        caption: "One training step, batch 1, planned.".into(),
        curves: vec![
            curve("OSS-Net C", |side| 5e8 + 20.0 * side.powi(3), None),
            curve("3D residual U-Net", |side| 110.0 * side.powi(3), None),
            curve("PyTorch 3D U-Net (recorded)", |side| 283.0 * side.powi(3), Some(1)),
        ],
        meetings: vec![Crossover {
            leaner_above: "OSS-Net C".into(),
            other: "3D residual U-Net".into(),
            side: 177.0,
            bytes: 6.1e8,
        }],
    }
}

/// The same figures over 24 cases: the U-Net and OSS-Net C differ by chance, O-Net is worse everywhere.
pub fn many_cases() -> Results {
    let mut results = results();
    let case = |number: usize, dice: f64| CaseScore {
        name: format!("case {number:02}"),
        dice,
        iou: dice / (2.0 - dice),
        ..CaseScore::default()
    };
    let spread = |number: usize, step: usize| ((number * step) % 24) as f64 / 24.0 - 11.5 / 24.0;
    for (index, model) in results.models.iter_mut().enumerate() {
        let (mean, step) = ([0.86, 0.92, 0.921][index], [5, 7, 11][index]);
        model.cases = (0..24).map(|number| case(number, mean + 0.03 * spread(number, step))).collect();
        model.dice = mean;
    }
    results.baselines[0].cases = (0..24).map(|number| case(number, 0.79 + 0.05 * spread(number, 13))).collect();
    results.baselines[1].cases = (0..24).map(|number| case(number, 0.65)).collect();
    results
}
