//! Configurations as TOML tables: one over another, names of earlier versions, unknown keys.

use std::path::Path;

use toml::{Table, Value};

use super::{Preset, RunConfig};
use crate::error::{Error, Result};
use crate::models::{Family, NetworkConfig};
use crate::train::settings::Augment;

/// A configuration's table with `given` over it; a name of `augment` stands for all changes that it makes.
pub(super) fn over(config: &RunConfig, given: Table) -> Result<Table> {
    let mut table = Table::try_from(config).map_err(unexpected)?;
    if let Some(name) = given.get("augment")
        && let Ok(named) = name.clone().try_into::<Augment>()
    {
        table.insert("augmentation".into(), Value::try_from(named.changes()).map_err(unexpected)?);
    }
    overlay(&mut table, given);
    Ok(table)
}

/// Puts the values of `upper` over those of `lower`, table by table.
pub(super) fn overlay(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => drop(lower.insert(key, value)),
        }
    }
}

/// Gives keys of earlier versions their present names. A file that an earlier version wrote has the key `network_config` beside
/// `preset`; under the sample's it meant the small variants.
pub(super) fn renamed(file: &mut Table) {
    let Some(name) = file.remove("network_config") else { return };
    let small = file.get("preset").and_then(Value::as_str) == Some("sample");
    let name = match name.as_str().filter(|_| small).map(|name| (name, format!("{name}-small"))) {
        Some((_, small)) if NetworkConfig::official(&small, Family::Brats).is_ok() => Value::String(small),
        _ => name,
    };
    file.entry("model").or_insert(name);
}

/// Refuses a file with a key that no configuration has, before flags or presets hide where it came from.
pub(super) fn check_keys(file: &Table, path: &Path) -> Result<()> {
    let known = Table::try_from(Preset::Sample.config(Preset::Sample.default_network())?).map_err(unexpected)?;
    let unknown = |table: &Table, known: &Table, section: &str| {
        let official = |key: &str| section.is_empty() && key == "dataset";
        let key = table.keys().find(|key| !(known.contains_key(*key) || official(key)))?;
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        Some(format!("unknown key {section}{key}: {}", crate::suggest::remedy(key, names.iter().copied())))
    };
    let sections = file.iter().filter_map(|(key, value)| match (value, known.get(key)) {
        (Value::Table(table), Some(Value::Table(known))) => unknown(table, known, &format!("{key}.")),
        _ => None,
    });
    match unknown(file, &known, "").into_iter().chain(sections).next() {
        Some(problem) => Err(Error::data(path, problem, "see `ossnet train --dump-config`")),
        None => Ok(()),
    }
}

/// What is said of a flag, `--batch-size must be …`, of the key of a file: `batch_size must be …`.
pub(super) fn key_of_flag(problem: &str) -> String {
    match problem.strip_prefix("--").and_then(|rest| rest.split_once(' ')) {
        Some((flag, rest)) => format!("{} {rest}", flag.replace('-', "_")),
        None => problem.into(),
    }
}

/// A parser's message without its line breaks.
pub(super) fn one_line(error: &toml::de::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Serialising these types does not fail; if it did, this says so.
pub(super) fn unexpected(error: toml::ser::Error) -> Error {
    Error::Usage(format!("the configuration cannot be written ({error}); report this"))
}
