//! `ossnet infer`: what a user gives, what lies in the folder afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::Nifti;
use crate::support::cli::{PROGRAM, Place, ball, data_set, earlier_version};
use ossnet::checkpoint::{Data, torch};
use ossnet::data::nifti::read_header;
use ossnet::data::{Axes, Labels, Source, Volume};
use serde_json::Value;

/// Side of the cubes, and the value that their label files give to the ball.
const SIDE: i64 = 16;
const BALL: u8 = 3;

/// Checkpoints of networks trained on balls, in `occupancy.safetensors` and `unet.safetensors`, made once.
fn models() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Place::new();
        let names = ["a", "b", "c", "d", "v"];
        data_set(&place.at("data"), SIDE, &names[..4], &names[4..]);
        for (number, name) in names.iter().enumerate() {
            let [_, mut label] = ball(SIDE, number as u64);
            label.voxels.iter_mut().for_each(|value| *value *= BALL);
            label.write(&place.at(&format!("data/labelsTr/{name}.nii.gz")));
        }
        let json = fs::read_to_string(place.at("data/dataset.json")).unwrap();
        fs::write(place.at("data/dataset.json"), json.replace(r#""1": "ball""#, r#""3": "ball""#)).unwrap();
        let train = "train --preset sample --quiet --threads 1 --data data --points 512 --epochs";
        place.run(&format!("{train} 60 --model oss-net-c-small --out one")).succeeded();
        place.run(&format!("{train} 40 --model unet3d --out two")).succeeded();
        fs::rename(place.at("one/oss-net-c-small.safetensors"), place.at("occupancy.safetensors")).unwrap();
        fs::rename(place.at("two/unet3d.safetensors"), place.at("unet.safetensors")).unwrap();
        place
    })
}

/// An empty folder with both checkpoints and a scan `scan.nii.gz`.
fn place() -> Place {
    let place = Place::new();
    for name in ["occupancy.safetensors", "unet.safetensors"] {
        fs::copy(models().at(name), place.at(name)).unwrap();
    }
    ball(SIDE, 2)[0].write(&place.at("scan.nii.gz"));
    place
}

const OCCUPANCY: &str = "infer --quiet --threads 1 --load-model occupancy.safetensors --input";
const UNET: &str = "infer --quiet --threads 1 --load-model unet.safetensors --input";

fn labels(path: &Path) -> Labels {
    Labels::read(&Source::File(path.into()), Axes::Stored).unwrap()
}

/// Dice of everything that is not background.
fn dice(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let count = |of: &dyn Fn((u8, u8)) -> bool| a.iter().zip(b).filter(|(a, b)| of((**a, **b))).count() as f64;
    2.0 * count(&|(a, b)| a > 0 && b > 0) / (count(&|(a, _)| a > 0) + count(&|(_, b)| b > 0))
}

fn summary(folder: &Path) -> BTreeMap<String, Value> {
    let all: Value = serde_json::from_str(&fs::read_to_string(folder.join("inference.json")).unwrap()).unwrap();
    assert_eq!(all["schema_version"], 2);
    let entries = all["cases"].as_array().unwrap().clone();
    // Scans are told apart by what is in them.
    let hashes: Vec<&str> = entries.iter().map(|entry| entry["input_hash"].as_str().unwrap()).collect();
    assert!(hashes.iter().all(|hash| hash.starts_with("sha256-64k:") && hash.len() == 11 + 64), "{hashes:?}");
    entries.into_iter().map(|entry| (entry["case"].as_str().unwrap().to_string(), entry)).collect()
}

