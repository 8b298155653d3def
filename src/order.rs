//! Sorting by a key. The sort is compiled once, on pairs of a key and a place: with a closure for each type it would be a few
//! kilobytes of code each. Equal keys keep their order.

use std::collections::{BTreeMap, BTreeSet};

/// Sorts `items` by `key`, the smallest first.
pub(crate) fn by_key<T>(items: &mut Vec<T>, key: impl Fn(&T) -> u128) {
    let mut keys: Vec<(u128, usize)> = items.iter().enumerate().map(|(place, item)| (key(item), place)).collect();
    keys.sort_unstable();
    rearrange(items, keys.into_iter().map(|(_, place)| place));
}

/// Sorts `items` by `key`, the largest first.
pub(crate) fn by_key_descending<T>(items: &mut Vec<T>, key: impl Fn(&T) -> u128) {
    by_key(items, |item| !key(item));
}

/// Sorts `items` by a name.
pub(crate) fn by_name<T>(items: &mut Vec<T>, name: impl Fn(&T) -> &str) {
    let mut names: Vec<(&str, usize)> = items.iter().enumerate().map(|(place, item)| (name(item), place)).collect();
    names.sort_unstable();
    let places: Vec<usize> = names.into_iter().map(|(_, place)| place).collect();
    rearrange(items, places.into_iter());
}

/// A key that orders numbers as [`f64::total_cmp`] does.
pub(crate) fn of_number(x: f64) -> u128 {
    let bits = x.to_bits();
    u128::from(if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
}

/// The set of `items`. To collect one is to sort first, with a sort for each type.
pub(crate) fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    items.into_iter().for_each(|item| _ = set.insert(item));
    set
}

/// The map of `pairs`, the last of each key, as [`set`] makes it.
pub(crate) fn map<K: Ord, V>(pairs: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    pairs.into_iter().for_each(|(key, value)| _ = map.insert(key, value));
    map
}

/// Brings the item at the first of `places` to the front, and so on.
fn rearrange<T>(items: &mut Vec<T>, places: impl Iterator<Item = usize>) {
    let mut held: Vec<Option<T>> = std::mem::take(items).into_iter().map(Some).collect();
    items.extend(places.filter_map(|place| held[place].take()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// As the standard library's stable sorts, with many equal keys.
    #[test]
    fn equal_keys_keep_their_order() {
        let mut rng = Rng::new(3);
        for length in [0, 1, 2, 40, 1000] {
            let items: Vec<(u32, String, usize)> =
                (0..length).map(|place| (rng.below(9) as u32, format!("n{}", rng.below(9)), place)).collect();
            let (mut own, mut theirs) = (items.clone(), items.clone());
            by_key(&mut own, |item| item.0.into());
            theirs.sort_by_key(|item| item.0);
            assert_eq!(own, theirs);
            by_key_descending(&mut own, |item| item.0.into());
            theirs.sort_by_key(|item| std::cmp::Reverse(item.0));
            assert_eq!(own, theirs);
            by_name(&mut own, |item| &item.1);
            theirs.sort_by(|a, b| a.1.cmp(&b.1));
            assert_eq!(own, theirs);
        }
    }

    #[test]
    fn numbers_are_ordered_as_the_standard_orders_them() {
        let numbers = [-f64::NAN, f64::NEG_INFINITY, -1.5, -1e-310, -0.0, 0.0, 1e-310, 1.5, f64::INFINITY, f64::NAN];
        for (a, b) in numbers.iter().flat_map(|a| numbers.map(|b| (*a, b))) {
            assert_eq!(of_number(a).cmp(&of_number(b)), a.total_cmp(&b), "{a} and {b}");
        }
    }
}
