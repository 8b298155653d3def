//! What pages promise, whatever command writes them: a network has one colour, figures are those of the JSON, the cases that matter can
//! be looked at and scrolled. The pages are left for `scripts/check_pages.py`, which uses them in a browser.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::Nifti;
use crate::support::cli::{Place, ball, json, keep_page};

const SIDE: i64 = 16;

/// A data set of balls whose halves are two classes.
fn halves(root: &Path, names: [&[&str]; 2]) {
    let entry =
        |name: &&str| format!(r#"{{"image": "./imagesTr/{name}.nii.gz", "label": "./labelsTr/{name}.nii.gz"}}"#);
    let list = |names: &[&str]| names.iter().map(entry).collect::<Vec<_>>().join(", ");
    for (number, name) in names.concat().iter().enumerate() {
        let [image, mut label]: [Nifti; 2] = ball(SIDE, number as u64);
        for (voxel, value) in label.voxels.iter_mut().enumerate() {
            *value *= 1 + u8::from(voxel as i64 / SIDE % SIDE > SIDE / 2);
        }
        image.write(&root.join(format!("imagesTr/{name}.nii.gz")));
        label.write(&root.join(format!("labelsTr/{name}.nii.gz")));
    }
    let json = format!(
        r#"{{"name": "halves", "modality": {{"0": "X"}}, "labels": {{"0": "background", "1": "front", "2": "back"}},
            "training": [{}], "validation": [{}]}}"#,
        list(names[0]),
        list(names[1])
    );
    fs::write(root.join("dataset.json"), json).unwrap();
}

/// A folder with a page of each kind: `compare`, `train`, `evaluate`, `predictions`, `sweep`, `memory`, `roofline`.
fn pages() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Place::new();
        halves(&place.at("data"), [&["a", "b", "c", "d"], &["u", "v", "w"]]);
        let commands = [
            "compare --preset sample --models oss-net-c-small,unet3d --epochs 2 --data data --out compare",
            "train --preset sample --model unet3d --epochs 4 --validate-every 1 --data data --out train",
            "evaluate train --out evaluate",
            "infer -l train/unet3d.safetensors -i data/imagesTr --out found",
            "evaluate --predictions found --data data --part all --out predictions",
            "memory --sweep 32..128 --models oss-net-c-small,oss-net-c,unet3d --html sweep.html",
            "memory --model unet3d --volume 32x32x32 --html memory.html",
            "roofline --model unet3d --volume 32x32x32 --html roofline.html",
        ];
        for command in commands {
            let threads = if command.starts_with("roofline") { "" } else { " --threads 2" };
            place.run(&format!("{command}{threads}")).succeeded();
        }
        for folder in ["compare", "train", "evaluate", "predictions"] {
            fs::rename(place.at(&format!("{folder}/report.html")), place.at(&format!("{folder}.html"))).unwrap();
        }
        for name in ["compare", "train", "evaluate", "predictions", "sweep", "memory"] {
            keep_page(name, page(&place, name));
        }
        place
    })
}

fn page(place: &Place, name: &str) -> String {
    fs::read_to_string(place.at(&format!("{name}.html"))).unwrap()
}

/// Classes and names in the legends of charts and before the rows of tables.
fn colours(page: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (at, _) in page.match_indices("class=\"") {
        let (class, rest) = page[at + 7..].split_once('"').unwrap();
        let kinds = ["line ", "bar ", "dot "];
        let Some(colour) = kinds.into_iter().find_map(|kind| class.strip_prefix(kind)) else { continue };
        // In a legend the name is the text behind the sample, in a table it is behind the swatch.
        let behind =
            |mark: &str| rest.split_once(mark).filter(|(before, _)| before.len() < 60).map(|(_, behind)| behind);
        let legend = behind("<text class=\"label\"").and_then(|text| Some(text.split_once('>')?.1));
        let Some(name) = legend.or(behind("</svg>")) else { continue };
        found.insert((name.split('<').next().unwrap().to_string(), colour.to_string()));
    }
    found
}

