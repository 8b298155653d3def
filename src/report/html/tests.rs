use super::*;
use crate::report::{ClassScore, LossCurve, fixtures};

/// Checks that tags nest and close, and that attributes have values in quotes.
fn assert_sound(html: &str) {
    const VOID: [&str; 3] = ["meta", "br", "!DOCTYPE"];
    let mut open: Vec<&str> = Vec::new();
    // Neither the style sheet nor scripts are markup.
    let mut markup = String::new();
    let mut rest = html;
    while let Some((name, at)) = ["style", "script"]
        .map(|name| (name, rest.find(&format!("<{name}"))))
        .into_iter()
        .filter_map(|(name, at)| Some((name, at?)))
        .min_by_key(|(_, at)| *at)
    {
        let start = at + rest[at..].find('>').unwrap() + 1;
        let end = start + rest[start..].find(&format!("</{name}>")).expect("an end of it");
        markup.push_str(&rest[..start]);
        rest = &rest[end..];
    }
    markup.push_str(rest);
    let html = markup.as_str();
    {
        for piece in html.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect("a tag that ends");
            assert!(!text.contains('>'), "a stray > after <{tag}>");
            assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
            let name = tag.split([' ', '/']).next().unwrap();
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "</{name}> closes another element"),
                None if tag.ends_with('/') || VOID.contains(&name) => {}
                None => open.push(name),
            }
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "elements left open");
    let ids: Vec<&str> = html.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    for id in &ids {
        assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "id {id} is not unique");
    }
    for reference in html.split(" href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(ids.contains(&reference), "nothing has the id {reference}");
    }
}

/// Also writes the page where `OSSNET_DEMO_REPORT` says, to be looked at in a browser.
#[test]
fn the_demo_page_is_sound_self_contained_and_small() {
    let html = page(&fixtures::results(), &fixtures::evidence()).unwrap();
    if let Some(path) = std::env::var_os("OSSNET_DEMO_REPORT") {
        crate::files::write_atomic(path, html.as_bytes()).unwrap();
    }
    assert_sound(&html);
    for foreign in ["http", "//cdn", "<script src", "@import", "url(", "fetch(", "{{", "NaN", "inf "] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    for expected in [
        "0.903",
        "398,213",
        "48.0",
        "mean training mask",
        "0.790",
        "152 people",
        "--seed 7",
        "saved activation",
        "conv3d",
    ] {
        assert!(html.contains(expected), "{expected}");
    }
    // 2 cases × 3 planes are stored once and shown by 3 models; the whole scans are there once as well.
    assert_eq!(html.matches("class=\"stack\"").count(), 2);
    assert_eq!(html.matches("data:image/png;base64,").count(), 6);
    assert_eq!(html.matches("<use href=\"#scan-").count(), 18);
    assert!(html.len() < 2 << 20, "{} bytes", html.len());
}

#[test]
fn hostile_names_are_text() {
    let hostile = "<script>alert(\"1\")</script>{{style}}&'";
    let mut results = fixtures::results();
    let mut evidence = fixtures::evidence();
    results.models[0].name = hostile.into();
    results.models[0].cases[0].name = hostile.into();
    results.models[0].peak_by_role.0[0].0 = hostile.into();
    results.baselines[0].name = hostile.into();
    results.device = hostile.into();
    results.version = hostile.into();
    evidence.losses[0].model = hostile.into();
    evidence.timelines[0].model = hostile.into();
    evidence.timelines[0].roles[0] = hostile.into();
    evidence.timelines[0].events.iter_mut().for_each(|event| {
        event.op = hostile.into();
        event.layer = hostile.into();
    });
    evidence.slices[0].case = hostile.into();
    evidence.slices[0].predictions[0].model = hostile.into();
    let facts = &mut evidence.facts;
    for text in [&mut facts.data_set, &mut facts.description, &mut facts.command, &mut facts.cases[0].name] {
        *text = hostile.into();
    }
    facts.caveats.push(hostile.into());
    facts.warnings.push(hostile.into());
    let html = page(&results, &evidence).unwrap();
    assert_sound(&html);
    assert!(!html.contains("<script>alert") && html.contains("&lt;script&gt;"));
    assert!(html.contains("{{style}}"), "a value was searched for placeholders");
}

