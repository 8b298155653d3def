//! `ossnet memory`: one configuration, the curves, what fits, plan against run, and what happens when memory runs out.

use crate::support::cli::{Place, data_set};
use serde_json::Value;

/// Runs the command with `--json` and reads the answer.
fn json(place: &Place, arguments: &str) -> Value {
    let out = place.run(&format!("memory --threads 2 --json {arguments}")).succeeded();
    serde_json::from_str(&out).expect("one JSON document on standard output")
}

fn bytes(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number of bytes"))
}

#[test]
fn one_configuration_is_explained_and_the_sums_agree() {
    let place = Place::new();
    for arguments in [
        "--model oss-net-c --volume 128x128x80 --points 2048",
        "--model unet3d --volume 64x64x64 --batch 2 --recompute 2 --optimizer sgd",
        "--model o-net --volume 64x64x64 --points 100 --step infer",
        "--model unet2d --volume 64x64x16 --step eval",
    ] {
        let answer = json(&place, arguments);
        let peak = bytes(&answer["peak_bytes"]);
        let sum = |key: &str| answer[key].as_object().unwrap().values().map(bytes).sum::<u64>();
        assert_eq!((sum("by_role"), sum("by_layer")), (peak, peak), "{arguments}");
        // Two sums: of the device and of the host, which has the program itself.
        assert!(bytes(&answer["reserved_bytes"]) >= peak && sum("host") == bytes(&answer["host_bytes"]), "{arguments}");
        assert_eq!(answer["device_bytes"], answer["reserved_bytes"], "{arguments}");
        let gpu = json(&place, &format!("{arguments} --plan-for sm_90"));
        assert_eq!(bytes(&gpu["device_bytes"]), bytes(&gpu["reserved_bytes"]) + (512 << 20), "{arguments}");
        let by_name = json(&place, &format!("{arguments} --plan-for H100"));
        assert_eq!(by_name["by_role"], gpu["by_role"], "{arguments}");
        assert!(gpu["total_bytes"].is_null() && sum("host") > bytes(&answer["host"]["cases"]), "{arguments}");
        let text = place.run(&format!("memory {arguments} --plan-for sm_90")).succeeded();
        let mib = |head: &str| {
            let line = text.lines().find(|line| line.starts_with(head)).unwrap_or_else(|| panic!("{head}: {text}"));
            line.split_whitespace().last().unwrap().parse::<f64>().unwrap()
        };
        // A tenth of a MiB is printed.
        for (head, key) in [("device, in all", "device_bytes"), ("host, in all", "host_bytes")] {
            assert!((mib(head) - bytes(&gpu[key]) as f64 / f64::from(1 << 20)).abs() <= 0.05 + 1e-9, "{head}: {text}");
        }
        assert!(!answer["peak_op"].as_str().unwrap().is_empty(), "{arguments}");
        let stretches = answer["timeline"].as_array().unwrap();
        let highest = stretches.iter().map(|stretch| bytes(&stretch["peak_bytes"])).max();
        // What lives across the step is live at its first event.
        assert_eq!(highest, Some(peak), "{arguments}");
        assert!(stretches.iter().all(|stretch| stretch["phase"] != "setup"), "{arguments}: {stretches:?}");
        assert!(answer["slopes"][0]["bytes"].as_f64().unwrap() > 0.0, "{arguments}");
    }
}

#[test]
fn files_hold_the_whole_step() {
    let place = Place::new();
    let answer = json(
        &place,
        "--model oss-net-c --volume 64x64x64 --points 500 --csv log.csv --trace trace.json --html page.html --pprof heap.pb.gz",
    );
    assert!(std::fs::read(place.at("heap.pb.gz")).unwrap().starts_with(&[0x1f, 0x8b]), "a gzipped profile");
    let log = std::fs::read_to_string(place.at("log.csv")).unwrap();
    let live = |line: &str| line.split(',').nth(10).unwrap().parse::<u64>().unwrap();
    assert_eq!(log.lines().skip(1).map(live).max(), Some(bytes(&answer["peak_bytes"])));
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(place.at("trace.json")).unwrap()).unwrap();
    let counters: Vec<&Value> =
        trace["traceEvents"].as_array().unwrap().iter().filter(|entry| entry["ph"] == "C").collect();
    assert_eq!(counters.len(), log.lines().count() - 1);
    let total = |counter: &&Value| counter["args"].as_object().unwrap().values().map(bytes).sum::<u64>();
    assert_eq!(counters.iter().map(total).max(), Some(bytes(&answer["peak_bytes"])));
    let page = std::fs::read_to_string(place.at("page.html")).unwrap();
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("decoder.blocks.4") && !page.contains("http"),
        "{page}"
    );
    assert!(page.contains("class=\"area") && page.contains("device, in all") && page.contains("host, in all"));
}

