//! Every score of a segmentation, by case and class, with means and confidence intervals over the cases.

use serde::{Serialize, Serializer};

use super::metrics::{Confusion, ScoreRule};
use super::statistics::Summary;
use super::surface::Surfaces;
use crate::text::csv_cell;

/// The scores, in the order of tables: name and unit.
pub const NAMES: [(&str, &str); 9] = [
    ("dice", ""),
    ("iou", ""),
    ("precision", ""),
    ("recall", ""),
    ("hd95", "mm"),
    ("assd", "mm"),
    ("surface_dice", ""),
    ("volume_error", "ml"),
    ("relative_volume_error", ""),
];

/// How one class of one case was met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// The class.
    pub class: String,
    /// Volume of the label in ml.
    pub true_ml: f64,
    /// Volume of the prediction in ml.
    pub predicted_ml: f64,
    /// In the order of [`NAMES`]. What is not defined (a distance to nothing, a relative error of nothing) is not finite
    /// here, `null` in JSON, and does not count in means.
    #[serde(serialize_with = "by_name")]
    pub values: [f64; NAMES.len()],
}

/// How a case was met, class by class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseScores {
    /// Name of the case.
    pub name: String,
    /// Its classes, background left out.
    pub classes: Vec<Scores>,
}

/// One class over the cases whose labels hold it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassSummary {
    /// The class.
    pub class: String,
    /// Cases whose labels hold it.
    pub cases: usize,
    /// Cases whose labels do not: finding nothing there is no merit, and counts nowhere else.
    pub absent: usize,
    /// Those of them in which it was predicted.
    pub false_alarms: usize,
    /// In the order of [`NAMES`].
    #[serde(serialize_with = "by_name")]
    pub values: [Summary; NAMES.len()],
}

fn by_name<T: Serialize, S: Serializer>(values: &[T; NAMES.len()], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(NAMES.iter().map(|(name, _)| name).zip(values))
}

/// What a class is measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// Voxels along the axes.
    pub shape: [usize; 3],
    /// Distance between voxels in mm.
    pub spacing: [f64; 3],
    /// Tolerance of the surface Dice in mm.
    pub tolerance: f64,
    /// Scores of nothing against nothing.
    pub rule: ScoreRule,
}

impl Measure {
    /// Scores of the class that label files call `value` and people `class`.
    ///
    /// # Panics
    /// If the lengths are not the product of the shape.
    pub fn class(&self, class: &str, value: u8, predicted: &[u8], truth: &[u8]) -> Scores {
        let masks = [truth, predicted].map(|labels| labels.iter().map(|&label| label == value).collect::<Vec<bool>>());
        let surfaces = Surfaces::between(&masks[0], &masks[1], self.shape, self.spacing);
        let confusion = Confusion::of_class(predicted, truth, value);
        let voxel = self.spacing.iter().product::<f64>();
        let millilitres = masks.map(|mask| mask.iter().filter(|&&inside| inside).count() as f64 * voxel / 1000.0);
        let error = millilitres[1] - millilitres[0];
        let rule = &self.rule;
        // A distance needs two surfaces, and nothing can be recalled where there is nothing.
        let if_defined = |value: f64, defined: bool| if defined { value } else { f64::NAN };
        let [truth, found] = millilitres.map(|volume| volume > 0.0);
        Scores {
            class: class.into(),
            true_ml: millilitres[0],
            predicted_ml: millilitres[1],
            values: [
                confusion.dice(rule),
                confusion.iou(rule),
                confusion.precision(rule),
                if_defined(confusion.recall(rule), truth || !found),
                if_defined(surfaces.hausdorff(0.95), truth || found),
                if_defined(surfaces.average(), truth || found),
                surfaces.dice(self.tolerance),
                error,
                if_defined(error / millilitres[0], truth),
            ],
        }
    }
}

/// Class by class, over the cases whose labels hold the class.
pub fn summarise(cases: &[CaseScores]) -> Vec<ClassSummary> {
    let classes = cases.first().map_or(&[][..], |case| &case.classes);
    let of_class = |(k, scores): (usize, &Scores)| {
        let all = cases.iter().filter_map(|case| case.classes.get(k));
        let (held, absent): (Vec<&Scores>, Vec<&Scores>) = all.partition(|scores| scores.true_ml > 0.0);
        ClassSummary {
            class: scores.class.clone(),
            cases: held.len(),
            absent: absent.len(),
            false_alarms: absent.iter().filter(|scores| scores.predicted_ml > 0.0).count(),
            values: std::array::from_fn(|value| Summary::of(held.iter().map(|scores| scores.values[value]))),
        }
    };
    classes.iter().enumerate().map(of_class).collect()
}

/// What does not count in the means, in sentences: classes that are absent, distances to nothing.
pub fn left_out(summary: &[ClassSummary]) -> Vec<String> {
    let mut said = Vec::new();
    for class in summary {
        let ClassSummary { class, cases, absent, false_alarms, values } = class;
        if *absent > 0 {
            let alarms = match false_alarms {
                0 => "was predicted in none of them".to_string(),
                alarms => format!("was predicted in {alarms} of them"),
            };
            said.push(format!(
                "{class}: {absent} of {} labels lack it; it {alarms}; they do not count",
                cases + absent
            ));
        }
        let undefined: Vec<String> = NAMES
            .iter()
            .zip(values)
            .filter(|(_, value)| value.count < *cases)
            .map(|((name, _), value)| format!("{} in {}", name.replace('_', " "), cases - value.count))
            .collect();
        if !undefined.is_empty() {
            said.push(format!("{class}: not defined, and left out of the mean: {}", undefined.join(", ")));
        }
    }
    said
}