/// Names of the files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The same ball on a grid whose axes run otherwise: the answer lies on that grid, and is the same ball.
#[test]
fn answers_lie_on_the_scans_own_grid_with_the_stored_values() {
    let place = place();
    let straight = ball(SIDE, 2)[0].clone();
    // Stored from left to right reversed, the last two axes exchanged, voxels of 2 mm.
    let mut turned = straight.clone();
    for at in 0..turned.voxels.len() {
        let side = SIDE as usize;
        let [x, y, z] = [at % side, at / side % side, at / (side * side)];
        turned.voxels[(side - 1 - x) + side * (z + side * y)] = straight.voxels[at];
    }
    turned.sform = [[-2.0, 0.0, 0.0, 30.0], [0.0, 0.0, 2.0, -5.0], [0.0, 2.0, 0.0, 7.0]];
    turned.pixdim[1..4].fill(2.0);
    turned.write(&place.at("turned.nii.gz"));
    for command in [OCCUPANCY, UNET] {
        let out = if command == UNET { "unet" } else { "occupancy" };
        place.run(&format!("{command} scan.nii.gz turned.nii.gz --out {out}")).succeeded();
        let found = labels(&place.at(&format!("{out}/scan.nii.gz")));
        let other = labels(&place.at(&format!("{out}/turned.nii.gz")));
        assert!(found.voxels.iter().all(|&value| [0, BALL].contains(&value)) && found.voxels.contains(&BALL));
        let truth = &ball(SIDE, 2)[1];
        let [side, inside] = [SIDE as usize, found.geometry.stored.shape[0]];
        assert_eq!(side, inside);
        let stored = |labels: &Labels| labels.geometry.orientation.pack(&labels.voxels, labels.shape, 1);
        let dice = dice(&stored(&found), &truth.voxels);
        assert!(dice > 0.5, "{out}: {dice}");
        let (header, own) = (
            read_header(&Source::File(place.at("turned.nii.gz"))).unwrap(),
            read_header(&Source::File(place.at(&format!("{out}/turned.nii.gz")))).unwrap(),
        );
        assert_eq!(header.grid, own.grid);
        let (found, other) = (stored(&found), stored(&other));
        for (at, value) in found.iter().enumerate() {
            let [x, y, z] = [at % side, at / side % side, at / (side * side)];
            assert_eq!(*value, other[(side - 1 - x) + side * (z + side * y)]);
        }
        let summary = summary(&place.at(out));
        let count = found.iter().filter(|&&value| value == BALL).count() as f64;
        let millilitres = summary["turned"]["ml_by_class"]["ball"].as_f64().unwrap();
        assert!((millilitres - count * 0.008).abs() < 1e-9, "{millilitres}");
        assert!(summary["scan"]["peak_bytes"].as_u64().unwrap() > 100_000);
    }
}

/// Twice the resolution is the same ball, closer to the truth; the scan's own resolution asked for by name changes nothing.
#[test]
fn any_resolution_can_be_asked_for() {
    let place = place();
    place.run(&format!("{OCCUPANCY} scan.nii.gz --out own")).succeeded();
    place.run(&format!("{OCCUPANCY} scan.nii.gz --out same --resolution 16x16x16")).succeeded();
    place.run(&format!("{OCCUPANCY} scan.nii.gz --out fine --resolution 48x32x16 --verify")).succeeded();
    place.run(&format!("{OCCUPANCY} scan.nii.gz --out spaced --spacing 0.5x0.5x2")).succeeded();
    let own = labels(&place.at("own/scan.nii.gz"));
    assert_eq!(labels(&place.at("same/scan.nii.gz")).voxels, own.voxels);
    let fine = labels(&place.at("fine/scan.nii.gz"));
    assert_eq!(fine.shape, [48, 32, 16]);
    let spacing = fine.geometry.spacing();
    assert!((0..3).all(|k| (spacing[k] - [1.0 / 3.0, 0.5, 1.0][k]).abs() < 1e-6), "{spacing:?}");
    // Each fine voxel against the coarse one that holds it: they differ on the surface alone.
    let held: Vec<u8> = (0..fine.len())
        .map(|at| {
            let [x, y, z] = [at / (32 * 16) / 3, at / 16 % 32 / 2, at % 16];
            own.voxels[(x * 16 + y) * 16 + z]
        })
        .collect();
    assert!(dice(&held, &fine.voxels) > 0.85, "{}", dice(&held, &fine.voxels));
    let entry = &summary(&place.at("fine"))["scan"];
    assert_eq!(entry["verification"]["points"], 48 * 32 * 16);
    assert!(entry["points"].as_u64().unwrap() <= 48 * 32 * 16);
    assert!(entry["verification"]["different_voxels"].as_u64().unwrap() < 48 * 32 * 16 / 100);
    assert_eq!(labels(&place.at("spaced/scan.nii.gz")).shape, [32, 32, 8]);
}

