//! Whatever a user gives: the exit status, one line that names the file or flag and the remedy, no panic, no file left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

use crate::support::cli::{Place, ball, data_set};
use crate::support::{Nifti, gzip};
use ossnet::checkpoint::{Array, safetensors, torch};

/// Side of the cubes.
const SIDE: i64 = 16;

/// The flags of every training run here.
const TRAIN: &str = "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --epochs 1";

/// A folder with a sound data set in `data`.
fn place() -> Place {
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
    place
}

/// The bytes of an O-Net's checkpoint for such data, made once.
fn checkpoint() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let place = place();
        place.run(&format!("{TRAIN} --data data --out run")).succeeded();
        fs::read(place.at("run/o-net-small.safetensors")).unwrap()
    })
}

/// As [`place`], with that checkpoint in `run/o-net-small.safetensors` and a scan in `scan.nii.gz`.
fn trained() -> Place {
    let place = place();
    fs::create_dir(place.at("run")).unwrap();
    fs::write(place.at("run/o-net-small.safetensors"), checkpoint()).unwrap();
    ball(SIDE, 7)[0].write(&place.at("scan.nii.gz"));
    place
}

/// Trains on the sound data set after `damage`, and expects a refusal with `parts`.
fn damaged_data(damage: impl FnOnce(&Path), parts: &[&str]) {
    let place = place();
    damage(&place.at("data"));
    place.refuses(&format!("{TRAIN} --data data"), 1, parts);
}

/// As [`damaged_data`], with another image or label of case `b`.
fn damaged_file(which: &str, file: &Nifti, parts: &[&str]) {
    damaged_data(|data| file.write(&data.join(format!("{which}/b.nii.gz"))), &[parts, &["b.nii.gz"]].concat());
}

#[test]
fn data_sets_that_are_none() {
    let place = Place::new();
    fs::create_dir(place.at("empty")).unwrap();
    fs::create_dir(place.at("strange")).unwrap();
    fs::write(place.at("strange/readme.txt"), "hello").unwrap();
    fs::write(place.at("file"), "hello").unwrap();
    for command in [TRAIN, "compare --preset sample --quiet --models o-net-small --epochs 1"] {
        place.refuses(&format!("{command} --data nowhere"), 1, &["nowhere", "No such file"]);
        place.refuses(&format!("{command} --data empty"), 1, &["empty folder"]);
        place.refuses(&format!("{command} --data strange"), 1, &["strange", "dataset.json"]);
        place.refuses(&format!("{command} --data file"), 1, &["file", "Not a directory"]);
    }
}

