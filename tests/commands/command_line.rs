//! What all commands have in common: flags and their variables, JSON, files that exist, completions, manual pages.
#![cfg(feature = "train")]

use std::fs;
use std::process::Command;

use crate::support::cli::{Place, ball, data_set, json};
use serde_json::Value;

const STEP: &str = "memory --model unet3d --volume 32x32x32";

/// A flag on the line is stronger than a variable that says the opposite.
#[test]
fn flags_overrule_their_variables() {
    let place = Place::new();
    let said = |line: &str| {
        let outcome = place.shell(line);
        assert_eq!(outcome.code, Some(0), "{line}: {}", outcome.err);
        (outcome.err.contains("resident at most"), outcome.out)
    };
    let (verbose, answer) = said(&format!("$ossnet {STEP}"));
    assert!(!verbose && answer.contains("2 threads") || answer.contains("threads") || answer.contains("1 thread"));
    for (line, verbose) in [
        ("OSSNET_VERBOSE=1 $ossnet", true),
        ("OSSNET_VERBOSE=off $ossnet", false),
        ("OSSNET_VERBOSE=1 OSSNET_QUIET=1 $ossnet", false),
    ] {
        assert_eq!(said(&format!("{line} {STEP}")).0, verbose, "{line}");
    }
    assert!(said(&format!("OSSNET_QUIET=1 $ossnet {STEP} -v")).0);
    assert!(!said(&format!("OSSNET_VERBOSE=1 $ossnet {STEP} -q")).0);
    assert!(said(&format!("OSSNET_THREADS=1 $ossnet {STEP}")).1.contains("with 1 thread\n"));
    assert!(said(&format!("OSSNET_THREADS=1 $ossnet {STEP} -j 2")).1.contains("with 2 threads\n"));
    place.refuses(&format!("{STEP} -q -v"), 2, &["--quiet", "--verbose"]);
    place
        .shell(&format!("OSSNET_THREADS=many $ossnet {STEP}"))
        .refused(2, &["'many' for OSSNET_THREADS:", "a whole number"]);
}

/// Whatever is printed with `--json` tells its layout and what made it.
#[test]
fn json_tells_its_layout_and_its_maker() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    ball(16, 0)[1].write(&place.at("seg.nii.gz"));
    fs::write(place.at("net.toml"), "[network]\nchannels = [4, 8]\n").unwrap();
    let train = "train -q -j 1 -m unet3d -e 1 -d data --config net.toml";
    let net = "-l run/unet3d.safetensors";
    for command in [
        format!("{train} -o run"),
        "compare -q -j 1 -m o-net-small -e 1 -d data -o compared".into(),
        "plan -q -j 1 -m unet3d -e 1 -d data -o planned".into(),
        format!("evaluate -q {net} -o scores"),
        format!("evaluate -q {net} --sampled"),
        "evaluate -q --predictions data/labelsTr -d data -o other".into(),
        format!("infer -q {net} -i data/imagesTr/v.nii.gz -o found"),
        format!("infer -q {net} -i data/imagesTr/v.nii.gz --plan"),
        STEP.into(),
        "memory --sweep 32..64 --models unet3d".into(),
        "memory --fit 1GiB -m unet3d".into(),
        "memory --run run".into(),
        "roofline -m unet3d --volume 32x32x32".into(),
        "mesh -q seg.nii.gz -o seg.ply --smallest 0".into(),
        "borders -q data".into(),
        "inspect -q data -o inspection".into(),
        "convert run/unet3d.safetensors copy.pt".into(),
        "devices".into(),
        "licences".into(),
    ] {
        let printed = json(&place.run(&format!("{command} --json")).succeeded());
        assert!(printed["schema_version"].as_u64().is_some_and(|version| version > 0), "{command}: {printed}");
        let maker = &printed["made_by"];
        let known = ["version", "date", "host_cpu"].map(|key| maker[key].is_string());
        assert!(known == [true; 3] && maker.get("commit").is_some(), "{command}: {maker}");
    }
    // The files of results tell it too, and of which data they are.
    for file in [
        "run/summary.json",
        "compared/results.json",
        "scores/scores.json",
        "other/scores.json",
        "found/inference.json",
        "inspection/inspection.json",
    ] {
        let text = fs::read_to_string(place.at(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let written: Value = json(&text);
        assert!(written["schema_version"].is_u64() && written["made_by"]["date"].is_string(), "{file}: {text}");
        if file != "found/inference.json" {
            let hash = written["data"]["hash"].as_str().unwrap_or_else(|| panic!("{file}: {text}"));
            assert!(hash.starts_with("sha256-64k:") && hash.len() == 11 + 64, "{file}: {hash}");
        }
    }
}

/// With `--progress json` every line of standard error is an object.
#[test]
fn progress_as_json_lines() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    fs::write(place.at("net.toml"), "[network]\nchannels = [4, 8]\n").unwrap();
    let outcome = place.run("train -j 1 -m unet3d -e 2 -d data --config net.toml -o run --progress json -v");
    let lines: Vec<Value> = outcome.err.lines().map(json).collect();
    outcome.succeeded();
    let steps: Vec<&Value> = lines.iter().filter(|line| line["task"].is_string()).collect();
    assert!(steps.len() >= 4, "{lines:?}");
    for step in steps {
        let (done, of) = (step["done"].as_u64().unwrap(), step["of"].as_u64().unwrap());
        assert!(done <= of && step["seconds"].as_f64().unwrap() >= 0.0, "{step}");
    }
    assert!(lines.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains("resident at most"))));
    let told = place.shell(&format!("OSSNET_PROGRESS=json $ossnet {STEP} -v")).err;
    assert!(!told.is_empty() && told.lines().all(|line| json(line).is_object()), "{told}");
    let error = place.run("train -m unet3d -d gone --progress json").err;
    assert!(json(&error)["error"].as_str().unwrap().contains("gone") && json(&error)["exit_code"] == 1, "{error}");
    let quiet = place.run(&format!("{STEP} --progress json -q"));
    assert_eq!(quiet.err, "");
}

