//! Meshes stay closed through smoothing and simplification, lie where the segmentation lies, and are read back from every
//! format by a parser that knows the format's definition alone.

use crate::common::surface::{assert_closed, euler};
use crate::support::Nifti;
use crate::support::cli::Place;
use ossnet::checkpoint::{Data, torch};
use ossnet::data::geometry::{Geometry, StoredGrid};
use ossnet::data::{Affine, Labels};
use ossnet::device::Device;
use ossnet::mesh::{self, Mesh, MeshOptions, Space, simplify, smooth};
use ossnet::rng::Rng;

/// All triangles of everything.
const PLAIN: MeshOptions = MeshOptions { threshold: 0.5, smallest: 0, smoothing: 0, triangles: 0 };

fn labels(shape: [usize; 3], class: impl Fn([f64; 3]) -> u8) -> Labels {
    let [d, h, w] = shape;
    let position = |i: usize| [i / (h * w), i / w % h, i % w].map(|index| index as f64);
    Labels::new(shape, (0..d * h * w).map(|i| class(position(i))).collect())
}

fn meshed(labels: &Labels, options: &MeshOptions) -> Mesh {
    let device = Device::cpu(2, 1 << 28).unwrap();
    mesh::of_labels(&device, labels, 1, options).unwrap().0
}

fn ball(r: f64) -> Labels {
    let middle = r.ceil() + 1.0;
    labels([2 * middle as usize + 1; 3], |p| u8::from(p.iter().map(|x| (x - middle).powi(2)).sum::<f64>() <= r * r))
}

/// Two rings that hang in one another: two components of genus 1.
fn rings() -> Labels {
    let ring = |x: f64, y: f64, z: f64| (x.hypot(y) - 12.0).powi(2) + z * z <= 16.0;
    labels([50, 36, 40], |[x, y, z]| u8::from(ring(x - 17.5, y - 17.5, z - 19.5) || ring(x - 29.5, z - 19.5, y - 17.5)))
}

#[test]
fn simplification_keeps_the_surface_closed_and_its_kind() {
    for (labels, characteristic, target) in [(ball(12.0), 2, 400), (rings(), 0, 1200)] {
        let full = meshed(&labels, &PLAIN);
        assert_eq!(euler(&full), characteristic);
        let simple = simplify(&full, target);
        assert_closed(&simple, "simplified");
        assert_eq!(euler(&simple), characteristic);
        assert!((target - 1..=target).contains(&simple.triangles.len()), "{} triangles", simple.triangles.len());
        assert!((simple.volume() / full.volume() - 1.0).abs() < 0.01, "{} of {}", simple.volume(), full.volume());
        assert_eq!(simplify(&full, target), simple, "the same every time");
        assert_eq!(simplify(&simple, target), simple, "few enough already");
    }
}

/// Every point of the simplified ball is within half a voxel of the ball, as the staircase itself is within one.
#[test]
fn simplification_stays_near() {
    let simple = simplify(&meshed(&ball(12.0), &PLAIN), 500);
    for &triangle in &simple.triangles {
        let corners = simple.corners(triangle);
        for weights in [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1.0 / 3.0; 3]] {
            let p = [0, 1, 2].map(|i| (0..3).map(|k| weights[k] * corners[k][i]).sum::<f64>() - 13.0);
            let radius = p.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!((radius - 12.0).abs() < 0.75, "radius {radius}");
        }
    }
}

/// Noise has all cases, thin sheets and touching pieces: as few triangles as can be had, never an open edge.
#[test]
fn simplification_of_noise() {
    let mut rng = Rng::new(5);
    for round in 0..20 {
        let shape = [0; 3].map(|_| 2 + rng.below(5) as usize);
        let values: Vec<u8> = (0..shape.iter().product()).map(|_| u8::from(rng.uniform() < 0.4)).collect();
        let full = meshed(&Labels::new(shape, values), &PLAIN);
        for target in [full.triangles.len() / 2, 0] {
            let simple = simplify(&full, target);
            assert_closed(&simple, &format!("round {round}"));
            assert_eq!(euler(&simple), euler(&full));
            assert!(simple.triangles.len() < full.triangles.len() || full.triangles.is_empty());
        }
    }
}

