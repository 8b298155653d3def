//! A cohort drawn on the spot: two bright bodies in noise, in volumes of different shapes.

use std::f64::consts::TAU;
use std::fs;
use std::path::Path;

use ossnet::rng::Rng;

use super::Nifti;
use super::cli::Place;

/// Shapes of the validation cases: some smaller than every training case, one larger than all along an axis.
pub const VALIDATION: [[i64; 3]; 5] = [[24, 28, 20], [30, 26, 22], [22, 22, 22], [34, 24, 26], [27, 31, 17]];

/// A place with such a cohort in `data`.
pub fn place(training: usize) -> Place {
    let place = Place::new();
    write(&place.at("data"), training);
    place
}

/// Writes `training` cases and five of [`VALIDATION`]'s shapes in nnU-Net's first layout. Class 1 is an ellipsoid of 5 to 7
/// voxels, class 2 a brighter one beside it, absent in every fourth case. Intensities are arbitrary numbers, case by case.
pub fn write(folder: &Path, training: usize) {
    let mut rng = Rng::named(11, "cohort");
    let (mut trained, mut validated) = (Vec::new(), Vec::new());
    for index in 0..training + VALIDATION.len() {
        let shape = match index.checked_sub(training) {
            Some(place) => VALIDATION[place],
            None => [24, 26, 20].map(|least| least + rng.below(7) as i64),
        };
        let name = format!("case_{index:03}");
        case(&mut rng, folder, &name, shape, index % 4 != 3);
        let entry = format!(r#"{{"image":"imagesTr/{name}.nii.gz","label":"labelsTr/{name}.nii.gz"}}"#);
        if index < training { trained.push(entry) } else { validated.push(entry) }
    }
    let description = format!(
        r#"{{"name":"cohort","modality":{{"0":"MRI"}},"labels":{{"0":"background","1":"body","2":"core"}},
        "training":[{}],"validation":[{}]}}"#,
        trained.join(","),
        validated.join(",")
    );
    fs::write(folder.join("dataset.json"), description).unwrap();
}

fn case(rng: &mut Rng, folder: &Path, name: &str, shape: [i64; 3], both: bool) {
    let uniform = |rng: &mut Rng, low: f64, high: f64| low + (high - low) * f64::from(rng.uniform());
    let centre: [f64; 3] = [0, 1, 2].map(|k| shape[k] as f64 / 2.0 + uniform(rng, -2.0, 2.0));
    let radii: [f64; 3] = [0, 1, 2].map(|_| uniform(rng, 5.0, 7.0));
    let angle = uniform(rng, 0.0, TAU);
    let second = [centre[0] + 5.0 * angle.cos(), centre[1] + 5.0 * angle.sin(), centre[2]];
    let (scale, offset) = (uniform(rng, 10.0, 500.0), uniform(rng, 0.0, 100.0));
    let (mut voxels, mut labels) = (Vec::new(), Vec::new());
    for z in 0..shape[2] {
        for y in 0..shape[1] {
            for x in 0..shape[0] {
                let place = [x, y, z].map(|index| index as f64);
                let inside = |centre: [f64; 3], factor: f64| {
                    (0..3).map(|k| ((place[k] - centre[k]) / (factor * radii[k])).powi(2)).sum::<f64>() < 1.0
                };
                let label = match (both && inside(second, 0.7), inside(centre, 1.0)) {
                    (true, _) => 2u8,
                    (false, inside) => u8::from(inside),
                };
                let bright = [0.0, 1.5, 3.0][usize::from(label)] + uniform(rng, -0.5, 0.5);
                voxels.extend(((offset + scale * bright) as f32).to_le_bytes());
                labels.push(label);
            }
        }
    }
    Nifti::new(shape).typed(16, 4, voxels).write(&folder.join(format!("imagesTr/{name}.nii.gz")));
    Nifti::new(shape).typed(2, 1, labels).write(&folder.join(format!("labelsTr/{name}.nii.gz")));
}
