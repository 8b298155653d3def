//! One name, one network: whatever command is given it, and whatever its files were called by an earlier version.
#![cfg(feature = "train")]

use std::fs;

use ossnet::device::{Device, UNLIMITED};
use ossnet::models::{Architecture, network};
use ossnet::planner::{Workload, this_cpu};
use ossnet::train::config::RunConfig;
use ossnet::train::dry_run::StepSizes;
use ossnet::train::trainer::Trainer;

use crate::support::cli::{Place, data_set, json};

/// The smallest side that every published encoder admits.
const SIDE: i64 = 32;

/// Every name is one network with one number of parameters, trained and planned. Names of one network have one title.
#[test]
fn what_is_trained_is_what_is_planned() {
    let volume = [64, 80, 64];
    for name in network::names() {
        for (channels, outputs) in [(1, 1), (2, 4)] {
            let flags = format!("model = '{name}'").parse().unwrap();
            let config = RunConfig::resolve(None, flags, false).unwrap();
            let trained = config.network(channels, outputs, volume).unwrap();
            let planned = Workload::official(name, StepSizes::new(volume, 1, 64)).unwrap().with_data(channels, outputs);
            assert_eq!(trained.to_json().unwrap(), planned.network.to_json().unwrap(), "{name}");
            let trainer = Trainer::new(&Device::plan_for(this_cpu(1), UNLIMITED), &trained, config.settings()).unwrap();
            assert_eq!(trainer.parameters().count(), planned.parameters().unwrap(), "{name}");
        }
    }
}

/// The commands themselves: parameters and title of `train`, `memory` and `roofline`.
#[test]
fn commands_agree_on_a_name() {
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
    let mut counts = Vec::new();
    for name in ["o-net", "o-net-small", "unet3d", "vanilla_o_net_wide"] {
        let train = format!(
            "train --preset sample --quiet --json --data data --epochs 1 --points 32 --model {name} --out {name}"
        );
        let trained = json(&place.run(&train).succeeded());
        let points = if name == "unet3d" { "" } else { "--points 32" };
        let step = format!("--model {name} --channels 1 --volume {SIDE}x{SIDE}x{SIDE} {points} --json");
        for command in ["memory", "roofline"] {
            let planned = json(&place.run(&format!("{command} {step}")).succeeded());
            assert_eq!(planned["parameters"], trained["parameters"], "{name}, {command}");
            assert_eq!(planned["model"], trained["model"], "{name}, {command}");
        }
        counts.push(trained["parameters"].as_u64().unwrap());
    }
    assert!(counts[0] > counts[1] && counts[0] == counts[3], "{counts:?}");
    // Sizes that were changed are in the title.
    fs::write(place.at("run.toml"), "model = 'o-net'\n[network]\nwidth = 96\n").unwrap();
    let train = "train --quiet --json --data data --epochs 1 --points 32 --config run.toml --out own";
    assert_eq!(json(&place.run(train).succeeded())["model"], "O-Net (width 96)");
}

/// A run that an earlier version left, whose small network was called by the published name, goes on and is scored as before.
#[test]
fn runs_of_the_earlier_names_go_on() {
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
    let train = "train --preset sample --quiet --json --data data --epochs 2 --points 32 --model o-net-small --out run";
    let scored = json(&place.run(train).succeeded());
    for ending in ["safetensors", "costs.json"] {
        fs::rename(place.at(&format!("run/o-net-small.{ending}")), place.at(&format!("run/o-net.{ending}"))).unwrap();
    }
    let config = fs::read_to_string(place.at("run/config.toml")).unwrap();
    let earlier = config.replace("model = \"o-net-small\"", "network_config = \"o-net\"");
    assert_ne!(config, earlier);
    fs::write(place.at("run/config.toml"), earlier).unwrap();
    let again = json(&place.run("train --quiet --json --resume run").succeeded());
    assert_eq!((&again["dice"], &again["steps"]), (&scored["dice"], &scored["steps"]));
    assert!(!place.at("run/o-net-small.safetensors").exists());
    let evaluated = place.run("evaluate --quiet --json --load-model run/o-net.safetensors --data data").succeeded();
    assert_eq!(json(&evaluated)["model"], "O-Net small");
}
