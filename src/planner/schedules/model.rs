//! What a schedule will take, as the sum of what each unit's choice changes; and the schedules that are best by these sums.
//!
//! A unit's *stretch* is its forward pass and its backward pass, what it recomputes included. The most bytes that live in it are
//! those of a step that was planned, changed by the unit's own choice and by that of each unit before it, whose values are held
//! meanwhile. A unit behind it is not there yet, or gone. So units are chosen in the order of the forward
//! pass, and what has been chosen matters to the rest in two numbers: the highest stretch so far and the bytes that are held.
//! The program keeps the fastest choice for each cell of a grid of the two. Which values two neighbours hold in common, and what
//! one recomputes for the other, is no sum; candidates are therefore planned before one is taken.

use std::collections::BTreeMap;

use super::Point;
use crate::memory::{Phase, Request};
use crate::models::{Recompute, UnitChoice};
use crate::order;

/// Cells of the grid along each side.
const CELLS: i64 = 96;

/// Most candidates.
const MOST: i64 = 40;

/// What a plan tells of a step.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Seconds, estimated.
    pub seconds: f64,
    /// Most live bytes in each unit's stretch.
    stretches: Vec<i64>,
    /// Live bytes when the first backward pass begins.
    held: i64,
    /// Most live bytes outside of all stretches.
    outside: i64,
}

impl Seen {
    /// From the step's requests. A forward pass is in the stretch of the last unit that it has come to, a backward pass in that
    /// of the last which is still to come: a unit that recomputes something for the next belongs to the next there.
    pub fn new(seconds: f64, requests: &[Request], layers: &[&str]) -> Self {
        let mut seen = Self { seconds, stretches: vec![0; layers.len()], held: 0, outside: 0 };
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let unit = |request: &Request| {
            let within = |layer: &str| {
                request.layer.strip_prefix(layer).is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'.', ..]))
            };
            let inner = layers.iter().enumerate().filter(|(_, layer)| within(layer));
            inner.max_by_key(|(_, layer)| layer.len()).map(|(unit, _)| unit)
        };
        let mut note = |unit: Option<usize>, request: &Request| {
            let live = bytes(request.live.total().saturating_add(request.lifetime.bytes));
            let place = unit.map_or(&mut seen.outside, |unit| &mut seen.stretches[unit]);
            *place = live.max(*place);
        };
        for pass in requests.chunk_by(|a, b| a.phase == b.phase) {
            let mut last = None;
            match pass[0].phase {
                Phase::Forward => pass.iter().for_each(|request| {
                    last = last.max(unit(request));
                    note(last, request);
                }),
                Phase::Backward => pass.iter().rev().for_each(|request| {
                    last = last.max(unit(request));
                    note(last, request);
                }),
                _ => pass.iter().for_each(|request| note(None, request)),
            }
        }
        let turn = requests.iter().find(|request| request.phase == Phase::Backward);
        seen.held = turn.map_or(0, |request| bytes(request.live.total()));
        seen
    }

    /// Most live bytes.
    pub fn peak(&self) -> u64 {
        self.stretches.iter().copied().fold(self.outside, i64::max) as u64
    }

    /// What it says of a schedule.
    pub fn point(&self, recompute: Recompute) -> Point {
        Point { recompute, peak: self.peak(), seconds: self.seconds, measured: None }
    }
}

/// What a choice of a unit changes.
#[derive(Clone, Debug)]
struct Effect {
    choice: UnitChoice,
    seconds: f64,
    stretches: Vec<i64>,
    held: i64,
}

/// The sums.
pub(super) struct Model {
    base: Seen,
    units: Vec<Vec<Effect>>,
}

/// Choices of the first units.
#[derive(Clone)]
struct Chosen {
    choices: Vec<UnitChoice>,
    seconds: f64,
    stretches: Vec<i64>,
    held: i64,
}

impl Model {
    /// Around a step of `units` units.
    pub fn new(base: &Seen, units: usize) -> Self {
        Self { base: base.clone(), units: vec![Vec::new(); units] }
    }

    /// Adds a choice of a unit, its present one included: what was `seen` with it and nothing else changed.
    pub fn add(&mut self, unit: usize, choice: UnitChoice, seen: &Seen) {
        let base = &self.base;
        self.units[unit].push(Effect {
            choice,
            seconds: seen.seconds - base.seconds,
            stretches: seen.stretches.iter().zip(&base.stretches).map(|(a, b)| a - b).collect(),
            held: seen.held - base.held,
        });
    }

    /// The schedules that are the fastest for their bytes, by the sums.
    pub fn candidates(&self) -> Vec<Vec<UnitChoice>> {
        let base = &self.base;
        let start =
            Chosen { choices: Vec::new(), seconds: base.seconds, stretches: base.stretches.clone(), held: base.held };
        let mut states = vec![start];
        for (unit, effects) in self.units.iter().enumerate() {
            let chosen = |state: &Chosen, effect: &Effect| Chosen {
                choices: state.choices.iter().copied().chain([effect.choice]).collect(),
                seconds: state.seconds + effect.seconds,
                stretches: state.stretches.iter().zip(&effect.stretches).map(|(a, b)| a + b).collect(),
                held: state.held + effect.held,
            };
            let all = states.iter().flat_map(|state| effects.iter().map(move |effect| chosen(state, effect))).collect();
            let highest = |state: &Chosen| state.stretches[..=unit].iter().copied().max().unwrap_or(0);
            states = fastest(all, CELLS, |state| [highest(state), state.held]);
        }
        let highest = |state: &Chosen| state.stretches.iter().copied().fold(base.outside, i64::max);
        let mut states = fastest(states, 4 * CELLS, |state| [highest(state), 0]);
        let rank = |bytes: i64| u128::from(bytes.cast_unsigned() ^ 1 << 63);
        order::by_key(&mut states, |state| order::of_number(state.seconds) << 64 | rank(highest(state)));
        let mut least = i64::MAX;
        states.retain(|state| {
            let smaller = highest(state) < least;
            least = least.min(highest(state));
            smaller
        });
        fastest(states, MOST, |state| [highest(state), 0]).into_iter().map(|state| state.choices).collect()
    }
}

/// Of the states in each cell of a grid over two numbers the fastest.
fn fastest(states: Vec<Chosen>, cells: i64, numbers: impl Fn(&Chosen) -> [i64; 2]) -> Vec<Chosen> {
    let mut ends = [[i64::MAX, i64::MIN]; 2];
    for state in &states {
        for (end, number) in ends.iter_mut().zip(numbers(state)) {
            *end = [end[0].min(number), end[1].max(number)];
        }
    }
    let cell = |state: &Chosen| {
        let numbers = numbers(state);
        [0, 1].map(|n| {
            let [least, most] = ends[n];
            (i128::from(numbers[n] - least) * i128::from(cells) / i128::from((most - least).max(1))) as i64
        })
    };
    let mut kept: BTreeMap<[i64; 2], Chosen> = BTreeMap::new();
    for state in states {
        let place = cell(&state);
        match kept.get_mut(&place) {
            Some(known) if (known.seconds, numbers(known)) <= (state.seconds, numbers(&state)) => {}
            Some(known) => *known = state,
            None => drop(kept.insert(place, state)),
        }
    }
    kept.into_values().collect()
}