#[test]
fn smoothing_flattens_stairs_and_keeps_the_volume() {
    let rough = meshed(&ball(12.0), &PLAIN);
    let mut fair = rough.clone();
    smooth(&mut fair, 20);
    assert_eq!(fair.triangles, rough.triangles);
    let roughness = |mesh: &Mesh| {
        let radii: Vec<f64> = mesh
            .vertices
            .iter()
            .map(|v| v.iter().map(|&x| (f64::from(x) - 13.0).powi(2)).sum::<f64>().sqrt())
            .collect();
        let mean = radii.iter().sum::<f64>() / radii.len() as f64;
        (radii.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / radii.len() as f64).sqrt()
    };
    assert!(roughness(&fair) < 0.5 * roughness(&rough), "{} of {}", roughness(&fair), roughness(&rough));
    assert!((fair.volume() / rough.volume() - 1.0).abs() < 0.01, "{} of {}", fair.volume(), rough.volume());
}

/// A turned, mirrored, anisotropic grid: the mesh lies where the voxels lie, faces outwards and has their volume.
#[test]
fn meshes_lie_in_the_patient() {
    let affine = Affine([[-1.2, 0.5, 0.0, 90.0], [0.4, 1.5, 0.3, -126.0], [0.1, -0.4, 3.0, -72.0]]);
    let mut labels = labels([12, 13, 14], |p| u8::from(p.iter().all(|&x| (2.0..=9.0).contains(&x))));
    labels.geometry = Geometry::new(StoredGrid::from_affine(affine, labels.shape), false);
    assert!(affine.determinant() < 0.0);
    let mesh = meshed(&labels, &PLAIN);
    // Eight voxels a side, less what the cut edges and corners of a box of two values lose.
    let voxels = 512.0 - 12.0 * 7.0 / 8.0 - 8.0 * (1.0 / 8.0 - 1.0 / 48.0);
    let exact = voxels * affine.determinant().abs();
    assert!((mesh.volume() / exact - 1.0).abs() < 1e-5, "{} against {exact}", mesh.volume());
    let centre = affine.apply([5.5; 3]);
    let mean =
        [0, 1, 2].map(|i| mesh.vertices.iter().map(|v| f64::from(v[i])).sum::<f64>() / mesh.vertices.len() as f64);
    // The box is symmetric about its middle; f32 millimetres.
    assert!((0..3).all(|i| (mean[i] - centre[i]).abs() < 1e-4), "{mean:?} against {centre:?}");
}

/// Pieces below the size are dropped, whichever field they are meshed from; the largest stays where all are.
#[test]
fn small_pieces_are_dropped() {
    let device = Device::cpu(1, 1 << 24).unwrap();
    let labels = labels([10, 4, 4], |[x, _, _]| u8::from(x <= 2.0 || (6.0..=7.0).contains(&x)));
    let probabilities: Vec<f32> = labels.voxels.iter().map(|&v| if v == 1 { 0.9 } else { 0.2 }).collect();
    for (smallest, kept, spared) in [(32, 2, 0), (33, 1, 0), (49, 1, 48)] {
        let options = MeshOptions { smallest, ..PLAIN };
        let affine = labels.geometry.affine;
        let a = mesh::of_labels(&device, &labels, 1, &options).unwrap();
        let b = mesh::of_field(&device, probabilities.clone(), labels.shape, &affine, &options).unwrap();
        for (mesh, dropped) in [a, b] {
            assert_eq!((dropped.kept, dropped.components, dropped.spared), (kept, 2 - kept, spared));
            assert_closed(&mesh, "kept");
            assert_eq!(euler(&mesh), 2 * kept as i64);
        }
    }
}

/// A parser's place in a binary file.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk().expect("the file is cut short");
        self.0 = rest;
        *taken
    }

    fn float(&mut self) -> f32 {
        f32::from_le_bytes(self.take())
    }

    fn integer(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn vector(&mut self) -> [f32; 3] {
        [0; 3].map(|_| self.float())
    }
}

/// A mesh as a file holds it, with its normals.
type Read = (Mesh, Vec<[f32; 3]>);