#[test]
fn a_sweep_gives_curves_crossings_and_slopes() {
    let place = Place::new();
    let answer = json(&place, "--sweep 32..1024 --models oss-net-c,unet3d --csv curves.csv --html curves.html");
    let levels = answer["levels"].as_array().unwrap();
    assert_eq!(levels.len(), 4);
    for level in levels {
        for curve in level["curves"].as_array().unwrap() {
            let points = curve["points"].as_array().unwrap();
            assert!(points.len() > 20 && points[0]["side"] == 32 && points[points.len() - 1]["side"] == 1024);
            let peaks: Vec<u64> = points.iter().map(|point| bytes(&point["peak_activation_bytes"])).collect();
            assert!(peaks.is_sorted(), "{curve}");
        }
        let recorded = level["recorded"].as_array().unwrap();
        assert!(recorded.iter().all(|curve| curve["source"].as_str().unwrap().contains("recorded")), "{recorded:?}");
        assert_eq!(recorded.len(), 2);
        // The claim of the paper: from some side on the occupancy network needs less.
        let crossings = level["crossings"].as_array().unwrap();
        let own =
            |crossing: &&Value| crossing["leaner_above"] == "OSS-Net C" && crossing["other"] == "3D residual U-Net";
        let side = crossings.iter().find(own).expect("they cross")["side"].as_f64().unwrap();
        assert!((64.0..256.0).contains(&side), "{side}");
    }
    let rows = std::fs::read_to_string(place.at("curves.csv")).unwrap();
    assert!(rows.lines().all(|row| row.split(',').count() == 8), "{rows}");
    assert!(rows.contains("PyTorch") && rows.contains(",yes,"));
    assert!(std::fs::read_to_string(place.at("curves.html")).unwrap().contains("class=\"meeting\""));
}

#[test]
fn the_slopes_of_the_headline_stay_under_their_limits() {
    let place = Place::new();
    let answer = json(&place, "--model oss-net-c --volume 256x256x160 --points 16384");
    let slope = |part: &str| {
        let slopes = answer["slopes"].as_array().unwrap();
        let slope = slopes.iter().find(|slope| slope["part"] == part).expect(part);
        assert!(slope["largest_error"].as_f64().unwrap() < 0.01, "the growth is a straight line: {slope}");
        slope["bytes"].as_f64().unwrap()
    };
    // PyTorch: 48 bytes a voxel and 111 KiB a point (docs/memory.md).
    assert!(slope("encoder") < 24.0 && slope("decoder") < 33.0 * 1024.0);
}

#[test]
fn what_is_said_to_fit_fits_and_one_more_does_not() {
    let place = Place::new();
    let answer = json(&place, "--fit 1GiB --model oss-net-c --volume 128x128x80 --points 1024");
    let flags = |quantity: &str, value: u64| match quantity {
        "side" => format!("--volume {value}x{value}x{value} --points 1024"),
        "points" => format!("--volume 128x128x80 --points {value}"),
        _ => format!("--volume 128x128x80 --points 1024 --batch {value}"),
    };
    let step = |quantity: &str| match quantity {
        "side" => 16,
        "points" => 256,
        _ => 1,
    };
    let largest = answer["fits"][0]["largest"].as_array().unwrap();
    assert_eq!(largest.len(), 3);
    for answer in largest {
        let (quantity, best) = (answer["quantity"].as_str().unwrap(), &answer["best"]);
        let (level, value) = (bytes(&best["recompute"]), bytes(&best["value"]));
        let command =
            |value| format!("memory --threads 2 --memory-budget 1GiB --recompute {level} {}", flags(quantity, value));
        place.run(&command(value)).succeeded();
        place.refuses(&command(value + step(quantity)), 1, &["out of memory", "--memory-budget"]);
    }
    let gpus = json(&place, "--fit gpus --model unet3d");
    let sides: Vec<u64> =
        gpus["fits"].as_array().unwrap().iter().map(|fit| bytes(&fit["largest"][0]["best"]["value"])).collect();
    assert!(sides.len() > 10 && sides.is_sorted(), "more memory holds more: {sides:?}");
}

