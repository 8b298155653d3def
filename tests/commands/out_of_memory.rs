//! Memory that runs out in the middle of a run: the step is undone, and the run goes on with smaller settings or says what
//! would fit.

use crate::support::cli::{Place, data_set};
use ossnet::Error;
use ossnet::data::Dataset;
use ossnet::device::Device;
use ossnet::device::cpu::SimdLevel;
use ossnet::models::{NetworkConfig, OssNetConfig, Recompute};
use ossnet::task::{PreparedCase, Task};
use ossnet::train::presets;
use ossnet::train::settings::TrainSettings;
use ossnet::train::trainer::Trainer;

const SHAPE: [usize; 3] = [16; 3];

fn cases(place: &Place) -> Vec<PreparedCase> {
    data_set(place.path(), SHAPE[0] as i64, &["a", "b", "c", "d"], &["v"]);
    let dataset = Dataset::open(place.path(), 0).unwrap();
    let task = Task::of(&dataset, SHAPE);
    let read = |case| task.prepare(dataset.read(case, task.preprocessing.axes).unwrap(), None).unwrap();
    dataset.training.iter().map(read).collect()
}

/// Weights, averages and running statistics with their updates.
fn state(trainer: &Trainer) -> (Vec<Vec<f32>>, Vec<u64>) {
    let parameters = trainer.parameters();
    let weights = parameters.iter().map(|parameter| parameter.value().to_vec().unwrap());
    let averages = trainer.average().into_iter().flat_map(|average| average.weights());
    let statistics = parameters.buffers().map(|(_, value, _)| value.to_vec().unwrap());
    let values = weights.chain(averages.map(|average| average.to_vec().unwrap())).chain(statistics).collect();
    (values, parameters.buffers().map(|(_, _, updates)| updates).collect())
}

/// A budget that holds the step's first pass, but not the second beside the gradients of the first. What is left is what was
/// there before, to the bit and to the byte; and at a level that fits the run goes on as if it had begun there.
#[test]
fn a_step_that_does_not_fit_is_undone() {
    let place = Place::new();
    let cases = cases(&place);
    let network = OssNetConfig { width: 64, blocks: 3, ..OssNetConfig::sample("o-net", 1, SHAPE).unwrap() };
    let network = NetworkConfig::OssNet(network);
    let settings = |accumulate, recompute| TrainSettings {
        batch_size: 1,
        accumulate,
        points: 3000,
        clip_norm: Some(0.5),
        average_decay: Some(0.9),
        recompute,
        ..presets::sample(&network, 2, 1)
    };
    let reserved = |settings| {
        let plan = Device::plan(1, SimdLevel::detect(), 1 << 40);
        Trainer::new(&plan, &network, settings).unwrap().dry_run(&cases, 2).unwrap();
        plan.reserved()
    };
    let [first, second] = [1, 2].map(|passes| reserved(settings(passes, Recompute::Activations)));
    let budget = (first + second) / 2;
    let lean = reserved(settings(2, Recompute::Chunks));
    assert!(first < budget && budget < second && lean <= budget, "{lean}, {first}, {second}");

    let device = Device::cpu(1, budget).unwrap();
    let mut trainer = Trainer::new(&device, &network, settings(2, Recompute::Activations)).unwrap();
    let (before, live) = (state(&trainer), device.live());
    let refused = trainer.train(&cases, |_| panic!("no step is whole")).unwrap_err();
    assert!(matches!(refused, Error::OutOfMemory(_)), "{refused}");
    assert!(state(&trainer) == before && trainer.optimizer().steps() == 0 && trainer.losses().is_empty());
    assert_eq!(device.live(), live);

    trainer.go_on_with(settings(2, Recompute::Chunks));
    trainer.train(&cases, |_| Ok(())).unwrap();
    let ample = Device::cpu(1, 1 << 30).unwrap();
    let mut whole = Trainer::new(&ample, &network, settings(2, Recompute::Chunks)).unwrap();
    whole.train(&cases, |_| Ok(())).unwrap();
    assert_eq!((trainer.losses(), trainer.losses().len()), (whole.losses(), 4));
    assert!(state(&trainer) == state(&whole), "weights, averages or running statistics differ");
    assert_eq!(trainer.costs().peak_bytes, whole.costs().peak_bytes, "the step that was undone does not count");
}