/// The scores as CSV: a line a case and class.
pub fn to_csv(cases: &[CaseScores]) -> String {
    let names: Vec<String> = NAMES
        .iter()
        .map(|(name, unit)| if unit.is_empty() { name.to_string() } else { format!("{name}_{unit}") })
        .collect();
    let mut csv = format!("case,class,true_ml,predicted_ml,{}\n", names.join(","));
    for case in cases {
        for scores in &case.classes {
            let numbers = [scores.true_ml, scores.predicted_ml].into_iter().chain(scores.values);
            let cells: Vec<String> =
                numbers.map(|value| if value.is_finite() { value.to_string() } else { String::new() }).collect();
            csv += &format!("{},{},{}\n", csv_cell(&case.name), csv_cell(&scores.class), cells.join(","));
        }
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURE: Measure =
        Measure { shape: [1, 2, 4], spacing: [2.0, 5.0, 10.0], tolerance: 1.0, rule: ScoreRule::DEFAULT };

    #[test]
    fn a_class_by_hand() {
        let truth = [0, 1, 1, 0, 0, 1, 1, 0];
        let predicted = [0, 1, 1, 0, 0, 1, 0, 2];
        let scores = MEASURE.class("organ", 1, &predicted, &truth);
        assert!((scores.true_ml - 0.4).abs() + (scores.predicted_ml - 0.3).abs() < 1e-12);
        let close = |k: usize, value: f64| {
            assert!((scores.values[k] - value).abs() < 1e-12, "{}: {}", NAMES[k].0, scores.values[k])
        };
        close(0, 6.0 / 7.0);
        close(1, 0.75);
        close(2, 1.0);
        close(3, 0.75);
        close(7, -0.1);
        close(8, -0.25);
        let missing = MEASURE.class("other", 2, &predicted, &truth);
        assert_eq!(missing.values[0], 0.0);
        assert!(missing.values[4].is_infinite() && missing.values[5].is_infinite() && missing.values[8].is_nan());
        let absent = MEASURE.class("absent", 3, &predicted, &truth);
        assert_eq!((&absent.values[..4], &absent.values[6..8]), (&[1.0; 4][..], &[1.0, 0.0][..]));
        // Distances of nothing to nothing; what is recalled of a structure that is not there.
        assert!(absent.values[4].is_nan() && absent.values[5].is_nan());
        let alarm = MEASURE.class("absent", 3, &[3; 8], &truth);
        assert!(alarm.values[3].is_nan() && alarm.values[2] == 0.0, "{:?}", alarm.values);
    }

    #[test]
    fn absent_classes_do_not_lift_a_mean() {
        let case = |predicted: [u8; 8], truth: [u8; 8]| CaseScores {
            name: "case".into(),
            classes: vec![MEASURE.class("heart", 1, &predicted, &truth)],
        };
        let (half, none) = ([0, 1, 0, 0, 0, 0, 0, 0], [0; 8]);
        let cases = [case(half, [0, 1, 1, 0, 0, 0, 0, 0]), case(none, none), case(half, none)];
        let summary = &summarise(&cases)[0];
        assert_eq!((summary.cases, summary.absent, summary.false_alarms), (1, 2, 1));
        assert_eq!(summary.values[0].mean, Some(2.0 / 3.0));
        assert_eq!(
            left_out(&summarise(&cases)),
            ["heart: 2 of 3 labels lack it; it was predicted in 1 of them; they do not count"]
        );
    }

    #[test]
    fn tables_leave_out_what_is_not_defined() {
        let case = |name: &str, labels: [u8; 8]| CaseScores {
            name: name.into(),
            classes: vec![MEASURE.class("organ", 1, &labels, &[0, 1, 1, 0, 0, 1, 1, 0])],
        };
        let cases = [case("a,b", [0, 1, 1, 0, 0, 1, 1, 0]), case("c", [0; 8])];
        let csv = to_csv(&cases);
        assert_eq!(csv.lines().count(), 3);
        assert!(csv.lines().nth(1).unwrap().starts_with("\"a,b\",organ,0.4,0.4,1,1,1,1,0,0,1,0,0"), "{csv}");
        assert!(csv.lines().nth(2).unwrap().starts_with("c,organ,0.4,0,0,0,0,0,,,0,-0.4,-1"), "{csv}");
        let summary = &summarise(&cases)[0];
        assert_eq!((summary.values[0].mean, summary.values[0].count), (Some(0.5), 2));
        assert_eq!((summary.values[4].mean, summary.values[4].count), (Some(0.0), 1));
        assert_eq!(
            left_out(&summarise(&cases)),
            ["organ: not defined, and left out of the mean: hd95 in 1, assd in 1"]
        );
        let json = serde_json::to_value(&cases[1]).unwrap();
        assert!(json["classes"][0]["values"]["hd95"].is_null());
    }
}