fn read_obj(text: &str) -> Read {
    let (mut mesh, mut normals) = (Mesh::default(), Vec::new());
    let floats = |words: &[&str]| [0, 1, 2].map(|i| words[i].parse::<f32>().unwrap());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "#" => {}
            "v" => mesh.vertices.push(floats(&words[1..])),
            "vn" => normals.push(floats(&words[1..])),
            "f" => mesh.triangles.push([1, 2, 3].map(|i| {
                let (vertex, normal) = words[i].split_once("//").unwrap();
                assert_eq!(vertex, normal);
                vertex.parse::<u32>().unwrap() - 1
            })),
            other => panic!("line of kind {other}"),
        }
    }
    (mesh, normals)
}

fn read_ply(bytes: &[u8]) -> Read {
    let end = bytes.windows(11).position(|window| window == b"end_header\n").unwrap() + 11;
    let header = std::str::from_utf8(&bytes[..end]).unwrap();
    let lines: Vec<&str> = header.lines().collect();
    assert_eq!(lines[..2], ["ply", "format binary_little_endian 1.0"]);
    let count = |what: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(&format!("element {what} "))).unwrap();
        line.parse::<usize>().unwrap()
    };
    let properties: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("property ")).collect();
    let expected =
        ["float x", "float y", "float z", "float nx", "float ny", "float nz", "list uchar int vertex_indices"];
    assert_eq!(properties, expected);
    let (mut rest, mut mesh, mut normals) = (Bytes(&bytes[end..]), Mesh::default(), Vec::new());
    for _ in 0..count("vertex") {
        mesh.vertices.push(rest.vector());
        normals.push(rest.vector());
    }
    for _ in 0..count("face") {
        assert_eq!(rest.take(), [3]);
        mesh.triangles.push([0; 3].map(|_| rest.integer()));
    }
    assert!(rest.0.is_empty());
    (mesh, normals)
}

/// Positions of the triangles' corners, and the triangles' normals.
fn read_stl(bytes: &[u8]) -> (Vec<[[f32; 3]; 3]>, Vec<[f32; 3]>) {
    assert!(!bytes.starts_with(b"solid"), "that would be the text form");
    let mut rest = Bytes(&bytes[80..]);
    let count = rest.integer();
    let read = (0..count).map(|_| {
        let (normal, corners) = (rest.vector(), [0; 3].map(|_| rest.vector()));
        assert_eq!(rest.take(), [0, 0]);
        (corners, normal)
    });
    let read = read.unzip();
    assert!(rest.0.is_empty());
    read
}

/// The mesh of a GLB as its accessors say; its node's turn and scale are returned beside.
fn read_glb(bytes: &[u8]) -> (Read, serde_json::Value) {
    let mut rest = Bytes(bytes);
    assert_eq!((rest.take(), rest.integer(), rest.integer() as usize), (*b"glTF", 2, bytes.len()));
    let length = rest.integer() as usize;
    assert_eq!(rest.take(), *b"JSON");
    let (json, binary) = rest.0.split_at(length);
    let document: serde_json::Value = serde_json::from_slice(json).unwrap();
    let mut rest = Bytes(binary);
    let length = rest.integer() as usize;
    assert_eq!(rest.take(), *b"BIN\0");
    assert_eq!((rest.0.len(), length % 4), (length, 0));
    assert_eq!(document["buffers"][0]["byteLength"], length);
    let buffer = rest.0;
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
    let accessor = |index: &serde_json::Value, component: u32, kind: &str, size: usize| {
        let accessor = &document["accessors"][number(index)];
        assert_eq!((&accessor["componentType"], &accessor["type"]), (&component.into(), &kind.into()));
        let view = &document["bufferViews"][number(&accessor["bufferView"])];
        let (offset, count) = (number(&view["byteOffset"]), number(&accessor["count"]));
        assert_eq!(number(&view["byteLength"]), count * size);
        (Bytes(&buffer[offset..offset + count * size]), count, accessor.clone())
    };
    let primitive = &document["meshes"][0]["primitives"][0];
    let (mut positions, count, bounds) = accessor(&primitive["attributes"]["POSITION"], 5126, "VEC3", 12);
    let vertices: Vec<[f32; 3]> = (0..count).map(|_| positions.vector()).collect();
    for (key, pick) in [("min", f32::min as fn(f32, f32) -> f32), ("max", f32::max)] {
        let extreme = vertices.iter().copied().reduce(|a, b| [0, 1, 2].map(|i| pick(a[i], b[i]))).unwrap();
        let stated = [0, 1, 2].map(|i| bounds[key][i].as_f64().unwrap() as f32);
        assert_eq!(stated, extreme, "{key}");
    }
    let (mut normals, count, _) = accessor(&primitive["attributes"]["NORMAL"], 5126, "VEC3", 12);
    let normals = (0..count).map(|_| normals.vector()).collect();
    let (mut indices, count, _) = accessor(&primitive["indices"], 5125, "SCALAR", 4);
    let triangles = (0..count / 3).map(|_| [0; 3].map(|_| indices.integer())).collect();
    ((Mesh { vertices, triangles }, normals), document["nodes"][0].clone())
}