#[test]
fn a_network_has_one_colour_on_every_page() {
    let place = pages();
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in ["compare", "sweep", "train"] {
        let found = colours(&page(place, name));
        assert!(name == "train" || found.len() >= 2, "{name}: {found:?}");
        for (network, colour) in
            found.into_iter().filter(|(network, _)| network.contains("Net") && !network.contains("recorded"))
        {
            known.entry(network).or_default().insert(colour);
        }
    }
    assert!(known.values().all(|colours| colours.len() == 1), "{known:?}");
    assert!(known.len() >= 3, "{known:?}");
    let distinct: BTreeSet<_> = known.values().flatten().collect();
    assert_eq!(distinct.len(), known.len(), "{known:?}");
    // The training page has no legend of one curve: its loss has the network's colour.
    let unet = known["3D residual U-Net"].first().unwrap();
    assert!(page(place, "train").contains(&format!("<path class=\"line {unet}\"")));
    assert!(page(place, "roofline").contains(&format!("dot faint {unet}\"")));
}

/// Cells of the rows of the first table whose rows are named.
fn rows(page: &str, head: &str) -> BTreeMap<String, Vec<String>> {
    let table = page.split("<table>").find(|table| table.contains(head)).unwrap().split("</table>").next().unwrap();
    let plain = |markup: &str| {
        let pieces = markup.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text));
        pieces.collect::<String>().trim().to_string()
    };
    let row = |row: &str| {
        let mut cells = row.split("<td").map(|cell| plain(cell.split_once('>').map_or("", |(_, cell)| cell)));
        (cells.next().unwrap(), cells.collect())
    };
    table.split("<tr").skip(2).map(row).collect()
}

#[test]
fn figures_are_those_of_the_results_and_costs_are_those_of_a_scan() {
    let place = pages();
    let results = json(&fs::read_to_string(place.at("compare/results.json")).unwrap());
    let table = rows(&page(place, "compare"), ">Parameters<");
    let number = |value: &Value| value.as_f64().unwrap();
    for model in results["models"].as_array().unwrap() {
        let row = &table[model["name"].as_str().unwrap()];
        let told: Vec<f64> = row.iter().map(|cell| cell.replace(',', "").parse().unwrap()).collect();
        let scans = number(&model["scans_per_step"]);
        let cases: Vec<f64> = model["cases"].as_array().unwrap().iter().map(|case| number(&case["dice"])).collect();
        let mut expected = vec![number(&model["parameters"]), number(&model["dice"]), number(&model["iou"])];
        expected.extend(cases);
        let (mib, each) =
            (number(&model["scan_peak_bytes"]) / f64::from(1 << 20), number(&model["step_seconds"]) / scans);
        expected.extend([scans, mib]);
        let costs = told.len() - 2;
        for (told, expected) in told[..costs].iter().zip(&expected) {
            assert!(
                (told - expected).abs() <= 0.05 + 1e-9 && (*expected > 1.5 || (told - expected).abs() <= 5.1e-4),
                "{row:?} {expected}"
            );
        }
        assert_eq!(expected.len(), costs);
        let factor = if page(place, "compare").contains("One scan<br><small>ms</small>") { 1e3 } else { 1.0 };
        assert!((told[costs] - factor * each).abs() <= 0.05 + 1e-9, "{row:?} {each}");
        match scans as u64 {
            1 => assert_eq!(model["scan_peak_bytes"], model["peak_bytes"]),
            _ => assert!(number(&model["scan_peak_bytes"]) < number(&model["peak_bytes"])),
        }
    }
    let scores = json(&fs::read_to_string(place.at("evaluate/scores.json")).unwrap());
    let evaluated = rows(&page(place, "evaluate"), "<caption>Over the cases");
    // Rows of one class have one name: the last is its deviation.
    let deviation = number(&scores["summary"][1]["values"]["dice"]["deviation"]);
    assert_eq!(evaluated["back"][2], format!("{deviation:.3}"));
}