/// The number behind the last `--memory-budget` of a refusal, in MiB.
fn budget_named(refusal: &str) -> u64 {
    let digits = refusal.rsplit("--memory-budget ").next().unwrap().trim_start_matches("to ");
    digits.split("MiB").next().unwrap().parse().unwrap_or_else(|_| panic!("{refusal}"))
}

/// Inference has remedies of its own, none of training's: what is named fits.
#[test]
fn inference_names_its_own_remedies() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a"], &["v"]);
    data_set(&place.at("large"), 80, &["a"], &["v"]);
    let train = "train --preset sample --quiet --threads 1 --data data --epochs 1 --points 64";
    place.run(&format!("{train} --model unet3d --out unet")).succeeded();
    place.run(&format!("{train} --model o-net-small --out onet")).succeeded();
    let unet = "--quiet --threads 1 --load-model unet/unet3d.safetensors";
    let onet = "--quiet --threads 1 --load-model onet/o-net-small.safetensors";
    let scan = "--input large/imagesTr/a.nii.gz";
    let check = |command: &str, small: &str, parts: &[&str]| {
        let outcome = place.run(&format!("{command} --memory-budget {small} --out refused"));
        outcome.refused(1, &[&["out of memory: ", " wants ", " are in use ("], parts].concat());
        for foreign in ["--recompute", "--batch", "--points ", "smaller batch"] {
            assert!(!outcome.err.contains(foreign), "{foreign}: {}", outcome.err);
        }
        let named = budget_named(&outcome.err);
        place.run(&format!("{command} --memory-budget {named}MiB --out fits{}", place.files().len())).succeeded();
        outcome.err
    };
    // The network goes through the scan in windows of the shape it was trained on unless it is told to take all at once.
    let whole = format!("infer {unet} {scan} --window 80x80x80");
    let refused = check(&whole, "35MiB", &["it fits with --window ", "; as it is it needs "]);
    let less = budget_named(&refused) * 9 / 10;
    place.run(&format!("{whole} --memory-budget {less}MiB --out less")).refused(1, &["out of memory: "]);
    let window = refused.split("it fits with ").nth(1).unwrap().split(" (").next().unwrap();
    place.run(&format!("infer {unet} {scan} --memory-budget 36MiB --out windows {window}")).succeeded();
    place.run(&format!("evaluate {unet} --data large --memory-budget 36MiB --out trained")).succeeded();
    check(&format!("evaluate {unet} --data large"), "21MiB", &["); raise --memory-budget to "]);
    // An occupancy network fits as soon as scan and answer do, which is told before anything is computed.
    for (budget, problem) in
        [("3MiB", "reading its [80, 80, 80] voxels takes"), ("4MiB", "an answer of 80x80x80 voxels takes")]
    {
        let outcome = place.run(&format!("infer {onet} {scan} --memory-budget {budget} --out refused"));
        outcome.refused(1, &[problem, "raise --memory-budget"]);
    }
    place.run(&format!("infer {onet} {scan} --memory-budget 5MiB --out small")).succeeded();
    // Not even the weights.
    let nothing = place.run(&format!("infer {unet} {scan} --memory-budget 4MiB --out refused"));
    nothing.refused(1, &["out of memory: ", "choose a smaller network, or raise --memory-budget"]);
}

/// A device that has less than its budget.
#[cfg(feature = "cuda")]
mod refused {
    use serde_json::Value;

    use crate::support::cli::{Outcome, Place, data_set};

    /// Runs the program on an emulated device with `mebibytes` of memory; `None` where the machine has a GPU.
    fn run(place: &Place, mebibytes: u64, arguments: &str) -> Option<Outcome> {
        if cuemu::gpu_present() {
            eprintln!("skipped: a GPU has the memory that it has");
            return None;
        }
        let mut command = place.command(&format!("{arguments} --device cuda --memory-budget 1GiB"));
        command.env("LD_PRELOAD", cuemu::library().expect("cargo builds the emulator with the tests"));
        command.env("CUEMU_MEMORY", (mebibytes << 20).to_string()).env("CUEMU_THREADS", "2");
        Some(command.output().unwrap().into())
    }