#[test]
fn every_format_is_read_back() {
    let mut mesh = meshed(&ball(4.0), &PLAIN);
    mesh.vertices.iter_mut().for_each(|vertex| vertex[1] = vertex[1] / 3.0 - 70.1);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let bytes = |name: &str| {
        assert_eq!(mesh::write(&at(name), &mesh, Space::Ras).unwrap(), [at(name)]);
        std::fs::read(at(name)).unwrap()
    };
    let obj = String::from_utf8(bytes("a.obj")).unwrap();
    assert!(obj.starts_with("# ossnet, millimetres, SPACE=RAS\n"));
    let (glb, node) = read_glb(&bytes("a.GLB"));
    for (name, (read, normals)) in [("obj", read_obj(&obj)), ("ply", read_ply(&bytes("a.ply"))), ("glb", glb)] {
        assert_eq!(read, mesh, "{name}");
        assert_eq!(normals, mesh.normals(), "{name}");
    }
    // The node turns superior (z) to up (y), and millimetres to metres: a quaternion's turn of the vertical axis.
    let [x, y, z, w] = [0, 1, 2, 3].map(|i| node["rotation"][i].as_f64().unwrap());
    let turned = [2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)];
    assert!((0..3).all(|i| (turned[i] - [0.0, 1.0, 0.0][i]).abs() < 1e-12), "{turned:?}");
    assert_eq!(node["scale"], serde_json::json!([0.001, 0.001, 0.001]));

    let (triangles, normals) = read_stl(&bytes("a.stl"));
    let corners: Vec<[[f32; 3]; 3]> =
        mesh.triangles.iter().map(|t| t.map(|vertex| mesh.vertices[vertex as usize])).collect();
    assert_eq!(triangles, corners);
    for ([a, b, c], normal) in corners.iter().zip(normals) {
        // Perpendicular to both edges; unit edges and f32.
        for edge in [b, c] {
            assert!((0..3).map(|i| normal[i] * (edge[i] - a[i])).sum::<f32>().abs() < 1e-5);
        }
    }

    let files = mesh::write(&at("a.pt"), &mesh, Space::Ras).unwrap();
    assert_eq!(files, [at("a_vertices.pt"), at("a_triangles.pt")]);
    let [vertices, triangles] = [&files[0], &files[1]].map(|file| torch::read_tensor(file).unwrap());
    assert_eq!(
        (vertices.shape(), triangles.shape()),
        ([mesh.vertices.len(), 3].as_slice(), [mesh.triangles.len(), 3].as_slice())
    );
    assert_eq!(vertices.data(), &Data::F32(mesh.vertices.as_flattened().to_vec()));
    let indices = mesh.triangles.as_flattened().iter().map(|&v| i64::from(v)).collect();
    assert_eq!(triangles.data(), &Data::I64(indices));
}

/// LPS is a half turn: triangles still face outwards.
#[test]
fn the_other_axes() {
    let mesh = meshed(&ball(3.0), &PLAIN);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ply");
    mesh::write(&path, &mesh, Space::Lps).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (read, _) = read_ply(&bytes);
    assert!((read.volume() - mesh.volume()).abs() < 1e-9);
    assert!(read.vertices.iter().zip(&mesh.vertices).all(|(a, b)| *a == [-b[0], -b[1], b[2]]));
    assert!(String::from_utf8_lossy(&bytes).contains("comment ossnet, millimetres, SPACE=LPS\n"));
}