#[test]
fn plan_and_run_stand_side_by_side() {
    let place = Place::new();
    for arguments in [
        "--model oss-net-a --volume 64x64x64 --points 600",
        "--model unet3d --volume 48x48x32 --step infer",
        "--model oss-net-a --volume 32x32x32 --step eval",
    ] {
        let answer = json(&place, &format!("--compare-to measured {arguments}"));
        assert_eq!(answer["events"]["first_difference"], Value::Null, "{arguments}");
        assert!(bytes(&answer["events"]["planned"]) > 20);
        for key in ["peak_bytes", "peak_activation_bytes", "reserved_bytes"] {
            assert_eq!(answer[key]["planned"], answer[key]["measured"], "{key} of {arguments}");
        }
        let resident = &answer["resident_peak_bytes"];
        // A debug build writes to every byte that is asked for, so the bound is met tightly.
        assert!(bytes(&resident["measured"]) <= bytes(&resident["planned_at_most"]), "{arguments}: {resident}");
    }
}

/// Over budget: the error names what wanted how much, who holds the rest, and remedies that do fit.
#[test]
fn out_of_memory_names_remedies_that_work() {
    let place = Place::new();
    for device in ["plan", "cpu"] {
        let command = format!(
            "memory --threads 2 --device {device} --steps 1 --volume 64x64x64 --batch 2 --points 4096 --memory-budget 300MiB"
        );
        let outcome = place.run(&command);
        outcome
            .refused(1, &["out of memory: ", " wants ", "saved", "it fits with --recompute ", ", or with --batch 1 ("]);
        let remedies: Vec<&str> =
            outcome.err.split("it fits with ").nth(1).unwrap().trim().split(", or with ").collect();
        assert!(remedies.len() == 3, "{}", outcome.err);
        for remedy in remedies {
            let flags = remedy.split(" (").next().unwrap();
            // Later flags take the place of earlier ones.
            let changed: Vec<&str> = command.split(' ').collect();
            let name = flags.split(' ').next().unwrap();
            let kept = match changed.iter().position(|word| *word == name) {
                Some(at) => [&changed[..at], &changed[at + 2..]].concat().join(" "),
                None => command.clone(),
            };
            place.run(&format!("{kept} {flags}")).succeeded();
        }
        let adapted = place.run(&format!("{command} --on-oom adapt --json"));
        assert!(adapted.err.contains("gone on with --recompute"), "{}", adapted.err);
        let answer: Value = serde_json::from_str(&adapted.succeeded()).unwrap();
        assert!(answer["changed_to_fit"].as_str().unwrap().starts_with("--recompute"));
        assert!(bytes(&answer["reserved_bytes"]) <= 300 << 20);
    }
}

/// The budget that a plan names holds the step, and not a granule less does.
#[test]
fn a_budget_of_the_reserved_bytes_is_enough() {
    let place = Place::new();
    for (step, granule) in [
        ("--model oss-net-c --volume 64x64x64 --points 1000 --recompute 3", 256),
        ("--model full2 --volume 64x96x64 --points 1000 --recompute 1 --batch 2", 256),
        ("--model unet3d --volume 48x64x32 --recompute 2", 256),
        ("--model unet2d --volume 64x64x16 --step eval", 256),
        ("--model oss-net-c --volume 64x64x64 --points 1000 --device cpu --steps 2", 256),
        ("--model oss-net-c --volume 64x64x64 --points 1000 --plan-for sm_90", 2 << 20),
    ] {
        let ample = json(&place, step);
        let reserved = bytes(&ample["reserved_bytes"]);
        let tight = json(&place, &format!("{step} --memory-budget {reserved}"));
        assert_eq!(tight["timeline"], ample["timeline"], "{step}");
        let less = format!("memory --threads 2 {step} --memory-budget {}", reserved - granule);
        place.refuses(&less, 1, &["out of memory", "--memory-budget"]);
    }
}