/// What an earlier command wrote stays, unless `--overwrite` says otherwise.
#[test]
fn files_that_exist_are_kept() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    let mut label = ball(16, 0)[1].clone();
    for file in ["organ.ply", "two_2.ply", "plain_vertices.pt"] {
        fs::write(place.at(file), "mine").unwrap();
    }
    label.write(&place.at("one.nii.gz"));
    label.voxels.iter_mut().take(16 * 16).for_each(|voxel| *voxel = 2);
    label.write(&place.at("two.nii.gz"));
    let kept = ["exists already", "--overwrite"];
    for (input, file) in [("one", "organ.ply"), ("two", "two.ply"), ("one", "plain.pt")] {
        let mesh = format!("mesh -q {input}.nii.gz -o {file} --smallest 0");
        place.refuses(&mesh, 1, &kept);
        place.run(&format!("{mesh} --overwrite")).succeeded();
    }
    for file in ["organ.ply", "two_1.ply", "two_2.ply", "plain_vertices.pt"] {
        assert_ne!(fs::read(place.at(file)).unwrap(), b"mine", "{file}");
    }
    for (command, file) in
        [("inspect -q data", "inspection.json"), ("plan -q -j 1 -e 1 -m unet3d -d data", "unet3d.toml")]
    {
        place.run(&format!("{command} -o out")).succeeded();
        place.refuses(&format!("{command} -o out"), 1, &kept);
        fs::write(place.at(&format!("out/{file}")), "").unwrap();
        place.run(&format!("{command} -o out --overwrite")).succeeded();
        assert!(fs::metadata(place.at(&format!("out/{file}"))).unwrap().len() > 0, "{file}");
        fs::remove_dir_all(place.at("out")).unwrap();
        place.run(&format!("{command} --overwrite")).refused(2, &["--out"]);
    }
}

/// So do files for a plot, a table, a trace or a profile. A pipe is not taken for a file, and stays one.
#[test]
fn files_for_other_programs_are_kept_too() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    let step = "memory -q -m o-net-small --volume 16x16x16 --points 64 --channels 1";
    let train = "train -q -j 1 -m o-net-small --points 64 -e 1 -d data";
    let commands = [
        (format!("{step} --csv"), "log.csv"),
        (format!("{step} --html"), "page.html"),
        (format!("{step} --trace"), "trace.json"),
        (format!("{step} --pprof"), "heap.pb.gz"),
        (format!("{step} --snapshot"), "step.pickle"),
        (format!("{step} --device cpu --steps 1 --profile"), "step.json"),
        ("memory -q --sweep 16..32 --models o-net --csv".into(), "sweep.csv"),
        ("roofline -m o-net --volume 32x32x32 --html".into(), "roofline.html"),
        (format!("{train} --profile"), "run.json"),
    ];
    for (command, file) in commands {
        let command = format!("{command} {file}");
        fs::write(place.at(file), "mine").unwrap();
        place.refuses(&command, 1, &[file, "exists already", "--overwrite"]);
        assert_eq!(fs::read(place.at(file)).unwrap(), b"mine", "{command}");
        place.run(&format!("{command} --overwrite")).succeeded();
        assert_ne!(fs::read(place.at(file)).unwrap(), b"mine", "{command}");
    }
    assert!(Command::new("mkfifo").arg(place.at("pipe")).status().unwrap().success());
    place.refuses(&format!("{step} --csv pipe --overwrite"), 1, &["pipe", "is a pipe, a socket or a device"]);
    assert!(!fs::metadata(place.at("pipe")).unwrap().is_file());
}