/// A scan of twice the network's side, which it was not trained on.
#[test]
fn larger_scans_than_the_network_knows() {
    let place = place();
    let [image, label] = ball(2 * SIDE, 2);
    image.write(&place.at("large.nii.gz"));
    place.run(&format!("{OCCUPANCY} large.nii.gz --out out")).succeeded();
    let found = labels(&place.at("out/large.nii.gz"));
    let found = found.geometry.orientation.pack(&found.voxels, found.shape, 1);
    assert!(dice(&found, &label.voxels) > 0.6, "{}", dice(&found, &label.voxels));
}

#[test]
fn probabilities_and_occupancy_grids() {
    let place = place();
    for (command, out) in [(OCCUPANCY, "one"), (UNET, "two")] {
        place.run(&format!("{command} scan.nii.gz --out {out} --probabilities --occupancy-grid")).succeeded();
        assert_eq!(
            names(&place.at(out)),
            [
                "inference.json",
                "labels.ctbl",
                "labels.label",
                "scan.nii.gz",
                "scan_occupancy.pt",
                "scan_probabilities.nii.gz"
            ]
        );
        let found = labels(&place.at(&format!("{out}/scan.nii.gz")));
        let source = Source::File(place.at(&format!("{out}/scan_probabilities.nii.gz")));
        let probabilities = Volume::read(&source, Axes::Stored).unwrap();
        let inside: Vec<bool> = probabilities.voxels.iter().map(|&p| p > 0.5).collect();
        assert_eq!(inside, found.voxels.iter().map(|&value| value == BALL).collect::<Vec<_>>());
        assert!(probabilities.voxels.iter().any(|&p| p > 0.01 && p < 0.99));
        let grid = torch::read_tensor(place.at(&format!("{out}/scan_occupancy.pt"))).unwrap();
        assert_eq!(grid.shape(), [16, 16, 16]);
        let Data::Bool(bits) = grid.data() else { panic!("{:?}", grid.dtype()) };
        assert_eq!(bits.iter().map(|&bit| bit == 1).collect::<Vec<_>>(), inside);
    }
    // Every voxel was evaluated, and none by two outputs of one network.
    assert_eq!(summary(&place.at("one"))["scan"]["points"], SIDE.pow(3));
    // The threshold is the one that was asked for.
    place.run(&format!("{OCCUPANCY} scan.nii.gz --out all --threshold 0 --dense")).succeeded();
    assert!(labels(&place.at("all/scan.nii.gz")).voxels.iter().all(|&value| value == BALL));
    let nothing = place.run(&format!("{OCCUPANCY} scan.nii.gz --out none --threshold 1 --mesh pt"));
    assert!(
        nothing.err.contains("none/scan_vertices.pt: ball: the mesh is empty; no voxel is inside"),
        "{}",
        nothing.err
    );
    nothing.succeeded();
}