#[test]
fn missing_and_infinite_figures_are_dashes() {
    let mut results = fixtures::results();
    let mut evidence = fixtures::evidence();
    for model in &mut results.models {
        (model.dice, model.iou) = (f64::NAN, f64::INFINITY);
        (model.step_seconds, model.total_seconds) = (f64::NAN, f64::NEG_INFINITY);
        model.cases[0].dice = f64::NAN;
    }
    evidence.losses[0].points[10].1 = f64::NAN;
    evidence.losses[1].points[20].1 = f64::INFINITY;
    evidence.facts.cases[0].spacing = [f64::NAN; 3];
    for slice in &mut evidence.slices[0].slices {
        slice.pixel = [f64::NAN, 0.0];
    }
    let html = page(&results, &evidence).unwrap();
    assert_sound(&html);
    assert!(html.contains("No model was evaluated.") && html.contains(MISSING));
    let figures = html.replace("NaN × NaN × NaN", "");
    assert!(!figures.contains("NaN") && !figures.contains(">inf"), "a figure that is none");
}

#[test]
fn an_empty_comparison_is_still_a_page() {
    let html = page(&Results::default(), &ReportData::default()).unwrap();
    assert_sound(&html);
    assert!(html.contains("No model was evaluated."));
}

#[test]
fn huge_counts_do_not_overflow() {
    let mut results = fixtures::results();
    let mut evidence = fixtures::evidence();
    results.models[0].peak_bytes = u64::MAX;
    results.models[0].peak_by_role.0.iter_mut().for_each(|role| role.1 = u64::MAX);
    evidence.timelines[0].events.iter_mut().for_each(|event| event.bytes.fill(u64::MAX));
    evidence.losses[0] = LossCurve { model: "O-Net".into(), points: vec![(u64::MAX, f64::MAX), (1, f64::MIN)] };
    assert_sound(&page(&results, &evidence).unwrap());
}

#[test]
fn many_cases_and_classes_get_their_own_table() {
    let mut results = fixtures::results();
    let class = |name: &str| ClassScore { name: name.into(), dice: 0.123, iou: 0.0615, absent: false };
    results.models[0].cases[0].classes = vec![class("liver"), class("kidneys")];
    let html = page(&results, &fixtures::evidence()).unwrap();
    assert_sound(&html);
    assert!(html.contains("Scores by case and class") && html.contains("kidneys") && html.contains("0.123"));
    assert!(!page(&fixtures::results(), &fixtures::evidence()).unwrap().contains("Scores by case and class"));
}

#[test]
fn a_mask_of_another_size_is_an_error() {
    let mut evidence = fixtures::evidence();
    evidence.slices[0].predictions[0].masks[1].pop();
    assert!(page(&fixtures::results(), &evidence).is_err());
    let mut evidence = fixtures::evidence();
    evidence.slices[0].slices[2].image.pop();
    assert!(page(&fixtures::results(), &evidence).is_err());
}

#[test]
fn a_page_of_many_cases_stays_small() {
    let mut evidence = fixtures::evidence();
    let mut case = evidence.slices.remove(0);
    // Noise, which no PNG makes smaller: 3 × 384² bytes a case, 0.6 MB in base64.
    const SIDE: usize = 384;
    let mut state = 1u64;
    let mut noise = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for slice in &mut case.slices {
        (slice.width, slice.height) = (SIDE, SIDE);
        slice.image = (0..SIDE * SIDE).map(&mut noise).collect();
        slice.label = vec![0; SIDE * SIDE];
    }
    case.predictions.iter_mut().for_each(|model| model.masks = std::array::from_fn(|_| vec![1; SIDE * SIDE]));
    evidence.slices = vec![case; 5];
    let html = page(&fixtures::results(), &evidence).unwrap();
    assert_sound(&html);
    assert!(html.contains("The first 4 of 5 cases are shown") && html.len() < 4_000_000, "{} bytes", html.len());
}
