//! The page of one training run: what it was told, how it went, what it reached.

use std::fmt::Write;

use super::charts;
use super::escape::Escaped;
use super::html::{document, figure, legend};
use super::number_format::score;
use super::report_data::LossCurve;
use super::results::CaseScore;

/// What the page of a training run shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainingRun {
    /// The network and its data.
    pub title: String,
    /// The result in a sentence.
    pub conclusion: String,
    /// Figures by name.
    pub facts: Vec<(String, String)>,
    /// Loss of each step (thinned or not).
    pub loss: Vec<(u64, f64)>,
    /// Validation scores over the steps, one curve a score.
    pub validations: Vec<LossCurve>,
    /// Scores of the validation cases at the end.
    pub cases: Vec<CaseScore>,
    /// The configuration as TOML.
    pub configuration: String,
}

/// The run as a self-contained HTML page.
pub fn training_page(run: &TrainingRun) -> String {
    let sections = [curves(run), figures(run), cases(&run.cases), configuration(run)].concat();
    document(&run.title, &run.conclusion, "", &sections)
}

fn curves(run: &TrainingRun) -> String {
    let mut html = String::from("<section>\n<h2>Course</h2>\n");
    let loss = LossCurve { model: "training loss".into(), points: run.loss.clone() };
    if let Some(chart) = charts::losses(&[loss], &[]) {
        html += &figure("Training loss", "", &chart, "Pale: each step. Strong: the mean of a twentieth of the run.");
    }
    if let Some(chart) = charts::score_curves(&run.validations, "Validation scores against optimiser step") {
        let entries = run.validations.iter().enumerate();
        let names = legend(entries.map(|(n, curve)| (format!("line {}", charts::model_class(n)), &curve.model)));
        html += &figure("Validation", &names, &chart, "Means over the validation cases, over all voxels of each.");
    }
    html + "</section>\n"
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
            cases: vec![CaseScore { name: "a&b".into(), dice: 0.75, iou: 0.6, classes: Vec::new() }],
            facts: vec![("Steps".into(), "4".into())],
            configuration: "epochs = 2".into(),
            ..TrainingRun::default()
        };
        let page = training_page(&run);
        for part in ["&lt;heads&gt;", "a&amp;b", "0.750", "epochs = 2", "Dice: 0.800 at step 4"] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<figure").count(), 2);
        assert!(!page.contains("http"), "self-contained");
        assert_eq!(training_page(&TrainingRun::default()).matches("<figure").count(), 0);
    }
}