#[test]
fn an_empty_mesh_is_a_file_all_the_same() {
    // Nothing, and not less: 0 rather than the -0 that the sum of no floats is.
    let (area, volume) = (Mesh::default().area(), Mesh::default().volume());
    assert_eq!([area, volume].map(f64::to_bits), [0, 0]);
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.obj", "a.ply", "a.stl", "a.glb", "a.pt"] {
        mesh::write(&folder.path().join(name), &Mesh::default(), Space::Ras).unwrap();
    }
    assert_eq!(read_ply(&std::fs::read(folder.path().join("a.ply")).unwrap()).0, Mesh::default());
    assert!(read_stl(&std::fs::read(folder.path().join("a.stl")).unwrap()).0.is_empty());
    let glb = std::fs::read(folder.path().join("a.glb")).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&glb[20..]).unwrap();
    assert_eq!(
        (glb.len() as u32, document["asset"]["version"].as_str()),
        (u32::from_le_bytes(glb[8..12].try_into().unwrap()), Some("2.0"))
    );
}

/// A file of 20³ voxels of 2 mm with a cube of class 1 (10³) and one of class 3 (5³).
fn two_cubes(place: &Place) {
    let inside = |p: [usize; 3], low: usize, high: usize| p.iter().all(|x| (low..high).contains(x));
    let voxels = (0..8000).map(|i| [i % 20, i / 20 % 20, i / 400]).map(|p| {
        if inside(p, 2, 12) {
            1
        } else if inside(p, 13, 18) {
            3
        } else {
            0u8
        }
    });
    let file = Nifti::new([20, 20, 20]).typed(2, 1, voxels.collect());
    file.write(&place.at("seg.nii.gz"));
}

#[test]
fn the_command() {
    let place = Place::new();
    two_cubes(&place);
    let out = place.run("mesh seg.nii.gz --out organ.ply --smallest 100 --triangles 200 --json").succeeded();
    let all: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&all["schema_version"], &all["made_by"]["version"]), (&2.into(), &env!("CARGO_PKG_VERSION").into()));
    let meshes = &all["meshes"];
    assert_eq!(meshes.as_array().unwrap().len(), 2);
    for (mesh, (name, voxels)) in
        meshes.as_array().unwrap().iter().zip([("organ_1.ply", 1000.0), ("organ_3.ply", 125.0)])
    {
        assert_eq!(mesh["files"], serde_json::json!([name]));
        let (read, _) = read_ply(&std::fs::read(place.at(name)).unwrap());
        assert_closed(&read, name);
        assert!(read.triangles.len() <= 200);
        assert_eq!(mesh["triangles"], read.triangles.len());
        // Cut edges and corners cost up to an eighth of the smaller cube.
        let ratio = mesh["volume_ml"].as_f64().unwrap() / (voxels * 1e-3);
        assert!((0.85..1.0).contains(&ratio), "{name}: {ratio}");
    }
    let text = place.run("mesh seg.nii.gz --out one.stl --label 3 --smallest 0 --lps").succeeded();
    assert!(text.starts_with("one.stl: class 3: ") && text.contains(" cm²"), "{text}");
    // A lesion below the size is meshed, and it is told.
    let outcome = place.run("mesh seg.nii.gz --out small.ply --label 3");
    let said = "warning: class 3: all pieces have fewer than 1728 voxels (--smallest); the largest stays, of ";
    assert!(outcome.err.contains(said), "{}", outcome.err);
    assert!(!read_ply(&std::fs::read(place.at("small.ply")).unwrap()).0.triangles.is_empty());
    // No closed surface has fewer than four triangles.
    let outcome = place.run("mesh seg.nii.gz --out few.ply --label 3 --triangles 3");
    assert!(
        outcome.err.contains("the fewest that neither open nor fold the surface, more than --triangles 3"),
        "{}",
        outcome.err
    );
    // With a threshold, values are values.
    let text = place.run("mesh seg.nii.gz --out both.obj --threshold 0.5 --smallest 0 --triangles 0").succeeded();
    assert!(text.starts_with("both.obj: ") && place.at("both.obj").exists(), "{text}");
}

