//! `"labels"` of a `dataset.json`: classes, and the value of voxels that nobody has looked at.

use serde_json::{Map, Value};

use crate::data::dataset::Class;
use crate::order;

/// What nnU-Net calls voxels that are neither trained on nor scored.
const IGNORE: &str = "ignore";

/// What is to be written.
pub const REMEDY: &str = "write them as \"labels\": {\"0\": \"background\", \"1\": \"liver\"}";

/// The classes by value, and the value that is ignored. `{"0": "background", "1": "liver"}`, or name → value.
///
/// # Errors
/// What is wrong.
pub fn parse(entries: &Map<String, Value>) -> Result<(Vec<Class>, Option<u8>), String> {
    let (mut classes, mut regions, mut ignored) = (Vec::<Class>::new(), Vec::<Class>::new(), Vec::new());
    for (key, value) in entries {
        // nnU-Net's regions are unions of classes; the classes are what the files hold.
        if let Value::Array(members) = value {
            let members = members.iter().filter_map(|member| u8::try_from(member.as_u64()?).ok());
            regions.extend(members.map(|value| Class { value, name: format!("class {value}") }));
            continue;
        }
        let class = match value {
            Value::String(name) => key.parse().ok().map(|value| Class { value, name: name.clone() }),
            Value::Number(number) => {
                let value = number.as_u64().and_then(|n| u8::try_from(n).ok());
                value.map(|value| Class { value, name: key.clone() })
            }
            _ => None,
        };
        match class {
            Some(class) if class.name.eq_ignore_ascii_case(IGNORE) => ignored.push(class.value),
            Some(class) => classes.push(class),
            None => return Err(format!("has a label {key}: {value} that is no class number of 0 to 255")),
        }
    }
    for region in regions {
        if classes.iter().all(|class| class.value != region.value) {
            classes.push(region);
        }
    }
    order::by_key(&mut classes, |class| class.value.into());
    if classes.len() < 2 || classes[0].value != 0 || classes.windows(2).any(|pair| pair[0].value == pair[1].value) {
        return Err("does not declare background (0) and at least one class, each value once".into());
    }
    if let Some(both) = ignored.iter().find(|value| classes.iter().any(|class| class.value == **value)) {
        return Err(format!("gives the value {both} to a class and to what is ignored"));
    }
    match ignored[..] {
        [] => Ok((classes, None)),
        [value] => Ok((classes, Some(value))),
        _ => Err(format!("ignores several values, {ignored:?}, where one is possible")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<(Vec<u8>, Option<u8>), String> {
        let entries: Map<String, Value> = serde_json::from_str(json).unwrap();
        parse(&entries).map(|(classes, ignore)| (classes.iter().map(|class| class.value).collect(), ignore))
    }

    #[test]
    fn ignored_values_are_no_classes() {
        assert_eq!(parsed(r#"{"background": 0, "lesion": 1, "ignore": 2}"#), Ok((vec![0, 1], Some(2))));
        assert_eq!(parsed(r#"{"0": "background", "1": "lesion", "255": "Ignore"}"#), Ok((vec![0, 1], Some(255))));
        assert_eq!(parsed(r#"{"background": 0, "all": [1, 2], "core": 2, "ignore": 3}"#), Ok((vec![0, 1, 2], Some(3))));
        assert!(parsed(r#"{"background": 0, "ignore": 1}"#).unwrap_err().contains("at least one class"));
        assert!(parsed(r#"{"background": 0, "x": 1, "ignore": 1}"#).unwrap_err().contains("value 1"));
        assert!(parsed(r#"{"background": 0, "x": 1, "2": "ignore", "3": "ignore"}"#).unwrap_err().contains("[2, 3]"));
        assert!(parsed(r#"{"background": 0, "x": 1, "ignore": 300}"#).unwrap_err().contains("300"));
    }
}