#[test]
fn unusable_questions_are_refused() {
    let place = Place::new();
    let refusals: [(&str, &[&str]); 17] = [
        ("--model unet3d --volume 32x32x32 --recompute kkr", &["3 units", "the network has 9"]),
        ("--model unet3d --volume 32x32x32 --recompute kkr!", &["kkr!", "0, 1, 2, 3 or auto"]),
        ("--schedules --step infer", &["--schedules", "omit --step"]),
        ("--volume 100x100x90 --model unet3d", &["--volume", "multiple of 16"]),
        ("--sweep 8", &["--sweep", "32..1024"]),
        ("--sweep 1024..32", &["--sweep", "32..1024"]),
        ("--sweep 32..64 --fit 8GiB", &["--sweep", "--fit"]),
        ("--sweep 32..64 --models nothing", &["unknown model 'nothing'"]),
        ("--sweep 32..64 --models unet3d,unet3d", &["--models", "twice"]),
        ("--sweep 32..64 --recompute auto", &["--recompute auto", "--sweep"]),
        ("--fit plenty", &["--fit", "8GiB", "gpus"]),
        ("--fit 8GiB --device cpu", &["--device", "--fit"]),
        ("--device abacus", &["abacus", "plan, cpu, cuda"]),
        ("--plan-for sm_10", &["sm_10", "sm_90"]),
        ("--plan-for h10", &["'h10'", "did you mean 'h100'?"]),
        ("--precision bf16", &["--precision bf16", "--plan-for cuda"]),
        ("--precision tf32 --device cpu", &["--precision tf32", "--device cuda"]),
    ];
    for (arguments, parts) in refusals {
        place.refuses(&format!("memory {arguments}"), 2, parts);
    }
    // Sizes whose bytes no 64 bits hold are errors, not wrapped figures.
    for step in ["train", "eval", "infer"] {
        let outcome =
            place.run(&format!("memory --step {step} --model unet3d --volume 65536x65536x65536 --batch 65536"));
        assert!(
            outcome.code == Some(1) && !outcome.err.contains("panicked") && outcome.out.is_empty(),
            "{}",
            outcome.err
        );
    }
}

/// Training and comparing plan their first steps: over budget they refuse before anything is computed, or adapt and say so.
#[test]
fn training_over_budget_is_refused_with_remedies_or_adapts() {
    let place = Place::new();
    data_set(&place.at("data"), 48, &["a", "b", "c", "d"], &["v"]);
    let train = "train --preset sample --threads 2 --model oss-net-c-small --data data --epochs 1 --batch-size 4 --points 4096 --memory-budget 140MiB";
    place.refuses(
        train,
        1,
        &["out of memory: ", "it fits with --recompute ", ", or with --batch-size ", "needs --memory-budget "],
    );
    let outcome = place.run(&format!("{train} --on-oom adapt --json --out run"));
    assert!(outcome.err.contains("as asked needs more than 140.0 MiB: trained with --recompute "), "{}", outcome.err);
    let summary: Value = serde_json::from_str(&outcome.succeeded()).unwrap();
    assert!(bytes(&summary["peak_bytes"]) <= 140 << 20, "{summary}");

    let compare =
        "compare --preset sample --threads 2 --models oss-net-c-small --data data --epochs 1 --memory-budget 64MiB";
    place.refuses(compare, 1, &["out of memory: ", "it fits with --recompute ", "by --on-oom adapt ("]);
    let outcome = place.run(&format!("{compare} --on-oom adapt --json --out compared"));
    assert!(outcome.err.contains("as asked needs more than 64.0 MiB"), "{}", outcome.err);
    outcome.succeeded();
    let page = std::fs::read_to_string(place.at("compared/report.html")).unwrap();
    assert!(
        page.contains("as asked needs more than 64.0 MiB") && page.contains("Memory against resolution"),
        "the page says so"
    );
}

/// Schedules are told with their bytes; what `auto` takes for a budget is one of them, and can be asked for by its letters.
#[test]
fn a_budget_is_met_unit_by_unit() {
    let place = Place::new();
    let step = "--model unet3d --volume 96x96x96";
    let told = json(&place, &format!("{step} --schedules"));
    let points = told["schedules"]["points"].as_array().unwrap();
    assert!(points.len() > 3 && points[0]["recompute"] == 0 && told["recompute"] == 0, "{told}");
    let text = place.run(&format!("memory --threads 2 {step} --schedules")).succeeded();
    for point in points.iter().step_by(6) {
        let letters = point["recompute"].to_string().replace('"', "");
        let named = json(&place, &format!("{step} --recompute {letters}"));
        assert_eq!((&named["peak_bytes"], &named["recompute"]), (&point["peak_bytes"], &point["recompute"]));
        // The bytes that the schedule reserves, holes included, are a budget that it fits.
        let budget = bytes(&named["reserved_bytes"]);
        let auto = json(&place, &format!("{step} --recompute auto --memory-budget {budget}"));
        assert!(bytes(&auto["reserved_bytes"]) <= budget, "{point}: {auto}");
        let taken = points.iter().position(|point| point["recompute"] == auto["recompute"]);
        assert!(taken.is_some() && taken <= points.iter().position(|other| other == point), "{point}: {auto}");
        assert!(text.lines().any(|line| line.starts_with(&letters)), "{letters}: {text}");
    }
}

