//! What training scripts put before the names of weights: `module.` (`DataParallel`), `_orig_mod.` (`torch.compile`), and the
//! names of the attributes that hold the network in an object of theirs, `net.` or `model.` mostly.

use std::collections::BTreeSet;

use super::{Array, StateDict};
use crate::order;

/// What PyTorch itself puts before every name.
const MODULE: &str = "module.";

/// What `torch.compile` puts before the names of what it compiles, at any depth.
const COMPILED: &str = "_orig_mod.";

/// Deepest network within objects that is looked for.
const DEEPEST: usize = 8;

/// The state without what `DataParallel` and `torch.compile` put before its names. Names that would meet stay as they are.
pub fn without_wrappers(state: StateDict) -> StateDict {
    let wrapped = |name: &str| name.contains(COMPILED) || name.starts_with(MODULE);
    if state.is_empty() || !state.iter().any(|(name, _)| wrapped(name)) {
        return state;
    }
    let mut names: Vec<String> = state.iter().map(|(name, _)| name.replace(COMPILED, "")).collect();
    while names.iter().all(|name| name.starts_with(MODULE)) {
        names.iter_mut().for_each(|name| *name = name[MODULE.len()..].to_owned());
    }
    if order::set(names.iter().map(String::as_str)).len() < names.len() {
        return state;
    }
    names.into_iter().zip(state).map(|(name, (_, array))| (name, array)).collect()
}

/// The part of the state that `fits`, with what stands before all of its names taken off: nothing, or one and the same
/// prefix that ends in a dot (the shortest that will do). The whole state if no part fits.
pub fn fitting(state: StateDict, fits: impl Fn(&StateDict) -> bool) -> StateDict {
    if fits(&state) {
        return state;
    }
    let prefixes_of = |name: &str| {
        let ends = name.char_indices().filter(|(_, letter)| *letter == '.').map(|(at, _)| at + 1).take(DEEPEST);
        ends.map(|end| name[..end].to_owned()).collect::<Vec<_>>()
    };
    let prefixes: BTreeSet<String> = order::set(state.iter().flat_map(|(name, _)| prefixes_of(name)));
    let mut prefixes: Vec<&String> = prefixes.iter().collect();
    order::by_key(&mut prefixes, |prefix| prefix.len() as u128);
    for prefix in prefixes {
        let own = state.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix.as_str())?, array)));
        let own: StateDict = own.map(|(name, array): (&str, &Array)| (name.to_owned(), array.clone())).collect();
        if fits(&own) {
            return own;
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(names: &[&str]) -> StateDict {
        let array = |place: usize| Array::f32(vec![1], vec![place as f32]).unwrap();
        names.iter().enumerate().map(|(place, name)| (name.to_string(), array(place))).collect()
    }

    fn names(state: &StateDict) -> Vec<&str> {
        state.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn wrappers_are_taken_off() {
        for before in ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."] {
            let wrapped = state(&[&format!("{before}a.weight"), &format!("{before}b.bias")]);
            assert_eq!(names(&without_wrappers(wrapped)), ["a.weight", "b.bias"], "{before}");
        }
        // A part of the network that was compiled.
        assert_eq!(names(&without_wrappers(state(&["net._orig_mod.a", "net.b"]))), ["net.a", "net.b"]);
        // What is not before every name belongs to the name.
        assert_eq!(names(&without_wrappers(state(&["module.a", "b"]))), ["module.a", "b"]);
        assert_eq!(names(&without_wrappers(state(&["_orig_mod.a", "a"]))), ["_orig_mod.a", "a"]);
    }

    #[test]
    fn the_part_that_fits_is_found() {
        let fits = |state: &StateDict| state.get("model.0.weight").is_some();
        for before in ["", "net.", "model.", "trainer.module.net."] {
            let wrapped =
                state(&["loss.weight", &format!("{before}model.0.weight"), &format!("{before}model.1.weight")]);
            let found = fitting(wrapped, fits);
            assert_eq!(names(&found)[found.len() - 2..], ["model.0.weight", "model.1.weight"], "{before}");
            assert_eq!(found.get("model.1.weight").unwrap().to_f32()[0], 2.0);
        }
        assert_eq!(names(&fitting(state(&["a.b"]), fits)), ["a.b"]);
    }
}