#[test]
fn folders_of_cases_and_going_on() {
    let place = place();
    fs::create_dir(place.at("scans")).unwrap();
    for (number, name) in ["p_0000", "q_0000", "r"].into_iter().enumerate() {
        ball(SIDE, number as u64)[0].write(&place.at(&format!("scans/{name}.nii.gz")));
    }
    place.run(&format!("{OCCUPANCY} scans --out out")).succeeded();
    let scans = || names(&place.at("out")).into_iter().filter(|name| name.ends_with(".nii.gz")).collect::<Vec<_>>();
    // The network takes one channel, so that nnU-Net's p_0000 is case p.
    assert_eq!(scans(), ["p.nii.gz", "q.nii.gz", "r.nii.gz"]);
    place.refuses(&format!("{OCCUPANCY} scans --out out"), 1, &["out/p.nii.gz", "exists already", "--resume"]);
    // What is missing is made again, what is there stays.
    let kept = fs::metadata(place.at("out/p.nii.gz")).unwrap().modified().unwrap();
    fs::remove_file(place.at("out/q.nii.gz")).unwrap();
    place.run(&format!("{OCCUPANCY} scans --out out --resume")).succeeded();
    assert_eq!(fs::metadata(place.at("out/p.nii.gz")).unwrap().modified().unwrap(), kept);
    assert!(place.at("out/q.nii.gz").exists());
    assert_eq!(summary(&place.at("out")).len(), 3);
    // No file is claimed by two scans.
    fs::copy(place.at("scan.nii.gz"), place.at("scans/r_probabilities.nii.gz")).unwrap();
    let told = ["r_probabilities.nii.gz would be a file of r and of r_probabilities", "--out"];
    place.refuses(&format!("{OCCUPANCY} scans --out chances --probabilities"), 2, &told);
    assert!(!place.at("chances").exists() || names(&place.at("chances")).is_empty());
}

/// Windows: one as large as the volume changes nothing, smaller ones little, and mirrored answers are averaged.
#[test]
fn windows_and_mirrors_of_a_unet() {
    let place = place();
    let of = |flags: &str, out: &str| {
        place.run(&format!("{UNET} scan.nii.gz --out {out} --probabilities {flags}")).succeeded();
        let source = Source::File(place.at(&format!("{out}/scan_probabilities.nii.gz")));
        (Volume::read(&source, Axes::Stored).unwrap().voxels, summary(&place.at(out))["scan"]["passes"].clone())
    };
    let (whole, passes) = of("", "whole");
    assert_eq!(passes, 1);
    assert_eq!(of("--window 16x16x16", "one").0, whole);
    let (mirrored, passes) = of("--tta", "mirrored");
    assert_eq!(passes, 8);
    assert_ne!(mirrored, whole);
    let truth = labels(&place.at("whole/scan.nii.gz")).voxels;
    let dice = dice(&labels(&place.at("mirrored/scan.nii.gz")).voxels, &truth);
    assert!(dice > 0.7, "{dice}");
    // A scan of two windows.
    let mut long = Nifti::filled([SIDE, SIDE, 2 * SIDE], 0);
    let half = ball(SIDE, 2)[0].voxels.clone();
    long.voxels = [half.clone(), half].concat();
    long.write(&place.at("long.nii.gz"));
    place.run(&format!("{UNET} long.nii.gz --out two --window 16x16x16 --overlap 0")).succeeded();
    let found = labels(&place.at("two/long.nii.gz"));
    let entry = &summary(&place.at("two"))["long"];
    assert_eq!(entry["passes"], 2);
    for (at, value) in found.voxels.iter().enumerate() {
        // Each half is the whole of the cube, which the same network has segmented alone.
        let (plane, z) = (at / (2 * SIDE as usize), at % SIDE as usize);
        assert_eq!(*value, truth[plane * SIDE as usize + z]);
    }
}

