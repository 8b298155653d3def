//! Hierarchical inference finds what dense inference finds, and says what it looked at: on functions that are known
//! everywhere, the labels of the embedded sample and made-up shapes.

use ossnet::data::{Axes, embedded};
use ossnet::device::Device;
use ossnet::infer::{Search, SearchRule};
use ossnet::memory::Role;
use ossnet::ops::lattice::Lattice;
use ossnet::rng::Rng;
use ossnet::tensor::{DType, Tensor};

/// A function on a grid of points, `[X, Y, Z]`, last axis fastest.
#[derive(Clone)]
struct Known {
    shape: [usize; 3],
    classes: Vec<u8>,
}

impl Known {
    fn new(shape: [usize; 3], class: impl Fn([usize; 3]) -> u8) -> Self {
        let [nx, ny, nz] = shape;
        let classes = (0..nx * ny * nz).map(|at| class([at / (ny * nz), at / nz % ny, at % nz])).collect();
        Self { shape, classes }
    }

    fn at(&self, [x, y, z]: [usize; 3]) -> u8 {
        self.classes[(x * self.shape[1] + y) * self.shape[2] + z]
    }
}

struct Found {
    classes: Vec<u8>,
    evaluated: Vec<bool>,
    points: Vec<u64>,
}

/// Runs a search; `seeds` are the due points of the coarsest lattice (all without).
fn run(known: &Known, search: &Search, seeds: Option<&[f32]>) -> Found {
    let device = Device::cpu(2, 256 << 20).unwrap();
    let begin = |lattice: &mut Lattice| match seeds {
        None => lattice.mark_all(),
        Some(values) => {
            let values = Tensor::from_slice(&device, &lattice.shape(), Role::Transient, values)?;
            lattice.mark_above(&values, 0.5)
        }
    };
    let answer = |stride: usize, indices: &Tensor| {
        let mut classes = Tensor::empty(&device, &[indices.rows()], DType::U8, Role::Transient)?;
        let indices = indices.to_vec()?;
        let answers = indices.chunks_exact(3).map(|index| known.at([0, 1, 2].map(|k| index[k] as usize * stride)));
        classes.typed_mut::<u8>().iter_mut().zip(answers).for_each(|(to, class)| *to = class);
        Ok(classes)
    };
    let (lattice, points) = search.run(&device, known.shape, 3000, begin, answer).unwrap();
    Found { classes: lattice.to_classes().unwrap(), evaluated: lattice.to_evaluated().unwrap(), points }
}

impl Found {
    fn wrong(&self, known: &Known) -> usize {
        self.classes.iter().zip(&known.classes).filter(|(a, b)| a != b).count()
    }

    fn total(&self) -> u64 {
        self.points.iter().sum()
    }

    /// Each voxel whose 3³ neighbourhood in the result is not of one class was evaluated, and rightly.
    fn assert_closed(&self, known: &Known, what: &str) {
        let [nx, ny, nz] = known.shape;
        let result = Known { shape: known.shape, classes: self.classes.clone() };
        for (at, &class) in self.classes.iter().enumerate() {
            let (x, y, z) = (at / (ny * nz), at / nz % ny, at % nz);
            let near = |i: usize, n: usize| i.saturating_sub(1)..(i + 2).min(n);
            let mixed = near(x, nx).any(|x| near(y, ny).any(|y| near(z, nz).any(|z| result.at([x, y, z]) != class)));
            assert!(!mixed || self.evaluated[at], "{what}: {:?} was not evaluated", [x, y, z]);
            assert!(!self.evaluated[at] || class == known.classes[at], "{what}: {:?}", [x, y, z]);
        }
    }
}

fn mixed(stages: &[usize], margin: usize) -> Search {
    Search { stages: stages.to_vec(), rule: SearchRule::Mixed { margin }, seeded: false }
}

/// Some balls of different classes, cut off by the border.
fn balls(shape: [usize; 3], count: usize, seed: u64) -> Known {
    let mut rng = Rng::new(seed);
    let balls: Vec<([f64; 3], f64, u8)> = (0..count)
        .map(|i| {
            let centre = shape.map(|side| rng.below(side as u64) as f64);
            (centre, 3.0 + rng.below(8) as f64, 1 + (i % 3) as u8)
        })
        .collect();
    Known::new(shape, |point| {
        let inside = |(centre, radius, _): &&([f64; 3], f64, u8)| {
            (0..3).map(|k| (point[k] as f64 - centre[k]).powi(2)).sum::<f64>() <= radius * radius
        };
        balls.iter().find(inside).map_or(0, |ball| ball.2)
    })
}