/// The worst and the median case, whole: as many voxels as the scan has, and masks of label and prediction.
#[test]
fn cases_that_matter_can_be_looked_at_and_scrolled() {
    let place = pages();
    for (name, folder) in [
        ("train", "train/summary.json"),
        ("evaluate", "evaluate/scores.json"),
        ("predictions", "predictions/scores.json"),
    ] {
        let page = page(place, name);
        let told = json(&fs::read_to_string(place.at(folder)).unwrap());
        let mut cases: Vec<(f64, &str)> = told["cases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|case| (case["dice"].as_f64().unwrap(), case["name"].as_str().unwrap()))
            .collect();
        cases.sort_by(|a, b| a.0.total_cmp(&b.0));
        let heading = |what: &str, (dice, _): (f64, &str)| {
            let found = page.split(&format!("<h3>{what} case: ")).nth(1).unwrap_or_else(|| panic!("{name}: no {what}"));
            let found = found.split("</h3>").next().unwrap();
            assert!(found.ends_with(&format!(", Dice {dice:.3}")), "{name}: {found}, {cases:?}");
        };
        heading("Worst", cases[0]);
        heading("Median", cases[(cases.len() - 1) / 2]);
        let stacks: Vec<Value> = page
            .split("<script type=\"application/json\" class=\"stack\">")
            .skip(1)
            .map(|stack| json(stack.split("</script>").next().unwrap()))
            .collect();
        assert_eq!(stacks.len(), 2, "{name}");
        for stack in stacks {
            assert_eq!(
                (stack["shape"].clone(), stack["masks"].as_array().unwrap().len()),
                (Value::from(vec![SIDE; 3]), 2)
            );
        }
    }
    assert_eq!(page(place, "compare").matches("class=\"stack\"").count(), 3);
}

#[test]
fn a_training_page_shows_rate_time_and_every_class() {
    let place = pages();
    let page = page(place, "train");
    for heading in ["Training loss", "Validation", "Validation Dice by class", "Learning rate", "Time"] {
        assert!(page.contains(&format!("<h3>{heading}</h3>")), "{heading}");
    }
    // What the pointer reads is what the log and the summary hold.
    let curves: Vec<Value> = page
        .split("<script type=\"application/json\" class=\"values\">")
        .skip(1)
        .map(|values| json(values.split("</script>").next().unwrap()))
        .collect();
    let summary = json(&fs::read_to_string(place.at("train/summary.json")).unwrap());
    let validations = summary["validations"].as_array().unwrap();
    assert_eq!(validations.len(), 4);
    for (number, validation) in validations.iter().enumerate() {
        for (k, class) in validation["classes"].as_array().unwrap().iter().enumerate() {
            let series = &curves[2]["series"][k];
            assert_eq!(series["name"], class["name"]);
            assert_eq!(series["says"][number], format!("{:.3}", class["dice"].as_f64().unwrap()));
        }
        assert_eq!(validation["classes"].as_array().unwrap().len(), 2);
    }
    let log = fs::read_to_string(place.at("train/log.jsonl")).unwrap();
    let rates: Vec<f64> = log.lines().map(json).filter_map(|line| line["rate"].as_f64()).collect();
    let said: Vec<String> = rates.iter().map(|rate| format!("{rate:.2e}")).collect();
    assert_eq!(curves[3]["series"][0]["says"], serde_json::json!(said));
}

#[test]
fn one_chart_has_switches_for_levels_and_bytes() {
    let page = page(pages(), "sweep");
    assert_eq!(page.matches("<div class=\"switch\">").count(), 1);
    assert_eq!((page.matches("<fieldset>").count(), page.matches("class=\"pane ").count()), (2, 8));
    for part in [">reserved<", ">activations<", ">Recompute level 3<"] {
        assert!(page.contains(part), "{part}");
    }
}