/// Classes have the names that the file beside the segmentation gives them.
#[test]
fn classes_are_called_as_the_folder_says() {
    let place = Place::new();
    two_cubes(&place);
    let names = r#"{"labels": {"background": 0, "Left lung": 1, "tumour": [1, 2], "aorta": 3}}"#;
    std::fs::write(place.at("dataset.json"), names).unwrap();
    let out = place.run("mesh seg.nii.gz --out organs.ply --smallest 0 --json").succeeded();
    let all: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(all["input_hash"].as_str().unwrap().starts_with("sha256-64k:"), "{all}");
    for (mesh, name) in all["meshes"].as_array().unwrap().iter().zip(["organs_left-lung.ply", "organs_aorta.ply"]) {
        assert_eq!(mesh["files"], serde_json::json!([name]));
        assert!(place.at(name).exists());
    }
    assert_eq!((&all["meshes"][1]["class"], &all["meshes"][1]["name"]), (&3.into(), &"aorta".into()));
    std::fs::write(place.at("seg.label"), "3 1 2 3 1 1 1 \"spleen\"\n").unwrap();
    let text = place.run("mesh seg.nii.gz --out one.stl --label 3 --smallest 0").succeeded();
    assert!(text.starts_with("one.stl: spleen: "), "{text}");
}

/// All classes in one file, each under its name and in a colour of its own; a folder that is missing is made.
#[test]
fn a_glb_holds_all_classes() {
    let place = Place::new();
    two_cubes(&place);
    place.run("mesh seg.nii.gz -o new/folder/organs.glb --smallest 0 --triangles 0 --lps").succeeded();
    let glb = std::fs::read(place.at("new/folder/organs.glb")).unwrap();
    let integer = |at: usize| u32::from_le_bytes(glb[at..at + 4].try_into().unwrap()) as usize;
    let document: serde_json::Value = serde_json::from_slice(&glb[20..20 + integer(12)]).unwrap();
    let names = |key: &str| {
        document[key].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((names("meshes"), names("materials")), (vec!["class 1", "class 3"], vec!["class 1", "class 3"]));
    assert_eq!(names("nodes"), ["ossnet", "class 1", "class 3"]);
    let colours = [0, 1].map(|i| &document["materials"][i]["pbrMetallicRoughness"]["baseColorFactor"]);
    assert_ne!(colours[0], colours[1]);
    // The second mesh's positions lie within the bounds that its accessor states, in the half space of LPS.
    let binary = 20 + integer(12) + 8;
    let accessor = &document["accessors"][3];
    let view = &document["bufferViews"][accessor["bufferView"].as_u64().unwrap() as usize];
    let start = binary + view["byteOffset"].as_u64().unwrap() as usize;
    for vertex in 0..accessor["count"].as_u64().unwrap() as usize {
        for axis in 0..3 {
            let at = start + 12 * vertex + 4 * axis;
            let value = f64::from(f32::from_le_bytes(glb[at..at + 4].try_into().unwrap()));
            let [low, high] = ["min", "max"].map(|end| accessor[end][axis].as_f64().unwrap());
            assert!((low..=high).contains(&value) && (axis == 2) == (value > 0.0), "{axis}: {low} {value} {high}");
        }
    }
    assert_eq!(glb.len(), binary + document["buffers"][0]["byteLength"].as_u64().unwrap() as usize);
}

#[test]
fn what_cannot_be_meshed() {
    let place = Place::new();
    two_cubes(&place);
    place.run("mesh seg.nii.gz --out a.vtk").refused(2, &["a.vtk", ".ply"]);
    place.run("mesh seg.nii.gz --out a.ply --label 2").refused(1, &["seg.nii.gz", "class 2", "1, 3"]);
    place.run("mesh seg.nii.gz --out a.ply --label 1 --threshold 0.5").refused(2, &["--label"]);
    place.run("mesh seg.nii.gz --out seg.nii.gz/a.ply").refused(1, &["seg.nii.gz"]);
    place.run("mesh none.nii.gz --out a.ply").refused(1, &["none.nii.gz", "check the path"]);
    place.run("mesh seg.nii.gz --out a.ply --threshold nan").refused(2, &["--threshold NaN"]);
    Nifti::new([4, 4, 4]).typed(2, 1, vec![0; 64]).write(&place.at("empty.nii"));
    place.run("mesh empty.nii --out a.ply").refused(1, &["empty.nii", "nothing but 0"]);
    let halves: Vec<u8> = (0..64).flat_map(|i| (i as f32 / 64.0).to_le_bytes()).collect();
    Nifti::new([4, 4, 4]).typed(16, 4, halves).write(&place.at("map.nii"));
    place.run("mesh map.nii --out a.ply --label 1").refused(1, &["map.nii", "--threshold"]);
    place.run("mesh map.nii --out a.ply --smallest 0").succeeded();
    assert!(place.at("a.ply").exists());
}
