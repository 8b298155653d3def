//! `ossnet infer --mesh --report`: meshes lie where the scan lies, and the page shows them.

use std::fs;
use std::path::Path;

use crate::common::surface::assert_closed;
use crate::support::cli::{Place, ball, data_set, keep_page};
use ossnet::data::{Axes, Labels, Source};
use ossnet::mesh::Mesh;
use serde_json::Value;

const SIDE: i64 = 16;

/// Vertices and triangles of an OBJ file.
fn read_obj(path: &Path) -> Mesh {
    let mut mesh = Mesh::default();
    for line in fs::read_to_string(path).unwrap().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "v" => mesh.vertices.push([1, 2, 3].map(|i| words[i].parse().unwrap())),
            "f" => {
                mesh.triangles.push([1, 2, 3].map(|i| words[i].split('/').next().unwrap().parse::<u32>().unwrap() - 1))
            }
            _ => {}
        }
    }
    mesh
}

#[test]
fn meshes_and_the_page() {
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a", "b", "c", "d"], &["v"]);
    place
        .run("train --preset sample --quiet --threads 1 --data data --points 512 --epochs 60 --model oss-net-c-small --out run")
        .succeeded();
    // 2 mm, and the first voxel elsewhere than at the origin.
    for (name, seed) in [("one", 2), ("two", 3)] {
        let mut scan = ball(SIDE, seed).into_iter().next().unwrap();
        scan.sform = [[2.0, 0.0, 0.0, -31.0], [0.0, 2.0, 0.0, 12.0], [0.0, 0.0, 2.0, 150.0]];
        scan.pixdim[1..4].fill(2.0);
        scan.write(&place.at(&format!("{name}.nii.gz")));
    }
    let infer = "infer --quiet --threads 1 --load-model run/oss-net-c-small.safetensors --out out --smallest 20 --mesh obj --report --input";
    let printed = place.run(&format!("{infer} one.nii.gz --json")).succeeded();
    let entries = serde_json::from_str::<Value>(&printed).unwrap()["cases"].clone();
    let stated = &entries[0]["meshes"][0];
    assert_eq!(stated["files"], serde_json::json!(["out/one.obj"]));
    let mesh = read_obj(&place.at("out/one.obj"));
    assert_closed(&mesh, "one.obj");
    assert_eq!(stated["triangles"], mesh.triangles.len());
    let labels = Labels::read(&Source::File(place.at("out/one.nii.gz")), Axes::Canonical).unwrap();
    // In the middle of what was segmented, and of its volume but for what the cut edges cost.
    let inside: Vec<usize> = (0..labels.len()).filter(|&i| labels.voxels[i] > 0).collect();
    let volume = inside.len() as f64 * 8.0;
    assert!((0.9..1.0).contains(&(mesh.volume() / volume)), "{} of {volume} mm³", mesh.volume());
    let side = SIDE as usize;
    for axis in 0..3 {
        let index = |i: usize| [i / (side * side), i / side % side, i % side][axis] as f64;
        let centre = inside.iter().map(|&i| index(i)).sum::<f64>() / inside.len() as f64;
        let millimetres = 2.0 * centre + [-31.0, 12.0, 150.0][axis];
        let mean = mesh.vertices.iter().map(|v| f64::from(v[axis])).sum::<f64>() / mesh.vertices.len() as f64;
        // The mean of a surface's vertices is not that of its inside: half a voxel.
        assert!((mean - millimetres).abs() < 1.0, "axis {axis}: {mean} against {millimetres}");
    }
    // The network pulls the surface to its own level set: the loss falls, the mesh stays closed and near.
    let refine = infer.replace("--out out", "--out finer --refine 60").replace("--report ", "");
    let printed = place.run(&format!("{refine} one.nii.gz --json")).succeeded();
    let entries = serde_json::from_str::<Value>(&printed).unwrap()["cases"].clone();
    let losses = [0, 1].map(|i| entries[0]["meshes"][0]["refinement_loss"][i].as_f64().unwrap());
    assert!(losses[1] < 0.8 * losses[0], "{losses:?}");
    let finer = read_obj(&place.at("finer/one.obj"));
    assert_eq!(finer.triangles, mesh.triangles);
    let moved = |(a, b): (&[f32; 3], &[f32; 3])| (0..3).map(|i| f64::from(a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
    let moves: Vec<f64> = finer.vertices.iter().zip(&mesh.vertices).map(moved).collect();
    // RMSprop moves 10⁻² voxels at first and 10⁻³ later, each axis; voxels are 2 mm.
    assert!(moves.iter().all(|&mm| mm < 0.7) && moves.iter().any(|&mm| mm > 0.02), "{moves:?}");
    // Going on with another scan, the page shows both.
    place.run(&format!("{infer} one.nii.gz two.nii.gz --resume")).succeeded();
    let page = fs::read_to_string(place.at("out/report.html")).unwrap();
    assert_eq!(page.matches("<canvas").count(), 2);
    assert!(
        page.contains("2 scans were segmented by OSS-Net C small (2 encoder blocks) in") && page.contains("ball, ")
    );
    keep_page("infer", page);
}

#[test]
fn refinement_needs_meshes() {
    let place = Place::new();
    place.run("infer --load-model m.safetensors --input a.nii --out out --refine 5").refused(2, &["--mesh"]);
}

#[test]
fn what_is_no_mesh_is_refused() {
    let place = Place::new();
    place
        .run("infer --load-model m.safetensors --input a.nii --out out --mesh vtk")
        .refused(2, &["vtk", "obj, ply, stl"]);
}