#[test]
fn every_voxel_of_mixed_surroundings_is_evaluated() {
    for (seed, shape) in [[33, 29, 41], [16, 16, 16], [5, 70, 23], [1, 40, 38], [2, 3, 4]].into_iter().enumerate() {
        let noise = {
            let mut rng = Rng::new(seed as u64);
            let values: Vec<u8> = (0..shape.iter().product::<usize>()).map(|_| u8::from(rng.below(9) == 0)).collect();
            Known { shape, classes: values }
        };
        for known in [balls(shape, 5, seed as u64), balls(shape, 1, 9), noise, Known::new(shape, |_| 2)] {
            for stages in [&[4, 2, 1][..], &[8, 4, 2, 1], &[6, 3, 1], &[4, 1], &[2, 1], &[1]] {
                for margin in [0, 1, 2] {
                    let found = run(&known, &mixed(stages, margin), None);
                    found.assert_closed(&known, &format!("{shape:?} {stages:?} {margin}"));
                    // Nothing is asked twice.
                    assert_eq!(found.total(), found.evaluated.iter().filter(|&&evaluated| evaluated).count() as u64);
                    assert!(stages != [1] || found.wrong(&known) == 0);
                }
            }
        }
    }
}

/// A coarse point that claims a structure where there is none: only dense evaluation and the default rule see through it.
#[test]
fn coarse_false_positives_are_cleared() {
    let shape = [40, 40, 40];
    let known = Known::new(shape, |point| u8::from(point == [20, 20, 20]));
    let found = run(&known, &Search::hierarchical(), None);
    assert_eq!((found.wrong(&known), found.classes.iter().filter(|&&class| class != 0).count()), (0, 1));
    // A hole of one voxel likewise; the official rule looks only at background, and fills it.
    let known = Known::new(shape, |point| u8::from(point != [21, 20, 20] && point.iter().all(|i| (8..32).contains(i))));
    assert_eq!(
        run(&known, &mixed(&[4, 2, 1], 1), None).classes[(21 * 40 + 20) * 40 + 20],
        1,
        "no point touches the hole"
    );
    let known = Known::new(shape, |point| u8::from(point != [20, 20, 20] && point.iter().all(|i| (8..32).contains(i))));
    assert_eq!(run(&known, &Search::hierarchical(), None).wrong(&known), 0);
}

/// Surfaces that leave the seeds are followed, seeds of nothing are cleared.
#[test]
fn seeds_are_only_a_beginning() {
    let known = balls([48, 48, 48], 3, 4);
    let ball = known.classes.iter().position(|&class| class != 0).unwrap();
    let place = [ball / (48 * 48), ball / 48 % 48, ball % 48].map(|i| (i / 4) as i64);
    let mut seeds = vec![0.0; 12 * 12 * 12];
    for (at, seed) in seeds.iter_mut().enumerate() {
        let distance = [at / 144, at / 12 % 12, at % 12].iter().zip(place).map(|(&i, p)| (i as i64 - p).abs()).max();
        *seed = f32::from(u8::from(distance.unwrap() <= 1));
    }
    let search = Search { seeded: true, ..Search::hierarchical() };
    let found = run(&known, &search, Some(&seeds));
    found.assert_closed(&known, "seeded");
    assert!(found.total() < run(&known, &Search::hierarchical(), None).total());
    // The whole ball at the seed was found, whatever the seeds covered of it.
    let class = known.classes[ball];
    let reached = |found: &[u8]| found.iter().filter(|&&other| other == class).count();
    assert_eq!(reached(&found.classes), reached(&known.classes));
    let nothing = Known::new([48, 48, 48], |_| 0);
    assert_eq!(run(&nothing, &search, Some(&seeds)).wrong(&nothing), 0);
}

/// The table of `docs/inference.md`: what each rule costs and misses on the real labels of the sample.
#[test]
fn no_more_points_than_the_official_rule_on_the_sample() {
    println!("| case | voxels | official: points | wrong | default: points | wrong | margin 0: points | wrong |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for task in embedded::TASKS {
        let dataset = embedded::open(task).unwrap();
        let mut cases: Vec<_> = dataset.training.iter().chain(&dataset.validation).collect();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        cases.dedup_by(|a, b| a.name == b.name);
        for case in cases {
            let labels = dataset.read(case, Axes::Canonical).unwrap().labels.unwrap();
            let known =
                Known { shape: labels.shape, classes: labels.voxels.iter().map(|&v| u8::from(v > 0)).collect() };
            let official = run(&known, &Search::reference(), None);
            let ours = run(&known, &Search::hierarchical(), None);
            let bare = run(&known, &mixed(&[4, 2, 1], 0), None);
            print!("| {task}/{} | {}", case.name, known.classes.len());
            for found in [&official, &ours, &bare] {
                print!(" | {} | {}", found.total(), found.wrong(&known));
            }
            println!(" |");
            ours.assert_closed(&known, &case.name);
            // Small structures that no coarse point touches are missed by either rule: at most 3 in 1000 of the foreground.
            let foreground = known.classes.iter().filter(|&&class| class != 0).count();
            assert!(ours.wrong(&known) * 1000 <= 3 * foreground, "{task}/{}", case.name);
            // The main job and the solid structures of the sample.
            if ["heads", "tumour", "tissue"].contains(&task) {
                assert!(ours.total() <= official.total(), "{task}/{}", case.name);
            }
        }
    }
}

#[test]
fn impossible_stages() {
    for stages in [&[][..], &[2], &[4, 3, 1], &[1, 2], &[4, 0, 1], &[4096, 1], &[2, 2, 1]] {
        let message = mixed(stages, 1).check().unwrap_err().to_string();
        assert!(message.contains("4,2,1"), "{message}");
    }
}