#[test]
fn descriptions_that_do_not_hold() {
    let describe = |text: &'static str| move |data: &Path| fs::write(data.join("dataset.json"), text).unwrap();
    damaged_data(describe(r#"{"modality": {"0": "X"#), &["dataset.json", "JSON", "line 1"]);
    damaged_data(describe(r#"{"labels": {"0": "background", "1": "x"}}"#), &["dataset.json", "modalities"]);
    damaged_data(describe(r#"{"modality": {"0": "X"}}"#), &["dataset.json", "labels"]);
    damaged_data(
        describe(
            r#"{"modality": {"0": "X"}, "labels": {"0": "background", "1": "x"},
                "training": [{"image": "../secret.nii", "label": "labelsTr/a.nii.gz"}]}"#,
        ),
        &["../secret.nii"],
    );
    damaged_data(|data| fs::remove_file(data.join("imagesTr/b.nii.gz")).unwrap(), &["imagesTr/b.nii.gz", "not exist"]);
    damaged_data(|data| fs::remove_file(data.join("labelsTr/b.nii.gz")).unwrap(), &["labelsTr/b.nii.gz", "not exist"]);
}

#[test]
fn images_that_cannot_be_read() {
    let [good, _] = ball(SIDE, 1);
    let with = |change: &dyn Fn(&mut Nifti)| {
        let mut file = good.clone();
        change(&mut file);
        file
    };
    let truncated = gzip(&good.bytes());
    damaged_data(
        |data| fs::write(data.join("imagesTr/b.nii.gz"), &truncated[..truncated.len() / 2]).unwrap(),
        &["b.nii.gz", "truncated"],
    );
    damaged_file("imagesTr", &with(&|f| f.magic = *b"abcd"), &["magic"]);
    damaged_file("imagesTr", &with(&|f| f.dim[2] = -16), &["-16 voxels"]);
    damaged_file("imagesTr", &with(&|f| f.dim = [7, 32767, 32767, 32767, 32767, 1, 1, 1]), &["limit"]);
    let floats = |odd: f32| {
        let values = (0..SIDE.pow(3)).map(|i| if i == 100 { odd } else { i as f32 });
        good.clone().typed(16, 4, values.flat_map(f32::to_le_bytes).collect())
    };
    damaged_file("imagesTr", &floats(f32::NAN), &["1 voxel that is NaN"]);
    damaged_file("imagesTr", &floats(f32::INFINITY), &["1 voxel that is NaN"]);
    let series = with(&|f| {
        (f.dim[0], f.dim[4]) = (4, 2);
        f.voxels.extend_from_within(..);
    });
    damaged_file("imagesTr", &series, &["2 channels"]);
    damaged_file("labelsTr", &series, &["2 channels", "one volume"]);
}

#[test]
fn images_and_labels_that_do_not_go_together() {
    let [_, label] = ball(SIDE, 1);
    let [_, smaller] = ball(SIDE - 1, 1);
    let mut moved = label.clone();
    moved.sform[1][3] = 3.0;
    damaged_file("labelsTr", &smaller, &["[15, 15, 15]", "[16, 16, 16]"]);
    damaged_file("labelsTr", &moved, &["3.000 mm"]);
    damaged_file("labelsTr", &Nifti::filled([SIDE; 3], 5), &["5 (4096 voxels)", "[0, 1]"]);
}

#[test]
fn cases_that_nothing_can_be_learned_from() {
    let background = Nifti::filled([SIDE; 3], 0);
    // One such label is odd; all of them leave nothing to learn.
    let place = place();
    background.write(&place.at("data/labelsTr/b.nii.gz"));
    let outcome = place.run(&format!("{TRAIN} --data data --out run").replace("--quiet", ""));
    let warned: Vec<&str> = outcome.err.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(warned.len() == 1 && warned[0].contains("b.nii.gz: holds no foreground"), "{}", outcome.err);
    outcome.succeeded();
    damaged_data(
        |data| ["a", "b"].iter().for_each(|name| background.write(&data.join(format!("labelsTr/{name}.nii.gz")))),
        &["data", "no training case with foreground"],
    );

    let replace = |side: i64| {
        move |data: &Path| {
            for name in ["a", "b", "v"] {
                Nifti::new([side; 3]).write(&data.join(format!("imagesTr/{name}.nii.gz")));
                Nifti::filled([side; 3], 1).write(&data.join(format!("labelsTr/{name}.nii.gz")));
            }
        }
    };
    damaged_data(replace(1), &["a.nii.gz", "one voxel"]);
    damaged_data(replace(2), &["[2, 2, 2]", "too small", "4 voxels"]);
    // Found before a model that would fit is trained.
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a"], &["v"]);
    replace(2)(&place.at("data"));
    let compare = "compare --preset sample --quiet --models unet2d,o-net-small --epochs 1 --data data";
    // The U-Net's sixteen-fold axes make the first two sides large enough; the third stays too small.
    place.refuses(compare, 1, &["too small"]);
    data_set(&place.at("lonely"), SIDE, &["a"], &[]);
    place.refuses(
        "compare --preset sample --quiet --models o-net-small --epochs 1 --data lonely",
        1,
        &["lonely", "no validation case"],
    );
    data_set(&place.at("untaught"), SIDE, &[], &["v"]);
    fs::remove_file(place.at("untaught/labelsTr/v.nii.gz")).unwrap();
    place.refuses(&format!("{TRAIN} --data untaught"), 1, &["untaught", "has no label labelsTr/v.nii.gz", "1 more"]);
}

#[test]
fn a_case_that_trains_and_validates_is_warned_of() {
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a", "b"], &["b"]);
    let outcome = place.run(&format!("{TRAIN} --data data --out run").replace("--quiet", ""));
    let warned: Vec<&str> = outcome.err.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(warned.len() == 1 && warned[0].contains("trains and validates on the same case (b)"), "{}", outcome.err);
    outcome.succeeded();
}

#[test]
fn flags_that_make_no_sense() {
    let place = place();
    let table: [(&str, &[&str]); 23] = [
        ("compare --models resnet", &["resnet", "oss-net-c", "unet3d"]),
        ("compare --models", &["--models"]),
        ("compare --models ,", &["--models", "oss-net-c"]),
        ("compare --models o-net-small,unet3d,o-net-small", &["--models", "o-net-small", "twice"]),
        ("compare --epochs -1", &["--epochs", "-1"]),
        ("compare --epochs 0", &["--epochs", "0"]),
        ("compare --epochs abc", &["--epochs", "abc"]),
        ("compare --epochs 18446744073709551615", &["--epochs"]),
        ("compare --threads 1000000", &["--threads"]),
        ("compare --threads -1", &["--threads", "-1"]),
        ("compare --seed -1", &["--seed", "-1"]),
        ("compare --memory-budget lots", &["--memory-budget", "8GiB"]),
        ("compare --memory-budget 5parsecs", &["--memory-budget", "parsecs", "GiB"]),
        ("compare --memory-budget 0", &["--memory-budget", "8GiB"]),
        ("compare --memory-budget -5", &["--memory-budget", "8GiB"]),
        ("compare --memory-budget 900000TiB", &["--memory-budget"]),
        ("compare --colour", &["--colour"]),
        ("train --model resnet", &["resnet", "oss-net-c"]),
        ("train --preset huge", &["--preset", "sample"]),
        ("train --rate -1", &["--rate"]),
        ("train --rate nan", &["--rate"]),
        ("train --resume a --out b", &["--resume", "--out"]),
        ("infer --out x --load-model y", &["--input"]),
    ];
    for (command, parts) in table {
        place.refuses(command, 2, parts);
    }
}

#[test]
fn a_budget_that_the_job_exceeds() {
    let place = place();
    for (budget, op) in [("500KiB", "initial weights"), ("1MiB", "optimizer")] {
        let command = format!("{TRAIN} --data data --memory-budget {budget}");
        place.refuses(&command, 1, &["out of memory", op, "parameter", "--memory-budget"]);
    }
    // Enough for the network, not for its activations.
    let command = "train --preset sample --quiet --threads 1 --model o-net-small --points 100000 --epochs 1 --data data --memory-budget 40MiB";
    place.refuses(command, 1, &["linear of decoder", "wants", "data", "--memory-budget"]);
    // Refused by the budget before anything of that size is computed.
    let memory = "memory --volume 65536x65536x65536 --points 4294967296 --memory-budget 8GiB";
    place.refuses(memory, 1, &["out of memory", "initial weights", "--memory-budget"]);
    let memory = "memory --model unet3d --volume 1024x1024x1024 --memory-budget 8GiB";
    place.refuses(memory, 1, &["out of memory: batch wants 16.0 GiB", "--memory-budget"]);
}

#[test]
fn folders_that_cannot_be_written_to() {
    let place = trained();
    fs::write(place.at("file"), "").unwrap();
    fs::create_dir(place.at("full")).unwrap();
    fs::write(place.at("full/thesis.tex"), "").unwrap();
    let compare = "compare --preset sample --quiet --models o-net-small --epochs 1 --data data";
    let infer = "infer --quiet --load-model run/o-net-small.safetensors --input scan.nii.gz";
    for command in [format!("{TRAIN} --data data"), compare.into(), infer.into()] {
        place.refuses(&format!("{command} --out file/run"), 1, &["file/run"]);
        place.refuses(&format!("{command} --out file"), 1, &["file"]);
    }
    for command in [format!("{TRAIN} --data data"), compare.into()] {
        place.refuses(&format!("{command} --out full"), 1, &["full", "not empty", "--out"]);
    }
    place.refuses(
        &format!("{TRAIN} --data data --resume nowhere"),
        1,
        &["nowhere", "no run to go on with, config.toml is missing"],
    );
    fs::write(place.at("runs"), "").unwrap();
    place.refuses(&format!("{TRAIN} --data data"), 1, &["runs"]);
}

#[test]
fn checkpoints_that_cannot_be_used() {
    let place = trained();
    let bytes = checkpoint();
    let weights = Array::f32([2], [1.0, 2.0]).unwrap();
    fs::write(place.at("half.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(place.at("header.safetensors"), &bytes[..100]).unwrap();
    fs::write(place.at("noise.safetensors"), [37; 5000]).unwrap();
    fs::write(place.at("nothing.safetensors"), "").unwrap();
    torch::write(place.at("official.pt"), &[("weight", weights.view())]).unwrap();
    safetensors::write(place.at("foreign.safetensors"), &[("weight", weights.view())], &Default::default()).unwrap();
    let own = [("network".into(), r#"{"architecture":"two_layers","features":8}"#.into())].into();
    safetensors::write(place.at("own.safetensors"), &[("weight", weights.view())], &own).unwrap();
    fs::write(place.at("evil.pt"), evil_archive()).unwrap();

    let table: [(&str, &[&str]); 10] = [
        ("gone.safetensors", &["No such file"]),
        ("data", &["holds no checkpoint"]),
        ("half.safetensors", &["cut short or damaged"]),
        ("header.safetensors", &["cut short or damaged"]),
        ("noise.safetensors", &["neither a safetensors file nor a PyTorch archive"]),
        ("nothing.safetensors", &["empty"]),
        ("official.pt", &["does not say its network"]),
        ("foreign.safetensors", &["does not say its network"]),
        ("own.safetensors", &["no name for (two_layers)", "the program that made it"]),
        ("evil.pt", &["system"]),
    ];
    for (file, parts) in table {
        let parts = [parts, &[file]].concat();
        place.refuses(&format!("evaluate --quiet --data data --load-model {file}"), 1, &parts);
        place.refuses(&format!("infer --quiet --input scan.nii.gz --out out --load-model {file}"), 1, &parts);
    }
    for file in ["official.pt", "foreign.safetensors"] {
        place.refuses(&format!("{TRAIN} --data data --load-model {file}"), 1, &[file, "another model"]);
    }
    place.refuses(&format!("{TRAIN} --data data --load-model evil.pt"), 1, &["evil.pt", "system"]);
    assert!(!place.at("owned").exists(), "a pickle was obeyed");

    // A run that is gone on with must be the same run.
    let resume = |model: &str, more: &str| {
        format!(
            "train --preset sample --quiet --threads 1 --points 64 --epochs 1 --data data --resume run --model {model} {more}"
        )
    };
    place.refuses(&resume("o-net-small", "--seed 5"), 1, &["run/o-net-small.safetensors", "seed 0, not 5"]);
    fs::write(place.at("run/unet3d.safetensors"), bytes).unwrap();
    place.refuses(&resume("unet3d", ""), 1, &["run/unet3d.safetensors", "O-Net small", "3D residual U-Net"]);
    fs::write(place.at("run/o-net-small.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
    place.refuses(&resume("o-net-small", ""), 1, &["run/o-net-small.safetensors", "cut short or damaged"]);
    data_set(&place.at("other"), SIDE, &["a"], &["v"]);
    let json = fs::read_to_string(place.at("other/dataset.json")).unwrap().replace("balls", "cubes");
    fs::write(place.at("other/dataset.json"), json).unwrap();
    fs::write(place.at("run/o-net-small.safetensors"), bytes).unwrap();
    place.refuses(&resume("o-net-small", "").replace("--data data", "--data other"), 1, &["other data (balls)"]);
}

#[test]
fn a_checkpoint_of_other_classes_is_not_scored() {
    let place = trained();
    let json = fs::read_to_string(place.at("data/dataset.json")).unwrap().replace(r#""1": "ball""#, r#""2": "ball""#);
    fs::write(place.at("data/dataset.json"), json).unwrap();
    place.refuses(
        "evaluate --quiet --data data --load-model run/o-net-small.safetensors",
        1,
        &["data", "labels [0, 2]", "[0, 1]", "--data"],
    );
}

/// Rates far too high: the step and the op where it showed are named.
#[test]
fn numbers_that_run_away() {
    let place = place();
    let train =
        "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --epochs 20 --data data --rate 1e30";
    // What was done until then is told, but no weights are kept.
    place.run(&format!("{train} --out run")).refused(1, &["not finite at step", "encoder", "lower the learning rate"]);
    assert!(fs::read_to_string(place.at("run/log.jsonl")).unwrap().contains("\"step\":1"));
    assert!(!place.at("run/o-net-small.safetensors").exists());
}

/// A PyTorch archive whose pickle says `os.system("touch owned")`.
fn evil_archive() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    std::io::Write::write_all(&mut zip, b"\x80\x02cposix\nsystem\nX\x0b\x00\x00\x00touch owned\x85R.").unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn scans_that_cannot_be_segmented() {
    let place = trained();
    let whole = fs::read(place.at("scan.nii.gz")).unwrap();
    fs::write(place.at("half.nii.gz"), &whole[..whole.len() / 2]).unwrap();
    let mut series = ball(SIDE, 1)[0].clone();
    (series.dim[0], series.dim[4]) = (4, 2);
    series.voxels.extend_from_within(..);
    series.write(&place.at("series.nii.gz"));
    ball(SIDE * 2, 1)[0].write(&place.at("large.nii.gz"));
    let infer = "infer --quiet --threads 1 --load-model run/o-net-small.safetensors --out out --input";
    let table: [(&str, i32, &[&str]); 3] = [
        ("gone.nii.gz", 1, &["gone.nii.gz", "No such file"]),
        ("half.nii.gz", 1, &["half.nii.gz", "truncated"]),
        ("series.nii.gz", 1, &["2", "1", "channel"]),
    ];
    for (input, code, parts) in table {
        place.refuses(&format!("{infer} {input}"), code, parts);
    }
    // Larger than the network's volumes, which is no fault of an occupancy network.
    place.run(&format!("{infer} scan.nii.gz large.nii.gz")).succeeded();
    place.refuses(&format!("{infer} scan.nii.gz"), 1, &["out/scan.nii.gz", "exists already", "--out", "--resume"]);
}

/// The size of files is limited, so that every write beyond it fails as on a full disk.
#[test]
fn a_disk_that_is_full() {
    let place = trained();
    let limited = |arguments: &str| {
        let before = place.files();
        let outcome = place.shell(&format!("trap '' XFSZ; ulimit -f 0; exec \"$ossnet\" {arguments}"));
        assert_eq!(place.files(), before, "something was left behind: {}", outcome.err);
        outcome
    };
    let infer = "infer --quiet --threads 1 --load-model run/o-net-small.safetensors --input scan.nii.gz";
    limited(&format!("{TRAIN} --data data --out new")).refused(1, &["new/config.toml", "File too large"]);
    limited("compare --preset sample --quiet --models o-net-small --epochs 1 --data data --out new")
        .refused(1, &["new/o-net-small.safetensors", "File too large"]);
    // Names and colours of the labels are written first.
    limited(&format!("{infer} --out new")).refused(1, &["new/labels.ctbl", "File too large"]);
    // What cannot be printed is an error too.
    place
        .shell(&format!("exec \"$ossnet\" {infer} --out out --json > /dev/full"))
        .refused(1, &["standard output", "No space left", "free some space"]);
}

/// Ctrl-C between two steps: what was done is saved, and the message says how to go on.
#[test]
fn an_interrupt_in_the_middle_of_training() {
    let place = place();
    let train = "train --preset sample --threads 1 --model o-net-small --points 64 --epochs 2000 --data data";
    let mut child = place.command(&format!("{train} --out run")).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // The first step is done; thousands are left.
    lines.find(|line| line.starts_with("O-Net small") && line.contains(": 1/")).expect("training starts");
    // SAFETY: sends a signal to a child that has not been waited for, so that the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let said: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
    let last = said.last().unwrap();
    assert!(
        last.starts_with("ossnet: interrupted; ") && last.ends_with("go on with: ossnet train --resume run"),
        "{last}"
    );
    let mut names: Vec<String> =
        fs::read_dir(place.at("run")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.retain(|name| !name.starts_with("events.out.tfevents."));
    assert_eq!(names, ["config.toml", "data.json", "log.jsonl", "o-net-small.costs.json", "o-net-small.safetensors"]);
    let (_, stored) = safetensors::read(place.at("run/o-net-small.safetensors")).unwrap();
    let steps: u64 = stored["steps"].parse().unwrap();
    assert!((1..2000).contains(&steps), "{steps}");
}

/// The status is what the program decides, whoever listens: a pipe that is closed before anything is written, standard
/// error that is closed or full.
#[test]
fn readers_that_go_away() {
    let place = trained();
    let infer = "infer --quiet --threads 1 --load-model run/o-net-small.safetensors --input scan.nii.gz --out";
    for (number, arguments) in
        ["licences", "--help", &format!("{infer} one"), &format!("{infer} two --json")].into_iter().enumerate()
    {
        let outcome = place.shell(&format!("{{ sleep 0.1; \"$ossnet\" {arguments}; echo $? >&2; }} | true"));
        assert_eq!(outcome.err, "0\n", "{number}: {arguments}");
    }
    for stderr in ["2>&-", "2>/dev/full"] {
        assert_eq!(
            place.shell(&format!("exec \"$ossnet\" train --preset sample --data nowhere {stderr}")).code,
            Some(1)
        );
        assert_eq!(
            place.shell(&format!("exec \"$ossnet\" {TRAIN} --data data --out \"of {stderr}\" {stderr}")).code,
            Some(0)
        );
    }
}
