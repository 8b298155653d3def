//! The page of one training run: what it was told, how it went, what it reached.

use std::fmt::Write;

use super::charts::{self, CurveStyle, Line};
use super::escape::Escaped;
use super::html::document;
use super::number_format::score;
use super::palette;
use super::report_data::LossCurve;
use super::results::CaseScore;
use super::slices::{self, PicturedCase};
use crate::Result;

/// What the page of a training run shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainingRun {
    /// The network and its data.
    pub title: String,
    /// The network, whose colour the curves have.
    pub network: String,
    /// The result in a sentence.
    pub conclusion: String,
    /// Figures by name.
    pub facts: Vec<(String, String)>,
    /// Loss of each step (thinned or not).
    pub loss: Vec<(u64, f64)>,
    /// Validation scores over the steps, one curve a score.
    pub validations: Vec<LossCurve>,
    /// Validation Dice over the steps, one curve a class, where there are several.
    pub classes: Vec<LossCurve>,
    /// The learning rate of each step.
    pub rate: Vec<(u64, f64)>,
    /// Seconds of each step.
    pub seconds: Vec<(u64, f64)>,
    /// Cases to look at.
    pub pictures: Vec<PicturedCase>,
    /// Scores of the validation cases at the end.
    pub cases: Vec<CaseScore>,
    /// The configuration as TOML.
    pub configuration: String,
}

/// The run as a self-contained HTML page.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when a mask or image among the slices does not have its stated size.
pub fn training_page(run: &TrainingRun) -> Result<String> {
    let pictures = slices::section(&run.pictures)?;
    let sections = [curves(run), pictures, figures(run), cases(&run.cases), configuration(run)].concat();
    Ok(document(&run.title, &run.conclusion, "", &sections))
}

fn curves(run: &TrainingRun) -> String {
    let style = |description, vertical, noisy, scores, says| CurveStyle {
        description,
        vertical,
        horizontal: "step",
        noisy,
        scores,
        says,
    };
    let colour = palette::network(&run.network);
    let one = |name: &str, points| [Line { class: colour.clone(), name: name.into(), points }];
    let of_class = |(k, curve): (usize, &'_ LossCurve)| (format!("k{}", k % 8), curve.model.clone());
    let classes: Vec<Line<'_>> = run
        .classes
        .iter()
        .enumerate()
        .map(|(k, curve)| {
            let (class, name) = of_class((k, curve));
            Line { class, name, points: &curve.points }
        })
        .collect();
    let validations: Vec<Line<'_>> = run
        .validations
        .iter()
        .enumerate()
        .map(|(k, curve)| Line {
            class: if k == 0 { colour.clone() } else { format!("{colour} recorded") },
            name: curve.model.clone(),
            points: &curve.points,
        })
        .collect();
    let drawn = [
        (
            "Training loss",
            charts::curves(
                &one("training loss", &run.loss),
                &style("Training loss against optimiser step", "loss", true, false, |loss| format!("{loss:.4}")),
            ),
            "Pale: each step. Strong: the mean of a twentieth of the run.",
        ),
        (
            "Validation",
            charts::curves(
                &validations,
                &style("Validation scores against optimiser step", "score", false, true, score),
            ),
            "Means over the validation cases, over all voxels of each.",
        ),
        (
            "Validation Dice by class",
            charts::curves(
                &classes,
                &style("Validation Dice by class against optimiser step", "Dice", false, true, score),
            ),
            "Means over the validation cases whose labels hold the class.",
        ),
        (
            "Learning rate",
            charts::curves(
                &one("learning rate", &run.rate),
                &style("Learning rate against optimiser step", "rate", false, false, |rate| format!("{rate:.2e}")),
            ),
            "Of the weights.",
        ),
        (
            "Time",
            charts::curves(
                &one("time per step", &run.seconds),
                &style("Seconds of each optimiser step", "seconds", true, false, |seconds| format!("{seconds:.3} s")),
            ),
            "Pale: each step. Strong: the mean of a twentieth of the run.",
        ),
    ];
    let figures = drawn.iter().filter_map(|(heading, chart, caption)| Some(chart.as_ref()?.figure(heading, caption)));
    format!("<section>\n<h2>Course</h2>\n{}</section>\n", figures.collect::<String>())
}

fn figures(run: &TrainingRun) -> String {
    let mut html = String::from("<section>\n<h2>Figures</h2>\n<div class=\"scroll\"><table><tbody>\n");
    for (name, value) in &run.facts {
        let _ = writeln!(html, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", Escaped(name), Escaped(value));
    }
    html + "</tbody></table></div>\n</section>\n"
}

fn cases(cases: &[CaseScore]) -> String {
    if cases.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<section>\n<h2>Validation cases at the end</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Case</th>\
         <th scope=\"col\">Dice</th><th scope=\"col\">IoU</th></tr></thead>\n<tbody>\n",
    );
    let mut row = |name: &str, dice: f64, iou: f64| {
        let (name, dice, iou) = (Escaped(name), score(dice), score(iou));
        let _ = writeln!(html, "<tr><th scope=\"row\">{name}</th><td>{dice}</td><td>{iou}</td></tr>");
    };
    for case in cases {
        row(&case.name, case.dice, case.iou);
        case.classes.iter().for_each(|class| row(&format!("– {}", class.name), class.dice, class.iou));
    }
    html + "</tbody></table></div>\n</section>\n"
}

fn configuration(run: &TrainingRun) -> String {
    let text = Escaped(&run.configuration);
    format!("<section>\n<h2>Configuration</h2>\n<pre>{text}</pre>\n</section>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_curves_scores_and_configuration_and_needs_no_network() {
        let curve = |model: &str| LossCurve { model: model.into(), points: vec![(2, 0.4), (4, 0.8)] };
        let run = TrainingRun {
            title: "OSS-Net C on <heads>".into(),
            loss: (1..=4).map(|step| (step, 1.0 / step as f64)).collect(),
            validations: vec![curve("Dice"), curve("IoU")],
            classes: vec![curve("heart"), curve("aorta")],
            rate: vec![(1, 1e-3), (2, 5e-4)],
            seconds: vec![(1, 0.1), (2, 0.1)],
            cases: vec![CaseScore { name: "a&b".into(), dice: 0.75, iou: 0.6, classes: Vec::new() }],
            facts: vec![("Steps".into(), "4".into())],
            configuration: "epochs = 2".into(),
            ..TrainingRun::default()
        };
        let page = training_page(&run).unwrap();
        for part in [
            "&lt;heads&gt;",
            "a&amp;b",
            "0.750",
            "epochs = 2",
            "Dice: 0.800 at step 4",
            "Dice by class",
            "aorta: 0.800",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<figure").count(), 5);
        assert!(!page.contains("http"), "self-contained");
        assert_eq!(training_page(&TrainingRun::default()).unwrap().matches("<figure").count(), 0);
    }
}