    /// What a run noted of each `event` under `key`.
    fn noted(place: &Place, folder: &str, event: &str, key: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(place.at(folder).join("log.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == event).map(|line| line[key].clone()).collect()
    }

    /// The error says what wanted how much, who holds the rest, what the device turned out to have, and what would fit there;
    /// what it names fits. Adapting is the first of it.
    #[test]
    fn training() {
        let place = Place::new();
        data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
        let train = "train --preset sample --data data --model o-net-small --batch-size 2 --points 1536 --epochs 1";
        let Some(refused) = run(&place, 20, &format!("{train} --quiet --out refused")) else { return };
        let parts = ["out of memory: ", " wants ", " of 20.0 MiB are in use (", "it fits with "];
        refused.refused(1, &parts);
        refused.refused(1, &["whatever the budget of 1.0 GiB", "as it is it needs 26.0 MiB"]);
        let remedies: Vec<&str> = refused.err.split("it fits with ").nth(1).unwrap().split(" (").collect();
        let named: Vec<&str> = remedies.iter().map(|remedy| &remedy[remedy.find("--").unwrap_or(0)..]).collect();
        assert_eq!(named[0], "--recompute 1", "{}", refused.err);
        assert_eq!(named[1], "--batch-size 1 --accumulate 2", "{}", refused.err);
        assert!(named[2].starts_with("--points "), "{}", refused.err);

        let adapted = run(&place, 20, &format!("{train} --on-oom adapt --json --out adapted")).unwrap();
        let said = "as asked needs more than 20.0 MiB: from step 1 on trained with --recompute 1 instead";
        assert!(adapted.err.contains("warning: O-Net small") && adapted.err.contains(said), "{}", adapted.err);
        let summary: Value = serde_json::from_str(&adapted.succeeded()).unwrap();
        assert!(summary["changed_to_fit"][0].as_str().unwrap().contains(said), "{summary}");
        assert!(summary["peak_bytes"].as_u64().unwrap() <= 20 << 20, "{summary}");
        run(&place, 20, &format!("{train} --quiet {} --out level", named[0])).unwrap().succeeded();
        assert_eq!(noted(&place, "adapted", "start", "recompute"), [1]);
        assert_eq!(noted(&place, "adapted", "step", "loss"), noted(&place, "level", "step", "loss"));
    }

    #[test]
    fn comparing() {
        let place = Place::new();
        data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
        let compare = "compare --preset sample --data data --models o-net-small --epochs 1";
        let Some(refused) = run(&place, 20, &format!("{compare} --quiet --out refused")) else { return };
        refused.refused(
            1,
            &["out of memory: ", "it fits with --recompute ", "passes of batch 1 a step by --on-oom adapt"],
        );
        run(&place, 20, &format!("{compare} --on-oom adapt --quiet --out adapted")).unwrap().succeeded();
        let page = std::fs::read_to_string(place.at("adapted/report.html")).unwrap();
        assert!(page.contains("as asked needs more than 20.0 MiB: from step 1 on trained with"), "{page}");
    }

    #[test]
    fn one_step() {
        let place = Place::new();
        let step = "memory --model o-net --volume 32x32x32 --points 2048 --steps 1";
        let Some(refused) = run(&place, 110, step) else { return };
        refused.refused(1, &["out of memory: ", "it fits with --recompute ", "whatever the budget of 1.0 GiB"]);
        let adapted = run(&place, 110, &format!("{step} --on-oom adapt --json --compare-to measured")).unwrap();
        let answer: Value = serde_json::from_str(&adapted.succeeded()).unwrap();
        assert!(answer["changed_to_fit"].as_str().unwrap().starts_with("--recompute "), "{answer}");
        assert_eq!(answer["events"]["first_difference"], Value::Null, "{answer}");
    }
}