/// On a device that computes, each schedule is run and timed.
#[test]
fn schedules_are_measured_where_steps_run() {
    let place = Place::new();
    let step = "--model unet3d --volume 16x16x16 --schedules --device cpu --steps 2";
    let told = json(&place, step);
    let all = |key: &str| told["schedules"][key].as_array().unwrap().clone();
    let (points, levels) = (all("points"), all("levels"));
    assert!(points.len() > 1 && levels.len() == 3, "{told}");
    assert!(points.iter().chain(&levels).all(|point| point["measured_seconds"].as_f64().unwrap() > 0.0), "{told}");
    let page = place.run(&format!("memory --threads 2 {step} --html page.html")).succeeded();
    assert!(page.contains("of the fastest"), "{page}");
    let page = std::fs::read_to_string(place.at("page.html")).unwrap();
    assert!(page.contains("measured × 1.000") && page.contains("estimated × 1.000"));
    let planned = json(&place, &step.replace("--device cpu --steps 2", ""));
    assert!(planned["schedules"]["points"].as_array().unwrap().iter().all(|point| point["measured_seconds"].is_null()));
}

/// Each layer's bytes; and what grew from one setting to another.
#[test]
fn layers_are_told_apart_and_settings_compared() {
    let place = Place::new();
    let step = "--model unet3d --volume 48x48x32";
    let first = json(&place, step);
    let layers = first["layers"].as_array().unwrap();
    let sum = |key: &str| layers.iter().map(|layer| layer[key].as_u64().unwrap()).sum::<u64>();
    assert!(layers.len() > 10 && sum("forward_bytes") > sum("retained_bytes") && sum("backward_bytes") > 0);
    // What is saved lives at the end of the forward pass.
    let peak = first["peak_activation_bytes"].as_u64().unwrap();
    assert!(sum("retained_bytes") <= peak && sum("retained_bytes") > peak / 3);
    let text = place.run(&format!("memory --threads 2 {step} --by-layer")).succeeded();
    let row =
        |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default().to_string();
    assert!(text.contains("retained") && !row("all").is_empty(), "{text}");
    assert!(layers.iter().all(|layer| !row(layer["layer"].as_str().unwrap()).is_empty()), "{text}");

    std::fs::write(place.at("first.json"), first.to_string()).unwrap();
    let same = json(&place, &format!("{step} --compare-to first.json"));
    let pairs = |of: &Value| -> Vec<(u64, u64)> {
        of.as_object()
            .unwrap()
            .values()
            .map(|pair| (pair["was"].as_u64().unwrap(), pair["is"].as_u64().unwrap()))
            .collect()
    };
    for key in ["bytes", "by_role", "by_layer"] {
        assert!(!pairs(&same[key]).is_empty() && pairs(&same[key]).iter().all(|(was, is)| was == is), "{same}");
    }
    let less = json(&place, &format!("{step} --recompute 2 --compare-to first.json"));
    let pair =
        |key: &str| (less["by_role"][key]["was"].as_u64().unwrap(), less["by_role"][key]["is"].as_u64().unwrap());
    assert!(pair("saved").1 < pair("saved").0 && pair("parameter").0 == pair("parameter").1, "{less}");
    let text = place.run(&format!("memory --threads 2 {step} --recompute 2 --compare-to first.json")).succeeded();
    assert!(text.contains("was, MiB") && text.contains("recompute"), "{text}");

    std::fs::write(place.at("other.json"), "{}").unwrap();
    place.refuses(&format!("memory {step} --compare-to other.json"), 2, &["other.json", "ossnet memory --json"]);
    place.refuses(&format!("memory {step} --compare-to nothing.json"), 1, &["nothing.json"]);
    place.run(&format!("memory --threads 2 {step} --snapshot step.pickle")).succeeded();
    assert!(std::fs::read(place.at("step.pickle")).unwrap().starts_with(&[0x80, 4]));
}
