//! Where and when a result was made, and the version of its layout: in every JSON that commands print or write.

use std::io::Read;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::output::print;
use crate::data::{Case, Dataset};
use crate::error::{Error, Result};

/// Version of the JSON layouts: it grows when a key changes its meaning or goes; new keys may come at any time.
pub const SCHEMA_VERSION: u64 = 2;

/// The commit of a released build; builds from a work tree do not know theirs.
pub const COMMIT: Option<&str> = option_env!("OSSNET_COMMIT");

/// `result` with the version of its layout before its keys, and what made it behind them. A list becomes the value of `list`.
pub fn stamped(result: Value, list: &str) -> Value {
    let mut all = Map::new();
    all.insert("schema_version".into(), SCHEMA_VERSION.into());
    match result {
        Value::Object(entries) => all.extend(entries.into_iter().filter(|(key, _)| key != "schema_version")),
        other => drop(all.insert(list.into(), other)),
    }
    all.insert("made_by".into(), made_by());
    Value::Object(all)
}

/// As [`stamped`], with what it was made of: `data` names the data set, its cases, and a hash of them.
///
/// # Errors
/// A file of the data set that cannot be read.
pub fn stamped_with(result: Value, list: &str, data: Option<&Dataset>) -> Result<Value> {
    let mut stamped = stamped(result, list);
    if let Some(dataset) = data {
        stamped["data"] = json!({
            "name": dataset.name,
            "path": dataset.path.display().to_string(),
            "hash": data_hash(dataset.training.iter().chain(&dataset.validation))?,
        });
    }
    Ok(stamped)
}

/// As [`stamped_with`], from text to text.
///
/// # Errors
/// As there.
pub fn stamped_text(json: &str, list: &str, data: Option<&Dataset>) -> Result<String> {
    let result = serde_json::from_str(json)
        .map_err(|error| Error::Model(format!("a result is no JSON ({error}); report this")))?;
    Ok(format!("{:#}\n", stamped_with(result, list, data)?))
}

/// Bytes of each file that [`data_hash`] reads.
const HEAD: u64 = 1 << 16;

/// SHA-256 over name, length and first 64 KiB of each image and label: tells data apart without reading all of them.
///
/// # Errors
/// A file that cannot be read.
pub fn data_hash<'a>(cases: impl Iterator<Item = &'a Case>) -> Result<String> {
    let mut hash = Sha256::new();
    for case in cases {
        hash.update(case.name.as_bytes());
        for source in case.images.iter().chain(&case.label) {
            let mut head = Vec::new();
            let mut file = source.open()?.take(HEAD);
            file.read_to_end(&mut head).map_err(|error| Error::file(source.path(), error))?;
            hash.update(source.len()?.to_le_bytes());
            hash.update(&head);
        }
    }
    let digest = hash.finalize();
    Ok(digest.iter().fold(String::from("sha256-64k:"), |text, byte| text + &format!("{byte:02x}")))
}

/// Prints a result as JSON, stamped.
///
/// # Errors
/// Standard output that cannot be written.
pub fn print_json(result: Value, list: &str) -> Result<()> {
    print(format!("{:#}", stamped(result, list)))
}

/// Program, date and host.
fn made_by() -> Value {
    json!({
        "version": super::VERSION,
        "commit": COMMIT,
        "features": super::features().trim_start_matches("features: "),
        "date": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        "host_cpu": cpu(),
        "host_cores": std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// The processor's name, where the system tells.
pub fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_tell_their_layout_first_and_their_maker_last() {
        let result = stamped(json!({ "dice": 0.5 }), "cases");
        let keys: Vec<&String> = result.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["schema_version", "dice", "made_by"]);
        assert_eq!(stamped(result.clone(), "cases")["dice"], 0.5);
        assert_eq!(stamped(json!([1, 2]), "cases")["cases"], json!([1, 2]));
        let date = result["made_by"]["date"].as_str().unwrap();
        assert!(date.len() == 20 && date.ends_with('Z') && date.starts_with("20"), "{date}");
    }
}