/// The folder of a file is made, and one that cannot be is told before the work, not after it.
#[test]
fn folders_of_files_are_made_before_the_work() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    ball(16, 0)[1].write(&place.at("seg.nii.gz"));
    let train = "train -q -j 1 -m o-net-small --points 64 -e 1 -d data -o run";
    let step = "memory -q -m o-net-small --volume 16x16x16 --points 64 --channels 1";
    for (command, file) in [
        (format!("{step} --csv"), "log.csv"),
        (format!("{train} --profile"), "run.json"),
        ("roofline -q -m o-net --volume 32x32x32 --html".into(), "roofline.html"),
        ("mesh -q seg.nii.gz --smallest 0 -o".into(), "organ.ply"),
        ("convert -q run/o-net-small.safetensors".into(), "net.pt"),
    ] {
        place.refuses(&format!("{command} seg.nii.gz/{file}"), 1, &["seg.nii.gz"]);
        fs::create_dir_all(place.at(&format!("taken/{file}"))).unwrap();
        place.refuses(&format!("{command} taken/{file} --overwrite"), 1, &[file, "is a folder"]);
        place.run(&format!("{command} new/{file}")).succeeded();
        assert!(place.at(&format!("new/{file}")).is_file(), "{command}");
        fs::remove_dir_all(place.at("new")).unwrap();
    }
    assert!(!place.at("runs").exists());
    // A name that ends as a file's does is no folder.
    for command in ["inspect -q data", "train -q -m unet3d -e 1 -d data", "plan -q -e 1 -d data", "compare -q -d data"]
    {
        place.refuses(&format!("{command} -o page.html"), 2, &["--out page.html", "name a folder"]);
    }
    place.refuses("infer -l run/o-net-small.safetensors -i seg.nii.gz -o seg.nrrd", 2, &["seg.nrrd", ".nii.gz"]);
    assert!(!place.at("page.html").exists() && !place.at("seg.nrrd").exists());
}

/// A run is replaced if that is asked for, with nothing of the old one left.
#[test]
fn a_run_in_the_place_of_another() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    let train = |model: &str| format!("train -q -j 1 -m {model} --preset sample --points 64 -e 1 -d data -o run");
    place.run(&train("o-net-small")).succeeded();
    fs::write(place.at("run/notes.txt"), "mine").unwrap();
    place.refuses(&train("unet2d"), 1, &["run", "holds a run already", "--resume run", "--overwrite"]);
    assert!(place.at("run/o-net-small.safetensors").exists());
    let scored = json(&place.run(&format!("{} --overwrite --no-scoring --json", train("unet2d"))).succeeded());
    assert_eq!(scored["cases"], Value::Array(Vec::new()));
    let mut left: Vec<String> =
        fs::read_dir(place.at("run")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.retain(|name| !name.starts_with("events.") && name != "report.html");
    left.sort();
    let run = [
        "config.toml",
        "data.json",
        "log.jsonl",
        "notes.txt",
        "summary.json",
        "unet2d.costs.json",
        "unet2d.safetensors",
    ];
    assert_eq!(left, run);
    let events = fs::read_dir(place.at("run")).unwrap().flatten();
    assert_eq!(events.filter(|entry| entry.file_name().to_string_lossy().starts_with("events.")).count(), 1);
}

/// Every command is in every shell's completions, and has a page in the manual.
#[test]
fn completions_and_manual_pages() {
    let place = Place::new();
    let printed = place.run("man pages").succeeded();
    let commands = [
        "compare", "plan", "train", "evaluate", "infer", "memory", "roofline", "mesh", "borders", "inspect", "convert",
    ];
    for command in commands.iter().chain(&["devices", "licences", "completions", "man"]) {
        let page = fs::read_to_string(place.at(&format!("pages/ossnet-{command}.1"))).unwrap();
        for part in [
            ".SH NAME",
            ".SH SYNOPSIS",
            ".SH OPTIONS",
            ".SH EXAMPLES\n.nf\n",
            ".SH \"EXIT STATUS\"\n.nf\n",
            ".SH ENVIRONMENT\n",
        ] {
            assert!(page.contains(part), "{command}: {part}");
        }
    }
    let page = fs::read_to_string(place.at("pages/ossnet.1")).unwrap();
    for part in [".SH ENVIRONMENT\n.nf\n", "OSSNET_SIMD", "Not a medical device"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("features:") && !page.contains(".SH EXTRA"), "{page}");
    assert!(place.at("pages/ossnet.1").exists() && printed.starts_with("16 pages"), "{printed}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.run(&format!("completions {shell}")).succeeded();
        for part in commands.iter().chain(&["memory-budget", "oss-net-c-small", "rtx4090", "glb"]) {
            assert!(script.contains(part), "{shell}: {part}");
        }
        fs::write(place.at(shell), script).unwrap();
    }
    // Where the shell is there, it reads its script.
    let parsed = Command::new("bash").args(["-n", "bash"]).current_dir(place.path()).status();
    assert!(parsed.is_ok_and(|status| status.success()));
}
