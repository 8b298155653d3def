//! The page of segmented scans is one file without network access, whatever the names, and stays small with a hundred scans.
//!
//! The pages are left in the build's folder for temporary files (`target/tmp/pages`), where `scripts/check_pages.py` opens
//! them in a browser.

#![cfg(feature = "report")]

use std::path::{Path, PathBuf};

use ossnet::data::{Affine, Labels};
use ossnet::device::Device;
use ossnet::mesh::{self, MeshOptions};
use ossnet::report::{ImageVolume, SegmentedClass, SegmentedScan, case_slices, scans_page};
use ossnet::rng::Rng;

/// Where the pages are left.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A head-like phantom of `side` voxels a side: an organ with folds, a smaller one beside it, grey values with noise.
fn scan(name: &str, side: usize, seed: u64) -> SegmentedScan {
    let mut rng = Rng::new(seed);
    let [a, b, c] = [0; 3].map(|_| rng.uniform_in(0.8, 1.1));
    let middle = side as f32 / 2.0;
    let place = |i: usize| [i / (side * side), i / side % side, i % side].map(|index| (index as f32 - middle) / middle);
    let class = |[x, y, z]: [f32; 3]| {
        let folds = 0.05 * (9.0 * x).sin() * (8.0 * y + 1.0).sin() * (10.0 * z).cos()
            - 0.12 * (-(8.0 * x).powi(2)).exp() * z.max(0.0);
        let organ = (x / a).powi(2) + (y / b).powi(2) * 0.8 + (z / c).powi(2) * 1.2 < (0.72 + folds).powi(2);
        let lesion = (x - 0.35).powi(2) + (y - 0.15).powi(2) + (z - 0.55).powi(2) < 0.03;
        if lesion { 2 } else { u8::from(organ) }
    };
    let count = side.pow(3);
    let voxels: Vec<u8> = (0..count).map(|i| class(place(i))).collect();
    let image: Vec<f32> =
        voxels.iter().map(|&class| [20.0, 90.0, 140.0][usize::from(class)] + 14.0 * rng.normal()).collect();
    let (shape, spacing) = ([side; 3], [180.0 / side as f64; 3]);
    let mut labels = Labels::new(shape, voxels);
    labels.geometry.affine = Affine::from_spacing(spacing).regrid([-(side as f64) / 2.0; 3], [1.0; 3]);
    let volume = ImageVolume { image: &image, label: &labels.voxels, shape, spacing, axes: ['R', 'A', 'S'] };
    let slices = case_slices(name, &volume, &[]).unwrap();
    let device = Device::cpu(2, 1 << 30).unwrap();
    let options = MeshOptions { smallest: 30, smoothing: 12, triangles: 6000, ..MeshOptions::default() };
    let class = |value: u8, name: &str| {
        let (mesh, _) = mesh::of_labels(&device, &labels, value, &options).unwrap();
        let voxels = labels.voxels.iter().filter(|&&voxel| voxel == value).count();
        let volume = voxels as f64 * spacing.iter().product::<f64>() / 1000.0;
        SegmentedClass { value, name: name.into(), volume, mesh }
    };
    SegmentedScan {
        name: name.into(),
        facts: vec![
            ("voxels".into(), format!("{side} × {side} × {side}")),
            ("seconds".into(), format!("{:.1}", rng.uniform_in(1.0, 9.0))),
        ],
        slices,
        classes: vec![class(1, "organ"), class(2, "lesion")],
    }
}

/// Nothing that a browser would fetch.
fn assert_self_contained(page: &str) {
    for word in ["http:", "https:", "src=", "@import", "url(", "<link", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!page.contains(word), "the page has {word}");
    }
    for reference in page.split("href=\"").skip(1) {
        assert!(reference.starts_with('#') || reference.starts_with("data:image/png;base64,"), "{}", &reference[..40]);
    }
}

#[test]
fn one_scan_with_two_classes() {
    let page = scans_page(&[scan("patient 7", 64, 7)], "One scan was segmented in 3.1 s.", "cpu, 2 threads").unwrap();
    assert_self_contained(&page);
    assert_eq!(page.matches("<article class=\"scan\"").count(), 1);
    assert!(
        page.contains("Segmentation of patient 7")
            && page.contains("organ, ")
            && !page.contains("class=\"scroll index\"")
    );
    std::fs::write(folder().join("one.html"), page).unwrap();
}

#[test]
fn a_hundred_scans() {
    let template: Vec<SegmentedScan> = (0..4).map(|seed| scan("", 40, seed)).collect();
    let scans: Vec<SegmentedScan> =
        (0..100).map(|i| SegmentedScan { name: format!("case {i:03}"), ..template[i % 4].clone() }).collect();
    let page = scans_page(&scans, "100 scans were segmented.", "cpu, 2 threads").unwrap();
    assert_self_contained(&page);
    assert_eq!(page.matches("<canvas").count(), 100);
    assert_eq!(page.matches("<a href=\"#scan-").count(), 100);
    // 12,000 triangles, three films and 64,000 voxels each.
    assert!(page.len() < 100 * 220_000, "{} bytes", page.len());
    std::fs::write(folder().join("hundred.html"), page).unwrap();
}

#[test]
fn hostile_names_and_nothing_found() {
    let name = "</script><script>alert(1)</script>\"><img src=x>";
    let mut hostile = scan("x", 12, 1);
    hostile.name = name.into();
    hostile.classes.iter_mut().for_each(|class| class.name = name.into());
    hostile.facts.push((name.into(), name.into()));
    let mut empty = scan("nothing", 12, 2);
    empty.classes.iter_mut().for_each(|class| class.mesh = mesh::Mesh::default());
    let page = scans_page(&[hostile, empty], name, name).unwrap();
    assert!(!page.contains("<script>alert") && !page.contains("<img"));
    assert!(page.contains("No mesh: nothing was found"));
    std::fs::write(folder().join("hostile.html"), page).unwrap();
    assert_self_contained(&scans_page(&[], "No scans.", "").unwrap());
}