/// The checkpoint knows the voxels that it was trained on: a scan of others has its answer, and one line says what is odd.
#[test]
fn voxels_of_another_size_than_in_training() {
    let place = place();
    let mut thick = ball(SIDE, 2)[0].clone();
    (thick.pixdim[3], thick.sform[2][2]) = (2.5, 2.5);
    thick.write(&place.at("thick.nii.gz"));
    for command in [OCCUPANCY, UNET] {
        let out = if command == UNET { "unet" } else { "occupancy" };
        let command = command.replace("--quiet ", "");
        let outcome = place.run(&format!("{command} scan.nii.gz thick.nii.gz --out {out}"));
        let err = outcome.err.clone();
        outcome.succeeded();
        let said: Vec<&str> = err.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert!(matches!(said[..], [one] if one.contains("thick.nii.gz: ")), "{err}");
        assert!(said[0].contains("1.00×1.00×2.50 mm") && said[0].contains("1.00×1.00×1.00 mm"), "{}", said[0]);
        let summary = summary(&place.at(out));
        assert_eq!(summary["scan"]["warnings"], Value::Null);
        let told = summary["thick"]["warnings"].as_array().unwrap();
        assert!(told.len() == 1 && said[0].ends_with(told[0].as_str().unwrap()));
    }
    // A checkpoint of an earlier version does not know: nothing is said.
    earlier_version(&place.at("occupancy.safetensors"), r#","trained_spacing":[1.0,1.0,1.0]"#);
    let outcome = place.run(&format!("{} thick.nii.gz --out old", OCCUPANCY.replace("--quiet ", "")));
    assert!(!outcome.err.contains("warning"), "{}", outcome.err);
    outcome.succeeded();
    let read = |folder: &str| fs::read(place.at(&format!("{folder}/thick.nii.gz"))).unwrap();
    assert_eq!(read("old"), read("occupancy"));
}

#[test]
fn flags_that_do_not_go_together() {
    let place = place();
    let table: [(&str, i32, &[&str]); 17] = [
        (&format!("{OCCUPANCY} scan.nii.gz --out o --window 16x16x16"), 2, &["--window", "U-Nets"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --tta"), 2, &["--tta", "U-Nets"]),
        (&format!("{UNET} scan.nii.gz --out o --resolution 32x32x32"), 2, &["U-Net", "occupancy network"]),
        (&format!("{UNET} scan.nii.gz --out o --verify"), 2, &["--verify", "occupancy networks", "unet.safetensors"]),
        (&format!("{UNET} scan.nii.gz --out o --stages 2,1 --seeded"), 2, &["--stages and --seeded"]),
        (&format!("{UNET} scan.nii.gz --out o --mesh ply --refine 2"), 2, &["--refine", "occupancy networks"]),
        (&format!("{UNET} scan.nii.gz --out o --window 16x16x16 --overlap 2"), 2, &["overlap of 2", "0.9"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --stages 4,3,1"), 2, &["4,3,1", "multiple"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --stages 4,2"), 2, &["4,2", "last 1"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --stages 4,2,1 --dense"), 2, &["--stages", "--dense"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --stages 4,2,1 --probabilities"), 2, &["--probabilities"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --threshold 2"), 2, &["'2'", "0.5"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --spacing 0"), 2, &["'0'", "1x1x3"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --spacing 0.0001"), 2, &["--spacing", "coarser"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --resolution 40000x1x1"), 2, &["--resolution", "32767", "coarser"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --resolution 30000x30000x30000"), 1, &["30000", "--memory-budget"]),
        (&format!("{OCCUPANCY} scan.nii.gz --out o --model oss-net-c"), 1, &["occupancy.safetensors", "another model"]),
    ];
    for (command, code, parts) in table {
        place.refuses(command, code, parts);
    }
}

/// Channels, NaN, folders without scans, lists of files that do not go together.
#[test]
fn scans_that_do_not_fit() {
    let place = place();
    let nan: Vec<u8> = (0..SIDE.pow(3)).flat_map(|i| if i == 77 { f32::NAN } else { 1.0 }.to_le_bytes()).collect();
    Nifti::new([SIDE; 3]).typed(16, 4, nan).write(&place.at("nan.nii.gz"));
    Nifti::filled([SIDE, SIDE, 4], 3).write(&place.at("short.nii.gz"));
    fs::create_dir(place.at("empty")).unwrap();
    // A bad case is passed over, and the exit status says so.
    let outcome = place.run(&format!("{OCCUPANCY} scan.nii.gz gone.nii.gz --out mixed"));
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    assert!(
        outcome.err.contains("gone.nii.gz: No such file") && outcome.err.contains("1 of 2 cases"),
        "{}",
        outcome.err
    );
    assert!(place.at("mixed/scan.nii.gz").exists());
    let table: [(&str, i32, &[&str]); 5] = [
        ("nan.nii.gz", 1, &["nan.nii.gz", "NaN"]),
        ("scan.nii.gz,short.nii.gz", 1, &["short.nii.gz", "[16, 16, 4]", "scan.nii.gz"]),
        ("scan.nii.gz,scan.nii.gz", 1, &["2 image channels", "takes 1"]),
        ("empty", 1, &["empty", "no .nii"]),
        ("gone.nii.gz,scan.nii.gz", 1, &["gone.nii.gz", "No such file"]),
    ];
    for (input, code, parts) in table {
        place.refuses(&format!("{OCCUPANCY} {input} --out o"), code, parts);
    }
    // Enough for the network and the scan, not for a U-Net's activations: the message names the way out.
    let large = ball(96, 1)[0].clone();
    large.write(&place.at("large.nii.gz"));
    let unet = format!("{UNET} large.nii.gz --out o --memory-budget 36MiB");
    place.refuses(&format!("{unet} --window 96x96x96"), 1, &["out of memory", "--memory-budget", "--window"]);
    place.run(&format!("{unet} --window 32x32x32")).succeeded();
}

/// A file's name is that of the only segmentation; what is there is replaced only if that is asked for.
#[test]
fn one_scan_into_one_file() {
    let place = place();
    place.run(&format!("{UNET} scan.nii.gz -o new/seg.nii.gz --mesh glb --smallest 0")).succeeded();
    assert_eq!(names(&place.at("new")), ["seg.ctbl", "seg.glb", "seg.json", "seg.label", "seg.nii.gz"]);
    let told: Value = serde_json::from_str(&fs::read_to_string(place.at("new/seg.json")).unwrap()).unwrap();
    let [entry] = &told["cases"].as_array().unwrap()[..] else { panic!("{told}") };
    assert!(told["made_by"]["version"].is_string() && entry["case"] == "scan", "{told}");
    for (key, head) in [("weights", "crc32:"), ("input_hash", "sha256-64k:"), ("output", "new/seg.nii.gz")] {
        assert!(entry[key].as_str().unwrap().starts_with(head), "{key}: {told}");
    }
    let [header, table] = ["seg.nii.gz", "seg.label"].map(|name| fs::read(place.at("new").join(name)).unwrap());
    assert!(String::from_utf8(table).unwrap().contains(&format!("{BALL}")));
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&header[..]), &mut plain).unwrap();
    // NIFTI_INTENT_LABEL.
    assert_eq!(plain[68..70], 1002i16.to_le_bytes());
    let again = format!("{UNET} scan.nii.gz --out new/seg.nii.gz");
    place.refuses(&again, 1, &["new/seg.nii.gz", "exists already", "--overwrite"]);
    fs::write(place.at("new/seg.nii.gz"), "").unwrap();
    place.run(&format!("{again} --overwrite")).succeeded();
    assert_eq!(fs::read(place.at("new/seg.nii.gz")).unwrap(), header);
    ball(SIDE, 3)[0].write(&place.at("other.nii.gz"));
    // What is told of another scan goes with its segmentation; what is not ours stays.
    place.run(&format!("{UNET} other.nii.gz --out new/seg.nii.gz --overwrite")).succeeded();
    let told = fs::read_to_string(place.at("new/seg.json")).unwrap();
    assert!(told.contains("other.nii.gz") && !told.contains("scan.nii.gz"), "{told}");
    fs::write(place.at("new/mine.json"), "[{\"EchoTime\": 0.1}, 7]x").unwrap();
    place.refuses(&format!("{UNET} scan.nii.gz --out new/mine.nii.gz"), 1, &["new/mine.json", "--out"]);
    assert!(!place.at("new/mine.nii.gz").exists());
    place.refuses(&format!("{UNET} scan.nii.gz other.nii.gz --out one.nii"), 2, &["one.nii", "2 scans", "folder"]);
    place.refuses(&format!("{again} --report --overwrite"), 2, &["--report", "folder"]);
}

/// Ctrl-C in the middle of a long answer: finished cases stay, of the other nothing is there, and --resume goes on.
#[test]
fn an_interrupt_leaves_whole_files() {
    let place = place();
    ball(SIDE, 3)[0].write(&place.at("z.nii.gz"));
    // The second scan's answer has 64 million voxels.
    place.run(&format!("{OCCUPANCY} scan.nii.gz --out out")).succeeded();
    let long = format!("{OCCUPANCY} scan.nii.gz z.nii.gz --out out --resume --dense --resolution 400x400x400");
    let child = place.command(&long).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    // SAFETY: sends a signal to a child that has not been waited for, so that the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let started = Instant::now();
    let outcome = child.wait_with_output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(20), "the interrupt was not heard");
    let said = String::from_utf8(outcome.stderr).unwrap();
    assert_eq!(outcome.status.code(), Some(130), "{said}");
    assert!(said.contains("0 of 1 scan ") && said.contains("--resume"), "{said}");
    assert_eq!(names(&place.at("out")), ["inference.json", "labels.ctbl", "labels.label", "scan.nii.gz"]);
    place.run(&format!("{OCCUPANCY} scan.nii.gz z.nii.gz --out out --resume")).succeeded();
    assert_eq!(names(&place.at("out")), ["inference.json", "labels.ctbl", "labels.label", "scan.nii.gz", "z.nii.gz"]);
}

/// The quickest of some starts, since other work may hold up any of them: 50 ms, of which an unoptimised dynamic linker and
/// a test machine's disk take most.
#[test]
fn the_program_starts_quickly() {
    let start = || {
        let started = Instant::now();
        assert!(Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status().unwrap().success());
        started.elapsed()
    };
    let quickest = (0..20).map(|_| start()).min().unwrap();
    assert!(quickest < Duration::from_millis(50), "{quickest:?}");
}

/// An official checkpoint at its official size, where the golden files hold one (34 MB): the file says nothing about itself,
/// `--model` names it, and four files are one scan.
#[test]
fn an_official_checkpoint_by_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let weights: Option<PathBuf> =
        root.ancestors().map(|folder| folder.join("shared/fixtures/off_full_brats.pt")).find(|path| path.exists());
    let Some(weights) = weights else { return eprintln!("skipped: off_full_brats.pt not found") };
    let place = Place::new();
    for (number, part) in ["flair", "t1", "t1ce", "t2"].into_iter().enumerate() {
        ball(24, number as u64)[0].write(&place.at(&format!("subject/S_{part}.nii.gz")));
    }
    let load = format!("infer --quiet --load-model {}", weights.display());
    place.refuses(&format!("{load} --input subject --out out"), 1, &["off_full_brats.pt", "does not say its network"]);
    place.refuses(&format!("{load} --model unet4d --input subject --out out"), 2, &["unet4d", "oss-net-c"]);
    // The official lattices cover the padded volume; a coarse one keeps this short.
    place.run(&format!("{load} --model oss-net-c --input subject --out out --stages 16,1 --threshold 1")).succeeded();
    let found = labels(&place.at("out/subject.nii.gz"));
    assert_eq!((found.shape, found.voxels.iter().max()), ([24; 3], Some(&0)));
    assert_eq!(summary(&place.at("out"))["subject"]["points"], 16 * 16 * 10);
}
